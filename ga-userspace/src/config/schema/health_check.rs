//! The keys of `health_check`.

use schemars::JsonSchema;
use serde::Serialize;

use super::{tcp, yes};
use crate::model;

/// How endpoints are probed. A probe fails after 3 s, which cannot be changed; the next one starts `interval` after it ended.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct HealthCheck {
    /// `false`: as if the table were not there.
    #[schemars(default = "yes")]
    pub enabled: bool,
    /// `tcp`: a connection that is accepted; `http`, `https`: the answer to a GET. In any case.
    #[schemars(default = "tcp", regex(pattern = r"^([tT][cC][pP]|[hH][tT][tT][pP][sS]?)$"))]
    pub protocol: String,
    /// Where probes connect. Without it: where the first port of the listener is served.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "u16", range(min = 1, max = 65_535))]
    pub port: Option<u16>,
    /// What an HTTP or HTTPS probe asks for.
    #[schemars(default = "root", length(max = 1_024), regex(pattern = r"^/[!-~]*$"))]
    pub path: String,
    /// The Host header of an HTTP or HTTPS probe, and the server name of the latter. Without it: address and port.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "String", length(min = 1, max = 1_024))]
    pub host: Option<String>,
    /// Seconds from the end of a probe to the start of the next.
    #[schemars(default = "two", range(min = 1, max = 50))]
    pub interval: u8,
    /// So many probes in a row change the verdict, either way.
    #[schemars(default = "three", range(min = 2, max = 10))]
    pub threshold: u8,
    /// What endpoints count as before the first verdict.
    #[schemars(default = "healthy")]
    pub initial: Initial,
    /// Statuses that are success: `200,204,300~399`. HTTP and HTTPS only.
    #[schemars(
        default = "statuses",
        regex(pattern = r"^\s*[1-5][0-9]{2}\s*([~-]\s*[1-5][0-9]{2}\s*)?(,\s*[1-5][0-9]{2}\s*([~-]\s*[1-5][0-9]{2}\s*)?)*$")
    )]
    pub expected_status: String,
    /// Text that must be in the first 64 KiB of the body. HTTP and HTTPS only.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "String", length(min = 1, max = 1_024))]
    pub body: Option<String>,
    /// Whether certificates must be right: made out to the host by an authority that this host trusts. HTTPS only.
    #[schemars(default)]
    pub verify: bool,
    /// Milliseconds instead of `interval` while probes speak against the verdict.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "u16", range(min = 100, max = 50_000))]
    pub fast_interval_ms: Option<u16>,
    /// Seconds in which the share of an endpoint that recovered rises to all of it.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "u16", range(min = 1, max = 900))]
    pub slow_start: Option<u16>,
    /// Seconds that an endpoint stays down which fell again soon after it recovered; doubled each time, up to 64 times.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "u16", range(min = 1, max = 900))]
    pub hold_down: Option<u16>,
}

/// What endpoints count as before the first verdict.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Initial {
    /// Traffic until proven bad.
    Healthy,
    /// No traffic until proven good.
    Unhealthy,
}

fn root() -> String {
    model::HealthCheck::default().path
}

fn two() -> u8 {
    2
}

fn three() -> u8 {
    model::HealthCheck::default().threshold
}

fn healthy() -> Initial {
    Initial::Healthy
}

fn statuses() -> String {
    "200~399".to_owned()
}
