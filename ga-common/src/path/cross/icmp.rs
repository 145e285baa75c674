//! ICMP errors about flows between two families (RFC 7915 sections 4.2, 4.3, 5.2 and 5.3): both headers of the error and both of the
//! packet that it quotes are translated. What has no equal in the other family is the host's, which makes nothing of it.
//!
//! A router has no address of the other family: whatever side an error is from, it shows itself as what the flow's packets from that
//! side come from (RFC 6791 leaves the choice to the translator). What RFC 4884 has behind the quoted packet goes on as a part of it.

use super::{Across, header::head};
use crate::{
    abi::{
        flow::{Flow, Tuple, Way, unpack4, unpack6},
        reason::{Drop, Pass},
    },
    path::{
        NOT_READY, TRUNCATED,
        explain::Stage,
        fail, flow,
        icmp::{ICMP_LEN, Message, Quoted, change, is_same_source, is_unreachable, locate, quote},
        owner,
        parse::Place,
        tables::{Direction, FlowMemory, Tables},
        verdict::Outcome,
    },
    wire::{
        checksum::Delta,
        frame::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, ICMP, ICMPV6, UDP, ipv4, ipv6},
        vlan::Tags,
    },
};

/// No equal in the other family, or nothing of ours any more.
const UNKNOWN: Outcome = Outcome::pass(Pass::IcmpUnknown);

/// Makes of an error about packets of one family one about packets of the other.
pub trait Reports<const K: usize, const P: usize> {
    /// Looks what an error becomes, and restores the ports of the packet that it quotes. `to` of `half` is what packets become that
    /// look like its `tuple`: the ones that the quoted packet was an answer to. None when the frame is shorter than it was a moment
    /// ago, or its checksum is wrong; false when it has no equal, and nothing was changed.
    fn examine<F: Frame>(frame: &mut F, at: Message, quoted: Quoted, half: &Half<'_, K, P>, report: &mut Report) -> Option<bool>;
    /// Writes all of it that is in front of the quoted ports.
    fn write<F: Frame>(frame: &mut F, report: &Report, to: &Tuple<P>, tags: Tags, way: &Way) -> Option<()>;
}

/// What an error becomes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Offset of the IP header.
    l3: u32,
    /// Offset of the quoted ports.
    l4: u32,
    /// Bytes from there to the end of the packet.
    tail: u16,
    /// Length of the quoted packet, or of its payload, by its own account in its new header.
    quoted: u16,
    /// Type and code.
    kind: [u8; 2],
    /// The four bytes behind the checksum.
    rest: [u8; 4],
    /// Type of service and TTL of the packet, then of the quoted one.
    fields: [u8; 4],
}

impl Report {
    /// None in it.
    pub const NONE: Self = Self { l3: 0, l4: 0, tail: 0, quoted: 0, kind: [0; 2], rest: [0; 4], fields: [0; 4] };

    #[inline(always)]
    fn place(&self) -> Place {
        Place { l3: self.l3 as usize, l4: self.l4 as usize }
    }

    /// The ICMP header, without its checksum.
    #[inline(always)]
    fn header(&self) -> [u8; ICMP_LEN] {
        let ([kind, code], [r0, r1, r2, r3]) = (self.kind, self.rest);
        [kind, code, 0, 0, r0, r1, r2, r3]
    }
}

/// The half of a flow whose way an error goes.
#[derive(Clone, Copy, Debug)]
pub struct Half<'a, const K: usize, const P: usize> {
    /// What its packets look like.
    pub tuple: &'a Tuple<K>,
    /// What they become.
    pub to: &'a Tuple<P>,
}

