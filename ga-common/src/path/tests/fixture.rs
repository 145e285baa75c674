//! A small edge with one TCP and one UDP port for both families, and frames by etherparse.

use std::{net::IpAddr, vec::Vec};

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

use crate::{
    abi::{
        active::{Active, Before},
        entry::{Address, AddressKey, Egress, Endpoint, Hop, Listener, Service, ServiceKey, mapped},
        family::Family,
        flow::{Flow, FlowSlot},
        id::{EndpointId, InstanceId, ListenerId, TableId},
        limits::{MAX_EGRESS, TABLE_SIZE},
    },
    path::{
        packet,
        tables::Tables,
        verdict::{Outcome, Verdict},
    },
    sim::{Bytes, Sim},
    wire::frame::{TCP, UDP},
};

pub(super) const CLIENT_SIDE: u32 = 2;
pub(super) const ENDPOINT_SIDE: u32 = 3;
pub(super) const LISTENER: ListenerId = ListenerId(0);
pub(super) const STICKY: ListenerId = ListenerId(1);
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// One end of a flow.
pub(super) type End = (IpAddr, u16);

pub(super) fn vip(family: Family, sticky: bool) -> End {
    let port = if sticky { 7000 } else { 80 };
    match family {
        Family::V4 => ([198, 51, 100, 1].into(), port),
        Family::V6 => ([0x2001, 0xdb8, 1, 0, 0, 0, 0, 1].into(), port),
    }
}

pub(super) fn client(family: Family, number: u32, port: u16) -> End {
    let [a, b, c, d] = (0xc633_0000 | number).to_be_bytes();
    match family {
        Family::V4 => ([a, b, c, d].into(), port),
        Family::V6 => ([0x2001, 0xdb8, 0xc, 0, 0, 0, (number >> 16) as u16, number as u16].into(), port),
    }
}

