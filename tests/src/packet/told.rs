//! What the sender of a packet that is too big is told, made anew by etherparse from what the packet says.

use std::net::IpAddr;

use anyhow::{Context as _, bail};
use etherparse::{Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, icmpv4};

use super::judge::ends;

/// The answer to `frame`: that `mtu` bytes fit, by the address it was sent to, and as much of the packet as an answer may have.
pub fn told(frame: &[u8], mtu: u16) -> anyhow::Result<Vec<u8>> {
    let mut at = 12;
    while matches!(frame.get(at..at + 2), Some([0x81, 0x00] | [0x88, 0xa8])) {
        at += 4;
    }
    let (link, packet) = frame.split_at_checked(at + 2).context("no packet")?;
    let mut out = [&link[6..12], &link[..6], &link[12..]].concat();
    let ends = ends(frame)?;
    match (ends.src.0, ends.dst.0) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let length = usize::from(Ipv4Header::from_slice(packet)?.0.total_len);
            let quote = &packet[..length.min(576 - 28)];
            let kind = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
            let icmp = Icmpv4Header::with_checksum(Icmpv4Type::DestinationUnreachable(kind), quote);
            let mut ip = Ipv4Header::new(8 + quote.len() as u16, 64, IpNumber::ICMP, dst.octets(), src.octets())?;
            ip.dont_fragment = true;
            ip.header_checksum = ip.calc_header_checksum();
            ip.write(&mut out)?;
            icmp.write(&mut out)?;
            out.extend(quote);
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let length = 40 + usize::from(Ipv6Header::from_slice(packet)?.0.payload_length);
            let quote = &packet[..length.min(1280 - 48)];
            let kind = Icmpv6Type::PacketTooBig { mtu: mtu.into() };
            let icmp = Icmpv6Header::with_checksum(kind, dst.octets(), src.octets(), quote)?;
            let ip = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: 8 + quote.len() as u16,
                next_header: IpNumber::IPV6_ICMP,
                hop_limit: 64,
                source: dst.octets(),
                destination: src.octets(),
            };
            ip.write(&mut out)?;
            icmp.write(&mut out)?;
            out.extend(quote);
        }
        both => bail!("{both:?} are of two families"),
    }
    Ok(out)
}
