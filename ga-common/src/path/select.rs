//! A new flow: which endpoint, which egress address and port, and both halves of the pair.

use super::{
    explain::Stage,
    flow::{NO_SLOT, hash, publish, release},
    parse::{self, Parsed, Place},
    rewrite,
    tables::{FlowMemory, Half, Scratch, Tables},
    verdict::Outcome,
};
use crate::{
    abi::{
        entry::{AddressKey, Egress, Hop, Listener, Settings, mapped},
        family::Family,
        flow::{Becomes, Flow, TICK_SHIFT, Tuple, pack4, pack6, unpack_mac, unpack4, unpack6},
        id::{EndpointId, ListenerId, TableId},
        limits::{
            ADMISSION_TICKS, CUSTOM_UDP_TIMEOUT_S, ELSEWHERE_TRIES, MAX_EGRESS, NAT_RETRIES, NAT_REUSING_RETRIES, SYN_TIMEOUT_S,
            TABLE_SIZE,
        },
        reason::{Drop, Event},
    },
    hash::{Sip, scale},
    wire::frame::{Frame, TCP},
};

/// What differs between IPv4 and IPv6 when a flow is made.
pub trait Addresses<const K: usize> {
    /// Which family this is.
    const FAMILY: Family;
    /// From the bytes at `l3` to a tuple.
    fn parse<F: Frame, T: Tables>(frame: &mut F, tables: &T, l3: usize) -> Result<Parsed<K>, Outcome>;
    /// Makes a packet what its flow says; none when the frame is shorter than it was a moment ago.
    fn rewrite<F: Frame, B: Becomes<K>>(frame: &mut F, place: Place, protocol: u8, to: &B) -> Option<()>;
    /// The addresses of a reply: from the endpoint to one of the egress addresses, which `n` draws; none when there is no
    /// egress address of this family.
    fn reply(endpoint: &AddressKey, egress: &Egress, n: u32) -> Option<[u64; K]>;
    /// From one address to another.
    fn between(src: &AddressKey, dst: &AddressKey) -> [u64; K];
    /// Source and destination exchanged.
    fn turned(addrs: [u64; K]) -> [u64; K];
    /// The source as map key.
    fn source(addrs: [u64; K]) -> AddressKey;
    /// The destination as map key.
    fn destination(addrs: [u64; K]) -> AddressKey;
    /// How to get to the destination, if it is a host behind custom routing.
    fn host<T: Tables>(tables: &T, addrs: [u64; K]) -> Option<&Hop>;
    /// Asks how to get there.
    fn want<T: Tables>(tables: &T, addrs: [u64; K]);
    /// The destination as map key, in words.
    fn destination_words(addrs: &[u64; K]) -> [u64; 2];
    /// Whether an answer may go there: not to "this network", loopback, multicast, reserved and broadcast addresses (RFC 1122
    /// section 3.2.1.3) nor to their like in IPv6 (RFC 4291 sections 2.5 and 2.7).
    fn is_host(addrs: [u64; K]) -> bool;
}

/// IPv4.
pub struct V4;
/// IPv6.
pub struct V6;

impl Addresses<1> for V4 {
    const FAMILY: Family = Family::V4;

    #[inline(always)]
    fn parse<F: Frame, T: Tables>(frame: &mut F, tables: &T, l3: usize) -> Result<Parsed<1>, Outcome> {
        parse::v4(frame, tables, l3)
    }

    #[inline(always)]
    fn rewrite<F: Frame, B: Becomes<1>>(frame: &mut F, place: Place, protocol: u8, to: &B) -> Option<()> {
        rewrite::v4(frame, place, protocol, to)
    }

    #[inline(always)]
    fn reply(endpoint: &AddressKey, egress: &Egress, n: u32) -> Option<[u64; 1]> {
        let index = scale(n, u32::from(egress.count4)) as usize;
        if egress.count4 == 0 || index >= MAX_EGRESS {
            return None;
        }
        Some(pack4([endpoint[12], endpoint[13], endpoint[14], endpoint[15]], egress.v4[index]))
    }

