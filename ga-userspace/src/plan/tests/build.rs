//! What a plan keeps, and what it refuses.

use std::collections::BTreeMap;

use ga_common::abi::{
    entry::{Address, Endpoint, Listener, ServiceKey},
    id::{EndpointId, Generation, TableId},
    limits::MAX_EGRESS,
};

use super::fixtures::{SIZE, by_hand, http, instance, intent, listener, nothing, shop};
use crate::{
    health::Beliefs,
    model::{ClientIp, EndpointName, HttpVersion, Intent, Port, Protocol, Weight},
    plan::{Family, Note, Override, Overrides, Plan, PlanError, State, Step, address_key, build, build::build_sized, steps},
};

const SEED: [u64; 2] = [1, 2];

fn plan(intent: &Intent, running: &State) -> Plan {
    build_sized(intent, nothing(), running, SEED, SIZE).unwrap()
}

fn after(running: &State, plan: &Plan) -> State {
    let mut state = running.clone();
    for step in steps(running, &plan.target) {
        state.apply(&step).unwrap();
    }
    state
}

fn id(plan: &Plan, address: &str) -> EndpointId {
    let address: std::net::IpAddr = address.parse().unwrap();
    plan.listeners.iter().flat_map(|l| &l.endpoints).find(|endpoint| endpoint.name.address == address).unwrap().id
}

#[test]
fn the_order_in_the_file_does_not_matter() {
    let mut shuffled = shop();
    shuffled.instances.reverse();
    for instance in &mut shuffled.instances {
        instance.listeners.reverse();
        instance.vips.reverse();
        instance.listeners.iter_mut().for_each(|listener| listener.groups[0].endpoints.reverse());
    }
    assert_eq!(plan(&shop(), &State::default()), plan(&shuffled, &State::default()));
}

#[test]
fn packets_of_what_the_agent_serves_are_let_in_by_the_kernel_and_chosen_for_by_nobody_there() {
    let with = |protocol, client_ip| {
        let mut intent = shop();
        let listener = &mut intent.instances[0].listeners[0];
        (listener.protocol, listener.groups[0].client_ip, listener.max_new_flows_per_second) = (protocol, client_ip, 7);
        intent
    };
    let first = plan(&with(Protocol::Tcp, ClientIp::Hidden), &State::default());
    let id = first.listeners.iter().find(|view| view.name.as_str() == "https").unwrap().id;
    assert!(!first.listeners.iter().any(|view| view.is_served()));
    for served in [with(Protocol::Https, ClientIp::Hidden), with(Protocol::Tcp, ClientIp::ProxyV2)] {
        let second = plan(&served, &first.target);
        let entry = &second.target.listeners[&id];
        assert_eq!((entry.flags & Listener::HOST != 0, entry.admission), (true, 7));
        assert!(Family::ALL.iter().all(|family| second.target.active[&(id, *family)].table() == TableId::EMPTY));
        let ports = |state: &State| -> Vec<_> {
            let own = state.services.iter().filter(|(_, service)| service.listener == id);
            own.map(|(key, service)| (key.addr, key.port, key.protocol, service.endpoint_port)).collect()
        };
        assert_eq!((ports(&second.target).len(), ports(&second.target)), (4, ports(&first.target)));
        assert_eq!(second.target.check(), []);
        assert_eq!(after(&first.target, &second), second.target);
    }
}

#[test]
fn a_listener_that_speaks_http3_is_let_in_at_its_port_by_tcp_and_by_udp() {
    let with = |max_version| {
        let mut intent = shop();
        let listener = &mut intent.instances[0].listeners[0];
        (listener.protocol, listener.http) = (Protocol::Https, Some(http(max_version)));
        intent
    };
    let first = plan(&with(HttpVersion::Http2), &State::default()).target;
    let second = plan(&with(HttpVersion::Http3), &first);
    let number = |state: &State, protocol: u8| {
        let id = state.services.iter().find(|(key, _)| key.port == 443_u16.to_be_bytes()).unwrap().1.listener;
        state.services.iter().filter(|(key, service)| service.listener == id && key.protocol == protocol).count()
    };
    assert_eq!([6, 17].map(|protocol| number(&first, protocol)), [4, 0]);
    assert_eq!([6, 17].map(|protocol| number(&second.target, protocol)), [4, 4]);
    assert_eq!(second.target.check(), []);
    assert_eq!(after(&first, &second), second.target);
    // Fragments too may be the host's.
    let mut alone = with(HttpVersion::Http3);
    alone.instances[0].listeners.truncate(1);
    let alone = plan(&alone, &State::default()).target;
    let vip = alone.addresses[&address_key("192.0.2.1".parse().unwrap())];
    assert_eq!(vip.protocols, Address::TCP | Address::UDP | Address::HOST_TCP | Address::HOST_UDP);
}

