//! Forwarding rules (specification §1.15): which rule applies to a request, and what it does.
//!
//! A [`Matcher`] is made of a listener's rules once, when the view is made. For a request it begins with all rules and asks each thing
//! that rules speak of once (the host, the path, each header, ...), which leaves those rules that allow it; the first that is left
//! applies. The work is that of one request with few rules, however many there are: nothing is allocated, what clients send is never
//! put into a table, and time is linear in the length of what they send. Expressions and wildcards within a text are found by what they
//! begin or end with; those that say nothing of it are searched for together where they are many (which takes one small allocation).
//!
//! - a rule applies when all its conditions hold, of which those on the path count as one; the first in order of priority wins;
//! - the path is compared as it will be forwarded, with case; the host without port, without a dot at its end, in any case;
//! - the query is compared pair by pair after decoding `%41`; cookies as they stand.

mod act;
mod change;
mod explain;
mod pairs;
mod request;
mod set;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod values;

use std::{collections::BTreeMap, net::IpAddr};

use http::{
    HeaderMap, Method,
    header::{COOKIE, HeaderName},
};
use ipnet::IpNet;

pub use self::{
    act::{Act, Fixed, Redirect},
    change::{Changes, NoTarget},
    explain::{Judged, judge},
    request::{Request, host_of},
    set::MAX_RULES,
};
use self::{
    pairs::Pairs,
    set::{Candidates, Row},
    text::{Form, Texts},
};
use crate::model::{self, Action, Condition};

/// The rules of a listener, ready to be asked.
#[derive(Clone, Debug)]
pub struct Matcher {
    rules: Vec<Rule>,
    default: Act,
    all: Row,
    hosts: Texts,
    paths: Texts,
    methods: Methods,
    /// One for the first condition of each rule on a header, and more where a rule has more of one name.
    headers: Vec<(HeaderName, Texts)>,
    /// One for the first condition of each rule on the query, and more where a rule has more.
    queries: Vec<Pairs>,
    cookies: Vec<Pairs>,
    sources: Sources,
}

/// A rule, ready.
#[derive(Clone, Debug)]
struct Rule {
    /// What tables do not decide.
    hosts: Vec<Form>,
    paths: Vec<Form>,
    act: Act,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'m> {
    /// The place of the rule that applies among the listener's rules; none when none does.
    pub rule: Option<usize>,
    /// What it does.
    pub act: &'m Act,
}

