//! A new flow between two families: the half that the usual path has claimed a slot for, and its peer in the other family's table.

use super::Across;
use crate::{
    abi::{
        flow::{Flow, Way, unpack_mac},
        reason::Drop,
    },
    path::{
        TRUNCATED,
        flow::{NO_SLOT, release},
        tables::{Direction, FlowMemory, Scratch, Tables},
        verdict::Outcome,
    },
};

/// Puts what the other family needs to know of the packet in the room of its own family into the other one's.
#[inline(always)]
pub(super) fn lend<const K: usize, const W: usize, const P: usize, const Q: usize, T>(tables: &T) -> Outcome
where
    T: Tables + FlowMemory<K, W> + FlowMemory<P, Q>,
{
    let (Some(near), Some(mut far)) = (FlowMemory::<K, W>::room(tables), FlowMemory::<P, Q>::room(tables)) else {
        return TRUNCATED;
    };
    (far.packet.tuple.ports, far.packet.tuple.protocol) = (near.packet.tuple.ports, near.packet.tuple.protocol);
    (far.service, far.hash, far.endpoint, far.instance) = (near.service, near.hash, near.endpoint, near.instance);
    far.target = near.target;
    // The slot that is claimed is none of the other family's.
    far.forward = NO_SLOT;
    Outcome::UNKNOWN
}

/// Makes the pair for the packet in the room of its family, if it was `answered`: what it becomes is in the other family's room.
#[inline(always)]
pub(super) fn pair<const K: usize, const W: usize, const P: usize, const Q: usize, A, T>(tables: &T, answered: Outcome) -> Outcome
where
    A: Across<K, W, P, Q>,
    T: Tables + FlowMemory<K, W> + FlowMemory<P, Q>,
{
    let (Some(near), Some(mut far)) = (FlowMemory::<K, W>::room(tables), FlowMemory::<P, Q>::room(tables)) else {
        return TRUNCATED;
    };
    let (near, far) = (&*near, &mut *far);
    if answered != Outcome::UNKNOWN {
        release::<K, W, T>(tables, near.forward);
        return answered;
    }
    if !T::DRY {
        fill::<K, W, P, Q, A, T>(tables, near, far);
        tables.count_flow(near.endpoint);
    }
    let Some(hop) = tables.hop(near.endpoint) else { return Outcome::drop(Drop::NoNextHop, near.service.listener) };
    far.from = Way::by(hop);
    Outcome::becomes_other(A::FAMILY, Direction::Forward)
}

/// Writes both halves into the slots that are claimed for them, and lets packets find them.
#[inline(always)]
fn fill<const K: usize, const W: usize, const P: usize, const Q: usize, A, T>(tables: &T, near: &Scratch<K>, far: &Scratch<P>)
where
    A: Across<K, W, P, Q>,
    T: Tables + FlowMemory<K, W> + FlowMemory<P, Q>,
{
    let (now, timeout_s) = (tables.tick(), near.timeout_s);
    let (dst_mac, src_mac) = (unpack_mac(near.from.dst), unpack_mac(near.from.src));
    let (ifindex, tags, endpoint) = (near.from.ifindex, near.from.tags, near.endpoint.0);
    if let Some(slot) = FlowMemory::<K, W>::slot(tables, near.forward) {
        // Nobody else was found: the client is told of what comes next.
        let flags = if near.endpoint == near.avoid { Flow::<K>::AGAIN } else { 0 };
        let (tuple, new_addrs, new_ports) = (near.packet.tuple, A::kept(far.to.addrs), far.to.ports);
        slot.store(&Flow { tuple, flags, endpoint, new_addrs, new_ports, ifindex, dst_mac, src_mac, tags, timeout_s });
    }
    if let Some(slot) = FlowMemory::<P, Q>::slot(tables, far.back) {
        let [c0, c1, v0, v1] = near.packet.tuple.ports;
        let new_addrs = A::kept_there(A::turned(near.packet.tuple.addrs));
        let (tuple, new_ports, flags) = (far.reply, [v0, v1, c0, c1], Flow::<P>::RETURN);
        slot.store(&Flow { tuple, flags, endpoint, new_addrs, new_ports, ifindex, dst_mac, src_mac, tags, timeout_s });
        // The return half first: the first answer may come before this CPU writes the other one.
        slot.set_clock(now, 0);
        slot.set_state(slot.state().live_across(near.forward));
    }
    if let Some(slot) = FlowMemory::<K, W>::slot(tables, near.forward) {
        slot.set_clock(now, 0);
        slot.set_state(slot.state().live_across(far.back));
    }
}
