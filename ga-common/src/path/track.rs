//! Just-enough tracking: which endpoint a flow goes to whose packets stay as they are, when the table that it began with is not the
//! one in use any more.
//!
//! As long as nothing changes the table says it of every packet, and nothing is remembered. From the moment when another table is in
//! use until no flow can be left that is not remembered, the one before is known too:
//!
//! - A SYN opens a flow: it goes where the new table says, and leaves a note in an array of fixed size. A flood of SYNs overwrites
//!   notes, and takes no other memory.
//! - Any other segment whose flow is in flow memory goes where that says; one that follows a SYN of which there is a note goes after
//!   the SYN; and what is left began before, and goes where the table before says.
//! - A flow is remembered from its first segment on that is no SYN, unless both tables say the same of it and are right.
//! - A datagram is treated like such a segment, as nobody can tell a new flow, but for one: unless its flow is remembered, it does not
//!   go where the table before says if no new flows are to go there.
//!
//! When the table before is given up, all that is alive is in flow memory, or goes where the table in use says.

use super::{
    direct::opens,
    explain::{By, Stage},
    flow::{self, LIVING, NO_SLOT},
    parse::flag,
    select,
    tables::{FlowMemory, Half, Scratch, Tables},
};
use crate::{
    abi::{
        active::Before,
        entry::Endpoint,
        family::Family,
        flow::Flow,
        id::{EndpointId, ListenerId, TableId},
        limits::{FIRST_BYTES, NOTES},
        reason::Event,
    },
    wire::frame::TCP,
};

/// A SYN in a word: whose it was, where it went, and its sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Note(u64);

impl Note {
    /// A word that is no note has zero here.
    const IS_NOTE: u64 = 1 << 63;
    /// Bits of the hash that neither the index of the note nor that of the slot in a table depends on.
    const WHOSE: u64 = 0x7fff << 48;

    /// Where the note about a flow with this hash is.
    #[inline(always)]
    const fn index(hash: u64) -> u32 {
        (hash >> 8) as u32 & (NOTES - 1)
    }

    #[inline(always)]
    const fn of(hash: u64, endpoint: EndpointId, seq: u32) -> Self {
        Self(Self::IS_NOTE | hash << 16 & Self::WHOSE | (endpoint.0 as u64) << 32 | seq as u64)
    }

    /// Where the flow with this hash goes that `seq` follows the SYN of; [`EndpointId::NONE`] when the note is another one's.
    #[inline(always)]
    const fn endpoint(self, hash: u64, seq: u32) -> EndpointId {
        let is_his = (self.0 ^ (Self::IS_NOTE | hash << 16)) & (Self::IS_NOTE | Self::WHOSE) == 0;
        let ahead = seq.wrapping_sub(self.0 as u32).wrapping_sub(1);
        if is_his && ahead < FIRST_BYTES { EndpointId((self.0 >> 32) as u16) } else { EndpointId::NONE }
    }
}

/// Where a packet goes, and whether that is to be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked(pub u32);

impl Tracked {
    const NEWS: u32 = 1 << 16;
    const NOBODY: Self = Self::to(EndpointId::NONE);

    #[inline(always)]
    const fn to(endpoint: EndpointId) -> Self {
        Self(endpoint.0 as u32)
    }

    /// The endpoint; [`EndpointId::NONE`] when there is nobody.
    #[inline(always)]
    pub const fn endpoint(self) -> EndpointId {
        EndpointId(self.0 as u16)
    }

    /// Whether [`remember`] is to remember it.
    #[inline(always)]
    pub const fn is_news(self) -> bool {
        self.0 & Self::NEWS != 0
    }
}

/// Where the packet in its room goes, which `find` has looked for.
#[inline(always)]
pub fn choose<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(tables: &T) -> Tracked {
    let (Some(settings), Some(mut room)) = (tables.settings(), FlowMemory::<K, W>::room(tables)) else {
        return Tracked::NOBODY;
    };
    let room = &mut *room;
    let (id, family) = (room.service.listener, if K == 1 { Family::V4 } else { Family::V6 });
    let flags = tables.listener(id).map_or(0, |listener| listener.flags);
    // One look at the word: both tables are those of the same moment.
    let active = tables.active(id, family);
    let entry = select::entry(settings, room, flags);
    let owner = at(tables, active.table(), entry);
    let (hash, seq) = (room.hash, room.news.seq);
    let is_tcp = room.packet.tuple.protocol == TCP;
    // An ICMP error is about a flow, and says nothing of how it goes on.
    let is_own = room.packet.place.l4 != 0;
    if opens(&room.packet) {
        if let Some(note) = tables.note(Note::index(hash))
            && !T::DRY
            && owner != EndpointId::NONE
        {
            note.store(Note::of(hash, owner, seq).0);
        }
        return Tracked::to(owner);
    }
    let past = match active.before() {
        Before::Same | Before::Remembered => EndpointId::NONE,
        Before::Table(table) => at(tables, table, entry),
    };
    let past = if is_there(tables, past, id) { past } else { owner };
    let before = if is_tcp || is_chosen(tables, past) { past } else { owner };
    let noted = match tables.note(Note::index(hash)) {
        Some(note) if is_tcp && is_own => Note(note.load()).endpoint(hash, seq),
        Some(_) | None => EndpointId::NONE,
    };
    let slot = room.back;
    let kept = kept::<K, W, T>(tables, room, slot);
    let (chosen, by) = if is_there(tables, noted, id) {
        (noted, By::Note)
    } else if is_there(tables, kept, id) {
        (kept, By::Memory)
    } else {
        (before, By::Before)
    };
    if T::DRY {
        select::tell(tables, &Stage::tracked(chosen, by));
    }
    let tracked = Tracked::to(chosen);
    if T::DRY || chosen == EndpointId::NONE || !is_own {
        return tracked;
    }
    if slot != NO_SLOT {
        keep::<K, W, T>(tables, slot, chosen);
        return tracked;
    }
    let is_over = room.packet.flags & flag::RST != 0;
    if (chosen == owner && chosen == past) || is_over { tracked } else { Tracked(tracked.0 | Tracked::NEWS) }
}

