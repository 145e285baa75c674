//! What names of hosts and network interfaces stand for (specification §2.1).

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

/// Names and their addresses, the primary one first; none is without an address.
pub type Hosts = BTreeMap<String, Vec<IpAddr>>;

/// `[inventory]`: where names are looked up. What the file says comes before what other sources say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// `[inventory.hosts]`.
    pub hosts: Hosts,
    /// A file of names, read again when it changes.
    pub file: Option<PathBuf>,
    /// An address where names are polled, `http://…` or `https://…`.
    pub url: Option<String>,
    /// Certificates that vouch for its server, in PEM; without, those of the system do.
    pub ca: Option<PathBuf>,
    /// How often the address is asked: 5–3,600 s (30).
    pub interval: Duration,
}

impl Inventory {
    /// How often an address is asked when nothing is said.
    pub const INTERVAL: Duration = Duration::from_secs(30);
}

impl Default for Inventory {
    fn default() -> Self {
        Self { hosts: Hosts::new(), file: None, url: None, ca: None, interval: Self::INTERVAL }
    }
}
