//! Who may open flows: the access lists of a listener.

use super::tables::Tables;
use crate::abi::{
    entry::AddressKey,
    sheet::{AclWord, Wide},
};

/// Whether the lists that `word` names keep `source` out. A list that is not there keeps everybody out: nobody names one before it
/// is filled.
#[inline(always)]
pub fn denies<T: Tables + ?Sized>(tables: &T, word: u32, source: &AddressKey) -> bool {
    let [high, low] = halves(source);
    denies_halves(tables, word, high, low)
}

/// The two halves of an address, host order.
#[inline(always)]
pub fn halves(k: &AddressKey) -> [u64; 2] {
    let number = u128::from_be_bytes(*k);
    [(number >> 64) as u64, number as u64]
}

/// The same, for an address that is given as two numbers.
#[inline(always)]
pub fn denies_halves<T: Tables + ?Sized>(tables: &T, word: u32, high: u64, low: u64) -> bool {
    let word = AclWord(word);
    // Mapped addresses are IPv4 (RFC 4291 section 2.5.5.2).
    let is_v4 = high == 0 && low >> 32 == 0xffff;
    let number = if is_v4 { word.v4() } else { word.v6() };
    if number == 0 {
        return word.is_white();
    }
    let listed = if is_v4 {
        tables.acl4(number).map(|list| list.lists(low & 0xffff_ffff))
    } else {
        tables.acl6(number).map(|list| list.lists(Wide { high, low }))
    };
    listed != Some(word.is_white())
}
