//! Flows between two families: an IPv4 client with an IPv6 endpoint, and the reverse. Each half lives in the table of the packets
//! that it is for, and names its peer in the other one.
//!
//! An IPv6 slot has room for what its packets become; an IPv4 slot has not, and looks at its peer, whose tuple is the same the other
//! way round. Whoever writes one half's clock writes the other's too: each half by itself tells whether the pair lives.

mod header;
pub mod icmp;
mod open;

use self::header::{to4, to6};
use super::{
    Leave, TRUNCATED,
    explain::Stage,
    flow::{self, News},
    link, origin, owner,
    parse::{Place, flag},
    select::{Addresses, V4, V6},
    sequence,
    tables::{Direction, FlowMemory, Tables},
    verdict::Outcome,
};
use crate::{
    abi::{
        family::Family,
        flow::{Flow, FlowSlot, Tuple, Way},
        reason::Drop,
    },
    wire::{
        frame::{ETHERTYPE_IPV4, Frame},
        vlan::Tags,
    },
};

/// What differs between a packet that becomes IPv6 and one that becomes IPv4: `K` and `W` are of the family it comes in, `P` and `Q`
/// of the one it leaves in.
pub trait Across<const K: usize, const W: usize, const P: usize, const Q: usize>: Addresses<K> {
    /// The family it leaves in.
    type Other: Addresses<P>;
    /// What a slot of this family keeps of the other's addresses that its packets get.
    fn kept(addrs: [u64; P]) -> [u64; K];
    /// What a slot of the other family keeps of this one's addresses that its packets get.
    fn kept_there(addrs: [u64; K]) -> [u64; P];
    /// The addresses that a packet of the half in `slot` becomes; `peer` is the other half.
    fn becomes(slot: &FlowSlot<K, W>, peer: &FlowSlot<P, Q>) -> [u64; P];
    /// Makes a packet of this family one of the other, with a head for the way it goes; none when the frame is shorter than it was
    /// a moment ago or there is no room in front of it.
    fn translate<F: Frame>(frame: &mut F, place: Place, to: &Tuple<P>, tags: Tags, way: &Way) -> Option<()>;
}

impl Across<1, 6, 4, 14> for V4 {
    type Other = V6;

    #[inline(always)]
    fn kept(_: [u64; 4]) -> [u64; 1] {
        [0]
    }

    #[inline(always)]
    fn kept_there([addrs]: [u64; 1]) -> [u64; 4] {
        [addrs, 0, 0, 0]
    }

    #[inline(always)]
    fn becomes(_: &FlowSlot<1, 6>, peer: &FlowSlot<4, 14>) -> [u64; 4] {
        V6::turned(peer.addrs())
    }

    #[inline(always)]
    fn translate<F: Frame>(frame: &mut F, place: Place, to: &Tuple<4>, tags: Tags, way: &Way) -> Option<()> {
        to6(frame, place, to, tags, way)
    }
}

impl Across<4, 14, 1, 6> for V6 {
    type Other = V4;

    #[inline(always)]
    fn kept([addrs]: [u64; 1]) -> [u64; 4] {
        [addrs, 0, 0, 0]
    }

    #[inline(always)]
    fn kept_there(_: [u64; 4]) -> [u64; 1] {
        [0]
    }

    #[inline(always)]
    fn becomes(slot: &FlowSlot<4, 14>, _: &FlowSlot<1, 6>) -> [u64; 1] {
        let [addrs, ..] = slot.translation(0).addrs;
        [addrs]
    }

    #[inline(always)]
    fn translate<F: Frame>(frame: &mut F, place: Place, to: &Tuple<1>, tags: Tags, way: &Way) -> Option<()> {
        to4(frame, place, to, tags, way)
    }
}

/// Decides what another stage left undecided because two families are concerned, and translates the packet when it is to be sent.
#[inline(always)]
pub fn packet<F: Frame, T: Tables>(frame: &mut F, tables: &T, asked: Outcome) -> Outcome {
    let Some(link) = link::read(frame) else { return TRUNCATED };
    let family = if link.ether_type == ETHERTYPE_IPV4 { Family::V4 } else { Family::V6 };
    if asked == Outcome::OPENS_ACROSS {
        let outcome = tables.open_across(family);
        if outcome != Outcome::UNKNOWN {
            return outcome;
        }
    }
    match (asked, family) {
        (Outcome::OPENS_ACROSS, Family::V4) => open::first::<1, 6, 4, 14, V4, F, T>(frame, tables, link.tags),
        (Outcome::OPENS_ACROSS, Family::V6) => open::first::<4, 14, 1, 6, V6, F, T>(frame, tables, link.tags),
        (Outcome::ERROR_ACROSS, Family::V4) => error4(frame, tables, link.tags),
        (Outcome::ERROR_ACROSS, Family::V6) => error6(frame, tables, link.tags),
        (_, Family::V4) => known::<1, 6, 4, 14, V4, F, T>(frame, tables, link.tags, asked.number()),
        (_, Family::V6) => known::<4, 14, 1, 6, V6, F, T>(frame, tables, link.tags, asked.number()),
    }
}

