//! New addresses, ports, checksums and TTL in a packet, as its flow says.

use super::parse::Place;
use crate::{
    abi::flow::{Tuple, pack4, pack6, unpack4, unpack6},
    wire::{
        checksum::Delta,
        frame::{Frame, TCP, ipv4, ipv6, tcp, udp},
    },
};

/// Rewrites an IPv4 packet; none when the frame is shorter than it was a moment ago.
#[inline(always)]
pub fn v4<F: Frame>(frame: &mut F, place: Place, to: &Tuple<1>) -> Option<()> {
    let ip = ipv4(frame, place.l3)?;
    let delta = Delta::default().words(pack4(ip.src_addr, ip.dst_addr), to.addrs);
    let (old, new) = ([ip.ttl, ip.proto], [ip.ttl.wrapping_sub(1), ip.proto]);
    (ip.src_addr, ip.dst_addr) = unpack4(to.addrs);
    ip.check = delta.bytes2(old, new).apply(ip.check);
    ip.ttl = new[0];
    transport(frame, place.l4, to.protocol, to.ports, delta)
}

/// Rewrites an IPv6 packet.
#[inline(always)]
pub fn v6<F: Frame>(frame: &mut F, place: Place, to: &Tuple<4>) -> Option<()> {
    let ip = ipv6(frame, place.l3)?;
    let delta = Delta::default().words(pack6(ip.src_addr, ip.dst_addr), to.addrs);
    (ip.src_addr, ip.dst_addr) = unpack6(to.addrs);
    ip.hop_limit = ip.hop_limit.wrapping_sub(1);
    transport(frame, place.l4, to.protocol, to.ports, delta)
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
