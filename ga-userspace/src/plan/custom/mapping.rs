//! The mapping of a custom routing listener, to be asked both ways. It is computed from blocks; no row is stored.

use std::{fmt, net::Ipv4Addr, ops::Range};

use ga_common::abi::id::EndpointId;
use ipnet::Ipv4Net;

use crate::model::{Block, Destination, Listener, Policy, Protocols, addresses};

/// What a custom routing listener forwards where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomView {
    subnets: Vec<Part>,
}

/// A block, with what the file says of its subnet now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which ports it has.
    pub block: Block,
    /// The group's region.
    pub region: String,
    /// Who may be reached.
    pub policy: Policy,
    /// The group's, now: of those that the block has, only these are served.
    pub destinations: Vec<Destination>,
    /// Which endpoint the subnet is.
    pub endpoint: EndpointId,
}

/// A listener port and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row<'v> {
    /// The listener port.
    pub port: u16,
    /// Name of the group.
    pub group: &'v str,
    /// Its region.
    pub region: &'v str,
    /// The subnet.
    pub net: Ipv4Net,
    /// What is forwarded.
    pub protocols: Protocols,
    /// The host.
    pub host: Ipv4Addr,
    /// Its port.
    pub host_port: u16,
    /// Whether packets may go there.
    pub is_allowed: bool,
}

impl CustomView {
    /// Of a listener whose ports are given away; `id_of` says which endpoint a group's subnet is.
    pub(in crate::plan) fn new(listener: &Listener, id_of: impl Fn(&str, Ipv4Net) -> Option<EndpointId>) -> Self {
        let part = |block: &Block| {
            let group = listener.custom.iter().find(|group| group.name.as_str() == block.group)?;
            let subnet = group.subnets.iter().find(|subnet| subnet.net == block.net)?;
            Some(Part {
                block: block.clone(),
                region: group.region.clone(),
                policy: subnet.policy.clone(),
                destinations: group.destinations.clone(),
                endpoint: id_of(&block.group, block.net)?,
            })
        };
        Self { subnets: listener.blocks.iter().filter_map(part).collect() }
    }

    /// Of these blocks.
    pub fn of(subnets: Vec<Part>) -> Self {
        Self { subnets }
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.subnets
    }

    /// Where `port` leads.
    pub fn forward(&self, port: u16) -> Option<Row<'_>> {
        self.subnets.iter().find_map(|part| part.row(part.block.position(port)?))
    }

    /// All rows, by listener port.
    pub fn rows(&self) -> Vec<Row<'_>> {
        sorted(self.subnets.iter().flat_map(|part| part.rows(0..part.block.width() * addresses(part.block.net))))
    }

    /// The rows that lead to `host`, in the subnet `net` if one is named, to `port` if one is named; by listener port.
    pub fn reverse(&self, net: Option<Ipv4Net>, host: Ipv4Addr, port: Option<u16>) -> Vec<Row<'_>> {
        let parts =
            self.subnets.iter().filter(|part| net.is_none_or(|net| part.block.net == net) && part.block.net.contains(&host));
        let rows = parts.flat_map(|part| {
            let width = part.block.width();
            let first = (host.to_bits() - part.block.net.network().to_bits()) * width;
            part.rows(first..first + width)
        });
        sorted(rows.filter(|row| port.is_none_or(|port| row.host_port == port)))
    }
}

fn sorted<'v>(rows: impl Iterator<Item = Row<'v>>) -> Vec<Row<'v>> {
    let mut rows: Vec<Row<'v>> = rows.collect();
    rows.sort_unstable_by_key(|row| row.port);
    rows
}

impl fmt::Display for CustomView {
    /// Other mappings or policies, other text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for Part { block, policy, destinations, .. } in &self.subnets {
            let ports: Vec<String> = block.taken.iter().map(|(first, last)| format!("{first}~{last}")).collect();
            let to: Vec<String> = destinations.iter().map(ToString::to_string).collect();
            write!(f, "{separator}{} to {} port {} ({}", ports.join(","), block.net, to.join(" "), policy.word())?;
            if let Policy::AllowCustom(allowed) = policy {
                write!(f, " {:08x}", super::super::identity::fingerprint(&format!("{allowed:?}")) >> 32)?;
            }
            write!(f, ")")?;
            separator = ", ";
        }
        Ok(())
    }
}

impl Part {
    /// The row at `position` of the block; none where nothing is served any more.
    pub(super) fn row(&self, position: u32) -> Option<Row<'_>> {
        let (host, host_port, destination) = self.block.target(position)?;
        self.serves(host_port, destination.protocols).then_some(())?;
        Some(Row {
            port: self.block.port(position)?,
            group: &self.block.group,
            region: &self.region,
            net: self.block.net,
            protocols: destination.protocols,
            host,
            host_port,
            is_allowed: self.policy.allows(host, host_port),
        })
    }

    fn rows(&self, positions: Range<u32>) -> impl Iterator<Item = Row<'_>> {
        positions.filter_map(|position| self.row(position))
    }

    /// Whether the group still has the port under these protocols.
    pub(super) fn serves(&self, port: u16, protocols: Protocols) -> bool {
        self.destinations.iter().any(|now| now.protocols == protocols && (now.first..=now.last).contains(&port))
    }
}
