//! A connection for a listener that has nobody to give it to is refused by a RST where the SYN came from, so that the client need not
//! wait for a timeout (RFC 9293 section 3.10.7.1).
//!
//! Nothing is remembered and nothing is asked of any table: an answer costs as much as the SYN that asked for it, and is no
//! longer. What lies behind the shorter packet in the frame is padding.

use super::{
    link::{self, Link},
    tables::Tables,
    too_big,
};
use crate::{
    abi::reason::Drop,
    path::verdict::{Outcome, Verdict},
    wire::{
        checksum::Delta,
        frame::{ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, TCP, macs, set_macs},
    },
};

/// TTL or hop limit of answers (IANA's recommended default).
const TTL: u8 = 64;
/// Length of a TCP header without options.
const TCP_LEN: u8 = 20;
/// RST and ACK.
const RST_ACK: u8 = 0x14;

/// Whether a packet with this outcome is one that [`packet`] is asked about.
#[inline(always)]
pub fn is_refused(outcome: Outcome) -> bool {
    matches!(outcome.verdict(), Verdict::Drop(Drop::NoEndpoint | Drop::TooBig))
}

/// Answers the packet that had this `outcome`: a SYN that nobody is there for, or what is [too big](too_big); what cannot be answered
/// stays dropped, unchanged.
#[inline(always)]
pub fn packet<F: Frame, T: Tables>(frame: &mut F, tables: &T, outcome: Outcome) -> Outcome {
    if outcome.verdict() == Verdict::Drop(Drop::TooBig) {
        return too_big::packet(frame, tables, outcome);
    }
    match answer(frame) {
        Some(()) => outcome.answered(),
        None => outcome,
    }
}

/// Only SYNs and UDP packets come here, whose lengths hold together.
#[inline(always)]
fn answer<F: Frame>(frame: &mut F) -> Option<()> {
    let Link { ether_type, tags } = link::read(frame)?;
    let &mut [.., first, _, _, _, _, _] = frame.window::<12>(0)?;
    // An answer to a group of stations would be an answer to many.
    if first & 1 != 0 {
        return None;
    }
    match ether_type {
        ETHERTYPE_IPV4 => v4(frame, tags.l3())?,
        ETHERTYPE_IPV6 => v6(frame, tags.l3())?,
        _ => return None,
    }
    let eth = frame.window::<ETH_LEN>(0)?;
    let (dst_mac, src_mac) = macs(eth);
    set_macs(eth, src_mac, dst_mac);
    Some(())
}

/// An IPv4 header without options and the TCP header behind it.
#[inline(always)]
fn v4<F: Frame>(frame: &mut F, l3: usize) -> Option<()> {
    let &mut [first, _, l0, l1, _, _, _, _, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = frame.window::<20>(l3)?;
    if first != 0x45 || protocol != TCP {
        return None;
    }
    let behind = u32::from(u16::from_be_bytes([l0, l1])).checked_sub(20)?;
    let (src, dst) = ([s0, s1, s2, s3], [d0, d1, d2, d3]);
    let addresses = Delta::default().bytes4([0; 4], src).bytes4([0; 4], dst);
    reset(frame, l3 + 20, behind, addresses)?;
    // No identification is needed where nothing may be fragmented (RFC 6864 section 4.1).
    let (first, second, third) = ([0x45, 0, 0, 20 + TCP_LEN], [0, 0, 0x40, 0], [TTL, TCP, 0, 0]);
    let [c0, c1] = addresses.bytes4([0; 4], first).bytes4([0; 4], second).bytes4([0; 4], third).apply([0xff, 0xff]);
    *frame.window::<4>(l3)? = first;
    *frame.window::<4>(l3 + 4)? = second;
    *frame.window::<4>(l3 + 8)? = [TTL, TCP, c0, c1];
    *frame.window::<4>(l3 + 12)? = dst;
    *frame.window::<4>(l3 + 16)? = src;
    Some(())
}

/// An IPv6 header and the TCP header right behind it.
#[inline(always)]
fn v6<F: Frame>(frame: &mut F, l3: usize) -> Option<()> {
    let &mut [_, _, _, _, l0, l1, next, _] = frame.window::<8>(l3)?;
    if next != TCP {
        return None;
    }
    let mut addresses = Delta::default();
    for at in [8, 16, 24, 32] {
        addresses = addresses.words([0], [u64::from_ne_bytes(*frame.window::<8>(l3 + at)?)]);
    }
    reset(frame, l3 + 40, u32::from(u16::from_be_bytes([l0, l1])), addresses)?;
    *frame.window::<8>(l3)? = [0x60, 0, 0, 0, 0, TCP_LEN, TCP, TTL];
    for at in [8, 16] {
        let src = *frame.window::<8>(l3 + at)?;
        let dst = *frame.window::<8>(l3 + at + 16)?;
        *frame.window::<8>(l3 + at)? = dst;
        *frame.window::<8>(l3 + at + 16)? = src;
    }
    Some(())
}

/// Makes the header at `at`, which begins `behind` bytes of TCP header and payload, the answer to what it was; `addresses` is the
/// sum of the addresses. SEG.LEN counts the SYN, so what is acknowledged is one more than its payload.
#[inline(always)]
fn reset<F: Frame>(frame: &mut F, at: usize, behind: u32, addresses: Delta) -> Option<()> {
    let &mut [s0, s1, d0, d1, q0, q1, q2, q3, _, _, _, _, offset, _, _, _, _, _, _, _] = frame.window::<20>(at)?;
    let payload = behind.checked_sub(u32::from(offset >> 4) * 4)?;
    let ack = u32::from_be_bytes([q0, q1, q2, q3]).wrapping_add(payload).wrapping_add(1).to_be_bytes();
    let (ports, flags) = ([d0, d1, s0, s1], [TCP_LEN << 2, RST_ACK, 0, 0]);
    let sum = addresses.bytes4([0; 4], [0, TCP, 0, TCP_LEN]).bytes4([0; 4], ports).bytes4([0; 4], ack).bytes4([0; 4], flags);
    let [c0, c1] = sum.apply([0xff, 0xff]);
    *frame.window::<4>(at)? = ports;
    *frame.window::<4>(at + 4)? = [0; 4];
    *frame.window::<4>(at + 8)? = ack;
    *frame.window::<4>(at + 12)? = flags;
    *frame.window::<4>(at + 16)? = [c0, c1, 0, 0];
    Some(())
}
