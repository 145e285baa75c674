//! What the file says about this host.

use std::{net::SocketAddr, ops::RangeInclusive};

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
    /// Source ports towards endpoints (default 1024–64511; the agent's own connections take others).
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
    /// Threads of the proxy; as many as the host has CPUs when absent.
    pub proxy_threads: Option<u16>,
}
