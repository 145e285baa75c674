//! Flows between two families: an IPv4 client with an IPv6 endpoint, and the reverse. Each half lives in the table of the packets
//! that it is for, and names its peer in the other one.
//!
//! An IPv6 slot has room for what its packets become; an IPv4 slot has not, and looks at its peer, whose tuple is the same the other
//! way round. Whoever writes one half's clock writes the other's too: each half by itself tells whether the pair lives.

mod fit;
mod header;
pub mod icmp;
mod open;

use self::header::{V4_LEN, V6_LEN, to4, to6};
use super::{
    TRUNCATED,
    explain::Stage,
    flow::{self, News},
    link, origin, owner,
    parse::{Place, flag},
    select::{Addresses, V4, V6},
    sequence,
    tables::{Direction, FlowMemory, Tables},
    verdict::{Asked, Outcome},
};
use crate::{
    abi::{
        family::Family,
        flow::{Flow, FlowSlot, Tuple, Way},
        reason::Drop,
    },
    wire::{frame::Frame, vlan::Tags},
};

/// Length of a TCP header without options.
const TCP_LEN: usize = 20;

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
    /// Length of the packet that one of this family becomes; none when the frame is shorter than it was a moment ago.
    fn length<F: Frame>(frame: &mut F, place: Place) -> Option<usize>;
    /// How long packets of this family may be that become some of `mtu` bytes.
    fn told(mtu: u32) -> u32;
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
    fn length<F: Frame>(frame: &mut F, Place { l3, l4 }: Place) -> Option<usize> {
        let &mut [_, _, l0, l1] = frame.window::<4>(l3)?;
        Some((l3 + V6_LEN + usize::from(u16::from_be_bytes([l0, l1]))).saturating_sub(l4))
    }

    #[inline(always)]
    fn told(mtu: u32) -> u32 {
        mtu.saturating_sub((V6_LEN - V4_LEN) as u32)
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
    fn length<F: Frame>(frame: &mut F, Place { l3, l4 }: Place) -> Option<usize> {
        let &mut [l0, l1] = frame.window::<2>(l3 + 4)?;
        Some((l3 + V6_LEN + V4_LEN + usize::from(u16::from_be_bytes([l0, l1]))).saturating_sub(l4))
    }

    #[inline(always)]
    fn told(mtu: u32) -> u32 {
        mtu.saturating_add((V6_LEN - V4_LEN) as u32)
    }

    #[inline(always)]
    fn translate<F: Frame>(frame: &mut F, place: Place, to: &Tuple<1>, tags: Tags, way: &Way) -> Option<()> {
        to4(frame, place, to, tags, way)
    }
}

/// What becomes of a packet that two families are concerned in, step by step. The kernel has a function of its own for each, which
/// its verifier judges once, and its stack of 512 bytes has no room for all at once; what one knows and the next needs is in the
/// [rooms](FlowMemory::room) of both families.
pub trait Steps {
    /// [`known`].
    fn known(&mut self, asked: Outcome) -> Outcome;
    /// [`open`].
    fn open(&mut self, asked: Outcome) -> Outcome;
    /// [`answer`].
    fn answer(&mut self, asked: Outcome) -> Outcome;
    /// [`pair`].
    fn pair(&mut self, asked: Outcome, answered: Outcome) -> Outcome;
    /// [`fit`].
    fn fit(&mut self, asked: Outcome) -> Outcome;
    /// [`translate`].
    fn translate(&mut self, asked: Outcome) -> Outcome;
    /// [`tell`].
    fn tell(&mut self, asked: Outcome) -> Outcome;
    /// [`report`].
    fn report(&mut self, asked: Outcome) -> Outcome;
}

/// Decides what another stage left undecided because two families are concerned, and translates the packet when it is to be sent.
#[inline(always)]
pub fn decide<S: Steps>(steps: &mut S, asked: Outcome) -> Outcome {
    let outcome = match asked.wanted().0 {
        Asked::Crosses(_) => steps.known(asked),
        Asked::Opens => match steps.open(asked) {
            Outcome::UNKNOWN => {
                let answered = steps.answer(asked);
                steps.pair(asked, answered)
            }
            outcome => outcome,
        },
        Asked::Tells | Asked::Reports(_) | Asked::Becomes(_) => {
            let outcome = steps.tell(asked);
            return if outcome.is_across() { steps.report(outcome) } else { outcome };
        }
    };
    let outcome = if outcome.is_across() { steps.fit(outcome) } else { outcome };
    if outcome.is_across() { steps.translate(outcome) } else { outcome }
}

/// The steps, one function for all of them.
#[derive(Debug)]
pub struct Plain<'a, F, T> {
    /// The packet.
    pub frame: &'a mut F,
    /// The memory it may ask.
    pub tables: &'a T,
}

