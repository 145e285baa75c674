//! Passive failure: endpoints that do not answer, seen by what clients and routers send.

use super::{
    flow::{Found, Half, free_pair, peer_across, peer_of},
    tables::{FlowMemory, Tables},
};
use crate::{
    abi::flow::{Flow, FlowSlot, State},
    wire::frame::UDP,
};

/// Flags of the other half, in whichever family's table it is.
#[inline(always)]
fn peer_flags<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(tables: &T, found: Found) -> Option<u8> {
    if !found.state.is_across() {
        return peer_of::<K, W, T>(tables, found).map(|(peer, _)| peer.meta().flags());
    }
    let peer = found.state.peer_across();
    match K {
        1 => peer_across::<4, 14, T>(tables, found.index, peer).map(|(peer, _)| peer.meta().flags()),
        _ => peer_across::<1, 6, T>(tables, found.index, peer).map(|(peer, _)| peer.meta().flags()),
    }
}

/// Whether the flow of the forward half in the slot at `index` is to be tried with another endpoint, now that the client asks again:
/// its SYN was repeated twice, or once after the endpoint was said to be unreachable, and nothing answered. The pair is free then.
/// `opens` says that the packet is a SYN.
///
/// What a stranger says counts for nothing while the endpoint answers: a failure is counted only where it stayed silent.
#[inline(always)]
pub fn gives_up<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(
    tables: &T,
    index: u32,
    state: State,
    opens: bool,
) -> bool {
    let Some(slot) = FlowMemory::<K, W>::slot(tables, index) else { return false };
    let Some(half) = Half::read(slot, state) else { return false };
    let is_udp = half.meta.protocol() == UDP;
    let asks_again = is_udp || opens && slot.is_retried(tables.tick());
    if !asks_again {
        return false;
    }
    let answers = Flow::<K>::ANSWERED | Flow::<K>::ESTABLISHED | Flow::<K>::CLOSED;
    match peer_flags::<K, W, T>(tables, Found { index, state }) {
        Some(flags) if flags & answers == 0 => {}
        Some(_) | None => return false,
    }
    if !half.has(Flow::<K>::AGAIN) {
        if !T::DRY {
            half.mark(tables, Flow::<K>::AGAIN, None);
        }
        return false;
    }
    if !T::DRY {
        if !is_udp {
            tables.count_failure(half.meta.endpoint());
        }
        free_pair::<K, W, T>(tables, index, state);
    }
    true
}

/// Takes note of a message that the endpoint of the return half in the slot at `index` cannot be reached. True when the client need
/// not hear of it: it will ask again, and another endpoint is tried. A datagram is not sent again by itself; who sent it hears of it,
/// and the next one goes elsewhere.
#[inline(always)]
pub fn is_unreachable<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(
    tables: &T,
    index: u32,
    state: State,
) -> bool {
    let Some(slot) = FlowMemory::<K, W>::slot(tables, index) else { return false };
    blame(tables, slot, state, || peer_of::<K, W, T>(tables, Found { index, state }))
}

/// [`is_unreachable`] for two halves wherever they are.
#[inline(always)]
pub(super) fn blame<'a, const K: usize, const W: usize, const P: usize, const Q: usize, T: Tables>(
    tables: &T,
    slot: &FlowSlot<K, W>,
    state: State,
    peer: impl FnOnce() -> Option<(&'a FlowSlot<P, Q>, State)>,
) -> bool {
    let Some(half) = Half::read(slot, state) else { return false };
    if half.has(Flow::<K>::ANSWERED | Flow::<K>::ESTABLISHED | Flow::<K>::CLOSED) {
        return false;
    }
    let Some((peer, state)) = peer() else { return false };
    let Some(forward) = Half::read(peer, state) else { return false };
    if forward.has(Flow::<P>::AGAIN) {
        return false;
    }
    let is_udp = half.meta.protocol() == UDP;
    if !T::DRY {
        forward.mark(tables, Flow::<P>::AGAIN, None);
        if is_udp {
            tables.count_failure(half.meta.endpoint());
        }
    }
    !is_udp
}
