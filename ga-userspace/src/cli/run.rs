//! `ga run`: the agent.

use std::path::PathBuf;

use clap::Args;

use super::{Context, Exit, Failure};

pub(super) const EXAMPLES: &str = "Examples:
  ga run --config /etc/ga/ga.toml
  ga run --config ga.toml --admin-socket /tmp/ga.sock --pin-dir /sys/fs/bpf/ga-test --state-dir /tmp/ga";

/// Arguments of `ga run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Where to answer the other verbs [default: as --socket]
    #[arg(long, value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,
    /// Where the program and the maps are pinned; on a bpffs
    #[arg(long, value_name = "PATH", default_value = "/sys/fs/bpf/ga")]
    pub pin_dir: PathBuf,
    /// Where the agent keeps what must survive a restart
    #[arg(long, value_name = "PATH", default_value = "/var/lib/ga")]
    pub state_dir: PathBuf,
}

impl RunArgs {
    /// The admin socket to serve.
    pub fn socket<'a>(&'a self, context: &'a Context) -> &'a PathBuf {
        self.admin_socket.as_ref().unwrap_or(&context.socket)
    }
}

/// Runs the agent until it is told to stop. It builds its own runtime.
pub fn run(_args: &RunArgs, _context: &Context) -> anyhow::Result<Exit> {
    Err(Failure::new(Exit::Internal, "the agent is not built in yet").into())
}
