//! Sheets: tables of their own kind that a listener names by number. One is filled before it is named and never changed while it
//! is; a change is another sheet.
//!
//! An access list is kept as borders: ascending addresses at which being listed begins and ends in turn. How many of them are at
//! or below an address tells whether it is listed. The borders are the leaves of a static tree of 16 ways, so that a look costs
//! four short reads, however the entries lie.

use core::hint::black_box;

/// Ways of a branch.
const WAYS: usize = 16;
/// Ways of the root.
const ROOT: usize = 8;
const TWIGS: usize = ROOT * WAYS;
const LEAVES: usize = TWIGS * WAYS;

/// Borders an access list can have; the first one is always the lowest address.
pub const MAX_BORDERS: usize = LEAVES * WAYS;

/// The borders of an access list: 139,808 bytes for IPv4 (`u32`), 559,232 for IPv6 ([`Wide`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Borders<B> {
    root: [B; ROOT],
    branches: [[B; WAYS]; ROOT],
    twigs: [[B; WAYS]; TWIGS],
    leaves: [[B; WAYS]; LEAVES],
}

/// Of IPv4 addresses, host order.
pub type Borders4 = Borders<u32>;
/// Of IPv6 addresses.
pub type Borders6 = Borders<Wide>;

const _: () = {
    assert!(size_of::<Borders4>() == 139_808);
    assert!(size_of::<Borders6>() == 559_232);
};

/// An IPv6 address as two numbers, host order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wide {
    /// The first eight bytes.
    pub high: u64,
    /// The last eight bytes.
    pub low: u64,
}

/// An address that borders are compared with.
pub trait Border: Copy + Ord {
    /// The lowest address.
    const LOWEST: Self;
    /// The highest address: what stands where no border is. Nobody's source address.
    const HIGHEST: Self;
    /// 1 when `self` is above `address`, else 0, without a branch: 16 of them in a row would be mispredicted, and each would
    /// double the ways that the verifier goes.
    fn is_above(self, address: Self::Asked) -> u64;
    /// What an address is asked for by.
    type Asked: Copy;
}

impl Border for u32 {
    const LOWEST: Self = 0;
    const HIGHEST: Self = Self::MAX;
    /// An IPv4 address in host order, of which the compiler does not know that its upper half is zero.
    type Asked = u64;

    #[inline(always)]
    fn is_above(self, address: u64) -> u64 {
        address.wrapping_sub(u64::from(self)) >> 63
    }
}

impl Border for Wide {
    const LOWEST: Self = Self { high: 0, low: 0 };
    const HIGHEST: Self = Self { high: u64::MAX, low: u64::MAX };
    type Asked = Self;

    #[inline(always)]
    fn is_above(self, address: Self) -> u64 {
        // The borrow of `address - self` (Warren, Hacker's Delight 2-13).
        borrow(address.high, self.high, borrow(address.low, self.low, 0))
    }
}

#[inline(always)]
fn borrow(a: u64, b: u64, carried: u64) -> u64 {
    let difference = a.wrapping_sub(b).wrapping_sub(carried);
    ((!a & b) | ((!a | b) & difference)) >> 63
}

impl<B: Border> Borders<B> {
    /// Nobody is listed.
    pub const NONE: Self = {
        let mut none = Self {
            root: [B::HIGHEST; ROOT],
            branches: [[B::HIGHEST; WAYS]; ROOT],
            twigs: [[B::HIGHEST; WAYS]; TWIGS],
            leaves: [[B::HIGHEST; WAYS]; LEAVES],
        };
        (none.root[0], none.branches[0][0], none.twigs[0][0], none.leaves[0][0]) = (B::LOWEST, B::LOWEST, B::LOWEST, B::LOWEST);
        none
    };

    /// Makes them what `borders` says: ascending, the first of them being where the first listed addresses begin. What is more
    /// than [`MAX_BORDERS`] - 1 is left out.
    pub fn fill(&mut self, borders: impl IntoIterator<Item = B>) {
        *self = Self::NONE;
        for (n, border) in (1..MAX_BORDERS).zip(borders) {
            let (leaf, way) = (n / WAYS, n % WAYS);
            self.leaves[leaf][way] = border;
            if way == 0 {
                let (twig, way) = (leaf / WAYS, leaf % WAYS);
                self.twigs[twig][way] = border;
                if way == 0 {
                    let (branch, way) = (twig / WAYS, twig % WAYS);
                    self.branches[branch][way] = border;
                    if way == 0 {
                        self.root[branch] = border;
                    }
                }
            }
        }
    }

    /// Whether `address` is listed.
    #[inline(always)]
    pub fn lists(&self, address: B::Asked) -> bool {
        // Of a number that it knows to be small the compiler would make comparisons, and branches of these.
        let address = black_box(address);
        let branch = way(&self.root, address) & (ROOT - 1);
        let twig = (branch * WAYS + way(&self.branches[branch], address)) & (TWIGS - 1);
        let leaf = (twig * WAYS + way(&self.twigs[twig], address)) & (LEAVES - 1);
        // The lowest address stands in front as a border that is none, and a leaf has an even number of borders in front of it.
        way(&self.leaves[leaf], address) & 1 == 1
    }
}