/// The usual path has found that the error is about a flow between two families: what its packets become is in the other family's
/// room then.
#[inline(always)]
pub(super) fn of_flow<const K: usize, const W: usize, const P: usize, const Q: usize, A, F, T>(
    frame: &mut F,
    tables: &T,
    tags: Tags,
) -> Result<Outcome, Outcome>
where
    A: Across<K, W, P, Q>,
    F: Frame,
    T: Tables + FlowMemory<K, W> + FlowMemory<P, Q>,
{
    let mut near = FlowMemory::<K, W>::room(tables).ok_or(TRUNCATED)?;
    let mut far = FlowMemory::<P, Q>::room(tables).ok_or(TRUNCATED)?;
    let (near, far) = (&mut *near, &mut *far);
    let (at, ttl) = locate::<K, F>(frame, tags.l3(), &mut near.reply.addrs).ok_or(UNKNOWN)?;
    quote::<K, F>(frame, at, &mut near.packet.tuple).ok_or(UNKNOWN)?;
    let settings = tables.settings().ok_or(NOT_READY)?;
    let hash = flow::hash(settings, &near.packet.tuple);
    let found = flow::find::<K, W, T>(tables, settings, hash, &near.packet.tuple, tables.tick()).ok_or(UNKNOWN)?;
    let slot = FlowMemory::<K, W>::slot(tables, found.index).ok_or(UNKNOWN)?;
    let Some((peer, peer_state)) = flow::peer_across::<P, Q, T>(tables, found.index, found.state.peer_across()) else {
        return Err(UNKNOWN);
    };
    let meta = slot.meta();
    near.endpoint = meta.endpoint();
    let is_return = meta.flags() & Flow::<K>::RETURN != 0;
    let protocol = near.packet.tuple.protocol;
    far.to = Tuple { addrs: A::becomes(slot, peer), ports: slot.translation(protocol).ports, protocol };
    if ttl <= 1 {
        return Err(Outcome::drop(Drop::TtlExpired, owner(tables, meta.endpoint())));
    }
    let is_receivers = is_same_source(near.reply.addrs, near.packet.tuple.addrs);
    let is_blamed = is_return && is_unreachable::<K, F>(frame, at, is_receivers, protocol);
    if is_blamed && fail::blame(tables, slot, found.state, || Some((peer, peer_state))) {
        return Err(Outcome::drop(Drop::Unreachable, owner(tables, meta.endpoint())));
    }
    far.from = if is_return {
        slot.client_way()
    } else {
        let hop = tables.hop(meta.endpoint());
        Way::by(hop.ok_or_else(|| Outcome::drop(Drop::NoNextHop, owner(tables, meta.endpoint())))?)
    };
    // What was copied counts only if both slots were the same flow's all the while.
    if slot.state() != found.state || peer.state() != peer_state {
        return Err(UNKNOWN);
    }
    Ok(Outcome::reports_across(A::FAMILY, if is_return { Direction::Return } else { Direction::Forward }))
}

/// The error that [`of_flow`] judged, translated and sent.
#[inline(always)]
pub(super) fn sent<const K: usize, const W: usize, const P: usize, const Q: usize, A, F, T>(
    frame: &mut F,
    tables: &T,
    tags: Tags,
    direction: Direction,
) -> Outcome
where
    A: Across<K, W, P, Q> + Reports<K, P>,
    F: Frame,
    T: Tables + FlowMemory<K, W> + FlowMemory<P, Q>,
{
    let outcome = examined::<K, W, P, Q, A, F, T>(frame, tables, tags);
    if outcome == Outcome::UNKNOWN { written::<K, W, P, Q, A, F, T>(frame, tables, tags, direction) } else { outcome }
}

/// What the error becomes is in the other family's room then. This and [`written`] are functions one after the other because of the
/// kernel's stack.
#[inline(never)]
fn examined<const K: usize, const W: usize, const P: usize, const Q: usize, A, F, T>(
    frame: &mut F,
    tables: &T,
    tags: Tags,
) -> Outcome
where
    A: Across<K, W, P, Q> + Reports<K, P>,
    F: Frame,
    T: Tables + FlowMemory<K, W> + FlowMemory<P, Q>,
{
    let (Some(mut near), Some(mut far)) = (FlowMemory::<K, W>::room(tables), FlowMemory::<P, Q>::room(tables)) else {
        return TRUNCATED;
    };
    let (near, far) = (&mut *near, &mut *far);
    let Some((at, _)) = locate::<K, F>(frame, tags.l3(), &mut near.reply.addrs) else { return TRUNCATED };
    let Some(quoted) = quote::<K, F>(frame, at, &mut near.packet.tuple) else { return TRUNCATED };
    let half = Half { tuple: &near.packet.tuple, to: &far.to };
    match A::examine(frame, at, quoted, &half, &mut far.report) {
        None => Outcome::drop(Drop::Malformed, owner(tables, near.endpoint)),
        Some(false) => UNKNOWN,
        Some(true) => Outcome::UNKNOWN,
    }
}

