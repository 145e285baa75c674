//! Forwarding rules in the configuration, from the side of what is accepted: what they become, in which order, and what is only
//! warned of. What is refused, and where, is in `tests/broken`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

use ga::{
    config::{self, Loaded},
    model::{Action, Condition, HeaderValue, Listener, Modifier, Pattern, Rule, Template},
};

const DEFAULT: &str = "[[instance.listener.endpoint_group]]\nname = \"main\"\nregion = \"eu\"\n[[instance.listener.endpoint_group.endpoint]]\n\
                       type = \"ip\"\naddress = \"192.0.2.11\"\n";
const VIRTUAL: &str = "[[instance.listener.endpoint_group]]\nname = \"extra\"\nkind = \"virtual\"\nregion = \"eu\"\n\
                       [[instance.listener.endpoint_group.endpoint]]\ntype = \"ip\"\naddress = \"192.0.2.12\"\n";

fn text(protocol: &str, rules: &str) -> String {
    format!(
        "[node]\ninterfaces = [\"eth0\"]\n[limits]\nrules_per_listener = 200\n[[instance]]\nid = \"ga-demo\"\nvips = [\"198.51.100.10\"]\n\
         egress_ips = [\"203.0.113.5\"]\n[[instance.listener]]\nname = \"web\"\nprotocol = \"{protocol}\"\nports = \"80\"\n\
         {DEFAULT}{VIRTUAL}{rules}"
    )
}

fn loaded(protocol: &str, rules: &str) -> Loaded {
    let text = text(protocol, rules);
    config::parse("test.toml", &text).unwrap_or_else(|report| panic!("{:#?}\n{text}", report.problems))
}

fn listener(rules: &str) -> Listener {
    loaded("http", rules).intent.instances.remove(0).listeners.remove(0)
}

fn rule(when: &str, actions: &str) -> Rule {
    let mut rules = listener(&written("api", "", when, actions)).rules;
    assert_eq!(rules.len(), 1);
    rules.remove(0)
}

fn written(name: &str, priority: &str, when: &str, actions: &str) -> String {
    format!("[[instance.listener.rule]]\nname = \"{name}\"\n{priority}\nwhen = [{when}]\ndo = [{actions}]\n")
}

const FORWARD: &str = "{ forward = \"extra\" }";

// proves: G07, G08
#[test]
fn rules_are_tried_by_priority_and_those_without_one_come_last_in_file_order() {
    let order = [("first", ""), ("fifty", "priority = 50"), ("second", ""), ("five", "priority = 5")];
    let text: String = order.iter().map(|(name, priority)| written(name, priority, "{ path = \"/a\" }", FORWARD)).collect();
    let rules = listener(&text).rules;
    let found: Vec<_> = rules.iter().map(|rule| (rule.name.as_str(), rule.priority)).collect();
    assert_eq!(found, [("five", 5), ("fifty", 50), ("first", 51), ("second", 52)]);
}

// proves: G01, G02, G04, G05
#[test]
fn patterns_are_wildcards_or_behind_a_tilde_expressions() {
    let found = rule(
        "{ host = [\"*.Example.com\", \"~^a(b|c)\\\\.example$\"] }, { path = \"/img/?.png\" }, { path = [\"~^/x\"] }",
        FORWARD,
    );
    let wildcard = |text: &str| Pattern::Wildcard(text.to_owned());
    let regex = |text: &str| Pattern::Regex(text.to_owned());
    assert_eq!(
        found.conditions,
        [
            Condition::Host(vec![wildcard("*.Example.com"), regex("^a(b|c)\\.example$")]),
            Condition::Path(vec![wildcard("/img/?.png")]),
            Condition::Path(vec![regex("^/x")]),
        ]
    );
    assert_eq!(found.items(), 4);
}

// proves: G06
#[test]
fn the_other_conditions_are_read_alone_and_as_lists() {
    let found = rule(
        "{ header = { name = \"X-Tenant\", values = \"a b\" } }, { query = { key = \"a\", value = \"1\" } }, { method = \"GET\" }, \
         { cookie = [{ key = \"a\", value = \"1\" }, { key = \"b\", value = \"2\" }] }, { source_ip = [\"192.0.2.7\", \"2001:db8::/32\"] }",
        FORWARD,
    );
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let nets = ["192.0.2.7/32", "2001:db8::/32"].map(|net| net.parse().unwrap());
    assert_eq!(
        found.conditions,
        [
            Condition::Header("X-Tenant".to_owned(), vec!["a b".to_owned()]),
            Condition::Query(vec![pair("a", "1")]),
            Condition::Method(vec!["GET".to_owned()]),
            Condition::Cookie(vec![pair("a", "1"), pair("b", "2")]),
            Condition::SourceIp(nets.to_vec()),
        ]
    );
}

