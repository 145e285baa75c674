//! A client's connection of HTTP/1: one request after the other, until one of both has enough.

use std::{
    future::poll_fn,
    io,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use http::{Method, Version, header, request::Parts};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::{
    super::{
        counts::Reason,
        guard::{self, Body},
        upstream::Piece,
    },
    answer::{Answered, HEAD_TIMEOUT},
    body::Source,
    client::Client,
    request,
    serve::{LINGER, count, finish},
    timer::Wait,
    wire::{self, Ending, Next, Shared, Upload, Wire},
};
use crate::model::HttpLimits;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It has nothing to say now.
    Park,
    /// As its messages say, or as nothing is to be said any more.
    Over,
    /// With a message that is none.
    Broken,
    /// In the middle of an answer: what is missing must be seen.
    Cut,
    /// It becomes another protocol.
    Tunnel,
    /// A head took too long.
    Head,
    /// The client takes nothing.
    Write,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Cut
    }
}

/// Serves it to its end.
pub(super) fn serve<S>(client: Rc<Client>, stream: S, limits: HttpLimits) -> impl Future<Output = ()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let HttpLimits { head, target, fields, .. } = limits;
    let wire = Wire::new(stream, Rc::clone(&client), guard::Limits { head, target, fields });
    served(client, wire)
}

/// Nothing is in this future but what a connection needs that says nothing.
async fn served<S>(client: Rc<Client>, wire: Shared<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let _bell = poll_fn(|cx| Poll::Ready(client.worker.bell(cx))).await;
    let mut is_new = true;
    let end = loop {
        if let Some(end) = poll_fn(|cx| poll_parked(&client, &wire, is_new, cx)).await {
            break end;
        }
        // What a request needs is there only while there is one.
        let end = Box::pin(requests(&client, &wire)).await;
        if end != End::Park {
            break end;
        }
        wire.borrow_mut().park();
        is_new = false;
    };
    // Nobody else has it any more: what was served is over.
    let Some(wire) = Rc::into_inner(wire) else { return };
    let (stream, said) = wire.into_inner().into_parts();
    Box::pin(ended(&client, stream, said, end)).await;
}

async fn ended<S: AsyncRead + AsyncWrite + Unpin>(client: &Client, mut stream: S, said: bytes::Bytes, end: End) {
    match end {
        End::Over | End::Park => finish(&mut stream, client.lingers.get()).await,
        End::Broken => finish(&mut stream, true).await,
        End::Cut => {}
        End::Tunnel => {
            let tunnel = client.tunnel.borrow_mut().take();
            if let Some(tunnel) = tunnel {
                tunnel.run(stream, said).await;
            }
        }
        End::Head => {
            count(client, Reason::ClientHeadTimeout);
            drop(timeout(LINGER, stream.write_all(HEAD_TIMEOUT)).await);
            finish(&mut stream, false).await;
        }
        End::Write => count(client, Reason::ClientWriteTimeout),
    }
}

/// Waits for the first byte of a request. Ready with how the connection ended, if it did. A new one is not ended before its first
/// request, which may be on its way.
fn poll_parked<S: AsyncRead + AsyncWrite + Unpin>(
    client: &Client,
    wire: &Shared<S>,
    is_new: bool,
    cx: &mut Context<'_>,
) -> Poll<Option<End>> {
    if !is_new && client.worker.is_draining(&client.path) {
        return Poll::Ready(Some(End::Over));
    }
    match wire.borrow_mut().poll_fill(cx) {
        Poll::Ready(Ok(0)) => return Poll::Ready(Some(End::Over)),
        Poll::Ready(Ok(_)) => return Poll::Ready(None),
        Poll::Ready(Err(_)) => return Poll::Ready(Some(End::Cut)),
        Poll::Pending => {}
    }
    client.timer.poll(cx).map(|_| Some(End::Over))
}

/// Serves requests until none is there.
async fn requests<S>(client: &Rc<Client>, wire: &Shared<S>) -> End
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    loop {
        let served = match poll_fn(|cx| poll_next(client, wire, cx)).await {
            Ok(Next::Request(parts, body)) => one(client, wire, parts, body).await,
            Ok(Next::Refused(refusal)) => {
                let answered = request::refuse_message(Rc::clone(client), refusal);
                let told = wire::Request { is_old: false, is_head: false, keeps: false };
                answer(client, wire, answered, told).await.and(Err(End::Broken))
            }
            Ok(Next::End) => Err(End::Over),
            Err(end) => Err(end),
        };
        match served {
            Ok(true) => {}
            Ok(false) => return End::Over,
            Err(end) => return end,
        }
    }
}

