//! The way of one packet. The order of the stages stands here and nowhere else:
//! parse → flow → (listener → select → open) → rewrite → emit.
//! A packet for a listener whose endpoints answer clients themselves takes another way right after parsing: `direct`; one for a
//! listener that the agent serves ends where the listener is known: `host`.
//!
//! A packet that is not ours costs one look at the addresses; a packet of a known flow one look at flow memory; only a new
//! flow asks for listener, table and endpoint.

pub mod acl;
pub mod cross;
pub mod custom;
pub mod direct;
pub mod encap;
pub mod explain;
pub mod fail;
pub mod flow;
pub mod gateway;
pub mod host;
pub mod icmp;
pub mod link;
pub mod parse;
pub mod refuse;
pub mod rewrite;
pub mod select;
pub mod tables;
#[cfg(test)]
mod tests;
pub mod too_big;
pub mod track;
pub mod verdict;

use self::{
    explain::Stage,
    flow::News,
    parse::{Parsed, flag},
    select::{Addresses, V4, V6},
    tables::{Direction, FlowMemory, Scratch, Tables},
    verdict::Outcome,
};
use crate::{
    abi::{
        entry::{Address, Listener, ServiceKey, Settings},
        flow::{Flow, Tuple, Way, mac, unpack_mac},
        id::{EndpointId, ListenerId},
        reason::{Drop, Pass},
    },
    wire::frame::{ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, TCP, is_to_group, macs, tcp},
    wire::vlan::Tags,
};

/// Decides about one packet, and rewrites it when it is to be sent.
#[inline(always)]
pub fn packet<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Outcome {
    let outcome = match flows(frame, tables) {
        OTHER_PROTOCOL => match icmp::packet(frame, tables) {
            OTHER_PROTOCOL => host::piece(frame, tables),
            outcome => outcome,
        },
        outcome => outcome,
    };
    let outcome = if outcome.is_across() { cross::decide(&mut cross::Plain { frame, tables }, outcome) } else { outcome };
    let outcome = if outcome.is_direct() { direct::packet(frame, tables, outcome) } else { outcome };
    if refuse::is_refused(outcome) { refuse::packet(frame, tables, outcome) } else { outcome }
}

/// The first part of [`packet`]: what is [`OTHER_PROTOCOL`] here is [`icmp::packet`]'s to decide and then [`host::piece`]'s, what [`Outcome::is_direct`] here
/// or there is [`direct::packet`]'s, what [`Outcome::is_across`] is [`cross::decide`]'s, and what is refused is
/// [`refuse::packet`]'s to answer. The kernel has programs for its verifier to judge in the place of one.
#[inline(always)]
pub fn flows<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Outcome {
    let Some(link) = link::read(frame) else { return Outcome::pass(Pass::NotIp) };
    let Some(eth) = frame.window::<ETH_LEN>(0) else { return Outcome::pass(Pass::NotIp) };
    match (link.ether_type, is_to_group(eth)) {
        (ETHERTYPE_IPV4, false) => known_or_new::<1, 6, V4, F, T>(frame, tables, link.tags),
        (ETHERTYPE_IPV6, false) => known_or_new::<4, 14, V6, F, T>(frame, tables, link.tags),
        (ETHERTYPE_IPV4 | ETHERTYPE_IPV6, true) => Outcome::pass(Pass::NotOurs),
        _ => Outcome::pass(Pass::NotIp),
    }
}

/// Functions one after the other: the kernel's stack of 512 bytes has no room for all of them at once. What one knows and
/// the next needs is in the [room](FlowMemory::room) of the packet.
#[inline(always)]
fn known_or_new<const K: usize, const W: usize, A: Addresses<K>, F: Frame, T: Tables + FlowMemory<K, W>>(
    frame: &mut F,
    tables: &T,
    tags: Tags,
) -> Outcome {
    let outcome = known::<K, W, A, F, T>(frame, tables, tags);
    if outcome != Outcome::UNKNOWN {
        return outcome;
    }
    let outcome = new::<K, W, A, F, T>(frame, tables, tags);
    if outcome != Outcome::UNKNOWN {
        return outcome;
    }
    let outcome = match open::<K, W, A, T>(tables) {
        Outcome::UNKNOWN => answer::<K, W, A, T>(tables),
        Outcome::KEEPS => tables.keep(A::FAMILY),
        outcome => return outcome,
    };
    if outcome != Outcome::UNKNOWN {
        return outcome;
    }
    send::<K, W, A, F, T>(frame, tables, tags)
}

