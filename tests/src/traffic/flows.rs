//! Many open connections that exchange bytes all the time: none may break.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use super::{
    dial::{Hello, close, dial},
    task::{Stop, Task, until},
};
use crate::lab::Namespace;

/// What became of the connections.
#[derive(Clone, Debug, Default)]
pub struct FlowReport {
    /// How many there were.
    pub flows: usize,
    /// Questions that were answered.
    pub exchanged: u64,
    /// Why connections broke.
    pub broken: Vec<String>,
    /// The longest wait for an answer.
    pub slowest: Duration,
}

/// Open connections.
#[derive(Debug)]
pub struct Flows {
    /// Who serves them.
    pub hellos: Vec<Hello>,
    exchanged: Arc<AtomicU64>,
    task: Task<FlowReport>,
}

/// A question without an answer for that long is a broken connection.
const LOST: Duration = Duration::from_secs(15);

impl Flows {
    /// Opens `count` connections to `to`, each asking every `pause`.
    pub fn open(namespace: &Namespace, to: SocketAddr, count: usize, pause: Duration) -> Result<Self> {
        let (tell, told) = mpsc::channel();
        let exchanged = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&exchanged);
        let task = Task::start(namespace, move |stop| async move {
            let mut hellos = Vec::new();
            let mut all = JoinSet::new();
            for number in 0..count {
                let (hello, stream) = dial(None, to).await?;
                hellos.push(hello);
                // Not all at once.
                let first = pause.mul_f64(number as f64 / count as f64);
                all.spawn(talk(stream, first, pause, Arc::clone(&counter), stop.clone()));
            }
            tell.send(hellos)?;
            let mut report = FlowReport { flows: count, ..FlowReport::default() };
            while let Some(one) = all.join_next().await {
                match one? {
                    Ok(slowest) => report.slowest = report.slowest.max(slowest),
                    Err(error) => report.broken.push(format!("{error:#}")),
                }
            }
            report.exchanged = counter.load(Ordering::Relaxed);
            Ok(report)
        })?;
        match told.recv_timeout(Duration::from_secs(30)) {
            Ok(hellos) => Ok(Self { hellos, exchanged, task }),
            Err(_) => match task.finish() {
                Ok(_) => bail!("no connections to {to}"),
                Err(error) => Err(error.context(format!("no connections to {to}"))),
            },
        }
    }

    /// Questions answered so far.
    pub fn exchanged(&self) -> u64 {
        self.exchanged.load(Ordering::Relaxed)
    }

    /// Waits until `more` further questions were answered.
    pub fn wait_for(&self, more: u64) -> Result<()> {
        let goal = self.exchanged() + more;
        until(&format!("{more} answers on open connections"), Duration::from_secs(20), || {
            Ok((self.exchanged() >= goal).then_some(()))
        })
    }

    /// Closes them in order.
    pub fn finish(self) -> Result<FlowReport> {
        self.task.finish()
    }

    /// Closes them and wants every one of them unharmed.
    pub fn all_well(self) -> Result<FlowReport> {
        let report = self.finish()?;
        let broken = report.broken.len();
        ensure!(broken == 0, "{broken} of {} connections broke, the first with: {}", report.flows, report.broken[0]);
        Ok(report)
    }
}

async fn talk(
    mut stream: TcpStream,
    first: Duration,
    pause: Duration,
    counter: Arc<AtomicU64>,
    mut stop: Stop,
) -> Result<Duration> {
    let mut slowest = Duration::ZERO;
    let mut number = 0_u64;
    let mut over = stop.within(first).await;
    while !over {
        let mut question = [0x5a; 64];
        question[..8].copy_from_slice(&number.to_le_bytes());
        let mut answer = [0; 64];
        let asked = Instant::now();
        let exchange = async {
            stream.write_all(&question).await?;
            stream.read_exact(&mut answer).await.map(|_bytes| ())
        };
        let place = || format!("question {number}");
        timeout(LOST, exchange).await.with_context(place)?.with_context(place)?;
        ensure!(question == answer, "the answer to question {number} is another one");
        slowest = slowest.max(asked.elapsed());
        counter.fetch_add(1, Ordering::Relaxed);
        number += 1;
        over = stop.within(pause).await;
    }
    close(stream).await.context("closing")?;
    Ok(slowest)
}