/// Waits for the next request's head.
fn poll_next<S>(client: &Client, wire: &Shared<S>, cx: &mut Context<'_>) -> Poll<Result<Next, End>>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut wire = wire.borrow_mut();
    if client.worker.is_draining(&client.path) && wire.is_idle() {
        return Poll::Ready(Err(End::Over));
    }
    if let Poll::Ready(next) = wire.poll_head(cx) {
        return Poll::Ready(next.map_err(End::from));
    }
    if wire.is_idle() {
        return Poll::Ready(Err(End::Park));
    }
    client.timer.poll(cx).map(|waited| match waited {
        Wait::Head => Err(End::Head),
        Wait::Write => Err(End::Write),
        Wait::Idle | Wait::End | Wait::Body | Wait::Send | Wait::Answer | Wait::Rest => Err(End::Over),
    })
}

/// Serves one request: whether another may follow.
async fn one<S>(client: &Rc<Client>, wire: &Shared<S>, parts: Parts, body: Body) -> Result<bool, End>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let is_old = parts.version == Version::HTTP_10;
    let mut told = wire::Request { is_old, is_head: parts.method == Method::HEAD, keeps: keeps(&parts) };
    client.hints.borrow_mut().clear();
    client.speaks_hints.set(!is_old);
    client.refused.set(None);
    let source = Upload::new(wire, body).map_or(Source::None, Source::Wire);
    let answered = {
        let mut served = pin!(request::serve(Rc::clone(client), http::Request::from_parts(parts, source)));
        poll_fn(|cx| {
            if let Poll::Ready(answered) = served.as_mut().poll(cx) {
                return Poll::Ready(answered.map_err(|_| End::Cut));
            }
            poll_beside(client, wire, cx).map(Err)
        })
        .await?
    };
    told.keeps &= !client.lingers.get() && !client.worker.is_draining(&client.path);
    let is_tunnel = client.tunnel.borrow().is_some();
    let kept = answer(client, wire, answered, told).await?;
    if is_tunnel {
        return Err(End::Tunnel);
    }
    if poll_fn(|cx| Poll::Ready(wire.borrow_mut().goes_on(cx))).await {
        return Ok(kept);
    }
    client.lingers.set(true);
    Ok(false)
}

/// What happens on a connection while its request is served.
fn poll_beside<S>(client: &Client, wire: &Shared<S>, cx: &mut Context<'_>) -> Poll<End>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut wire = wire.borrow_mut();
    let mut hints = client.hints.borrow_mut();
    if !hints.is_empty() {
        wire.out().extend_from_slice(&hints);
        hints.clear();
    }
    if !wire.is_written()
        && let Poll::Ready(Err(_)) = wire.poll_flush(cx)
    {
        return Poll::Ready(End::Cut);
    }
    if wire.poll_gone(cx).is_ready() {
        return Poll::Ready(End::Cut);
    }
    poll_write_wait(client, cx)
}

/// The client took nothing for too long. Other waits are the request's own.
fn poll_write_wait(client: &Client, cx: &mut Context<'_>) -> Poll<End> {
    if ready!(client.timer.poll(cx)) == Wait::Write {
        return Poll::Ready(End::Write);
    }
    // Who waits has not seen it yet.
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Writes an answer: whether another request may follow.
async fn answer<S>(client: &Client, wire: &Shared<S>, answered: Answered, told: wire::Request) -> Result<bool, End>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let Answered { head, mut body } = answered;
    let ending = {
        let mut wire = wire.borrow_mut();
        let out = wire.out();
        out.extend_from_slice(&std::mem::take(&mut *client.hints.borrow_mut()));
        wire::write_head(out, &head, body.left(), told, |out| client.worker.date(out))
    };
    drop(head);
    let mut is_over = ending == Ending::None;
    if is_over {
        body.is_taken();
    }
    poll_fn(|cx| {
        loop {
            if is_over || wire.borrow().is_full() {
                match wire.borrow_mut().poll_flush(cx) {
                    Poll::Ready(Ok(())) if is_over => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(End::Cut)),
                    Poll::Pending => return poll_write_wait(client, cx).map(Err),
                }
            }
            let mut scratch = client.worker.scratch();
            match body.poll_piece(cx, &mut scratch) {
                Poll::Ready(Some(Ok(Piece::Trailers(trailers)))) => {
                    wire.borrow_mut().put_end(Some(&trailers), ending);
                    is_over = true;
                }
                Poll::Ready(Some(Ok(piece))) => {
                    wire.borrow_mut().put(cx, body.bytes(&piece, &scratch), ending)?;
                    is_over = ending == Ending::Length && body.is_done();
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(End::Cut)),
                Poll::Ready(None) => {
                    wire.borrow_mut().put_end(None, ending);
                    is_over = true;
                }
                Poll::Pending => {
                    drop(scratch);
                    return poll_beside(client, wire, cx).map(Err);
                }
            }
        }
    })
    .await?;
    Ok(told.keeps && ending != Ending::Close)
}

fn keeps(parts: &Parts) -> bool {
    let says = |option: &str| {
        let values = parts.headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(option))
    };
    match parts.version {
        Version::HTTP_10 => says("keep-alive") && !says("close"),
        _ => !says("close"),
    }
}
