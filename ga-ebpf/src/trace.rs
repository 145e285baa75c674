//! The program that `ga trace` runs on one packet: the same way through the same tables, of which nothing is written, and a note
//! of what every stage found.

use core::hint::black_box;

use aya_ebpf::{
    bindings::{
        xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
        xdp_md,
    },
    btf_maps::Array,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use ga_common::{
    abi::{
        active::Active,
        custom::Found,
        entry::{Address, AddressKey, Egress, Endpoint, Hop, Listener, Service, ServiceKey, Settings},
        family::Family,
        flow::{FlowSlot4, FlowSlot6, State},
        id::{EndpointId, InstanceId, ListenerId, TableId},
        limits::ADMISSION_TICKS,
        reason::{Drop, Event},
        sheet::{Borders4, Borders6},
    },
    path::{
        self, cross,
        explain::{STAGES, Stage, Trace},
        fail, flow, gateway, refuse,
        tables::{Direction, FlowMemory, Half, Scratch, Tables},
        track::{self, Tracked},
        verdict::{Outcome, Verdict},
    },
    word::Word,
};

use crate::{
    apart::{ga_elsewhere, ga_refuse},
    frame::{FarFrame, XdpFrame},
    maps,
    tables::KernelTables,
};

/// What the packet met; one packet at a time.
#[btf_map]
static TRACE: Array<Trace, 1> = Array::new();
#[btf_map]
static TRACE_ROOM4: Array<Scratch<1>, 1> = Array::new();
#[btf_map]
static TRACE_ROOM6: Array<Scratch<4>, 1> = Array::new();

/// Says what `ga` would do with a packet.
#[xdp]
pub(crate) fn ga_trace(ctx: XdpContext) -> u32 {
    let outcome = match path::flows(&mut XdpFrame::new(&ctx), &TraceTables) {
        path::OTHER_PROTOCOL => Outcome::from_bits(black_box(ga_trace_icmp(ctx.ctx))),
        outcome => outcome,
    };
    let outcome = match outcome {
        path::OTHER_PROTOCOL => Outcome::from_bits(black_box(ga_trace_piece(ctx.ctx))),
        outcome => outcome,
    };
    let outcome = Outcome::from_bits(black_box(ga_trace_outcome(outcome.bits())));
    let outcome = match outcome.is_across() {
        true => cross::decide(&mut TraceAcross(ctx.ctx), outcome),
        false => outcome,
    };
    let outcome =
        if outcome.is_direct() { Outcome::from_bits(black_box(ga_trace_direct(ctx.ctx, outcome.bits()))) } else { outcome };
    // What is too big is told to nobody for its being asked about.
    let is_answered = refuse::is_refused(outcome) && outcome.verdict() != Verdict::Drop(Drop::TooBig);
    let outcome = if is_answered { Outcome::from_bits(black_box(ga_refuse(ctx.ctx, outcome.bits()))) } else { outcome };
    if outcome.is_answered() {
        TraceTables.explain(Stage::refused);
    }
    TraceTables.explain(|| Stage::verdict(outcome));
    match outcome.verdict() {
        Verdict::Pass(_) => XDP_PASS,
        Verdict::Drop(_) => XDP_DROP,
        Verdict::Send(_) => XDP_TX,
    }
}

/// The same number, of which the verifier knows nothing any more: it goes through what follows once, and not once for every outcome.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_trace_outcome(bits: u64) -> u64 {
    black_box(bits)
}

/// The same for what [`crate::apart`] has in a function of its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_trace_icmp(ctx: *mut xdp_md) -> u64 {
    path::icmp::packet(&mut FarFrame::new(ctx), &TraceTables).bits()
}

/// As [`crate::apart::ga_piece`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_trace_piece(ctx: *mut xdp_md) -> u64 {
    path::host::piece(&mut FarFrame::new(ctx), &TraceTables).bits()
}

/// As [`crate::apart::ga_known_across`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_trace_known_across(ctx: *mut xdp_md, asked: u64) -> u64 {
    cross::known(&mut FarFrame::new(ctx), &TraceTables, Outcome::from_bits(asked)).bits()
}

