//! What is rare, in global functions: the verifier judges each of them once, by its signature, and not on every way that leads
//! there. What the compiler knows of a result beyond its type its caller hides by `black_box`: it would leave out checks that the
//! verifier, which knows nothing of it, wants to see.

use core::{hint::black_box, ptr};

use aya_ebpf::{
    bindings::xdp_md,
    btf_maps::PerCpuArray,
    helpers::{bpf_csum_diff, bpf_xdp_load_bytes},
    macros::btf_map,
};
use ga_common::{
    abi::{
        family::Family,
        flow::State,
        id::{EndpointId, TableId},
        reason::Event,
    },
    path::{
        self, cross, fail, flow, gateway, select,
        tables::{FlowMemory, Half, Tables as _},
        track,
        verdict::Outcome,
    },
    wire::{
        extension, mss,
        vlan::{self, Tags},
    },
};

use crate::{frame::FarFrame, tables::KernelTables};

/// [`vlan::tagged`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_tagged(ctx: *mut xdp_md) -> u64 {
    vlan::tagged(&mut FarFrame::new(ctx))
}

/// [`vlan::retag`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_retag(ctx: *mut xdp_md, have: u32, want: u32) -> u32 {
    vlan::retag(&mut FarFrame::new(ctx), Tags(have), Tags(want)).into()
}

/// [`extension::walk`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_walk(ctx: *mut xdp_md, next: u32, offset: u32, end: u32) -> u32 {
    extension::walk(&mut FarFrame::new(ctx), next as u8, offset as usize, end as usize).bits()
}

/// [`mss::clamp`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_clamp(ctx: *mut xdp_md, l4: u32, mss: u32) -> u32 {
    mss::clamp(&mut FarFrame::new(ctx), l4 as usize, mss as u16);
    0
}

/// [`path::refuse::packet`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_refuse(ctx: *mut xdp_md, outcome: u64) -> u64 {
    path::refuse::packet(&mut FarFrame::new(ctx), &KernelTables, Outcome::from_bits(outcome)).bits()
}

/// [`path::icmp::packet`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_icmp(ctx: *mut xdp_md) -> u64 {
    path::icmp::packet(&mut FarFrame::new(ctx), &KernelTables).bits()
}

/// [`path::host::piece`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_piece(ctx: *mut xdp_md) -> u64 {
    path::host::piece(&mut FarFrame::new(ctx), &KernelTables).bits()
}

/// [`path::direct::packet`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_direct(ctx: *mut xdp_md, asked: u64) -> u64 {
    path::direct::packet(&mut FarFrame::new(ctx), &KernelTables, Outcome::from_bits(asked)).bits()
}

/// [`gateway::answer`] for a packet of IPv4 (0) or IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_keep(family: u32) -> u64 {
    let family = if family == Family::V4 as u32 { Family::V4 } else { Family::V6 };
    gateway::answer(&KernelTables, family).bits()
}

/// [`flow::claim`] among the IPv4 slots.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_claim4(hash: u64) -> u32 {
    flow::claim::<1, 6, KernelTables>(&KernelTables, hash, KernelTables.tick())
}

/// [`flow::evict`] for the sake of an IPv4 slot's NAT port.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_reuse4(index: u32, hash: u64) -> u32 {
    flow::evict::<1, 6, KernelTables>(&KernelTables, index, hash, KernelTables.tick(), Event::PortReused)
}

/// [`flow::taken`] for a tuple of the IPv4 packet on its way: its own, or the one that replies to it have.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_taken4(is_reply: u32, hash: u64, mine: u32) -> u32 {
    let Some(room) = FlowMemory::<1, 6>::room(&KernelTables) else { return mine };
    let which = if is_reply != 0 { Half::Return } else { Half::Forward };
    flow::taken::<1, 6, KernelTables>(&KernelTables, room, which, hash, mine)
}

/// [`track::choose`] for the IPv4 packet on its way.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_track4() -> u32 {
    track::choose::<1, 6, KernelTables>(&KernelTables).0
}

