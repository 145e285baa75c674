//! Health checks of an endpoint group (specification §1.8).

use std::time::Duration;

/// What a probe speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HealthProtocol {
    /// A connection that is accepted.
    #[default]
    Tcp,
    /// `GET` over HTTP.
    Http,
    /// `GET` over HTTPS.
    Https,
}

impl HealthProtocol {
    /// The TOML word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// How the endpoints of a group are probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What a probe speaks.
    pub protocol: HealthProtocol,
    /// Where it connects; `None` is the endpoint port of the listener's first port.
    pub port: Option<u16>,
    /// What an HTTP or HTTPS probe asks for; begins with `/`.
    pub path: String,
    /// The `Host` of an HTTP or HTTPS probe; `None` is the endpoint's address and port.
    pub host: Option<String>,
    /// 1–50 s (2), from the end of a probe to the start of the next.
    pub interval: Duration,
    /// 2–10 (3): that many verdicts in a row change the belief, both ways.
    pub threshold: u8,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            protocol: HealthProtocol::Tcp,
            port: None,
            path: "/".to_owned(),
            host: None,
            interval: Duration::from_secs(2),
            threshold: 3,
        }
    }
}
