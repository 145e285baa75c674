//! `max_connections` of a listener, `circuit` of an endpoint group: for what the agent serves itself.

use std::ops::RangeInclusive;

use super::{
    document::Context,
    keys,
    problem::{Fault, Kind},
    tree::{Table, Value},
};
use crate::model::{Circuit, Listener, MAX_CONNECTIONS, Protocol};

/// `max_connections` of a listener, `proxy_connections` of the node.
pub(super) const CONNECTIONS: RangeInclusive<u32> = 1..=10_000_000;

/// Both keys of `circuit`.
pub(super) const CIRCUIT: RangeInclusive<u32> = 1..=1_000_000;

/// `max_connections`; the default without the key.
pub(super) fn max_connections(listener: &Table<'_>, cx: &mut Context<'_>) -> Option<u32> {
    listener.optional("max_connections").map_or(Some(MAX_CONNECTIONS), |value| value.integer(CONNECTIONS, &mut cx.problems))
}

/// `circuit` of a group; the defaults without the key.
pub(super) fn circuit(group: &Table<'_>, protocol: Option<Protocol>, cx: &mut Context<'_>) -> Option<Circuit> {
    let usual = Circuit::default();
    let Some(value) = group.optional("circuit") else { return Some(usual) };
    let table = value.table(&keys::CIRCUIT, &mut cx.problems)?;
    let requests = table.optional("requests");
    if let (Some(value), Some(Protocol::Tcp)) = (&requests, protocol) {
        let draft = Fault::new(Kind::NotAllowed, "connections of TCP listeners carry no requests that could be counted");
        value.problem(draft.help("use `connections`"), &mut cx.problems);
        return None;
    }
    let mut number = |value: Option<Value<'_>>, usual| match value {
        Some(value) => value.integer(CIRCUIT, &mut cx.problems),
        None => Some(usual),
    };
    let connections = number(table.optional("connections"), usual.connections);
    let requests = number(requests, usual.requests);
    Some(Circuit { connections: connections?, requests: requests? })
}

/// The kernel knows of no connections: where it serves, flow memory is the limit.
pub(super) fn only_served(table: &Table<'_>, listener: &Listener, cx: &mut Context<'_>) {
    if listener.is_proxied() {
        return;
    }
    let help = "remove the key: `node.flows` and `max_new_flows_per_second` bound what the kernel serves";
    if let Some(value) = table.optional("max_connections") {
        let draft = Fault::new(Kind::NotAllowed, "the kernel serves this listener, and has no connections to count");
        value.problem(draft.help(help), &mut cx.problems);
    }
    for group in listener.groups.iter().filter(|group| group.circuit != Circuit::default()) {
        let message = format!("the kernel serves this listener: the `circuit` of group `{}` has no effect", group.name);
        cx.problems.push(table.span.clone(), &table.path, Fault::new(Kind::NotAllowed, message).help(help));
    }
}
