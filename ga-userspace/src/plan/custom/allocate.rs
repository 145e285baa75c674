//! Ports are given to subnets once and for good: neither a restart nor other subnets move them.
//!
//! A new subnet takes the lowest free ports of its listener, groups and subnets in file order. A destination that is added to a
//! group takes new ports for it, in a block of its own; one that is removed leaves its ports unused until the whole subnet goes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{Block, CustomGroup, Destination, Intent, Listener, addresses, usable};

/// What was given away, by `instance/listener`. Kept by the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation(BTreeMap<String, Vec<Block>>);

/// A listener that cannot have what the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The instance's id.
    pub instance: String,
    /// The listener's name.
    pub listener: String,
    /// Why.
    pub why: String,
    /// What helps.
    pub help: String,
}

/// Gives the custom routing listeners of `intent` their ports: those of `before`, and new ones where something is new. Nothing
/// else of `intent` changes.
pub fn settle(intent: &mut Intent, before: &Allocation) -> Result<Allocation, Vec<Refused>> {
    let (mut after, mut refused) = (Allocation::default(), Vec::new());
    for instance in &mut intent.instances {
        let id = instance.id.to_string();
        for listener in instance.listeners.iter_mut().filter(|listener| listener.is_custom()) {
            let name = format!("{id}/{}", listener.name);
            match blocks(listener, before.0.get(&name).map_or(&[], Vec::as_slice)) {
                Ok(blocks) => {
                    listener.blocks.clone_from(&blocks);
                    after.0.insert(name, blocks);
                }
                Err((why, help)) => {
                    refused.push(Refused { instance: id.clone(), listener: listener.name.to_string(), why, help });
                }
            }
        }
    }
    if refused.is_empty() { Ok(after) } else { Err(refused) }
}

/// The blocks of a listener that had `before`, or why it cannot have them and what helps.
fn blocks(listener: &Listener, before: &[Block]) -> Result<Vec<Block>, (String, String)> {
    let mut free = usable(&listener.ports);
    let mut blocks: Vec<Block> = before.iter().filter(|block| is_wanted(block, &listener.custom)).cloned().collect();
    for block in &blocks {
        for port in block.taken.iter().flat_map(|&(first, last)| first..=last) {
            if !free.remove(&port) {
                let why = format!("port {port} cannot go: it leads to a host of {} in group `{}`", block.net, block.group);
                return Err((why, "keep the port, or first remove the subnet and reload".to_owned()));
            }
        }
    }
    for group in &listener.custom {
        for subnet in &group.subnets {
            let is_of = |block: &&Block| block.group == group.name.as_str() && block.net == subnet.net;
            let known: Vec<&Block> = blocks.iter().filter(is_of).collect();
            let destinations = missing(&group.destinations, &known);
            let mut block = Block { group: group.name.to_string(), net: subnet.net, destinations, taken: Vec::new() };
            let need = u64::from(block.width()) * u64::from(addresses(subnet.net));
            if need == 0 {
                continue;
            }
            if need > free.len() as u64 {
                let why = format!("{} in group `{}` needs {need} ports, and {} are free", subnet.net, group.name, free.len());
                let help =
                    "ports of removed destinations are free again when their subnet is removed; or give the listener more ports";
                return Err((why, help.to_owned()));
            }
            block.taken = take(&mut free, need as usize);
            blocks.push(block);
        }
    }
    Ok(blocks)
}

/// Whether the file still has anything of the block.
fn is_wanted(block: &Block, groups: &[CustomGroup]) -> bool {
    groups.iter().any(|group| {
        let has_port = |old: &Destination| group.destinations.iter().any(|new| is_served(old.first..=old.last, *old, new));
        group.name.as_str() == block.group
            && group.subnets.iter().any(|subnet| subnet.net == block.net)
            && block.destinations.iter().any(has_port)
    })
}

fn is_served(mut ports: impl Iterator<Item = u16>, old: Destination, new: &Destination) -> bool {
    old.protocols == new.protocols && ports.any(|port| (new.first..=new.last).contains(&port))
}

/// The destinations, or parts of them, that no block has ports for.
fn missing(destinations: &[Destination], known: &[&Block]) -> Vec<Destination> {
    let mut found: Vec<Destination> = Vec::new();
    for wanted in destinations {
        let has = |port: u16| {
            let mut all = known.iter().flat_map(|block| &block.destinations);
            all.any(|old| old.protocols == wanted.protocols && (old.first..=old.last).contains(&port))
        };
        let mut run: Option<Destination> = None;
        for port in wanted.first..=wanted.last {
            match (&mut run, has(port)) {
                (Some(_), true) => found.extend(run.take()),
                (Some(open), false) => open.last = port,
                (None, false) => run = Some(Destination { first: port, last: port, ..*wanted }),
                (None, true) => {}
            }
        }
        found.extend(run);
    }
    found
}

/// The lowest `count` ports, as ranges.
fn take(free: &mut BTreeSet<u16>, count: usize) -> Vec<(u16, u16)> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for port in std::iter::from_fn(|| free.pop_first()).take(count) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == port => *last = port,
            _ => ranges.push((port, port)),
        }
    }
    ranges
}
