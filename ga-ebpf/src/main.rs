//! The XDP program. Nothing is decided here: `ga_common::path` decides, this crate gives it a frame and the maps.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "the BPF target has compare-and-swap only as an intrinsic")]

mod apart;
mod frame;
mod maps;
mod tables;
mod trace;
mod watch;

use core::hint::black_box;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    helpers::bpf_redirect,
    macros::xdp,
    programs::XdpContext,
};
use ga_common::{
    abi::{
        id::ListenerId,
        limits::MAX_LISTENERS,
        reason::{Drop, Pass},
    },
    path::{
        self, cross, refuse,
        verdict::{Outcome, Verdict},
    },
    wire::frame::Frame as _,
};

use crate::{
    apart::{Across, ga_direct, ga_icmp, ga_piece, ga_refuse},
    frame::XdpFrame,
    tables::KernelTables,
};

/// Every packet of every interface.
#[xdp]
pub(crate) fn ga(ctx: XdpContext) -> u32 {
    let outcome = decide(&ctx);
    act(&ctx, outcome)
}

/// What becomes of a packet, which is rewritten if it is to be sent.
#[inline(always)]
fn decide(ctx: &XdpContext) -> Outcome {
    let outcome = match path::flows(&mut XdpFrame::new(ctx), &KernelTables) {
        path::OTHER_PROTOCOL => match Outcome::from_bits(black_box(ga_icmp(ctx.ctx))) {
            path::OTHER_PROTOCOL => Outcome::from_bits(black_box(ga_piece(ctx.ctx))),
            outcome => outcome,
        },
        outcome => outcome,
    };
    let outcome = if outcome.is_across() { cross::decide(&mut Across(ctx.ctx), outcome) } else { outcome };
    let outcome = if outcome.is_direct() { Outcome::from_bits(black_box(ga_direct(ctx.ctx, outcome.bits()))) } else { outcome };
    if refuse::is_refused(outcome) { Outcome::from_bits(black_box(ga_refuse(ctx.ctx, outcome.bits()))) } else { outcome }
}

/// Verdict to XDP action and counter.
#[inline(always)]
fn act(ctx: &XdpContext, outcome: Outcome) -> u32 {
    match outcome.verdict() {
        Verdict::Pass(reason) => {
            count_pass(reason);
            XDP_PASS
        }
        Verdict::Drop(reason) => {
            count_drop(reason, outcome.listener());
            if outcome.is_answered() { XDP_TX } else { XDP_DROP }
        }
        Verdict::Send(ifindex) if ifindex == XdpFrame::new(ctx).ifindex() => XDP_TX,
        // SAFETY: a helper call without pointers; an interface that is gone makes the kernel drop and count the packet.
        Verdict::Send(ifindex) => unsafe { bpf_redirect(ifindex, 0) as u32 },
    }
}

/// Passes everything: attached to interfaces whose driver delivers redirected frames only to an interface with a program.
#[xdp]
pub(crate) fn ga_pass(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

#[inline(always)]
fn count_pass(reason: Pass) {
    add_one(maps::PASSES.get_ptr_mut(reason as u32));
}

#[inline(always)]
fn count_drop(reason: Drop, listener: ListenerId) {
    let row = if u32::from(listener.0) < MAX_LISTENERS { u32::from(listener.0) } else { MAX_LISTENERS };
    add_one(maps::DROPS.get_ptr_mut(row * Drop::COUNT as u32 + reason as u32));
}

#[inline(always)]
fn add_one(counter: Option<*mut u64>) {
    if let Some(counter) = counter {
        // SAFETY: the pointer is into this CPU's copy of a map value, which nobody else writes.
        unsafe { *counter += 1 };
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Lets the kernel call helpers that are for GPL-compatible programs; the object is MIT or GPL-2.0.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
