//! IPv4 headers to IPv6 headers and back (RFC 7915), and what that changes behind them.

use crate::{
    abi::flow::{Tuple, Way, unpack_mac, unpack4, unpack6},
    path::{parse::Place, rewrite::transport},
    wire::{
        checksum::Delta,
        frame::{ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, TCP, UDP, ipv4, ipv6, set_macs, tcp, udp},
        vlan::Tags,
    },
};

/// Length of an IPv4 header without options.
pub(super) const V4_LEN: usize = 20;
/// Length of an IPv6 header.
pub(super) const V6_LEN: usize = 40;
/// IPv4 packets that are not longer may be fragmented on their way (RFC 7915 section 5.1): their IPv6 sender never sends shorter
/// ones, whatever path MTU it is told.
const MAX_FRAGMENTABLE: usize = 1260;

/// Makes of an IPv4 packet an IPv6 one (RFC 7915 section 4.1). Options are left out; it is no fragment.
#[inline(always)]
pub(super) fn to6<F: Frame>(frame: &mut F, place: Place, to: &Tuple<4>, tags: Tags, way: &Way) -> Option<()> {
    let Place { l3, l4 } = place;
    let ip = ipv4(frame, l3)?;
    let (tos, ttl, total) = (ip.tos, ip.ttl, u16::from_be_bytes(ip.tot_len));
    let payload = total.wrapping_sub((l4 - l3) as u16);
    // A pseudo header has the same length and protocol in both families (RFC 8200 section 8.1): only addresses differ.
    let addrs = u64::from_ne_bytes(*frame.window::<8>(l3 + 12)?);
    let delta = Delta::default().words([addrs], [0]).words([0; 4], to.addrs);
    transport(frame, l4, to.protocol, to.ports, delta)?;
    if to.protocol == UDP {
        compute_missing(frame, l4, to)?;
    }
    let l3 = head(frame, place, V6_LEN, ETHERTYPE_IPV6, tags, way)?;
    let ip = ipv6(frame, l3)?;
    ip.vcf = [6 << 4 | tos >> 4, tos << 4, 0, 0];
    ip.payload_len = payload.to_be_bytes();
    (ip.next_hdr, ip.hop_limit) = (to.protocol, ttl.wrapping_sub(1));
    (ip.src_addr, ip.dst_addr) = unpack6(to.addrs);
    Some(())
}

/// Makes of an IPv6 packet an IPv4 one (RFC 7915 section 5.1). Extension headers are left out; none of them is a fragment header.
#[inline(always)]
pub(super) fn to4<F: Frame>(frame: &mut F, place: Place, to: &Tuple<1>, tags: Tags, way: &Way) -> Option<()> {
    let Place { l3, l4 } = place;
    let ip = ipv6(frame, l3)?;
    let ([v, c, ..], hop_limit, length) = (ip.vcf, ip.hop_limit, usize::from(u16::from_be_bytes(ip.payload_len)));
    let total = V4_LEN + (l3 + V6_LEN + length).wrapping_sub(l4);
    let mut delta = Delta::default().words([0], to.addrs);
    for n in 0..4 {
        delta = delta.words([u64::from_ne_bytes(*frame.window::<8>(l3 + 8 + 8 * n)?)], [0]);
    }
    transport(frame, l4, to.protocol, to.ports, delta)?;
    let id = if total > MAX_FRAGMENTABLE { [0; 2] } else { identification(frame, l4, to.protocol)? };
    let l3 = head(frame, place, V4_LEN, ETHERTYPE_IPV4, tags, way)?;
    let ip = ipv4(frame, l3)?;
    ip.vihl = 0x45;
    ip.tos = v << 4 | c >> 4;
    ip.tot_len = (total as u16).to_be_bytes();
    ip.id = id;
    ip.frags = if total > MAX_FRAGMENTABLE { [0x40, 0] } else { [0, 0] };
    (ip.ttl, ip.proto, ip.check) = (hop_limit.wrapping_sub(1), to.protocol, [0; 2]);
    (ip.src_addr, ip.dst_addr) = unpack4(to.addrs);
    // A checksum of zero is that of a header that is all zeros: what is there is the difference to it.
    let mut sum = Delta::default();
    let header = frame.window::<V4_LEN>(l3)?;
    for n in 0..V4_LEN / 4 {
        sum = sum.bytes4([0; 4], [header[4 * n], header[4 * n + 1], header[4 * n + 2], header[4 * n + 3]]);
    }
    let [c0, c1] = sum.apply([0xff, 0xff]);
    (header[10], header[11]) = (c0, c1);
    Some(())
}

/// What sets a packet's fragments apart from those of its neighbours: its own bytes do, for its checksum (and its sequence
/// number) is not theirs. Without a counter that all CPUs would have to share.
#[inline(always)]
fn identification<F: Frame>(frame: &mut F, l4: usize, protocol: u8) -> Option<[u8; 2]> {
    let (a, b) = if protocol == TCP {
        let header = tcp(frame, l4)?;
        (u32::from_be_bytes(header.seq), header.check)
    } else {
        let header = udp(frame, l4)?;
        (0, header.check)
    };
    let mixed = (a ^ u32::from(u16::from_be_bytes(b)) << 16).wrapping_mul(0x9e37_79b1);
    Some(((mixed >> 16) as u16).to_be_bytes())
}

/// UDP over IPv6 has a checksum (RFC 8200 section 8.1); over IPv4 it may have none, and then all of the datagram is summed up.
#[inline(always)]
fn compute_missing<F: Frame>(frame: &mut F, l4: usize, to: &Tuple<4>) -> Option<()> {
    let header = udp(frame, l4)?;
    if header.check != [0, 0] {
        return Some(());
    }
    let length = header.len;
    let sum = frame.sum(l4, usize::from(u16::from_be_bytes(length)))?;
    let pseudo = Delta::default().words([0; 4], to.addrs).bytes2([0; 2], length).bytes2([0; 2], [0, UDP]);
    let check = pseudo.plus(sum).apply([0xff, 0xff]);
    udp(frame, l4)?.check = if check == [0, 0] { [0xff, 0xff] } else { check };
    Some(())
}

/// Replaces everything in front of `place.l4` by room for a link layer for the way it goes, which is filled, and for an IP header of
/// `length` bytes, whose offset is returned.
#[inline(always)]
pub(super) fn head<F: Frame>(
    frame: &mut F,
    place: Place,
    length: usize,
    ether_type: [u8; 2],
    have: Tags,
    way: &Way,
) -> Option<usize> {
    let want = Tags(way.tags);
    let mut front = place.l4 as i32;
    if have != want {
        if !frame.retag(have, want) {
            return None;
        }
        front += want.l3() as i32 - have.l3() as i32;
    }
    // The tags, which know their priorities.
    let tags = u64::from_ne_bytes(*frame.window::<8>(ETH_LEN - 2)?);
    let by = (want.l3() + length) as i32 - front;
    if by != 0 && !frame.grow_head(by) {
        return None;
    }
    if want != Tags::NONE {
        let [t0, t1, t2, t3, ..] = tags.to_ne_bytes();
        *frame.window::<4>(ETH_LEN - 2)? = [t0, t1, t2, t3];
        if want.count() > 1 {
            let [.., t4, t5, t6, t7] = tags.to_ne_bytes();
            *frame.window::<4>(ETH_LEN + 2)? = [t4, t5, t6, t7];
        }
    }
    set_macs(frame.window::<ETH_LEN>(0)?, unpack_mac(way.dst), unpack_mac(way.src));
    *frame.window::<2>(want.l3() - 2)? = ether_type;
    Some(want.l3())
}
