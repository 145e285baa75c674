//! The way of one packet. The order of the stages stands here and nowhere else:
//! parse → flow → (listener → select → open) → rewrite → emit.
//!
//! A packet that is not ours costs one look at the addresses; a packet of a known flow one look at flow memory; only a new
//! flow asks for listener, table and endpoint.

pub mod cross;
pub mod explain;
pub mod flow;
pub mod icmp;
pub mod link;
pub mod parse;
pub mod rewrite;
pub mod select;
pub mod tables;
#[cfg(test)]
mod tests;
pub mod verdict;

use self::{
    explain::Stage,
    flow::News,
    parse::{Parsed, Place, flag},
    select::{Addresses, V4, V6},
    tables::{Direction, FlowMemory, Tables},
    verdict::Outcome,
};
use crate::{
    abi::{
        entry::{Address, ServiceKey},
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
        OTHER_PROTOCOL => icmp::packet(frame, tables),
        outcome => outcome,
    };
    if outcome.is_across() { cross::decide(&mut cross::Plain { frame, tables }, outcome) } else { outcome }
}

/// The first half of [`packet`]: what is [`OTHER_PROTOCOL`] here is [`icmp::packet`]'s to decide, and what of either
/// [is across](Outcome::is_across) is [`cross::decide`]'s. The kernel has several programs for its verifier to judge in the place of
/// one.
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

#[inline(always)]
fn known_or_new<const K: usize, const W: usize, A: Addresses<K>, F: Frame, T: Tables + FlowMemory<K, W>>(
    frame: &mut F,
    tables: &T,
    tags: Tags,
) -> Outcome {
    match known::<K, W, A, F, T>(frame, tables, tags) {
        Outcome::UNKNOWN => new::<K, W, A, F, T>(frame, tables, tags),
        outcome => outcome,
    }
}

/// To one of our addresses, but neither TCP nor UDP.
pub const OTHER_PROTOCOL: Outcome = Outcome::pass(Pass::OtherProtocol);
/// A window that was there during parsing is gone: cannot happen, and is dropped under a name if it does.
const TRUNCATED: Outcome = Outcome::drop(Drop::Malformed, ListenerId::NONE);
/// Nobody filled the settings yet.
const NOT_READY: Outcome = Outcome::drop(Drop::NotReady, ListenerId::NONE);

/// A packet of a known flow; [`Outcome::UNKNOWN`] when it belongs to none. This and [`new`] are functions of their own, side by
/// side: the kernel's stack of 512 bytes has no room for both at once.
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
        tables.explain(Stage::parsed(&packet, tags));
        if let Some(address) = tables.address(&A::destination(packet.tuple.addrs)) {
            tables.explain(Stage::roles(&address));
        }
    }
    let now = tables.tick();
    let hash = flow::hash(settings, &packet.tuple);
    let Some(found) = flow::find::<K, W, T>(tables, settings, hash, &packet.tuple, now) else { return Outcome::UNKNOWN };
    let Some(slot) = FlowMemory::<K, W>::slot(tables, found.index) else { return TRUNCATED };
    let (meta, to) = (slot.meta(), slot.translation(packet.tuple.protocol));
    if T::DRY {
        tables.explain(Stage::known(found.index, found.state, meta, slot.clock().0));
    }
    let (flags, is_return) = (meta.flags(), meta.flags() & Flow::<K>::RETURN != 0);
    let is_opening = packet.flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) == flag::SYN;
    if is_opening && flags & (Flow::<K>::CLOSED | Flow::<K>::RETURN) == Flow::<K>::CLOSED {
        tables.explain(Stage::reopened(found.index));
        flow::release_pair::<K, W, T>(tables, found);
        return Outcome::UNKNOWN;
    }
    if packet.ttl <= 1 {
        return Outcome::drop(Drop::TtlExpired, owner(tables, meta.endpoint()));
    }
    if found.state.is_across() {
        keep::<K, W, T>(tables, &packet, hash);
        return Outcome::crosses(A::FAMILY, found.index);
    }
    let Some(from) = origin(frame, tags) else { return TRUNCATED };
    let way = slot.client_way();
    // What was copied counts only if the slot was the same flow's all the while.
    if slot.state() != found.state {
        return Outcome::UNKNOWN;
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
        if flow::is_news::<K>(flags, packet.tuple.protocol, packet.flags) || !is_return && !slot.is_client(&from) {
            let Some(seq) = sequence(frame, packet.place.l4, packet.flags) else { return TRUNCATED };
            flow::tell::<K, W, T>(tables, &found, &News { flags: packet.flags, seq, from });
        }
    }
    if is_return {
        let leave = Leave { tags, way, endpoint: meta.endpoint(), direction: Direction::Return };
        return emit::<K, A, F, T>(frame, tables, packet.place, &to, leave);
    }
    let Some(hop) = tables.hop(meta.endpoint()) else { return Outcome::drop(Drop::NoNextHop, owner(tables, meta.endpoint())) };
    let leave = Leave { tags, way: Way::by(hop), endpoint: meta.endpoint(), direction: Direction::Forward };
    emit::<K, A, F, T>(frame, tables, packet.place, &to, leave)
}

