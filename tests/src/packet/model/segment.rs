//! Packets as etherparse reads them, and what full sums say about their checksums. Nothing here is shared with the code under
//! test: no difference of sums, no windows.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    Ethernet2HeaderSlice, IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice, TcpHeaderSlice, UdpHeaderSlice, checksum::Sum16BitWords,
};
use ga_common::abi::{
    id::ListenerId,
    reason::{Drop, Pass},
};

use super::{
    Fate,
    across::crossed,
    link::{Vlans, retagged, tags, vlans},
    site::{Role, Site},
};

/// TCP's part of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Synchronise.
    pub syn: bool,
    /// Acknowledge.
    pub ack: bool,
    /// Finish.
    pub fin: bool,
    /// Reset.
    pub rst: bool,
}

/// A TCP or UDP packet to one of our addresses whose headers hold together.
#[derive(Clone, Debug)]
pub struct Segment {
    /// What the destination is to us.
    pub role: Role,
    /// IANA protocol number.
    pub protocol: u8,
    /// Who sent it.
    pub src: SocketAddr,
    /// To whom.
    pub dst: SocketAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Of TCP; all false for UDP.
    pub flags: Flags,
    /// TCP sequence number; 0 for UDP.
    pub seq: u32,
    /// TCP acknowledgement number; 0 for UDP.
    pub ack: u32,
    /// Whether it carries payload or opens or ends something: only that keeps a flow alive.
    pub speaks: bool,
    /// MAC addresses, destination first.
    pub macs: [[u8; 6]; 2],
    /// What its way is known by.
    pub vlans: Vlans,
    l3: usize,
    l4: usize,
    end: usize,
}

/// TCP's number.
pub const TCP: u8 = IpNumber::TCP.0;
/// UDP's number.
pub const UDP: u8 = IpNumber::UDP.0;

impl Segment {
    /// Offsets of the IP header, of the transport header, and of what is behind the packet.
    pub(super) fn places(&self) -> (usize, usize, usize) {
        (self.l3, self.l4, self.end)
    }
}

/// Reads a frame; what is not for the stages behind has its fate already.
pub fn read(frame: &[u8], site: &Site) -> Result<Segment, Fate> {
    let Ok(eth) = Ethernet2HeaderSlice::from_slice(frame) else { return Err(Fate::Pass(Pass::NotIp)) };
    let (tags, at) = tags(frame);
    let (Some(&[k0, k1]), 0..=2) = (frame.get(at..at + 2), tags.len()) else { return Err(Fate::Pass(Pass::NotIp)) };
    let (l3, kind) = (at + 2, u16::from_be_bytes([k0, k1]));
    let behind = &frame[l3..];
    let addresses = match kind {
        0x0800 if behind.len() >= 20 => Some((ip_at(behind, 12, true), ip_at(behind, 16, true))),
        0x86dd if behind.len() >= 40 => Some((ip_at(behind, 8, false), ip_at(behind, 24, false))),
        0x0800 | 0x86dd => None,
        _ => return Err(Fate::Pass(Pass::NotIp)),
    };
    let macs = [eth.destination(), eth.source()];
    if macs[0][0] & 1 == 1 {
        return Err(Fate::Pass(Pass::NotOurs));
    }
    let Some((src, dst)) = addresses else { return Err(Fate::Pass(Pass::NotIp)) };
    let Some(role) = site.ours.get(&dst).copied() else { return Err(Fate::Pass(Pass::NotOurs)) };
    let net = if kind == 0x0800 { v4(behind, role)? } else { v6(frame, l3, role)? };
    let (l4, end) = (l3 + net.header, l3 + net.length);
    let found = transport(&frame[l4..end], &net, role, dst.is_ipv6())?;
    Ok(Segment {
        role,
        protocol: net.protocol,
        src: SocketAddr::new(src, found.ports.0),
        dst: SocketAddr::new(dst, found.ports.1),
        ttl: net.ttl,
        flags: found.flags,
        seq: found.numbers.0,
        ack: found.numbers.1,
        speaks: found.speaks,
        macs,
        vlans: vlans(&tags),
        l3,
        l4,
        end,
    })
}

/// What the IP header says: its own length, that of the whole packet, and what it carries.
struct Net {
    header: usize,
    length: usize,
    protocol: u8,
    ttl: u8,
}

fn v4(bytes: &[u8], role: Role) -> Result<Net, Fate> {
    let protocol = bytes[9];
    let Ok(header) = Ipv4HeaderSlice::from_slice(bytes) else { return Err(refuse(role, protocol, Drop::Malformed)) };
    let (length, own) = (usize::from(header.total_len()), header.slice().len());
    if length < own || length > bytes.len() {
        return Err(refuse(role, protocol, Drop::Malformed));
    }
    if header.is_fragmenting_payload() {
        return Err(refuse(role, protocol, Drop::Fragment));
    }
    Ok(Net { header: own, length, protocol, ttl: header.ttl() })
}

