//! ICMP and ICMPv6 (RFC 792, RFC 4443): answers to echo requests, and errors about our flows, translated as RFC 5508 asks.
//!
//! `K` says which IP version it is, as it does for flows.

use crate::{
    abi::flow::{Flow, Tuple},
    path::extension::walk,
    wire::{
        checksum::Delta,
        frame::{ETH_LEN, Frame, ICMP, ICMPV6, TCP, UDP, macs, set_macs},
    },
};

/// Length of the ICMP header of all messages that are looked at.
pub const ICMP_LEN: usize = 8;
/// TTL or hop limit of answers (IANA's recommended default).
const TTL: u8 = 64;

/// Where things are in an IP header, and what ICMP is called behind it.
struct Ip<const K: usize>;

impl<const K: usize> Ip<K> {
    const IS_V4: bool = K == 1;
    /// The fixed header.
    const LEN: usize = if Self::IS_V4 { 20 } else { 40 };
    const ADDRS: usize = if Self::IS_V4 { 12 } else { 8 };
    const TTL: usize = if Self::IS_V4 { 8 } else { 7 };
    /// IPv4 only.
    const CHECK: usize = 10;
    const ECHO: u8 = if Self::IS_V4 { 8 } else { 128 };
    const ECHO_REPLY: u8 = if Self::IS_V4 { 0 } else { 129 };
}

/// Which protocol is ICMP.
#[inline(always)]
pub const fn protocol<const K: usize>() -> u8 {
    if Ip::<K>::IS_V4 { ICMP } else { ICMPV6 }
}

/// Whether a message of type `kind` asks for an answer to show that we are there.
#[inline(always)]
pub const fn is_echo<const K: usize>(kind: u8) -> bool {
    kind == Ip::<K>::ECHO
}

/// Whether a message of type `kind` quotes a packet that could not go on. Source quench and redirects are the host's.
#[inline(always)]
pub const fn is_error<const K: usize>(kind: u8) -> bool {
    if Ip::<K>::IS_V4 { matches!(kind, 3 | 11 | 12) } else { matches!(kind, 1..=4) }
}

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of the ICMP header.
    pub icmp: usize,
    /// Offset of the first byte behind the IP packet.
    pub end: usize,
}

/// Turns an echo request into its answer; none, with nothing changed, when it is none that can be answered where it lies: an
/// IP header with options or extensions would have to be made anew.
#[inline(always)]
pub fn answer<const K: usize, F: Frame>(frame: &mut F, place: Place) -> Option<()> {
    let Place { l3, icmp, end } = place;
    if icmp != l3 + Ip::<K>::LEN || icmp + ICMP_LEN > end {
        return None;
    }
    let &mut [kind, code, c0, c1, ..] = frame.window::<ICMP_LEN>(icmp)?;
    let (dst_mac, src_mac) = macs(frame.window::<ETH_LEN>(0)?);
    // An answer to a group of stations would be an answer to many.
    if code != 0 || src_mac[0] & 1 != 0 {
        return None;
    }
    set_macs(frame.window::<ETH_LEN>(0)?, src_mac, dst_mac);
    let addrs = addrs::<K, F>(frame, l3)?;
    // Exchanged addresses have the same sum.
    set_addrs::<K, F>(frame, l3, turned(addrs))?;
    set_ttl::<K, F>(frame, l3, TTL, Delta::default())?;
    let check = Delta::default().bytes2([kind, 0], [Ip::<K>::ECHO_REPLY, 0]).apply([c0, c1]);
    // Zero and all ones are the same number, but an ICMP answer that is all zeros sums up with the latter only.
    let [c0, c1] = if Ip::<K>::IS_V4 && check == [0, 0] { [0xff, 0xff] } else { check };
    let header = frame.window::<ICMP_LEN>(icmp)?;
    (header[0], header[2], header[3]) = (Ip::<K>::ECHO_REPLY, c0, c1);
    Some(())
}

