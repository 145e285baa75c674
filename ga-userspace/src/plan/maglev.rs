//! Shares to slots: a weighted Maglev table.
//!
//! Every endpoint has a permutation of the slots that depends on its identity alone, and a quota: its exact share of the
//! slots, rounded by largest remainder. Endpoints take turns; turn `k` of an endpoint with share `s` happens at the virtual
//! time `(k + ½) / s`, whoever else takes part, and claims the first free slot of its permutation. So the sequence of claims
//! of an endpoint hardly changes when another one comes, goes or changes its share, and neither do its slots.
//!
//! Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, §3.4, is the unweighted original.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
};

use super::identity;

/// Raised when the same shares would give other slots; part of every digest, so that old tables are not taken for new ones.
const ALGORITHM: u64 = 1;

/// Who wants slots, and how much of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// Decides which slots are preferred.
    pub identity: u64,
    /// In proportion to the others' shares; 0 gets nothing.
    pub share: u64,
}

/// Candidates in the one form from which slots and digest are made: by identity, none with share 0, shares without a common divisor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    candidates: Vec<Candidate>,
}

impl Selection {
    /// The order of `candidates` does not matter; identities must differ.
    pub fn new(candidates: impl IntoIterator<Item = Candidate>) -> Self {
        let mut candidates: Vec<_> = candidates.into_iter().filter(|candidate| candidate.share > 0).collect();
        candidates.sort_unstable();
        let divisor = candidates.iter().fold(0, |divisor, candidate| greatest_common_divisor(divisor, candidate.share));
        for candidate in &mut candidates {
            candidate.share /= divisor;
        }
        Self { candidates }
    }

    /// Nobody may be chosen.
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// Those with a share, by identity; slots name them by their place in this list.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// The part of all slots that `identity` is meant to have.
    pub fn fraction(&self, identity: u64) -> f64 {
        let of = |candidate: &Candidate| candidate.share as f64;
        let sum: f64 = self.candidates.iter().map(of).sum();
        self.candidates.iter().find(|candidate| candidate.identity == identity).map_or(0.0, |candidate| of(candidate) / sum)
    }

    /// Names the content of the table of `size` slots: equal digests, equal owners of every slot. Equal on every edge.
    pub fn digest(&self, size: usize) -> u64 {
        let pairs = self.candidates.iter().flat_map(|candidate| [candidate.identity, candidate.share]);
        identity::of_numbers([ALGORITHM, size as u64].into_iter().chain(pairs))
    }

    /// The owner of each of `size` slots as an index into [`candidates`](Self::candidates); `size` is a prime. Empty when
    /// nobody may be chosen.
    pub fn slots(&self, size: usize) -> Vec<u32> {
        if self.is_empty() {
            return Vec::new();
        }
        let quotas = self.quotas(size);
        let mut walks: Vec<_> = self.candidates.iter().map(|candidate| Walk::of(candidate.identity, size)).collect();
        let mut turns: BinaryHeap<_> =
            (0..self.candidates.len()).filter(|&i| quotas[i] > 0).map(|i| Reverse(Turn::first(i, &self.candidates[i]))).collect();
        let mut slots = vec![FREE; size];
        while let Some(mut turn) = turns.peek_mut() {
            let Turn { candidate, count, .. } = turn.0;
            let slot = walks[candidate].next_free(&slots);
            // Indices of candidates are far below u32::MAX: the ids they stand for have 16 bits.
            slots[slot] = candidate as u32;
            if count + 1 < quotas[candidate] {
                turn.0 = turn.0.next(&self.candidates[candidate]);
            } else {
                PeekMut::pop(turn);
            }
        }
        slots
    }

    /// How many slots each candidate gets: the exact share rounded down, and one more for the largest remainders.
    fn quotas(&self, size: usize) -> Vec<usize> {
        let sum: u128 = self.candidates.iter().map(|candidate| u128::from(candidate.share)).sum();
        let exact = |i: usize| u128::from(self.candidates[i].share) * size as u128;
        // At most `size`, which is a usize.
        let mut quotas: Vec<_> = (0..self.candidates.len()).map(|i| (exact(i) / sum) as usize).collect();
        let missing = size - quotas.iter().sum::<usize>();
        let mut by_remainder: Vec<_> = (0..self.candidates.len()).collect();
        by_remainder.sort_by_key(|&i| (Reverse(exact(i) % sum), self.candidates[i].identity));
        for &i in by_remainder.iter().take(missing) {
            quotas[i] += 1;
        }
        quotas
    }
}

const FREE: u32 = u32::MAX;

/// A candidate's way through all slots.
struct Walk {
    position: usize,
    skip: usize,
}

impl Walk {
    fn of(identity: u64, size: usize) -> Self {
        let (first, second) = (identity::mix(identity), identity::mix(identity::mix(identity)));
        Self { position: (first % size as u64) as usize, skip: (second % (size as u64 - 1)) as usize + 1 }
    }

    /// Ends, because a turn is only taken while a slot is free and a prime size lets the walk visit all of them.
    fn next_free(&mut self, slots: &[u32]) -> usize {
        loop {
            let here = self.position;
            self.position += self.skip;
            if self.position >= slots.len() {
                self.position -= slots.len();
            }
            if slots[here] == FREE {
                return here;
            }
        }
    }
}

/// When a candidate claims its next slot; ordered by time, then identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    time: u128,
    identity: u64,
    candidate: usize,
    count: usize,
}

impl Turn {
    /// Half a turn's time of a candidate: the unit is so fine that shares of 64 bits keep 32 bits of precision, and the sum
    /// over all turns of a table stays far below 128 bits.
    fn half(candidate: &Candidate) -> u128 {
        (1 << 96) / u128::from(candidate.share)
    }

    fn first(index: usize, candidate: &Candidate) -> Self {
        Self { time: Self::half(candidate), identity: candidate.identity, candidate: index, count: 0 }
    }

    fn next(self, candidate: &Candidate) -> Self {
        Self { time: self.time + 2 * Self::half(candidate), count: self.count + 1, ..self }
    }
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests;