    #[inline(always)]
    fn between(src: &AddressKey, dst: &AddressKey) -> [u64; 1] {
        pack4([src[12], src[13], src[14], src[15]], [dst[12], dst[13], dst[14], dst[15]])
    }

    #[inline(always)]
    fn turned(addrs: [u64; 1]) -> [u64; 1] {
        let (src, dst) = unpack4(addrs);
        pack4(dst, src)
    }

    #[inline(always)]
    fn source(addrs: [u64; 1]) -> AddressKey {
        mapped(unpack4(addrs).0)
    }

    #[inline(always)]
    fn destination(addrs: [u64; 1]) -> AddressKey {
        mapped(unpack4(addrs).1)
    }

    #[inline(always)]
    fn host<T: Tables>(tables: &T, addrs: [u64; 1]) -> Option<&Hop> {
        tables.host(unpack4(addrs).1)
    }

    #[inline(always)]
    fn want<T: Tables>(tables: &T, addrs: [u64; 1]) {
        tables.want(unpack4(addrs).1);
    }

    #[inline(always)]
    fn destination_words(addrs: &[u64; 1]) -> [u64; 2] {
        let [.., a, b, c, d] = addrs[0].to_ne_bytes();
        [0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])]
    }

    #[inline(always)]
    fn is_host(addrs: [u64; 1]) -> bool {
        !matches!(unpack4(addrs).0[0], 0 | 127 | 224..)
    }
}

impl Addresses<4> for V6 {
    const FAMILY: Family = Family::V6;

    #[inline(always)]
    fn parse<F: Frame, T: Tables>(frame: &mut F, tables: &T, l3: usize) -> Result<Parsed<4>, Outcome> {
        parse::v6(frame, tables, l3)
    }

    #[inline(always)]
    fn rewrite<F: Frame, B: Becomes<4>>(frame: &mut F, place: Place, protocol: u8, to: &B) -> Option<()> {
        rewrite::v6(frame, place, protocol, to)
    }

    #[inline(always)]
    fn reply(endpoint: &AddressKey, egress: &Egress, n: u32) -> Option<[u64; 4]> {
        let index = scale(n, u32::from(egress.count6)) as usize;
        if egress.count6 == 0 || index >= MAX_EGRESS {
            return None;
        }
        Some(pack6(*endpoint, egress.v6[index]))
    }

    #[inline(always)]
    fn between(src: &AddressKey, dst: &AddressKey) -> [u64; 4] {
        pack6(*src, *dst)
    }

    #[inline(always)]
    fn turned(addrs: [u64; 4]) -> [u64; 4] {
        let (src, dst) = unpack6(addrs);
        pack6(dst, src)
    }

    #[inline(always)]
    fn source(addrs: [u64; 4]) -> AddressKey {
        unpack6(addrs).0
    }

    #[inline(always)]
    fn destination(addrs: [u64; 4]) -> AddressKey {
        unpack6(addrs).1
    }

    #[inline(always)]
    fn host<T: Tables>(_tables: &T, _addrs: [u64; 4]) -> Option<&Hop> {
        None
    }

    #[inline(always)]
    fn want<T: Tables>(_tables: &T, _addrs: [u64; 4]) {}

    #[inline(always)]
    fn destination_words(addrs: &[u64; 4]) -> [u64; 2] {
        [addrs[2], addrs[3]]
    }

    #[inline(always)]
    fn is_host(addrs: [u64; 4]) -> bool {
        let [first, ..] = addrs[0].to_ne_bytes();
        let [ninth, tenth, ..] = addrs[1].to_ne_bytes();
        // The first 80 bits are zero in the unspecified, the loopback and every mapped address.
        first != 0xff && (addrs[0] != 0 || ninth != 0 || tenth != 0)
    }
}

