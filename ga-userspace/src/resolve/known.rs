//! What is known of names, as values for the plan and for people.

use std::{collections::BTreeMap, time::Instant};

use super::Addresses;

/// Everything at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// What the plan needs.
    pub addresses: Addresses,
    /// By domain.
    pub domains: BTreeMap<String, DomainKnown>,
    /// Where each name of the inventory is from.
    pub hosts: BTreeMap<String, Origin>,
    /// The inventory's sources.
    pub sources: Vec<SourceKnown>,
    /// The last order whose names were all asked for at least once.
    pub(super) settled: u64,
}

/// One domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainKnown {
    /// When the last good answer came, in seconds since 1970.
    pub learned_at: Option<u64>,
    /// How long it holds.
    pub valid_until: Option<Instant>,
    /// Addresses that are left out because they are too many.
    pub left_out: usize,
    /// Attempts since the agent's start that were no good.
    pub failures: u64,
    /// What was wrong with the last one; none when it was good.
    pub error: Option<String>,
}

/// Where a name of the inventory is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `[inventory.hosts]`.
    Static,
    /// `inventory.file`.
    File,
    /// `inventory.url`.
    Url,
}

impl Origin {
    /// The word in tables and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Static => "inventory",
            Self::File => "inventory_file",
            Self::Url => "inventory_url",
        }
    }
}

/// A source of the inventory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceKnown {
    /// Which one.
    pub origin: Origin,
    /// The path or the address.
    pub place: String,
    /// Names in the last good text.
    pub names: usize,
    /// When that was read, in seconds since 1970.
    pub learned_at: Option<u64>,
    /// Attempts since the agent's start that were no good.
    pub failures: u64,
    /// What was wrong with the last one; none when it was good.
    pub error: Option<String>,
}
