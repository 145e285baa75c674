//! `health_check` of an endpoint group (specification §1.8).

use std::{ops::RangeInclusive, time::Duration};

use super::{
    document::Context,
    keys,
    problem::{Fault, Kind},
    tree::{Table, Value, shorten},
};
use crate::model::{HealthCheck, HealthProtocol, StatusRange};

/// Words of `protocol`; either case.
pub(super) const PROTOCOLS: [(&str, HealthProtocol); 3] =
    [("tcp", HealthProtocol::Tcp), ("http", HealthProtocol::Http), ("https", HealthProtocol::Https)];
/// Words of `initial`, and whether they mean healthy.
pub(super) const INITIAL: [(&str, bool); 2] = [("healthy", true), ("unhealthy", false)];

/// Seconds of `interval`.
pub(super) const INTERVAL: RangeInclusive<u32> = 1..=50;
/// `threshold`.
pub(super) const THRESHOLD: RangeInclusive<u32> = 2..=10;
/// Milliseconds of `fast_interval_ms`.
pub(super) const FAST_INTERVAL_MS: RangeInclusive<u32> = 100..=50_000;
/// Seconds of `slow_start` and `hold_down`.
pub(super) const LONG: RangeInclusive<u32> = 1..=900;
/// Characters of `path`, `host` and `body`.
const LONGEST_TEXT: usize = 1_024;

/// Reads it: `Ok(None)` when there is none or it is switched off, `Err` when it is wrong.
pub(super) fn read(value: Option<Value<'_>>, cx: &mut Context<'_>) -> Result<Option<HealthCheck>, ()> {
    let Some(value) = value else { return Ok(None) };
    let before = cx.problems.count();
    let Some(table) = value.table(&keys::HEALTH_CHECK, &mut cx.problems) else { return Err(()) };
    let enabled = table.optional("enabled").is_none_or(|value| value.boolean(&mut cx.problems) != Some(false));
    let check = check(&table, cx);
    if cx.problems.count() > before {
        return Err(());
    }
    if enabled {
        cx.ledger.probed.get_or_insert((value.span.clone(), value.path.clone()));
    }
    Ok(enabled.then_some(check))
}

/// What is wrong is reported, and the default stands for it.
fn check(table: &Table<'_>, cx: &mut Context<'_>) -> HealthCheck {
    let usual = HealthCheck::default();
    let seconds = |key, range: RangeInclusive<u32>, cx: &mut Context<'_>| {
        let value = table.optional(key)?.integer(range, &mut cx.problems)?;
        Some(Duration::from_secs(value.into()))
    };
    let interval = seconds("interval", INTERVAL, cx).unwrap_or(usual.interval);
    let threshold = table.optional("threshold").and_then(|value| value.integer(THRESHOLD, &mut cx.problems));
    let initial = table.optional("initial").and_then(|value| value.word(&INITIAL, &mut cx.problems));
    let protocol = table.optional("protocol").and_then(|value| protocol(&value, cx)).unwrap_or(usual.protocol);
    let port = table.optional("port").and_then(|value| value.integer(1..=65_535, &mut cx.problems));
    let (slow_start, hold_down) = (seconds("slow_start", LONG, cx), seconds("hold_down", LONG, cx));
    let fast_interval = table.optional("fast_interval_ms").and_then(|value| fast_interval(&value, interval, cx));
    only_for_http(table, protocol, cx);
    let text = |key, rule: fn(&str) -> Option<&'static str>, cx: &mut Context<'_>| {
        table.optional(key).and_then(|value| text(&value, rule, cx))
    };
    HealthCheck {
        protocol,
        port: port.and_then(|port| u16::try_from(port).ok()),
        path: text("path", path_fault, cx).unwrap_or(usual.path),
        host: text("host", host_fault, cx),
        interval,
        threshold: threshold.and_then(|number| u8::try_from(number).ok()).unwrap_or(usual.threshold),
        initially_healthy: initial.unwrap_or(usual.initially_healthy),
        expected_status: table
            .optional("expected_status")
            .and_then(|value| statuses(&value, cx))
            .unwrap_or(usual.expected_status),
        body: text("body", body_fault, cx),
        verify: table.optional("verify").and_then(|value| value.boolean(&mut cx.problems)).unwrap_or(usual.verify),
        fast_interval,
        slow_start,
        hold_down,
    }
}