/// To one of our addresses, but neither TCP nor UDP.
pub const OTHER_PROTOCOL: Outcome = Outcome::pass(Pass::OtherProtocol);
/// A window that was there during parsing is gone: cannot happen, and is dropped under a name if it does.
const TRUNCATED: Outcome = Outcome::drop(Drop::Malformed, ListenerId::NONE);
/// Nobody filled the settings yet.
const NOT_READY: Outcome = Outcome::drop(Drop::NotReady, ListenerId::NONE);

/// A packet of a known flow; [`Outcome::UNKNOWN`], and the packet in its room, when it belongs to none.
#[inline(never)]
fn known<const K: usize, const W: usize, A: Addresses<K>, F: Frame, T: Tables + FlowMemory<K, W>>(
    frame: &mut F,
    tables: &T,
    tags: Tags,
) -> Outcome {
    let packet = match A::parse(frame, tables, tags.l3()) {
        Ok(packet) => packet,
        Err(outcome) => return outcome,
    };
    let Some(settings) = tables.settings() else { return NOT_READY };
    if T::DRY {
        let Some(mut room) = FlowMemory::<K, W>::room(tables) else { return TRUNCATED };
        room.packet = packet;
        tell_parsed::<K, A, T>(tables, &mut room, tags);
    }
    let now = tables.tick();
    let hash = flow::hash(settings, &packet.tuple);
    if settings.features & Settings::DIRECT != 0 && direct::is_maybe::<K, A, T>(tables, &packet.tuple) {
        keep::<K, W, T>(tables, &packet, hash, EndpointId::NONE);
        let outcome = direct::ask::<K, W, A, T>(tables, tags);
        if outcome != Outcome::UNKNOWN {
            return outcome;
        }
    }
    let Some(found) = flow::find_soon::<K, W, T>(tables, settings, hash, &packet.tuple, now) else {
        return keep::<K, W, T>(tables, &packet, hash, EndpointId::NONE);
    };
    let Some(slot) = FlowMemory::<K, W>::slot(tables, found.index) else { return TRUNCATED };
    let meta = slot.meta();
    if T::DRY {
        tables.explain(|| Stage::known(found.index, found.state, meta, slot.clock().0));
    }
    let flags = meta.flags();
    let is_opening = packet.flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) == flag::SYN;
    if is_opening && flags & (Flow::<K>::CLOSED | Flow::<K>::RETURN) == Flow::<K>::CLOSED {
        tables.explain(|| Stage::reopened(found.index));
        flow::release_pair::<K, W, T>(tables, found.index, found.state);
        return keep::<K, W, T>(tables, &packet, hash, EndpointId::NONE);
    }
    if packet.ttl <= 1 {
        return Outcome::drop(Drop::TtlExpired, owner(tables, meta.endpoint()));
    }
    let is_half_open = flags & (Flow::<K>::CLOSED | Flow::<K>::ESTABLISHED | Flow::<K>::RETURN) == 0;
    if is_half_open
        && (is_opening || flags & Flow::<K>::AGAIN != 0)
        && FlowMemory::<K, W>::gives_up(tables, found.index, found.state, is_opening)
    {
        tables.explain(|| Stage::retried(meta.endpoint()));
        return keep::<K, W, T>(tables, &packet, hash, meta.endpoint());
    }
    if found.state.is_across() {
        keep::<K, W, T>(tables, &packet, hash, EndpointId::NONE);
        return Outcome::crosses(A::FAMILY, found.index);
    }
    // What was read of the slot counts only if it was the same flow's all the while.
    if slot.state() != found.state {
        return keep::<K, W, T>(tables, &packet, hash, EndpointId::NONE);
    }
    if !T::DRY {
        let (seen, acked) = slot.clock();
        // A handshake is kept alive by whatever belongs to it.
        let speaks = packet.speaks || flags & (Flow::<K>::ESTABLISHED | Flow::<K>::CLOSED) == 0;
        let ack = if packet.flags & flag::ACK != 0 { packet.ack } else { acked };
        let seen_now = if speaks { now } else { seen };
        if (seen, acked) != (seen_now, ack) {
            slot.set_clock(seen_now, ack);
        }
        let Some(from) = origin(frame, tags) else { return TRUNCATED };
        let is_moved = flags & Flow::<K>::RETURN == 0 && !slot.is_client(&from);
        if is_moved || flow::is_news::<K>(flags, packet.tuple.protocol, packet.flags) {
            let Some(mut room) = FlowMemory::<K, W>::room(tables) else { return TRUNCATED };
            let Some(seq) = sequence(frame, packet.place.l4, packet.flags) else { return TRUNCATED };
            (room.from, room.news) = (from, News { flags: packet.flags, seq });
            flow::tell::<K, W, T>(tables, found.index, found.state, &room);
        }
    }
    let (endpoint, is_return) = (meta.endpoint(), flags & Flow::<K>::RETURN != 0);
    let mut hop = if is_return { None } else { tables.hop(endpoint) };
    if hop.is_none() && !is_return {
        hop = A::host(tables, slot.translation(packet.tuple.protocol).addrs);
        if hop.is_none() {
            return unreachable::<K, A, T>(tables, endpoint, &slot.translation(packet.tuple.protocol));
        }
    }
    if A::rewrite(frame, packet.place, packet.tuple.protocol, slot).is_none() {
        return TRUNCATED;
    }
    if T::DRY {
        let Some(mut room) = FlowMemory::<K, W>::room(tables) else { return TRUNCATED };
        room.to = slot.translation(packet.tuple.protocol);
        tell_rewritten(tables, &room.to);
    }
    let (way, direction) = match hop {
        Some(hop) => (Way::by(hop), Direction::Forward),
        None => (slot.client_way(), Direction::Return),
    };
    // Somebody else's by now: what the packet became is nobody's.
    if slot.state() != found.state {
        return Outcome::drop(Drop::NoFlow, owner(tables, endpoint));
    }
    depart(frame, tables, Leave { tags, way, endpoint, direction })
}

