//! Bodies in both directions: they stream, and nothing of them is kept.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use thiserror::Error;
use tokio::time::Instant;

use super::{
    super::{
        Listener,
        counts::{EndpointCounts, Reason},
        guard::scrub_trailers,
        upstream::{Exchange, Piece, Place},
    },
    client::Client,
    lent::Lender,
    pace::Pace,
    served::Served,
    streams::Turn,
    timer::Wait,
    wire::Upload,
};

/// What is known of a request's body while it is sent.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes that the client has sent.
    pub(super) received: Cell<u64>,
    /// Nothing more can be sent before the client sends more.
    pub(super) waits: Cell<bool>,
    /// All of it was taken from the client.
    pub(super) ended: Cell<bool>,
    /// It ended too early.
    pub(super) failed: Cell<bool>,
    /// Of [`Self::received`], what whoever times it has seen.
    seen: Cell<u64>,
    pace: Pace,
}

impl Progress {
    /// Ready when what a request waits for takes too long: the rest of its body, or its answer once it `is_sent`.
    pub(super) fn poll_late(&self, is_sent: bool, served: &Served, cx: &mut Context<'_>) -> Poll<Reason> {
        let timeouts = served.client.timeouts.get();
        let wait = match (is_sent, self.waits.get()) {
            (true, _) => Wait::Answer,
            (false, true) => Wait::Body,
            (false, false) => Wait::Send,
        };
        let timer = served.timer();
        let moved = self.received.get() - self.seen.replace(self.received.get());
        if timer.waits_for() != Some(wait) || (moved > 0 && wait != Wait::Answer) {
            self.pace.moved(moved, timeouts.body, timeouts.min_rate, Instant::now);
            let http = served.listener.as_ref().and_then(|listener| listener.file.http.as_ref());
            let patience = if is_sent {
                http.map_or(timeouts.body, |http| http.request_timeout)
            } else if wait == Wait::Body {
                self.pace.wait(timeouts.body, timeouts.min_rate, Instant::now)
            } else {
                timeouts.body
            };
            timer.arm(wait, patience);
        }
        match timer.poll(cx) {
            Poll::Ready(Wait::Answer | Wait::Send) => Poll::Ready(Reason::TimeoutHead),
            Poll::Ready(Wait::Body) => Poll::Ready(Reason::ClientBodyTimeout),
            Poll::Ready(_) | Poll::Pending => Poll::Pending,
        }
    }
}

/// A client's body, as the protocol gives it that the client speaks.
#[derive(Debug)]
pub(super) enum Source {
    /// There is none.
    None,
    /// HTTP/1.
    Wire(Upload),
    /// HTTP/2.
    Hyper(Incoming),
    /// HTTP/3.
    #[cfg(feature = "http3")]
    Http3(Box<super::http3::Body>),
}

/// A client's body ended too early, or is none.
#[derive(Clone, Copy, Debug, Error)]
#[error("the request ended too early")]
pub(in crate::proxy) struct Broken;

impl Body for Source {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::None => Poll::Ready(None),
            Self::Wire(upload) => upload.poll_frame(cx),
            Self::Hyper(incoming) => Pin::new(incoming).poll_frame(cx).map_err(|_| Broken),
            #[cfg(feature = "http3")]
            Self::Http3(body) => Pin::new(body.as_mut()).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::None => true,
            Self::Wire(upload) => upload.is_done(),
            Self::Hyper(incoming) => incoming.is_end_stream(),
            #[cfg(feature = "http3")]
            Self::Http3(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::None => SizeHint::with_exact(0),
            Self::Wire(upload) => upload.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::Hyper(incoming) => incoming.size_hint(),
            #[cfg(feature = "http3")]
            Self::Http3(body) => body.size_hint(),
        }
    }
}

/// A client's body on its way to an endpoint.
#[derive(Debug)]
pub(in crate::proxy) struct FromClient {
    source: Source,
    progress: Rc<Progress>,
    listener: Arc<Listener>,
}

impl FromClient {
    pub(super) fn new(source: Source, listener: Arc<Listener>) -> (Self, Rc<Progress>) {
        let progress = Rc::<Progress>::default();
        progress.ended.set(source.is_end_stream());
        (Self { source, progress: Rc::clone(&progress), listener }, progress)
    }
}

