//! Shares: how flows spread over endpoints.

use std::{collections::BTreeMap, net::IpAddr, vec::Vec};

use super::fixture::{CLIENT_SIDE, Kind, client, edge, send, vip};
use crate::abi::family::Family;
use crate::{abi::flow::ticks, path::parse::flag, sim::Sim};

const SYN: Kind = Kind::Tcp(flag::SYN);

/// Flows by endpoint; what was opened is forgotten before the table is full.
fn spread(
    sim: &Sim,
    family: Family,
    sticky: bool,
    kind: Kind,
    clients: impl Iterator<Item = (u32, u16)>,
) -> BTreeMap<IpAddr, u32> {
    let mut hits = BTreeMap::new();
    for (nth, (number, port)) in clients.enumerate() {
        if nth % 64 == 0 {
            sim.tick.set(sim.tick.get() + ticks(61));
        }
        let (_, (endpoint, _)) = send(sim, client(family, number, port), vip(family, sticky), kind, CLIENT_SIDE).unwrap();
        *hits.entry(endpoint).or_default() += 1;
    }
    hits
}

#[test]
fn a_hundred_thousand_flows_follow_the_weights_and_weight_zero_gets_none() {
    let sim = edge(1024, 20_000, &[1, 2, 3, 0]);
    let hits = spread(&sim, Family::V4, false, SYN, (0..100_000).map(|n| (n / 50, (n % 50) as u16 + 1)));
    let shares: Vec<u32> = hits.values().copied().collect();
    assert_eq!(shares.len(), 3, "{hits:?}");
    for (share, want) in shares.iter().zip([100_000 / 6, 200_000 / 6, 300_000 / 6]) {
        assert!(share.abs_diff(want) <= want / 50, "{share} flows instead of {want}");
    }
}

// proves: A12
#[test]
fn without_affinity_the_connections_of_one_client_spread() {
    for family in Family::ALL {
        let sim = edge(1024, 20_000, &[1, 1]);
        let hits = spread(&sim, family, false, SYN, (1..=100).map(|port| (1, port)));
        assert_eq!(hits.len(), 2, "{hits:?}");
        assert!(hits.values().all(|&n| n >= 30), "{hits:?}");
    }
}

// proves: A13
#[test]
fn with_affinity_a_thousand_connections_of_one_client_reach_one_endpoint() {
    for family in Family::ALL {
        for number in 1..10 {
            let sim = edge(1024, 20_000, &[1, 2, 3]);
            let hits = spread(&sim, family, true, SYN, (1..=1000).map(|port| (number, port)));
            assert_eq!(hits.len(), 1, "{hits:?}");
        }
    }
}

// proves: A14
#[test]
fn with_affinity_datagrams_of_one_client_reach_one_endpoint_whatever_the_port() {
    for family in Family::ALL {
        for number in 1..10 {
            let sim = edge(1024, 20_000, &[1, 2, 3]);
            let udp = spread(&sim, family, true, Kind::Udp, (1..=1000).map(|port| (number, port)));
            let tcp = spread(&sim, family, true, SYN, (1..=10).map(|port| (number, port)));
            assert_eq!(udp.len(), 1, "{udp:?}");
            assert!(udp.keys().eq(tcp.keys()), "TCP and UDP agree");
        }
    }
}

#[test]
fn with_affinity_sequential_clients_spread_evenly() {
    for family in Family::ALL {
        let sim = edge(1024, 20_000, &[1, 1, 1, 1]);
        let hits = spread(&sim, family, true, SYN, (0..4000).map(|number| (number, 1)));
        assert!(hits.len() == 4 && hits.values().all(|n| (900..=1100).contains(n)), "{hits:?}");
    }
}

#[test]
fn a_flow_is_found_on_every_cpu() {
    let mut sim = edge(64, 1000, &[1, 1]);
    sim.settings.cpus = 4;
    let (client, vip) = (client(Family::V4, 1, 1), vip(Family::V4, false));
    let first = send(&sim, client, vip, SYN, CLIENT_SIDE).unwrap();
    for cpu in 0..4 {
        sim.cpu.set(cpu);
        assert_eq!(send(&sim, client, vip, Kind::Tcp(flag::ACK), CLIENT_SIDE), Ok(first));
    }
    assert_eq!(sim.live4().len(), 2);
}

#[test]
fn a_client_keeps_its_port_on_every_cpu_while_nobody_else_has_it() {
    let mut sim = edge(1024, 1000, &[1]);
    sim.settings.cpus = 4;
    let vip = vip(Family::V4, false);
    let first = sim.settings.nat_first;
    for (number, port) in (1..).zip([first, first + 1, first + 2, first + 3, first + 3999]) {
        for cpu in 0..4 {
            sim.cpu.set(cpu);
            let protocol = if cpu % 2 == 0 { SYN } else { Kind::Udp };
            let face =
                |number| send(&sim, client(Family::V4, number, port), vip, protocol, CLIENT_SIDE).map(|((_, port), _)| port);
            let (ours, theirs) = (face(number), face(100 + number));
            assert!(ours == Ok(port) && theirs != Ok(port), "CPU {cpu}, port {port}: {ours:?}, {theirs:?}");
        }
    }
    let outside = client(Family::V4, 1, first + 4000);
    assert_ne!(send(&sim, outside, vip, SYN, CLIENT_SIDE).map(|((_, port), _)| port), Ok(outside.1), "no NAT port");
}

#[test]
fn no_two_cpus_deal_out_the_same_port() {
    let mut sim = edge(4096, 50, &[1]);
    sim.settings.cpus = 4;
    let (mut ports, first) = (BTreeMap::new(), sim.settings.nat_first);
    for number in 1..100 {
        let cpu = number % 4;
        sim.cpu.set(cpu);
        let Ok(((_, port), _)) = send(&sim, client(Family::V4, number, 1), vip(Family::V4, false), SYN, CLIENT_SIDE) else {
            continue;
        };
        assert_eq!(u32::from(port - first) % 4, cpu);
        assert_eq!(ports.insert(port, number), None);
    }
    assert!(ports.len() > 80, "{} flows were opened", ports.len());
}
