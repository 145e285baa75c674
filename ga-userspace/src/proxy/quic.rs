//! QUIC for HTTPS listeners that speak HTTP/3: sockets, and connections until their handshake is over.
//!
//! An address has one socket, which one thread reads: so a client may change its address within a connection, and the packets of a
//! connection find it by the identifier that they carry (RFC 9000 §5.1). What a packet is decrypted and answered by is the
//! connection's own thread, which is any.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use quinn::{
    Endpoint, EndpointConfig, IdleTimeout, Incoming, ServerConfig, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{HandshakeData, NoInitialCipherSuite, QuicServerConfig},
};
use rustls::server::ResolvesServerCertUsingSni;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{task::JoinHandle, time::timeout};

use super::{
    Listener, Peer,
    counts::Reason,
    http::http3,
    serve::{Here, Open, bind},
    tls,
};
use crate::model::HttpLimits;

/// Handshakes at a time up to which clients need not show first that they are where they say (RFC 9000 §8.1.2).
const TRUSTED: usize = 64;
/// Handshakes at a time, of each address.
const HANDSHAKES: usize = 4096;
/// Without a word for so long, a client is gone; so often it is asked for one.
const GONE: Duration = Duration::from_secs(30);
const ASK: Duration = Duration::from_secs(10);
/// Bytes on their way to the edge, of a stream and of all streams of a connection; and to the client, of all.
const STREAM_WINDOW: u32 = 64 * 1024;
const WINDOW: u32 = 1024 * 1024;
const SEND_WINDOW: u64 = 1024 * 1024;
/// Streams of one direction that a client may have at a time: three of HTTP/3 (RFC 9114 §6.2), and some without meaning.
const UNIDIRECTIONAL: u8 = 8;
/// Bytes of a connection that nobody has begun to serve yet.
const EARLY: u64 = 64 * 1024;

/// What a thread is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Read a socket from now on.
    Listen(SocketAddr, std::net::UdpSocket),
    /// Let nobody connect there any more.
    Close(SocketAddr),
    /// Serve a client that came to another thread's socket.
    Serve(Box<Arrival>, Open),
}

/// Where clients connect, and which thread reads the socket.
#[derive(Debug, Default)]
pub(super) struct Bound {
    addresses: BTreeMap<SocketAddr, usize>,
    /// Whose turn is next.
    next: usize,
}

/// The sockets that a thread reads.
#[derive(Debug, Default)]
pub(super) struct Doors {
    tasks: BTreeMap<SocketAddr, JoinHandle<()>>,
    is_closed: bool,
}

/// A socket.
#[derive(Debug)]
struct Door {
    endpoint: Endpoint,
    config: ServerConfig,
    handshakes: Arc<AtomicUsize>,
}

