//! `[inventory]`: what names of hosts and interfaces stand for, or where that is found out.

use std::{path::PathBuf, time::Duration};

use super::{
    address,
    document::Context,
    keys,
    problem::{Fault, Kind},
    tree::{Table, Value, shorten},
};
use crate::model::{Hosts, Inventory};

/// How often the address of an inventory is asked, in seconds.
pub(super) const INTERVAL_S: std::ops::RangeInclusive<u32> = 5..=3_600;
/// Addresses of a name.
const MAX_ADDRESSES: usize = 64;

const FILE_HELP: &str = "begin with `/`; what ends in `.json` is JSON, all else TOML";
const CA_HELP: &str = "begin with `/`; the file has certificates in PEM";

/// Reads the table; without it there are no names.
pub(super) fn read(document: &Table<'_>, cx: &mut Context<'_>) -> Option<Inventory> {
    let Some(value) = document.optional("inventory") else { return Some(Inventory::default()) };
    let table = value.table(&keys::INVENTORY, &mut cx.problems)?;
    let hosts = table.optional("hosts").map_or(Some(Hosts::new()), |value| hosts(&value, cx));
    let file = table.optional("file").map_or(Some(None), |value| path(&value, FILE_HELP, cx).map(Some));
    let ca = table.optional("ca").map_or(Some(None), |value| path(&value, CA_HELP, cx).map(Some));
    let url = table.optional("url").map_or(Some(None), |value| url(&value, cx).map(Some));
    let interval = table.optional("interval").map_or(Some(Inventory::INTERVAL), |value| {
        value.integer(INTERVAL_S, &mut cx.problems).map(|seconds| Duration::from_secs(seconds.into()))
    });
    if let (Some(value), false) = (table.optional("interval"), matches!(url, Some(Some(_)))) {
        let draft = Fault::new(Kind::NoEffect, "`interval` is how often `url` is asked, and there is no `url`");
        cx.problems.warn(value.span.clone(), &value.path, draft.help("a `file` is read when it changes; remove the key"));
    }
    let is_secured = matches!(&url, Some(Some(url)) if url.starts_with("https://"));
    if let (Some(value), false) = (table.optional("ca"), is_secured) {
        let draft =
            Fault::new(Kind::NoEffect, "`ca` says who vouches for the server of an `https://` address, and `url` is none");
        cx.problems.warn(value.span.clone(), &value.path, draft.help("set `url = \"https://…\"`, or remove the key"));
    }
    Some(Inventory { hosts: hosts?, file: file?, url: url?, ca: ca?, interval: interval? })
}

/// Whether a text that is no address can be the name of a host: 1 to 253 letters, digits, `.`, `_` and `-`, not all of them digits
/// and dots.
pub(super) fn may_be_host(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && text.bytes().any(|b| b.is_ascii_alphabetic())
}

/// The name of a host that the inventory has, or may have while the agent runs.
pub(super) fn host(value: &Value<'_>, cx: &mut Context<'_>) -> Option<String> {
    let name = value.string(&mut cx.problems)?;
    let Some(inventory) = &cx.inventory else { return None };
    if inventory.hosts.contains_key(name) || inventory.file.is_some() || inventory.url.is_some() {
        return Some(name.to_owned());
    }
    let draft = Fault::new(Kind::Conflict, format!("{:?} is neither an IP address nor a name of the inventory", shorten(name)));
    let draft = match keys::nearest(name, inventory.hosts.keys().map(String::as_str)) {
        Some(near) => draft.help(format!("did you mean {near:?}?")),
        None => draft.help("add it to `[inventory.hosts]`, or name an `inventory.file` or `inventory.url` that has it"),
    };
    value.problem(draft, &mut cx.problems);
    None
}

fn hosts(value: &Value<'_>, cx: &mut Context<'_>) -> Option<Hosts> {
    let before = cx.problems.count();
    let mut hosts = Hosts::new();
    for (name, value) in value.entries(&mut cx.problems)? {
        if !may_be_host(&name) {
            let draft = Fault::new(Kind::BadValue, format!("{:?} cannot be the name of a host", shorten(&name)));
            value.problem(draft.help("1 to 253 letters, digits, `.`, `_` and `-`"), &mut cx.problems);
            continue;
        }
        let elements = if value.as_string().is_some() { vec![value.clone()] } else { value.array(&mut cx.problems)? };
        if elements.is_empty() || elements.len() > MAX_ADDRESSES {
            let message = format!("a name has 1 to {MAX_ADDRESSES} addresses, this one {}", elements.len());
            value.problem(Fault::new(Kind::OutOfRange, message).help("the first is the primary one"), &mut cx.problems);
        }
        let mut addresses = Vec::new();
        for element in &elements {
            let Some(address) = address::read(element, "a host", cx) else { continue };
            if addresses.contains(&address) {
                let draft = Fault::new(Kind::Duplicate, format!("{address} is listed twice")).help("list it once");
                element.problem(draft, &mut cx.problems);
            }
            addresses.push(address);
        }
        hosts.insert(name, addresses);
    }
    (cx.problems.count() == before).then_some(hosts)
}

fn path(value: &Value<'_>, help: &str, cx: &mut Context<'_>) -> Option<PathBuf> {
    let text = value.string(&mut cx.problems)?;
    if text.starts_with('/') && text.len() < 4_096 {
        return Some(PathBuf::from(text));
    }
    let draft = Fault::new(Kind::BadValue, format!("{:?} is not the full path of a file", shorten(text)));
    value.problem(draft.help(help), &mut cx.problems);
    None
}

fn url(value: &Value<'_>, cx: &mut Context<'_>) -> Option<String> {
    let text = value.string(&mut cx.problems)?;
    if ["http://", "https://"].iter().any(|scheme| text.strip_prefix(scheme).is_some_and(is_authority)) {
        return Some(text.to_owned());
    }
    let draft = Fault::new(Kind::BadValue, format!("{:?} is not an address of the form https://host/path", shorten(text)))
        .help("as in \"http://10.0.0.5:8500/hosts.json\": a host or an IP address, a port if it is not the usual one, a path");
    value.problem(draft, &mut cx.problems);
    None
}

/// Whether what follows the scheme begins with a host, and has no space or control character.
fn is_authority(rest: &str) -> bool {
    let authority = rest.split('/').next().unwrap_or_default();
    !authority.is_empty()
        && !authority.contains('@')
        && rest.len() < 2_048
        && rest.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
}
