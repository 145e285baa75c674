//! HTTP/1.1 to an endpoint: a connection carries one request after the other, and the task of the request that has it drives it.
//!
//! Messages are written and read here rather than by a client library, so that the request's head stays with who may send it once
//! more, and so that an answer whose end is not beyond doubt is never forwarded (RFC 9112 §6.3).

use std::{
    fmt::Write as _,
    io::IoSlice,
    mem::MaybeUninit,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use hyper::body::Body;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{
    super::{counts::Reason, spare},
    chunked::{Chunked, Decoded},
    head::{field, put, write_head},
    lines::{Framing, Lines, read_fields},
    pool::Slot,
    stream::Stream,
};

/// The most bytes of an answer's head.
const HEAD: usize = 64 * 1024;
/// The most fields of an answer's head.
const FIELDS: usize = 128;
/// The most interim answers (1xx) before the answer.
const INTERIM: u32 = 16;
/// Bytes of a piece of an answer's body that is read past the connection's own buffer.
pub(in crate::proxy) const SCRATCH: usize = 64 * 1024;

/// A connection to an endpoint on which one message follows the other.
#[derive(Debug)]
pub(in crate::proxy) struct Link {
    stream: Stream,
    /// What came and was not taken.
    read: BytesMut,
    /// How much of it was lent and is to be thrown away.
    lent: usize,
    write: BytesMut,
    name: Option<String>,
    since: Instant,
    /// Requests that it carried before.
    used: bool,
}

/// A request as it is written. Fields that are of one connection only (RFC 9110 §7.6.1) are not written, whatever `headers` has.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Head<'a> {
    /// The method.
    pub(in crate::proxy) method: &'a Method,
    /// Path and query.
    pub(in crate::proxy) target: &'a str,
    /// The value of `Host`.
    pub(in crate::proxy) host: &'a [u8],
    /// The client's fields.
    pub(in crate::proxy) headers: &'a HeaderMap,
    /// The edge's, instead of `X-Forwarded-For` and what else they replace.
    pub(in crate::proxy) forwarded: &'a [(HeaderName, HeaderValue)],
    /// What the connection shall become.
    pub(in crate::proxy) upgrade: Option<&'a HeaderValue>,
}

/// A request and its answer.
#[derive(Debug)]
pub(in crate::proxy) struct Exchange<B: Body<Data = Bytes> + Unpin> {
    /// None when the connection waits for the next request already.
    link: Option<Box<Link>>,
    slot: Rc<Slot>,
    body: Option<B>,
    sending: Sending,
    /// A piece of the body that follows what the link has to write.
    queued: Bytes,
    answer: Answer,
    method_is_head: bool,
    upgrades: bool,
    keep: bool,
    interim: u32,
    /// Interim answers that are for the client.
    hints: Vec<u8>,
    /// Something of the request was written.
    written: bool,
    /// Something of the body was taken from the client.
    touched: bool,
    /// Something of the answer came.
    heard: bool,
}

/// How the request's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    Length(u64),
    Chunked,
    /// All of the request is written.
    Done,
}

/// What of the answer is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Head,
    Length(u64),
    Chunked(Chunked),
    /// It ends with the connection.
    Close,
    Done,
}

/// A piece of an answer's body.
#[derive(Debug)]
pub(in crate::proxy) enum Piece {
    /// So many bytes that the connection [lends](Exchange::lent).
    Link(usize),
    /// So many bytes at the beginning of the scratch room.
    Scratch(usize),
    /// These.
    Here(Bytes),
    /// What comes behind it.
    Trailers(HeaderMap),
}

/// Why there is no answer, and what is left to try it again with.
#[derive(Debug)]
pub(in crate::proxy) struct Failure<B> {
    /// The connection had carried requests before, and nothing came of this one's answer.
    pub(in crate::proxy) is_stale: bool,
    /// Something of the request may have reached the endpoint.
    pub(in crate::proxy) is_sent: bool,
    /// Something of the answer came.
    pub(in crate::proxy) is_heard: bool,
    /// The body when nothing of it was taken.
    pub(in crate::proxy) body: Option<B>,
}

