//! Flow memory: finding, claiming and releasing slots, and the life of a pair.
//!
//! A flow's slot is in one of two groups of [`FLOW_WAYS`] slots that its hash names. The first group is searched, from a
//! place that the hash names too, before the second; a slot that was never used ends the search, because whoever came later
//! would have taken it. A pair is alive while either half is: silence is judged over both.

use super::{
    parse::{Parsed, flag},
    tables::{FlowMemory, Tables},
};
use crate::abi::{
    entry::Settings,
    flow::{Flow, FlowSlot, State, Tuple},
    id::EndpointId,
    limits::{CLOSING_TIMEOUT_S, FLOW_WAYS},
};
use crate::hash::Sip;

/// A slot index that no table has.
pub const NO_SLOT: u32 = u32::MAX;

/// Why a half could not be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutError {
    /// A living flow has the same tuple.
    Taken,
    /// No slot of either group is free, or another CPU was faster.
    Full,
}

/// The hash of a tuple: where its slot is.
#[inline(always)]
pub fn hash<const K: usize>(settings: &Settings, tuple: &Tuple<K>) -> u64 {
    let ports = u64::from(u32::from_ne_bytes(tuple.ports));
    Sip::new(settings.seed).words(tuple.addrs).word(ports << 8 | u64::from(tuple.protocol)).finish()
}

/// The `n`th slot to look at, `n` below twice [`FLOW_WAYS`].
#[inline(always)]
fn place(hash: u64, n: u32, mask: u32) -> u32 {
    let group = if n < FLOW_WAYS { hash as u32 } else { (hash >> 32) as u32 };
    let way = ((hash >> 29) as u32).wrapping_add(n) & (FLOW_WAYS - 1);
    (group & !(FLOW_WAYS - 1) | way) & mask
}

/// A half that was found: where it is, what its slot was, and a copy.
#[derive(Clone, Copy, Debug)]
pub struct Found<const K: usize> {
    /// Slot index.
    pub index: u32,
    /// What the slot was, the other half's index included.
    pub state: State,
    /// The half.
    pub flow: Flow<K>,
}

/// The living flow of `tuple`.
#[inline(always)]
pub fn find<const K: usize, const W: usize, M: FlowMemory<K, W>>(
    memory: &M,
    settings: &Settings,
    hash: u64,
    tuple: &Tuple<K>,
    now: u32,
) -> Option<Found<K>> {
    let mask = memory.mask(settings);
    for n in 0..2 * FLOW_WAYS {
        let index = place(hash, n, mask);
        let slot = memory.slot(index)?;
        let state = slot.state();
        if state == State::NEVER {
            return None;
        }
        if state.is_live() && slot.is_for(tuple) {
            let flow = slot.load();
            if is_alive(memory, index, slot, now) && slot.state() == state {
                return Some(Found { index, state, flow });
            }
        }
    }
    None
}

/// Whether the pair of the live half in `slot` was heard of lately: this half, or the other one if it still thinks of this one
/// as its peer.
#[inline(always)]
fn is_alive<const K: usize, const W: usize, M: FlowMemory<K, W>>(
    memory: &M,
    index: u32,
    slot: &FlowSlot<K, W>,
    now: u32,
) -> bool {
    if !slot.is_silent(now) {
        return true;
    }
    match memory.slot(slot.state().peer()) {
        Some(peer) => peer.state().is_live() && peer.state().peer() == index && !peer.is_silent(now),
        None => false,
    }
}

/// Puts `flow` into a free slot of its groups and returns the index.
#[inline(always)]
pub fn put<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(
    tables: &T,
    settings: &Settings,
    hash: u64,
    flow: &Flow<K>,
    peer: u32,
    now: u32,
) -> Result<u32, PutError> {
    let mask = FlowMemory::<K, W>::mask(tables, settings);
    let (mut free, mut free_state) = (NO_SLOT, State::NEVER);
    for n in 0..2 * FLOW_WAYS {
        let index = place(hash, n, mask);
        let Some(slot) = FlowMemory::<K, W>::slot(tables, index) else { return Err(PutError::Full) };
        let state = slot.state();
        if state.is_busy() || state.is_live() && is_alive(tables, index, slot, now) {
            if slot.is_for(&flow.tuple) {
                return Err(PutError::Taken);
            }
        } else if free == NO_SLOT {
            (free, free_state) = (index, state);
        }
        if state == State::NEVER {
            break;
        }
    }
    claim(tables, free, free_state, flow, peer, now)
}

/// Takes the slot at `index` if it still is as it was when it was judged free: another CPU may have been there since. The
/// other half, where there is one already, is told before packets can find this one.
#[inline(always)]
fn claim<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(
    tables: &T,
    index: u32,
    judged: State,
    flow: &Flow<K>,
    peer: u32,
    now: u32,
) -> Result<u32, PutError> {
    let Some(slot) = FlowMemory::<K, W>::slot(tables, index) else { return Err(PutError::Full) };
    let claimed = judged.claimed();
    if !tables.swap(slot.state_cell(), judged.0, claimed.0) {
        return Err(PutError::Full);
    }
    slot.store(flow);
    slot.set_clock(now, 0);
    if let Some(other) = FlowMemory::<K, W>::slot(tables, peer) {
        other.set_state(other.state().live(index));
    }
    slot.set_state(claimed.live(peer));
    Ok(index)
}

