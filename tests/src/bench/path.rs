//! What a path carries.

use anyhow::{Result, bail};

/// Measures and prints.
pub fn run(_json: bool) -> Result<()> {
    bail!("not yet")
}
