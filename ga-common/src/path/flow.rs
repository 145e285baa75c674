//! Flow memory: finding, claiming and releasing slots, and the life of a pair.
//!
//! A flow's slot is in one of two groups of [`FLOW_WAYS`] slots that its hash names. A byte of the hash of every slot stands in
//! its group's word of tags from before it goes live until it is freed: besides the slot at home only slots whose tag agrees are
//! looked at, and zeros tell how much room a group has. A pair is alive while either half is: silence is judged over both.
//!
//! Whoever has claimed a slot looks whether somebody else has the same flow, or is just claiming it, and then gives way: of two CPUs
//! that open the same flow at once one wins at most, and the client's next try is served.
//!
//! A slot belongs to the CPU that has claimed it by compare-and-swap, until it goes live; so does its byte of the tags, which is
//! why that byte may be changed without looking at its neighbours.

use super::{
    parse::flag,
    tables::{self, FlowMemory, Scratch, Tables},
};
use crate::{
    abi::{
        entry::Settings,
        flow::{Flow, FlowSlot, Meta, State, Tuple, Way},
        id::EndpointId,
        limits::{CLOSING_TIMEOUT_S, FLOW_WAYS},
        reason::Event,
    },
    hash::Sip,
    wire::frame::UDP,
    word::Word,
};

/// A slot index that no table has.
pub const NO_SLOT: u32 = u32::MAX;

/// The hash of a tuple: where its slot is.
#[inline(always)]
pub fn hash<const K: usize>(settings: &Settings, tuple: &Tuple<K>) -> u64 {
    let ports = u64::from(u32::from_ne_bytes(tuple.ports));
    Sip::new(settings.seed).words(tuple.addrs).word(ports << 8 | u64::from(tuple.protocol)).finish()
}

/// Where a hash's slot may be: two groups, the way to begin at, and the tag.
#[derive(Clone, Copy)]
struct Places {
    groups: [u32; 2],
    home: u32,
    tag: u64,
}

impl Places {
    #[inline(always)]
    fn of(hash: u64, mask: u32) -> Self {
        let groups = [hash as u32, (hash >> 32) as u32].map(|bits| bits & mask & !(FLOW_WAYS - 1));
        let tag = hash >> 56;
        Self { groups, home: (hash >> 29) as u32 & (FLOW_WAYS - 1), tag: if tag == 0 { 1 } else { tag } }
    }

    /// The tags of a group, the one at home first.
    #[inline(always)]
    fn turned(&self, tags: u64) -> u64 {
        tags.rotate_right(self.home * 8)
    }

    /// The top bit of every byte of `tags` that is our tag. A byte above such a byte may be taken for one too (Warren, Hacker's
    /// Delight 6-1), which costs a look.
    #[inline(always)]
    fn hits(&self, tags: u64) -> u64 {
        let other = tags ^ (self.tag * ONES);
        other.wrapping_sub(ONES) & !other & (ONES << 7)
    }

    /// The groups with their tags, the one to try first in front: the second only where it has more room and the first has little.
    #[inline(always)]
    fn by_room(&self, [a, b]: [u64; 2]) -> [(u32, u64); 2] {
        let [first, second] = [(self.groups[0], a), (self.groups[1], b)];
        if room(a) < 3 && room(a) < room(b) { [second, first] } else { [first, second] }
    }

    /// The slot at the `n`th way from home.
    #[inline(always)]
    fn slot(&self, group: u32, n: u32) -> u32 {
        group | (self.home + n) & (FLOW_WAYS - 1)
    }
}

/// One in every byte.
const ONES: u64 = u64::MAX / 255;

/// The top bit of every byte of a word of tags that is zero (Warren, Hacker's Delight 6-1).
#[inline(always)]
fn unused(tags: u64) -> u64 {
    const LOW: u64 = ONES * 0x7f;
    !(((tags & LOW) + LOW) | tags | LOW)
}

/// How many bytes of a word of tags are zero.
#[inline(always)]
fn room(tags: u64) -> u64 {
    (unused(tags) >> 7).wrapping_mul(ONES) >> 56
}

/// The number of the first byte whose top bit is set, when no other bits are set anywhere: the multiplication moves the byte with
/// that number to the top.
#[inline(always)]
fn first(tops: u64) -> u32 {
    let lowest = (tops & tops.wrapping_neg()) >> 7;
    (lowest.wrapping_mul(0x0001_0203_0405_0607) >> 56) as u32
}

