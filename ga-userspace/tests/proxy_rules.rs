//! Forwarding rules on the wire: which endpoint gets a request, what it sees of it, and what clients get from the edge itself.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::{collections::BTreeMap, io::Read};

use ga::proxy::counts::Reason;
use lab::{Endpoint, Lab, answer, field};

/// The endpoints of the default group and of the virtual ones: 127.0.0.2, and 127.0.0.3 and so on.
const LASTS: [u8; 4] = [2, 3, 4, 5];

/// A proxy with `rules` and the virtual groups `aa`, `bb` and `cc`. Endpoints answer with their number and the head that they got.
fn lab(rules: &[(&str, &str)]) -> Lab {
    let endpoints = Endpoint::several(&LASTS, |last, stream| answer(stream, move |head| ("200 OK", format!("{last} {head}"))));
    let group = |(name, last): (&str, u8)| {
        format!(
            "[[instance.listener.endpoint_group]]\nname = \"{name}\"\nkind = \"virtual\"\nregion = \"here\"\ntraffic_ratio = 50\n\
             [[instance.listener.endpoint_group.endpoint]]\ntype = \"private_ip\"\naddress = \"10.0.0.{last}\"\n"
        )
    };
    let rule = |(number, (when, actions)): (usize, &(&str, &str))| {
        format!("[[instance.listener.rule]]\nname = \"rule-{number}\"\nwhen = [{when}]\ndo = [{actions}]\n")
    };
    let groups: String = [("aa", 3), ("bb", 4), ("cc", 5)].into_iter().map(group).collect();
    let rules: String = rules.iter().enumerate().map(rule).collect();
    Lab::new(&endpoints[0], &[2], &format!("{rules}{groups}"))
}

/// The endpoint that gets a GET of `target` with `fields`, and the head that it gets.
fn asked(lab: &Lab, target: &str, fields: &str) -> (u8, String) {
    let (_, body) = lab.client().ask(&format!("GET {target} HTTP/1.1\r\n{fields}\r\n"));
    let (last, head) = body.split_once(' ').unwrap();
    (last.parse().unwrap(), head.to_owned())
}

fn host(name: &str) -> String {
    format!("Host: {name}\r\n")
}

// proves: G01, G04, G05, B03
#[test]
fn hosts_lead_to_their_groups_and_others_to_the_default_one() {
    let lab = lab(&[
        ("{ host = \"one.example.com\" }", "{ forward = \"aa\" }"),
        ("{ host = [\"*.example.com\", \"www.example.*\"] }", "{ forward = \"bb\" }"),
        ("{ host = \"~^API[0-9]+\\\\.test$\" }", "{ forward = \"cc\" }"),
    ]);
    for (name, last) in [
        ("one.example.com", 3),
        ("ONE.example.COM:8080", 3),
        ("two.example.com", 4),
        ("www.example.org", 4),
        ("api12.test", 5),
        ("api.test", 2),
        ("example.com", 2),
    ] {
        assert_eq!(asked(&lab, "/", &host(name)).0, last, "{name}");
    }
}

// proves: G02, G03, G04, G05, G08
#[test]
fn paths_lead_to_their_groups_as_they_are_forwarded() {
    let lab = lab(&[
        ("{ path = [\"/a\", \"/img/?.png\"] }", "{ forward = \"aa\" }"),
        ("{ path = \"/b/*\" }, { host = \"b.example\" }", "{ forward = \"bb\" }"),
        ("{ path = \"~^/v[12]/\" }", "{ forward = \"cc\" }"),
    ]);
    for (target, name, last) in [
        ("/a", "b.example", 3),
        ("/a?b=c", "b.example", 3),
        ("/A", "b.example", 2),
        ("/x/../a", "b.example", 3),
        ("/img/a.png", "b.example", 3),
        ("/img/ab.png", "b.example", 2),
        ("/b/x", "b.example", 4),
        ("/b/x", "other.example", 2),
        ("/v2/x", "b.example", 5),
        ("/V2/x", "b.example", 2),
    ] {
        let (found, head) = asked(&lab, target, &host(name));
        assert_eq!(found, last, "{target} {name}");
        assert!(!head.contains("/../"), "{head}");
    }
}

