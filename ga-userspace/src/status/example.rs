//! One status for the tests of every room.

use ga_common::abi::reason;

use super::{
    AttachMode, Counters, DropCount, Endpoint, EndpointState, FlowTable, Flows, Group, Health, Instance, Interface, LastReload,
    Listener, MapFill, Name, NextHop, Origin, PassCount, Probes, Repairs, SCHEMA_VERSION, Source, Status,
};

fn endpoint(id: u16, address: &str, weight: u8, share: f64, packets: u64) -> Endpoint {
    Endpoint {
        id,
        address: address.to_owned(),
        kind: "private_ip".to_owned(),
        origin: Origin::default(),
        configured_weight: 255,
        weight,
        state: if weight == 0 { EndpointState::Drained } else { EndpointState::Active },
        share,
        health: if packets > 1_000_000 { Some(well()) } else { None },
        proxied: None,
        next_hop: NextHop::Resolved,
        counters: Counters {
            forward_packets: packets,
            forward_bytes: packets * 100,
            return_packets: packets * 2,
            return_bytes: packets * 3000,
            new_flows: packets / 10,
        },
        active_flows: packets / 100,
    }
}

fn well() -> Health {
    Health {
        healthy: true,
        for_s: 7_200,
        suspect: false,
        failure: None,
        round_trip_ms: Some(0.4),
        share_percent: 100,
        held_for_s: None,
    }
}

fn interface(name: &str, ifindex: u32, mode: AttachMode) -> Interface {
    Interface { name: name.to_owned(), ifindex, mode, attached: true, reattached: 0, trouble: None }
}

fn listener(id: u16, name: &str, protocol: &str, endpoints: Vec<Endpoint>) -> Listener {
    Listener {
        id,
        name: name.to_owned(),
        protocol: protocol.to_owned(),
        ports: "80,90~92,8080".to_owned(),
        client_affinity: "source_ip".to_owned(),
        idle_timeout_s: 900,
        counters: endpoints.iter().map(|endpoint| endpoint.counters).sum(),
        active_flows: endpoints.iter().map(|endpoint| endpoint.active_flows).sum(),
        in_transition: false,
        proxied: None,
        drops: Vec::new(),
        groups: vec![Group {
            name: "near".to_owned(),
            kind: "default".to_owned(),
            region: "eu-central".to_owned(),
            priority: 1,
            traffic_ratio: 100,
            latency_ms: Some(4.25),
            share_ipv4: Some(1.0),
            share_ipv6: None,
            endpoints,
        }],
    }
}

/// Two listeners, four endpoints, one of them drained, one address in both listeners.
pub(crate) fn example() -> Status {
    let game = vec![endpoint(0, "10.0.0.11", 255, 1.0, 1_234_567), endpoint(1, "10.0.0.12", 0, 0.0, 4_200)];
    let voice = vec![endpoint(2, "10.0.0.11", 255, 0.996, 900), endpoint(3, "2001:db8::11", 1, 0.004, 0)];
    let mut status = Status {
        schema_version: SCHEMA_VERSION,
        version: "0.1.0".to_owned(),
        access_point: "fra1".to_owned(),
        generation: 42,
        config_hash: "9f3a".to_owned(),
        config_file: "/etc/ga/ga.toml".to_owned(),
        uptime_s: 273_600.0,
        started_at: Some(1_700_000_000),
        last_reload: LastReload { successful: true, success_at: Some(1_700_273_000), failures: 1, error: None },
        interfaces: vec![interface("eth0", 2, AttachMode::Native), interface("eth1", 3, AttachMode::Generic)],
        flows: Flows { ipv4: FlowTable { live: 12_345, capacity: 65_536 }, ipv6: FlowTable { live: 0, capacity: 65_536 } },
        repairs: Repairs { maps: [("active".to_owned(), 0), ("hops".to_owned(), 3)].into(), pins: 1, next_hops: 12 },
        probes: Probes {
            checks: 1,
            results: [("passed".to_owned(), 3_600), ("refused".to_owned(), 2)].into(),
            late_ms: 3,
            largest_bunch: 1,
            panic: [("ga-demo".to_owned(), false)].into(),
        },
        flow_events: [("evicted".to_owned(), 0), ("port_retry".to_owned(), 5)].into(),
        maps: vec![MapFill { name: "services".to_owned(), entries: 512, capacity: 1024 }],
        names: vec![Name {
            source: Source::Dns,
            name: "origin.example.net".to_owned(),
            addresses: vec!["192.0.2.1".to_owned()],
            left_out: 0,
            age_s: Some(12),
            ttl_s: Some(48),
            failures: 2,
            error: None,
        }],
        instances: vec![Instance {
            id: "ga-demo".to_owned(),
            vips: vec!["198.51.100.10".to_owned()],
            egress_ips: vec!["203.0.113.5".to_owned()],
            listeners: vec![listener(0, "game", "tcp", game), listener(1, "voice", "udp", voice)],
        }],
        drops: vec![
            DropCount::of(reason::Drop::Malformed, None, 0),
            DropCount::of(reason::Drop::NoFlow, Some(("ga-demo", "game")), 17),
        ],
        passes: vec![PassCount::of(reason::Pass::NotOurs, 9_001)],
        access_log_lost: 2,
        certificates: Vec::new(),
        warnings: Vec::new(),
    };
    status.attribute_drops();
    status
}
