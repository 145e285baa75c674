//! The rules of endpoints, names and server groups, from both sides.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

use ga::{
    config,
    health::Roster,
    model::{EndpointGroup, EndpointKind, Intent, Target},
    plan,
    resolve::Addresses,
};

/// A file: `top` are tables beside the instance, `listener` what the listener has after its ports.
fn parse(top: &str, listener: &str) -> Result<(Intent, Vec<String>), Vec<String>> {
    let text = format!(
        "[node]\ninterfaces = [\"eth0\"]\n{top}\n[[instance]]\nid = \"shop\"\nvips = [\"198.51.100.1\"]\n\
         egress_ips = [\"203.0.113.1\"]\n[[instance.listener]]\nname = \"web\"\nports = \"80\"\n{listener}"
    );
    match config::parse("test.toml", &text) {
        Ok(loaded) => Ok((loaded.intent, loaded.warnings.into_iter().map(|warning| warning.message).collect())),
        Err(report) => {
            Err(report.problems.iter().map(|p| format!("{}: {} ({})", p.kind.word(), p.message, p.place.text)).collect())
        }
    }
}

fn refused(top: &str, listener: &str) -> Vec<String> {
    parse(top, listener).map(|(intent, _)| intent).expect_err("it is refused")
}

fn group_of(endpoints: &[&str]) -> String {
    let endpoints: String = endpoints.iter().map(|e| format!("[[instance.listener.endpoint_group.endpoint]]\n{e}\n")).collect();
    format!("[[instance.listener.endpoint_group]]\nregion = \"eu\"\n{endpoints}")
}

fn only_group(top: &str, listener: &str) -> EndpointGroup {
    parse(top, listener).unwrap().0.instances.remove(0).listeners.remove(0).groups.remove(0)
}

const HOSTS: &str = "[inventory.hosts]\nweb-1 = \"10.0.0.11\"\nweb-2 = [\"10.0.0.12\", \"10.0.1.12\"]";

fn pool(servers: &str) -> String {
    format!("[[vserver_group]]\nname = \"pool-a\"\nservers = [{servers}]")
}

const PAIR: &str = "{ address = \"10.0.0.21\", port = 8080 }, { address = \"10.0.0.22\", port = 9090, weight = 50 }";

// proves: C10, C16
#[test]
fn every_type_that_takes_an_address_takes_any_unicast_one() {
    for (word, kind) in [
        ("ip", EndpointKind::Ip),
        ("public_ip", EndpointKind::PublicIp),
        ("private_ip", EndpointKind::PrivateIp),
        ("ecs", EndpointKind::Ecs),
        ("eni", EndpointKind::Eni),
        ("clb", EndpointKind::Clb),
        ("alb", EndpointKind::Alb),
        ("nlb", EndpointKind::Nlb),
        ("oss", EndpointKind::Oss),
    ] {
        for address in ["10.1.2.3", "100.64.0.1", "172.16.0.1", "192.168.1.1", "8.8.8.8"] {
            let endpoint =
                only_group("", &group_of(&[&format!("type = \"{word}\"\naddress = \"{address}\"")])).endpoints.remove(0);
            assert_eq!((endpoint.kind, endpoint.address.to_string()), (kind, address.to_owned()));
        }
    }
}

#[test]
fn load_balancers_object_stores_and_domains_may_be_named_and_ip_types_may_not() {
    for word in ["clb", "alb", "nlb", "oss", "domain"] {
        let named = only_group("", &group_of(&[&format!("type = \"{word}\"\naddress = \"LB.example.net\"")])).named.remove(0);
        assert_eq!(named.target, Target::Domain("lb.example.net".to_owned()), "{word}");
    }
    for word in ["ip", "public_ip", "private_ip"] {
        let problems = refused("", &group_of(&[&format!("type = \"{word}\"\naddress = \"lb.example.net\"")]));
        assert_eq!(problems, ["bad_value: \"lb.example.net\" is not an IP address (\"lb.example.net\")"], "{word}");
    }
    let problems = refused("", &group_of(&["type = \"domain\"\naddress = \"192.0.2.1\""]));
    assert_eq!(problems, ["bad_value: a domain endpoint has a name, not an IP address (\"192.0.2.1\")"]);
    for wrong in ["", ".", "a..b", "-a.test", "http://a.test", "a.test:80", "a.test/x", "7.7"] {
        assert_eq!(refused("", &group_of(&[&format!("type = \"domain\"\naddress = \"{wrong}\"")])).len(), 1, "{wrong}");
    }
}

