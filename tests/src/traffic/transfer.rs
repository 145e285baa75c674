//! A stream of bytes to a server and back, compared at three places.

use std::{net::SocketAddr, sync::mpsc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
    time::timeout,
};

use super::{
    dial::{Hello, dial},
    digest::Digest,
    server::Server,
    task::{Stop, Task, block_in},
};
use crate::lab::Namespace;

/// What became of a transfer. That as much came back as was sent, unchanged, is checked already.
#[derive(Clone, Copy, Debug)]
pub struct TransferReport {
    /// Who answered.
    pub hello: Hello,
    /// What was sent; the server must have received the same.
    pub sent: Digest,
}

/// No byte may take longer.
const STALLED: Duration = Duration::from_secs(10);
const BLOCK: usize = 64 << 10;

/// Sends `bytes` and gets them back.
pub fn transfer(namespace: &Namespace, to: SocketAddr, bytes: u64) -> Result<TransferReport> {
    block_in(namespace, Duration::from_secs(120), move || async move {
        let (hello, stream) = dial(None, to).await?;
        let sent = exchange(stream, bytes, Duration::ZERO, None).await?;
        Ok(TransferReport { hello, sent })
    })
}

/// A transfer that goes on until it is finished.
#[derive(Debug)]
pub struct Transfer {
    hello: Hello,
    task: Task<TransferReport>,
}

impl Transfer {
    /// Starts it, at about 12 MB/s in either direction.
    pub fn start(namespace: &Namespace, to: SocketAddr) -> Result<Self> {
        let (tell, told) = mpsc::channel();
        let task = Task::start(namespace, move |stop| async move {
            let (hello, stream) = dial(None, to).await?;
            tell.send(hello)?;
            let sent = exchange(stream, u64::MAX, Duration::from_millis(5), Some(stop)).await?;
            Ok(TransferReport { hello, sent })
        })?;
        match told.recv_timeout(Duration::from_secs(15)) {
            Ok(hello) => Ok(Self { hello, task }),
            Err(_) => Err(task.finish().err().unwrap_or_else(|| anyhow::anyhow!("no connection")).context("no transfer")),
        }
    }

    /// Who serves it.
    pub fn server(&self) -> usize {
        self.hello.server
    }

    /// Ends it in order and waits until everything that was sent came back.
    pub fn finish(self) -> Result<TransferReport> {
        self.task.finish()
    }
}

/// Many transfers that go on, slowly, until they are finished.
#[derive(Debug)]
pub struct Transfers(Task<Vec<Result<TransferReport>>>);

impl Transfers {
    /// Opens `count` connections, each sending a block of 64 KiB every `pause`.
    pub fn open(namespace: &Namespace, to: SocketAddr, count: usize, pause: Duration) -> Result<Self> {
        let (tell, told) = mpsc::channel();
        let task = Task::start(namespace, move |stop| async move {
            let mut all = JoinSet::new();
            for _ in 0..count {
                let (hello, stream) = dial(None, to).await?;
                let stop = stop.clone();
                all.spawn(async move {
                    let sent = exchange(stream, u64::MAX, pause, Some(stop)).await;
                    sent.map(|sent| TransferReport { hello, sent }).with_context(|| format!("{hello:?}"))
                });
            }
            tell.send(())?;
            Ok(all.join_all().await)
        })?;
        match told.recv_timeout(Duration::from_secs(60)) {
            Ok(()) => Ok(Self(task)),
            Err(_) => Err(task.finish().err().unwrap_or_else(|| anyhow::anyhow!("no connection")).context("no transfers")),
        }
    }

    /// Ends them in order and wants every one of them complete; that servers received what was sent is for the caller to see.
    pub fn all_well(self) -> Result<Vec<TransferReport>> {
        let reports = self.0.finish()?;
        let count = reports.len();
        let (mut well, mut broken) = (Vec::new(), Vec::new());
        for report in reports {
            match report {
                Ok(report) => well.push(report),
                Err(error) => broken.push(format!("{error:#}")),
            }
        }
        ensure!(broken.is_empty(), "{} of {count} transfers broke, the first with: {}", broken.len(), broken[0]);
        Ok(well)
    }
}

/// Wants every connection to be known to the server that it reached, with the very bytes that were sent.
pub fn arrived(reports: &[TransferReport], servers: &[Server]) -> Result<()> {
    for report in reports {
        let server = servers.get(report.hello.server - 1).context("there is no such server")?;
        let found = server.connections().into_iter().find(|one| one.peer == report.hello.peer && one.local == report.hello.local);
        let found = found.with_context(|| format!("no server knows {:?}", report.hello))?;
        ensure!(found.received == report.sent, "the server received {:?} of {:?}", found.received, report.sent);
    }
    Ok(())
}

async fn exchange(stream: tokio::net::TcpStream, bytes: u64, pause: Duration, mut stop: Option<Stop>) -> Result<Digest> {
    let (mut from, mut to) = stream.into_split();
    let send = async move {
        let mut block: Vec<u8> = noise().take(BLOCK).collect();
        let mut sent = Digest::default();
        while sent.bytes() < bytes && !stop.as_ref().is_some_and(Stop::is_set) {
            block[..8].copy_from_slice(&sent.bytes().to_le_bytes());
            let size = (bytes - sent.bytes()).min(BLOCK as u64) as usize;
            timeout(STALLED, to.write_all(&block[..size])).await.context("sending stalled")?.context("sending failed")?;
            sent.update(&block[..size]);
            if let Some(stop) = stop.as_mut().filter(|_| !pause.is_zero()) {
                stop.within(pause).await;
            }
        }
        to.shutdown().await.context("the end could not be sent")?;
        Ok::<_, anyhow::Error>(sent)
    };
    let receive = async move {
        let mut buffer = vec![0; BLOCK];
        let mut received = Digest::default();
        loop {
            let read = timeout(STALLED, from.read(&mut buffer)).await.context("receiving stalled")?;
            match read.with_context(|| format!("receiving failed after {} bytes", received.bytes()))? {
                0 => return Ok::<_, anyhow::Error>(received),
                bytes => received.update(&buffer[..bytes]),
            }
        }
    };
    let (sent, received) = tokio::try_join!(send, receive)?;
    ensure!(sent == received, "what came back is not what was sent: {received:?} and {sent:?}");
    Ok(sent)
}

/// Bytes without a pattern (xorshift).
fn noise() -> impl Iterator<Item = u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
}
