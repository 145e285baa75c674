//! How much listeners and endpoint groups that the agent serves may have at a time.

/// Connections of clients that the proxy has at a time, over all listeners, when the file does not say.
pub const PROXY_CONNECTIONS: u32 = 200_000;

/// Connections of clients that one listener has at a time, when the file does not say.
pub const MAX_CONNECTIONS: u32 = 100_000;

/// What the endpoints of a group are asked at a time; more is refused at once, so that a group that has become slow does not take the
/// edge with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Circuit {
    /// Connections that carry requests or are relayed (1024). Those that wait for the next request are none of them.
    pub connections: u32,
    /// Requests that are sent and not answered to their end (1024).
    pub requests: u32,
}

impl Default for Circuit {
    fn default() -> Self {
        Self { connections: 1024, requests: 1024 }
    }
}
