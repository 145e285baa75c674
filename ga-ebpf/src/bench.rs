//! Programs of the benchmark: what puts a packet back and hands it on, and what others are compared with.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX},
    btf_maps::{Array, HashMap, PerCpuArray, ProgramArray},
    helpers::{bpf_redirect, bpf_xdp_adjust_head},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use ga_common::{
    bench::{FIRST_PORT, Listed, Load, PORT_BITS, WORDS, order, target},
    wire::frame::{ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, MAX_OFFSET, ether_type, ipv4, ipv6, macs, set_macs},
};

#[btf_map]
static LOAD: Array<Load, 1> = Array::new();
#[btf_map]
static TARGETS: ProgramArray<{ target::COUNT }> = ProgramArray::new();
/// Flows in the order in which their packets come; the size is set when the object is loaded.
#[btf_map]
static LIST: Array<Listed, 1> = Array::new();
/// The hash table of the second floor; the size is set when the object is loaded.
#[btf_map]
static TABLE: HashMap<[u64; 2], u64, 1> = HashMap::new();
/// Frames that arrived.
#[btf_map]
static ARRIVED: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Hands an IPv4 packet (or anything short) on.
#[xdp]
pub(crate) fn short(ctx: XdpContext) -> u32 {
    hand_on::<7>(&ctx)
}

/// Hands an IPv6 packet on.
#[xdp]
pub(crate) fn long(ctx: XdpContext) -> u32 {
    hand_on::<WORDS>(&ctx)
}

/// Puts the first `N` words back, with the tuple of the next flow, and calls the program under test.
#[inline(always)]
fn hand_on<const N: usize>(ctx: &XdpContext) -> u32 {
    let Some(load) = LOAD.get_ptr_mut(0) else { return XDP_ABORTED };
    // SAFETY: one run at a time, on one CPU.
    let load = unsafe { &mut *load };
    let count = load.count;
    load.count = count + 1;
    let mut words = [0; N];
    words.copy_from_slice(&load.frame[..N]);
    let mut listed = [count, 0];
    if load.order != order::SEQUENCE {
        if load.count >= u64::from(load.flows) {
            load.count = 0;
        }
        let Some(entry) = LIST.get(count as u32) else { return XDP_ABORTED };
        listed = *entry;
    }
    if load.order == order::TUPLES {
        let [addrs, ports] = listed;
        // Addresses are bytes 26 to 33, ports 34 to 37.
        words[3] = words[3] & 0xffff | addrs << 16;
        words[4] = words[4] & !0xffff_ffff_ffff | addrs >> 48 | ports << 16;
    } else {
        let n = listed[0] as u32;
        let source = u64::from((load.source + (n >> PORT_BITS)).to_be());
        let port = u64::from(((FIRST_PORT + (n & ((1 << PORT_BITS) - 1))) as u16).to_be());
        if N == WORDS {
            // The source address ends with bytes 34 to 37, the source port is bytes 54 and 55.
            words[4] = words[4] & !0xffff_ffff_0000 | source << 16;
            words[6] = words[6] & !(0xffff << 48) | port << 48;
        } else {
            words[3] = words[3] & !0xffff_ffff_0000 | source << 16;
            words[4] = words[4] & !0xffff_0000 | port << 16;
        }
    }
    // What was put in front of the last one, or taken away: the frames are of 64 or 80 bytes.
    let length = if N == WORDS { N * 8 } else { (N + 1) * 8 };
    let grown = ctx.data_end() as i32 - ctx.data() as i32 - length as i32;
    // SAFETY: a helper call on our own context; what was found in the packet before is not used again.
    if grown != 0 && unsafe { bpf_xdp_adjust_head(ctx.ctx, grown) } != 0 {
        return XDP_ABORTED;
    }
    let start = ctx.data();
    if start + N * 8 > ctx.data_end() {
        return XDP_ABORTED;
    }
    // SAFETY: the words end before `data_end`; a frame of a test run begins at a multiple of eight, and so does one put back.
    unsafe { *(start as *mut [u64; N]) = words };
    // SAFETY: nothing is to be dropped.
    unsafe { TARGETS.tail_call(ctx, load.target) };
    load.misses += 1;
    XDP_ABORTED
}

/// Puts the whole frame back, where it began, and hands it on: for frames that get longer or shorter, and such that have no ports to
/// draw.
#[xdp]
pub(crate) fn same(ctx: XdpContext) -> u32 {
    let Some(load) = LOAD.get_ptr_mut(0) else { return XDP_ABORTED };
    // SAFETY: one run at a time, on one CPU.
    let load = unsafe { &mut *load };
    load.count += 1;
    let grown = ctx.data_end() as i32 - ctx.data() as i32 - (WORDS * 8) as i32;
    // SAFETY: a helper call on our own context; what was found in the packet before is not used again.
    if grown != 0 && unsafe { bpf_xdp_adjust_head(ctx.ctx, grown) } != 0 {
        return XDP_ABORTED;
    }
    let start = ctx.data();
    if start + WORDS * 8 > ctx.data_end() {
        return XDP_ABORTED;
    }
    // SAFETY: the words end before `data_end`; a frame of a test run begins at a multiple of eight, and so does one put back.
    unsafe { *(start as *mut [u64; WORDS]) = load.frame };
    // SAFETY: nothing is to be dropped.
    unsafe { TARGETS.tail_call(&ctx, load.target) };
    load.misses += 1;
    XDP_ABORTED
}

