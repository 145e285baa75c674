//! `[[vserver_group]]` (specification §1.20, §2.6).

use std::collections::BTreeMap;

use super::{
    address,
    document::Context,
    health_check, inventory, keys,
    problem::{Fault, Kind},
    text,
    tree::{Table, Value, shorten},
};
use crate::model::{Endpoint, HealthCheck, Name, NamedEndpoint, Pool, PoolWeight, Server, ServerPlace, Target};

const MAX_DESCRIPTION: usize = 80;

/// Pools that listeners and endpoints may name, as far as they could be read.
#[derive(Default)]
pub(super) struct Pools {
    /// Where each name stands, and how often it is used.
    names: BTreeMap<Name, Used>,
}

struct Used {
    value: (std::ops::Range<usize>, String),
    users: usize,
    health_check: Option<HealthCheck>,
}

/// Reads every pool; the instances are read after them.
pub(super) fn read_all(document: &Table<'_>, cx: &mut Context<'_>) -> Option<Vec<Pool>> {
    let Some(value) = document.optional("vserver_group") else { return Some(Vec::new()) };
    let tables = value.tables(&keys::VSERVER_GROUP, &mut cx.problems)?;
    let mut count = Count::default();
    let read = |table: &Table<'_>| read(table, &mut count, cx);
    tables.iter().map(read).collect::<Vec<_>>().into_iter().collect()
}

/// The pool that a listener or an endpoint names.
pub(super) fn named(value: &Value<'_>, cx: &mut Context<'_>) -> Option<Name> {
    let word = value.string(&mut cx.problems)?;
    let found = cx.pools.names.iter_mut().find(|(name, _)| name.as_str() == word);
    if let Some((name, used)) = found {
        used.users += 1;
        return Some(name.clone());
    }
    let near = keys::nearest(word, cx.pools.names.keys().map(Name::as_str)).map(str::to_owned);
    let draft = Fault::new(Kind::Conflict, format!("there is no `[[vserver_group]]` named {:?}", shorten(word)));
    let draft = match near {
        Some(near) => draft.help(format!("did you mean {near:?}?")),
        None => draft.help("add `[[vserver_group]]` with this `name`"),
    };
    value.problem(draft, &mut cx.problems);
    None
}

/// How the servers of a pool are probed.
pub(super) fn health_check(name: &Name, cx: &Context<'_>) -> Option<HealthCheck> {
    cx.pools.names.get(name).and_then(|used| used.health_check.clone())
}

/// How the endpoints of a group are probed that says nothing about it: as its pools say, where it has nothing but pools and all of
/// them say the same.
pub(super) fn health_check_of_all(
    group: &Table<'_>,
    endpoints: &[Endpoint],
    named: &[NamedEndpoint],
    cx: &mut Context<'_>,
) -> Option<HealthCheck> {
    let of = |one: &NamedEndpoint| match &one.target {
        Target::Pool(name) => health_check(name, cx),
        Target::Host { .. } | Target::Domain(_) => None,
    };
    let checks: Vec<_> = named.iter().map(of).collect();
    let first = checks.iter().flatten().next()?;
    if endpoints.is_empty() && checks.iter().all(|check| check.as_ref() == Some(first)) {
        return Some(first.clone());
    }
    let draft =
        Fault::new(Kind::NoEffect, "a server group of this endpoint group has a `health_check`, which other endpoints have not")
            .help("write `health_check` in the endpoint group: it is for all of them");
    cx.problems.warn(group.span.clone(), &group.path, draft);
    None
}

/// Warns of pools that nobody uses; for when all instances are read.
pub(super) fn unused(cx: &mut Context<'_>) {
    for (name, used) in &cx.pools.names {
        if used.users == 0 {
            let draft = Fault::new(Kind::NoEffect, format!("server group `{name}` is used by no listener and no endpoint"))
                .help("name it in a listener (`vserver_group = …`) or a `clb` endpoint, or remove it");
            cx.problems.warn(used.value.0.clone(), &used.value.1, draft);
        }
    }
}

/// What is counted over all pools.
#[derive(Default)]
struct Count {
    servers: u32,
    attached: BTreeMap<ServerPlace, u32>,
}

fn read(table: &Table<'_>, count: &mut Count, cx: &mut Context<'_>) -> Option<Pool> {
    let name_value = table.required("name", "give the server group a name: `name = \"pool-a\"`", &mut cx.problems);
    let name = name_value.as_ref().and_then(|value| name(value, cx));
    text::description(table.optional("description"), cx);
    let health_check = health_check::read(table.optional("health_check"), cx);
    if let (Some(used), Ok(check)) = (name.as_ref().and_then(|name| cx.pools.names.get_mut(name)), &health_check) {
        used.health_check.clone_from(check);
    }
    let help = "name its servers: `servers = [{ address = \"10.0.0.21\", port = 8080 }]`";
    let value = table.required("servers", help, &mut cx.problems)?;
    let tables = value.tables(&keys::SERVER, &mut cx.problems)?;
    let mut places = BTreeMap::new();
    let before = cx.problems.count();
    let servers: Vec<_> = tables.iter().filter_map(|table| server(table, &mut places, count, cx)).collect();
    // A server that could not be read is a problem already.
    (cx.problems.count() == before && !servers.is_empty() && health_check.is_ok()).then_some(Pool { name: name?, servers })
}

