//! The scheduling priority of a listener's groups: nearest first, and not changed by a whim (specification §1.5).
//!
//! A pure state machine: it is told of measurements, one by one. A group overtakes another one when it was found nearer by more
//! than 5 ms and by more than a tenth in three measurements in a row. Groups of equal standing stay in file order.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::model::Name;

/// Measurements in a row that must agree.
const MEASUREMENTS: u8 = 3;
/// A group that is nearer by no more than this is not worth a change.
const LEAST: Duration = Duration::from_millis(5);
/// Part of a new measurement in the smoothed latency (RFC 6298 section 2 takes an eighth too).
const SMOOTHING: u32 = 8;

/// What is known of one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    name: Name,
    /// Set by the file: measurements do not count.
    fixed: bool,
    latency: Option<Duration>,
}

/// The groups of one listener, in the order of their priority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    groups: Vec<Known>,
    /// How often in a row the second was found clearly nearer than the first.
    #[serde(skip)]
    nearer: BTreeMap<(Name, Name), u8>,
}

impl Order {
    /// The groups in file order, each with the latency that the file gives it. Those without one follow those with one.
    pub fn new(groups: impl IntoIterator<Item = (Name, Option<Duration>)>) -> Self {
        let known = |(name, latency): (Name, Option<Duration>)| Known { name, fixed: latency.is_some(), latency };
        let mut groups: Vec<_> = groups.into_iter().map(known).collect();
        groups.sort_by_key(|group| group.latency.unwrap_or(Duration::MAX));
        Self { groups, nearer: BTreeMap::new() }
    }

    /// Takes over what `old` knew of the groups that both have: a changed file does not forget what was measured.
    pub fn resume(mut self, old: &Self) -> Self {
        for group in self.groups.iter_mut().filter(|group| !group.fixed) {
            let before = old.groups.iter().find(|other| other.name == group.name && !other.fixed);
            group.latency = before.and_then(|before| before.latency);
        }
        let place = |name: &Name| old.groups.iter().position(|other| other.name == *name).unwrap_or(usize::MAX);
        let stays = |group: &Known, other: &Known| {
            other.name == group.name && other.fixed == group.fixed && (!group.fixed || other.latency == group.latency)
        };
        let same = self.groups.iter().all(|group| old.groups.iter().any(|other| stays(group, other)));
        if same {
            self.groups.sort_by_key(|group| place(&group.name));
        } else {
            self.groups.sort_by_key(|group| group.latency.unwrap_or(Duration::MAX));
        }
        self
    }

    /// Takes note of a measured round trip to the endpoints of `group`; true when the order changed.
    pub fn measured(&mut self, group: &Name, round_trip: Duration) -> bool {
        let Some(index) = self.groups.iter().position(|known| known.name == *group && !known.fixed) else { return false };
        let smoothed = |old: Duration| (old * (SMOOTHING - 1) + round_trip) / SMOOTHING;
        self.groups[index].latency = Some(self.groups[index].latency.map_or(round_trip, smoothed));
        self.count(index);
        let order = self.decided();
        let changed = !order.iter().eq(self.groups.iter().map(|known| &known.name));
        if changed {
            self.groups.sort_by_key(|known| order.iter().position(|name| *name == known.name));
            self.nearer.clear();
        }
        changed
    }

    /// The names, nearest first, with the smoothed or fixed latency of each.
    pub fn groups(&self) -> impl Iterator<Item = (&Name, Option<Duration>)> {
        self.groups.iter().map(|known| (&known.name, known.latency))
    }

    /// Compares the measured group with all others. A comparison counts when it is about a new measurement of the nearer one, or
    /// when the nearer one is never measured.
    fn count(&mut self, measured: usize) {
        let just = &self.groups[measured];
        for other in self.groups.iter().filter(|other| other.name != just.name) {
            let pair = |far: &Known, near: &Known| (far.name.clone(), near.name.clone());
            let counter = self.nearer.entry(pair(other, just)).or_default();
            *counter = if clearly_nearer(just.latency, other.latency) { counter.saturating_add(1) } else { 0 };
            let counter = self.nearer.entry(pair(just, other)).or_default();
            if !clearly_nearer(other.latency, just.latency) {
                *counter = 0;
            } else if other.fixed {
                *counter = counter.saturating_add(1);
            }
        }
    }

    /// From the front: each place goes to the one that has it, or to the nearest of those that may overtake that one.
    fn decided(&self) -> Vec<Name> {
        let mut rest: Vec<&Known> = self.groups.iter().collect();
        let mut order = Vec::with_capacity(rest.len());
        while let Some(head) = rest.first().copied() {
            let overtakes = |other: &&Known| {
                self.nearer.get(&(head.name.clone(), other.name.clone())).is_some_and(|count| *count >= MEASUREMENTS)
            };
            let best = rest.iter().copied().filter(overtakes).min_by_key(|known| known.latency).unwrap_or(head);
            rest.retain(|known| known.name != best.name);
            order.push(best.name.clone());
        }
        order
    }
}

