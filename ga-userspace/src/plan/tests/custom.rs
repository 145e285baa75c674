//! Custom routing: ports are given away once, and both ways to ask agree.

use std::collections::BTreeSet;

use ga_common::abi::{
    custom::{Found, Target},
    id::EndpointId,
};
use proptest::prelude::*;

use super::{
    super::custom::{Allocation, CustomView, Table as CustomTable, settle},
    fixtures,
};
use crate::model::{
    Allowed, CustomGroup, Destination, Intent, Name, NameRule, Policy, Protocol, Protocols, RESERVED_PORTS, Subnet,
};

fn destination(first: u16, last: u16, protocols: Protocols) -> Destination {
    Destination { first, last, protocols }
}

fn group(name: &str, destinations: &[Destination], subnets: &[&str]) -> CustomGroup {
    CustomGroup {
        name: Name::parse(name, NameRule::Extended).unwrap(),
        region: "eu".to_owned(),
        description: String::new(),
        destinations: destinations.to_vec(),
        subnets: subnets.iter().map(|net| Subnet { net: net.parse().unwrap(), policy: Policy::AllowAll }).collect(),
    }
}

fn intent(ports: &str, groups: Vec<CustomGroup>) -> Intent {
    let mut listener = fixtures::listener("rooms", Protocol::Tcp, ports, &[]);
    (listener.groups, listener.custom) = (Vec::new(), groups);
    fixtures::intent(vec![fixtures::instance("play", &["192.0.2.9"], &["198.51.100.9"], vec![listener])])
}

/// The mapping as rows, and what was given away.
fn settled(mut intent: Intent, before: &Allocation) -> Result<(CustomView, Allocation), String> {
    let after = settle(&mut intent, before).map_err(|refused| refused[0].why.clone())?;
    let view = CustomView::new(&intent.instances[0].listeners[0], |_, _| Some(EndpointId(7)));
    Ok((view, after))
}

fn rows(view: &CustomView) -> BTreeSet<(u16, String)> {
    view.rows().iter().map(|row| (row.port, format!("{}:{} {:?}", row.host, row.host_port, row.protocols))).collect()
}

const BOTH: [Destination; 1] = [Destination { first: 81, last: 85, protocols: Protocols::Both }];

// proves: J04
#[test]
fn reserved_ports_lead_nowhere() {
    let (view, _) = settled(intent("1~5000", vec![group("eu", &BOTH, &["10.1.0.0/23"])]), &Allocation::default()).unwrap();
    let ports: BTreeSet<u16> = view.rows().iter().map(|row| row.port).collect();
    assert_eq!(ports.len(), 512 * 5);
    assert!(RESERVED_PORTS.iter().all(|port| !ports.contains(port) && view.forward(*port).is_none()));
    assert_eq!((view.forward(24).unwrap().host_port, view.forward(26).unwrap().host_port), (84, 85), "25 is passed over");
    let (view, _) = settled(intent("4785~4866", vec![group("eu", &BOTH, &["10.1.0.0/28"])]), &Allocation::default()).unwrap();
    assert_eq!(view.rows().len(), 80);
    assert!(view.rows().iter().all(|row| row.port != 4789 && row.port != 4790));
}

// proves: J08, J11
#[test]
fn whatever_is_added_or_restarted_old_rows_stay_and_mapped_ports_cannot_go() {
    let eu = |subnets: &[&str]| group("eu", &BOTH, subnets);
    let (first, kept) = settled(intent("101~400", vec![eu(&["10.1.2.0/28"])]), &Allocation::default()).unwrap();
    let json = serde_json::to_string(&kept).unwrap();
    let kept: Allocation = serde_json::from_str(&json).unwrap();
    assert_eq!(first.forward(101).unwrap().host.to_string(), "10.1.2.0");
    let (again, _) = settled(intent("101~400", vec![eu(&["10.1.2.0/28"])]), &kept).unwrap();
    assert_eq!(again, first, "a restart changes nothing");

    // A subnet before the old one in the file, more ports below, another group.
    let grown = intent("1~400", vec![group("aa", &BOTH, &["10.1.9.0/28"]), eu(&["10.1.1.0/28", "10.1.2.0/28"])]);
    let (grown, more) = settled(grown, &kept).unwrap();
    assert!(rows(&first).is_subset(&rows(&grown)) && grown.rows().len() == 240);

    // A subnet goes: its ports are free again, the others stay.
    let (less, fewer) = settled(intent("1~400", vec![eu(&["10.1.2.0/28"])]), &more).unwrap();
    assert_eq!(rows(&less), rows(&first));
    let (other, _) = settled(intent("1~400", vec![eu(&["10.1.2.0/28", "10.1.3.0/28"])]), &fewer).unwrap();
    assert_eq!(other.rows()[0].port, 1);
    assert!(rows(&first).is_subset(&rows(&other)));

    for (ports, gone) in [("102~400", Some("port 101")), ("101~179", Some("port 180")), ("101~180", None), ("1~65499", None)] {
        let result = settled(intent(ports, vec![eu(&["10.1.2.0/28"])]), &kept).map(|(view, _)| rows(&view));
        match gone {
            Some(gone) => assert!(result.unwrap_err().starts_with(gone)),
            None => assert_eq!(result.unwrap(), rows(&first)),
        }
    }
    assert!(settled(intent("500~600", vec![eu(&["10.1.7.0/28"])]), &kept).is_ok(), "ports without rows may go");
}

