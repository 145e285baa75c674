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
    /// Header names with an underscore are forwarded (false): servers may take them for others.
    pub underscores: bool,
    /// How long each side is waited for.
    pub timeouts: Timeouts,
    /// How large and how many.
    pub limits: HttpLimits,
}

/// How long clients and endpoints of an HTTP or HTTPS listener are waited for; there is no state without an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// The first byte of a connection (10 s).
    pub first_byte: Duration,
    /// The whole head of a request, from its first byte (15 s): then 408.
    pub head: Duration,
    /// Between pieces of a request's body (60 s): then 408.
    pub body: Duration,
    /// Until the client takes more of its answer (60 s).
    pub write: Duration,
    /// Until an endpoint has taken a connection, TLS included (3 s): then another is asked.
    pub connect: Duration,
    /// Between pieces of an answer's body (300 s).
    pub stream: Duration,
    /// Between bytes of an upgraded connection, in either direction (1 h).
    pub tunnel: Duration,
    /// Bytes a second that a client must send of a body, and take of its answers; it may fall behind by [`Self::body`] and
    /// [`Self::write`] (0: any).
    pub min_rate: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            first_byte: Duration::from_secs(10),
            head: Duration::from_secs(15),
            body: Duration::from_secs(60),
            write: Duration::from_secs(60),
            connect: Duration::from_secs(3),
            stream: Duration::from_secs(300),
            tunnel: Duration::from_secs(3600),
            min_rate: 0,
        }
    }
}

/// How much clients of an HTTP or HTTPS listener may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Bytes of a request's head (32 KiB): then 431.
    pub head: usize,
    /// Fields of a request's head (100): then 431.
    pub fields: usize,
    /// Bytes of a request's target (8 KiB): then 414.
    pub target: usize,
    /// Streams of a connection of HTTP/2 at a time (100).
    pub streams: u32,
    /// Streams that a client may reset before the edge got to them (100).
    pub resets: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self { head: 32 * 1024, fields: 100, target: 8 * 1024, streams: 100, resets: 100 }
    }
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
