//! `preserve_client_ip` and `return` of an endpoint group (specification §1.9, §2.3).

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    document::Context,
    problem::{Fault, Kind},
    tree::{Table, Value, not_a_word},
};
use crate::model::{ClientIp, EndpointGroup, EndpointKind, NamedEndpoint, PortMapping, Protocol, Target};

/// Whether endpoints see the client's address.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PreserveClientIp {
    /// They see the egress address.
    None,
    /// They see the client's address; `return` says how they answer.
    Transparent,
    /// TCP: a header of the PROXY protocol, version 1, stands in front of each connection. Endpoints must expect it.
    ProxyV1,
    /// The same with version 2.
    ProxyV2,
}

/// How endpoints that see the client's address answer; all default groups of a listener agree.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Return {
    /// Directly: they are on a link of this edge and have the VIP too. Ports cannot be mapped.
    L2,
    /// Directly: they get packets within IP packets and have the VIP too. Ports cannot be mapped.
    Ipip,
    /// By way of this edge: their routes to clients lead to it. They need not have the VIP, and ports can be mapped.
    Gateway,
}

/// Words of `return`.
const RETURNS: [(&str, ClientIp); 3] = [("l2", ClientIp::L2), ("ipip", ClientIp::Ipip), ("gateway", ClientIp::Gateway)];

/// Words of `preserve_client_ip`.
const WORDS: [&str; 5] = ["none", "transparent", "proxy_v1", "proxy_v2", "toa"];

/// What the two keys of a group say together; `None` when that is a problem.
pub(super) fn read(group: &Table<'_>, protocol: Option<Protocol>, cx: &mut Context<'_>) -> Option<ClientIp> {
    let (preserve, back) = (group.optional("preserve_client_ip"), group.optional("return"));
    let way = match &preserve {
        Some(value) => way(value, protocol, cx)?,
        None => Way::Other(ClientIp::Hidden),
    };
    match (way, back, preserve) {
        (Way::Other(client_ip), None, _) => Some(client_ip),
        (Way::Other(_), Some(back), _) => {
            let draft = Fault::new(Kind::Conflict, "`return` is the way of answers to a client whose address endpoints see")
                .help("add `preserve_client_ip = \"transparent\"`, or remove the key");
            back.problem(draft, &mut cx.problems);
            None
        }
        (Way::Transparent, Some(back), _) => back.word(&RETURNS, &mut cx.problems),
        (Way::Transparent, None, Some(value)) => {
            let message = "`transparent` needs `return`: endpoints that see the client's address answer to it, not to this edge";
            let draft = Fault::new(Kind::MissingKey, message).help(
                "add `return = \"gateway\"` where endpoints' routes to clients lead to this edge, \"l2\" where endpoints are on a link of \
                 this edge and have the VIP too, or \"ipip\" where they unpack IP in IP and have the VIP too",
            );
            value.problem(draft, &mut cx.problems);
            None
        }
        (Way::Transparent, None, None) => None,
    }
}

/// What `preserve_client_ip` says.
enum Way {
    /// Endpoints get the client's packets: `return` says more.
    Transparent,
    /// They do not.
    Other(ClientIp),
}

/// How endpoints are told the client's address; `None` when the value is a problem.
fn way(value: &Value<'_>, protocol: Option<Protocol>, cx: &mut Context<'_>) -> Option<Way> {
    let word = value.string(&mut cx.problems)?;
    let draft = match (word, protocol) {
        ("none", _) => return Some(Way::Other(ClientIp::Hidden)),
        ("transparent", _) => return Some(Way::Transparent),
        ("proxy_v1" | "proxy_v2" | "toa", Some(Protocol::Udp)) => {
            Fault::new(Kind::NotAllowed, format!("`{word}` is for TCP listeners only"))
                .help("use \"transparent\", or \"none\" for the egress address")
        }
        ("proxy_v1", _) => return Some(Way::Other(ClientIp::ProxyV1)),
        ("proxy_v2", _) => return Some(Way::Other(ClientIp::ProxyV2)),
        ("toa", _) => Fault::new(Kind::NotSupportedYet, "`toa` is not supported yet in this version")
            .help("use \"proxy_v2\", \"transparent\", or \"none\" for the egress address"),
        _ if both(word) => Fault::new(Kind::Conflict, "one way of telling endpoints the client's address excludes the others")
            .help("choose one of \"transparent\", \"proxy_v1\", \"proxy_v2\" and \"toa\""),
        _ => not_a_word(word, WORDS.into_iter()),
    };
    value.problem(draft, &mut cx.problems);
    None
}

