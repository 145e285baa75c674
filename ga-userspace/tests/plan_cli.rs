//! `ga plan` offline: two intents in, text or JSON out.

use std::{net::IpAddr, time::Duration};

use ga::{model, plan};
use model::{
    Affinity, BackendIpVersion, Endpoint, EndpointGroup, EndpointKind, Instance, Intent, Limits, Listener, Name, NameRule, Node,
    PortMapping, Ports, Protocol, Weight, XdpMode,
};

#[path = "../src/cli/plan.rs"]
#[expect(unreachable_pub, reason = "the verb is public in its own crate")]
mod verb;

fn name(text: &str) -> Name {
    Name::parse(text, NameRule::Seed).unwrap()
}

fn intent(weights: [u8; 2]) -> Intent {
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    let endpoints = weights.iter().zip(["10.0.0.1", "10.0.0.2"]);
    let endpoints =
        endpoints.map(|(weight, at)| Endpoint { kind: EndpointKind::PrivateIp, address: ip(at), weight: Weight(*weight) });
    let group = EndpointGroup {
        name: name("eu"),
        region: "eu".to_owned(),
        description: String::new(),
        backend_ip_version: BackendIpVersion::Ipv4,
        port_mapping: PortMapping::default(),
        endpoints: endpoints.collect(),
    };
    let listener = Listener {
        name: name("https"),
        description: String::new(),
        protocol: Protocol::Tcp,
        ports: Ports::parse("443").unwrap(),
        affinity: Affinity::None,
        idle_timeout: Duration::from_secs(900),
        group,
    };
    let node = Node {
        ap: "edge".to_owned(),
        interfaces: vec!["eth0".to_owned()],
        xdp_mode: XdpMode::Auto,
        flows: 65_536,
        nat_ports: 1_024..=32_767,
        hash_seed: None,
        metrics: None,
    };
    let instance =
        Instance { id: name("shop"), vips: vec![ip("192.0.2.1")], egress_ips: vec![ip("192.0.2.1")], listeners: vec![listener] };
    Intent { node, limits: Limits::default(), instances: vec![instance] }
}

#[test]
fn a_plan_against_another_file_says_what_moves() {
    let text = verb::render(&verb::against(&intent([100, 100]), &intent([100, 0])).unwrap(), false, false);
    assert_eq!(
        text,
        "generation 1 → 2\n\
         ~ endpoint shop/https/eu/private_ip/10.0.0.1: share 50.0 % → 100.0 %\n\
         ~ endpoint shop/https/eu/private_ip/10.0.0.2: weight 100 → 0\n\
         ~ endpoint shop/https/eu/private_ip/10.0.0.2: share 50.0 % → 0.0 %\n\
         new flows that would choose another endpoint: 50.00 %\n  shop/https ipv4 50.00 %\n\
         established flows stay where they are\n"
    );
}

#[test]
fn a_plan_against_the_same_file_says_nothing_to_do() {
    let text = verb::render(&verb::against(&intent([1, 2]), &intent([1, 2])).unwrap(), false, true);
    assert_eq!(text, "nothing to do: generation 1 holds all of it\n");
}

#[test]
fn a_fresh_plan_is_all_new_also_as_json() {
    let json = verb::render(&verb::fresh(&intent([1, 2])).unwrap(), true, false);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["from"], serde_json::Value::Null);
    assert_eq!(value["changes"][3]["name"], "shop/https");
    assert_eq!(value["changes"][3]["action"], "added");
}
