//! How each ring is built and run, and what is said when one cannot be.

use std::{
    io::{BufRead as _, BufReader, IsTerminal as _, Write as _},
    path::Path,
    process::{Command, ExitStatus, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result};

use super::{Ring, RingReport, is_ci, libtest, libtest::Tally};
use crate::{
    artifacts::{self, AGENT, AGENT_VARIABLE, PRIVILEGED, Program, TESTS, Workspace},
    shell::{self, Root, cargo, read},
};

/// No privileged test program may run longer; `timeout` ends it.
const LONGEST_SECS: &str = "1800";

/// Everything that needs neither root nor namespaces.
pub(super) fn unit(filter: Option<&str>) -> Result<RingReport> {
    println!("── ring unit: unit, property and simulator tests");
    let started = Instant::now();
    let mut command = cargo();
    command.args(["test", "--workspace", "--exclude", "ga-ebpf", "--no-fail-fast"]).args(filter);
    let (tally, status) = watch(&mut command, Lines::Notable)?;
    Ok(report(Ring::Unit, tally, started, &[("cargo test".to_owned(), status)]))
}

/// The test programs that need root or others' servers: `netns*` are ring netns, `http*` ring http, the others ring packet.
pub(super) fn privileged(wanted: Ring, root: Root, filter: Option<&str>) -> Result<Vec<RingReport>> {
    let names = Workspace::read()?.privileged_tests();
    let mut reports = Vec::new();
    for ring in [Ring::Packet, Ring::Netns, Ring::Http] {
        let mine: Vec<&str> = names.iter().map(String::as_str).filter(|name| ring_of(name) == ring).collect();
        if wanted.includes(ring) {
            reports.push(privileged_ring(ring, &mine, root, filter)?);
        }
    }
    Ok(reports)
}

fn ring_of(test: &str) -> Ring {
    match test {
        test if test.starts_with("netns") => Ring::Netns,
        test if test.starts_with("http") => Ring::Http,
        _ => Ring::Packet,
    }
}

fn privileged_ring(ring: Ring, names: &[&str], root: Root, filter: Option<&str>) -> Result<RingReport> {
    println!(
        "\n── ring {}: {}",
        ring.name(),
        if names.is_empty() { "no test programs yet".to_owned() } else { names.join(", ") }
    );
    let started = Instant::now();
    if names.is_empty() {
        return Ok(report(ring, Tally::default(), started, &[]));
    }
    // Built as the user who asked, so that `target` never holds files of root.
    let agent = artifacts::build(&["build", "--package", AGENT])?;
    let agent = artifacts::pick(&agent, "bin", "ga")?;
    let mut args = vec!["test", "--no-run", "--package", TESTS, "--features", PRIVILEGED];
    args.extend(names.iter().flat_map(|name| ["--test", name]));
    let built = artifacts::build(&args)?;
    let programs = names.iter().map(|name| artifacts::pick(&built, "test", name)).collect::<Result<Vec<_>>>()?;
    if root == Root::No {
        return Ok(skipped(ring, &programs, started, filter));
    }
    let mut tally = Tally::default();
    let mut ended = Vec::new();
    for program in programs {
        println!("  {}", program.name);
        let mut command = as_root(root, program, &agent.path)?;
        if ring == Ring::Netns {
            command.arg("--test-threads=1");
        }
        if ring == Ring::Http {
            // What others do is printed for the reader.
            command.arg("--nocapture");
        }
        let (one, status) = watch(command.args(filter), Lines::All)?;
        tally += one;
        ended.push((program.name.clone(), status));
    }
    Ok(report(ring, tally, started, &ended))
}

/// Where cargo would run it, with what cargo would not give it: root, a deadline, and the agent's program.
fn as_root(root: Root, program: &Program, agent: &Path) -> Result<Command> {
    let mut command = root.command("timeout").context("no way to become root")?;
    command.args(["--kill-after=10", LONGEST_SECS]).arg(&program.path);
    command.current_dir(shell::root().join("tests")).env(AGENT_VARIABLE, agent);
    Ok(command)
}

/// A ring that cannot run says so loudly, counts every test it leaves out, and fails under CI.
fn skipped(ring: Ring, programs: &[&Program], started: Instant, filter: Option<&str>) -> RingReport {
    let count = |program: &&Program| {
        let list = read(Command::new(&program.path).args(["--list", "--format", "terse"]).args(filter));
        list.map_or(1, |text| libtest::listed(&text))
    };
    let tally = Tally { skipped: programs.iter().map(count).sum(), ..Tally::default() };
    let ci = is_ci();
    println!(
        "!! SKIPPED ring {}: it needs root, and `sudo` is missing or refuses; run as root: cargo xtask test --ring {0}",
        ring.name()
    );
    let note = if ci { "SKIPPED: needs root; a failure, because CI is set" } else { "SKIPPED: needs root" };
    RingReport { ring, tally, took: started.elapsed(), note: note.to_owned(), failed: ci }
}

/// A program that died without a failed test counts as one failure, so that no crash hides in the sum.
fn report(ring: Ring, mut tally: Tally, started: Instant, ended: &[(String, ExitStatus)]) -> RingReport {
    let bad: Vec<String> = ended
        .iter()
        .filter(|(_, status)| !status.success())
        .map(|(name, status)| format!("{name}: {}", reason(*status)))
        .collect();
    if !bad.is_empty() && tally.failed == 0 {
        tally.failed = 1;
    }
    RingReport { ring, tally, took: started.elapsed(), failed: !bad.is_empty(), note: bad.join("; ") }
}

fn reason(status: ExitStatus) -> String {
    match status.code() {
        Some(124) => format!("stopped after {LONGEST_SECS} s"),
        Some(code) => format!("exit code {code}"),
        None => status.to_string(),
    }
}

/// Which lines of a test program are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lines {
    All,
    /// All but passed tests, which a terminal sees counted instead.
    Notable,
}