/// Makes the pair for a packet of `family` whose endpoint is of the other one; undecided when the packet may go. What is asked for
/// and what comes out of it is in the [rooms](FlowMemory::room) of both families.
#[inline(always)]
pub fn open<T: Tables>(tables: &T, family: Family) -> Outcome {
    match family {
        Family::V4 => open::pair::<1, 6, 4, 14, V4, T>(tables),
        Family::V6 => open::pair::<4, 14, 1, 6, V6, T>(tables),
    }
}

/// An ICMP error about packets of a flow that were IPv4 when they were sent.
#[inline(always)]
pub fn error4<F: Frame, T: Tables>(frame: &mut F, tables: &T, tags: Tags) -> Outcome {
    match icmp::packet::<1, 6, 4, 14, V4, F, T>(frame, tables, tags) {
        Ok(outcome) | Err(outcome) => outcome,
    }
}

/// An ICMPv6 error about packets of a flow that were IPv6 when they were sent.
#[inline(always)]
pub fn error6<F: Frame, T: Tables>(frame: &mut F, tables: &T, tags: Tags) -> Outcome {
    match icmp::packet::<4, 14, 1, 6, V6, F, T>(frame, tables, tags) {
        Ok(outcome) | Err(outcome) => outcome,
    }
}

/// The usual path has found the flow, judged TTL and reopening, and left the packet in its room.
#[inline(always)]
fn known<const K: usize, const W: usize, const P: usize, const Q: usize, A, F, T>(
    frame: &mut F,
    tables: &T,
    tags: Tags,
    index: u32,
) -> Outcome
where
    A: Across<K, W, P, Q>,
    F: Frame,
    T: Tables + FlowMemory<K, W> + FlowMemory<P, Q>,
{
    let (Some(near), Some(slot)) = (FlowMemory::<K, W>::room(tables), FlowMemory::<K, W>::slot(tables, index)) else {
        return TRUNCATED;
    };
    let Some(from) = origin(frame, tags) else { return TRUNCATED };
    let packet = &near.packet;
    let (state, meta) = (slot.state(), slot.meta());
    let gone = Outcome::drop(Drop::NoFlow, owner(tables, meta.endpoint()));
    // Between two looks a flow may end; its client's next try opens another one.
    if !state.is_live() || !state.is_across() || !slot.is_for(&packet.tuple) {
        return gone;
    }
    // Half a pair leads nowhere.
    let Some((peer, peer_state)) = flow::peer_across::<P, Q, T>(tables, index, state.peer_across()) else { return gone };
    let is_return = meta.flags() & Flow::<K>::RETURN != 0;
    let protocol = packet.tuple.protocol;
    let to = Tuple { addrs: A::becomes(slot, peer), ports: slot.translation(protocol).ports, protocol };
    let way = slot.client_way();
    // What was copied counts only if both slots were the same flow's all the while.
    if slot.state() != state || peer.state() != peer_state {
        return gone;
    }
    if !T::DRY {
        let now = tables.tick();
        let ((seen, acked), (_, peer_acked)) = (slot.clock(), peer.clock());
        // A handshake is kept alive by whatever belongs to it.
        let speaks = packet.speaks || meta.flags() & (Flow::<K>::ESTABLISHED | Flow::<K>::CLOSED) == 0;
        let ack = if packet.flags & flag::ACK != 0 { packet.ack } else { acked };
        let seen_now = if speaks { now } else { seen };
        if (seen, acked) != (seen_now, ack) {
            slot.set_clock(seen_now, ack);
        }
        if seen != seen_now {
            peer.set_clock(seen_now, peer_acked);
        }
        if flow::is_news::<K>(meta.flags(), protocol, packet.flags) || !is_return && !slot.is_client(&from) {
            let Some(seq) = sequence(frame, packet.place.l4, packet.flags) else { return TRUNCATED };
            let news = News { flags: packet.flags, seq, from };
            flow::tell_both(tables, slot, state, || Some((peer, peer_state)), &news);
        }
    }
    if is_return {
        let leave = Leave { tags, way, endpoint: meta.endpoint(), direction: Direction::Return };
        return send::<K, W, P, Q, A, F, T>(frame, tables, packet.place, &to, &leave);
    }
    let Some(hop) = tables.hop(meta.endpoint()) else { return Outcome::drop(Drop::NoNextHop, owner(tables, meta.endpoint())) };
    let leave = Leave { tags, way: Way::by(hop), endpoint: meta.endpoint(), direction: Direction::Forward };
    send::<K, W, P, Q, A, F, T>(frame, tables, packet.place, &to, &leave)
}

/// New headers, the endpoint's counters, and out.
#[inline(always)]
fn send<const K: usize, const W: usize, const P: usize, const Q: usize, A, F, T>(
    frame: &mut F,
    tables: &T,
    place: Place,
    to: &Tuple<P>,
    leave: &Leave,
) -> Outcome
where
    A: Across<K, W, P, Q>,
    F: Frame,
    T: Tables,
{
    if T::DRY {
        tables.explain(Stage::rewritten(to));
        tables.explain(Stage::hop(&leave.way));
    }
    let bytes = frame.len() as u64;
    if A::translate(frame, place, to, leave.tags, &leave.way).is_none() {
        return TRUNCATED;
    }
    if !T::DRY {
        tables.count(leave.endpoint, leave.direction, bytes);
    }
    Outcome::send(leave.way.ifindex)
}
