//! Two plans to what people want to know before they say yes: what changes, and which part of the new flows would go elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{EndpointView, GroupView, InstanceView, ListenerView, Moved, Plan, moved::moved};
use crate::model::Affinity;

/// What happens to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is new.
    Added,
    /// It goes.
    Removed,
    /// One of its fields changes.
    Changed,
}

/// What something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Object {
    /// An accelerator.
    Instance,
    /// An address of an instance that clients reach.
    Vip,
    /// An address of an instance that endpoints see.
    EgressIp,
    /// A listener.
    Listener,
    /// An endpoint of a listener.
    Endpoint,
    /// A forwarding rule of a listener.
    Rule,
    /// This host.
    Node,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What happens.
    pub action: Action,
    /// To what.
    pub object: Object,
    /// Its full name.
    pub name: String,
    /// The field that changes; empty for the whole object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// The value before; empty with the one after when it would be too long to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// The value after.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub to: String,
}

/// What a plan changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// The plan that is replaced, if its names are known.
    pub from: Option<u64>,
    /// The plan.
    pub to: u64,
    /// Nothing changes.
    pub noop: bool,
    /// Another hash key: every flow chooses anew.
    pub seed_changed: bool,
    /// Line by line.
    pub changes: Vec<Change>,
    /// Only those that move anything.
    pub moved: Vec<Moved>,
    /// Mean over all tables that are in use before.
    pub moved_total: f64,
    /// What an operator may have overlooked.
    pub notes: Vec<String>,
}

/// What `new` changes of `old`; everything is new when there is no `old`.
pub fn compare(old: Option<&Plan>, new: &Plan) -> Changes {
    let mut changes = Vec::new();
    instances(old.map_or(&[], |old| &old.instances), &new.instances, &mut changes);
    listeners(old.map_or(&[], |old| &old.listeners), &new.listeners, &mut changes);
    let all = old.map_or_else(Vec::new, |old| moved(old, new));
    let moved_total = all.iter().map(|moved| moved.share).sum::<f64>() / all.len().max(1) as f64;
    Changes {
        from: old.map(|old| old.generation.0),
        to: new.generation.0,
        noop: new.is_noop() && changes.is_empty(),
        seed_changed: old.is_some_and(|old| old.target.seed != new.target.seed),
        changes,
        moved: all.into_iter().filter(|moved| moved.share > 0.0).collect(),
        moved_total,
        notes: new.notes.iter().map(ToString::to_string).collect(),
    }
}

/// Calls `each` with what both sides have under every name, in the order of the names.
pub(super) fn pairs<'a, T, K: Ord>(
    old: &'a [T],
    new: &'a [T],
    key: impl Fn(&'a T) -> K,
    mut each: impl FnMut(Option<&'a T>, Option<&'a T>),
) {
    let by_key = |items: &'a [T]| -> BTreeMap<K, &'a T> { items.iter().map(|item| (key(item), item)).collect() };
    let (old, new) = (by_key(old), by_key(new));
    for name in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        each(old.get(name).copied(), new.get(name).copied());
    }
}

pub(super) fn whole(action: Action, object: Object, name: String, about: String) -> Change {
    let (from, to) = match action {
        Action::Removed => (about, String::new()),
        Action::Added | Action::Changed => (String::new(), about),
    };
    Change { action, object, name, field: String::new(), from, to }
}

fn instances(old: &[InstanceView], new: &[InstanceView], changes: &mut Vec<Change>) {
    pairs(
        old,
        new,
        |instance| &instance.name,
        |old, new| {
            let Some(name) = new.or(old).map(|instance| instance.name.to_string()) else { return };
            match (old, new) {
                (None, _) => changes.push(whole(Action::Added, Object::Instance, name.clone(), String::new())),
                (_, None) => changes.push(whole(Action::Removed, Object::Instance, name.clone(), String::new())),
                (Some(_), Some(_)) => {}
            }
            let sides = |ips: fn(&InstanceView) -> &[std::net::IpAddr]| (old.map_or(&[][..], ips), new.map_or(&[][..], ips));
            let lists =
                [(Object::Vip, sides(|instance| &instance.vips)), (Object::EgressIp, sides(|instance| &instance.egress_ips))];
            for (object, (before, after)) in lists {
                let line = |action, ip| whole(action, object, format!("{name}/{ip}"), String::new());
                changes.extend(before.iter().filter(|ip| !after.contains(ip)).map(|ip| line(Action::Removed, ip)));
                changes.extend(after.iter().filter(|ip| !before.contains(ip)).map(|ip| line(Action::Added, ip)));
            }
        },
    );
}

