//! `ga config schema`: the JSON Schema of the configuration.

use clap::Args;

use super::{Context, Exit, Failure};

pub(super) const EXAMPLES: &str = "Examples:
  ga config schema > ga.schema.json";

/// Arguments of `ga config schema`.
#[derive(Clone, Debug, Args)]
pub struct SchemaArgs {}

/// Runs `ga config schema`.
pub fn run(_args: &SchemaArgs, _context: &Context) -> anyhow::Result<Exit> {
    Err(Failure::new(Exit::Internal, "the schema is not built in yet").into())
}
