//! The filter of services whose endpoints answer clients themselves: what it does not know packets need not ask for.

use std::collections::{BTreeMap, BTreeSet};

use aya::Ebpf;
use ga_common::abi::{
    entry::{Service, ServiceKey},
    filter::direct_place,
    limits::DIRECT_WORDS,
};

use super::{Cells, Error};

/// The filter, and who is in it.
pub(super) struct DirectFilter {
    cells: Cells<u64>,
    keys: BTreeSet<ServiceKey>,
    /// How many services have a bit.
    bits: BTreeMap<(u32, u64), u32>,
}

impl DirectFilter {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self { cells: Cells::take(ebpf, "DIRECT")?, keys: BTreeSet::new(), bits: BTreeMap::new() })
    }

    /// Whether there is nobody in it.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Takes a service in, before it is put.
    pub(super) fn add(&mut self, key: &ServiceKey) -> Result<(), Error> {
        let (word, bit) = direct_place(key);
        self.cells.set(word, self.word(word) | bit)?;
        self.know(key);
        Ok(())
    }

    /// Takes note of a service that is in it already.
    pub(super) fn know(&mut self, key: &ServiceKey) {
        if self.keys.insert(*key) {
            *self.bits.entry(direct_place(key)).or_default() += 1;
        }
    }

    /// Gives a service up, after it is removed.
    pub(super) fn remove(&mut self, key: &ServiceKey) -> Result<(), Error> {
        if !self.keys.remove(key) {
            return Ok(());
        }
        let place = direct_place(key);
        if let Some(count) = self.bits.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.bits.remove(&place);
            }
        }
        self.cells.set(place.0, self.word(place.0))
    }

    fn word(&self, word: u32) -> u64 {
        self.bits.range((word, 0)..=(word, u64::MAX)).fold(0, |bits, ((_, bit), _)| bits | bit)
    }

    /// Writes again what is not as `services` want it.
    pub(super) fn restore(&mut self, services: &BTreeMap<ServiceKey, Service>) -> Result<u64, Error> {
        let mut words = [0; DIRECT_WORDS as usize];
        for (word, bit) in services.iter().filter(|(_, service)| service.is_direct()).map(|(key, _)| direct_place(key)) {
            words[word as usize] |= bit;
        }
        self.cells.restore((0..).zip(words))
    }
}
