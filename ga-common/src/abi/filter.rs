//! A filter of our addresses: what it does not know is not ours, which a packet learns without a look into a hash table.
//!
//! One bit an address, in [`FILTER_WORDS`] words. Bits are set before an address is put and cleared after it is removed.

use super::{
    entry::{AddressKey, words},
    limits::{FILTER_WORDS, MAX_ADDRESSES},
};

/// Word and bit of an address.
#[inline(always)]
pub fn place(key: &AddressKey) -> (u32, u64) {
    let [high, low] = words(key);
    // Addresses that follow each other differ in few bits; the multiplication (Knuth, TAOCP 6.4) spreads them over the top ones.
    let hash = ((high ^ low).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as u32;
    (hash >> 6 & (FILTER_WORDS - 1), 1 << (hash & 63))
}

const _: () = assert!(FILTER_WORDS.is_power_of_two() && FILTER_WORDS * 64 >= MAX_ADDRESSES);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::entry::mapped;

    #[test]
    fn neighbours_spread_over_the_filter() {
        let mut bits = std::collections::BTreeSet::new();
        for n in 0..=255 {
            bits.insert(place(&mapped([198, 51, 100, n])));
            bits.insert(place(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n]));
        }
        assert!(bits.len() > 400, "512 addresses take {} bits", bits.len());
    }
}