fn key(addr: IpAddr) -> AddressKey {
    match addr {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// `slots` flow halves a family, `ports` NAT ports, and `endpoints` whose shares of the tables are `weights`.
pub(super) fn edge(slots: usize, ports: u16, weights: &[u32]) -> Sim {
    let mut sim = Sim::new(slots, [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
    sim.tick.set(1000);
    sim.settings.nat_span = ports;
    let mut egress = Egress { count4: 1, count6: 1, custom: 0, v4: [[0; 4]; MAX_EGRESS], v6: [[0; 16]; MAX_EGRESS] };
    (egress.v4[0], egress.v6[0]) = ([203, 0, 113, 1], key([0x2001, 0xdb8, 0xe, 0, 0, 0, 0, 1].into()));
    sim.egress.insert(InstanceId(0), egress);
    for addr in [mapped(egress.v4[0]), egress.v6[0]] {
        sim.addresses.insert(addr, Address { roles: Address::EGRESS, protocols: 0, instance: InstanceId(0) });
    }
    for (listener, flags) in [(LISTENER, Listener::IN_USE), (STICKY, Listener::IN_USE | Listener::SOURCE_IP)] {
        let idle_timeout_s = 60;
        sim.listeners.insert(listener, Listener { idle_timeout_s, flags, identity: 1, ..Listener::default() });
    }
    for family in Family::ALL {
        let (addr, _) = vip(family, false);
        let both = Address { roles: Address::VIP, protocols: Address::TCP | Address::UDP, instance: InstanceId(0) };
        sim.addresses.insert(key(addr), both);
        for (listener, sticky) in [(LISTENER, false), (STICKY, true)] {
            for protocol in [TCP, UDP] {
                let port = vip(family, sticky).1.to_be_bytes();
                let service = ServiceKey { addr: key(addr), port, protocol, pad: 0 };
                sim.services.insert(service, Service { listener, endpoint_port: 8080u16.to_be_bytes() });
            }
        }
        put_endpoints(&mut sim, family, weights);
    }
    sim
}

fn put_endpoints(sim: &mut Sim, family: Family, weights: &[u32]) {
    let total: u32 = weights.iter().sum::<u32>().max(1);
    let mut table = Vec::new();
    for (number, weight) in (0u16..).zip(weights) {
        let id = EndpointId(family as u16 * 100 + number);
        let addr: IpAddr = match family {
            Family::V4 => [10, 0, 0, number as u8 + 1].into(),
            Family::V6 => [0x2001, 0xdb8, 0xb, 0, 0, 0, 0, number + 1].into(),
        };
        let endpoint = Endpoint { addr: key(addr), listener: LISTENER, port: [0; 2], flags: Endpoint::IN_USE, identity: 1 };
        sim.endpoints.insert(id, endpoint);
        let hop = Hop { dst_mac: [2, 0, 0, 0, 1, number as u8], src_mac: OUR_MAC, ifindex: ENDPOINT_SIDE, tags: 0 };
        sim.hops.insert(id, hop);
        table.extend(std::iter::repeat_n(id, TABLE_SIZE * *weight as usize / total as usize));
    }
    table.resize(TABLE_SIZE, table.last().copied().unwrap_or(EndpointId::NONE));
    let table_id = TableId(1 + family as u32);
    sim.tables.insert(table_id, table);
    for listener in [LISTENER, STICKY] {
        sim.active.insert(family.active_index(listener), Active::of(table_id, Before::Same));
    }
}

/// TCP with `flags`, or UDP without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp(u8),
    Udp,
}

fn frame(src: End, dst: End, kind: Kind) -> Vec<u8> {
    use super::super::parse::flag;
    let builder = PacketBuilder::ethernet2(CLIENT_MAC, OUR_MAC);
    let builder = match (src.0, dst.0) {
        (IpAddr::V4(s), IpAddr::V4(d)) => builder.ipv4(s.octets(), d.octets(), 64),
        (IpAddr::V6(s), IpAddr::V6(d)) => builder.ipv6(s.octets(), d.octets(), 64),
        other => panic!("two families: {other:?}"),
    };
    let payload = [src.1 as u8, dst.1 as u8, 3];
    let mut bytes = Vec::new();
    match kind {
        Kind::Udp => builder.udp(src.1, dst.1).write(&mut bytes, &payload).unwrap(),
        Kind::Tcp(flags) => {
            let mut tcp = builder.tcp(src.1, dst.1, 1, 1000);
            if flags & flag::SYN != 0 {
                tcp = tcp.syn();
            }
            if flags & flag::FIN != 0 {
                tcp = tcp.fin();
            }
            if flags & flag::RST != 0 {
                tcp = tcp.rst();
            }
            if flags & flag::ACK != 0 {
                tcp = tcp.ack(7);
            }
            tcp.write(&mut bytes, &payload).unwrap();
        }
    }
    bytes
}

/// What a frame says, and whether its sums are right, by etherparse.
fn read(bytes: &[u8]) -> (End, End) {
    let sliced = SlicedPacket::from_ethernet(bytes).unwrap();
    let (src, dst, good) = match (sliced.net.unwrap(), sliced.transport.as_ref().unwrap()) {
        (NetSlice::Ipv4(ip), transport) => {
            let h = ip.header().to_header();
            assert_eq!(h.header_checksum, h.calc_header_checksum(), "IPv4 header sum");
            let good = match transport {
                TransportSlice::Tcp(t) => t.checksum() == t.calc_checksum_ipv4(h.source, h.destination).unwrap(),
                TransportSlice::Udp(u) => {
                    u.checksum() == u.to_header().calc_checksum_ipv4_raw(h.source, h.destination, u.payload()).unwrap()
                }
                other @ (TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_)) => panic!("{other:?}"),
            };
            (IpAddr::from(h.source), IpAddr::from(h.destination), good)
        }
        (NetSlice::Ipv6(ip), transport) => {
            let h = ip.header().to_header();
            let good = match transport {
                TransportSlice::Tcp(t) => t.checksum() == t.calc_checksum_ipv6(h.source, h.destination).unwrap(),
                TransportSlice::Udp(u) => {
                    u.checksum() == u.to_header().calc_checksum_ipv6_raw(h.source, h.destination, u.payload()).unwrap()
                }
                other @ (TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_)) => panic!("{other:?}"),
            };
            (IpAddr::from(h.source), IpAddr::from(h.destination), good)
        }
        (other @ NetSlice::Arp(_), _) => panic!("{other:?}"),
    };
    assert!(good, "transport sum");
    let (src_port, dst_port) = match sliced.transport.unwrap() {
        TransportSlice::Tcp(t) => (t.source_port(), t.destination_port()),
        TransportSlice::Udp(u) => (u.source_port(), u.destination_port()),
        other @ (TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_)) => panic!("{other:?}"),
    };
    ((src, src_port), (dst, dst_port))
}