// proves: G06
#[test]
fn each_condition_hits_only_its_requests() {
    for (when, target, fields, near_target, near_fields) in [
        ("{ header = { name = \"X-Tenant\", values = [\"a\", \"b\"] } }", "/", "x-tenant: b\r\n", "/", "x-tenant: B\r\n"),
        ("{ query = { key = \"stage\", value = \"a'b\" } }", "/?x&stage=a%27b", "", "/?stage=a%2527b", ""),
        ("{ cookie = { key = \"canary\", value = \"yes\" } }", "/", "Cookie: a=b; canary=yes\r\n", "/", "Cookie: canary=no\r\n"),
    ] {
        let lab = lab(&[(when, "{ forward = \"aa\" }")]);
        assert_eq!(asked(&lab, target, &(host("x") + fields)).0, 3, "{when}");
        assert_eq!(asked(&lab, near_target, &(host("x") + near_fields)).0, 2, "{when}");
    }
    let here = lab(&[("{ source_ip = \"127.0.0.0/8\" }", "{ forward = \"aa\" }")]);
    assert_eq!(asked(&here, "/", &host("x")).0, 3);
    let forged = lab(&[("{ source_ip = \"192.0.2.0/24\" }", "{ forward = \"aa\" }")]);
    assert_eq!(asked(&forged, "/", &(host("x") + "X-Forwarded-For: 192.0.2.1\r\n")).0, 2);
    let lab = lab(&[("{ method = [\"PUT\", \"DELETE\"] }", "{ forward = \"aa\" }")]);
    let (_, body) = lab.client().ask("DELETE / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(body.starts_with("3 "), "{body}");
    assert_eq!(asked(&lab, "/", &host("x")).0, 2);
}

// proves: B21, B03, G09
#[test]
fn only_the_groups_of_a_rule_get_its_requests() {
    let lab = lab(&[
        ("{ path = \"/two\" }", "{ forward = [\"aa\", \"bb\"] }"),
        ("{ path = \"/default\" }", "{ forward = \"default-4\" }"),
        ("{ path = \"/three\" }", "{ forward = [\"default-4\", \"cc\"] }"),
    ]);
    let spread = |target: &str| {
        let mut found = BTreeMap::new();
        (0..60).for_each(|_| *found.entry(asked(&lab, target, &host("x")).0).or_insert(0) += 1);
        found
    };
    let two = spread("/two");
    assert_eq!(two.keys().copied().collect::<Vec<_>>(), [3, 4], "{two:?}");
    assert!(two.values().all(|count| *count > 10), "{two:?}");
    assert_eq!(spread("/default").into_keys().collect::<Vec<_>>(), [2]);
    assert_eq!(spread("/three").into_keys().collect::<Vec<_>>(), [2, 5]);
    assert_eq!(spread("/").into_keys().collect::<Vec<_>>(), [2]);
}

// proves: G10
#[test]
fn redirects_keep_what_they_do_not_change() {
    let lab = lab(&[
        ("{ path = \"/301\" }", "{ redirect = { domain = \"new.example\" } }"),
        ("{ path = \"/302\" }", "{ redirect = { code = 302, protocol = \"HTTPS\", port = 443 } }"),
        ("{ path = \"/303\" }", "{ redirect = { code = 303, path = \"/x${path}\", port = 80 } }"),
        ("{ path = \"~^/307/(.*)$\" }", "{ redirect = { code = 307, path = \"/${1}\", query = \"was=${path}&${query}\" } }"),
        ("{ path = \"/308\" }", "{ redirect = { code = 308, query = \"\" } }"),
    ]);
    let port = lab.listener().addresses[0].port();
    for (target, code, location) in [
        ("/301?a=b", 301, format!("http://new.example:{port}/301?a=b")),
        ("/302?a=b", 302, "https://old.example/302?a=b".to_owned()),
        ("/303?a=b", 303, "http://old.example/x/303?a=b".to_owned()),
        ("/307/c/d?a=b", 307, format!("http://old.example:{port}/c/d?was=/307/c/d&a=b")),
        ("/308?a=b", 308, format!("http://old.example:{port}/308")),
    ] {
        let (head, body) = lab.client().ask(&format!("GET {target} HTTP/1.1\r\nHost: old.example:1\r\n\r\n"));
        assert!(head.starts_with(&format!("HTTP/1.1 {code} ")), "{head}");
        assert_eq!(field(&head, "location"), Some(location));
        assert_eq!(body, "");
    }
}

// proves: G11
#[test]
fn fixed_answers_are_exactly_what_the_file_says() {
    let lab = lab(&[
        ("{ path = \"/json\" }", "{ fixed_response = { code = 503, type = \"application/json\", content = '{\"a\":1}' } }"),
        ("{ path = \"/none\" }", "{ fixed_response = { code = 204 } }"),
    ]);
    let mut client = lab.client();
    let (head, body) = client.ask("GET /json HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!((field(&head, "content-type").as_deref(), body.as_str()), (Some("application/json"), "{\"a\":1}"));
    client.send("HEAD /json HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(field(&client.head(), "content-length").as_deref(), Some("7"));
    let (head, _) = client.ask("GET /none HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 204 ") && field(&head, "content-type").is_none(), "{head}");
}

// proves: G12, G13
#[test]
fn endpoints_see_what_a_rule_makes_of_a_request() {
    let lab = lab(&[
        (
            "{ path = \"~^/(v1)/([^/]*)/(.*)$\" }",
            "{ rewrite = { domain = \"${3}.internal\", path = \"/${2}/${1}\", query = \"path=${path}&${query}\" } }, \
             { add_header = [{ name = \"X-Src\", system = \"ClientSrcIp\" }, { name = \"X-Copy\", ref = \"User-Agent\" }, \
             { name = \"X-Text\", value = \"some text\" }, { name = \"X-None\", ref = \"nothing\" }] }, \
             { remove_header = [\"Cookie\", \"User-Agent\"] }, { forward = \"aa\" }",
        ),
        ("{ path = \"/dots/*\" }", "{ rewrite = { path = \"${path}/..\" } }, { forward = \"aa\" }"),
    ]);
    let fields = host("old.example") + "X-Src: 6.6.6.6\r\nX-None: forged\r\nUser-Agent: me\r\nCookie: a=b\r\nX-Kept: 1\r\n";
    let (last, head) = asked(&lab, "/v1/users/host?q=1", &fields);
    assert_eq!(last, 3);
    assert!(head.starts_with("GET /users/v1?path=/v1/users/host&q=1 HTTP/1.1\r\n"), "{head}");
    for (name, value) in [
        ("host", Some("host.internal")),
        ("x-src", Some("127.0.0.1")),
        ("x-copy", Some("me")),
        ("x-text", Some("some text")),
        ("x-kept", Some("1")),
        ("x-none", None),
        ("user-agent", None),
        ("cookie", None),
    ] {
        assert_eq!(field(&head, name).as_deref(), value, "{name}: {head}");
    }
    assert!(!head.contains("6.6.6.6"), "{head}");
    let (head, _) = lab.client().ask("GET /dots/a HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
}

#[test]
fn what_the_listener_says_of_clients_goes_before_what_a_rule_says() {
    let endpoint = Endpoint::new(2, |stream| answer(stream, |head| ("200 OK", head.to_owned())));
    let keys = "forwarded_headers = [\"real_ip\"]\n[[instance.listener.rule]]\nname = \"all\"\nwhen = [{ path = \"/*\" }]\n\
                do = [{ add_header = { name = \"X-Real-IP\", value = \"192.0.2.9\" } }, { forward = \"default\" }]\n";
    let lab = Lab::new(&endpoint, &[2], keys);
    let (_, head) = lab.client().ask("GET / HTTP/1.1\r\nHost: x\r\nX-Real-IP: 6.6.6.6\r\n\r\n");
    let fields: Vec<&str> = head.lines().filter(|line| line.to_ascii_lowercase().starts_with("x-real-ip:")).collect();
    assert_eq!(fields, ["x-real-ip: 127.0.0.1"], "{head}");
}

// proves: G14
#[test]
fn a_dropped_request_gets_no_byte_and_is_counted() {
    let lab = lab(&[("{ path = \"/drop\" }", "{ drop = true }")]);
    let mut client = lab.client();
    assert!(client.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").1.starts_with("2 "));
    client.send("GET /drop HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut heard = Vec::new();
    client.stream.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"");
    let listener = lab.listener();
    lab::becomes((1, 1), || (listener.rules[0].hits.get(), listener.counts.reasons.get(Reason::Dropped)));
}

// proves: G07
#[test]
fn the_first_rule_that_applies_is_the_one() {
    let lab = lab(&[
        ("{ path = \"/a/b\" }", "{ forward = \"aa\" }"),
        ("{ path = \"/a/*\" }", "{ forward = \"bb\" }"),
        ("{ path = \"/a/b\" }", "{ forward = \"cc\" }"),
    ]);
    assert_eq!(asked(&lab, "/a/b", &host("x")).0, 3);
    assert_eq!(asked(&lab, "/a/c", &host("x")).0, 4);
}
