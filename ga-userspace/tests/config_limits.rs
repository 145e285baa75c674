//! Every key of `[limits]` that this version checks: one below what a file has refuses it and says which key, what it has is enough.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

use std::collections::BTreeSet;

use ga::config;

const HEAD: &str = "[node]\ninterfaces = [\"eth0\"]\n";

fn instance(number: usize, listeners: &str) -> String {
    format!(
        "[[instance]]\nid = \"in-{number}\"\nvips = [\"198.51.100.{number}\"]\negress_ips = [\"203.0.113.{number}\"]\n{listeners}"
    )
}

fn listener(number: usize, rest: &str) -> String {
    format!("[[instance.listener]]\nname = \"port-{number}\"\nports = \"{number},{}\"\n{rest}", number + 1_000)
}

fn group(region: &str, rest: &str) -> String {
    format!("[[instance.listener.endpoint_group]]\nname = \"{region}\"\nregion = \"{region}\"\n{rest}{}", endpoint(11))
}

fn endpoint(number: usize) -> String {
    format!("[[instance.listener.endpoint_group.endpoint]]\ntype = \"ip\"\naddress = \"192.0.2.{number}\"\n")
}

fn custom(groups: &str) -> String {
    format!("[[instance.listener]]\nname = \"rooms\"\ntype = \"custom_routing\"\nports = \"1001~9000\"\n{groups}")
}

fn custom_group(subnet: usize, destinations: &str, rest: &str) -> String {
    format!(
        "[[instance.listener.custom_group]]\nname = \"g-{subnet}\"\nregion = \"r-{subnet}\"\ndestinations = [{destinations}]\n{}{rest}",
        subnet_of(subnet)
    )
}

fn subnet_of(subnet: usize) -> String {
    format!("[[instance.listener.custom_group.endpoint]]\ncidr = \"10.1.{subnet}.0/28\"\n")
}

fn with_rules(conditions: &[&str]) -> String {
    let rule = |(number, condition): (usize, &&str)| {
        format!("[[instance.listener.rule]]\nname = \"rule-{number}\"\nwhen = [{condition}]\ndo = [{{ forward = \"eu\" }}]\n")
    };
    listener(80, &group("eu", "")) + &conditions.iter().enumerate().map(rule).collect::<String>()
}

