//! What HTTP and HTTPS listeners have that others have not, and who sends headers of the PROXY protocol.

use schemars::JsonSchema;
use serde::Serialize;

/// Who sends headers of the PROXY protocol.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Networks: connections from them must begin with a header, which says who the client is. Bytes of others are theirs alone.
    #[schemars(length(min = 1))]
    pub from: Vec<String>,
}

/// Versions of HTTP.
#[derive(JsonSchema, Serialize)]
pub enum HttpVersion {
    /// HTTP/1.1.
    #[serde(rename = "http1.1")]
    Http1,
    /// HTTP/2, or HTTP/1.1 with clients that do not speak it.
    #[serde(rename = "http2")]
    Http2,
    /// HTTP/3 over UDP at the same port, announced by `Alt-Svc`, or HTTP/2 or HTTP/1.1 with clients that do not speak it. No other
    /// listener of the instance may have the port for UDP.
    #[serde(rename = "http3")]
    Http3,
}

/// A header for endpoints.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ForwardedHeader {
    /// `GA-ID`: the instance.
    GaId,
    /// `GA-AP`: the access point, `node.ap`.
    GaAp,
    /// `GA-X-Forward-Proto`: `http` or `https`.
    Proto,
    /// `GA-X-Forward-Port`: the listener's port.
    Port,
    /// `X-Real-IP`: the client's address.
    RealIp,
}

/// What becomes of an `X-Forwarded-For` that clients send.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Xff {
    /// The client's address is added to it.
    Append,
    /// The client's address replaces it.
    Replace,
}