#[test]
fn a_destination_that_is_added_takes_new_ports_and_one_that_is_removed_leaves_a_hole() {
    let with = |destinations: &[Destination]| intent("101~400", vec![group("eu", destinations, &["10.1.2.0/28"])]);
    let (first, kept) = settled(with(&BOTH), &Allocation::default()).unwrap();
    let more = [destination(81, 86, Protocols::Both), destination(53, 53, Protocols::Udp)];
    let (grown, kept) = settled(with(&more), &kept).unwrap();
    assert!(rows(&first).is_subset(&rows(&grown)) && grown.rows().len() == 16 * 7);
    let (less, kept) = settled(with(&[destination(82, 86, Protocols::Both)]), &kept).unwrap();
    assert!(rows(&less).is_subset(&rows(&grown)) && less.rows().len() == 16 * 5 && less.forward(101).is_none());
    assert_eq!(settled(with(&BOTH), &kept).map(|(view, _)| rows(&view)).unwrap(), rows(&first), "and back again");
}

fn destinations() -> impl Strategy<Value = Vec<Destination>> {
    let one = (0u16..3, 1u16..6, prop_oneof![Just(Protocols::Tcp), Just(Protocols::Udp), Just(Protocols::Both)]);
    proptest::collection::vec(one, 1..4).prop_map(|all| {
        // Each in a hundred of its own: none overlaps another.
        let place = |(n, (skip, count, protocols)): (usize, (u16, u16, Protocols))| {
            let first = 1000 + 100 * n as u16 + skip;
            destination(first, first + count - 1, protocols)
        };
        all.into_iter().enumerate().map(place).collect()
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let host = (0u32..64, proptest::option::of(1000u16..1010)).prop_map(|(host, port)| Allowed {
        address: (0x0a01_0000 + host).into(),
        ports: port.map(|port| (port, port + 1)).into_iter().collect(),
    });
    prop_oneof![
        Just(Policy::DenyAll),
        Just(Policy::AllowAll),
        proptest::collection::vec(host, 0..4).prop_map(Policy::AllowCustom)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    // proves: J07
    #[test]
    fn the_two_ways_to_ask_are_inverse_for_every_row(
        wanted in proptest::collection::vec((destinations(), proptest::collection::btree_set(0u8..4, 1..3), policy()), 1..3),
        steps in proptest::collection::vec(any::<proptest::sample::Index>(), 0..3),
    ) {
        let groups: Vec<CustomGroup> = wanted.iter().enumerate().map(|(n, (destinations, nets, policy))| {
            let nets: Vec<String> = nets.iter().map(|net| format!("10.1.0.{}/28", net * 16)).collect();
            let mut group = group(&format!("g{n}"), destinations, &nets.iter().map(String::as_str).collect::<Vec<_>>());
            group.subnets.iter_mut().for_each(|subnet| subnet.policy = policy.clone());
            group
        }).collect();
        // A past in which other parts of it were there first.
        let mut before = Allocation::default();
        for step in steps {
            let part = vec![groups[step.index(groups.len())].clone()];
            before = settled(intent("1~9999", part), &before).unwrap().1;
        }
        let (view, _) = settled(intent("1~9999", groups), &before).unwrap();
        let rows = view.rows();
        let ports: BTreeSet<u16> = rows.iter().map(|row| row.port).collect();
        prop_assert_eq!(ports.len(), rows.len(), "a port leads to one host");
        for row in &rows {
            let forward = view.forward(row.port);
            prop_assert_eq!(forward.as_ref(), Some(row));
            let reverse = view.reverse(Some(row.net), row.host, Some(row.host_port));
            prop_assert!(reverse.contains(row));
            prop_assert!(reverse.iter().all(|other| (other.host, other.host_port) == (row.host, row.host_port)));
        }
        let table = CustomTable::new([&view].into_iter()).unwrap().filled();
        for port in 0..=10_100 {
            let row = view.forward(port);
            prop_assert_eq!(row.is_some(), ports.contains(&port));
            for (bit, protocol) in [(Target::TCP, Protocols::Tcp), (Target::UDP, Protocols::Udp)] {
                let found = table.find(port, bit);
                match row.as_ref().filter(|row| row.protocols.meets(protocol)) {
                    Some(row) => {
                        prop_assert_eq!((found.host(), found.port()), (row.host.octets(), row.host_port.to_be_bytes()));
                        prop_assert_eq!((found.endpoint(), found.is_denied()), (EndpointId(7), !row.is_allowed));
                    }
                    None => prop_assert_eq!(found, Found::NOWHERE),
                }
            }
        }
    }
}