/// By more than the greater of 5 ms and a tenth; what was never measured is farther than anything.
fn clearly_nearer(near: Option<Duration>, far: Option<Duration>) -> bool {
    match (near, far) {
        (Some(near), Some(far)) => near + LEAST.max(far / 10) < far,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::model::NameRule;

    fn name(text: &str) -> Name {
        Name::parse(text, NameRule::Extended).unwrap()
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn order(groups: &[(&str, Option<u64>)]) -> Order {
        Order::new(groups.iter().map(|(text, latency)| (name(text), latency.map(ms))))
    }

    fn names(order: &Order) -> String {
        order.groups().map(|(name, _)| name.to_string()).collect::<Vec<_>>().join(" ")
    }

    /// Rounds of measurements until the order changes.
    fn rounds(order: &mut Order, latencies: &[(&str, u64)]) -> Option<usize> {
        (1..=100).find(|_| latencies.iter().fold(false, |changed, (group, n)| order.measured(&name(group), ms(*n)) || changed))
    }

    // proves: B12
    #[test]
    fn the_nearest_group_comes_first_after_three_measurements() {
        let mut order = order(&[("far", None), ("near", None)]);
        assert_eq!(rounds(&mut order, &[("far", 50), ("near", 5)]), Some(3));
        assert_eq!(names(&order), "near far");
    }

    #[test]
    fn a_small_difference_changes_nothing() {
        for (first, second) in [(10, 6), (100, 91), (20, 20), (5, 1)] {
            let mut order = order(&[("a", None), ("b", None)]);
            assert_eq!(rounds(&mut order, &[("a", first), ("b", second)]), None, "{first} {second}");
        }
        let mut order = order(&[("a", None), ("b", None)]);
        assert_eq!(rounds(&mut order, &[("a", 100), ("b", 89)]), Some(3));
    }

    #[test]
    fn one_measurement_that_disagrees_begins_the_count_anew() {
        let mut order = order(&[("a", None), ("b", None)]);
        order.measured(&name("a"), ms(20));
        for round_trip in [5, 5, 200, 5, 5] {
            assert!(!order.measured(&name("b"), ms(round_trip)), "the third is one of five");
        }
        let more = (1..=100).find(|_| order.measured(&name("b"), ms(5)));
        assert!(more.is_some_and(|more| more > 3), "{more:?}: smoothing forgets the outlier slowly");
    }

    #[test]
    fn a_group_that_was_never_measured_comes_last_and_in_file_order() {
        let mut order = order(&[("a", None), ("b", None), ("c", None)]);
        assert_eq!(names(&order), "a b c");
        assert_eq!(rounds(&mut order, &[("c", 70)]), Some(3));
        assert_eq!(names(&order), "c a b");
    }

    #[test]
    fn a_fixed_latency_counts_and_is_not_measured() {
        let mut order = order(&[("a", Some(80)), ("b", Some(7)), ("c", None)]);
        assert_eq!(names(&order), "b a c");
        assert!(!order.measured(&name("b"), ms(500)));
        assert_eq!(rounds(&mut order, &[("c", 40)]), Some(3));
        assert_eq!(names(&order), "b c a");
        assert_eq!(rounds(&mut order, &[("c", 4_000)]), Some(3));
        assert_eq!(names(&order), "b a c");
    }

    #[test]
    fn the_first_place_goes_to_the_nearest_though_it_hardly_beats_the_second() {
        let mut order = order(&[("a", None), ("b", None), ("c", None)]);
        assert_eq!(rounds(&mut order, &[("a", 120), ("b", 115), ("c", 106)]), Some(3));
        assert_eq!(names(&order), "c a b");
    }

    #[test]
    fn a_changed_file_keeps_what_was_measured() {
        let mut old = order(&[("a", None), ("b", None)]);
        assert_eq!(rounds(&mut old, &[("a", 50), ("b", 5)]), Some(3));
        assert_eq!(names(&order(&[("a", None), ("b", None)]).resume(&old)), "b a");
        assert_eq!(names(&order(&[("c", None), ("a", None), ("b", None)]).resume(&old)), "b a c");
        assert_eq!(names(&order(&[("a", Some(1)), ("b", None)]).resume(&old)), "a b");
        let old = order(&[("a", Some(7)), ("b", Some(80))]);
        assert_eq!(names(&order(&[("a", Some(90)), ("b", Some(80))]).resume(&old)), "b a", "what the file says is newer");
    }

    proptest! {
        #[test]
        fn steady_latencies_end_in_an_order_that_nobody_clearly_beats(latencies in vec(1_u64..300, 1..8)) {
            let label = |index: usize| format!("g{index}");
            let mut order = Order::new((0..latencies.len()).map(|index| (name(&label(index)), None)));
            let mut changes = 0;
            for _ in 0..40 {
                for (index, n) in latencies.iter().enumerate() {
                    changes += usize::from(order.measured(&name(&label(index)), ms(*n)));
                }
            }
            let last: Vec<_> = order.groups().map(|(_, latency)| latency).collect();
            prop_assert!(last.iter().all(|other| !clearly_nearer(*other, last[0])));
            prop_assert!(changes <= latencies.len());
            // Nothing moves any more.
            for (index, n) in latencies.iter().enumerate() {
                prop_assert!(!order.measured(&name(&label(index)), ms(*n)));
            }
        }
    }
}
