//! What keeps the agent from running, or a change from being applied.

use std::{io, path::PathBuf};

use crate::{admin, config::problem::Report, handover, maps, net, plan, program};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The configuration has problems.
    #[error("{report}")]
    Config {
        /// All of them.
        report: Box<Report>,
        /// The text they are about.
        text: String,
    },
    /// The configuration is right, but it may not replace the running one.
    #[error("{0}")]
    Plan(#[from] plan::PlanError),
    /// Something that only a start can change was changed.
    #[error("`{key}` cannot change while the agent runs: restart it")]
    NeedsRestart {
        /// The key.
        key: &'static str,
    },
    /// The program.
    #[error(transparent)]
    Program(#[from] program::Error),
    /// The maps.
    #[error(transparent)]
    Maps(#[from] maps::Error),
    /// Netlink.
    #[error(transparent)]
    Net(#[from] net::Error),
    /// The admin socket.
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    /// The agent that runs does not hand over.
    #[error(transparent)]
    TakeOver(#[from] handover::AskError),
    /// The metrics listener.
    #[error("metrics on {address}: {source}")]
    Metrics {
        /// Where.
        address: std::net::SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// What operators set by hand cannot be kept.
    #[error("{}: {source}", path.display())]
    State {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Signals, sockets, randomness.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}
