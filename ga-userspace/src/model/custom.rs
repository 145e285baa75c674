//! Custom routing: listener ports that each lead to one port of one host (specification §1.17).

use std::{collections::BTreeSet, fmt, net::Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::{Name, Ports};

/// Listener ports that no host is ever behind.
pub const RESERVED_PORTS: [u16; 4] = [25, 250, 4789, 4790];

/// Which of TCP and UDP, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocols {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Both, by one listener port.
    Both,
}

impl Protocols {
    /// As the product's documentation writes them.
    pub const fn words(self) -> &'static [&'static str] {
        match self {
            Self::Tcp => &["TCP"],
            Self::Udp => &["UDP"],
            Self::Both => &["TCP", "UDP"],
        }
    }

    /// Whether some protocol is in both.
    pub const fn meets(self, other: Self) -> bool {
        !matches!((self, other), (Self::Tcp, Self::Udp) | (Self::Udp, Self::Tcp))
    }
}

/// Ports of the hosts, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Destination {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
    /// What is forwarded there.
    pub protocols: Protocols,
}

impl Destination {
    /// How many ports it has.
    pub fn count(&self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }
}

/// Which hosts and ports of a subnet packets may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// None.
    #[default]
    DenyAll,
    /// All.
    AllowAll,
    /// Only these.
    AllowCustom(Vec<Allowed>),
}

impl Policy {
    /// The TOML word.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::DenyAll => "deny_all",
            Self::AllowAll => "allow_all",
            Self::AllowCustom(_) => "allow_custom",
        }
    }

    /// Whether packets may reach `port` of `host`.
    pub fn allows(&self, host: Ipv4Addr, port: u16) -> bool {
        match self {
            Self::DenyAll => false,
            Self::AllowAll => true,
            Self::AllowCustom(allowed) => allowed.iter().any(|allowed| allowed.address == host && allowed.has(port)),
        }
    }
}

/// A host that packets may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Which host of the subnet.
    pub address: Ipv4Addr,
    /// First and last port of each range; without any, all ports.
    pub ports: Vec<(u16, u16)>,
}

impl Allowed {
    /// Whether `port` is one of its ports.
    pub fn has(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }
}

/// An endpoint of custom routing: every address of a subnet, network and broadcast address included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// /17 to /28.
    pub net: Ipv4Net,
    /// Who may be reached there.
    pub policy: Policy,
}

/// How many addresses `net` has.
pub fn addresses(net: Ipv4Net) -> u32 {
    // The longest prefix of a subnet is /28, the shortest /17.
    1 << (32 - u32::from(net.prefix_len()).clamp(1, 32))
}

/// An endpoint group of custom routing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomGroup {
    /// Its name, unique in the listener.
    pub name: Name,
    /// The region's label.
    pub region: String,
    /// Free text.
    pub description: String,
    /// In file order; where two share ports they share no protocol.
    pub destinations: Vec<Destination>,
    /// In file order; none overlaps another.
    pub subnets: Vec<Subnet>,
}

impl CustomGroup {
    /// Listener ports that the group needs: one for every port of every address.
    pub fn demand(&self) -> u64 {
        let ports: u64 = self.destinations.iter().map(|destination| u64::from(destination.count())).sum();
        let hosts: u64 = self.subnets.iter().map(|subnet| u64::from(addresses(subnet.net))).sum();
        ports * hosts
    }
}

/// The ports that custom routing gives away, ascending.
pub fn usable(ports: &Ports) -> BTreeSet<u16> {
    ports.iter().map(super::Port::get).filter(|port| !RESERVED_PORTS.contains(port)).collect()
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocols = self.protocols.words().join(",").to_lowercase();
        match self.first == self.last {
            true => write!(f, "{}/{protocols}", self.first),
            false => write!(f, "{}~{}/{protocols}", self.first, self.last),
        }
    }
}

/// The listener ports that lead to the hosts of a subnet. Address by address, and in each destination by destination, every port of
/// the hosts takes the next of the listener ports. Never changed once it is given away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Name of the group.
    pub group: String,
    /// The subnet.
    pub net: Ipv4Net,
    /// As they were when the ports were given away.
    pub destinations: Vec<Destination>,
    /// First and last of each range of listener ports, ascending.
    pub taken: Vec<(u16, u16)>,
}

impl Block {
    /// Ports of one address.
    pub fn width(&self) -> u32 {
        self.destinations.iter().map(Destination::count).sum()
    }

    /// Listener ports, ranges of neighbours, each with how many are before it.
    pub fn ranges(&self) -> impl Iterator<Item = (u16, u16, u32)> + '_ {
        self.taken.iter().scan(0, |before, &(first, last)| {
            let at = *before;
            *before += u32::from(last) - u32::from(first) + 1;
            Some((first, last, at))
        })
    }

    /// How many listener ports come before `port`; none when it is not of this block.
    pub fn position(&self, port: u16) -> Option<u32> {
        let (first, _, at) = self.ranges().find(|(first, last, _)| (*first..=*last).contains(&port))?;
        Some(at + u32::from(port - first))
    }

    /// The listener port that `position` others come before.
    pub fn port(&self, position: u32) -> Option<u16> {
        let (first, last, at) = self.ranges().filter(|(_, _, at)| *at <= position).last()?;
        u16::try_from(u32::from(first) + position - at).ok().filter(|port| *port <= last)
    }

    /// Where the listener port at `position` leads: the host, its port, and the destination that names it.
    pub fn target(&self, position: u32) -> Option<(Ipv4Addr, u16, Destination)> {
        let width = self.width();
        let host = position.checked_div(width).filter(|host| *host < addresses(self.net))?;
        let mut rest = position % width;
        for destination in &self.destinations {
            if rest < destination.count() {
                let port = u16::try_from(u32::from(destination.first) + rest).ok()?;
                return Some((Ipv4Addr::from_bits(self.net.network().to_bits() + host), port, *destination));
            }
            rest -= destination.count();
        }
        None
    }
}
