//! The frames of flow 0, as the loads want them.

use anyhow::{Result, ensure};
use etherparse::{Icmpv4Type, NetSlice, PacketBuilder, SlicedPacket, VlanId, icmpv4::DestUnreachableHeader};
use ga_common::bench::{FIRST_PORT, Listed, Load, PORT_BITS, WORDS, order};

use super::edge::{GUARDED, PORT, VIP4, VIP6};

/// What kind of frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// TCP over IPv4, with SYN or with ACK.
    Tcp4 { syn: bool },
    /// TCP over IPv4 to another port or VIP, with SYN or with ACK.
    To4 { vip: [u8; 4], port: u16, syn: bool },
    /// TCP over IPv6 to another port, with SYN or with ACK.
    To6 { port: u16, syn: bool },
    /// A SYN over IPv4 for the listener that admits hardly any.
    Refused,
    /// TCP over IPv6, with SYN or with ACK.
    Tcp6 { syn: bool },
    /// TCP over IPv4 with the tag of a VLAN, with SYN or with ACK.
    Tagged { syn: bool },
    /// ICMP "fragmentation needed" from a router on the way to an endpoint, about the flow whose replies have this tuple.
    TooLong { reply: Listed },
    /// UDP over IPv4.
    Udp4,
    /// UDP over IPv4 to somebody else.
    Stranger,
    /// An ARP request.
    Arp,
}

const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The client of flow 0.
pub(super) const CLIENT4: [u8; 4] = [10, 64, 0, 0];
const ROUTER: [u8; 4] = [10, 0, 3, 1];
const CLIENT6: [u8; 16] = [0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0];

/// VLAN of clients.
pub(super) const VLAN: u16 = 5;

/// A load of packets of this kind.
pub(super) fn load(kind: Kind) -> Result<Load> {
    let source = match kind {
        Kind::Tcp6 { .. } | Kind::To6 { .. } => [CLIENT6[12], CLIENT6[13], CLIENT6[14], CLIENT6[15]],
        Kind::Tcp4 { .. }
        | Kind::To4 { .. }
        | Kind::Tagged { .. }
        | Kind::TooLong { .. }
        | Kind::Refused
        | Kind::Udp4
        | Kind::Stranger
        | Kind::Arp => CLIENT4,
    };
    packed(&frame(kind)?, source)
}

/// A load of 64-byte UDP packets without a checksum: any source port fits.
pub(super) fn udp(dst_mac: [u8; 6], src: [u8; 4], dst: [u8; 4], port: u16) -> Result<Load> {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, dst_mac)
        .ipv4(src, dst, 64)
        .udp(FIRST_PORT as u16, port)
        .write(&mut bytes, &[0x5a; 22])?;
    bytes[40..42].fill(0);
    packed(&bytes, src)
}

fn packed(bytes: &[u8], source: [u8; 4]) -> Result<Load> {
    let mut load = Load { order: order::SEQUENCE, source: u32::from_be_bytes(source), ..Load::default() };
    ensure!(bytes.len() <= WORDS * 8, "the frame is longer than what is put back");
    for (word, chunk) in load.frame.iter_mut().zip(bytes.chunks(8)) {
        let mut padded = [0; 8];
        padded[..chunk.len()].copy_from_slice(chunk);
        *word = u64::from_ne_bytes(padded);
    }
    Ok(load)
}

fn frame(kind: Kind) -> Result<Vec<u8>> {
    let port = FIRST_PORT as u16;
    let mut bytes = Vec::new();
    let eth = PacketBuilder::ethernet2(CLIENT_MAC, OUR_MAC);
    let flags = |builder: etherparse::PacketBuilderStep<etherparse::TcpHeader>, syn| match syn {
        true => builder.syn(),
        false => builder.ack(7),
    };
    match kind {
        Kind::Tcp4 { syn } => {
            flags(eth.ipv4(CLIENT4, VIP4, 64).tcp(port, PORT, 1, 8192), syn).write(&mut bytes, b"")?;
        }
        Kind::To4 { vip, port: to, syn } => {
            flags(eth.ipv4(CLIENT4, vip, 64).tcp(port, to, 1, 8192), syn).write(&mut bytes, b"")?;
        }
        Kind::To6 { port: to, syn } => {
            flags(eth.ipv6(CLIENT6, VIP6, 64).tcp(port, to, 1, 8192), syn).write(&mut bytes, b"")?;
        }
        Kind::Tagged { syn } => {
            let eth = eth.single_vlan(VlanId::try_new(VLAN)?);
            flags(eth.ipv4(CLIENT4, VIP4, 64).tcp(port, PORT, 1, 8192), syn).write(&mut bytes, b"")?;
        }
        Kind::TooLong { reply: [addrs, ports] } => {
            let ([e0, e1, e2, e3, n0, n1, n2, n3], [q0, q1, p0, p1, ..]) = (addrs.to_ne_bytes(), ports.to_ne_bytes());
            let (egress, endpoint) = ([n0, n1, n2, n3], [e0, e1, e2, e3]);
            let ports = (u16::from_be_bytes([p0, p1]), u16::from_be_bytes([q0, q1]));
            let mut quoted = Vec::new();
            PacketBuilder::ipv4(egress, endpoint, 60).tcp(ports.0, ports.1, 1, 8192).write(&mut quoted, b"")?;
            let header = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
            let icmp = eth.ipv4(ROUTER, egress, 64).icmpv4(Icmpv4Type::DestinationUnreachable(header));
            icmp.write(&mut bytes, &quoted[..28])?;
        }
        Kind::Refused => eth.ipv4(CLIENT4, VIP4, 64).tcp(port, GUARDED, 1, 8192).syn().write(&mut bytes, b"")?,
        Kind::Tcp6 { syn } => {
            flags(eth.ipv6(CLIENT6, VIP6, 64).tcp(port, PORT, 1, 8192), syn).write(&mut bytes, b"")?;
        }
        Kind::Udp4 => eth.ipv4(CLIENT4, VIP4, 64).udp(port, PORT).write(&mut bytes, &[0x5a; 22])?,
        Kind::Stranger => eth.ipv4(CLIENT4, [192, 0, 2, 99], 64).udp(port, PORT).write(&mut bytes, &[0x5a; 22])?,
        Kind::Arp => {
            bytes.extend([[0xff; 6], CLIENT_MAC].concat());
            bytes.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
            bytes.resize(60, 0);
        }
    }
    if kind != Kind::Arp {
        let sliced = SlicedPacket::from_ethernet(&bytes)?;
        ensure!(matches!(sliced.net, Some(NetSlice::Ipv4(_) | NetSlice::Ipv6(_))), "the frame is not IP");
    }
    Ok(bytes)
}

/// The number of the flow with this last word of its source address and this source port, in a load that begins at `first`.
pub(super) fn number(first: u32, source: [u8; 4], port: [u8; 2]) -> u64 {
    let (source, port) = (u32::from_be_bytes(source), u32::from(u16::from_be_bytes(port)));
    u64::from((source - first) << PORT_BITS | (port - FIRST_PORT))
}