/// Explains what a packet is and what its destination is to us. This and [`tell_rewritten`] are functions of their own because what
/// they say lies on the stack.
#[inline(never)]
fn tell_parsed<const K: usize, A: Addresses<K>, T: Tables>(tables: &T, room: &mut Scratch<K>, tags: Tags) {
    tables.explain(|| Stage::parsed(&room.packet, tags));
    room.key.addr = A::destination(room.packet.tuple.addrs);
    icmp::tell_roles(tables, &room.key.addr);
}

/// Explains what a packet becomes.
#[inline(never)]
fn tell_rewritten<const K: usize, T: Tables>(tables: &T, to: &Tuple<K>) {
    tables.explain(|| Stage::rewritten(to));
}

/// The sequence number of a segment, where its flags make it count.
#[inline(always)]
fn sequence<F: Frame>(frame: &mut F, l4: usize, flags: u8) -> Option<u32> {
    if flags & flag::RST == 0 { Some(0) } else { tcp(frame, l4).map(|tcp| u32::from_be_bytes(tcp.seq)) }
}

/// Leaves a packet of no known flow in its room, for [`new`], with the endpoint that it is not to go to.
#[inline(always)]
fn keep<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(
    tables: &T,
    packet: &Parsed<K>,
    hash: u64,
    avoid: EndpointId,
) -> Outcome {
    let Some(mut room) = FlowMemory::<K, W>::room(tables) else { return TRUNCATED };
    (room.packet, room.hash, room.avoid) = (*packet, hash, avoid);
    Outcome::UNKNOWN
}

