//! Custom routing listeners: `[[instance.listener.custom_group]]` (specification §1.17).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
    time::Duration,
};

use ga_common::abi::family::Family;
use ipnet::{IpNet, Ipv4Net};

use super::{
    acl,
    document::{Context, Seen},
    group::DEFAULT_NAME,
    instance::Surroundings,
    keys, limits, listener,
    ports::PortList,
    problem::{Code, Fault, Kind},
    text,
    tree::{Table, Value, not_a_word, shorten},
};
use crate::model::{
    Affinity, AllUnhealthy, Allowed, CustomGroup, Destination, Listener, MAX_CONNECTIONS, Name, Policy, Port, Protocol,
    Protocols, Subnet, addresses, unusable, usable,
};

/// Prefix lengths that a subnet may have.
const PREFIXES: RangeInclusive<u8> = 17..=28;

/// Words of `policy`.
pub(super) const POLICIES: [(&str, Word); 3] =
    [("deny_all", Word::DenyAll), ("allow_all", Word::AllowAll), ("allow_custom", Word::AllowCustom)];

/// A word of `policy`.
#[derive(Clone, Copy)]
pub(super) enum Word {
    DenyAll,
    AllowAll,
    AllowCustom,
}

/// Keys that say how traffic is balanced or guarded, which custom routing does not.
const NOT_HERE: [(&str, &str); 12] = [
    ("protocol", "the destinations of a group say which protocols are forwarded"),
    ("client_affinity", "every port leads to one host anyway"),
    ("idle_timeout", "TCP flows are remembered for 900 s without packets, UDP flows for 20 s"),
    ("max_connections", "`node.flows` bounds what the kernel serves"),
    ("acl", "the `policy` of a subnet says what may be reached"),
    ("all_unhealthy", "hosts are not probed: every port leads to its host, whatever its health"),
    ("failover_to_zero_ratio", "nothing is balanced"),
    ("rule", "the port alone says where packets go"),
    ("http_sniff", "the port alone says where packets go"),
    ("proxy_protocol", "the agent serves no connection of such a listener"),
    ("vserver_group", "the port alone says where packets go"),
    ("endpoint_group", "add `[[instance.listener.custom_group]]` with the subnets"),
];

