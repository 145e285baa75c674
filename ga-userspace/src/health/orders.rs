//! The orders of all listeners' groups, and how probes of single endpoints become measurements of their groups.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::Order;
use crate::model::{GroupName, Instance, Intent, Listener, Name};

/// By instance and listener: those listeners whose groups health can bring into another order than the file's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders(BTreeMap<Name, BTreeMap<Name, Order>>);

impl Orders {
    /// Of every listener that has several groups, one of which is measured.
    pub fn of(intent: &Intent) -> Self {
        let order = |(instance, listener): (&Instance, &Listener)| {
            let is_measured = listener.groups.iter().any(|group| group.health_check.is_some() && group.latency.is_none());
            let groups = listener.groups.iter().map(|group| (group.name.clone(), group.latency));
            (listener.groups.len() > 1 && is_measured).then(|| (instance.id.clone(), listener.name.clone(), Order::new(groups)))
        };
        intent.listeners().filter_map(order).collect()
    }

    /// Takes over what `old` knew.
    pub fn resume(&mut self, old: &Self) {
        for (instance, listeners) in &mut self.0 {
            for (listener, order) in listeners {
                if let Some(old) = old.0.get(instance).and_then(|listeners| listeners.get(listener)) {
                    *order = order.clone().resume(old);
                }
            }
        }
    }

    /// Takes note of a round trip; true when the order of the listener changed.
    pub fn measured(&mut self, group: &GroupName, round_trip: Duration) -> bool {
        self.get_mut(group).is_some_and(|order| order.measured(&group.group, round_trip))
    }

    /// Whether the group is part of an order.
    pub fn has(&self, group: &GroupName) -> bool {
        self.0.get(&group.instance).is_some_and(|listeners| listeners.contains_key(&group.listener))
    }

    /// Where each group stands, from 0.
    pub fn priority(&self) -> BTreeMap<GroupName, usize> {
        let mut priority = BTreeMap::new();
        for (instance, listeners) in &self.0 {
            for (listener, order) in listeners {
                let name =
                    |group: &Name| GroupName { instance: instance.clone(), listener: listener.clone(), group: group.clone() };
                priority.extend(order.groups().enumerate().map(|(place, (group, _))| (name(group), place)));
            }
        }
        priority
    }

    fn get_mut(&mut self, group: &GroupName) -> Option<&mut Order> {
        self.0.get_mut(&group.instance)?.get_mut(&group.listener)
    }
}

impl FromIterator<(Name, Name, Order)> for Orders {
    fn from_iter<T: IntoIterator<Item = (Name, Name, Order)>>(orders: T) -> Self {
        let mut all = Self::default();
        for (instance, listener, order) in orders {
            all.0.entry(instance).or_default().insert(listener, order);
        }
        all
    }
}

/// The endpoints of a group, asked one after the other, are one measurement: their mean over an interval.
#[derive(Clone, Debug, Default)]
pub(super) struct Rounds(BTreeMap<GroupName, Round>);

#[derive(Clone, Copy, Debug)]
struct Round {
    begun: Duration,
    sum: Duration,
    count: u32,
}

impl Rounds {
    /// Takes the round trip to one endpoint; the group's when an interval is over. The first answer counts for itself.
    pub(super) fn note(
        &mut self,
        group: &GroupName,
        interval: Duration,
        now: Duration,
        round_trip: Duration,
    ) -> Option<Duration> {
        let begin = Round { begun: now, sum: Duration::ZERO, count: 0 };
        let Some(round) = self.0.get_mut(group) else {
            self.0.insert(group.clone(), begin);
            return Some(round_trip);
        };
        (round.sum, round.count) = (round.sum + round_trip, round.count + 1);
        if now < round.begun + interval {
            return None;
        }
        let mean = round.sum / round.count;
        *round = begin;
        Some(mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NameRule;

    fn name(text: &str) -> Name {
        Name::parse(text, NameRule::Extended).expect("a name")
    }

    #[test]
    fn an_interval_of_answers_is_one_measurement() {
        let group = GroupName { instance: name("shop"), listener: name("web"), group: name("near") };
        let (mut rounds, ms) = (Rounds::default(), Duration::from_millis);
        let mut note = |at, took| rounds.note(&group, ms(100), ms(at), ms(took)).map(|mean| mean.as_millis());
        let measured: Vec<_> =
            [(0, 50), (40, 10), (90, 20), (100, 30), (150, 7), (210, 9)].map(|(at, took)| note(at, took)).into();
        assert_eq!(measured, [Some(50), None, None, Some(20), None, Some(8)]);
    }

    #[test]
    fn orders_survive_their_text() {
        let groups = [(name("far"), None), (name("near"), None), (name("fixed"), Some(Duration::from_millis(20)))];
        let mut order = Order::new(groups.clone());
        for _ in 0..3 {
            order.measured(&name("far"), Duration::from_millis(80));
            order.measured(&name("near"), Duration::from_millis(3));
        }
        let orders = |order: Order| Orders::from_iter([(name("shop"), name("web"), order)]);
        let text = serde_json::to_string(&orders(order.clone())).expect("JSON");
        let mut anew = orders(Order::new(groups));
        anew.resume(&serde_json::from_str(&text).expect("the same"));
        let places: Vec<_> = anew.priority().into_iter().map(|(group, place)| (group.group.to_string(), place)).collect();
        assert_eq!(places, [("far".to_owned(), 2), ("fixed".to_owned(), 1), ("near".to_owned(), 0)]);
    }
}