/// A packet without a flow, as [`known`] left it: the host's if it is for no listener, and [`Outcome::UNKNOWN`], with the service
/// in its room, if it opens a flow.
#[inline(never)]
fn new<const K: usize, const W: usize, A: Addresses<K>, F: Frame, T: Tables + FlowMemory<K, W>>(
    frame: &mut F,
    tables: &T,
    tags: Tags,
) -> Outcome {
    let Some(mut room) = FlowMemory::<K, W>::room(tables) else { return TRUNCATED };
    let room = &mut *room;
    let [_, _, p0, p1] = room.packet.tuple.ports;
    let (addrs, protocol) = (room.packet.tuple.addrs, room.packet.tuple.protocol);
    room.key = ServiceKey { addr: A::destination(addrs), port: [p0, p1], protocol, pad: 0 };
    let service = match tables.service(&room.key) {
        Some(service) => service,
        None => match tables.address(&room.key.addr) {
            Some(address) if custom::serve::<K, A, T>(tables, address, room) => room.service,
            Some(address) if address.roles & Address::VIP != 0 => return Outcome::pass(Pass::NoListener),
            Some(_) => return Outcome::pass(Pass::NoReturnFlow),
            None => return Outcome::pass(Pass::NotOurs),
        },
    };
    tables.explain(|| Stage::service(service));
    let id = service.listener;
    if service.is_direct() {
        // The filter knows of it from before the service is there.
        return Outcome::drop(Drop::NotReady, id);
    }
    let Some(listener) = tables.listener(id) else { return Outcome::pass(Pass::NoListener) };
    // From ourselves, a flow would be answered to ourselves: two packets of such a kind go round for ever.
    room.key.addr = A::source(addrs);
    let is_ours = parse::is_maybe_ours(tables, &room.key.addr) && tables.address(&room.key.addr).is_some();
    if is_ours || !A::is_host(addrs) {
        return Outcome::pass(Pass::Martian);
    }
    let is_opening = room.packet.flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) == flag::SYN;
    let is_hosts = listener.flags & Listener::FORMER != 0 && protocol == TCP && !is_opening;
    if listener.flags & Listener::HOST != 0 || is_hosts {
        room.service = service;
        return host::enter(tables, room, frame.len() as u64);
    }
    if listener.acl != 0 && tables.denies(listener.acl, &room.key.addr) {
        tables.explain(|| Stage::denied(id));
        return Outcome::drop(Drop::Acl, id);
    }
    if listener.flags & Listener::CUSTOM != 0 && room.is_denied != 0 {
        return Outcome::drop(Drop::CustomDenied, id);
    }
    if protocol == TCP && !is_opening {
        return Outcome::drop(Drop::NoFlow, id);
    }
    if room.packet.ttl <= 1 {
        return Outcome::drop(Drop::TtlExpired, id);
    }
    let Some(settings) = tables.settings() else { return NOT_READY };
    if !select::admits(tables, settings, id, listener) {
        return Outcome::drop(Drop::Admission, id);
    }
    let Some(from) = origin(frame, tags) else { return TRUNCATED };
    (room.service, room.from) = (service, from);
    Outcome::UNKNOWN
}

/// The endpoint and the forward half's slot for a packet that [`new`] admitted. What follows is [`cross::open`]'s where the endpoint
/// is of the other family, and [`gateway::answer`]'s where it sees the client's address.
#[inline(never)]
fn open<const K: usize, const W: usize, A: Addresses<K>, T: Tables + FlowMemory<K, W>>(tables: &T) -> Outcome {
    let (Some(settings), Some(mut room)) = (tables.settings(), FlowMemory::<K, W>::room(tables)) else { return NOT_READY };
    let endpoint = select::endpoint::<K, A, T>(tables, settings, &room);
    match endpoint.and_then(|endpoint| select::reserve::<K, W, T>(tables, endpoint, &mut room)) {
        Ok((family, _)) if family != A::FAMILY => Outcome::opens_across(A::FAMILY),
        Ok((_, true)) => Outcome::KEEPS,
        Ok((_, false)) => Outcome::UNKNOWN,
        Err(reason) => Outcome::drop(reason, room.service.listener),
    }
}