/// A half that was found: where it is, and what its slot was, the other half's index included.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Slot index.
    pub index: u32,
    /// What the slot was.
    pub state: State,
}

/// The living flow of `tuple`, whose hash is `hash`.
#[inline(always)]
pub fn find<const K: usize, const W: usize, M: FlowMemory<K, W>>(
    memory: &M,
    settings: &Settings,
    hash: u64,
    tuple: &Tuple<K>,
    now: u32,
) -> Option<Found> {
    let places = Places::of(hash, memory.mask(settings));
    among::<K, W, M>(memory, places, tuple, now, None)
}

/// The same, for packets that most likely belong to a flow. Most flows are at home, and far memory that is asked for at once is
/// waited for once: every line of the slot at home, and the tags, which are near and tell whether it is this flow's before it is there.
#[inline(always)]
pub fn find_soon<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(
    tables: &T,
    settings: &Settings,
    hash: u64,
    tuple: &Tuple<K>,
    now: u32,
) -> Option<Found> {
    let places = Places::of(hash, FlowMemory::<K, W>::mask(tables, settings));
    if !T::DRY {
        let [group, _] = places.groups;
        let home = places.slot(group, 0);
        let slot = FlowMemory::<K, W>::slot(tables, home)?;
        let (state, is_silent) = (slot.state(), slot.is_silent(now));
        let tags = FlowMemory::<K, W>::tags(tables, group / FLOW_WAYS)?.load();
        if places.turned(tags) as u8 == places.tag as u8 && state.is_live() && !is_silent && slot.is_for(tuple) {
            return Some(Found { index: home, state });
        }
    }
    among::<K, W, T>(tables, places, tuple, now, None)
}

/// For [`taken`] in the place of a slot that is ours: only living flows count.
pub const LIVING: u32 = NO_SLOT - 1;

