//! Health checks of an endpoint group (specification §1.8).

use std::{ops::RangeInclusive, time::Duration};

/// How long a probe may take, whatever the configuration says.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);

/// Ports that probes leave from: those that no listener can have.
pub const PROBE_PORTS: RangeInclusive<u16> = 65_500..=65_535;

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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// What is believed before the first verdict: healthy, traffic until proven bad, unless the file says otherwise.
    pub initially_healthy: bool,
    /// Statuses that an HTTP or HTTPS probe takes for success, in order: 200–399.
    pub expected_status: Vec<StatusRange>,
    /// Text that must be in the first 64 KiB of the body.
    pub body: Option<String>,
    /// Whether the certificate of an HTTPS probe must be right; not by default.
    pub verify: bool,
    /// Instead of `interval` while probes speak against what is believed; 100 ms to `interval`.
    pub fast_interval: Option<Duration>,
    /// 1–900 s in which the share of an endpoint rises after it recovered.
    pub slow_start: Option<Duration>,
    /// 1–900 s that an endpoint stays down which falls again soon after it recovered; doubled with every fall, up to 64 times.
    pub hold_down: Option<Duration>,
}

/// The first and the last of some HTTP statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl StatusRange {
    /// Whether `status` is one of them.
    pub const fn contains(self, status: u16) -> bool {
        self.first <= status && status <= self.last
    }
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
            initially_healthy: true,
            expected_status: vec![StatusRange { first: 200, last: 399 }],
            body: None,
            verify: false,
            fast_interval: None,
            slow_start: None,
            hold_down: None,
        }
    }
}