#[test]
fn what_endpoints_that_saw_clients_send_may_be_answers_as_long_as_their_entries_are_theirs() {
    let with = |client_ip| {
        let mut intent = shop();
        intent.instances[0].listeners[0].groups[0].client_ip = client_ip;
        intent
    };
    let seen = |state: &State| state.endpoints.values().filter(|endpoint| endpoint.is_gateway()).count();
    let first = plan(&with(ClientIp::Gateway), &State::default()).target;
    let count = with(ClientIp::Gateway).instances[0].listeners[0].groups[0].endpoints.len();
    assert_eq!(seen(&first), count, "those of one listener only");
    let hidden = plan(&with(ClientIp::Hidden), &first).target;
    assert_eq!(seen(&hidden), count, "their flows live on");
    let steps = steps(&hidden, &plan(&with(ClientIp::Gateway), &hidden).target);
    assert!(!steps.iter().any(|step| matches!(step, Step::PutEndpoint(..))), "they are known: {steps:?}");
    let mut less = with(ClientIp::Gateway);
    less.instances[0].listeners.remove(0);
    let retired = plan(&less, &first).target;
    assert_eq!(seen(&retired), count, "also when they are retired");
    assert!(retired.endpoints.values().filter(|endpoint| endpoint.is_gateway()).all(|endpoint| !endpoint.is_in_use()));
}

#[test]
fn answers_are_known_as_such_before_the_first_flow_that_keeps_its_client() {
    let mut intent = shop();
    let first = plan(&intent, &State::default()).target;
    intent.instances[0].listeners[0].groups[0].client_ip = ClientIp::Gateway;
    let steps = steps(&first, &plan(&intent, &first).target);
    let is_listener = |step: &Step| matches!(step, Step::PutListener(_, listener) if listener.flags & Listener::GATEWAY != 0);
    let listener = steps.iter().position(is_listener).unwrap();
    let last = steps.iter().rposition(|step| matches!(step, Step::PutEndpoint(..))).unwrap();
    assert!(last < listener, "{steps:?}");
}

#[test]
fn packets_that_endpoints_answer_themselves_keep_their_port() {
    let all = [
        (ClientIp::Hidden, 0),
        (ClientIp::L2, Listener::L2),
        (ClientIp::Ipip, Listener::IPIP),
        (ClientIp::Gateway, Listener::GATEWAY),
    ];
    for (client_ip, flag) in all {
        let mut intent = shop();
        intent.instances[0].listeners[0].groups[0].client_ip = client_ip;
        let plan = plan(&intent, &State::default());
        let https = plan.listeners.iter().find(|listener| listener.name.as_str() == "https").unwrap().id;
        let flags = plan.target.listeners[&https].flags;
        assert_eq!(flags & (Listener::L2 | Listener::IPIP | Listener::GATEWAY), flag, "{client_ip:?}");
        for (key, service) in plan.target.services.iter().filter(|(_, service)| service.listener == https) {
            let kept = if client_ip.is_direct() { [0; 2] } else { key.port };
            assert_eq!((service.endpoint_port, service.is_direct()), (kept, client_ip.is_direct()), "{client_ip:?}");
        }
    }
}

#[test]
fn the_same_intent_again_is_nothing_to_do_also_after_a_restart() {
    let first = plan(&shop(), &State::default());
    let mut state = after(&State::default(), &first);
    assert_eq!((first.generation, first.is_noop()), (Generation(1), false));
    assert_eq!(state, first.target);
    state.forget_slots();
    let second = plan(&shop(), &state);
    assert_eq!((second.generation, second.is_noop()), (Generation(1), true));
    assert!(steps(&state, &second.target).is_empty());
}

