//! strace on a running process: its calls of bpf(2) counted, or the process killed at one of them.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::traffic::until;

/// A tracer at work; ends when dropped, and what it traced goes on.
#[derive(Debug)]
pub struct Strace {
    child: Child,
    file: PathBuf,
}

impl Strace {
    /// Traces `pid`; with a number, the process is killed at that call of bpf(2) from now on. `file` takes what strace writes.
    pub fn attach(pid: u32, kill_at: Option<u32>, file: PathBuf) -> Result<Self> {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-e", "trace=bpf", "-e", "signal=none"]);
        if let Some(number) = kill_at {
            command.arg("-e").arg(format!("inject=bpf:signal=KILL:when={number}"));
        }
        command.arg("-o").arg(&file).arg("-p").arg(pid.to_string());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let this = Self { child: child.context("cannot run strace: `cargo xtask setup` installs it")?, file };
        until("strace at every thread", Duration::from_secs(10), || Ok(is_traced(pid).then_some(())))?;
        Ok(this)
    }

    /// Ends it and counts the calls that it saw.
    pub fn calls(mut self) -> Result<u32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("cannot end strace")?;
        self.child.wait()?;
        let text = fs::read_to_string(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        Ok(text.lines().filter(|line| line.contains("bpf(")).count() as u32)
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // Asked kindly, it may wait for a process that was killed under its hands.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn is_traced(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    tasks.flatten().all(|task| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        status.lines().find_map(|line| line.strip_prefix("TracerPid:")).is_some_and(|tracer| tracer.trim() != "0")
    })
}