#[inline(never)]
fn written<const K: usize, const W: usize, const P: usize, const Q: usize, A, F, T>(
    frame: &mut F,
    tables: &T,
    tags: Tags,
    direction: Direction,
) -> Outcome
where
    A: Across<K, W, P, Q> + Reports<K, P>,
    F: Frame,
    T: Tables + FlowMemory<K, W> + FlowMemory<P, Q>,
{
    let (Some(near), Some(far)) = (FlowMemory::<K, W>::room(tables), FlowMemory::<P, Q>::room(tables)) else {
        return TRUNCATED;
    };
    if T::DRY {
        tables.explain(|| Stage::translated(&far.to));
        tables.explain(|| Stage::hop(&far.from));
    }
    let bytes = frame.len() as u64;
    if A::write(frame, &far.report, &far.to, tags, &far.from).is_none() {
        return TRUNCATED;
    }
    if !T::DRY {
        tables.count(near.endpoint, direction, bytes);
    }
    Outcome::send(far.from.ifindex)
}

/// Type, code and the four bytes behind the checksum.
type Kind = ([u8; 2], [u8; 4]);

/// Least MTU of an IPv6 link (RFC 8200 section 5).
const MIN_MTU: u16 = 1280;

/// RFC 7915 section 4.2. `length` is that of the quoted packet.
#[inline(always)]
fn kind6([kind, code]: [u8; 2], rest: [u8; 4], length: u16) -> Option<Kind> {
    let mtu = |mtu: u16| [0, 0, (mtu >> 8) as u8, mtu as u8];
    Some(match (kind, code) {
        (3, 2) => ([4, 1], [0, 0, 0, 6]),
        (3, 3) => ([1, 4], [0; 4]),
        (3, 4) => {
            let told = u16::from_be_bytes([rest[2], rest[3]]);
            let told = if told == 0 { plateau(length) } else { told };
            ([2, 0], mtu(told.saturating_add(20).max(MIN_MTU)))
        }
        (3, 9 | 10 | 13 | 15) => ([1, 1], [0; 4]),
        (3, 0 | 1 | 5..=8 | 11 | 12) => ([1, 0], [0; 4]),
        (11, code) => ([3, code], [0; 4]),
        (12, 0 | 2) => ([4, 0], [0, 0, 0, pointer6(rest[0])?]),
        _ => return None,
    })
}

/// The field of an IPv6 header that is in the place of one of an IPv4 header (RFC 7915 figure 3).
#[inline(always)]
fn pointer6(pointer: u8) -> Option<u8> {
    Some(match pointer {
        0 | 1 => pointer,
        2 | 3 => 4,
        8 => 7,
        9 => 6,
        12..=15 => 8,
        16..=19 => 24,
        _ => return None,
    })
}

/// What a router of old may have meant that tells no MTU (RFC 1191 section 7): the next smaller plateau.
#[inline(always)]
fn plateau(length: u16) -> u16 {
    match length {
        32_001.. => 32_000,
        17_915.. => 17_914,
        8_167.. => 8_166,
        4_353.. => 4_352,
        2_003.. => 2_002,
        1_493.. => 1_492,
        // And less is no IPv6 link's.
        _ => 1_006,
    }
}

/// RFC 7915 section 5.2.
#[inline(always)]
fn kind4([kind, code]: [u8; 2], rest: [u8; 4]) -> Option<Kind> {
    Some(match (kind, code) {
        (1, 1) => ([3, 10], [0; 4]),
        (1, 4) => ([3, 3], [0; 4]),
        (1, 0 | 2 | 3) => ([3, 1], [0; 4]),
        (2, _) => {
            let told = u32::from_be_bytes(rest).min(0xffff) as u16;
            let [m0, m1] = told.saturating_sub(20).to_be_bytes();
            ([3, 4], [0, 0, m0, m1])
        }
        (3, code) => ([11, code], [0; 4]),
        (4, 0) => ([12, 0], [pointer4(u32::from_be_bytes(rest))?, 0, 0, 0]),
        (4, 1) => ([3, 2], [0; 4]),
        _ => return None,
    })
}

/// The field of an IPv4 header that is in the place of one of an IPv6 header (RFC 7915 figure 6).
#[inline(always)]
fn pointer4(pointer: u32) -> Option<u8> {
    Some(match pointer {
        0 | 1 => pointer as u8,
        4 | 5 => 2,
        6 => 9,
        7 => 8,
        8..=23 => 12,
        24..=39 => 16,
        _ => return None,
    })
}

