//! `[inventory]` and `[[vserver_group]]` as JSON Schema.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::{empty, health_check::HealthCheck};
use crate::model;

/// What names of hosts and interfaces stand for.
#[derive(Default, JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Inventory {
    /// Names and their addresses, the primary one first. They come before what `file` and `url` say.
    #[schemars(default)]
    pub hosts: BTreeMap<String, HostAddresses>,
    /// Full path of a file of names, TOML or JSON (`.json`); read again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, with = "String")]
    pub file: Option<String>,
    /// Where names are polled, `http://…` or `https://…`, TOML or JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, with = "String")]
    pub url: Option<String>,
    /// Full path of the certificates (PEM) that vouch for the server of an `https://` address, instead of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, with = "String")]
    pub ca: Option<String>,
    /// How often `url` is asked, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, with = "u32", range(min = 5, max = 3_600))]
    pub interval: Option<u32>,
}

/// One address, or several with the primary one first.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
pub enum HostAddresses {
    /// One address.
    One(String),
    /// Several; the first is the primary one.
    Several(#[schemars(length(min = 1, max = 64))] Vec<String>),
}

/// A pool of servers with ports and weights of their own.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct VserverGroup {
    /// Its name, unique in the file.
    #[schemars(regex(pattern = r"^[A-Za-z][A-Za-z0-9._-]{0,127}$"))]
    pub name: String,
    /// Free text of at most 200 characters that is not a link.
    #[schemars(default = "empty", length(max = 200))]
    pub description: String,
    /// How the servers are probed, of a listener that names the group, and of an endpoint group that says nothing and has no other
    /// endpoints. Without a port each is probed at its own.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "HealthCheck")]
    pub health_check: Option<HealthCheck>,
    /// Its members, each address and port once.
    #[schemars(length(min = 1))]
    pub servers: Vec<Server>,
}

/// A member of a server group.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Server {
    /// An IP address, none of our own, or a name of the inventory.
    pub address: String,
    /// The port it serves, whatever the listener's.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: u16,
    /// Its part of the group's traffic; 0: no new flows.
    #[schemars(default = "full_pool_weight", range(min = 0, max = 100))]
    pub weight: u8,
    /// Free text of 1 to 80 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, with = "String", length(min = 1, max = 80))]
    pub description: Option<String>,
}

fn full_pool_weight() -> u8 {
    model::PoolWeight::MAX
}