/// As [`crate::apart::ga_open_across`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_trace_open_across(asked: u64) -> u64 {
    cross::open(&TraceTables, Outcome::from_bits(asked)).bits()
}

/// As [`crate::apart::ga_claim4`], which nothing is claimed by.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_trace_claim4(hash: u64) -> u32 {
    flow::claim::<1, 6, TraceTables>(&TraceTables, hash, TraceTables.tick())
}

/// As [`crate::apart::ga_taken6`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_trace_taken6(is_reply: u32, hash: u64, mine: u32) -> u32 {
    let Some(room) = FlowMemory::<4, 14>::room(&TraceTables) else { return mine };
    let which = if is_reply != 0 { Half::Return } else { Half::Forward };
    flow::taken::<4, 14, TraceTables>(&TraceTables, room, which, hash, mine)
}

/// As [`crate::apart::ga_claim6`], which nothing is claimed by.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_trace_claim6(hash: u64) -> u32 {
    flow::claim::<4, 14, TraceTables>(&TraceTables, hash, TraceTables.tick())
}

/// As [`crate::apart::ga_taken4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_trace_taken4(is_reply: u32, hash: u64, mine: u32) -> u32 {
    let Some(room) = FlowMemory::<1, 6>::room(&TraceTables) else { return mine };
    let which = if is_reply != 0 { Half::Return } else { Half::Forward };
    flow::taken::<1, 6, TraceTables>(&TraceTables, room, which, hash, mine)
}

/// As [`crate::apart::ga_pair_across`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_trace_pair_across(asked: u64, answered: u64) -> u64 {
    cross::pair(&TraceTables, Outcome::from_bits(asked), Outcome::from_bits(answered)).bits()
}

/// As [`crate::apart::ga_fit_across`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_trace_fit_across(ctx: *mut xdp_md, asked: u64) -> u64 {
    cross::fit(&mut FarFrame::new(ctx), &TraceTables, Outcome::from_bits(asked)).bits()
}

/// As [`crate::apart::ga_translate`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_trace_translate(ctx: *mut xdp_md, asked: u64) -> u64 {
    cross::translate(&mut FarFrame::new(ctx), &TraceTables, Outcome::from_bits(asked)).bits()
}

/// As [`crate::apart::ga_tell_across`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_trace_tell_across(ctx: *mut xdp_md, asked: u64) -> u64 {
    cross::tell(&mut FarFrame::new(ctx), &TraceTables, Outcome::from_bits(asked)).bits()
}

/// As [`crate::apart::ga_report_across`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_trace_report_across(ctx: *mut xdp_md, asked: u64) -> u64 {
    cross::report(&mut FarFrame::new(ctx), &TraceTables, Outcome::from_bits(asked)).bits()
}

/// The steps of [`cross`], of which nothing is written.
struct TraceAcross(*mut xdp_md);

impl cross::Steps for TraceAcross {
    #[inline(always)]
    fn known(&mut self, asked: Outcome) -> Outcome {
        Outcome::from_bits(black_box(ga_trace_known_across(self.0, asked.bits())))
    }

    #[inline(always)]
    fn open(&mut self, asked: Outcome) -> Outcome {
        Outcome::from_bits(black_box(ga_trace_open_across(asked.bits())))
    }

    #[inline(always)]
    fn answer(&mut self, asked: Outcome) -> Outcome {
        cross::answer(&TraceTables, asked)
    }

    #[inline(always)]
    fn pair(&mut self, asked: Outcome, answered: Outcome) -> Outcome {
        Outcome::from_bits(black_box(ga_trace_pair_across(asked.bits(), answered.bits())))
    }

    #[inline(always)]
    fn fit(&mut self, asked: Outcome) -> Outcome {
        Outcome::from_bits(black_box(ga_trace_fit_across(self.0, asked.bits())))
    }

    #[inline(always)]
    fn translate(&mut self, asked: Outcome) -> Outcome {
        Outcome::from_bits(black_box(ga_trace_translate(self.0, asked.bits())))
    }

