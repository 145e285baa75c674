//! When each check is due: spread evenly at first, never in a bunch later. Pure: the time comes in, numbers go out.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    hash::{DefaultHasher, Hash, Hasher as _},
    time::Duration,
};

/// More than this is never made up for at once: who was asleep for a second does not send a second's probes in one go.
const LONGEST_WAIT: Duration = Duration::from_millis(20);
/// What was late is made up for at this many times the usual rate.
const HASTE: f64 = 2.0;

/// Who is due when.
#[derive(Clone, Debug, Default)]
pub(super) struct Timetable {
    due: BinaryHeap<Reverse<(Duration, usize)>>,
    looked_at: Duration,
}

impl Timetable {
    /// Check number `check` is due at `at`.
    pub(super) fn add(&mut self, at: Duration, check: usize) {
        self.due.push(Reverse((at, check)));
    }

    /// The same moment with other checks.
    pub(super) fn with(&self, due: impl Iterator<Item = (Duration, usize)>) -> Self {
        Self { due: due.map(Reverse).collect(), looked_at: self.looked_at }
    }

    /// When somebody is due next.
    pub(super) fn next(&self) -> Option<Duration> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes out who is due at `now`, with when it was due; at most `room`, and no more than twice what `rate`, in checks a second,
    /// lets expect since the last look.
    pub(super) fn take(&mut self, now: Duration, rate: f64, room: usize) -> Vec<(Duration, usize)> {
        let passed = now.saturating_sub(self.looked_at).min(LONGEST_WAIT);
        self.looked_at = now;
        // At least one: slow is better than never.
        let paced = ((passed.as_secs_f64() * rate * HASTE).ceil() as usize).max(1);
        let mut taken = Vec::new();
        while taken.len() < paced.min(room)
            && let Some(Reverse((at, check))) = self.due.peek().copied().filter(|Reverse((at, _))| *at <= now)
        {
            self.due.pop();
            taken.push((at, check));
        }
        taken
    }
}

/// Where in its interval the first probe of somebody with this identity falls: all of them together fill it evenly.
pub(super) fn phase(identity: &impl Hash, interval: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    identity.hash(&mut hasher);
    // The upper half of the hash as a fraction of the interval.
    interval.mul_f64((hasher.finish() >> 32) as f64 / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn first_probes_fill_the_interval_evenly() {
        let mut slots = [0; 20];
        for number in 0..10_000 {
            let phase = phase(&number, 2_000 * MS);
            assert!(phase <= 2_000 * MS);
            slots[(phase.as_millis() / 100).min(19) as usize] += 1;
        }
        assert!(slots.iter().all(|count| (400..600).contains(count)), "{slots:?}");
    }

    #[test]
    fn who_is_due_comes_in_order_and_once() {
        let mut table = Timetable::default();
        for (at, check) in [(30, 3), (10, 1), (20, 2)] {
            table.add(at * MS, check);
        }
        assert_eq!(table.next(), Some(10 * MS));
        assert_eq!(table.take(9 * MS, 1_000.0, 9), []);
        assert_eq!(table.take(25 * MS, 1_000.0, 9), [(10 * MS, 1), (20 * MS, 2)]);
        assert_eq!(table.take(40 * MS, 1_000.0, 9), [(30 * MS, 3)]);
        assert_eq!(table.next(), None);
    }

    #[test]
    fn after_a_sleep_probes_are_made_up_for_at_twice_the_rate_only() {
        let mut table = Timetable::default();
        // One every millisecond, and nobody looked for a second.
        for check in 0..1_000 {
            table.add(check as u32 * MS, check);
        }
        let mut now = 1_000 * MS;
        let mut bunches = Vec::new();
        while table.next().is_some() {
            bunches.push(table.take(now, 1_000.0, usize::MAX).len());
            now += 2 * MS;
        }
        assert!(bunches.iter().all(|bunch| *bunch <= 40), "{bunches:?}");
        assert!(bunches.iter().skip(1).all(|bunch| *bunch <= 4), "{bunches:?}");
    }

    #[test]
    fn without_room_nobody_is_taken() {
        let mut table = Timetable::default();
        table.add(MS, 1);
        assert_eq!(table.take(2 * MS, 1.0, 0), []);
        assert_eq!(table.take(2 * MS, 1.0, 1), [(MS, 1)]);
    }
}
