//! What is known of every check: the machines, the timetable, and the suspicion that the checker itself is ill. Pure: outcomes and
//! the time come in.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Orders,
    machine::{Flip, Machine},
    orders::Rounds,
    outcome::Outcome,
    report::{Pace, Panic, Report, Seen},
    roster::{Check, Roster},
    timetable::{Timetable, phase},
};
use crate::model::{EndpointName, GroupName, Name};

/// Verdicts that outlive a change of their checks.
pub type Verdicts = BTreeMap<EndpointName, bool>;

/// What outlives a restart of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Who was up.
    pub verdicts: Verdicts,
    /// Which groups were nearest.
    pub orders: Orders,
}

/// Everything that the prober knows.
#[derive(Clone, Debug)]
pub struct Book {
    roster: Arc<Roster>,
    entries: Vec<Entry>,
    timetable: Timetable,
    rate: f64,
    /// Raised with every roster: numbers of an older one are looked up anew.
    edition: u64,
    /// More than this share of an instance's checks, in percent, is suspected at once: the checker's fault. None: never.
    panic_threshold: Option<u8>,
    wards: BTreeMap<Name, Ward>,
    orders: Orders,
    /// By check: the groups whose place in an order its round trips decide.
    groups: Vec<Vec<GroupName>>,
    rounds: Rounds,
    probes: BTreeMap<&'static str, u64>,
    pace: Pace,
}

/// One check.
#[derive(Clone, Debug)]
struct Entry {
    machine: Machine,
    /// When its next probe is due; none while one is on its way.
    due: Option<Duration>,
}

/// The checks of one instance.
#[derive(Clone, Copy, Debug, Default)]
struct Ward {
    checks: usize,
    suspects: usize,
    /// Since when the checker itself is suspected.
    panic: Option<Duration>,
}

/// A probe to be made now.
#[derive(Clone, Debug)]
pub(super) struct Errand {
    /// The edition of the roster, and the check's number in it.
    place: (u64, usize),
    /// What is to be asked.
    pub(super) check: Arc<Check>,
}

/// Something that an operator wants to read of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The verdict of the errand's check changed.
    Flip(Flip),
    /// So many of an instance's checks fail at once that the checker is suspected: nobody goes down.
    Panic {
        /// Whose.
        instance: Name,
        /// How many fail.
        suspects: usize,
        /// Of how many.
        checks: usize,
    },
    /// They do not any more.
    Calm {
        /// Whose.
        instance: Name,
    },
    /// A listener's groups have another order: this one was found nearer or farther than before.
    Order(GroupName),
}

impl Book {
    /// Begins with what was believed before; who is not in it is as its check says.
    pub fn new(roster: Arc<Roster>, panic_threshold: Option<u8>, kept: &Kept, now: Duration) -> Self {
        let mut book = Self {
            roster: Arc::default(),
            entries: Vec::new(),
            timetable: Timetable::default(),
            rate: 0.0,
            edition: 0,
            panic_threshold,
            wards: BTreeMap::new(),
            orders: kept.orders.clone(),
            groups: Vec::new(),
            rounds: Rounds::default(),
            probes: Outcome::WORDS.map(|word| (word, 0)).into(),
            pace: Pace::default(),
        };
        book.enrol(roster, panic_threshold, &kept.verdicts, now);
        book
    }

    /// Takes another roster. A check that stays goes on as if nothing had happened; one that changed begins with the verdict of before.
    pub(super) fn replace(&mut self, roster: Arc<Roster>, panic_threshold: Option<u8>, now: Duration) {
        let verdicts = self.report(now).verdicts();
        self.enrol(roster, panic_threshold, &verdicts, now);
    }

    fn enrol(&mut self, roster: Arc<Roster>, panic_threshold: Option<u8>, verdicts: &Verdicts, now: Duration) {
        let mut known: BTreeMap<Arc<Check>, Entry> = self.roster.checks.iter().cloned().zip(self.entries.drain(..)).collect();
        let mut before = vec![None; roster.checks.len()];
        let mut groups = vec![Vec::new(); roster.checks.len()];
        for (name, number) in &roster.endpoints {
            if let Some(up) = verdicts.get(name) {
                before[*number] = Some(*up);
            }
            let group = name.group_name();
            if roster.orders.has(&group) && !groups[*number].contains(&group) {
                groups[*number].push(group);
            }
        }
        let entry = |(check, before): (&Arc<Check>, Option<bool>)| {
            known.remove(check).unwrap_or_else(|| Entry {
                machine: Machine::new(before.unwrap_or(check.how.initially_healthy), now),
                due: Some(now + phase(check, check.how.interval)),
            })
        };
        self.entries = roster.checks.iter().zip(before).map(entry).collect();
        let dues = self.entries.iter().enumerate().filter_map(|(number, entry)| Some((entry.due?, number)));
        self.timetable = self.timetable.with(dues);
        self.rate = roster.rate();
        let mut orders = roster.orders.clone();
        orders.resume(&self.orders);
        (self.orders, self.groups) = (orders, groups);
        self.roster = roster;
        self.panic_threshold = panic_threshold;
        self.edition += 1;
        let mut wards: BTreeMap<Name, Ward> = BTreeMap::new();
        for (check, Entry { machine, .. }) in self.roster.checks.iter().zip(&self.entries) {
            let ward = wards.entry(check.instance.clone()).or_default();
            ward.checks += 1;
            ward.suspects += usize::from(machine.is_suspect());
            ward.panic = self.wards.get(&check.instance).and_then(|ward| ward.panic);
        }
        self.wards = wards;
    }

