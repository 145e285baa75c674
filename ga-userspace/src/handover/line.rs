//! The connection between an agent and the one that takes over from it.
//!
//! It begins as a request to the admin socket, `POST /v1/take-over`, that changes to [`TOKEN`]. From then on each message is one byte,
//! with sockets beside it (`SCM_RIGHTS` of unix(7)) where it says so:
//!
//! | who | byte | |
//! |---|---|---|
//! | the new one | `?` | give me what you listen with, and let go of the maps |
//! | the old one | `s` | here are some of the sockets |
//! | the old one | `.` | these were all, and the maps are yours; my connections go on, and I go on accepting |
//! | the new one | `!` | I serve; end |
//!
//! When the connection ends before the `!`, the new one has failed and the old one goes on as if nothing had been.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::TcpListener,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use http_body_util::Empty;
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{CONNECTION, HOST, UPGRADE},
};
use hyper_util::rt::TokioIo;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::{io::Interest, net::UnixStream, time::timeout};

use super::{Sockets, add};

/// What the request asks to change to; the number counts changes of the messages.
pub const TOKEN: &str = "ga-take-over/1";

/// Sockets of one message; the kernel takes 253.
const AT_ONCE: usize = 64;
/// How long an agent may take to let go of the maps: it ends what it is doing first.
const PATIENCE: Duration = Duration::from_secs(60);

const GIVE: u8 = b'?';
const SOME: u8 = b's';
const ALL: u8 = b'.';
const READY: u8 = b'!';

/// One end of it.
#[derive(Debug)]
pub struct Line(UnixStream);

/// What the new one says to the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Give me everything.
    Give,
    /// I serve.
    Ready,
    /// Nothing: it is gone.
    Gone,
}

/// Why nothing was handed over.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No agent answers at the admin socket.
    #[error("no agent listens on the admin socket")]
    Nobody(#[source] io::Error),
    /// It does not hand over.
    #[error("the running agent does not hand over (it answered {0}): stop it, then start this one")]
    Refused(StatusCode),
    /// The connection broke.
    #[error("the running agent broke off the handing over: {0}")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> AskError {
    AskError::Broken(error.into())
}

/// Asks the agent behind `socket` for what it listens with and for the maps; it goes on accepting until it is told that this process
/// serves.
pub async fn ask(socket: &Path) -> Result<(Line, Sockets), AskError> {
    let stream = UnixStream::connect(socket).await.map_err(AskError::Nobody)?;
    timeout(PATIENCE, take(stream)).await.map_err(broken)?
}

async fn take(stream: UnixStream) -> Result<(Line, Sockets), AskError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // It ends with the change of protocol.
    let connection = tokio::spawn(connection.with_upgrades());
    let request = Request::post("/v1/take-over").header(HOST, "ga").header(CONNECTION, "upgrade").header(UPGRADE, TOKEN);
    let request = request.body(Empty::<Bytes>::new()).map_err(broken)?;
    let response = sender.send_request(request).await.map_err(broken)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(AskError::Refused(response.status()));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(broken)?;
    drop(connection);
    let parts = upgraded.downcast::<TokioIo<UnixStream>>().map_err(|_other| broken("it is no socket"))?;
    let line = Line(parts.io.into_inner());
    line.send(GIVE, &[]).await.map_err(broken)?;
    let mut sockets = Sockets::new();
    loop {
        match line.receive().await.map_err(broken)? {
            Some((SOME, fds)) => {
                for fd in fds {
                    add(&mut sockets, TcpListener::from(fd));
                }
            }
            Some((ALL, _)) => return Ok((line, sockets)),
            Some((other, _)) => return Err(broken(format!("it said {other:#04x}"))),
            None => return Err(broken("it is gone")),
        }
    }
}

impl Line {
    /// The old one's end.
    pub fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// Waits for the new one. What makes no sense is as good as nothing.
    pub async fn hear(&self) -> Said {
        match self.receive().await {
            Ok(Some((GIVE, _))) => Said::Give,
            Ok(Some((READY, _))) => Said::Ready,
            Ok(Some(_) | None) | Err(_) => Said::Gone,
        }
    }

    /// Gives some of the sockets.
    pub async fn give(&self, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        for some in sockets.chunks(AT_ONCE) {
            self.send(SOME, some).await?;
        }
        Ok(())
    }

    /// These were all, and the maps are the other's.
    pub async fn let_go(&self) -> io::Result<()> {
        self.send(ALL, &[]).await
    }

    /// We serve; the other is to end.
    pub async fn ready(&self) -> io::Result<()> {
        self.send(READY, &[]).await
    }

    async fn send(&self, byte: u8, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
            let mut beside = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            sendmsg(self.0.as_fd(), &[IoSlice::new(&[byte])], &mut beside, SendFlags::NOSIGNAL)?;
            Ok(())
        };
        self.0.async_io(Interest::WRITABLE, send).await
    }

    /// The next message; none at the end.
    async fn receive(&self) -> io::Result<Option<(u8, Vec<OwnedFd>)>> {
        let receive = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
            let (mut beside, mut byte) = (RecvAncillaryBuffer::new(&mut space), [0]);
            let got = recvmsg(self.0.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
            let mut fds = Vec::new();
            for message in beside.drain() {
                if let RecvAncillaryMessage::ScmRights(some) = message {
                    fds.extend(some);
                }
            }
            Ok((got.bytes > 0).then_some((byte[0], fds)))
        };
        self.0.async_io(Interest::READABLE, receive).await
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, io::Write as _, net::TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_socket_arrives_with_what_waits_at_it() {
        let (old, new) = UnixStream::pair().expect("two descriptors");
        let (old, new) = (Line(old), Line(new));
        let sockets: Vec<_> = (0..AT_ONCE + 1).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let mut waits = TcpStream::connect(sockets[AT_ONCE].local_addr().expect("an address")).expect("a connection");
        new.send(GIVE, &[]).await.expect("room");
        assert_eq!(old.hear().await, Said::Give);
        let fds: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
        old.give(&fds).await.expect("room");
        old.let_go().await.expect("room");
        drop(sockets);
        let mut got = Sockets::new();
        while let Some((byte, fds)) = new.receive().await.expect("a message") {
            fds.into_iter().for_each(|fd| assert!(add(&mut got, TcpListener::from(fd))));
            if byte == ALL {
                break;
            }
        }
        assert_eq!(got.len(), AT_ONCE + 1);
        let socket = &got[&waits.peer_addr().expect("an address")][0];
        let (mut accepted, _) = socket.accept().expect("the one that waited");
        accepted.write_all(b"hello").expect("room");
        drop(accepted);
        let mut text = String::new();
        waits.read_to_string(&mut text).expect("an answer");
        assert_eq!(text, "hello");
        drop(new);
        assert_eq!(old.hear().await, Said::Gone);
    }
}
