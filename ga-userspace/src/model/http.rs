//! What HTTP and HTTPS listeners have that others have not (specification §1.2, §1.12), and what their endpoints are spoken to with
//! (§1.4).

use std::time::Duration;

use ipnet::IpNet;

/// Versions of HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HttpVersion {
    /// HTTP/1.0 and HTTP/1.1.
    Http1,
    /// HTTP/2.
    #[default]
    Http2,
    /// HTTP/3.
    Http3,
}

/// Headers for endpoints that are off unless the file names them. Those that clients send are removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardedHeaders {
    /// `GA-ID`: the instance.
    pub ga_id: bool,
    /// `GA-AP`: this edge's access point.
    pub ga_ap: bool,
    /// `GA-X-Forward-Proto`: `http` or `https`.
    pub proto: bool,
    /// `GA-X-Forward-Port`: the listener's port.
    pub port: bool,
    /// `X-Real-IP`: the client's address.
    pub real_ip: bool,
}

/// What becomes of an `X-Forwarded-For` that clients send; their own address is in it in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Xff {
    /// The client's address is added at its end.
    #[default]
    Append,
    /// It is replaced by the client's address.
    Replace,
}

/// HTTP of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// The newest version that clients may speak.
    pub max_version: HttpVersion,
    /// 1–180 s (60): from the end of a request to the first byte of its answer.
    pub request_timeout: Duration,
    /// Headers that endpoints get.
    pub forwarded: ForwardedHeaders,
    /// What becomes of what clients say of themselves.
    pub xff: Xff,
    /// Proxies in front of this edge, whose `X-Forwarded-For` is believed with [`Xff::Replace`] too.
    pub trusted: Vec<IpNet>,
}

/// What endpoints of an HTTP or HTTPS listener are spoken to with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Backend {
    /// TLS to the endpoint; none is plain HTTP.
    pub tls: Option<BackendTls>,
    /// HTTP/2, which needs TLS.
    pub http2: bool,
}

/// TLS to endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackendTls {
    /// Certificates are verified (true).
    pub verify: bool,
    /// Full path of the certificates (PEM) that vouch for endpoints, instead of the system's.
    pub ca: Option<String>,
}
