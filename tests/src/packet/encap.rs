//! Frames whose IP packet is in an outer one: the outer header, checked by etherparse, and the frame without it.

use std::net::IpAddr;

use anyhow::{Context as _, ensure};
use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice};

use super::{case::Packet, world::is_egress};

/// The frame with the outer header taken away, which must be one around `packet` from `src`, or from any of our egress
/// addresses, to `dst`.
pub fn unwrapped(packet: &Packet, frame: &[u8], src: Option<IpAddr>, dst: IpAddr) -> anyhow::Result<Vec<u8>> {
    let is_from = |source: IpAddr| src.map_or(is_egress(source), |src| source == src);
    let mut at = 12;
    while matches!(frame.get(at..at + 2), Some([0x81, 0x00] | [0x88, 0xa8])) {
        at += 4;
    }
    let (head, rest) = frame.split_at_checked(at + 2).context("no room for an EtherType")?;
    let (len, protocol) = match (&head[at..], dst) {
        ([0x08, 0x00], IpAddr::V4(dst)) => {
            let ip = Ipv4HeaderSlice::from_slice(rest)?.to_header();
            let is_v4 = ip.protocol == IpNumber::IPV4;
            ensure!(ip.header_checksum == ip.calc_header_checksum(), "the outer checksum is wrong: {ip:?}");
            ensure!(is_from(ip.source.into()) && (ip.destination, ip.time_to_live) == (dst.octets(), 64), "{ip:?}");
            ensure!(ip.dscp.value() << 2 | ip.ecn.value() == packet.tos, "ToS {:x} became {ip:?}", packet.tos);
            ensure!(ip.dont_fragment == (is_v4 && packet.df) && !ip.more_fragments, "{ip:?}");
            ensure!(!is_v4 || ip.identification == packet.id, "{ip:?}");
            (usize::from(ip.total_len) - 20, ip.protocol)
        }
        ([0x86, 0xdd], IpAddr::V6(dst)) => {
            let ip = Ipv6HeaderSlice::from_slice(rest)?.to_header();
            ensure!(is_from(ip.source.into()) && (ip.destination, ip.hop_limit) == (dst.octets(), 64), "{ip:?}");
            ensure!(ip.traffic_class == packet.tos, "traffic class {:x} became {ip:?}", packet.tos);
            ensure!(ip.flow_label.value() != 0, "no flow label: {ip:?}");
            (usize::from(ip.payload_length), ip.next_header)
        }
        (other, dst) => anyhow::bail!("EtherType {other:02x?} in front of a packet to {dst}"),
    };
    let outer = if dst.is_ipv4() { 20 } else { 40 };
    let inner = rest.get(outer..).context("nothing within")?;
    let (ether_type, claimed) = if protocol == IpNumber::IPV4 {
        ([0x08, 0x00], usize::from(Ipv4HeaderSlice::from_slice(inner)?.total_len()))
    } else {
        ensure!(protocol == IpNumber::IPV6, "protocol {protocol:?} within");
        ([0x86, 0xdd], 40 + usize::from(Ipv6HeaderSlice::from_slice(inner)?.payload_length()))
    };
    ensure!(len == claimed, "the outer header says {len} bytes, the inner one {claimed}");
    Ok([&head[..at], &ether_type, inner].concat())
}
