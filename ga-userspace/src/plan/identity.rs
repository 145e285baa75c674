//! Names to stable 64-bit numbers.
//!
//! These functions are frozen: an identity lies in pinned maps across upgrades and decides which slots an endpoint prefers,
//! so every edge of a fleet and every version must compute the same one. The tests pin their values.

use crate::model::{EndpointKind, EndpointName};

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The finaliser of splitmix64: a bijection that spreads every input bit over all output bits.
pub(super) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a over the parts, each after its length as four little-endian bytes, then [`mix`]. So `("ab", "c")` and `("a", "bc")` differ.
fn of_parts(parts: &[&str]) -> u64 {
    let mut hash = FNV_OFFSET;
    for part in parts {
        // A part is a name of at most 128 characters or an address; its length fits.
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes();
        for byte in length.iter().chain(part.as_bytes()) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
        }
    }
    mix(hash)
}

/// A chain of [`mix`] over numbers; order counts.
pub(super) fn of_numbers(numbers: impl IntoIterator<Item = u64>) -> u64 {
    numbers.into_iter().fold(FNV_OFFSET, |hash, number| mix(hash ^ mix(number)))
}

/// Fingerprint of a text: two edges show the same one when they run the same file.
pub fn fingerprint(text: &str) -> u64 {
    of_parts(&["text", text])
}

/// Identity of a listener.
pub(super) fn of_listener(instance: &str, listener: &str) -> u64 {
    of_parts(&["listener", instance, listener])
}

/// Identity of the place an endpoint is at, the same for every listener that names it: an address, or an address and a port.
pub(super) fn of_place(at: &str) -> u64 {
    of_parts(&["place", at])
}

/// Identity of an endpoint. Where it is counts in its canonical text form (RFC 5952).
pub(super) fn of_endpoint(instance: &str, listener: &str, group: &str, kind: EndpointKind, at: &str) -> u64 {
    of_parts(&["endpoint", instance, listener, group, kind.word(), at])
}

/// Stable number of where an endpoint is, whoever names it.
pub(super) fn place(name: &EndpointName) -> u64 {
    of_place(&name.at())
}

/// The stable number of an endpoint: the same on every edge and after every restart.
pub(super) fn of(name: &EndpointName) -> u64 {
    of_endpoint(name.instance.as_str(), name.listener.as_str(), name.group.as_str(), name.kind, &name.at())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_frozen() {
        let v4 = of_endpoint("shop", "https", "eu", EndpointKind::Ip, "192.0.2.1");
        let v6 = of_endpoint("shop", "https", "eu", EndpointKind::PrivateIp, "2001:db8::1");
        let found = [of_listener("shop", "https"), v4, v6, of_numbers([1, 2, 3]), mix(0)];
        // The last is the first output of splitmix64 seeded with 0, as published.
        let frozen =
            [0xb18e_9f54_bc73_28a2, 0xae87_6884_7bbf_0e20, 0xec79_790c_096d_0632, 0x6eae_763e_abd2_eaf1, 0xe220_a839_7b1d_cdaf];
        assert_eq!(found, frozen, "{found:#x?}");
    }

    #[test]
    fn the_border_between_names_counts() {
        assert_ne!(of_listener("ab", "c"), of_listener("a", "bc"));
    }
}
