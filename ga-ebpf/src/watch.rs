//! The program that `ga watch` and `ga capture` put in the place of `ga` while they run: the same way of a packet, and a few of
//! them told of. What it costs, `ga` does not pay.

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_md,
    btf_maps::{Array, PerCpuArray, RingBuf},
    helpers::{bpf_ktime_get_ns, bpf_xdp_load_bytes},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use ga_common::{
    path::{
        tables::Tables as _,
        verdict::{Outcome, Verdict},
    },
    watch::{EVENT_LEN, Event, SNAP, Seen, Watch, ends, kind},
    wire::frame::Frame as _,
    word::Word,
};

use crate::{frame::XdpFrame, tables::KernelTables};

/// What to tell of.
#[btf_map]
static WATCH: Array<Watch, 1> = Array::new();
/// How much was told lately: the second in the upper half, the number in the lower.
#[btf_map]
static BUDGET: Array<Word, 1> = Array::new();
#[btf_map]
static SEEN: PerCpuArray<Seen, 1> = PerCpuArray::new();
/// The records of the packet at hand: as it came, as it is sent.
#[btf_map]
static RECORDS: PerCpuArray<Record, 2> = PerCpuArray::new();
/// Captured frames on their way to the agent; the size is set when the object is loaded.
#[btf_map]
static CAPTURE: RingBuf<Record, 4096> = RingBuf::new();

/// An event and the frame it is about.
#[repr(C)]
struct Record {
    event: Event,
    bytes: [u8; SNAP],
    /// Whether anybody wants to know.
    is_on: u64,
}

/// Every packet, as `ga` has it, and some of them told of.
///
/// What is known of a packet goes from stage to stage through memory and never through registers: the verifier goes through
/// each stage once, and not once for each way of a packet through the stage before.
#[xdp]
pub(crate) fn ga_watch(ctx: XdpContext) -> u32 {
    before(ctx.as_ptr().cast());
    let outcome = crate::decide(&ctx);
    note(outcome);
    let action = crate::act(&ctx, outcome);
    after(ctx.as_ptr().cast());
    action
}

/// Notes the packet as it came.
#[inline(never)]
fn before(xdp: *mut xdp_md) {
    let ctx = XdpContext::new(xdp);
    let (Some(watch), Some(record)) = (WATCH.get(0), RECORDS.get_ptr_mut(0)) else { return };
    // SAFETY: a helper call without pointers.
    let ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: this CPU's copy, and no other packet before this one is through.
    let record = unsafe { &mut *record };
    record.event.ns = ns;
    record.is_on = 0;
    if ns >= watch.until_ns {
        return;
    }
    let mut frame = XdpFrame::new(&ctx);
    record.is_on = 1;
    record.event.ifindex = frame.ifindex();
    record.event.cpu = KernelTables.cpu();
    record.event.len = frame.len() as u32;
    record.event.part = 0;
    record.event.before = ends(&mut frame).unwrap_or_default();
    record.event.snapped = snap(&ctx, watch, &mut record.bytes);
}

/// A note of what becomes of it.
#[inline(always)]
fn note(outcome: Outcome) {
    if let Some(record) = RECORDS.get_ptr_mut(0) {
        // SAFETY: as above.
        let event = unsafe { &mut (*record).event };
        event.listener = outcome.listener().0;
        (event.verdict, event.reason, event.out) = match outcome.verdict() {
            Verdict::Pass(reason) => (kind::PASS, reason as u8, 0),
            Verdict::Drop(reason) => (kind::DROP, reason as u8, 0),
            Verdict::Send(ifindex) => (kind::SEND, 0, ifindex),
        };
    }
}

/// Tells of the packet, if it is one that is asked for and there is room.
#[inline(never)]
fn after(xdp: *mut xdp_md) {
    let ctx = XdpContext::new(xdp);
    let (Some(watch), Some(record), Some(seen)) = (WATCH.get(0), RECORDS.get_ptr_mut(0), SEEN.get_ptr_mut(0)) else { return };
    // SAFETY: this CPU's copies, and no other packet before this one is through.
    let (record, seen) = unsafe { (&mut *record, &mut *seen) };
    if record.is_on == 0 {
        return;
    }
    let is_sent = record.event.verdict == kind::SEND;
    record.event.after = if is_sent { ends(&mut XdpFrame::new(&ctx)).unwrap_or_default() } else { record.event.before };
    if !watch.wants(&record.event) {
        return;
    }
    let nth = seen.matched;
    seen.matched += 1;
    if watch.every > 1 && nth % u64::from(watch.every) != 0 {
        return;
    }
    if !is_within_budget(watch, record.event.ns) {
        seen.limited += 1;
        return;
    }
    if watch.snap == 0 {
        log(&ctx, &record.event);
    } else if !send(record) || is_sent && !send_after(&ctx, watch, &record.event) {
        seen.lost += 1;
    }
}

/// One line through aya-log: the event's bytes as hex digits, which the agent reads back.
#[inline(always)]
fn log(ctx: &XdpContext, event: &Event) {
    // SAFETY: an event is plain bytes without padding (its size is asserted where it is declared).
    let bytes = unsafe { &*core::ptr::from_ref(event).cast::<[u8; EVENT_LEN]>() };
    aya_log_ebpf::info!(ctx, "event {:x}", bytes.as_slice());
}

#[inline(always)]
fn send_after(ctx: &XdpContext, watch: &Watch, event: &Event) -> bool {
    let Some(record) = RECORDS.get_ptr_mut(1) else { return false };
    // SAFETY: as above.
    let record = unsafe { &mut *record };
    record.event = *event;
    record.event.part = 1;
    record.event.len = (ctx.data_end() - ctx.data()) as u32;
    record.event.snapped = snap(ctx, watch, &mut record.bytes);
    send(record)
}

/// Copies the beginning of the frame; how much.
#[inline(always)]
fn snap(ctx: &XdpContext, watch: &Watch, bytes: &mut [u8; SNAP]) -> u32 {
    let length = core::hint::black_box((ctx.data_end() - ctx.data()).min(watch.snap as usize));
    if length == 0 || length > SNAP {
        return 0;
    }
    // SAFETY: `bytes` has room for `length`.
    let failed = unsafe { bpf_xdp_load_bytes(ctx.as_ptr().cast(), 0, bytes.as_mut_ptr().cast(), length as u32) };
    if failed == 0 { length as u32 } else { 0 }
}

/// Gives a record to the agent; false when there is no room.
#[inline(always)]
fn send(record: &Record) -> bool {
    let snapped = core::hint::black_box(record.event.snapped as usize);
    if snapped > SNAP {
        return false;
    }
    // SAFETY: the record is at least that long, and plain bytes without padding.
    let bytes = unsafe { core::slice::from_raw_parts(core::ptr::from_ref(record).cast::<u8>(), EVENT_LEN + snapped) };
    CAPTURE.output_untyped::<[u8]>(bytes, 0).is_ok()
}

/// Whether one more event is allowed in this second.
#[inline(always)]
fn is_within_budget(watch: &Watch, ns: u64) -> bool {
    let Some(budget) = BUDGET.get(0) else { return false };
    let second = ns >> 30 << 32;
    // Another CPU may be faster, a few times.
    for _ in 0..4 {
        let old = budget.load();
        let used = if old & !0xffff_ffff == second & !0xffff_ffff { old as u32 } else { 0 };
        if used >= watch.per_second {
            return false;
        }
        if KernelTables.swap(budget, old, second | u64::from(used + 1)) {
            return true;
        }
    }
    false
}
