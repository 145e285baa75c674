//! `ga check`: is the file right?

use std::path::PathBuf;

use clap::Args;

use super::{Context, Exit, Failure};

pub(super) const EXAMPLES: &str = "Examples:
  ga check /etc/ga/ga.toml && ga reload";

/// Arguments of `ga check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// The configuration
    pub file: PathBuf,
}

/// Runs `ga check`.
pub fn run(_args: &CheckArgs, _context: &Context) -> anyhow::Result<Exit> {
    Err(Failure::new(Exit::Internal, "the check is not built in yet").into())
}
