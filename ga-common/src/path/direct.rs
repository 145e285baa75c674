//! Listeners whose endpoints answer clients themselves: the packet keeps its addresses, ports and TTL, and goes to the endpoint's
//! MAC address, or in an outer IP packet to the endpoint's address. Nothing comes back this way, so nothing is remembered, but for
//! what [`track`] remembers for a while after a table was replaced.
//!
//! Access lists are asked about packets that open a TCP connection and about every UDP packet, as nobody knows which one is the
//! first of its flow; where established flows are to be ended, about every packet.
//!
//! The TTL stays as it is: the endpoint has the VIP, so that it does not forward what it gets. One that lacks the VIP sends the
//! packet back to us with a smaller TTL, until that is used up.

use super::{
    NOT_READY, TRUNCATED,
    encap::{self, Outer},
    explain::Stage,
    flow::News,
    link,
    parse::{self, Parsed, flag},
    select::{self, Addresses, V4, V6},
    tables::{Direction, FlowMemory, Tables},
    too_big, track,
    verdict::Outcome,
};
use crate::{
    abi::{
        active::Before,
        entry::{Listener, ServiceKey},
        family::Family,
        filter,
        flow::{Tuple, Way},
        id::{EndpointId, ListenerId},
        reason::{Drop, Pass},
    },
    wire::{
        frame::{Frame, TCP, tcp},
        vlan::Tags,
    },
};

/// Whether a packet may be for a listener whose endpoints answer clients themselves: then [`ask`] knows.
#[inline(always)]
pub(super) fn is_maybe<const K: usize, A: Addresses<K>, T: Tables>(tables: &T, tuple: &Tuple<K>) -> bool {
    let [_, _, p0, p1] = tuple.ports;
    let (word, bit) = filter::direct_place_of(A::destination_words(&tuple.addrs), [p0, p1], tuple.protocol);
    tables.direct(word) & bit != 0
}

/// Whether the packet in its room is for such a listener: then [`packet`] decides; [`Outcome::UNKNOWN`] if it is not.
#[inline(never)]
pub(super) fn ask<const K: usize, const W: usize, A: Addresses<K>, T: Tables + FlowMemory<K, W>>(
    tables: &T,
    tags: Tags,
) -> Outcome {
    let Some(mut room) = FlowMemory::<K, W>::room(tables) else { return TRUNCATED };
    let room = &mut *room;
    let [_, _, p0, p1] = room.packet.tuple.ports;
    let (addrs, protocol) = (room.packet.tuple.addrs, room.packet.tuple.protocol);
    room.key = ServiceKey { addr: A::destination(addrs), port: [p0, p1], protocol, pad: 0 };
    look::<K, A, T>(tables, &room.key, tags)
}

/// The same for a packet to `key`.
#[inline(always)]
pub(super) fn look<const K: usize, A: Addresses<K>, T: Tables>(tables: &T, key: &ServiceKey, tags: Tags) -> Outcome {
    let Some(service) = tables.service(key) else { return Outcome::UNKNOWN };
    if !service.is_direct() {
        return Outcome::UNKNOWN;
    }
    tables.explain(|| Stage::service(service));
    Outcome::direct(service.listener, A::FAMILY, tags)
}

/// Decides about a packet that [`Outcome::is_direct`] was said of.
#[inline(always)]
pub fn packet<F: Frame, T: Tables>(frame: &mut F, tables: &T, asked: Outcome) -> Outcome {
    match asked.asked().0 {
        Family::V4 => serve::<1, 6, V4, F, T>(frame, tables, asked),
        Family::V6 => serve::<4, 14, V6, F, T>(frame, tables, asked),
    }
}

#[inline(always)]
fn serve<const K: usize, const W: usize, A: Addresses<K>, F: Frame, T: Tables + FlowMemory<K, W>>(
    frame: &mut F,
    tables: &T,
    asked: Outcome,
) -> Outcome {
    let outcome = choose::<K, W, A, T>(tables, asked);
    let outcome = if outcome.is_direct() { follow::<K, W, F, T>(frame, tables) } else { outcome };
    if outcome != Outcome::UNKNOWN {
        return outcome;
    }
    send::<K, W, A, F, T>(frame, tables, asked.asked().1)
}