    /// When a probe is due next.
    pub(super) fn next(&self) -> Option<Duration> {
        self.timetable.next()
    }

    /// The probes to be made at `now`, at most `room`.
    pub(super) fn due(&mut self, now: Duration, room: usize) -> Vec<Errand> {
        let taken = self.timetable.take(now, self.rate, room);
        self.pace.largest_bunch = self.pace.largest_bunch.max(taken.len());
        let errand = |(at, number): (Duration, usize)| {
            self.pace.note(now.saturating_sub(at));
            self.entries[number].due = None;
            Errand { place: (self.edition, number), check: Arc::clone(&self.roster.checks[number]) }
        };
        taken.into_iter().map(errand).collect()
    }

    /// Takes what came of an errand that ended at `now`.
    pub(super) fn note(&mut self, errand: &Errand, outcome: &Outcome, now: Duration) -> Vec<Event> {
        *self.probes.entry(outcome.word()).or_default() += 1;
        let (edition, number) = errand.place;
        // In another roster the check has another number, or is gone.
        let place = if edition == self.edition { Some(number) } else { self.roster.checks.binary_search(&errand.check).ok() };
        let Some((number, Entry { machine, due })) = place.and_then(|n| Some((n, self.entries.get_mut(n)?))) else {
            return Vec::new();
        };
        let check = &errand.check;
        let mut events = Vec::new();
        let ward = self.wards.entry(check.instance.clone()).or_default();
        let was_suspect = machine.is_suspect();
        let flip = machine.observe(&check.how, now, outcome, ward.panic.is_some());
        ward.suspects = ward.suspects + usize::from(machine.is_suspect()) - usize::from(was_suspect);
        let next = now + machine.pause(&check.how);
        *due = Some(next);
        self.timetable.add(next, number);
        events.extend(flip.map(Event::Flip));
        if let Outcome::Passed { connected } = outcome
            && machine.is_up()
        {
            for group in &self.groups[number] {
                let measured = self.rounds.note(group, check.how.interval, now, *connected);
                if measured.is_some_and(|round_trip| self.orders.measured(group, round_trip)) {
                    events.push(Event::Order(group.clone()));
                }
            }
        }
        let many = self.panic_threshold.is_some_and(|limit| ward.suspects * 100 > usize::from(limit) * ward.checks);
        match (many, ward.panic) {
            (true, None) => {
                ward.panic = Some(now);
                events.push(Event::Panic { instance: check.instance.clone(), suspects: ward.suspects, checks: ward.checks });
            }
            (false, Some(_)) => {
                ward.panic = None;
                events.push(Event::Calm { instance: check.instance.clone() });
            }
            (true, Some(_)) | (false, None) => {}
        }
        events
    }