impl Matcher {
    /// The matcher of `rules`, in the order in which they are tried; beyond [`MAX_RULES`] none is.
    pub fn new(rules: &[model::Rule]) -> Self {
        let rules = rules.get(..MAX_RULES).unwrap_or(rules);
        let count = rules.len();
        let forms = |fold: bool, of: fn(&Condition) -> Option<&[model::Pattern]>| {
            let of_rule = |rule: &model::Rule| {
                rule.conditions.iter().filter_map(of).flatten().map(|pattern| Form::new(pattern, fold)).collect()
            };
            rules.iter().map(of_rule).collect::<Vec<Vec<Form>>>()
        };
        let hosts = forms(true, |condition| if let Condition::Host(patterns) = condition { Some(patterns) } else { None });
        let paths = forms(false, |condition| if let Condition::Path(patterns) = condition { Some(patterns) } else { None });
        let texts = |fold, forms: &[Vec<Form>]| {
            let asked = forms.iter().enumerate().filter(|(_, forms)| !forms.is_empty());
            Texts::new(count, fold, asked.map(|(rule, forms)| (rule, forms.as_slice())))
        };
        let mut matcher = Self {
            rules: Vec::with_capacity(count),
            default: Act::DEFAULT,
            all: Row::all(count),
            hosts: texts(true, &hosts),
            paths: texts(false, &paths),
            methods: Methods::new(rules),
            headers: headers(rules),
            queries: pairs_of(rules, |condition| if let Condition::Query(pairs) = condition { Some(pairs) } else { None }),
            cookies: pairs_of(rules, |condition| if let Condition::Cookie(pairs) = condition { Some(pairs) } else { None }),
            sources: Sources::new(rules),
        };
        // The first target is the default one.
        let mut target = 0;
        let undecided = |forms: Vec<Form>| if forms.iter().all(Form::is_plain) { Vec::new() } else { forms };
        for ((rule, hosts), paths) in rules.iter().zip(hosts).zip(paths) {
            target += usize::from(matches!(rule.action, Action::Forward(_)));
            matcher.rules.push(Rule { hosts: undecided(hosts), paths: undecided(paths), act: Act::new(rule, target) });
        }
        matcher
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What becomes of `request`.
    pub fn decide(&self, request: &Request<'_>) -> Decision<'_> {
        let rule = if self.rules.is_empty() { None } else { self.first(request) };
        let act = rule.and_then(|rule| self.rules.get(rule)).map_or(&self.default, |rule| &rule.act);
        Decision { rule, act }
    }

    /// What becomes of a connection that asks for `name`, the server name of its TLS; none when it does not say.
    pub fn decide_name(&self, name: Option<&str>) -> Decision<'_> {
        let Some(name) = name else { return Decision { rule: None, act: &self.default } };
        let nowhere = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
        let headers = HeaderMap::new();
        let request = Request {
            client: nowhere.ip(),
            local: nowhere,
            https: false,
            method: &Method::GET,
            host: host_of(name),
            path: "/",
            query: None,
            headers: &headers,
        };
        self.decide(&request)
    }

    fn first(&self, request: &Request<'_>) -> Option<usize> {
        let mut left = Candidates::of(&self.all);
        if self.hosts.is_asked(&left) {
            left.keep(&self.hosts.allowed(request.host.as_bytes()));
        }
        if self.paths.is_asked(&left) {
            left.keep(&self.paths.allowed(request.path.as_bytes()));
        }
        if left.has_outside(&self.methods.unbound) {
            left.keep(&Candidates::of(self.methods.row(request.method)));
        }
        for (name, values) in &self.headers {
            if values.is_asked(&left) {
                let mut allowed = values.allowed(b"");
                request.headers.get_all(name).iter().for_each(|value| values.add(value.as_bytes(), &mut allowed));
                left.keep(&allowed);
            }
        }
        for pairs in &self.queries {
            if pairs.is_asked(&left) {
                left.keep(&pairs.in_query(request.query.unwrap_or_default()));
            }
        }
        for pairs in &self.cookies {
            if pairs.is_asked(&left) {
                left.keep(&pairs.in_cookies(request.headers.get_all(COOKIE).iter().map(http::HeaderValue::as_bytes)));
            }
        }
        if left.has_outside(&self.sources.unbound) {
            left.keep(&self.sources.allowed(request.client));
        }
        let mut next = left.next(0);
        while let Some(rule) = next {
            if self.rules.get(rule).is_some_and(|known| known.is_met(request)) {
                return Some(rule);
            }
            next = left.next(rule + 1);
        }
        None
    }
}

impl Default for Matcher {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl Rule {
    /// Judges what tables only narrow down.
    fn is_met(&self, request: &Request<'_>) -> bool {
        let is_met =
            |forms: &[Form], text: &str, fold| forms.is_empty() || forms.iter().any(|form| form.is_met(text.as_bytes(), fold));
        is_met(&self.hosts, request.host, true) && is_met(&self.paths, request.path, false)
    }
}

/// Which rules a method allows.
#[derive(Clone, Debug)]
struct Methods {
    unbound: Row,
    rows: Vec<(Method, Row)>,
}

impl Methods {
    fn new(rules: &[model::Rule]) -> Self {
        let mut unbound = Row::all(rules.len());
        let mut asked: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (rule, condition) in conditions(rules) {
            let Condition::Method(methods) = condition else { continue };
            unbound.remove(rule);
            methods.iter().for_each(|method| asked.entry(method).or_default().push(rule));
        }
        let row = |(method, rules): (&str, Vec<usize>)| {
            let mut row = unbound.clone();
            rules.into_iter().for_each(|rule| row.insert(rule));
            Some((Method::from_bytes(method.as_bytes()).ok()?, row))
        };
        let rows = asked.into_iter().filter_map(row).collect();
        Self { unbound, rows }
    }

