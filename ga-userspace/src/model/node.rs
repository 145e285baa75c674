//! What the file says about this host.

use std::{net::SocketAddr, ops::RangeInclusive, time::Duration};

use super::PROBE_PORTS;

/// Key of the one hash: 16 bytes, written as 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub [u64; 2]);

/// How the program is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// Native; where the driver refuses, generic, and that is announced.
    #[default]
    Auto,
    /// Native or nothing.
    Native,
    /// Generic.
    Generic,
}

impl XdpMode {
    /// The TOML word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// `access_log` of `[node]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Full path of the file; it is made anew when it was moved away.
    pub path: String,
    /// What a line looks like.
    pub format: LogFormat,
    /// 1–100: so many of a hundred requests are written, and all that failed.
    pub sample: u8,
}

/// What a line of the access log looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// An object of JSON.
    #[default]
    Json,
    /// Words, much as HAProxy writes them.
    Text,
}

/// `[node]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The access point's name.
    pub ap: String,
    /// Interfaces that carry client or endpoint traffic; at least one.
    pub interfaces: Vec<String>,
    /// How the program is attached to them.
    pub xdp_mode: XdpMode,
    /// Flows of each family that fit (default 65,536).
    pub flows: u32,
    /// Source ports of flows towards endpoints (default 1024–64511; 16384–64511 where the agent serves listeners itself).
    pub nat_ports: RangeInclusive<u16>,
    /// Key of the hash; chosen at random and kept in the maps when absent. Edges that must agree need the same one.
    pub hash_seed: Option<Seed>,
    /// Where Prometheus scrapes (default 127.0.0.1:9464); `None` switches it off.
    pub metrics: Option<SocketAddr>,
    /// DNS servers to ask for domains; those of the host when empty.
    pub resolvers: Vec<SocketAddr>,
    /// When more than this part of an instance's probed endpoints, in per cent, begin to fail at once, the fault is taken to be this
    /// host's: nobody is taken out. `None`: never.
    pub panic_threshold: Option<u8>,
    /// Where requests of listeners that the agent serves are written to when they have ended; nowhere when absent.
    pub access_log: Option<AccessLog>,
    /// Threads of the proxy; as many as the host has CPUs when absent.
    pub proxy_threads: Option<u16>,
    /// Connections of clients that the proxy has at a time, over all listeners (200,000).
    pub proxy_connections: u32,
    /// How long connections may take to end when the agent stops or another one has taken over (30 s); then they are cut.
    pub drain_timeout: Duration,
}

impl Node {
    /// Source ports of the agent's own connections to endpoints, from egress addresses, for clients that it serves itself: no flow has
    /// one of them, so that what endpoints answer passes to this host. Those below or those above [`nat_ports`](Self::nat_ports) and
    /// below [`PROBE_PORTS`], whichever are more; an empty range where there are none.
    pub fn proxy_ports(&self) -> RangeInclusive<u16> {
        beside(&self.nat_ports)
    }
}

fn beside(nat_ports: &RangeInclusive<u16>) -> RangeInclusive<u16> {
    const FIRST: u16 = 1_024;
    let below = FIRST..=nat_ports.start().saturating_sub(1);
    let above = nat_ports.end().saturating_add(1).max(FIRST)..=PROBE_PORTS.start() - 1;
    if above.len() > below.len() { above } else { below }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_own_connections_take_ports_that_no_flow_and_no_probe_has() {
        assert_eq!(beside(&(16_384..=64_511)), 1_024..=16_383);
        assert_eq!(beside(&(1_024..=64_511)), 64_512..=65_499);
        assert_eq!(beside(&(1_024..=32_767)), 32_768..=65_499);
        assert_eq!(beside(&(2_000..=65_000)), 1_024..=1_999);
        assert_eq!(beside(&(1..=700)), 1_024..=65_499);
        assert!(beside(&(1..=65_535)).is_empty());
    }
}
