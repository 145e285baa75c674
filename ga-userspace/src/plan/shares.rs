//! Which part of new flows every endpoint gets: groups by priority and traffic ratio, endpoints by weight (specification §1.6, §1.7).
//!
//! All shares are exact fractions, so that the same intent and beliefs give the same table on every edge.

use super::Candidate;

/// A group as it takes part, its members those of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// 0–100 % of what reaches it.
    pub(super) ratio: u8,
    /// Its endpoints are probed.
    pub(super) checked: bool,
    /// Its endpoints, in any order.
    pub(super) members: Vec<Member>,
}

/// An endpoint as it takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Decides which slots are preferred; no two members of all groups have the same.
    pub(super) identity: u64,
    /// Its part of the group in proportion to the others' when all is well; 0 is never chosen.
    pub(super) weight: u64,
    /// It is believed to be healthy, and is not paused.
    pub(super) up: bool,
    /// 1–100: the part of its weight that counts now.
    pub(super) percent: u8,
}

/// What holds when groups fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// When nobody is healthy, all endpoints of the first group are chosen from.
    pub(super) fail_open: bool,
    /// When no group with a ratio above 0 is healthy, one with ratio 0 takes over.
    pub(super) to_zero_ratio: bool,
}

/// Everybody with a share. `groups` are in the order of their priority, at most ten.
pub(super) fn candidates(groups: &[Group], policy: Policy) -> Vec<Candidate> {
    let groups: Vec<_> = groups.iter().map(Standing::of).collect();
    let fractions = of_groups(&groups, policy);
    let members = groups.iter().zip(&fractions).flat_map(|(group, part)| group.members(*part));
    common(members.collect())
}

/// A group and those of its members that new flows may go to.
struct Standing<'a> {
    group: &'a Group,
    /// Somebody may be chosen.
    ok: bool,
    /// Somebody could be chosen if health did not count.
    populated: bool,
    /// Health does not count for its members, because it would leave nobody of a group that is not probed.
    all: bool,
}

impl<'a> Standing<'a> {
    fn of(group: &'a Group) -> Self {
        let weighty = || group.members.iter().filter(|member| member.weight > 0);
        let populated = weighty().next().is_some();
        let up = weighty().any(|member| member.up);
        // Nobody knows better than the file where nobody probes: what is paused for failed attempts is tried again.
        Self { group, ok: up || (!group.checked && populated), populated, all: !up }
    }

    /// Each member's part of `part`.
    fn members(&self, part: Fraction) -> Vec<(u64, Fraction)> {
        let counts = |member: &&Member| member.weight > 0 && (member.up || self.all);
        let share = |member: &Member| {
            let percent = if self.all { 100 } else { member.percent.clamp(1, 100) };
            u128::from(member.weight) * u128::from(percent)
        };
        let members: Vec<_> = self.group.members.iter().filter(counts).map(|m| (m.identity, share(m))).collect();
        let sum: u128 = members.iter().map(|(_, share)| share).sum();
        if part.is_zero() {
            return Vec::new();
        }
        members.into_iter().map(|(identity, share)| (identity, part.times(share, sum))).collect()
    }
}