impl<F: Frame, T: Tables> Steps for Plain<'_, F, T> {
    #[inline(always)]
    fn known(&mut self, asked: Outcome) -> Outcome {
        known(self.frame, self.tables, asked)
    }

    #[inline(always)]
    fn open(&mut self, asked: Outcome) -> Outcome {
        open(self.tables, asked)
    }

    #[inline(always)]
    fn answer(&mut self, asked: Outcome) -> Outcome {
        answer(self.tables, asked)
    }

    #[inline(always)]
    fn pair(&mut self, asked: Outcome, answered: Outcome) -> Outcome {
        pair(self.tables, asked, answered)
    }

    #[inline(always)]
    fn fit(&mut self, asked: Outcome) -> Outcome {
        fit(self.frame, self.tables, asked)
    }

    #[inline(always)]
    fn translate(&mut self, asked: Outcome) -> Outcome {
        translate(self.frame, self.tables, asked)
    }

    #[inline(always)]
    fn tell(&mut self, asked: Outcome) -> Outcome {
        tell(self.frame, self.tables, asked)
    }

    #[inline(always)]
    fn report(&mut self, asked: Outcome) -> Outcome {
        report(self.frame, self.tables, asked)
    }
}

/// A packet of a known flow: to be translated, if nothing speaks against it.
#[inline(always)]
pub fn known<F: Frame, T: Tables>(frame: &mut F, tables: &T, asked: Outcome) -> Outcome {
    match asked.wanted() {
        (Asked::Crosses(index), Family::V4) => of_flow::<1, 6, 4, 14, V4, F, T>(frame, tables, index),
        (Asked::Crosses(index), Family::V6) => of_flow::<4, 14, 1, 6, V6, F, T>(frame, tables, index),
        _ => TRUNCATED,
    }
}

/// Lends a packet that opens a flow to the other family; `Outcome::UNKNOWN` if nothing speaks against it.
#[inline(always)]
pub fn open<T: Tables>(tables: &T, asked: Outcome) -> Outcome {
    match asked.wanted().1 {
        Family::V4 => open::lend::<1, 6, 4, 14, T>(tables),
        Family::V6 => open::lend::<4, 14, 1, 6, T>(tables),
    }
}

/// Draws a NAT port of the other family; `Outcome::UNKNOWN` if there was one.
#[inline(always)]
pub fn answer<T: Tables>(tables: &T, asked: Outcome) -> Outcome {
    match asked.wanted().1 {
        Family::V4 => super::answer::<4, 14, V6, T>(tables),
        Family::V6 => super::answer::<1, 6, V4, T>(tables),
    }
}

/// Makes the pair for a packet that opens a flow and was [answered](answer): to be translated, if there is one now.
#[inline(always)]
pub fn pair<T: Tables>(tables: &T, asked: Outcome, answered: Outcome) -> Outcome {
    match asked.wanted().1 {
        Family::V4 => open::pair::<1, 6, 4, 14, V4, T>(tables, answered),
        Family::V6 => open::pair::<4, 14, 1, 6, V6, T>(tables, answered),
    }
}

/// An ICMP error about a packet of a flow: to be translated, if nothing speaks against it.
#[inline(always)]
pub fn tell<F: Frame, T: Tables>(frame: &mut F, tables: &T, asked: Outcome) -> Outcome {
    let Some(link) = link::read(frame) else { return TRUNCATED };
    let told = match asked.wanted().1 {
        Family::V4 => icmp::of_flow::<1, 6, 4, 14, V4, F, T>(frame, tables, link.tags),
        Family::V6 => icmp::of_flow::<4, 14, 1, 6, V6, F, T>(frame, tables, link.tags),
    };
    match told {
        Ok(outcome) | Err(outcome) => outcome,
    }
}

/// A new ICMP error, the endpoint's counters, and out.
#[inline(always)]
pub fn report<F: Frame, T: Tables>(frame: &mut F, tables: &T, asked: Outcome) -> Outcome {
    let Some(link) = link::read(frame) else { return TRUNCATED };
    match asked.wanted() {
        (Asked::Reports(direction), Family::V4) => icmp::sent::<1, 6, 4, 14, V4, F, T>(frame, tables, link.tags, direction),
        (Asked::Reports(direction), Family::V6) => icmp::sent::<4, 14, 1, 6, V6, F, T>(frame, tables, link.tags, direction),
        _ => TRUNCATED,
    }
}

/// Whether a packet that is to be translated fits where it leaves; a SYN asks for segments that do.
#[inline(always)]
pub fn fit<F: Frame, T: Tables>(frame: &mut F, tables: &T, asked: Outcome) -> Outcome {
    match asked.wanted() {
        (Asked::Becomes(direction), Family::V4) => fit::fit::<1, 6, 4, 14, V4, F, T>(frame, tables, asked, direction),
        (Asked::Becomes(direction), Family::V6) => fit::fit::<4, 14, 1, 6, V6, F, T>(frame, tables, asked, direction),
        _ => TRUNCATED,
    }
}

