//! A connection for a listener that has nobody to give it to is refused by a RST where the SYN came from, so that the client need not
//! wait for a timeout (RFC 9293 section 3.10.7.1).
//!
//! Nothing is remembered and nothing is asked of any table: an answer costs as much as the SYN that asked for it, and is no
//! longer. What lies behind the shorter packet in the frame is padding.

use super::link::{self, Link};
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
    outcome.verdict() == Verdict::Drop(Drop::NoEndpoint)
}

/// Answers the SYN that had this `outcome`; what cannot be answered stays dropped, unchanged.
#[inline(always)]
pub fn packet<F: Frame>(frame: &mut F, outcome: Outcome) -> Outcome {
    match answer(frame) {
        Some(()) => outcome.answered(),
        None => outcome,
    }
}

/// Only SYNs and UDP packets come here, whose lengths hold together.
#[inline(always)]
fn answer<F: Frame>(frame: &mut F) -> Option<()> {
    let Link { ether_type, tags } = link::read(frame)?;
    let (dst_mac, src_mac) = macs(frame.window::<ETH_LEN>(0)?);
    // An answer to a group of stations would be an answer to many.
    if src_mac[0] & 1 != 0 {
        return None;
    }
    match ether_type {
        ETHERTYPE_IPV4 => v4(frame.window::<40>(tags.l3())?)?,
        ETHERTYPE_IPV6 => v6(frame.window::<60>(tags.l3())?)?,
        _ => return None,
    }
    set_macs(frame.window::<ETH_LEN>(0)?, src_mac, dst_mac);
    Some(())
}

/// An IPv4 header without options and the TCP header behind it.
#[inline(always)]
fn v4(b: &mut [u8; 40]) -> Option<()> {
    if b[0] != 0x45 || b[9] != TCP {
        return None;
    }
    let behind = u32::from(u16::from_be_bytes([b[2], b[3]])).checked_sub(20)?;
    let (src, dst) = ([b[12], b[13], b[14], b[15]], [b[16], b[17], b[18], b[19]]);
    let mut tcp = [0; 20];
    tcp.copy_from_slice(&b[20..]);
    let pseudo = Delta::default().bytes4([0; 4], src).bytes4([0; 4], dst);
    b[20..].copy_from_slice(&reset(&tcp, behind, pseudo)?);
    // No identification is needed where nothing may be fragmented (RFC 6864 section 4.1).
    let words = [[0x45, 0, 0, 20 + TCP_LEN], [0, 0, 0x40, 0], [TTL, TCP, 0, 0]];
    let check = sum(words.iter().copied(), pseudo).apply([0xff, 0xff]);
    for (n, word) in words.into_iter().enumerate() {
        b[4 * n..4 * n + 4].copy_from_slice(&word);
    }
    b[10..12].copy_from_slice(&check);
    b[12..16].copy_from_slice(&dst);
    b[16..20].copy_from_slice(&src);
    Some(())
}

/// An IPv6 header and the TCP header right behind it.
#[inline(always)]
fn v6(b: &mut [u8; 60]) -> Option<()> {
    if b[6] != TCP {
        return None;
    }
    let behind = u32::from(u16::from_be_bytes([b[4], b[5]]));
    let word = |at: usize| [b[at], b[at + 1], b[at + 2], b[at + 3]];
    let pseudo = sum([8, 12, 16, 20, 24, 28, 32, 36].into_iter().map(word), Delta::default());
    let mut tcp = [0; 20];
    tcp.copy_from_slice(&b[40..]);
    b[40..].copy_from_slice(&reset(&tcp, behind, pseudo)?);
    for at in 8..24 {
        b.swap(at, at + 16);
    }
    b[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, TCP_LEN, TCP, TTL]);
    Some(())
}

/// The header that answers `syn`, which begins `behind` bytes of TCP header and payload; `addresses` is the sum of the addresses.
/// SEG.LEN counts the SYN, so what is acknowledged is one more than its payload.
#[inline(always)]
fn reset(syn: &[u8; 20], behind: u32, addresses: Delta) -> Option<[u8; 20]> {
    let payload = behind.checked_sub(u32::from(syn[12] >> 4) * 4)?;
    let seq = u32::from_be_bytes([syn[4], syn[5], syn[6], syn[7]]);
    let ack = seq.wrapping_add(payload).wrapping_add(1).to_be_bytes();
    let words = [[syn[2], syn[3], syn[0], syn[1]], ack, [TCP_LEN << 2, RST_ACK, 0, 0]];
    let pseudo = addresses.bytes4([0; 4], [0, TCP, 0, TCP_LEN]);
    let [c0, c1] = sum(words.iter().copied(), pseudo).apply([0xff, 0xff]);
    let [ports, ack, flags] = words;
    Some([
        ports[0], ports[1], ports[2], ports[3], 0, 0, 0, 0, ack[0], ack[1], ack[2], ack[3], flags[0], flags[1], 0, 0, c0, c1, 0,
        0,
    ])
}

/// `words` added to a sum that began with nothing: as if they had been zero.
#[inline(always)]
fn sum(words: impl Iterator<Item = [u8; 4]>, from: Delta) -> Delta {
    words.fold(from, |sum, word| sum.bytes4([0; 4], word))
}
