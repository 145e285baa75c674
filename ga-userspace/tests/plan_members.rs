//! What names stand for becomes endpoints, with exact shares.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

use std::collections::BTreeMap;

use ga::{
    config,
    health::Beliefs,
    model::Intent,
    plan::{self, EndpointView, Missing, Note, Overrides, Plan, State, resolved},
    resolve::Addresses,
};

const POOLS: &str = r#"
[[vserver_group]]
name = "pool-a"
servers = [
  { address = "10.0.0.21", port = 8080, weight = 100 },
  { address = "10.0.0.22", port = 9090, weight = 50 },
  { address = "10.0.0.21", port = 8081, weight = 0 },
]
"#;

/// A file with one listener, which has `body`; both families.
fn intent(body: &str) -> Intent {
    let text = format!(
        "[node]\ninterfaces = [\"eth0\"]\n[inventory]\nurl = \"http://inventory/\"\n{POOLS}\n[[instance]]\nid = \"shop\"\n\
         vips = [\"198.51.100.1\", \"2001:db8:1::1\"]\negress_ips = [\"203.0.113.1\", \"2001:db8:2::1\"]\n\
         [[instance.listener]]\nname = \"web\"\nports = \"80\"\n{body}"
    );
    config::parse("test.toml", &text).unwrap_or_else(|report| panic!("{:#?}\n{text}", report.problems)).intent
}

fn group(version: &str, endpoints: &[&str]) -> Intent {
    let endpoints: String =
        endpoints.iter().map(|line| format!("[[instance.listener.endpoint_group.endpoint]]\n{line}\n")).collect();
    intent(&format!("[[instance.listener.endpoint_group]]\nregion = \"eu\"\nbackend_ip_version = \"{version}\"\n{endpoints}"))
}

fn known(domains: &[(&str, &[&str])], hosts: &[(&str, &[&str])]) -> Addresses {
    let map = |names: &[(&str, &[&str])]| -> BTreeMap<_, _> {
        let all = |addresses: &[&str]| addresses.iter().map(|text| text.parse().unwrap()).collect();
        names.iter().map(|(name, addresses)| ((*name).to_owned(), all(addresses))).collect()
    };
    Addresses { hosts: map(hosts), domains: map(domains) }
}

fn plan(intent: &Intent, addresses: &Addresses) -> (Plan, Vec<Missing>) {
    let (whole, missing) = resolved(intent, addresses);
    (plan::build(&whole, &Overrides::default(), &Beliefs::default(), &State::default(), [1, 2]).unwrap(), missing)
}

/// Every endpoint as `address[:port] share`, the share in thousandths of its family's flows.
fn shares(intent: &Intent, addresses: &Addresses) -> Vec<String> {
    let (plan, _) = plan(intent, addresses);
    let of = |endpoint: &EndpointView| format!("{} {:.0}", endpoint.name.at(), endpoint.share * 1_000.0);
    plan.listeners.iter().flat_map(|listener| &listener.endpoints).map(of).collect()
}

#[test]
fn all_addresses_of_a_domain_share_its_weight_exactly() {
    let file = group(
        "ipv4",
        &["type = \"private_ip\"\naddress = \"10.0.0.1\"\nweight = 100", "type = \"domain\"\naddress = \"a.test\"\nweight = 100"],
    );
    let three = known(&[("a.test", &["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"])], &[]);
    assert_eq!(shares(&file, &three), ["10.0.0.1 500", "192.0.2.1 167", "192.0.2.2 167", "192.0.2.3 167"]);
    let one = known(&[("a.test", &["192.0.2.1"])], &[]);
    assert_eq!(shares(&file, &one), ["10.0.0.1 500", "192.0.2.1 500"]);
}

#[test]
fn each_family_has_the_whole_weight_of_a_domain_for_its_own_clients() {
    let file = group("affinity", &["type = \"domain\"\naddress = \"a.test\""]);
    let both = known(&[("a.test", &["192.0.2.1", "192.0.2.2", "2001:db8::1"])], &[]);
    assert_eq!(shares(&file, &both), ["192.0.2.1 500", "192.0.2.2 500", "2001:db8::1 1000"]);
    let other = group("ipv6", &["type = \"domain\"\naddress = \"a.test\""]);
    assert_eq!(shares(&other, &both), ["2001:db8::1 1000"]);
}

