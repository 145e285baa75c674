//! `cargo xtask setup`: a bare machine becomes a building one. Everything is looked for first, so a second run only looks.

mod apt;
mod kernel;
mod tools;

use std::time::Instant;

use anyhow::Result;

use crate::shell::Root;

/// How much of a machine a chore needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Scope {
    /// Compile and run what needs no privileges.
    Build,
    /// Also the programs that namespaces tests, demo and benchmarks drive, and a mounted bpffs.
    All,
    /// Also what only continuous integration runs.
    Ci,
}

/// Brings the machine to `scope`.
pub(crate) fn run(scope: Scope) -> Result<()> {
    let started = Instant::now();
    let root = Root::look();
    kernel::ensure(root)?;
    if scope >= Scope::All {
        tools::packages(root)?;
        tools::bpffs(root)?;
    }
    if scope >= Scope::Ci {
        tools::components()?;
        tools::cargo_deny()?;
    }
    eprintln!("setup: ready in {:.1} s\n", started.elapsed().as_secs_f64());
    Ok(())
}

/// A thing that is there already.
fn have(what: &str, detail: &str) {
    eprintln!("✓ {what}: {detail}");
}