/// Frees the slot at `index`, which nobody else knows of.
#[inline(always)]
pub fn release<const K: usize, const W: usize, M: FlowMemory<K, W>>(memory: &M, index: u32) {
    if let Some(slot) = memory.slot(index) {
        slot.set_state(slot.state().freed());
    }
}

/// Frees both halves of a pair, unless another CPU has done so since it was found.
#[inline(always)]
pub fn release_pair<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(tables: &T, found: &Found<K>) {
    let Some(slot) = FlowMemory::<K, W>::slot(tables, found.index) else { return };
    if !tables.swap(slot.state_cell(), found.state.0, found.state.freed().0) {
        return;
    }
    if let Some((peer, state)) = peer_of::<K, W, T>(tables, found) {
        tables.swap(peer.state_cell(), state.0, state.freed().0);
    }
}

/// The slot of the other half, if it still is the other half, and what it is.
#[inline(always)]
fn peer_of<'a, const K: usize, const W: usize, M: FlowMemory<K, W>>(
    memory: &'a M,
    found: &Found<K>,
) -> Option<(&'a FlowSlot<K, W>, State)> {
    let slot = memory.slot(found.state.peer())?;
    let state = slot.state();
    if state.is_live() && state.peer() == found.index { Some((slot, state)) } else { None }
}

/// Changes flags and timeout of a half that was copied, unless the slot is somebody else's by now.
#[inline(always)]
fn change<const K: usize, const W: usize, T: Tables>(
    tables: &T,
    slot: &FlowSlot<K, W>,
    flow: &Flow<K>,
    flags: u8,
    timeout_s: u16,
) {
    let (cell, old, new) = slot.flags_change(flow, flags);
    if tables.swap(cell, old, new) && timeout_s != flow.timeout_s {
        let (cell, old, new) = slot.timeout_change(flow, timeout_s);
        tables.swap(cell, old, new);
    }
}

/// Takes note of a packet of a known flow: TCP state, acknowledgement number, timeouts (RFC 5382 §5).
#[inline(always)]
pub fn note<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(
    tables: &T,
    found: &Found<K>,
    packet: &Parsed<K>,
    now: u32,
) {
    let Some(slot) = FlowMemory::<K, W>::slot(tables, found.index) else { return };
    let clock = slot.clock();
    let ack = if packet.flags & flag::ACK != 0 { packet.ack } else { clock.1 };
    let seen = if packet.speaks { now } else { clock.0 };
    if clock != (seen, ack) {
        slot.set_clock(seen, ack);
    }
    let flow = &found.flow;
    if flow.flags & Flow::<K>::CLOSED != 0 {
        return;
    }
    if packet.flags & (flag::FIN | flag::RST) != 0 {
        closing(tables, slot, found, packet.flags);
    } else if packet.flags & flag::SYN == 0 && flow.flags & Flow::<K>::ESTABLISHED == 0 {
        let timeout_s = idle_timeout(tables, flow).unwrap_or(flow.timeout_s);
        change::<K, W, T>(tables, slot, flow, flow.flags | Flow::<K>::ESTABLISHED, timeout_s);
    }
}

#[inline(always)]
fn idle_timeout<const K: usize, T: Tables>(tables: &T, flow: &Flow<K>) -> Option<u16> {
    let listener = tables.endpoint(EndpointId(flow.endpoint))?.listener;
    Some(tables.listener(listener)?.idle_timeout_s)
}

/// A FIN or RST: the pair is closed by a RST or by the second FIN.
#[inline(always)]
fn closing<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(
    tables: &T,
    slot: &FlowSlot<K, W>,
    found: &Found<K>,
    flags: u8,
) {
    let flow = &found.flow;
    let fin = if flags & flag::FIN != 0 { Flow::<K>::FIN } else { 0 };
    let mut closed = flags & flag::RST != 0;
    if let Some((peer_slot, _)) = peer_of::<K, W, T>(tables, found) {
        let peer = peer_slot.load();
        closed |= peer.flags & fin != 0;
        if closed {
            change::<K, W, T>(tables, peer_slot, &peer, peer.flags | Flow::<K>::CLOSED, CLOSING_TIMEOUT_S);
        }
    } else {
        // Nothing can come back any more.
        closed = true;
    }
    if closed {
        change::<K, W, T>(tables, slot, flow, flow.flags | fin | Flow::<K>::CLOSED, CLOSING_TIMEOUT_S);
    } else {
        change::<K, W, T>(tables, slot, flow, flow.flags | fin, flow.timeout_s);
    }
}
