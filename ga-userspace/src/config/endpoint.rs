//! `[[instance.listener.endpoint_group.endpoint]]` (specification §1.7, §1.16).

use std::{collections::BTreeMap, net::IpAddr};

use ga_common::abi::family::Family;

use super::{
    address,
    document::{Context, Seen},
    instance::Surroundings,
    inventory, keys, limits, pool,
    problem::{Code, Fault, Kind},
    tree::{Table, Value, shorten},
};
use crate::model::{BackendIpVersion, Endpoint, EndpointKind, NamedEndpoint, Part, Protocol, Target, Weight};

/// Words of `type`.
pub(super) const KINDS: [(&str, EndpointKind); 10] = [
    ("ip", EndpointKind::Ip),
    ("public_ip", EndpointKind::PublicIp),
    ("private_ip", EndpointKind::PrivateIp),
    ("ecs", EndpointKind::Ecs),
    ("eni", EndpointKind::Eni),
    ("clb", EndpointKind::Clb),
    ("alb", EndpointKind::Alb),
    ("nlb", EndpointKind::Nlb),
    ("oss", EndpointKind::Oss),
    ("domain", EndpointKind::Domain),
];

/// An endpoint as it is written.
enum Written {
    /// Its address is known.
    Literal(Endpoint),
    /// Its addresses are found out.
    Named(NamedEndpoint),
}

/// What the endpoints of a group have in common.
struct Group<'g> {
    around: &'g Surroundings,
    protocol: Option<Protocol>,
    version: Option<BackendIpVersion>,
    /// Where each address and each name of the group stands.
    addresses: BTreeMap<IpAddr, usize>,
    targets: BTreeMap<Target, usize>,
}

/// Reads the endpoints of a group, those with addresses and those that stand for others: all of them, or `None` when one is wrong.
pub(super) fn read_all(
    group: &Table<'_>,
    around: &Surroundings,
    protocol: Option<Protocol>,
    version: Option<BackendIpVersion>,
    cx: &mut Context<'_>,
) -> Option<(Vec<Endpoint>, Vec<NamedEndpoint>)> {
    let help = "a group has 1 to 4 endpoints: add `[[instance.listener.endpoint_group.endpoint]]`";
    let value = group.required("endpoint", help, &mut cx.problems)?;
    let tables = value.tables(&keys::ENDPOINT, &mut cx.problems)?;
    let limit = cx.limits.endpoints_per_group as usize;
    if let Some(excess) = tables.get(limit) {
        let draft = Fault::new(Kind::Quota, format!("{} endpoints; `limits.endpoints_per_group` allows {limit}", tables.len()))
            .help(format!("raise the limit, up to {}", limits::ENDPOINTS_PER_GROUP.end()))
            .code(Code::QuotaExceededEndPoint);
        cx.problems.push(excess.span.clone(), &excess.path, draft);
    }
    let mut group = Group { around, protocol, version, addresses: BTreeMap::new(), targets: BTreeMap::new() };
    let read = |table: &Table<'_>| read(table, &mut group, cx);
    let written: Option<Vec<Written>> = tables.iter().map(read).collect::<Vec<_>>().into_iter().collect();
    let (mut endpoints, mut named) = (Vec::new(), Vec::new());
    for one in written? {
        match one {
            Written::Literal(endpoint) => endpoints.push(endpoint),
            Written::Named(endpoint) => named.push(endpoint),
        }
    }
    Some((endpoints, named))
}

fn read(table: &Table<'_>, group: &mut Group<'_>, cx: &mut Context<'_>) -> Option<Written> {
    let help = "`type` is \"private_ip\", \"public_ip\", \"domain\", \"clb\" or another kind of endpoint";
    let kind_value = table.required("type", help, &mut cx.problems);
    let kind = kind_value.as_ref().and_then(|value| kind(value, group, cx));
    let weight = table.optional("weight").map_or(Some(Weight::default()), |value| {
        value.integer(0..=255, &mut cx.problems).and_then(|weight| u8::try_from(weight).ok()).map(Weight)
    });
    // What the other keys mean follows from the type.
    let Some(kind) = kind else {
        if kind_value.is_none() {
            table.required("address", "say where the endpoint is: `address = \"10.0.0.11\"`", &mut cx.problems);
        }
        return None;
    };
    let found = place(table, kind, group, cx);
    let (weight, found) = (weight?, found?);
    Some(match found {
        Found::Address(address) => {
            Written::Literal(Endpoint { kind, address, port: None, weight, part: Part::WHOLE, found_by: None })
        }
        Found::Target(target) => Written::Named(NamedEndpoint { kind, target, weight }),
    })
}

