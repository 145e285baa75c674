//! QUIC under the library that speaks HTTP/3: streams, whose frames are [watched](super::frames) and whose bytes wait in QUIC, where
//! the client's window bounds them, until the request has taken what came before.

use std::{
    cell::{Cell, RefCell},
    error::Error,
    fmt,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h3::{
    error::Code,
    quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf},
};
use quinn::{ConnectionError, ReadError, StoppedError, VarInt, WriteError};

use super::frames::Frames;

/// Bytes that the library has before data that the request has not taken, and of it: then no more is read.
const AHEAD: u64 = 32 * 1024;
/// The most bytes that are taken from a stream at a time.
const PIECE: usize = 64 * 1024;
/// The most bytes of a frame of the control stream.
const CONTROL: u64 = 4 * 1024;

type Opening<T> = Pin<Box<dyn Future<Output = Result<T, ConnectionError>>>>;
type Stopped = Pin<Box<dyn Future<Output = Result<Option<VarInt>, StoppedError>>>>;
type Both = (quinn::SendStream, quinn::RecvStream);

/// What is to be known of a request's stream beside what the library says of it.
pub(super) struct Stream {
    /// Bytes of data that the library has got and not given on, and how many others came since it had none.
    ahead: Cell<u64>,
    around: Cell<u64>,
    stopped: RefCell<Option<Stopped>>,
}

/// A client's connection.
pub(super) struct Connection {
    inner: quinn::Connection,
    bidirectional: Option<Opening<Both>>,
    unidirectional: Option<Opening<quinn::RecvStream>>,
    opening: Option<Opening<quinn::SendStream>>,
    /// The most bytes of a request's head.
    head: u64,
    shared: Rc<Accepted>,
}

/// What a connection's task and its streams share.
#[derive(Default)]
pub(super) struct Accepted {
    /// The stream that was accepted last.
    latest: RefCell<Option<Rc<Stream>>>,
    /// Requests that come now were promised not to be served.
    pub(super) refuses: Cell<bool>,
}

impl Accepted {
    /// The stream that was accepted last.
    pub(super) fn take(&self) -> Option<Rc<Stream>> {
        self.latest.borrow_mut().take()
    }
}

impl Stream {
    /// The request took so many bytes.
    pub(super) fn taken(&self, bytes: usize) {
        self.ahead.set(self.ahead.get().saturating_sub(bytes as u64));
        if self.ahead.get() == 0 {
            self.around.set(0);
        }
    }

    fn came(&self, bytes: usize, data: u64) {
        self.ahead.set(self.ahead.get() + data);
        self.around.set(self.around.get() + (bytes as u64).saturating_sub(data));
    }

    /// There is data to be taken, and enough of everything.
    fn is_full(&self) -> bool {
        self.ahead.get() > 0 && self.ahead.get() + self.around.get() >= AHEAD
    }

