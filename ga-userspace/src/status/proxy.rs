//! What the agent did for listeners that it serves itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Of a listener, since the agent began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxied {
    /// Connections that clients opened.
    pub connections: u64,
    /// Those that are open.
    pub active: u64,
    /// Requests that were answered, or connections that were relayed.
    pub requests: u64,
    /// Answers by the class of their status: `2xx`.
    pub statuses: BTreeMap<String, u64>,
    /// Bytes of bodies or connections from clients.
    pub bytes_in: u64,
    /// Bytes of bodies or connections to clients.
    pub bytes_out: u64,
    /// Requests sent once more, to another endpoint or on a fresh connection.
    pub retries: u64,
    /// Requests and connections that failed, by reason.
    pub failures: BTreeMap<String, u64>,
    /// Requests and connections that forwarding rules applied to, in the order of the rules.
    pub rules: Vec<RuleHits>,
    /// Why some of its addresses are not listened on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trouble: Vec<String>,
}

/// Of a forwarding rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleHits {
    /// Its name.
    pub rule: String,
    /// Its place: lower ones are tried first.
    #[serde(default)]
    pub priority: u16,
    /// What it does: `forward to api`, `redirect 308`, `fixed response 503`, `drop`.
    #[serde(default)]
    pub does: String,
    /// How often it applied.
    pub hits: u64,
}

/// A certificate of an HTTPS listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// `instance/listener`.
    pub listener: String,
    /// The domain; `default` for the default one.
    pub name: String,
    /// When it is not good any more, in Unix seconds.
    pub not_after: i64,
    /// Why its files as they are now cannot be used; the one before is in use then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// How often its files could not be used since the agent started.
    pub failures: u64,
}

/// Of an endpoint of such a listener, since the agent began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxiedEndpoint {
    /// Connections opened to it.
    pub connections: u64,
    /// Requests that a connection was at hand for.
    pub reused: u64,
    /// Requests or connections that it has.
    pub active: u64,
    /// Requests or connections that it was given.
    pub requests: u64,
    /// Answers by the class of their status.
    pub statuses: BTreeMap<String, u64>,
    /// Bytes of bodies or connections to it.
    pub bytes_in: u64,
    /// Bytes of bodies or connections from it.
    pub bytes_out: u64,
    /// What it failed with.
    pub failures: BTreeMap<String, u64>,
}
