//! Rules between the running intent and the one that is to replace it (specification §1.2.3).
//!
//! The documentation states them for edits of a listener: while a port is mapped, the listener keeps it, and keeps its
//! protocol. One file changes listener and mapping at once, so the running mapping is what counts: first the mapping goes, and
//! with the next change the port. A listener that goes altogether takes its mappings along.

use super::{
    ListenerPlaces, Loaded,
    problem::{Fault, Kind, Problem, Severity},
};
use crate::model::{Instance, Intent, Listener};

/// What forbids replacing `old` by `new`.
pub(super) fn check(old: &Intent, new: &Loaded) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (instance, running) in old.listeners() {
        let Some(next) = counterpart(instance, running, &new.intent) else { continue };
        let Some(places) = new.places.get(&(instance.id.to_string(), running.name.to_string())) else { continue };
        if running.is_custom() != next.is_custom() {
            routing_stays(running, places, &mut problems);
            continue;
        }
        mapped_ports_stay(running, next, places, &mut problems);
        protocol_stays(running, next, places, &mut problems);
    }
    problems.sort_by_key(|problem| problem.place.offset);
    problems
}

fn counterpart<'n>(instance: &Instance, listener: &Listener, new: &'n Intent) -> Option<&'n Listener> {
    let instance = new.instances.iter().find(|other| other.id == instance.id)?;
    instance.listeners.iter().find(|other| other.name == listener.name)
}

fn mapped_ports_stay(running: &Listener, next: &Listener, places: &ListenerPlaces, problems: &mut Vec<Problem>) {
    for (port, endpoint) in running.port_mapping().iter().filter(|(port, _)| !next.ports.contains(*port)) {
        let message = format!("port {port} cannot go: the running configuration maps it to endpoint port {endpoint}");
        let draft = Fault::new(Kind::Change, message)
            .help(format!("first remove the mapping of port {port} and reload, then remove the port; or keep the port"));
        problems.push(draft.at(Severity::Error, places.ports.clone()));
    }
}

fn routing_stays(running: &Listener, places: &ListenerPlaces, problems: &mut Vec<Problem>) {
    let kind = if running.is_custom() { "custom_routing" } else { "standard" };
    let draft = Fault::new(Kind::Change, format!("the type cannot change: the running listener is of type {kind}"))
        .help("remove the listener and reload, then add it again; or give the new one another name");
    problems.push(draft.at(Severity::Error, places.routing.clone()));
}

fn protocol_stays(running: &Listener, next: &Listener, places: &ListenerPlaces, problems: &mut Vec<Problem>) {
    if running.port_mapping().is_empty() || running.protocol == next.protocol {
        return;
    }
    let (from, to) = (running.protocol.word(), next.protocol.word());
    let message =
        format!("the protocol cannot change from {from} to {to}: the running configuration maps ports of this listener");
    let draft = Fault::new(Kind::Change, message).help("first remove the mappings and reload, then change the protocol");
    problems.push(draft.at(Severity::Error, places.protocol.clone()));
}