    /// Ready when the client wants no answer any more, or is gone.
    pub(super) async fn stopped(&self) {
        let stopped = self.stopped.borrow_mut().take();
        if let Some(stopped) = stopped {
            // Whatever it is, nobody waits.
            drop(stopped.await);
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("ahead", &self.ahead).finish_non_exhaustive()
    }
}

impl Connection {
    /// A connection whose requests have heads of at most `head` bytes, and what is known of them.
    pub(super) fn new(inner: quinn::Connection, head: u64) -> (Self, Rc<Accepted>) {
        let shared = Rc::<Accepted>::default();
        let connection =
            Self { inner, bidirectional: None, unidirectional: None, opening: None, head, shared: Rc::clone(&shared) };
        (connection, shared)
    }
}

impl quic::Connection<Bytes> for Connection {
    type RecvStream = Receive;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Receive, ConnectionErrorIncoming>> {
        let inner = &self.inner;
        let accept = || {
            let inner = inner.clone();
            Box::pin(async move { inner.accept_uni().await }) as Opening<_>
        };
        let accepted = ready!(self.unidirectional.get_or_insert_with(accept).as_mut().poll(cx));
        self.unidirectional = None;
        Poll::Ready(accepted.map(|stream| Receive::new(stream, Frames::of_unidirectional(CONTROL), None)).map_err(ended))
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Request, ConnectionErrorIncoming>> {
        loop {
            let inner = &self.inner;
            let accept = || {
                let inner = inner.clone();
                Box::pin(async move { inner.accept_bi().await }) as Opening<_>
            };
            let accepted = ready!(self.bidirectional.get_or_insert_with(accept).as_mut().poll(cx));
            self.bidirectional = None;
            let (mut send, mut receive) = accepted.map_err(ended)?;
            if self.shared.refuses.get() {
                let code = number(Code::H3_REQUEST_REJECTED.value());
                // It may have ended by itself.
                drop((send.reset(code), receive.stop(code)));
                continue;
            }
            let stopped = RefCell::new(Some(Box::pin(send.stopped()) as Stopped));
            let stream = Rc::new(Stream { ahead: Cell::default(), around: Cell::default(), stopped });
            *self.shared.latest.borrow_mut() = Some(Rc::clone(&stream));
            let receive = Receive::new(receive, Frames::of_request(self.head), Some(stream));
            return Poll::Ready(Ok(Request { send: Send::new(send), receive }));
        }
    }

    fn opener(&self) -> Opener {
        Opener { inner: self.inner.clone(), opening: None }
    }
}

impl quic::OpenStreams<Bytes> for Connection {
    type BidiStream = Request;
    type SendStream = Send;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Request, StreamErrorIncoming>> {
        Poll::Ready(Err(never()))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Send, StreamErrorIncoming>> {
        open(&self.inner, &mut self.opening, cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.inner.close(number(code.value()), reason);
    }
}

/// Opens streams of the edge's.
pub(super) struct Opener {
    inner: quinn::Connection,
    opening: Option<Opening<quinn::SendStream>>,
}

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = Request;
    type SendStream = Send;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Request, StreamErrorIncoming>> {
        Poll::Ready(Err(never()))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Send, StreamErrorIncoming>> {
        open(&self.inner, &mut self.opening, cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.inner.close(number(code.value()), reason);
    }
}

fn open(
    inner: &quinn::Connection,
    opening: &mut Option<Opening<quinn::SendStream>>,
    cx: &mut Context<'_>,
) -> Poll<Result<Send, StreamErrorIncoming>> {
    let open = || {
        let inner = inner.clone();
        Box::pin(async move { inner.open_uni().await }) as Opening<_>
    };
    let opened = ready!(opening.get_or_insert_with(open).as_mut().poll(cx));
    *opening = None;
    Poll::Ready(opened.map(Send::new).map_err(lost))
}

/// A request's stream in both directions.
pub(super) struct Request {
    send: Send,
    receive: Receive,
}

impl quic::BidiStream<Bytes> for Request {
    type SendStream = Send;
    type RecvStream = Receive;

    fn split(self) -> (Send, Receive) {
        (self.send, self.receive)
    }
}

impl quic::RecvStream for Request {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.receive.poll_data(cx)
    }

    fn stop_sending(&mut self, code: u64) {
        self.receive.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.receive.recv_id()
    }
}

impl quic::SendStream<Bytes> for Request {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.send.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

/// What a client sends on a stream.
pub(super) struct Receive {
    inner: quinn::RecvStream,
    frames: Frames,
    /// Of a request.
    stream: Option<Rc<Stream>>,
}

impl Receive {
    fn new(inner: quinn::RecvStream, frames: Frames, stream: Option<Rc<Stream>>) -> Self {
        Self { inner, frames, stream }
    }
}

impl quic::RecvStream for Receive {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        if self.stream.as_ref().is_some_and(|stream| stream.is_full()) {
            // The library gives on what it has, and asks again with the next.
            return Poll::Pending;
        }
        let read = pin!(self.inner.read_chunk(PIECE, true));
        let chunk = ready!(read.poll(cx)).map_err(unread)?;
        let Some(chunk) = chunk else {
            self.frames.end().map_err(refused)?;
            return Poll::Ready(Ok(None));
        };
        let data = self.frames.pass(&chunk.bytes).map_err(refused)?;
        if let Some(stream) = &self.stream {
            stream.came(chunk.bytes.len(), data);
        }
        Poll::Ready(Ok(Some(chunk.bytes)))
    }

    fn stop_sending(&mut self, code: u64) {
        // It may have ended by itself.
        drop(self.inner.stop(number(code)));
    }

    fn recv_id(&self) -> StreamId {
        id(self.inner.id())
    }
}

/// What the edge sends on a stream.
pub(super) struct Send {
    inner: quinn::SendStream,
    writing: Option<WriteBuf<Bytes>>,
}

impl Send {
    fn new(inner: quinn::SendStream) -> Self {
        Self { inner, writing: None }
    }
}

impl quic::SendStream<Bytes> for Send {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(writing) = self.writing.as_mut().filter(|writing| writing.has_remaining()) {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, writing.chunk())).map_err(unwritten)?;
            writing.advance(written);
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            return Err(StreamErrorIncoming::Unknown("a frame is begun within another".into()));
        }
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        Poll::Ready(self.inner.finish().map_err(|error| StreamErrorIncoming::Unknown(Box::new(error))))
    }

    fn reset(&mut self, code: u64) {
        // It may have ended by itself.
        drop(self.inner.reset(number(code)));
    }

    fn send_id(&self) -> StreamId {
        id(self.inner.id())
    }
}

fn id(id: quinn::StreamId) -> StreamId {
    // Both count to 2^62.
    StreamId::try_from(u64::from(VarInt::from(id))).expect("a number below 2^62")
}

pub(super) fn number(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

fn ended(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        ConnectionError::VersionMismatch
        | ConnectionError::Reset
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted
        | ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_) => ConnectionErrorIncoming::Undefined(Arc::new(error)),
    }
}

fn lost(error: ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: ended(error) }
}

fn unread(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        ReadError::ConnectionLost(error) => lost(error),
        ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => refused(error),
    }
}

fn unwritten(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        WriteError::ConnectionLost(error) => lost(error),
        WriteError::ClosedStream | WriteError::ZeroRttRejected => refused(error),
    }
}

fn refused(error: impl Error + std::marker::Send + Sync + 'static) -> StreamErrorIncoming {
    StreamErrorIncoming::Unknown(Box::new(error))
}

/// An edge asks its clients nothing.
fn never() -> StreamErrorIncoming {
    StreamErrorIncoming::Unknown("streams of requests are the client's to open".into())
}