fn protocol(value: &Value<'_>, cx: &mut Context<'_>) -> Option<HealthProtocol> {
    let text = value.as_string().unwrap_or_default();
    let known = PROTOCOLS.iter().find(|(word, _)| text.eq_ignore_ascii_case(word));
    known.map_or_else(|| value.word(&PROTOCOLS, &mut cx.problems), |(_, protocol)| Some(*protocol))
}

fn fast_interval(value: &Value<'_>, interval: Duration, cx: &mut Context<'_>) -> Option<Duration> {
    let fast = Duration::from_millis(value.integer(FAST_INTERVAL_MS, &mut cx.problems)?.into());
    if fast > interval {
        let message = format!("`fast_interval_ms` is longer than `interval`, which is {} s", interval.as_secs());
        value.problem(Fault::new(Kind::Conflict, message).help("it is for suspects: choose a shorter one"), &mut cx.problems);
        return None;
    }
    Some(fast)
}

/// Keys that a TCP probe has no use for are probably meant for another protocol.
fn only_for_http(table: &Table<'_>, protocol: HealthProtocol, cx: &mut Context<'_>) {
    let keys: &[&'static str] = match protocol {
        HealthProtocol::Tcp => &["path", "host", "expected_status", "body", "verify"],
        HealthProtocol::Http => &["verify"],
        HealthProtocol::Https => &[],
    };
    for key in keys {
        if let Some(value) = table.optional(key) {
            let message = format!("`{key}` means nothing to a {} probe", protocol.word());
            let help = "set `protocol = \"http\"` or \"https\", or remove the key";
            value.problem(Fault::new(Kind::Conflict, message).help(help), &mut cx.problems);
        }
    }
}

fn text(value: &Value<'_>, fault: fn(&str) -> Option<&'static str>, cx: &mut Context<'_>) -> Option<String> {
    let text = value.string(&mut cx.problems)?;
    let why = if text.is_empty() || text.len() > LONGEST_TEXT { Some("1 to 1024 characters") } else { fault(text) };
    if let Some(why) = why {
        let draft = Fault::new(Kind::BadValue, format!("{:?} cannot be sent or found", shorten(text))).help(why);
        value.problem(draft, &mut cx.problems);
    }
    why.is_none().then(|| text.to_owned())
}

fn path_fault(text: &str) -> Option<&'static str> {
    let fits = text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    (!fits).then_some("a path begins with `/` and has visible ASCII characters only: write others as %XX")
}

fn host_fault(text: &str) -> Option<&'static str> {
    let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']'));
    (!fits).then_some("a host is a name or an address, with a port after `:` if need be")
}

fn body_fault(_text: &str) -> Option<&'static str> {
    None
}

/// `200,204,300~399`.
fn statuses(value: &Value<'_>, cx: &mut Context<'_>) -> Option<Vec<StatusRange>> {
    let text = value.string(&mut cx.problems)?;
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    let range = |item: &str| {
        let (first, last) = item.split_once(['~', '-']).unwrap_or((item, item));
        let range = StatusRange { first: number(first)?, last: number(last)? };
        (range.first <= range.last).then_some(range)
    };
    let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
    if ranges.is_none() {
        let draft = Fault::new(Kind::BadValue, format!("{:?} is not a list of HTTP statuses", shorten(text)))
            .help("write it as in \"200,204,300~399\": 100 to 599, ranges with `~`, the lower first");
        value.problem(draft, &mut cx.problems);
    }
    ranges
}
