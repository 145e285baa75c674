//! `ga config schema`: prints the JSON Schema of the configuration.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;

use crate::config::schema;

/// Print the JSON Schema (draft-07) of the configuration, for editors.
///
/// A file whose first line is `#:schema ./ga.schema.json` is then completed and checked while it is written.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  ga config schema > ga.schema.json")]
pub struct Args {}

/// Prints the schema.
pub fn run(Args {}: &Args) -> anyhow::Result<ExitCode> {
    let text = schema::text().context("cannot write the schema")?;
    io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")?;
    Ok(ExitCode::SUCCESS)
}
