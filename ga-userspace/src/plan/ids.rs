//! Dense numbers that survive reloads.
//!
//! Flows and counters name listeners and endpoints by number long after a plan dropped them. So a new one gets the next number
//! above all that were ever used; when these run out, the lowest one that is not in use, and only then a retired one. Nothing
//! remembers a table by its number, so tables get the lowest one that is free.

use std::collections::BTreeSet;

/// Numbers of one kind.
pub(super) struct Pool {
    first: u32,
    limit: u32,
    next: u32,
    taken: BTreeSet<u32>,
    retired: BTreeSet<u32>,
}

impl Pool {
    /// Numbers from `first` up to and not including `limit`.
    pub(super) fn new(
        first: u32,
        limit: u32,
        taken: impl IntoIterator<Item = u32>,
        retired: impl IntoIterator<Item = u32>,
    ) -> Self {
        let taken: BTreeSet<u32> = taken.into_iter().collect();
        let retired: BTreeSet<u32> = retired.into_iter().filter(|number| !taken.contains(number)).collect();
        let next = taken.iter().chain(&retired).max().map_or(first, |highest| highest + 1);
        Self { first, limit, next, taken, retired }
    }

    /// Gives the number that was found for something that had one; it is nobody else's from now on.
    pub(super) fn keep(&mut self, number: u32) -> u32 {
        self.retired.remove(&number);
        self.taken.insert(number);
        number
    }

    /// A number that nobody has; `None` when all are taken.
    pub(super) fn take(&mut self) -> Option<u32> {
        let number = if self.next < self.limit {
            let number = self.next;
            self.next += 1;
            number
        } else {
            let unused = (self.first..self.limit).find(|number| !self.taken.contains(number) && !self.retired.contains(number));
            unused.or_else(|| self.retired.first().copied())?
        };
        Some(self.keep(number))
    }

    /// The lowest number that is not taken: for what nobody remembers after its time, and what costs memory while it is kept.
    pub(super) fn take_lowest(&mut self) -> Option<u32> {
        let number = (self.first..self.limit).find(|number| !self.taken.contains(number))?;
        Some(self.keep(number))
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_again_only_when_all_others_were_used() {
        let mut pool = Pool::new(0, 6, [1], [3]);
        let given: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(given, [4, 5, 0, 2, 3]);
        assert_eq!(pool.taken(), 6);
    }

    #[test]
    fn the_lowest_number_is_the_lowest_that_is_not_taken() {
        let mut pool = Pool::new(1, 5, [2, 4], []);
        assert_eq!([pool.take_lowest(), pool.take_lowest(), pool.take_lowest()], [Some(1), Some(3), None]);
    }

    #[test]
    fn a_kept_number_is_nobody_elses() {
        let mut pool = Pool::new(0, 2, [], [0, 1]);
        assert_eq!(pool.keep(0), 0);
        assert_eq!([pool.take(), pool.take()], [Some(1), None]);
    }
}
