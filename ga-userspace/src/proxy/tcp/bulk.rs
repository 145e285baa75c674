//! Bulk bytes from one socket to another by way of a pipe: the kernel passes its pages on, and nothing is copied (splice(2)).
//!
//! It measures better only where much comes at once, and what a slow receiver does not take stays in the pipe: a thread has few of
//! them, and lends one for as long as bytes flow.

use std::{
    cell::RefCell,
    io::{self, ErrorKind},
    os::fd::OwnedFd,
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::{io::Interest, net::TcpStream, task::coop::consume_budget};

/// Bytes that a pipe holds.
const ROOM: usize = 256 * 1024;

/// Pipes of a thread, which may hold 16 MiB together.
const MOST: usize = 64;

thread_local! {
    static PIPES: RefCell<Pipes> = const { RefCell::new(Pipes { idle: Vec::new(), lent: 0 }) };
}

struct Pipes {
    idle: Vec<Pipe>,
    lent: usize,
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// Why no more bytes flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// The sender has nothing now, or there is no pipe.
    Empty,
    /// The sender has ended.
    End,
}

/// Whose connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The sender's.
    From,
    /// The receiver's.
    To,
}

/// Passes on what comes, for as long as it is there at once; `passed` is told of bytes, of none when the receiver took some of them.
pub(super) async fn pass(from: &TcpStream, to: &TcpStream, passed: &impl Fn(usize)) -> Result<Pause, Broken> {
    let Some(mut lent) = Lent::new() else { return Ok(Pause::Empty) };
    loop {
        match lent.fill(from) {
            Ok(0) => return Ok(Pause::End),
            Ok(bytes) => passed(bytes),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Pause::Empty),
            Err(_broken) => return Err(Broken::From),
        }
        while lent.holds > 0 {
            to.writable().await.map_err(|_broken| Broken::To)?;
            match lent.drain(to) {
                Ok(_bytes) => passed(0),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_broken) => return Err(Broken::To),
            }
        }
        // Others of the thread have their turn.
        consume_budget().await;
    }
}

/// A pipe; the thread has it again when it is empty.
struct Lent {
    pipe: Option<Pipe>,
    holds: usize,
}

impl Lent {
    fn new() -> Option<Self> {
        PIPES.with_borrow_mut(|pipes| {
            if pipes.lent >= MOST {
                return None;
            }
            let pipe = match pipes.idle.pop() {
                Some(pipe) => pipe,
                None => Pipe::new().ok()?,
            };
            pipes.lent += 1;
            Some(Self { pipe: Some(pipe), holds: 0 })
        })
    }

    fn fill(&mut self, from: &TcpStream) -> io::Result<usize> {
        let pipe = self.pipe.as_ref().ok_or(ErrorKind::NotConnected)?;
        let bytes = from.try_io(Interest::READABLE, || moved(from, &pipe.write, ROOM))?;
        self.holds = bytes;
        Ok(bytes)
    }

    fn drain(&mut self, to: &TcpStream) -> io::Result<usize> {
        let pipe = self.pipe.as_ref().ok_or(ErrorKind::NotConnected)?;
        let bytes = to.try_io(Interest::WRITABLE, || moved(&pipe.read, to, self.holds))?;
        self.holds = self.holds.saturating_sub(bytes);
        Ok(bytes)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let (pipe, is_empty) = (self.pipe.take(), self.holds == 0);
        // A thread that ends has no pipes any more.
        let _ended = PIPES.try_with(|pipes| {
            let mut pipes = pipes.borrow_mut();
            pipes.lent -= 1;
            pipes.idle.extend(pipe.filter(|_| is_empty));
        });
    }
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Where it cannot be larger, it holds less.
        fcntl_setpipe_size(&write, ROOM).unwrap_or_default();
        Ok(Self { read, write })
    }
}

fn moved(from: impl std::os::fd::AsFd, to: impl std::os::fd::AsFd, most: usize) -> io::Result<usize> {
    Ok(splice(from, None, to, None, most, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let near = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        (near, listener.accept().await.expect("a connection").0)
    }

    #[tokio::test]
    async fn bytes_stay_in_order_and_a_pipe_that_holds_some_is_not_lent_again() {
        let ((mut sender, from), (to, mut receiver)) = (pair().await, pair().await);
        let body: Vec<u8> = (0..4_000_000_u32).map(|number| (number / 7) as u8).collect();
        let passing = async {
            loop {
                match pass(&from, &to, &|_| ()).await.expect("both are there") {
                    Pause::Empty => from.readable().await.expect("more"),
                    Pause::End => return,
                }
            }
        };
        let send = async {
            sender.write_all(&body).await.expect("room");
            sender.shutdown().await.expect("an end");
        };
        let receive = async {
            let mut got = vec![0; body.len()];
            receiver.read_exact(&mut got).await.expect("all of it");
            got
        };
        let ((), (), got) = tokio::join!(passing, send, receive);
        assert!(got == body);
        let idle = || PIPES.with_borrow(|pipes| (pipes.idle.len(), pipes.lent));
        assert_eq!(idle(), (1, 0));
        // Nobody takes these.
        let ((mut sender, from), (to, _receiver)) = (pair().await, pair().await);
        let mut lent = Lent::new().expect("a pipe");
        let flood = async { while sender.write_all(&body).await.is_ok() {} };
        let stuck = async {
            while lent.holds == 0 {
                match lent.fill(&from) {
                    Ok(_) => while lent.drain(&to).is_ok() && lent.holds > 0 {},
                    Err(_nothing) => from.readable().await.expect("more"),
                }
            }
        };
        tokio::select! { () = flood => {} () = stuck => {} }
        drop(lent);
        assert_eq!(idle(), (0, 0), "what was left in it was another connection's");
    }

    #[tokio::test]
    async fn a_thread_has_so_many_pipes_and_no_more() {
        let all: Vec<_> = (0..MOST).map_while(|_| Lent::new()).collect();
        assert_eq!((all.len(), Lent::new().is_none()), (MOST, true));
        drop(all);
        assert!(Lent::new().is_some());
    }
}
