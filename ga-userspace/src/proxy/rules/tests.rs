//! The matcher against the judgement that reads rules one by one, and the promises of single conditions.

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::model::{Name, NameRule, Pattern, Rule as Model};

/// A request that tests own.
#[derive(Clone, Debug)]
struct Sent {
    host: String,
    path: String,
    query: Option<String>,
    method: Method,
    headers: HeaderMap,
    client: IpAddr,
}

impl Sent {
    fn to(host: &str, target: &str) -> Self {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query.to_owned())));
        let client = [192, 0, 2, 1].into();
        Self { host: host.to_owned(), path: path.to_owned(), query, method: Method::GET, headers: HeaderMap::new(), client }
    }

    fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"));
        self
    }

    fn from(mut self, client: &str) -> Self {
        self.client = client.parse().expect("an address");
        self
    }

    fn request(&self) -> Request<'_> {
        Request {
            client: self.client,
            local: ([198, 51, 100, 10], 80).into(),
            https: false,
            method: &self.method,
            host: host_of(&self.host),
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
        }
    }
}

fn rule(conditions: Vec<Condition>) -> Model {
    let name = Name::parse("rule", NameRule::Seed).expect("a name");
    Model { name, priority: 1, conditions, modifiers: Vec::new(), action: Action::Drop }
}

fn pattern(text: &str) -> Pattern {
    text.strip_prefix('~').map_or_else(|| Pattern::Wildcard(text.to_owned()), |text| Pattern::Regex(text.to_owned()))
}

fn host(texts: &[&str]) -> Condition {
    Condition::Host(texts.iter().copied().map(pattern).collect())
}

