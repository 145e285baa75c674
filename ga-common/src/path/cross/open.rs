//! A new flow between two families: both halves of its pair, each in its own table.

use super::Across;
use crate::{
    abi::{
        entry::Service,
        flow::{Flow, Tuple, Way, unpack_mac},
        limits::SYN_TIMEOUT_S,
        reason::Drop,
    },
    path::{
        NOT_READY, TRUNCATED,
        flow::{NO_SLOT, claim, release, taken},
        select::{Addresses as _, claim_reply},
        tables::{Direction, FlowMemory, Scratch, Tables},
        verdict::Outcome,
    },
    wire::frame::TCP,
};

/// Makes both halves of the pair for the packet in the room of its family, whose listener and endpoint are there too; what it becomes
/// is in the other family's room then.
#[inline(always)]
pub(super) fn pair<const K: usize, const W: usize, const P: usize, const Q: usize, A, T>(tables: &T) -> Outcome
where
    A: Across<K, W, P, Q>,
    T: Tables + FlowMemory<K, W> + FlowMemory<P, Q>,
{
    let (Some(mut near), Some(mut far)) = (FlowMemory::<K, W>::room(tables), FlowMemory::<P, Q>::room(tables)) else {
        return TRUNCATED;
    };
    match claimed::<K, W, P, Q, A, T>(tables, &mut near, &mut far) {
        Ok(()) => {
            if !T::DRY {
                tables.count_flow(near.endpoint);
            }
            let Some(hop) = tables.hop(near.endpoint) else {
                return Outcome::drop(Drop::NoNextHop, near.service.listener);
            };
            far.from = Way::by(hop);
            Outcome::becomes_other(A::FAMILY, Direction::Forward)
        }
        Err(outcome) => outcome,
    }
}

#[inline(always)]
fn claimed<const K: usize, const W: usize, const P: usize, const Q: usize, A, T>(
    tables: &T,
    near: &mut Scratch<K>,
    far: &mut Scratch<P>,
) -> Result<(), Outcome>
where
    A: Across<K, W, P, Q>,
    T: Tables + FlowMemory<K, W> + FlowMemory<P, Q>,
{
    let (now, near_hash) = (tables.tick(), near.hash);
    let drop = |reason| Outcome::drop(reason, near.service.listener);
    let settings = tables.settings().ok_or(NOT_READY)?;
    let listener = tables.listener(near.service.listener).ok_or(drop(Drop::NoEndpoint))?;
    // An array map has an entry for every id; one that was never put is all zero.
    let to = tables.endpoint(near.endpoint).filter(|to| to.flags != 0).ok_or(drop(Drop::NoEndpoint))?;
    let service = Service { endpoint_port: to.port_of(near.service), ..near.service };
    let egress = tables.egress(listener.instance).ok_or(drop(Drop::NoEgress))?;
    let forward = claim::<K, W, T>(tables, near_hash, now);
    if forward == NO_SLOT {
        return Err(drop(Drop::FlowTableFull));
    }
    // Only asked about, the flow that this one would take the place of is still there.
    if !T::DRY && taken::<K, W, T>(tables, &near.packet.tuple, near_hash, now, forward) != NO_SLOT {
        release::<K, W, T>(tables, forward);
        return Err(drop(Drop::FlowTableFull));
    }
    let (ports, protocol) = (near.packet.tuple.ports, near.packet.tuple.protocol);
    (far.tuple.ports, far.tuple.protocol) = (ports, protocol);
    let back = match claim_reply::<P, Q, A::Other, T>(tables, settings, &to.addr, egress, service, near_hash, now, far) {
        Ok(back) => back,
        Err(reason) => {
            release::<K, W, T>(tables, forward);
            return Err(drop(reason));
        }
    };
    let ([e0, e1], [.., p0, p1]) = (service.endpoint_port, far.reply.ports);
    far.to = Tuple { addrs: A::Other::turned(far.reply.addrs), ports: [p0, p1, e0, e1], protocol };
    if !T::DRY {
        let timeout_s = if protocol == TCP { SYN_TIMEOUT_S } else { listener.idle_timeout_s };
        fill::<K, W, P, Q, A, T>(tables, near, far, [forward, back], timeout_s);
    }
    Ok(())
}

/// Writes both halves into the slots that are claimed for them, and lets packets find them.
#[inline(always)]
fn fill<const K: usize, const W: usize, const P: usize, const Q: usize, A, T>(
    tables: &T,
    near: &Scratch<K>,
    far: &Scratch<P>,
    [forward, back]: [u32; 2],
    timeout_s: u16,
) where
    A: Across<K, W, P, Q>,
    T: Tables + FlowMemory<K, W> + FlowMemory<P, Q>,
{
    let now = tables.tick();
    let (dst_mac, src_mac) = (unpack_mac(near.from.dst), unpack_mac(near.from.src));
    let (ifindex, tags, endpoint) = (near.from.ifindex, near.from.tags, near.endpoint.0);
    if let Some(slot) = FlowMemory::<K, W>::slot(tables, forward) {
        let (tuple, new_addrs, new_ports, flags) = (near.packet.tuple, A::kept(far.to.addrs), far.to.ports, 0);
        slot.store(&Flow { tuple, flags, endpoint, new_addrs, new_ports, ifindex, dst_mac, src_mac, tags, timeout_s });
    }
    if let Some(slot) = FlowMemory::<P, Q>::slot(tables, back) {
        let [c0, c1, v0, v1] = near.packet.tuple.ports;
        let new_addrs = A::kept_there(A::turned(near.packet.tuple.addrs));
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
}