// proves: G09
#[test]
fn rules_forward_to_default_groups_too_and_to_several() {
    let names = |found: Rule| match found.action {
        Action::Forward(names) => names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        Action::Redirect(_) | Action::Fixed(_) | Action::Drop => Vec::new(),
    };
    assert_eq!(names(rule("{ path = \"/a\" }", "{ forward = \"main\" }")), ["main"]);
    assert_eq!(names(rule("{ path = \"/a\" }", "{ forward = [\"extra\", \"main\"] }")), ["extra", "main"]);
}

// proves: G12, G13
#[test]
fn what_is_changed_keeps_its_order() {
    let found = rule(
        "{ path = \"~^/(a)/(.*)$\" }",
        "{ rewrite = { path = \"~/b/${2}${1}\" } }, \
         { add_header = [{ name = \"x-a\", value = \"1\" }, { name = \"x-b\", type = \"ref\", value = \"host\" }, \
         { name = \"x-c\", type = \"userdefined\", value = \"3\" }] }, \
         { add_header = { name = \"x-d\", system = \"ClientSrcIp\" } }, { remove_header = \"x-e\" }, { forward = \"extra\" }",
    );
    let template = |text: &str| Template::parse(text).unwrap();
    let add = |name: &str, value| Modifier::AddHeader(name.to_owned(), value);
    assert_eq!(
        found.modifiers,
        [
            Modifier::Rewrite { domain: template("${host}"), path: template("/b/${2}${1}"), query: template("${query}") },
            add("x-a", HeaderValue::Text("1".to_owned())),
            add("x-b", HeaderValue::Ref("host".to_owned())),
            add("x-c", HeaderValue::Text("3".to_owned())),
            add("x-d", HeaderValue::ClientSrcIp),
            Modifier::RemoveHeader(vec!["x-e".to_owned()]),
        ]
    );
}

// proves: G10
#[test]
fn a_redirect_is_permanent_unless_it_says_otherwise_and_keeps_what_it_does_not_name() {
    for (actions, code) in [
        ("{ redirect = { path = \"/b\" } }", 301),
        ("{ redirect = { path = \"/b\", code = 302 } }", 302),
        ("{ redirect = { path = \"/b\", code = 303 } }", 303),
        ("{ redirect = { path = \"/b\", code = 307, port = \"${port}\", protocol = \"${protocol}\" } }", 307),
        ("{ redirect = { path = \"/b\", code = 308 } }", 308),
    ] {
        let Action::Redirect(redirect) = rule("{ path = \"/a\" }", actions).action else { panic!("{actions}") };
        assert_eq!((redirect.code, redirect.https, redirect.port), (code, None, None));
        assert_eq!([redirect.domain, redirect.path, redirect.query].map(|part| part.to_string()), ["${host}", "/b", "${query}"]);
    }
    let secure = "{ redirect = { protocol = \"https\", port = \"443\" } }";
    let Action::Redirect(redirect) = rule("{ path = \"/a\" }", secure).action else { panic!("{secure}") };
    assert_eq!((redirect.https, redirect.port), (Some(true), Some(443)));
}

// proves: G11, G14
#[test]
fn fixed_answers_and_drops() {
    let longest = "x".repeat(1_000);
    let Action::Fixed(fixed) =
        rule("{ path = \"/a\" }", &format!("{{ fixed_response = {{ code = 404, content = \"{longest}\" }} }}")).action
    else {
        panic!("no fixed answer");
    };
    assert_eq!((fixed.code, fixed.content_type.as_str(), fixed.content), (404, "text/plain", longest));
    assert_eq!(rule("{ path = \"/a\" }", "{ drop = true }").action, Action::Drop);
}

// proves: G16
#[test]
fn twenty_rules_and_forty_values_fit_and_one_more_does_not() {
    let rules = |count: usize, values: usize| -> String {
        let values = (0..values).map(|value| format!("\"/{value}\"")).collect::<Vec<_>>().join(", ");
        (0..count).map(|number| written(&format!("r-{number}"), "", &format!("{{ path = [{values}] }}"), FORWARD)).collect()
    };
    let codes = |rules: &str| {
        let text = text("http", rules).replace("rules_per_listener = 200\n", "");
        let problems = config::parse("test.toml", &text).map_or_else(|report| report.problems, |_| Vec::new());
        problems.iter().filter_map(|problem| problem.code).map(|code| code.word()).collect::<Vec<_>>()
    };
    assert!(codes(&rules(20, 2)).is_empty());
    assert_eq!(codes(&rules(21, 1)), ["QuotaExceeded.ForwardingRule"]);
    assert!(codes(&rules(1, 40)).is_empty());
    assert_eq!(codes(&rules(1, 41)), ["QuotaExceeded.RuleConditionConfig"]);
    assert_eq!(listener(&rules(40, 1)).rules.len(), 40);
}