/// [`track::choose`] for the IPv6 packet on its way.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_track6() -> u32 {
    track::choose::<4, 14, KernelTables>(&KernelTables).0
}

/// [`track::remember`] of the IPv4 packet on its way; returns nothing.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_remember4() -> u32 {
    track::remember::<1, 6, KernelTables>(&KernelTables);
    0
}

/// [`track::remember`] of the IPv6 packet on its way; returns nothing.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_remember6() -> u32 {
    track::remember::<4, 14, KernelTables>(&KernelTables);
    0
}

/// [`fail::gives_up`] of an IPv4 half.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_give_up4(index: u32, state: u64, opens: u32) -> u32 {
    fail::gives_up::<1, 6, KernelTables>(&KernelTables, index, State(state), opens != 0).into()
}

/// [`fail::gives_up`] of an IPv6 half.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_give_up6(index: u32, state: u64, opens: u32) -> u32 {
    fail::gives_up::<4, 14, KernelTables>(&KernelTables, index, State(state), opens != 0).into()
}

/// [`fail::is_unreachable`] of an IPv4 half.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_unreachable4(index: u32, state: u64) -> u32 {
    fail::is_unreachable::<1, 6, KernelTables>(&KernelTables, index, State(state)).into()
}

/// [`fail::is_unreachable`] of an IPv6 half.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_unreachable6(index: u32, state: u64) -> u32 {
    fail::is_unreachable::<4, 14, KernelTables>(&KernelTables, index, State(state)).into()
}

/// [`select::elsewhere`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_elsewhere(table: u32, hash: u64, avoid: u32) -> u32 {
    select::elsewhere(&KernelTables, TableId(table), hash, EndpointId(avoid as u16))
}

/// [`flow::claim`] among the IPv6 slots.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_claim6(hash: u64) -> u32 {
    flow::claim::<4, 14, KernelTables>(&KernelTables, hash, KernelTables.tick())
}

/// [`flow::evict`] for the sake of an IPv6 slot's NAT port.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_reuse6(index: u32, hash: u64) -> u32 {
    flow::evict::<4, 14, KernelTables>(&KernelTables, index, hash, KernelTables.tick(), Event::PortReused)
}

/// [`flow::taken`] for a tuple of the IPv6 packet on its way: its own, or the one that replies to it have.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_taken6(is_reply: u32, hash: u64, mine: u32) -> u32 {
    let Some(room) = FlowMemory::<4, 14>::room(&KernelTables) else { return mine };
    let which = if is_reply != 0 { Half::Return } else { Half::Forward };
    flow::taken::<4, 14, KernelTables>(&KernelTables, room, which, hash, mine)
}

/// [`cross::known`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_known_across(ctx: *mut xdp_md, asked: u64) -> u64 {
    cross::known(&mut FarFrame::new(ctx), &KernelTables, Outcome::from_bits(asked)).bits()
}

/// [`cross::open`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_open_across(asked: u64) -> u64 {
    cross::open(&KernelTables, Outcome::from_bits(asked)).bits()
}

/// [`cross::pair`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_pair_across(asked: u64, answered: u64) -> u64 {
    cross::pair(&KernelTables, Outcome::from_bits(asked), Outcome::from_bits(answered)).bits()
}

/// [`cross::fit`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_fit_across(ctx: *mut xdp_md, asked: u64) -> u64 {
    cross::fit(&mut FarFrame::new(ctx), &KernelTables, Outcome::from_bits(asked)).bits()
}

/// [`cross::translate`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_translate(ctx: *mut xdp_md, asked: u64) -> u64 {
    cross::translate(&mut FarFrame::new(ctx), &KernelTables, Outcome::from_bits(asked)).bits()
}

/// [`cross::tell`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_tell_across(ctx: *mut xdp_md, asked: u64) -> u64 {
    cross::tell(&mut FarFrame::new(ctx), &KernelTables, Outcome::from_bits(asked)).bits()
}

