//! Which part of the new flows chooses another endpoint under a new plan.

use serde::{Deserialize, Serialize};

use super::{Family, ListenerView, Plan, Selection, TableView, change::pairs};

/// How many of a listener's new flows choose another endpoint than before. Established flows stay where they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// `instance/listener`.
    pub listener: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// 0 to 1.
    pub share: f64,
}

/// Every listener and family that had somebody to choose before and is still there.
pub(super) fn moved(old: &Plan, new: &Plan) -> Vec<Moved> {
    let mut moved = Vec::new();
    pairs(&old.listeners, &new.listeners, ListenerView::path, |before, after| {
        let (Some(before), Some(after)) = (before, after) else { return };
        let rehashed = old.target.seed != new.target.seed || before.affinity != after.affinity;
        for family in Family::ALL {
            let tables = before.tables.get(&family).zip(after.tables.get(&family));
            if let Some((from, to)) = tables.filter(|(from, _)| !from.selection.is_empty()) {
                let share = if rehashed { expected(&from.selection, &to.selection) } else { measured(from, to, new.table_size) };
                moved.push(Moved { listener: after.path(), family: family.word().to_owned(), share });
            }
        }
    });
    moved
}

/// By the slots whose owner is another one.
fn measured(old: &TableView, new: &TableView, size: usize) -> f64 {
    if old.selection == new.selection {
        return 0.0;
    }
    if new.selection.is_empty() {
        return 1.0;
    }
    let owners = |table: &TableView| -> Vec<u64> {
        let candidates = table.selection.candidates();
        table.selection.slots(size).into_iter().map(|slot| candidates[slot as usize].identity).collect()
    };
    let (old, new) = (owners(old), owners(new));
    old.iter().zip(&new).filter(|(old, new)| old != new).count() as f64 / size as f64
}

/// When flows hash to other slots: each of them meets its old owner as often as that one's new share says.
fn expected(old: &Selection, new: &Selection) -> f64 {
    let same = |identity: u64| old.fraction(identity) * new.fraction(identity);
    1.0 - old.candidates().iter().map(|candidate| same(candidate.identity)).sum::<f64>()
}
