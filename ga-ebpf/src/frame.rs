//! A frame in the driver's memory.

use core::{hint::black_box, ptr};

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};
use ga_common::wire::{
    extension::Upper,
    frame::{Frame, MAX_OFFSET},
    vlan::Tags,
};

use crate::apart::{NO_SUM, ga_clamp, ga_retag, ga_sum, ga_tagged, ga_walk};

/// The packet of one invocation.
pub(crate) struct XdpFrame<'a> {
    ctx: &'a XdpContext,
}

impl<'a> XdpFrame<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }
}

/// `N` bytes from `offset` of the frame between `data` and `data_end`.
///
/// # Safety
///
/// The bounds are those of the packet of this invocation, and no other window of it is in use as long as this one is.
#[inline(always)]
unsafe fn window<'a, const N: usize>(data: usize, data_end: usize, offset: usize) -> Option<&'a mut [u8; N]> {
    if offset > MAX_OFFSET {
        return None;
    }
    let start = data + offset;
    if start + N > data_end {
        return None;
    }
    // SAFETY: headers of a frame begin at even addresses.
    unsafe { core::hint::assert_unchecked(start.is_multiple_of(2)) };
    // SAFETY: the N bytes from `start` end before `data_end`, and the driver leaves the packet to us while we run.
    Some(unsafe { &mut *(start as *mut [u8; N]) })
}

/// Moves the beginning of the frame.
#[inline(always)]
fn grow_head(ctx: *mut xdp_md, by: i32) -> bool {
    // SAFETY: the pointer is the context of this invocation; the callers hold no window.
    unsafe { bpf_xdp_adjust_head(ctx, -by) == 0 }
}

/// Makes the frame shorter.
#[inline(always)]
fn cut(ctx: *mut xdp_md, length: usize, now: usize) -> bool {
    // SAFETY: as above; the kernel refuses what is shorter than an Ethernet header.
    length <= now && unsafe { bpf_xdp_adjust_tail(ctx, length as i32 - now as i32) } == 0
}

/// The one's complement sum of some bytes.
#[inline(always)]
fn sum(ctx: *mut xdp_md, offset: usize, length: usize) -> Option<u32> {
    let sum = black_box(ga_sum(ctx, offset as u32, length as u32));
    if sum == NO_SUM { None } else { Some(sum as u32) }
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn window<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        // SAFETY: the bounds are the packet's, and `&mut self` keeps windows from overlapping.
        unsafe { window(self.ctx.data(), self.ctx.data_end(), offset) }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.ctx.data_end() - self.ctx.data()
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn grow_head(&mut self, by: i32) -> bool {
        grow_head(self.ctx.ctx, by)
    }

    #[inline(always)]
    fn cut(&mut self, length: usize) -> bool {
        cut(self.ctx.ctx, length, self.len())
    }

    #[inline(always)]
    fn sum(&mut self, offset: usize, length: usize) -> Option<u32> {
        sum(self.ctx.ctx, offset, length)
    }

    #[inline(always)]
    fn tagged(&mut self) -> u64 {
        black_box(ga_tagged(self.ctx.ctx))
    }

    #[inline(always)]
    fn retag(&mut self, have: Tags, want: Tags) -> bool {
        ga_retag(self.ctx.ctx, have.0, want.0) != 0
    }

    #[inline(always)]
    fn clamp(&mut self, l4: usize, mss: u16) {
        ga_clamp(self.ctx.ctx, l4 as u32, mss.into());
    }

    #[inline(always)]
    fn walk(&mut self, next: u8, offset: usize, end: usize) -> Upper {
        Upper::from_bits(black_box(ga_walk(self.ctx.ctx, next.into(), offset as u32, end as u32)))
    }
}

/// The same packet for what is rare: every window reads the bounds anew and checks its own copy of the offset. The compiler would
/// leave out checks that follow from earlier ones; the verifier does not see that they follow.
pub(crate) struct FarFrame {
    ctx: *mut xdp_md,
}

impl FarFrame {
    #[inline(always)]
    pub(crate) fn new(ctx: *mut xdp_md) -> Self {
        Self { ctx }
    }

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the pointer is the context of this invocation.
        unsafe {
            (
                ptr::read_volatile(&raw const (*self.ctx).data) as usize,
                ptr::read_volatile(&raw const (*self.ctx).data_end) as usize,
            )
        }
    }
}

impl Frame for FarFrame {
    #[inline(always)]
    fn window<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        let (data, data_end) = self.bounds();
        // SAFETY: the bounds are the packet's, and `&mut self` keeps windows from overlapping.
        unsafe { window(data, data_end, black_box(offset)) }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        let (data, data_end) = self.bounds();
        data_end - data
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the pointer is the context of this invocation.
        unsafe { (*self.ctx).ingress_ifindex }
    }

    #[inline(always)]
    fn grow_head(&mut self, by: i32) -> bool {
        grow_head(self.ctx, by)
    }

    #[inline(always)]
    fn cut(&mut self, length: usize) -> bool {
        cut(self.ctx, length, self.len())
    }

    #[inline(always)]
    fn sum(&mut self, offset: usize, length: usize) -> Option<u32> {
        sum(self.ctx, offset, length)
    }

    #[inline(always)]
    fn tagged(&mut self) -> u64 {
        black_box(ga_tagged(self.ctx))
    }

    #[inline(always)]
    fn retag(&mut self, have: Tags, want: Tags) -> bool {
        ga_retag(self.ctx, have.0, want.0) != 0
    }

    #[inline(always)]
    fn clamp(&mut self, l4: usize, mss: u16) {
        ga_clamp(self.ctx, l4 as u32, mss.into());
    }

    #[inline(always)]
    fn walk(&mut self, next: u8, offset: usize, end: usize) -> Upper {
        Upper::from_bits(black_box(ga_walk(self.ctx, next.into(), offset as u32, end as u32)))
    }
}