/// [`cross::report`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_report_across(ctx: *mut xdp_md, asked: u64) -> u64 {
    cross::report(&mut FarFrame::new(ctx), &KernelTables, Outcome::from_bits(asked)).bits()
}

/// The steps of [`cross`], each in a function of its own.
pub(crate) struct Across(pub(crate) *mut xdp_md);

impl cross::Steps for Across {
    #[inline(always)]
    fn known(&mut self, asked: Outcome) -> Outcome {
        Outcome::from_bits(black_box(ga_known_across(self.0, asked.bits())))
    }

    #[inline(always)]
    fn open(&mut self, asked: Outcome) -> Outcome {
        Outcome::from_bits(black_box(ga_open_across(asked.bits())))
    }

    #[inline(always)]
    fn answer(&mut self, asked: Outcome) -> Outcome {
        cross::answer(&KernelTables, asked)
    }

    #[inline(always)]
    fn pair(&mut self, asked: Outcome, answered: Outcome) -> Outcome {
        Outcome::from_bits(black_box(ga_pair_across(asked.bits(), answered.bits())))
    }

    #[inline(always)]
    fn fit(&mut self, asked: Outcome) -> Outcome {
        Outcome::from_bits(black_box(ga_fit_across(self.0, asked.bits())))
    }

    #[inline(always)]
    fn translate(&mut self, asked: Outcome) -> Outcome {
        Outcome::from_bits(black_box(ga_translate(self.0, asked.bits())))
    }

    #[inline(always)]
    fn tell(&mut self, asked: Outcome) -> Outcome {
        Outcome::from_bits(black_box(ga_tell_across(self.0, asked.bits())))
    }

    #[inline(always)]
    fn report(&mut self, asked: Outcome) -> Outcome {
        Outcome::from_bits(black_box(ga_report_across(self.0, asked.bits())))
    }
}

/// Bytes that are summed up at once; packets are no longer than eight times that.
const PIECE: u32 = 512;

/// Room for a piece, and for the zeros that make its length a multiple of four.
#[btf_map]
static PIECES: PerCpuArray<[u8; PIECE as usize + 4], 1> = PerCpuArray::new();

/// What [`ga_sum`] returns when there is nothing to sum up.
pub(crate) const NO_SUM: u64 = u64::MAX;

/// The one's complement sum of `length` bytes from `offset`, or [`NO_SUM`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_sum(ctx: *mut xdp_md, offset: u32, length: u32) -> u64 {
    let Some(room) = PIECES.get_ptr_mut(0) else { return NO_SUM };
    // SAFETY: the pointer is into this CPU's copy of a map value, and a packet is done before the next one comes.
    let room = unsafe { &mut *room };
    let (mut at, mut left, mut sum) = (offset, length, 0);
    for _ in 0..8 {
        let piece = black_box(if left < PIECE { left } else { PIECE });
        if piece == 0 || piece > PIECE {
            break;
        }
        // SAFETY: the room is as long as a piece at least.
        if unsafe { bpf_xdp_load_bytes(ctx, at, room.as_mut_ptr().cast(), piece) } != 0 {
            return NO_SUM;
        }
        for n in 0..3 {
            room[piece as usize + n] = 0;
        }
        let padded = black_box((piece + 3) & !3);
        if padded > PIECE {
            return NO_SUM;
        }
        // SAFETY: the room is that long, and nothing is read of what is zero bytes long.
        sum = unsafe { bpf_csum_diff(ptr::null_mut(), 0, room.as_mut_ptr().cast(), padded, sum as u32) };
        at += piece;
        left -= piece;
    }
    if left == 0 { sum as u32 as u64 } else { NO_SUM }
}

/// [`path::acl::denies_halves`]: 1 when the source is kept out.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_acl(word: u32, high: u64, low: u64) -> u32 {
    path::acl::denies_halves(&KernelTables, word, high, low).into()
}

/// [`path::custom::find`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_custom(number: u32, port: u32, protocol: u32) -> u64 {
    path::custom::find(&KernelTables, number, port, protocol).0
}
