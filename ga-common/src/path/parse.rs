//! From bytes to a tuple: decides only whether a packet could be ours and whether its headers hold together.

use core::mem::offset_of;

use network_types::tcp::TcpHdr;

use super::{tables::Tables, verdict::Outcome};
use crate::{
    abi::{
        entry::{Address, AddressKey, mapped},
        family::Family,
        filter,
        flow::{Tuple, pack4, pack6},
        id::ListenerId,
        reason::{Drop, Pass},
    },
    wire::frame::{ETH_LEN, Frame, IPV6_FRAGMENT, TCP, UDP, ipv4, ipv6, udp},
};

/// TCP flags (RFC 9293 §3.1).
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;
}

/// Where a packet's headers are.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of the TCP or UDP header.
    pub l4: usize,
}

/// What the later stages need to know of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Parsed<const K: usize> {
    /// Addresses, ports, protocol.
    pub tuple: Tuple<K>,
    /// Where its headers are.
    pub place: Place,
    /// TCP flags; 0 for UDP.
    pub flags: u8,
    /// TCP acknowledgement number, host order; meaningless without [`flag::ACK`].
    pub ack: u32,
    /// Whether it says something: payload, or a flag that changes the connection. Bare acknowledgements and keep-alive probes
    /// do not; they do not keep an idle flow alive.
    pub speaks: bool,
    /// TTL or hop limit.
    pub ttl: u8,
}

/// IPv4 behind an untagged Ethernet header.
#[inline(always)]
pub fn v4<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Parsed<1>, Outcome> {
    let bytes = frame.len();
    let Some(ip) = ipv4(frame, ETH_LEN) else { return Err(Outcome::pass(Pass::NotIp)) };
    let (protocol, ttl, src, dst) = (ip.proto, ip.ttl, ip.src_addr, ip.dst_addr);
    let (vihl, total, fragment) = (ip.vihl, usize::from(u16::from_be_bytes(ip.tot_len)), u16::from_be_bytes(ip.frags) & 0x3fff);

    let key = mapped(dst);
    check_ours(tables, &key)?;
    let header = usize::from(vihl & 0x0f) * 4;
    if vihl >> 4 != 4 || header < 20 || total < header || total > bytes - ETH_LEN {
        return Err(refuse(tables, &key, protocol, Drop::Malformed));
    }
    if fragment != 0 {
        return Err(refuse(tables, &key, protocol, Drop::Fragment));
    }
    let l4 = ETH_LEN + header;
    match transport(frame, protocol, l4, total - header, Family::V4) {
        Ok(transport) => Ok(transport.into_parsed(pack4(src, dst), Place { l3: ETH_LEN, l4 }, ttl)),
        Err(reason) => Err(refuse(tables, &key, protocol, reason)),
    }
}

/// IPv6 behind an untagged Ethernet header, the transport header right behind the fixed one.
#[inline(always)]
pub fn v6<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Parsed<4>, Outcome> {
    let bytes = frame.len();
    let Some(ip) = ipv6(frame, ETH_LEN) else { return Err(Outcome::pass(Pass::NotIp)) };
    let (next, ttl, src, dst) = (ip.next_hdr, ip.hop_limit, ip.src_addr, ip.dst_addr);
    let (version, payload) = (ip.vcf[0] >> 4, usize::from(u16::from_be_bytes(ip.payload_len)));

    check_ours(tables, &dst)?;
    let l4 = ETH_LEN + 40;
    if version != 6 || payload > bytes - l4 {
        return Err(refuse(tables, &dst, next, Drop::Malformed));
    }
    if next == IPV6_FRAGMENT {
        let protocol = frame.window::<8>(l4).map_or(0, |header| header[0]);
        return Err(refuse(tables, &dst, protocol, Drop::Fragment));
    }
    match transport(frame, next, l4, payload, Family::V6) {
        Ok(transport) => Ok(transport.into_parsed(pack6(src, dst), Place { l3: ETH_LEN, l4 }, ttl)),
        Err(reason) => Err(refuse(tables, &dst, next, reason)),
    }
}

#[inline(always)]
fn check_ours<T: Tables>(tables: &T, dst: &AddressKey) -> Result<(), Outcome> {
    if is_maybe_ours(tables, dst) { Ok(()) } else { Err(Outcome::pass(Pass::NotOurs)) }
}

/// What the filter does not know is not ours; what it knows may be.
#[inline(always)]
pub fn is_maybe_ours<T: Tables>(tables: &T, key: &AddressKey) -> bool {
    let (word, bit) = filter::place(key);
    tables.filter(word) & bit != 0
}

/// Drops what a listener of that protocol could have been meant by; the rest is the host's.
#[inline(never)]
fn refuse<T: Tables>(tables: &T, dst: &AddressKey, protocol: u8, reason: Drop) -> Outcome {
    let Some(address) = tables.address(dst) else { return Outcome::pass(Pass::NotOurs) };
    let bit = match protocol {
        TCP => Address::TCP,
        UDP => Address::UDP,
        _ => 0,
    };
    if address.roles & Address::VIP != 0 && address.protocols & bit != 0 {
        Outcome::drop(reason, ListenerId::NONE)
    } else {
        Outcome::pass(Pass::OtherProtocol)
    }
}

/// What the transport header says.
struct Transport {
    ports: [u8; 4],
    protocol: u8,
    flags: u8,
    ack: u32,
    speaks: bool,
}

impl Transport {
    #[inline(always)]
    fn into_parsed<const K: usize>(self, addrs: [u64; K], place: Place, ttl: u8) -> Parsed<K> {
        let tuple = Tuple { addrs, ports: self.ports, protocol: self.protocol };
        Parsed { tuple, place, flags: self.flags, ack: self.ack, speaks: self.speaks, ttl }
    }
}

/// Reads and checks the transport header at `l4`, of which `length` bytes are claimed. What is neither TCP nor UDP is refused
/// for a reason that concerns nobody.
#[inline(always)]
fn transport<F: Frame>(frame: &mut F, protocol: u8, l4: usize, length: usize, family: Family) -> Result<Transport, Drop> {
    match protocol {
        TCP => {
            const OFFSET: usize = offset_of!(TcpHdr, _bitfield_1);
            const ACK: usize = offset_of!(TcpHdr, ack_seq);
            let h = frame.window::<20>(l4).ok_or(Drop::Malformed)?;
            let header = usize::from(h[OFFSET] >> 4) * 4;
            if header < 20 || header > length {
                return Err(Drop::Malformed);
            }
            let ack = u32::from_be_bytes([h[ACK], h[ACK + 1], h[ACK + 2], h[ACK + 3]]);
            let flags = h[OFFSET + 1];
            let speaks = header < length || flags & (flag::SYN | flag::FIN | flag::RST) != 0;
            Ok(Transport { ports: [h[0], h[1], h[2], h[3]], protocol, flags, ack, speaks })
        }
        UDP => {
            let h = udp(frame, l4).ok_or(Drop::Malformed)?;
            let claimed = usize::from(u16::from_be_bytes(h.len));
            if claimed < 8 || claimed > length {
                return Err(Drop::Malformed);
            }
            if matches!(family, Family::V6) && h.check == [0, 0] {
                return Err(Drop::UdpChecksumMissing);
            }
            Ok(Transport { ports: [h.src[0], h.src[1], h.dst[0], h.dst[1]], protocol, flags: 0, ack: 0, speaks: true })
        }
        _ => Err(Drop::Malformed),
    }
}
