//! From bytes to a tuple: decides only whether a packet could be ours and whether its headers hold together.

use core::mem::offset_of;

use network_types::tcp::TcpHdr;

use super::{gateway, tables::Tables, verdict::Outcome};
use crate::{
    abi::{
        entry::{Address, AddressKey, key, mapped, words},
        family::Family,
        filter,
        flow::{Tuple, pack4, pack6},
        id::ListenerId,
        reason::{Drop, Pass},
    },
    wire::{
        extension::Upper,
        frame::{Frame, ICMP, ICMPV6, TCP, UDP, ipv4, ipv6, udp},
    },
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

/// IPv4 at `l3`.
#[inline(always)]
pub fn v4<F: Frame, T: Tables>(frame: &mut F, tables: &T, l3: usize) -> Result<Parsed<1>, Outcome> {
    let bytes = frame.len();
    let Some(ip) = ipv4(frame, l3) else { return Err(Outcome::pass(Pass::NotIp)) };
    let (protocol, ttl, src, dst) = (ip.proto, ip.ttl, ip.src_addr, ip.dst_addr);
    let (vihl, total, fragment) = (ip.vihl, usize::from(u16::from_be_bytes(ip.tot_len)), u16::from_be_bytes(ip.frags) & 0x3fff);

    check_ours(tables, &mapped(dst), || (mapped(src), protocol == ICMP))?;
    let header = usize::from(vihl & 0x0f) * 4;
    if vihl >> 4 != 4 || header < 20 || total < header || total > bytes - l3 {
        return Err(refuse(tables, mapped(dst), protocol.into(), Drop::Malformed));
    }
    if fragment != 0 {
        return Err(refuse(tables, mapped(dst), protocol.into(), Drop::Fragment));
    }
    let l4 = l3 + header;
    match transport(frame, protocol, l4, total - header, Family::V4) {
        Ok(transport) => Ok(transport.into_parsed(pack4(src, dst), Place { l3, l4 }, ttl)),
        Err(reason) => Err(refuse(tables, mapped(dst), protocol.into(), reason)),
    }
}

/// IPv6 at `l3`.
#[inline(always)]
pub fn v6<F: Frame, T: Tables>(frame: &mut F, tables: &T, l3: usize) -> Result<Parsed<4>, Outcome> {
    let bytes = frame.len();
    let Some(ip) = ipv6(frame, l3) else { return Err(Outcome::pass(Pass::NotIp)) };
    let (next, ttl, src, dst) = (ip.next_hdr, ip.hop_limit, ip.src_addr, ip.dst_addr);
    let (version, payload) = (ip.vcf[0] >> 4, usize::from(u16::from_be_bytes(ip.payload_len)));

    // The keys of IPv4 addresses; no such address is on a cable (RFC 6890 section 2.2.3).
    if is_mapped(&dst) {
        return Err(Outcome::pass(Pass::NotOurs));
    }
    check_ours(tables, &dst, || (src, next == ICMPV6))?;
    let l4 = l3 + 40;
    if version != 6 || payload > bytes - l4 {
        return Err(refuse(tables, dst, next.into(), Drop::Malformed));
    }
    let end = l4 + payload;
    let (next, l4) = if matches!(next, TCP | UDP) { (next, l4) } else { upper(frame, tables, dst, Upper::at(next, l4), end)? };
    match transport(frame, next, l4, end - l4, Family::V6) {
        Ok(transport) => Ok(transport.into_parsed(pack6(src, dst), Place { l3, l4 }, ttl)),
        Err(reason) => Err(refuse(tables, dst, next.into(), reason)),
    }
}

/// Protocol and offset of what is behind extension headers.
#[inline(always)]
fn upper<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    dst: AddressKey,
    first: Upper,
    end: usize,
) -> Result<(u8, usize), Outcome> {
    let upper = frame.walk(first.protocol(), first.offset(), end);
    if upper.is_fragment() {
        return Err(refuse(tables, dst, upper.protocol().into(), Drop::Fragment));
    }
    if upper.is_too_far() {
        return Err(refuse(tables, dst, ANY, Drop::ExtHeaders));
    }
    // The walk ends before the packet does, which the verifier does not know.
    if upper.offset() > end {
        return Err(refuse(tables, dst, upper.protocol().into(), Drop::Malformed));
    }
    Ok((upper.protocol(), upper.offset()))
}

/// Whether a key is that of an IPv4 address.
#[inline(always)]
pub(super) fn is_mapped(k: &AddressKey) -> bool {
    let [high, low] = [[k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7]], [k[8], k[9], k[10], k[11], 0, 0, 0, 0]];
    u64::from_ne_bytes(high) == 0 && u64::from_ne_bytes(low) == u64::from_ne_bytes([0, 0, 0xff, 0xff, 0, 0, 0, 0])
}

/// Lets through what may be addressed to us, and what may be an answer or an ICMP error to a client that [`gateway`] knows of:
/// `sent` tells the packet's source, and whether it is an ICMP message.
#[inline(always)]
fn check_ours<T: Tables>(tables: &T, dst: &AddressKey, sent: impl FnOnce() -> (AddressKey, bool)) -> Result<(), Outcome> {
    if is_maybe_ours(tables, dst) || gateway::is_maybe_answer(tables, sent) { Ok(()) } else { Err(Outcome::pass(Pass::NotOurs)) }
}

/// What the filter does not know is not ours; what it knows may be.
#[inline(always)]
pub fn is_maybe_ours<T: Tables>(tables: &T, key: &AddressKey) -> bool {
    let (word, bit) = filter::place(key);
    tables.filter(word) & bit != 0
}

/// In the place of a protocol that was not reached: TCP or UDP, for all we know.
const ANY: u16 = 256;

/// Drops what a listener of that protocol could have been meant by; the rest is the host's.
#[inline(always)]
fn refuse<T: Tables>(tables: &T, dst: AddressKey, protocol: u16, reason: Drop) -> Outcome {
    let [high, low] = words(&dst);
    refuse_words(tables, high, low, protocol, reason)
}

/// [`refuse`] in registers: what is rare takes no room on the stack of what is not.
#[inline(never)]
fn refuse_words<T: Tables>(tables: &T, high: u64, low: u64, protocol: u16, reason: Drop) -> Outcome {
    let Some(address) = tables.address(&key([high, low])) else {
        let is_message = protocol == u16::from(ICMP) || protocol == u16::from(ICMPV6);
        // What is neither TCP nor UDP is malformed to who asks for a transport header.
        let is_looked_at = is_message && reason == Drop::Malformed && gateway::is_used(tables);
        return Outcome::pass(if is_looked_at { Pass::OtherProtocol } else { Pass::NotOurs });
    };
    const TCP16: u16 = TCP as u16;
    const UDP16: u16 = UDP as u16;
    let bit = match protocol {
        TCP16 => Address::TCP,
        UDP16 => Address::UDP,
        ANY => Address::TCP | Address::UDP,
        _ => 0,
    };
    const { assert!(Address::TCP << 2 == Address::HOST_TCP && Address::UDP << 2 == Address::HOST_UDP) };
    // Which of them the agent serves is `host::piece`'s to find out.
    let is_asked = reason == Drop::Fragment && address.protocols & bit << 2 != 0;
    if address.roles & Address::VIP != 0 && address.protocols & bit != 0 && !is_asked {
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