/// Chooses an endpoint for the packet in its room, and leaves it there; [`Outcome::UNKNOWN`] when that is done, and what was `asked`
/// when it depends on how old its flow is: then [`follow`] chooses.
#[inline(never)]
fn choose<const K: usize, const W: usize, A: Addresses<K>, T: Tables + FlowMemory<K, W>>(tables: &T, asked: Outcome) -> Outcome {
    let id = asked.listener();
    let Some(mut room) = FlowMemory::<K, W>::room(tables) else { return TRUNCATED };
    let room = &mut *room;
    // From ourselves, an answer would come to ourselves.
    room.key.addr = A::source(room.packet.tuple.addrs);
    let is_ours = parse::is_maybe_ours(tables, &room.key.addr) && tables.address(&room.key.addr).is_some();
    if is_ours || !A::is_host(room.packet.tuple.addrs) {
        return Outcome::pass(Pass::Martian);
    }
    let (Some(settings), Some(listener)) = (tables.settings(), tables.listener(id)) else { return NOT_READY };
    // It is about to become one whose flows are remembered, or was one a moment ago.
    if listener.flags & (Listener::L2 | Listener::IPIP) == 0 {
        return Outcome::drop(Drop::NotReady, id);
    }
    let is_opening = opens(&room.packet);
    if listener.acl != 0
        && (is_opening || room.packet.tuple.protocol != TCP || listener.flags & Listener::STRICT != 0)
        && tables.denies(listener.acl, &room.key.addr)
    {
        tables.explain(|| Stage::denied(id));
        return Outcome::drop(Drop::Acl, id);
    }
    // Nothing is remembered that a flood could use up: only a bound that somebody set counts.
    if is_opening && listener.admission != 0 && !select::admits(tables, settings, id, listener) {
        return Outcome::drop(Drop::Admission, id);
    }
    room.service.listener = id;
    let active = tables.active(id, A::FAMILY);
    if active.before() != Before::Same {
        return asked;
    }
    match select::named(tables, settings, room, listener.flags, active.table()) {
        Ok(endpoint) => {
            room.endpoint = endpoint;
            Outcome::UNKNOWN
        }
        Err(_) => nobody(&room.packet, id),
    }
}

/// [`choose`] for a listener whose flows may have begun with another table.
#[inline(never)]
fn follow<const K: usize, const W: usize, F: Frame, T: Tables + FlowMemory<K, W>>(frame: &mut F, tables: &T) -> Outcome {
    {
        let Some(mut room) = FlowMemory::<K, W>::room(tables) else { return TRUNCATED };
        if room.packet.tuple.protocol == TCP && room.packet.place.l4 != 0 {
            let Some(tcp) = tcp(frame, room.packet.place.l4) else { return TRUNCATED };
            room.news = News { flags: room.packet.flags, seq: u32::from_be_bytes(tcp.seq) };
        }
        track::find::<K, W, T>(tables, &mut room);
    }
    let tracked = FlowMemory::<K, W>::tracked(tables);
    {
        let Some(mut room) = FlowMemory::<K, W>::room(tables) else { return TRUNCATED };
        room.endpoint = tracked.endpoint();
        if room.endpoint == EndpointId::NONE {
            return nobody(&room.packet, room.service.listener);
        }
    }
    if !T::DRY && tracked.is_news() {
        FlowMemory::<K, W>::remember(tables);
    }
    Outcome::UNKNOWN
}

/// Nobody is there for a packet: a SYN is refused, what belongs to a connection is not.
#[inline(always)]
fn nobody<const K: usize>(packet: &Parsed<K>, id: ListenerId) -> Outcome {
    let is_part = packet.tuple.protocol == TCP && !opens(packet);
    Outcome::drop(if is_part { Drop::NoFlow } else { Drop::NoEndpoint }, id)
}

/// Whether it opens a TCP connection.
#[inline(always)]
pub(super) fn opens<const K: usize>(packet: &Parsed<K>) -> bool {
    packet.tuple.protocol == TCP && packet.flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) == flag::SYN
}

/// Sends the packet in its room to the endpoint that [`choose`] left there.
#[inline(never)]
fn send<const K: usize, const W: usize, A: Addresses<K>, F: Frame, T: Tables + FlowMemory<K, W>>(
    frame: &mut F,
    tables: &T,
    tags: Tags,
) -> Outcome {
    let Some(room) = FlowMemory::<K, W>::room(tables) else { return TRUNCATED };
    let (id, endpoint) = (room.service.listener, room.endpoint);
    let Some(listener) = tables.listener(id) else { return NOT_READY };
    let Some(hop) = tables.hop(endpoint) else { return Outcome::drop(Drop::NoNextHop, id) };
    let way = Way::by(hop);
    if T::DRY {
        tables.explain(|| Stage::hop(&way));
    }
    let bytes = frame.len() as u64;
    let (dst_mac, src_mac) = (hop.dst_mac, hop.src_mac);
    if listener.flags & Listener::IPIP == 0 {
        if link::leave(frame, tags, Tags(way.tags), dst_mac, src_mac).is_none() {
            return TRUNCATED;
        }
    } else {
        let Some(to) = tables.endpoint(endpoint).filter(|to| to.flags != 0) else { return nobody(&room.packet, id) };
        let Some(egress) = tables.egress(listener.instance) else { return Outcome::drop(Drop::NoEgress, id) };
        let mtu = tables.mtu(way.ifindex, way.tags);
        let outer = Outer { to: &to.addr, egress, flow: room.hash, tick: tables.tick(), mtu };
        match encap::wrap::<K, F, T>(frame, tables, tags, Tags(way.tags), &outer) {
            Ok(()) => {}
            Err(Drop::TooBig) => {
                let header = if parse::is_mapped(&to.addr) { encap::V4_LEN } else { encap::V6_LEN };
                return too_big::dropped(tables, id, mtu.saturating_sub(header as u32), A::FAMILY);
            }
            Err(reason) => return Outcome::drop(reason, id),
        }
        if link::leave(frame, Tags::NONE, Tags::NONE, dst_mac, src_mac).is_none() {
            return TRUNCATED;
        }
    }
    if !T::DRY {
        tables.count(endpoint, Direction::Forward, bytes);
        if opens(&room.packet) {
            tables.count_flow(endpoint);
        }
    }
    Outcome::send(way.ifindex)
}
