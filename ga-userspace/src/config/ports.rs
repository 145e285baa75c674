//! Port lists (specification §1.2.2): every wrong item has its own place; no list is expanded before it is known to be short.

use std::ops::Range;

use super::{
    document::Context,
    limits,
    problem::{Code, Draft, Fault, Kind, Problems},
    tree::Value,
};
use crate::model::{Port, PortError, Ports};

/// The ports, and which item of the text names which.
pub(super) struct PortList {
    pub(super) ports: Ports,
    items: Vec<Item>,
}

struct Item {
    span: Range<usize>,
    first: Port,
    last: Port,
}

impl PortList {
    /// How many items the text has: single ports and ranges.
    pub(super) fn items(&self) -> usize {
        self.items.len()
    }

    /// Where `port` is named.
    pub(super) fn place_of(&self, port: Port) -> Range<usize> {
        self.items.iter().find(|item| (item.first..=item.last).contains(&port)).map_or(0..0, |item| item.span.clone())
    }
}

/// The ports of a listener, no more than the limit for listeners that balance when `is_limited`.
pub(super) fn read(value: &Value<'_>, is_limited: bool, cx: &mut Context<'_>) -> Option<PortList> {
    let text = value.string(&mut cx.problems)?;
    let before = cx.problems.count();
    let parts = value.parts(&cx.problems);
    let mut items = Vec::new();
    let mut start = 0;
    for text in text.split(',') {
        let span = parts.place(trimmed(start, text));
        start += text.len() + 1;
        match item(text) {
            Ok((first, last)) => items.push(Item { span, first, last }),
            Err(error) => cx.problems.push(span, &value.path, illegal(&error)),
        }
    }
    twice(&items, &value.path, &mut cx.problems);
    let count: u64 = items.iter().map(|item| u64::from(item.last.get() - item.first.get()) + 1).sum();
    let limit = cx.limits.ports_per_l4_listener;
    if is_limited && count > u64::from(limit) {
        let draft = Fault::new(Kind::Quota, format!("{count} ports; `limits.ports_per_l4_listener` allows {limit}"))
            .help(format!("use several listeners, or raise the limit, up to {}", limits::PORTS_PER_L4_LISTENER.end()))
            .code(Code::QuotaExceededListenerPort);
        value.problem(draft, &mut cx.problems);
    }
    if cx.problems.count() > before {
        return None;
    }
    match Ports::parse(text) {
        Ok(ports) => Some(PortList { ports, items }),
        Err(error) => {
            value.problem(illegal(&error), &mut cx.problems);
            None
        }
    }
}

fn item(text: &str) -> Result<(Port, Port), PortError> {
    match text.split_once(['~', '-']) {
        Some((first, last)) => {
            let (first, last) = (Port::parse(first)?, Port::parse(last)?);
            if last < first { Err(PortError::Backwards { item: text.trim().to_owned() }) } else { Ok((first, last)) }
        }
        None => Port::parse(text).map(|port| (port, port)),
    }
}

fn illegal(error: &PortError) -> Draft {
    let (kind, help) = match error {
        PortError::Empty => (Kind::BadValue, "ports are separated by single commas: \"80,90~92,8080\""),
        PortError::NotANumber { .. } => (Kind::BadValue, "ports are numbers, ranges are written \"80~85\""),
        PortError::OutOfRange { .. } => (Kind::OutOfRange, "listener ports are 1 to 65499"),
        PortError::Backwards { .. } => (Kind::BadValue, "write the lower port first"),
        PortError::Twice { .. } => (Kind::Duplicate, "list each port once"),
    };
    Fault::new(kind, error.to_string()).help(help).code(Code::PortRangeIllegalListener)
}

/// Reports every item that names a port of an earlier one.
fn twice(items: &[Item], path: &str, problems: &mut Problems<'_>) {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|&index| (items[index].first, items[index].last, index));
    let mut furthest: Option<usize> = None;
    for index in order {
        let Some(other) = furthest else {
            furthest = Some(index);
            continue;
        };
        if items[index].first <= items[other].last {
            let later = &items[index.max(other)];
            problems.push(later.span.clone(), path, illegal(&PortError::Twice { port: items[index].first }));
        }
        if items[index].last > items[other].last {
            furthest = Some(index);
        }
    }
}

/// The bytes of an item without the spaces around it; of an empty item, the spaces.
fn trimmed(start: usize, text: &str) -> Range<usize> {
    if text.trim().is_empty() {
        return start..start + text.len();
    }
    start + (text.len() - text.trim_start().len())..start + text.trim_end().len()
}
