//! The picture for the README: topology and spread, legible on light and on dark ground.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::{acts::Killed, tally::Spread};

/// What the picture tells.
#[derive(Debug)]
pub(super) struct Findings<'a> {
    /// Bars.
    pub(super) spreads: &'a [Spread],
    /// Client addresses that stayed with their endpoint.
    pub(super) addresses: usize,
    /// Bits per second of one stream, IPv4 and IPv6.
    pub(super) rates: [f64; 2],
    /// Around the `kill -9`.
    pub(super) killed: Killed,
}

/// Writes it to `path`.
pub(super) fn write(path: &Path, findings: &Findings<'_>) -> Result<()> {
    fs::write(path, draw(findings)).with_context(|| format!("cannot write {}", path.display()))
}

fn draw(_findings: &Findings<'_>) -> String {
    String::new()
}
