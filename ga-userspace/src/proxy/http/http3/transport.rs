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
    time::Duration,
};

use bytes::{Buf, Bytes};
use h3::{
    error::Code,
    quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf},
};
use quinn::{ConnectionError, ReadError, StoppedError, VarInt, WriteError};
use tokio::time::Instant;

use super::frames::{Fault, Frames};

/// Bytes that the library has before data that the request has not taken, and of it: then no more is read.
const AHEAD: u64 = 32 * 1024;
/// The most bytes that are taken from a stream at a time.
const PIECE: usize = 64 * 1024;
/// The most bytes of a frame of the control stream.
const CONTROL: u64 = 4 * 1024;
/// Frames that carry nothing, which a client may send in [`SECOND`].
const IDLE_FRAMES: u32 = 1000;
const SECOND: Duration = Duration::from_secs(1);

type Opening<T> = Pin<Box<dyn Future<Output = Result<T, ConnectionError>>>>;
type Stopped = Pin<Box<dyn Future<Output = Result<Option<VarInt>, StoppedError>>>>;
type Both = (quinn::SendStream, quinn::RecvStream);

/// What is to be known of a request's stream beside what the library says of it.
pub(super) struct Stream {
    /// Bytes of data that the library has got and not given on, and how many others came since it had none.
    ahead: Cell<u64>,
    around: Cell<u64>,
    stopped: RefCell<Option<Stopped>>,
    /// What the client is told when the stream ends before its time; nothing while the library answers.
    pub(super) why: Cell<Option<Code>>,
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
pub(super) struct Accepted {
    connection: quinn::Connection,
    /// The stream that was accepted last.
    latest: RefCell<Option<Rc<Stream>>>,
    /// Requests that come now were promised not to be served.
    pub(super) refuses: Cell<bool>,
    /// Requests that were taken back, or never whole, as far as they are more than those that were answered.
    wasted: Cell<usize>,
    /// Frames that carried nothing since then.
    idle: Cell<(Instant, u32)>,
    /// The client asks too much.
    pub(super) is_flood: Cell<bool>,
}

impl Accepted {
    fn new(connection: quinn::Connection) -> Self {
        Self {
            connection,
            latest: RefCell::default(),
            refuses: Cell::default(),
            wasted: Cell::default(),
            idle: Cell::new((Instant::now(), 0)),
            is_flood: Cell::default(),
        }
    }

    /// The stream that was accepted last.
    pub(super) fn take(&self) -> Option<Rc<Stream>> {
        self.latest.borrow_mut().take()
    }

    /// A request was answered.
    pub(super) fn answered(&self) {
        self.wasted.set(self.wasted.get().saturating_sub(1));
    }

    /// A request was taken back, or was never whole. The library remembers those that had no head to the connection's end, so that
    /// there may not be `most` more of them than others.
    pub(super) fn wasted(&self, most: usize) {
        self.wasted.set(self.wasted.get() + 1);
        if self.wasted.get() > most {
            self.end();
        }
    }

    /// So many frames came that carry nothing.
    fn idle(&self, frames: u32) {
        let (since, count) = self.idle.get();
        let now = Instant::now();
        let (since, count) = if now - since > SECOND { (now, 0) } else { (since, count) };
        self.idle.set((since, count.saturating_add(frames)));
        if self.idle.get().1 > IDLE_FRAMES {
            self.end();
        }
    }

    /// The client asks too much (RFC 9114 §10.5).
    fn end(&self) {
        self.is_flood.set(true);
        self.connection.close(number(Code::H3_EXCESSIVE_LOAD.value()), b"");
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
        let shared = Rc::new(Accepted::new(inner.clone()));
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
        let shared = Rc::clone(&self.shared);
        let receive = |stream| Receive::new(stream, Frames::of_unidirectional(CONTROL), None, shared);
        Poll::Ready(accepted.map(receive).map_err(ended))
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
            let stream = Rc::new(Stream { ahead: Cell::default(), around: Cell::default(), stopped, why: Cell::default() });
            *self.shared.latest.borrow_mut() = Some(Rc::clone(&stream));
            let send = Send { inner: send, writing: None, stream: Some(Rc::clone(&stream)) };
            let receive = Receive::new(receive, Frames::of_request(self.head), Some(stream), Rc::clone(&self.shared));
            return Poll::Ready(Ok(Request { send, receive }));
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
    shared: Rc<Accepted>,
}

impl Receive {
    fn new(inner: quinn::RecvStream, frames: Frames, stream: Option<Rc<Stream>>, shared: Rc<Accepted>) -> Self {
        Self { inner, frames, stream, shared }
    }

    /// The stream is not read on.
    fn fault(&self, fault: Fault) -> StreamErrorIncoming {
        match (&self.stream, fault) {
            (Some(stream), Fault::TooLong(_)) => stream.why.set(Some(Code::H3_EXCESSIVE_LOAD)),
            (None, Fault::TooLong(_)) => self.shared.end(),
            (_, Fault::Unfinished) => {}
        }
        refused(fault)
    }
}

impl Drop for Receive {
    /// Nobody reads what is still to come of a request.
    fn drop(&mut self) {
        if let Some(stream) = &self.stream {
            // That the answer is not whole is no fault of the request's.
            let why = stream.why.get().filter(|why| *why != Code::H3_INTERNAL_ERROR).unwrap_or(Code::H3_NO_ERROR);
            // It may have ended by itself.
            drop(self.inner.stop(number(why.value())));
        }
    }
}

impl quic::RecvStream for Receive {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        if self.stream.as_ref().is_some_and(|stream| stream.is_full()) {
            // The library gives on what it has, and asks again with the next.
            return Poll::Pending;
        }
        let chunk = {
            let read = pin!(self.inner.read_chunk(PIECE, true));
            ready!(read.poll(cx)).map_err(unread)?
        };
        let Some(chunk) = chunk else {
            self.frames.end().map_err(|fault| self.fault(fault))?;
            return Poll::Ready(Ok(None));
        };
        let data = self.frames.pass(&chunk.bytes).map_err(|fault| self.fault(fault))?;
        let idle = self.frames.take_idle();
        if idle > 0 {
            self.shared.idle(idle);
        }
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
    /// Of an answer that has not ended.
    stream: Option<Rc<Stream>>,
}

impl Send {
    fn new(inner: quinn::SendStream) -> Self {
        Self { inner, writing: None, stream: None }
    }
}

impl Drop for Send {
    /// An answer that does not end is not to be taken for one that does.
    fn drop(&mut self) {
        if let Some(why) = self.stream.take().and_then(|stream| stream.why.get()) {
            // The client may have stopped it.
            drop(self.inner.reset(number(why.value())));
        }
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
        self.stream = None;
        Poll::Ready(self.inner.finish().map_err(|error| StreamErrorIncoming::Unknown(Box::new(error))))
    }

    fn reset(&mut self, code: u64) {
        self.stream = None;
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
