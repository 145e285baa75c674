//! Packets that do not fit where they would leave, because they get longer on their way: their senders are told what fits (RFC 1191,
//! RFC 8201), by the address that they sent to and where they came from.
//!
//! Nothing is fragmented here: an IPv4 packet whose sender allows that is dropped like any other, without a word. ICMP messages and
//! what came from a group of stations are never answered (RFC 1122 section 3.2.2, RFC 4443 section 2.4).

use super::{explain::Stage, link, tables::Tables, verdict::Outcome};
use crate::{
    abi::{family::Family, id::ListenerId},
    wire::{
        checksum::{self, Delta},
        frame::{ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, ICMP, ICMPV6, TCP, UDP},
    },
};

/// Least MTU of an IPv6 link: no sender makes its packets shorter (RFC 8200 section 5).
const MIN_MTU6: u32 = 1280;
/// Length of an IPv4 header without options.
const V4_LEN: usize = 20;
/// Length of an IPv6 header.
const V6_LEN: usize = 40;
/// Length of the ICMP header in front of the quoted packet.
const ICMP_LEN: usize = 8;
/// Length of the longest answer: RFC 1812 section 4.3.2.3, RFC 4443 section 3.2.
const LONGEST4: usize = 576;
const LONGEST6: usize = 1280;
/// TTL or hop limit of answers (IANA's recommended default).
const TTL: u8 = 64;
/// "Do not fragment" in the first byte of flags and fragment offset.
const DF: u8 = 0x40;

/// Whether a packet of `length` bytes fits an MTU, which is 0 when nobody knows it.
#[inline(always)]
pub(super) const fn fits(length: usize, mtu: u32) -> bool {
    mtu == 0 || length <= mtu as usize
}

/// What becomes of a packet that does not: packets of its `family` fit if they are not longer than `told`.
#[inline(always)]
pub(super) fn dropped<T: Tables>(tables: &T, id: ListenerId, told: u32, family: Family) -> Outcome {
    let least = if matches!(family, Family::V6) { MIN_MTU6 } else { 0 };
    let told = told.max(least).min(0xffff) as u16;
    if T::DRY {
        tables.explain(|| Stage::too_big(told));
    }
    Outcome::too_big(id, told)
}

/// Answers the packet that had this `outcome`; what cannot be answered stays dropped, unchanged.
#[inline(always)]
pub fn packet<F: Frame, T: Tables>(frame: &mut F, tables: &T, outcome: Outcome) -> Outcome {
    let Some(link) = link::read(frame) else { return outcome };
    let (l3, mtu) = (link.tags.l3(), outcome.mtu());
    let Some(length) = asks(frame, link.ether_type, l3) else { return outcome };
    // Of what is short enough already nothing better can be asked.
    if length <= usize::from(mtu) || !tables.may_tell(tables.tick()) {
        return outcome;
    }
    let told = match link.ether_type {
        ETHERTYPE_IPV4 => v4(frame, l3, length, mtu),
        _ => v6(frame, l3, length, mtu),
    };
    if told.is_some() { outcome.answered() } else { outcome }
}

/// The length of a packet whose sender is to be told; none when it is not.
#[inline(always)]
fn asks<F: Frame>(frame: &mut F, ether_type: [u8; 2], l3: usize) -> Option<usize> {
    let &mut [.., first, _, _, _, _, _] = frame.window::<12>(0)?;
    if first & 1 != 0 {
        return None;
    }
    match ether_type {
        ETHERTYPE_IPV4 => {
            let &mut [_, _, l0, l1, _, _, flags, _, _, protocol] = frame.window::<10>(l3)?;
            let is_asked = flags & DF != 0 && matches!(protocol, TCP | UDP);
            is_asked.then_some(usize::from(u16::from_be_bytes([l0, l1])))
        }
        ETHERTYPE_IPV6 => {
            let &mut [_, _, _, _, l0, l1, next, _] = frame.window::<8>(l3)?;
            let length = V6_LEN + usize::from(u16::from_be_bytes([l0, l1]));
            let protocol = if matches!(next, TCP | UDP) { next } else { frame.walk(next, l3 + V6_LEN, l3 + length).protocol() };
            matches!(protocol, TCP | UDP).then_some(length)
        }
        _ => None,
    }
}