impl Link {
    /// A new connection; `name` is the server's that TLS was asked for.
    pub(in crate::proxy) fn new(stream: Stream, name: Option<String>) -> Box<Self> {
        let (read, write) = (BytesMut::new(), BytesMut::with_capacity(512));
        Box::new(Self { stream, read, lent: 0, write, name, since: Instant::now(), used: false })
    }

    /// It carried requests before.
    pub(in crate::proxy) fn is_used(&self) -> bool {
        self.used
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Since when it waits.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// It has nothing to say and has not ended: a request may be sent.
    pub(super) fn is_open(&mut self) -> bool {
        self.is_open_in(&mut Context::from_waker(Waker::noop()))
    }

    fn is_open_in(&mut self, cx: &mut Context<'_>) -> bool {
        let mut byte = [0];
        self.read.is_empty() && Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    /// The stream, and what was read of it beyond the last message.
    pub(in crate::proxy) fn into_parts(self) -> (Stream, Bytes) {
        (self.stream, self.read.freeze())
    }

    /// Reads what is there: how many bytes, none at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Reason>> {
        if self.read.capacity() == 0 {
            self.read = spare::take();
        } else if self.read.capacity() == self.read.len() {
            self.read.reserve(spare::SIZE);
        }
        let read = self.stream.read_buf(&mut self.read);
        pin!(read).poll(cx).map_err(|_| Reason::Reset)
    }

    /// The same, past its own buffer.
    fn poll_read_into(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<Result<usize, Reason>> {
        let mut room = ReadBuf::new(room);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room)).map_err(|_| Reason::Reset)?;
        Poll::Ready(Ok(room.filled().len()))
    }