fn listeners(old: &[ListenerView], new: &[ListenerView], changes: &mut Vec<Change>) {
    pairs(old, new, ListenerView::path, |old, new| {
        let about = |listener: &ListenerView| {
            format!("{} {}, {} endpoints", listener.protocol_word(), listener.ports, listener.endpoints.len())
        };
        match (old, new) {
            (None, Some(new)) => changes.push(whole(Action::Added, Object::Listener, new.path(), about(new))),
            (Some(old), None) => changes.push(whole(Action::Removed, Object::Listener, old.path(), about(old))),
            (Some(old), Some(new)) => changes.extend(listener_fields(old, new)),
            (None, None) => {}
        }
        endpoints(old.map_or(&[], |old| &old.endpoints), new.map_or(&[], |new| &new.endpoints), changes);
    });
}

fn listener_fields(old: &ListenerView, new: &ListenerView) -> Vec<Change> {
    let values = |listener: &ListenerView| {
        let mapping: Vec<_> = listener.port_mapping.iter().map(|(from, to)| format!("{from}:{to}")).collect();
        let affinity = match listener.affinity {
            Affinity::None => "none",
            Affinity::SourceIp => "source_ip",
        };
        [
            ("protocol", listener.protocol_word().to_owned()),
            ("ports", listener.ports.to_string()),
            ("client_affinity", affinity.to_owned()),
            ("idle_timeout", format!("{} s", listener.idle_timeout_s)),
            ("max_new_flows_per_second", allowance(listener.max_new_flows_per_second)),
            ("acl", listener.acl.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)),
            ("custom", listener.custom.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)),
            ("endpoint_group", words(listener, |group| group.name.to_string())),
            ("region", words(listener, |group| group.region.clone())),
            ("return", listener.client_ip.word().to_owned()),
            ("port_mapping", if mapping.is_empty() { "none".to_owned() } else { mapping.join(",") }),
        ]
    };
    fields(Object::Listener, &new.path(), values(old), values(new))
}

/// Of all groups, in the order of their names.
fn words(listener: &ListenerView, word: impl Fn(&GroupView) -> String) -> String {
    listener.groups.iter().map(word).collect::<Vec<_>>().join(",")
}

fn allowance(rate: u32) -> String {
    if rate == 0 { "automatic".to_owned() } else { rate.to_string() }
}

fn endpoint_fields(old: &EndpointView, new: &EndpointView) -> Vec<Change> {
    let values = |endpoint: &EndpointView| {
        [("weight", endpoint.weight.to_string()), ("drained", endpoint.drained.to_string()), ("share", percent(endpoint.share))]
    };
    fields(Object::Endpoint, &new.name.to_string(), values(old), values(new))
}

/// A line for every field whose value differs.
fn fields<const N: usize>(
    object: Object,
    name: &str,
    old: [(&'static str, String); N],
    new: [(&'static str, String); N],
) -> Vec<Change> {
    let differing = old.into_iter().zip(new).filter(|(old, new)| old != new);
    let line = |((field, from), (_, to)): ((&str, String), (&str, String))| Change {
        action: Action::Changed,
        object,
        name: name.to_owned(),
        field: field.to_owned(),
        from,
        to,
    };
    differing.map(line).collect()
}

fn endpoints(old: &[EndpointView], new: &[EndpointView], changes: &mut Vec<Change>) {
    let about = |endpoint: &EndpointView| {
        let drained = if endpoint.drained { ", drained" } else { "" };
        format!("weight {}, {}{drained}", endpoint.weight, percent(endpoint.share))
    };
    let line = |action, endpoint: &EndpointView| whole(action, Object::Endpoint, endpoint.name.to_string(), about(endpoint));
    pairs(
        old,
        new,
        |endpoint| &endpoint.name,
        |old, new| match (old, new) {
            (None, Some(new)) => changes.push(line(Action::Added, new)),
            (Some(old), None) => changes.push(line(Action::Removed, old)),
            (Some(old), Some(new)) => changes.extend(endpoint_fields(old, new)),
            (None, None) => {}
        },
    );
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
