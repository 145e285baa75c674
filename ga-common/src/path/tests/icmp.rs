//! ICMP messages rewritten by us against the same messages made by etherparse.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    vec::Vec,
};

use etherparse::{
    Icmpv4Type, Icmpv6Type, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6Header, Ipv6RawExtHeader,
    PacketBuilder, TcpHeader, UdpHeader,
};
use proptest::{collection::vec, prelude::*};

use super::super::icmp::{Half, Message, answer, is_echo, is_error, quote, translate};
use super::super::tables::Scratch;
use crate::{
    abi::flow::{Tuple, pack4, pack6},
    sim::Bytes,
    wire::frame::{TCP, UDP},
};

const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// A packet that is quoted.
#[derive(Clone, Debug)]
struct Inner {
    protocol: u8,
    /// 4-byte words of IPv4 options, or 8-byte words of IPv6 destination options.
    options: usize,
    payload: Vec<u8>,
    /// Bytes of the transport header and what follows that are quoted.
    quoted: usize,
    /// A UDP packet without a checksum.
    no_check: bool,
}

fn inner() -> impl Strategy<Value = Inner> {
    (prop_oneof![Just(TCP), Just(UDP)], 0usize..=10, vec(any::<u8>(), 0..40), 8usize..64, any::<bool>()).prop_map(
        |(protocol, options, payload, quoted, no_check)| {
            // Half a TCP checksum cannot be made right: nobody can say what the other half was.
            let quoted = if protocol == TCP && quoted == 17 { 16 } else { quoted };
            Inner { protocol, options, payload, quoted, no_check }
        },
    )
}

impl Inner {
    /// Its bytes between two ends, and the offset of its transport header.
    fn bytes(&self, src: (IpAddr, u16), dst: (IpAddr, u16)) -> (Vec<u8>, usize) {
        let (mut head, ip) = headers(src.0, dst.0, 63, self.protocol, self.options, true);
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ip(ip);
        match self.protocol {
            TCP => builder.tcp(src.1, dst.1, 7, 8).write(&mut bytes, &self.payload).unwrap(),
            _ => builder.udp(src.1, dst.1).write(&mut bytes, &self.payload).unwrap(),
        }
        head += bytes.len() - head - self.payload.len() - if self.protocol == TCP { TcpHeader::MIN_LEN } else { UdpHeader::LEN };
        if self.protocol == UDP && self.no_check {
            bytes[head + 6..head + 8].fill(0);
        }
        bytes.truncate(head + self.quoted);
        (bytes, head)
    }
}

fn headers(src: IpAddr, dst: IpAddr, ttl: u8, next: u8, options: usize, df: bool) -> (usize, IpHeaders) {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut ip = Ipv4Header::new(0, ttl, IpNumber(next), src.octets(), dst.octets()).unwrap();
            ip.options = std::vec![1; options * 4].as_slice().try_into().unwrap();
            ip.dont_fragment = df;
            (0, IpHeaders::Ipv4(ip, Ipv4Extensions::default()))
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let ip = Ipv6Header { hop_limit: ttl, source: src.octets(), destination: dst.octets(), ..Ipv6Header::default() };
            let mut extensions = Ipv6Extensions::default();
            if options > 0 {
                let header = Ipv6RawExtHeader::new_raw(IpNumber(next), &std::vec![0; options * 8 - 2]).unwrap();
                extensions.destination_options = Some(header);
            }
            (0, IpHeaders::Ipv6(ip, extensions))
        }
        other => panic!("two families: {other:?}"),
    }
}

/// A frame with an ICMP message, `tags` VLAN tags of anything in front, and where it is.
fn message(src: IpAddr, dst: IpAddr, ttl: u8, kind: u8, bytes5to8: [u8; 4], options: usize, body: &[u8]) -> (Bytes, Message) {
    let builder = PacketBuilder::ethernet2(MACS[0], MACS[1]);
    let (_, ip) = headers(src, dst, ttl, if src.is_ipv4() { 1 } else { 58 }, options, false);
    let mut bytes = Vec::new();
    match src {
        IpAddr::V4(_) => {
            let kind = Icmpv4Type::Unknown { type_u8: kind, code_u8: 0, bytes5to8 };
            builder.ip(ip).icmpv4(kind).write(&mut bytes, body).unwrap();
        }
        IpAddr::V6(_) => {
            let kind = Icmpv6Type::Unknown { type_u8: kind, code_u8: 0, bytes5to8 };
            builder.ip(ip).icmpv6(kind).write(&mut bytes, body).unwrap();
        }
    }
    let place = Message { l3: 14, icmp: bytes.len() - body.len() - 8, end: bytes.len() };
    (Bytes { bytes, ifindex: 1 }, place)
}

