//! A request's body, read from its client's connection while it is sent on.

use std::{
    cell::RefCell,
    fmt,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use hyper::body::Frame;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    super::{
        super::{
            guard::{Body, Fed},
            upstream::{Chunked, Decoded},
        },
        body::Broken,
    },
    Shared, Wire,
};

/// What is to come of a body.
pub(in super::super) struct Upload {
    source: Rc<dyn Source>,
    /// How many bytes; none when only its end says so.
    left: Option<u64>,
    state: Chunked,
    done: bool,
}

/// A connection, whatever it runs over.
trait Source {
    fn poll_length(&self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Broken>>;
    fn poll_chunked(&self, cx: &mut Context<'_>, state: &mut Chunked) -> Poll<Result<Option<Frame<Bytes>>, Broken>>;
}

impl<S: AsyncRead + AsyncWrite + Unpin> Source for RefCell<Wire<S>> {
    fn poll_length(&self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Broken>> {
        self.borrow_mut().poll_length(cx)
    }

    fn poll_chunked(&self, cx: &mut Context<'_>, state: &mut Chunked) -> Poll<Result<Option<Frame<Bytes>>, Broken>> {
        self.borrow_mut().poll_chunked(cx, state)
    }
}

impl Upload {
    /// The body of the request whose head `wire` gave last; none when it has none.
    pub(in super::super) fn new<S>(wire: &Shared<S>, body: Body) -> Option<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let left = match body {
            Body::Length(0) => return None,
            Body::Length(length) => Some(length),
            Body::Chunked => None,
        };
        Some(Self { source: Rc::<RefCell<Wire<S>>>::clone(wire), left, state: Chunked::Size, done: false })
    }

    /// How many bytes are to come, when that is known.
    pub(in super::super) fn left(&self) -> Option<u64> {
        if self.done { Some(0) } else { self.left }
    }

    /// Nothing is to come.
    pub(in super::super) fn is_done(&self) -> bool {
        self.done
    }

    pub(in super::super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let polled = match &mut self.left {
            Some(left) => self.source.poll_length(cx).map_ok(|bytes| {
                *left = left.saturating_sub(bytes.len() as u64);
                self.done = *left == 0;
                Some(Frame::data(bytes))
            }),
            None => self.source.poll_chunked(cx, &mut self.state),
        };
        let polled = ready!(polled);
        // Nothing comes behind trailers, the end, or what is none.
        self.done |= !matches!(&polled, Ok(Some(frame)) if frame.is_data());
        Poll::Ready(polled.transpose())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// More of the body that the guard has let pass: how many bytes of [`Self::read`].
    fn poll_judged(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        if self.expects && self.read.is_empty() {
            self.write.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        self.expects = false;
        loop {
            if let Poll::Ready(Err(_)) = self.poll_flush(cx) {
                return Poll::Ready(Err(Broken));
            }
            if !self.read.is_empty() {
                return Poll::Ready(match self.machine.feed(&self.read) {
                    Fed::Body(length) => Ok(length),
                    Fed::Refused(refusal) => {
                        self.client.refused.set(Some(refusal));
                        Err(Broken)
                    }
                    Fed::Head(_) | Fed::More | Fed::Held => Err(Broken),
                });
            }
            if ready!(self.poll_fill(cx)).map_err(|_| Broken)? == 0 {
                return Poll::Ready(Err(Broken));
            }
        }
    }

    fn poll_length(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Broken>> {
        let length = ready!(self.poll_judged(cx))?;
        Poll::Ready(Ok(self.read.split_to(length).freeze()))
    }

    fn poll_chunked(&mut self, cx: &mut Context<'_>, state: &mut Chunked) -> Poll<Result<Option<Frame<Bytes>>, Broken>> {
        loop {
            match state.decode(&mut self.judged).map_err(|_| Broken)? {
                Decoded::Data(data) => return Poll::Ready(Ok(Some(Frame::data(data)))),
                Decoded::Trailers(trailers) => return Poll::Ready(Ok(Some(Frame::trailers(trailers)))),
                Decoded::Done => return Poll::Ready(Ok(None)),
                Decoded::More => {}
            }
            if self.machine.is_between() {
                return Poll::Ready(Err(Broken));
            }
            let length = ready!(self.poll_judged(cx))?;
            let piece = self.read.split_to(length);
            if self.judged.is_empty() { self.judged = piece } else { self.judged.extend_from_slice(&piece) }
        }
    }

    /// The next piece of a body that nobody sends on.
    pub(super) fn poll_skip(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        self.judged = BytesMut::new();
        let length = ready!(self.poll_judged(cx))?;
        bytes::Buf::advance(&mut self.read, length);
        Poll::Ready(Ok(length))
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("left", &self.left).field("done", &self.done).finish_non_exhaustive()
    }
}
