//! What `ga watch` and `ga capture` ask of the watching program, and what it tells them.

use crate::wire::frame::{ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, TCP, UDP, ether_type};

/// Bytes of a frame that a capture can hold.
pub const SNAP: usize = 2048;

/// Kinds of verdicts, as bits of [`Watch::verdicts`] and values of [`Event::verdict`].
pub mod kind {
    /// To the host.
    pub const PASS: u8 = 1;
    /// Away.
    pub const DROP: u8 = 2;
    /// Out, rewritten.
    pub const SEND: u8 = 4;
}

/// An address as two words; IPv4 mapped into IPv6.
pub type Words = [u64; 2];

/// The words of an address key.
#[inline(always)]
pub fn words(address: [u8; 16]) -> Words {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
}

/// The address of [`words`].
pub fn address(words: Words) -> [u8; 16] {
    let ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]) = (words[0].to_ne_bytes(), words[1].to_ne_bytes());
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// The words of an IPv4 address.
#[inline(always)]
fn words4(address: [u8; 4]) -> Words {
    let [a, b, c, d] = address;
    [0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])]
}

/// One end of a packet that is wanted; all zero fits every packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// The network's address.
    pub addr: Words,
    /// Bits of it that count.
    pub mask: Words,
    /// Network byte order; 0 is any.
    pub port: [u8; 2],
    /// Zero.
    pub pad: [u8; 6],
}

impl End {
    #[inline(always)]
    fn fits(&self, addr: &Words, port: [u8; 2]) -> bool {
        let difference = (addr[0] ^ self.addr[0]) & self.mask[0] | (addr[1] ^ self.addr[1]) & self.mask[1];
        difference == 0 && (self.port == [0, 0] || self.port == port)
    }

    #[inline(always)]
    fn is_any(&self) -> bool {
        self.mask[0] | self.mask[1] == 0 && self.port == [0, 0]
    }
}

/// What to tell of.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Nothing is told from this moment of the monotonic clock on: an agent that was killed cannot say stop.
    pub until_ns: u64,
    /// Source on arrival.
    pub src: End,
    /// Destination on arrival.
    pub dst: End,
    /// Any end, on arrival or as it is sent.
    pub any: End,
    /// Events in a second at most (of 2^30 ns).
    pub per_second: u32,
    /// One of so many packets that fit; 1 is all.
    pub every: u32,
    /// Bytes of each frame that are captured; 0 to tell of the packet only.
    pub snap: u32,
    /// Bits of [`kind`].
    pub verdicts: u8,
    /// IANA number; 0 is any.
    pub protocol: u8,
    /// One more than the reason's number; 0 is any.
    pub reason: u8,
    /// Zero.
    pub pad: u8,
}

/// Both ends of a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Source.
    pub src: Words,
    /// Destination.
    pub dst: Words,
    /// Source and destination port in network byte order; zero where there are none.
    pub ports: [u8; 4],
    /// IANA number; IPv6 extension headers are not followed.
    pub protocol: u8,
    /// 0 when the frame is not IP; 1 otherwise.
    pub is_ip: u8,
    /// Zero.
    pub pad: [u8; 2],
}

/// What became of one packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// When, by the monotonic clock.
    pub ns: u64,
    /// Interface it came in by.
    pub ifindex: u32,
    /// Interface it goes out by; 0 when it does not.
    pub out: u32,
    /// Length of the frame this record is about.
    pub len: u32,
    /// Bytes of it that follow.
    pub snapped: u32,
    /// Which CPU.
    pub cpu: u32,
    /// One of [`kind`].
    pub verdict: u8,
    /// Number of the reason; meaningless for a packet that is sent.
    pub reason: u8,
    /// The listener, or `ListenerId::NONE`.
    pub listener: u16,
    /// 0 for the frame as it came, 1 for the frame as it is sent.
    pub part: u32,
    /// Zero.
    pub pad: u32,
    /// On arrival.
    pub before: Ends,
    /// As it is sent; the same as before for a packet that is not.
    pub after: Ends,
}

/// What was seen on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Packets that fit.
    pub matched: u64,
    /// Events left out because there were too many in a second.
    pub limited: u64,
    /// Events that found no room, because nobody read fast enough.
    pub lost: u64,
}

/// Length of an event, which is what a captured frame follows.
pub const EVENT_LEN: usize = size_of::<Event>();

const _: () = {
    assert!(size_of::<End>() == 40);
    assert!(size_of::<Watch>() == 144);
    assert!(size_of::<Ends>() == 40);
    assert!(size_of::<Event>() == 120);
    assert!(size_of::<Seen>() == 24);
};

