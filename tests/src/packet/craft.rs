//! Fields to bytes, by etherparse alone: checksums here are full sums and know nothing of the code under test.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context as _, bail, ensure};
use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel,
    Ipv6Header, TcpHeader, UdpHeader,
};

use super::{
    case::Packet,
    show::hex,
    world::{CLIENT_MAC, OUR_MAC, address},
};

/// What variables stand for, by name: addresses and ports in one.
#[derive(Clone, Debug, Default)]
pub struct Bound {
    /// `$name` in the place of an address.
    pub addrs: BTreeMap<String, IpAddr>,
    /// `$name` in the place of a port.
    pub ports: BTreeMap<String, u16>,
}

/// An address and port, either of which may be a variable that is not bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Address, or the variable's name.
    pub addr: Result<IpAddr, String>,
    /// Port, or the variable's name.
    pub port: Result<u16, String>,
}

/// Reads `address:port`; without a port the port is 0.
pub fn socket(text: &str, bound: &Bound) -> anyhow::Result<Socket> {
    let (addr, port) = match text.rsplit_once(':') {
        Some((addr, port)) if !addr.contains(':') || addr.ends_with(']') => (addr, port),
        _ => (text, "0"),
    };
    let addr = match addr.strip_prefix('$') {
        Some(name) => bound.addrs.get(name).copied().ok_or_else(|| name.to_owned()),
        None => Ok(address(addr)?),
    };
    let port = match port.strip_prefix('$') {
        Some(name) => bound.ports.get(name).copied().ok_or_else(|| name.to_owned()),
        None => Ok(port.parse().with_context(|| format!("the port of {text:?}"))?),
    };
    Ok(Socket { addr, port })
}

/// Both ends of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Source.
    pub src: (IpAddr, u16),
    /// Destination.
    pub dst: (IpAddr, u16),
}

impl Ends {
    /// Of a packet as it comes in.
    pub fn of(packet: &Packet, bound: &Bound) -> anyhow::Result<Self> {
        let dst = whole(&packet.dst, bound)?;
        let default = if dst.0.is_ipv4() { "client4:40000" } else { "client6:40000" };
        Ok(Self { src: whole(packet.src.as_deref().unwrap_or(default), bound)?, dst })
    }
}

fn whole(text: &str, bound: &Bound) -> anyhow::Result<(IpAddr, u16)> {
    match socket(text, bound)? {
        Socket { addr: Ok(addr), port: Ok(port) } => Ok((addr, port)),
        socket => bail!("{text:?} is not bound: {socket:?}"),
    }
}

/// The packet with the two bytes of payload that [`Packet::zero_sum`] asks for.
pub fn with_zero_sum(packet: &Packet, bound: &Bound) -> anyhow::Result<Packet> {
    let mut packet = packet.clone();
    let ends = match packet.zero_sum.as_str() {
        "" => return Ok(packet),
        "in" => Ends::of(&packet, bound)?,
        _ => {
            let out = packet.out.as_ref().context("a sum that is to become zero needs `out`")?;
            Ends { src: whole(&out.src, bound)?, dst: whole(&out.dst, bound)? }
        }
    };
    packet.payload_hex.push_str("0000");
    let frame = frame_between(&packet, ends, Changed { ttl: packet.ttl, dst_mac: OUR_MAC, src_mac: CLIENT_MAC })?;
    let at = if ends.dst.0.is_ipv4() { 34 } else { 54 } + if packet.proto == "udp" { 6 } else { 16 };
    // What is missing to a sum of all ones is the checksum itself.
    let missing = hex(&frame[at..at + 2]);
    packet.payload_hex.replace_range(packet.payload_hex.len() - 4.., &missing);
    Ok(packet)
}

/// What a sent frame has that the arriving one had not.
#[derive(Clone, Copy, Debug)]
pub struct Changed {
    /// TTL or hop limit.
    pub ttl: u8,
    /// Destination MAC.
    pub dst_mac: [u8; 6],
    /// Source MAC.
    pub src_mac: [u8; 6],
}

/// The frame that comes in.
pub fn frame(packet: &Packet, bound: &Bound) -> anyhow::Result<Vec<u8>> {
    if let Some(raw) = &packet.raw {
        return unhex(raw);
    }
    let mac = |given: &Option<String>, default| given.as_deref().map_or(Ok(default), mac);
    let changed =
        Changed { ttl: packet.ttl, dst_mac: mac(&packet.dst_mac, OUR_MAC)?, src_mac: mac(&packet.src_mac, CLIENT_MAC)? };
    frame_between(&unbind(packet, bound)?, Ends::of(packet, bound)?, changed)
}