/// Each group's part of the listener's new flows.
fn of_groups(groups: &[Standing<'_>], policy: Policy) -> Vec<Fraction> {
    let mut parts = vec![Fraction::ZERO; groups.len()];
    let first = |wanted: &dyn Fn(&Standing<'_>) -> bool| groups.iter().position(wanted);
    // A group of nobody stands for no region: the next one is the nearest.
    let Some(nearest) = first(&|group| group.group.ratio > 0 && group.populated).or_else(|| first(&|g| g.group.ratio > 0)) else {
        return parts;
    };
    if groups[nearest].ok {
        let mut rest = Fraction::ONE;
        let mut last = nearest;
        for (index, group) in groups.iter().enumerate().filter(|(_, group)| group.group.ratio > 0 && group.ok) {
            parts[index] = rest.times(u128::from(group.group.ratio), 100);
            rest = rest.times(100 - u128::from(group.group.ratio.min(100)), 100);
            last = index;
        }
        // Nobody thins out the remainder again: it stays with the last one.
        parts[last] = parts[last].plus(rest);
        return parts;
    }
    let healthy =
        first(&|group| group.group.ratio > 0 && group.ok).or_else(|| first(&|group| group.ok).filter(|_| policy.to_zero_ratio));
    let open =
        || groups[nearest].populated.then_some(nearest).or_else(|| first(&|g| g.populated).filter(|_| policy.to_zero_ratio));
    if let Some(index) = healthy.or_else(|| open().filter(|_| policy.fail_open)) {
        parts[index] = Fraction::ONE;
    }
    parts
}

/// Numerator and denominator without a common divisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fraction(u128, u128);

impl Fraction {
    const ZERO: Self = Self(0, 1);
    const ONE: Self = Self(1, 1);
    /// Numerators and denominators stay below this, so that products of two fit.
    const BITS: u32 = 64;

    fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Reduced, and rounded where it would have more than 64 bits: a table has 17.
    fn new(numerator: u128, denominator: u128) -> Self {
        let divisor = greatest_common_divisor(numerator, denominator).max(1);
        let (numerator, denominator) = (numerator / divisor, denominator / divisor);
        let excess = (u128::BITS - numerator.max(denominator).leading_zeros()).saturating_sub(Self::BITS);
        Self(numerator >> excess, (denominator >> excess).max(1))
    }

    fn times(self, numerator: u128, denominator: u128) -> Self {
        let other = Self::new(numerator, denominator);
        Self::new(self.0 * other.0, self.1 * other.1)
    }

    fn plus(self, other: Self) -> Self {
        // Halved before the sum of two products, each below 2^128, could overflow.
        let (a, b, c) = (self.0 * other.1, other.0 * self.1, self.1 * other.1);
        a.checked_add(b).map_or_else(|| Self::new(a / 2 + b / 2, c / 2), |sum| Self::new(sum, c))
    }
}

/// Fractions as whole numbers over one denominator: exact when it fits in 64 bits, else rounded to 2^-40.
fn common(members: Vec<(u64, Fraction)>) -> Vec<Candidate> {
    let multiple = members.iter().try_fold(1, |multiple: u128, (_, Fraction(_, denominator))| {
        let factor = denominator / greatest_common_divisor(multiple, *denominator);
        multiple.checked_mul(factor).filter(|multiple| u64::try_from(*multiple).is_ok())
    });
    let share = |Fraction(numerator, denominator): Fraction| match multiple {
        Some(multiple) => numerator * (multiple / denominator),
        None => ((numerator << 40) / denominator).max(1),
    };
    // No part is above one, so no share is above the denominator.
    let candidate = |(identity, part)| Candidate { identity, share: u64::try_from(share(part)).unwrap_or(u64::MAX) };
    members.into_iter().map(candidate).collect()
}

fn greatest_common_divisor(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::{super::Selection, *};

    const CLOSED: Policy = Policy { fail_open: false, to_zero_ratio: true };
    const OPEN: Policy = Policy { fail_open: true, ..CLOSED };

    /// A probed group with one endpoint for each of `up`.
    fn group(ratio: u8, up: &[bool]) -> Group {
        let member = |up: &bool| Member { identity: 0, weight: 255, up: *up, percent: 100 };
        Group { ratio, checked: true, members: up.iter().map(member).collect() }
    }

    fn numbered(mut groups: Vec<Group>) -> Vec<Group> {
        groups.iter_mut().flat_map(|group| &mut group.members).zip(1..).for_each(|(member, n)| member.identity = n);
        groups
    }

    /// The part of each endpoint, as a fraction.
    fn endpoints(groups: Vec<Group>, policy: Policy) -> Vec<f64> {
        let groups = numbered(groups);
        let selection = Selection::new(candidates(&groups, policy));
        groups.iter().flat_map(|group| &group.members).map(|member| selection.fraction(member.identity)).collect()
    }

    /// The part of each group in percent, rounded.
    fn percent(groups: &[(u8, bool)], policy: Policy) -> Vec<u32> {
        let groups = groups.iter().map(|(ratio, up)| group(*ratio, &[*up])).collect();
        endpoints(groups, policy).into_iter().map(|part| (part * 100.0).round() as u32).collect()
    }

    // proves: B14, B15, B16
    #[test]
    fn the_documented_ratios() {
        let healthy = |ratios: &[u8]| percent(&ratios.iter().map(|ratio| (*ratio, true)).collect::<Vec<_>>(), CLOSED);
        assert_eq!(healthy(&[100, 100]), [100, 0]);
        assert_eq!(healthy(&[100, 7]), [100, 0]);
        assert_eq!(healthy(&[50, 100]), [50, 50]);
        assert_eq!(healthy(&[50, 50]), [50, 50]);
        assert_eq!(healthy(&[80, 80]), [80, 20]);
        assert_eq!(healthy(&[30, 50, 100]), [30, 35, 35]);
        assert_eq!(healthy(&[0, 100]), [0, 100]);
        assert_eq!(healthy(&[40]), [100]);
        assert_eq!(healthy(&[0, 0]), [0, 0]);
    }

    // proves: B18
    #[test]
    fn when_the_first_group_fails_the_next_takes_all_whatever_its_ratio() {
        assert_eq!(percent(&[(100, false), (20, true)], CLOSED), [0, 100]);
        assert_eq!(percent(&[(50, false), (20, true), (100, true)], CLOSED), [0, 100, 0]);
        // A group of ratio 0 is not the first one: it does not fail over.
        assert_eq!(percent(&[(0, false), (20, true), (100, true)], CLOSED), [0, 20, 80]);
    }

    #[test]
    fn a_later_group_that_fails_leaves_its_part_to_the_others() {
        assert_eq!(percent(&[(50, true), (100, false)], CLOSED), [100, 0]);
        assert_eq!(percent(&[(30, true), (50, false), (100, true)], CLOSED), [30, 0, 70]);
    }

    #[test]
    fn a_group_of_ratio_zero_takes_over_last_and_only_if_it_may() {
        assert_eq!(percent(&[(100, false), (0, true)], CLOSED), [0, 100]);
        assert_eq!(percent(&[(100, false), (0, true), (10, true)], CLOSED), [0, 0, 100]);
        assert_eq!(percent(&[(100, false), (0, true)], Policy { to_zero_ratio: false, ..CLOSED }), [0, 0]);
        assert_eq!(percent(&[(100, false), (0, true)], Policy { to_zero_ratio: false, ..OPEN }), [100, 0]);
    }

    // proves: E12
    #[test]
    fn when_all_are_unhealthy_the_policy_decides() {
        let all = [(100, false), (100, false)];
        assert_eq!(percent(&all, CLOSED), [0, 0]);
        assert_eq!(percent(&all, OPEN), [100, 0]);
        let mut first = group(100, &[false, false, false]);
        first.members[0].weight = 0;
        first.members[1].weight = 85;
        let parts = endpoints(vec![first, group(100, &[false])], OPEN);
        assert_eq!(parts, [0.0, 0.25, 0.75, 0.0], "weight 0 gets nothing even then");
    }

    // proves: C07
    #[test]
    fn weights_count_among_the_healthy() {
        assert_eq!(endpoints(vec![group(100, &[true, true, false])], CLOSED), [0.5, 0.5, 0.0]);
    }

    #[test]
    fn without_probes_paused_endpoints_are_left_out_unless_all_are() {
        let unchecked = |up: &[bool]| Group { checked: false, ..group(100, up) };
        assert_eq!(endpoints(vec![unchecked(&[true, false])], CLOSED), [1.0, 0.0]);
        assert_eq!(endpoints(vec![unchecked(&[false, false])], CLOSED), [0.5, 0.5]);
        assert_eq!(endpoints(vec![unchecked(&[false]), group(100, &[true])], CLOSED), [1.0, 0.0]);
    }

    #[test]
    fn a_group_without_any_weight_takes_no_part() {
        let mut drained = group(100, &[true]);
        drained.members[0].weight = 0;
        assert_eq!(endpoints(vec![drained.clone(), group(20, &[true]), group(100, &[true])], CLOSED), [0.0, 0.2, 0.8]);
        assert_eq!(endpoints(vec![Group { checked: false, ..drained }, group(20, &[true])], CLOSED), [0.0, 1.0]);
    }

    #[test]
    fn a_slow_start_counts_part_of_the_weight() {
        let mut starting = group(100, &[true, true]);
        starting.members[1].percent = 25;
        assert_eq!(endpoints(vec![starting], CLOSED), [0.8, 0.2]);
    }

    #[test]
    fn one_group_keeps_its_weights_as_shares() {
        let groups = numbered(vec![group(100, &[true, true])]);
        let mut weights = groups;
        weights[0].members[0].weight = 1;
        let found = Selection::new(candidates(&weights, CLOSED));
        assert_eq!(found.candidates().iter().map(|candidate| candidate.share).collect::<Vec<_>>(), [1, 255]);
    }

    fn any_group() -> impl Strategy<Value = Group> {
        let member = (prop_oneof![Just(0_u64), 1..=255_u64, 1..=255 * 720_720_u64], any::<bool>(), 1..=100_u8);
        let fields = (prop_oneof![Just(0_u8), Just(100), 1..=99_u8], any::<bool>(), vec(member, 0..30));
        fields.prop_map(|(ratio, checked, members)| {
            let member = |(weight, up, percent)| Member { identity: 0, weight, up, percent };
            Group { ratio, checked, members: members.into_iter().map(member).collect() }
        })
    }

    proptest! {
        /// The algorithm of the specification once more, in floating point.
        #[test]
        fn ten_groups_of_thirty_get_what_the_specification_says(groups in vec(any_group(), 1..=10), fail_open: bool, to_zero: bool) {
            let policy = Policy { fail_open, to_zero_ratio: to_zero };
            let found = endpoints(groups.clone(), policy);
            let total: f64 = found.iter().sum();
            prop_assert!(total == 0.0 || (total - 1.0).abs() < 1e-9);
            let mut of_group = BTreeMap::new();
            let mut parts = found.iter();
            for (index, group) in groups.iter().enumerate() {
                let own: Vec<f64> = parts.by_ref().take(group.members.len()).copied().collect();
                prop_assert!(group.members.iter().zip(&own).all(|(member, part)| member.weight > 0 || *part == 0.0));
                of_group.insert(index, own.iter().sum::<f64>());
            }
            let ok = |group: &Group| {
                let up = |member: &Member| member.weight > 0 && (member.up || !group.checked);
                group.members.iter().any(up)
            };
            let nearest = groups.iter().position(|g| g.ratio > 0 && g.members.iter().any(|m| m.weight > 0));
            if let Some(nearest) = nearest.filter(|nearest| ok(&groups[*nearest])) {
                let mut rest = 1.0;
                let taking: Vec<_> = (nearest..groups.len()).filter(|i| groups[*i].ratio > 0 && ok(&groups[*i])).collect();
                for index in &taking {
                    let part = if Some(index) == taking.last() { rest } else { rest * f64::from(groups[*index].ratio) / 100.0 };
                    prop_assert!((of_group[index] - part).abs() < 1e-6, "{index}: {} {part}", of_group[index]);
                    rest -= part;
                }
            } else {
                prop_assert!(of_group.values().filter(|part| **part > 0.0).count() <= 1, "ratios do not count in failover");
            }
        }
    }
}