/// Whether this CPU may open one more flow of a listener now: its part of the allowance for the current period is not used up.
/// Without a bound, a flood of flows that are too young to be evicted could fill the table.
#[inline(always)]
pub fn admits<T: Tables>(tables: &T, settings: &Settings, id: ListenerId, listener: &Listener) -> bool {
    let rate = if listener.admission == 0 { settings.admission } else { listener.admission };
    if rate == 0 {
        return true;
    }
    // ADMISSION_TICKS are 275 / 1024 of a second.
    const { assert!(ADMISSION_TICKS as u64 * (1 << TICK_SHIFT) / 1_000_000 == 268) };
    let allowed = ((u64::from(rate) * 275) >> 10).checked_div(u64::from(settings.cpus)).unwrap_or(0) as u32;
    tables.admit(id, if allowed == 0 { 1 } else { allowed }, tables.tick())
}

/// The endpoint for a new flow of the packet in `room`.
#[inline(always)]
pub fn endpoint<const K: usize, A: Addresses<K>, T: Tables>(
    tables: &T,
    settings: &Settings,
    room: &Scratch<K>,
) -> Result<EndpointId, Drop> {
    let id = room.service.listener;
    let flags = tables.listener(id).map_or(0, |listener| listener.flags);
    // The port said which.
    if flags & Listener::CUSTOM != 0 {
        return Ok(room.endpoint);
    }
    named(tables, settings, room, flags, tables.active(id, A::FAMILY).table())
}

/// The endpoint that `table` names for a flow of the packet in `room`, to a listener with these flags.
#[inline(always)]
pub(super) fn named<const K: usize, T: Tables>(
    tables: &T,
    settings: &Settings,
    room: &Scratch<K>,
    flags: u32,
    table: TableId,
) -> Result<EndpointId, Drop> {
    if table == TableId::EMPTY {
        return Err(Drop::NoEndpoint);
    }
    let by_source = flags & Listener::SOURCE_IP != 0;
    let hash = hash_of(settings, room, by_source);
    let slot = if room.avoid == EndpointId::NONE { place(hash) } else { tables.elsewhere(table, hash, room.avoid) };
    let chosen = tables.choose(table, slot);
    if T::DRY {
        tell(tables, &Stage::chosen(table, slot, hash, by_source, chosen.unwrap_or(EndpointId::NONE)));
    }
    chosen.filter(|&id| id != EndpointId::NONE).ok_or(Drop::NoEndpoint)
}

/// The hash by which the flow of the packet in `room` chooses its endpoint.
#[inline(always)]
fn hash_of<const K: usize>(settings: &Settings, room: &Scratch<K>, by_source: bool) -> u64 {
    if by_source { Sip::new(settings.seed).words(room.packet.tuple.addrs).finish() } else { room.hash }
}

/// The entry of every table that the flow of the packet in `room`, to a listener with these flags, belongs to.
#[inline(always)]
pub(super) fn entry<const K: usize>(settings: &Settings, room: &Scratch<K>, flags: u32) -> u32 {
    place(hash_of(settings, room, flags & Listener::SOURCE_IP != 0))
}

/// Explains something. A function of its own because of the verifier's view of whoever calls it.
#[inline(never)]
pub(super) fn tell<T: Tables>(tables: &T, stage: &Stage) {
    tables.explain(|| *stage);
}

/// The entry of a table that a hash names.
#[inline(always)]
fn place(hash: u64) -> u32 {
    scale((hash >> 32) as u32, TABLE_SIZE as u32)
}

/// An entry of `table` with another endpoint than `avoid`, drawn by the hash; that of the hash itself where none is found.
#[inline(always)]
pub fn elsewhere<T: Tables>(tables: &T, table: TableId, hash: u64, avoid: EndpointId) -> u32 {
    let mut draw = hash;
    for _ in 0..ELSEWHERE_TRIES {
        // Knuth's MMIX generator; who is avoided chooses the sequence.
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(u64::from(avoid.0) * 2 + 1);
        let found = tables.choose(table, place(draw));
        if found.is_some_and(|id| id != avoid && id != EndpointId::NONE) {
            return place(draw);
        }
    }
    place(hash)
}

