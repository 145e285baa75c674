//! What the agent did for listeners that it serves itself.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// Of a listener, since the agent began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxied {
    /// Connections that clients opened.
    pub connections: u64,
    /// Those that are open.
    pub active: u64,
    /// As many may be open.
    #[serde(default)]
    pub max_connections: u64,
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
    /// What its endpoint groups have, and what was refused because they had as much as they may.
    #[serde(default)]
    pub circuits: Vec<Circuit>,
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

/// What an endpoint group of such a listener has at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Circuit {
    /// The group.
    pub group: String,
    /// Connections that are used, and how many it may have.
    pub connections: [u32; 2],
    /// Requests that are not answered to their end, and how many it may have.
    pub requests: [u32; 2],
    /// Requests and connections that were refused since the agent began.
    pub refused: u64,
}

impl Circuit {
    /// The next would be refused.
    pub fn is_full(&self) -> bool {
        [self.connections, self.requests].iter().any(|[open, most]| open >= most)
    }
}

impl fmt::Display for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, connections, requests, refused } = self;
        let ([used, used_most], [open, open_most]) = (connections, requests);
        let full = if self.is_full() { "full, " } else { "" };
        write!(f, "group {group} {full}{used} of {used_most} connections, {open} of {open_most} requests, {refused} refused")
    }
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