// proves: C13
#[test]
fn neither_an_http_load_balancer_nor_an_object_store_is_under_udp() {
    for (word, why) in
        [("alb", "an alb endpoint cannot be under a UDP listener"), ("oss", "an oss endpoint cannot be under a UDP listener")]
    {
        let listener = format!("protocol = \"udp\"\n{}", group_of(&[&format!("type = \"{word}\"\naddress = \"a.test\"")]));
        assert_eq!(refused("", &listener), [format!("not_allowed: {why} (\"{word}\")")]);
    }
    let udp = |word: &str| format!("protocol = \"udp\"\n{}", group_of(&[&format!("type = \"{word}\"\naddress = \"a.test\"")]));
    for word in ["clb", "nlb", "domain"] {
        assert!(parse("", &udp(word)).is_ok(), "{word}");
    }
}

// proves: C11
#[test]
fn hosts_and_interfaces_are_named_by_the_inventory() {
    let ecs = only_group(HOSTS, &group_of(&["type = \"ecs\"\naddress = \"web-1\""])).named.remove(0);
    assert_eq!(ecs.target, Target::Host { name: "web-1".to_owned(), sub_address: None });
    let eni = "type = \"eni\"\naddress = \"web-2\"\nsub_address = \"10.0.1.12\"";
    let eni = only_group(HOSTS, &group_of(&[eni])).named.remove(0);
    assert_eq!(eni.target, Target::Host { name: "web-2".to_owned(), sub_address: Some("10.0.1.12".parse().unwrap()) });
    let literal = "type = \"eni\"\naddress = \"10.0.0.12\"\nsub_address = \"10.0.1.12\"";
    assert_eq!(only_group("", &group_of(&[literal])).endpoints[0].address.to_string(), "10.0.1.12");
    let unknown = group_of(&["type = \"ecs\"\naddress = \"web-3\""]);
    assert_eq!(
        refused(HOSTS, &unknown),
        ["conflict: \"web-3\" is neither an IP address nor a name of the inventory (\"web-3\")"]
    );
    assert!(parse("[inventory]\nfile = \"/etc/ga/hosts.toml\"", &unknown).is_ok(), "the file may have it");
    let other = group_of(&["type = \"ecs\"\naddress = \"10.0.0.1\"\nsub_address = \"10.0.0.2\""]);
    assert_eq!(refused("", &other), ["not_allowed: this key is for endpoints of type \"eni\" only (\"10.0.0.2\")"]);
}

#[test]
fn an_inventory_says_where_it_is_and_is_checked() {
    for (top, kind) in [
        ("[inventory]\nfile = \"hosts.toml\"", "bad_value"),
        ("[inventory]\nurl = \"ftp://x/\"", "bad_value"),
        ("[inventory]\nurl = \"http:///x\"", "bad_value"),
        ("[inventory]\nurl = \"https:///x\"", "bad_value"),
        ("[inventory]\nurl = \"https://x/\"\nca = \"ca.pem\"", "bad_value"),
        ("[inventory]\nurl = \"http://x/\"\ninterval = 4", "out_of_range"),
        ("[inventory.hosts]\nweb = []", "out_of_range"),
        ("[inventory.hosts]\nweb = \"10.0.0.300\"", "bad_value"),
        ("[inventory.hosts]\n\"we b\" = \"10.0.0.3\"", "bad_value"),
        ("[inventory.hosts]\nweb = [\"10.0.0.3\", \"10.0.0.3\"]", "duplicate"),
        ("[inventory]\nhost = 1", "unknown_key"),
    ] {
        let problems = refused(top, &group_of(&["type = \"ip\"\naddress = \"192.0.2.1\""]));
        assert!(matches!(&problems[..], [one] if one.starts_with(kind)), "{top}: {problems:?}");
    }
}

#[test]
fn what_stands_for_the_same_is_in_a_group_once() {
    let twice = |endpoint: &str| group_of(&[endpoint, endpoint]);
    for endpoint in [
        "type = \"domain\"\naddress = \"a.test\"",
        "type = \"ecs\"\naddress = \"web-1\"",
        "type = \"clb\"\nvserver_group = \"pool-a\"",
    ] {
        let problems = refused(&format!("{HOSTS}\n{}", pool(PAIR)), &twice(endpoint));
        assert!(matches!(&problems[..], [one] if one.starts_with("duplicate")), "{problems:?}");
    }
}