    fn row(&self, method: &Method) -> &Row {
        self.rows.iter().find(|(known, _)| known == method).map_or(&self.unbound, |(_, row)| row)
    }
}

/// Which rules a client's address allows.
#[derive(Clone, Debug)]
struct Sources {
    unbound: Row,
    v4: Vec<Net<u32>>,
    v6: Vec<Net<u128>>,
}

/// A network: the bits of its addresses that are the same, and which those are.
#[derive(Clone, Debug)]
struct Net<T> {
    mask: T,
    bits: T,
    row: Row,
}

impl Sources {
    fn new(rules: &[model::Rule]) -> Self {
        let mut unbound = Row::all(rules.len());
        let mut rows: BTreeMap<IpNet, Row> = BTreeMap::new();
        for (rule, condition) in conditions(rules) {
            let Condition::SourceIp(nets) = condition else { continue };
            unbound.remove(rule);
            nets.iter().for_each(|net| rows.entry(*net).or_insert_with(|| Row::none(rules.len())).insert(rule));
        }
        let mut sources = Self { unbound, v4: Vec::new(), v6: Vec::new() };
        for (net, row) in rows {
            match net {
                IpNet::V4(net) => sources.v4.push(Net { mask: net.netmask().to_bits(), bits: net.network().to_bits(), row }),
                IpNet::V6(net) => sources.v6.push(Net { mask: net.netmask().to_bits(), bits: net.network().to_bits(), row }),
            }
        }
        sources
    }

    fn allowed(&self, client: IpAddr) -> Candidates {
        let mut allowed = Candidates::of(&self.unbound);
        match client {
            IpAddr::V4(client) => {
                let has = |net: &&Net<u32>| client.to_bits() & net.mask == net.bits;
                self.v4.iter().filter(has).for_each(|net| allowed.join(&net.row));
            }
            IpAddr::V6(client) => {
                let has = |net: &&Net<u128>| client.to_bits() & net.mask == net.bits;
                self.v6.iter().filter(has).for_each(|net| allowed.join(&net.row));
            }
        }
        allowed
    }
}

fn conditions(rules: &[model::Rule]) -> impl Iterator<Item = (usize, &Condition)> {
    rules.iter().enumerate().flat_map(|(rule, of)| of.conditions.iter().map(move |condition| (rule, condition)))
}

/// The conditions on headers: for each name those that come first in their rule, then those that come second, and so on.
fn headers(rules: &[model::Rule]) -> Vec<(HeaderName, Texts)> {
    /// Rules with what each asks for.
    type Asked = Vec<(usize, Vec<Form>)>;
    let mut asked: BTreeMap<(String, usize), Asked> = BTreeMap::new();
    for (rule, of) in rules.iter().enumerate() {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for condition in &of.conditions {
            let Condition::Header(name, values) = condition else { continue };
            let name = name.to_ascii_lowercase();
            let nth = seen.entry(name.clone()).or_default();
            let forms = values.iter().map(|value| Form::Whole(value.clone().into_bytes())).collect();
            asked.entry((name, *nth)).or_default().push((rule, forms));
            *nth += 1;
        }
    }
    let texts = |((name, _), asked): ((String, usize), Asked)| {
        let texts = Texts::new(rules.len(), false, asked.iter().map(|(rule, forms)| (*rule, forms.as_slice())));
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, texts))
    };
    asked.into_iter().filter_map(texts).collect()
}

type Pair = (String, String);

/// The conditions on pairs: those that come first in their rule, then those that come second, and so on.
fn pairs_of(rules: &[model::Rule], of: impl Fn(&Condition) -> Option<&[Pair]>) -> Vec<Pairs> {
    let nth = |nth: usize| {
        let asked: Vec<_> = rules
            .iter()
            .enumerate()
            .filter_map(|(rule, known)| Some((rule, known.conditions.iter().filter_map(&of).nth(nth)?)))
            .collect();
        (!asked.is_empty()).then(|| Pairs::new(rules.len(), asked.into_iter()))
    };
    (0..).map_while(nth).collect()
}
