//! One domain: what it stood for last, and when to ask again. Takes time and answers as values.
//!
//! A good answer holds as long as its TTL says, within 5 and 300 seconds. Whatever goes wrong, the last good answer stays: a
//! server that is down, or a zone that was emptied by mistake, must not take endpoints away.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::model::unusable;

/// No name is asked for more often.
pub const TTL_MIN: Duration = Duration::from_secs(5);
/// No answer is believed for longer.
pub const TTL_MAX: Duration = Duration::from_secs(300);
/// Between a failure and the next attempt, at first; it doubles.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Between a failure and the next attempt, at most.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Which records are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Families {
    /// A records.
    pub v4: bool,
    /// AAAA records.
    pub v6: bool,
}

/// What asking for the records of one family brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Addresses, and how long they hold.
    Found(Vec<IpAddr>, Duration),
    /// The server says that there are none, and why.
    Nothing(String),
    /// No answer, or one that says nothing: a timeout, SERVFAIL, a loop of aliases.
    Failed(String),
}

/// One domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// The last good answer: ascending, each once, at most the limit.
    pub addresses: Vec<IpAddr>,
    /// Addresses of the last answer that are left out because of the limit.
    pub left_out: usize,
    /// When it came, in seconds since 1970.
    pub learned_at: Option<u64>,
    /// How long it holds; passed when the last attempts failed.
    pub valid_until: Option<Instant>,
    /// When to ask next.
    pub next: Instant,
    /// Attempts in a row that were no good.
    pub failures: u32,
    /// What was wrong with the last one.
    pub error: Option<String>,
}

impl Domain {
    /// A name that is to be asked for at once; `known` is what it stood for before a restart, and when that was learned.
    pub fn new(now: Instant, known: Option<(Vec<IpAddr>, u64)>) -> Self {
        let (addresses, learned_at) = known.map_or((Vec::new(), None), |(addresses, at)| (addresses, Some(at)));
        Self { addresses, left_out: 0, learned_at, valid_until: None, next: now, failures: 0, error: None }
    }

    /// Takes the answers for IPv4 and IPv6, those that were asked for. `unix` is now in seconds since 1970, `chance` is 0 to 1 and
    /// spreads retries. True when the addresses are others than before.
    pub fn answered(
        &mut self,
        v4: Option<Answer>,
        v6: Option<Answer>,
        limit: usize,
        now: Instant,
        unix: u64,
        chance: f64,
    ) -> bool {
        let mut found = BTreeSet::new();
        let (mut ttl, mut trouble, mut nothing, mut useless) = (None, None, None, None);
        for (answer, is_v4) in [(v4, true), (v6, false)] {
            match answer {
                Some(Answer::Found(addresses, holds)) => {
                    ttl = Some(ttl.map_or(holds, |ttl: Duration| ttl.min(holds)));
                    for address in addresses.into_iter().filter(|address| address.is_ipv4() == is_v4) {
                        match unusable(address) {
                            None => drop(found.insert(address)),
                            Some(why) => useless = Some(format!("{address} is left out: {why}")),
                        }
                    }
                }
                Some(Answer::Nothing(why)) => nothing = Some(why),
                // The other family's answer is good for the other family only.
                Some(Answer::Failed(why)) => {
                    found.extend(self.addresses.iter().copied().filter(|address| address.is_ipv4() == is_v4));
                    trouble = Some(why);
                }
                None => {}
            }
        }
        let Some(ttl) = ttl.filter(|_| !found.is_empty()).map(|ttl| ttl.clamp(TTL_MIN, TTL_MAX)) else {
            let why = trouble.or(useless).or(nothing).unwrap_or_else(|| "the answer has no address".to_owned());
            self.next = now + self.failed(why, chance);
            return false;
        };
        let new: Vec<IpAddr> = found.iter().copied().take(limit).collect();
        self.left_out = found.len() - new.len();
        (self.learned_at, self.valid_until) = (Some(unix), Some(now + ttl));
        self.next = match trouble {
            Some(why) => now + self.failed(why, chance).min(ttl),
            None => {
                (self.failures, self.error) = (0, useless);
                now + ttl
            }
        };
        let changed = self.addresses != new;
        self.addresses = new;
        changed
    }

