//! IPv6 extension headers (RFC 8200 section 4): a bounded walk to what is behind them.

use super::frame::{Frame, IPV6_FRAGMENT, MAX_OFFSET};

/// Extension headers that are walked over.
pub const MAX_EXTENSIONS: usize = 6;

/// IANA numbers of extension headers (RFC 8200 section 4.1).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const NO_NEXT: u8 = 59;
const DESTINATION: u8 = 60;

/// What is behind the extension headers, as one number, because that is what the kernel returns in a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper(u32);

impl Upper {
    const FRAGMENT: u32 = 1 << 8;
    const TOO_MANY: u32 = 1 << 9;

    /// From what [`Self::bits`] gave.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// As a number.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// A header of `protocol` at `offset`.
    #[inline(always)]
    pub const fn at(protocol: u8, offset: usize) -> Self {
        Self(protocol as u32 | (offset as u32) << 16)
    }

    #[inline(always)]
    const fn fragment(protocol: u8, offset: usize) -> Self {
        Self(protocol as u32 | Self::FRAGMENT | (offset as u32) << 16)
    }

    /// IANA number of what is there. No protocol of ours where the chain contradicts itself or has something that is the host's
    /// to judge: headers of other kinds, or a routing header with another stop to go to.
    #[inline(always)]
    pub const fn protocol(self) -> u8 {
        self.0 as u8
    }

    /// Where it is; at most [`MAX_OFFSET`]. Of a [fragment](Self::is_fragment), where the fragment header is.
    #[inline(always)]
    pub const fn offset(self) -> usize {
        (self.0 >> 16) as usize
    }

    /// Whether it is behind a fragment header, and so perhaps not there.
    #[inline(always)]
    pub const fn is_fragment(self) -> bool {
        self.0 & Self::FRAGMENT != 0
    }

    /// Whether it was not reached, for the headers in front of it are more or longer than are walked over.
    #[inline(always)]
    pub const fn is_too_far(self) -> bool {
        self.0 & Self::TOO_MANY != 0
    }
}

/// The packet ends within an extension header.
const CUT_OFF: Upper = Upper::at(NO_NEXT, 0);

