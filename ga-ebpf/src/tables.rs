//! The tables of a packet's way, over BPF maps.

use core::{
    hint::black_box,
    intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xor},
};

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_smp_processor_id, generated::bpf_ktime_get_coarse_ns},
};
use ga_common::{
    abi::{
        active::Active,
        custom::{Found, Mapping},
        entry::{Address, AddressKey, Egress, Endpoint, Hop, Listener, Service, ServiceKey, Settings, mtu_place},
        family::Family,
        flow::{FlowSlot4, FlowSlot6, State, TICK_SHIFT},
        id::{EndpointId, InstanceId, ListenerId, TableId},
        limits::{ADMISSION_TICKS, TABLE_SIZE, TOLD_AT_ONCE},
        reason::Event,
        sheet::{Borders4, Borders6},
    },
    path::{
        acl,
        tables::{Direction, FlowMemory, Half, Scratch, Tables},
        track::Tracked,
        verdict::Outcome,
    },
    word::Word,
};

use crate::{
    apart::{
        ga_acl, ga_claim4, ga_claim6, ga_custom, ga_elsewhere, ga_give_up4, ga_give_up6, ga_keep, ga_remember4, ga_remember6,
        ga_reuse4, ga_reuse6, ga_taken4, ga_taken6, ga_track4, ga_track6, ga_unreachable4, ga_unreachable6,
    },
    maps,
};

/// Whether one more is `allowed` in a period, which holds when it began (low half), and how many there were.
#[inline(always)]
fn is_one_of(period: &mut u64, allowed: u32, now: u32) -> bool {
    if now.wrapping_sub(*period as u32) >= ADMISSION_TICKS {
        *period = u64::from(now);
    }
    let taken = (*period >> 32) as u32;
    if taken < allowed {
        *period += 1 << 32;
    }
    taken < allowed
}

/// All maps.
pub(crate) struct KernelTables;

impl FlowMemory<1, 6> for KernelTables {
    type Room<'a> = &'a mut Scratch<1>;

    #[inline(always)]
    fn room(&self) -> Option<&mut Scratch<1>> {
        // SAFETY: the pointer is into this CPU's copy of a map value, and a packet is done before the next one comes.
        maps::ROOM4.get_ptr_mut(0).map(|room| unsafe { &mut *room })
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<&FlowSlot4> {
        maps::FLOWS4.get(index)
    }

    #[inline(always)]
    fn tags(&self, group: u32) -> Option<&Word> {
        maps::TAGS4.get(group)
    }

    #[inline(always)]
    fn mask(&self, settings: &Settings) -> u32 {
        settings.flow4_mask
    }

    #[inline(always)]
    fn claim(&self, hash: u64) -> u32 {
        black_box(ga_claim4(hash))
    }

    #[inline(always)]
    fn reuse(&self, index: u32, hash: u64) -> u32 {
        black_box(ga_reuse4(index, hash))
    }

    #[inline(always)]
    fn gives_up(&self, index: u32, state: State, opens: bool) -> bool {
        black_box(ga_give_up4(index, state.0, opens.into())) != 0
    }

    #[inline(always)]
    fn is_unreachable(&self, index: u32, state: State) -> bool {
        black_box(ga_unreachable4(index, state.0)) != 0
    }

    #[inline(always)]
    fn tracked(&self) -> Tracked {
        Tracked(black_box(ga_track4()))
    }

    #[inline(always)]
    fn remember(&self) {
        black_box(ga_remember4());
    }

    #[inline(always)]
    fn taken(&self, _room: &Scratch<1>, which: Half, hash: u64, mine: u32) -> u32 {
        black_box(ga_taken4((which == Half::Return).into(), hash, mine))
    }
}

impl FlowMemory<4, 14> for KernelTables {
    type Room<'a> = &'a mut Scratch<4>;

