//! New addresses, ports, checksums and TTL in a packet, as its flow says.

use core::mem::offset_of;

use network_types::ip::Ipv6Hdr;

use super::parse::Place;
use crate::{
    abi::flow::{Becomes, pack4, unpack4},
    wire::{
        checksum::Delta,
        frame::{Frame, TCP, ipv4, tcp, udp},
    },
};

/// Rewrites an IPv4 packet; none when the frame is shorter than it was a moment ago.
#[inline(always)]
pub fn v4<F: Frame, B: Becomes<1>>(frame: &mut F, place: Place, protocol: u8, to: &B) -> Option<()> {
    let ip = ipv4(frame, place.l3)?;
    let new = [to.addr(0)];
    let delta = Delta::default().words(pack4(ip.src_addr, ip.dst_addr), new);
    let (old_ttl, new_ttl) = ([ip.ttl, ip.proto], [ip.ttl.wrapping_sub(1), ip.proto]);
    (ip.src_addr, ip.dst_addr) = unpack4(new);
    ip.check = delta.bytes2(old_ttl, new_ttl).apply(ip.check);
    ip.ttl = new_ttl[0];
    transport(frame, place.l4, protocol, to.ports(), delta)
}

/// Rewrites an IPv6 packet.
#[inline(always)]
pub fn v6<F: Frame, B: Becomes<4>>(frame: &mut F, place: Place, protocol: u8, to: &B) -> Option<()> {
    const ADDRS: usize = offset_of!(Ipv6Hdr, src_addr);
    let ip = frame.window::<40>(place.l3)?;
    ip[offset_of!(Ipv6Hdr, hop_limit)] = ip[offset_of!(Ipv6Hdr, hop_limit)].wrapping_sub(1);
    let mut delta = Delta::default();
    // Word by word: sixteen of them at once are more than the stack has room for.
    for i in 0..4 {
        let new = to.addr(i);
        if let Some(word) = ip.get_mut(ADDRS + 8 * i..).and_then(|rest| rest.first_chunk_mut::<8>()) {
            delta = delta.words([u64::from_ne_bytes(*word)], [new]);
            *word = new.to_ne_bytes();
        }
    }
    transport(frame, place.l4, protocol, to.ports(), delta)
}

/// Ports, and the checksum over pseudo header and ports.
#[inline(always)]
pub(super) fn transport<F: Frame>(frame: &mut F, l4: usize, protocol: u8, ports: [u8; 4], delta: Delta) -> Option<()> {
    let [s0, s1, d0, d1] = ports;
    if protocol == TCP {
        let header = tcp(frame, l4)?;
        let ([a, b], [c, d]) = (header.source, header.dest);
        header.check = delta.bytes4([a, b, c, d], ports).apply(header.check);
        (header.source, header.dest) = ([s0, s1], [d0, d1]);
    } else {
        let header = udp(frame, l4)?;
        let ([a, b], [c, d]) = (header.src, header.dst);
        (header.src, header.dst) = ([s0, s1], [d0, d1]);
        // RFC 768: no checksum stays none; a computed zero is sent as all ones.
        if header.check != [0, 0] {
            let check = delta.bytes4([a, b, c, d], ports).apply(header.check);
            header.check = if check == [0, 0] { [0xff, 0xff] } else { check };
        }
    }
    Some(())
}
