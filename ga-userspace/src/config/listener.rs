//! `[[instance.listener]]` (specification §1.2, §1.3).

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use ga_common::abi::limits::{MAX_LISTENERS, MAX_SERVICES};

use super::{
    ListenerPlaces, acl, bounds, custom,
    document::Context,
    group, http,
    instance::Surroundings,
    ports::{self, PortList},
    problem::{Code, Fault, Kind},
    rule, tcp, text, tls,
    tree::{Table, Value, not_a_word, shorten},
};
use crate::model::{Affinity, AllUnhealthy, EndpointGroup, Listener, Name, Port, Protocol};

/// Words of `protocol`, in any case.
pub(super) const PROTOCOLS: [(&str, Protocol); 4] =
    [("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("http", Protocol::Http), ("https", Protocol::Https)];

/// Words of `client_affinity`.
pub(super) const AFFINITIES: [(&str, Affinity); 2] = [("none", Affinity::None), ("source_ip", Affinity::SourceIp)];

/// Words of `all_unhealthy`.
pub(super) const ALL_UNHEALTHY: [(&str, AllUnhealthy); 2] =
    [("fail_closed", AllUnhealthy::FailClosed), ("fail_open", AllUnhealthy::FailOpen)];

/// What `max_new_flows_per_second` may be.
pub(super) const NEW_FLOWS: RangeInclusive<u32> = 1..=100_000_000;

/// Words of `type`.
pub(super) const ROUTINGS: [(&str, Routing); 2] = [("standard", Routing::Standard), ("custom_routing", Routing::Custom)];

/// Seconds that connections of HTTP and HTTPS listeners wait for the next request, without the key.
const HTTP_IDLE_TIMEOUT_S: u32 = 15;

/// Documented bounds of `idle_timeout` in seconds; the upper one is the default but for HTTP and HTTPS.
pub(super) const fn idle_timeout_s(protocol: Protocol) -> RangeInclusive<u32> {
    match protocol {
        Protocol::Tcp => 10..=900,
        Protocol::Udp => 10..=20,
        Protocol::Http | Protocol::Https => 1..=60,
    }
}

/// Which listener of the instance has which port.
#[derive(Default)]
struct PortOwners(BTreeMap<(&'static str, Port), (String, usize)>);

/// What the listeners before one in the instance have taken.
#[derive(Default)]
pub(super) struct Before {
    ports: PortOwners,
    acl_entries: acl::Quota,
    routing: Option<(Routing, usize)>,
}

/// Type of a listener.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Routing {
    Standard,
    Custom,
}

/// Reads one listener; `names` are those before it in the instance, with their lines.
pub(super) fn read(
    table: &Table<'_>,
    around: &Surroundings,
    names: &mut BTreeMap<Name, usize>,
    before: &mut Before,
    cx: &mut Context<'_>,
) -> Option<Listener> {
    capacity(table, cx);
    let name_value = table.required("name", "give the listener a name: `name = \"game-tcp\"`", &mut cx.problems);
    let name = name_value.as_ref().and_then(|value| name(value, names, cx));
    let description = text::description(table.optional("description"), cx);
    let routing_value = table.optional("type");
    let routing = routing(table, routing_value.as_ref(), &mut before.routing, cx);
    let is_custom = routing == Some(Routing::Custom);
    let protocol_value = table.optional("protocol");
    let protocol = protocol_value.as_ref().map_or(Some(Protocol::Tcp), |value| protocol(value, cx));
    let ports_value = table.required("ports", "say where clients connect: `ports = \"80,90~92\"`", &mut cx.problems);
    let ports = ports_value.as_ref().and_then(|value| ports::read(value, !is_custom, cx));
    if let (Some(value), Some(ports), Some(protocol)) = (&ports_value, &ports, protocol) {
        if !is_custom {
            one_port(value, ports, protocol, cx);
            services(value, ports, around, cx);
        }
        let label = name_value.as_ref().and_then(Value::as_string).unwrap_or_default();
        conflicts(value, ports, protocol, label, &mut before.ports, cx);
    }
    let place = |value: &Option<Value<'_>>, key: &str| match value {
        Some(value) => cx.problems.place(value.span.clone(), &value.path),
        None => cx.problems.place(table.span.clone(), &format!("{}.{key}", table.path)),
    };
    if let Some(name) = &name {
        let (ports, protocol) = (place(&ports_value, "ports"), place(&protocol_value, "protocol"));
        let places = ListenerPlaces { ports, protocol, routing: place(&routing_value, "type") };
        cx.places.insert((around.id.clone(), name.to_string()), places);
    }
    if is_custom {
        return custom::read(table, around, name, description, ports_value.as_ref().zip(ports.as_ref()), cx);
    }
    if let Some(value) = table.optional("custom_group") {
        let draft = Fault::new(Kind::NotAllowed, "a standard listener has no `custom_group`");
        value.problem(draft.help("set `type = \"custom_routing\"`, or use `endpoint_group`"), &mut cx.problems);
    }
    let affinity =
        table.optional("client_affinity").map_or(Some(Affinity::None), |value| value.word(&AFFINITIES, &mut cx.problems));
    let idle_timeout = idle_timeout(table.optional("idle_timeout"), protocol, cx);
    let max_new_flows = match table.optional("max_new_flows_per_second") {
        Some(value) => value.integer(NEW_FLOWS, &mut cx.problems),
        None => Some(0),
    };
    let max_connections = bounds::max_connections(table, cx);
    let port_items = ports.as_ref().map(PortList::items);
    let http = http::read(table, protocol, cx);
    let proxy_from = tcp::proxy_from(table, protocol, cx);
    let tls = tls::read(table, protocol, cx);
    let acl = match table.optional("acl") {
        Some(value) => acl::of_listener(&value, port_items, &mut before.acl_entries, cx).map(Some),
        None => Some(None),
    };
    let all_unhealthy = table
        .optional("all_unhealthy")
        .map_or(Some(AllUnhealthy::FailClosed), |value| value.word(&ALL_UNHEALTHY, &mut cx.problems));
    let failover_to_zero_ratio =
        table.optional("failover_to_zero_ratio").map_or(Some(true), |value| value.boolean(&mut cx.problems));
    let groups = match table.optional("vserver_group") {
        Some(value) => of_pool(table, &value, cx).map(|group| vec![group]),
        None => group::read_all(table, around, protocol, ports.as_ref().map(|list| &list.ports), cx),
    };
    let surroundings = rule::Around { protocol, ports: ports.as_ref().map(|list| &list.ports), groups: groups.as_deref() };
    let rules = rule::read_all(table, &surroundings, cx);
    let http_sniff = tcp::http_sniff(table, protocol, rules.as_deref(), cx);
    let listener = Listener {
        name: name?,
        description,
        protocol: protocol?,
        ports: ports?.ports,
        affinity: affinity?,
        idle_timeout: idle_timeout?,
        max_new_flows_per_second: max_new_flows?,
        max_connections: max_connections?,
        acl: acl?,
        all_unhealthy: all_unhealthy?,
        failover_to_zero_ratio: failover_to_zero_ratio?,
        http: http.ok()?,
        proxy_from: proxy_from?,
        http_sniff: http_sniff?,
        tls: tls.ok()?,
        rules: rules?,
        groups: groups?,
        custom: Vec::new(),
        blocks: Vec::new(),
    };
    tcp::no_transparency(table, &listener, cx);
    bounds::only_served(table, &listener, cx);
    Some(listener)
}

/// A listener that names a server group sends all its traffic to that group's servers.
fn of_pool(table: &Table<'_>, value: &Value<'_>, cx: &mut Context<'_>) -> Option<EndpointGroup> {
    if let Some(groups) = table.optional("endpoint_group") {
        let draft = Fault::new(Kind::Conflict, "a listener has a `vserver_group` or endpoint groups of its own, not both")
            .help("remove one of the two; a `clb` endpoint of an endpoint group may name the server group too");
        groups.problem(draft, &mut cx.problems);
        return None;
    }
    group::of_pool(value, cx)
}

fn capacity(table: &Table<'_>, cx: &mut Context<'_>) {
    cx.ledger.listeners += 1;
    if cx.ledger.listeners == MAX_LISTENERS + 1 {
        let draft = Fault::new(Kind::Capacity, format!("an edge holds {MAX_LISTENERS} listeners; this is one more"))
            .help("share them out to several edges");
        cx.problems.push(table.span.clone(), &table.path, draft);
    }
}

fn name(value: &Value<'_>, names: &mut BTreeMap<Name, usize>, cx: &mut Context<'_>) -> Option<Name> {
    let name = text::name(value, cx)?;
    let line = cx.problems.line(value.span.start);
    match names.get(&name) {
        Some(first) => {
            let draft = Fault::new(Kind::Duplicate, format!("listener name `{name}` is taken by the listener on line {first}"));
            value.problem(draft.help("names are unique in an instance"), &mut cx.problems);
            None
        }
        None => {
            names.insert(name.clone(), line);
            Some(name)
        }
    }
}

/// The type; one that differs from that of the listeners before is a problem.
fn routing(
    table: &Table<'_>,
    value: Option<&Value<'_>>,
    before: &mut Option<(Routing, usize)>,
    cx: &mut Context<'_>,
) -> Option<Routing> {
    let routing = value.map_or(Some(Routing::Standard), |value| value.word(&ROUTINGS, &mut cx.problems))?;
    let span = value.map_or(table.span.clone(), |value| value.span.clone());
    let (first, line) = *before.get_or_insert((routing, cx.problems.line(span.start)));
    if routing != first {
        let message = format!("the instance has listeners of both types: the one on line {line} is of the other");
        let draft = Fault::new(Kind::Conflict, message).help("give the listeners of one type an instance of their own");
        cx.problems.push(span, &format!("{}.type", table.path), draft);
    }
    Some(routing)
}

fn protocol(value: &Value<'_>, cx: &mut Context<'_>) -> Option<Protocol> {
    let text = value.string(&mut cx.problems)?;
    let word = text.to_ascii_lowercase();
    if let Some((_, protocol)) = PROTOCOLS.iter().find(|(known, _)| *known == word) {
        return Some(*protocol);
    }
    let draft = not_a_word(text, PROTOCOLS.iter().map(|(word, _)| *word)).code(Code::ProtocalIllegalListener);
    value.problem(draft, &mut cx.problems);
    None
}

fn one_port(value: &Value<'_>, list: &PortList, protocol: Protocol, cx: &mut Context<'_>) {
    if protocol.is_http() && list.ports.count() != 1 {
        let message = format!("an {} listener has exactly one port, this one has {}", protocol.word(), list.ports.count());
        let draft = Fault::new(Kind::OutOfRange, message).help("give each port a listener of its own");
        value.problem(draft.code(Code::PortRangeIllegalListener), &mut cx.problems);
    }
}

/// Counts what the listener adds to the table of (VIP, protocol, port).
fn services(value: &Value<'_>, list: &PortList, around: &Surroundings, cx: &mut Context<'_>) {
    let vips = around.vips.as_ref().map_or(1, Vec::len);
    let before = cx.ledger.services;
    cx.ledger.services += list.ports.count() as u64 * vips as u64;
    let limit = u64::from(MAX_SERVICES);
    if before <= limit && cx.ledger.services > limit {
        let message = format!("an edge holds {limit} pairs of VIP and port; this listener brings them to {}", cx.ledger.services);
        value.problem(Fault::new(Kind::Capacity, message).help("share the listeners out to several edges"), &mut cx.problems);
    }
}

/// One transport has one port space: TCP and UDP may share a number, two listeners of one may not.
fn conflicts(value: &Value<'_>, list: &PortList, protocol: Protocol, name: &str, owners: &mut PortOwners, cx: &mut Context<'_>) {
    if cx.ledger.services > u64::from(MAX_SERVICES) {
        return;
    }
    let line = cx.problems.line(value.span.start);
    // One problem per other listener, at the first port in question.
    let mut clashes: BTreeMap<usize, (Port, String, u32)> = BTreeMap::new();
    for port in list.ports.iter() {
        match owners.0.get(&(protocol.transport(), port)) {
            Some((owner, line)) => clashes.entry(*line).or_insert((port, owner.clone(), 0)).2 += 1,
            None => {
                owners.0.insert((protocol.transport(), port), (name.to_owned(), line));
            }
        }
    }
    for (line, (port, owner, count)) in clashes {
        let more = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
        let owner = shorten(&owner);
        let message = format!("{} port {port}{more} belongs to listener `{owner}` on line {line}", protocol.transport());
        let draft = Fault::new(Kind::Conflict, message)
            .help(
                "a port belongs to one listener of an instance, http and https ones too; one of TCP and one of UDP may share it",
            )
            .code(Code::PortConflictListener);
        cx.problems.push(list.place_of(port), &value.path, draft);
    }
}

fn idle_timeout(value: Option<Value<'_>>, protocol: Option<Protocol>, cx: &mut Context<'_>) -> Option<Duration> {
    let Some(value) = value else {
        let seconds = |protocol: Protocol| if protocol.is_http() { HTTP_IDLE_TIMEOUT_S } else { *idle_timeout_s(protocol).end() };
        return protocol.map(|protocol| Duration::from_secs(u64::from(seconds(protocol))));
    };
    let seconds = match value.as_string() {
        Some(text) => seconds(text).or_else(|| {
            let draft = Fault::new(Kind::BadValue, format!("{:?} is not a time", shorten(text)));
            value.problem(draft.help("write seconds as `30` or \"30s\", minutes as \"2m\""), &mut cx.problems);
            None
        })?,
        None => value.integer(0..=u32::MAX, &mut cx.problems)?,
    };
    let range = match protocol? {
        Protocol::Http | Protocol::Https => 1..=cx.limits.http_idle_timeout_max,
        other @ (Protocol::Tcp | Protocol::Udp) => idle_timeout_s(other),
    };
    if range.contains(&seconds) {
        return Some(Duration::from_secs(u64::from(seconds)));
    }
    let (low, high) = range.into_inner();
    let message = format!("`idle_timeout` of a {} listener must be {low} to {high} seconds", protocol?.word());
    value.problem(
        Fault::new(Kind::OutOfRange, message).help("write seconds as `15` or \"15s\"; without the key it is the maximum"),
        &mut cx.problems,
    );
    None
}

/// `30s` or `2m`.
fn seconds(text: &str) -> Option<u32> {
    let (number, factor) = match (text.strip_suffix('s'), text.strip_suffix('m')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 60),
        (None, None) => return None,
    };
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    // A number too long to hold is out of range, not malformed.
    digits.then(|| number.parse::<u32>().unwrap_or(u32::MAX).saturating_mul(factor))
}
