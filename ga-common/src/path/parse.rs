//! From bytes to a tuple: decides only whether a packet could be ours and whether its headers hold together.

use core::mem::offset_of;

use network_types::tcp::TcpHdr;

use super::{tables::Tables, verdict::Outcome};
use crate::{
    abi::{
        entry::{Address, AddressKey, mapped},
        family::Family,
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

/// What the later stages need to know of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Parsed<const K: usize> {
    /// Addresses, ports, protocol.
    pub tuple: Tuple<K>,
    /// The destination as map key.
    pub dst: AddressKey,
    /// What the destination is to us.
    pub address: Address,
    /// Offset of the TCP or UDP header.
    pub l4: usize,
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

    let dst_key = mapped(dst);
    let address = ours(tables, &dst_key)?;
    let header = usize::from(vihl & 0x0f) * 4;
    if vihl >> 4 != 4 || header < 20 || total < header || total > bytes - ETH_LEN {
        return Err(refuse(address, protocol, Drop::Malformed));
    }
    if fragment != 0 {
        return Err(refuse(address, protocol, Drop::Fragment));
    }
    let l4 = ETH_LEN + header;
    let ports = transport(frame, address, protocol, l4, total - header, Family::V4)?;
    Ok(ports.into_parsed(pack4(src, dst), dst_key, address, l4, ttl))
}

/// IPv6 behind an untagged Ethernet header, the transport header right behind the fixed one.
#[inline(always)]
pub fn v6<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Parsed<4>, Outcome> {
    let bytes = frame.len();
    let Some(ip) = ipv6(frame, ETH_LEN) else { return Err(Outcome::pass(Pass::NotIp)) };
    let (next, ttl, src, dst) = (ip.next_hdr, ip.hop_limit, ip.src_addr, ip.dst_addr);
    let (version, payload) = (ip.vcf[0] >> 4, usize::from(u16::from_be_bytes(ip.payload_len)));

    let address = ours(tables, &dst)?;
    let l4 = ETH_LEN + 40;
    if version != 6 || payload > bytes - l4 {
        return Err(refuse(address, next, Drop::Malformed));
    }
    if next == IPV6_FRAGMENT {
        let Some(header) = frame.window::<8>(l4) else { return Err(Outcome::pass(Pass::OtherProtocol)) };
        return Err(refuse(address, header[0], Drop::Fragment));
    }
    let ports = transport(frame, address, next, l4, payload, Family::V6)?;
    Ok(ports.into_parsed(pack6(src, dst), dst, address, l4, ttl))
}

#[inline(always)]
fn ours<T: Tables>(tables: &T, dst: &AddressKey) -> Result<Address, Outcome> {
    tables.address(dst).ok_or(Outcome::pass(Pass::NotOurs))
}

/// Drops what a listener of that protocol could have been meant by; the rest is the host's.
#[inline(always)]
fn refuse(address: Address, protocol: u8, reason: Drop) -> Outcome {
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
    fn into_parsed<const K: usize>(self, addrs: [u64; K], dst: AddressKey, address: Address, l4: usize, ttl: u8) -> Parsed<K> {
        let tuple = Tuple { addrs, ports: self.ports, protocol: self.protocol };
        Parsed { tuple, dst, address, l4, flags: self.flags, ack: self.ack, speaks: self.speaks, ttl }
    }
}

/// Reads and checks the transport header at `l4`, of which `length` bytes are claimed.
#[inline(always)]
fn transport<F: Frame>(
    frame: &mut F,
    address: Address,
    protocol: u8,
    l4: usize,
    length: usize,
    family: Family,
) -> Result<Transport, Outcome> {
    match protocol {
        TCP => {
            const OFFSET: usize = offset_of!(TcpHdr, _bitfield_1);
            const ACK: usize = offset_of!(TcpHdr, ack_seq);
            let Some(h) = frame.window::<20>(l4) else { return Err(refuse(address, TCP, Drop::Malformed)) };
            let header = usize::from(h[OFFSET] >> 4) * 4;
            if header < 20 || header > length {
                return Err(refuse(address, TCP, Drop::Malformed));
            }
            let ack = u32::from_be_bytes([h[ACK], h[ACK + 1], h[ACK + 2], h[ACK + 3]]);
            let flags = h[OFFSET + 1];
            let speaks = header < length || flags & (flag::SYN | flag::FIN | flag::RST) != 0;
            Ok(Transport { ports: [h[0], h[1], h[2], h[3]], protocol, flags, ack, speaks })
        }
        UDP => {
            let Some(h) = udp(frame, l4) else { return Err(refuse(address, UDP, Drop::Malformed)) };
            let claimed = usize::from(u16::from_be_bytes(h.len));
            if claimed < 8 || claimed > length {
                return Err(refuse(address, UDP, Drop::Malformed));
            }
            if matches!(family, Family::V6) && h.check == [0, 0] {
                return Err(refuse(address, UDP, Drop::UdpChecksumMissing));
            }
            Ok(Transport { ports: [h.src[0], h.src[1], h.dst[0], h.dst[1]], protocol, flags: 0, ack: 0, speaks: true })
        }
        _ => Err(Outcome::pass(Pass::OtherProtocol)),
    }
}
