//! Forwarding rules (specification §1.15).

use ipnet::IpNet;

use super::Name;

/// One rule of a listener. It applies to what meets all its conditions, of which those on the path count as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, unique in the listener.
    pub name: Name,
    /// 1–10000: lower ones are tried first.
    pub priority: u16,
    /// What must hold.
    pub conditions: Vec<Condition>,
    /// What is changed before it is forwarded, in order.
    pub modifiers: Vec<Modifier>,
    /// What is done.
    pub action: Action,
}

/// Text with wildcards, or a regular expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// `*` stands for any run of characters, `?` for one.
    Wildcard(String),
    /// Written with a `~` in front.
    Regex(String),
}

/// What a request must be like; one of the values of a condition is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The host, or the server name of TLS, in any case and without port.
    Host(Vec<Pattern>),
    /// The path without query.
    Path(Vec<Pattern>),
    /// A header has one of the values.
    Header(String, Vec<String>),
    /// One of the pairs is in the query.
    Query(Vec<(String, String)>),
    /// The method.
    Method(Vec<String>),
    /// One of the cookies is there.
    Cookie(Vec<(String, String)>),
    /// The peer's address is in one of the networks.
    SourceIp(Vec<IpNet>),
}

/// What is changed of a request before it is forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Modifier {
    /// Host, path and query; `${host}`, `${path}`, `${query}` and `${1}` to `${3}` stand for what was there.
    Rewrite {
        /// `${host}` unless given.
        domain: String,
        /// `${path}` unless given.
        path: String,
        /// `${query}` unless given.
        query: String,
    },
    /// A header is added.
    AddHeader(String, HeaderValue),
    /// Headers are removed.
    RemoveHeader(Vec<String>),
}

/// Where the value of an added header is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderValue {
    /// The file.
    Text(String),
    /// Another header of the request.
    Ref(String),
    /// The client's address (`ClientSrcIp`).
    ClientSrcIp,
}

/// What a rule does in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// To endpoints of one or several groups of the listener.
    Forward(Vec<Name>),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// The edge answers.
    Fixed(FixedResponse),
    /// Nobody answers.
    Drop,
}

/// Where clients are sent. `${protocol}`, `${host}`, `${port}`, `${path}` and `${query}` stand for what the request has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301 (unless given), 302, 303, 307 or 308.
    pub code: u16,
    /// `${protocol}` unless given, `HTTP` or `HTTPS`.
    pub protocol: String,
    /// `${host}` unless given.
    pub domain: String,
    /// `${port}` unless given.
    pub port: String,
    /// `${path}` unless given.
    pub path: String,
    /// `${query}` unless given.
    pub query: String,
}

/// An answer of the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedResponse {
    /// 2xx, 4xx or 5xx.
    pub code: u16,
    /// `text/plain`, `text/css`, `text/html`, `application/javascript` or `application/json`.
    pub content_type: String,
    /// At most 1000 ASCII characters.
    pub content: String,
}
