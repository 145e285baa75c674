//! The agent of a lab, and the verbs that ask it.

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::Lab;

/// The `ga` that was built: named by `GA_BIN`, or beside the running test binary.
pub fn ga_binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("GA_BIN") {
        return Ok(path.into());
    }
    let this = env::current_exe().context("cannot find this program")?;
    let found = this.ancestors().skip(1).take(3).map(|dir| dir.join("ga")).find(|path| path.is_file());
    found.context("there is no `ga` beside the tests: `cargo build -p ga-userspace`, or set GA_BIN")
}

/// A running agent; killed when dropped. The data path stays, as it does on any host.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Agent {
    /// Starts the agent in the lab's edge with the lab's configuration and waits until it answers.
    pub fn start(lab: &Lab) -> Result<Self> {
        Self::start_within(lab, Duration::from_secs(20))
    }

    /// The same with another patience: a large configuration takes longer.
    pub fn start_within(lab: &Lab, patience: Duration) -> Result<Self> {
        let mut agent = Self::spawn(lab)?;
        let start = Instant::now();
        while start.elapsed() < patience {
            if let Some(status) = agent.child.try_wait()? {
                bail!("the agent ended with {status}:\n{}", agent.log());
            }
            if UnixStream::connect(&agent.socket).is_ok() && agent.ga(&["status"])?.status.success() {
                return Ok(agent);
            }
            sleep(Duration::from_millis(10));
        }
        bail!("the agent did not answer within {patience:?}:\n{}", agent.log())
    }

    /// Starts the agent and waits for nothing.
    pub fn spawn(lab: &Lab) -> Result<Self> {
        Self::spawn_by(lab, &[], &[])
    }

    /// Starts the agent through another command (`setpriv ...`) and with further options, and waits for nothing.
    pub fn spawn_by(lab: &Lab, through: &[&str], options: &[&str]) -> Result<Self> {
        let socket = lab.dir.join("admin.sock");
        let log = lab.dir.join("agent.log");
        let stderr = fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let mut command = lab.edge.command(through);
        command.arg(ga_binary()?).arg("run").arg("--config").arg(lab.dir.join("ga.toml"));
        let defaults =
            [("--admin-socket", socket.clone()), ("--pin-dir", lab.pin_dir.clone()), ("--state-dir", lab.dir.join("state"))];
        for (option, path) in defaults.iter().filter(|(option, _)| !options.contains(option)) {
            command.arg(option).arg(path);
        }
        command.args(options);
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().context("cannot start the agent")?;
        Ok(Self { child, socket, log })
    }

    /// Starts an agent that must refuse to run; returns its exit code and what it wrote.
    pub fn refused(lab: &Lab, through: &[&str], options: &[&str]) -> Result<(i32, String)> {
        let before = fs::read_to_string(lab.dir.join("agent.log")).unwrap_or_default().len();
        let mut agent = Self::spawn_by(lab, through, options)?;
        let status = agent.wait(Duration::from_secs(20))?;
        let code = status.code().with_context(|| format!("the agent ended by {status}"))?;
        Ok((code, agent.log().get(before..).unwrap_or_default().to_owned()))
    }

    /// Its exit code, if it has ended.
    pub fn ended(&mut self) -> Result<Option<i32>> {
        let Some(status) = self.child.try_wait()? else { return Ok(None) };
        Ok(Some(status.code().with_context(|| format!("the agent ended by {status}"))?))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs a verb against it.
    pub fn ga(&self, words: &[&str]) -> Result<Output> {
        let output = Command::new(ga_binary()?).arg("--socket").arg(&self.socket).args(words).stdin(Stdio::null()).output();
        output.with_context(|| format!("cannot run ga {words:?}"))
    }

    /// Runs a verb that must succeed and returns what it printed.
    pub fn ok(&self, words: &[&str]) -> Result<String> {
        let output = self.ga(words)?;
        ensure!(output.status.success(), "ga {words:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// How things are.
    pub fn status(&self) -> Result<ga::status::Status> {
        serde_json::from_str(&self.ok(&["status", "--output", "json"])?).context("the status is not what it should be")
    }

    /// Packets that a listener dropped, by reason.
    pub fn drops(&self, listener: &str) -> Result<BTreeMap<String, u64>> {
        let status = self.status()?;
        let found = status.listeners().find(|(_, one)| one.name == listener);
        Ok(found.map(|(_, one)| one.drops.iter().map(|drop| (drop.reason.clone(), drop.packets)).collect()).unwrap_or_default())
    }

    /// What it wrote to standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("cannot stop the agent")?;
        self.wait(Duration::from_secs(10))
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < patience {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            sleep(Duration::from_millis(10));
        }
        bail!("the agent still runs after {patience:?}:\n{}", self.log())
    }

    /// Where it answers.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
