//! Two states to steps, every prefix of which is safe to stop at.
//!
//! The order is the proof: what others point to comes first and goes last. First everything is added (addresses, egress,
//! listeners, endpoints, tables), then packets are pointed to it (activation, services), then what nobody points to any more
//! goes (services, tables, endpoints, listeners, egress, addresses). An address that changes is first the union of old and
//! new. All tables are filled before the first is activated, so that edges show a mix of two plans only for an instant.

use std::sync::Arc;

use ga_common::abi::{
    active::Active,
    entry::{Address, Egress, Endpoint, Listener},
};

use super::{State, Step};

/// What turns `running` into `target`; nothing when they are equal. Ids of `target` must stem from `running`, as
/// [`build`](super::build) makes them.
pub fn steps(running: &State, target: &State) -> Vec<Step> {
    let mut steps = Vec::new();
    if running.seed != target.seed {
        steps.push(Step::SetSeed(target.seed));
    }
    add(running, target, &mut steps);
    point(running, target, &mut steps);
    remove(running, target, &mut steps);
    if running.generation != target.generation {
        steps.push(Step::SetGeneration(target.generation));
    }
    steps
}

fn add(running: &State, target: &State, steps: &mut Vec<Step>) {
    for (key, new) in &target.addresses {
        let old = running.addresses.get(key);
        let both = union(old, new);
        if old != Some(&both) {
            steps.push(Step::PutAddress(*key, both));
        }
    }
    for (id, sheet) in &target.sheets {
        if let Some(content) = sheet.content.as_ref().filter(|_| !running.sheets.contains_key(id)) {
            steps.push(Step::FillSheet { id: *id, content: content.clone() });
        }
    }
    for (id, egress) in &target.egress {
        // Custom routing is pointed to when all that it names is there.
        let old = running.egress.get(id).copied();
        let first = Egress { custom: old.map_or(0, |old| old.custom), ..*egress };
        if old != Some(first) {
            steps.push(Step::PutEgress(*id, first));
        }
    }
    for (id, listener) in &target.listeners {
        if !running.listeners.contains_key(id) {
            steps.push(Step::PutListener(*id, *listener));
        }
    }
    for (id, endpoint) in &target.endpoints {
        if endpoint.is_in_use() && running.endpoints.get(id) != Some(endpoint) {
            steps.push(Step::PutEndpoint(*id, *endpoint));
        }
    }
    // After its endpoints: where flows are to keep their clients' addresses, answers must be known as such before.
    for (id, listener) in &target.listeners {
        if running.listeners.get(id).is_some_and(|old| old != listener && !leaves_host(old, listener)) {
            steps.push(Step::PutListener(*id, *listener));
        }
    }
    for (id, table) in &target.tables {
        if let Some(slots) = table.slots.as_ref().filter(|_| !running.tables.contains_key(id)) {
            steps.push(Step::FillTable { id: *id, digest: table.digest, slots: Arc::clone(slots) });
        }
    }
}

fn point(running: &State, target: &State, steps: &mut Vec<Step>) {
    for (id, egress) in &target.egress {
        if running.egress.get(id).map_or(0, |old| old.custom) != egress.custom {
            steps.push(Step::PutEgress(*id, *egress));
        }
    }
    for (&(listener, family), &active) in &target.active {
        if running.active.get(&(listener, family)) != Some(&active) {
            steps.push(Step::Activate { listener, family, active });
        }
    }
    for key in running.services.keys().filter(|key| !target.services.contains_key(key)) {
        steps.push(Step::RemoveService(*key));
    }
    for (key, service) in &target.services {
        if running.services.get(key) != Some(service) {
            steps.push(Step::PutService(*key, *service));
        }
    }
    for (id, listener) in &target.listeners {
        if running.listeners.get(id).is_some_and(|old| leaves_host(old, listener)) {
            steps.push(Step::PutListener(*id, *listener));
        }
    }
}

/// The agent serves it no more: new flows need what is pointed to first.
fn leaves_host(old: &Listener, new: &Listener) -> bool {
    old.flags & Listener::HOST != 0 && new.flags & Listener::HOST == 0
}

fn remove(running: &State, target: &State, steps: &mut Vec<Step>) {
    for (&(listener, family), &active) in &running.active {
        if active != Active::EMPTY && !target.active.contains_key(&(listener, family)) {
            steps.push(Step::Activate { listener, family, active: Active::EMPTY });
        }
    }
    for id in running.tables.keys().filter(|id| !target.tables.contains_key(id)) {
        steps.push(Step::ReleaseTable(*id));
    }
    for (id, endpoint) in &target.endpoints {
        let used = running.endpoints.get(id).is_some_and(Endpoint::is_in_use);
        if used && !endpoint.is_in_use() {
            steps.push(Step::RetireEndpoint(*id));
        }
    }
    for id in running.listeners.keys().filter(|id| !target.listeners.contains_key(id)) {
        steps.push(Step::RemoveListener(*id));
    }
    for id in running.sheets.keys().filter(|id| !target.sheets.contains_key(id)) {
        steps.push(Step::ReleaseSheet(*id));
    }
    for id in running.egress.keys().filter(|id| !target.egress.contains_key(id)) {
        steps.push(Step::RemoveEgress(*id));
    }
    for (key, new) in &target.addresses {
        if union(running.addresses.get(key), new) != *new {
            steps.push(Step::PutAddress(*key, *new));
        }
    }
    for key in running.addresses.keys().filter(|key| !target.addresses.contains_key(*key)) {
        steps.push(Step::RemoveAddress(*key));
    }
}

/// Good for the old plan and for the new one.
fn union(old: Option<&Address>, new: &Address) -> Address {
    old.map_or(*new, |old| Address { roles: old.roles | new.roles, protocols: old.protocols | new.protocols, ..*new })
}