    #[inline(always)]
    fn tell(&mut self, asked: Outcome) -> Outcome {
        Outcome::from_bits(black_box(ga_trace_tell_across(self.0, asked.bits())))
    }

    #[inline(always)]
    fn report(&mut self, asked: Outcome) -> Outcome {
        Outcome::from_bits(black_box(ga_trace_report_across(self.0, asked.bits())))
    }
}

/// [`fail::gives_up`](path::fail::gives_up) of an IPv4 half, were it asked again now.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_trace_give_up4(index: u32, state: u64, opens: u32) -> u32 {
    fail::gives_up::<1, 6, TraceTables>(&TraceTables, index, State(state), opens != 0).into()
}

/// The same of an IPv6 half.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_trace_give_up6(index: u32, state: u64, opens: u32) -> u32 {
    fail::gives_up::<4, 14, TraceTables>(&TraceTables, index, State(state), opens != 0).into()
}

/// As [`crate::apart::ga_track4`], which nothing is remembered by.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_trace_track4() -> u32 {
    track::choose::<1, 6, TraceTables>(&TraceTables).0
}

/// As [`crate::apart::ga_track6`], which nothing is remembered by.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_trace_track6() -> u32 {
    track::choose::<4, 14, TraceTables>(&TraceTables).0
}

/// The same for [`path::direct::packet`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_trace_direct(ctx: *mut xdp_md, asked: u64) -> u64 {
    path::direct::packet(&mut FarFrame::new(ctx), &TraceTables, Outcome::from_bits(asked)).bits()
}

/// As [`crate::apart::ga_keep`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_trace_keep(family: u32) -> u64 {
    let family = if family == Family::V4 as u32 { Family::V4 } else { Family::V6 };
    gateway::answer(&TraceTables, family).bits()
}

/// All maps, to be looked at only.
struct TraceTables;

impl FlowMemory<1, 6> for TraceTables {
    type Room<'a> = &'a mut Scratch<1>;

    #[inline(always)]
    fn room(&self) -> Option<&mut Scratch<1>> {
        // SAFETY: the agent traces one packet at a time.
        TRACE_ROOM4.get_ptr_mut(0).map(|room| unsafe { &mut *room })
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
        black_box(ga_trace_claim4(hash))
    }

    #[inline(always)]
    fn tracked(&self) -> Tracked {
        Tracked(black_box(ga_trace_track4()))
    }

    #[inline(always)]
    fn taken(&self, _room: &Scratch<1>, which: Half, hash: u64, mine: u32) -> u32 {
        black_box(ga_trace_taken4(u32::from(which == Half::Return), hash, mine))
    }

    #[inline(always)]
    fn gives_up(&self, index: u32, state: State, opens: bool) -> bool {
        black_box(ga_trace_give_up4(index, state.0, opens.into())) != 0
    }
}

impl FlowMemory<4, 14> for TraceTables {
    type Room<'a> = &'a mut Scratch<4>;

    #[inline(always)]
    fn room(&self) -> Option<&mut Scratch<4>> {
        // SAFETY: the agent traces one packet at a time.
        TRACE_ROOM6.get_ptr_mut(0).map(|room| unsafe { &mut *room })
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
        black_box(ga_trace_claim6(hash))
    }

    #[inline(always)]
    fn tracked(&self) -> Tracked {
        Tracked(black_box(ga_trace_track6()))
    }

    #[inline(always)]
    fn taken(&self, _room: &Scratch<4>, which: Half, hash: u64, mine: u32) -> u32 {
        black_box(ga_trace_taken6(u32::from(which == Half::Return), hash, mine))
    }

    #[inline(always)]
    fn gives_up(&self, index: u32, state: State, opens: bool) -> bool {
        black_box(ga_trace_give_up6(index, state.0, opens.into())) != 0
    }
}

impl Tables for TraceTables {
    const DRY: bool = true;