fn v6(frame: &[u8], l3: usize, role: Role) -> Result<Net, Fate> {
    let bytes = &frame[l3..];
    let first = bytes[6];
    let Ok(header) = Ipv6HeaderSlice::from_slice(bytes) else { return Err(refuse(role, first, Drop::Malformed)) };
    let length = 40 + usize::from(header.payload_length());
    if length > bytes.len() {
        return Err(refuse(role, first, Drop::Malformed));
    }
    match walk(frame, first, l3 + 40, l3 + length) {
        Walked::At(protocol, at) => Ok(Net { header: at - l3, length, protocol, ttl: header.hop_limit() }),
        Walked::Fragment(protocol, _) => Err(refuse(role, protocol, Drop::Fragment)),
        Walked::TooFar if role.vip && (role.tcp || role.udp) => Err(Fate::Drop(Drop::ExtHeaders, ListenerId::NONE)),
        Walked::TooFar | Walked::Nowhere => Err(Fate::Pass(Pass::OtherProtocol)),
    }
}

/// Where a chain of IPv6 extension headers leads.
pub(super) enum Walked {
    /// To a header of some protocol.
    At(u8, usize),
    /// To a fragment of some protocol: to its header.
    Fragment(u8, usize),
    /// Beyond six headers, or beyond byte 511 of the frame.
    TooFar,
    /// The packet ends before.
    Nowhere,
}

/// Follows hop-by-hop options, where they come first, destination options and routing headers that have no further stop, in the packet
/// that ends at `end` (RFC 8200 section 4).
pub(super) fn walk(frame: &[u8], first: u8, start: usize, end: usize) -> Walked {
    let (mut next, mut at, mut walked) = (first, start, 0);
    loop {
        if at > 511 {
            return Walked::TooFar;
        }
        let is_ours = next == 60 || next == 43 || next == 44 || next == 0 && walked == 0;
        if !is_ours {
            return Walked::At(next, at);
        }
        let Some(&[follower, length, _, stops]) = frame[..end].get(at..at + 8).map(|header| &header[..4]) else {
            return Walked::Nowhere;
        };
        match next {
            44 => return Walked::Fragment(follower, at),
            43 if stops != 0 => return Walked::At(next, at),
            _ => {}
        }
        at += (usize::from(length) + 1) * 8;
        if at > end {
            return Walked::Nowhere;
        }
        walked += 1;
        if walked > 6 {
            return Walked::TooFar;
        }
        next = follower;
    }
}

struct Transport {
    ports: (u16, u16),
    numbers: (u32, u32),
    flags: Flags,
    speaks: bool,
}

fn transport(bytes: &[u8], net: &Net, role: Role, is_v6: bool) -> Result<Transport, Fate> {
    match net.protocol {
        TCP => {
            let Ok(tcp) = TcpHeaderSlice::from_slice(bytes) else { return Err(refuse(role, TCP, Drop::Malformed)) };
            let flags = Flags { syn: tcp.syn(), ack: tcp.ack(), fin: tcp.fin(), rst: tcp.rst() };
            let speaks = bytes.len() > tcp.slice().len() || flags.syn || flags.fin || flags.rst;
            let numbers = (tcp.sequence_number(), tcp.acknowledgment_number());
            Ok(Transport { ports: (tcp.source_port(), tcp.destination_port()), numbers, flags, speaks })
        }
        UDP => {
            let Ok(udp) = UdpHeaderSlice::from_slice(bytes) else { return Err(refuse(role, UDP, Drop::Malformed)) };
            if !(8..=bytes.len()).contains(&usize::from(udp.length())) {
                return Err(refuse(role, UDP, Drop::Malformed));
            }
            if is_v6 && udp.checksum() == 0 {
                return Err(refuse(role, UDP, Drop::UdpChecksumMissing));
            }
            let ports = (udp.source_port(), udp.destination_port());
            Ok(Transport { ports, numbers: (0, 0), flags: Flags::default(), speaks: true })
        }
        _ => Err(Fate::Pass(Pass::OtherProtocol)),
    }
}

/// What a listener of that protocol could have been meant by is dropped; the rest is the host's.
fn refuse(role: Role, protocol: u8, reason: Drop) -> Fate {
    if role.vip && (protocol == TCP && role.tcp || protocol == UDP && role.udp) {
        Fate::Drop(reason, ListenerId::NONE)
    } else {
        Fate::Pass(Pass::OtherProtocol)
    }
}

