//! What the prober knows at one moment, as values.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    Belief, Beliefs, Orders, Roster,
    book::{Kept, Verdicts},
    outcome::Reason,
};
use crate::model::{EndpointName, GroupName, Name};

/// Everything at one moment. Times are what has passed since the prober's first.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Whom it is about.
    pub roster: Arc<Roster>,
    /// By the check's number.
    pub seen: Vec<Seen>,
    /// Which groups are nearest.
    pub orders: Orders,
    /// Instances of which too many checks fail at once: their verdicts are held.
    pub panics: BTreeMap<Name, Panic>,
    /// Probes by what came of them, since the start.
    pub probes: BTreeMap<&'static str, u64>,
    /// How punctual the probes are.
    pub pace: Pace,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The verdict.
    pub up: bool,
    /// Since when.
    pub since: Duration,
    /// It counts as well, and the latest probe says otherwise.
    pub suspect: bool,
    /// Why the latest probe that failed did.
    pub failure: Option<Reason>,
    /// Smoothed time to connect.
    pub round_trip: Option<Duration>,
    /// 1–100 %: the part of its weight that counts while it starts slowly.
    pub share_percent: u8,
    /// It flaps: until then it is down, whatever the probes say.
    pub held_until: Option<Duration>,
}

/// Too many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panic {
    /// Since when.
    pub since: Duration,
    /// Checks whose latest probe failed although they count as well.
    pub suspects: usize,
    /// Of so many.
    pub checks: usize,
}

/// How punctual probes are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Probes that began at most so many milliseconds late: 0, 1, 3, 7, ... and more.
    pub late: [u64; 16],
    /// Most probes that were begun at once.
    pub largest_bunch: usize,
}

impl Pace {
    /// A probe began `late` after it was due.
    pub fn note(&mut self, late: Duration) {
        let bits = (u128::BITS - late.as_millis().leading_zeros()) as usize;
        self.late[bits.min(15)] += 1;
    }

    /// The lateness that at most `part` of all probes exceed, rounded up.
    pub fn lateness(&self, part: f64) -> Duration {
        let all: u64 = self.late.iter().sum();
        let mut left = all;
        for (bits, count) in self.late.iter().enumerate() {
            left -= count;
            if left as f64 <= all as f64 * part {
                return Duration::from_millis((1 << bits) - 1);
            }
        }
        Duration::ZERO
    }
}

impl Report {
    /// What is known of an endpoint; none when it is not probed.
    pub fn of(&self, endpoint: &EndpointName) -> Option<&Seen> {
        self.seen.get(*self.roster.endpoints.get(endpoint)?)
    }

    /// What the plan of `roster`'s intent is told, which may be a newer one than the report's: only who is not well, and how far away
    /// the groups are.
    pub fn beliefs(&self, roster: &Roster) -> Beliefs {
        let mut beliefs = Beliefs::default();
        let mut sums: BTreeMap<GroupName, (Duration, u32)> = BTreeMap::new();
        for (name, number) in &roster.endpoints {
            let belief = match (self.of(name), roster.checks.get(*number)) {
                (Some(seen), _) => Belief { up: seen.up, share_percent: seen.share_percent, ..Belief::default() },
                (None, Some(check)) => Belief { up: check.how.initially_healthy, ..Belief::default() },
                (None, None) => continue,
            };
            if belief != Belief::default() {
                beliefs.endpoints.insert(name.clone(), belief);
            }
            if let Some(round_trip) = self.of(name).filter(|seen| seen.up).and_then(|seen| seen.round_trip) {
                let (sum, count) = sums.entry(name.group_name()).or_default();
                (*sum, *count) = (*sum + round_trip, *count + 1);
            }
        }
        let mut orders = roster.orders.clone();
        orders.resume(&self.orders);
        beliefs.priority = orders.priority();
        beliefs.latency = sums.into_iter().map(|(group, (sum, count))| (group, sum / count)).collect();
        beliefs
    }

    /// What outlives a restart.
    pub fn kept(&self) -> Kept {
        Kept { verdicts: self.verdicts(), orders: self.orders.clone() }
    }

    /// What is believed of every endpoint that is probed.
    pub(super) fn verdicts(&self) -> Verdicts {
        let known = |(name, number): (&EndpointName, &usize)| Some((name.clone(), self.seen.get(*number)?.up));
        self.roster.endpoints.iter().filter_map(known).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_is_the_quantile() {
        let mut pace = Pace::default();
        for ms in 0..100 {
            pace.note(Duration::from_millis(ms));
        }
        let quantiles = [1.0, 0.5, 0.01, 0.0].map(|part| pace.lateness(part).as_millis());
        assert_eq!(quantiles, [0, 63, 127, 127]);
    }
}