/// Claims the slot of the forward half for the flow of the packet in `room`, towards `endpoint`. Returns the endpoint's family, and
/// whether it sees the client's address.
#[inline(always)]
pub fn reserve<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(
    tables: &T,
    endpoint: EndpointId,
    room: &mut Scratch<K>,
) -> Result<(Family, bool), Drop> {
    let (Some(to), Some(listener)) = (tables.endpoint(endpoint), tables.listener(room.service.listener)) else {
        return Err(Drop::NoEndpoint);
    };
    // An array map has an entry for every id; one that was never put is all zero.
    if to.flags == 0 {
        return Err(Drop::NoEndpoint);
    }
    room.service.endpoint_port = to.port_of(room.service);
    let is_custom = listener.flags & Listener::CUSTOM != 0;
    room.timeout_s = match (room.packet.tuple.protocol, is_custom) {
        (TCP, _) => SYN_TIMEOUT_S,
        (_, true) => CUSTOM_UDP_TIMEOUT_S,
        (_, false) => listener.idle_timeout_s,
    };
    if !is_custom {
        room.target = to.addr;
    }
    (room.endpoint, room.instance) = (endpoint, listener.instance);
    let forward = FlowMemory::<K, W>::claim(tables, room.hash);
    if forward == NO_SLOT {
        return Err(Drop::FlowTableFull);
    }
    // Only asked about, the flow that this one would take the place of is still there.
    if !T::DRY && FlowMemory::<K, W>::taken(tables, room, Half::Forward, room.hash, forward) != NO_SLOT {
        release::<K, W, T>(tables, forward);
        return Err(Drop::FlowTableFull);
    }
    room.forward = forward;
    let family = if parse::is_mapped(&room.target) { Family::V4 } else { Family::V6 };
    Ok((family, listener.flags & Listener::GATEWAY != 0))
}

/// Draws a NAT port that is free towards the endpoint in `room`, and claims the slot of the replies to it: the claim is the
/// allocation of the port. The forward half is free again when there is none.
#[inline(always)]
pub fn answer<const K: usize, const W: usize, A: Addresses<K>, T: Tables + FlowMemory<K, W>>(
    tables: &T,
    settings: &Settings,
    room: &mut Scratch<K>,
) -> Result<(), Drop> {
    match claim_reply::<K, W, A, T>(tables, settings, room) {
        Ok(back) => {
            answered::<K, A>(room, back);
            Ok(())
        }
        Err(reason) => {
            release::<K, W, T>(tables, room.forward);
            Err(reason)
        }
    }
}

/// Takes note of the slot `back` of the replies in `room`: the packet becomes the other end of them.
#[inline(always)]
pub(super) fn answered<const K: usize, A: Addresses<K>>(room: &mut Scratch<K>, back: u32) {
    let [e0, e1, p0, p1] = room.reply.ports;
    room.to = Tuple { addrs: A::turned(room.reply.addrs), ports: [p0, p1, e0, e1], protocol: room.reply.protocol };
    room.back = back;
}

/// Writes both halves of the pair in `room` into the slots that are claimed for them, and lets packets find them.
#[inline(never)]
pub fn fill<const K: usize, const W: usize, A: Addresses<K>, T: Tables + FlowMemory<K, W>>(tables: &T, room: &Scratch<K>) {
    let [c0, c1, v0, v1] = room.packet.tuple.ports;
    let half = |tuple: &Tuple<K>, new_addrs, new_ports, flags| Flow {
        tuple: *tuple,
        flags,
        endpoint: room.endpoint.0,
        new_addrs,
        new_ports,
        ifindex: room.from.ifindex,
        dst_mac: unpack_mac(room.from.dst),
        src_mac: unpack_mac(room.from.src),
        tags: room.from.tags,
        timeout_s: room.timeout_s,
    };
    if let Some(slot) = FlowMemory::<K, W>::slot(tables, room.forward) {
        // Nobody else was found: the client is told of what comes next.
        let flags = if room.endpoint == room.avoid { Flow::<K>::AGAIN } else { 0 };
        slot.store(&half(&room.packet.tuple, room.to.addrs, room.to.ports, flags));
    }
    if let Some(slot) = FlowMemory::<K, W>::slot(tables, room.back) {
        slot.store(&half(&room.reply, A::turned(room.packet.tuple.addrs), [v0, v1, c0, c1], Flow::<K>::RETURN));
    }
    publish::<K, W, T>(tables, room.forward, room.back, tables.tick());
}