/// Runs a packet that comes in by `ifindex`; the ends it was sent with, if it was sent.
pub(super) fn send(sim: &Sim, src: End, dst: End, kind: Kind, ifindex: u32) -> Result<(End, End), Outcome> {
    send_over(sim, src, dst, kind, ifindex)
}

/// The same over other tables.
pub(super) fn send_over<T: Tables>(tables: &T, src: End, dst: End, kind: Kind, ifindex: u32) -> Result<(End, End), Outcome> {
    let mut bytes = Bytes { bytes: frame(src, dst, kind), ifindex };
    let outcome = packet(&mut bytes, tables);
    match outcome.verdict() {
        Verdict::Send(to) => {
            assert_eq!(to, if ifindex == CLIENT_SIDE { ENDPOINT_SIDE } else { CLIENT_SIDE });
            Ok(read(&bytes.bytes))
        }
        Verdict::Pass(_) | Verdict::Drop(_) => Err(outcome),
    }
}

/// Every half that is live names a peer that is live and names it, one of the two is the return half, and what one expects the
/// other makes. No tuple is there twice.
fn check_pairs<const K: usize>(live: &[(u32, Flow<K>)], peer_of: impl Fn(u32) -> u32) {
    let mut tuples = std::collections::BTreeSet::new();
    for (index, flow) in live {
        let tuple = flow.tuple;
        assert!(tuples.insert((tuple.addrs, tuple.ports, tuple.protocol)), "two halves expect {tuple:?}");
        let peer = peer_of(*index);
        let (_, other) =
            live.iter().find(|(at, _)| *at == peer).unwrap_or_else(|| panic!("half {index} has lost its peer {peer}"));
        assert_eq!(peer_of(peer), *index, "{index} names {peer}, which names another");
        assert_eq!((flow.flags ^ other.flags) & Flow::<K>::RETURN, Flow::<K>::RETURN, "one half leads to the client");
        let turned = |p: [u8; 4]| [p[2], p[3], p[0], p[1]];
        assert_eq!(flow.new_ports, turned(other.tuple.ports), "what {index} makes, {peer} expects the answer to");
    }
}

/// [`check_pairs`] for both families, over what is alive: silent pairs may be in the middle of being replaced.
pub(super) fn check(sim: &Sim) {
    check_pairs(&alive(&sim.flows4, sim.tick.get()), |index| sim.flows4[index as usize].state().peer());
    check_pairs(&alive(&sim.flows6, sim.tick.get()), |index| sim.flows6[index as usize].state().peer());
}

fn alive<const K: usize, const W: usize>(slots: &[FlowSlot<K, W>], now: u32) -> Vec<(u32, Flow<K>)> {
    let is_alive = |index: u32, slot: &FlowSlot<K, W>| {
        let peer = slots.get(slot.state().peer() as usize);
        let is_heard = |peer: &FlowSlot<K, W>| peer.state().is_live() && peer.state().peer() == index && !peer.is_silent(now);
        slot.state().is_live() && (!slot.is_silent(now) || peer.is_some_and(is_heard))
    };
    (0..).zip(slots).filter(|(index, slot)| is_alive(*index, slot)).map(|(index, slot)| (index, slot.load())).collect()
}
