//! SipHash by its paper (Aumasson, Bernstein 2012), with the number of rounds as parameters, over whole words.

/// The hash of `words` under `key`, `C` rounds a word and `D` rounds at the end.
pub fn sip<const C: usize, const D: usize>(key: [u64; 2], words: &[u64]) -> u64 {
    let [k0, k1] = key;
    let mut state = State {
        v0: k0 ^ 0x736f6d6570736575,
        v1: k1 ^ 0x646f72616e646f6d,
        v2: k0 ^ 0x6c7967656e657261,
        v3: k1 ^ 0x7465646279746573,
    };
    for word in words {
        state.v3 ^= word;
        (0..C).for_each(|_| state.round());
        state.v0 ^= word;
    }
    state.v2 ^= 0xff;
    (0..D).for_each(|_| state.round());
    state.v0 ^ state.v1 ^ state.v2 ^ state.v3
}

struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    /// Figure 2.1 of the paper, line by line.
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13);
        self.v3 = self.v3.rotate_left(16);
        self.v1 ^= self.v0;
        self.v3 ^= self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17);
        self.v3 = self.v3.rotate_left(21);
        self.v1 ^= self.v2;
        self.v3 ^= self.v0;
        self.v2 = self.v2.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Appendix A of the paper: SipHash-2-4 of the bytes 00 to 0e under the key 00 to 0f.
    #[test]
    fn the_papers_example_comes_out() {
        let key = [0x0706050403020100, 0x0f0e0d0c0b0a0908];
        assert_eq!(sip::<2, 4>(key, &[0x0706050403020100, 0x0f0e0d0c0b0a0908]), 0xa129ca6149be45e5);
    }
}