/// The ends of a frame, behind up to two VLAN tags.
#[inline(always)]
pub fn ends<F: Frame>(frame: &mut F) -> Option<Ends> {
    let mut kind = ether_type(frame.window::<ETH_LEN>(0)?);
    let mut at = ETH_LEN;
    for _ in 0..2 {
        if kind == [0x81, 0x00] || kind == [0x88, 0xa8] {
            let tag = frame.window::<4>(at)?;
            kind = [tag[2], tag[3]];
            at += 4;
        }
    }
    let mut ends = Ends { is_ip: 1, ..Ends::default() };
    let l4 = match kind {
        ETHERTYPE_IPV4 => {
            let ip = frame.window::<20>(at)?;
            ends.src = words4([ip[12], ip[13], ip[14], ip[15]]);
            ends.dst = words4([ip[16], ip[17], ip[18], ip[19]]);
            ends.protocol = ip[9];
            // A later fragment has no ports.
            if (ip[6] & 0x1f) | ip[7] != 0 {
                return Some(ends);
            }
            at + usize::from(ip[0] & 0x0f) * 4
        }
        ETHERTYPE_IPV6 => {
            let ip = frame.window::<40>(at)?;
            let mut addr = [0; 16];
            addr.copy_from_slice(&ip[8..24]);
            ends.src = words(addr);
            addr.copy_from_slice(&ip[24..40]);
            ends.dst = words(addr);
            ends.protocol = ip[6];
            at + 40
        }
        _ => return None,
    };
    if (ends.protocol == TCP || ends.protocol == UDP)
        && let Some(ports) = frame.window::<4>(l4)
    {
        ends.ports = *ports;
    }
    Some(ends)
}

impl Watch {
    /// Whether `event` is to be told.
    #[inline(always)]
    pub fn wants(&self, event: &Event) -> bool {
        let (before, after) = (&event.before, &event.after);
        let [s0, s1, d0, d1] = before.ports;
        let [t0, t1, e0, e1] = after.ports;
        if event.verdict & self.verdicts == 0
            || self.reason != 0 && (event.verdict == kind::SEND || self.reason != event.reason.wrapping_add(1))
            || self.protocol != 0 && self.protocol != before.protocol
        {
            return false;
        }
        let is_plain = self.src.is_any() && self.dst.is_any() && self.any.is_any();
        if before.is_ip == 0 {
            return is_plain;
        }
        is_plain
            || self.src.fits(&before.src, [s0, s1])
                && self.dst.fits(&before.dst, [d0, d1])
                && (self.any.fits(&before.src, [s0, s1])
                    || self.any.fits(&before.dst, [d0, d1])
                    || self.any.fits(&after.src, [t0, t1])
                    || self.any.fits(&after.dst, [e0, e1]))
    }
}

#[cfg(any(test, feature = "user"))]
impl Event {
    /// An event as it lies in memory.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut at = 0;
        let mut take = |length: usize| {
            let part = bytes.get(at..at + length);
            at += length;
            part
        };
        let (ns, ifindex, out, len) = (word8(take(8)?), word4(take(4)?), word4(take(4)?), word4(take(4)?));
        let (snapped, cpu) = (word4(take(4)?), word4(take(4)?));
        let &[verdict, reason, l0, l1] = take(4)? else { return None };
        let (part, pad) = (word4(take(4)?), word4(take(4)?));
        let mut ends = || {
            let (src, dst) = ([word8(take(8)?), word8(take(8)?)], [word8(take(8)?), word8(take(8)?)]);
            let &[p0, p1, p2, p3, protocol, is_ip, _, _] = take(8)? else { return None };
            Some(Ends { src, dst, ports: [p0, p1, p2, p3], protocol, is_ip, pad: [0; 2] })
        };
        let (before, after) = (ends()?, ends()?);
        let listener = u16::from_ne_bytes([l0, l1]);
        Some(Self { ns, ifindex, out, len, snapped, cpu, verdict, reason, listener, part, pad, before, after })
    }
}

#[cfg(any(test, feature = "user"))]
fn word4(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_ne_bytes)
}