/// Whether it names two of the ways.
fn both(word: &str) -> bool {
    let ways = word.split([',', '+', '|', ' ']).filter(|part| !part.is_empty());
    ways.clone().count() > 1 && ways.into_iter().all(|part| WORDS.contains(&part))
}

/// Endpoints that have the VIP get packets for the port that clients sent them to.
pub(super) fn no_mapping(group: &Table<'_>, client_ip: ClientIp, mapping: &PortMapping, cx: &mut Context<'_>) {
    let (true, Some(value), true) = (client_ip.is_direct(), group.optional("port_mapping"), mapping.iter().next().is_some())
    else {
        return;
    };
    let message = format!("`return = \"{}\"` keeps packets as they are: their port cannot be mapped", client_ip.word());
    let draft = Fault::new(Kind::Conflict, message).help("let endpoints listen on the listener's ports");
    value.problem(draft, &mut cx.problems);
}

/// What stands for many backends, or speaks HTTP, does not know the client's packets (specification §1.9). Where the specification
/// asks for the PROXY protocol because a backend is off the cloud, routes of one's own do as well: `return` says which.
pub(super) fn no_proxy(
    group: &Table<'_>,
    client_ip: ClientIp,
    mut kinds: impl Iterator<Item = EndpointKind>,
    cx: &mut Context<'_>,
) {
    let Some(value) = group.optional("preserve_client_ip") else { return };
    let needs_header = |kind| kind == EndpointKind::Nlb && client_ip.is_kept();
    let is_blind = |kind| matches!(kind, EndpointKind::Alb | EndpointKind::Oss) && client_ip != ClientIp::Hidden;
    let Some(kind) = kinds.find(|kind| is_blind(*kind) || needs_header(*kind)) else { return };
    let draft = if needs_header(kind) {
        let message =
            "an endpoint of type \"nlb\" passes connections on to others, who see the client's address only in a header";
        Fault::new(Kind::Conflict, message).help(
            "use \"proxy_v2\" or \"proxy_v1\" without `return`, which the servers behind it must expect, or name the servers \
             themselves as endpoints",
        )
    } else {
        let message = format!("an endpoint of type \"{}\" cannot see the client's address", kind.word());
        Fault::new(Kind::Conflict, message).help("remove the key, or put the endpoint into a listener of its own")
    };
    value.problem(draft, &mut cx.problems);
}

/// Servers of a pool have ports of their own, which packets would have to be changed for.
pub(super) fn no_pool(group: &Table<'_>, client_ip: ClientIp, named: &[NamedEndpoint], cx: &mut Context<'_>) {
    let is_pool = |endpoint: &NamedEndpoint| matches!(endpoint.target, Target::Pool(_));
    let (true, true, Some(value)) = (client_ip.is_direct(), named.iter().any(is_pool), group.optional("return")) else { return };
    let message =
        format!("`return = \"{}\"` keeps packets as they are, and servers of a group have ports of their own", client_ip.word());
    let draft = Fault::new(Kind::Conflict, message).help("name the servers as endpoints that listen on the listener's ports");
    value.problem(draft, &mut cx.problems);
}

/// All flows of a listener take one path.
pub(super) fn all_agree(tables: &[Table<'_>], groups: &[Option<EndpointGroup>], cx: &mut Context<'_>) {
    let mut known = tables.iter().zip(groups).filter_map(|(table, group)| Some((table, group.as_ref()?.client_ip)));
    let Some((_, first)) = known.next() else { return };
    for (table, _) in known.filter(|(_, other)| *other != first) {
        let draft = Fault::new(Kind::Conflict, "the groups of a listener differ in how endpoints see clients and answer them")
            .help("give all of them the same `preserve_client_ip` and `return`, or put one into a listener of its own");
        cx.problems.push(table.span.clone(), &table.path, draft);
    }
}
