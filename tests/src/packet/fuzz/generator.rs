//! Packets that are likely to hurt: steps of handshakes in any order, both directions of living flows, headers that are odd or lie,
//! and bytes that are simply wrong.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use super::trace::Event;
use crate::packet::{
    case::{Case, Icmp, Packet},
    craft::{Changed, Ends, frame_between},
    model::{Model, pair::Pair, segment::UDP},
    random::{Random, mutate, originals},
    world::{CLIENT_MAC, INNER_MAC, NAT_FIRST, OUR_MAC},
};

const WORLDS: [&str; 17] = [
    "standard",
    "standard",
    "one_armed",
    "only_a",
    "own_port",
    "only_b",
    "empty",
    "nobody",
    "no_egress",
    "no_hop",
    "two_ports",
    "tagged",
    "one_armed_tagged",
    "across",
    "one_armed_across",
    "across_tagged",
    "served",
];

/// Around every timeout there is.
const WAITS: [u16; 16] = [1, 1, 2, 5, 9, 11, 15, 19, 21, 29, 31, 45, 59, 61, 401, 901];

const CLIENTS4: [&str; 5] = ["192.0.2.7", "192.0.2.8", "192.0.2.200", "255.1.2.3", "10.0.0.1"];
const CLIENTS6: [&str; 4] = ["2001:db8:c::7", "2001:db8:c::8", "2001:db8:c::ffff", "2001:db8:b::1"];
const MARTIANS4: [&str; 6] = ["198.51.100.1", "203.0.113.1", "127.0.0.1", "0.0.0.0", "224.0.0.5", "255.255.255.255"];
const MARTIANS6: [&str; 6] = ["2001:db8:1::1", "2001:db8:e::1", "::1", "::", "ff02::1", "::ffff:192.0.2.7"];
const VIPS4: [&str; 4] = ["198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.5"];
const VIPS6: [&str; 3] = ["2001:db8:1::1", "2001:db8:1::2", "2001:db8:1::5"];
const OTHERS4: [&str; 4] = ["198.51.100.99", "203.0.113.1", "203.0.113.2", "255.255.255.255"];
const OTHERS6: [&str; 5] = ["2001:db8:1::99", "2001:db8:e::1", "ff02::1", "::ffff:198.51.100.1", "::ffff:203.0.113.1"];
const TCP_PORTS: [u16; 14] = [80, 80, 80, 443, 1000, 2000, 7000, 7001, 999, 2001, 7500, 7501, 7502, 7503];
const UDP_PORTS: [u16; 7] = [53, 53, 123, 7000, 54, 7500, 7501];
const FLAGS: [&str; 16] = ["A", "A", "PA", "PA", "S", "SA", "FA", "FA", "RA", "R", "F", "SF", "SR", "", "SFRPAU", "FPU"];

/// Draws one event after the other.
pub(super) struct Generator {
    random: Random,
    originals: Vec<Vec<u8>>,
    shortest: usize,
    world: &'static str,
}

impl Generator {
    pub(super) fn new(random: Random, corpus: &BTreeMap<String, Vec<Case>>, shortest: usize) -> Self {
        let originals = originals(corpus).into_iter().filter(|frame| frame.len() >= shortest).collect();
        Self { random, originals, shortest, world: "standard" }
    }