/// Walks over extension headers from the one at `offset`, which is of kind `next`; the packet ends at `end`.
#[inline(always)]
pub fn walk<F: Frame>(frame: &mut F, next: u8, offset: usize, end: usize) -> Upper {
    let (mut next, mut offset) = (next, offset);
    for n in 0..=MAX_EXTENSIONS {
        if offset > MAX_OFFSET {
            break;
        }
        // RFC 8200 section 4.1: hop-by-hop options come first or not at all.
        let is_walked = matches!(next, DESTINATION | ROUTING) || next == HOP_BY_HOP && n == 0;
        if !is_walked && next != IPV6_FRAGMENT {
            return Upper::at(next, offset);
        }
        // The smallest extension header.
        if offset + 8 > end {
            return CUT_OFF;
        }
        let Some(&mut [follower, length, _, segments_left, ..]) = frame.window::<8>(offset) else { return CUT_OFF };
        if next == IPV6_FRAGMENT {
            return Upper::fragment(follower, offset);
        }
        if next == ROUTING && segments_left != 0 {
            return Upper::at(ROUTING, offset);
        }
        offset += (usize::from(length) + 1) * 8;
        if offset > end {
            return CUT_OFF;
        }
        next = follower;
    }
    Upper(Upper::TOO_MANY)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use etherparse::{IpNumber, Ipv6FragmentHeader, Ipv6RawExtHeader};
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{
        sim::Bytes,
        wire::frame::{TCP, UDP},
    };

    /// Where the first extension header is.
    const START: usize = 54;

    /// Extension headers of the kinds and lengths given, by etherparse, behind anything, and `upper` behind them.
    fn chain(kinds: &[(u8, usize)], upper: u8) -> Bytes {
        let mut bytes = std::vec![0xff; START];
        let followers = kinds.iter().skip(1).map(|(kind, _)| *kind).chain([upper]);
        for (follower, (_, words)) in followers.zip(kinds) {
            // The third byte behind the two is a routing header's segments left.
            let payload = std::vec![0; words * 8 - 2];
            bytes.extend(Ipv6RawExtHeader::new_raw(IpNumber(follower), &payload).unwrap().to_bytes());
        }
        Bytes { bytes, ifindex: 1 }
    }

    fn run(bytes: &mut Bytes, kinds: &[(u8, usize)], upper: u8) -> Upper {
        let (next, end) = (kinds.first().map_or(upper, |(kind, _)| *kind), bytes.bytes.len());
        walk(bytes, next, START, end)
    }

    fn kinds() -> impl Strategy<Value = Vec<(u8, usize)>> {
        (any::<bool>(), vec((prop_oneof![Just(DESTINATION), Just(ROUTING)], 1usize..8), 0..=5)).prop_map(|(hop, mut kinds)| {
            if hop {
                kinds.insert(0, (HOP_BY_HOP, 2));
            }
            kinds
        })
    }

    proptest! {
        #[test]
        fn what_is_behind_up_to_six_headers_is_found(kinds in kinds(), upper in prop_oneof![Just(TCP), Just(UDP), Just(58), Just(NO_NEXT), Just(51)]) {
            let mut bytes = chain(&kinds, upper);
            let end = bytes.bytes.len();
            prop_assert_eq!(run(&mut bytes, &kinds, upper), Upper::at(upper, end));
        }

        #[test]
        fn a_chain_that_is_cut_off_says_nothing(kinds in kinds()) {
            prop_assume!(!kinds.is_empty());
            let whole = chain(&kinds, TCP);
            for end in START..whole.bytes.len() {
                let mut cut = Bytes { bytes: whole.bytes[..end].to_vec(), ifindex: 1 };
                prop_assert_eq!(walk(&mut cut, kinds[0].0, START, end).protocol(), NO_NEXT);
                // Bytes behind the packet are no part of it.
                prop_assert_eq!(walk(&mut whole.clone(), kinds[0].0, START, end).protocol(), NO_NEXT);
            }
        }

        #[test]
        fn a_fragment_header_is_seen_wherever_it_is(kinds in kinds(), offset in 0u16..8192, more in any::<bool>()) {
            let mut bytes = chain(&kinds, IPV6_FRAGMENT);
            let header = Ipv6FragmentHeader::new(IpNumber(UDP), offset.try_into().unwrap(), more, 7);
            bytes.bytes.extend(header.to_bytes());
            let upper = run(&mut bytes, &kinds, IPV6_FRAGMENT);
            prop_assert!(upper.is_fragment() && upper.protocol() == UDP && !upper.is_too_far());
            prop_assert_eq!(upper.offset(), bytes.bytes.len() - 8);
        }

        #[test]
        fn random_bytes_lead_nowhere_beyond_the_packet(bytes in vec(prop_oneof![Just(0u8), Just(60), Just(43), any::<u8>()], 0..700), next in any::<u8>()) {
            let end = bytes.len();
            let upper = walk(&mut Bytes { bytes, ifindex: 1 }, next, START.min(end), end);
            prop_assert!(upper.offset() <= end && upper.offset() <= MAX_OFFSET);
        }
    }

    #[test]
    fn seven_headers_are_too_many() {
        let kinds = [(DESTINATION, 1); 7];
        assert!(run(&mut chain(&kinds, TCP), &kinds, TCP).is_too_far());
        assert_eq!(run(&mut chain(&kinds[1..], TCP), &kinds[1..], TCP), Upper::at(TCP, START + 48));
    }

    #[test]
    fn headers_that_reach_too_far_are_too_many() {
        let kinds = [(DESTINATION, 58)];
        assert!(run(&mut chain(&kinds, TCP), &kinds, TCP).is_too_far());
        let kinds = [(DESTINATION, 57)];
        assert_eq!(run(&mut chain(&kinds, TCP), &kinds, TCP).offset(), 510);
    }

    #[test]
    fn hop_by_hop_options_come_first_or_not_at_all() {
        let kinds = [(DESTINATION, 1), (HOP_BY_HOP, 1)];
        assert_eq!(run(&mut chain(&kinds, TCP), &kinds, TCP), Upper::at(HOP_BY_HOP, START + 8));
    }

    #[test]
    fn a_routing_header_with_another_stop_is_the_hosts() {
        let mut bytes = chain(&[(ROUTING, 3)], TCP);
        bytes.bytes[START + 3] = 1;
        assert_eq!(run(&mut bytes, &[(ROUTING, 3)], TCP).protocol(), ROUTING);
    }
}
