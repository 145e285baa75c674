//! `ga plan`: what a file would change, before anything is touched. Prints, never decides.

use std::path::PathBuf;

use clap::Args;

use super::{Context, Exit, file};
use crate::{
    health::Beliefs,
    model::Intent,
    plan::{self, Changes, Overrides, PlanError, State},
    resolve::Addresses,
};

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
    /// Exit with 1 when something would change
    #[arg(long)]
    pub exit_code: bool,
}

/// Runs `ga plan`.
pub async fn run(args: &PlanArgs, context: &Context) -> anyhow::Result<Exit> {
    let changes = match &args.against {
        Some(other) => against(&file::load(other, context)?.intent, &file::load(&args.file, context)?.intent)?,
        None => {
            let text = file::read(&args.file)?;
            let planned = context.client().plan(args.file.display().to_string(), text).await?;
            serde_json::from_value(planned.report)?
        }
    };
    context.output.view(&changes, |style| changes.render(style.color))?;
    Ok(if args.exit_code && !changes.noop { Exit::Negative } else { Exit::Ok })
}

/// What an edge that runs `old` would change to run `new`.
fn against(old: &Intent, new: &Intent) -> Result<Changes, PlanError> {
    let seed = |intent: &Intent| intent.node.hash_seed.map(|seed| seed.0);
    // An edge without a configured key keeps the one it has, so the key counts only when the new file sets another one.
    let before = seed(old).unwrap_or_default();
    // Without an agent nobody is known to be down, and names stand for what the files say themselves.
    let (overrides, beliefs) = (Overrides::default(), Beliefs::default());
    let whole = |intent: &Intent| plan::resolved(intent, &Addresses::written(intent)).0.into_owned();
    let running = plan::build(&whole(old), &overrides, &beliefs, &State::default(), before)?;
    let planned = plan::build(&whole(new), &overrides, &beliefs, &running.target, seed(new).unwrap_or(before))?;
    Ok(plan::compare(Some(&running), &planned).with_served(old, new))
}