#[cfg(any(test, feature = "user"))]
fn word8(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use etherparse::PacketBuilder;

    use super::*;
    use crate::{abi::entry::mapped, sim::Bytes};

    const CLIENT: [u8; 4] = [192, 0, 2, 7];
    const VIP: [u8; 4] = [198, 51, 100, 10];

    fn udp(vlans: usize) -> Vec<u8> {
        let eth = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let mut bytes = Vec::new();
        let id = etherparse::VlanId::try_new(7).expect("a VLAN");
        match vlans {
            0 => eth.ipv4(CLIENT, VIP, 9).udp(4000, 53).write(&mut bytes, b"hello"),
            1 => eth.single_vlan(id).ipv4(CLIENT, VIP, 9).udp(4000, 53).write(&mut bytes, b"hello"),
            _ => eth.double_vlan(id, id).ipv4(CLIENT, VIP, 9).udp(4000, 53).write(&mut bytes, b"hello"),
        }
        .expect("room");
        bytes
    }

    fn of(bytes: Vec<u8>) -> Option<Ends> {
        ends(&mut Bytes { bytes, ifindex: 1 })
    }

    #[test]
    fn ends_are_found_behind_tags_and_options_and_in_both_families() {
        let expected = Ends {
            src: words(mapped(CLIENT)),
            dst: words(mapped(VIP)),
            ports: [0x0f, 0xa0, 0, 53],
            protocol: UDP,
            is_ip: 1,
            pad: [0; 2],
        };
        for vlans in 0..3 {
            assert_eq!(of(udp(vlans)), Some(expected), "{vlans} tags");
        }
        let mut bytes = Vec::new();
        let v6 = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([1; 16], [2; 16], 9).tcp(80, 81, 1, 1);
        v6.write(&mut bytes, &[]).expect("room");
        let ends = of(bytes).expect("an IPv6 packet");
        assert_eq!((ends.src, ends.dst, ends.ports, ends.protocol), (words([1; 16]), words([2; 16]), [0, 80, 0, 81], TCP));
        assert_eq!(address(ends.dst), [2; 16]);
        assert_eq!(of(vec![0; 60]), None);
        for length in 0..udp(2).len() {
            // No length may panic.
            of(udp(2)[..length].to_vec());
        }
    }

    fn event() -> Event {
        let before = of(udp(0)).expect("an IPv4 packet");
        let after =
            Ends { src: words(mapped([203, 0, 113, 5])), dst: words(mapped([10, 0, 0, 11])), ports: [4, 0, 0, 54], ..before };
        Event { verdict: kind::SEND, before, after, ..Event::default() }
    }

    fn end(addr: [u8; 4], bits: u32, port: u16) -> End {
        let mask = (u128::MAX << (32 - bits)).to_be_bytes();
        End { addr: words(mapped(addr)), mask: words(mask), port: port.to_be_bytes(), pad: [0; 6] }
    }

    #[test]
    fn an_end_may_be_named_as_it_came_or_as_it_is_sent() {
        let all = Watch { verdicts: kind::PASS | kind::DROP | kind::SEND, every: 1, ..Watch::default() };
        assert!(all.wants(&event()));
        for (any, wanted) in [
            (end(CLIENT, 32, 0), true),
            (end([192, 0, 2, 0], 24, 4000), true),
            (end([10, 0, 0, 11], 32, 54), true),
            (end([10, 0, 0, 11], 32, 53), false),
            (end([192, 0, 3, 0], 24, 0), false),
            (End { port: 53u16.to_be_bytes(), ..End::default() }, true),
            (End { port: 55u16.to_be_bytes(), ..End::default() }, false),
        ] {
            assert_eq!(Watch { any, ..all }.wants(&event()), wanted, "{any:?}");
        }
        assert!(Watch { src: end(CLIENT, 32, 4000), dst: end(VIP, 32, 53), ..all }.wants(&event()));
        assert!(!Watch { src: end(VIP, 32, 0), ..all }.wants(&event()), "the source is that of arrival");
        let not_ip = Event { verdict: kind::PASS, ..Event::default() };
        assert!(all.wants(&not_ip) && !Watch { any: end(CLIENT, 32, 0), ..all }.wants(&not_ip));
    }

    #[test]
    fn verdict_reason_and_protocol_are_conditions_of_their_own() {
        let all = Watch { verdicts: kind::PASS | kind::DROP | kind::SEND, every: 1, ..Watch::default() };
        assert!(!Watch { verdicts: kind::DROP, ..all }.wants(&event()));
        assert!(!Watch { protocol: TCP, ..all }.wants(&event()) && Watch { protocol: UDP, ..all }.wants(&event()));
        let dropped = Event { verdict: kind::DROP, reason: 2, ..event() };
        assert!(Watch { reason: 3, ..all }.wants(&dropped) && !Watch { reason: 2, ..all }.wants(&dropped));
        assert!(!Watch { reason: 1, ..all }.wants(&event()), "what is sent has no reason");
    }

    #[test]
    fn an_event_survives_the_way_through_bytes() {
        let event =
            Event { ns: 1 << 40, ifindex: 7, out: 8, len: 60, snapped: 60, cpu: 1, reason: 3, listener: 513, part: 1, ..event() };
        let mut bytes = Vec::new();
        bytes.extend(event.ns.to_ne_bytes());
        for word in [event.ifindex, event.out, event.len, event.snapped, event.cpu] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend([event.verdict, event.reason]);
        bytes.extend(event.listener.to_ne_bytes());
        bytes.extend([event.part, event.pad].into_iter().flat_map(u32::to_ne_bytes));
        for ends in [event.before, event.after] {
            bytes.extend(ends.src.into_iter().chain(ends.dst).flat_map(u64::to_ne_bytes));
            bytes.extend(ends.ports);
            bytes.extend([ends.protocol, ends.is_ip, 0, 0]);
        }
        assert_eq!(bytes.len(), EVENT_LEN);
        assert_eq!(Event::from_bytes(&bytes), Some(event));
        assert_eq!(Event::from_bytes(&bytes[..EVENT_LEN - 1]), None);
    }
}