    #[inline(always)]
    fn room(&self) -> Option<&mut Scratch<4>> {
        // SAFETY: the pointer is into this CPU's copy of a map value, and a packet is done before the next one comes.
        maps::ROOM6.get_ptr_mut(0).map(|room| unsafe { &mut *room })
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<&FlowSlot6> {
        maps::FLOWS6.get(index)
    }

    #[inline(always)]
    fn tags(&self, group: u32) -> Option<&Word> {
        maps::TAGS6.get(group)
    }

    #[inline(always)]
    fn mask(&self, settings: &Settings) -> u32 {
        settings.flow6_mask
    }

    #[inline(always)]
    fn claim(&self, hash: u64) -> u32 {
        black_box(ga_claim6(hash))
    }

    #[inline(always)]
    fn reuse(&self, index: u32, hash: u64) -> u32 {
        black_box(ga_reuse6(index, hash))
    }

    #[inline(always)]
    fn gives_up(&self, index: u32, state: State, opens: bool) -> bool {
        black_box(ga_give_up6(index, state.0, opens.into())) != 0
    }

    #[inline(always)]
    fn is_unreachable(&self, index: u32, state: State) -> bool {
        black_box(ga_unreachable6(index, state.0)) != 0
    }

    #[inline(always)]
    fn tracked(&self) -> Tracked {
        Tracked(black_box(ga_track6()))
    }

    #[inline(always)]
    fn remember(&self) {
        black_box(ga_remember6());
    }

    #[inline(always)]
    fn taken(&self, _room: &Scratch<4>, which: Half, hash: u64, mine: u32) -> u32 {
        black_box(ga_taken6((which == Half::Return).into(), hash, mine))
    }
}

impl Tables for KernelTables {
    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        maps::SETTINGS.get(0).filter(|settings| settings.abi != 0)
    }

    #[inline(always)]
    fn tick(&self) -> u32 {
        // SAFETY: a helper call without pointers.
        (unsafe { bpf_ktime_get_coarse_ns() } >> TICK_SHIFT) as u32
    }

    #[inline(always)]
    fn cpu(&self) -> u32 {
        // SAFETY: a helper call without pointers.
        unsafe { bpf_get_smp_processor_id() }
    }