    #[inline(always)]
    fn explain(&self, stage: impl FnOnce() -> Stage) {
        let Some(trace) = TRACE.get_ptr_mut(0) else {
            return;
        };
        // SAFETY: the agent traces one packet at a time.
        let trace = unsafe { &mut *trace };
        let at = black_box(trace.count as usize);
        trace.count += 1;
        if at < STAGES {
            trace.stages[at] = stage();
        }
    }

    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        KernelTables.settings()
    }

    #[inline(always)]
    fn tick(&self) -> u32 {
        KernelTables.tick()
    }

    #[inline(always)]
    fn cpu(&self) -> u32 {
        KernelTables.cpu()
    }

    #[inline(always)]
    fn filter(&self, word: u32) -> u64 {
        KernelTables.filter(word)
    }

    #[inline(always)]
    fn direct(&self, word: u32) -> u64 {
        KernelTables.direct(word)
    }

    #[inline(always)]
    fn gateway(&self, word: u32) -> u64 {
        KernelTables.gateway(word)
    }

    #[inline(always)]
    fn keep(&self, family: Family) -> Outcome {
        Outcome::from_bits(black_box(ga_trace_keep(family as u32)))
    }

    #[inline(always)]
    fn address(&self, key: &AddressKey) -> Option<Address> {
        KernelTables.address(key)
    }

    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        KernelTables.service(key)
    }

    #[inline(always)]
    fn listener(&self, id: ListenerId) -> Option<&Listener> {
        maps::LISTENERS.get(u32::from(id.0))
    }

    #[inline(always)]
    fn active(&self, listener: ListenerId, family: Family) -> Active {
        KernelTables.active(listener, family)
    }

    #[inline(always)]
    fn note(&self, index: u32) -> Option<&Word> {
        KernelTables.note(index)
    }

    #[inline(always)]
    fn choose(&self, table: TableId, slot: u32) -> Option<EndpointId> {
        KernelTables.choose(table, slot)
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
        KernelTables.denies(word, source)
    }

    #[inline(always)]
    fn leads(&self, number: u32, port: u32, protocol: u32) -> Found {
        KernelTables.leads(number, port, protocol)
    }

    #[inline(always)]
    fn host(&self, address: [u8; 4]) -> Option<&Hop> {
        // SAFETY: an entry is replaced as a whole, and the old one is kept until this program is done (RCU).
        unsafe { maps::HOSTS.get(&address) }.filter(|hop| hop.ifindex != 0)
    }

    #[inline(always)]
    fn hop(&self, id: EndpointId) -> Option<&Hop> {
        let hop = *maps::ENDPOINT_HOPS.get(u32::from(id.0))?;
        if hop == 0 { None } else { maps::HOPS.get(hop) }
    }

    /// Whether it would be admitted on this CPU; that it was asked is not counted.
    #[inline(always)]
    fn admit(&self, id: ListenerId, allowed: u32, now: u32) -> bool {
        let Some(period) = maps::ADMISSIONS.get(u32::from(id.0)) else {
            return true;
        };
        now.wrapping_sub(*period as u32) >= ADMISSION_TICKS || ((*period >> 32) as u32) < allowed
    }

    #[inline(always)]
    fn mtu(&self, ifindex: u32, tags: u32) -> u32 {
        KernelTables.mtu(ifindex, tags)
    }

    #[inline(always)]
    fn may_tell(&self, _now: u32) -> bool {
        true
    }

    #[inline(always)]
    fn turn(&self, _cell: &Word, _bits: u64) {}

    #[inline(always)]
    fn swap(&self, _cell: &Word, _old: u64, _new: u64) -> bool {
        true
    }

    #[inline(always)]
    fn count(&self, _id: EndpointId, _direction: Direction, _bytes: u64) {}

    #[inline(always)]
    fn count_flow(&self, _id: EndpointId) {}

    #[inline(always)]
    fn elsewhere(&self, table: TableId, hash: u64, avoid: EndpointId) -> u32 {
        black_box(ga_elsewhere(table.0, hash, avoid.0.into()))
    }

    #[inline(always)]
    fn count_failure(&self, _id: EndpointId) {}

    #[inline(always)]
    fn count_served(&self, _id: ListenerId, _is_opening: bool, _bytes: u64) {}

    #[inline(always)]
    fn count_event(&self, _event: Event) {}
}
