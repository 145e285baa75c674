//! Sums up what test programs print: libtest's closing lines, and its list of names.

use std::ops::AddAssign;

/// How many tests did what.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Reads a closing line, `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s`.
/// Ignored tests are skipped ones; those a filter left out were not asked for.
pub(super) fn closing(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count =
        |noun: &str| counts.split("; ").find_map(|part| part.trim().strip_suffix(noun)?.trim().parse().ok()).unwrap_or_default();
    Some(Tally { passed: count("passed"), failed: count("failed"), skipped: count("ignored") })
}

/// Whether a line says that one test passed; such lines are noise in a large ring.
pub(super) fn is_pass(line: &str) -> bool {
    line.starts_with("test ") && line.ends_with("... ok")
}

/// Counts the tests in what `--list --format terse` prints.
pub(super) fn listed(text: &str) -> u64 {
    text.lines().filter(|line| line.ends_with(": test")).map(|_| 1).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_both_outcomes_are_read() {
        let ok = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.00s";
        assert_eq!(closing(ok), Some(Tally { passed: 12, failed: 0, skipped: 1 }));
        let bad = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s";
        assert_eq!(closing(bad), Some(Tally { passed: 1, failed: 2, skipped: 0 }));
        assert_eq!(closing("test some::name ... ok"), None);
    }

    #[test]
    fn a_list_counts_tests_and_nothing_else() {
        assert_eq!(listed("a::b: test\nc: test\nd: benchmark\n\n2 tests, 1 benchmark\n"), 2);
    }

    #[test]
    fn a_tally_prints_the_line_that_ends_every_run() {
        let mut sum = Tally { passed: 1, failed: 0, skipped: 0 };
        sum += Tally { passed: 1, failed: 1, skipped: 2 };
        assert_eq!(sum.to_string(), "2 passed, 1 failed, 2 skipped");
    }
}
