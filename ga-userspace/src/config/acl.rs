//! `[[acl]]`, and the `acl` of a listener (specification §1.18).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::RangeInclusive,
    sync::Arc,
};

use ga_common::abi::{family::Family, sheet::MAX_BORDERS};
use ipnet::IpNet;

use super::{
    document::Context,
    keys,
    problem::{Fault, Kind},
    text,
    tree::{Table, Value, shorten},
};
use crate::model::{Acl, AclEntry, AclMode, ListenerAcl, Name};

/// Words of `mode`.
pub(super) const MODES: [(&str, AclMode); 2] = [("white", AclMode::White), ("black", AclMode::Black)];
/// Entries that a list holds in the data path: each has a beginning and an end.
pub(super) const MAX_ENTRIES: usize = (MAX_BORDERS - 1) / 2;
/// Characters of the description of an entry.
const DESCRIPTION: RangeInclusive<usize> = 1..=256;
/// Lists that a listener may name: one of each IP version.
const LISTS: usize = 2;

/// The lists of the file, and who names them.
#[derive(Default)]
pub(super) struct Acls(BTreeMap<Name, Known>);

struct Known {
    line: usize,
    /// None when something is wrong with it.
    acl: Option<Arc<Acl>>,
    listeners: u32,
}

/// Reads every list of the file.
pub(super) fn read_all(document: &Table<'_>, cx: &mut Context<'_>) -> Acls {
    let mut acls = Acls::default();
    let tables = document.optional("acl").and_then(|value| value.tables(&keys::ACL, &mut cx.problems)).unwrap_or_default();
    for table in &tables {
        let name_value = table.required("name", "give the list a name: `name = \"office\"`", &mut cx.problems);
        let name = name_value.as_ref().and_then(|value| Some((value, text::name(value, cx)?)));
        let entries = table.required("entries", "say who is listed: `entries = [\"192.0.2.0/24\"]`", &mut cx.problems);
        let entries = entries.and_then(|value| entries_of(&value, cx));
        let Some((value, name)) = name else { continue };
        let line = cx.problems.line(value.span.start);
        if let Some(first) = acls.0.get(&name) {
            let draft = Fault::new(Kind::Duplicate, format!("acl name `{name}` is taken by the list on line {}", first.line));
            value.problem(draft.help("names are unique in a file"), &mut cx.problems);
            continue;
        }
        let acl = entries.map(|entries| Arc::new(Acl { name: name.clone(), entries }));
        acls.0.insert(name, Known { line, acl, listeners: 0 });
    }
    acls
}

fn entries_of(value: &Value<'_>, cx: &mut Context<'_>) -> Option<Vec<AclEntry>> {
    let elements = value.array(&mut cx.problems)?;
    if let Some(excess) = elements.get(MAX_ENTRIES) {
        let draft = Fault::new(Kind::Capacity, format!("a list holds {MAX_ENTRIES} entries; this is one more"));
        excess.problem(draft.help("merge neighbouring networks into wider ones"), &mut cx.problems);
        return None;
    }
    let before = cx.problems.count();
    let mut seen: BTreeMap<IpNet, usize> = BTreeMap::new();
    let mut first: Option<(Family, usize)> = None;
    let mut entries = Vec::new();
    for element in &elements {
        let Some((place, net, description)) = entry(element, cx) else { continue };
        let line = cx.problems.line(place.span.start);
        let family = Family::of(net.addr());
        let (expected, since) = *first.get_or_insert((family, line));
        if family != expected {
            let message = format!("an {family} entry in an {expected} list (its first entry is on line {since})");
            let draft = Fault::new(Kind::Family, message).help("make a list of its own for each IP version");
            place.problem(draft, &mut cx.problems);
        } else if let Some(line) = seen.get(&net) {
            let draft = Fault::new(Kind::Duplicate, format!("{net} is listed already, on line {line}"));
            place.problem(draft.help("list it once"), &mut cx.problems);
        } else {
            seen.insert(net, line);
            entries.push(AclEntry { net, description });
        }
    }
    (cx.problems.count() == before).then_some(entries)
}

/// An entry: text, or a table with a description.
fn entry<'d>(element: &Value<'d>, cx: &mut Context<'_>) -> Option<(Value<'d>, IpNet, String)> {
    if element.as_string().is_some() {
        return Some((element.clone(), net(element, cx)?, String::new()));
    }
    let table = element.table(&keys::ACL_ENTRY, &mut cx.problems)?;
    let address = table.required("address", "an address or network: `address = \"192.0.2.0/24\"`", &mut cx.problems)?;
    let description = match table.optional("description") {
        Some(value) => described(&value, cx)?,
        None => String::new(),
    };
    let net = net(&address, cx)?;
    Some((address, net, description))
}

fn described(value: &Value<'_>, cx: &mut Context<'_>) -> Option<String> {
    let text = value.string(&mut cx.problems)?;
    let (low, high) = DESCRIPTION.into_inner();
    if DESCRIPTION.contains(&text.chars().count()) {
        return Some(text.to_owned());
    }
    let draft = Fault::new(Kind::OutOfRange, format!("the description of an entry has {low} to {high} characters"));
    value.problem(draft.help("shorten it, or remove the key"), &mut cx.problems);
    None
}

