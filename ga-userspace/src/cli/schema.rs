//! `ga config schema`: prints the JSON Schema of the configuration.

use anyhow::Context as _;

use super::{Context, Exit};
use crate::config::schema;

pub(super) const EXAMPLES: &str = "Examples:
  ga config schema > ga.schema.json    and `#:schema ./ga.schema.json` as the first line of ga.toml";

/// Arguments of `ga config schema`.
#[derive(Clone, Debug, clap::Args)]
pub struct SchemaArgs {}

/// Prints the schema (draft-07), for editors.
pub fn run(SchemaArgs {}: &SchemaArgs, context: &Context) -> anyhow::Result<Exit> {
    context.output.text(&schema::text().context("cannot write the schema")?)?;
    Ok(Exit::Ok)
}
