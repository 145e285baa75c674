//! One probe: leaves with the instance's egress address, ends within the fixed time, leaves nothing behind.
//!
//! Source ports are those above 65,499: no listener can have them, and where a group has a health check the configuration keeps NAT
//! ports away from them. So an answer never meets a flow in the kernel program, which passes it to this host. Every connection is
//! closed by a reset, which leaves no TIME_WAIT at either side.
//!
//! Of a TCP check the SYN-ACK counts (specification §1.8). It is answered by the reset alone: the endpoint's kernel makes no connection
//! of it, and its server never hears of it. The socket then asks somebody else.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use rustix::{io::Errno, net::connect_unspec};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    http,
    outcome::{Outcome, Reason},
    roster::Check,
};
use crate::model::{HEALTH_TIMEOUT, HealthProtocol, PROBE_PORTS};

/// Asks once. Never takes longer than [`HEALTH_TIMEOUT`]. A socket that this returned may ask for another check with the same source.
pub(super) async fn probe(check: &Check, asker: Option<Socket>) -> (Outcome, Option<Socket>) {
    match timeout(HEALTH_TIMEOUT, ask(check, asker)).await {
        Ok(Ok((connected, asker))) => (Outcome::Passed { connected }, asker),
        Ok(Err(outcome)) => (outcome, None),
        Err(_elapsed) => (Outcome::Failed(Reason::Timeout), None),
    }
}

async fn ask(check: &Check, asker: Option<Socket>) -> Result<(Duration, Option<Socket>), Outcome> {
    let start = Instant::now();
    let mut stream = accepted(check, asker).await?;
    let connected = start.elapsed();
    if let Some(preface) = check.preface {
        stream.write_all(preface.bytes()).await.map_err(|error| Outcome::Failed(refused(&error)))?;
    }
    let answer = match check.how.protocol {
        HealthProtocol::Tcp => return Ok((connected, reset(stream))),
        HealthProtocol::Http => http::ask(stream, &check.how).await,
        HealthProtocol::Https => http::ask_secured(stream, check).await,
    };
    answer.map(|()| (connected, None)).map_err(Outcome::Failed)
}

/// An accepted connection that ends with a reset when dropped.
async fn accepted(check: &Check, asker: Option<Socket>) -> Result<TcpStream, Outcome> {
    let socket = match asker.filter(|asker| connect(asker, check.target).is_ok()) {
        Some(asker) => asker,
        None => begin(check.source, check.target)?,
    };
    let stream = TcpStream::from_std(socket.into()).map_err(|error| unable("socket", &error))?;
    stream.writable().await.map_err(|error| unable("socket", &error))?;
    match stream.take_error() {
        Ok(None) => Ok(stream),
        Ok(Some(error)) | Err(error) => Err(Outcome::Failed(refused(&error))),
    }
}

/// Ends the connection, and leaves a socket that may make another one.
fn reset(stream: TcpStream) -> Option<Socket> {
    // Who waits for sockets does not hear of this one until it asks again: what it says of its end is not the next one's.
    let socket = Socket::from(stream.into_std().ok()?);
    connect_unspec(&socket).ok()?;
    socket.take_error().ok().map(|_| socket)
}

/// Sends the first packet from a new socket.
fn begin(source: IpAddr, target: SocketAddr) -> Result<Socket, Outcome> {
    let mut last = None;
    // A port is in use only while another probe of the same place is on its way.
    for _ in 0..PROBE_PORTS.len() {
        let socket = bound(SocketAddr::new(source, next_port()))?;
        match connect(&socket, target) {
            Ok(()) => return Ok(socket),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::ADDRNOTAVAIL) => last = Some(error),
                _ => return Err(Outcome::Failed(refused(&error))),
            },
        }
    }
    Err(last.map_or(Outcome::Unable("no free port".to_owned()), |error| unable("no free port", &error)))
}

/// Sends the first packet. The SYN-ACK is acknowledged by what is sent next: a request, or a reset.
fn connect(socket: &Socket, target: SocketAddr) -> io::Result<()> {
    socket.set_tcp_quickack(false)?;
    match socket.connect(&target.into()) {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn bound(source: SocketAddr) -> Result<Socket, Outcome> {
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(source), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
        // Probes of different places share the few ports.
        socket.set_reuse_address(true)?;
        socket.set_linger(Some(Duration::ZERO))?;
        if source.is_ipv6() {
            // For IPv4 a local route makes an address the host's; binding to an IPv6 address asks for an interface that has it.
            socket.set_freebind_v6(true)?;
        }
        Ok(socket)
    };
    let socket = open().map_err(|error| unable("socket", &error))?;
    match socket.bind(&source.into()) {
        Ok(()) => Ok(socket),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::ADDRNOTAVAIL) => {
            Err(Outcome::Unable(format!("the egress address {} is not an address of this host", source.ip())))
        }
        Err(error) => Err(unable("bind", &error)),
    }
}

fn next_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // The ports are a power of two, or the wrap of the counter favours a few: of no importance.
    PROBE_PORTS.start() + NEXT.fetch_add(1, Ordering::Relaxed) % PROBE_PORTS.len() as u16
}

fn unable(what: &str, error: &io::Error) -> Outcome {
    Outcome::Unable(format!("{what}: {error}"))
}

/// Why there is no connection.
fn refused(error: &io::Error) -> Reason {
    match Errno::from_io_error(error) {
        Some(Errno::CONNREFUSED | Errno::CONNRESET) => Reason::Refused,
        Some(Errno::TIMEDOUT) => Reason::Timeout,
        Some(Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::NETDOWN | Errno::HOSTDOWN | Errno::ACCESS) => Reason::Unreachable,
        _ => Reason::Broken(error.to_string()),
    }
}
