//! ICMP and ICMPv6 (RFC 792, RFC 4443): answers to echo requests, and errors about our flows, translated as RFC 5508 asks.
//!
//! `K` says which IP version it is, as it does for flows.

use super::{
    Leave, NOT_READY, OTHER_PROTOCOL, TRUNCATED, depart, direct,
    explain::Stage,
    flow,
    link::{self, Link},
    owner,
    parse::flag,
    select::{Addresses, V4, V6},
    tables::{Direction, FlowMemory, Tables},
    verdict::Outcome,
};
use crate::{
    abi::{
        entry::{Address, AddressKey, ServiceKey, Settings},
        flow::{Flow, Tuple, Way},
        id::EndpointId,
        reason::{Drop, Pass},
    },
    wire::{
        checksum::Delta,
        frame::{ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, ICMP, ICMPV6, TCP, UDP, macs, set_macs},
        vlan::Tags,
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
    /// IPv4 only.
    const CHECK: usize = 10;
    const ICMP: u8 = if Self::IS_V4 { ICMP } else { ICMPV6 };
    const ECHO: u8 = if Self::IS_V4 { 8 } else { 128 };
    const ECHO_REPLY: u8 = if Self::IS_V4 { 0 } else { 129 };
}

/// An error about nothing of ours.
const UNKNOWN: Outcome = Outcome::pass(Pass::IcmpUnknown);

/// Decides about a packet to one of our addresses that is neither TCP nor UDP.
#[inline(always)]
pub fn packet<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Outcome {
    let decided = match link::read(frame) {
        Some(Link { ether_type: ETHERTYPE_IPV4, tags }) => decide::<1, 6, V4, F, T>(frame, tables, tags),
        Some(Link { ether_type: ETHERTYPE_IPV6, tags }) => decide::<4, 14, V6, F, T>(frame, tables, tags),
        Some(_) | None => Err(OTHER_PROTOCOL),
    };
    match decided {
        Ok(outcome) | Err(outcome) => outcome,
    }
}

/// What is to others, and is looked at for their [`gateway`](super::gateway)'s sake, passes as such.
#[inline(always)]
fn decide<const K: usize, const W: usize, A: Addresses<K>, F: Frame, T: Tables + FlowMemory<K, W>>(
    frame: &mut F,
    tables: &T,
    tags: Tags,
) -> Result<Outcome, Outcome> {
    let decided = judge::<K, W, A, F, T>(frame, tables, tags);
    let Err(OTHER_PROTOCOL | UNKNOWN) = decided else { return decided };
    let mut room = FlowMemory::<K, W>::room(tables).ok_or(TRUNCATED)?;
    room.key.addr = A::destination(room.reply.addrs);
    if tables.address(&room.key.addr).is_none() { Err(Outcome::pass(Pass::NotOurs)) } else { decided }
}

#[inline(always)]
fn judge<const K: usize, const W: usize, A: Addresses<K>, F: Frame, T: Tables + FlowMemory<K, W>>(
    frame: &mut F,
    tables: &T,
    tags: Tags,
) -> Result<Outcome, Outcome> {
    let mut room = FlowMemory::<K, W>::room(tables).ok_or(TRUNCATED)?;
    let room = &mut *room;
    let outer = &mut room.reply.addrs;
    let (at, ttl) = locate::<K, F>(frame, tags.l3(), outer).ok_or(OTHER_PROTOCOL)?;
    let &mut [kind, ..] = frame.window::<ICMP_LEN>(at.icmp).ok_or(OTHER_PROTOCOL)?;
    if !is_echo::<K>(kind) && !is_error::<K>(kind) {
        return Err(OTHER_PROTOCOL);
    }
    if T::DRY {
        room.key.addr = A::destination(*outer);
        tell_message(tables, outer, [kind, ttl], at.icmp, tags);
        tell_roles(tables, &room.key.addr);
    }
    // What we send to ourselves would go round for ever.
    room.key.addr = A::source(*outer);
    if !A::is_host(*outer) || tables.address(&room.key.addr).is_some() {
        return Err(Outcome::pass(Pass::Martian));
    }
    if is_echo::<K>(kind) {
        room.key.addr = A::destination(*outer);
        let is_vip = tables.address(&room.key.addr).is_some_and(|address| address.roles & Address::VIP != 0);
        let done = if is_vip { answer::<K, F>(frame, at) } else { None };
        if T::DRY && done.is_some() {
            tables.explain(Stage::answered);
        }
        return done.map(|()| Outcome::send(frame.ifindex())).ok_or(OTHER_PROTOCOL);
    }
    let quoted = quote::<K, F>(frame, at, &mut room.packet.tuple).ok_or(UNKNOWN)?;
    if T::DRY {
        tell_quoted(tables, &room.packet.tuple);
    }
    // An error goes to whom the quoted packet came from.
    if !is_same_source(turned(*outer), turned(room.packet.tuple.addrs)) {
        return Err(UNKNOWN);
    }
    let settings = tables.settings().ok_or(NOT_READY)?;
    let hash = flow::hash(settings, &room.packet.tuple);
    if settings.features & Settings::DIRECT != 0 {
        let Tuple { addrs, ports: [_, _, p0, p1], protocol } = room.packet.tuple;
        room.key = ServiceKey { addr: A::destination(addrs), port: [p0, p1], protocol, pad: 0 };
        (room.hash, room.packet.flags, room.avoid) = (hash, flag::ACK, EndpointId::NONE);
        // It is about the flow, and not of it.
        room.packet.place.l4 = 0;
        // It goes where the packets of the flow go, as they do.
        let outcome = direct::look::<K, A, T>(tables, &room.key, tags);
        if outcome != Outcome::UNKNOWN {
            return Ok(outcome);
        }
    }
    let found = flow::find::<K, W, T>(tables, settings, hash, &room.packet.tuple, tables.tick()).ok_or(UNKNOWN)?;
    if found.state.is_across() {
        return Err(Outcome::tells_across(A::FAMILY));
    }
    let slot = FlowMemory::<K, W>::slot(tables, found.index).ok_or(UNKNOWN)?;
    let meta = slot.meta();
    room.to = slot.translation(room.packet.tuple.protocol);
    if T::DRY {
        tables.explain(|| Stage::known(found.index, found.state, meta, slot.clock().0));
    }
    let is_return = meta.flags() & Flow::<K>::RETURN != 0;
    if ttl <= 1 {
        return Err(Outcome::drop(Drop::TtlExpired, owner(tables, meta.endpoint())));
    }
    let is_blamed =
        is_return && is_unreachable::<K, F>(frame, at, is_same_source(*outer, room.packet.tuple.addrs), meta.protocol());
    if is_blamed && FlowMemory::<K, W>::is_unreachable(tables, found.index, found.state) {
        return Err(Outcome::drop(Drop::Unreachable, owner(tables, meta.endpoint())));
    }
    room.from = if is_return {
        slot.client_way()
    } else {
        let hop = tables.hop(meta.endpoint()).or_else(|| A::host(tables, room.to.addrs));
        Way::by(hop.ok_or_else(|| Outcome::drop(Drop::NoNextHop, owner(tables, meta.endpoint())))?)
    };
    // What was copied counts only if the slot was the same flow's all the while.
    if slot.state() != found.state {
        return Err(UNKNOWN);
    }
    let half = Half { tuple: &room.packet.tuple, to: &room.to, is_return };
    translate::<K, F>(frame, at, quoted, &half).ok_or(TRUNCATED)?;
    if T::DRY {
        tell_translated(tables, &room.to);
    }
    let direction = if is_return { Direction::Return } else { Direction::Forward };
    Ok(depart(frame, tables, Leave { tags, way: room.from, endpoint: meta.endpoint(), direction }))
}

/// Explains which message it is. This and the like are functions of their own because what they say lies on the stack.
#[inline(never)]
fn tell_message<const K: usize, T: Tables>(tables: &T, addrs: &[u64; K], [kind, ttl]: [u8; 2], at: usize, tags: Tags) {
    tables.explain(|| Stage::icmp(addrs, kind, ttl, at, tags));
}

/// Explains what an address is to us.
#[inline(never)]
pub(super) fn tell_roles<T: Tables>(tables: &T, key: &AddressKey) {
    if let Some(address) = tables.address(key) {
        tables.explain(|| Stage::roles(&address));
    }
}

/// Explains what a message is about.
#[inline(never)]
fn tell_quoted<const K: usize, T: Tables>(tables: &T, quoted: &Tuple<K>) {
    tables.explain(|| Stage::quoted(quoted));
}

/// Explains what it is about for whom it goes to.
#[inline(never)]
fn tell_translated<const K: usize, T: Tables>(tables: &T, to: &Tuple<K>) {
    tables.explain(|| Stage::translated(to));
}

/// What an IP header says, a quoted one included.
struct Header {
    protocol: u8,
    ttl: u8,
    /// Offset of what is behind it.
    l4: usize,
    /// Offset of the first byte behind the packet, by its own account.
    end: usize,
    /// IPv4 "more fragments" and fragment offset.
    fragment: u16,
}

/// The IP header at `at`; its addresses go to `addrs`, which is not on the stack.
#[inline(always)]
fn header<const K: usize, F: Frame>(frame: &mut F, at: usize, addrs: &mut [u64; K]) -> Option<Header> {
    if Ip::<K>::IS_V4 {
        let ip = frame.window::<20>(at)?;
        let length = usize::from(ip[0] & 0x0f) * 4;
        if ip[0] >> 4 != 4 || length < 20 {
            return None;
        }
        let end = at + usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        let fragment = u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff;
        *addrs = words(ip);
        Some(Header { protocol: ip[9], ttl: ip[8], l4: at + length, end, fragment })
    } else {
        let ip = frame.window::<40>(at)?;
        if ip[0] >> 4 != 6 {
            return None;
        }
        let end = at + 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
        *addrs = words(ip);
        Some(Header { protocol: ip[6], ttl: ip[7], l4: at + 40, end, fragment: 0 })
    }
}

/// The addresses in an IP header.
#[inline(always)]
fn words<const N: usize, const K: usize>(ip: &[u8; N]) -> [u64; K] {
    let mut addrs = [0; K];
    for (n, word) in addrs.iter_mut().enumerate() {
        let b = |i| ip[Ip::<K>::ADDRS + 8 * n + i];
        *word = u64::from_ne_bytes([b(0), b(1), b(2), b(3), b(4), b(5), b(6), b(7)]);
    }
    addrs
}

/// Where the ICMP message of the IP packet at `l3` is, and the packet's TTL; none when it has no message or only a part of one.
/// Its addresses go to `addrs`.
#[inline(always)]
pub(super) fn locate<const K: usize, F: Frame>(frame: &mut F, l3: usize, addrs: &mut [u64; K]) -> Option<(Message, u8)> {
    let bytes = frame.len();
    let ip = header::<K, F>(frame, l3, addrs)?;
    let (protocol, icmp) = if Ip::<K>::IS_V4 { (ip.protocol, ip.l4) } else { behind(frame, ip.protocol, ip.l4, ip.end)? };
    let is_whole = ip.fragment == 0 && ip.end <= bytes && icmp + ICMP_LEN <= ip.end;
    if protocol == Ip::<K>::ICMP && is_whole { Some((Message { l3, icmp, end: ip.end }, ip.ttl)) } else { None }
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

/// Whether the error at `at` says that a packet of `protocol` can reach nobody; of UDP only the receiver itself may say so, and only
/// of its port.
#[inline(always)]
pub(super) fn is_unreachable<const K: usize, F: Frame>(frame: &mut F, at: Message, is_receivers: bool, protocol: u8) -> bool {
    let Some(&mut [kind, code, ..]) = frame.window::<ICMP_LEN>(at.icmp) else { return false };
    let (unreachable, port) = if Ip::<K>::IS_V4 { (3, 3) } else { (1, 4) };
    // Of IPv4, "fragmentation needed" is among them.
    let is_too_big = Ip::<K>::IS_V4 && code == 4;
    kind == unreachable && !is_too_big && (protocol == TCP || is_receivers && code == port)
}

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
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
pub fn answer<const K: usize, F: Frame>(frame: &mut F, at: Message) -> Option<()> {
    let Message { l3, icmp, end } = at;
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
    set_ttl::<K, F>(frame, l3, Delta::default(), |_| TTL)?;
    let check = Delta::default().bytes2([kind, 0], [Ip::<K>::ECHO_REPLY, 0]).apply([c0, c1]);
    // Zero and all ones are the same number, but an ICMP answer that is all zeros sums up with the latter only.
    let [c0, c1] = if Ip::<K>::IS_V4 && check == [0, 0] { [0xff, 0xff] } else { check };
    let header = frame.window::<ICMP_LEN>(icmp)?;
    (header[0], header[2], header[3]) = (Ip::<K>::ECHO_REPLY, c0, c1);
    Some(())
}

/// Where a quoted transport header is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Offset of the TCP or UDP header, of which eight bytes are there at least.
    pub l4: usize,
    /// Offset of its checksum; 0 when the quote ends before.
    pub check: usize,
}

/// Reads the packet quoted by the error at `at`; none unless its addresses, ports and protocol are all there. `tuple` becomes what
/// packets look like that come the other way: it names the half of a flow whose answers the quoted packet was one of.
#[inline(always)]
pub fn quote<const K: usize, F: Frame>(frame: &mut F, at: Message, tuple: &mut Tuple<K>) -> Option<Quoted> {
    let Message { icmp, end, .. } = at;
    let ip = header::<K, F>(frame, icmp + ICMP_LEN, &mut tuple.addrs)?;
    // The first fragment has the ports; others have payload in their place.
    if ip.fragment & 0x1fff != 0 {
        return None;
    }
    let (protocol, l4) = if Ip::<K>::IS_V4 { (ip.protocol, ip.l4) } else { behind(frame, ip.protocol, ip.l4, end)? };
    let check = l4
        + match protocol {
            TCP => 16,
            UDP => 6,
            _ => return None,
        };
    if l4 + 8 > end {
        return None;
    }
    let &mut [s0, s1, d0, d1, ..] = frame.window::<8>(l4)?;
    let check = if check + 2 > end { 0 } else { check };
    if check != 0 {
        frame.window::<2>(check)?;
    }
    *tuple = Tuple { addrs: turned(tuple.addrs), ports: [d0, d1, s0, s1], protocol };
    Some(Quoted { l4, check })
}

/// Protocol and offset of a quoted transport header behind an IPv6 header.
#[inline(always)]
fn behind<F: Frame>(frame: &mut F, next: u8, offset: usize, end: usize) -> Option<(u8, usize)> {
    if matches!(next, TCP | UDP | ICMPV6) {
        return Some((next, offset));
    }
    let upper = frame.walk(next, offset, end);
    if upper.is_fragment() || upper.is_too_far() { None } else { Some((upper.protocol(), upper.offset())) }
}

/// The half of a flow whose way an error goes.
#[derive(Clone, Copy, Debug)]
pub struct Half<'a, const K: usize> {
    /// What its packets look like.
    pub tuple: &'a Tuple<K>,
    /// What they become.
    pub to: &'a Tuple<K>,
    /// Whether they go to the client.
    pub is_return: bool,
}