/// The packet with what the variables in its quote stand for.
pub fn unbind(packet: &Packet, bound: &Bound) -> anyhow::Result<Packet> {
    let mut packet = packet.clone();
    if let Some(quote) = packet.icmp.as_mut().and_then(|icmp| icmp.quote.as_mut()) {
        let text = |(addr, port)| SocketAddr::new(addr, port).to_string();
        let ends = Ends::of(quote, bound)?;
        (quote.src, quote.dst) = (Some(text(ends.src)), text(ends.dst));
    }
    Ok(packet)
}

/// The frame of `packet`'s fields between other ends.
pub fn frame_between(packet: &Packet, ends: Ends, changed: Changed) -> anyhow::Result<Vec<u8>> {
    let packet = &with_icmp(packet, ends)?;
    let (ethertype, ip) = match (ends.src.0, ends.dst.0) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ("0800", v4(packet, ends, src.octets(), dst.octets(), changed.ttl)?),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ("86dd", v6(packet, ends, src.octets(), dst.octets(), changed.ttl)?),
        _ => bail!("{ends:?} are of two families"),
    };
    let mut frame = [changed.dst_mac, changed.src_mac].concat();
    frame.extend(unhex(&packet.vlan)?);
    frame.extend(unhex(packet.ethertype.as_deref().unwrap_or(ethertype))?);
    frame.extend(ip);
    frame.extend(std::iter::repeat_n(0xee, packet.pad));
    for patch in &packet.patch {
        let bytes = unhex(&patch.hex)?;
        let place = frame.get_mut(patch.at..patch.at + bytes.len()).context("a patch is beyond the frame")?;
        place.copy_from_slice(&bytes);
    }
    ensure!(packet.cut <= frame.len(), "more is cut than there is");
    frame.truncate(frame.len() - packet.cut);
    Ok(frame)
}

/// The packet with its ICMP message as payload of that protocol.
fn with_icmp(packet: &Packet, ends: Ends) -> anyhow::Result<Packet> {
    let Some(icmp) = &packet.icmp else { return Ok(packet.clone()) };
    let mut data = match &icmp.quote {
        Some(quote) => frame(quote, &Bound::default())?.split_off(14),
        None => Vec::new(),
    };
    data.extend(payload(packet)?);
    let rest = unhex(&icmp.rest)?;
    let bytes5to8 = if rest.is_empty() { [0; 4] } else { rest.as_slice().try_into().context("the rest of an ICMP header")? };
    let (proto, message) = match (ends.src.0, ends.dst.0) {
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let kind = Icmpv6Type::Unknown { type_u8: icmp.kind, code_u8: icmp.code, bytes5to8 };
            let mut header = Icmpv6Header::new(kind);
            header.update_checksum(src.octets(), dst.octets(), &data)?;
            header.checksum = checksum(packet, header.checksum)?;
            ("58", header.to_bytes().to_vec())
        }
        _ => {
            let kind = Icmpv4Type::Unknown { type_u8: icmp.kind, code_u8: icmp.code, bytes5to8 };
            let mut header = Icmpv4Header::with_checksum(kind, &data);
            header.checksum = checksum(packet, header.checksum)?;
            ("1", header.to_bytes().to_vec())
        }
    };
    Ok(Packet {
        proto: proto.to_owned(),
        payload: String::new(),
        payload_len: 0,
        payload_hex: hex(&[message, data].concat()),
        icmp: None,
        ..packet.clone()
    })
}

fn v4(packet: &Packet, ends: Ends, src: [u8; 4], dst: [u8; 4], ttl: u8) -> anyhow::Result<Vec<u8>> {
    let number = packet.next.map_or_else(|| number(&packet.proto), Ok)?;
    let mut ip = Ipv4Header::new(0, ttl, IpNumber(number), src, dst)?;
    ip.dscp = IpDscp::try_new(packet.tos >> 2)?;
    ip.ecn = IpEcn::try_new(packet.tos & 3)?;
    ip.identification = packet.id;
    ip.dont_fragment = packet.df;
    ip.more_fragments = packet.mf;
    ip.fragment_offset = IpFragOffset::try_new(packet.fragment)?;
    ip.options = unhex(&packet.ip_options)?.as_slice().try_into()?;
    let payload = transport(
        packet,
        ends,
        |tcp, data| Ok(tcp.calc_checksum_ipv4(&ip, data)?),
        |udp, data| Ok(udp.calc_checksum_ipv4(&ip, data)?),
    )?;
    ip.set_payload_len(payload.len())?;
    if let Some(len) = packet.ip_len {
        ip.total_len = len;
    }
    ip.header_checksum = ip.calc_header_checksum();
    if packet.ip_checksum == "bad" {
        ip.header_checksum = spoil(ip.header_checksum);
    }
    let mut bytes = Vec::new();
    // `write` would put a good checksum in.
    ip.write_raw(&mut bytes)?;
    bytes.extend(payload);
    Ok(bytes)
}