    /// The world that holds now.
    pub(super) fn world(&self) -> &'static str {
        self.world
    }

    pub(super) fn next(&mut self, model: &Model, is_time_to_forget: bool) -> Event {
        if is_time_to_forget && self.random.once_in(2) {
            return Event::Forget;
        }
        if self.random.once_in(300) {
            self.world = self.pick(&WORLDS);
            return Event::World(self.world);
        }
        if self.random.once_in(24) {
            return Event::Wait(self.pick(&WAITS));
        }
        Event::Packet(self.packet(model))
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.random.below(of.len())]
    }

    fn packet(&mut self, model: &Model) -> Vec<u8> {
        let lively = model.some_pair(self.random.number()).cloned();
        let mut frame = match (self.random.below(16), lively) {
            (0..8, Some(pair)) => self.of_pair(&pair),
            (8, Some(pair)) => self.about_pair(&pair),
            (10, Some(pair)) => self.message(&pair),
            (9, _) if !self.originals.is_empty() => self.originals[self.random.below(self.originals.len())].clone(),
            _ => self.fresh(),
        };
        if self.random.once_in(12) {
            self.tag(&mut frame);
        }
        if self.random.once_in(6) {
            mutate(&mut frame, &mut self.random, self.shortest);
        }
        frame
    }

    /// A packet of a client, mostly one that opens a flow.
    fn fresh(&mut self) -> Vec<u8> {
        let (v6, udp) = (self.random.once_in(2), self.random.once_in(2));
        let (clients, martians): (&[&str], &[&str]) = if v6 { (&CLIENTS6, &MARTIANS6) } else { (&CLIENTS4, &MARTIANS4) };
        let (vips, others): (&[&str], &[&str]) = if v6 { (&VIPS6, &OTHERS6) } else { (&VIPS4, &OTHERS4) };
        let src = if self.random.once_in(24) { self.pick(martians) } else { self.pick(clients) };
        let dst = if self.random.once_in(16) { self.pick(others) } else { self.pick(vips) };
        let port = self.pick(if udp { &UDP_PORTS[..] } else { &TCP_PORTS[..] });
        // Beyond the NAT ports, and among them.
        let src = socket(src, self.pick(&[40_000, 20_000]) + self.random.below(8) as u16);
        let flags = if self.random.once_in(8) { self.pick(&FLAGS) } else { "S" };
        self.build(Ends { src, dst: socket(dst, port) }, udp, flags, OUR_MAC, CLIENT_MAC)
    }

    /// A packet of a living flow, one way or the other.
    fn of_pair(&mut self, pair: &Pair) -> Vec<u8> {
        let flags = self.pick(&FLAGS);
        let udp = pair.protocol == UDP;
        match pair.egress {
            Some(egress) if self.random.once_in(2) => {
                let ends = Ends { src: apart(pair.endpoint), dst: apart(egress) };
                self.build(ends, udp, flags, INNER_MAC, [0x02, 0, 0, 0, 0x0a, 1])
            }
            _ => self.build(Ends { src: apart(pair.client), dst: apart(pair.vip) }, udp, flags, OUR_MAC, CLIENT_MAC),
        }
    }

    /// A packet that is nearly of a living flow: one of the four ends is another.
    fn about_pair(&mut self, pair: &Pair) -> Vec<u8> {
        let (mut src, mut dst) = match pair.egress {
            Some(egress) if self.random.once_in(2) => (pair.endpoint, egress),
            _ => (pair.client, pair.vip),
        };
        match self.random.below(4) {
            0 => src.set_port(src.port() ^ 1),
            1 => dst.set_port(NAT_FIRST + self.random.below(4) as u16),
            2 => src.set_ip(neighbour(src.ip())),
            _ => dst.set_ip(neighbour(dst.ip())),
        }
        let udp = (pair.protocol == UDP) != self.random.once_in(8);
        let flags = self.pick(&FLAGS);
        self.build(Ends { src: apart(src), dst: apart(dst) }, udp, flags, OUR_MAC, CLIENT_MAC)
    }

    /// An ICMP error about a living flow, by somebody on either side, or an echo request.
    fn message(&mut self, pair: &Pair) -> Vec<u8> {
        let random = &mut self.random;
        let (to, about, strangers) = match pair.egress {
            Some(egress) if random.once_in(2) => (egress, pair.endpoint, ["10.0.0.254", "2001:db8:b::ff"]),
            _ => (pair.vip, pair.client, ["192.0.2.254", "2001:db8:c::ff"]),
        };
        let v6 = to.is_ipv6();
        let stranger = strangers[usize::from(v6)];
        let proto = if pair.protocol == UDP { "udp" } else { "tcp" };
        let mut quote = Packet { proto: proto.to_owned(), flags: "A".to_owned(), ..Packet::default() };
        (quote.src, quote.dst) = (Some(to.to_string()), about.to_string());
        quote.payload_len = random.below(60);
        quote.cut = [0, random.below(28)][random.below(2)];
        match random.below(12) {
            0 => quote.ip_options = "94040000".to_owned(),
            1 => quote.checksum = "0000".to_owned(),
            2 => (quote.mf, quote.fragment) = (true, random.below(2) as u16),
            3 => (quote.src, quote.dst) = (Some(about.to_string()), to.to_string()),
            4 if v6 => {
                quote.extension = extension(random, proto);
                quote.next = Some(if quote.extension.starts_with("2c") { 44 } else { 0 });
                quote.extension = quote.extension.split_off(2);
            }
            _ => {}
        }
        let is_echo = random.once_in(5);
        let kind = match (v6, is_echo) {
            (true, true) => 128,
            (false, true) => 8,
            (true, false) => [1, 2, 3, 4, 5, 129, 135][random.below(7)],
            (false, false) => [3, 3, 11, 12, 4, 5, 0][random.below(7)],
        };
        let quote = if is_echo { None } else { Some(Box::new(quote)) };
        let code = random.below(6) as u8 % 5;
        let mut packet = Packet { ttl: [64, 64, 64, 1, 0, 2][random.below(6)], ..Packet::default() };
        packet.icmp = Some(Icmp { kind, code: if is_echo { code / 4 } else { code }, rest: "00000578".to_owned(), quote });
        packet.payload_len = random.below(3) * 7;
        if random.once_in(8) {
            packet.checksum = "bad".to_owned();
        }
        if random.once_in(12) && !v6 {
            packet.ip_options = "94040000".to_owned();
        }
        let src = if random.once_in(2) { about.ip() } else { stranger.parse().unwrap_or(about.ip()) };
        let ends = Ends { src: (src, 0), dst: (to.ip(), 0) };
        let frame = frame_between(&packet, ends, Changed { ttl: packet.ttl, dst_mac: OUR_MAC, src_mac: CLIENT_MAC });
        let mut frame = frame.unwrap_or_default();
        frame.resize(frame.len().max(self.shortest), 0);
        frame
    }

    /// Fields that are ordinary, but for one or two.
    fn build(&mut self, ends: Ends, udp: bool, flags: &str, dst_mac: [u8; 6], src_mac: [u8; 6]) -> Vec<u8> {
        let random = &mut self.random;
        let proto = if udp { "udp" } else { "tcp" };
        let mut packet = Packet { proto: proto.to_owned(), flags: flags.to_owned(), ..Packet::default() };
        // Near each other, or anywhere.
        let around = if random.once_in(4) { 0 } else { 12 };
        packet.seq = (random.number() as u32) >> around;
        packet.ack = (random.number() as u32) >> around;
        packet.payload_len = [0, 0, 1, 6, 40, 301][random.below(6)];
        let v6 = ends.dst.0.is_ipv6();
        for _ in 0..[0, 0, 0, 1, 2][random.below(5)] {
            match random.below(14) {
                0 => packet.ttl = [0, 1, 2, 255][random.below(4)],
                1 => packet.tos = random.number() as u8,
                2 => packet.ip_options = ["01010101", "94040000", "440c05000000000000000000"][random.below(3)].to_owned(),
                3 => packet.tcp_options = ["020405b4", "0101080a0000000100000002", "03030700"][random.below(3)].to_owned(),
                4 => packet.checksum = ["bad", "0000", "ffff", "0001", "fffe"][random.below(5)].to_owned(),
                5 => packet.ip_checksum = "bad".to_owned(),
                6 => packet.pad = 1 + random.below(30),
                7 => packet.cut = 1 + random.below(12),
                8 if !v6 => (packet.mf, packet.fragment) = (random.once_in(2), random.below(3) as u16),
                8 => packet.extension = extension(random, proto),
                9 => packet.ip_len = Some(random.below(80) as u16),
                10 => packet.udp_len = Some(random.below(60) as u16),
                11 => packet.next = Some([1, 6, 17, 44, 47, 50, 51, 58, 132, 0, 43, 60][random.below(12)]),
                12 => packet.flow_label = random.below(1 << 20) as u32,
                _ => packet.id = random.number() as u16,
            }
        }
        if !packet.extension.is_empty() {
            packet.next = Some(if packet.extension.starts_with("2c") { 44 } else { 0 });
            packet.extension = packet.extension.split_off(2);
        }
        let dst_mac = if random.once_in(64) { [0x01, 0, 0x5e, 0, 0, 1] } else { dst_mac };
        let src_mac = if random.once_in(16) { [0x02, 0, 0, 0, 0, random.below(4) as u8] } else { src_mac };
        let changed = Changed { ttl: packet.ttl, dst_mac, src_mac };
        let cut = packet.cut;
        packet.cut = 0;
        // Whatever cannot be built is a frame too.
        let mut frame = frame_between(&packet, ends, changed).unwrap_or_default();
        frame.truncate(frame.len().saturating_sub(cut));
        frame.resize(frame.len().max(self.shortest), 0);
        frame
    }

    /// One, two or three VLAN tags, mostly those of the one network, with any priority.
    fn tag(&mut self, frame: &mut Vec<u8>) {
        const TAGS: [[u8; 4]; 3] = [[0x81, 0x00, 0, 100], [0x88, 0xa8, 0, 20], [0x81, 0x00, 0, 0]];
        for mut tag in TAGS.into_iter().take([1, 1, 2, 3][self.random.below(4)]) {
            tag[2] |= (self.random.number() as u8) << 4;
            tag[3] ^= self.random.below(2) as u8;
            if self.random.once_in(16) {
                tag[0] = 0x91;
            }
            if frame.len() >= 12 {
                frame.splice(12..12, tag);
            }
        }
    }
}

/// A first next header in two hex digits, then extension headers that lead to `proto`.
fn extension(random: &mut Random, proto: &str) -> String {
    let last = if proto == "udp" { "11" } else { "06" };
    match random.below(4) {
        0 => format!("00{last}00010400000000"),
        1 => format!("003c00010400000000{last}00010400000000"),
        2 => format!("2c{last}00000000000007"),
        _ => format!("2c{last}00000100000007"),
    }
}

fn socket(ip: &str, port: u16) -> (IpAddr, u16) {
    (ip.parse().unwrap_or(IpAddr::from([0; 4])), port)
}

fn apart(socket: SocketAddr) -> (IpAddr, u16) {
    (socket.ip(), socket.port())
}

/// The address beside another.
fn neighbour(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) ^ 3).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) ^ 3).into()),
    }
}
