//! A client's connection from its first byte to its last.

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::TryFutureExt;
use hyper::{Request, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, Sleep, sleep, timeout},
};

use super::{
    super::{Listener, Peer, Worker, counts::Reason},
    answer::Answered,
    body::Source,
    client::Client,
    frames::{Framed, Frames},
    plain, request,
    streams::Streams,
    timer::Wait,
    watched::Watched,
};
use crate::model::HttpLimits;

/// How long a client may take to notice that its connection has ended.
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// What is read of it meanwhile, and thrown away.
const LINGER_BYTES: u64 = 256 * 1024;
/// How long a connection of HTTP/2 takes at most to end once it has nothing to do.
const GOAWAY: Duration = Duration::from_secs(2);

/// Serves a connection of an HTTP or HTTPS listener until it ends. `stream` is what HTTP is spoken over, TLS done with.
pub fn serve<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    worker: Rc<Worker>,
    listener: &Arc<Listener>,
    stream: S,
    peer: Peer,
) -> Pin<Box<dyn Future<Output = ()>>> {
    let limits = listener.file.http.as_ref().map(|http| http.limits).unwrap_or_default();
    let client = Client::new(worker, listener, peer);
    client.timer.arm(Wait::Idle, client.timeouts.get().first_byte);
    if client.is_h2 {
        let watched = Watched { stream, client: Rc::clone(&client) };
        Box::pin(serve_http2(client, watched, limits))
    } else {
        Box::pin(plain::serve(client, stream, limits))
    }
}

/// How a connection of HTTP/2 ended, where the library did not end it.
fn ended(frames: &RefCell<Frames>, late: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> Option<Reason> {
    let frames = frames.borrow();
    if frames.is_flood() {
        return Some(Reason::Flood);
    }
    let sleep = late.as_mut()?;
    if frames.is_acknowledged() {
        *late = None;
        return None;
    }
    sleep.as_mut().poll(cx).is_ready().then_some(Reason::ClientHeadTimeout)
}

async fn serve_http2<S: AsyncRead + AsyncWrite + Unpin + 'static>(client: Rc<Client>, io: Watched<S>, limits: HttpLimits) {
    let service = service_fn(|request: Request<Incoming>| {
        // What is made here moves many times on its way to its task.
        Box::pin(request::serve(Rc::clone(&client), request.map(Source::Hyper)).map_ok(Answered::into_response))
    });
    let list = u32::try_from(limits.head).unwrap_or(u32::MAX);
    let frames = Rc::new(RefCell::new(Frames::new(Instant::now())));
    let io = Framed { stream: io, frames: Rc::clone(&frames) };
    let connection = http2::Builder::new(Streams(Rc::clone(&client)))
        .enable_connect_protocol()
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(list)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_send_buf_size(64 * 1024)
        .max_pending_accept_reset_streams(limits.resets)
        .max_local_error_reset_streams(limits.resets)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    let mut drain = client.worker.drain();
    let mut drained = pin!(drain.wait_for(|leaving| leaving.has(&client.path)));
    let (mut is_watching, mut is_ending) = (true, false);
    // Until the client acknowledges the edge's settings.
    let mut late = Some(Box::pin(sleep(client.timeouts.get().first_byte)));
    poll_fn(|cx| {
        if std::mem::take(&mut is_watching) {
            drop(drained.as_mut().poll(cx));
        }
        if !is_ending && client.worker.is_draining(&client.path) {
            is_ending = true;
            connection.as_mut().graceful_shutdown();
        }
        loop {
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if let Some(reason) = ended(&frames, &mut late, cx) {
                count(&client, reason);
                return Poll::Ready(());
            }
            match client.timer.poll(cx) {
                Poll::Ready(Wait::Idle) => {
                    client.timer.arm(Wait::End, GOAWAY);
                    if !std::mem::replace(&mut is_ending, true) {
                        connection.as_mut().graceful_shutdown();
                    }
                }
                Poll::Ready(Wait::Write) => {
                    count(&client, Reason::ClientWriteTimeout);
                    return Poll::Ready(());
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}

pub(super) fn count(client: &Client, reason: Reason) {
    if let Some(listener) = client.worker.listener(&client.path) {
        listener.counts.reasons.add(reason);
    }
}

/// Ends a connection so that what was written last arrives: a client that still sends is read from for a while, because bytes that
/// nobody reads make the kernel reset the connection, and what it had for the client is lost then.
pub(super) async fn finish<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, lingers: bool) {
    let end = async {
        drop(stream.shutdown().await);
        if lingers {
            drop(tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await);
        }
    };
    // Who does not take the end in time loses it.
    drop(timeout(LINGER, end).await);
}
