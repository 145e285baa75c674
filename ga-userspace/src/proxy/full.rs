//! Connections that are one too many: what they get, and how many files there are for the others.

use std::{cell::Cell, rc::Rc, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::model::Protocol;

/// What a client of an HTTP listener is told.
const ANSWER: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-type: text/plain\r\ncontent-length: 19\r\n\r\nService Unavailable";
/// Clients that are told at a time, of one thread; others are closed at once.
const TOLD: usize = 64;
/// How long a client may take to notice.
const LINGER: Duration = Duration::from_secs(1);
/// What is read of it meanwhile, and thrown away.
const LINGER_BYTES: u64 = 64 * 1024;
/// Files that are no connections.
const OTHER_FILES: u64 = 256;

/// The refusals of one thread.
#[derive(Debug, Default)]
pub(super) struct Full(Rc<Cell<usize>>);

impl Full {
    /// Ends a connection that is one too many: with 503 where clients speak HTTP without TLS, with a reset elsewhere. Where many are
    /// refused at a time, all are reset.
    pub(super) fn refuse(&self, stream: TcpStream, protocol: Protocol) {
        if protocol != Protocol::Http || self.0.get() >= TOLD {
            // What fails here has no connection any more.
            drop(stream.set_zero_linger());
            return;
        }
        self.0.set(self.0.get() + 1);
        let told = Rc::clone(&self.0);
        tokio::task::spawn_local(async move {
            drop(timeout(LINGER, tell(stream)).await);
            told.set(told.get().saturating_sub(1));
        });
    }
}

/// The client's request is read, as bytes that nobody reads make the kernel reset the connection, and the answer is lost then.
async fn tell(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(ANSWER).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await.map(drop)
}

/// Connections of clients that this process has files for: each may need one to an endpoint too. The process is allowed as many files
/// as it may allow itself.
pub(super) fn connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let files = match (limit.current, limit.maximum) {
        (Some(current), maximum) if maximum.is_none_or(|maximum| maximum > current) => {
            // Where it cannot be raised, it stays.
            setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap_or_default();
            getrlimit(Resource::Nofile).current
        }
        (current, _) => current,
    };
    files.map_or(usize::MAX, |files| usize::try_from(files.saturating_sub(OTHER_FILES) / 2).unwrap_or(usize::MAX))
}
