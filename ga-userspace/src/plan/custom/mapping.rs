//! The mapping of a custom routing listener, to be asked both ways. It is computed from blocks; no row is stored.

use std::net::Ipv4Addr;

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
pub(super) struct Part {
    pub(super) block: Block,
    pub(super) region: String,
    pub(super) policy: Policy,
    /// The group's, now: of those that the block has, only these are served.
    pub(super) destinations: Vec<Destination>,
    pub(super) endpoint: EndpointId,
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

    pub(super) fn parts(&self) -> &[Part] {
        &self.subnets
    }

    /// Where `port` leads.
    pub fn forward(&self, port: u16) -> Option<Row<'_>> {
        self.subnets.iter().find_map(|part| part.row(part.block.position(port)?))
    }

    /// All rows, by listener port.
    pub fn rows(&self) -> Vec<Row<'_>> {
        let of = |part: &'_ Part| -> Vec<Row<'_>> {
            let positions = 0..part.block.width() * addresses(part.block.net);
            positions.filter_map(|position| part.row(position)).collect()
        };
        let mut rows: Vec<Row<'_>> = self.subnets.iter().flat_map(of).collect();
        rows.sort_unstable_by_key(|row| row.port);
        rows
    }

    /// The rows that lead to `host`, in the subnet `net` if one is named, to `port` if one is named; by listener port.
    pub fn reverse(&self, net: Option<Ipv4Net>, host: Ipv4Addr, port: Option<u16>) -> Vec<Row<'_>> {
        let parts = self.subnets.iter().filter(|part| net.is_none_or(|net| part.block.net == net) && part.block.net.contains(&host));
        let of = |part: &'_ Part| -> Vec<Row<'_>> {
            let width = part.block.width();
            let first = (host.to_bits() - part.block.net.network().to_bits()) * width;
            (first..first + width).filter_map(|position| part.row(position)).collect()
        };
        let mut rows: Vec<Row<'_>> = parts.flat_map(of).filter(|row| port.is_none_or(|port| row.host_port == port)).collect();
        rows.sort_unstable_by_key(|row| row.port);
        rows
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

    /// Whether the group still has the port under these protocols.
    pub(super) fn serves(&self, port: u16, protocols: Protocols) -> bool {
        self.destinations.iter().any(|now| now.protocols == protocols && (now.first..=now.last).contains(&port))
    }
}
