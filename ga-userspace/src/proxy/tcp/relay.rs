//! Bytes of a connection, both ways, until it ends.
//!
//! A connection on which nothing happens holds no buffer: bytes go through one that all connections of the thread share, and only what
//! the receiver does not take at once is kept. What comes in bulk goes through [`bulk`].

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io::{self, ErrorKind},
    pin::Pin,
    task::{Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    select,
    time::{Instant, sleep_until},
};

use super::bulk::{self, Broken, Pause};

/// Bytes that are read at once.
const CHUNK: usize = 65_536;

/// After so many full reads in a row the kernel passes bytes on itself.
const BULK: usize = 4;

thread_local! {
    static SHARED: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// Who has part in a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Who connected.
    Client,
    /// Who was connected to.
    Endpoint,
}

/// How a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides said all that they had to say.
    Complete,
    /// One side's connection broke, most often because it reset it.
    Broken(Side),
    /// Nothing came from either side for too long.
    Idle,
}

/// Moves bytes until both sides ended, one broke, or nothing came for `idle`; `moved` is told of bytes by the side they are from. What
/// one side ends is ended towards the other, and the other way may go on. A relay that does not end by itself ends with a reset on
/// both sides, so that nobody takes what came for the whole.
pub(super) async fn relay(client: TcpStream, endpoint: TcpStream, idle: Duration, moved: impl Fn(Side, usize)) -> End {
    let (mut client, mut endpoint) = (Half::new(client), Half::new(endpoint));
    let latest = Cell::new(Instant::now());
    let note = |side, bytes| {
        latest.set(Instant::now());
        moved(side, bytes);
    };
    let both = async {
        let (mut from_client, mut to_client) = client.stream.split();
        let (mut from_endpoint, mut to_endpoint) = endpoint.stream.split();
        let up = one_way(Side::Client, &mut from_client, &mut to_endpoint, &note);
        let down = one_way(Side::Endpoint, &mut from_endpoint, &mut to_client, &note);
        tokio::try_join!(up, down)
    };
    let end = select! {
        biased;
        end = both => end.map_or_else(End::Broken, |_| End::Complete),
        () = silence(&latest, idle) => End::Idle,
    };
    let is_whole = end == End::Complete;
    (client.is_whole, endpoint.is_whole) = (is_whole, is_whole);
    end
}

/// One side's connection. Unless all was said it ends with a reset, also when nobody waits for the relay's end.
struct Half {
    stream: TcpStream,
    is_whole: bool,
}

impl Half {
    fn new(stream: TcpStream) -> Self {
        Self { stream, is_whole: false }
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        if !self.is_whole {
            reset(&self.stream);
        }
    }
}

/// Closing `stream` resets its connection.
pub(super) fn reset(stream: &TcpStream) {
    // What fails here has no connection any more.
    drop(stream.set_zero_linger());
}

/// Ends when nothing was noted for `idle`.
async fn silence(latest: &Cell<Instant>, idle: Duration) {
    loop {
        let end = latest.get() + idle;
        if end <= Instant::now() {
            return;
        }
        sleep_until(end).await;
    }
}

/// Everything from one side, which is `side`; fails with the side that broke.
async fn one_way(side: Side, from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>, note: &impl Fn(Side, usize)) -> Result<(), Side> {
    let other = match side {
        Side::Client => Side::Endpoint,
        Side::Endpoint => Side::Client,
    };
    let mut kept = Vec::new();
    let mut full = 0;
    loop {
        if full >= BULK {
            // One more full read is enough when it goes on.
            full -= 1;
            match bulk::pass(from.as_ref(), to.as_ref(), &|bytes| note(side, bytes)).await {
                Ok(Pause::Empty) => {}
                Ok(Pause::End) => break,
                Err(Broken::From) => return Err(side),
                Err(Broken::To) => return Err(other),
            }
        }
        match pass(from, to, &mut kept).await {
            Ok(0) => break,
            Ok(bytes) => {
                note(side, bytes);
                full = if bytes == CHUNK { full + 1 } else { 0 };
            }
            Err(Failure::Read) => return Err(side),
            Err(Failure::Write) => return Err(other),
        }
        if kept.is_empty() {
            kept = Vec::new();
            continue;
        }
        let mut rest = &kept[..];
        while !rest.is_empty() {
            let sent = to.write(rest).await.map_err(|_broken| other)?;
            note(side, 0);
            rest = rest.get(sent..).unwrap_or_default();
        }
        kept.clear();
    }
    to.shutdown().await.map_err(|_broken| other)
}

