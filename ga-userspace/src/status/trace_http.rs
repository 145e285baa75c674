//! Orders to explain a request, and explanations.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Which request to explain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpTraceOrder {
    /// `instance/listener` or the listener's name; the only one that has requests or server names when none is named.
    #[serde(default)]
    pub listener: Option<String>,
    /// The host that the client asks for; for a TCP listener the server name of its TLS.
    pub host: String,
    /// The client speaks TLS: HTTP listeners are not meant.
    #[serde(default)]
    pub tls: bool,
    /// The server name of its TLS where that is not the host: of a connection that is used for another host, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Path and query.
    pub target: String,
    /// The method.
    pub method: String,
    /// Names and values, in order.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Where the client is; somewhere on the documentation networks when none is named.
    #[serde(default)]
    pub client: Option<IpAddr>,
}

/// What would become of a request, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpTrace {
    /// [`SCHEMA_VERSION`](super::SCHEMA_VERSION).
    pub schema_version: u32,
    /// `instance/listener`.
    pub listener: String,
    /// Where the client is.
    pub client: IpAddr,
    /// The host as rules see it.
    pub host: String,
    /// Path and query as rules see them and as they are forwarded.
    pub target: String,
    /// What the client is shown; of HTTPS listeners only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsShown>,
    /// The rules that were tried, in order.
    pub tried: Vec<RuleTried>,
    /// The rule that applies; none when none does, and the default endpoint groups serve the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// `forward`, `redirect`, `fixed_response` or `drop`; `misdirected` when the host is not for this connection.
    pub action: String,
    /// The answer of the edge: its status, and where it sends the client or what it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// What the endpoint is asked for when the rule changes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewritten: Option<HttpRewritten>,
    /// The endpoint, where the client's address alone decides: `client_affinity = "source_ip"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Who may get it, and how much of such requests they get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<HttpCandidate>,
}

/// What a handshake shows the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsShown {
    /// The server name; none of a client that asks for an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// The domain whose certificate is shown, `default` for the default one; none when its files cannot be read here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Whether that certificate is good for what the client asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_believed: Option<bool>,
}

/// A rule that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleTried {
    /// Its name.
    pub rule: String,
    /// Its priority.
    pub priority: u16,
    /// Why it does not apply; none when it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmet: Option<String>,
}

/// What an endpoint is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpRewritten {
    /// The host.
    pub host: String,
    /// Path and query.
    pub target: String,
    /// Headers that are added or changed, as `name: value`.
    pub set: Vec<String>,
    /// Headers that are removed.
    pub removed: Vec<String>,
}

/// An endpoint that may get the request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpCandidate {
    /// Its group.
    pub group: String,
    /// Where it is reached.
    pub address: SocketAddr,
    /// Its part of such requests, 0 to 1.
    pub share: f64,
    /// The host that it is asked for, where that is neither the client's nor a rule's: an object store knows its own domains only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}