/// The packet that an error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote<const K: usize> {
    /// What packets look like that come the other way: the half of a flow whose answers the quoted packet was one of.
    pub tuple: Tuple<K>,
    /// Offset of the quoted TCP or UDP header, of which eight bytes are there at least.
    pub l4: usize,
    /// Offset of its checksum; 0 when the quote ends before.
    pub check: usize,
}

/// The packet quoted by the error at `place`; none unless its addresses, ports and protocol are all there.
#[inline(always)]
pub fn quote<const K: usize, F: Frame>(frame: &mut F, place: Place) -> Option<Quote<K>> {
    let at = place.icmp + ICMP_LEN;
    if at + Ip::<K>::LEN > place.end {
        return None;
    }
    let (protocol, l4) = if Ip::<K>::IS_V4 {
        let ip = frame.window::<20>(at)?;
        let header = usize::from(ip[0] & 0x0f) * 4;
        // The first fragment has the ports; others have payload in their place.
        if ip[0] >> 4 != 4 || header < 20 || ip[6] & 0x1f != 0 || ip[7] != 0 {
            return None;
        }
        (ip[9], at + header)
    } else {
        let ip = frame.window::<8>(at)?;
        let (version, next) = (ip[0] >> 4, ip[6]);
        if version != 6 {
            return None;
        }
        behind(frame, next, at + 40, place.end)?
    };
    let check = l4
        + match protocol {
            TCP => 16,
            UDP => 6,
            _ => return None,
        };
    if l4 + 8 > place.end {
        return None;
    }
    let &mut [s0, s1, d0, d1, ..] = frame.window::<8>(l4)?;
    let check = if check + 2 > place.end { 0 } else { check };
    if check != 0 {
        frame.window::<2>(check)?;
    }
    let addrs = addrs::<K, F>(frame, at)?;
    Some(Quote { tuple: Tuple { addrs: turned(addrs), ports: [d0, d1, s0, s1], protocol }, l4, check })
}

/// Protocol and offset of a quoted transport header behind an IPv6 header.
#[inline(always)]
fn behind<F: Frame>(frame: &mut F, next: u8, offset: usize, end: usize) -> Option<(u8, usize)> {
    if matches!(next, TCP | UDP) {
        return Some((next, offset));
    }
    let upper = walk(frame, next, offset, end);
    if upper.is_fragment() || upper.is_too_far() { None } else { Some((upper.protocol(), upper.offset())) }
}

/// Makes of an error about packets that we sent one about packets that were sent to us. `flow` is the half that
/// [`Quote::tuple`] names: the error goes the way its packets go. None when the frame is shorter than it was a moment ago.
///
/// The source stays where it is a router's on the client's side (RFC 5508 REQ-4); a client becomes our egress address, and
/// whatever reports from the endpoint's side becomes the VIP (REQ-5).
#[inline(always)]
pub fn translate<const K: usize, F: Frame>(frame: &mut F, place: Place, quote: &Quote<K>, flow: &Flow<K>) -> Option<()> {
    let message = restore::<K, F>(frame, place.icmp + ICMP_LEN, quote, flow)?;
    let old = addrs::<K, F>(frame, place.l3)?;
    let is_return = flow.flags & Flow::<K>::RETURN != 0;
    let new = if is_return || is_same_source(old, flow.tuple.addrs) { flow.new_addrs } else { sourced(flow.new_addrs, old) };
    set_addrs::<K, F>(frame, place.l3, new)?;
    let outer = Delta::default().words(old, new);
    let ttl = frame.window::<1>(place.l3 + Ip::<K>::TTL)?[0].saturating_sub(1);
    set_ttl::<K, F>(frame, place.l3, ttl, outer)?;
    // RFC 4443 section 2.3: ICMPv6 sums up the addresses too.
    let delta = if Ip::<K>::IS_V4 { message } else { message.and(outer) };
    let check = frame.window::<2>(place.icmp + 2)?;
    *check = delta.apply(*check);
    Some(())
}

