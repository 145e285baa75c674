//! Listeners that the agent serves itself: here their packets are let in or kept out, and go to the host as they came.
//!
//! Nothing is remembered of them, for the connections are the host's. Access lists are asked about segments that open a connection
//! and about every UDP packet, as nobody knows which one is the first of its flow; where established flows are to be ended, about
//! every packet.

use super::{
    NOT_READY, direct,
    explain::Stage,
    select,
    tables::{Scratch, Tables},
    verdict::Outcome,
};
use crate::{
    abi::{entry::Listener, reason::Drop},
    wire::frame::TCP,
};

/// Decides about a packet, `bytes` long, for such a listener; the service is in its room, and its source is the key there.
#[inline(never)]
pub(super) fn enter<const K: usize, T: Tables>(tables: &T, room: &Scratch<K>, bytes: u64) -> Outcome {
    let id = room.service.listener;
    let (Some(settings), Some(listener)) = (tables.settings(), tables.listener(id)) else { return NOT_READY };
    let is_opening = direct::opens(&room.packet);
    if listener.acl != 0
        && (is_opening || room.packet.tuple.protocol != TCP || listener.flags & Listener::STRICT != 0)
        && tables.denies(listener.acl, &room.key.addr)
    {
        tables.explain(|| Stage::denied(id));
        return Outcome::drop(Drop::Acl, id);
    }
    // No flow memory is used up: only a bound that somebody set counts.
    if is_opening && listener.admission != 0 && !select::admits(tables, settings, id, listener) {
        return Outcome::drop(Drop::Admission, id);
    }
    if !T::DRY {
        tables.count_served(id, is_opening, bytes);
    }
    Outcome::served(id)
}
