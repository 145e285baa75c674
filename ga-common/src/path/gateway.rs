//! Listeners whose endpoints see the client's address and answer to it by way of this edge: only the destination is rewritten, so an
//! answer is known by the endpoint's and the client's address and port, and no NAT port is drawn.
//!
//! Answers are addressed to clients. So where there are such listeners, and only there, packets to others are looked at too if they
//! come from such an endpoint, or are ICMP messages. What turns out to be no answer is the host's, as ever.

use super::{
    NOT_READY,
    explain::Stage,
    flow::{self, NO_SLOT, release},
    select::{self, Addresses, V4, V6},
    tables::{FlowMemory, Half, Tables},
    verdict::Outcome,
};
use crate::abi::{
    entry::{AddressKey, Settings},
    family::Family,
    filter,
    flow::Tuple,
    reason::Drop,
};

/// Whether there are such listeners, or were a moment ago.
#[inline(always)]
pub(super) fn is_used<T: Tables>(tables: &T) -> bool {
    tables.settings().is_some_and(|settings| settings.features & Settings::GATEWAY != 0)
}

/// Whether a packet that is not addressed to us may be an answer of such a listener's flow, or an ICMP error about one. `sent` tells
/// its source, and whether it is an ICMP message: those may come from any router.
#[inline(always)]
pub(super) fn is_maybe_answer<T: Tables>(tables: &T, sent: impl FnOnce() -> (AddressKey, bool)) -> bool {
    if !is_used(tables) {
        return false;
    }
    let (src, is_message) = sent();
    let (word, bit) = filter::gateway_place(&src);
    is_message || tables.gateway(word) & bit != 0
}

/// Claims the slot of the replies to the client itself for the packet in its room: `Outcome::UNKNOWN` when that is done. Two
/// connections of a client from one port to two VIPs or ports that lead to the same endpoint and port would be the same to the
/// endpoint: the second one has to wait until the first one is over.
#[inline(always)]
pub fn answer<T: Tables>(tables: &T, family: Family) -> Outcome {
    match family {
        Family::V4 => claim::<1, 6, V4, T>(tables),
        Family::V6 => claim::<4, 14, V6, T>(tables),
    }
}

#[inline(always)]
fn claim<const K: usize, const W: usize, A: Addresses<K>, T: Tables + FlowMemory<K, W>>(tables: &T) -> Outcome {
    let (Some(settings), Some(mut room)) = (tables.settings(), FlowMemory::<K, W>::room(tables)) else { return NOT_READY };
    let room = &mut *room;
    let id = room.service.listener;
    let ([c0, c1, ..], [e0, e1]) = (room.packet.tuple.ports, room.service.endpoint_port);
    room.key.addr = A::source(room.packet.tuple.addrs);
    let addrs = A::between(&room.target, &room.key.addr);
    room.reply = Tuple { addrs, ports: [e0, e1, c0, c1], protocol: room.packet.tuple.protocol };
    let hash = flow::hash(settings, &room.reply);
    let owner = FlowMemory::<K, W>::taken(tables, room, Half::Return, hash, NO_SLOT);
    if T::DRY {
        tables.explain(|| Stage::kept(&room.reply, owner == NO_SLOT));
    }
    let back =
        if owner == NO_SLOT { FlowMemory::<K, W>::claim(tables, hash) } else { FlowMemory::<K, W>::reuse(tables, owner, hash) };
    if back != NO_SLOT {
        // As for NAT ports: of two CPUs that want the same at once, whoever sees the other gives way.
        if T::DRY || FlowMemory::<K, W>::taken(tables, room, Half::Return, hash, back) == NO_SLOT {
            select::answered::<K, A>(room, back);
            return Outcome::UNKNOWN;
        }
        release::<K, W, T>(tables, back);
    }
    release::<K, W, T>(tables, room.forward);
    Outcome::drop(if owner == NO_SLOT && back == NO_SLOT { Drop::FlowTableFull } else { Drop::NoPort }, id)
}