    #[inline(always)]
    fn filter(&self, word: u32) -> u64 {
        maps::FILTER.get(word).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn direct(&self, word: u32) -> u64 {
        maps::DIRECT.get(word).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn gateway(&self, word: u32) -> u64 {
        maps::GATEWAY.get(word).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn keep(&self, family: Family) -> Outcome {
        Outcome::from_bits(black_box(ga_keep(family as u32)))
    }

    #[inline(always)]
    fn address(&self, key: &AddressKey) -> Option<Address> {
        // SAFETY: the value is copied at once; the map is preallocated and an entry is never reused for another address while
        // this program runs (removal waits for a grace period).
        unsafe { maps::ADDRESSES.get(key) }.copied()
    }

    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        // SAFETY: as for addresses.
        unsafe { maps::SERVICES.get(key) }.copied()
    }

    #[inline(always)]
    fn listener(&self, id: ListenerId) -> Option<&Listener> {
        maps::LISTENERS.get(u32::from(id.0))
    }

    #[inline(always)]
    fn active(&self, listener: ListenerId, family: Family) -> Active {
        Active(maps::ACTIVE.get(family.active_index(listener)).copied().unwrap_or(0))
    }

    #[inline(always)]
    fn note(&self, index: u32) -> Option<&Word> {
        maps::SYNS.get(index)
    }

    #[inline(always)]
    fn choose(&self, table: TableId, slot: u32) -> Option<EndpointId> {
        let entries = maps::TABLES.get_value(table.0, &0)?;
        let slot = slot as usize;
        if slot < TABLE_SIZE { Some(entries[slot]) } else { None }
    }

    #[inline(always)]
    fn endpoint(&self, id: EndpointId) -> Option<&Endpoint> {
        maps::ENDPOINTS.get(u32::from(id.0))
    }

    #[inline(always)]
    fn egress(&self, id: InstanceId) -> Option<&Egress> {
        maps::EGRESS.get(u32::from(id.0))
    }

    #[inline(always)]
    fn acl4(&self, number: u32) -> Option<&Borders4> {
        maps::ACLS4.get_value(number, &0)
    }

    #[inline(always)]
    fn acl6(&self, number: u32) -> Option<&Borders6> {
        maps::ACLS6.get_value(number, &0)
    }

    #[inline(always)]
    fn denies(&self, word: u32, source: &AddressKey) -> bool {
        let [high, low] = acl::halves(source);
        black_box(ga_acl(word, high, low)) != 0
    }

    #[inline(always)]
    fn mapping(&self, number: u32) -> Option<&Mapping> {
        maps::MAPPINGS.get_value(number, &0)
    }

    #[inline(always)]
    fn leads(&self, number: u32, port: u32, protocol: u32) -> Found {
        Found(black_box(ga_custom(number, port, protocol)))
    }

    #[inline(always)]
    fn host(&self, address: [u8; 4]) -> Option<&Hop> {
        // SAFETY: an entry is replaced as a whole, and the old one is kept until this program is done (RCU).
        unsafe { maps::HOSTS.get(&address) }.filter(|hop| hop.ifindex != 0)
    }

    #[inline(always)]
    fn want(&self, address: [u8; 4]) {
        let is_new = maps::HOSTS.insert(&address, &Hop::default(), u64::from(BPF_NOEXIST)).is_ok();
        if is_new {
            self.count_event(Event::HostWanted);
        }
    }

    #[inline(always)]
    fn hop(&self, id: EndpointId) -> Option<&Hop> {
        let hop = *maps::ENDPOINT_HOPS.get(u32::from(id.0))?;
        if hop == 0 { None } else { maps::HOPS.get(hop) }
    }

    #[inline(always)]
    fn admit(&self, id: ListenerId, allowed: u32, now: u32) -> bool {
        let Some(period) = maps::ADMISSIONS.get_ptr_mut(u32::from(id.0)) else { return true };
        // SAFETY: the pointer is into this CPU's copy of a map value, which nobody else writes.
        is_one_of(unsafe { &mut *period }, allowed, now)
    }

    #[inline(always)]
    fn mtu(&self, ifindex: u32, tags: u32) -> u32 {
        maps::MTUS.get(mtu_place(ifindex, tags)).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn may_tell(&self, now: u32) -> bool {
        let Some(period) = maps::TOLD.get_ptr_mut(0) else { return false };
        // SAFETY: as above.
        is_one_of(unsafe { &mut *period }, TOLD_AT_ONCE, now)
    }

    #[inline(always)]
    fn turn(&self, cell: &Word, bits: u64) {
        // SAFETY: `cell` is a live, aligned word of a map value.
        unsafe { atomic_xor::<u64, u64, { AtomicOrdering::SeqCst }>(cell.as_ptr(), bits) };
    }

    #[inline(always)]
    fn swap(&self, cell: &Word, old: u64, new: u64) -> bool {
        // SAFETY: `cell` is a live, aligned word of a map value.
        unsafe { atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(cell.as_ptr(), old, new).1 }
    }

    #[inline(always)]
    fn count(&self, id: EndpointId, direction: Direction, bytes: u64) {
        if let Some(counters) = maps::COUNTERS.get_ptr_mut(u32::from(id.0)) {
            // SAFETY: the pointer is into this CPU's copy of a map value, which nobody else writes.
            let counters = unsafe { &mut *counters };
            match direction {
                Direction::Forward => {
                    counters.forward_packets += 1;
                    counters.forward_bytes += bytes;
                }
                Direction::Return => {
                    counters.return_packets += 1;
                    counters.return_bytes += bytes;
                }
            }
        }
    }

    #[inline(always)]
    fn count_flow(&self, id: EndpointId) {
        if let Some(counters) = maps::COUNTERS.get_ptr_mut(u32::from(id.0)) {
            // SAFETY: as above.
            unsafe { (*counters).new_flows += 1 };
        }
    }

    #[inline(always)]
    fn elsewhere(&self, table: TableId, hash: u64, avoid: EndpointId) -> u32 {
        black_box(ga_elsewhere(table.0, hash, avoid.0.into()))
    }

    #[inline(always)]
    fn count_failure(&self, id: EndpointId) {
        if let Some(counters) = maps::COUNTERS.get_ptr_mut(u32::from(id.0)) {
            // SAFETY: as above.
            unsafe { (*counters).failures += 1 };
        }
        self.count_event(Event::EndpointFailed);
    }

    #[inline(always)]
    fn count_served(&self, id: ListenerId, is_opening: bool, bytes: u64) {
        if let Some(counters) = maps::SERVED.get_ptr_mut(u32::from(id.0)) {
            // SAFETY: as above.
            let counters = unsafe { &mut *counters };
            counters.packets += 1;
            counters.bytes += bytes;
            counters.openings += u64::from(is_opening);
        }
    }

    #[inline(always)]
    fn count_event(&self, event: Event) {
        if let Some(counter) = maps::EVENTS.get_ptr_mut(event as u32) {
            // SAFETY: as above.
            unsafe { *counter += 1 };
        }
    }
}