/// Reads what only a custom routing listener has.
pub(super) fn read(
    table: &Table<'_>,
    around: &Surroundings,
    name: Option<Name>,
    description: String,
    ports: Option<(&Value<'_>, &PortList)>,
    cx: &mut Context<'_>,
) -> Option<Listener> {
    for (key, why) in NOT_HERE {
        if let Some(value) = table.optional(key) {
            let draft = Fault::new(Kind::NotAllowed, format!("a custom routing listener has no `{key}`"));
            value.problem(draft.help(format!("remove the key: {why}")), &mut cx.problems);
        }
    }
    only_ipv4(table, around, cx);
    let max_new_flows = match table.optional("max_new_flows_per_second") {
        Some(value) => value.integer(listener::NEW_FLOWS, &mut cx.problems),
        None => Some(0),
    };
    let groups = groups(table, around, cx);
    if let (Some((value, list)), Some(groups)) = (ports, &groups) {
        enough_ports(value, list, groups, cx);
    }
    Some(Listener {
        name: name?,
        description,
        protocol: Protocol::Tcp,
        ports: ports?.1.ports.clone(),
        affinity: Affinity::None,
        idle_timeout: Duration::from_secs(u64::from(*listener::idle_timeout_s(Protocol::Tcp).end())),
        max_new_flows_per_second: max_new_flows?,
        max_connections: MAX_CONNECTIONS,
        acl: None,
        all_unhealthy: AllUnhealthy::FailClosed,
        failover_to_zero_ratio: true,
        proxy_from: Vec::new(),
        http_sniff: false,
        http: None,
        tls: None,
        rules: Vec::new(),
        groups: Vec::new(),
        custom: groups?,
        blocks: Vec::new(),
    })
}

fn only_ipv4(table: &Table<'_>, around: &Surroundings, cx: &mut Context<'_>) {
    let six = around.vips.iter().flatten().find(|vip| Family::of(**vip) == Family::V6);
    if let (Some(vip), Some(value)) = (six, table.optional("type")) {
        let draft = Fault::new(Kind::Family, format!("custom routing is for IPv4 only, and VIP {vip} of the instance is IPv6"));
        value.problem(draft.help("give the IPv6 VIP to another instance"), &mut cx.problems);
    }
}

/// Every port of every address takes one port of the listener.
fn enough_ports(value: &Value<'_>, list: &PortList, groups: &[CustomGroup], cx: &mut Context<'_>) {
    let (have, need) = (usable(&list.ports).len() as u64, groups.iter().map(CustomGroup::demand).sum::<u64>());
    if need > have {
        let sums = groups.iter().map(|group| {
            let ports: u64 = group.destinations.iter().map(|destination| u64::from(destination.count())).sum();
            let hosts: u64 = group.subnets.iter().map(|subnet| u64::from(addresses(subnet.net))).sum();
            format!("`{}`: {ports} ports × {hosts} addresses", group.name)
        });
        let message = format!("{have} usable ports; {need} are needed ({})", sums.collect::<Vec<_>>().join(", "));
        let draft = Fault::new(Kind::Capacity, message)
            .help("give the listener more ports, or the groups fewer destinations or smaller subnets; 25, 250, 4789 and 4790 are not used");
        value.problem(draft.code(Code::PortRangeIllegalListener), &mut cx.problems);
    }
}

fn groups(listener: &Table<'_>, around: &Surroundings, cx: &mut Context<'_>) -> Option<Vec<CustomGroup>> {
    let value = listener.required("custom_group", "add `[[instance.listener.custom_group]]`", &mut cx.problems)?;
    let tables = value.tables(&keys::CUSTOM_GROUP, &mut cx.problems)?;
    let limit = cx.limits.custom_groups_per_listener as usize;
    if let Some(excess) = tables.get(limit) {
        let message = format!("{} groups; `limits.custom_groups_per_listener` allows {limit}", tables.len());
        let draft = Fault::new(Kind::Quota, message)
            .help(format!("raise the limit, up to {}", limits::CUSTOM_GROUPS_PER_LISTENER.end()))
            .code(Code::QuotaExceededEndpointGroup);
        cx.problems.push(excess.span.clone(), &excess.path, draft);
    }
    let mut names = BTreeMap::new();
    let read = |(index, table): (usize, &Table<'_>)| group(index, table, around, &mut names, cx);
    let groups: Vec<_> = tables.iter().enumerate().map(read).collect();
    if groups.is_empty() { None } else { groups.into_iter().collect() }
}

fn group(
    index: usize,
    table: &Table<'_>,
    around: &Surroundings,
    names: &mut BTreeMap<Name, usize>,
    cx: &mut Context<'_>,
) -> Option<CustomGroup> {
    let name_value = table.optional("name");
    let name = match &name_value {
        Some(value) => text::name(value, cx),
        None if index == 0 => Name::parse(DEFAULT_NAME, cx.limits.name_rule).ok(),
        None => Name::parse(&format!("{DEFAULT_NAME}-{}", index + 1), cx.limits.name_rule).ok(),
    };
    if let Some(name) = &name {
        let span = name_value.as_ref().map_or(table.span.clone(), |value| value.span.clone());
        let line = cx.problems.line(span.start);
        if let Some(first) = names.insert(name.clone(), line) {
            let draft = Fault::new(Kind::Duplicate, format!("group name `{name}` is taken by the group on line {first}"));
            cx.problems.push(span, &table.path, draft.help("names of groups are unique in a listener"));
        }
    }
    let description = text::description(table.optional("description"), cx);
    let region = table
        .required("region", "say where the hosts are: `region = \"eu-central\"`", &mut cx.problems)
        .and_then(|value| text::label(&value, cx));
    preserve_client_ip(table.optional("preserve_client_ip"), cx);
    let help = "say which ports of the hosts: `destinations = [{ ports = \"81~85\", protocols = [\"tcp\"] }]`";
    let destinations = table.required("destinations", help, &mut cx.problems).and_then(|value| destinations(&value, cx));
    let subnets = subnets(table, around, destinations.as_deref(), cx);
    Some(CustomGroup { name: name?, region: region?, description, destinations: destinations?, subnets: subnets? })
}

fn preserve_client_ip(value: Option<Value<'_>>, cx: &mut Context<'_>) {
    let Some(value) = value else { return };
    let Some(word) = value.string(&mut cx.problems) else { return };
    let draft = match word {
        "none" => return,
        "transparent" => Fault::new(Kind::NotSupportedYet, "`transparent` is not supported yet for custom routing")
            .help("with \"none\", hosts see the egress address"),
        "proxy_v1" | "proxy_v2" | "toa" => Fault::new(Kind::NotAllowed, format!("`{word}` is not for custom routing"))
            .help("with \"none\", hosts see the egress address"),
        _ => not_a_word(word, ["none", "transparent"].into_iter()),
    };
    value.problem(draft, &mut cx.problems);
}

fn destinations(value: &Value<'_>, cx: &mut Context<'_>) -> Option<Vec<Destination>> {
    let elements = value.array(&mut cx.problems)?;
    if elements.is_empty() {
        let draft = Fault::new(Kind::MissingKey, "at least one destination is needed");
        value.problem(
            draft.help("say which ports of the hosts: `{ ports = \"81~85\", protocols = [\"tcp\"] }`"),
            &mut cx.problems,
        );
        return None;
    }
    let limit = cx.limits.custom_destinations_per_group as usize;
    if let Some(excess) = elements.get(limit) {
        let message = format!("{} destinations; `limits.custom_destinations_per_group` allows {limit}", elements.len());
        let help = format!("raise the limit, up to {}", limits::CUSTOM_DESTINATIONS_PER_GROUP.end());
        excess.problem(Fault::new(Kind::Quota, message).help(help), &mut cx.problems);
    }
    let mut found: Vec<Destination> = Vec::new();
    for element in &elements {
        let Some(new) = destination(element, cx) else { continue };
        let meets =
            |other: &&Destination| other.first <= new.last && new.first <= other.last && other.protocols.meets(new.protocols);
        if let Some(other) = found.iter().find(meets) {
            let message = format!("{new} and {other} of this group overlap");
            let draft = Fault::new(Kind::Conflict, message).help("name a port and protocol in one destination only");
            element.problem(draft, &mut cx.problems);
        }
        found.push(new);
    }
    (found.len() == elements.len()).then_some(found)
}

fn destination(element: &Value<'_>, cx: &mut Context<'_>) -> Option<Destination> {
    let table = element.table(&keys::DESTINATION, &mut cx.problems)?;
    let ports = table.required("ports", "a port or a range: `ports = \"81~85\"`", &mut cx.problems);
    let ports = ports.and_then(|value| {
        let text = value.string(&mut cx.problems)?;
        match range(text) {
            Ok(range) => Some(range),
            Err(why) => {
                value.problem(
                    Fault::new(Kind::BadValue, why).help("write one port or one range: \"81\" or \"81~85\""),
                    &mut cx.problems,
                );
                None
            }
        }
    });
    let help = "`protocols = [\"tcp\"]`, `[\"udp\"]` or `[\"tcp\", \"udp\"]`";
    let protocols = table.required("protocols", help, &mut cx.problems).and_then(|value| protocols(&value, cx));
    let ((first, last), protocols) = (ports?, protocols?);
    Some(Destination { first, last, protocols })
}

/// One port, or `81~85`.
fn range(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once(['~', '-']).unwrap_or((text, text));
    let port = |text: &str| Port::parse(text).map(Port::get).map_err(|error| error.to_string());
    let (first, last) = (port(first)?, port(last)?);
    if last < first { Err(format!("range `{}` runs backwards", shorten(text.trim()))) } else { Ok((first, last)) }
}

fn protocols(value: &Value<'_>, cx: &mut Context<'_>) -> Option<Protocols> {
    let elements = value.array(&mut cx.problems)?;
    let mut found = BTreeSet::new();
    for element in &elements {
        if !found.insert(element.word(&listener::PROTOCOLS[..2], &mut cx.problems)?) {
            let draft = Fault::new(Kind::Duplicate, "the protocol is named twice").help("name it once");
            element.problem(draft, &mut cx.problems);
        }
    }
    match (found.contains(&Protocol::Tcp), found.contains(&Protocol::Udp)) {
        (true, true) => Some(Protocols::Both),
        (true, false) => Some(Protocols::Tcp),
        (false, true) => Some(Protocols::Udp),
        (false, false) => {
            let draft = Fault::new(Kind::MissingKey, "at least one protocol is needed").help("\"tcp\", \"udp\" or both");
            value.problem(draft, &mut cx.problems);
            None
        }
    }
}

fn subnets(
    group: &Table<'_>,
    around: &Surroundings,
    destinations: Option<&[Destination]>,
    cx: &mut Context<'_>,
) -> Option<Vec<Subnet>> {
    let help = "name a subnet: `[[instance.listener.custom_group.endpoint]]` with `cidr = \"10.1.2.0/28\"`";
    let value = group.required("endpoint", help, &mut cx.problems)?;
    let tables = value.tables(&keys::CUSTOM_ENDPOINT, &mut cx.problems)?;
    let limit = cx.limits.custom_endpoints_per_group as usize;
    if let Some(excess) = tables.get(limit) {
        let message = format!("{} endpoints; `limits.custom_endpoints_per_group` allows {limit}", tables.len());
        let draft = Fault::new(Kind::Quota, message)
            .help(format!("raise the limit, up to {}", limits::CUSTOM_ENDPOINTS_PER_GROUP.end()))
            .code(Code::QuotaExceededEndPoint);
        cx.problems.push(excess.span.clone(), &excess.path, draft);
    }
    let mut known: Vec<(Ipv4Net, usize)> = Vec::new();
    let subnets: Vec<_> = tables.iter().map(|table| subnet(table, around, destinations, &mut known, cx)).collect();
    if subnets.is_empty() { None } else { subnets.into_iter().collect() }
}

fn subnet(
    table: &Table<'_>,
    around: &Surroundings,
    destinations: Option<&[Destination]>,
    known: &mut Vec<(Ipv4Net, usize)>,
    cx: &mut Context<'_>,
) -> Option<Subnet> {
    if let Some(value) = table.optional("type")
        && let Some(word) = value.string(&mut cx.problems)
        && word != "vswitch"
    {
        let message = format!("a custom routing listener has subnets behind it, not `{}` endpoints", shorten(word));
        value.problem(
            Fault::new(Kind::NotAllowed, message).help("write `type = \"vswitch\"`, or leave the key away"),
            &mut cx.problems,
        );
    }
    let cidr = table.required("cidr", "name the subnet: `cidr = \"10.1.2.0/28\"`", &mut cx.problems);
    let net = cidr.as_ref().and_then(|value| cidr_of(value, around, known, cx));
    let policy_value = table.optional("policy");
    let word = policy_value.as_ref().map_or(Some(Word::DenyAll), |value| value.word(&POLICIES, &mut cx.problems));
    let allow_value = table.optional("allow");
    let allow = match &allow_value {
        Some(value) => allowed(value, net, destinations, cx),
        None => Some(Vec::new()),
    };
    let policy = match (word?, allow?) {
        (Word::AllowCustom, allow) => {
            if allow.is_empty() {
                let span = policy_value.map_or(table.span.clone(), |value| value.span);
                let draft = Fault::new(Kind::NoEffect, "`allow_custom` without a host in `allow` denies everything");
                cx.problems.warn(span, &table.path, draft.help("name the hosts in `allow`"));
            }
            Policy::AllowCustom(allow)
        }
        (other, allow) => {
            if let (Some(value), false) = (allow_value, allow.is_empty()) {
                let draft = Fault::new(Kind::NoEffect, "`allow` counts only with `policy = \"allow_custom\"`");
                cx.problems.warn(value.span, &value.path, draft.help("set the policy, or remove the list"));
            }
            if matches!(other, Word::AllowAll) { Policy::AllowAll } else { Policy::DenyAll }
        }
    };
    Some(Subnet { net: net?, policy })
}

fn cidr_of(value: &Value<'_>, around: &Surroundings, known: &mut Vec<(Ipv4Net, usize)>, cx: &mut Context<'_>) -> Option<Ipv4Net> {
    let IpNet::V4(net) = acl::net(value, cx)? else {
        let draft = Fault::new(Kind::Family, "custom routing is for IPv4 only").help("name an IPv4 subnet");
        value.problem(draft, &mut cx.problems);
        return None;
    };
    if !PREFIXES.contains(&net.prefix_len()) {
        let (low, high) = PREFIXES.into_inner();
        let draft =
            Fault::new(Kind::OutOfRange, format!("a subnet has a prefix of {low} to {high} bits, not {}", net.prefix_len()));
        value.problem(draft.help("a /28 has 16 addresses, a /17 has 32,768"), &mut cx.problems);
        return None;
    }
    if let Some(why) = unusable(IpAddr::V4(net.addr())) {
        let draft = Fault::new(Kind::BadValue, format!("hosts cannot be in {net}: {why}"));
        value.problem(draft.help("name a subnet that packets can be sent to"), &mut cx.problems);
        return None;
    }
    let line = cx.problems.line(value.span.start);
    let address = IpAddr::V4(net.addr());
    cx.ledger.endpoints.push(Seen { address, instance: around.index, span: value.span.clone(), path: value.path.clone() });
    let overlaps = |(other, _): &&(Ipv4Net, usize)| other.contains(&net) || net.contains(other);
    if let Some((other, line)) = known.iter().find(overlaps) {
        let draft = Fault::new(Kind::Conflict, format!("{net} and {other} on line {line} overlap"));
        value.problem(draft.help("an address belongs to one subnet of a group"), &mut cx.problems);
        return None;
    }
    known.push((net, line));
    Some(net)
}

fn allowed(
    value: &Value<'_>,
    net: Option<Ipv4Net>,
    destinations: Option<&[Destination]>,
    cx: &mut Context<'_>,
) -> Option<Vec<Allowed>> {
    let elements = value.array(&mut cx.problems)?;
    let limit = cx.limits.custom_policy_addresses_per_endpoint as usize;
    if let Some(excess) = elements.get(limit) {
        let message = format!("{} addresses; `limits.custom_policy_addresses_per_endpoint` allows {limit}", elements.len());
        let help = format!("raise the limit, up to {}", limits::CUSTOM_POLICY_ADDRESSES_PER_ENDPOINT.end());
        excess.problem(Fault::new(Kind::Quota, message).help(help), &mut cx.problems);
    }
    let mut seen = BTreeMap::new();
    let mut found = Vec::new();
    for element in &elements {
        let Some(table) = element.table(&keys::ALLOWED, &mut cx.problems) else { continue };
        let Some(value) = table.required("address", "which host: `address = \"10.1.2.4\"`", &mut cx.problems) else { continue };
        let address = host(&value, net, &mut seen, cx);
        let ports = match table.optional("ports") {
            Some(value) => allowed_ports(&value, destinations, cx),
            None => Some(Vec::new()),
        };
        if let (Some(address), Some(ports)) = (address, ports) {
            found.push(Allowed { address, ports });
        }
    }
    (found.len() == elements.len()).then_some(found)
}

fn host(value: &Value<'_>, net: Option<Ipv4Net>, seen: &mut BTreeMap<Ipv4Addr, usize>, cx: &mut Context<'_>) -> Option<Ipv4Addr> {
    let text = value.string(&mut cx.problems)?;
    let Ok(address) = text.parse::<Ipv4Addr>() else {
        let draft = Fault::new(Kind::BadValue, format!("{:?} is not an IPv4 address", shorten(text)));
        value.problem(draft.help("write it as in \"10.1.2.4\""), &mut cx.problems);
        return None;
    };
    if let Some(net) = net.filter(|net| !net.contains(&address)) {
        let draft = Fault::new(Kind::Conflict, format!("{address} is not in {net}"));
        value.problem(draft.help("name hosts of this subnet"), &mut cx.problems);
        return None;
    }
    let line = cx.problems.line(value.span.start);
    if let Some(first) = seen.insert(address, line) {
        let draft = Fault::new(Kind::Duplicate, format!("{address} is allowed already, on line {first}"));
        value.problem(draft.help("name all its ports in one entry"), &mut cx.problems);
        return None;
    }
    Some(address)
}

fn allowed_ports(value: &Value<'_>, destinations: Option<&[Destination]>, cx: &mut Context<'_>) -> Option<Vec<(u16, u16)>> {
    let text = value.string(&mut cx.problems)?;
    let items: Vec<&str> = text.split(',').collect();
    let limit = cx.limits.custom_policy_ranges_per_address as usize;
    if items.len() > limit {
        let message = format!("{} port ranges; `limits.custom_policy_ranges_per_address` allows {limit}", items.len());
        let help = format!("raise the limit, up to {}", limits::CUSTOM_POLICY_RANGES_PER_ADDRESS.end());
        value.problem(Fault::new(Kind::Quota, message).help(help), &mut cx.problems);
        return None;
    }
    let mut ranges = Vec::new();
    for item in items {
        let draft = match range(item) {
            Err(why) => Fault::new(Kind::BadValue, why).help("write ports and ranges: \"81~82,90\""),
            Ok(range) => {
                ranges.push(range);
                let is_served = |port: u16| {
                    destinations
                        .is_none_or(|all| all.iter().any(|destination| (destination.first..=destination.last).contains(&port)))
                };
                let Some(port) = (range.0..=range.1).find(|port| !is_served(*port)) else { continue };
                Fault::new(Kind::Conflict, format!("port {port} is in no destination of the group"))
                    .help("allow ports of the destinations, or add a destination")
            }
        };
        value.problem(draft, &mut cx.problems);
        return None;
    }
    Some(ranges)
}
