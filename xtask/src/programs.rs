//! `cargo xtask demo`, `bench` and `fuzz`: build in release, then run the program of that name among the tests, as root.

use std::{
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt as _,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    artifacts::{self, AGENT, AGENT_VARIABLE, PRIVILEGED, TESTS, Workspace},
    setup::{self, Scope},
    shell::{self, Root},
};

/// Sets up, builds, runs `name` with `args`.
pub(crate) fn run(name: &str, args: &[OsString]) -> Result<()> {
    setup::run(Scope::All)?;
    let workspace = Workspace::read()?;
    if !workspace.has_privileged() {
        bail!("package {TESTS} has no feature `{PRIVILEGED}` yet, and with it no program `{name}`");
    }
    let features = workspace.features_of(name).iter().map(|feature| format!("{TESTS}/{feature}")).collect::<Vec<_>>().join(",");
    eprintln!("→ build {name} and the agent in release (minutes the first time, then seconds)");
    let built = artifacts::build(&["build", "--release", "--package", AGENT, "--package", TESTS, "--features", &features])?;
    let program = artifacts::pick(&built, "bin", name)?;
    let agent = artifacts::pick(&built, "bin", "ga")?;
    let root = Root::look();
    let mut command = root
        .command(&program.path)
        .with_context(|| format!("`{name}` makes network namespaces, which needs root, and `sudo` is missing or refuses"))?;
    eprintln!("→ {name} {}\n", args.join(OsStr::new(" ")).display());
    command.args(args).current_dir(shell::root()).env(AGENT_VARIABLE, &agent.path);
    // In place of this process: Ctrl-C and SIGTERM reach the program, and whoever waits for us waits until it has cleaned up.
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", program.path.display()))
}
