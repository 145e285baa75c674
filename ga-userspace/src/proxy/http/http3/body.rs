//! The body of a request, as its stream gives it.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h3::server::RequestStream;
use http::{HeaderMap, header};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::{
    super::body::Broken,
    transport::{Receive, Stream},
};

/// A client's body.
pub(in crate::proxy::http) struct Body {
    receive: RequestStream<Receive, Bytes>,
    stream: Rc<Stream>,
    part: Part,
    /// Bytes that `Content-Length` promises.
    left: Option<u64>,
    /// What was read before it was asked for.
    next: Option<Frame<Bytes>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Data,
    Trailers,
    Over,
    Broken,
}

impl Body {
    /// The body behind the head with these fields.
    ///
    /// # Errors
    /// When its length is said in more than one way.
    pub(super) fn new(
        receive: RequestStream<Receive, Bytes>,
        stream: Rc<Stream>,
        headers: &HeaderMap,
    ) -> Result<Box<Self>, Broken> {
        let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
        let left = lengths.next().map(|length| {
            let digits = length.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            digits.and_then(|text| text.parse().ok()).ok_or(Broken)
        });
        let left = left.transpose()?;
        if lengths.next().is_some() {
            return Err(Broken);
        }
        Ok(Box::new(Self { receive, stream, part: Part::Data, left, next: None }))
    }

    /// Reads what is there already, for whoever must know whether there is a body at all; with `waits`, until something is.
    pub(super) async fn begin(&mut self, waits: bool) {
        poll_fn(|cx| match self.poll(cx) {
            Poll::Pending if waits => Poll::Pending,
            Poll::Pending | Poll::Ready(None) => Poll::Ready(()),
            Poll::Ready(Some(Ok(frame))) => {
                self.next = Some(frame);
                Poll::Ready(())
            }
            Poll::Ready(Some(Err(Broken))) => {
                self.part = Part::Broken;
                Poll::Ready(())
            }
        })
        .await;
    }

    /// No byte of a body was promised or came.
    pub(super) fn is_silent(&self) -> bool {
        self.left.is_none() && self.next.is_none()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            match self.part {
                Part::Over => return Poll::Ready(None),
                Part::Broken => {
                    self.part = Part::Over;
                    return Poll::Ready(Some(Err(Broken)));
                }
                Part::Data => {
                    let read = ready!(self.receive.poll_recv_data(cx));
                    let data = match read {
                        Ok(Some(mut data)) => data.copy_to_bytes(data.remaining()),
                        Ok(None) => {
                            self.part = Part::Trailers;
                            continue;
                        }
                        Err(_) => {
                            self.part = Part::Broken;
                            continue;
                        }
                    };
                    self.stream.taken(data.len());
                    if let Some(left) = &mut self.left {
                        let Some(rest) = left.checked_sub(data.len() as u64) else {
                            self.part = Part::Broken;
                            continue;
                        };
                        *left = rest;
                    }
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Part::Trailers => {
                    let trailers = ready!(self.receive.poll_recv_trailers(cx));
                    // A message that is shorter than it says is malformed (RFC 9114 §4.1.2).
                    self.part = if self.left.is_some_and(|left| left > 0) { Part::Broken } else { Part::Over };
                    match trailers {
                        Ok(Some(trailers)) if self.part == Part::Over => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                        Ok(_) => {}
                        Err(_) => self.part = Part::Broken,
                    }
                }
            }
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        match this.next.take() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => this.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.part == Part::Over && self.next.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let next = self.next.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
        match self.left {
            Some(left) => SizeHint::with_exact(left + next),
            None if self.part == Part::Over && self.next.as_ref().is_none_or(Frame::is_data) => SizeHint::with_exact(next),
            None => SizeHint::default(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("part", &self.part).field("left", &self.left).finish_non_exhaustive()
    }
}
