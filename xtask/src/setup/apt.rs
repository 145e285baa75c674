//! Debian's packages: is one installed, is one offered, install some.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::shell::{Root, Step, find_program, read};

/// dpkg asks this program before it starts a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Whether this machine is managed by apt at all.
pub(super) fn is_here() -> bool {
    find_program("apt-get").is_some()
}

/// Whether every package is offered; refreshes the lists once if not.
pub(super) fn offers(root: Root, packages: &[String]) -> Result<bool> {
    if offered(packages) {
        return Ok(true);
    }
    update(root)?;
    Ok(offered(packages))
}

fn offered(packages: &[String]) -> bool {
    packages.iter().all(|package| {
        let policy = read(Command::new("apt-cache").args(["policy", package])).unwrap_or_default();
        policy.lines().any(|line| line.trim().strip_prefix("Candidate:").is_some_and(|version| version.trim() != "(none)"))
    })
}

fn update(root: Root) -> Result<()> {
    let step = Step { what: "refresh the package lists", why: "a package is not in the lists this machine has", about_secs: 10 };
    step.run(apt(root)?.arg("update"))
}

/// Installs packages, without services being started by it. A failure with old lists is tried again with fresh ones.
pub(super) fn install(root: Root, packages: &[String], why: &str, about_secs: u64) -> Result<()> {
    let what = format!("install {}", packages.join(" "));
    let step = Step { what: &what, why, about_secs };
    let once = || -> Result<()> { step.run(apt(root)?.args(["install", "--yes", "--no-install-recommends"]).args(packages)) };
    let quiet = QuietServices::begin(root)?;
    if let Err(first) = once() {
        eprintln!("  that failed; once more with fresh lists");
        update(root).context(first)?;
        once().with_context(|| format!("install by hand what is missing: apt-get install {}", packages.join(" ")))?;
    }
    drop(quiet);
    Ok(())
}

fn apt(root: Root) -> Result<Command> {
    let Some(mut command) = root.command("env") else {
        bail!("installing packages needs root, and there is no `sudo` that lets this user: run as root once");
    };
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet"]);
    Ok(command)
}

/// While it lives, installed packages do not start their services. A policy of the machine's owner is left alone.
struct QuietServices {
    root: Root,
    placed: bool,
}

impl QuietServices {
    fn begin(root: Root) -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { root, placed: false });
        }
        let script = std::env::temp_dir().join(format!("ga-policy-rc-d-{}", std::process::id()));
        fs::write(&script, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {}", script.display()))?;
        let placed = root.command("install").is_some_and(|mut command| {
            command.args(["-m", "755"]).arg(&script).arg(POLICY).status().is_ok_and(|status| status.success())
        });
        fs::remove_file(&script).with_context(|| format!("cannot remove {}", script.display()))?;
        Ok(Self { root, placed })
    }
}

impl Drop for QuietServices {
    fn drop(&mut self) {
        let removed = || self.root.command("rm")?.args(["-f", POLICY]).status().ok();
        if self.placed && !removed().is_some_and(|status| status.success()) {
            eprintln!("warning: {POLICY} could not be removed; delete it, or packages will not start their services");
        }
    }
}

/// Services that were just installed start neither now nor with the machine: tests run their own.
pub(super) fn disable_services(root: Root, services: &[&str]) {
    if !Path::new("/run/systemd/system").exists() {
        return;
    }
    for service in services {
        let disabled = root.command("systemctl").and_then(|mut command| {
            command.args(["disable", "--now", service]).stdout(Stdio::null()).stderr(Stdio::null()).status().ok()
        });
        if !disabled.is_some_and(|status| status.success()) {
            eprintln!("warning: service {service} could not be disabled; it may start with this machine");
        }
    }
}
