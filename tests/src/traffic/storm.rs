//! New connections all the time: each must succeed.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};

use super::{
    dial::{close, dial},
    task::Task,
};
use crate::lab::Namespace;

/// What became of the connections.
#[derive(Clone, Debug, Default)]
pub struct StormReport {
    /// How many each server answered.
    pub answered: BTreeMap<usize, u64>,
    /// Why others failed.
    pub failed: Vec<String>,
}

/// Connections one after the other.
#[derive(Debug)]
pub struct Storm(Task<StormReport>);

impl Storm {
    /// Starts four chains of connections, each with a pause of `pause` between two.
    pub fn start(namespace: &Namespace, to: SocketAddr, pause: Duration) -> Result<Self> {
        let task = Task::start(namespace, move |stop| async move {
            let mut chains = JoinSet::new();
            for _ in 0..4 {
                let mut stop = stop.clone();
                chains.spawn(async move {
                    let mut report = StormReport::default();
                    while !stop.within(pause).await {
                        match once(to).await {
                            Ok(server) => *report.answered.entry(server).or_default() += 1,
                            Err(error) => report.failed.push(format!("{error:#}")),
                        }
                    }
                    report
                });
            }
            let mut sum = StormReport::default();
            while let Some(chain) = chains.join_next().await {
                let chain = chain?;
                sum.failed.extend(chain.failed);
                for (server, answered) in chain.answered {
                    *sum.answered.entry(server).or_default() += answered;
                }
            }
            Ok(sum)
        })?;
        Ok(Self(task))
    }

    /// Ends it.
    pub fn finish(self) -> Result<StormReport> {
        self.0.finish()
    }

    /// Ends it and wants every connection to have succeeded, and some.
    pub fn all_well(self) -> Result<StormReport> {
        let report = self.finish()?;
        let failed = report.failed.len();
        ensure!(failed == 0, "{failed} connections failed, the first with: {}", report.failed[0]);
        ensure!(report.answered.values().sum::<u64>() > 0, "no connection was made");
        Ok(report)
    }
}

async fn once(to: SocketAddr) -> Result<usize> {
    let (hello, mut stream) = dial(None, to).await?;
    let mut answer = [0; 5];
    stream.write_all(b"hello").await.context("asking")?;
    stream.read_exact(&mut answer).await.context("listening")?;
    ensure!(&answer == b"hello", "another answer");
    close(stream).await.context("closing")?;
    Ok(hello.server)
}
