//! Several groups of a listener: order, shares, and what beliefs change.

use std::time::Duration;

use super::fixtures::{NOTHING, SIZE, instance, intent, listener};
use crate::{
    health::{Belief, Beliefs},
    model::{AllUnhealthy, EndpointGroup, EndpointName, GroupName, HealthCheck, Intent, Protocol, TrafficRatio, Weight},
    plan::{
        Family, Plan, State,
        build::{Known, build_sized},
    },
};

/// A listener with a probed group of two endpoints for each ratio: `g0` with 10.0.0.1 and 10.0.0.2, `g1` with 10.0.1.1 and so on.
fn site(protocol: Protocol, ratios: &[u8]) -> Intent {
    let mut web = listener("web", protocol, "80", &[]);
    let group = |(index, ratio): (usize, &u8)| {
        let addresses = [1, 2].map(|n| format!("10.0.{index}.{n}"));
        let endpoints = addresses.each_ref().map(|address| (address.as_str(), 255));
        let mut group = listener("any", protocol, "80", &endpoints).groups.remove(0);
        group.name = super::fixtures::name(&format!("g{index}"));
        group.region = format!("r{index}");
        group.traffic_ratio = TrafficRatio(*ratio);
        group.health_check = Some(HealthCheck::default());
        group
    };
    web.groups = ratios.iter().enumerate().map(group).collect();
    intent(vec![instance("shop", &["192.0.2.1"], &["198.51.100.1"], vec![web])])
}

fn groups(intent: &mut Intent) -> &mut Vec<EndpointGroup> {
    &mut intent.instances[0].listeners[0].groups
}

fn plan(intent: &Intent, beliefs: &Beliefs) -> Plan {
    build_sized(intent, Known { overrides: &NOTHING.0, beliefs }, &State::default(), [1, 2], SIZE).unwrap()
}

/// Name and percent of new IPv4 flows of each group, in the order of their priority.
fn shares(plan: &Plan) -> Vec<(String, f64)> {
    let groups = &plan.listeners[0].groups;
    groups.iter().map(|group| (group.name.to_string(), (group.shares[&Family::V4] * 100.0).round())).collect()
}

fn expect(plan: &Plan, expected: &[(&str, f64)]) {
    let expected: Vec<_> = expected.iter().map(|(name, percent)| ((*name).to_owned(), *percent)).collect();
    assert_eq!(shares(plan), expected);
}

/// The endpoints of these groups are down.
fn down(intent: &Intent, which: &[&str]) -> Beliefs {
    let mut beliefs = Beliefs::default();
    let (instance, listener) = (&intent.instances[0], &intent.instances[0].listeners[0]);
    for group in listener.groups.iter().filter(|group| which.contains(&group.name.as_str())) {
        for endpoint in &group.endpoints {
            let name = EndpointName::new(instance, listener, group, endpoint);
            beliefs.endpoints.insert(name, Belief { up: false, ..Belief::default() });
        }
    }
    beliefs
}

// proves: B15, B16, B20
#[test]
fn slots_follow_the_ratios_on_both_protocols() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for (ratios, expected) in [(&[50, 100][..], &[0.5, 0.5][..]), (&[30, 50, 100], &[0.3, 0.35, 0.35])] {
            let plan = plan(&site(protocol, ratios), &Beliefs::default());
            let table = plan.target.tables.values().next().unwrap();
            let slots = table.slots.as_ref().unwrap();
            for (index, part) in expected.iter().enumerate() {
                let of_group = |view: &&crate::plan::EndpointView| view.name.group.as_str() == format!("g{index}");
                let ids: Vec<_> = plan.listeners[0].endpoints.iter().filter(of_group).map(|view| view.id).collect();
                let found = slots.iter().filter(|slot| ids.contains(slot)).count() as f64 / SIZE as f64;
                assert!((found - part).abs() < 2.0 / SIZE as f64, "{protocol:?} {ratios:?}: {found}");
            }
        }
    }
}

