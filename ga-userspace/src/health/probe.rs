//! One probe: leaves with the instance's egress address, ends within the fixed time, leaves nothing behind.
//!
//! Source ports are those above 65,499: no listener can have them, and where a group has a health check the configuration keeps NAT
//! ports away from them. So an answer never meets a flow in the kernel program, which passes it to this host. Every connection is
//! closed by a reset, which leaves no TIME_WAIT at either side.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use rustix::io::Errno;
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

/// Asks once. Never takes longer than [`HEALTH_TIMEOUT`].
pub(super) async fn probe(check: &Check) -> Outcome {
    match timeout(HEALTH_TIMEOUT, ask(check)).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Outcome::Failed(Reason::Timeout),
    }
}

async fn ask(check: &Check) -> Outcome {
    let start = Instant::now();
    let mut stream = match connect(check.source, check.target).await {
        Ok(stream) => stream,
        Err(outcome) => return outcome,
    };
    let connected = start.elapsed();
    if let Some(preface) = check.preface
        && let Err(error) = stream.write_all(preface.bytes()).await
    {
        return Outcome::Failed(refused(&error));
    }
    let answer = match check.how.protocol {
        HealthProtocol::Tcp => Ok(()),
        HealthProtocol::Http => http::ask(stream, &check.how).await,
        HealthProtocol::Https => http::ask_secured(stream, check).await,
    };
    answer.map_or_else(Outcome::Failed, |()| Outcome::Passed { connected })
}

/// An accepted connection that ends with a reset when dropped.
async fn connect(source: IpAddr, target: SocketAddr) -> Result<TcpStream, Outcome> {
    let socket = begin(source, target)?;
    let stream = TcpStream::from_std(socket.into()).map_err(|error| unable("socket", &error))?;
    stream.writable().await.map_err(|error| unable("socket", &error))?;
    match stream.take_error() {
        Ok(None) => Ok(stream),
        Ok(Some(error)) | Err(error) => Err(Outcome::Failed(refused(&error))),
    }
}

/// Sends the first packet.
fn begin(source: IpAddr, target: SocketAddr) -> Result<Socket, Outcome> {
    let mut last = None;
    // A port is in use only while another probe of the same place is on its way.
    for _ in 0..PROBE_PORTS.len() {
        let socket = bound(SocketAddr::new(source, next_port()))?;
        match socket.connect(&target.into()) {
            Ok(()) => return Ok(socket),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::INPROGRESS) => return Ok(socket),
                Some(Errno::ADDRNOTAVAIL) => last = Some(error),
                _ => return Err(Outcome::Failed(refused(&error))),
            },
        }
    }
    Err(last.map_or(Outcome::Unable("no free port".to_owned()), |error| unable("no free port", &error)))
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
