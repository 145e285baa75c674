//! What changes of listeners that the agent serves itself, beyond what the maps hold: rules, certificates, keys of HTTP.

use super::{
    Action, Change, Changes, Object,
    change::{pairs, whole},
};
use crate::model::{self, Intent, Listener, Rule};

impl Changes {
    /// The same, with what `new` changes of `old` that is no matter of the maps.
    #[must_use]
    pub fn with_served(mut self, old: &Intent, new: &Intent) -> Self {
        if old.node.access_log != new.node.access_log {
            self.changes.push(changed(Object::Node, "node", "access_log"));
        }
        for (instance, after) in new.listeners() {
            let before = old.listeners().find(|(other, listener)| other.id == instance.id && listener.name == after.name);
            // What is new or goes is named as a whole.
            let Some((_, before)) = before.filter(|(_, before)| before.is_proxied() && after.is_proxied()) else { continue };
            let path = format!("{}/{}", instance.id, after.name);
            self.changes.extend(differing(before, after).map(|key| changed(Object::Listener, &path, key)));
            rules(&path, &before.rules, &after.rules, &mut self.changes);
        }
        self.noop &= self.changes.is_empty();
        self
    }
}

fn changed(object: Object, name: &str, field: &str) -> Change {
    let (from, to) = (String::new(), String::new());
    Change { action: Action::Changed, object, name: name.to_owned(), field: field.to_owned(), from, to }
}

/// The keys of a listener that are not alike.
fn differing(old: &Listener, new: &Listener) -> impl Iterator<Item = &'static str> + use<> {
    let of_group = |same: fn(&model::EndpointGroup, &model::EndpointGroup) -> bool| {
        new.groups.iter().all(|group| old.groups.iter().find(|old| old.name == group.name).is_none_or(|old| same(old, group)))
    };
    let http = |same: fn(&model::Http, &model::Http) -> bool| match (&old.http, &new.http) {
        (Some(old), Some(new)) => same(old, new),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    let files = |listener: &Listener| listener.tls.as_ref().map(|tls| (tls.default.clone(), tls.additional.clone()));
    let keys = [
        ("certificates", files(old) == files(new)),
        ("security_policy", old.tls.as_ref().map(|tls| tls.policy) == new.tls.as_ref().map(|tls| tls.policy)),
        ("http_version", http(|old, new| old.max_version == new.max_version)),
        ("request_timeout", http(|old, new| old.request_timeout == new.request_timeout)),
        ("forwarded_headers", http(|old, new| old.forwarded == new.forwarded)),
        ("xff", http(|old, new| old.xff == new.xff)),
        ("trusted_proxies", http(|old, new| old.trusted == new.trusted)),
        ("underscores_in_headers", http(|old, new| old.underscores == new.underscores)),
        ("timeouts", http(|old, new| old.timeouts == new.timeouts)),
        ("http_limits", http(|old, new| old.limits == new.limits)),
        ("proxy_protocol", old.proxy_from == new.proxy_from),
        ("http_sniff", old.http_sniff == new.http_sniff),
        ("backend_protocol", of_group(|old, new| old.backend == new.backend)),
        ("preserve_client_ip", of_group(|old, new| old.client_ip == new.client_ip)),
    ];
    keys.into_iter().filter(|(_, same)| !same).map(|(key, _)| key)
}

fn rules(path: &str, old: &[Rule], new: &[Rule], changes: &mut Vec<Change>) {
    let about = |rule: &Rule| format!("priority {}", rule.priority);
    let name = |rule: &Rule| format!("{path}/{}", rule.name);
    pairs(
        old,
        new,
        |rule| &rule.name,
        |old, new| match (old, new) {
            (None, Some(new)) => changes.push(whole(Action::Added, Object::Rule, name(new), about(new))),
            (Some(old), None) => changes.push(whole(Action::Removed, Object::Rule, name(old), about(old))),
            (Some(old), Some(new)) => {
                if old.priority != new.priority {
                    let (from, to) = (old.priority.to_string(), new.priority.to_string());
                    changes.push(Change { from, to, ..changed(Object::Rule, &name(new), "priority") });
                }
                let parts = [
                    ("conditions", old.conditions == new.conditions),
                    ("action", (&old.action, &old.modifiers) == (&new.action, &new.modifiers)),
                ];
                let parts = parts.into_iter().filter(|(_, same)| !same);
                changes.extend(parts.map(|(part, _)| changed(Object::Rule, &name(new), part)));
            }
            (None, None) => {}
        },
    );
}