    /// Notes a failure; how long to wait after it.
    fn failed(&mut self, why: String, chance: f64) -> Duration {
        let wait = RETRY_MIN.saturating_mul(1 << self.failures.min(6)).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.error = Some(why);
        wait.mul_f64(0.75 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 4;

    fn found(addresses: &[&str], ttl_s: u64) -> Option<Answer> {
        Some(Answer::Found(addresses.iter().map(|text| text.parse().unwrap()).collect(), Duration::from_secs(ttl_s)))
    }

    fn failed() -> Option<Answer> {
        Some(Answer::Failed("server failure".to_owned()))
    }

    fn nothing() -> Option<Answer> {
        Some(Answer::Nothing("no such name".to_owned()))
    }

    fn texts(domain: &Domain) -> Vec<String> {
        domain.addresses.iter().map(ToString::to_string).collect()
    }

    /// A domain that got `answers` at the same moment, and that moment.
    fn after(answers: impl IntoIterator<Item = (Option<Answer>, Option<Answer>)>) -> (Domain, Instant) {
        let now = Instant::now();
        let mut domain = Domain::new(now, None);
        for (v4, v6) in answers {
            domain.answered(v4, v6, LIMIT, now, 1_000, 0.5);
        }
        (domain, now)
    }

    #[test]
    fn an_answer_is_asked_for_again_when_its_ttl_is_over_within_bounds() {
        for (ttl_s, expected_s) in [(0, 5), (4, 5), (5, 5), (60, 60), (300, 300), (86_400, 300)] {
            let (domain, now) = after([(found(&["192.0.2.1"], ttl_s), None)]);
            assert_eq!(domain.next - now, Duration::from_secs(expected_s), "a TTL of {ttl_s} s");
            assert_eq!((domain.valid_until, domain.learned_at), (Some(domain.next), Some(1_000)));
        }
        let (both, now) = after([(found(&["192.0.2.1"], 60), found(&["2001:db8::1"], 30))]);
        assert_eq!(both.next - now, Duration::from_secs(30), "the shorter one counts");
    }

    #[test]
    fn the_last_good_answer_stays_whatever_goes_wrong() {
        let good = || (found(&["192.0.2.2", "192.0.2.1"], 60), None);
        for bad in [failed(), nothing(), found(&[], 60), found(&["127.0.0.1", "224.0.0.1"], 60), found(&["2001:db8::1"], 60)] {
            let (domain, _) = after([good(), (bad.clone(), None)]);
            assert_eq!(texts(&domain), ["192.0.2.1", "192.0.2.2"], "{bad:?}");
            assert!(domain.error.is_some() && domain.failures == 1, "{bad:?}");
        }
    }

    #[test]
    fn retries_wait_twice_as_long_each_time_up_to_a_minute() {
        let waits = |failures: usize| {
            let (domain, now) = after(std::iter::repeat_with(|| (failed(), None)).take(failures));
            (domain.next - now).as_secs()
        };
        assert_eq!([1, 2, 3, 4, 5, 6, 7, 8, 100].map(waits), [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let now = Instant::now();
        let wait = |chance: f64| {
            let mut domain = Domain::new(now, None);
            domain.answered(failed(), None, LIMIT, now, 0, chance);
            (domain.next - now).as_millis()
        };
        assert_eq!([wait(0.0), wait(1.0)], [750, 1_250], "edges that failed together ask again apart");
    }

    #[test]
    fn what_one_family_lacks_does_not_touch_the_other() {
        let both = || (found(&["192.0.2.1"], 60), found(&["2001:db8::1"], 60));
        let (half, now) = after([both(), (found(&["192.0.2.9"], 60), failed())]);
        assert_eq!(texts(&half), ["192.0.2.9", "2001:db8::1"], "AAAA could not be asked for");
        assert_eq!(half.next - now, Duration::from_secs(1), "and is asked for again soon");
        let (less, now) = after([both(), (found(&["192.0.2.9"], 60), nothing())]);
        assert_eq!(texts(&less), ["192.0.2.9"], "the server says that there is no AAAA record any more");
        assert_eq!((less.next - now, less.error), (Duration::from_secs(60), None));
    }

    #[test]
    fn a_hostile_answer_is_cut_to_the_same_addresses_in_any_order() {
        let many: Vec<String> = (0..4_000).map(|n| format!("192.0.{}.{}", n / 250, n % 250 + 1)).collect();
        let forward: Vec<&str> = many.iter().map(String::as_str).collect();
        let backward: Vec<&str> = forward.iter().rev().copied().collect();
        let (one, _) = after([(found(&forward, 60), None)]);
        let (other, _) = after([(found(&backward, 60), None)]);
        assert_eq!(one.addresses, other.addresses);
        assert_eq!((one.addresses.len(), one.left_out), (LIMIT, 3_996));
    }

    #[test]
    fn only_another_set_of_addresses_is_a_change() {
        let now = Instant::now();
        let mut domain = Domain::new(now, Some((vec!["192.0.2.1".parse().unwrap()], 7)));
        let mut answer = |addresses: &[&str]| domain.answered(found(addresses, 60), None, LIMIT, now, 1_000, 0.5);
        assert!(!answer(&["192.0.2.1"]), "what was known before a restart is no change");
        assert!(answer(&["192.0.2.2", "192.0.2.1"]));
        assert!(!answer(&["192.0.2.1", "192.0.2.2", "192.0.2.1"]), "servers turn the order with every answer");
    }
}
