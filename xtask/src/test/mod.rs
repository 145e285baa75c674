//! `cargo xtask test`: the rings of tests, from what any laptop runs to what needs root and namespaces.

mod libtest;
mod rings;

use std::{env, time::Duration};

use anyhow::Result;

use crate::{
    setup::{self, Scope},
    shell::Root,
};
pub(crate) use libtest::Tally;

/// A set of tests that needs the same from the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Ring {
    /// Unit, property and simulator tests; no root.
    Unit,
    /// Packets through the program in the kernel; root.
    Packet,
    /// Real clients and servers in network namespaces; root, one at a time.
    Netns,
    /// Raw bytes to the proxy, and to nginx and HAProxy beside it.
    Http,
    /// Every ring.
    All,
}

impl Ring {
    /// The word of the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Packet => "packet",
            Self::Netns => "netns",
            Self::Http => "http",
            Self::All => "all",
        }
    }

    fn includes(self, ring: Self) -> bool {
        self == Self::All || self == ring
    }
}

/// What one ring did.
struct RingReport {
    ring: Ring,
    tally: Tally,
    took: Duration,
    note: String,
    failed: bool,
}

/// What all rings did.
pub(crate) struct Outcome {
    /// The sum of their tests.
    pub(crate) tally: Tally,
    /// Whether anything failed, a skipped ring under CI included.
    pub(crate) failed: bool,
}

/// Sets the machine up, runs the rings, prints the summary; its last line is the sum of all tests.
pub(crate) fn run(wanted: Ring, filter: Option<&str>) -> Result<Outcome> {
    let privileged = wanted != Ring::Unit;
    let root = Root::look();
    setup::run(if privileged && root != Root::No { Scope::All } else { Scope::Build })?;
    let mut reports = Vec::new();
    if wanted.includes(Ring::Unit) {
        reports.push(rings::unit(filter)?);
    }
    if privileged {
        reports.extend(rings::privileged(wanted, root, filter)?);
    }
    let mut tally = Tally::default();
    println!("\n{:<8} {:>7} {:>7} {:>7} {:>8}", "ring", "passed", "failed", "skipped", "time");
    for report in &reports {
        let Tally { passed, failed, skipped } = report.tally;
        let time = format!("{:.1} s", report.took.as_secs_f64());
        println!("{:<8} {passed:>7} {failed:>7} {skipped:>7} {time:>8}  {}", report.ring.name(), report.note);
        tally += report.tally;
    }
    if tally == Tally::default() {
        println!("no test matched");
    }
    println!("{tally}");
    Ok(Outcome { tally, failed: tally.failed > 0 || reports.iter().any(|report| report.failed) })
}

/// Continuous integration accepts no skipped ring.
fn is_ci() -> bool {
    env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}
