//! The one keyed hash: packets choose their endpoint and their flow slot with it.
//!
//! SipHash-1-3 (Aumasson, Bernstein 2012) over whole 64-bit words; every caller hashes a fixed number of words, so the length
//! byte of the original is not needed. Without the key a client can aim neither at an endpoint nor at a slot.

/// A hash being computed.
#[derive(Clone, Copy, Debug)]
pub struct Sip([u64; 4]);

impl Sip {
    /// Starts a hash under `key`.
    #[inline(always)]
    pub fn new(key: [u64; 2]) -> Self {
        Self([
            key[0] ^ 0x736f_6d65_7073_6575,
            key[1] ^ 0x646f_7261_6e64_6f6d,
            key[0] ^ 0x6c79_6765_6e65_7261,
            key[1] ^ 0x7465_6462_7974_6573,
        ])
    }

    /// Takes one word in.
    #[inline(always)]
    pub fn word(mut self, word: u64) -> Self {
        self.0[3] ^= word;
        round(&mut self.0);
        self.0[0] ^= word;
        self
    }

    /// Takes several words in.
    #[inline(always)]
    pub fn words<const N: usize>(mut self, words: [u64; N]) -> Self {
        for word in words {
            self = self.word(word);
        }
        self
    }

    /// The hash.
    #[inline(always)]
    pub fn finish(mut self) -> u64 {
        self.0[2] ^= 0xff;
        round(&mut self.0);
        round(&mut self.0);
        round(&mut self.0);
        self.0[0] ^ self.0[1] ^ self.0[2] ^ self.0[3]
    }
}

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

/// Maps a hash to `0..size` by multiply and shift (Lemire 2016): no division, and a bound the verifier can see.
#[inline(always)]
pub fn scale(hash: u32, size: u32) -> u32 {
    ((u64::from(hash) * u64::from(size)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sip(key: [u64; 2], words: [u64; 2]) -> u64 {
        Sip::new(key).words(words).finish()
    }

    #[test]
    fn scale_reaches_both_ends_and_never_the_size() {
        assert_eq!(scale(0, 65_537), 0);
        assert_eq!(scale(u32::MAX, 65_537), 65_536);
    }

    #[test]
    fn one_bit_of_input_or_key_changes_half_of_the_output() {
        let base = sip([1, 2], [3, 4]);
        for bit in 0..64 {
            for other in [sip([1, 2], [3 ^ (1 << bit), 4]), sip([1 ^ (1 << bit), 2], [3, 4])] {
                assert!((12..=52).contains(&(base ^ other).count_ones()), "bit {bit}");
            }
        }
    }

    #[test]
    fn sequential_clients_spread_evenly() {
        let mut hits = [0u32; 16];
        for client in 0..16_000u64 {
            hits[scale((sip([7, 9], [0xc633_6401_0000_0000 | client, 80]) >> 32) as u32, 16) as usize] += 1;
        }
        assert!(hits.iter().all(|&n| (850..1150).contains(&n)), "{hits:?}");
    }
}
