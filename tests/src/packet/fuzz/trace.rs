//! What happened, in a form that can be printed, read back and cut down.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::packet::{craft::unhex, show::hex};

/// One step of a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Seconds pass.
    Wait(u16),
    /// Another world holds.
    World(&'static str),
    /// All flows are forgotten.
    Forget,
    /// A packet comes in.
    Packet(Vec<u8>),
}

/// A line an event.
pub(super) fn show(events: &[Event]) -> String {
    let line = |event: &Event| match event {
        Event::Wait(seconds) => format!("wait {seconds}\n"),
        Event::World(name) => format!("world {name}\n"),
        Event::Forget => "forget\n".to_owned(),
        Event::Packet(frame) => format!("packet {}\n", hex(frame)),
    };
    events.iter().map(line).collect()
}

/// What `show` printed; empty lines and lines that begin with `#` say nothing.
pub fn parse(text: &str) -> anyhow::Result<Vec<Event>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| match line.split_once(' ').unwrap_or((line, "")) {
            ("wait", seconds) => Ok(Event::Wait(seconds.parse().with_context(|| format!("in {line:?}"))?)),
            ("world", name) => Ok(Event::World(super::world(name)?.name)),
            ("forget", "") => Ok(Event::Forget),
            ("packet", digits) => Ok(Event::Packet(unhex(digits)?)),
            _ => bail!("{line:?} is no step"),
        })
        .collect()
}

/// What may be spent on cutting down.
const PATIENCE: Duration = Duration::from_secs(120);

/// The shortest sequence found that still fails: halves, quarters and so on are left out as long as it does (Zeller's delta
/// debugging), the end first of all.
pub(super) fn shorten(events: &[Event], mut fails: impl FnMut(&[Event]) -> bool) -> Vec<Event> {
    let started = Instant::now();
    let mut few = events.to_vec();
    let mut size = few.len().div_ceil(2).max(1);
    loop {
        let (mut at, mut cut) = (0, false);
        while at < few.len() && started.elapsed() < PATIENCE {
            let without: Vec<Event> = few[..at].iter().chain(few.iter().skip(at + size)).cloned().collect();
            if !without.is_empty() && fails(&without) {
                few = without;
                cut = true;
            } else {
                at += size;
            }
        }
        if started.elapsed() >= PATIENCE || size == 1 && !cut {
            return few;
        }
        size = if cut { size.min(few.len().max(1)) } else { size.div_ceil(2) };
        if !cut && size == 0 {
            return few;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_read_back() -> anyhow::Result<()> {
        let events = [Event::Wait(31), Event::World("only_a"), Event::Forget, Event::Packet(vec![1, 0xab])];
        assert_eq!(parse(&show(&events))?, events);
        assert!(parse("packet 0").is_err() && parse("world nowhere").is_err() && parse("what").is_err());
        Ok(())
    }

    #[test]
    fn what_a_failure_does_not_need_is_left_out() {
        let events: Vec<Event> = (0..500).map(Event::Wait).collect();
        let fails = |few: &[Event]| [7, 250, 499].iter().all(|n| few.contains(&Event::Wait(*n)));
        assert_eq!(shorten(&events, fails), [7, 250, 499].map(Event::Wait));
    }
}
