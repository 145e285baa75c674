//! Incremental internet checksums: RFC 1071 arithmetic, RFC 1624 equation 3.
//!
//! Everything is summed in the byte order of the cable as the CPU loads it: one's complement sums do not care, as long as both
//! sides do the same.

/// The difference between old and new words, as an unfolded one's complement sum of `!old + new`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    /// Four bytes changed.
    #[inline(always)]
    pub fn bytes4(self, old: [u8; 4], new: [u8; 4]) -> Self {
        self.word(u32::from_ne_bytes(old), u32::from_ne_bytes(new))
    }

    /// Two bytes changed.
    #[inline(always)]
    pub fn bytes2(self, old: [u8; 2], new: [u8; 2]) -> Self {
        Self(self.0 + u64::from(!u16::from_ne_bytes(old)) + u64::from(u16::from_ne_bytes(new)))
    }

    /// Packed addresses changed.
    #[inline(always)]
    pub fn words<const K: usize>(mut self, old: [u64; K], new: [u64; K]) -> Self {
        for i in 0..K {
            self = self.word(old[i] as u32, new[i] as u32).word((old[i] >> 32) as u32, (new[i] >> 32) as u32);
        }
        self
    }

    /// Both changes.
    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// And what sums up to `sum` came to it, where there was nothing.
    #[inline(always)]
    pub fn plus(self, sum: u32) -> Self {
        Self(self.0 + u64::from(sum))
    }

    #[inline(always)]
    fn word(self, old: u32, new: u32) -> Self {
        Self(self.0 + u64::from(!old) + u64::from(new))
    }

    /// `checksum` with the difference applied: HC' = ~(~HC + ~m + m').
    #[inline(always)]
    pub fn apply(self, checksum: [u8; 2]) -> [u8; 2] {
        let mut sum = self.0 + u64::from(!u16::from_ne_bytes(checksum));
        sum = (sum & 0xffff_ffff) + (sum >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        (!(sum as u16)).to_ne_bytes()
    }
}

/// The checksum of a header of `N` words as the CPU loads them, its checksum field zero.
#[inline(always)]
pub fn of_words<const N: usize>(words: [u32; N]) -> [u8; 2] {
    let mut sum = 0u64;
    for word in words {
        sum += u64::from(word);
    }
    sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    (!(sum as u16)).to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071, by the letter.
    fn full(bytes: &[u8]) -> u16 {
        let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    /// In one's complement, 0x0000 and 0xffff are the same number.
    fn same(a: u16, b: u16) -> bool {
        a % 0xffff == b % 0xffff
    }

    proptest! {
        #[test]
        fn a_change_gives_what_a_full_sum_gives(mut data in proptest::array::uniform32(any::<u8>()), new in any::<[u8; 16]>(), port in any::<[u8; 2]>()) {
            let before = full(&data).to_be_bytes();
            let (old_addrs, old_port) = (<[u8; 16]>::try_from(&data[4..20]).unwrap(), [data[20], data[21]]);
            let words = |b: [u8; 16]| [u64::from_ne_bytes(b[..8].try_into().unwrap()), u64::from_ne_bytes(b[8..].try_into().unwrap())];
            data[4..20].copy_from_slice(&new);
            data[20..22].copy_from_slice(&port);
            let delta = Delta::default().words(words(old_addrs), words(new)).bytes2(old_port, port);
            prop_assert!(same(u16::from_be_bytes(delta.apply(before)), full(&data)));
        }

        #[test]
        fn a_header_is_summed_as_the_letter_says(words in any::<[u32; 5]>()) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            prop_assert_eq!(of_words(words), full(&bytes).to_be_bytes());
        }

        #[test]
        fn a_bad_checksum_stays_bad(error in 1u16..0xffff, old in any::<[u8; 4]>(), new in any::<[u8; 4]>()) {
            let good = full(&old);
            let bad = ((u32::from(good) + u32::from(error)) % 0xffff) as u16;
            prop_assume!(!same(good, bad));
            let after = u16::from_be_bytes(Delta::default().bytes4(old, new).apply(bad.to_be_bytes()));
            prop_assert!(!same(after, full(&new)));
        }
    }
}