/// A client that wants to connect.
#[derive(Debug)]
pub(super) struct Arrival {
    incoming: Incoming,
    config: ServerConfig,
    busy: Busy,
    local: SocketAddr,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no handshake in time")]
    Timeout,
    #[error("{0}")]
    Connection(#[from] quinn::ConnectionError),
    #[error("the listener has no cipher suite for QUIC")]
    Suite(#[from] NoInitialCipherSuite),
    #[error("the listener does not speak HTTP/3 any more")]
    Gone,
}

/// A socket for `address`, which may come later than the socket.
fn socket(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    // The process that takes over from this one listens before this one ends.
    socket.set_reuse_port(true)?;
    bind(&socket, address)?;
    Ok(socket.into())
}

impl Bound {
    /// Has threads listen at `wanted`, and nowhere else. Says which addresses cannot be listened on.
    pub(super) fn apply(&mut self, wanted: BTreeSet<SocketAddr>, order: impl Fn(usize, Order)) -> Vec<(SocketAddr, io::Error)> {
        self.addresses.retain(|address, thread| {
            let stays = wanted.contains(address);
            if !stays {
                order(*thread, Order::Close(*address));
            }
            stays
        });
        let mut unbound = Vec::new();
        for address in wanted {
            if self.addresses.contains_key(&address) {
                continue;
            }
            match socket(address) {
                Ok(socket) => {
                    order(self.next, Order::Listen(address, socket));
                    self.addresses.insert(address, self.next);
                    self.next += 1;
                }
                Err(error) => unbound.push((address, error)),
            }
        }
        unbound
    }
}

impl Doors {
    pub(super) fn obey(&mut self, thread: &Rc<Here>, order: Order) {
        match order {
            Order::Listen(..) if self.is_closed => {}
            Order::Listen(address, socket) => match Door::open(socket) {
                Ok(door) => {
                    let task = tokio::task::spawn_local(accept(Rc::clone(thread), door, address));
                    if let Some(before) = self.tasks.insert(address, task) {
                        before.abort();
                    }
                }
                Err(error) => tracing::error!("{address} cannot be listened on: {error}"),
            },
            Order::Close(address) => {
                if let Some(task) = self.tasks.remove(&address) {
                    task.abort();
                }
            }
            Order::Serve(arrival, open) => serve(thread, *arrival, open),
        }
    }

    /// Lets nobody connect any more.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        std::mem::take(&mut self.tasks).into_values().for_each(|task| task.abort());
    }
}

async fn accept(thread: Rc<Here>, door: Door, local: SocketAddr) {
    while let Some(arrival) = door.next(local).await {
        thread.share(Box::new(arrival));
    }
}

/// Serves a client until it leaves.
pub(super) fn serve(thread: &Rc<Here>, arrival: Arrival, open: Open) {
    let worker = Rc::clone(&thread.worker);
    let view = worker.view();
    let Some(listener) = view.quic_at(arrival.local) else { return arrival.incoming.refuse() };
    let Some(server) = worker.shared().tls.server(&listener.path) else { return arrival.incoming.refuse() };
    let Some(active) = thread.admit(&view, &listener) else { return arrival.incoming.refuse() };
    drop(view);
    tokio::task::spawn_local(async move {
        // Counted until it ends, also when it ends by a panic.
        let _counted = (open, active);
        let counts = Arc::clone(&listener.counts);
        let client = arrival.incoming.remote_address();
        match arrival.connect(&listener, &server).await {
            Ok((connection, peer)) => http3::serve(worker, listener, connection, peer).await,
            Err(error) => {
                counts.reasons.add(Reason::TlsHandshake);
                tracing::debug!(listener = &*listener.path, %client, "handshake: {error}");
            }
        }
    });
}

impl Door {
    /// Reads `socket` from now on, in this thread's runtime.
    fn open(socket: std::net::UdpSocket) -> io::Result<Self> {
        // Each connection gets its listener's; this one only tells packets that open connections from others.
        let nobody = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
        let crypto = QuicServerConfig::try_from(nobody).map_err(io::Error::other)?;
        let mut config = ServerConfig::with_crypto(Arc::new(crypto));
        config.max_incoming(HANDSHAKES).incoming_buffer_size(EARLY).incoming_buffer_size_total(EARLY * 256);
        let endpoint = Endpoint::new(EndpointConfig::default(), Some(config.clone()), socket, Arc::new(TokioRuntime))?;
        Ok(Self { endpoint, config, handshakes: Arc::default() })
    }

    /// The next client; none when the socket is closed.
    async fn next(&self, local: SocketAddr) -> Option<Arrival> {
        loop {
            let incoming = self.endpoint.accept().await?;
            let busy = self.handshakes.load(Relaxed);
            if busy >= HANDSHAKES {
                incoming.ignore();
            } else if busy >= TRUSTED && !incoming.remote_address_validated() && incoming.may_retry() {
                // It is the client's to come again.
                drop(incoming.retry());
            } else {
                let busy = Busy::new(Arc::clone(&self.handshakes));
                return Some(Arrival { incoming, config: self.config.clone(), busy, local });
            }
        }
    }
}

impl Drop for Door {
    /// Connections that are open go on.
    fn drop(&mut self) {
        self.endpoint.set_server_config(None);
    }
}

impl Arrival {
    /// Shakes hands for `listener`.
    async fn connect(self, listener: &Listener, server: &tls::Server) -> Result<(quinn::Connection, Peer), Failure> {
        // Counted until there is a connection, or none.
        let Self { incoming, mut config, busy: _busy, local } = self;
        let client = incoming.remote_address();
        let Some(crypto) = server.quic() else {
            incoming.refuse();
            return Err(Failure::Gone);
        };
        config.crypto = Arc::new(QuicServerConfig::try_from(Arc::clone(crypto))?);
        let limits = listener.file.http.as_ref().map(|http| http.limits).unwrap_or_default();
        config.transport_config(Arc::new(transport(limits)));
        let connecting = incoming.accept_with(Arc::new(config))?;
        let connection = timeout(tls::HANDSHAKE_DEADLINE, connecting).await.map_err(|_| Failure::Timeout)??;
        let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
        let name = data.and_then(|data| data.server_name);
        let agreed = tls::TlsInfo::http3(server, name);
        Ok((connection, Peer { client, local, tls: Some(Box::new(agreed)) }))
    }
}

fn transport(limits: HttpLimits) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let gone = VarInt::from_u64(GONE.as_millis() as u64).map(IdleTimeout::from).ok();
    transport
        .max_concurrent_bidi_streams(limits.streams.into())
        .max_concurrent_uni_streams(UNIDIRECTIONAL.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(WINDOW.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(gone)
        .keep_alive_interval(Some(ASK));
    transport
}

/// A handshake that is counted while it lasts.
#[derive(Debug)]
struct Busy(Arc<AtomicUsize>);

impl Busy {
    fn new(count: Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
