//! A client's connection from which hyper reads nothing that was not judged before.
//!
//! Bytes are judged where they were read to; only what cannot pass yet, a head that is not whole or what a pipelining client sent
//! ahead, is kept here. A message that is refused is replaced by a [stand-in](STAND_IN): so it is answered after the messages before
//! it, and the way every other request is, and [`Handle::begin`] says which request it is.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Fed, Limits, Machine, Refusal};

/// What hyper reads instead of a message that is refused.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nHost: refused\r\nConnection: close\r\n\r\n";
/// Bytes that are read at once into what is kept.
const PIECE: usize = 2048;
/// The most that is kept of what comes behind a request for another protocol.
const MOST_HELD: usize = 16 * 1024;

/// A connection behind the guard.
#[derive(Debug)]
pub struct Guarded<S> {
    stream: S,
    machine: Machine,
    handle: Handle,
    /// Bytes that hyper has not got.
    kept: Vec<u8>,
    /// The first so many of them may pass.
    good: usize,
    /// A message is refused that hyper has got a part of.
    broken: bool,
    /// The client will send no more.
    ended: bool,
}

/// What the connection tells those who serve its requests, and they it.
#[derive(Clone, Debug, Default)]
pub struct Handle(Rc<State>);

/// Requests are numbered from one, as they pass.
#[derive(Debug, Default)]
struct State {
    passed: Cell<u64>,
    begun: Cell<u64>,
    answered: Cell<u64>,
    /// The last that asked for another protocol.
    upgrade: Cell<u64>,
    /// The last one's number, when its message was refused.
    refused: Cell<Option<(u64, Refusal)>>,
}

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// To be served.
    Plain,
    /// To be served; its client may be answered with 101. What else it sends waits for the answer.
    Upgrade,
    /// Not to be served but to be answered so.
    Refused(Refusal),
}

impl Handle {
    /// A request begins. To be called once for each, in their order.
    pub fn begin(&self) -> Begun {
        let number = self.0.begun.get() + 1;
        self.0.begun.set(number);
        match self.0.refused.get() {
            Some((refused, refusal)) if refused == number => Begun::Refused(refusal),
            _ if self.0.upgrade.get() == number => Begun::Upgrade,
            _ => Begun::Plain,
        }
    }

    /// A request has got its whole answer, or never will. To be called once for each that began.
    pub fn answered(&self) {
        self.0.answered.set(self.0.answered.get() + 1);
    }

    /// Why the body of the newest request ends with an error, when the client is to blame.
    pub fn refused(&self) -> Option<Refusal> {
        self.0.refused.get().map(|(_, refusal)| refusal)
    }
}

impl<S> Guarded<S> {
    /// A connection on which nothing was read yet, and what is said about it.
    pub fn new(stream: S, limits: Limits) -> (Self, Handle) {
        let handle = Handle::default();
        let machine = Machine::new(limits);
        (Self { stream, machine, handle: handle.clone(), kept: Vec::new(), good: 0, broken: false, ended: false }, handle)
    }

