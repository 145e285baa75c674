//! Connections: who answered, and how many answered where.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use super::task::block_in;
use crate::lab::Namespace;

/// What a server says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Which server.
    pub server: usize,
    /// What it was reached at.
    pub local: SocketAddr,
    /// Whom it sees.
    pub peer: SocketAddr,
}

/// No connection may take longer to be made.
const PATIENCE: Duration = Duration::from_secs(10);

impl Hello {
    /// Its length on the wire.
    pub const LEN: usize = 128;

    /// As it is sent.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [b' '; Self::LEN];
        let text = format!("{} {} {}", self.server, self.local, self.peer);
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        bytes
    }

    /// As it was received.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let text = str::from_utf8(bytes.get(..Self::LEN).context("too short for a hello")?)?;
        let mut words = text.split_whitespace();
        let mut word = || words.next().context("a word of the hello is missing");
        Ok(Self { server: word()?.parse()?, local: word()?.parse()?, peer: word()?.parse()? })
    }
}

/// Connects, from `from` if it matters, and waits for the server's hello.
pub async fn dial(from: Option<SocketAddr>, to: SocketAddr) -> Result<(Hello, TcpStream)> {
    let greet = async {
        let mut stream = connect(from, to).await?;
        let mut hello = [0; Hello::LEN];
        stream.read_exact(&mut hello).await?;
        Ok((Hello::parse(&hello)?, stream))
    };
    timeout(PATIENCE, greet).await.with_context(|| format!("{to} did not answer"))?
}

async fn connect(from: Option<SocketAddr>, to: SocketAddr) -> Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(from) = from {
        socket.set_reuseaddr(true)?;
        socket.bind(from).with_context(|| format!("cannot bind {from}"))?;
    }
    let stream = socket.connect(to).await.with_context(|| format!("cannot connect to {to}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Whether a port takes connections: refused is no, and anything else is an error.
pub async fn port_is_open(to: SocketAddr) -> Result<bool> {
    match timeout(PATIENCE, connect(None, to)).await.with_context(|| format!("{to} does not answer"))? {
        Ok(stream) => close(stream).await.map(|()| true),
        Err(error) => match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => Ok(false),
            Some(_) | None => Err(error),
        },
    }
}

/// Ends a connection in order: the client first, so that the server keeps no memory of it.
pub(super) async fn close(mut stream: TcpStream) -> Result<()> {
    stream.shutdown().await?;
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.context("the server does not close")??;
    Ok(())
}

/// Makes `count` connections, one after the other from the ports after `first_port` of `from`, 64 at a time, and counts who
/// answered. All must succeed. Port 0 leaves the choice to the kernel.
pub fn spread(
    namespace: &Namespace,
    from: IpAddr,
    first_port: u16,
    to: SocketAddr,
    count: u16,
) -> Result<BTreeMap<usize, usize>> {
    let patience = Duration::from_secs(120);
    block_in(namespace, patience, move || async move {
        ensure!(first_port == 0 || u32::from(first_port) + u32::from(count) <= 1 << 16, "not that many ports");
        let room = Arc::new(Semaphore::new(64));
        let mut all = JoinSet::new();
        for number in 0..count {
            let place = Arc::clone(&room).acquire_owned().await?;
            let port = if first_port == 0 { 0 } else { first_port + number };
            all.spawn(async move {
                let (hello, stream) = dial(Some(SocketAddr::new(from, port)), to).await?;
                close(stream).await?;
                drop(place);
                Ok::<_, anyhow::Error>(hello.server)
            });
        }
        let mut answered = BTreeMap::new();
        let mut failed = Vec::new();
        while let Some(one) = all.join_next().await {
            match one? {
                Ok(server) => *answered.entry(server).or_default() += 1,
                Err(error) => failed.push(error),
            }
        }
        match failed.first() {
            Some(first) => bail!("{} of {count} connections failed, the first with: {first:#}", failed.len()),
            None => Ok(answered),
        }
    })
}