#[test]
fn the_nearest_group_comes_first_and_file_order_decides_ties() {
    let mut site = site(Protocol::Tcp, &[40, 40, 100]);
    expect(&plan(&site, &Beliefs::default()), &[("g0", 40.0), ("g1", 24.0), ("g2", 36.0)]);
    groups(&mut site)[1].latency = Some(Duration::from_millis(80));
    groups(&mut site)[2].latency = Some(Duration::from_millis(7));
    let by_file = plan(&site, &Beliefs::default());
    expect(&by_file, &[("g2", 100.0), ("g1", 0.0), ("g0", 0.0)]);
    assert_eq!(by_file.listeners[0].groups.iter().map(|group| group.priority).collect::<Vec<_>>(), [1, 2, 3]);
}

// proves: B13
#[test]
fn two_edges_that_measured_otherwise_choose_opposite_groups() {
    let site = site(Protocol::Tcp, &[100, 100]);
    let name = |index: usize| {
        let listener = &site.instances[0].listeners[0];
        GroupName::new(&site.instances[0], listener, &listener.groups[index])
    };
    let edge = |near: usize, far: usize| {
        let priority = [(name(near), 0), (name(far), 1)].into_iter().collect();
        plan(&site, &Beliefs { priority, ..Beliefs::default() })
    };
    expect(&edge(0, 1), &[("g0", 100.0), ("g1", 0.0)]);
    expect(&edge(1, 0), &[("g1", 100.0), ("g0", 0.0)]);
}

// proves: B18, B19
#[test]
fn a_group_that_fails_gives_all_to_the_next_and_gets_it_back() {
    let site = site(Protocol::Tcp, &[100, 20, 100]);
    let healthy = plan(&site, &Beliefs::default());
    expect(&healthy, &[("g0", 100.0), ("g1", 0.0), ("g2", 0.0)]);
    expect(&plan(&site, &down(&site, &["g0"])), &[("g0", 0.0), ("g1", 100.0), ("g2", 0.0)]);
    expect(&plan(&site, &down(&site, &["g0", "g1"])), &[("g0", 0.0), ("g1", 0.0), ("g2", 100.0)]);
    assert_eq!(plan(&site, &Beliefs::default()).target, healthy.target);
}

// proves: E12
#[test]
fn when_nobody_is_healthy_the_listener_is_empty_or_open() {
    let mut site = site(Protocol::Tcp, &[50, 100]);
    let beliefs = down(&site, &["g0", "g1"]);
    expect(&plan(&site, &beliefs), &[("g0", 0.0), ("g1", 0.0)]);
    assert!(plan(&site, &beliefs).target.tables.is_empty());
    site.instances[0].listeners[0].all_unhealthy = AllUnhealthy::FailOpen;
    expect(&plan(&site, &beliefs), &[("g0", 100.0), ("g1", 0.0)]);
    groups(&mut site)[0].endpoints.iter_mut().for_each(|endpoint| endpoint.weight = Weight(0));
    expect(&plan(&site, &beliefs), &[("g0", 0.0), ("g1", 100.0)]);
}

#[test]
fn a_change_of_beliefs_moves_only_what_it_must() {
    let site = site(Protocol::Tcp, &[100, 100]);
    let before = plan(&site, &Beliefs::default());
    let mut beliefs = down(&site, &["g0"]);
    beliefs.endpoints.pop_last();
    let after = build_sized(&site, Known { overrides: &NOTHING.0, beliefs: &beliefs }, &before.target, [1, 2], SIZE).unwrap();
    let slots = |plan: &Plan| plan.target.tables.values().next().unwrap().slots.clone().unwrap();
    let (old, new) = (slots(&before), slots(&after));
    let gone = before.listeners[0].endpoints.iter().find(|view| !beliefs.of(&view.name).up).unwrap().id;
    assert!(old.iter().zip(new.iter()).all(|(old, new)| *old == gone || old == new), "clients of the healthy one stay");
    assert!(!new.contains(&gone));
}

#[test]
fn one_place_in_two_groups_gets_the_shares_of_both() {
    let mut site = site(Protocol::Tcp, &[50, 100]);
    let first = groups(&mut site)[0].endpoints.clone();
    groups(&mut site)[1].endpoints = first;
    let plan = plan(&site, &Beliefs::default());
    expect(&plan, &[("g0", 50.0), ("g1", 50.0)]);
    assert_eq!(plan.listeners[0].endpoints.iter().map(|view| view.share).collect::<Vec<_>>(), [0.25; 4]);
}