/// Parses and swaps the MAC addresses.
#[xdp]
pub(crate) fn swap(ctx: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(&ctx);
    if key(&mut frame).is_none() {
        return XDP_PASS;
    }
    swap_macs(&mut frame)
}

/// The same, and one look into the hash table.
#[xdp]
pub(crate) fn lookup(ctx: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(&ctx);
    let Some(key) = key(&mut frame) else { return XDP_PASS };
    // SAFETY: nobody removes entries.
    if unsafe { TABLE.get(key) }.is_none() {
        if let Some(load) = LOAD.get_ptr_mut(0) {
            // SAFETY: one run at a time, on one CPU.
            unsafe { (*load).misses += 1 };
        }
        return XDP_DROP;
    }
    swap_macs(&mut frame)
}

/// Puts the packet's key into the hash table.
#[xdp]
pub(crate) fn insert(ctx: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(&ctx);
    match key(&mut frame) {
        Some(key) if TABLE.insert(key, 1, 0).is_ok() => XDP_DROP,
        _ => XDP_ABORTED,
    }
}

/// Rewrites the MAC addresses and redirects.
#[xdp]
pub(crate) fn redirect(ctx: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(&ctx);
    let (Some(load), Some(eth)) = (LOAD.get(0), frame.window::<ETH_LEN>(0)) else { return XDP_ABORTED };
    let [a, b, c, d, e, f, g, h, i, j, k, l] = load.macs;
    set_macs(eth, [a, b, c, d, e, f], [g, h, i, j, k, l]);
    // SAFETY: a helper call without pointers.
    unsafe { bpf_redirect(load.ifindex, 0) as u32 }
}

/// Sends a frame out of where it came in.
#[xdp]
pub(crate) fn out(_ctx: XdpContext) -> u32 {
    XDP_TX
}

/// Counts UDP and drops it; the rest is the host's.
#[xdp]
pub(crate) fn sink(ctx: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(&ctx);
    match frame.window::<ETH_LEN>(0).map(|eth| ether_type(eth)) {
        Some(ETHERTYPE_IPV4) => {}
        _ => return XDP_PASS,
    }
    if ipv4(&mut frame, ETH_LEN).is_none_or(|ip| ip.proto != 17) {
        return XDP_PASS;
    }
    if let Some(arrived) = ARRIVED.get_ptr_mut(0) {
        // SAFETY: the pointer is into this CPU's copy of a map value, which nobody else writes.
        unsafe { *arrived += 1 };
    }
    XDP_DROP
}

/// The packet of one invocation: only what floors and peers need of it.
struct XdpFrame<'a> {
    ctx: &'a XdpContext,
}

impl<'a> XdpFrame<'a> {
    #[inline(always)]
    fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn window<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        let start = self.ctx.data() + offset;
        if offset > MAX_OFFSET || start + N > self.ctx.data_end() {
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
    fn cut(&mut self, _length: usize) -> bool {
        false
    }

    #[inline(always)]
    fn sum(&mut self, _offset: usize, _length: usize) -> Option<u32> {
        None
    }

    #[inline(always)]
    fn grow_head(&mut self, _by: i32) -> bool {
        false
    }
}

#[inline(always)]
fn swap_macs(frame: &mut XdpFrame<'_>) -> u32 {
    let Some(eth) = frame.window::<ETH_LEN>(0) else { return XDP_ABORTED };
    let (dst, src) = macs(eth);
    set_macs(eth, src, dst);
    XDP_TX
}

/// Sixteen bytes that name the packet's flow; none when it is not IP.
#[inline(always)]
fn key(frame: &mut XdpFrame<'_>) -> Option<[u64; 2]> {
    let (addrs, protocol, l4) = match ether_type(frame.window::<ETH_LEN>(0)?) {
        ETHERTYPE_IPV4 => {
            let ip = ipv4(frame, ETH_LEN)?;
            let ([a, b, c, d], [e, f, g, h]) = (ip.src_addr, ip.dst_addr);
            (u64::from_ne_bytes([a, b, c, d, e, f, g, h]), ip.proto, ETH_LEN + 20)
        }
        ETHERTYPE_IPV6 => {
            let ip = ipv6(frame, ETH_LEN)?;
            let [.., a, b, c, d, e, f, g, h] = ip.src_addr;
            (u64::from_ne_bytes([a, b, c, d, e, f, g, h]), ip.next_hdr, ETH_LEN + 40)
        }
        _ => return None,
    };
    let ports = u64::from(u32::from_ne_bytes(*frame.window::<4>(l4)?));
    Some([addrs, ports << 8 | u64::from(protocol)])
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