/// Whether what sums up to `sum` has a checksum that is right (RFC 1071).
#[inline(always)]
fn is_right(sum: Delta) -> bool {
    sum.apply([0xff, 0xff]) == [0, 0]
}

/// The pseudo header of an ICMPv6 message (RFC 4443 section 2.3).
#[inline(always)]
fn pseudo(addrs: [u64; 4], length: usize) -> Delta {
    Delta::default().words([0; 4], addrs).bytes2([0; 2], (length as u16).to_be_bytes()).bytes2([0; 2], [0, ICMPV6])
}

/// Gives the quoted transport header the ports that the packet came to us with, and a checksum that is right for them and for
/// `addrs`, the change of addresses.
#[inline(never)]
fn restore<F: Frame, const P: usize>(frame: &mut F, quoted: Quoted, to: &Tuple<P>, addrs: Delta) -> Option<()> {
    let [s0, s1, d0, d1] = to.ports;
    let ports = frame.window::<4>(quoted.l4)?;
    let delta = addrs.bytes4(*ports, [d0, d1, s0, s1]);
    *ports = [d0, d1, s0, s1];
    if quoted.check != 0 {
        change(frame, quoted.check, delta, to.protocol == UDP)?;
    }
    Some(())
}

impl Reports<1, 4> for super::V4 {
    #[inline(always)]
    fn examine<F: Frame>(frame: &mut F, at: Message, quoted: Quoted, half: &Half<'_, 1, 4>, report: &mut Report) -> Option<bool> {
        let Message { l3, icmp, end } = at;
        if !is_right(Delta::default().plus(frame.sum(icmp, end - icmp)?)) {
            return None;
        }
        let inner = ipv4(frame, icmp + ICMP_LEN)?;
        let (inner_tos, inner_ttl, total) = (inner.tos, inner.ttl, u16::from_be_bytes(inner.tot_len));
        let &mut [kind, code, _, _, r0, r1, r2, r3] = frame.window::<ICMP_LEN>(icmp)?;
        let Some((kind, rest)) = kind6([kind, code], [r0, r1, r2, r3], total) else { return Some(false) };
        let ip = ipv4(frame, l3)?;
        report.fields = [ip.tos, ip.ttl.wrapping_sub(1), inner_tos, inner_ttl];
        report.quoted = total.wrapping_sub((quoted.l4 - icmp - ICMP_LEN) as u16);
        (report.kind, report.rest) = (kind, rest);
        (report.l3, report.l4, report.tail) = (l3 as u32, quoted.l4 as u32, (end - quoted.l4) as u16);
        // A sum does not care which way the addresses stand.
        restore(frame, quoted, half.to, Delta::default().words(half.tuple.addrs, [0]).words([0; 4], half.to.addrs))?;
        Some(true)
    }

    #[inline(always)]
    fn write<F: Frame>(frame: &mut F, report: &Report, to: &Tuple<4>, tags: Tags, way: &Way) -> Option<()> {
        let l3 = head(frame, report.place(), 40 + ICMP_LEN + 40, ETHERTYPE_IPV6, tags, way)?;
        let length = report.tail.wrapping_add(ICMP_LEN as u16 + 40);
        let [tos, ttl, inner_tos, inner_ttl] = report.fields;
        header6(frame, l3, [tos, ttl, ICMPV6], length, &to.addrs)?;
        header6(frame, l3 + 40 + ICMP_LEN, [inner_tos, inner_ttl, to.protocol], report.quoted, &turned6(to.addrs))?;
        *frame.window::<ICMP_LEN>(l3 + 40)? = report.header();
        let sum = frame.sum(l3 + 40, usize::from(length))?;
        *frame.window::<2>(l3 + 42)? = pseudo(to.addrs, usize::from(length)).plus(sum).apply([0xff, 0xff]);
        Some(())
    }
}

