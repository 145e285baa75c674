//! Programs that tests, demo and benchmarks drive; the BPF file system; what continuous integration adds.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, bail};

use super::{apt, have};
use crate::shell::{Root, Step, cargo, find_program, read, show};

/// A Debian package and the program by which its presence is seen, so that other distributions can bring their own.
const PROGRAMS: [(&str, &str); 16] = [
    ("iproute2", "ip"),
    ("ethtool", "ethtool"),
    ("nftables", "nft"),
    ("curl", "curl"),
    ("iperf3", "iperf3"),
    ("nginx-light", "nginx"),
    ("haproxy", "haproxy"),
    ("openssl", "openssl"),
    ("bpftool", "bpftool"),
    ("socat", "socat"),
    ("strace", "strace"),
    ("procps", "sysctl"),
    ("iputils-ping", "ping"),
    ("wrk", "wrk"),
    ("nghttp2-client", "h2load"),
    ("knot", "knotd"),
];

/// Programs whose packages bring a service that nobody asked to have running, and what it is called.
const SERVICES: [(&str, &str); 3] = [("nginx", "nginx"), ("haproxy", "haproxy"), ("knotd", "knot")];

const BPFFS: &str = "/sys/fs/bpf";

/// `MAJOR.MINOR.` of the cargo-deny that understands deny.toml, and the release to install.
const DENY_LINE: &str = "0.20.";
const DENY_VERSION: &str = "0.20.2";

/// Installs the programs that are missing.
pub(super) fn packages(root: Root) -> Result<()> {
    let missing: Vec<&(&str, &str)> = PROGRAMS.iter().filter(|(_, program)| find_program(program).is_none()).collect();
    if missing.is_empty() {
        have("programs for tests and demo", &PROGRAMS.map(|(_, program)| program).join(" "));
        return Ok(());
    }
    let packages: Vec<String> = missing.iter().map(|(package, _)| (*package).to_owned()).collect();
    if !apt::is_here() {
        let programs: Vec<&str> = missing.iter().map(|(_, program)| *program).collect();
        bail!("these programs are missing: {}; this machine has no apt-get, install them its own way", programs.join(" "));
    }
    apt::install(
        root,
        &packages,
        "tests, demo and benchmarks drive real clients and servers",
        5 * u64::try_from(packages.len())?,
    )?;
    let is_new = |program: &str| missing.iter().any(|(_, new)| *new == program);
    let new: Vec<&str> = SERVICES.iter().filter(|(program, _)| is_new(program)).map(|(_, service)| *service).collect();
    apt::disable_services(root, &new);
    Ok(())
}

/// Mounts the BPF file system, in which the running data path is pinned.
pub(super) fn bpffs(root: Root) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    if is_mounted(&mounts) {
        have("bpffs", BPFFS);
        return Ok(());
    }
    let Some(mut mount) = root.command("mount") else {
        bail!("{BPFFS} is not mounted, and mounting needs root: mount -t bpf bpf {BPFFS}");
    };
    let step = Step { what: "mount bpffs", why: "maps and links outlive the agent there", about_secs: 1 };
    step.run(mount.args(["-t", "bpf", "bpf", BPFFS]))
}

fn is_mounted(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut words = line.split(' ');
        words.nth(1) == Some(BPFFS) && words.next() == Some("bpf")
    })
}

/// rustfmt and clippy, which minimal rustup profiles leave out.
pub(super) fn components() -> Result<()> {
    for (component, subcommand) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
        if read(cargo().args([subcommand, "--version"])).is_some() {
            have(component, "installed");
            continue;
        }
        eprintln!("→ add {component} (about 5 s)");
        show(Command::new("rustup").args(["component", "add", component]))?;
    }
    Ok(())
}

/// The checker of licences and duplicate crates.
pub(super) fn cargo_deny() -> Result<()> {
    let version = read(cargo().args(["deny", "--version"])).unwrap_or_default();
    if let Some(version) = version.trim().strip_prefix("cargo-deny ").filter(|version| version.starts_with(DENY_LINE)) {
        have("cargo-deny", version);
        return Ok(());
    }
    let step = Step { what: "build cargo-deny", why: "ci checks licences, bans and sources", about_secs: 300 };
    step.run(cargo().args(["install", "cargo-deny", "--locked", "--version", DENY_VERSION]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bpffs_is_recognised_by_place_and_type() {
        assert!(is_mounted("sysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw,relatime 0 0\n"));
        assert!(!is_mounted("sysfs /sys sysfs rw 0 0\n"));
        assert!(!is_mounted("tmpfs /sys/fs/bpf tmpfs rw 0 0\n"));
    }
}
