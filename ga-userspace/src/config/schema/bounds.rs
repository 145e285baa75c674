//! How much an endpoint group is asked at a time.

use schemars::JsonSchema;
use serde::Serialize;

use crate::model;

/// What the endpoints of a group are asked at a time; a further request gets 503, a further connection of a tcp listener is reset.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Circuit {
    /// Connections that carry a request, are upgraded, or are relayed; those of HTTP/2 while they are open.
    #[schemars(default = "connections", range(min = 1, max = 1_000_000))]
    pub connections: u32,
    /// Requests that are not answered to their end; none of tcp listeners.
    #[schemars(default = "requests", range(min = 1, max = 1_000_000))]
    pub requests: u32,
}

fn connections() -> u32 {
    model::Circuit::default().connections
}

fn requests() -> u32 {
    model::Circuit::default().requests
}
