//! Datagrams: numbered, and every number that does not come back is known.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    net::UdpSocket,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{
    dial::Hello,
    task::{Task, block_in},
};
use crate::lab::Namespace;

/// What became of the datagrams.
#[derive(Clone, Debug, Default)]
pub struct ProbeReport {
    /// How many were sent.
    pub sent: u64,
    /// Numbers that did not come back.
    pub lost: BTreeSet<u64>,
    /// Answers that came twice.
    pub doubled: u64,
    /// Who answered.
    pub servers: BTreeSet<usize>,
    /// Whom the servers saw.
    pub peers: BTreeSet<SocketAddr>,
}

/// One datagram every millisecond on one socket, until it is finished.
#[derive(Debug)]
pub struct Probe(Task<ProbeReport>);

/// How long an answer is waited for.
const LATE: Duration = Duration::from_secs(1);

impl Probe {
    /// Starts it.
    pub fn start(namespace: &Namespace, to: SocketAddr) -> Result<Self> {
        let task = Task::start(namespace, move |mut stop| async move {
            let socket = open(None, to).await?;
            let mut report = ProbeReport::default();
            let mut tick = interval(Duration::from_millis(1));
            // A late tick is made up for: the rate stays.
            tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut buffer = vec![0; 2048];
            loop {
                tokio::select! {
                    () = stop.wait() => break,
                    _ = tick.tick() => {
                        socket.send(&report.sent.to_le_bytes()).await.context("sending")?;
                        report.lost.insert(report.sent);
                        report.sent += 1;
                    }
                    received = socket.recv(&mut buffer) => report.note(&buffer[..received.context("receiving")?])?,
                }
            }
            let end = Instant::now() + LATE;
            while !report.lost.is_empty()
                && let Ok(received) = tokio::time::timeout_at(end, socket.recv(&mut buffer)).await
            {
                report.note(&buffer[..received.context("receiving")?])?;
            }
            Ok(report)
        })?;
        Ok(Self(task))
    }

    /// Ends it and waits a second for late answers.
    pub fn finish(self) -> Result<ProbeReport> {
        self.0.finish()
    }
}

impl ProbeReport {
    /// The longest run of numbers that did not come back: milliseconds, because there is one in each.
    pub fn longest_gap(&self) -> Duration {
        let (mut longest, mut run, mut last) = (0, 0, None);
        for &number in &self.lost {
            run = if last.is_some_and(|last| last + 1 == number) { run + 1 } else { 1 };
            longest = longest.max(run);
            last = Some(number);
        }
        Duration::from_millis(longest)
    }

    fn note(&mut self, answer: &[u8]) -> Result<()> {
        let hello = Hello::parse(answer)?;
        self.servers.insert(hello.server);
        self.peers.insert(hello.peer);
        let number = answer.get(Hello::LEN..Hello::LEN + 8).context("an answer is cut short")?;
        let mut bytes = [0; 8];
        bytes.copy_from_slice(number);
        if !self.lost.remove(&u64::from_le_bytes(bytes)) {
            self.doubled += 1;
        }
        Ok(())
    }
}

async fn open(from: Option<SocketAddr>, to: SocketAddr) -> Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind(from.unwrap_or(SocketAddr::new(any, 0))).await.context("cannot bind")?;
    // Whoever sends late sends many at once, and so come the answers.
    socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20)?;
    socket.connect(to).await.with_context(|| format!("cannot connect to {to}"))?;
    Ok(socket)
}

/// Asks from `sockets` sockets of the address `from` at once, `each` questions one after the other, each sent once.
pub fn ask_many(namespace: &Namespace, from: IpAddr, to: SocketAddr, sockets: usize, each: u64) -> Result<ProbeReport> {
    block_in(namespace, Duration::from_secs(120), move || async move {
        let mut all = JoinSet::new();
        for _ in 0..sockets {
            all.spawn(async move {
                let socket = open(Some(SocketAddr::new(from, 0)), to).await?;
                let mut report = ProbeReport::default();
                let mut buffer = vec![0; 2048];
                for number in 0..each {
                    socket.send(&number.to_le_bytes()).await?;
                    report.lost.insert(number);
                    report.sent += 1;
                    while report.lost.contains(&number)
                        && let Ok(received) = timeout(LATE, socket.recv(&mut buffer)).await
                    {
                        report.note(&buffer[..received?])?;
                    }
                }
                Ok::<_, anyhow::Error>(report)
            });
        }
        let mut sum = ProbeReport::default();
        while let Some(one) = all.join_next().await {
            let one = one??;
            // Numbers of different sockets are kept apart.
            sum.lost.extend(one.lost.iter().map(|number| sum.sent + number));
            sum.sent += one.sent;
            sum.doubled += one.doubled;
            sum.servers.extend(one.servers);
            sum.peers.extend(one.peers);
        }
        Ok(sum)
    })
}