// proves: B03
#[test]
fn a_virtual_group_without_a_rule_is_warned_of() {
    let warnings = |rules: &str| -> Vec<String> {
        loaded("http", rules).warnings.iter().map(|warning| format!("{}:{}", warning.kind.word(), warning.place.line)).collect()
    };
    assert_eq!(warnings(""), ["no_effect:19"]);
    assert_eq!(warnings(&written("api", "", "{ path = \"/a\" }", "{ forward = \"main\" }")), ["no_effect:19"]);
    assert!(warnings(&written("api", "", "{ path = \"/a\" }", FORWARD)).is_empty());
}

#[test]
fn a_redirect_to_https_that_keeps_the_port_is_warned_of() {
    let redirect = |redirect: &str| written("api", "", "{ path = \"/a\" }", &format!("{{ redirect = {redirect} }}, "));
    let warnings =
        |rules: &str| loaded("http", &(rules.to_owned() + &written("xx", "", "{ path = \"/b\" }", FORWARD))).warnings.len();
    assert_eq!(warnings(&redirect("{ protocol = \"HTTPS\" }")), 1);
    assert_eq!(warnings(&redirect("{ protocol = \"HTTPS\", port = 443 }")), 0);
}

#[test]
fn rules_of_tcp_listeners_ask_for_names_and_forward_or_drop() {
    let rules = written("api", "", "{ host = \"*.example.com\" }", FORWARD)
        + &written("no", "", "{ host = \"x.example\" }", "{ drop = true }");
    assert_eq!(loaded("tcp", &rules).intent.instances[0].listeners[0].rules.len(), 2);
}

// proves: G09
#[test]
fn under_the_subscription_profile_only_tcp_rules_name_default_groups() {
    let subscription = |protocol: &str, when: &str| {
        let rules = written("api", "", when, "{ forward = \"main\" }") + &written("xx", "", "{ host = \"x.example\" }", FORWARD);
        config::parse("test.toml", &text(protocol, &rules).replace("[limits]\n", "[limits]\nprofile = \"subscription\"\n"))
            .is_ok()
    };
    assert!(subscription("tcp", "{ host = \"a.example\" }"));
    assert!(!subscription("http", "{ path = \"/a\" }"));
}

/// The words of all problems of a listener whose groups have these kinds and regions; the first is called `g-0`.
fn problems_of_groups(protocol: &str, limits: &str, groups: &[(&str, &str)]) -> Vec<&'static str> {
    let group = |(number, (kind, region)): (usize, &(&str, &str))| {
        format!(
            "[[instance.listener.endpoint_group]]\nname = \"g-{number}\"\nkind = \"{kind}\"\nregion = \"{region}\"\n\
             [[instance.listener.endpoint_group.endpoint]]\ntype = \"ip\"\naddress = \"192.0.2.{}\"\n",
            number + 1
        )
    };
    let groups: String = groups.iter().enumerate().map(group).collect();
    let text = text(protocol, "")
        .replace("[limits]\n", &format!("[limits]\n{limits}\n"))
        .replace(&format!("{DEFAULT}{VIRTUAL}"), &groups);
    let problems = config::parse("test.toml", &text).map_or_else(|report| report.problems, |_| Vec::new());
    problems.iter().map(|problem| problem.code.map_or(problem.kind.word(), |code| code.word())).collect()
}

// proves: B07
#[test]
fn ten_virtual_groups_fit_and_the_eleventh_needs_the_limit_raised() {
    let groups = |count: usize| [vec![("default", "eu")], vec![("virtual", "eu"); count]].concat();
    assert!(problems_of_groups("http", "", &groups(10)).is_empty());
    assert_eq!(problems_of_groups("http", "", &groups(11)), ["QuotaExceeded.EndpointGroup"]);
    assert!(problems_of_groups("http", "virtual_groups_per_listener = 11", &groups(11)).is_empty());
}

// proves: B08
#[test]
fn a_virtual_group_alone_is_refused() {
    assert_eq!(problems_of_groups("http", "", &[("virtual", "eu")]), ["conflict"]);
    assert!(problems_of_groups("http", "", &[("virtual", "eu"), ("default", "eu")]).is_empty());
}

// proves: B09
#[test]
fn virtual_groups_of_tcp_are_in_the_region_of_a_default_one_and_those_of_http_anywhere() {
    let groups = [("default", "eu"), ("virtual", "us")];
    assert_eq!(problems_of_groups("tcp", "", &groups), ["conflict"]);
    assert!(problems_of_groups("http", "", &groups).is_empty());
    assert_eq!(problems_of_groups("http", "profile = \"subscription\"", &groups), ["conflict"]);
}

// proves: B10
#[test]
fn the_subscription_profile_has_one_default_group_for_http() {
    let groups = [("default", "eu"), ("default", "us")];
    assert_eq!(problems_of_groups("http", "profile = \"subscription\"", &groups).len(), 1);
    assert!(problems_of_groups("http", "profile = \"payg\"", &groups).is_empty());
    assert!(problems_of_groups("tcp", "profile = \"subscription\"", &groups).is_empty());
}
