//! `cargo xtask ci`: every check of a change, in the order in which they are likely to fail usefully; stops at the first failure.

use std::{
    env,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    artifacts::Workspace,
    features,
    setup::{self, Scope},
    shell::{cargo, show},
    test::{self, Ring, Tally},
    tidy,
};

/// What one part did; None where an earlier one failed.
type Took = Option<(bool, Duration)>;

const PARTS: [&str; 8] = ["setup", "test", "fmt", "clippy", "doc", "deny", "features", "tidy"];

/// Runs every part; the last line is the sum of all tests.
pub(crate) fn run() -> Result<()> {
    let mut tally = Tally::default();
    let mut table: Vec<(&str, Took)> = Vec::new();
    let mut failure = None;
    for name in PARTS {
        if failure.is_some() {
            table.push((name, None));
            continue;
        }
        println!("\n══ {name}");
        let started = Instant::now();
        let result = part(name, &mut tally);
        table.push((name, Some((result.is_ok(), started.elapsed()))));
        failure = result.err();
    }
    print_table(&table);
    if let Some(error) = &failure {
        println!("\n{error:#}");
    }
    println!("{tally}");
    // The error is on the screen already, above the line that must be the last.
    if failure.is_some() {
        std::io::Write::flush(&mut std::io::stdout())?;
        return Err(crate::Silent.into());
    }
    Ok(())
}

fn part(name: &str, tally: &mut Tally) -> Result<()> {
    match name {
        "setup" => setup::run(Scope::Ci),
        "test" => {
            let outcome = test::run(Ring::All, None)?;
            *tally = outcome.tally;
            if outcome.failed {
                bail!("tests failed, or a ring was skipped; see the summary of the rings above");
            }
            Ok(())
        }
        "fmt" => show(cargo().args(["fmt", "--all", "--check"])),
        "clippy" => clippy(),
        "doc" => {
            show(
                cargo()
                    .env("RUSTDOCFLAGS", format!("{} -D warnings", env::var("RUSTDOCFLAGS").unwrap_or_default()).trim())
                    .args(["doc", "--workspace", "--exclude", "ga-ebpf", "--no-deps"]),
            )
        }
        "deny" => show(cargo().args(["deny", "check", "licenses", "bans", "sources"])),
        "features" => features::run(features::Action::Check),
        "tidy" => tidy::run(false),
        _ => bail!("no part `{name}`"),
    }
}

fn clippy() -> Result<()> {
    println!("ga-ebpf is left out: the packaged compiler that builds it has no clippy, and it does not compile for the host");
    let features = Workspace::read()?.privileged_features();
    show(
        cargo()
            .args(["clippy", "--workspace", "--exclude", "ga-ebpf", "--all-targets"])
            .args(features)
            .args(["--", "-D", "warnings"]),
    )
}

fn print_table(table: &[(&str, Took)]) {
    println!("\n{:<10} {:<8} {:>8}", "part", "result", "time");
    for (name, took) in table {
        match took {
            Some((ok, took)) => {
                println!("{name:<10} {:<8} {:>8}", if *ok { "passed" } else { "FAILED" }, format!("{:.1} s", took.as_secs_f64()));
            }
            None => println!("{name:<10} {:<8}", "not run"),
        }
    }
}
