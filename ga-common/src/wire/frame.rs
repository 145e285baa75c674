//! Packet bytes are reached only through windows of a fixed size: the one form in which the verifier follows them.

use core::mem::offset_of;

use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
    udp::UdpHdr,
};

use super::{
    extension::{self, Upper},
    mss,
    vlan::{self, Tags},
};

/// A packet that is being forwarded.
pub trait Frame {
    /// `N` bytes from `offset`, or none when the frame is shorter. Offsets above [`MAX_OFFSET`] are never in a frame.
    fn window<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]>;

    /// Length in bytes, Ethernet header included.
    fn len(&self) -> usize;

    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Interface the packet came in by.
    fn ifindex(&self) -> u32;

    /// Moves the beginning of the frame: forward by `by` bytes that come before the first one and may hold anything, backward
    /// where `by` is negative. False, and nothing is changed, where there is no room; every window from before is void.
    fn grow_head(&mut self, by: i32) -> bool;

    /// Makes the frame `length` bytes long, which it is at least; false, and nothing is changed, where it is shorter. Every window from
    /// before is void.
    fn cut(&mut self, length: usize) -> bool;

    /// The one's complement sum (RFC 1071) of `length` bytes from `offset`, in the byte order of the CPU and not folded; none when
    /// the frame is shorter, or longer than the longest one that is forwarded.
    fn sum(&mut self, offset: usize, length: usize) -> Option<u32>;

    /// [`vlan::tagged`]. This and what follows are rare: the kernel has functions of their own for them, which its verifier judges
    /// once and not on every way that leads there.
    #[inline(always)]
    fn tagged(&mut self) -> u64
    where
        Self: Sized,
    {
        vlan::tagged(self)
    }

    /// [`mss::clamp`].
    #[inline(always)]
    fn clamp(&mut self, l4: usize, mss: u16)
    where
        Self: Sized,
    {
        mss::clamp(self, l4, mss);
    }

    /// [`vlan::retag`].
    #[inline(always)]
    fn retag(&mut self, have: Tags, want: Tags) -> bool
    where
        Self: Sized,
    {
        vlan::retag(self, have, want)
    }

    /// [`extension::walk`].
    #[inline(always)]
    fn walk(&mut self, next: u8, offset: usize, end: usize) -> Upper
    where
        Self: Sized,
    {
        extension::walk(self, next, offset, end)
    }
}

/// No window begins above this offset: Ethernet with two tags 22, and outer and quoted IP headers with extensions behind it.
pub const MAX_OFFSET: usize = 511;

/// Length of an Ethernet header.
pub const ETH_LEN: usize = 14;
/// EtherType of IPv4, as it lies on the cable (IEEE 802).
pub const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// IANA number of TCP.
pub const TCP: u8 = 6;
/// IANA number of UDP.
pub const UDP: u8 = 17;
/// IANA number of ICMP.
pub const ICMP: u8 = 1;
/// IANA number of ICMPv6.
pub const ICMPV6: u8 = 58;
/// IANA number of the IPv6 fragment header.
pub const IPV6_FRAGMENT: u8 = 44;

/// The EtherType of an Ethernet header. `EthHdr` itself wants two-byte alignment, which a window does not promise.
#[inline(always)]
pub fn ether_type(eth: &[u8; ETH_LEN]) -> [u8; 2] {
    const AT: usize = offset_of!(EthHdr, ether_type);
    [eth[AT], eth[AT + 1]]
}

/// Whether a frame goes to a group of stations, broadcast included (IEEE 802 section 8.2.2): no address of ours can be meant.
#[inline(always)]
pub fn is_to_group(eth: &[u8; ETH_LEN]) -> bool {
    eth[offset_of!(EthHdr, dst_addr)] & 1 != 0
}

/// Rewrites both MAC addresses of an Ethernet header.
#[inline(always)]
pub fn set_macs(eth: &mut [u8; ETH_LEN], dst: [u8; 6], src: [u8; 6]) {
    eth[offset_of!(EthHdr, dst_addr)..][..6].copy_from_slice(&dst);
    eth[offset_of!(EthHdr, src_addr)..][..6].copy_from_slice(&src);
}

/// Both MAC addresses of an Ethernet header: destination, source.
#[inline(always)]
pub fn macs(eth: &[u8; ETH_LEN]) -> ([u8; 6], [u8; 6]) {
    ([eth[0], eth[1], eth[2], eth[3], eth[4], eth[5]], [eth[6], eth[7], eth[8], eth[9], eth[10], eth[11]])
}

macro_rules! overlay {
    ($(#[$doc:meta])* $function:ident -> $header:ty) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $function<F: Frame>(frame: &mut F, offset: usize) -> Option<&mut $header> {
            const { assert!(align_of::<$header>() == 1) };
            let window = frame.window::<{ size_of::<$header>() }>(offset)?;
            // SAFETY: the header is `repr(C)`, made of bytes only (alignment 1, asserted above), and as long as the window.
            Some(unsafe { &mut *core::ptr::from_mut(window).cast::<$header>() })
        }
    };
}

overlay!(
    /// The IPv4 header at `offset` (RFC 791).
    ipv4 -> Ipv4Hdr
);
overlay!(
    /// The IPv6 header at `offset` (RFC 8200).
    ipv6 -> Ipv6Hdr
);
overlay!(
    /// The TCP header at `offset` (RFC 9293).
    tcp -> TcpHdr
);
overlay!(
    /// The UDP header at `offset` (RFC 768).
    udp -> UdpHdr
);
