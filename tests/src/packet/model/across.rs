//! Packets between families, made anew from what the packet says (RFC 7915 sections 4.1 and 5.1).

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, checksum::Sum16BitWords};

use super::{
    link::{retagged, tags},
    segment::{Out, Segment, TCP, UDP, skip},
};

/// The frame of `segment` between ends of the other family. What was behind the packet stays behind it; a checksum that was wrong stays
/// wrong by as much, and one that is not there in UDP over IPv4 is computed.
pub(super) fn crossed(frame: &[u8], segment: &Segment, src: SocketAddr, dst: SocketAddr, way: &Out) -> Vec<u8> {
    let (l3, l4, end) = segment.places();
    let (ttl, payload) = (segment.ttl.wrapping_sub(1), (end - l4) as u16);
    let mut behind = frame[l4..].to_vec();
    behind[..2].copy_from_slice(&src.port().to_be_bytes());
    behind[2..4].copy_from_slice(&dst.port().to_be_bytes());
    let at = if segment.protocol == TCP { 16 } else { 6 };
    let given = u16::from_be_bytes([behind[at], behind[at + 1]]);
    let is_missing = segment.protocol == UDP && given == 0;
    // What a datagram without a checksum claims to be long counts; else the lengths on both sides are the same.
    let length = if is_missing { usize::from(u16::from_be_bytes([behind[4], behind[5]])) } else { end - l4 };
    let right = |bytes: &[u8], src, dst| u32::from(sum(bytes, length, at, segment.protocol, src, dst));
    let after = right(&behind, src.ip(), dst.ip());
    let mut check = if is_missing {
        after
    } else {
        (after + u32::from(given) + 0xffff - right(&frame[l4..], segment.src.ip(), segment.dst.ip())) % 0xffff
    };
    if segment.protocol == UDP && check == 0 {
        check = 0xffff;
    }
    behind[at..at + 2].copy_from_slice(&(check as u16).to_be_bytes());
    let mut out = [way.macs[0], way.macs[1]].concat();
    out.extend(tags(frame).0.concat());
    match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let Ok(mut ip) = Ipv4Header::new(payload, ttl, IpNumber(segment.protocol), src.octets(), dst.octets()) else {
                return Vec::new();
            };
            let class = frame[l3] << 4 | frame[l3 + 1] >> 4;
            (ip.dscp, ip.ecn) = ((class >> 2).try_into().unwrap_or_default(), (class & 3).try_into().unwrap_or_default());
            ip.dont_fragment = payload + 20 > 1260;
            ip.header_checksum = ip.calc_header_checksum();
            out.extend([0x08, 0x00]);
            out.extend(ip.to_bytes());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let ip = Ipv6Header {
                traffic_class: frame[l3 + 1],
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: payload,
                next_header: IpNumber(segment.protocol),
                hop_limit: ttl,
                source: src.octets(),
                destination: dst.octets(),
            };
            out.extend([0x86, 0xdd]);
            out.extend(ip.to_bytes());
        }
        _ => return Vec::new(),
    }
    out.extend(behind);
    retagged(&out, &way.vlans)
}

/// The frame with the identification that `seen` has, where it is an IPv4 packet that may be fragmented: it is the translator's choice.
pub(super) fn identified(mut frame: Vec<u8>, seen: &[u8]) -> Vec<u8> {
    let l3 = tags(&frame).1 + 2;
    let is_chosen = frame.get(l3..l3 + 8).is_some_and(|ip| ip[0] == 0x45 && ip[6] & 0x40 == 0);
    if let (true, Some(id)) = (is_chosen, seen.get(l3 + 4..l3 + 6)) {
        frame[l3 + 4..l3 + 6].copy_from_slice(id);
        let sum = Sum16BitWords::new().add_slice(&skip(&frame, l3, l3 + 20, l3 + 10));
        frame[l3 + 10..l3 + 12].copy_from_slice(&sum.ones_complement().to_be().to_be_bytes());
    }
    frame
}

/// What the checksum of `length` bytes ought to be.
fn sum(bytes: &[u8], length: usize, at: usize, protocol: u8, src: IpAddr, dst: IpAddr) -> u16 {
    let mut sum = Sum16BitWords::new().add_2bytes([0, protocol]).add_4bytes((length as u32).to_be_bytes());
    for ip in [src, dst] {
        sum = match ip {
            IpAddr::V4(v4) => sum.add_4bytes(v4.octets()),
            IpAddr::V6(v6) => sum.add_slice(&v6.octets()),
        };
    }
    sum.add_slice(&skip(bytes, 0, length, at)).ones_complement().to_be()
}
