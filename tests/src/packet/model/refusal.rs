//! The RST that refuses a connection, made anew by etherparse from what the SYN says.

use std::net::IpAddr;

use etherparse::{IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, TcpHeader, TransportSlice};

use super::link::tags;

/// What a refused SYN is turned into: a RST where it came from, and behind it, as padding, what was behind its first bytes. None
/// when it is no TCP, has IP options or extension headers, or comes from a group of stations.
pub fn refusal(frame: &[u8]) -> Option<Vec<u8>> {
    let l3 = tags(frame).1 + 2;
    if frame.get(6)? & 1 != 0 {
        return None;
    }
    let packet = etherparse::SlicedPacket::from_ip(&frame[l3..]).ok()?;
    let Some(TransportSlice::Tcp(syn)) = &packet.transport else { return None };
    let length = syn.payload().len() as u32 + 1;
    let mut tcp = TcpHeader::new(syn.destination_port(), syn.source_port(), 0, 0);
    (tcp.rst, tcp.ack, tcp.acknowledgment_number) = (true, true, syn.sequence_number().wrapping_add(length));
    let mut out = [&frame[6..12], &frame[..6], &frame[12..l3]].concat();
    match addresses(&frame[l3..]) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            if frame[l3] != 0x45 {
                return None;
            }
            let mut ip = Ipv4Header::new(20, 64, IpNumber::TCP, dst.octets(), src.octets()).ok()?;
            ip.dont_fragment = true;
            ip.header_checksum = ip.calc_header_checksum();
            tcp.checksum = tcp.calc_checksum_ipv4(&ip, &[]).ok()?;
            ip.write(&mut out).ok()?;
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            if frame[l3 + 6] != IpNumber::TCP.0 {
                return None;
            }
            let ip = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: 20,
                next_header: IpNumber::TCP,
                hop_limit: 64,
                source: dst.octets(),
                destination: src.octets(),
            };
            tcp.checksum = tcp.calc_checksum_ipv6(&ip, &[]).ok()?;
            ip.write(&mut out).ok()?;
        }
        _ => return None,
    }
    tcp.write(&mut out).ok()?;
    out.extend(&frame[out.len()..]);
    Some(out)
}

/// Source and destination of an IP packet that was parsed already.
fn addresses(ip: &[u8]) -> (IpAddr, IpAddr) {
    let four = |at: usize| IpAddr::from([ip[at], ip[at + 1], ip[at + 2], ip[at + 3]]);
    let sixteen = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap_or_default());
    if ip[0] >> 4 == 4 { (four(12), four(16)) } else { (sixteen(8), sixteen(24)) }
}
