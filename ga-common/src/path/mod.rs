//! The way of one packet. The order of the stages stands here and nowhere else:
//! parse → flow → (listener → select → open) → rewrite → emit.
//!
//! A packet that is not ours costs one look at the addresses; a packet of a known flow one look at flow memory; only a new
//! flow asks for listener, table and endpoint.

pub mod explain;
pub mod flow;
pub mod parse;
pub mod rewrite;
pub mod select;
pub mod tables;
#[cfg(test)]
mod tests;
pub mod verdict;

use self::{
    parse::{Parsed, flag},
    select::{Addresses, Origin, V4, V6},
    tables::{Direction, FlowMemory, Tables},
    verdict::{Outcome, Verdict},
};
use crate::{
    abi::{
        entry::{Address, Hop, ServiceKey},
        flow::Flow,
        id::{EndpointId, ListenerId},
        reason::{Drop, Pass},
    },
    wire::frame::{ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, TCP, ether_type, is_to_group, macs, set_macs},
};

/// Decides about one packet, and rewrites it when it is to be sent.
#[inline(always)]
pub fn packet<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Outcome {
    let Some(eth) = frame.window::<ETH_LEN>(0) else { return Outcome::pass(Pass::NotIp) };
    match (ether_type(eth), is_to_group(eth)) {
        (ETHERTYPE_IPV4, false) => known_or_new::<1, 6, V4, F, T>(frame, tables),
        (ETHERTYPE_IPV6, false) => known_or_new::<4, 14, V6, F, T>(frame, tables),
        (ETHERTYPE_IPV4 | ETHERTYPE_IPV6, true) => Outcome::pass(Pass::NotOurs),
        _ => Outcome::pass(Pass::NotIp),
    }
}

#[inline(always)]
fn known_or_new<const K: usize, const W: usize, A: Addresses<K>, F: Frame, T: Tables + FlowMemory<K, W>>(
    frame: &mut F,
    tables: &T,
) -> Outcome {
    match known::<K, W, A, F, T>(frame, tables) {
        Ok(Some(outcome)) | Err(outcome) => outcome,
        Ok(None) => match new::<K, W, A, F, T>(frame, tables) {
            Ok(outcome) | Err(outcome) => outcome,
        },
    }
}

/// A window that was there during parsing is gone: cannot happen, and is dropped under a name if it does.
const TRUNCATED: Outcome = Outcome::drop(Drop::Malformed, ListenerId::NONE);

/// A packet of a known flow; none when it belongs to no flow. This and [`new`] are functions of their own, side by side: the
/// kernel's stack of 512 bytes has no room for both at once.
#[inline(never)]
fn known<const K: usize, const W: usize, A: Addresses<K>, F: Frame, T: Tables + FlowMemory<K, W>>(
    frame: &mut F,
    tables: &T,
) -> Result<Option<Outcome>, Outcome> {
    let packet = A::parse(frame, tables)?;
    let Some(settings) = tables.settings() else { return Err(Outcome::drop(Drop::NotReady, ListenerId::NONE)) };
    let hash = flow::hash(settings, &packet.tuple);
    let now = tables.tick();
    let Some(found) = flow::find::<K, W, T>(tables, settings, hash, &packet.tuple, now) else { return Ok(None) };
    let reopened = found.flow.flags & (Flow::<K>::CLOSED | Flow::<K>::RETURN) == Flow::<K>::CLOSED
        && packet.flags & (flag::SYN | flag::ACK) == flag::SYN;
    if reopened {
        flow::release_pair::<K, W, T>(tables, &found);
        return Ok(None);
    }
    if packet.ttl <= 1 {
        return Err(Outcome::drop(Drop::TtlExpired, owner(tables, &found.flow)));
    }
    flow::note::<K, W, T>(tables, &found, &packet, now);
    let hop = next_hop(tables, &found.flow)?;
    A::rewrite(frame, &packet, &found.flow).ok_or(TRUNCATED)?;
    emit(frame, tables, &found.flow, hop).map(Some)
}