// proves: C11
#[test]
fn a_name_of_the_inventory_is_its_primary_address_and_a_sub_address_another_one() {
    let hosts = known(&[], &[("web-1", &["10.0.0.9", "10.0.0.5"])]);
    let ecs = group("ipv4", &["type = \"ecs\"\naddress = \"web-1\""]);
    assert_eq!(shares(&ecs, &hosts), ["10.0.0.9 1000"]);
    let eni = group("ipv4", &["type = \"eni\"\naddress = \"web-1\"\nsub_address = \"10.0.0.5\""]);
    assert_eq!(shares(&eni, &hosts), ["10.0.0.5 1000"]);
    let wrong = group("ipv4", &["type = \"eni\"\naddress = \"web-1\"\nsub_address = \"10.0.0.6\""]);
    let (plan, missing) = plan(&wrong, &hosts);
    assert!(plan.listeners[0].endpoints.is_empty());
    let sentence = "shop/web/default: address 10.0.0.6 of host web-1 has no address that can be used; it gets no traffic";
    assert_eq!(missing.iter().map(ToString::to_string).collect::<Vec<_>>(), [sentence]);
    assert_eq!(Note::Missing(missing[0].clone()).to_string(), sentence);
}

#[test]
fn servers_of_a_pool_have_their_own_ports_and_shares_and_weight_0_gets_none() {
    let file = intent("vserver_group = \"pool-a\"");
    assert_eq!(shares(&file, &Addresses::default()), ["10.0.0.21:8080 667", "10.0.0.21:8081 0", "10.0.0.22:9090 333"]);
    let (plan, missing) = plan(&file, &Addresses::default());
    assert!(missing.is_empty());
    let ports: Vec<_> = plan.target.endpoints.values().map(|endpoint| u16::from_be_bytes(endpoint.port)).collect();
    assert_eq!(ports, [8080, 8081, 9090], "the maps have the servers' ports");
}

#[test]
fn behind_a_clb_endpoint_the_two_weights_are_multiplied() {
    let file = group(
        "ipv4",
        &[
            "type = \"private_ip\"\naddress = \"10.0.0.1\"\nweight = 50",
            "type = \"clb\"\nvserver_group = \"pool-a\"\nweight = 150",
        ],
    );
    let expected = ["10.0.0.1 250", "10.0.0.21:8080 500", "10.0.0.21:8081 0", "10.0.0.22:9090 250"];
    assert_eq!(shares(&file, &Addresses::default()), expected);
}

#[test]
fn a_place_that_two_endpoints_stand_for_has_what_both_would_have() {
    let file = group(
        "ipv4",
        &[
            "type = \"private_ip\"\naddress = \"10.0.0.1\"\nweight = 10",
            "type = \"domain\"\naddress = \"a.test\"\nweight = 20",
            "type = \"domain\"\naddress = \"b.test\"\nweight = 10",
        ],
    );
    let same = known(&[("a.test", &["10.0.0.1", "10.0.0.2"]), ("b.test", &["10.0.0.2"])], &[]);
    assert_eq!(shares(&file, &same), ["10.0.0.1 500", "10.0.0.2 500"], "10 + 20/2 and 20/2 + 10");
    let nothing = group(
        "ipv4",
        &["type = \"private_ip\"\naddress = \"10.0.0.1\"\nweight = 0", "type = \"domain\"\naddress = \"a.test\"\nweight = 20"],
    );
    assert_eq!(shares(&nothing, &same), ["10.0.0.1 500", "10.0.0.2 500"]);
}

#[test]
fn an_address_of_this_edge_is_never_an_endpoint() {
    let file = group("ipv4", &["type = \"domain\"\naddress = \"a.test\""]);
    let hostile = known(&[("a.test", &["198.51.100.1", "203.0.113.1", "192.0.2.1"])], &[]);
    assert_eq!(shares(&file, &hostile), ["192.0.2.1 1000"]);
    assert_eq!(plan(&file, &hostile).1.len(), 2, "and that is said");
}

#[test]
fn an_intent_without_names_is_not_copied() {
    let file =
        group("affinity", &["type = \"private_ip\"\naddress = \"10.0.0.1\"", "type = \"private_ip\"\naddress = \"fd00::1\""]);
    assert!(matches!(resolved(&file, &Addresses::default()).0, std::borrow::Cow::Borrowed(_)));
}