/// Puts room for `by` bytes behind the link layer, which is turned to where the frame came from, and leaves `quoted` bytes behind them.
#[inline(always)]
fn make_room<F: Frame>(frame: &mut F, l3: usize, by: usize, quoted: usize) -> Option<()> {
    if !frame.grow_head(by as i32) {
        return None;
    }
    let &mut [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, e0, e1] = frame.window::<ETH_LEN>(by)?;
    *frame.window::<ETH_LEN>(0)? = [s0, s1, s2, s3, s4, s5, d0, d1, d2, d3, d4, d5, e0, e1];
    for n in 0..2 {
        let at = ETH_LEN + 4 * n;
        if at < l3 {
            let tag = *frame.window::<4>(by + at)?;
            *frame.window::<4>(at)? = tag;
        }
    }
    frame.cut(l3 + by + quoted).then_some(())
}

/// "Fragmentation needed and DF set" (RFC 1191 section 4) about the packet of `length` bytes at `l3`, in front of it.
#[inline(always)]
fn v4<F: Frame>(frame: &mut F, l3: usize, length: usize, mtu: u16) -> Option<()> {
    const ROOM: usize = V4_LEN + ICMP_LEN;
    let quoted = length.min(LONGEST4 - ROOM);
    make_room(frame, l3, ROOM, quoted)?;
    let &mut [s0, s1, s2, s3, d0, d1, d2, d3] = frame.window::<8>(l3 + ROOM + 12)?;
    let [m0, m1] = mtu.to_be_bytes();
    *frame.window::<ICMP_LEN>(l3 + V4_LEN)? = [3, 4, 0, 0, 0, 0, m0, m1];
    let sum = frame.sum(l3 + V4_LEN, ICMP_LEN + quoted)?;
    *frame.window::<2>(l3 + V4_LEN + 2)? = Delta::default().plus(sum).apply([0xff, 0xff]);
    let [l0, l1] = ((ROOM + quoted) as u16).to_be_bytes();
    let (first, second, third) = ([0x45, 0, l0, l1], [0, 0, DF, 0], [TTL, ICMP, 0, 0]);
    let words = [first, second, third, [d0, d1, d2, d3], [s0, s1, s2, s3]].map(u32::from_ne_bytes);
    let [c0, c1] = checksum::of_words(words);
    *frame.window::<4>(l3)? = first;
    *frame.window::<4>(l3 + 4)? = second;
    *frame.window::<4>(l3 + 8)? = [TTL, ICMP, c0, c1];
    *frame.window::<8>(l3 + 12)? = [d0, d1, d2, d3, s0, s1, s2, s3];
    Some(())
}

/// "Packet too big" (RFC 4443 section 3.2), likewise.
#[inline(always)]
fn v6<F: Frame>(frame: &mut F, l3: usize, length: usize, mtu: u16) -> Option<()> {
    const ROOM: usize = V6_LEN + ICMP_LEN;
    let quoted = length.min(LONGEST6 - ROOM);
    make_room(frame, l3, ROOM, quoted)?;
    let [l0, l1] = ((ICMP_LEN + quoted) as u16).to_be_bytes();
    let mut sum = Delta::default().bytes4([0; 4], [l0, l1, 0, ICMPV6]);
    // Word by word: what the packet came from and went to, the other way round.
    for (from, to) in [(8, 24), (16, 32), (24, 8), (32, 16)] {
        let word = *frame.window::<8>(l3 + ROOM + from)?;
        *frame.window::<8>(l3 + to)? = word;
        sum = sum.words([0], [u64::from_ne_bytes(word)]);
    }
    *frame.window::<8>(l3)? = [0x60, 0, 0, 0, l0, l1, ICMPV6, TTL];
    let [m0, m1] = mtu.to_be_bytes();
    *frame.window::<ICMP_LEN>(l3 + V6_LEN)? = [2, 0, 0, 0, 0, 0, m0, m1];
    let sum = sum.plus(frame.sum(l3 + V6_LEN, ICMP_LEN + quoted)?);
    *frame.window::<2>(l3 + V6_LEN + 2)? = sum.apply([0xff, 0xff]);
    Some(())
}