impl Reports<4, 1> for super::V6 {
    #[inline(always)]
    fn examine<F: Frame>(frame: &mut F, at: Message, quoted: Quoted, half: &Half<'_, 4, 1>, report: &mut Report) -> Option<bool> {
        let Message { l3, icmp, end } = at;
        let mut outer = [0; 4];
        for (n, word) in outer.iter_mut().enumerate() {
            *word = u64::from_ne_bytes(*frame.window::<8>(l3 + 8 + 8 * n)?);
        }
        if !is_right(pseudo(outer, end - icmp).plus(frame.sum(icmp, end - icmp)?)) {
            return None;
        }
        let inner = ipv6(frame, icmp + ICMP_LEN)?;
        let ([v, c, ..], inner_ttl, payload) = (inner.vcf, inner.hop_limit, u16::from_be_bytes(inner.payload_len));
        let inner_tos = v << 4 | c >> 4;
        let &mut [kind, code, _, _, r0, r1, r2, r3] = frame.window::<ICMP_LEN>(icmp)?;
        let Some((kind, rest)) = kind4([kind, code], [r0, r1, r2, r3]) else { return Some(false) };
        let ip = ipv6(frame, l3)?;
        let ([v, c, ..], hop_limit) = (ip.vcf, ip.hop_limit);
        report.fields = [v << 4 | c >> 4, hop_limit.wrapping_sub(1), inner_tos, inner_ttl];
        // Extension headers are left out.
        let extensions = (quoted.l4 - icmp - ICMP_LEN - 40) as u16;
        report.quoted = payload.wrapping_sub(extensions).wrapping_add(20);
        (report.kind, report.rest) = (kind, rest);
        (report.l3, report.l4, report.tail) = (l3 as u32, quoted.l4 as u32, (end - quoted.l4) as u16);
        // A sum does not care which way the addresses stand.
        restore(frame, quoted, half.to, Delta::default().words(half.tuple.addrs, [0; 4]).words([0], half.to.addrs))?;
        Some(true)
    }

    #[inline(always)]
    fn write<F: Frame>(frame: &mut F, report: &Report, to: &Tuple<1>, tags: Tags, way: &Way) -> Option<()> {
        let l3 = head(frame, report.place(), 20 + ICMP_LEN + 20, ETHERTYPE_IPV4, tags, way)?;
        let length = report.tail.wrapping_add(ICMP_LEN as u16 + 20);
        let [tos, ttl, inner_tos, inner_ttl] = report.fields;
        header4(frame, l3, [tos, ttl, ICMP], length.wrapping_add(20), to.addrs)?;
        let inner = [to.addrs[0].rotate_left(32)];
        header4(frame, l3 + 20 + ICMP_LEN, [inner_tos, inner_ttl, to.protocol], report.quoted, inner)?;
        *frame.window::<ICMP_LEN>(l3 + 20)? = report.header();
        let sum = frame.sum(l3 + 20, usize::from(length))?;
        *frame.window::<2>(l3 + 22)? = Delta::default().plus(sum).apply([0xff, 0xff]);
        Some(())
    }
}

/// An IPv6 header of a packet that is no fragment.
#[inline(never)]
fn header6<F: Frame>(frame: &mut F, l3: usize, [tos, ttl, protocol]: [u8; 3], payload: u16, addrs: &[u64; 4]) -> Option<()> {
    let ip = ipv6(frame, l3)?;
    ip.vcf = [6 << 4 | tos >> 4, tos << 4, 0, 0];
    ip.payload_len = payload.to_be_bytes();
    (ip.next_hdr, ip.hop_limit) = (protocol, ttl);
    (ip.src_addr, ip.dst_addr) = unpack6(*addrs);
    Some(())
}

/// An IPv4 header of a packet that is no fragment and may not become one.
#[inline(never)]
fn header4<F: Frame>(frame: &mut F, l3: usize, [tos, ttl, protocol]: [u8; 3], total: u16, addrs: [u64; 1]) -> Option<()> {
    let ip = ipv4(frame, l3)?;
    (ip.vihl, ip.tos, ip.ttl, ip.proto) = (0x45, tos, ttl, protocol);
    (ip.tot_len, ip.id, ip.frags, ip.check) = (total.to_be_bytes(), [0; 2], [0x40, 0], [0; 2]);
    (ip.src_addr, ip.dst_addr) = unpack4(addrs);
    let [l0, l1] = total.to_be_bytes();
    let sum = Delta::default().bytes4([0; 4], [0x45, tos, l0, l1]).bytes4([0; 4], [0, 0, 0x40, 0]);
    ip.check = sum.bytes2([0; 2], [ttl, protocol]).words([0], addrs).apply([0xff, 0xff]);
    Some(())
}

/// Source and destination exchanged.
#[inline(always)]
const fn turned6([a, b, c, d]: [u64; 4]) -> [u64; 4] {
    [c, d, a, b]
}
