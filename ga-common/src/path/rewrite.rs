//! New addresses, ports, checksums and TTL in a packet, as its flow says.

use super::parse::Parsed;
use crate::{
    abi::flow::{Flow, unpack4, unpack6},
    wire::{
        checksum::Delta,
        frame::{ETH_LEN, Frame, TCP, ipv4, ipv6, tcp, udp},
    },
};

/// Rewrites an IPv4 packet; none when the frame is shorter than it was a moment ago.
#[inline(always)]
pub fn v4<F: Frame>(frame: &mut F, packet: &Parsed<1>, flow: &Flow<1>) -> Option<()> {
    let delta = Delta::default().words(packet.tuple.addrs, flow.new_addrs);
    let ip = ipv4(frame, ETH_LEN)?;
    let ttl = packet.ttl - 1;
    (ip.src_addr, ip.dst_addr) = unpack4(flow.new_addrs);
    ip.check = delta.bytes2([packet.ttl, packet.tuple.protocol], [ttl, packet.tuple.protocol]).apply(ip.check);
    ip.ttl = ttl;
    transport(frame, packet, flow, delta)
}

/// Rewrites an IPv6 packet.
#[inline(always)]
pub fn v6<F: Frame>(frame: &mut F, packet: &Parsed<4>, flow: &Flow<4>) -> Option<()> {
    let delta = Delta::default().words(packet.tuple.addrs, flow.new_addrs);
    let ip = ipv6(frame, ETH_LEN)?;
    (ip.src_addr, ip.dst_addr) = unpack6(flow.new_addrs);
    ip.hop_limit = packet.ttl - 1;
    transport(frame, packet, flow, delta)
}

/// Ports, and the checksum over pseudo header and ports.
#[inline(always)]
fn transport<F: Frame, const K: usize>(frame: &mut F, packet: &Parsed<K>, flow: &Flow<K>, delta: Delta) -> Option<()> {
    let delta = delta.bytes4(packet.tuple.ports, flow.new_ports);
    let [s0, s1, d0, d1] = flow.new_ports;
    if packet.tuple.protocol == TCP {
        let header = tcp(frame, packet.l4)?;
        (header.source, header.dest) = ([s0, s1], [d0, d1]);
        header.check = delta.apply(header.check);
    } else {
        let header = udp(frame, packet.l4)?;
        (header.src, header.dst) = ([s0, s1], [d0, d1]);
        // RFC 768: no checksum stays none; a computed zero is sent as all ones.
        if header.check != [0, 0] {
            let check = delta.apply(header.check);
            header.check = if check == [0, 0] { [0xff, 0xff] } else { check };
        }
    }
    Some(())
}