/// The last of a node's ways that begins at or below `address`.
#[inline(always)]
fn way<B: Border, const N: usize>(node: &[B; N], address: B::Asked) -> usize {
    let mut above = 0;
    for border in node {
        // Hidden from the compiler, which would make a vector of bits of them, and branches of that.
        above += black_box(border.is_above(address));
    }
    // The first way of a node that is come to is never above.
    (N as u64 - 1).wrapping_sub(above) as usize
}

/// How a listener names its access lists, in one word: numbers of the lists, and how they are meant. Zero: it has none.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AclWord(pub u32);

impl AclWord {
    /// Everything passes.
    pub const NONE: Self = Self(0);
    const WHITE: u32 = 1 << 24;
    const BITS: u32 = 12;
    const NUMBER: u32 = (1 << Self::BITS) - 1;

    /// The lists of both families, 0 where there is none that has entries; `white` when only who is listed may pass. Without
    /// any list it is [`Self::NONE`].
    pub const fn new(v4: u16, v6: u16, white: bool) -> Self {
        if v4 == 0 && v6 == 0 {
            return Self::NONE;
        }
        let numbers = v4 as u32 & Self::NUMBER | (v6 as u32 & Self::NUMBER) << Self::BITS;
        Self(numbers | if white { Self::WHITE } else { 0 })
    }

    /// Only who is listed may pass: nobody, where the family has no list.
    #[inline(always)]
    pub const fn is_white(self) -> bool {
        self.0 & Self::WHITE != 0
    }

    /// Number of the IPv4 list; 0 is none.
    #[inline(always)]
    pub const fn v4(self) -> u32 {
        self.0 & Self::NUMBER
    }

    /// Number of the IPv6 list; 0 is none.
    #[inline(always)]
    pub const fn v6(self) -> u32 {
        self.0 >> Self::BITS & Self::NUMBER
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::{boxed::Box, collections::BTreeSet, vec::Vec};

    use super::*;

    fn filled<B: Border>(borders: &[B]) -> Box<Borders<B>> {
        let mut table = Box::new(Borders::NONE);
        table.fill(borders.iter().copied());
        table
    }

    fn wide(n: u128) -> Wide {
        Wide { high: (n >> 64) as u64, low: n as u64 }
    }

    /// By counting.
    fn is_listed<B: Border>(borders: &[B], address: B) -> bool {
        borders.iter().filter(|border| **border <= address).count() % 2 == 1
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn whoever_is_between_two_borders_is_listed(
            n in prop_oneof![0usize..40, 0usize..MAX_BORDERS],
            step in 1u32..100_000,
            first in prop_oneof![Just(0u32), any::<u32>()],
            asked in proptest::collection::vec(any::<u32>(), 20),
        ) {
            let borders: BTreeSet<u32> = (0..n as u32).map_while(|n| first.checked_add(n.checked_mul(step)?)).collect();
            let borders: Vec<u32> = borders.into_iter().filter(|border| *border != u32::MAX).collect();
            let around = borders.iter().flat_map(|border| [border.wrapping_sub(1), *border, border + 1]);
            let picked = around.clone().take(60).chain(around.skip(borders.len()).step_by(101));
            let table = filled(&borders);
            let wides: Vec<Wide> = borders.iter().map(|border| wide(u128::from(*border) << 61)).collect();
            let table6 = filled(&wides);
            for address in asked.into_iter().chain(picked).filter(|address| *address != u32::MAX) {
                prop_assert_eq!(table.lists(u64::from(address)), is_listed(&borders, address), "{:x}", address);
                let six = wide(u128::from(address) << 61);
                prop_assert_eq!(table6.lists(six), is_listed(&wides, six), "{:?}", six);
            }
        }

        #[test]
        fn borders_are_compared_as_numbers(a: u128, b: u128, c: u32, d: u32) {
            prop_assert_eq!(wide(a).is_above(wide(b)) == 1, a > b);
            prop_assert_eq!(wide(a).is_above(wide(a)), 0);
            prop_assert_eq!(wide(a & !0xff).is_above(wide(a)), 0);
            prop_assert_eq!(wide(a | 0xff).is_above(wide(a)), u64::from(a & 0xff != 0xff));
            prop_assert_eq!(c.is_above(u64::from(d)) == 1, c > d);
            prop_assert_eq!(c.is_above(u64::from(c)), 0);
        }
    }

    #[test]
    fn a_list_that_is_full_is_still_right() {
        let borders: Vec<u32> = (1..MAX_BORDERS as u32).map(|n| n * 1000).collect();
        let table = filled(&borders);
        for address in (0..33_000_000).step_by(499) {
            let reached = (address / 1000).min(borders.len() as u32);
            assert_eq!(table.lists(u64::from(address)), reached % 2 == 1, "{address}");
        }
    }

    #[test]
    fn a_word_says_what_it_was_made_from() {
        let word = AclWord::new(5, 4095, true);
        assert_eq!((word.v4(), word.v6(), word.is_white()), (5, 4095, true));
        assert_eq!(AclWord::new(0, 0, true), AclWord::NONE);
        assert!(!AclWord::new(1, 0, false).is_white());
    }
}
