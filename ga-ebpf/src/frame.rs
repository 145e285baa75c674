//! A frame in the driver's memory.

use aya_ebpf::{helpers::bpf_xdp_adjust_head, programs::XdpContext};
use ga_common::wire::frame::{Frame, MAX_OFFSET};

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

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn window<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        let start = self.ctx.data() + offset;
        if start + N > self.ctx.data_end() {
            return None;
        }
        // SAFETY: headers of a frame begin at even addresses.
        unsafe { core::hint::assert_unchecked(start.is_multiple_of(2)) };
        // SAFETY: the N bytes from `start` end before `data_end`, the driver leaves the packet to us while we run, and `&mut
        // self` keeps windows from overlapping.
        Some(unsafe { &mut *(start as *mut [u8; N]) })
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
        // SAFETY: the pointer is the context of this invocation; windows borrow `self`, so that none is held.
        unsafe { bpf_xdp_adjust_head(self.ctx.ctx, -by) == 0 }
    }

    #[inline(always)]
    fn stay_whole(&self) {
        // SAFETY: the context of this invocation is valid. A volatile read cannot be moved to the caller.
        unsafe { core::ptr::read_volatile(&raw const (*self.ctx.ctx).data) };
    }
}
