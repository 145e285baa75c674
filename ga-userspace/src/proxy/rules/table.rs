//! Texts that rules name, found by hash: a table that is made once and asked for each request.
//!
//! Nothing of a request is ever put in, so that clients cannot make it slow; the bytes are compared after each hit.

use super::set::Row;

/// A hash that takes one byte after the other (FNV-1a).
#[derive(Clone, Copy)]
pub(super) struct Rolling(u64);

impl Rolling {
    pub(super) const START: Self = Self(0xcbf2_9ce4_8422_2325);

    pub(super) fn push(self, byte: u8) -> Self {
        Self((self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
    }

    /// Of all `bytes`, in their order.
    pub(super) fn of(bytes: impl Iterator<Item = u8>) -> Self {
        bytes.fold(Self::START, Self::push)
    }
}

/// Texts with the rules that each of them allows.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    /// Open addressing; a power of two, at most half full.
    slots: Box<[Option<Entry>]>,
}

#[derive(Clone, Debug)]
struct Entry {
    hash: u64,
    text: Box<[u8]>,
    row: Row,
}

impl Table {
    /// A table of `texts`, each once; they are hashed in the order in which `bytes` gives their bytes.
    pub(super) fn new(texts: Vec<(Vec<u8>, Row)>, bytes: impl Fn(&[u8]) -> Rolling) -> Self {
        if texts.is_empty() {
            return Self::default();
        }
        let mut slots: Box<[Option<Entry>]> = vec![None; (texts.len() * 2).next_power_of_two()].into();
        let mask = slots.len() - 1;
        for (text, row) in texts {
            let hash = bytes(&text).0;
            let mut at = hash as usize & mask;
            while slots.get(at).is_some_and(Option::is_some) {
                at = (at + 1) & mask;
            }
            if let Some(slot) = slots.get_mut(at) {
                *slot = Some(Entry { hash, text: text.into(), row });
            }
        }
        Self { slots }
    }

    /// What the text of this hash allows, which `is` knows by its bytes.
    pub(super) fn get(&self, hash: Rolling, is: impl Fn(&[u8]) -> bool) -> Option<&Row> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = hash.0 as usize & mask;
        while let Some(Some(entry)) = self.slots.get(at) {
            if entry.hash == hash.0 && is(&entry.text) {
                return Some(&entry.row);
            }
            at = (at + 1) & mask;
        }
        None
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_found_and_no_other() {
        let row = |rule| {
            let mut row = Row::none(300);
            row.insert(rule);
            row
        };
        let text = |number: usize| format!("text-{number}").into_bytes();
        let hash = |bytes: &[u8]| Rolling::of(bytes.iter().copied());
        let table = Table::new((0..300).map(|number| (text(number), row(number))).collect(), hash);
        for number in 0..300 {
            assert_eq!(table.get(hash(&text(number)), |known| known == text(number)), Some(&row(number)));
        }
        assert_eq!(table.get(hash(&text(300)), |known| known == text(300)), None);
        assert_eq!(Table::default().get(hash(b""), |_| true), None);
    }
}
