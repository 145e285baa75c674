//! Server groups: pools of servers with a port and a weight of their own (specification §1.20, §2.6).

use std::{fmt, net::IpAddr};

use super::Name;

/// 0–100, 100 by default: another range than that of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolWeight(pub u8);

impl PoolWeight {
    /// The highest.
    pub const MAX: u8 = 100;
}

impl Default for PoolWeight {
    fn default() -> Self {
        Self(Self::MAX)
    }
}

impl fmt::Display for PoolWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServerPlace {
    /// At an address.
    Address(IpAddr),
    /// At the primary address of a name of the inventory.
    Host(String),
}

impl fmt::Display for ServerPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Host(name) => f.write_str(name),
        }
    }
}

/// A member of a pool. No two have the same place and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it is.
    pub place: ServerPlace,
    /// The port it serves, whatever the listener's.
    pub port: u16,
    /// Its part of the pool's traffic.
    pub weight: PoolWeight,
    /// Free text.
    pub description: String,
}

/// `[[vserver_group]]`: used by any number of listeners and `clb` endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name, unique in the file.
    pub name: Name,
    /// In file order; at least one.
    pub servers: Vec<Server>,
}