/// The address at `at`.
pub(super) fn ip_at(bytes: &[u8], at: usize, is_v4: bool) -> IpAddr {
    if is_v4 {
        return IpAddr::from([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    }
    let mut addr = [0; 16];
    addr.copy_from_slice(&bytes[at..at + 16]);
    IpAddr::from(addr)
}

/// The ends of a sent frame that came in as `segment`; none when it has become too short.
pub fn ends(frame: &[u8], segment: &Segment) -> Option<(SocketAddr, SocketAddr)> {
    let ip = frame.get(tags(frame).1 + 2..)?;
    let is_v4 = ip.first()? >> 4 == 4;
    let header = if is_v4 == segment.dst.is_ipv4() {
        segment.l4 - segment.l3
    } else if is_v4 {
        20
    } else {
        40
    };
    let l4 = ip.get(header..header + 4)?;
    let (src, dst) = if is_v4 { (12, 16) } else { (8, 24) };
    let (src, dst) = (ip_at(ip, src, is_v4), ip_at(ip, dst, is_v4));
    let port = |at: usize| u16::from_be_bytes([l4[at], l4[at + 1]]);
    Some((SocketAddr::new(src, port(0)), SocketAddr::new(dst, port(2))))
}

/// How a frame leaves.
#[derive(Clone, Debug)]
pub struct Out {
    /// MAC addresses, destination first.
    pub macs: [[u8; 6]; 2],
    /// Tags.
    pub vlans: Vlans,
    /// Interface.
    pub ifindex: u32,
}

/// The frame between new ends: new MAC addresses, the tags of its way, TTL one less, and checksums computed anew. A checksum that was wrong stays
/// wrong by as much; a UDP checksum that is not there stays away (RFC 768). Between ends of the other family it is `crossed`.
pub fn rewritten(frame: &[u8], segment: &Segment, src: SocketAddr, dst: SocketAddr, way: &Out) -> Vec<u8> {
    if src.is_ipv4() != segment.src.is_ipv4() {
        return crossed(frame, segment, src, dst, way);
    }
    let mut out = frame.to_vec();
    out[..6].copy_from_slice(&way.macs[0]);
    out[6..12].copy_from_slice(&way.macs[1]);
    let (l3, l4) = (segment.l3, segment.l4);
    let ttl = segment.ttl.wrapping_sub(1);
    match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            out[l3 + 8] = ttl;
            out[l3 + 12..l3 + 16].copy_from_slice(&src.octets());
            out[l3 + 16..l3 + 20].copy_from_slice(&dst.octets());
            replace_sum(frame, &mut out, l3 + 10, |frame| sum_without(frame, l3, l4, l3 + 10));
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            out[l3 + 7] = ttl;
            out[l3 + 8..l3 + 24].copy_from_slice(&src.octets());
            out[l3 + 24..l3 + 40].copy_from_slice(&dst.octets());
        }
        // Ends of two families: bytes that come out unlike anything are the loudest way to say so.
        _ => out.clear(),
    }
    if out.is_empty() {
        return out;
    }
    out[l4..l4 + 2].copy_from_slice(&src.port().to_be_bytes());
    out[l4 + 2..l4 + 4].copy_from_slice(&dst.port().to_be_bytes());
    let at = l4 + if segment.protocol == TCP { 16 } else { 6 };
    if segment.protocol == TCP || frame[at..at + 2] != [0, 0] {
        replace_sum(frame, &mut out, at, |frame| {
            let addrs = if segment.dst.is_ipv4() { l3 + 12..l3 + 20 } else { l3 + 8..l3 + 40 };
            let length = (segment.end - l4) as u32;
            // RFC 9293 section 3.1, RFC 8200 section 8.1: addresses, protocol, length.
            let mut pseudo = Sum16BitWords::new().add_slice(&frame[addrs]).add_2bytes([0, segment.protocol]);
            pseudo.add_4bytes(length.to_be_bytes()).add_slice(&skip(frame, l4, segment.end, at))
        });
        if segment.protocol == UDP && out[at..at + 2] == [0, 0] {
            out[at..at + 2].copy_from_slice(&[0xff, 0xff]);
        }
    }
    retagged(&out, &way.vlans)
}

/// The bytes from `start` to `end` with the two at `at` zero.
pub(super) fn skip(frame: &[u8], start: usize, end: usize, at: usize) -> Vec<u8> {
    let mut bytes = frame[start..end].to_vec();
    bytes[at - start..at - start + 2].copy_from_slice(&[0, 0]);
    bytes
}

fn sum_without(frame: &[u8], start: usize, end: usize, at: usize) -> Sum16BitWords {
    Sum16BitWords::new().add_slice(&skip(frame, start, end, at))
}

/// Puts a checksum at `at`: as far from the right one as it was before.
pub(super) fn replace_sum(before: &[u8], after: &mut [u8], at: usize, sum: impl Fn(&[u8]) -> Sum16BitWords) {
    let right = |frame: &[u8]| u32::from(sum(frame).ones_complement().to_be());
    let given = u32::from(u16::from_be_bytes([before[at], before[at + 1]]));
    // In one's complement 0 and 0xffff are one number; a checksum is the complement of a sum that is never zero, so 0.
    let new = (right(after) + given + 0xffff - right(before)) % 0xffff;
    after[at..at + 2].copy_from_slice(&(new as u16).to_be_bytes());
}
