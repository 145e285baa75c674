//! `[[instance.listener.endpoint_group]]` (specification §1.4, §1.10, §1.11).

use std::{collections::BTreeMap, net::IpAddr, ops::RangeInclusive, time::Duration};

use ga_common::abi::family::Family;

use super::{
    bounds, client_ip,
    document::Context,
    endpoint, health_check, http,
    instance::Surroundings,
    keys, limits, pool,
    problem::{Code, Fault, Kind},
    tcp, text,
    tree::{Table, Value},
};
use crate::model::{
    Backend, BackendIpVersion, Circuit, ClientIp, Endpoint, EndpointGroup, EndpointKind, GroupKind, Name, NamedEndpoint, Port,
    PortMapping, Ports, Profile, Protocol, Target, TrafficRatio, Weight,
};

/// Percent.
pub(super) const TRAFFIC_RATIO: RangeInclusive<u32> = 0..=100;

/// A minute is farther than any region.
pub(super) const LATENCY_MS: RangeInclusive<u32> = 0..=60_000;

/// Name of the first group if it has none; the second is then `default-2`, and so on.
pub(super) const DEFAULT_NAME: &str = "default";

/// Region of the servers that a listener has without endpoint groups.
const POOL_REGION: &str = "local";

/// Words of `kind`.
pub(super) const KINDS: [(&str, GroupKind); 2] = [("default", GroupKind::Default), ("virtual", GroupKind::Virtual)];

/// Words of `backend_ip_version`.
pub(super) const BACKEND_IP_VERSIONS: [(&str, BackendIpVersion); 3] =
    [("ipv4", BackendIpVersion::Ipv4), ("ipv6", BackendIpVersion::Ipv6), ("affinity", BackendIpVersion::Affinity)];

/// Reads every group of a listener: all of them, or `None` when one is wrong.
pub(super) fn read_all(
    listener: &Table<'_>,
    around: &Surroundings,
    protocol: Option<Protocol>,
    ports: Option<&Ports>,
    cx: &mut Context<'_>,
) -> Option<Vec<EndpointGroup>> {
    let value = listener.required("endpoint_group", "add `[[instance.listener.endpoint_group]]`", &mut cx.problems)?;
    let tables = value.tables(&keys::GROUP, &mut cx.problems)?;
    number_of_groups(&tables, protocol, cx);
    virtual_groups(&tables, protocol, cx);
    unique_regions(&tables, cx);
    let groups =
        tables.iter().enumerate().map(|(index, table)| read(index, table, around, protocol, ports, cx)).collect::<Vec<_>>();
    unique_names(&tables, &groups, cx);
    if tcp::no_mapping_beside_virtual(&tables, &groups, protocol, cx) {
        same_mappings(&tables, &groups, cx);
    }
    client_ip::all_agree(&tables, &groups, cx);
    // With none, what stands here are no tables, which is a problem already.
    if groups.is_empty() { None } else { groups.into_iter().collect() }
}

fn is_default(table: &Table<'_>) -> bool {
    table.optional("kind").is_none_or(|value| value.as_string() == Some("default"))
}

