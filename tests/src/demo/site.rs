//! The demo's network with all that runs in it, under a name that `--down` knows.

use std::{
    fs, mem,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{https, servers, stop::Stop};
use crate::lab::{Agent, Lab};

/// Prefix of namespaces, name of the directory of pins.
const NAME: &str = "ga-demo";
/// Configuration, socket, logs. Only root can write beside it.
const DIR: &str = "/run/ga-demo";
/// What is run: the example that is shipped.
pub(super) const CONFIG: &str = include_str!("../../../config/demo.toml");
/// Client addresses beside the first, for affinity.
const MORE_ADDRESSES: usize = 24;

/// Everything. Dropping it takes it down.
#[derive(Debug)]
pub(super) struct Site {
    /// The agent.
    pub(super) agent: Agent,
    servers: Vec<Child>,
    /// The network.
    pub(super) lab: Lab,
}

impl Site {
    /// Builds the network and starts servers.
    pub(super) fn network(stop: &Stop) -> Result<(Lab, Vec<Child>)> {
        let lab = Lab::named(NAME.to_owned(), PathBuf::from(DIR), 3)?;
        for (client, number) in lab.clients.iter().zip(1..) {
            let batch: String = more_addresses(number)
                .iter()
                .map(|[v4, v6]| format!("addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad\n"))
                .collect();
            let file = lab.dir.join("addresses");
            fs::write(&file, batch)?;
            client.run(&["ip", "-batch", &file.display().to_string()])?;
        }
        let servers = servers::start(&lab, stop)?;
        Ok((lab, servers))
    }

    /// Starts the agent with the shipped example.
    pub(super) fn start(lab: Lab, servers: Vec<Child>) -> Result<Self> {
        https::certificate(&lab)?;
        lab.configure(CONFIG)?;
        Ok(Self { agent: Agent::start(&lab)?, servers, lab })
    }

    /// Whether every server still runs.
    pub(super) fn servers_run(&mut self) -> Result<bool> {
        let mut all = true;
        for server in &mut self.servers {
            all &= server.try_wait()?.is_none();
        }
        Ok(all)
    }

    /// Kills nginx of server `number`, the first is 1.
    pub(super) fn kill_server(&mut self, number: usize) -> Result<()> {
        let nginx = self.servers.get_mut((number - 1) * servers::PROGRAMS).context("no such server")?;
        nginx.kill().context("cannot kill nginx")?;
        nginx.wait().map(|_status| ()).context("nginx does not end")
    }

    /// Starts it again.
    pub(super) fn start_server(&mut self, number: usize) -> Result<()> {
        let nginx = self.servers.get_mut((number - 1) * servers::PROGRAMS).context("no such server")?;
        *nginx = servers::nginx(&self.lab, number)?;
        Ok(())
    }

    /// Leaves everything as it is, for `--down` to find.
    pub(super) fn keep(self) {
        mem::forget(self);
    }
}

/// Further addresses of client `number`, IPv4 and IPv6.
pub(super) fn more_addresses(number: usize) -> Vec<[String; 2]> {
    (0..MORE_ADDRESSES)
        .map(|n| [format!("192.0.{}.{}", number + 1, n + 10), format!("2001:db8:c{number}::{:x}", n + 0x100)])
        .collect()
}

/// Whether a demo is there, or what one left behind.
pub(super) fn exists() -> bool {
    !namespaces().is_empty() || pins().exists() || Path::new(DIR).exists()
}

/// Removes namespaces with all that runs in them, pins and files. Nothing there is fine.
pub(super) fn remove() -> Result<()> {
    for name in namespaces() {
        for pid in read(&["ip", "netns", "pids", &name]).split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
            // One that ended meanwhile is what is wanted. Threads of this very process end with it.
            if pid != rustix::process::getpid() {
                kill_process(pid, Signal::KILL).unwrap_or_default();
            }
        }
        drop(read(&["ip", "netns", "del", &name]));
    }
    // An agent that was killed just now holds its pins' directory for a moment longer.
    let mut unpinned = ga::program::unpin(&pins());
    for _ in 0..50 {
        if unpinned.is_ok() {
            break;
        }
        sleep(Duration::from_millis(20));
        unpinned = ga::program::unpin(&pins());
    }
    unpinned.context("cannot remove the pins")?;
    if Path::new(DIR).exists() {
        fs::remove_dir_all(DIR).with_context(|| format!("cannot remove {DIR}"))?;
    }
    ensure!(!exists(), "not everything of the demo could be removed: see `ip netns list` and {}", pins().display());
    Ok(())
}

fn pins() -> PathBuf {
    Path::new("/sys/fs/bpf").join(NAME)
}

fn namespaces() -> Vec<String> {
    let names = read(&["ip", "netns", "list"]);
    let first = names.lines().filter_map(|line| line.split_whitespace().next());
    first.filter(|name| name.starts_with(&format!("{NAME}-"))).map(str::to_owned).collect()
}

fn read(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}
