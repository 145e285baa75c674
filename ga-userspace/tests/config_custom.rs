//! The rules of custom routing listeners, from both sides. Where in the file a refusal points is the business of
//! `config_broken.rs`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

use ga::{
    config::{self, Loaded, problem::Problem},
    health::Roster,
    model::{Policy, Protocols},
};

const HEAD: &str = "[node]\ninterfaces = [\"eth0\"]\n";
const INSTANCE: &str = "[[instance]]\nid = \"ga-demo\"\nvips = [\"198.51.100.10\"]\negress_ips = [\"203.0.113.5\"]\n";
const STANDARD: &str = "[[instance.listener]]\nname = \"rooms\"\nports = \"101~110\"\n[[instance.listener.endpoint_group]]\nregion = \"eu\"\n[[instance.listener.endpoint_group.endpoint]]\ntype = \"ip\"\naddress = \"192.0.2.11\"\n";

fn listener(ports: &str) -> String {
    format!("[[instance.listener]]\nname = \"rooms\"\ntype = \"custom_routing\"\nports = \"{ports}\"\n")
}

fn group(destination: &str, cidr: &str) -> String {
    format!(
        "[[instance.listener.custom_group]]\nregion = \"eu\"\ndestinations = [{{ ports = \"{destination}\", protocols = [\"tcp\", \"udp\"] }}]\n\
         [[instance.listener.custom_group.endpoint]]\ncidr = \"{cidr}\"\n"
    )
}

fn load(limits: &str, rest: &str) -> Result<Loaded, Vec<Problem>> {
    let text = format!("{HEAD}[limits]\n{limits}\n{INSTANCE}{rest}");
    config::parse("ga.toml", &text).map_err(|report| report.problems)
}

/// The codes, or kinds, of what is wrong.
fn refusals(limits: &str, rest: &str) -> Vec<&'static str> {
    let problems = load(limits, rest).unwrap_err();
    problems.iter().map(|problem| problem.code.map_or(problem.kind.word(), |code| code.word())).collect()
}

// proves: J03
#[test]
fn every_port_of_every_address_needs_a_usable_port_of_the_listener() {
    let with = |ports: &str| listener(ports) + &group("81~85", "10.1.2.0/28");
    let loaded = load("", &with("101~180")).unwrap();
    assert_eq!(loaded.intent.instances[0].listeners[0].custom[0].demand(), 80);
    assert_eq!(refusals("", &with("101~179")), ["PortRangeIllegal.Listener"]);
    // Reserved ports do not count: 250 is one.
    assert!(load("", &with("201~281")).is_ok());
    assert_eq!(refusals("", &with("201~280")), ["PortRangeIllegal.Listener"]);
    // All that there are: 65,495 usable ports.
    assert!(load("", &(listener("1~65499") + &group("1~4093", "10.1.2.0/28"))).is_ok());
    assert_eq!(refusals("", &(listener("1~65499") + &group("1~4094", "10.1.2.0/28"))), ["PortRangeIllegal.Listener"]);
}

// proves: D12
#[test]
fn a_custom_group_has_no_backend_version() {
    for version in ["ipv4", "ipv6", "affinity"] {
        let set = format!("region = \"eu\"\nbackend_ip_version = \"{version}\"");
        let group = group("81", "10.1.2.0/28").replace("region = \"eu\"", &set);
        let problems = load("", &(listener("1001~2000") + &group)).unwrap_err();
        let all: String = problems.iter().map(|problem| problem.message.clone()).collect();
        assert!(problems.len() == 1 && all.contains("backend_ip_version"), "{problems:?}");
    }
}

// proves: J09
#[test]
fn a_custom_listener_has_two_groups_unless_the_limit_says_otherwise() {
    let with = |count: usize| (0..count).fold(listener("1001~2000"), |text, n| text + &group("81", &format!("10.1.{n}.0/28")));
    assert_eq!(load("", &with(2)).unwrap().intent.instances[0].listeners[0].custom.len(), 2);
    assert_eq!(refusals("", &with(3)), ["QuotaExceeded.EndpointGroup"]);
    assert!(load("custom_groups_per_listener = 3", &with(3)).is_ok());
    assert_eq!(refusals("custom_groups_per_listener = 6", &with(1)), ["out_of_range"]);
}

// proves: J10
#[test]
fn a_subnet_has_a_prefix_of_17_to_28_bits() {
    let with = |prefix: u8| listener("1~65499") + &group("81", &format!("10.1.0.0/{prefix}"));
    for prefix in 17..=28 {
        assert!(load("", &with(prefix)).is_ok(), "/{prefix}");
    }
    for prefix in [16, 29, 32] {
        assert_eq!(refusals("", &with(prefix)), ["out_of_range"], "/{prefix}");
    }
}

// proves: J01
#[test]
fn the_type_is_the_instances_and_stays() {
    let custom = listener("101~180") + &group("81~85", "10.1.2.0/28");
    let other = STANDARD.replace("rooms", "web").replace("101~110", "80");
    assert_eq!(refusals("", &format!("{custom}{other}")), ["conflict"]);
    assert_eq!(refusals("", &format!("{other}{custom}")), ["conflict"]);
    let elsewhere =
        INSTANCE.replace("ga-demo", "ga-two").replace("198.51.100.10", "198.51.100.20").replace("203.0.113.5", "203.0.113.6");
    assert!(load("", &format!("{custom}{elsewhere}{other}")).is_ok(), "another instance may be of the other type");

    let (custom, standard) = (load("", &custom).unwrap(), load("", STANDARD).unwrap());
    for (running, next) in [(&custom, &standard), (&standard, &custom)] {
        let problems = config::check_change(&running.intent, next);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].message.contains("the type cannot change"), "{}", problems[0].message);
        assert_eq!(config::check_change(&running.intent, running), []);
    }
}

#[test]
fn policies_and_destinations_are_what_the_file_says() {
    let allow =
        "policy = \"allow_custom\"\nallow = [{ address = \"10.1.2.4\", ports = \"81~82,85\" }, { address = \"10.1.2.15\" }]\n";
    let loaded = load("", &(listener("101~180") + &group("81~85", "10.1.2.0/28") + allow)).unwrap();
    let group = &loaded.intent.instances[0].listeners[0].custom[0];
    assert_eq!((group.name.as_str(), group.destinations[0].protocols), ("default", Protocols::Both));
    let allows = |host: &str, port| group.subnets[0].policy.allows(host.parse().unwrap(), port);
    assert!(allows("10.1.2.4", 81) && allows("10.1.2.4", 85) && allows("10.1.2.15", 83));
    assert!(!allows("10.1.2.4", 83) && !allows("10.1.2.5", 81));
    let silent = load("", &(listener("101~180") + &self::group("81~85", "10.1.2.0/28"))).unwrap();
    assert_eq!(silent.intent.instances[0].listeners[0].custom[0].subnets[0].policy, Policy::DenyAll);
}

// proves: E11
#[test]
fn custom_routing_never_checks() {
    let endpoint = "[[instance.listener.custom_group.endpoint]]";
    let group = group("81~85", "10.1.2.0/28");
    let with = |check: &str| listener("101~180") + &group.replacen(endpoint, &format!("{check}\n{endpoint}"), 1);
    assert!(Roster::of(&load("", &with("")).unwrap().intent).is_empty(), "nobody is probed");
    for check in ["health_check = { protocol = \"tcp\" }", "health_check = { enabled = false }"] {
        assert_eq!(refusals("", &with(check)), ["unknown_key"], "{check}");
    }
}
