//! The state machine of one check (specification §1.8): outcomes and the time in, a verdict out.
//!
//! As many outcomes in a row as `threshold` says change the verdict, in either direction; one that agrees with the verdict starts the
//! count anew. The next probe starts `interval` after the last one *ended*. So with the defaults an endpoint that refuses fails after
//! (threshold − 1) × interval = 4 s, one that is silent after 3 × 3 s + 4 s = 13 s, and one that answers within a second recovers
//! within 3 × 1 s + 4 s = 7 s.
//!
//! Times are what has passed since a moment of the caller's choice. Nothing here reads a clock.

use std::time::Duration;

use super::outcome::{Outcome, Reason};
use crate::model::HealthCheck;

/// A new round-trip time counts one eighth, as in RFC 6298 §2.
const SMOOTHING: u32 = 8;
/// A hold lasts this many times the one before at most: 2 to the sixth.
const LONGEST_HOLD: u32 = 6;
/// An endpoint that stays up this many times `hold_down` is not flapping any more.
const STEADY: u32 = 10;
/// Slow start rises in steps, because each is a new table.
const SLOW_STEPS: u32 = 10;

/// One check: what is believed, and what speaks against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    up: bool,
    since: Duration,
    /// Outcomes in a row that speak against the verdict.
    against: u8,
    /// When it recovered; none when it was never down, or slow start is over.
    recovered: Option<Duration>,
    /// Holds in a row so far, and until when the latest one lasts.
    holds: u32,
    held_until: Duration,
    round_trip: Option<Duration>,
    failure: Option<Reason>,
}

/// A change of the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flip {
    /// New flows may go there again.
    Up,
    /// New flows may not go there.
    Down,
}

impl Machine {
    /// A check whose verdict is `up` at first.
    pub(super) const fn new(up: bool, now: Duration) -> Self {
        Self {
            up,
            since: now,
            against: 0,
            recovered: None,
            holds: 0,
            held_until: Duration::ZERO,
            round_trip: None,
            failure: None,
        }
    }