fn kind(value: &Value<'_>, group: &Group<'_>, cx: &mut Context<'_>) -> Option<EndpointKind> {
    let word = value.string(&mut cx.problems)?;
    let other_family = matches!(group.version, Some(BackendIpVersion::Ipv6 | BackendIpVersion::Affinity));
    let (why, help) = match (word, group.protocol) {
        ("vswitch", _) => (
            "vswitch endpoints are for custom routing listeners only",
            "name the hosts of the subnet one by one, as \"private_ip\"",
        ),
        ("alb", Some(Protocol::Udp)) => {
            ("an alb endpoint cannot be under a UDP listener", "use \"nlb\", or \"private_ip\" with the address of a server")
        }
        ("oss", Some(Protocol::Udp)) => {
            ("an oss endpoint cannot be under a UDP listener", "an object store is reached by TCP: use a tcp listener")
        }
        ("oss", Some(Protocol::Tcp) | None) if other_family => {
            ("an oss endpoint is reached by IPv4 only", "set `backend_ip_version = \"ipv4\"`, or put it into a group of its own")
        }
        _ => return value.word(&KINDS, &mut cx.problems),
    };
    value.problem(Fault::new(Kind::NotAllowed, why).help(help), &mut cx.problems);
    None
}

/// Where an endpoint is.
enum Found {
    Address(IpAddr),
    Target(Target),
}

fn place(table: &Table<'_>, kind: EndpointKind, group: &mut Group<'_>, cx: &mut Context<'_>) -> Option<Found> {
    let pool = table.optional("vserver_group").filter(|value| fits(value, kind == EndpointKind::Clb, "clb", cx));
    let sub = table.optional("sub_address").filter(|value| fits(value, kind == EndpointKind::Eni, "eni", cx));
    if let Some(value) = pool {
        if let Some(address) = table.optional("address") {
            let draft = Fault::new(Kind::Conflict, "a clb endpoint has an `address` or a `vserver_group`, not both");
            address.problem(draft.help("remove one of the two"), &mut cx.problems);
        }
        let name = pool::named(&value, cx)?;
        return target(&value, Target::Pool(name), group, cx);
    }
    let value = table.required("address", kind_help(kind), &mut cx.problems)?;
    let word = value.string(&mut cx.problems)?;
    let is_address = word.parse::<IpAddr>().is_ok();
    match kind {
        EndpointKind::Domain if is_address => {
            let draft = Fault::new(Kind::BadValue, "a domain endpoint has a name, not an IP address");
            value.problem(draft.help("use \"ip\" for a public address, \"private_ip\" for a private one"), &mut cx.problems);
            None
        }
        EndpointKind::Domain => domain(&value, group, cx),
        EndpointKind::Clb | EndpointKind::Alb | EndpointKind::Nlb | EndpointKind::Oss if looks_like_name(word) => {
            domain(&value, group, cx)
        }
        EndpointKind::Ecs | EndpointKind::Eni if !is_address && inventory::may_be_host(word) => {
            let sub_address = match sub {
                Some(value) => Some(sub_address(&value, cx)?),
                None => None,
            };
            let name = inventory::host(&value, cx)?;
            target(&value, Target::Host { name, sub_address }, group, cx)
        }
        // The address that is not the primary one is where the endpoint is.
        EndpointKind::Eni => address(sub.as_ref().unwrap_or(&value), group, cx).map(Found::Address),
        EndpointKind::Ip
        | EndpointKind::PublicIp
        | EndpointKind::PrivateIp
        | EndpointKind::Ecs
        | EndpointKind::Clb
        | EndpointKind::Alb
        | EndpointKind::Nlb
        | EndpointKind::Oss
        | EndpointKind::Vswitch => address(&value, group, cx).map(Found::Address),
    }
}

