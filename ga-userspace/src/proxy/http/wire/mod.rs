//! A client's connection of HTTP/1 as bytes: heads and bodies are read from it, and answers are written to it.
//!
//! Nothing is taken from it that the [guard](super::super::guard) has not judged.

mod head;
mod upload;
mod write;

use std::{
    cell::RefCell,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http::request::Parts;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

pub(super) use self::{
    upload::Upload,
    write::{Ending, Request, write_head},
};
use super::{
    super::{
        guard::{Body, Fed, Limits, Machine, Refusal},
        spare,
    },
    client::Client,
};

/// The most that is read of what a client sends before it is answered.
const AHEAD: usize = spare::SIZE;

/// What a client's connection has.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    client: Rc<Client>,
    machine: Machine,
    limits: Limits,
    /// What came and was not taken.
    read: BytesMut,
    /// What of a chunked body was judged and not taken.
    judged: BytesMut,
    /// What was not taken by the client yet.
    write: BytesMut,
    /// The client will send no more.
    ended: bool,
    /// The client waits for leave to send the body.
    expects: bool,
}

/// A connection that a request's body is read from while the request is served.
pub(super) type Shared<S> = Rc<RefCell<Wire<S>>>;

/// What comes next on a connection.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is a request nearly always, and lives for a moment")]
pub(super) enum Next {
    /// A request, and what of its body is to come.
    Request(Parts, Body),
    /// A message that is none; nothing behind it is read.
    Refused(Refusal),
    /// The client has said all it will say.
    End,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S, client: Rc<Client>, limits: Limits) -> Shared<S> {
        let machine = Machine::new(limits);
        let (read, judged, write) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
        Rc::new(RefCell::new(Self { stream, client, machine, limits, read, judged, write, ended: false, expects: false }))
    }

    /// The connection, and what was read of it for another protocol.
    pub(super) fn into_parts(self) -> (S, Bytes) {
        (self.stream, self.read.freeze())
    }

    /// No message is begun.
    pub(super) fn is_idle(&self) -> bool {
        self.read.is_empty() && self.machine.is_between()
    }

    /// All of the request that is served has come.
    pub(super) fn is_between(&self) -> bool {
        self.machine.is_between() || self.machine.is_undecided()
    }

    /// Reads what is there: how many bytes, none at the end. A connection on which nothing comes holds no buffer.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        if self.read.capacity() == 0 {
            self.read = spare::take();
        } else if self.read.capacity() == self.read.len() {
            self.read.reserve(spare::SIZE);
        }
        let filled = pin!(self.stream.read_buf(&mut self.read)).poll(cx);
        match filled {
            Poll::Ready(Ok(0)) => self.ended = true,
            Poll::Ready(Ok(_)) => self.client.heard(),
            Poll::Ready(Err(_)) | Poll::Pending => {}
        }
        self.rest();
        filled
    }

    /// Gives back the buffer that nothing is in.
    fn rest(&mut self) {
        if self.read.is_empty() && self.read.capacity() > 0 {
            spare::give(std::mem::take(&mut self.read));
        }
    }

    /// Waits for the head of the next request.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Next>> {
        loop {
            if !self.read.is_empty() {
                match self.machine.feed(&self.read) {
                    Fed::Head(length) => return Poll::Ready(Ok(self.head(length))),
                    Fed::Refused(refusal) => return Poll::Ready(Ok(Next::Refused(refusal))),
                    Fed::More | Fed::Held | Fed::Body(_) => {}
                }
            }
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Ok(Next::End));
            }
        }
    }

    fn head(&mut self, length: usize) -> Next {
        let parsed = head::parse(self.read.get(..length).unwrap_or_default(), self.limits.fields);
        self.read.advance(length);
        let body = self.machine.body();
        if let Some(refusal) = self.refused_ahead() {
            return Next::Refused(refusal);
        }
        match parsed {
            Some((parts, expects)) => {
                self.expects = expects && body != Body::Length(0);
                Next::Request(parts, body)
            }
            None => Next::Refused(Refusal::Field),
        }
    }

    /// What is wrong with the part of a body that came with its head: nobody knows of the message yet, and all of it is refused.
    fn refused_ahead(&self) -> Option<Refusal> {
        let (mut ahead, mut at) = (self.machine.clone(), 0);
        while !ahead.is_between() {
            match ahead.feed(self.read.get(at..).filter(|rest| !rest.is_empty())?) {
                Fed::Body(length) => at += length,
                Fed::Refused(refusal) => return Some(refusal),
                Fed::Head(_) | Fed::More | Fed::Held => return None,
            }
        }
        None
    }

    /// Reads on while a request is served: ready when the client is gone.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // What there is of its body is read by who sends it on.
        if !self.is_between() || self.ended {
            return if self.ended { Poll::Ready(()) } else { Poll::Pending };
        }
        while self.read.len() < AHEAD {
            match ready!(self.poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        Poll::Pending
    }

    /// A request is answered, and no other protocol is spoken: what of its body has come and nobody took is thrown away. Whether that
    /// is all of it, and another request may follow.
    pub(super) fn goes_on(&mut self, cx: &mut Context<'_>) -> bool {
        self.machine.decline();
        // Who still waits for leave to send it would send it as the next request.
        let mut left = AHEAD;
        while left > 0 && !self.is_between() && !self.expects {
            match self.poll_skip(cx) {
                Poll::Ready(Ok(length)) => left = left.saturating_sub(length.max(1)),
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        self.rest();
        self.is_between()
    }

    /// Lets go of what a connection needs only while something is said on it.
    pub(super) fn park(&mut self) {
        self.rest();
        (self.judged, self.write) = (BytesMut::new(), BytesMut::new());
    }

    /// Writes what is there to be written.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.write.is_empty() {
            let wrote = Pin::new(&mut self.stream).poll_write(cx, &self.write);
            match self.timed(wrote)? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(count) => self.write.advance(count),
                Poll::Pending => return Poll::Pending,
            }
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_pending() {
            self.client.stalled();
        }
        flushed
    }

    /// The client's patience is measured by what it takes.
    fn timed(&self, wrote: Poll<io::Result<usize>>) -> io::Result<Poll<usize>> {
        match wrote {
            Poll::Pending => {
                self.client.stalled();
                Ok(Poll::Pending)
            }
            Poll::Ready(wrote) => {
                let wrote = wrote?;
                self.client.took(wrote);
                Ok(Poll::Ready(wrote))
            }
        }
    }
}
