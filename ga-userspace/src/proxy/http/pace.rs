//! Whether a client keeps the pace that its listener wants (`timeouts.min_rate`): a byte now and then keeps no wait alive for ever.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

/// How far behind a client may still fall, and since when it is waited for. It may be behind by the whole of one wait; each byte that
/// comes of a wait gives some of that back.
#[derive(Debug, Default)]
pub(super) struct Pace {
    left: Cell<Option<Duration>>,
    since: Cell<Option<Instant>>,
}

impl Pace {
    /// The client is waited for: returns for how long, which is `most` unless it has to move `rate` bytes a second and did not.
    pub(super) fn wait(&self, most: Duration, rate: u32, now: impl Fn() -> Instant) -> Duration {
        if rate == 0 {
            return most;
        }
        let left = self.left.get().unwrap_or(most);
        self.left.set(Some(left));
        self.since.set(self.since.get().or_else(|| Some(now())));
        left
    }

    /// It was waited for, and a pace was wanted.
    pub(super) fn is_kept(&self) -> bool {
        self.left.get().is_some()
    }

    /// It is not waited for any more, and moved so many bytes since it was.
    pub(super) fn moved(&self, bytes: u64, most: Duration, rate: u32, now: impl Fn() -> Instant) {
        let Some(left) = self.left.get().filter(|_| rate > 0) else { return };
        let waited = self.since.take().map_or(Duration::ZERO, |since| now() - since);
        let earned = Duration::from_secs_f64(bytes as f64 / f64::from(rate));
        self.left.set(Some((left + earned).saturating_sub(waited).min(most)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(10);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_is_slow_runs_out_of_patience_and_who_is_not_never_does() {
        let (slow, quick, any) = (Pace::default(), Pace::default(), Pace::default());
        let mut now = Instant::now();
        for second in 0..30 {
            assert_eq!(slow.wait(MOST, 100, || now), MOST.saturating_sub(SECOND / 2 * second), "in second {second}");
            assert_eq!((quick.wait(MOST, 100, || now), any.wait(MOST, 0, || now)), (MOST, MOST), "in second {second}");
            now += SECOND;
            for (pace, rate, bytes) in [(&slow, 100, 50), (&quick, 100, 150), (&any, 0, 1)] {
                pace.moved(bytes, MOST, rate, || now);
            }
        }
    }

    #[test]
    fn only_what_was_waited_for_the_client_counts_and_nobody_saves_up() {
        let pace = Pace::default();
        let begun = Instant::now();
        assert_eq!(pace.wait(MOST, 100, || begun), MOST);
        pace.moved(0, MOST, 100, || begun + SECOND * 4);
        assert_eq!(pace.wait(MOST, 100, || begun + SECOND * 64), SECOND * 6);
        pace.moved(1_000_000, MOST, 100, || begun + SECOND * 65);
        assert_eq!(pace.wait(MOST, 100, || begun + SECOND * 65), MOST);
    }
}
