//! A network namespace: commands and threads inside it.

use std::{
    fs::File,
    os::fd::AsFd as _,
    process::{Child, Command, Output, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A namespace of our own; deleted when dropped, after what still runs in it was killed.
#[derive(Debug)]
pub struct Namespace {
    /// As `ip netns` shows it.
    pub name: String,
}

impl Namespace {
    /// Makes it, with its loopback up.
    pub fn new(name: &str) -> Result<Self> {
        command(&["ip", "netns", "add", name])?;
        let namespace = Self { name: name.to_owned() };
        namespace.run(&["ip", "link", "set", "lo", "up"])?;
        // Neighbour discovery and duplicate address detection cost seconds that a test does not have.
        namespace.run(&["sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.accept_dad=0"])?;
        Ok(namespace)
    }

    /// Runs a command in it and wants success.
    pub fn run(&self, words: &[&str]) -> Result<()> {
        finished(words, self.output(words)?).map(|_output| ())
    }

    /// Runs a command in it and returns what it printed.
    pub fn read(&self, words: &[&str]) -> Result<String> {
        let output = finished(words, self.output(words)?)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// One of the kernel's own counters, by the name that `nstat` gives it.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let text = self.read(&["nstat", "-asz", name])?;
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("there is no counter {name}"))?;
        line.split_whitespace().next().context("a counter has a value")?.parse().with_context(|| format!("{name} is {line}"))
    }

    /// Runs a command in it to its end, however it ends.
    pub fn output(&self, words: &[&str]) -> Result<Output> {
        self.command(words).stdin(Stdio::null()).output().with_context(|| format!("cannot run {words:?}"))
    }

    /// Starts a command in it.
    pub fn spawn(&self, words: &[&str]) -> Result<Child> {
        self.command(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {words:?}"))
    }

    /// A command that will run in it. Only the network is another one: the BPF file system stays visible.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg("--").args(words);
        command
    }

    /// Starts a thread whose sockets are in it.
    pub fn thread<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<thread::JoinHandle<T>> {
        let path = format!("/run/netns/{}", self.name);
        let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        Ok(thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("a namespace of ours can be entered");
            work()
        }))
    }

    /// Does something in a thread inside it and waits for the result.
    pub fn within<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        match self.thread(work)?.join() {
            Ok(value) => Ok(value),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Ok(output) = Command::new("ip").args(["netns", "pids", &self.name]).output() {
            for pid in String::from_utf8_lossy(&output.stdout).split_whitespace() {
                // Threads of this very process may still be leaving the namespace.
                let ours = pid.parse() == Ok(std::process::id());
                if let (false, Some(pid)) = (ours, pid.parse().ok().and_then(rustix::process::Pid::from_raw)) {
                    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap_or_default();
                }
            }
        }
        drop(command(&["ip", "netns", "del", &self.name]));
    }
}

/// Runs a command on the host and wants success.
pub fn command(words: &[&str]) -> Result<()> {
    let [program, arguments @ ..] = words else { bail!("no command") };
    let output =
        Command::new(program).args(arguments).stdin(Stdio::null()).output().with_context(|| format!("cannot run {words:?}"))?;
    finished(words, output).map(|_output| ())
}

fn finished(words: &[&str], output: Output) -> Result<Output> {
    if !output.status.success() {
        bail!("{words:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output)
}