    /// Takes the outcome of a probe that ended at `now`. With `hold`, the checker itself is suspected: nobody goes down.
    pub(super) fn observe(&mut self, check: &HealthCheck, now: Duration, outcome: &Outcome, hold: bool) -> Option<Flip> {
        let passed = match outcome {
            Outcome::Passed { connected } => {
                self.round_trip = Some(smoothed(self.round_trip, *connected));
                true
            }
            Outcome::Failed(reason) => {
                self.failure = Some(reason.clone());
                false
            }
            Outcome::Unable(_) => return None,
        };
        if passed == self.up {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        if self.against < check.threshold {
            return None;
        }
        if self.up && !hold {
            self.go_down(check, now);
            Some(Flip::Down)
        } else if !self.up && now >= self.held_until {
            self.go_up(now);
            Some(Flip::Up)
        } else {
            None
        }
    }

    fn go_down(&mut self, check: &HealthCheck, now: Duration) {
        if let Some(base) = check.hold_down {
            // The first fall is no flapping; every further one before it was steady holds it down for twice as long.
            let relapse = self.recovered.is_some_and(|at| now - at < base * STEADY);
            self.holds = if relapse { (self.holds + 1).min(LONGEST_HOLD + 1) } else { 0 };
            if let Some(doublings) = self.holds.checked_sub(1) {
                self.held_until = now + base * (1 << doublings);
            }
        }
        (self.up, self.since, self.against, self.recovered) = (false, now, 0, None);
    }

    fn go_up(&mut self, now: Duration) {
        (self.up, self.since, self.against, self.recovered) = (true, now, 0, Some(now));
    }

    /// The verdict.
    pub(super) const fn is_up(&self) -> bool {
        self.up
    }

    /// Since when.
    pub(super) const fn since(&self) -> Duration {
        self.since
    }

    /// The latest outcome speaks against an endpoint that counts as well.
    pub(super) const fn is_suspect(&self) -> bool {
        self.up && self.against > 0
    }

    /// Until when it stays down whatever the probes say, if that is after `now`.
    pub(super) fn held_until(&self, now: Duration) -> Option<Duration> {
        (!self.up && self.held_until > now).then_some(self.held_until)
    }

    /// Smoothed time from the first packet to the accepted connection.
    pub(super) const fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Why the latest probe that failed did.
    pub(super) const fn failure(&self) -> Option<&Reason> {
        self.failure.as_ref()
    }

    /// How long after a probe the next one starts: sooner while the outcomes speak against the verdict, if the check says so.
    pub(super) fn pause(&self, check: &HealthCheck) -> Duration {
        check.fast_interval.filter(|_| self.against > 0).unwrap_or(check.interval)
    }

    /// 1–100 %: the part of its weight that counts at `now`. Less than all only for a while after it recovered.
    pub(super) fn share_percent(&self, check: &HealthCheck, now: Duration) -> u8 {
        let (Some(recovered), Some(whole)) = (self.recovered.filter(|_| self.up), check.slow_start) else { return 100 };
        let passed = now.saturating_sub(recovered);
        if passed >= whole {
            return 100;
        }
        let steps = passed.as_millis() * u128::from(SLOW_STEPS) / whole.as_millis().max(1);
        // Fewer than ten steps of ten per cent.
        (steps as u8 + 1) * (100 / SLOW_STEPS as u8)
    }
}

fn smoothed(old: Option<Duration>, new: Duration) -> Duration {
    old.map_or(new, |old| (old * (SMOOTHING - 1) + new) / SMOOTHING)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn passed() -> Outcome {
        Outcome::Passed { connected: Duration::from_millis(8) }
    }

    fn failed() -> Outcome {
        Outcome::Failed(Reason::Timeout)
    }

    /// Probes one after the other, each taking `takes`, until the verdict changes; when, counted from the start of the first.
    fn until_flip(machine: &mut Machine, check: &HealthCheck, outcome: &Outcome, takes: Duration) -> (Duration, Flip) {
        let start = machine.since() + 100 * SECOND;
        let mut now = start;
        for _ in 0..100 {
            now += takes;
            if let Some(flip) = machine.observe(check, now, outcome, false) {
                return (now - start, flip);
            }
            now += machine.pause(check);
        }
        panic!("no change in 100 probes");
    }

    // proves: E04, E06
    #[test]
    fn the_documented_windows() {
        let check = HealthCheck::default();
        let mut machine = Machine::new(true, Duration::ZERO);
        assert_eq!(until_flip(&mut machine, &check, &failed(), 3 * SECOND), (13 * SECOND, Flip::Down));
        assert_eq!(until_flip(&mut machine, &check, &passed(), SECOND), (7 * SECOND, Flip::Up));
        assert_eq!(until_flip(&mut machine, &check, &failed(), Duration::ZERO), (4 * SECOND, Flip::Down));
    }

    // proves: E05, E06
    #[test]
    fn only_as_many_in_a_row_as_the_threshold_says() {
        for threshold in 2..=10 {
            let check = HealthCheck { threshold, ..HealthCheck::default() };
            for up in [true, false] {
                let (against, with) = if up { (failed(), passed()) } else { (passed(), failed()) };
                let mut machine = Machine::new(up, Duration::ZERO);
                for _ in 0..3 {
                    for _ in 1..threshold {
                        assert_eq!(machine.observe(&check, SECOND, &against, false), None);
                    }
                    assert_eq!(machine.observe(&check, SECOND, &with, false), None, "one that agrees starts the count anew");
                }
                for _ in 1..threshold {
                    assert_eq!(machine.observe(&check, SECOND, &against, false), None);
                }
                assert!(machine.observe(&check, SECOND, &against, false).is_some());
                assert_eq!(machine.is_up(), !up);
            }
        }
    }

    #[test]
    fn what_this_host_could_not_ask_says_nothing() {
        let check = HealthCheck::default();
        let mut machine = Machine::new(true, Duration::ZERO);
        for _ in 0..2 {
            machine.observe(&check, SECOND, &failed(), false);
        }
        let before = machine.clone();
        assert_eq!(machine.observe(&check, SECOND, &Outcome::Unable("no socket".to_owned()), false), None);
        assert_eq!(machine, before);
        assert_eq!(machine.observe(&check, SECOND, &failed(), false), Some(Flip::Down));
    }

    #[test]
    fn a_suspected_checker_takes_nobody_down_and_brings_everybody_up() {
        let check = HealthCheck::default();
        let mut machine = Machine::new(true, Duration::ZERO);
        for _ in 0..300 {
            assert_eq!(machine.observe(&check, SECOND, &failed(), true), None);
        }
        assert!(machine.is_up() && machine.is_suspect());
        assert_eq!(machine.observe(&check, SECOND, &failed(), false), Some(Flip::Down));
        let flips: Vec<_> = (0..3).filter_map(|_| machine.observe(&check, SECOND, &passed(), true)).collect();
        assert_eq!(flips, [Flip::Up]);
    }

    #[test]
    fn a_suspect_is_probed_sooner_if_the_check_says_so() {
        let fast = Duration::from_millis(500);
        let check = HealthCheck { fast_interval: Some(fast), ..HealthCheck::default() };
        let mut machine = Machine::new(true, Duration::ZERO);
        assert_eq!(machine.pause(&check), 2 * SECOND);
        machine.observe(&check, SECOND, &failed(), false);
        assert_eq!((machine.pause(&check), machine.pause(&HealthCheck::default())), (fast, 2 * SECOND));
        assert_eq!(until_flip(&mut machine, &check, &failed(), Duration::ZERO), (fast, Flip::Down));
    }

    #[test]
    fn the_share_rises_step_by_step_after_a_recovery_only() {
        let check = HealthCheck { slow_start: Some(20 * SECOND), ..HealthCheck::default() };
        let mut machine = Machine::new(true, Duration::ZERO);
        assert_eq!(machine.share_percent(&check, Duration::ZERO), 100, "a start is no recovery");
        until_flip(&mut machine, &check, &failed(), Duration::ZERO);
        until_flip(&mut machine, &check, &passed(), Duration::ZERO);
        let up = machine.since();
        let shares: Vec<u8> = (0..=20).map(|s| machine.share_percent(&check, up + s * SECOND)).collect();
        assert_eq!(shares, [10, 10, 20, 20, 30, 30, 40, 40, 50, 50, 60, 60, 70, 70, 80, 80, 90, 90, 100, 100, 100]);
        assert_eq!(machine.share_percent(&HealthCheck::default(), up), 100, "off by default");
    }

    #[test]
    fn who_flaps_is_held_down_for_twice_as_long_each_time() {
        let check = HealthCheck { hold_down: Some(30 * SECOND), ..HealthCheck::default() };
        let mut machine = Machine::new(true, Duration::ZERO);
        let mut downs = Vec::new();
        for _ in 0..9 {
            until_flip(&mut machine, &check, &failed(), Duration::ZERO);
            let down = machine.since();
            let mut now = down;
            while machine.observe(&check, now, &passed(), false).is_none() {
                now += 2 * SECOND;
            }
            downs.push((now - down).as_secs());
        }
        assert_eq!(downs, [4, 30, 60, 120, 240, 480, 960, 1920, 1920], "the first fall costs nothing");
        let steady = machine.since() + 300 * SECOND;
        for _ in 0..3 {
            machine.observe(&check, steady, &failed(), false);
        }
        assert_eq!((machine.is_up(), machine.held_until(steady)), (false, None), "who was steady for long begins anew");
    }

    #[test]
    fn round_trips_are_smoothed() {
        let check = HealthCheck::default();
        let mut machine = Machine::new(true, Duration::ZERO);
        let took = |ms| Outcome::Passed { connected: Duration::from_millis(ms) };
        for (ms, expected) in [(80, 80), (160, 90), (90, 90)] {
            machine.observe(&check, SECOND, &took(ms), false);
            assert_eq!(machine.round_trip(), Some(Duration::from_millis(expected)));
        }
    }
}