/// New headers, the endpoint's counters, and out.
#[inline(always)]
pub fn translate<F: Frame, T: Tables>(frame: &mut F, tables: &T, asked: Outcome) -> Outcome {
    match asked.wanted() {
        (Asked::Becomes(direction), Family::V4) => sent::<1, 6, 4, 14, V4, F, T>(frame, tables, direction),
        (Asked::Becomes(direction), Family::V6) => sent::<4, 14, 1, 6, V6, F, T>(frame, tables, direction),
        _ => TRUNCATED,
    }
}

/// The usual path has found the flow, judged TTL and reopening, and left the packet in its room.
#[inline(always)]
fn of_flow<const K: usize, const W: usize, const P: usize, const Q: usize, A, F, T>(
    frame: &mut F,
    tables: &T,
    index: u32,
) -> Outcome
where
    A: Across<K, W, P, Q>,
    F: Frame,
    T: Tables + FlowMemory<K, W> + FlowMemory<P, Q>,
{
    let (Some(mut near), Some(mut far)) = (FlowMemory::<K, W>::room(tables), FlowMemory::<P, Q>::room(tables)) else {
        return TRUNCATED;
    };
    let Some(from) = link::read(frame).and_then(|link| origin(frame, link.tags)) else { return TRUNCATED };
    let Some(slot) = FlowMemory::<K, W>::slot(tables, index) else { return TRUNCATED };
    let (near, far) = (&mut *near, &mut *far);
    let (state, meta) = (slot.state(), slot.meta());
    let gone = Outcome::drop(Drop::NoFlow, owner(tables, meta.endpoint()));
    // Between two looks a flow may end; its client's next try opens another one.
    if !state.is_live() || !state.is_across() || !slot.is_for(&near.packet.tuple) {
        return gone;
    }
    // Half a pair leads nowhere.
    let Some((peer, peer_state)) = flow::peer_across::<P, Q, T>(tables, index, state.peer_across()) else { return gone };
    let is_return = meta.flags() & Flow::<K>::RETURN != 0;
    let (protocol, flags) = (near.packet.tuple.protocol, near.packet.flags);
    far.to = Tuple { addrs: A::becomes(slot, peer), ports: slot.translation(protocol).ports, protocol };
    (far.from, near.endpoint) = (slot.client_way(), meta.endpoint());
    // What was copied counts only if both slots were the same flow's all the while.
    if slot.state() != state || peer.state() != peer_state {
        return gone;
    }
    if !T::DRY {
        let now = tables.tick();
        let ((seen, acked), (_, peer_acked)) = (slot.clock(), peer.clock());
        // A handshake is kept alive by whatever belongs to it.
        let speaks = near.packet.speaks || meta.flags() & (Flow::<K>::ESTABLISHED | Flow::<K>::CLOSED) == 0;
        let ack = if flags & flag::ACK != 0 { near.packet.ack } else { acked };
        let seen_now = if speaks { now } else { seen };
        if (seen, acked) != (seen_now, ack) {
            slot.set_clock(seen_now, ack);
        }
        if seen != seen_now {
            peer.set_clock(seen_now, peer_acked);
        }
        if flow::is_news::<K>(meta.flags(), protocol, flags) || !is_return && !slot.is_client(&from) {
            let Some(seq) = sequence(frame, near.packet.place.l4, flags) else { return TRUNCATED };
            flow::tell_both(tables, slot, state, || Some((peer, peer_state)), &News { flags, seq }, &from);
        }
    }
    if is_return {
        return Outcome::becomes_other(A::FAMILY, Direction::Return);
    }
    let Some(hop) = tables.hop(meta.endpoint()) else { return Outcome::drop(Drop::NoNextHop, owner(tables, meta.endpoint())) };
    far.from = Way::by(hop);
    Outcome::becomes_other(A::FAMILY, Direction::Forward)
}

#[inline(always)]
fn sent<const K: usize, const W: usize, const P: usize, const Q: usize, A, F, T>(
    frame: &mut F,
    tables: &T,
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
    let Some(link) = link::read(frame) else { return TRUNCATED };
    if T::DRY {
        tables.explain(|| Stage::rewritten(&far.to));
        tables.explain(|| Stage::hop(&far.from));
    }
    let bytes = frame.len() as u64;
    if A::translate(frame, near.packet.place, &far.to, link.tags, &far.from).is_none() {
        return TRUNCATED;
    }
    if !T::DRY {
        tables.count(near.endpoint, direction, bytes);
    }
    Outcome::send(far.from.ifindex)
}
