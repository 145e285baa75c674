//! An outer IP header in front of a packet, which stays as it is: 4in4 (RFC 2003), 6in6 and 4in6 (RFC 2473), 6in4 (RFC 4213).

use super::{explain::Stage, parse::is_mapped, tables::Tables, too_big};
use crate::{
    abi::{
        entry::{AddressKey, Egress},
        limits::MAX_EGRESS,
        reason::Drop,
    },
    hash::scale,
    wire::{
        checksum,
        frame::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame},
        vlan::{TAG_LEN, Tags},
    },
};

/// Length of an outer IPv4 header.
pub const V4_LEN: usize = 20;
/// Length of an outer IPv6 header.
pub const V6_LEN: usize = 40;
/// TTL or hop limit of outer headers (IANA's recommended default).
const TTL: u8 = 64;
/// IANA number of IPv4 within IP.
const IPV4: u8 = 4;
/// IANA number of IPv6 within IP.
const IPV6: u8 = 41;

/// What an outer header is made from.
#[derive(Clone, Copy, Debug)]
pub struct Outer<'a> {
    /// The endpoint.
    pub to: &'a AddressKey,
    /// One of these addresses is the source.
    pub egress: &'a Egress,
    /// Hash of the flow: all its packets look alike from outside, and those of other flows differ (RFC 6438).
    pub flow: u64,
    /// The clock.
    pub tick: u32,
    /// Bytes that the outer packet may have; 0 when nobody knows.
    pub mtu: u32,
}

/// What the inner header says.
#[derive(Clone, Copy)]
struct Inner {
    /// ToS or traffic class, ECN included.
    tos: u8,
    /// Length of the packet.
    len: u16,
    /// IPv4 identification; 0 for IPv6.
    id: u16,
    /// IPv4 "do not fragment".
    df: bool,
}

/// Puts an outer header in front of the IP packet of a frame with the tags `have`, which gets the tags `want`; its MAC addresses
/// hold anything afterwards. The ToS is copied, ECN included (RFC 2983 section 4, RFC 6040 section 4.1); an outer IPv4 header
/// has the "do not fragment" of an inner one, and none around IPv6 (RFC 4213 section 3.2.1).
#[inline(always)]
pub fn wrap<const K: usize, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    have: Tags,
    want: Tags,
    outer: &Outer<'_>,
) -> Result<(), Drop> {
    let to_v4 = is_mapped(outer.to);
    // Judged first: what is dropped stays as it came.
    if if to_v4 { outer.egress.count4 } else { outer.egress.count6 } == 0 {
        return Err(Drop::NoEgress);
    }
    let inner = inner::<K, F>(frame, have.l3()).ok_or(Drop::Malformed)?;
    let len = if to_v4 { V4_LEN } else { V6_LEN };
    if !too_big::fits(usize::from(inner.len) + len, outer.mtu) {
        return Err(Drop::TooBig);
    }
    if have != want && !frame.retag(have, want) {
        return Err(Drop::Malformed);
    }
    if !frame.grow_head(len as i32) {
        return Err(Drop::Malformed);
    }
    // The tags are still in front of the inner header.
    let at = want.l3() - 2;
    for n in 0..2 {
        if n < want.count() as usize {
            let tag = *frame.window::<TAG_LEN>(len + 12 + n * TAG_LEN).ok_or(Drop::Malformed)?;
            *frame.window::<TAG_LEN>(12 + n * TAG_LEN).ok_or(Drop::Malformed)? = tag;
        }
    }
    *frame.window::<2>(at).ok_or(Drop::Malformed)? = if to_v4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
    let protocol = if K == 1 { IPV4 } else { IPV6 };
    if to_v4 { v4(frame, tables, at + 2, protocol, inner, outer) } else { v6(frame, tables, at + 2, protocol, inner, outer) }
}

#[inline(always)]
fn inner<const K: usize, F: Frame>(frame: &mut F, l3: usize) -> Option<Inner> {
    if K == 1 {
        let &mut [_, tos, l0, l1, i0, i1, flags, _] = frame.window::<8>(l3)?;
        Some(Inner { tos, len: u16::from_be_bytes([l0, l1]), id: u16::from_be_bytes([i0, i1]), df: flags & DF != 0 })
    } else {
        let &mut [a, b, _, _, l0, l1, ..] = frame.window::<8>(l3)?;
        let len = u16::from_be_bytes([l0, l1]).checked_add(V6_LEN as u16)?;
        Some(Inner { tos: a << 4 | b >> 4, len, id: 0, df: false })
    }
}

/// "Do not fragment" in the first byte of flags and fragment offset.
const DF: u8 = 0x40;

#[inline(always)]
fn v4<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    at: usize,
    protocol: u8,
    inner: Inner,
    outer: &Outer<'_>,
) -> Result<(), Drop> {
    let egress = outer.egress;
    let index = scale(outer.flow as u32, u32::from(egress.count4)) as usize;
    if index >= MAX_EGRESS {
        return Err(Drop::NoEgress);
    }
    let total = inner.len.checked_add(V4_LEN as u16).ok_or(Drop::Malformed)?.to_be_bytes();
    // Around IPv6 no two packets of a flow within the life of fragments may have the same one; a packet is seldom fragmented.
    let id = if protocol == IPV4 { inner.id } else { (outer.flow as u32 ^ outer.tick) as u16 }.to_be_bytes();
    let src = egress.v4[index];
    let dst = [outer.to[12], outer.to[13], outer.to[14], outer.to[15]];
    let words = [
        u32::from_ne_bytes([0x45, inner.tos, total[0], total[1]]),
        u32::from_ne_bytes([id[0], id[1], if inner.df { DF } else { 0 }, 0]),
        u32::from_ne_bytes([TTL, protocol, 0, 0]),
        u32::from_ne_bytes(src),
        u32::from_ne_bytes(dst),
    ];
    let [c0, c1] = checksum::of_words(words);
    let header = frame.window::<V4_LEN>(at).ok_or(Drop::Malformed)?;
    header[..4].copy_from_slice(&words[0].to_ne_bytes());
    header[4..8].copy_from_slice(&words[1].to_ne_bytes());
    header[8..12].copy_from_slice(&[TTL, protocol, c0, c1]);
    header[12..16].copy_from_slice(&src);
    header[16..].copy_from_slice(&dst);
    if T::DRY {
        tables.explain(|| Stage::encapsulated4(src, dst, protocol));
    }
    Ok(())
}

#[inline(always)]
fn v6<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    at: usize,
    protocol: u8,
    inner: Inner,
    outer: &Outer<'_>,
) -> Result<(), Drop> {
    let egress = outer.egress;
    let index = scale(outer.flow as u32, u32::from(egress.count6)) as usize;
    if index >= MAX_EGRESS {
        return Err(Drop::NoEgress);
    }
    let [l0, l1] = inner.len.to_be_bytes();
    // RFC 6438: what routers share load by.
    let label = (outer.flow >> 32) as u32 & 0xf_ffff;
    let head = (0x6000_0000 | u32::from(inner.tos) << 20 | label).to_be_bytes();
    let src = &egress.v6[index];
    let header = frame.window::<V6_LEN>(at).ok_or(Drop::Malformed)?;
    header[..4].copy_from_slice(&head);
    header[4..8].copy_from_slice(&[l0, l1, protocol, TTL]);
    header[8..24].copy_from_slice(src);
    header[24..].copy_from_slice(outer.to);
    if T::DRY {
        tables.explain(|| Stage::encapsulated6(src, outer.to, protocol));
    }
    Ok(())
}
