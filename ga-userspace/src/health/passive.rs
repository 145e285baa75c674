//! Endpoints that nobody probes, and that do not answer clients: left alone for a while (specification §1.7.5). Pure.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{Belief, Beliefs};
use crate::model::EndpointName;

/// Failures within [`WINDOW`] that pause an endpoint.
const FAILURES: u64 = 3;
/// See [`FAILURES`].
const WINDOW: Duration = Duration::from_secs(10);
/// How long it is left alone.
const PAUSE: Duration = Duration::from_secs(10);

/// What is known of clients' attempts that failed. Times are what has passed since any moment, the same for all.
#[derive(Clone, Debug, Default)]
pub struct Passive {
    failures: BTreeMap<EndpointName, VecDeque<(Duration, u64)>>,
    paused: BTreeMap<EndpointName, Duration>,
}

impl Passive {
    /// Takes note of `count` attempts that failed since the last time; true when the endpoint is paused by it.
    pub fn failed(&mut self, endpoint: &EndpointName, count: u64, now: Duration) -> bool {
        let failures = self.failures.entry(endpoint.clone()).or_default();
        failures.push_back((now, count));
        while failures.front().is_some_and(|(at, _)| *at + WINDOW < now) {
            failures.pop_front();
        }
        if failures.iter().map(|(_, count)| count).sum::<u64>() < FAILURES {
            return false;
        }
        self.failures.remove(endpoint);
        self.paused.insert(endpoint.clone(), now + PAUSE).is_none()
    }

    /// Ends the pauses that are over, and returns whose.
    pub fn end(&mut self, now: Duration) -> Vec<EndpointName> {
        self.failures.retain(|_, failures| failures.back().is_some_and(|(at, _)| *at + WINDOW >= now));
        self.paused.extract_if(.., |_, until| *until <= now).map(|(name, _)| name).collect()
    }

    /// How long an endpoint is left alone from `now` on.
    pub fn left(&self, endpoint: &EndpointName, now: Duration) -> Option<Duration> {
        Some(self.paused.get(endpoint)?.saturating_sub(now))
    }

    /// Forgets all but these endpoints.
    pub fn retain(&mut self, keep: impl Fn(&EndpointName) -> bool) {
        self.failures.retain(|name, _| keep(name));
        self.paused.retain(|name, _| keep(name));
    }

    /// Adds to what a plan is told. What probes say of an endpoint stays.
    pub fn tell(&self, beliefs: &mut Beliefs) {
        for name in self.paused.keys() {
            let belief = beliefs.endpoints.entry(name.clone()).or_default();
            *belief = Belief { paused: true, ..*belief };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(last: u8) -> EndpointName {
        format!("edge/web/near/private_ip/10.0.0.{last}").parse().expect("a name")
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn three_failures_in_ten_seconds_pause_an_endpoint_for_ten() {
        let mut passive = Passive::default();
        assert!(!passive.failed(&endpoint(1), 1, seconds(1)));
        assert!(!passive.failed(&endpoint(2), 2, seconds(1)));
        assert!(!passive.failed(&endpoint(1), 1, seconds(8)));
        assert!(passive.failed(&endpoint(1), 1, seconds(11)), "the first was ten seconds ago");
        assert_eq!(passive.left(&endpoint(1), seconds(12)), Some(seconds(9)));
        assert_eq!(passive.left(&endpoint(2), seconds(12)), None);
        let mut beliefs = Beliefs::default();
        passive.tell(&mut beliefs);
        assert!(beliefs.of(&endpoint(1)).paused && beliefs.of(&endpoint(1)).up && !beliefs.of(&endpoint(2)).paused);
        assert_eq!(passive.end(seconds(20)), []);
        assert_eq!(passive.end(seconds(21)), [endpoint(1)]);
        assert!(!passive.failed(&endpoint(1), 2, seconds(21)), "it begins anew");
    }

    #[test]
    fn failures_that_are_long_ago_do_not_count() {
        let mut passive = Passive::default();
        for at in [0, 6, 12, 18, 24] {
            assert!(!passive.failed(&endpoint(1), 1, seconds(at)));
        }
        assert!(passive.failed(&endpoint(1), 1, seconds(25)));
    }

    #[test]
    fn a_pause_lasts_from_the_latest_three_failures_on() {
        let mut passive = Passive::default();
        assert!(passive.failed(&endpoint(1), 3, seconds(0)));
        assert!(!passive.failed(&endpoint(1), 3, seconds(5)), "it is paused already");
        assert_eq!(passive.end(seconds(10)), []);
        assert_eq!(passive.end(seconds(15)), [endpoint(1)]);
    }
}
