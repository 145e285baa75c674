//! `ga detach`: takes the data path down. The agent leaves it running when it stops; this is how it ends.

use std::path::PathBuf;

use clap::Args;

use super::{Context, Exit, Failure};
use crate::{
    net::Net,
    program::{self, Error},
};

pub(super) const EXAMPLES: &str = "Examples:
  ga detach                                 after the agent was stopped
  ga detach --pin-dir /sys/fs/bpf/ga-test";

/// Arguments of `ga detach`.
#[derive(Clone, Debug, Args)]
pub struct DetachArgs {
    /// Where the program and the maps are pinned
    #[arg(long, value_name = "PATH", default_value = "/sys/fs/bpf/ga")]
    pub pin_dir: PathBuf,
}

/// Detaches from every interface and forgets flows and counters.
pub fn run(args: &DetachArgs, context: &Context) -> anyhow::Result<Exit> {
    if !args.pin_dir.exists() {
        context.output.text(&format!("nothing is pinned in {}", args.pin_dir.display()))?;
        return Ok(Exit::Ok);
    }
    let done = program::preflight(&args.pin_dir).and_then(|_lock| program::unpin(&args.pin_dir));
    match done {
        Ok(()) => {
            disown()?;
            context.output.text(&format!("detached; nothing is left in {}", args.pin_dir.display()))?;
            Ok(Exit::Ok)
        }
        Err(error @ Error::Locked { .. }) => Err(Failure::new(Exit::Locked, error.to_string()).into()),
        Err(error) => Err(Failure::new(Exit::Kernel, error.to_string()).into()),
    }
}

/// Gives back the addresses that probes left with.
fn disown() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(Net::disown_all())?)
}
