//! `ga plan`: what would change?

use std::path::PathBuf;

use clap::Args;

use super::{Context, Exit, Failure};

pub(super) const EXAMPLES: &str = "Examples:
  ga plan new.toml                       against the running agent
  ga plan new.toml --against old.toml    without an agent";

/// Arguments of `ga plan`.
#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    /// The configuration that would be applied
    pub file: PathBuf,
    /// The configuration to start from, instead of what the agent runs
    #[arg(long, value_name = "OTHER")]
    pub against: Option<PathBuf>,
}

/// Runs `ga plan`.
pub async fn run(_args: &PlanArgs, _context: &Context) -> anyhow::Result<Exit> {
    Err(Failure::new(Exit::Internal, "the plan is not built in yet").into())
}