/// Gives the quoted packet at `at` the addresses and ports it came to us with; returns what that changes in the message's sum.
#[inline(always)]
fn restore<const K: usize, F: Frame>(frame: &mut F, at: usize, quote: &Quote<K>, flow: &Flow<K>) -> Option<Delta> {
    let new = turned(flow.new_addrs);
    let addrs = Delta::default().words(turned(quote.tuple.addrs), new);
    set_addrs::<K, F>(frame, at, new)?;
    let mut message = addrs;
    if Ip::<K>::IS_V4 {
        message = message.and(change(frame, at + Ip::<K>::CHECK, addrs, false)?);
    }
    let [s0, s1, d0, d1] = flow.new_ports;
    let ports = frame.window::<4>(quote.l4)?;
    let delta = Delta::default().bytes4(*ports, [d0, d1, s0, s1]);
    *ports = [d0, d1, s0, s1];
    message = message.and(delta);
    if quote.check != 0 {
        message = message.and(change(frame, quote.check, addrs.and(delta), quote.tuple.protocol == UDP)?);
    }
    Some(message)
}

/// Changes the checksum at `at` by `delta`; returns what that changes in a sum that it is a part of. UDP (RFC 768) has no
/// checksum where it is zero, and all ones where it would be.
#[inline(always)]
fn change<F: Frame>(frame: &mut F, at: usize, delta: Delta, is_udp: bool) -> Option<Delta> {
    let check = frame.window::<2>(at)?;
    let old = *check;
    if is_udp && old == [0, 0] {
        return Some(Delta::default());
    }
    let new = delta.apply(old);
    *check = if is_udp && new == [0, 0] { [0xff, 0xff] } else { new };
    Some(Delta::default().bytes2(old, *check))
}

/// Both addresses of the IP header at `at`.
#[inline(always)]
fn addrs<const K: usize, F: Frame>(frame: &mut F, at: usize) -> Option<[u64; K]> {
    let mut addrs = [0; K];
    for (n, word) in addrs.iter_mut().enumerate() {
        *word = u64::from_ne_bytes(*frame.window::<8>(at + Ip::<K>::ADDRS + 8 * n)?);
    }
    Some(addrs)
}

#[inline(always)]
fn set_addrs<const K: usize, F: Frame>(frame: &mut F, at: usize, addrs: [u64; K]) -> Option<()> {
    for (n, word) in addrs.into_iter().enumerate() {
        *frame.window::<8>(at + Ip::<K>::ADDRS + 8 * n)? = word.to_ne_bytes();
    }
    Some(())
}

/// Sets TTL or hop limit, and an IPv4 header's checksum for that and for `delta`.
#[inline(always)]
fn set_ttl<const K: usize, F: Frame>(frame: &mut F, at: usize, ttl: u8, delta: Delta) -> Option<()> {
    if !Ip::<K>::IS_V4 {
        frame.window::<1>(at + Ip::<K>::TTL)?[0] = ttl;
        return Some(());
    }
    let bytes = frame.window::<4>(at + Ip::<K>::TTL)?;
    let [old, protocol, c0, c1] = *bytes;
    let [c0, c1] = delta.bytes2([old, protocol], [ttl, protocol]).apply([c0, c1]);
    *bytes = [ttl, protocol, c0, c1];
    Some(())
}

/// Source and destination exchanged.
#[inline(always)]
fn turned<const K: usize>(mut addrs: [u64; K]) -> [u64; K] {
    if K == 1 {
        addrs[0] = addrs[0].rotate_left(32);
    } else {
        for n in 0..K / 2 {
            addrs.swap(n, n + K / 2);
        }
    }
    addrs
}

/// The bits of an IPv4 pair's word that are its source.
const SOURCE4: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);

#[inline(always)]
fn is_same_source<const K: usize>(a: [u64; K], b: [u64; K]) -> bool {
    if K == 1 { (a[0] ^ b[0]) & SOURCE4 == 0 } else { (0..K / 2).all(|n| a[n] == b[n]) }
}

/// `addrs` with the source of `from`.
#[inline(always)]
fn sourced<const K: usize>(mut addrs: [u64; K], from: [u64; K]) -> [u64; K] {
    if K == 1 {
        addrs[0] = addrs[0] & !SOURCE4 | from[0] & SOURCE4;
    } else {
        addrs[..K / 2].copy_from_slice(&from[..K / 2]);
    }
    addrs
}