fn name(value: &Value<'_>, cx: &mut Context<'_>) -> Option<Name> {
    let name = text::name(value, cx)?;
    if let Some(first) = cx.pools.names.get(&name) {
        let line = cx.problems.line(first.value.0.start);
        let draft = Fault::new(Kind::Duplicate, format!("server group `{name}` stands on line {line} already"));
        value.problem(draft.help("names of server groups are unique in a file"), &mut cx.problems);
        return None;
    }
    let used = Used { value: (value.span.clone(), value.path.clone()), users: 0, health_check: None };
    cx.pools.names.insert(name.clone(), used);
    Some(name)
}

fn server(
    table: &Table<'_>,
    places: &mut BTreeMap<(ServerPlace, u16), usize>,
    count: &mut Count,
    cx: &mut Context<'_>,
) -> Option<Server> {
    let address = table.required("address", "say where the server is: `address = \"10.0.0.21\"`", &mut cx.problems);
    let place = address.as_ref().and_then(|value| place(value, cx));
    let port_value = table.required("port", "say which port it serves, 1 to 65535: `port = 8080`", &mut cx.problems);
    let port = port_value.as_ref().and_then(|value| value.integer(1..=65_535, &mut cx.problems));
    let port = port.and_then(|port| u16::try_from(port).ok());
    let weight = table.optional("weight").map_or(Some(PoolWeight::default()), |value| {
        let weight = value.integer(0..=u32::from(PoolWeight::MAX), &mut cx.problems)?;
        u8::try_from(weight).ok().map(PoolWeight)
    });
    let description = description(table.optional("description"), cx);
    total(table, count, cx);
    let place = place?;
    attachments(address.as_ref()?, &place, count, cx);
    if let (Some(port), Some(value)) = (port, &address) {
        let line = cx.problems.line(value.span.start);
        if let Some(first) = places.insert((place.clone(), port), line) {
            let draft =
                Fault::new(Kind::Duplicate, format!("{place} with port {port} is in this group already, on line {first}"))
                    .help("a server is in a group once with each port: give it the sum of the weights, or another port");
            value.problem(draft, &mut cx.problems);
        }
    }
    Some(Server { place, port: port?, weight: weight?, description })
}

fn place(value: &Value<'_>, cx: &mut Context<'_>) -> Option<ServerPlace> {
    let word = value.string(&mut cx.problems)?;
    if word.parse::<std::net::IpAddr>().is_err() && inventory::may_be_host(word) {
        return inventory::host(value, cx).map(ServerPlace::Host);
    }
    let address = address::read(value, "a server", cx)?;
    cx.ledger.servers.push(super::document::Seen {
        address,
        instance: usize::MAX,
        span: value.span.clone(),
        path: value.path.clone(),
    });
    Some(ServerPlace::Address(address))
}

fn description(value: Option<Value<'_>>, cx: &mut Context<'_>) -> String {
    let Some(value) = value else { return String::new() };
    let text = value.string(&mut cx.problems).unwrap_or_default();
    let len = text.chars().count();
    if !(1..=MAX_DESCRIPTION).contains(&len) {
        let message = format!("the description of a server has 1 to {MAX_DESCRIPTION} characters, this one has {len}");
        value.problem(Fault::new(Kind::OutOfRange, message).help("shorten it, or leave it away"), &mut cx.problems);
    }
    text.to_owned()
}

fn total(table: &Table<'_>, count: &mut Count, cx: &mut Context<'_>) {
    count.servers += 1;
    let limit = cx.limits.vsg_servers_total;
    if count.servers == limit + 1 {
        let message = format!("`limits.vsg_servers_total` allows {limit} servers in all groups together; this is one more");
        let draft = Fault::new(Kind::Quota, message).help("raise the limit, or remove servers");
        cx.problems.push(table.span.clone(), &table.path, draft);
    }
}

fn attachments(value: &Value<'_>, place: &ServerPlace, count: &mut Count, cx: &mut Context<'_>) {
    let limit = cx.limits.vsg_server_attachments;
    let attached = count.attached.entry(place.clone()).or_default();
    *attached += 1;
    if *attached == limit + 1 {
        let message = format!("`limits.vsg_server_attachments` allows a server {limit} times; {place} is here once more");
        value.problem(Fault::new(Kind::Quota, message).help("raise the limit, or remove it from other groups"), &mut cx.problems);
    }
}
