//! What TCP listeners that the agent serves may have, and who may send them headers of the PROXY protocol (specification §1.9, §1.10).

use ipnet::IpNet;

use super::{
    document::Context,
    http, keys,
    problem::{Fault, Kind},
    tree::Table,
};
use crate::model::{EndpointGroup, Listener, Protocol, Rule};

/// Networks of `proxy_protocol`, none without the key; `None` when that is a problem.
pub(super) fn proxy_from(listener: &Table<'_>, protocol: Option<Protocol>, cx: &mut Context<'_>) -> Option<Vec<IpNet>> {
    let Some(value) = listener.optional("proxy_protocol") else { return Some(Vec::new()) };
    if protocol == Some(Protocol::Udp) {
        let draft = Fault::new(Kind::NotAllowed, "headers of the PROXY protocol stand in front of TCP connections");
        value.problem(draft.help("remove the key"), &mut cx.problems);
        return None;
    }
    let table = value.table(&keys::PROXY_PROTOCOL, &mut cx.problems)?;
    let from = table.required("from", "name the proxies in front of this edge: `from = [\"10.0.0.0/8\"]`", &mut cx.problems)?;
    let networks = http::networks(&from, cx)?;
    if networks.is_empty() {
        let draft = Fault::new(Kind::OutOfRange, "no network: nobody's header would be read");
        from.problem(draft.help("name the proxies in front of this edge, or remove `proxy_protocol`"), &mut cx.problems);
        return None;
    }
    Some(networks)
}

/// `http_sniff`, false without the key; `None` when that is a problem. Only rules ask for names, and those of HTTP listeners see them.
pub(super) fn http_sniff(
    listener: &Table<'_>,
    protocol: Option<Protocol>,
    rules: Option<&[Rule]>,
    cx: &mut Context<'_>,
) -> Option<bool> {
    let Some(value) = listener.optional("http_sniff") else { return Some(false) };
    let why = match (protocol, rules) {
        (Some(Protocol::Tcp) | None, None) => None,
        (Some(Protocol::Tcp) | None, Some(rules)) => {
            rules.is_empty().then_some("`http_sniff` is for forwarding rules, and this listener has none")
        }
        (Some(Protocol::Udp | Protocol::Http | Protocol::Https), _) => {
            Some("`http_sniff` is for tcp listeners with forwarding rules")
        }
    };
    if let Some(why) = why {
        value.problem(Fault::new(Kind::NotAllowed, why).help("remove the key"), &mut cx.problems);
        return None;
    }
    value.boolean(&mut cx.problems)
}

/// Ports are not mapped where a TCP listener has a virtual group, in none of its groups (specification §1.10). Whether that holds.
pub(super) fn no_mapping_beside_virtual(
    tables: &[Table<'_>],
    groups: &[Option<EndpointGroup>],
    protocol: Option<Protocol>,
    cx: &mut Context<'_>,
) -> bool {
    let is_virtual = |table: &Table<'_>| table.optional("kind").is_some_and(|value| value.as_string() == Some("virtual"));
    if protocol != Some(Protocol::Tcp) || !tables.iter().any(is_virtual) {
        return true;
    }
    let before = cx.problems.count();
    let maps = |group: &Option<EndpointGroup>| group.as_ref().is_some_and(|group| group.port_mapping.iter().next().is_some());
    let mapped = tables.iter().zip(groups).filter(|(_, group)| maps(group));
    for value in mapped.filter_map(|(table, _)| table.optional("port_mapping")) {
        let draft = Fault::new(Kind::Conflict, "a TCP listener with a virtual endpoint group cannot map ports");
        let help = "remove it and let endpoints serve the listener's ports, or give the virtual group's endpoints a listener of \
                    their own";
        value.problem(draft.help(help), &mut cx.problems);
    }
    cx.problems.count() == before
}

/// The agent's own connections to endpoints are not from the client's address.
pub(super) fn no_transparency(table: &Table<'_>, listener: &Listener, cx: &mut Context<'_>) {
    let is_kept = listener.client_ip().is_kept();
    if listener.protocol != Protocol::Tcp || !is_kept || listener.rules.is_empty() && listener.proxy_from.is_empty() {
        return;
    }
    let why = if listener.rules.is_empty() { "`proxy_protocol`" } else { "forwarding rules" };
    let message =
        format!("a TCP listener with {why} is served by connections of this edge: endpoints cannot see clients' packets");
    let draft = Fault::new(Kind::Conflict, message)
        .help("set `preserve_client_ip = \"proxy_v2\"` or \"proxy_v1\" in its groups, or \"none\", without `return`");
    cx.problems.push(table.span.clone(), &table.path, draft);
}
