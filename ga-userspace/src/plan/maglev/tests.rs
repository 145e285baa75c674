//! Shares, disruption and determinism of the table, measured.

use std::{collections::BTreeMap, fmt::Write};

use ga_common::abi::limits::TABLE_SIZE;
use proptest::{prelude::*, sample::Index};

use super::*;

/// A prime for tests that only need the shape.
const SMALL: usize = 4_099;

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
    assert_eq!(text, include_str!("../../../tests/golden/maglev.txt"), "found:\n{text}");
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
    #![proptest_config(ProptestConfig::with_cases(24))]

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
