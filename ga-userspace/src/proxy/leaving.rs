//! Which connections are to end: after what they are at, and told so.

use std::collections::BTreeSet;

/// All of them, or those of listeners that are served no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaving {
    /// The edge ends.
    pub all: bool,
    /// Paths of listeners.
    pub listeners: BTreeSet<String>,
}

impl Leaving {
    /// The edge ends.
    pub fn everybody() -> Self {
        Self { all: true, listeners: BTreeSet::new() }
    }

    /// Whether connections of that listener are among them.
    pub fn has(&self, path: &str) -> bool {
        self.all || (!self.listeners.is_empty() && self.listeners.contains(path))
    }
}
