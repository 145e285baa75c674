//! Sets of rules, a bit for each: a request narrows the set of all rules down to those that can apply to it.

/// Rules that a listener may have; a set takes 128 bytes.
pub const MAX_RULES: usize = 1_024;

const WORDS: usize = MAX_RULES / 64;

/// The rules that can still apply.
#[derive(Clone, Debug)]
pub(super) struct Candidates {
    words: [u64; WORDS],
    used: usize,
}

/// Rules that one thing about a request allows; as long as its listener has rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row(Box<[u64]>);

impl Row {
    /// None of `rules` rules.
    pub(super) fn none(rules: usize) -> Self {
        Self(vec![0; rules.min(MAX_RULES).div_ceil(64)].into())
    }

    /// All of `rules` rules.
    pub(super) fn all(rules: usize) -> Self {
        let mut row = Self::none(rules);
        (0..rules).for_each(|rule| row.insert(rule));
        row
    }

    /// Takes `rule` in; one beyond the last is no rule.
    pub(super) fn insert(&mut self, rule: usize) {
        if let Some(word) = self.0.get_mut(rule / 64) {
            *word |= 1 << (rule % 64);
        }
    }

    /// Puts `rule` out.
    pub(super) fn remove(&mut self, rule: usize) {
        if let Some(word) = self.0.get_mut(rule / 64) {
            *word &= !(1 << (rule % 64));
        }
    }
}

impl Candidates {
    /// Those of `row`.
    pub(super) fn of(row: &Row) -> Self {
        let mut words = [0; WORDS];
        words.iter_mut().zip(&row.0).for_each(|(word, row)| *word = *row);
        Self { words, used: row.0.len().min(WORDS) }
    }

    /// Takes those of `row` in too.
    pub(super) fn join(&mut self, row: &Row) {
        self.words.iter_mut().zip(&row.0).for_each(|(word, row)| *word |= row);
    }

    /// Keeps those that `other` has too.
    pub(super) fn keep(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).take(self.used).for_each(|(word, other)| *word &= other);
    }

    /// Whether `row` would take one away.
    pub(super) fn has_outside(&self, row: &Row) -> bool {
        self.words.iter().zip(&row.0).any(|(word, row)| word & !row != 0)
    }

    /// The first one from `rule` on.
    pub(super) fn next(&self, rule: usize) -> Option<usize> {
        let first = rule / 64;
        let words = self.words.iter().enumerate().take(self.used).skip(first);
        let masked = words.map(|(index, word)| (index, if index == first { word & (u64::MAX << (rule % 64)) } else { *word }));
        masked.filter(|(_, word)| *word != 0).map(|(index, word)| index * 64 + word.trailing_zeros() as usize).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_come_in_order_over_all_words() {
        let mut row = Row::none(200);
        [199, 3, 64, 63, 500].into_iter().for_each(|rule| row.insert(rule));
        let candidates = Candidates::of(&row);
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(rule) = candidates.next(from) {
            found.push(rule);
            from = rule + 1;
        }
        assert_eq!(found, [3, 63, 64, 199]);
        assert_eq!(Candidates::of(&Row::all(MAX_RULES)).next(MAX_RULES - 1), Some(MAX_RULES - 1));
        assert_eq!(Candidates::of(&Row::none(0)).next(0), None);
    }

    #[test]
    fn keeping_leaves_what_both_have() {
        let (mut a, mut b) = (Row::none(70), Row::none(70));
        [1, 65, 69].into_iter().for_each(|rule| a.insert(rule));
        [2, 65].into_iter().for_each(|rule| b.insert(rule));
        let mut candidates = Candidates::of(&a);
        assert!(candidates.has_outside(&b));
        candidates.keep(&Candidates::of(&b));
        assert_eq!((candidates.next(0), candidates.next(66)), (Some(65), None));
        assert!(!candidates.has_outside(&b));
        candidates.join(&a);
        assert_eq!(candidates.next(0), Some(1));
    }
}
