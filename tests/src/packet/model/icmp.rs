//! ICMP and ICMPv6 as the model sees them (RFC 792, RFC 4443, RFC 5508): echo to a VIP, and errors about our flows.

use std::net::{IpAddr, SocketAddr};

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice, checksum::Sum16BitWords};

use super::{
    link::tags,
    segment::{TCP, UDP, Walked, ip_at, replace_sum, skip, walk},
};

/// What a packet to one of our addresses, which is neither TCP nor UDP, says.
pub(super) enum Message {
    /// Nothing that concerns us.
    Other,
    /// An echo request that could be answered.
    Echo(Box<Place>),
    /// An error that quotes no TCP or UDP packet.
    Vague(Box<Place>),
    /// An error, and whose packet it quotes.
    Error(Box<Place>, Box<Quote>),
}

/// Where things are, and between whom.
pub(super) struct Place {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) ttl: u8,
    l3: usize,
    icmp: usize,
    end: usize,
}

/// The quoted packet.
pub(super) struct Quote {
    pub(super) protocol: u8,
    pub(super) src: SocketAddr,
    pub(super) dst: SocketAddr,
    l3: usize,
    l4: usize,
}

pub(super) fn read(frame: &[u8]) -> Message {
    let l3 = tags(frame).1 + 2;
    let Some((place, protocol, is_plain)) = outer(frame, l3) else { return Message::Other };
    let is_v4 = place.src.is_ipv4();
    if protocol != if is_v4 { 1 } else { 58 } || place.icmp + 8 > place.end {
        return Message::Other;
    }
    let (kind, code) = (frame[place.icmp], frame[place.icmp + 1]);
    let is_error = if is_v4 { matches!(kind, 3 | 11 | 12) } else { matches!(kind, 1..=4) };
    if kind == if is_v4 { 8 } else { 128 } {
        // An answer to a group of stations would be an answer to many.
        let can_be = is_plain && code == 0 && frame[6] & 1 == 0;
        return if can_be { Message::Echo(Box::new(place)) } else { Message::Vague(Box::new(place)) };
    }
    if !is_error {
        return Message::Other;
    }
    match quote(frame, &place) {
        Some(quote) => Message::Error(Box::new(place), Box::new(quote)),
        None => Message::Vague(Box::new(place)),
    }
}

impl Place {
    /// Whether it asks for an answer.
    pub(super) fn is_echo(&self, frame: &[u8]) -> bool {
        frame[self.icmp] == if self.src.is_ipv4() { 8 } else { 128 }
    }

    /// Whether it says that a destination cannot be reached, and not that a packet is too large for the way there.
    pub(super) fn says_unreachable(&self, frame: &[u8]) -> bool {
        let [kind, code] = [frame[self.icmp], frame[self.icmp + 1]];
        if self.src.is_ipv4() { kind == 3 && code != 4 } else { kind == 1 }
    }

    /// Whether the port is what cannot be reached.
    pub(super) fn is_about_port(&self, frame: &[u8]) -> bool {
        frame[self.icmp + 1] == if self.src.is_ipv4() { 3 } else { 4 }
    }
}

/// The outer headers; whether nothing is between the fixed header and the message.
fn outer(frame: &[u8], l3: usize) -> Option<(Place, u8, bool)> {
    let ip = frame.get(l3..)?;
    let (src, dst, ttl, protocol, header, length) = if ip.first()? >> 4 == 4 {
        let header = Ipv4HeaderSlice::from_slice(ip).ok()?;
        if header.is_fragmenting_payload() {
            return None;
        }
        let own = header.slice().len();
        (ip_at(ip, 12, true), ip_at(ip, 16, true), header.ttl(), header.protocol().0, own, usize::from(header.total_len()))
    } else {
        let header = Ipv6HeaderSlice::from_slice(ip).ok()?;
        let length = 40 + usize::from(header.payload_length());
        if length > ip.len() {
            return None;
        }
        let Walked::At(protocol, at) = walk(frame, header.next_header().0, l3 + 40, l3 + length) else { return None };
        (ip_at(ip, 8, false), ip_at(ip, 24, false), header.hop_limit(), protocol, at - l3, length)
    };
    if length > ip.len() {
        return None;
    }
    let is_plain = header == if src.is_ipv4() { 20 } else { 40 };
    Some((Place { src, dst, ttl, l3, icmp: l3 + header, end: l3 + length }, protocol, is_plain))
}

