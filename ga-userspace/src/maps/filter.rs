//! Filters of what packets need not ask for: a service whose endpoints answer clients themselves, an endpoint that answers to clients'
//! addresses by way of this edge.

use std::collections::{BTreeMap, BTreeSet};

use aya::Ebpf;

use super::{Cells, Error};

/// A filter, and who is in it.
pub(super) struct Filter<K> {
    cells: Cells<u64>,
    words: u32,
    place: fn(&K) -> (u32, u64),
    keys: BTreeSet<K>,
    /// How many keys have a bit.
    bits: BTreeMap<(u32, u64), u32>,
}

impl<K: Copy + Ord> Filter<K> {
    /// The filter of so many words in a map; `place` tells word and bit of a key.
    pub(super) fn open(ebpf: &mut Ebpf, map: &'static str, words: u32, place: fn(&K) -> (u32, u64)) -> Result<Self, Error> {
        Ok(Self { cells: Cells::take(ebpf, map)?, words, place, keys: BTreeSet::new(), bits: BTreeMap::new() })
    }

    /// Whether there is nobody in it.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Takes a key in, before it is put.
    pub(super) fn add(&mut self, key: &K) -> Result<(), Error> {
        let (word, bit) = (self.place)(key);
        self.cells.set(word, self.word(word) | bit)?;
        self.know(key);
        Ok(())
    }

    /// Takes note of a key that is in it already.
    pub(super) fn know(&mut self, key: &K) {
        if self.keys.insert(*key) {
            *self.bits.entry((self.place)(key)).or_default() += 1;
        }
    }

    /// Gives a key up, after it is removed.
    pub(super) fn remove(&mut self, key: &K) -> Result<(), Error> {
        if !self.keys.remove(key) {
            return Ok(());
        }
        let place = (self.place)(key);
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

    /// Writes again what is not as the keys that ought to be in it want it.
    pub(super) fn restore(&mut self, keys: impl Iterator<Item = K>) -> Result<u64, Error> {
        let mut words = vec![0; self.words as usize];
        for (word, bit) in keys.map(|key| (self.place)(&key)) {
            words[word as usize] |= bit;
        }
        self.cells.restore((0..).zip(words))
    }
}