#[inline(always)]
fn claim_reply<const K: usize, const W: usize, A: Addresses<K>, T: Tables + FlowMemory<K, W>>(
    tables: &T,
    settings: &Settings,
    room: &mut Scratch<K>,
) -> Result<u32, Drop> {
    let Some(egress) = tables.egress(room.instance) else { return Err(Drop::NoEgress) };
    let [c0, c1, ..] = room.packet.tuple.ports;
    let mut draw = room.hash as u32;
    // The client's own port first (RFC 4787 section 4.2.1), whatever CPU this is: a client that comes again from a port meets what
    // the endpoint remembers of itself, and not another client's connection whose timestamps may be ahead of its own (RFC 6191).
    let mut port = own_port(settings, u16::from_be_bytes([c0, c1]));
    // Counted in 64 bits: the verifier loses sight of a narrower counter that waits on the stack.
    for attempt in 0..u64::from(NAT_RETRIES) {
        let Some(addrs) = A::reply(&room.target, egress, draw.rotate_left(16)) else { return Err(Drop::NoEgress) };
        let [p0, p1] = port.unwrap_or_else(|| nat_port(settings, tables.cpu(), draw)).to_be_bytes();
        let [e0, e1] = room.service.endpoint_port;
        room.reply = Tuple { addrs, ports: [e0, e1, p0, p1], protocol: room.packet.tuple.protocol };
        let reply_hash = hash(settings, &room.reply);
        let owner = FlowMemory::<K, W>::taken(tables, room, Half::Return, reply_hash, NO_SLOT);
        if T::DRY {
            tell_candidate(tables, &room.reply, owner);
        }
        let back = if owner == NO_SLOT {
            FlowMemory::<K, W>::claim(tables, reply_hash)
        } else if attempt >= u64::from(NAT_RETRIES - NAT_REUSING_RETRIES) {
            FlowMemory::<K, W>::reuse(tables, owner, reply_hash)
        } else {
            NO_SLOT
        };
        if back != NO_SLOT {
            // Another CPU may want the same port at the same time. Whoever has claimed a slot looks once more: of two that did so at
            // once at least one sees the other, and gives way.
            if T::DRY || FlowMemory::<K, W>::taken(tables, room, Half::Return, reply_hash, back) == NO_SLOT {
                return Ok(back);
            }
            release::<K, W, T>(tables, back);
        } else if owner == NO_SLOT {
            return Err(Drop::FlowTableFull);
        }
        if !T::DRY {
            tables.count_event(Event::PortRetry);
        }
        port = None;
        // Draws depend on the time: a SYN that is sent again must not meet the very same ports again.
        draw = draw.wrapping_add(tables.tick()).wrapping_mul(0x915f_77f5).wrapping_add(0x9e37_79b9);
    }
    Err(Drop::NoPort)
}

/// Explains which reply tuple was tried, and whether somebody has it. A function of its own because what it says lies on the stack.
#[inline(never)]
fn tell_candidate<const K: usize, T: Tables>(tables: &T, reply: &Tuple<K>, owner: u32) {
    tables.explain(|| Stage::candidate(reply, owner == NO_SLOT));
}

/// The `draw`th port of this CPU: ports are dealt out to CPUs in turn, so that two of them seldom want the same one.
#[inline(always)]
fn nat_port(settings: &Settings, cpu: u32, draw: u32) -> u16 {
    let nth = scale(draw, u32::from(settings.nat_span)) * settings.cpus;
    settings.nat_first.wrapping_add((nth + cpu) as u16)
}

/// `port`, if it is a NAT port of any CPU.
#[inline(always)]
fn own_port(settings: &Settings, port: u16) -> Option<u16> {
    let offset = u32::from(port).checked_sub(u32::from(settings.nat_first))?;
    (offset < u32::from(settings.nat_span) * settings.cpus).then_some(port)
}
