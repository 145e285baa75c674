//! Small intents for tests.

use std::{sync::LazyLock, time::Duration};

use crate::{
    health::Beliefs,
    model::{
        Affinity, AllUnhealthy, Backend, BackendIpVersion, Circuit, ClientIp, Endpoint, EndpointGroup, EndpointKind,
        ForwardedHeaders, GroupKind, Http, HttpLimits, HttpVersion, Instance, Intent, Inventory, Limits, Listener, Name,
        NameRule, Node, Part, PortMapping, Ports, Protocol, Timeouts, TrafficRatio, Weight, XdpMode, Xff,
    },
    plan::{Overrides, build::Known},
};

/// Nothing set by hand, nothing believed.
pub(super) static NOTHING: LazyLock<(Overrides, Beliefs)> = LazyLock::new(Default::default);

/// The same, as planning takes it.
pub(super) fn nothing() -> Known<'static> {
    by_hand(&NOTHING.0)
}

/// Only `overrides`.
pub(super) fn by_hand(overrides: &Overrides) -> Known<'_> {
    Known { overrides, beliefs: &NOTHING.1 }
}

/// A prime that leaves 2 when divided by 3; small, so that tests are quick.
pub(super) const SIZE: usize = 251;

pub(super) fn name(text: &str) -> Name {
    Name::parse(text, NameRule::Extended).unwrap()
}

pub(super) fn intent(instances: Vec<Instance>) -> Intent {
    let node = Node {
        ap: "test".to_owned(),
        interfaces: vec!["eth0".to_owned()],
        xdp_mode: XdpMode::Auto,
        flows: 65_536,
        nat_ports: 1_024..=32_767,
        hash_seed: None,
        metrics: None,
        resolvers: Vec::new(),
        panic_threshold: None,
        access_log: None,
        proxy_threads: None,
        proxy_connections: 100,
        drain_timeout: Duration::from_secs(30),
    };
    Intent { node, limits: Limits::default(), inventory: Inventory::default(), pools: Vec::new(), instances }
}

pub(super) fn instance(id: &str, vips: &[&str], egress: &[&str], listeners: Vec<Listener>) -> Instance {
    let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Instance { id: name(id), vips: ips(vips), egress_ips: ips(egress), listeners }
}

pub(super) fn listener(text: &str, protocol: Protocol, ports: &str, endpoints: &[(&str, u8)]) -> Listener {
    let endpoints = endpoints
        .iter()
        .map(|(address, weight)| Endpoint {
            kind: EndpointKind::Ip,
            address: address.parse().unwrap(),
            port: None,
            weight: Weight(*weight),
            part: Part::WHOLE,
            found_by: None,
        })
        .collect();
    let group = EndpointGroup {
        name: name("eu"),
        kind: GroupKind::Default,
        backend: Backend::default(),
        circuit: Circuit::default(),
        region: "eu-central-1".to_owned(),
        description: String::new(),
        traffic_ratio: TrafficRatio::default(),
        latency: None,
        health_check: None,
        backend_ip_version: BackendIpVersion::Affinity,
        client_ip: ClientIp::Hidden,
        port_mapping: PortMapping::default(),
        endpoints,
        named: Vec::new(),
    };
    Listener {
        name: name(text),
        description: String::new(),
        protocol,
        ports: Ports::parse(ports).unwrap(),
        affinity: Affinity::None,
        idle_timeout: Duration::from_secs(900),
        max_new_flows_per_second: 0,
        max_connections: 100,
        acl: None,
        all_unhealthy: AllUnhealthy::FailClosed,
        failover_to_zero_ratio: true,
        proxy_from: Vec::new(),
        http_sniff: false,
        http: None,
        tls: None,
        rules: Vec::new(),
        groups: vec![group],
        custom: Vec::new(),
        blocks: Vec::new(),
    }
}

/// HTTP up to that version.
pub(super) fn http(max_version: HttpVersion) -> Http {
    Http {
        max_version,
        request_timeout: Duration::from_secs(60),
        forwarded: ForwardedHeaders::default(),
        xff: Xff::default(),
        trusted: Vec::new(),
        underscores: false,
        timeouts: Timeouts::default(),
        limits: HttpLimits::default(),
    }
}

/// Two instances, three listeners, both families and protocols.
pub(super) fn shop() -> Intent {
    let https = listener("https", Protocol::Tcp, "443,8443", &[("10.0.0.1", 200), ("10.0.0.2", 100), ("fd00::1", 50)]);
    let dns = listener("dns", Protocol::Udp, "53", &[("10.0.0.3", 255), ("10.0.0.4", 1)]);
    let mail = listener("mail", Protocol::Tcp, "25", &[("10.0.1.1", 10)]);
    intent(vec![
        instance("shop", &["192.0.2.1", "2001:db8::1"], &["198.51.100.1", "2001:db8::e"], vec![https, dns]),
        instance("post", &["192.0.2.2"], &["192.0.2.2"], vec![mail]),
    ])
}