impl Body for FromClient {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let polled = Pin::new(&mut self.source).poll_frame(cx).map_ok(scrubbed);
        self.progress.waits.set(polled.is_pending());
        if matches!(polled, Poll::Ready(None)) || self.source.is_end_stream() {
            self.progress.ended.set(true);
        }
        self.progress.failed.set(matches!(polled, Poll::Ready(Some(Err(_)))));
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.progress.received.set(self.progress.received.get() + data.len() as u64);
            self.listener.counts.bytes_in.add(data.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}

/// Trailers say nothing that a head says.
fn scrubbed(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            scrub_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// The answer did not come to its end.
#[derive(Clone, Copy, Debug, Error)]
#[error("the answer ended too early: {}", .0.word())]
pub(super) struct Aborted(pub(super) Reason);

/// An answer's body on its way to a client.
#[derive(Debug)]
pub(super) struct Answer {
    content: Content,
    served: Box<Served>,
}

/// Where it comes from.
#[derive(Debug)]
pub(super) enum Content {
    /// Here.
    Whole(Bytes),
    /// An endpoint's connection.
    Http1(Box<Exchange<FromClient>>),
    /// A stream of an endpoint's connection, of which it holds the place, and what is still sent.
    Http2(Incoming, #[expect(dead_code, reason = "they are held until the answer has ended")] (Place, Lender)),
}

impl Answer {
    pub(super) fn new(content: Content, mut served: Box<Served>) -> Self {
        served.complete = match &content {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Http1(exchange) => exchange.is_done(),
            Content::Http2(incoming, _) => incoming.is_end_stream(),
        };
        served.client.turn.set(Turn::Client);
        Self { content, served }
    }

    fn abort(&mut self, reason: Reason) -> Aborted {
        self.served.failed(reason);
        self.served.reason = Some(reason);
        Aborted(reason)
    }

    /// The next piece; none at the end. `scratch` is room for one that nobody else keeps.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Option<Result<Piece, Aborted>>> {
        let polled = match &mut self.content {
            Content::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Whole(bytes) => Poll::Ready(Some(Ok(Piece::Here(std::mem::take(bytes))))),
            Content::Http1(exchange) => exchange.poll_piece(cx, scratch),
            Content::Http2(incoming, _) => {
                Pin::new(incoming).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_or(Err(Reason::Reset), piece)))
            }
        };
        match polled {
            Poll::Pending => {
                let timer = self.served.timer();
                if timer.waits_for().is_none() {
                    timer.arm(Wait::Rest, self.served.client.timeouts.get().stream);
                }
                match timer.poll(cx) {
                    Poll::Ready(Wait::Rest) => Poll::Ready(Some(Err(self.abort(Reason::TimeoutBody)))),
                    Poll::Ready(_) | Poll::Pending => Poll::Pending,
                }
            }
            Poll::Ready(Some(Ok(mut piece))) => {
                self.served.timer().disarm();
                match &mut piece {
                    Piece::Link(count) | Piece::Scratch(count) => self.served.bytes_out += *count as u64,
                    Piece::Here(bytes) => self.served.bytes_out += bytes.len() as u64,
                    // They say nothing that a head says.
                    Piece::Trailers(trailers) => scrub_trailers(trailers),
                }
                self.served.complete = self.is_done();
                Poll::Ready(Some(Ok(piece)))
            }
            Poll::Ready(Some(Err(reason))) => Poll::Ready(Some(Err(self.abort(reason)))),
            Poll::Ready(None) => {
                self.served.timer().disarm();
                self.served.complete = true;
                Poll::Ready(None)
            }
        }
    }

    /// The bytes of a piece that is no trailers.
    pub(super) fn bytes<'b>(&'b self, piece: &'b Piece, scratch: &'b [u8]) -> &'b [u8] {
        match (piece, &self.content) {
            (Piece::Link(count), Content::Http1(exchange)) => exchange.lent(*count),
            (Piece::Scratch(count), _) => scratch.get(..*count).unwrap_or_default(),
            (Piece::Here(bytes), _) => bytes,
            (Piece::Link(_) | Piece::Trailers(_), _) => &[],
        }
    }

    /// Nobody will ask for it: the client gets all it should get without.
    pub(super) fn is_taken(&mut self) {
        self.served.complete = true;
    }

    /// Nothing of it is to come.
    pub(super) fn is_done(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Http1(exchange) => exchange.is_done(),
            Content::Http2(incoming, _) => incoming.is_end_stream(),
        }
    }

    /// How many bytes of it are to come, when that is known.
    pub(super) fn left(&self) -> Option<u64> {
        match &self.content {
            Content::Whole(bytes) => Some(bytes.len() as u64),
            Content::Http1(exchange) => exchange.left(),
            Content::Http2(incoming, _) => incoming.size_hint().exact(),
        }
    }

    /// Whose it is.
    pub(super) fn client(&self) -> &Rc<Client> {
        &self.served.client
    }
}

fn piece(frame: Frame<Bytes>) -> Result<Piece, Reason> {
    let frame = match frame.into_data() {
        Ok(data) => return Ok(Piece::Here(data)),
        Err(frame) => frame,
    };
    frame.into_trailers().map(Piece::Trailers).map_err(|_| Reason::Internal)
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let this = &mut *self;
        let client = Rc::clone(this.client());
        let mut scratch = client.worker.scratch();
        let polled = this.poll_piece(cx, &mut scratch);
        client.turn.set(if polled.is_pending() { Turn::Endpoint } else { Turn::Client });
        let Some(piece) = ready!(polled).transpose()? else { return Poll::Ready(None) };
        Poll::Ready(Some(Ok(match piece {
            Piece::Here(bytes) => Frame::data(bytes),
            Piece::Trailers(trailers) => Frame::trailers(trailers),
            piece @ (Piece::Link(_) | Piece::Scratch(_)) => Frame::data(Bytes::copy_from_slice(this.bytes(&piece, &scratch))),
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        self.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Bytes of a client's body that an endpoint got.
pub(super) fn count_sent(progress: &Progress, endpoint: &EndpointCounts) {
    endpoint.bytes_in.add(progress.received.get());
}