// proves: K01, K02, K03, K08
#[test]
fn a_listener_and_clb_endpoints_name_one_pool_whose_servers_may_share_ports_and_hosts() {
    let same_port = "{ address = \"10.0.0.21\", port = 8080 }, { address = \"10.0.0.22\", port = 8080 }, { address = \"10.0.0.21\", port = 8081 }";
    let second = format!(
        "{}\n[[vserver_group]]\nname = \"pool-b\"\nservers = [{{ address = \"10.0.0.21\", port = 8080, weight = 7 }}]",
        pool(same_port)
    );
    let clb = group_of(&["type = \"clb\"\nvserver_group = \"pool-a\"", "type = \"clb\"\nvserver_group = \"pool-b\""]);
    let more = format!(
        "vserver_group = \"pool-a\"\n[[instance.listener]]\nname = \"two\"\nports = \"81\"\nvserver_group = \"pool-a\"\n[[instance.listener]]\nname = \"three\"\nports = \"82\"\n{clb}"
    );
    let (intent, warnings) = parse(&second, &more).unwrap();
    assert_eq!(warnings, [""; 0]);
    assert_eq!(intent.pools[0].servers.len(), 3);
    let targets: Vec<_> = intent
        .listeners()
        .flat_map(|(_, listener)| listener.groups.iter().flat_map(|group| &group.named))
        .map(|n| n.target.to_string())
        .collect();
    assert_eq!(targets, ["server group pool-a", "server group pool-a", "server group pool-a", "server group pool-b"]);
}

// proves: K05
#[test]
fn a_listener_with_a_pool_has_no_endpoint_groups_of_its_own() {
    let both = format!("vserver_group = \"pool-a\"\n{}", group_of(&["type = \"ip\"\naddress = \"192.0.2.1\""]));
    let problems = refused(&pool(PAIR), &both);
    assert!(matches!(&problems[..], [one] if one.starts_with("conflict: a listener has a `vserver_group` or")), "{problems:?}");
    let clb = group_of(&["type = \"clb\"\nvserver_group = \"pool-a\"\naddress = \"192.0.2.1\""]);
    assert_eq!(refused(&pool(PAIR), &clb).len(), 1);
    let unknown = refused(&pool(PAIR), "vserver_group = \"pool-b\"");
    assert!(unknown[0].starts_with("conflict: there is no `[[vserver_group]]` named \"pool-b\""), "{unknown:?}");
}

// proves: K10
#[test]
fn servers_have_weights_0_to_100_and_ports() {
    let server = |rest: &str| pool(&format!("{{ address = \"10.0.0.21\"{rest} }}"));
    let pool_of = |rest: &str| {
        parse(&server(rest), "vserver_group = \"pool-a\"").map(|(mut intent, _)| intent.pools.remove(0).servers.remove(0))
    };
    assert_eq!(pool_of(", port = 80").unwrap().weight.0, 100);
    for weight in [0, 100] {
        assert_eq!(pool_of(&format!(", port = 80, weight = {weight}")).unwrap().weight.0, weight);
    }
    assert_eq!(pool_of(", port = 80, weight = 101"), Err(vec!["out_of_range: `weight` must be 0 to 100 (101)".to_owned()]));
    for (rest, kind) in [
        ("", "missing_key"),
        (", port = 0", "out_of_range"),
        (", port = 65536", "out_of_range"),
        (", port = 80, description = \"\"", "out_of_range"),
        (", port = 80, wieght = 1", "unknown_key"),
    ] {
        let problems = pool_of(rest).unwrap_err();
        assert!(matches!(&problems[..], [one] if one.starts_with(kind)), "{rest}: {problems:?}");
    }
    let twice = "{ address = \"10.0.0.21\", port = 80 }, { address = \"10.0.0.21\", port = 80, weight = 3 }";
    assert!(refused(&pool(twice), "vserver_group = \"pool-a\"")[0].starts_with("duplicate: 10.0.0.21 with port 80"));
    let ours = refused(&pool("{ address = \"198.51.100.1\", port = 80 }"), "vserver_group = \"pool-a\"");
    assert!(ours[0].starts_with("conflict: 198.51.100.1 is a VIP of this edge"), "{ours:?}");
}

#[test]
fn limits_of_server_groups_and_domains_are_keys() {
    let limited = |limit: &str| {
        format!("[limits]\n{limit}\n{}", pool("{ address = \"10.0.0.21\", port = 80 }, { address = \"10.0.0.21\", port = 81 }"))
    };
    let listener = "vserver_group = \"pool-a\"";
    for key in ["vsg_servers_total", "vsg_server_attachments"] {
        assert!(parse(&limited(&format!("{key} = 2")), listener).is_ok(), "{key}");
        let problems = refused(&limited(&format!("{key} = 1")), listener);
        assert!(matches!(&problems[..], [one] if one.starts_with("quota") && one.contains(key)), "{problems:?}");
    }
    let (intent, _) = parse(&limited("addresses_per_domain = 3"), listener).unwrap();
    assert_eq!(intent.limits.addresses_per_domain, 3);
}

