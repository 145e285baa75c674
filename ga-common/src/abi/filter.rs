//! A filter of our addresses: what it does not know is not ours, which a packet learns without a look into a hash table.
//!
//! One bit an address, in [`FILTER_WORDS`] words. Bits are set before an address is put and cleared after it is removed.

use super::{
    entry::{AddressKey, ServiceKey, words},
    limits::{DIRECT_WORDS, FILTER_WORDS, GATEWAY_WORDS, MAX_ADDRESSES},
};

/// Word and bit of an address.
#[inline(always)]
pub fn place(key: &AddressKey) -> (u32, u64) {
    let [high, low] = words(key);
    // Addresses that follow each other differ in few bits; the multiplication (Knuth, TAOCP 6.4) spreads them over the top ones.
    let hash = ((high ^ low).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as u32;
    (hash >> 6 & (FILTER_WORDS - 1), 1 << (hash & 63))
}

/// Word and bit of a service in the filter of those whose endpoints answer clients themselves, of [`DIRECT_WORDS`] words.
pub fn direct_place(key: &ServiceKey) -> (u32, u64) {
    direct_place_of(words(&key.addr), key.port, key.protocol)
}

/// The same for an address in [`words`].
#[inline(always)]
pub fn direct_place_of([high, low]: [u64; 2], [p0, p1]: [u8; 2], protocol: u8) -> (u32, u64) {
    let end = u64::from_ne_bytes([p0, p1, protocol, 0, 0, 0, 0, 0]);
    let hash = ((high ^ low ^ end.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u32;
    (hash >> 6 & (DIRECT_WORDS - 1), 1 << (hash & 63))
}

/// Word and bit of an endpoint's address in the filter of those that answer to clients' addresses by way of this edge, of
/// [`GATEWAY_WORDS`] words.
#[inline(always)]
pub fn gateway_place(key: &AddressKey) -> (u32, u64) {
    let [high, low] = words(key);
    let hash = ((high ^ low).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u32;
    (hash >> 6 & (GATEWAY_WORDS - 1), 1 << (hash & 63))
}

const _: () = assert!(FILTER_WORDS.is_power_of_two() && FILTER_WORDS * 64 >= MAX_ADDRESSES);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::entry::mapped;

    #[test]
    fn services_of_one_address_spread_over_the_filter() {
        let mut bits = std::collections::BTreeSet::new();
        for port in 1..=500u16 {
            for protocol in [6, 17] {
                let key = ServiceKey { addr: mapped([198, 51, 100, 1]), port: port.to_be_bytes(), protocol, pad: 0 };
                bits.insert(direct_place(&key));
            }
        }
        assert!(bits.len() > 950, "1,000 services take {} bits", bits.len());
    }

    #[test]
    fn endpoints_spread_over_the_filter() {
        let mut bits = std::collections::BTreeSet::new();
        for n in 0..=1000u16 {
            let [a, b] = n.to_be_bytes();
            bits.insert(gateway_place(&mapped([10, 0, a, b])));
            bits.insert(gateway_place(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b]));
        }
        assert!(bits.len() > 1_900, "2,002 addresses take {} bits", bits.len());
    }

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
