//! What came of one probe.

use std::{fmt, time::Duration};

/// What came of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint is well.
    Passed {
        /// From the first packet to the accepted connection: one round trip.
        connected: Duration,
    },
    /// The endpoint is not.
    Failed(Reason),
    /// This host could not ask; nothing is known of the endpoint.
    Unable(String),
}

/// Why a probe failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The connection was refused.
    Refused,
    /// No answer within [`crate::model::HEALTH_TIMEOUT`].
    Timeout,
    /// A router, or this host, knows no way there.
    Unreachable,
    /// The connection broke, or what came is no HTTP.
    Broken(String),
    /// No secure connection: what TLS said.
    Tls(String),
    /// A status that is not expected.
    Status(u16),
    /// The text that must be in the body is not.
    Body,
}

impl Reason {
    /// What sort of failure: a bounded set of words, for metrics.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Broken(_) => "broken",
            Self::Tls(_) => "tls",
            Self::Status(_) => "status",
            Self::Body => "body",
        }
    }
}

impl Outcome {
    /// Every word that [`word`](Self::word) has.
    pub const WORDS: [&'static str; 9] =
        ["passed", "refused", "timeout", "unreachable", "broken", "tls", "status", "body", "unable"];

    /// What sort of outcome: a bounded set of words, for metrics.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Passed { .. } => "passed",
            Self::Failed(reason) => reason.word(),
            Self::Unable(_) => "unable",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused | Self::Timeout | Self::Unreachable => f.write_str(self.word()),
            Self::Broken(what) => write!(f, "broken: {what}"),
            Self::Tls(what) => write!(f, "tls: {what}"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Body => f.write_str("body without the expected text"),
        }
    }
}
