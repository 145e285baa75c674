//! What a connection becomes after the endpoint's 101: bytes in both directions.

use std::{cell::Cell, io, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep_until},
};

use super::{
    super::{
        Listener,
        circuit::Held,
        counts::{Count, EndpointCounts},
        upstream::{Link, Stream},
    },
    served::Served,
};

/// Bytes that are moved at a time.
const PIECE: usize = 16 * 1024;

/// An endpoint's end of what becomes a tunnel.
pub(super) struct Tunnel {
    stream: Stream,
    /// What it said behind its 101.
    early: Bytes,
    listener: Arc<Listener>,
    endpoint: Arc<EndpointCounts>,
    idle: Duration,
    /// The request's place among what the group may have: the connection goes on.
    _held: Option<Held>,
}

impl Tunnel {
    pub(super) fn new(link: Link, served: &mut Served) -> Option<Self> {
        let (listener, endpoint) = (served.listener.as_ref()?, served.endpoint.as_ref()?);
        let (stream, early) = link.into_parts();
        endpoint.active.add(1);
        let idle = served.client.timeouts().tunnel;
        let (listener, endpoint) = (Arc::clone(listener), Arc::clone(endpoint));
        Some(Self { stream, early, listener, endpoint, idle, _held: served.held.take() })
    }

    /// Moves bytes until both ends have ended, one fails, or nothing moved for too long; `said` is what the client said already.
    pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(mut self, client: S, said: Bytes) {
        let moved = Rc::new(Cell::new(Instant::now()));
        let (mut client_read, mut client_write) = tokio::io::split(client);
        let (early, idle) = (std::mem::take(&mut self.early), self.idle);
        let (mut endpoint_read, mut endpoint_write) = tokio::io::split(&mut self.stream);
        let there =
            copy(said, &mut client_read, &mut endpoint_write, &moved, &self.listener.counts.bytes_in, &self.endpoint.bytes_in);
        let back =
            copy(early, &mut endpoint_read, &mut client_write, &moved, &self.listener.counts.bytes_out, &self.endpoint.bytes_out);
        let too_long = async {
            loop {
                let until = moved.get() + idle;
                if Instant::now() >= until {
                    return;
                }
                sleep_until(until).await;
            }
        };
        tokio::select! {
            // An error at one end is the end of both.
            _ = async { tokio::try_join!(there, back) } => {}
            () = too_long => {}
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.endpoint.active.sub(1);
    }
}

async fn copy<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    first: Bytes,
    from: &mut R,
    to: &mut W,
    moved: &Cell<Instant>,
    of_listener: &Count,
    of_endpoint: &Count,
) -> io::Result<()> {
    let count = |bytes: &[u8]| {
        moved.set(Instant::now());
        of_listener.add(bytes.len() as u64);
        of_endpoint.add(bytes.len() as u64);
    };
    to.write_all(&first).await?;
    to.flush().await?;
    count(&first);
    let mut piece = vec![0; PIECE];
    loop {
        let length = from.read(&mut piece).await?;
        let bytes = piece.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            return to.shutdown().await;
        }
        to.write_all(bytes).await?;
        to.flush().await?;
        count(bytes);
    }
}