fn path(texts: &[&str]) -> Condition {
    Condition::Path(texts.iter().copied().map(pattern).collect())
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn texts(all: &[&str]) -> Vec<String> {
    all.iter().map(|text| (*text).to_owned()).collect()
}

/// The rule that applies.
fn found(rules: &[Model], sent: &Sent) -> Option<usize> {
    Matcher::new(rules).decide(&sent.request()).rule
}

// proves: G01, G04, G05
#[test]
fn hosts_are_compared_without_case_and_port() {
    let one = |text: &str, sent: &str| found(&[rule(vec![host(&[text])])], &Sent::to(sent, "/")).is_some();
    for text in ["www.example.com", "*.example.com", "www.example.*", "~^www\\.EXAMPLE\\.com$", "w?w.Example.com", "*"] {
        assert!(one(text, "WWW.example.COM:8080") && one(text, "www.example.com."), "{text}");
    }
    for text in ["example.com", "www.example", "?.example.com", "~^example", "*.www.example.com"] {
        assert!(!one(text, "www.example.com"), "{text}");
    }
    assert!(one("*.example.com", "a.b.example.com") && !one("*.example.com", "example.com"));
}

// proves: G02, G04, G05
#[test]
fn paths_are_compared_with_case_and_several_are_alternatives() {
    let one = |text: &str, sent: &str| found(&[rule(vec![path(&[text])])], &Sent::to("", sent)).is_some();
    assert!(one("/a", "/a?x") && !one("/a", "/A") && !one("/a", "/a/") && !one("/a", "/ab"));
    assert!(one("/b/*", "/b/") && one("/b/*", "/b/c/d") && !one("/b/*", "/b") && !one("/b/*", "/B/"));
    assert!(one("/img/?.png", "/img/a.png") && !one("/img/?.png", "/img/aa.png") && !one("/img/?.png", "/img/a.PNG"));
    assert!(one("~^/v[12]/", "/v2/x") && !one("~^/v[12]/", "/V2/x") && one("~/x$", "/v2/x"));
    let both = [rule(vec![path(&["/a", "/b"]), path(&["/c"])])];
    assert!(["/a", "/b", "/c"].iter().all(|sent| found(&both, &Sent::to("", sent)).is_some()));
    assert_eq!(found(&both, &Sent::to("", "/d")), None);
}

// proves: G03
#[test]
fn all_conditions_must_hold() {
    let rules = [rule(vec![host(&["a.example"]), path(&["/x"])])];
    assert_eq!(found(&rules, &Sent::to("a.example", "/x")), Some(0));
    assert_eq!(found(&rules, &Sent::to("a.example", "/y")), None);
    assert_eq!(found(&rules, &Sent::to("b.example", "/x")), None);
}

// proves: G06
#[test]
fn each_other_condition_hits_only_its_requests() {
    let rules = [
        rule(vec![Condition::Header("X-Tenant".to_owned(), texts(&["a", "b"]))]),
        rule(vec![Condition::Query(pairs(&[("version", "v2")]))]),
        rule(vec![Condition::Method(texts(&["PUT", "DELETE"]))]),
        rule(vec![Condition::Cookie(pairs(&[("canary", "yes")]))]),
        rule(vec![Condition::SourceIp(vec!["10.1.0.0/16".parse().expect("a network")])]),
    ];
    let plain = || Sent::to("a.example", "/");
    assert_eq!(found(&rules, &plain().header("x-tenant", "b")), Some(0));
    assert_eq!(found(&rules, &plain().header("x-tenant", "c").header("x-tenant", "a")), Some(0));
    assert_eq!(found(&rules, &Sent::to("a.example", "/?version=v2")), Some(1));
    assert_eq!(found(&rules, &plain().method(Method::DELETE)), Some(2));
    assert_eq!(found(&rules, &plain().header("cookie", "x=y; canary=yes")), Some(3));
    assert_eq!(found(&rules, &plain().from("10.1.2.3")), Some(4));
    let near = [
        plain(),
        plain().header("x-tenant", "A"),
        plain().header("x-tenant", "ab"),
        Sent::to("a.example", "/?version=v22"),
        Sent::to("a.example", "/version=v2"),
        plain().method(Method::POST),
        plain().header("cookie", "canary=no"),
        plain().from("10.2.0.1"),
    ];
    for sent in near {
        assert_eq!(found(&rules, &sent), None, "{sent:?}");
    }
    let both = [rule(vec![Condition::Query(pairs(&[("a", "1"), ("a", "2")])), Condition::Query(pairs(&[("b", "1")]))])];
    assert_eq!(found(&both, &Sent::to("", "/?b=1&a=2")), Some(0));
    assert_eq!(found(&both, &Sent::to("", "/?a=1&a=2")), None);
    let tenants = |values: [&str; 2]| values.map(|value| Condition::Header("x-tenant".to_owned(), texts(&[value])));
    let twice = [rule(tenants(["a", "b"]).to_vec())];
    assert_eq!(found(&twice, &plain().header("x-tenant", "b").header("x-tenant", "a")), Some(0));
    assert_eq!(found(&twice, &plain().header("x-tenant", "b")), None);
}

// proves: G07, G08
#[test]
fn the_first_of_two_rules_applies_and_without_any_the_default_one() {
    let rules = [rule(vec![path(&["/a/b"])]), rule(vec![path(&["/a/*"])]), rule(vec![path(&["/a/b"])])];
    assert_eq!(found(&rules, &Sent::to("", "/a/b")), Some(0));
    assert_eq!(found(&rules[1..], &Sent::to("", "/a/b")), Some(0));
    let matcher = Matcher::new(&rules);
    let sent = Sent::to("", "/b");
    assert!(matches!(matcher.decide(&sent.request()), Decision { rule: None, act: Act::Forward { target: 0, .. } }));
}

#[test]
fn targets_are_those_of_the_rules_that_forward() {
    let mut rules = [rule(vec![path(&["/a"])]), rule(vec![path(&["/b"])]), rule(vec![path(&["/c"])])];
    rules[0].action = Action::Forward(Vec::new());
    rules[2].action = Action::Forward(Vec::new());
    let matcher = Matcher::new(&rules);
    let target = |path: &str| match matcher.decide(&Sent::to("", path).request()).act {
        Act::Forward { target, .. } => Some(*target),
        Act::Redirect(_) | Act::Fixed(_) | Act::Drop => None,
    };
    assert_eq!([target("/a"), target("/b"), target("/c"), target("/d")], [Some(1), None, Some(2), Some(0)]);
}

#[test]
fn a_server_name_is_a_host() {
    let matcher = Matcher::new(&[rule(vec![host(&["*.example.com"])])]);
    assert_eq!(matcher.decide_name(Some("A.example.com")).rule, Some(0));
    assert_eq!(matcher.decide_name(Some("example.com")).rule, None);
    assert_eq!(matcher.decide_name(None).rule, None);
}

#[test]
fn an_explanation_names_the_condition_that_does_not_hold() {
    let rules =
        [rule(vec![host(&["a.example"])]), rule(vec![path(&["/x", "/y"])]), rule(vec![path(&["/z"])]), rule(vec![path(&["/*"])])];
    let sent = Sent::to("b.example", "/z");
    let judged = judge(&rules, &sent.request());
    let unmet: Vec<_> = judged.iter().map(|judged| judged.unmet.as_deref()).collect();
    assert_eq!(unmet, [Some("the host \"b.example\" is not a.example"), Some("the path \"/z\" is not any of /x, /y"), None]);
}

const HOSTS: [&str; 9] = ["a.example", "*.example", "a.*", "?.example", "b.a.example", "~^a", "~EXAMPLE$", "*", "x*y?z.example"];
const PATHS: [&str; 10] = ["/", "/a", "/a*", "/a/*", "/*b", "/?", "/a/?/*", "~^/a(b|c)", "~b$", "/*/b"];
const SENT_HOSTS: [&str; 8] =
    ["a.example", "A.EXAMPLE:80", "b.a.example", "b.example.", "a.test", "", "xxyyz.example", "example"];
const SENT_PATHS: [&str; 9] = ["/", "/a", "/A", "/ab", "/a/b", "/a/c/b", "/abc", "/b", "/ac"];

fn condition() -> impl Strategy<Value = Condition> {
    let some = |from: &'static [&'static str]| vec(select(from).prop_map(pattern), 1..3);
    let pair = || (select(&["a", "b"][..]), select(&["1", "2"][..])).prop_map(|(key, value)| (key.to_owned(), value.to_owned()));
    prop_oneof![
        some(&PATHS).prop_map(Condition::Path),
        (select(&["x-a", "X-B"][..]), vec(select(&["1", "2"][..]), 1..3))
            .prop_map(|(name, values)| Condition::Header(name.to_owned(), texts(&values))),
        vec(pair(), 1..3).prop_map(Condition::Query),
        vec(pair(), 1..3).prop_map(Condition::Cookie),
    ]
}