/// A packet without a flow: opens one if it is for a listener, and is the host's otherwise.
#[inline(never)]
fn new<const K: usize, const W: usize, A: Addresses<K>, F: Frame, T: Tables + FlowMemory<K, W>>(
    frame: &mut F,
    tables: &T,
) -> Result<Outcome, Outcome> {
    let packet = A::parse(frame, tables)?;
    if packet.address.roles & Address::VIP == 0 {
        return Err(Outcome::pass(Pass::NoReturnFlow));
    }
    let [_, _, p0, p1] = packet.tuple.ports;
    let mut key =
        ServiceKey { addr: A::destination(packet.tuple.addrs), port: [p0, p1], protocol: packet.tuple.protocol, pad: 0 };
    let Some(service) = tables.service(&key) else { return Err(Outcome::pass(Pass::NoListener)) };
    let id = service.listener;
    let Some(listener) = tables.listener(id) else { return Err(Outcome::pass(Pass::NoListener)) };
    // From ourselves, a flow would be answered to ourselves: two packets of such a kind go round for ever.
    // (The key is used again, because the kernel's stack has no room for another.)
    key.addr = A::source(packet.tuple.addrs);
    if !A::is_host(packet.tuple.addrs) || tables.address(&key.addr).is_some() {
        return Err(Outcome::pass(Pass::Martian));
    }
    if packet.tuple.protocol == TCP && packet.flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) != flag::SYN {
        return Err(Outcome::drop(Drop::NoFlow, id));
    }
    if packet.ttl <= 1 {
        return Err(Outcome::drop(Drop::TtlExpired, id));
    }
    let dropped = |reason| Outcome::drop(reason, id);
    let Some(settings) = tables.settings() else { return Err(Outcome::drop(Drop::NotReady, ListenerId::NONE)) };
    let hash = flow::hash(settings, &packet.tuple);
    let endpoint = select::endpoint::<K, A, T>(tables, settings, id, listener, hash, &packet).map_err(dropped)?;
    let ifindex = frame.ifindex();
    let Some(eth) = frame.window::<ETH_LEN>(0) else { return Err(TRUNCATED) };
    let (our_mac, client_mac) = macs(eth);
    let origin = Origin { ifindex, client_mac, our_mac };
    let index = select::open::<K, W, A, T>(tables, settings, service, endpoint, hash, &packet, origin).map_err(dropped)?;
    tables.count_flow(endpoint);
    // Read back from flow memory, because the kernel's stack has no room to keep it meanwhile.
    let Some(slot) = FlowMemory::<K, W>::slot(tables, index) else { return Err(TRUNCATED) };
    let flow = slot.load();
    let packet = Parsed { tuple: flow.tuple, ..packet };
    let hop = next_hop(tables, &flow)?;
    A::rewrite(frame, &packet, &flow).ok_or(TRUNCATED)?;
    emit(frame, tables, &flow, hop)
}

/// Where a packet of `flow` goes: back where the client's packets came from, or by the endpoint's next hop.
#[inline(always)]
fn next_hop<const K: usize, T: Tables>(tables: &T, flow: &Flow<K>) -> Result<Hop, Outcome> {
    if flow.flags & Flow::<K>::RETURN != 0 {
        return Ok(Hop { dst_mac: flow.dst_mac, src_mac: flow.src_mac, ifindex: flow.ifindex });
    }
    match tables.hop(EndpointId(flow.endpoint)) {
        Some(hop) => Ok(hop),
        None => Err(Outcome::drop(Drop::NoNextHop, owner(tables, flow))),
    }
}

/// The listener a known flow came by.
#[inline(always)]
fn owner<const K: usize, T: Tables>(tables: &T, flow: &Flow<K>) -> ListenerId {
    tables.endpoint(EndpointId(flow.endpoint)).map_or(ListenerId::NONE, |endpoint| endpoint.listener)
}

/// New MAC addresses, the endpoint's counters, and out.
#[inline(always)]
fn emit<const K: usize, F: Frame, T: Tables>(frame: &mut F, tables: &T, flow: &Flow<K>, hop: Hop) -> Result<Outcome, Outcome> {
    let bytes = frame.len() as u64;
    set_macs(frame.window::<ETH_LEN>(0).ok_or(TRUNCATED)?, hop.dst_mac, hop.src_mac);
    let direction = if flow.flags & Flow::<K>::RETURN == 0 { Direction::Forward } else { Direction::Return };
    tables.count(EndpointId(flow.endpoint), direction, bytes);
    Ok(Outcome { verdict: Verdict::Send(hop.ifindex), listener: ListenerId::NONE })
}