    /// Writes what there is to write, and `queued` behind it.
    fn poll_write(&mut self, cx: &mut Context<'_>, queued: &mut Bytes, written: &mut bool) -> Poll<Result<(), Reason>> {
        while !self.write.is_empty() || !queued.is_empty() {
            let stream = Pin::new(&mut self.stream);
            let wrote = if queued.is_empty() {
                stream.poll_write(cx, &self.write)
            } else {
                stream.poll_write_vectored(cx, &[IoSlice::new(&self.write), IoSlice::new(queued)])
            };
            let count = ready!(wrote).map_err(|_| Reason::Reset)?;
            if count == 0 {
                return Poll::Ready(Err(Reason::Reset));
            }
            *written = true;
            let first = count.min(self.write.len());
            self.write.advance(first);
            queued.advance((count - first).min(queued.len()));
        }
        Pin::new(&mut self.stream).poll_flush(cx).map_err(|_| Reason::Reset)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Exchange<B> {
    /// An exchange on a connection that waits in `slot`, if one does.
    pub(in crate::proxy) fn reuse(slot: &Rc<Slot>, name: Option<&str>, cx: &mut Context<'_>) -> Option<Box<Link>> {
        loop {
            let mut link = slot.take(name)?;
            if link.is_open_in(cx) {
                return Some(link);
            }
        }
    }

    /// Begins a request on `link`; nothing is written before it is polled.
    pub(in crate::proxy) fn new(mut link: Box<Link>, slot: Rc<Slot>, head: Head<'_>, body: B) -> Box<Self> {
        let sending = match body.size_hint().exact() {
            Some(length) => Sending::Length(length),
            None => Sending::Chunked,
        };
        link.write.clear();
        write_head(&mut link.write, head, sending);
        // A body of these means nothing (RFC 9110 §9.3.1, §9.3.2), and an endpoint that does not read it takes it for the next request.
        let keep = sending == Sending::Length(0) || ![Method::GET, Method::HEAD].contains(head.method);
        let sending = if sending == Sending::Length(0) { Sending::Done } else { sending };
        Box::new(Self {
            link: Some(link),
            slot,
            body: Some(body),
            sending,
            queued: Bytes::new(),
            answer: Answer::Head,
            method_is_head: *head.method == Method::HEAD,
            upgrades: head.upgrade.is_some(),
            keep,
            interim: 0,
            hints: Vec::new(),
            written: false,
            touched: false,
            heard: false,
        })
    }

    /// All of the request is with the endpoint.
    pub(in crate::proxy) fn is_sent(&self) -> bool {
        self.sending == Sending::Done
    }

    /// Nothing of the answer is to come.
    pub(in crate::proxy) fn is_done(&self) -> bool {
        self.answer == Answer::Done
    }

    /// How many bytes of the answer's body are to come, when that is known.
    pub(in crate::proxy) fn left(&self) -> Option<u64> {
        match self.answer {
            Answer::Length(left) => Some(left),
            Answer::Done => Some(0),
            Answer::Head | Answer::Chunked(_) | Answer::Close => None,
        }
    }

    /// What is left of an exchange that failed before its answer.
    pub(in crate::proxy) fn into_failure(mut self) -> Failure<B> {
        let used = self.link.as_ref().is_some_and(|link| link.used);
        Failure {
            is_stale: used && !self.heard,
            is_sent: self.written,
            is_heard: self.heard,
            body: self.body.take().filter(|_| !self.touched),
        }
    }

    /// The connection, which is no HTTP any more.
    pub(in crate::proxy) fn into_link(mut self) -> Option<Box<Link>> {
        self.link.take()
    }

    /// Sends what can be sent. Ready when all is.
    ///
    /// # Errors
    ///
    /// [`Reason::ClientClosed`] when the client's body ends too early, others when the endpoint does not take it.
    pub(in crate::proxy) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        let Some(link) = &mut self.link else { return Poll::Ready(Ok(())) };
        loop {
            ready!(link.poll_write(cx, &mut self.queued, &mut self.written))?;
            let Some(body) = self.body.as_mut().filter(|_| self.sending != Sending::Done) else {
                self.sending = Sending::Done;
                return Poll::Ready(Ok(()));
            };
            let frame = ready!(Pin::new(body).poll_frame(cx));
            self.touched = true;
            let Some(frame) = frame else {
                match self.sending {
                    Sending::Length(0) | Sending::Done => {}
                    Sending::Length(_) => return Poll::Ready(Err(Reason::ClientClosed)),
                    Sending::Chunked => link.write.put_slice(b"0\r\n\r\n"),
                }
                self.body = None;
                continue;
            };
            let frame = frame.map_err(|_| Reason::ClientClosed)?;
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    let length = data.len() as u64;
                    match &mut self.sending {
                        Sending::Length(left) => {
                            *left = left.checked_sub(length).ok_or(Reason::BadRequest)?;
                            put(&mut link.write, &mut self.queued, data);
                        }
                        Sending::Chunked => {
                            // Writing to memory does not fail.
                            write!(link.write, "{length:x}\r\n").unwrap_or_default();
                            link.write.put_slice(&data);
                            link.write.put_slice(b"\r\n");
                        }
                        Sending::Done => {}
                    }
                }
                Err(frame) => {
                    if let (Ok(trailers), Sending::Chunked) = (frame.into_trailers(), self.sending) {
                        link.write.put_slice(b"0\r\n");
                        for (name, value) in &trailers {
                            field(&mut link.write, name.as_str(), value.as_bytes());
                        }
                        link.write.put_slice(b"\r\n");
                        self.body = None;
                    }
                }
            }
        }
    }

    /// Waits for the head of the answer; sends meanwhile.
    ///
    /// # Errors
    ///
    /// When the endpoint's answer does not come or is not to be trusted, or when the client's body fails.
    pub(in crate::proxy) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Lines, Reason>> {
        // An endpoint may answer before it has the whole request: what it says goes before what became of sending.
        let sent = self.poll_send(cx);
        loop {
            let Some(link) = &mut self.link else { return Poll::Ready(Err(Reason::Internal)) };
            if !link.read.is_empty() {
                self.heard = true;
                if let Some(answer) = self.parse()? {
                    return Poll::Ready(Ok(answer));
                }
            }
            let Some(link) = &mut self.link else { return Poll::Ready(Err(Reason::Internal)) };
            match link.poll_read(cx) {
                Poll::Pending => {
                    if let Poll::Ready(sent) = sent {
                        sent?;
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Reason::Reset)),
                Poll::Ready(read) => {
                    read?;
                }
            }
        }
    }

    /// Interim answers that came since this was asked, as they are written to a client of HTTP/1.1.
    pub(in crate::proxy) fn take_hints(&mut self) -> Option<Vec<u8>> {
        (!self.hints.is_empty()).then(|| std::mem::take(&mut self.hints))
    }

    /// The next piece of the answer's body; sends meanwhile. None at its end. What it says about bytes holds until it is asked again.
    ///
    /// # Errors
    ///
    /// When the endpoint's answer ends too early or is not to be trusted, or when the client's body fails.
    pub(in crate::proxy) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Option<Result<Piece, Reason>>> {
        if self.sending != Sending::Done
            && let Poll::Ready(Err(_)) = self.poll_send(cx)
        {
            // The answer may still come to its end.
            (self.body, self.keep, self.sending) = (None, false, Sending::Done);
        }
        match ready!(self.poll_data(cx, scratch)) {
            Err(reason) => {
                (self.answer, self.link) = (Answer::Done, None);
                Poll::Ready(Some(Err(reason)))
            }
            Ok(None) => {
                self.release();
                Poll::Ready(None)
            }
            Ok(Some(piece)) => Poll::Ready(Some(Ok(piece))),
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Result<Option<Piece>, Reason>> {
        loop {
            let Some(link) = &mut self.link else { return Poll::Ready(Ok(None)) };
            link.read.advance(std::mem::take(&mut link.lent));
            let most = match &mut self.answer {
                Answer::Head | Answer::Done => return Poll::Ready(Ok(None)),
                Answer::Length(left) => usize::try_from(*left).unwrap_or(usize::MAX),
                Answer::Close => usize::MAX,
                Answer::Chunked(state) => {
                    match state.decode(&mut link.read).map_err(|_| Reason::BadAnswer)? {
                        Decoded::Data(data) => return Poll::Ready(Ok(Some(Piece::Here(data)))),
                        Decoded::Trailers(trailers) => {
                            self.answer = Answer::Done;
                            return Poll::Ready(Ok(Some(Piece::Trailers(trailers))));
                        }
                        Decoded::Done => {
                            self.answer = Answer::Done;
                            return Poll::Ready(Ok(None));
                        }
                        Decoded::More => {}
                    }
                    if ready!(link.poll_read(cx))? == 0 {
                        return Poll::Ready(Err(Reason::Reset));
                    }
                    continue;
                }
            };
            let (count, piece) = if link.read.is_empty() {
                // Room for a byte more than there may be: a read that fills its room is followed by one that finds nothing.
                let room = scratch.len().min(most.saturating_add(1));
                let count = ready!(link.poll_read_into(cx, scratch.get_mut(..room).unwrap_or_default()))?;
                self.keep &= count <= most;
                let count = count.min(most);
                (count, Piece::Scratch(count))
            } else {
                let count = most.min(link.read.len());
                link.lent = count;
                (count, Piece::Link(count))
            };
            return Poll::Ready(match &mut self.answer {
                Answer::Length(_) if count == 0 => Err(Reason::Reset),
                Answer::Close if count == 0 => {
                    self.answer = Answer::Done;
                    Ok(None)
                }
                Answer::Length(left) => {
                    *left = left.saturating_sub(count as u64);
                    if *left == 0 {
                        self.answer = Answer::Done;
                    }
                    Ok(Some(piece))
                }
                Answer::Head | Answer::Chunked(_) | Answer::Close | Answer::Done => Ok(Some(piece)),
            });
        }
    }

    /// The bytes of a [`Piece::Link`].
    pub(in crate::proxy) fn lent(&self, count: usize) -> &[u8] {
        self.link.as_ref().and_then(|link| link.read.get(..count)).unwrap_or_default()
    }

    /// Keeps the connection for the next request if nothing speaks against it.
    fn release(&mut self) {
        let Some(mut link) = self.link.take() else { return };
        let lent = std::mem::take(&mut link.lent);
        link.read.advance(lent);
        // Bytes behind an answer are nobody's answer: the connection is not trusted any more.
        if self.keep && self.sending == Sending::Done && link.read.is_empty() && link.write.is_empty() {
            link.used = true;
            link.since = Instant::now();
            spare::give(std::mem::take(&mut link.read));
            self.slot.put(link);
        }
    }

    fn parse(&mut self) -> Result<Option<Lines>, Reason> {
        let Some(link) = &mut self.link else { return Err(Reason::Internal) };
        loop {
            let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
            let mut parsed = httparse::Response::new(&mut []);
            let config = httparse::ParserConfig::default();
            let status = config.parse_response_with_uninit_headers(&mut parsed, &link.read, &mut fields);
            let length = match status.map_err(|_| Reason::BadAnswer)? {
                httparse::Status::Partial if link.read.len() >= HEAD => return Err(Reason::BadAnswer),
                httparse::Status::Partial => return Ok(None),
                httparse::Status::Complete(length) => length,
            };
            let code = parsed.code.ok_or(Reason::BadAnswer)?;
            let status = StatusCode::from_u16(code).map_err(|_| Reason::BadAnswer)?;
            let (framing, mut lines) = read_fields(status, parsed.headers)?;
            if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                self.interim += 1;
                if self.interim > INTERIM {
                    return Err(Reason::BadAnswer);
                }
                // The edge itself says who may go on.
                if status != StatusCode::CONTINUE {
                    lines.write(&mut self.hints);
                }
                link.read.advance(length);
                if link.read.is_empty() {
                    return Ok(None);
                }
                continue;
            }
            if let Some(upgrade) = framing.upgrade.filter(|_| self.upgrades && status == StatusCode::SWITCHING_PROTOCOLS) {
                lines.add("upgrade", upgrade);
                lines.add("connection", b"upgrade");
            }
            let is_old = parsed.version != Some(1);
            let Framing { coding, length: content, close, .. } = framing;
            link.read.advance(length);
            self.delimit(status, is_old, coding, content, close)?;
            return Ok(Some(lines));
        }
    }

    /// Where the answer ends (RFC 9112 §6.3). What could be read in two ways is refused.
    fn delimit(
        &mut self,
        status: StatusCode,
        is_old: bool,
        coding: bool,
        length: Option<u64>,
        close: bool,
    ) -> Result<(), Reason> {
        if coding && (length.is_some() || is_old) {
            return Err(Reason::BadAnswer);
        }
        self.keep &= !is_old && !close;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            // Only who asked is switched, and there is no message behind it.
            self.answer = Answer::Done;
            return if self.upgrades { Ok(()) } else { Err(Reason::BadAnswer) };
        }
        let has_none = self.method_is_head || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
        self.answer = match (coding, length) {
            _ if has_none => Answer::Done,
            (true, _) => Answer::Chunked(Chunked::Size),
            (false, Some(0)) => Answer::Done,
            (false, Some(length)) => Answer::Length(length),
            (false, None) => {
                self.keep = false;
                Answer::Close
            }
        };
        if self.answer == Answer::Done {
            self.release();
        }
        Ok(())
    }
}

impl<B: Body<Data = Bytes> + Unpin> Drop for Exchange<B> {
    fn drop(&mut self) {
        // Whoever got the last piece need not ask for another.
        if self.answer == Answer::Done {
            self.release();
        }
    }
}