#[test]
fn a_pool_that_nobody_uses_is_a_warning() {
    let (_, warnings) = parse(&pool(PAIR), &group_of(&["type = \"ip\"\naddress = \"192.0.2.1\""])).unwrap();
    assert_eq!(warnings, ["server group `pool-a` is used by no listener and no endpoint"]);
}

#[test]
fn an_inventory_may_be_asked_in_tls_and_its_certificates_are_for_nothing_else() {
    let group = group_of(&["type = \"ip\"\naddress = \"192.0.2.1\""]);
    let (intent, warnings) = parse("[inventory]\nurl = \"https://x/\"\nca = \"/etc/ga/ca.pem\"", &group).unwrap();
    assert_eq!(intent.inventory.ca.unwrap().to_str(), Some("/etc/ga/ca.pem"));
    assert_eq!(warnings, [""; 0]);
    let (_, warnings) = parse("[inventory]\nurl = \"http://x/\"\nca = \"/etc/ga/ca.pem\"", &group).unwrap();
    assert_eq!(warnings, ["`ca` says who vouches for the server of an `https://` address, and `url` is none"]);
}

#[test]
fn a_pools_health_check_is_for_those_who_have_nothing_else() {
    let checked = |name: &str, check: &str| format!("[[vserver_group]]\nname = \"{name}\"\n{check}\nservers = [{PAIR}]\n");
    let every = |seconds| format!("health_check = {{ interval = {seconds} }}");
    let interval = |top: &str, listener: &str| {
        let (mut intent, warnings) = parse(top, listener).unwrap();
        let check = intent.instances.remove(0).listeners.remove(0).groups.remove(0).health_check;
        (check.map(|check| check.interval.as_secs()), warnings.len())
    };
    let (five, none) = (checked("pool-a", &every(5)), checked("pool-a", ""));
    assert_eq!(interval(&five, "vserver_group = \"pool-a\""), (Some(5), 0));
    assert_eq!(interval(&none, "vserver_group = \"pool-a\""), (None, 0));
    assert_eq!(interval(&checked("pool-a", "health_check = { enabled = false }"), "vserver_group = \"pool-a\""), (None, 0));

    let a = "type = \"clb\"\nvserver_group = \"pool-a\"";
    assert_eq!(interval(&five, &group_of(&[a])), (Some(5), 0));
    let own = |check: &str| group_of(&[a]).replace("region", &format!("{check}\nregion"));
    assert_eq!(interval(&five, &own(&every(7))), (Some(7), 0), "the endpoint group's own counts");
    assert_eq!(interval(&five, &own("health_check = { enabled = false }")), (None, 0));
    let both = group_of(&[a, "type = \"clb\"\nvserver_group = \"pool-b\""]);
    assert_eq!(interval(&(five.clone() + &checked("pool-b", &every(5))), &both), (Some(5), 0));
    for other in [every(6), String::new()] {
        assert_eq!(interval(&(five.clone() + &checked("pool-b", &other)), &both), (None, 1), "{other}");
    }
    assert_eq!(interval(&five, &group_of(&[a, "type = \"ip\"\naddress = \"192.0.2.1\""])), (None, 1));
    let problems = refused(&checked("pool-a", "health_check = { threshold = 1 }"), "vserver_group = \"pool-a\"");
    assert!(matches!(&problems[..], [one] if one.starts_with("out_of_range")), "{problems:?}");
}

#[test]
fn servers_of_a_pool_are_probed_at_their_own_ports_whatever_their_weights() {
    let servers = "{ address = \"10.0.0.21\", port = 8080 }, { address = \"10.0.0.22\", port = 9090, weight = 0 }";
    let targets = |check: &str| {
        let (intent, _) = parse(&format!("{}\n{check}", pool(servers)), "vserver_group = \"pool-a\"").unwrap();
        let (whole, _) = plan::resolved(&intent, &Addresses::written(&intent));
        Roster::of(&whole).checks.iter().map(|check| check.target.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(targets("health_check = { protocol = \"tcp\" }"), ["10.0.0.21:8080", "10.0.0.22:9090"]);
    assert_eq!(targets("health_check = { protocol = \"tcp\", port = 81 }"), ["10.0.0.21:81", "10.0.0.22:81"]);
    assert_eq!(targets(""), [""; 0]);
}
