//! Which table the flows of a listener began with that remembers them only while something changes, and how long that must be known.
//!
//! When such a listener gets another table, the one before stays named beside it: further changes leave it there. After the idle
//! timeout, counted from the last change, every flow that is alive is remembered, or goes where the table in use says: the table
//! before is given up, and flow memory is asked as long as it has a flow of the listener. Time is an argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ga_common::abi::{
    active::{Active, Before},
    id::{ListenerId, TableId},
};

use super::{Family, State};

/// What is known of older flows when a listener gets `table`, and had `running`.
pub(super) fn before(running: Active, table: TableId) -> Before {
    let was = running.table();
    match running.before() {
        before if was == table => before,
        // Back to where they began.
        Before::Table(oldest) if oldest == table => Before::Remembered,
        Before::Table(oldest) => Before::Table(oldest),
        // Nobody's flows began then.
        before if was == TableId::EMPTY => before,
        Before::Same | Before::Remembered => Before::Table(was),
    }
}

/// Until when what is known of older flows must stay known.
#[derive(Clone, Debug, Default)]
pub struct Transitions(BTreeMap<(ListenerId, Family), Transition>);

#[derive(Clone, Copy, Debug)]
struct Transition {
    active: Active,
    until: Duration,
}

impl Transitions {
    /// Takes note at `now` of what the maps hold. What is seen for the first time begins now: after a restart it lasts longer than it
    /// must, and never shorter.
    pub fn note(&mut self, state: &State, now: Duration) {
        let mut noted = BTreeMap::new();
        for (&key, &active) in state.active.iter().filter(|(_, active)| active.before() != Before::Same) {
            let idle = state.listeners.get(&key.0).map_or(0, |listener| listener.idle_timeout_s);
            let until = match self.0.get(&key) {
                Some(known) if known.active.table() == active.table() => known.until,
                Some(_) | None => now + Duration::from_secs(idle.into()),
            };
            noted.insert(key, Transition { active, until });
        }
        self.0 = noted;
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether older flows of `listener` may go elsewhere than new ones.
    pub fn concern(&self, listener: ListenerId) -> bool {
        self.0.keys().any(|(id, _)| *id == listener)
    }

    /// What the maps shall hold from `now` on, when something of `state` need not be known any more. `remembered` tells the listeners
    /// that have flows in flow memory; it is asked only where that matters.
    pub fn ended(&self, state: &State, now: Duration, remembered: impl FnOnce() -> BTreeSet<ListenerId>) -> Option<State> {
        let due = || self.0.iter().filter(|(_, transition)| transition.until <= now);
        due().next()?;
        let is_asked = due().any(|(_, transition)| transition.active.before() == Before::Remembered);
        let remembered = if is_asked { remembered() } else { BTreeSet::new() };
        let mut target = state.clone();
        for (key, Transition { active, .. }) in due() {
            let before = match active.before() {
                Before::Table(_) => Before::Remembered,
                Before::Remembered if remembered.contains(&key.0) => continue,
                Before::Remembered | Before::Same => Before::Same,
            };
            target.active.insert(*key, Active::of(active.table(), before));
        }
        let used: BTreeSet<TableId> = target.active.values().flat_map(|active| named(*active)).collect();
        target.tables.retain(|id, _| used.contains(id));
        (target != *state).then_some(target)
    }
}

/// The tables that packets may read.
fn named(active: Active) -> impl Iterator<Item = TableId> {
    let before = match active.before() {
        Before::Table(table) => Some(table),
        Before::Same | Before::Remembered => None,
    };
    [active.table()].into_iter().chain(before)
}

#[cfg(test)]
mod tests {
    use ga_common::abi::entry::Listener;

    use super::*;
    use crate::plan::TableInfo;

    const KEY: (ListenerId, Family) = (ListenerId(3), Family::V4);

    fn state(active: Active) -> State {
        let mut state = State::default();
        state.listeners.insert(KEY.0, Listener { idle_timeout_s: 60, ..Listener::default() });
        state.active.insert(KEY, active);
        state.tables =
            named(active).filter(|id| *id != TableId::EMPTY).map(|id| (id, TableInfo { digest: 1, slots: None })).collect();
        state
    }

    fn of(table: u32, before: Before) -> Active {
        Active::of(TableId(table), before)
    }

    #[test]
    fn the_oldest_table_stays_named_through_further_changes() {
        let (same, remembered, first) = (Before::Same, Before::Remembered, Before::Table(TableId(1)));
        let cases = [
            (of(1, same), 1, same),
            (of(1, same), 2, first),
            (of(1, same), 0, first),
            (of(2, first), 2, first),
            (of(2, first), 3, first),
            (of(2, first), 0, first),
            (of(0, first), 3, first),
            (of(2, first), 1, remembered),
            (of(1, remembered), 2, first),
            (of(1, remembered), 1, remembered),
            (of(0, remembered), 1, remembered),
            (of(0, same), 1, same),
        ];
        for (running, table, expected) in cases {
            assert_eq!(before(running, TableId(table)), expected, "{running:?} to {table}");
        }
    }

    #[test]
    fn a_table_is_given_up_after_the_idle_timeout_and_flow_memory_asked_until_it_is_empty() {
        let second = Duration::from_secs(1);
        let mut transitions = Transitions::default();
        let mut running = state(of(2, Before::Table(TableId(1))));
        transitions.note(&running, 10 * second);
        assert!(transitions.concern(KEY.0) && transitions.len() == 1);
        let nobody = || -> BTreeSet<ListenerId> { panic!("flow memory is not asked yet") };
        assert_eq!(transitions.ended(&running, 69 * second, nobody), None);
        running = transitions.ended(&running, 70 * second, nobody).unwrap();
        assert_eq!(running, state(of(2, Before::Remembered)));
        transitions.note(&running, 70 * second);
        assert_eq!(transitions.ended(&running, 71 * second, || [KEY.0].into()), None);
        running = transitions.ended(&running, 72 * second, BTreeSet::new).unwrap();
        assert_eq!(running, state(of(2, Before::Same)));
        transitions.note(&running, 72 * second);
        assert!(transitions.is_empty());
    }

    #[test]
    fn a_further_change_begins_the_time_anew_and_so_does_a_restart() {
        let second = Duration::from_secs(1);
        let first = Before::Table(TableId(1));
        let mut transitions = Transitions::default();
        transitions.note(&state(of(2, first)), 10 * second);
        transitions.note(&state(of(2, first)), 40 * second);
        let third = state(of(3, first));
        transitions.note(&third, 50 * second);
        assert_eq!(transitions.ended(&third, 109 * second, BTreeSet::new), None);
        assert!(transitions.ended(&third, 110 * second, BTreeSet::new).is_some());
        let mut restarted = Transitions::default();
        restarted.note(&third, 90 * second);
        assert_eq!(restarted.ended(&third, 149 * second, BTreeSet::new), None);
    }
}