#[test]
fn a_listener_that_goes_and_one_that_comes_leave_the_others_alone() {
    let first = plan(&shop(), &State::default());
    let mut changed = shop();
    let gone = changed.instances[0].listeners.remove(1);
    changed.instances[0].listeners.push(listener("aaa", Protocol::Tcp, "80", &[("10.0.0.9", 1)]));
    let second = plan(&changed, &first.target);
    let ids = |plan: &Plan| plan.listeners.iter().map(|l| (l.name.to_string(), l.id.0)).collect::<BTreeMap<_, _>>();
    let (before, now) = (ids(&first), ids(&second));
    assert_eq!((before["mail"], before["https"]), (now["mail"], now["https"]));
    assert_eq!(now["aaa"], before.values().max().unwrap() + 1);
    assert_eq!(second.target.endpoints[&id(&first, "10.0.0.3")].flags, Endpoint::RETIRED);
    assert_eq!(id(&second, "10.0.0.9").0, 6);

    changed.instances[0].listeners.push(gone);
    let third = plan(&changed, &second.target);
    assert_eq!(id(&third, "10.0.0.3"), id(&first, "10.0.0.3"));
    assert_eq!(
        ids(&third)["dns"],
        now["aaa"] + 1,
        "the number of a removed listener is not given again while retired entries name it"
    );
}

#[test]
fn a_removed_listeners_number_is_not_given_away_while_entries_name_it() {
    let first = plan(&shop(), &State::default());
    let highest = first.listeners.last().unwrap();
    assert_eq!((highest.path().as_str(), highest.id.0), ("shop/https", 2));
    let mut changed = shop();
    changed.instances[0].listeners.remove(0);
    let second = plan(&changed, &first.target);
    changed.instances[0].listeners.push(listener("other", Protocol::Tcp, "443", &[("10.0.0.1", 200)]));
    let third = plan(&changed, &second.target);
    assert_eq!(third.listeners.last().map(|listener| listener.id.0), Some(3));
}

#[test]
fn an_instance_that_takes_over_the_addresses_of_another_gets_its_own_number() {
    let first = plan(&shop(), &State::default());
    let mut changed = shop();
    changed.instances[1] = instance("mail", &["192.0.2.2"], &["192.0.2.2"], vec![]);
    let second = plan(&changed, &first.target);
    let id = |plan: &Plan, name: &str| plan.instances.iter().find(|instance| instance.name.as_str() == name).unwrap().id.0;
    assert_eq!((id(&first, "post"), id(&first, "shop"), id(&second, "shop"), id(&second, "mail")), (0, 1, 1, 2));
    assert!(plan(&changed, &second.target).is_noop(), "an instance without listeners keeps its number too");
}

#[test]
fn a_tables_content_can_be_made_anew_from_the_plan() {
    let first = plan(&shop(), &State::default());
    let mut running = after(&State::default(), &first);
    running.forget_slots();
    // After a restart the plan knows the running tables by their digests only.
    for plan in [&first, &plan(&shop(), &running)] {
        for (id, table) in &first.target.tables {
            assert_eq!(plan.slots(*id, table.digest), table.slots, "table {id}");
            assert_eq!(plan.slots(*id, table.digest ^ 1), None, "another digest is another table");
        }
    }
    assert_eq!(first.slots(TableId::EMPTY, 0), None);
}

#[test]
fn only_tables_whose_shares_change_are_filled() {
    let first = plan(&shop(), &State::default());
    let mut changed = shop();
    changed.instances[0].listeners[0].groups[0].endpoints[0].weight = Weight(10);
    let second = plan(&changed, &first.target);
    let filled: Vec<_> = steps(&first.target, &second.target).into_iter().map(|step| step.to_string()).collect();
    assert_eq!(filled.iter().filter(|step| step.starts_with("fill")).count(), 1);
    assert_eq!(filled.len(), 4, "fill, point, release, generation: {filled:?}");
}

// proves: C05
#[test]
fn a_drained_endpoint_gets_no_new_flow_and_keeps_its_entry_for_old_ones() {
    let first = plan(&shop(), &State::default());
    let name = first.listeners.iter().find(|l| l.name.as_str() == "dns").unwrap().endpoints[0].name.clone();
    let drained = id(&first, &name.address.to_string());
    let mut overrides = Overrides::default();
    overrides.endpoints.insert(name, Override { weight: None, drained: true });
    let second = build_sized(&shop(), by_hand(&overrides), &first.target, SEED, SIZE).unwrap();
    assert_eq!(second.target.endpoints, first.target.endpoints);
    for (key, active) in &second.target.active {
        let slots = second.target.tables.get(&active.table()).and_then(|info| info.slots.clone());
        assert!(!slots.is_some_and(|slots| slots.contains(&drained)), "{key:?}");
    }
    assert_eq!(second.endpoint(drained).map(|endpoint| (endpoint.weight, endpoint.share)), Some((Weight(0), 0.0)));
}