    /// The connection as it is.
    pub const fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The connection without the guard, and what was read and not passed: for another protocol.
    pub fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.kept)
    }

    /// Nothing is kept, and no message is begun.
    pub const fn is_idle(&self) -> bool {
        self.kept.is_empty() && self.machine.is_between()
    }

    /// How many of `bytes`, which follow what passed and which nobody has seen, may pass. When the machine refuses a message, the
    /// rest is not to be looked at.
    fn judge(&mut self, bytes: &[u8]) -> usize {
        let state = &self.handle.0;
        let mut passed = 0;
        let mut head = None;
        while let Some(rest) = bytes.get(passed..).filter(|rest| !rest.is_empty()) {
            let is_between = self.machine.is_between();
            match self.machine.feed(rest) {
                Fed::Head(len) => {
                    head = Some(passed);
                    passed += len;
                    state.passed.set(state.passed.get() + 1);
                    if self.machine.is_undecided() {
                        state.upgrade.set(state.passed.get());
                    }
                }
                Fed::Body(len) => passed += len,
                Fed::More | Fed::Held => break,
                Fed::Refused(refusal) => {
                    match head {
                        _ if is_between => state.passed.set(state.passed.get() + 1),
                        // Nobody knows of the message yet: all of it is refused.
                        Some(head) => passed = head,
                        None => self.broken = true,
                    }
                    state.refused.set(Some((state.passed.get(), refusal)));
                    break;
                }
            }
        }
        passed
    }

    /// Hands out what is kept and good.
    fn hand_out(&mut self, out: &mut ReadBuf<'_>) {
        let count = self.good.min(out.remaining());
        if let Some(bytes) = self.kept.get(..count) {
            out.put_slice(bytes);
        }
        self.good -= count;
        if count == self.kept.len() {
            // An idle connection keeps nothing.
            self.kept = Vec::new();
        } else {
            drop(self.kept.drain(..count));
        }
    }

    /// What was refused is answered after all that passed.
    fn stand_in(&mut self) {
        self.kept.truncate(self.good);
        if !self.broken {
            self.kept.extend_from_slice(STAND_IN);
            self.good = self.kept.len();
        }
    }

    fn judge_kept(&mut self) {
        let kept = std::mem::take(&mut self.kept);
        self.good = self.judge(&kept);
        self.kept = kept;
        if self.machine.refused().is_some() {
            self.stand_in();
        }
    }
}