fn watch(command: &mut Command, lines: Lines) -> Result<(Tally, ExitStatus)> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let output = child.stdout.take().context("the test program has no output")?;
    let terminal = std::io::stdout().is_terminal();
    let (mut tally, mut passed) = (Tally::default(), 0_u64);
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read what the tests print")?;
        let line = String::from_utf8_lossy(&line);
        if let Some(counts) = libtest::closing(&line) {
            tally += counts;
        }
        if lines == Lines::Notable && libtest::is_pass(&line) {
            passed += 1;
            if terminal {
                print!("\r    {passed} passed …");
                drop(std::io::stdout().flush());
            }
        } else if !(lines == Lines::Notable && line.trim().is_empty()) {
            println!("{}{line}", if terminal { "\r\x1b[K" } else { "" });
        }
    }
    Ok((tally, child.wait()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> (Tally, ExitStatus) {
        watch(Command::new("sh").args(["-c", script]), Lines::All).unwrap()
    }

    #[test]
    fn results_of_several_programs_are_summed() {
        let (tally, status) = shell("for i in 1 2; do echo 'test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured'; done");
        assert_eq!(tally, Tally { passed: 4, failed: 0, skipped: 2 });
        assert!(status.success());
    }

    #[test]
    fn a_crash_without_a_result_is_one_failure() {
        let (tally, status) = shell("exit 101");
        let report = report(Ring::Packet, tally, Instant::now(), &[("kernel_corpus".to_owned(), status)]);
        assert!(report.failed);
        assert_eq!(report.tally.failed, 1);
        assert_eq!(report.note, "kernel_corpus: exit code 101");
    }

    #[test]
    fn the_name_of_a_test_program_decides_its_ring() {
        assert_eq!(ring_of("netns_tcp"), Ring::Netns);
        assert_eq!(ring_of("http_guard"), Ring::Http);
        assert_eq!(ring_of("kernel_corpus"), Ring::Packet);
    }
}