/// RFC 1071, by the letter, for a receiver: everything with the checksum sums up to all ones.
fn sums_up(words: &[u8]) -> bool {
    let mut sum: u32 = words.chunks(2).map(|p| u32::from(u16::from_be_bytes([p[0], p.get(1).copied().unwrap_or(0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum == 0xffff
}

/// One way of a flow, in both families' terms.
#[derive(Clone, Copy, Debug)]
struct Ends {
    src: (IpAddr, u16),
    dst: (IpAddr, u16),
}

impl Ends {
    fn turned(self) -> Self {
        Self { src: self.dst, dst: self.src }
    }
}

fn tuple<const K: usize>(ends: Ends, protocol: u8, pack: impl Fn(Ends) -> [u64; K]) -> Tuple<K> {
    let ([s0, s1], [d0, d1]) = (ends.src.1.to_be_bytes(), ends.dst.1.to_be_bytes());
    Tuple { addrs: pack(ends), ports: [s0, s1, d0, d1], protocol }
}

fn packed4(ends: Ends) -> [u64; 1] {
    match (ends.src.0, ends.dst.0) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => pack4(src.octets(), dst.octets()),
        other => panic!("{other:?}"),
    }
}

fn packed6(ends: Ends) -> [u64; 4] {
    match (ends.src.0, ends.dst.0) {
        (IpAddr::V6(src), IpAddr::V6(dst)) => pack6(src.octets(), dst.octets()),
        other => panic!("{other:?}"),
    }
}

/// Four addresses and ports of one family: client, VIP, egress, endpoint; and a router's address.
fn site() -> impl Strategy<Value = ([(IpAddr, u16); 4], IpAddr)> {
    let four = (any::<[(u32, u16); 4]>(), any::<u32>())
        .prop_map(|(ends, router)| (ends.map(|(a, port)| (Ipv4Addr::from(a).into(), port)), Ipv4Addr::from(router).into()));
    let six = (any::<[(u128, u16); 4]>(), any::<u128>())
        .prop_map(|(ends, router)| (ends.map(|(a, port)| (Ipv6Addr::from(a).into(), port)), Ipv6Addr::from(router).into()));
    prop_oneof![four, six]
}

/// What an error about a flow is and what it must become.
struct Trial {
    frame: Bytes,
    place: Message,
    expected: Bytes,
    old: Ends,
    new: Ends,
    l4: usize,
}

/// An error from `reporter` about a packet of the half that goes against `old` → `new`.
fn trial(old: Ends, new: Ends, reporter: IpAddr, becomes: IpAddr, inner: &Inner, ttl: u8, options: usize) -> Trial {
    let kind = if old.src.0.is_ipv4() { 3 } else { 2 };
    let (body, head) = inner.bytes(old.dst, old.src);
    let (frame, place) = message(reporter, old.dst.0, ttl, kind, [0, 0, 5, 0x78], options, &body);
    let (body, _) = inner.bytes(new.dst, new.src);
    let (expected, _) = message(becomes, new.dst.0, ttl - 1, kind, [0, 0, 5, 0x78], options, &body);
    Trial { frame, place, expected, old, new, l4: place.icmp + 8 + head }
}

impl Trial {
    fn run<const K: usize>(&self, protocol: u8, is_return: bool, pack: impl Fn(Ends) -> [u64; K]) -> Bytes {
        let mut frame = self.frame.clone();
        let (old, new) = (tuple(self.old, protocol, &pack), tuple(self.new, protocol, &pack));
        let mut tuple = Scratch::new().packet.tuple;
        let quoted = quote(&mut frame, self.place, &mut tuple).unwrap();
        assert_eq!((tuple, quoted.l4), (old, self.l4));
        translate(&mut frame, self.place, quoted, &Half { tuple: &old, to: &new, is_return }).unwrap();
        frame
    }

    fn check(&self, protocol: u8, is_return: bool) {
        let seen = match self.old.src.0 {
            IpAddr::V4(_) => self.run::<1>(protocol, is_return, packed4),
            IpAddr::V6(_) => self.run::<4>(protocol, is_return, packed6),
        };
        assert_eq!(seen, self.expected);
    }

    fn quoted(&self, frame: &mut Bytes, place: Message) -> bool {
        match self.old.src.0 {
            IpAddr::V4(_) => quote::<1, _>(frame, place, &mut Scratch::new().packet.tuple).is_some(),
            IpAddr::V6(_) => quote::<4, _>(frame, place, &mut Scratch::new().packet.tuple).is_some(),
        }
    }
}

proptest! {
    #[test]
    fn an_error_from_the_clients_side_reaches_the_endpoint(
        (ends, router) in site(), inner in inner(), by_client in any::<bool>(), ttl in 2u8.., options in 0usize..=10,
    ) {
        let [client, vip, egress, endpoint] = ends;
        let (old, new) = (Ends { src: client, dst: vip }, Ends { src: egress, dst: endpoint });
        prop_assume!(client.0 != router);
        // RFC 5508 REQ-4: a router's address stays.
        let (reporter, becomes) = if by_client { (client.0, egress.0) } else { (router, router) };
        trial(old, new, reporter, becomes, &inner, ttl, options).check(inner.protocol, false);
    }

    #[test]
    fn an_error_from_the_endpoints_side_reaches_the_client(
        (ends, router) in site(), inner in inner(), by_endpoint in any::<bool>(), ttl in 2u8.., options in 0usize..=10,
    ) {
        let [client, vip, egress, endpoint] = ends;
        let (old, new) = (Ends { src: endpoint, dst: egress }, Ends { src: vip, dst: client });
        // RFC 5508 REQ-5: whoever it was is the VIP to the client.
        let reporter = if by_endpoint { endpoint.0 } else { router };
        trial(old, new, reporter, vip.0, &inner, ttl, options).check(inner.protocol, true);
    }

    #[test]
    fn a_quote_that_is_cut_off_before_the_ports_are_whole_says_nothing((ends, router) in site(), inner in inner(), pad in 0usize..20) {
        let [client, vip, egress, endpoint] = ends;
        let (old, new) = (Ends { src: client, dst: vip }, Ends { src: egress, dst: endpoint });
        let trial = trial(old, new, router, router, &inner, 64, 0);
        for end in trial.place.icmp + 8..=trial.place.end {
            // Whether the frame ends there or goes on behind the packet.
            let mut frame = trial.frame.clone();
            frame.bytes.truncate(end);
            frame.bytes.extend(std::iter::repeat_n(0xee, pad));
            prop_assert_eq!(trial.quoted(&mut frame, Message { end, ..trial.place }), end >= trial.l4 + 8);
        }
    }

    #[test]
    fn fragments_and_other_protocols_are_not_quotes((ends, router) in site(), inner in inner(), offset in 1u16..8192, more in any::<bool>(), other in any::<u8>()) {
        let [client, vip, egress, endpoint] = ends;
        let inner = Inner { options: 0, ..inner };
        let trial = trial(Ends { src: client, dst: vip }, Ends { src: egress, dst: endpoint }, router, router, &inner, 64, 0);
        let (mut frame, at) = (trial.frame.clone(), trial.place.icmp + 8);
        prop_assert!(trial.quoted(&mut frame.clone(), trial.place));
        let next = if client.0.is_ipv4() { at + 9 } else { at + 6 };
        let version = frame.bytes[at];
        frame.bytes[at] = version ^ 0x20;
        prop_assert!(!trial.quoted(&mut frame, trial.place));
        frame.bytes[at] = version;
        if client.0.is_ipv4() {
            let [high, low] = offset.to_be_bytes();
            frame.bytes[at + 6..at + 8].copy_from_slice(&[high | u8::from(more) << 5, low]);
            prop_assert!(!trial.quoted(&mut frame, trial.place));
            frame.bytes[at + 6..at + 8].copy_from_slice(&[0x40, 0]);
        } else {
            frame.bytes[next] = 44;
            prop_assert!(!trial.quoted(&mut frame, trial.place));
        }
        prop_assume!(!matches!(other, TCP | UDP | 0 | 43 | 60));
        frame.bytes[next] = other;
        prop_assert!(!trial.quoted(&mut frame, trial.place));
    }

    #[test]
    fn an_echo_request_becomes_its_reply((ends, _) in site(), ttl in any::<u8>(), id in any::<[u8; 4]>(), body in vec(any::<u8>(), 0..600)) {
        check_echo(ends[0].0, ends[1].0, ttl, id, &body);
    }
}

fn check_echo(client: IpAddr, vip: IpAddr, ttl: u8, id: [u8; 4], body: &[u8]) {
    let (request, reply) = if client.is_ipv4() { (8, 0) } else { (128, 129) };
    let (mut frame, place) = message(client, vip, ttl, request, id, 0, body);
    let (mut expected, _) = message(vip, client, 64, reply, id, 0, body);
    let (left, right) = expected.bytes.split_at_mut(6);
    left.swap_with_slice(&mut right[..6]);
    let done = if client.is_ipv4() { answer::<1, _>(&mut frame, place) } else { answer::<4, _>(&mut frame, place) };
    assert!(done.is_some());
    let check = place.icmp + 2..place.icmp + 4;
    if client.is_ipv4() {
        assert!(sums_up(&frame.bytes[place.icmp..]), "{:02x?}", &frame.bytes[place.icmp..]);
        // Zero and all ones are the same number; above it is shown that a receiver takes it for right.
        if frame.bytes[check.clone()] == [0xff, 0xff] && expected.bytes[check.clone()] == [0, 0] {
            expected.bytes[check].fill(0xff);
        }
    }
    assert_eq!(frame, expected);
}

#[test]
fn an_echo_request_of_every_checksum_becomes_its_reply() {
    let (client, vip) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([198, 51, 100, 1]));
    for id in 0..=u16::MAX {
        let [a, b] = id.to_be_bytes();
        check_echo(client, vip, 64, [a, b, 0, 0], &[]);
    }
    let (client, vip) = (IpAddr::from(Ipv6Addr::LOCALHOST), IpAddr::from([0x2001, 0xdb8, 1, 0, 0, 0, 0, 1]));
    for id in 0..=u16::MAX {
        let [a, b] = id.to_be_bytes();
        check_echo(client, vip, 64, [a, b, 0, 0], &[]);
    }
}

#[test]
fn an_echo_request_that_cannot_be_answered_where_it_lies_is_not_touched() {
    let four: (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [198, 51, 100, 1].into());
    let six: (IpAddr, IpAddr) = ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(), [0x2001, 0xdb8, 1, 0, 0, 0, 0, 1].into());
    for ((client, vip), kind) in [(four, 8), (six, 128)] {
        let refuse = |frame: &Bytes, place| {
            let mut answered = frame.clone();
            let done = if client.is_ipv4() { answer::<1, _>(&mut answered, place) } else { answer::<4, _>(&mut answered, place) };
            assert_eq!((done, &answered), (None, frame));
        };
        let (frame, place) = message(client, vip, 64, kind, [0; 4], 1, b"options");
        refuse(&frame, place);
        let (mut frame, place) = message(client, vip, 64, kind, [0; 4], 0, b"");
        refuse(&frame, Message { end: place.end - 1, ..place });
        frame.bytes[place.icmp + 1] = 1;
        refuse(&frame, place);
        frame.bytes[place.icmp + 1] = 0;
        frame.bytes[6] |= 1;
        refuse(&frame, place);
    }
}

#[test]
fn types_are_what_the_rfcs_say() {
    let errors4: Vec<u8> = (0..=255).filter(|kind| is_error::<1>(*kind)).collect();
    let errors6: Vec<u8> = (0..=255).filter(|kind| is_error::<4>(*kind)).collect();
    assert_eq!((errors4, errors6), (std::vec![3, 11, 12], std::vec![1, 2, 3, 4]));
    assert_eq!((0..=255).filter(|kind| is_echo::<1>(*kind)).collect::<Vec<u8>>(), [8]);
    assert_eq!((0..=255).filter(|kind| is_echo::<4>(*kind)).collect::<Vec<u8>>(), [128]);
}

#[test]
fn a_quoted_udp_packet_of_every_checksum_is_restored() {
    let inner = Inner { protocol: UDP, options: 0, payload: Vec::new(), quoted: 8, no_check: false };
    let four = [[192, 0, 2, 7], [198, 51, 100, 1], [203, 0, 113, 1], [10, 0, 0, 1]].map(IpAddr::from);
    let six = [0xc, 1, 0xe, 0xb].map(|net| IpAddr::from([0x2001, 0xdb8, net, 0, 0, 0, 0, 1]));
    for [client, vip, egress, endpoint] in [four, six] {
        let mut zeros = 0;
        for port in 0..=u16::MAX {
            let old = Ends { src: (client, port), dst: (vip, 53) };
            let new = Ends { src: (egress, 2000), dst: (endpoint, 5353) };
            trial(old, new, client, egress, &inner, 64, 0).check(UDP, false);
            let trial = trial(new.turned(), old.turned(), endpoint, vip, &inner, 64, 0);
            trial.check(UDP, true);
            zeros += usize::from(trial.expected.bytes[trial.l4 + 6..trial.l4 + 8] == [0xff, 0xff]);
        }
        assert!(zeros > 0, "no sum was zero");
    }
}
