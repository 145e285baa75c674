//! A checksum that notices changed, missing, doubled and exchanged bytes, fast even without optimisation.

/// A running digest; how the bytes are cut does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    state: u64,
    rest: [u8; 8],
    bytes: u64,
}

impl Digest {
    /// Takes more bytes in.
    pub fn update(&mut self, mut bytes: &[u8]) {
        let held = (self.bytes % 8) as usize;
        self.bytes += bytes.len() as u64;
        if held > 0 {
            let take = bytes.len().min(8 - held);
            let (head, tail) = bytes.split_at(take);
            self.rest[held..held + take].copy_from_slice(head);
            if held + take < 8 {
                return;
            }
            self.word(u64::from_le_bytes(self.rest));
            bytes = tail;
        }
        let words = bytes.chunks_exact(8);
        let rest = words.remainder();
        for word in words {
            let mut eight = [0; 8];
            eight.copy_from_slice(word);
            self.word(u64::from_le_bytes(eight));
        }
        self.rest = [0; 8];
        self.rest[..rest.len()].copy_from_slice(rest);
    }

    fn word(&mut self, word: u64) {
        self.state = (self.state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    /// How many bytes went in.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_bytes_are_cut_does_not_matter_and_their_order_does() {
        let bytes: Vec<u8> = (0..=255).collect();
        let digest = |sizes: &[usize]| {
            let (mut digest, mut rest) = (Digest::default(), &bytes[..]);
            for size in sizes.iter().cycle() {
                let (head, tail) = rest.split_at(rest.len().min(*size));
                digest.update(head);
                rest = tail;
                if rest.is_empty() {
                    return digest;
                }
            }
            digest
        };
        assert_eq!(digest(&[256]), digest(&[1, 2, 3]));
        assert_eq!(digest(&[256]), digest(&[7, 13]));
        let mut turned = bytes.clone();
        turned.swap(8, 16);
        let mut other = Digest::default();
        other.update(&turned);
        assert_ne!(digest(&[256]), other);
    }
}