/// For each key, a file that has what it counts, and how many.
fn cases() -> Vec<(&'static str, usize, String)> {
    let plain = || listener(80, &group("eu", ""));
    let one = |listeners: &str| instance(1, listeners);
    let (tcp, udp) = ("{ ports = \"81\", protocols = [\"tcp\"] }", "{ ports = \"82\", protocols = [\"udp\"] }");
    let pool = "[[vserver_group]]\nname = \"pool\"\nservers = [{ address = \"10.0.0.1\", port = 1 }, { address = \"10.0.0.1\", port = 2 }]\n";
    let of_pool = || one(&listener(80, "vserver_group = \"pool\"\n")) + pool;
    let acl = "[[acl]]\nname = \"list\"\nentries = [\"192.0.2.0/24\", \"198.18.0.0/15\", \"10.0.0.0/8\"]\n";
    let with_acl = |port| listener(port, &format!("acl = {{ mode = \"white\", lists = [\"list\"] }}\n{}", group("eu", "")));
    let custom_one = |destinations: &str, rest: &str| one(&custom(&custom_group(1, destinations, rest)));
    let allow = |hosts: &str| custom_one(tcp, &format!("policy = \"allow_custom\"\nallow = [{hosts}]\n"));
    vec![
        ("instances", 2, one(&plain()) + &instance(2, &plain())),
        ("listeners_per_instance", 2, one(&(plain() + &listener(81, &group("eu", ""))))),
        ("ports_per_l4_listener", 2, one(&plain())),
        ("default_groups_per_listener", 2, one(&(plain() + &group("us", "")))),
        (
            "virtual_groups_per_listener",
            1,
            one(&(plain() + &group("us", "").replace("region = \"us\"", "kind = \"virtual\"\nregion = \"eu\""))),
        ),
        (
            "additional_certs_per_listener",
            1,
            one(&listener(443, &group("eu", "")).replace(
                "ports = \"443,1443\"",
                "protocol = \"https\"\nports = \"443\"\n\
                 certificates = { default = \"a.pem\", additional = [{ domain = \"b.example\", cert = \"b.pem\" }] }",
            )),
        ),
        ("endpoints_per_group", 2, one(&(plain() + &endpoint(12)))),
        ("port_mappings_per_group", 1, one(&listener(80, &group("eu", "port_mapping = [{ listener = 80, endpoint = 8080 }]\n")))),
        ("vsg_servers_total", 2, of_pool()),
        ("vsg_server_attachments", 2, of_pool()),
        ("acl_entries_per_listener", 3, one(&with_acl(80)) + acl),
        ("acl_entries_per_instance", 12, one(&(with_acl(80) + &with_acl(81))) + acl),
        ("listeners_per_acl", 2, one(&(with_acl(80) + &with_acl(81))) + acl),
        ("custom_groups_per_listener", 2, one(&custom(&(custom_group(1, tcp, "") + &custom_group(2, tcp, ""))))),
        ("custom_destinations_per_group", 2, custom_one(&format!("{tcp}, {udp}"), "")),
        ("custom_endpoints_per_group", 2, custom_one(tcp, &subnet_of(2))),
        ("custom_policy_addresses_per_endpoint", 2, allow("{ address = \"10.1.1.4\" }, { address = \"10.1.1.5\" }")),
        ("custom_policy_ranges_per_address", 2, {
            let ports = "{ ports = \"81~85\", protocols = [\"tcp\"] }";
            let allow = "policy = \"allow_custom\"\nallow = [{ address = \"10.1.1.4\", ports = \"81,83~84\" }]\n";
            custom_one(ports, allow)
        }),
        ("rules_per_listener", 2, one(&with_rules(&["{ host = \"a.example\" }", "{ host = \"b.example\" }"]))),
        (
            "rule_condition_items_per_listener",
            4,
            one(&with_rules(&["{ host = [\"a.example\", \"b.example\"] }", "{ host = [\"c.example\", \"d.example\"] }"])),
        ),
    ]
}

// proves: L04
#[test]
fn every_limit_counts_and_can_be_raised() {
    let parse = |limits: &str, rest: &str| config::parse("test.toml", &format!("{HEAD}[limits]\n{limits}\n{rest}"));
    for (key, count, text) in cases() {
        let enough = parse(&format!("{key} = {count}"), &text);
        assert!(enough.is_ok(), "{key} = {count}: {:#?}", enough.unwrap_err().problems);
        let problems = parse(&format!("{key} = {}", count - 1), &text).unwrap_err().problems;
        let said: Vec<_> = problems.iter().map(|problem| (problem.kind.word(), problem.message.clone())).collect();
        assert!(matches!(&said[..], [(kind, message)] if *kind == "quota" && message.contains(key)), "{key}: {said:?}");
    }
}

#[test]
fn every_key_of_limits_is_counted_here() {
    // What is no number of things in a file: where defaults come from, rules, and what is counted while the agent runs.
    let other = ["profile", "name_rule", "port_max", "addresses_per_domain", "http_idle_timeout_max"];
    let schema = serde_json::to_value(config::schema::generate()).unwrap();
    let keys = schema["definitions"]["Limits"]["properties"].as_object().unwrap().keys().map(String::as_str);
    let cases = cases();
    let counted: BTreeSet<_> = cases.iter().map(|(key, _, _)| *key).collect();
    assert_eq!(keys.filter(|key| !other.contains(key)).collect::<BTreeSet<_>>(), counted);
}