/// The quoted packet: its addresses and at least eight bytes of a TCP or UDP header.
fn quote(frame: &[u8], place: &Place) -> Option<Quote> {
    let l3 = place.icmp + 8;
    let ip = frame.get(l3..place.end)?;
    let (src, dst, protocol, l4) = if place.src.is_ipv4() {
        let header = Ipv4HeaderSlice::from_slice(ip).ok()?;
        if header.fragments_offset().value() != 0 {
            return None;
        }
        (ip_at(ip, 12, true), ip_at(ip, 16, true), header.protocol().0, l3 + header.slice().len())
    } else {
        let header = Ipv6HeaderSlice::from_slice(ip).ok()?;
        let Walked::At(protocol, l4) = walk(frame, header.next_header().0, l3 + 40, place.end) else { return None };
        (ip_at(ip, 8, false), ip_at(ip, 24, false), protocol, l4)
    };
    if protocol != TCP && protocol != UDP || l4 + 8 > place.end {
        return None;
    }
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    Some(Quote { protocol, src: SocketAddr::new(src, port(l4)), dst: SocketAddr::new(dst, port(l4 + 2)), l3, l4 })
}

/// The answer to an echo request: addresses and stations exchanged, hop limit 64, checksum anew.
pub(super) fn answer(frame: &[u8], place: &Place) -> Vec<u8> {
    let mut out = frame.to_vec();
    out[..6].copy_from_slice(&frame[6..12]);
    out[6..12].copy_from_slice(&frame[..6]);
    put_ip(frame, &mut out, place.l3, place.dst, place.src, Some(64));
    out[place.icmp] = if place.src.is_ipv4() { 0 } else { 129 };
    let at = place.icmp + 2;
    replace_sum(frame, &mut out, at, |frame| message_sum(frame, place));
    // A message of zeros sums up with all ones only.
    if place.src.is_ipv4() && out[at..at + 2] == [0, 0] {
        out[at..at + 2].copy_from_slice(&[0xff, 0xff]);
    }
    out
}

/// The error between other ends, about a packet between other ends: (source, destination) each.
pub(super) fn translated(
    frame: &[u8],
    place: &Place,
    quote: &Quote,
    ends: (IpAddr, IpAddr),
    quoted: (SocketAddr, SocketAddr),
) -> Vec<u8> {
    let mut out = frame.to_vec();
    put_ip(frame, &mut out, quote.l3, quoted.0.ip(), quoted.1.ip(), None);
    out[quote.l4..quote.l4 + 2].copy_from_slice(&quoted.0.port().to_be_bytes());
    out[quote.l4 + 2..quote.l4 + 4].copy_from_slice(&quoted.1.port().to_be_bytes());
    let at = quote.l4 + if quote.protocol == TCP { 16 } else { 6 };
    let is_there = at + 2 <= place.end && (quote.protocol == TCP || frame[at..at + 2] != [0, 0]);
    if is_there {
        // Of a quote that is cut off only what differs can be summed up.
        let (is_v4, l3, l4) = (place.src.is_ipv4(), quote.l3, quote.l4);
        replace_sum(frame, &mut out, at, |frame| {
            let addrs = if is_v4 { l3 + 12..l3 + 20 } else { l3 + 8..l3 + 40 };
            Sum16BitWords::new().add_slice(&frame[addrs]).add_slice(&frame[l4..l4 + 4])
        });
        if quote.protocol == UDP && out[at..at + 2] == [0, 0] {
            out[at..at + 2].copy_from_slice(&[0xff, 0xff]);
        }
    }
    put_ip(frame, &mut out, place.l3, ends.0, ends.1, Some(place.ttl.saturating_sub(1)));
    replace_sum(frame, &mut out, place.icmp + 2, |frame| message_sum(frame, place));
    out
}

/// Addresses, and the TTL where one is given, in the IP header at `l3`, and its checksum for that.
fn put_ip(frame: &[u8], out: &mut [u8], l3: usize, src: IpAddr, dst: IpAddr, ttl: Option<u8>) {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            out[l3 + 8] = ttl.unwrap_or(out[l3 + 8]);
            out[l3 + 12..l3 + 16].copy_from_slice(&src.octets());
            out[l3 + 16..l3 + 20].copy_from_slice(&dst.octets());
            let end = l3 + usize::from(frame[l3] & 15) * 4;
            replace_sum(frame, out, l3 + 10, |frame| Sum16BitWords::new().add_slice(&skip(frame, l3, end, l3 + 10)));
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            out[l3 + 7] = ttl.unwrap_or(out[l3 + 7]);
            out[l3 + 8..l3 + 24].copy_from_slice(&src.octets());
            out[l3 + 24..l3 + 40].copy_from_slice(&dst.octets());
        }
        // Families are never mixed: a frame that is like no other says so.
        _ => out.fill(0),
    }
}

/// The sum over a message, with the pseudo header where there is one (RFC 4443 section 2.3).
fn message_sum(frame: &[u8], place: &Place) -> Sum16BitWords {
    let sum = Sum16BitWords::new().add_slice(&skip(frame, place.icmp, place.end, place.icmp + 2));
    if place.src.is_ipv4() {
        return sum;
    }
    let mut sum = sum.add_slice(&frame[place.l3 + 8..place.l3 + 40]).add_2bytes([0, 58]);
    sum.add_4bytes(((place.end - place.icmp) as u32).to_be_bytes())
}
