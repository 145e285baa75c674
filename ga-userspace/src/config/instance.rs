//! `[[instance]]`: addresses, and the rules between the listeners of one instance.

use std::{collections::BTreeMap, net::IpAddr};

use ga_common::abi::family::Family;
use ga_common::abi::limits::MAX_EGRESS;

use super::{
    address,
    document::{Context, Seen},
    keys, limits, listener,
    listener::Before,
    problem::{Code, Fault, Kind},
    text,
    tree::{Table, Value},
};
use crate::model::{Instance, Listener, Name};

/// What listeners must know of their instance.
pub(super) struct Surroundings {
    /// Its index in the file.
    pub(super) index: usize,
    /// Its id as written, right or wrong.
    pub(super) id: String,
    /// `None` when some are wrong: then nothing can be said about families.
    pub(super) vips: Option<Vec<IpAddr>>,
}

/// Reads one instance; `ids` are those of the instances before it, with their lines.
pub(super) fn read(index: usize, table: &Table<'_>, ids: &mut BTreeMap<Name, usize>, cx: &mut Context<'_>) -> Option<Instance> {
    let id_value = table.required("id", "give the instance an id: `id = \"ga-demo\"`", &mut cx.problems);
    let id = id_value.as_ref().and_then(|value| id(value, ids, cx));
    let vips_value = table.required("vips", "name what clients reach: `vips = [\"198.51.100.10\"]`", &mut cx.problems);
    let vips = vips_value.and_then(|value| addresses(&value, index, Role::Vip, cx));
    let help = "name what endpoints will see: `egress_ips = [\"203.0.113.5\"]`";
    let egress_value = table.required("egress_ips", help, &mut cx.problems);
    let egress_ips = egress_value.as_ref().and_then(|value| addresses(value, index, Role::Egress, cx));
    let id_text = id_value.as_ref().and_then(Value::as_string).unwrap_or_default().to_owned();
    let around = Surroundings { index, id: id_text, vips };

    let first_endpoint = cx.ledger.endpoints.len();
    let listeners = listeners(table, &around, cx);
    if let (Some(value), Some(egress_ips)) = (egress_value, &egress_ips) {
        egress_for_every_family(&value, egress_ips, first_endpoint, cx);
    }
    Some(Instance { id: id?, vips: around.vips?, egress_ips: egress_ips?, listeners: listeners? })
}

fn id(value: &Value<'_>, ids: &mut BTreeMap<Name, usize>, cx: &mut Context<'_>) -> Option<Name> {
    let id = text::name(value, cx)?;
    let line = cx.problems.line(value.span.start);
    match ids.get(&id) {
        Some(first) => {
            let draft = Fault::new(Kind::Duplicate, format!("instance id `{id}` is taken by the instance on line {first}"));
            value.problem(draft.help("ids are unique in a file"), &mut cx.problems);
            None
        }
        None => {
            ids.insert(id.clone(), line);
            Some(id)
        }
    }
}

#[derive(Clone, Copy)]
enum Role {
    Vip,
    Egress,
}

/// All addresses of a list, or `None` when one of them is wrong. Right ones are noted in the ledger either way.
fn addresses(value: &Value<'_>, instance: usize, role: Role, cx: &mut Context<'_>) -> Option<Vec<IpAddr>> {
    let elements = value.array(&mut cx.problems)?;
    let what = match role {
        Role::Vip => "a VIP",
        Role::Egress => "an egress address",
    };
    if elements.is_empty() {
        value.problem(
            Fault::new(Kind::MissingKey, format!("{what} is needed")).help("the list is empty: add an address"),
            &mut cx.problems,
        );
        return None;
    }
    let mut found = Vec::new();
    for element in &elements {
        let Some(address) = address::read(element, what, cx) else { continue };
        let seen = Seen { address, instance, span: element.span.clone(), path: element.path.clone() };
        match role {
            Role::Vip => cx.ledger.vips.push(seen),
            Role::Egress => cx.ledger.egress_ips.push(seen),
        }
        found.push(address);
    }
    match role {
        Role::Vip => {}
        Role::Egress => egress_capacity(&elements, cx),
    }
    (found.len() == elements.len()).then_some(found)
}

fn egress_capacity(elements: &[Value<'_>], cx: &mut Context<'_>) {
    for family in Family::ALL {
        let of_family = |element: &&Value<'_>| {
            element.as_string().and_then(|text| text.parse().ok()).is_some_and(|address| Family::of(address) == family)
        };
        if let Some(excess) = elements.iter().filter(of_family).nth(MAX_EGRESS) {
            let message =
                format!("an instance holds {MAX_EGRESS} egress addresses of a family; this {family} address is one more");
            excess.problem(
                Fault::new(Kind::Capacity, message).help("share the listeners out to several instances"),
                &mut cx.problems,
            );
        }
    }
}

fn egress_for_every_family(value: &Value<'_>, egress_ips: &[IpAddr], first_endpoint: usize, cx: &mut Context<'_>) {
    for family in Family::ALL {
        let wanted = cx.ledger.endpoints[first_endpoint..].iter().find(|seen| Family::of(seen.address) == family);
        let Some(endpoint) = wanted else { continue };
        if egress_ips.iter().all(|address| Family::of(*address) != family) {
            let line = cx.problems.line(endpoint.span.start);
            let message = format!("no {family} egress address for the {family} endpoint on line {line}");
            let draft = Fault::new(Kind::Family, message).help(format!("add an {family} address to `egress_ips`"));
            value.problem(draft, &mut cx.problems);
        }
    }
}

fn listeners(table: &Table<'_>, around: &Surroundings, cx: &mut Context<'_>) -> Option<Vec<Listener>> {
    let value = table.required("listener", "add `[[instance.listener]]`", &mut cx.problems)?;
    let tables = value.tables(&keys::LISTENER, &mut cx.problems)?;
    let limit = cx.limits.listeners_per_instance as usize;
    if let Some(excess) = tables.get(limit) {
        let draft =
            Fault::new(Kind::Quota, format!("{} listeners; `limits.listeners_per_instance` allows {limit}", tables.len()))
                .help(format!("raise the limit, up to {}", limits::LISTENERS_PER_INSTANCE.end()))
                .code(Code::QuotaExceededListener);
        cx.problems.push(excess.span.clone(), &excess.path, draft);
    }
    let mut names = BTreeMap::new();
    let mut before = Before::default();
    let read = |table: &Table<'_>| listener::read(table, around, &mut names, &mut before, cx);
    tables.iter().map(read).collect::<Vec<_>>().into_iter().collect()
}
