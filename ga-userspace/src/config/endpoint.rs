//! `[[instance.listener.endpoint_group.endpoint]]` (specification §1.7, §1.16).

use std::{collections::BTreeMap, net::IpAddr};

use ga_common::abi::family::Family;

use super::{
    address,
    document::{Context, Seen},
    instance::Surroundings,
    keys, limits,
    problem::{Code, Fault, Kind},
    tree::{Table, Value, not_a_word},
};
use crate::model::{BackendIpVersion, Endpoint, EndpointKind, Protocol, Weight};

/// Words of `type` that this version serves.
pub(super) const KINDS: [(&str, EndpointKind); 3] =
    [("ip", EndpointKind::Ip), ("public_ip", EndpointKind::PublicIp), ("private_ip", EndpointKind::PrivateIp)];

/// The other documented types.
const LATER: [&str; 8] = ["ecs", "eni", "clb", "alb", "nlb", "oss", "domain", "vswitch"];

/// Reads the endpoints of a group: all of them, or `None` when one is wrong.
pub(super) fn read_all(
    group: &Table<'_>,
    around: &Surroundings,
    protocol: Option<Protocol>,
    version: Option<BackendIpVersion>,
    cx: &mut Context<'_>,
) -> Option<Vec<Endpoint>> {
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
    let mut addresses = BTreeMap::new();
    let read = |table: &Table<'_>| read(table, around, protocol, version, &mut addresses, cx);
    tables.iter().map(read).collect::<Vec<_>>().into_iter().collect()
}

fn read(
    table: &Table<'_>,
    around: &Surroundings,
    protocol: Option<Protocol>,
    version: Option<BackendIpVersion>,
    addresses: &mut BTreeMap<IpAddr, usize>,
    cx: &mut Context<'_>,
) -> Option<Endpoint> {
    let help = "`type` is \"ip\", \"public_ip\" or \"private_ip\"";
    let kind_value = table.required("type", help, &mut cx.problems);
    let kind = kind_value.as_ref().and_then(|value| kind(value, protocol, version, cx));
    let later = kind_value.as_ref().and_then(Value::as_string).is_some_and(|word| LATER.contains(&word));
    let weight = table.optional("weight").map_or(Some(Weight::default()), |value| {
        value.integer(0..=255, &mut cx.problems).and_then(|weight| u8::try_from(weight).ok()).map(Weight)
    });
    let address = match later {
        // The address of another type of endpoint need not be an IP address.
        true => None,
        false => table
            .required("address", "say where the endpoint is: `address = \"10.0.0.11\"`", &mut cx.problems)
            .and_then(|value| address(&value, around, version, addresses, cx)),
    };
    Some(Endpoint { kind: kind?, address: address?, weight: weight? })
}

fn kind(
    value: &Value<'_>,
    protocol: Option<Protocol>,
    version: Option<BackendIpVersion>,
    cx: &mut Context<'_>,
) -> Option<EndpointKind> {
    let word = value.string(&mut cx.problems)?;
    if let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == word) {
        return Some(*kind);
    }
    let other_family = matches!(version, Some(BackendIpVersion::Ipv6 | BackendIpVersion::Affinity));
    let not_allowed = match (word, protocol) {
        ("vswitch", _) => Some("vswitch endpoints are for custom routing listeners only"),
        ("alb", Some(Protocol::Udp)) => Some("an alb endpoint cannot be under a UDP listener"),
        ("oss", Some(Protocol::Udp)) => Some("an oss endpoint cannot be under a UDP listener"),
        ("oss", Some(Protocol::Tcp) | None) if other_family => {
            Some("an oss endpoint is reached by IPv4 only: `backend_ip_version` must be \"ipv4\"")
        }
        _ => None,
    };
    let draft = match not_allowed {
        Some(why) => Fault::new(Kind::NotAllowed, why).help("use \"private_ip\" or \"public_ip\" with an IP address"),
        None if LATER.contains(&word) => {
            let draft = Fault::new(Kind::NotSupportedYet, format!("{word} endpoints are not supported yet in this version"));
            draft.help("use \"private_ip\" or \"public_ip\" with the IP address behind it")
        }
        None => not_a_word(word, KINDS.iter().map(|(word, _)| *word)),
    };
    value.problem(draft, &mut cx.problems);
    None
}

fn address(
    value: &Value<'_>,
    around: &Surroundings,
    version: Option<BackendIpVersion>,
    addresses: &mut BTreeMap<IpAddr, usize>,
    cx: &mut Context<'_>,
) -> Option<IpAddr> {
    let address = address::read(value, "an endpoint", cx)?;
    let line = cx.problems.line(value.span.start);
    let seen = Seen { address, instance: around.index, span: value.span.clone(), path: value.path.clone() };
    cx.ledger.endpoints.push(seen);
    if let Some(first) = addresses.get(&address) {
        let message = format!("{address} is an endpoint of this group already, on line {first}");
        let draft = Fault::new(Kind::Duplicate, message).help("give one endpoint the sum of the weights");
        value.problem(draft, &mut cx.problems);
        return None;
    }
    addresses.insert(address, line);
    let family = Family::of(address);
    let word = match (version, family) {
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
