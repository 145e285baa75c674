<<<<<<< HEAD
//! `ga plan`: what a file would change, before anything is touched. Prints, never decides.

use crate::{
    model::Intent,
    plan::{self, Changes, Overrides, PlanError, State},
};

/// `ga plan FILE --against OTHER`, offline: what an edge that runs `old` would change to run `new`.
pub fn against(old: &Intent, new: &Intent) -> Result<Changes, PlanError> {
    let seed = |intent: &Intent| intent.node.hash_seed.map(|seed| seed.0);
    // An edge without a configured key keeps the one it has, so the key counts only when the new file sets another one.
    let before = seed(old).unwrap_or_default();
    let overrides = Overrides::default();
    let running = plan::build(old, &overrides, &State::default(), before)?;
    let planned = plan::build(new, &overrides, &running.target, seed(new).unwrap_or(before))?;
    Ok(plan::compare(Some(&running), &planned))
}

/// `ga plan FILE` without an agent and without another file: what a fresh edge would do.
pub fn fresh(new: &Intent) -> Result<Changes, PlanError> {
    let seed = new.node.hash_seed.map(|seed| seed.0).unwrap_or_default();
    Ok(plan::compare(None, &plan::build(new, &Overrides::default(), &State::default(), seed)?))
}

/// For a terminal, or for a program.
pub fn render(changes: &Changes, json: bool, colour: bool) -> String {
    if !json {
        return changes.render(colour);
    }
    // Numbers, texts and lists only: this cannot fail.
    let mut text = serde_json::to_string_pretty(changes).unwrap_or_default();
    text.push('\n');
    text
=======
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
>>>>>>> admin
}