/// Makes of an error about a packet that we sent one about the packet that was sent to us. `half` is the one that
/// [`quote`] finds. None when the frame is shorter than it was a moment ago.
///
/// The source stays where it is a router's on the client's side (RFC 5508 REQ-4); a client becomes our egress address, and
/// whatever reports from the endpoint's side becomes the VIP (REQ-5).
#[inline(always)]
pub fn translate<const K: usize, F: Frame>(frame: &mut F, at: Message, quoted: Quoted, half: &Half<'_, K>) -> Option<()> {
    let message = restore::<K, F>(frame, at.icmp + ICMP_LEN, quoted, half)?;
    let old = addrs::<K, F>(frame, at.l3)?;
    let is_flows_own = half.is_return || is_same_source(old, half.tuple.addrs);
    let new = if is_flows_own { half.to.addrs } else { sourced(half.to.addrs, old) };
    set_addrs::<K, F>(frame, at.l3, new)?;
    let outer = Delta::default().words(old, new);
    set_ttl::<K, F>(frame, at.l3, outer, |ttl| ttl.saturating_sub(1))?;
    // RFC 4443 section 2.3: ICMPv6 sums up the addresses too.
    let delta = if Ip::<K>::IS_V4 { message } else { message.and(outer) };
    let check = frame.window::<2>(at.icmp + 2)?;
    *check = delta.apply(*check);
    Some(())
}