    /// Everything at `now`.
    pub fn report(&self, now: Duration) -> Report {
        let seen = self.roster.checks.iter().zip(&self.entries).map(|(check, Entry { machine, .. })| Seen {
            up: machine.is_up(),
            since: machine.since(),
            suspect: machine.is_suspect(),
            failure: machine.failure().cloned(),
            round_trip: machine.round_trip(),
            share_percent: machine.share_percent(&check.how, now),
            held_until: machine.held_until(now),
        });
        let panics = self.wards.iter().filter_map(|(instance, ward)| {
            let panic = Panic { since: ward.panic?, suspects: ward.suspects, checks: ward.checks };
            Some((instance.clone(), panic))
        });
        Report {
            roster: Arc::clone(&self.roster),
            seen: seen.collect(),
            orders: self.orders.clone(),
            panics: panics.collect(),
            probes: self.probes.clone(),
            pace: self.pace.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        health::{Order, outcome::Reason},
        model::{EndpointKind, HealthCheck, NameRule},
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn name(text: &str) -> Name {
        Name::parse(text, NameRule::Seed).expect("a name")
    }

    /// As many endpoints of one listener, each with a check of its own.
    fn roster(count: u8, how: &HealthCheck) -> Arc<Roster> {
        let check = |last: u8| Check {
            instance: name("shop"),
            source: [203, 0, 113, 5].into(),
            target: ([10, 0, 0, last], 80).into(),
            how: how.clone(),
            preface: None,
        };
        let endpoint = |last: u8| EndpointName {
            instance: name("shop"),
            listener: name("web"),
            group: name("near"),
            kind: EndpointKind::PrivateIp,
            address: [10, 0, 0, last].into(),
            port: None,
        };
        Arc::new(Roster {
            checks: (0..count).map(|last| Arc::new(check(last))).collect(),
            endpoints: (0..count).map(|last| (endpoint(last), usize::from(last))).collect(),
            orders: Orders::default(),
        })
    }

    fn book(count: u8, how: &HealthCheck, panic_threshold: Option<u8>) -> Book {
        Book::new(roster(count, how), panic_threshold, &Kept::default(), Duration::ZERO)
    }

    /// Runs until `end`; outcomes by number, at once.
    fn run(book: &mut Book, from: Duration, end: Duration, outcome: impl Fn(usize) -> Outcome) -> Vec<Event> {
        let (mut now, mut events) = (from, Vec::new());
        while now < end {
            for errand in book.due(now, usize::MAX) {
                events.extend(book.note(&errand, &outcome(errand.place.1), now));
            }
            now += Duration::from_millis(2);
        }
        events
    }

    fn passed(_number: usize) -> Outcome {
        Outcome::Passed { connected: Duration::from_millis(1) }
    }

    fn failed(_number: usize) -> Outcome {
        Outcome::Failed(Reason::Refused)
    }

    #[test]
    fn every_check_is_made_once_in_an_interval() {
        let mut book = book(50, &HealthCheck::default(), None);
        run(&mut book, Duration::ZERO, 20 * SECOND, passed);
        let report = book.report(20 * SECOND);
        // Each made at the grid's next two milliseconds, so a few late ones are missing.
        assert!((495..=500).contains(&report.probes["passed"]), "{:?}", report.probes);
        assert!(report.seen.iter().all(|seen| seen.up && seen.round_trip.is_some()));
        assert!(report.pace.largest_bunch < 5, "{:?}", report.pace);
    }

    #[test]
    fn a_refusing_endpoint_is_down_within_six_seconds_and_the_others_stay() {
        let mut book = book(10, &HealthCheck::default(), None);
        let events = run(&mut book, Duration::ZERO, 7 * SECOND, |number| if number == 3 { failed(3) } else { passed(number) });
        assert_eq!(events, [Event::Flip(Flip::Down)]);
        let seen = &book.report(7 * SECOND).seen[3];
        assert_eq!((seen.up, &seen.failure), (false, &Some(Reason::Refused)));
        assert!(seen.since <= 6 * SECOND + Duration::from_millis(10), "interval for the first, then two more: {seen:?}");
    }

    #[test]
    fn too_many_at_once_are_the_checkers_fault() {
        let mut book = book(10, &HealthCheck::default(), Some(50));
        let six = |number: usize| if number < 6 { failed(number) } else { passed(number) };
        let events = run(&mut book, Duration::ZERO, 60 * SECOND, six);
        assert_eq!(events, [Event::Panic { instance: name("shop"), suspects: 6, checks: 10 }], "held for as long as it lasts");
        assert!(book.report(60 * SECOND).panics.contains_key(&name("shop")));
        // Five are not more than half: from now on verdicts are made again.
        let five = |number: usize| if number < 5 { failed(number) } else { passed(number) };
        let events = run(&mut book, 60 * SECOND, 70 * SECOND, five);
        assert_eq!(events.first(), Some(&Event::Calm { instance: name("shop") }));
        assert_eq!(events.iter().filter(|event| matches!(event, Event::Flip(Flip::Down))).count(), 5, "{events:?}");
    }

    #[test]
    fn without_a_panic_threshold_all_may_fail() {
        let mut book = book(10, &HealthCheck::default(), None);
        let events = run(&mut book, Duration::ZERO, 7 * SECOND, failed);
        assert_eq!(events.len(), 10, "{events:?}");
    }

    #[test]
    fn a_reload_keeps_what_stays_and_forgets_what_goes() {
        let how = HealthCheck::default();
        let mut book = book(10, &how, None);
        run(&mut book, Duration::ZERO, 10 * SECOND, |number| if number < 2 { failed(number) } else { passed(number) });
        // On their way when the roster changes: the seventh is gone then, the second stays.
        let late: Vec<Errand> = (0..10).flat_map(|_| book.due(14 * SECOND, usize::MAX)).collect();
        let late = |number: usize| late.iter().find(|errand| errand.place.1 == number).expect("all are due").clone();
        let since = book.report(10 * SECOND).seen[1].since;
        book.replace(roster(5, &how), None, 14 * SECOND);
        let report = book.report(12 * SECOND);
        assert_eq!(report.seen.iter().map(|seen| seen.up).collect::<Vec<_>>(), [false, false, true, true, true]);
        assert_eq!(report.seen[1].since, since, "an equal check is the same check");
        book.note(&late(7), &failed(7), 14 * SECOND);
        book.note(&late(2), &failed(2), 14 * SECOND);
        let suspects: Vec<_> = book.report(14 * SECOND).seen.iter().map(|seen| seen.suspect).collect();
        assert_eq!(suspects, [false, false, true, false, false]);
        book.note(&late(2), &passed(2), 14 * SECOND);
        // Another interval: another check with the same verdict.
        book.replace(roster(5, &HealthCheck { interval: SECOND, ..how }), None, 15 * SECOND);
        assert_eq!(book.report(15 * SECOND).seen.iter().filter(|seen| seen.up).count(), 3);
        let events = run(&mut book, 15 * SECOND, 19 * SECOND, passed);
        assert_eq!(events.len(), 2, "both recover: {events:?}");
    }

    #[test]
    fn reloads_without_end_keep_nobody_from_being_probed() {
        let how = HealthCheck::default();
        let mut book = book(20, &how, None);
        let mut now = Duration::ZERO;
        for count in (10..20).cycle().take(100) {
            run(&mut book, now, now + SECOND / 10, passed);
            now += SECOND / 10;
            book.replace(roster(count, &how), None, now);
        }
        // Ten stay all the time: ten seconds are five intervals.
        let probes = book.report(now).probes["passed"];
        assert!((49..=100).contains(&probes), "{probes}");
    }

    #[test]
    fn verdicts_outlive_a_restart() {
        let how = HealthCheck { initially_healthy: false, ..HealthCheck::default() };
        let mut first = book(3, &how, None);
        assert!(first.report(SECOND).seen.iter().all(|seen| !seen.up), "the check says so");
        run(&mut first, Duration::ZERO, 10 * SECOND, |number| if number == 0 { failed(number) } else { passed(number) });
        let verdicts = first.report(10 * SECOND).verdicts();
        let kept = Kept { verdicts, ..Kept::default() };
        let second = Book::new(roster(3, &how), None, &kept, Duration::ZERO);
        assert_eq!(second.report(SECOND).seen.iter().map(|seen| seen.up).collect::<Vec<_>>(), [false, true, true]);
    }

    // proves: B12
    #[test]
    fn round_trips_to_healthy_endpoints_decide_the_order_of_groups_and_outlive_a_restart() {
        let order = Order::new([(name("far"), None), (name("near"), None)]);
        let mut roster = Roster::clone(&roster(4, &HealthCheck::default()));
        roster.orders = Orders::from_iter([(name("shop"), name("web"), order)]);
        // Half of the endpoints are in the other group.
        let group = |number: &usize| name(if *number < 2 { "far" } else { "near" });
        let in_group =
            |(endpoint, number): (&EndpointName, &usize)| (EndpointName { group: group(number), ..endpoint.clone() }, *number);
        roster.endpoints = roster.endpoints.iter().map(in_group).collect();
        let roster = Arc::new(roster);
        let nearest = |book: &Book| {
            let priority = book.report(SECOND).beliefs(&roster).priority;
            priority.into_iter().min_by_key(|(_, place)| *place).map(|(group, _)| group.group.to_string())
        };
        let mut book = Book::new(Arc::clone(&roster), None, &Kept::default(), Duration::ZERO);
        assert_eq!(nearest(&book).as_deref(), Some("far"), "as in the file");
        let took = |number| Outcome::Passed { connected: Duration::from_millis(if number < 2 { 60 } else { 9 }) };
        let events = run(&mut book, Duration::ZERO, 9 * SECOND, took);
        assert!(matches!(&events[..], [Event::Order(_)]), "{events:?}");
        assert_eq!(nearest(&book).as_deref(), Some("near"));
        let again = Book::new(Arc::clone(&roster), None, &book.report(9 * SECOND).kept(), Duration::ZERO);
        assert_eq!(nearest(&again).as_deref(), Some("near"));
    }
}