fn v6(packet: &Packet, ends: Ends, src: [u8; 16], dst: [u8; 16], ttl: u8) -> anyhow::Result<Vec<u8>> {
    let number = number(&packet.proto)?;
    let mut ip = Ipv6Header {
        traffic_class: packet.tos,
        flow_label: Ipv6FlowLabel::try_new(packet.flow_label)?,
        payload_length: 0,
        next_header: IpNumber(packet.next.unwrap_or(number)),
        hop_limit: ttl,
        source: src,
        destination: dst,
    };
    let mut payload = unhex(&packet.extension)?;
    payload.extend(transport(
        packet,
        ends,
        |tcp, data| Ok(tcp.calc_checksum_ipv6(&ip, data)?),
        |udp, data| Ok(udp.calc_checksum_ipv6(&ip, data)?),
    )?);
    ip.payload_length = match packet.ip_len {
        Some(len) => len,
        None => u16::try_from(payload.len())?,
    };
    let mut bytes = ip.to_bytes().to_vec();
    bytes.extend(payload);
    Ok(bytes)
}

fn transport(
    packet: &Packet,
    ends: Ends,
    tcp_sum: impl Fn(&TcpHeader, &[u8]) -> anyhow::Result<u16>,
    udp_sum: impl Fn(&UdpHeader, &[u8]) -> anyhow::Result<u16>,
) -> anyhow::Result<Vec<u8>> {
    let data = payload(packet)?;
    match packet.proto.as_str() {
        "tcp" => {
            let mut tcp = TcpHeader::new(ends.src.1, ends.dst.1, packet.seq, 4096);
            tcp.acknowledgment_number = packet.ack;
            let has = |letter| packet.flags.contains(letter);
            (tcp.fin, tcp.syn, tcp.rst, tcp.psh) = (has('F'), has('S'), has('R'), has('P'));
            (tcp.ack, tcp.urg, tcp.ece, tcp.cwr) = (has('A'), has('U'), has('E'), has('C'));
            tcp.set_options_raw(&unhex(&packet.tcp_options)?)?;
            tcp.checksum = checksum(packet, tcp_sum(&tcp, &data)?)?;
            Ok([tcp.to_bytes().to_vec(), data].concat())
        }
        "udp" => {
            let length = u16::try_from(8 + data.len())?;
            let mut udp = UdpHeader { source_port: ends.src.1, destination_port: ends.dst.1, length, checksum: 0 };
            udp.checksum = checksum(packet, udp_sum(&udp, &data)?)?;
            if let Some(len) = packet.udp_len {
                udp.length = len;
            }
            Ok([udp.to_bytes().to_vec(), data].concat())
        }
        _ => Ok(data),
    }
}

fn checksum(packet: &Packet, good: u16) -> anyhow::Result<u16> {
    match packet.checksum.as_str() {
        "good" => Ok(good),
        "bad" => Ok(spoil(good)),
        digits => Ok(u16::from_str_radix(digits, 16).with_context(|| format!("the checksum {digits:?}"))?),
    }
}

/// A checksum that is wrong by 0x1234 in one's complement: whoever changes it by a difference leaves it wrong by as much.
pub fn spoil(good: u16) -> u16 {
    let sum = u32::from(good) + 0x1234;
    ((sum & 0xffff) + (sum >> 16)) as u16
}

fn payload(packet: &Packet) -> anyhow::Result<Vec<u8>> {
    let mut data = packet.payload.clone().into_bytes();
    data.extend((0..packet.payload_len).map(|i| (i * 7 + i / 256) as u8));
    data.extend(unhex(&packet.payload_hex)?);
    Ok(data)
}

/// The IANA number of a protocol.
pub fn number(proto: &str) -> anyhow::Result<u8> {
    match proto {
        "tcp" => Ok(6),
        "udp" => Ok(17),
        number => number.parse().with_context(|| format!("the protocol {number:?}")),
    }
}

/// Bytes of hex digits; blanks and colons are skipped.
pub fn unhex(text: &str) -> anyhow::Result<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|b| !matches!(b, b' ' | b':' | b'\n')).collect();
    ensure!(digits.len().is_multiple_of(2), "{text:?} has half a byte");
    let byte = |pair: &[u8]| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
    digits.chunks(2).map(byte).collect()
}

/// Six bytes of hex digits.
pub fn mac(text: &str) -> anyhow::Result<[u8; 6]> {
    match unhex(text)?.try_into() {
        Ok(mac) => Ok(mac),
        Err(bytes) => bail!("{text:?} has {} bytes", bytes.len()),
    }
}
