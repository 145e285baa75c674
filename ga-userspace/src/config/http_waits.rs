//! `timeouts` and `http_limits` of an HTTP or HTTPS listener.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    document::Context,
    keys,
    tree::{Table, Value},
};
use crate::model::{HttpLimits, Timeouts};

/// Seconds of every key of `timeouts` but `tunnel` and `min_rate`.
pub(super) const WAIT_S: RangeInclusive<u32> = 1..=3_600;
/// Seconds of `tunnel`: up to a day.
pub(super) const TUNNEL_S: RangeInclusive<u32> = 1..=86_400;
/// Bytes a second of `min_rate`; none wants none.
pub(super) const MIN_RATE: RangeInclusive<u32> = 0..=100_000_000;
/// Bytes of `head`.
pub(super) const HEAD: RangeInclusive<u32> = 1_024..=262_144;
/// Bytes of `target`.
pub(super) const TARGET: RangeInclusive<u32> = 256..=65_536;
/// `fields`.
pub(super) const FIELDS: RangeInclusive<u32> = 1..=1_000;
/// `streams` and `resets`.
pub(super) const STREAMS: RangeInclusive<u32> = 1..=10_000;

/// Reads `timeouts`. What is wrong is reported, and the default stands for it.
pub(super) fn timeouts(value: Option<Value<'_>>, cx: &mut Context<'_>) -> Timeouts {
    let usual = Timeouts::default();
    let Some(table) = value.and_then(|value| value.table(&keys::TIMEOUTS, &mut cx.problems)) else { return usual };
    let mut wait = |key, range, usual| {
        let seconds = number(&table, key, range, cx);
        seconds.map_or(usual, |seconds| Duration::from_secs(seconds.into()))
    };
    Timeouts {
        first_byte: wait("first_byte", WAIT_S, usual.first_byte),
        head: wait("head", WAIT_S, usual.head),
        body: wait("body", WAIT_S, usual.body),
        write: wait("write", WAIT_S, usual.write),
        connect: wait("connect", WAIT_S, usual.connect),
        stream: wait("stream", WAIT_S, usual.stream),
        tunnel: wait("tunnel", TUNNEL_S, usual.tunnel),
        min_rate: number(&table, "min_rate", MIN_RATE, cx).unwrap_or(usual.min_rate),
    }
}

/// Reads `http_limits`. What is wrong is reported, and the default stands for it.
pub(super) fn limits(value: Option<Value<'_>>, cx: &mut Context<'_>) -> HttpLimits {
    let usual = HttpLimits::default();
    let Some(table) = value.and_then(|value| value.table(&keys::HTTP_LIMITS, &mut cx.problems)) else { return usual };
    let mut size = |key, range, usual| {
        let size = number(&table, key, range, cx);
        size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usual)
    };
    let (head, target) = (size("head", HEAD, usual.head), size("target", TARGET, usual.target));
    let (fields, resets) = (size("fields", FIELDS, usual.fields), size("resets", STREAMS, usual.resets));
    let streams = number(&table, "streams", STREAMS, cx).unwrap_or(usual.streams);
    HttpLimits { head, fields, target, streams, resets }
}

fn number(table: &Table<'_>, key: &'static str, range: RangeInclusive<u32>, cx: &mut Context<'_>) -> Option<u32> {
    table.optional(key)?.integer(range, &mut cx.problems)
}
