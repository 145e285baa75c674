//! What fits: headers of the other family have another length. Packets that do not fit are refused, and segments that would not are
//! asked for to be shorter.

use super::{Across, TCP_LEN, V4_LEN, V6_LEN};
use crate::{
    path::{
        TRUNCATED, link, owner,
        parse::flag,
        tables::{Direction, FlowMemory, Tables},
        too_big,
        verdict::Outcome,
    },
    wire::frame::Frame,
};

/// A packet whose way is in the other family's room: `asked` again if it fits.
#[inline(always)]
pub(super) fn fit<const K: usize, const W: usize, const P: usize, const Q: usize, A, F, T>(
    frame: &mut F,
    tables: &T,
    asked: Outcome,
    direction: Direction,
) -> Outcome
where
    A: Across<K, W, P, Q>,
    F: Frame,
    T: Tables + FlowMemory<K, W> + FlowMemory<P, Q>,
{
    let (Some(near), Some(far)) = (FlowMemory::<K, W>::room(tables), FlowMemory::<P, Q>::room(tables)) else {
        return TRUNCATED;
    };
    let mtu = tables.mtu(far.from.ifindex, far.from.tags);
    let Some(length) = A::length(frame, near.packet.place) else { return TRUNCATED };
    if !too_big::fits(length, mtu) {
        return too_big::dropped(tables, owner(tables, near.endpoint), A::told(mtu), A::FAMILY);
    }
    if near.packet.flags & flag::SYN != 0 {
        // What comes the other way has to fit where this leaves, and where that leaves.
        let back = match direction {
            Direction::Forward => link::read(frame).map_or(0, |link| tables.mtu(frame.ifindex(), link.tags.0)),
            Direction::Return => tables.hop(near.endpoint).map_or(0, |hop| tables.mtu(hop.ifindex, hop.tags)),
        };
        frame.clamp(near.packet.place.l4, segment::<K>(back).min(segment::<P>(mtu)));
    }
    asked
}

/// Bytes of TCP that fit into a packet of the family `K` without options; more than there ever are where nobody knows the MTU.
#[inline(always)]
fn segment<const K: usize>(mtu: u32) -> u16 {
    let header = if K == 1 { V4_LEN } else { V6_LEN } + TCP_LEN;
    if mtu == 0 { u16::MAX } else { mtu.saturating_sub(header as u32).min(0xffff) as u16 }
}