/// At most as many as the limit says, beside at least one default group (specification §1.4).
fn virtual_groups(tables: &[Table<'_>], protocol: Option<Protocol>, cx: &mut Context<'_>) {
    let limit = cx.limits.virtual_groups_per_listener as usize;
    let is_virtual = |table: &&Table<'_>| table.optional("kind").is_some_and(|value| value.as_string() == Some("virtual"));
    let found = || tables.iter().filter(is_virtual);
    // What is wrong with them under UDP is said at each.
    let Some(first) = found().next().filter(|_| protocol != Some(Protocol::Udp)) else { return };
    if !tables.iter().any(is_default) {
        let draft = Fault::new(Kind::Conflict, "a virtual endpoint group needs a default one beside it")
            .help("leave `kind` away from one group: it gets what no forwarding rule applies to");
        cx.problems.push(first.span.clone(), &first.path, draft);
        return;
    }
    if let Some(excess) = found().nth(limit) {
        let draft = Fault::new(Kind::Quota, format!("`limits.virtual_groups_per_listener` allows {limit}; this is one more"))
            .help(format!("raise the limit, up to {}", limits::VIRTUAL_GROUPS_PER_LISTENER.end()))
            .code(Code::QuotaExceededEndpointGroup);
        cx.problems.push(excess.span.clone(), &excess.path, draft);
    }
    let why = match protocol {
        Some(Protocol::Tcp) => "of a TCP listener",
        Some(_) if cx.limits.profile == Profile::Subscription => "under the subscription profile",
        Some(_) | None => return,
    };
    let region = |table: &Table<'_>| table.optional("region").and_then(|value| value.as_string().map(str::to_owned));
    let regions: Vec<_> = tables.iter().filter(|table| is_default(table)).filter_map(region).collect();
    for value in found().filter_map(|table| table.optional("region")) {
        if value.as_string().is_some_and(|region| !regions.iter().any(|default| default == region)) {
            let draft = Fault::new(Kind::Conflict, format!("a virtual group {why} is in the region of a default group"))
                .help(format!("write one of {}", regions.join(", ")));
            value.problem(draft, &mut cx.problems);
        }
    }
}

fn number_of_groups(tables: &[Table<'_>], protocol: Option<Protocol>, cx: &mut Context<'_>) {
    let is_fixed = cx.limits.profile == Profile::Subscription && protocol.is_some_and(Protocol::is_http);
    let limit = if is_fixed { 1 } else { cx.limits.default_groups_per_listener as usize };
    for (index, table) in tables.iter().filter(|table| is_default(table)).enumerate() {
        if index == limit {
            let (why, help) = if is_fixed {
                let why = "an http or https listener has one default group under the subscription profile".to_owned();
                (why, "use `limits.profile = \"payg\"`, or move its endpoints into the first group".to_owned())
            } else {
                let why = format!("`limits.default_groups_per_listener` allows {limit}; this is one more");
                let most = limits::DEFAULT_GROUPS_PER_LISTENER.end();
                (why, format!("raise the limit, up to {most}, or move its endpoints into another group"))
            };
            let draft = Fault::new(Kind::Quota, why).help(help).code(Code::QuotaExceededEndpointGroup);
            cx.problems.push(table.span.clone(), &table.path, draft);
        }
    }
}

fn unique_regions(tables: &[Table<'_>], cx: &mut Context<'_>) {
    let mut regions = BTreeMap::new();
    for value in tables.iter().filter(|table| is_default(table)).filter_map(|table| table.optional("region")) {
        let Some(region) = value.as_string() else { continue };
        let line = cx.problems.line(value.span.start);
        if let Some(first) = regions.get(region) {
            let draft =
                Fault::new(Kind::Duplicate, format!("the default endpoint group on line {first} is in this region already"))
                    .help("default endpoint groups of a listener are in different regions")
                    .code(Code::ExistEndpointGroup);
            value.problem(draft, &mut cx.problems);
        } else {
            regions.insert(region, line);
        }
    }
}

/// The name is part of what an endpoint is called.
fn unique_names(tables: &[Table<'_>], groups: &[Option<EndpointGroup>], cx: &mut Context<'_>) {
    let mut names = BTreeMap::new();
    for (table, name) in tables.iter().zip(groups).filter_map(|(table, group)| Some((table, &group.as_ref()?.name))) {
        let span = table.optional("name").map_or(table.span.clone(), |value| value.span);
        let line = cx.problems.line(span.start);
        if let Some(first) = names.get(name) {
            let draft = Fault::new(Kind::Duplicate, format!("group name `{name}` is taken by the group on line {first}"));
            cx.problems.push(span, &table.path, draft.help("names of groups are unique in a listener"));
        } else {
            names.insert(name, line);
        }
    }
}

/// The port at the endpoint is found with the listener, before a group is chosen.
fn same_mappings(tables: &[Table<'_>], groups: &[Option<EndpointGroup>], cx: &mut Context<'_>) {
    let mut known = tables.iter().zip(groups).filter_map(|(table, group)| Some((table, &group.as_ref()?.port_mapping)));
    let Some((_, first)) = known.next() else { return };
    for (table, _) in known.filter(|(_, mapping)| *mapping != first) {
        let (span, path) = table
            .optional("port_mapping")
            .map_or_else(|| (table.span.clone(), table.path.clone()), |value| (value.span.clone(), value.path.clone()));
        let message = "the endpoint groups of a listener map its ports differently, which is not supported yet in this version";
        let draft =
            Fault::new(Kind::NotSupportedYet, message).help("write the same `port_mapping` in each group of the listener");
        cx.problems.push(span, &path, draft);
    }
}

fn read(
    index: usize,
    table: &Table<'_>,
    around: &Surroundings,
    protocol: Option<Protocol>,
    ports: Option<&Ports>,
    cx: &mut Context<'_>,
) -> Option<EndpointGroup> {
    let name = match table.optional("name") {
        Some(value) => text::name(&value, cx),
        None if index == 0 => Name::parse(DEFAULT_NAME, cx.limits.name_rule).ok(),
        None => Name::parse(&format!("{DEFAULT_NAME}-{}", index + 1), cx.limits.name_rule).ok(),
    };
    let description = text::description(table.optional("description"), cx);
    let kind = kind(table.optional("kind"), protocol, cx);
    let backend = http::backend(table, protocol, cx);
    let circuit = bounds::circuit(table, protocol, cx);
    let region = table
        .required("region", "say where the endpoints are: `region = \"eu-central\"`", &mut cx.problems)
        .and_then(|value| text::label(&value, cx));
    let traffic_ratio = table.optional("traffic_ratio").map_or(Some(TrafficRatio::default()), |value| {
        let percent = value.integer(TRAFFIC_RATIO, &mut cx.problems)?;
        u8::try_from(percent).ok().map(TrafficRatio)
    });
    let latency = match table.optional("latency_ms") {
        Some(value) => value.integer(LATENCY_MS, &mut cx.problems).map(|ms| Some(Duration::from_millis(u64::from(ms)))),
        None => Some(None),
    };
    let version_value = table.optional("backend_ip_version");
    let version =
        version_value.as_ref().map_or(Some(BackendIpVersion::Ipv4), |value| value.word(&BACKEND_IP_VERSIONS, &mut cx.problems));
    pop(table, version_value.as_ref(), cx);
    let client_ip = client_ip::read(table, protocol, cx);
    let port_mapping = table.optional("port_mapping").map_or(Some(PortMapping::default()), |value| mappings(&value, ports, cx));
    if let (Some(client_ip), Some(mapping)) = (client_ip, &port_mapping) {
        client_ip::no_mapping(table, client_ip, mapping, cx);
    }
    let check_value = table.optional("health_check");
    let says_nothing = check_value.is_none();
    let mut health_check = health_check::read(check_value, cx);
    let (endpoints, named) = endpoint::read_all(table, around, protocol, version, cx).unzip();
    if let (true, Some(endpoints), Some(named)) = (says_nothing, &endpoints, &named) {
        health_check = Ok(pool::health_check_of_all(table, endpoints, named, cx));
    }
    if let (Some(client_ip), Some(named)) = (client_ip, &named) {
        client_ip::no_pool(table, client_ip, named, cx);
    }
    if let (Some(client_ip), Some(endpoints), Some(named)) = (client_ip, &endpoints, &named) {
        let kinds = endpoints.iter().map(|endpoint| endpoint.kind).chain(named.iter().map(|endpoint| endpoint.kind));
        client_ip::no_proxy(table, client_ip, kinds, cx);
    }
    // What names stand for is known only while the agent runs.
    let all_known = named.as_ref().is_some_and(Vec::is_empty);
    if let (Some(version), Some(endpoints), Some(client_ip), true) = (version, &endpoints, client_ip, all_known) {
        let is_translated = version != BackendIpVersion::Affinity && !client_ip.is_kept();
        every_family_served(table, version_value.as_ref(), is_translated, endpoints, around, cx);
    }
    Some(EndpointGroup {
        name: name?,
        kind: kind?,
        backend: backend?,
        circuit: circuit?,
        region: region?,
        description,
        traffic_ratio: traffic_ratio?,
        latency: latency?,
        health_check: health_check.ok()?,
        backend_ip_version: version?,
        client_ip: client_ip?,
        port_mapping: port_mapping?,
        endpoints: endpoints?,
        named: named?,
    })
}

/// The one group of a listener that names a server group.
pub(super) fn of_pool(value: &Value<'_>, cx: &mut Context<'_>) -> Option<EndpointGroup> {
    let pool = pool::named(value, cx)?;
    let health_check = pool::health_check(&pool, cx);
    Some(EndpointGroup {
        name: pool.clone(),
        kind: GroupKind::Default,
        backend: Backend::default(),
        circuit: Circuit::default(),
        region: POOL_REGION.to_owned(),
        description: String::new(),
        traffic_ratio: TrafficRatio::default(),
        latency: None,
        health_check,
        // The servers' addresses decide: a client is served by servers of its family.
        backend_ip_version: BackendIpVersion::Affinity,
        client_ip: ClientIp::Hidden,
        port_mapping: PortMapping::default(),
        endpoints: Vec::new(),
        named: vec![NamedEndpoint { kind: EndpointKind::Clb, target: Target::Pool(pool), weight: Weight::default() }],
    })
}

fn kind(value: Option<Value<'_>>, protocol: Option<Protocol>, cx: &mut Context<'_>) -> Option<GroupKind> {
    let Some(value) = value else { return Some(GroupKind::Default) };
    if let (Some("virtual"), Some(Protocol::Udp)) = (value.as_string(), protocol) {
        let draft = Fault::new(Kind::NotAllowed, "a UDP listener cannot have virtual endpoint groups").help("leave `kind` away");
        value.problem(draft, &mut cx.problems);
        return None;
    }
    value.word(&KINDS, &mut cx.problems)
}

fn mappings(value: &Value<'_>, ports: Option<&Ports>, cx: &mut Context<'_>) -> Option<PortMapping> {
    let elements = value.array(&mut cx.problems)?;
    let limit = cx.limits.port_mappings_per_group as usize;
    if let Some(excess) = elements.get(limit) {
        let message = format!("{} port mappings; `limits.port_mappings_per_group` allows {limit}", elements.len());
        let draft = Fault::new(Kind::Quota, message)
            .help(format!("raise the limit, up to {}", limits::PORT_MAPPINGS_PER_GROUP.end()))
            .code(Code::QuotaExceededPortOverride);
        excess.problem(draft, &mut cx.problems);
    }
    let mut mapping = PortMapping::default();
    let before = cx.problems.count();
    for element in &elements {
        let Some(table) = element.table(&keys::PORT_MAPPING, &mut cx.problems) else { continue };
        let help = "write it as in `{ listener = 80, endpoint = 18080 }`";
        let from = table.required("listener", help, &mut cx.problems);
        let to = table.required("endpoint", help, &mut cx.problems);
        let to = to.and_then(|to| to.integer(1..=65_535, &mut cx.problems)).and_then(|to| u16::try_from(to).ok());
        let Some(from) = from else { continue };
        let Some(port) = from.integer(1..=u32::from(Port::MAX), &mut cx.problems).and_then(Port::new) else { continue };
        if ports.is_some_and(|ports| !ports.contains(port)) {
            let message = format!("the listener has no port {port}; a mapped port must be one of its `ports`");
            let draft = Fault::new(Kind::Conflict, message).help("add the port to the listener, or remove the mapping");
            from.problem(draft, &mut cx.problems);
        } else if let Some(to) = to
            && !mapping.insert(port, to)
        {
            let draft = Fault::new(Kind::Duplicate, format!("listener port {port} is mapped twice"));
            from.problem(draft.help("several listener ports may go to one endpoint port, not the reverse"), &mut cx.problems);
        }
    }
    (cx.problems.count() == before).then_some(mapping)
}

/// Where headers are translated, all endpoints are for all clients; with `affinity`, and where endpoints see clients' addresses,
/// those of each family are for the clients of that family (specification §1.11).
fn every_family_served(
    table: &Table<'_>,
    version_value: Option<&Value<'_>>,
    is_translated: bool,
    endpoints: &[Endpoint],
    around: &Surroundings,
    cx: &mut Context<'_>,
) {
    let no_weight = |what: &str, cx: &mut Context<'_>| {
        let message = format!("all {what}endpoints of this group have weight 0: new {what}flows are refused");
        let draft = Fault::new(Kind::NoEffect, message).help("give one of them a weight of 1 to 255");
        cx.problems.warn(table.span.clone(), &table.path, draft);
    };
    if is_translated {
        if !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.weight == Weight(0)) {
            no_weight("", cx);
        }
        return;
    }
    let Some(vips) = &around.vips else { return };
    for family in Family::ALL {
        let of_family = |address: &&IpAddr| Family::of(**address) == family;
        let vip = vips.iter().find(of_family);
        let mut own = endpoints.iter().filter(|endpoint| of_family(&&endpoint.address)).peekable();
        match (vip, own.peek().is_some()) {
            (Some(vip), false) => {
                let (span, path) = version_value.map_or((&table.span, &table.path), |value| (&value.span, &value.path));
                let message = format!("clients of VIP {vip} need an {family} endpoint, and this group has none");
                let only = if family == Family::V4 { "ipv6" } else { "ipv4" };
                let help = format!(
                    "add an {family} endpoint, remove the {family} VIPs, or hide the clients' address and set `backend_ip_version = \"{only}\"`: headers are \
                     translated then"
                );
                cx.problems.push(span.clone(), path, Fault::new(Kind::Family, message).help(help));
            }
            (None, true) => {
                let message = format!("the instance has no {family} VIP: the {family} endpoints of this group get no traffic");
                cx.problems.warn(
                    table.span.clone(),
                    &table.path,
                    Fault::new(Kind::NoEffect, message).help(format!("add an {family} VIP, or remove them")),
                );
            }
            (Some(_), true) => {
                if own.all(|endpoint| endpoint.weight == Weight(0)) {
                    no_weight(&format!("{family} "), cx);
                }
            }
            (None, false) => {}
        }
    }
}

/// A point of presence has no backends of its own whose protocol could be chosen (specification §1.11).
fn pop(table: &Table<'_>, version_value: Option<&Value<'_>>, cx: &mut Context<'_>) {
    let Some(value) = table.optional("pop") else { return };
    let Some(is_pop) = value.boolean(&mut cx.problems) else { return };
    if let (true, Some(version)) = (is_pop, version_value) {
        let draft = Fault::new(Kind::Conflict, "`backend_ip_version` may not be set where the region is a point of presence")
            .help("remove it (endpoints are reached by IPv4 then), or remove `pop = true`");
        version.problem(draft, &mut cx.problems);
    }
}