/// The living flow of `tuple`, by its tag. For whoever has claimed the first of the slots `mine` for it, and the second one for its
/// other half, also a slot with the same tag that somebody else has claimed: most likely for the same flow; not where the first is
/// [`LIVING`].
#[inline(always)]
fn among<const K: usize, const W: usize, M: FlowMemory<K, W>>(
    memory: &M,
    places: Places,
    tuple: &Tuple<K>,
    now: u32,
    mine: Option<[u32; 2]>,
) -> Option<Found> {
    for group in places.groups {
        let mut hits = places.hits(places.turned(memory.tags(group / FLOW_WAYS)?.load()));
        for _ in 0..FLOW_WAYS {
            if hits == 0 {
                break;
            }
            let index = places.slot(group, first(hits));
            hits &= hits - 1;
            let slot = memory.slot(index)?;
            let state = slot.state();
            if let Some([mine, other]) = mine {
                if index == mine {
                    continue;
                }
                if state.is_busy() && index != other && mine != LIVING {
                    return Some(Found { index, state });
                }
            }
            if state.is_live() && slot.is_for(tuple) && is_alive(memory, index, slot, now) {
                return Some(Found { index, state });
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

/// Which slot but `mine` is already that of one half of the packet's flow, or is being claimed most likely for it; [`NO_SLOT`] when
/// none is. With [`LIVING`] for `mine` what is being claimed does not count.
#[inline(always)]
pub fn taken<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(
    tables: &T,
    room: &Scratch<K>,
    which: tables::Half,
    hash: u64,
    mine: u32,
) -> u32 {
    let Some(settings) = tables.settings() else { return NO_SLOT };
    let places = Places::of(hash, FlowMemory::<K, W>::mask(tables, settings));
    let other = if which == tables::Half::Return { room.forward } else { NO_SLOT };
    among::<K, W, T>(tables, places, room.half(which), tables.tick(), Some([mine, other])).map_or(NO_SLOT, |found| found.index)
}

/// Claims a slot in the groups of `hash`: the first without a tag, or without any such the first whose pair is over, or that of a pair
/// that may be evicted. Nobody else touches it until it goes live. Returns [`NO_SLOT`] when there is none, or another CPU was faster.
#[inline(always)]
pub fn claim<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(tables: &T, hash: u64, now: u32) -> u32 {
    let Some(settings) = tables.settings() else { return NO_SLOT };
    let places = Places::of(hash, FlowMemory::<K, W>::mask(tables, settings));
    let tags_of = |group: u32| FlowMemory::<K, W>::tags(tables, group / FLOW_WAYS).map_or(0, Word::load);
    let groups = places.by_room(places.groups.map(tags_of));
    for (group, tags) in groups {
        let free = unused(places.turned(tags));
        if free != 0 {
            let index = places.slot(group, first(free));
            let state = FlowMemory::<K, W>::slot(tables, index).map_or(State::NEVER.claimed(), FlowSlot::state);
            // What is claimed gets its tag a moment later.
            if !state.is_busy() && !state.is_live() {
                return seize::<K, W, T>(tables, index, state, places.tag);
            }
        }
    }
    let mut victim = NO_SLOT;
    for (group, _) in groups {
        for n in 0..FLOW_WAYS {
            let index = places.slot(group, n);
            let Some(slot) = FlowMemory::<K, W>::slot(tables, index) else { return NO_SLOT };
            let state = slot.state();
            if state.is_busy() {
                continue;
            }
            if !state.is_live() || !is_alive(tables, index, slot, now) {
                return seize::<K, W, T>(tables, index, state, places.tag);
            }
            if victim == NO_SLOT && slot.is_evictable(now) {
                victim = index;
            }
        }
    }
    if victim == NO_SLOT { NO_SLOT } else { evict::<K, W, T>(tables, victim, hash, now, Event::Evicted) }
}

/// Takes the slot of a pair that may be evicted, and frees its other half.
#[inline(never)]
pub fn evict<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(
    tables: &T,
    index: u32,
    hash: u64,
    now: u32,
    why: Event,
) -> u32 {
    let Some(slot) = FlowMemory::<K, W>::slot(tables, index) else { return NO_SLOT };
    let state = slot.state();
    if !state.is_live() || !slot.is_evictable(now) {
        return NO_SLOT;
    }
    let taken = seize::<K, W, T>(tables, index, state, Places::of(hash, 0).tag);
    if taken != NO_SLOT && !T::DRY {
        tables.count_event(why);
        free_peer::<K, W, T>(tables, Found { index, state });
    }
    taken
}

/// Claims a slot if it still is what it was when it was judged: another CPU may have been there since.
#[inline(always)]
fn seize<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(tables: &T, index: u32, judged: State, tag: u64) -> u32 {
    let slot = FlowMemory::<K, W>::slot(tables, index);
    let (Some(slot), Some(tags)) = (slot, FlowMemory::<K, W>::tags(tables, index / FLOW_WAYS)) else { return NO_SLOT };
    if T::DRY {
        return index;
    }
    if !tables.swap(slot.state_cell(), judged.0, judged.claimed().0) {
        return NO_SLOT;
    }
    set_tag(tables, tags, index, tag);
    index
}

/// Sets the tag of a slot that is ours.
#[inline(always)]
fn set_tag<T: Tables>(tables: &T, tags: &Word, index: u32, tag: u64) {
    let at = index % FLOW_WAYS * 8;
    tables.turn(tags, ((tags.load() >> at & 0xff) ^ tag) << at);
}

/// Frees the slot at `index`, which nobody else knows of.
#[inline(always)]
pub fn release<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(tables: &T, index: u32) {
    let slot = FlowMemory::<K, W>::slot(tables, index);
    let (Some(slot), Some(tags)) = (slot, FlowMemory::<K, W>::tags(tables, index / FLOW_WAYS)) else { return };
    if !T::DRY {
        set_tag(tables, tags, index, 0);
        slot.set_state(slot.state().freed());
    }
}

/// Lets packets find both halves of a new pair, whose slots are claimed and filled.
#[inline(always)]
pub fn publish<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(tables: &T, forward: u32, back: u32, now: u32) {
    // The return half first: the first answer may come before this CPU writes the second word.
    for (index, peer) in [(back, forward), (forward, back)] {
        if let Some(slot) = FlowMemory::<K, W>::slot(tables, index) {
            slot.set_clock(now, 0);
            slot.set_state(slot.state().live(peer));
        }
    }
}

/// Frees both halves of the pair one of which was found in the slot at `index`, unless another CPU has done so since.
#[inline(never)]
pub fn release_pair<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(tables: &T, index: u32, state: State) {
    free_pair::<K, W, T>(tables, index, state);
}

/// [`release_pair`], for whoever has no more stack to give.
#[inline(always)]
pub(super) fn free_pair<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(tables: &T, index: u32, state: State) {
    if T::DRY {
        return;
    }
    let found = Found { index, state };
    let Some(slot) = FlowMemory::<K, W>::slot(tables, found.index) else { return };
    if tables.swap(slot.state_cell(), found.state.0, found.state.claimed().0) {
        free_peer::<K, W, T>(tables, found);
        release::<K, W, T>(tables, found.index);
    }
}

/// Frees the other half of a half that was found and is ours now.
#[inline(always)]
fn free_peer<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(tables: &T, found: Found) {
    if found.state.is_across() {
        return match K {
            1 => free_across::<4, 14, T>(tables, found.index, found.state.peer_across()),
            _ => free_across::<1, 6, T>(tables, found.index, found.state.peer_across()),
        };
    }
    if let Some((peer, state)) = peer_of::<K, W, T>(tables, found)
        && tables.swap(peer.state_cell(), state.0, state.claimed().0)
    {
        release::<K, W, T>(tables, found.state.peer());
    }
}

/// Frees the half in slot `peer` of the other family's table, if it still is the other half of the one in slot `index`.
#[inline(never)]
fn free_across<const P: usize, const Q: usize, T: Tables + FlowMemory<P, Q>>(tables: &T, index: u32, peer: u32) {
    if let Some((slot, state)) = peer_across::<P, Q, T>(tables, index, peer)
        && tables.swap(slot.state_cell(), state.0, state.claimed().0)
    {
        release::<P, Q, T>(tables, peer);
    }
}

/// The slot `peer` of the other family's table, if it still is the other half of the one in slot `index`, and what it is.
#[inline(always)]
pub(super) fn peer_across<const P: usize, const Q: usize, M: FlowMemory<P, Q>>(
    memory: &M,
    index: u32,
    peer: u32,
) -> Option<(&FlowSlot<P, Q>, State)> {
    let slot = memory.slot(peer)?;
    let state = slot.state();
    if state.is_live() && state.peer_across() == index { Some((slot, state)) } else { None }
}

/// The slot of the other half, if it still is the other half, and what it is.
#[inline(always)]
pub(super) fn peer_of<const K: usize, const W: usize, M: FlowMemory<K, W>>(
    memory: &M,
    found: Found,
) -> Option<(&FlowSlot<K, W>, State)> {
    let slot = memory.slot(found.state.peer())?;
    let state = slot.state();
    if state.is_live() && state.peer() == found.index { Some((slot, state)) } else { None }
}

/// What a packet says that a pair must be told.
#[derive(Clone, Copy, Debug)]
pub struct News {
    /// TCP flags; 0 for UDP.
    pub flags: u8,
    /// TCP sequence number, host order.
    pub seq: u32,
}

/// Whether a packet with these TCP flags (0 for UDP) changes more than the clock of the half whose flags are `half`.
#[inline(always)]
pub fn is_news<const K: usize>(half: u8, protocol: u8, tcp: u8) -> bool {
    let goes_on = half & Flow::<K>::RETURN != 0 || protocol != UDP && tcp & flag::SYN == 0;
    half & Flow::<K>::ESTABLISHED == 0 && goes_on || tcp & (flag::FIN | flag::RST) != 0
}

/// A half that is to be changed: its slot, and what the slot was when it was judged.
pub(super) struct Half<'a, const K: usize, const W: usize> {
    pub(super) slot: &'a FlowSlot<K, W>,
    pub(super) state: State,
    pub(super) meta: Meta,
}

impl<'a, const K: usize, const W: usize> Half<'a, K, W> {
    #[inline(always)]
    pub(super) fn read(slot: &'a FlowSlot<K, W>, state: State) -> Option<Self> {
        let meta = slot.meta();
        if slot.state() == state { Some(Self { slot, state, meta }) } else { None }
    }

    #[inline(always)]
    pub(super) fn has(&self, flag: u8) -> bool {
        self.meta.flags() & flag != 0
    }

    /// Sets flags, and the timeout where there is one to set, unless the slot is somebody else's by now.
    #[inline(always)]
    pub(super) fn mark<T: Tables>(&self, tables: &T, flags: u8, timeout_s: Option<u16>) {
        if !tables.swap(self.slot.meta_cell(), self.meta.0, self.meta.with(flags).0) {
            return;
        }
        if let Some(timeout_s) = timeout_s {
            let (cell, old, new) = self.slot.timeout_change(timeout_s);
            if self.slot.state() == self.state {
                tables.swap(cell, old, new);
            }
        }
    }

    /// Makes it lead to another router or interface, unless the slot is somebody else's by now.
    #[inline(always)]
    pub(super) fn lead<T: Tables>(&self, tables: &T, to: &Way) {
        let (cell, old, new) = self.slot.client_change(to);
        if self.slot.state() == self.state && tables.swap(cell, old, new) {
            self.slot.set_client_link(to);
        }
    }
}

/// Tells the pair one half of which was found in the slot at `index` what the packet in `room` says (RFC 5382 section 5): answered, established, closing, or that the client is somewhere else now.
#[inline(never)]
pub fn tell<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(
    tables: &T,
    index: u32,
    state: State,
    Scratch { news, from, .. }: &Scratch<K>,
) {
    let Some(slot) = FlowMemory::<K, W>::slot(tables, index) else { return };
    tell_both(tables, slot, state, || peer_of::<K, W, T>(tables, Found { index, state }), news, from);
}

/// [`tell`] for two halves wherever they are. `peer` is asked when it is needed: the verifier does not follow what else would be kept
/// until then.
#[inline(always)]
pub(super) fn tell_both<'a, const K: usize, const W: usize, const P: usize, const Q: usize, T: Tables>(
    tables: &T,
    slot: &FlowSlot<K, W>,
    state: State,
    peer: impl FnOnce() -> Option<(&'a FlowSlot<P, Q>, State)>,
    news: &News,
    from: &Way,
) {
    let Some(half) = Half::read(slot, state) else { return };
    let is_return = half.has(Flow::<K>::RETURN);
    let is_moved = !is_return && !slot.is_client(from);
    if is_moved {
        half.lead(tables, from);
        tables.count_event(Event::ClientMoved);
    }
    let Some((peer, state)) = peer() else {
        // Nothing can come back any more.
        if news.flags & (flag::FIN | flag::RST) != 0 {
            half.mark(tables, Flow::<K>::CLOSED, Some(CLOSING_TIMEOUT_S));
        }
        return;
    };
    let Some(peer) = Half::read(peer, state) else { return };
    if is_moved {
        peer.lead(tables, from);
    }
    if half.has(Flow::<K>::CLOSED) {
        return;
    }
    if news.flags & (flag::FIN | flag::RST) != 0 {
        return closing(tables, &half, &peer, news);
    }
    if half.has(Flow::<K>::ESTABLISHED) {
        return;
    }
    let is_udp = half.meta.protocol() == UDP;
    let goes_on = !is_return && news.flags & flag::SYN == 0 && peer.has(Flow::<K>::ANSWERED);
    if goes_on || is_return && is_udp {
        let timeout_s = idle_timeout(tables, half.meta.endpoint());
        half.mark(tables, Flow::<K>::ESTABLISHED, timeout_s);
        peer.mark(tables, Flow::<K>::ESTABLISHED, timeout_s);
    } else if is_return && news.flags & flag::ACK != 0 && !half.has(Flow::<K>::ANSWERED) {
        half.mark(tables, Flow::<K>::ANSWERED, None);
    }
}

#[inline(always)]
fn idle_timeout<T: Tables>(tables: &T, endpoint: EndpointId) -> Option<u16> {
    let listener = tables.endpoint(endpoint)?.listener;
    Some(tables.listener(listener)?.idle_timeout_s)
}

/// Sequence numbers that a RST may be away from what its receiver expects (RFC 5961 section 3.2 speaks of the window, which we do
/// not know). A forged one that is further away changes nothing here.
const RST_WINDOW: u32 = 1 << 20;

/// A FIN or RST: the pair is closed by a RST or by the second FIN.
#[inline(always)]
fn closing<const K: usize, const W: usize, const P: usize, const Q: usize, T: Tables>(
    tables: &T,
    half: &Half<'_, K, W>,
    peer: &Half<'_, P, Q>,
    news: &News,
) {
    let fin = if news.flags & flag::FIN != 0 { Flow::<K>::FIN } else { 0 };
    let (_, expected) = peer.slot.clock();
    // A receiver that never acknowledged anything has said nothing about what it expects.
    let is_plausible = expected == 0 || news.seq.wrapping_sub(expected).wrapping_add(RST_WINDOW) < 2 * RST_WINDOW;
    if news.flags & flag::RST != 0 && is_plausible || peer.has(fin) {
        half.mark(tables, fin | Flow::<K>::CLOSED, Some(CLOSING_TIMEOUT_S));
        peer.mark(tables, Flow::<K>::CLOSED, Some(CLOSING_TIMEOUT_S));
    } else {
        half.mark(tables, fin, None);
    }
}