/// Gives the quoted packet at `at` the addresses and ports it came to us with; returns what that changes in the message's sum.
#[inline(always)]
fn restore<const K: usize, F: Frame>(frame: &mut F, at: usize, quoted: Quoted, half: &Half<'_, K>) -> Option<Delta> {
    let new = turned(half.to.addrs);
    let addrs = Delta::default().words(turned(half.tuple.addrs), new);
    set_addrs::<K, F>(frame, at, new)?;
    let mut message = addrs;
    if Ip::<K>::IS_V4 {
        message = message.and(change(frame, at + Ip::<K>::CHECK, addrs, false)?);
    }
    let [s0, s1, d0, d1] = half.to.ports;
    let ports = frame.window::<4>(quoted.l4)?;
    let delta = Delta::default().bytes4(*ports, [d0, d1, s0, s1]);
    *ports = [d0, d1, s0, s1];
    message = message.and(delta);
    if quoted.check != 0 {
        message = message.and(change(frame, quoted.check, addrs.and(delta), half.to.protocol == UDP)?);
    }
    Some(message)
}

/// Changes the checksum at `at` by `delta`; returns what that changes in a sum that it is a part of. UDP (RFC 768) has no
/// checksum where it is zero, and all ones where it would be.
#[inline(always)]
pub(super) fn change<F: Frame>(frame: &mut F, at: usize, delta: Delta, is_udp: bool) -> Option<Delta> {
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

/// Makes TTL or hop limit what `new` says, and an IPv4 header's checksum right for that and for `delta`.
#[inline(always)]
fn set_ttl<const K: usize, F: Frame>(frame: &mut F, at: usize, delta: Delta, new: impl Fn(u8) -> u8) -> Option<()> {
    if Ip::<K>::IS_V4 {
        let bytes = frame.window::<4>(at + 8)?;
        let [old, protocol, c0, c1] = *bytes;
        let ttl = new(old);
        let [c0, c1] = delta.bytes2([old, protocol], [ttl, protocol]).apply([c0, c1]);
        *bytes = [ttl, protocol, c0, c1];
    } else {
        let [_, hop_limit] = frame.window::<2>(at + 6)?;
        *hop_limit = new(*hop_limit);
    }
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

/// Whether both are from the same host.
#[inline(always)]
pub(super) fn is_same_source<const K: usize>(a: [u64; K], b: [u64; K]) -> bool {
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
