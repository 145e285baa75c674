//! New connections at a steady pace: who served each of them, and who was not served.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::{
    task::JoinSet,
    time::{interval, timeout},
};

use super::{dial::dial, task::Task};
use crate::lab::Namespace;

/// One connection.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// When it was asked for.
    pub begin: Instant,
    /// Until it was served, or given up.
    pub took: Duration,
    /// Who served it; nobody is an error that the client sees.
    pub server: Option<usize>,
}

/// Clients that come one after the other; ends when dropped.
#[derive(Debug)]
pub struct Steady(Task<Vec<Asked>>);

impl Steady {
    /// A new one `every` so often; each gives up after `patience`.
    pub fn start(namespace: &Namespace, to: SocketAddr, every: Duration, patience: Duration) -> Result<Self> {
        let task = Task::start(namespace, move |mut stop| async move {
            let (mut pace, mut all) = (interval(every), JoinSet::new());
            loop {
                tokio::select! {
                    () = stop.wait() => break,
                    _ = pace.tick() => {}
                }
                all.spawn(async move {
                    let begin = Instant::now();
                    let hello = timeout(patience, dial(None, to)).await.context("nobody answered").flatten();
                    Asked { begin, took: begin.elapsed(), server: hello.ok().map(|(hello, _)| hello.server) }
                });
            }
            let mut all = all.join_all().await;
            all.sort_by_key(|asked| asked.begin);
            Ok(all)
        })?;
        Ok(Self(task))
    }

    /// No further ones; all of them, in the order in which they came.
    pub fn finish(self) -> Result<Vec<Asked>> {
        self.0.finish()
    }
}