/// An address, or a network without bits behind its prefix.
pub(super) fn net(value: &Value<'_>, cx: &mut Context<'_>) -> Option<IpNet> {
    let text = value.string(&mut cx.problems)?;
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let (message, help) = match net {
        None => (
            format!("{:?} is neither an address nor a network", shorten(text)),
            "write \"192.0.2.7\" or \"192.0.2.0/24\"".to_owned(),
        ),
        Some(net) if net.addr() != net.network() => {
            (format!("{net} has bits behind its prefix"), format!("write \"{}\", or the single address", net.trunc()))
        }
        Some(IpNet::V6(net)) if net.addr().to_ipv4_mapped().is_some() => {
            (format!("{net} is IPv4 in IPv6 form"), "write it as IPv4".to_owned())
        }
        Some(net) => return Some(net),
    };
    value.problem(Fault::new(Kind::BadValue, message).help(help), &mut cx.problems);
    None
}

/// Reads a listener's `acl`; `port_items` is how many items its port list has.
pub(super) fn of_listener(
    value: &Value<'_>,
    port_items: Option<usize>,
    quota: &mut Quota,
    cx: &mut Context<'_>,
) -> Option<ListenerAcl> {
    let table = value.table(&keys::LISTENER_ACL, &mut cx.problems)?;
    let mode = table
        .required("mode", "`mode` is \"white\" (only who is listed) or \"black\" (all but who is listed)", &mut cx.problems)
        .and_then(|value| value.word(&MODES, &mut cx.problems));
    let kill_established = match table.optional("kill_established") {
        Some(value) => value.boolean(&mut cx.problems),
        None => Some(false),
    };
    let lists_value = table.required("lists", "name the lists: `lists = [\"office4\", \"office6\"]`", &mut cx.problems)?;
    let lists = lists(&lists_value, cx)?;
    let entries: usize = lists.iter().map(|acl| acl.entries.len()).sum();
    quota.check(&lists_value, entries, port_items.unwrap_or(1), cx);
    Some(ListenerAcl { mode: mode?, lists, kill_established: kill_established? })
}

fn lists(value: &Value<'_>, cx: &mut Context<'_>) -> Option<Vec<Arc<Acl>>> {
    let elements = value.array(&mut cx.problems)?;
    if elements.is_empty() {
        let draft = Fault::new(Kind::MissingKey, "at least one list is needed");
        value.problem(draft.help("name one, or remove `acl`: everybody is let in"), &mut cx.problems);
        return None;
    }
    if let Some(excess) = elements.get(LISTS) {
        let draft = Fault::new(Kind::Quota, "a listener has at most two lists: one IPv4 and one IPv6");
        excess.problem(draft.help("put the entries of both into one list"), &mut cx.problems);
    }
    let mut found: Vec<Arc<Acl>> = Vec::new();
    let mut named = BTreeSet::new();
    for element in &elements {
        let Some(acl) = named_list(element, &mut named, cx) else { continue };
        let family = |acl: &Acl| acl.entries.first().map(|entry| Family::of(entry.net.addr()));
        let same = found.iter().find(|other| family(other).is_some() && family(other) == family(&acl));
        if let (Some(other), Some(family)) = (same, family(&acl)) {
            let message =
                format!("`{}` and `{}` are both {family} lists; a listener has one of each IP version", other.name, acl.name);
            element.problem(Fault::new(Kind::Conflict, message).help("put the entries of both into one list"), &mut cx.problems);
        }
        found.push(acl);
    }
    (found.len() == elements.len()).then_some(found)
}

fn named_list(value: &Value<'_>, named: &mut BTreeSet<String>, cx: &mut Context<'_>) -> Option<Arc<Acl>> {
    let text = value.string(&mut cx.problems)?;
    if !named.insert(text.to_owned()) {
        let draft = Fault::new(Kind::Duplicate, format!("`{}` is named twice", shorten(text)));
        value.problem(draft.help("name each list once"), &mut cx.problems);
        return None;
    }
    let limit = cx.limits.listeners_per_acl;
    let Some(known) = cx.acls.0.iter_mut().find_map(|(name, known)| (name.as_str() == text).then_some(known)) else {
        let near = keys::nearest(text, cx.acls.0.keys().map(Name::as_str));
        let help = near.map_or("add `[[acl]]` with this name".to_owned(), |near| format!("did you mean `{near}`?"));
        value.problem(Fault::new(Kind::BadValue, format!("there is no acl `{}`", shorten(text))).help(help), &mut cx.problems);
        return None;
    };
    known.listeners += 1;
    let acl = known.acl.clone();
    if known.listeners == limit + 1 {
        let draft = Fault::new(Kind::Quota, format!("`limits.listeners_per_acl` allows {limit}; this listener is one more"));
        value.problem(draft.help("raise the limit, or give the listener a list of its own"), &mut cx.problems);
    }
    acl
}

/// What the lists of an instance's listeners come to.
#[derive(Default)]
pub(super) struct Quota(u64);

impl Quota {
    fn check(&mut self, value: &Value<'_>, entries: usize, port_items: usize, cx: &mut Context<'_>) {
        let limit = cx.limits.acl_entries_per_listener;
        if entries > limit as usize {
            let message = format!("{entries} entries; `limits.acl_entries_per_listener` allows {limit}");
            value.problem(Fault::new(Kind::Quota, message).help("raise the limit, or merge networks"), &mut cx.problems);
        }
        let limit = u64::from(cx.limits.acl_entries_per_instance);
        let before = self.0;
        self.0 += entries as u64 * port_items as u64;
        if before <= limit && self.0 > limit {
            let message = format!(
                "{port_items} port items times {entries} entries bring the instance to {}; `limits.acl_entries_per_instance` allows {limit}",
                self.0
            );
            value.problem(Fault::new(Kind::Quota, message).help("raise the limit, or merge networks or ports"), &mut cx.problems);
        }
    }
}