/// Leaves a packet in its room.
#[inline(always)]
fn keep<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(tables: &T, packet: &Parsed<K>, hash: u64) {
    if let Some(mut room) = FlowMemory::<K, W>::room(tables) {
        (room.packet, room.hash) = (*packet, hash);
    }
}

/// The sequence number of a segment, where its flags make it count.
#[inline(always)]
fn sequence<F: Frame>(frame: &mut F, l4: usize, flags: u8) -> Option<u32> {
    if flags & flag::RST == 0 { Some(0) } else { tcp(frame, l4).map(|tcp| u32::from_be_bytes(tcp.seq)) }
}

/// A packet without a flow: opens one if it is for a listener, and is the host's otherwise.
#[inline(never)]
fn new<const K: usize, const W: usize, A: Addresses<K>, F: Frame, T: Tables + FlowMemory<K, W>>(
    frame: &mut F,
    tables: &T,
    tags: Tags,
) -> Outcome {
    let packet = match A::parse(frame, tables, tags.l3()) {
        Ok(packet) => packet,
        Err(outcome) => return outcome,
    };
    let (Some(mut room), Some(from)) = (FlowMemory::<K, W>::room(tables), origin(frame, tags)) else { return TRUNCATED };
    let room = &mut *room;
    (room.tuple, room.from) = (packet.tuple, from);
    let [_, _, p0, p1] = room.tuple.ports;
    room.key = ServiceKey { addr: A::destination(room.tuple.addrs), port: [p0, p1], protocol: room.tuple.protocol, pad: 0 };
    let Some(service) = tables.service(&room.key) else {
        return Outcome::pass(match tables.address(&room.key.addr) {
            Some(address) if address.roles & Address::VIP != 0 => Pass::NoListener,
            Some(_) => Pass::NoReturnFlow,
            None => Pass::NotOurs,
        });
    };
    tables.explain(Stage::service(service));
    let id = service.listener;
    let Some(listener) = tables.listener(id) else { return Outcome::pass(Pass::NoListener) };
    // From ourselves, a flow would be answered to ourselves: two packets of such a kind go round for ever.
    room.key.addr = A::source(room.tuple.addrs);
    let is_ours = parse::is_maybe_ours(tables, &room.key.addr) && tables.address(&room.key.addr).is_some();
    if is_ours || !A::is_host(room.tuple.addrs) {
        return Outcome::pass(Pass::Martian);
    }
    if room.tuple.protocol == TCP && packet.flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) != flag::SYN {
        return Outcome::drop(Drop::NoFlow, id);
    }
    if packet.ttl <= 1 {
        return Outcome::drop(Drop::TtlExpired, id);
    }
    let Some(settings) = tables.settings() else { return NOT_READY };
    if !select::admits(tables, settings, id, listener) {
        return Outcome::drop(Drop::Admission, id);
    }
    let hash = flow::hash(settings, &room.tuple);
    let endpoint = match select::endpoint::<K, A, T>(tables, settings, id, listener, hash, &room.tuple) {
        Ok(endpoint) => endpoint,
        Err(reason) => return Outcome::drop(reason, id),
    };
    if tables.endpoint(endpoint).is_some_and(|to| select::family(&to.addr) != A::FAMILY) {
        (room.packet, room.service, room.hash, room.endpoint) = (packet, service, hash, endpoint);
        return Outcome::opens_across(A::FAMILY);
    }
    if let Err(reason) = select::open::<K, W, A, T>(tables, settings, service, endpoint, hash, room) {
        return Outcome::drop(reason, id);
    }
    if !T::DRY {
        tables.count_flow(endpoint);
    }
    let Some(hop) = tables.hop(endpoint) else { return Outcome::drop(Drop::NoNextHop, id) };
    let leave = Leave { tags, way: Way::by(hop), endpoint, direction: Direction::Forward };
    emit::<K, A, F, T>(frame, tables, packet.place, &room.to, leave)
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

/// New addresses on all layers, the endpoint's counters, and out.
#[inline(always)]
fn emit<const K: usize, A: Addresses<K>, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    place: Place,
    to: &Tuple<K>,
    leave: Leave,
) -> Outcome {
    if T::DRY {
        tables.explain(Stage::rewritten(to));
    }
    if A::rewrite(frame, place, to).is_none() {
        return TRUNCATED;
    }
    depart(frame, tables, leave)
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
        tables.explain(Stage::hop(&way));
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
