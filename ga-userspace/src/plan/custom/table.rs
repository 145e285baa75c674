//! What the data path is told of an instance's custom routing: ranges of ports, blocks and destinations. Where a policy says yes
//! here and no there, ranges are split.

use std::collections::{BTreeMap, BTreeSet};

use ga_common::abi::custom::{
    Block, MAX_BLOCKS, MAX_DESTINATIONS, MAX_DESTINATIONS_OF_A_BLOCK, MAX_RANGES, Mapping, Range, Target,
};

use super::mapping::{CustomView, Part};
use crate::{
    model::{Policy, Protocols, addresses},
    plan::{PlanError, error::within},
};

/// The content of a sheet of custom routing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// First port and range, ascending; between ranges that lead somewhere are some that do not.
    ranges: Vec<(u16, Range)>,
    blocks: Vec<Block>,
    targets: Vec<Target>,
}

impl Table {
    /// The mappings of all listeners of an instance, whose ports do not overlap.
    pub fn new<'v>(views: impl Iterator<Item = &'v CustomView>) -> Result<Self, PlanError> {
        let mut table = Self::default();
        let mut ranges: BTreeMap<u16, (u16, Range)> = BTreeMap::new();
        for part in views.flat_map(CustomView::parts) {
            table.add(part, &mut ranges);
        }
        let mut next = 0;
        for (first, (last, range)) in ranges {
            if first != next {
                table.ranges.push((next, NOTHING));
            }
            table.ranges.push((first, range));
            next = last + 1;
        }
        table.ranges.push((next, NOTHING));
        within("ranges of custom routing in an instance", table.ranges.len(), MAX_RANGES as u32)?;
        within("blocks of custom routing in an instance", table.blocks.len(), MAX_BLOCKS as u32)?;
        within("destinations of custom routing in an instance", table.targets.len(), MAX_DESTINATIONS as u32)?;
        let widest = table.blocks.iter().map(|block| usize::from(block.destinations)).max().unwrap_or(0);
        within("destinations of one subnet", widest, MAX_DESTINATIONS_OF_A_BLOCK as u32)?;
        Ok(table)
    }

    fn add(&mut self, part: &Part, ranges: &mut BTreeMap<u16, (u16, Range)>) {
        let number = self.blocks.len() as u16;
        let destination = self.targets.len() as u16;
        self.targets.extend(targets(part));
        self.blocks.push(Block {
            first: part.block.net.network().to_bits(),
            width: part.block.width() as u16,
            endpoint: part.endpoint,
            destination,
            destinations: (self.targets.len() as u16).wrapping_sub(destination),
        });
        for (position, length, is_allowed) in runs(part) {
            let end = position + length;
            for (first, last, at) in part.block.ranges() {
                let until = at + u32::from(last - first) + 1;
                let (from, to) = (position.max(at), end.min(until));
                if from < to {
                    let block = if is_allowed { number } else { number | Range::DENIED };
                    let port = |position: u32| first + (position - at) as u16;
                    ranges.insert(port(from), (port(to - 1), Range { block, position: from as u16 }));
                }
            }
        }
    }

    /// As the data path holds it.
    pub fn filled(&self) -> Box<Mapping> {
        let mut mapping = Box::new(Mapping::NOTHING);
        for (n, (start, range)) in self.ranges.iter().take(MAX_RANGES).enumerate() {
            (mapping.starts[n], mapping.ranges[n]) = (*start, *range);
        }
        for (place, block) in mapping.blocks.iter_mut().zip(&self.blocks) {
            *place = *block;
        }
        for (place, target) in mapping.targets.iter_mut().zip(&self.targets) {
            *place = *target;
        }
        mapping
    }

    /// All of it as numbers.
    pub(in crate::plan) fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        let range =
            |(start, range): &(u16, Range)| u64::from(*start) << 32 | u64::from(range.block) << 16 | u64::from(range.position);
        let block = |block: &Block| {
            let low = u64::from(block.width) << 48 | u64::from(block.endpoint.0) << 32;
            [u64::from(block.first), low | u64::from(block.destination) << 16 | u64::from(block.destinations)]
        };
        let target =
            |target: &Target| u64::from(target.protocols) << 32 | u64::from(target.before) << 16 | u64::from(target.port);
        let ranges = self.ranges.iter().map(range);
        ranges.chain(self.blocks.iter().flat_map(block)).chain(self.targets.iter().map(target))
    }
}

const NOTHING: Range = Range { block: Range::NOTHING, position: 0 };

/// The destinations of a block; parts that the group has no more are there without protocols.
fn targets(part: &Part) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    let mut before = 0;
    for destination in &part.block.destinations {
        let mut last: Option<u32> = None;
        for port in destination.first..=destination.last {
            let protocols = match (part.serves(port, destination.protocols), destination.protocols) {
                (false, _) => 0,
                (true, Protocols::Tcp) => Target::TCP,
                (true, Protocols::Udp) => Target::UDP,
                (true, Protocols::Both) => Target::TCP | Target::UDP,
            };
            if last != Some(protocols) {
                targets.push(Target { before, port, protocols });
                last = Some(protocols);
            }
            before += 1;
        }
    }
    targets
}

/// Positions in a row of which packets may reach all or none: the first, how many, and which.
fn runs(part: &Part) -> Vec<(u32, u32, bool)> {
    let (width, all) = (part.block.width(), part.block.width() * addresses(part.block.net));
    let allowed = match &part.policy {
        Policy::DenyAll => return vec![(0, all, false)],
        Policy::AllowAll => return vec![(0, all, true)],
        Policy::AllowCustom(allowed) => allowed,
    };
    let first = part.block.net.network().to_bits();
    // One that is named twice counts once, and one that is not of the subnet does not.
    let of_subnet = |host: &u32| *host < addresses(part.block.net);
    let hosts: BTreeSet<u32> =
        allowed.iter().map(|allowed| allowed.address.to_bits().wrapping_sub(first)).filter(of_subnet).collect();
    let mut runs: Vec<(u32, u32, bool)> = Vec::new();
    let mut push = |length: u32, is_allowed: bool| match runs.last_mut() {
        _ if length == 0 => {}
        Some((_, last, same)) if *same == is_allowed => *last += length,
        Some((at, last, _)) => {
            let next = (*at + *last, length, is_allowed);
            runs.push(next);
        }
        None => runs.push((0, length, is_allowed)),
    };
    let mut next = 0;
    for host in hosts {
        push((host - next) * width, false);
        for position in host * width..(host + 1) * width {
            let target = part.block.target(position);
            push(1, target.is_some_and(|(host, port, _)| part.policy.allows(host, port)));
        }
        next = host + 1;
    }
    push(all - next * width, false);
    runs
}
