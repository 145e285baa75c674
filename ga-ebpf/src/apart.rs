//! What is rare, in global functions: the verifier judges each of them once, by its signature, and not on every way that leads
//! there. What the compiler knows of a result beyond its type its caller hides by `black_box`: it would leave out checks that the
//! verifier, which knows nothing of it, wants to see.

use aya_ebpf::bindings::xdp_md;
use ga_common::{
    path,
    wire::{
        extension,
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

/// [`path::icmp::packet`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_icmp(ctx: *mut xdp_md) -> u64 {
    path::icmp::packet(&mut FarFrame::new(ctx), &KernelTables).bits()
}

/// [`path::acl::denies_halves`]: 1 when the source is kept out.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ga_acl(word: u32, high: u64, low: u64) -> u32 {
    path::acl::denies_halves(&KernelTables, word, high, low).into()
}