enum Failure {
    Read,
    Write,
}

/// Reads once and writes what can be written at once; `kept` gets the rest. How many bytes were read, none at the end.
async fn pass(from: &mut ReadHalf<'_>, to: &WriteHalf<'_>, kept: &mut Vec<u8>) -> Result<usize, Failure> {
    poll_fn(|cx| {
        SHARED.with_borrow_mut(|shared| {
            let mut buffer = ReadBuf::new(shared);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer)).map_err(|_broken| Failure::Read)?;
            let bytes = buffer.filled();
            let sent = if bytes.is_empty() { 0 } else { at_once(to.try_write(bytes)).map_err(|_broken| Failure::Write)? };
            kept.extend_from_slice(&bytes[sent..]);
            Poll::Ready(Ok(bytes.len()))
        })
    })
    .await
}

/// Nothing was taken where the call would have waited.
fn at_once(sent: io::Result<usize>) -> io::Result<usize> {
    match sent {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncReadExt as _,
        net::TcpListener,
        time::{sleep, timeout},
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let near = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let (far, _) = listener.accept().await.expect("a connection");
        (near, far)
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_each_ends_by_itself() {
        let ((mut client, ours), (theirs, mut endpoint)) = (pair().await, pair().await);
        let counts = [Cell::new(0), Cell::new(0)];
        let relay = relay(ours, theirs, LONG, |side, bytes| {
            let count = &counts[side as usize];
            count.set(count.get() + bytes);
        });
        let body: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
        let talk = async {
            client.write_all(b"question").await.expect("a question");
            client.shutdown().await.expect("an end");
            let mut question = String::new();
            endpoint.read_to_string(&mut question).await.expect("the question and its end");
            assert_eq!(question, "question");
            // The other way goes on; it is far more than sockets hold, and the reader is slow to begin.
            let send = async {
                endpoint.write_all(&body).await.expect("an answer");
                endpoint.shutdown().await.expect("an end");
            };
            let receive = async {
                sleep(Duration::from_millis(50)).await;
                let mut answer = Vec::new();
                client.read_to_end(&mut answer).await.expect("an answer");
                answer
            };
            let ((), answer) = tokio::join!(send, receive);
            assert!(answer == body);
        };
        let (end, ()) = tokio::join!(relay, talk);
        assert_eq!((end, counts), (End::Complete, [Cell::new(8), Cell::new(3_000_000)]));
    }

    #[tokio::test]
    async fn a_reset_is_passed_on_as_one() {
        for side in [Side::Client, Side::Endpoint] {
            let ((client, ours), (theirs, endpoint)) = (pair().await, pair().await);
            let (breaks, mut stays) = if side == Side::Client { (client, endpoint) } else { (endpoint, client) };
            reset(&breaks);
            drop(breaks);
            let end = timeout(LONG, relay(ours, theirs, LONG, |_, _| ())).await.expect("an end");
            assert_eq!(end, End::Broken(side));
            let error = stays.read(&mut [0; 8]).await.expect_err("a reset");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    }

    #[tokio::test]
    async fn silence_ends_it_with_a_reset() {
        let ((mut client, ours), (theirs, mut endpoint)) = (pair().await, pair().await);
        let idle = Duration::from_millis(100);
        let started = Instant::now();
        let talk = async {
            sleep(idle / 2).await;
            client.write_all(b"x").await.expect("a byte");
            endpoint.read_exact(&mut [0]).await.expect("a byte");
        };
        let (end, ()) = tokio::join!(relay(ours, theirs, idle, |_, _| ()), talk);
        assert_eq!(end, End::Idle);
        assert!(started.elapsed() >= idle * 3 / 2, "what was said half way counts");
        let error = client.read(&mut [0; 8]).await.expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn one_that_is_cut_resets_both() {
        let ((mut client, ours), (theirs, mut endpoint)) = (pair().await, pair().await);
        client.write_all(b"x").await.expect("a byte");
        let cut = timeout(Duration::from_millis(100), relay(ours, theirs, LONG, |_, _| ())).await;
        assert!(cut.is_err(), "it goes on");
        endpoint.read_exact(&mut [0]).await.expect("the byte");
        for stream in [&mut client, &mut endpoint] {
            let error = stream.read(&mut [0; 8]).await.expect_err("a reset");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    }
}