/// The NAT port and the return half's slot for what [`open`] began.
#[inline(never)]
fn answer<const K: usize, const W: usize, A: Addresses<K>, T: Tables + FlowMemory<K, W>>(tables: &T) -> Outcome {
    let (Some(settings), Some(mut room)) = (tables.settings(), FlowMemory::<K, W>::room(tables)) else { return NOT_READY };
    match select::answer::<K, W, A, T>(tables, settings, &mut room) {
        Ok(()) => Outcome::UNKNOWN,
        Err(reason) => Outcome::drop(reason, room.service.listener),
    }
}

/// Makes the pair for which [`open`] and [`answer`] claimed slots, and sends its first packet.
#[inline(never)]
fn send<const K: usize, const W: usize, A: Addresses<K>, F: Frame, T: Tables + FlowMemory<K, W>>(
    frame: &mut F,
    tables: &T,
    tags: Tags,
) -> Outcome {
    let Some(room) = FlowMemory::<K, W>::room(tables) else { return TRUNCATED };
    let hop = match tables.hop(room.endpoint) {
        None => A::host(tables, room.to.addrs),
        hop => hop,
    };
    if !T::DRY {
        select::fill::<K, W, A, T>(tables, &room);
        tables.count_flow(room.endpoint);
    }
    let Some(hop) = hop else { return unreachable::<K, A, T>(tables, room.endpoint, &room.to) };
    if T::DRY {
        tell_rewritten(tables, &room.to);
    }
    if A::rewrite(frame, room.packet.place, room.to.protocol, &room.to).is_none() {
        return TRUNCATED;
    }
    depart(frame, tables, Leave { tags, way: Way::by(hop), endpoint: room.endpoint, direction: Direction::Forward })
}

/// No way is known to where a packet goes. For a host behind custom routing the agent is asked to find one.
#[inline(never)]
fn unreachable<const K: usize, A: Addresses<K>, T: Tables>(tables: &T, endpoint: EndpointId, to: &Tuple<K>) -> Outcome {
    let id = owner(tables, endpoint);
    if !T::DRY && tables.listener(id).is_some_and(|listener| listener.flags & Listener::CUSTOM != 0) {
        A::want(tables, to.addrs);
    }
    Outcome::drop(Drop::NoNextHop, id)
}

/// The way back to where a packet came from.
#[inline(always)]
fn origin<F: Frame>(frame: &mut F, tags: Tags) -> Option<Way> {
    let ifindex = frame.ifindex();
    let (ours, theirs) = macs(frame.window::<ETH_LEN>(0)?);
    Some(Way { dst: mac(theirs), src: mac(ours), ifindex, tags: tags.0 })
}

/// The listener a known flow came by.
#[inline(always)]
fn owner<T: Tables>(tables: &T, endpoint: EndpointId) -> ListenerId {
    tables.endpoint(endpoint).map_or(ListenerId::NONE, |endpoint| endpoint.listener)
}

/// How a packet of a flow leaves.
#[derive(Clone, Copy)]
struct Leave {
    /// The tags it came with.
    tags: Tags,
    /// The way it goes.
    way: Way,
    /// Whose counters.
    endpoint: EndpointId,
    /// Which of them.
    direction: Direction,
}

/// The head of the way it goes, the endpoint's counters, and out.
#[inline(always)]
fn depart<F: Frame, T: Tables>(frame: &mut F, tables: &T, leave: Leave) -> Outcome {
    let Leave { tags, way, endpoint, direction } = leave;
    if T::DRY {
        tables.explain(|| Stage::hop(&way));
    }
    let bytes = frame.len() as u64;
    if link::leave(frame, tags, Tags(way.tags), unpack_mac(way.dst), unpack_mac(way.src)).is_none() {
        return TRUNCATED;
    }
    if !T::DRY {
        tables.count(endpoint, direction, bytes);
    }
    Outcome::send(way.ifindex)
}