const fn kind_help(kind: EndpointKind) -> &'static str {
    match kind {
        EndpointKind::Ip | EndpointKind::PublicIp | EndpointKind::PrivateIp | EndpointKind::Vswitch => {
            "say where it is: `address = \"10.0.0.11\"`"
        }
        EndpointKind::Ecs | EndpointKind::Eni => "an IP address, or a name of the inventory: `address = \"web-1\"`",
        EndpointKind::Clb => "an IP address, a domain, or `vserver_group = \"pool-a\"`",
        EndpointKind::Alb | EndpointKind::Nlb | EndpointKind::Oss => "an IP address or a domain: `address = \"lb.example.net\"`",
        EndpointKind::Domain => "say which one: `address = \"origin.example.net\"`",
    }
}

/// Whether a key fits the type; reports it when it does not.
fn fits(value: &Value<'_>, fits: bool, word: &str, cx: &mut Context<'_>) -> bool {
    if !fits {
        let draft = Fault::new(Kind::NotAllowed, format!("this key is for endpoints of type \"{word}\" only"));
        value.problem(draft.help(format!("remove the key, or set `type = \"{word}\"`")), &mut cx.problems);
    }
    fits
}

fn sub_address(value: &Value<'_>, cx: &mut Context<'_>) -> Option<IpAddr> {
    address::read(value, "the address of an interface", cx)
}

/// A name of letters, or with a dot: what is neither that nor an address is reported as a wrong address.
fn looks_like_name(word: &str) -> bool {
    word.parse::<IpAddr>().is_err() && word.bytes().any(|b| b.is_ascii_alphabetic()) && !word.contains(':')
}

fn domain(value: &Value<'_>, group: &mut Group<'_>, cx: &mut Context<'_>) -> Option<Found> {
    let word = value.string(&mut cx.problems)?;
    let name = word.to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let labels = name.strip_suffix('.').unwrap_or(&name);
    // RFC 1035 section 2.3.4, with the underscores that people use.
    if name.len() <= 253 && labels.split('.').all(label) && labels.bytes().any(|b| b.is_ascii_alphabetic()) {
        return target(value, Target::Domain(name), group, cx);
    }
    let draft = Fault::new(Kind::BadValue, format!("{:?} is not the name of a domain", shorten(word)));
    value.problem(draft.help("write it as in \"origin.example.net\", without a scheme, a port or a path"), &mut cx.problems);
    None
}

fn target(value: &Value<'_>, target: Target, group: &mut Group<'_>, cx: &mut Context<'_>) -> Option<Found> {
    let line = cx.problems.line(value.span.start);
    match group.targets.insert(target.clone(), line) {
        None => Some(Found::Target(target)),
        Some(first) => {
            let draft = Fault::new(Kind::Duplicate, format!("{target} is an endpoint of this group already, on line {first}"));
            value.problem(draft.help("give one endpoint the sum of the weights"), &mut cx.problems);
            None
        }
    }
}

fn address(value: &Value<'_>, group: &mut Group<'_>, cx: &mut Context<'_>) -> Option<IpAddr> {
    let address = address::read(value, "an endpoint", cx)?;
    let line = cx.problems.line(value.span.start);
    let seen = Seen { address, instance: group.around.index, span: value.span.clone(), path: value.path.clone() };
    cx.ledger.endpoints.push(seen);
    if let Some(first) = group.addresses.get(&address) {
        let message = format!("{address} is an endpoint of this group already, on line {first}");
        let draft = Fault::new(Kind::Duplicate, message).help("give one endpoint the sum of the weights");
        value.problem(draft, &mut cx.problems);
        return None;
    }
    group.addresses.insert(address, line);
    let family = Family::of(address);
    let word = match (group.version, family) {
        (Some(BackendIpVersion::Ipv4), Family::V6) => "ipv4",
        (Some(BackendIpVersion::Ipv6), Family::V4) => "ipv6",
        (Some(BackendIpVersion::Ipv4), Family::V4)
        | (Some(BackendIpVersion::Ipv6), Family::V6)
        | (Some(BackendIpVersion::Affinity) | None, _) => return Some(address),
    };
    let draft = Fault::new(Kind::Family, format!("an {family} endpoint in a group with `backend_ip_version = \"{word}\"`"))
        .help("set `backend_ip_version = \"affinity\"` for endpoints of both families (\"ipv4\" is the default)");
    value.problem(draft, &mut cx.problems);
    None
}
