//! A server: says who it is, then sends back whatever comes, and keeps a book of every connection.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
};

use super::{
    dial::Hello,
    digest::Digest,
    task::{Stop, Task},
};
use crate::lab::Namespace;

/// How a connection ended, seen from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client said so.
    Closed,
    /// A reset.
    Reset,
    /// Another error.
    Error(io::ErrorKind),
}

/// One TCP connection.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// Whom the server sees.
    pub peer: SocketAddr,
    /// What the peer connected to.
    pub local: SocketAddr,
    /// What came.
    pub received: Digest,
    /// How it ended, if it did.
    pub end: Option<(End, Instant)>,
}

/// What a server saw.
#[derive(Debug, Default)]
struct Book {
    connections: Vec<Connection>,
    datagrams: BTreeMap<SocketAddr, u64>,
}

/// A server; stopped when dropped.
#[derive(Debug)]
pub struct Server {
    book: Arc<Mutex<Book>>,
    _task: Task<()>,
}

impl Server {
    /// Serves TCP and UDP of both families on `ports`.
    pub fn start(namespace: &Namespace, number: usize, ports: &[u16]) -> Result<Self> {
        let addresses: Vec<_> = ports.iter().map(|&port| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)).collect();
        Self::start_at(namespace, number, addresses)
    }

    /// Serves TCP and UDP on these addresses; the unspecified IPv6 address is IPv4 too.
    pub fn start_at(namespace: &Namespace, number: usize, addresses: Vec<SocketAddr>) -> Result<Self> {
        let book = Arc::new(Mutex::new(Book::default()));
        let shared = Arc::clone(&book);
        let (ready, is_ready) = mpsc::channel();
        let task = Task::start(namespace, move |stop| async move {
            for address in addresses {
                let (tcp, udp) = (listen(address)?, bind(address)?);
                tokio::spawn(accept(tcp, number, Arc::clone(&shared), stop.clone()));
                tokio::spawn(answer(udp, number, Arc::clone(&shared)));
            }
            ready.send(())?;
            stop.clone().wait().await;
            Ok(())
        })?;
        if is_ready.recv_timeout(Duration::from_secs(10)).is_err() {
            return match task.finish() {
                Ok(()) => bail!("server {number} did not start"),
                Err(error) => Err(error.context(format!("server {number} did not start"))),
            };
        }
        Ok(Self { book, _task: task })
    }

    /// Servers 1, 2, ... of a lab, all on the same ports.
    pub fn start_all(namespaces: &[Namespace], ports: &[u16]) -> Result<Vec<Self>> {
        namespaces.iter().enumerate().map(|(index, namespace)| Self::start(namespace, index + 1, ports)).collect()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All TCP connections so far.
    pub fn connections(&self) -> Vec<Connection> {
        self.book().connections.clone()
    }

    /// How many TCP connections were accepted.
    pub fn accepted(&self) -> usize {
        self.book().connections.len()
    }

    /// The address of everybody who connected or sent a datagram.
    pub fn peers(&self) -> BTreeSet<IpAddr> {
        let book = self.book();
        book.connections.iter().map(|one| one.peer.ip()).chain(book.datagrams.keys().map(SocketAddr::ip)).collect()
    }

    /// Datagrams by sender.
    pub fn datagrams(&self) -> BTreeMap<SocketAddr, u64> {
        self.book().datagrams.clone()
    }
}

/// Without the IPv6 dress of an IPv4 address.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into()).with_context(|| format!("cannot bind {address}"))?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = socket(address, Type::STREAM, Protocol::TCP)?;
    socket.listen(4096)?;
    Ok(TcpListener::from_std(socket.into())?)
}

fn bind(address: SocketAddr) -> Result<UdpSocket> {
    let socket = socket(address, Type::DGRAM, Protocol::UDP)?;
    socket.set_recv_buffer_size(4 << 20)?;
    Ok(UdpSocket::from_std(socket.into())?)
}

async fn accept(listener: TcpListener, number: usize, book: Arc<Mutex<Book>>, stop: Stop) {
    while !stop.is_set() {
        if let Ok((stream, peer)) = listener.accept().await {
            let Ok(local) = stream.local_addr() else { continue };
            let connection = Connection { peer: plain(peer), local: plain(local), received: Digest::default(), end: None };
            let index = {
                let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
                book.connections.push(connection);
                book.connections.len() - 1
            };
            tokio::spawn(echo(stream, number, connection, index, Arc::clone(&book)));
        }
    }
}

async fn echo(mut stream: TcpStream, number: usize, mut connection: Connection, index: usize, book: Arc<Mutex<Book>>) {
    drop(stream.set_nodelay(true));
    let hello = Hello { server: number, local: connection.local, peer: connection.peer };
    let mut buffer = vec![0; 64 << 10];
    let mut result = stream.write_all(&hello.to_bytes()).await;
    while result.is_ok() {
        match stream.read(&mut buffer).await {
            Ok(0) => break,
            Ok(bytes) => {
                connection.received.update(&buffer[..bytes]);
                book.lock().unwrap_or_else(PoisonError::into_inner).connections[index].received = connection.received;
                result = stream.write_all(&buffer[..bytes]).await;
            }
            Err(error) => result = Err(error),
        }
    }
    let end = match result.map_err(|error| error.kind()) {
        Ok(()) => End::Closed,
        Err(io::ErrorKind::ConnectionReset) => End::Reset,
        Err(other) => End::Error(other),
    };
    book.lock().unwrap_or_else(PoisonError::into_inner).connections[index].end = Some((end, Instant::now()));
}

async fn answer(socket: UdpSocket, number: usize, book: Arc<Mutex<Book>>) {
    let Ok(local) = socket.local_addr() else { return };
    let mut buffer = vec![0; 64 << 10];
    loop {
        // A destination that is not there any more shows as an error of the next receive: nothing to do with it.
        let Ok((bytes, peer)) = socket.recv_from(&mut buffer).await else { continue };
        *book.lock().unwrap_or_else(PoisonError::into_inner).datagrams.entry(plain(peer)).or_default() += 1;
        let mut reply = Hello { server: number, local: plain(local), peer: plain(peer) }.to_bytes().to_vec();
        reply.extend_from_slice(&buffer[..bytes]);
        drop(socket.send_to(&reply, peer).await);
    }
}
