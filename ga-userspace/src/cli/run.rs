//! `ga run`: the agent.

use std::{io::IsTerminal as _, path::PathBuf};

use clap::Args;
use tracing_subscriber::EnvFilter;

use super::{Context, Exit, Failure};
use crate::{admin::BindError, agent, config::render, handover, program};

pub(super) const EXAMPLES: &str = "Examples:
  ga run --config /etc/ga/ga.toml
  ga run --config ga.toml --admin-socket /tmp/ga.sock --pin-dir /sys/fs/bpf/ga-test --state-dir /tmp/ga
  ga run --config /etc/ga/ga.toml --take-over     an upgrade that no client notices";

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
    /// Take over from the agent that runs, with its sockets, and end it; its connections go on until they end
    #[arg(long)]
    pub take_over: bool,
}

impl RunArgs {
    /// The admin socket to serve.
    pub fn socket<'a>(&'a self, context: &'a Context) -> &'a PathBuf {
        self.admin_socket.as_ref().unwrap_or(&context.socket)
    }
}

/// Runs the agent until it is told to stop. It builds its own runtime.
pub fn run(args: &RunArgs, context: &Context) -> anyhow::Result<Exit> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_env_filter(EnvFilter::try_from_env("GA_LOG").unwrap_or_else(|_| EnvFilter::new("info")))
        .init();
    let options = agent::Options {
        config: args.config.clone(),
        admin_socket: args.socket(context).clone(),
        pin_dir: args.pin_dir.clone(),
        state_dir: args.state_dir.clone(),
        take_over: args.take_over,
    };
    let sockets = handover::inherited();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match runtime.block_on(agent::run(options, sockets)) {
        Ok(()) => Ok(Exit::Ok),
        Err(error) => Err(failure(&error).into()),
    }
}

fn failure(error: &agent::Error) -> Failure {
    let exit = match error {
        agent::Error::Config { report, text } => {
            let mut message = String::from("the configuration has problems; nothing was touched\n");
            // Writing to a String cannot fail.
            render::report(&mut message, report, text, render::Style::Plain).unwrap_or_default();
            return Failure::new(Exit::Negative, message);
        }
        agent::Error::Plan(_) | agent::Error::NeedsRestart { .. } => Exit::Negative,
        agent::Error::Read { .. } => Exit::Usage,
        agent::Error::Program(program::Error::Foreign { .. }) => Exit::Conflict,
        agent::Error::Program(program::Error::Locked { .. }) | agent::Error::Admin(BindError::Live { .. }) => Exit::Locked,
        agent::Error::Program(program::Error::NoInterface { .. }) => Exit::Negative,
        agent::Error::TakeOver(_) | agent::Error::Admin(BindError::NotASocket { .. }) | agent::Error::Metrics { .. } => {
            Exit::Conflict
        }
        agent::Error::Program(_) | agent::Error::Maps(_) | agent::Error::Net(_) | agent::Error::System { .. } => Exit::Kernel,
        agent::Error::Admin(BindError::Io { .. }) | agent::Error::State { .. } => Exit::Kernel,
    };
    Failure::new(exit, error.to_string())
}