/// What the configuration allows once in a rule.
fn single() -> impl Strategy<Value = Vec<Condition>> {
    let net = select(&["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32", "192.0.2.1/32"][..]);
    (
        proptest::option::of(vec(select(&HOSTS[..]).prop_map(pattern), 1..3).prop_map(Condition::Host)),
        proptest::option::of(vec(select(&["GET", "PUT"][..]), 1..3).prop_map(|methods| Condition::Method(texts(&methods)))),
        proptest::option::of(vec(net.prop_map(|net| net.parse().expect("a network")), 1..3).prop_map(Condition::SourceIp)),
    )
        .prop_map(|(host, method, source)| [host, method, source].into_iter().flatten().collect())
}

fn rules() -> impl Strategy<Value = Vec<Model>> {
    let one = (single(), vec(condition(), 0..3)).prop_map(|(mut all, more)| {
        all.extend(more);
        rule(all)
    });
    vec(one, 0..90)
}

fn sent() -> impl Strategy<Value = Sent> {
    let text = |some: &'static [&'static str]| proptest::option::of(select(some));
    let query = text(&["a=1", "a=2&b=1", "x&%61=%31", "b=3", ""]);
    let cookie = text(&["a=1", "b=2;a=3", "q=1; b=1"]);
    let client = select(&["10.1.2.3", "10.2.0.1", "192.0.2.1", "2001:db8::5", "::1"][..]);
    let header = || text(&["1", "2", "3"]);
    (select(&SENT_HOSTS[..]), select(&SENT_PATHS[..]), query, cookie, client, header(), header(), any::<bool>()).prop_map(
        |(host, path, query, cookie, client, a, b, put)| {
            let mut sent = Sent::to(host, path).from(client).method(if put { Method::PUT } else { Method::GET });
            sent.query = query.map(str::to_owned);
            for (name, value) in [("cookie", cookie), ("x-a", a), ("x-b", b)] {
                if let Some(value) = value {
                    sent = sent.header(name, value);
                }
            }
            sent
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_matcher_finds_what_reading_one_by_one_finds(rules in rules(), sent in vec(sent(), 1..20)) {
        let matcher = Matcher::new(&rules);
        for sent in sent {
            let judged = judge(&rules, &sent.request());
            let expected = judged.last().filter(|last| last.unmet.is_none()).map(|_| judged.len() - 1);
            prop_assert_eq!(matcher.decide(&sent.request()).rule, expected, "{:?}", sent);
        }
    }
}
