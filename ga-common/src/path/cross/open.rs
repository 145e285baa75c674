//! A new flow between two families: both halves of its pair, each in its own table.

use super::{Across, send};
use crate::{
    abi::{
        entry::{Service, ServiceKey},
        flow::{Flow, Tuple, Way, unpack_mac},
        id::EndpointId,
        limits::SYN_TIMEOUT_S,
        reason::{Drop, Pass},
    },
    path::{
        Leave, NOT_READY, TRUNCATED,
        flow::{NO_SLOT, claim, hash, release, taken},
        origin,
        parse::Parsed,
        select::{Addresses as _, claim_reply},
        tables::{Direction, FlowMemory, Scratch, Tables},
        verdict::Outcome,
    },
    wire::{
        frame::{Frame, TCP},
        vlan::Tags,
    },
};

/// The usual path has found the listener, admitted the flow and chosen `endpoint`.
#[inline(always)]
pub(super) fn packet<const K: usize, const W: usize, const P: usize, const Q: usize, A, F, T>(
    frame: &mut F,
    tables: &T,
    tags: Tags,
    endpoint: EndpointId,
) -> Outcome
where
    A: Across<K, W, P, Q>,
    F: Frame,
    T: Tables + FlowMemory<K, W> + FlowMemory<P, Q>,
{
    let Parsed { tuple, place, .. } = match A::parse(frame, tables, tags.l3()) {
        Ok(packet) => packet,
        Err(outcome) => return outcome,
    };
    let (Some(mut near), Some(mut far)) = (FlowMemory::<K, W>::room(tables), FlowMemory::<P, Q>::room(tables)) else {
        return TRUNCATED;
    };
    let (near, far) = (&mut *near, &mut *far);
    let Some(from) = origin(frame, tags) else { return TRUNCATED };
    (near.tuple, near.from) = (tuple, from);
    if let Err(outcome) = pair::<K, W, P, Q, A, T>(tables, endpoint, near, far) {
        return outcome;
    }
    if !T::DRY {
        tables.count_flow(endpoint);
    }
    let Some(hop) = tables.hop(endpoint) else { return Outcome::drop(Drop::NoNextHop, super::owner(tables, endpoint)) };
    let leave = Leave { tags, way: Way::by(hop), endpoint, direction: Direction::Forward };
    send::<K, W, P, Q, A, F, T>(frame, tables, place, &far.to, &leave)
}

/// Makes both halves of the pair for the packet in `near`; `far` holds what is of the endpoint's family.
#[inline(always)]
fn pair<const K: usize, const W: usize, const P: usize, const Q: usize, A, T>(
    tables: &T,
    endpoint: EndpointId,
    near: &mut Scratch<K>,
    far: &mut Scratch<P>,
) -> Result<(), Outcome>
where
    A: Across<K, W, P, Q>,
    T: Tables + FlowMemory<K, W> + FlowMemory<P, Q>,
{
    let now = tables.tick();
    let [c0, c1, v0, v1] = near.tuple.ports;
    near.key = ServiceKey { addr: A::destination(near.tuple.addrs), port: [v0, v1], protocol: near.tuple.protocol, pad: 0 };
    let service = tables.service(&near.key).ok_or(Outcome::pass(Pass::NoListener))?;
    let drop = |reason| Outcome::drop(reason, service.listener);
    let settings = tables.settings().ok_or(NOT_READY)?;
    let listener = tables.listener(service.listener).ok_or(Outcome::pass(Pass::NoListener))?;
    // An array map has an entry for every id; one that was never put is all zero.
    let to = tables.endpoint(endpoint).filter(|to| to.flags != 0).ok_or(drop(Drop::NoEndpoint))?;
    let service = Service { endpoint_port: to.port_of(service), ..service };
    let egress = tables.egress(listener.instance).ok_or(drop(Drop::NoEgress))?;
    let near_hash = hash(settings, &near.tuple);
    let forward = claim::<K, W, T>(tables, near_hash, now);
    if forward == NO_SLOT {
        return Err(drop(Drop::FlowTableFull));
    }
    // Only asked about, the flow that this one would take the place of is still there.
    if !T::DRY && taken::<K, W, T>(tables, &near.tuple, near_hash, now, forward) != NO_SLOT {
        release::<K, W, T>(tables, forward);
        return Err(drop(Drop::FlowTableFull));
    }
    (far.tuple.ports, far.tuple.protocol) = (near.tuple.ports, near.tuple.protocol);
    let back = match claim_reply::<P, Q, A::Other, T>(tables, settings, &to.addr, egress, service, near_hash, now, far) {
        Ok(back) => back,
        Err(reason) => {
            release::<K, W, T>(tables, forward);
            return Err(drop(reason));
        }
    };
    let ([e0, e1], [.., p0, p1]) = (service.endpoint_port, far.reply.ports);
    let protocol = near.tuple.protocol;
    far.to = Tuple { addrs: A::Other::turned(far.reply.addrs), ports: [p0, p1, e0, e1], protocol };
    if T::DRY {
        return Ok(());
    }
    let timeout_s = if protocol == TCP { SYN_TIMEOUT_S } else { listener.idle_timeout_s };
    let (dst_mac, src_mac) = (unpack_mac(near.from.dst), unpack_mac(near.from.src));
    let (ifindex, tags, endpoint) = (near.from.ifindex, near.from.tags, endpoint.0);
    if let Some(slot) = FlowMemory::<K, W>::slot(tables, forward) {
        let new_addrs = A::kept(far.to.addrs);
        let (tuple, new_ports, flags) = (near.tuple, far.to.ports, 0);
        slot.store(&Flow { tuple, flags, endpoint, new_addrs, new_ports, ifindex, dst_mac, src_mac, tags, timeout_s });
    }
    if let Some(slot) = FlowMemory::<P, Q>::slot(tables, back) {
        let new_addrs = A::kept_there(A::turned(near.tuple.addrs));
        let (tuple, new_ports, flags) = (far.reply, [v0, v1, c0, c1], Flow::<P>::RETURN);
        slot.store(&Flow { tuple, flags, endpoint, new_addrs, new_ports, ifindex, dst_mac, src_mac, tags, timeout_s });
        // The return half first: the first answer may come before this CPU writes the other one.
        slot.set_clock(now, 0);
        slot.set_state(slot.state().live_across(forward));
    }
    if let Some(slot) = FlowMemory::<K, W>::slot(tables, forward) {
        slot.set_clock(now, 0);
        slot.set_state(slot.state().live_across(back));
    }
    Ok(())
}