#[test]
fn the_last_endpoint_that_leaves_leaves_the_empty_state() {
    let mut changed = shop();
    changed.instances[1].listeners[0].groups[0].endpoints[0].weight = Weight(0);
    let second = plan(&changed, &plan(&shop(), &State::default()).target);
    let mail = second.listeners.iter().find(|listener| listener.name.as_str() == "mail").unwrap();
    assert_eq!(second.target.active[&(mail.id, Family::V4)].table(), TableId::EMPTY);
    let notes: Vec<_> = second.notes.iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "post/mail has no IPv4 endpoint with a weight; new IPv4 flows are dropped",
            "shop/dns has no IPv6 endpoint with a weight; new IPv6 flows are dropped"
        ]
    );
}

#[test]
fn services_carry_the_mapped_port() {
    let mut intent = shop();
    assert!(intent.instances[0].listeners[0].groups[0].port_mapping.insert(Port::new(443).unwrap(), 18_443));
    let plan = plan(&intent, &State::default());
    let port = |port: u16| {
        let addr = address_key("192.0.2.1".parse().unwrap());
        let service = plan.target.services[&ServiceKey { addr, port: port.to_be_bytes(), protocol: 6, pad: 0 }];
        u16::from_be_bytes(service.endpoint_port)
    };
    assert_eq!([port(443), port(8_443)], [18_443, 8_443]);
    assert_eq!(plan.target.services.len(), 2 * 3 + 1);
}

#[test]
fn an_address_may_be_vip_and_egress() {
    let address = plan(&shop(), &State::default()).target.addresses[&address_key("192.0.2.2".parse().unwrap())];
    assert_eq!((address.roles, address.protocols), (Address::VIP | Address::EGRESS, Address::TCP));
}

#[test]
fn overrides_for_nobody_are_reported() {
    let mut overrides = Overrides::default();
    let name: EndpointName = "shop/https/eu/ip/203.0.113.9".parse().unwrap();
    overrides.endpoints.insert(name.clone(), Override::default());
    let plan = build_sized(&shop(), by_hand(&overrides), &State::default(), SEED, SIZE).unwrap();
    assert!(plan.notes.contains(&Note::OverrideUnmatched(name)));
}

#[test]
fn too_much_is_refused_with_limit_and_value() {
    let egress: Vec<_> = (0..=MAX_EGRESS).map(|n| format!("198.51.100.{n}")).collect();
    let egress: Vec<_> = egress.iter().map(String::as_str).collect();
    let error = build(
        &intent(vec![instance("a", &["192.0.2.1"], &egress, vec![])]),
        &Overrides::default(),
        &Beliefs::default(),
        &State::default(),
        SEED,
    );
    assert_eq!(error.unwrap_err().to_string(), "instance a has 9 IPv4 egress addresses, but the limit is 8");

    let many = (0..65).map(|n| instance(&format!("i{n}"), &[&format!("192.0.2.{n}")], &[], vec![])).collect();
    let error = build(&intent(many), &Overrides::default(), &Beliefs::default(), &State::default(), SEED);
    assert_eq!(error.unwrap_err(), PlanError::Capacity { what: "instances", limit: 64, value: 65 });
}

#[test]
fn one_port_for_two_listeners_is_refused() {
    let twice = |text| listener(text, Protocol::Tcp, "80", &[("10.0.0.1", 1)]);
    let intent = intent(vec![instance("a", &["192.0.2.1"], &["192.0.2.1"], vec![twice("l1"), twice("l2")])]);
    let error = build(&intent, &Overrides::default(), &Beliefs::default(), &State::default(), SEED).unwrap_err();
    assert_eq!(error.to_string(), "192.0.2.1 port 80 tcp belongs to both a/l1 and a/l2");
}

#[test]
fn two_listeners_with_the_same_endpoints_choose_alike() {
    let endpoints = [("192.0.2.1", 10), ("192.0.2.2", 20), ("192.0.2.3", 30)];
    let game = listener("game", Protocol::Tcp, "7000", &endpoints);
    let voice = listener("voice", Protocol::Udp, "7001", &endpoints);
    let plan = plan(&intent(vec![instance("a", &["198.51.100.1"], &["203.0.113.1"], vec![game, voice])]), &State::default());
    let addresses = |name: &str| -> Vec<_> {
        let view = plan.listeners.iter().find(|listener| listener.name.as_str() == name).unwrap();
        let slots = plan.target.tables[&view.tables[&Family::V4].id].slots.as_ref().unwrap();
        slots.iter().map(|slot| plan.target.endpoints[slot].addr).collect()
    };
    assert_eq!(addresses("game"), addresses("voice"));
}