/// Looks for the flow of the packet in its room in flow memory, and leaves there where it is.
#[inline(always)]
pub(super) fn find<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(tables: &T, room: &mut Scratch<K>) {
    (room.reply, room.forward) = (room.packet.tuple.alone(), NO_SLOT);
    // A SYN is not asked what was before.
    room.back = match opens(&room.packet) {
        true => NO_SLOT,
        false => FlowMemory::<K, W>::taken(tables, room, Half::Return, room.hash, LIVING),
    };
}

/// Who stands in an entry of a table.
#[inline(always)]
fn at<T: Tables>(tables: &T, table: TableId, entry: u32) -> EndpointId {
    if table == TableId::EMPTY { EndpointId::NONE } else { tables.choose(table, entry).unwrap_or(EndpointId::NONE) }
}

/// Whether a flow of `listener` that began there may go on there.
#[inline(always)]
fn is_there<T: Tables>(tables: &T, endpoint: EndpointId, listener: ListenerId) -> bool {
    tables.endpoint(endpoint).is_some_and(|to| to.listener == listener && to.flags != 0)
}

/// Whether new flows are given to an endpoint.
#[inline(always)]
fn is_chosen<T: Tables>(tables: &T, endpoint: EndpointId) -> bool {
    tables.endpoint(endpoint).is_some_and(|to| to.flags & (Endpoint::IN_USE | Endpoint::PASSED_OVER) == Endpoint::IN_USE)
}

/// Where the slot at `index`, in which the flow of the packet in `room` was found, says that it goes.
#[inline(always)]
fn kept<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(tables: &T, room: &Scratch<K>, index: u32) -> EndpointId {
    let Some(slot) = FlowMemory::<K, W>::slot(tables, index) else { return EndpointId::NONE };
    let state = slot.state();
    let meta = slot.meta();
    // What was read counts only if it was the same flow's all the while.
    let is_his = state.is_live() && slot.is_for(&room.reply) && slot.state() == state;
    if is_his { meta.endpoint() } else { EndpointId::NONE }
}

/// Notes in the slot at `index` that its flow was heard of again, and where it goes.
#[inline(always)]
fn keep<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(tables: &T, index: u32, endpoint: EndpointId) {
    let Some(slot) = FlowMemory::<K, W>::slot(tables, index) else { return };
    let (meta, now) = (slot.meta(), tables.tick());
    if slot.clock() != (now, 0) {
        slot.set_clock(now, 0);
    }
    // What came once may be part of a flood; what came again is not to make room for others.
    let new = meta.with(Flow::<K>::ESTABLISHED).to(endpoint);
    if new != meta {
        tables.swap(slot.meta_cell(), meta.0, new.0);
    }
}

/// Remembers where the flow of the packet in its room goes, if there is a slot for it.
#[inline(always)]
pub fn remember<const K: usize, const W: usize, T: Tables + FlowMemory<K, W>>(tables: &T) {
    let Some(room) = FlowMemory::<K, W>::room(tables) else { return };
    let Some(listener) = tables.listener(room.service.listener) else { return };
    let index = FlowMemory::<K, W>::claim(tables, room.hash);
    if index == NO_SLOT {
        return tables.count_event(Event::Untracked);
    }
    // Another CPU does the same, or is about to.
    if FlowMemory::<K, W>::taken(tables, &room, Half::Return, room.hash, index) != NO_SLOT {
        return flow::release::<K, W, T>(tables, index);
    }
    let Some(slot) = FlowMemory::<K, W>::slot(tables, index) else { return };
    slot.store(&Flow {
        tuple: room.reply,
        flags: 0,
        endpoint: room.endpoint.0,
        new_addrs: room.packet.tuple.addrs,
        new_ports: room.packet.tuple.ports,
        ifindex: 0,
        dst_mac: [0; 6],
        src_mac: [0; 6],
        tags: 0,
        timeout_s: listener.idle_timeout_s,
    });
    slot.set_clock(tables.tick(), 0);
    slot.set_state(slot.state().live_alone());
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: u64 = 0x0123_4567_89ab_cdef;

    #[test]
    fn a_note_is_for_the_first_segments_of_its_connection() {
        let note = Note::of(HASH, EndpointId(16_383), u32::MAX);
        for (seq, is_first) in [(u32::MAX, false), (0, true), (FIRST_BYTES - 1, true), (FIRST_BYTES, false), (1 << 31, false)] {
            let found = if is_first { EndpointId(16_383) } else { EndpointId::NONE };
            assert_eq!(note.endpoint(HASH, seq), found, "{seq:x}");
        }
    }

    #[test]
    fn a_note_is_not_anothers_nor_is_a_word_that_was_never_written() {
        let note = Note::of(HASH, EndpointId(1), 7);
        for bit in 32..47 {
            assert_eq!(note.endpoint(HASH ^ 1 << bit, 8), EndpointId::NONE, "{bit}");
        }
        assert_eq!(Note(0).endpoint(0, 1), EndpointId::NONE);
        assert!((0..64).all(|bit| Note::index(HASH ^ 1 << bit) < NOTES));
    }
}
