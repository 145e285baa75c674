//! Configuration files on the command line.

use std::{fs, path::Path};

use super::{Context, Exit, Failure};
use crate::config::{self, Loaded};

/// The text of a file.
pub(super) fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", path.display())).into())
}

/// A file without errors; otherwise the errors are the failure.
pub(super) fn load(path: &Path, _context: &Context) -> anyhow::Result<Loaded> {
    let text = read(path)?;
    config::parse(&path.display().to_string(), &text).map_err(|report| {
        let mut message = String::new();
        // Writing to a String cannot fail.
        config::render::report(&mut message, &report, &text, config::render::Style::Plain).unwrap_or_default();
        Failure::new(Exit::Negative, message).into()
    })
}
