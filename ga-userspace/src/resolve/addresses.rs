//! What names stand for now, as plain values.

use std::{collections::BTreeMap, net::IpAddr};

use crate::model::{Hosts, Intent};

/// What every name that the file uses stands for; names that nobody knows are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Of the inventory, from all its sources.
    pub hosts: Hosts,
    /// Of domains: ascending, each once, of the families that were asked for.
    pub domains: BTreeMap<String, Vec<IpAddr>>,
}

impl Addresses {
    /// What a file says itself, before anybody is asked.
    pub fn written(intent: &Intent) -> Self {
        Self { hosts: intent.inventory.hosts.clone(), domains: BTreeMap::new() }
    }
}