impl<S: AsyncRead + Unpin> Guarded<S> {
    /// Reads to where hyper wants it, and takes back what may not pass. Ready when something may, or when nothing will.
    fn poll_read_there(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, out))?;
        let read = out.filled().get(before..).unwrap_or_default();
        if read.is_empty() {
            self.ended = true;
            return Poll::Ready(Ok(true));
        }
        let passed = self.judge(read);
        if self.machine.refused().is_some() {
            self.stand_in();
        } else if let Some(rest) = read.get(passed..) {
            self.kept.extend_from_slice(rest);
        }
        out.set_filled(before + passed);
        Poll::Ready(Ok(passed > 0))
    }

    /// Reads behind what is kept.
    fn poll_read_here(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut piece = [0; PIECE];
        let mut piece = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece))?;
        self.ended = piece.filled().is_empty();
        self.kept.extend_from_slice(piece.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.good > 0 {
                this.hand_out(out);
                return Poll::Ready(Ok(()));
            }
            if this.broken {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            if this.machine.refused().is_some() {
                // The answer to the stand-in is the last: whatever comes is not read.
                return Poll::Pending;
            }
            let state = &this.handle.0;
            if this.machine.is_undecided() && state.answered.get() >= state.passed.get() {
                this.machine.decide(false);
            }
            let is_undecided = this.machine.is_undecided();
            if !this.kept.is_empty() && !is_undecided {
                this.judge_kept();
                if this.good > 0 || this.machine.refused().is_some() {
                    continue;
                }
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            if this.kept.is_empty() && !is_undecided {
                if ready!(this.poll_read_there(cx, out))? {
                    return Poll::Ready(Ok(()));
                }
            } else if is_undecided && this.kept.len() >= MOST_HELD {
                // The task that decides is this one.
                return Poll::Pending;
            } else {
                ready!(this.poll_read_here(cx))?;
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt as _, Full};
    use hyper::{Request, Response, body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    /// What a client gets from a server that answers with path and body, sending `pieces` one after the other.
    fn answers(pieces: &[&[u8]]) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        runtime.block_on(async {
            let talk = async {
                for piece in pieces {
                    // It may have closed.
                    drop(client.write_all(piece).await);
                    // The server is polled whenever this side waits: it has read all when more comes.
                    for _ in 0..20 {
                        tokio::task::yield_now().await;
                    }
                }
                drop(client.shutdown().await);
                let mut heard = Vec::new();
                client.read_to_end(&mut heard).await.unwrap();
                String::from_utf8(heard).unwrap()
            };
            tokio::select! {
                biased;
                heard = talk => heard,
                _ = async { serve(server).await; std::future::pending::<()>().await } => String::new(),
            }
        })
    }

    async fn serve(stream: DuplexStream) {
        let (guarded, handle) = Guarded::new(stream, Limits::default());
        let service = service_fn(|request: Request<Incoming>| {
            let handle = handle.clone();
            async move {
                let begun = handle.begin();
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await;
                let text = match (begun, body) {
                    (Begun::Refused(refusal), _) => refusal.word().to_owned(),
                    (_, Err(_)) => format!("broken {}", handle.refused().map_or("off", Refusal::word)),
                    (_, Ok(body)) => format!("{path} {}", String::from_utf8(body.to_bytes().to_vec()).unwrap()),
                };
                handle.answered();
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(format!("[{text}]")))))
            }
        });
        drop(http1::Builder::new().serve_connection(TokioIo::new(guarded), service).await);
    }

    /// The texts that the server answered with.
    fn texts(pieces: &[&[u8]]) -> Vec<String> {
        let heard = answers(pieces);
        heard.split('[').skip(1).filter_map(|rest| rest.split_once(']')).map(|(text, _)| text.trim().to_owned()).collect()
    }

    #[test]
    fn requests_are_answered_in_their_order_and_the_refused_one_is_the_last() {
        let good = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n";
        let bad = b"GET /bad HTTP/1.1\r\nHost: a\n\n";
        let post = b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nxyz";
        assert_eq!(texts(&[good, post]), ["/1", "/2 xyz"]);
        assert_eq!(texts(&[&[&good[..], post, bad, good].concat()]), ["/1", "/2 xyz", "bad_line_end"]);
        assert_eq!(texts(&[good, bad, good]), ["/1", "bad_line_end"]);
        let halves: Vec<&[u8]> = post.chunks(1).chain(bad.chunks(7)).collect();
        assert_eq!(texts(&halves), ["/2 xyz", "bad_line_end"]);
    }

    #[test]
    fn a_body_that_turns_bad_fails_its_own_request_only() {
        let good = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n";
        let head = b"POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        // At once nobody hears of the request; later it is under way.
        assert_eq!(texts(&[&[&good[..], head, b"1\r\nZXX0\r\n\r\n"].concat()]), ["/1", "bad_chunk"]);
        assert_eq!(texts(&[good, head, b"1\r\nZ", b"XX0\r\n\r\n"]), ["/1", "broken bad_chunk"]);
        assert_eq!(texts(&[good, head, b"1\r\nZ\r\n", b"0\r\n\r\n", good]), ["/1", "/2 Z", "/1"]);
    }

    #[test]
    fn what_follows_a_request_for_another_protocol_waits_for_the_answer() {
        let upgrade = b"GET /up HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
        let good = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(texts(&[&[&upgrade[..], good, upgrade].concat(), good]), ["/up", "/1", "/up", "/1"]);
        assert_eq!(texts(&[upgrade, b"\x81\x00\r\n"]), ["/up", "bad_request_line"]);
    }

    #[test]
    fn nothing_is_kept_between_requests() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (mut client, server) = tokio::io::duplex(1024);
        runtime.block_on(async {
            let (mut guarded, _) = Guarded::new(server, Limits::default());
            let request = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n";
            for piece in request.chunks(10) {
                client.write_all(piece).await.unwrap();
            }
            let mut read = [0; 64];
            let mut got = 0;
            while got < request.len() {
                got += guarded.read(&mut read[got..][..5]).await.unwrap();
            }
            assert_eq!(&read[..got], request);
            assert!(guarded.is_idle() && guarded.kept.capacity() == 0);
        });
    }
}
