//! Whether the demo is to end early; everything that waits looks here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

/// Shared by everybody who waits.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Somebody pressed Ctrl-C, or nobody reads any more.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether to end.
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error when it is time to end.
    pub(super) fn check(&self) -> Result<()> {
        ensure!(!self.is_set(), "interrupted");
        Ok(())
    }

    /// Sleeps, but not past the end.
    pub(super) fn sleep(&self, time: Duration) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < time {
            self.check()?;
            sleep(Duration::from_millis(20).min(time));
        }
        self.check()
    }

    /// Waits until `ready`; an error that says `what` when that takes longer than `patience`.
    pub(super) fn wait(&self, what: &str, patience: Duration, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < patience {
            self.check()?;
            if ready()? {
                return Ok(());
            }
            sleep(Duration::from_millis(10));
        }
        anyhow::bail!("{what}: not within {} s", patience.as_secs())
    }
}
