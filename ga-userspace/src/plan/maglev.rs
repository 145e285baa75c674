//! Shares to slots: a weighted Maglev table.
//!
//! Every endpoint has a permutation of the slots that depends on its identity alone, and a quota: its exact share of the
//! slots, rounded by largest remainder. Endpoints take turns; turn `k` of an endpoint with share `s` happens at the virtual
//! time `(k + ½) / s`, whoever else takes part, and claims the first free slot of its permutation. So the sequence of claims
//! of an endpoint hardly changes when another one comes, goes or changes its share, and neither do its slots.
//!
//! Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, §3.4, is the unweighted original.
//! Its permutations are arithmetic progressions. Of two whose skips happen to stand in a simple ratio, one trails the other, and
//! a change lets both slip: the worst of 600 random sets of eight endpoints moved 7 % of the slots needlessly. Cubic progressions
//! do not trail each other and cost three additions a step; the worst of 7,200 changes moved 0.7 %.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
    sync::Arc,
};

use ga_common::abi::{id::EndpointId, limits::TABLE_SIZE};

use super::identity;

const _: () = assert!(TABLE_SIZE % 3 == 2, "the walks need a prime that leaves 2 when divided by 3");

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

    /// The owner of each of `size` slots as an index into [`candidates`](Self::candidates); empty when nobody may be chosen.
    /// `size` is a prime that leaves 2 when divided by 3.
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

    /// The same by the numbers of the owners, which `id` knows by their identity.
    pub(super) fn owners(&self, size: usize, id: impl Fn(u64) -> EndpointId) -> Arc<[EndpointId]> {
        let ids: Vec<_> = self.candidates.iter().map(|candidate| id(candidate.identity)).collect();
        self.slots(size).into_iter().map(|slot| ids[slot as usize]).collect()
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

/// A candidate's way through all slots: the values of `a·x³ + c` modulo the size for x = b, b + 1, …, by their differences.
/// Cubing is a bijection modulo a prime that leaves 2 when divided by 3.
struct Walk {
    position: u64,
    differences: [u64; 3],
}

impl Walk {
    fn of(identity: u64, size: usize) -> Self {
        let size = size as u64;
        let first = identity::mix(identity);
        let second = identity::mix(first);
        let third = identity::mix(second);
        let (a, b, c) = (first % (size - 1) + 1, second % size, third % size);
        let times = |x: u64, y: u64| x * y % size;
        let square = times(b, b);
        Self {
            position: (times(a, times(square, b)) + c) % size,
            differences: [times(a, (3 * square + 3 * b + 1) % size), times(a, (6 * b + 6) % size), times(a, 6)],
        }
    }

    /// Ends, because a turn is only taken while a slot is free and the walk visits all of them.
    fn next_free(&mut self, slots: &[u32]) -> usize {
        let size = slots.len() as u64;
        let plus = |x: u64, y: u64| if x + y >= size { x + y - size } else { x + y };
        loop {
            let here = self.position as usize;
            let [first, second, third] = self.differences;
            self.position = plus(self.position, first);
            self.differences = [plus(first, second), plus(second, third), third];
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
mod tests {
    use std::{collections::BTreeMap, fmt::Write};

    use proptest::{prelude::*, sample::Index};

    use super::*;

    /// A prime for tests that only need the shape.
    const SMALL: usize = 8_171;

    fn selection(weights: &[u64]) -> Selection {
        Selection::new(weights.iter().zip(1..).map(|(&share, n)| Candidate { identity: identity::mix(n), share }))
    }

    fn counts(selection: &Selection, size: usize) -> BTreeMap<u64, usize> {
        let mut counts = BTreeMap::new();
        for slot in selection.slots(size) {
            *counts.entry(selection.candidates()[slot as usize].identity).or_default() += 1;
        }
        counts
    }

    fn count(weights: &[u64], which: u64) -> usize {
        counts(&selection(weights), TABLE_SIZE).get(&identity::mix(which)).copied().unwrap_or(0)
    }

    fn owners(selection: &Selection, size: usize) -> Vec<u64> {
        selection.slots(size).into_iter().map(|slot| selection.candidates()[slot as usize].identity).collect()
    }

    fn moved(old: &Selection, new: &Selection, size: usize) -> f64 {
        let (old, new) = (owners(old, size), owners(new, size));
        old.iter().zip(&new).filter(|(a, b)| a != b).count() as f64 / size as f64
    }

    /// What must move at least: half the sum of all changes of share.
    fn fair(old: &Selection, new: &Selection) -> f64 {
        let mut all: Vec<_> = old.candidates().iter().chain(new.candidates()).map(|candidate| candidate.identity).collect();
        all.sort_unstable();
        all.dedup();
        all.iter().map(|&identity| (old.fraction(identity) - new.fraction(identity)).abs()).sum::<f64>() / 2.0
    }

    // proves: C03
    #[test]
    fn weights_200_100_50_split_as_57_1_28_6_14_3() {
        let total = TABLE_SIZE as f64;
        for (which, share) in [(1, 4.0 / 7.0), (2, 2.0 / 7.0), (3, 1.0 / 7.0)] {
            assert!((count(&[200, 100, 50], which) as f64 / total - share).abs() < 1.0 / total);
        }
    }

    // proves: C04
    #[test]
    fn weights_255_to_1_send_one_flow_of_256_to_the_canary() {
        assert_eq!(count(&[255, 1], 2), 256);
    }

    // proves: C05
    #[test]
    fn weight_zero_gets_no_slot() {
        assert_eq!(count(&[100, 0, 100], 2), 0);
        assert!(selection(&[0, 0]).slots(TABLE_SIZE).is_empty());
    }

    // proves: C06
    #[test]
    fn a_single_endpoint_gets_everything_at_any_weight() {
        for weight in [1, 7, 255] {
            assert_eq!(count(&[weight], 1), TABLE_SIZE);
        }
    }

    #[test]
    fn a_walk_visits_every_slot_once() {
        for identity in 0..20 {
            let mut slots = vec![FREE; SMALL];
            let mut walk = Walk::of(identity, SMALL);
            for _ in 0..SMALL {
                let position = walk.position as usize;
                assert_eq!(walk.next_free(&slots), position);
                slots[position] = 0;
            }
        }
    }

    #[test]
    fn shares_count_only_in_proportion() {
        assert_eq!(selection(&[3, 9, 1]).slots(SMALL), selection(&[300, 900, 100]).slots(SMALL));
        assert_eq!(selection(&[3, 9, 1]).digest(SMALL), selection(&[300, 900, 100]).digest(SMALL));
    }

    #[test]
    fn tables_are_the_golden_ones() {
        let mut text = String::from("# weights; digest of the shares; digest of all slots; owners of the first 64 slots\n");
        for weights in [&[255][..], &[255, 1], &[200, 100, 50], &[1; 8], &[255, 255, 255, 0, 128, 64, 32, 16, 8, 4, 2, 1]] {
            let selection = selection(weights);
            let slots = selection.slots(TABLE_SIZE);
            let all = identity::of_numbers(slots.iter().map(|&slot| u64::from(slot)));
            let head: Vec<_> = slots[..64].iter().map(u32::to_string).collect();
            writeln!(text, "{weights:?}; {:016x}; {all:016x}; {}", selection.digest(TABLE_SIZE), head.join(" ")).unwrap();
        }
        assert_eq!(text, include_str!("../../tests/golden/maglev.txt"), "found:\n{text}");
    }

    #[test]
    fn full_size_disruption_stays_within_two_percent() {
        let mut worst = 0.0_f64;
        for n in [2, 4, 10, 30, 100] {
            let weights: Vec<u64> = (0..n).map(|i| identity::mix(i) % 255 + 1).collect();
            let old = selection(&weights);
            let (mut lighter, mut without) = (weights.clone(), weights);
            lighter[0] = lighter[0] / 2 + 1;
            without[1] = 0;
            for new in [selection(&lighter), selection(&without)] {
                worst = worst.max(moved(&old, &new, TABLE_SIZE) - fair(&old, &new));
            }
        }
        assert!(worst < 0.02, "{worst}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn order_does_not_matter(weights in prop::collection::vec(0_u64..=255, 1..30)) {
            let forward = selection(&weights);
            let backward = Selection::new(forward.candidates().iter().rev().copied());
            prop_assert_eq!(forward.slots(SMALL), backward.slots(SMALL));
        }

        #[test]
        fn everyone_gets_its_share_within_one_slot(weights in prop::collection::vec(0_u64..=255, 1..100)) {
            let selection = selection(&weights);
            let counts = counts(&selection, SMALL);
            prop_assert_eq!(counts.values().sum::<usize>(), if selection.is_empty() { 0 } else { SMALL });
            for candidate in selection.candidates() {
                let found = counts.get(&candidate.identity).copied().unwrap_or(0) as f64;
                prop_assert!((found - selection.fraction(candidate.identity) * SMALL as f64).abs() < 1.0);
            }
        }

        #[test]
        fn a_change_moves_its_fair_share_and_at_most_two_percent_more(
            weights in prop::collection::vec(0_u64..=255, 1..100), which: Index, weight in 0_u64..=255,
        ) {
            let old = selection(&weights);
            let mut changed = weights.clone();
            *which.get_mut(&mut changed) = weight;
            let new = selection(&changed);
            prop_assume!(!old.is_empty() && !new.is_empty());
            let size = if weights.len() < 12 { SMALL } else { TABLE_SIZE };
            prop_assert!(moved(&old, &new, size) <= fair(&old, &new) + 0.02);
        }
    }
}
