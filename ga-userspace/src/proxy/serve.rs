//! Listening sockets and the threads that serve them.
//!
//! Each thread has its own runtime and its own socket for every address (`SO_REUSEPORT`): a connection is accepted by one thread and
//! never leaves it, but for the moment after it was accepted, when it may be given to a thread that has far fewer.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    sync::{mpsc, oneshot, watch},
    task::LocalSet,
    time::sleep,
};

#[cfg(feature = "http3")]
use super::quic;
use super::{
    Leaving, Listener, Peer, Shared, View, Worker,
    counts::{ListenerCounts, Reason},
    dispatch,
    full::{self, Full},
};

/// Connections that may wait to be accepted, of each socket.
const BACKLOG: i32 = 4096;

/// How many connections more than the least busy thread one may have before it gives new ones away.
const UNEVEN: usize = 16;

/// How long a socket rests that cannot accept, because the process has too many files open.
const REST: Duration = Duration::from_millis(50);

/// How long a thread may take to end when its connections are cut.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long connections are accepted at an address that is to be listened on no more: those whose handshake is under way, which
/// nobody else could end.
const LATE: Duration = Duration::from_secs(1);

/// The threads of the proxy, and what they listen on.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    threads: Vec<Thread>,
    /// Every socket once more: what waits to be accepted is not lost when a thread lets go of its own, and another process can be
    /// given them.
    bound: BTreeMap<SocketAddr, Vec<std::net::TcpListener>>,
    /// Sockets of a process before, for those of its addresses that are listened on next.
    inherited: BTreeMap<SocketAddr, Vec<std::net::TcpListener>>,
    #[cfg(feature = "http3")]
    quic: quic::Bound,
    drain: watch::Sender<Leaving>,
    cut: watch::Sender<bool>,
    open: Arc<Loads>,
}

#[derive(Debug)]
struct Thread {
    orders: mpsc::UnboundedSender<Order>,
    handle: thread::JoinHandle<()>,
}

/// What a thread is told.
enum Order {
    /// Accept connections from now on.
    Listen(SocketAddr, std::net::TcpListener),
    /// Accept none any more.
    Close(SocketAddr),
    /// Serve a connection that another thread accepted.
    Serve(std::net::TcpStream, Peer, Open),
    /// The same by UDP, with QUIC.
    #[cfg(feature = "http3")]
    Quic(quic::Order),
}

/// How many connections each thread has.
#[derive(Debug)]
struct Loads(Vec<AtomicUsize>);

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{address} cannot be listened on: {source}")]
pub struct Unbound {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

impl Proxy {
    /// `threads` threads that listen on nothing.
    pub fn start(threads: usize) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let (drain, drained) = watch::channel(Leaving::default());
        let (cut, is_cut) = watch::channel(false);
        let files = full::connections();
        let open = Arc::new(Loads((0..threads).map(|_| AtomicUsize::new(0)).collect()));
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..threads).map(|_| mpsc::unbounded_channel()).unzip();
        let spawn = |(index, (orders, receiver))| {
            let cx = (Arc::clone(&shared), drained.clone(), is_cut.clone(), Arc::clone(&open), senders.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let run = move || {
                let (shared, drained, cut, open, others) = cx;
                let (worker, full) = (Worker::new(shared, drained), Full::default());
                let thread = Rc::new(Here { worker, cut, index, open, others, files, full });
                LocalSet::new().block_on(&runtime, thread.run(receiver));
            };
            Ok(Thread { orders, handle: thread::Builder::new().name(format!("ga-proxy-{index}")).spawn(run)? })
        };
        let threads = senders.clone().into_iter().zip(receivers).enumerate().map(spawn).collect::<io::Result<_>>()?;
        Ok(Self {
            shared,
            threads,
            bound: BTreeMap::new(),
            inherited: BTreeMap::new(),
            #[cfg(feature = "http3")]
            quic: quic::Bound::default(),
            drain,
            cut,
            open,
        })
    }

    /// Sockets that another process listened with, for the next view: what waits at them is served. Those of addresses that it does
    /// not have are closed.
    pub fn inherit(&mut self, sockets: BTreeMap<SocketAddr, Vec<std::net::TcpListener>>) {
        self.inherited = sockets;
    }

    /// Makes sockets for those of `addresses` that are not listened at: connections wait there until the next view says who serves
    /// them. What cannot be made is tried again then.
    pub fn expect(&mut self, addresses: impl IntoIterator<Item = SocketAddr>) {
        for address in addresses {
            if !self.bound.contains_key(&address)
                && !self.inherited.contains_key(&address)
                && let Ok(sockets) = self.threads.iter().map(|_| socket(address)).collect()
            {
                self.inherited.insert(address, sockets);
            }
        }
    }

    /// What is listened with, by address.
    pub fn sockets(&self) -> &BTreeMap<SocketAddr, Vec<std::net::TcpListener>> {
        &self.bound
    }

    /// What all threads see.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Listens where `view` says and serves as it says. Connections that are open go on, those of listeners that are gone to
    /// the end of what they are at; those that are on their way to an address that is listened on no more are served once. Says which addresses cannot be listened on; they are tried again with the next view.
    pub fn apply(&mut self, view: View) -> Vec<Unbound> {
        let wanted: BTreeSet<SocketAddr> = view.addresses().collect();
        #[cfg(feature = "http3")]
        let quic: BTreeSet<SocketAddr> = view.quic_addresses().collect();
        // What is new is served from the moment when it is listened on, what is gone until then.
        let leaving = Leaving { all: false, listeners: view.leaving.keys().cloned().collect() };
        self.shared.view.store(Arc::new(view));
        self.drain.send_if_modified(|known| (*known != leaving).then(|| *known = leaving).is_some());
        let mut inherited = std::mem::take(&mut self.inherited);
        self.bound.retain(|address, _| {
            let stays = wanted.contains(address);
            if !stays {
                self.threads.iter().for_each(|thread| drop(thread.orders.send(Order::Close(*address))));
            }
            stays
        });
        let mut unbound = Vec::new();
        for address in wanted {
            if self.bound.contains_key(&address) {
                continue;
            }
            match self.listen(address, inherited.remove(&address).unwrap_or_default()) {
                Ok(sockets) => drop(self.bound.insert(address, sockets)),
                Err(source) => unbound.push(Unbound { address, source }),
            }
        }
        #[cfg(feature = "http3")]
        {
            let threads = &self.threads;
            let order = |thread: usize, order| {
                if let Some(thread) = threads.get(thread % threads.len().max(1)) {
                    drop(thread.orders.send(Order::Quic(order)));
                }
            };
            unbound.extend(self.quic.apply(quic, order).into_iter().map(|(address, source)| Unbound { address, source }));
        }
        unbound
    }

    /// Listens with `sockets`, all of them, and with as many more as there are threads without one.
    fn listen(&self, address: SocketAddr, mut sockets: Vec<std::net::TcpListener>) -> io::Result<Vec<std::net::TcpListener>> {
        while sockets.len() < self.threads.len() {
            sockets.push(socket(address)?);
        }
        let clones = sockets.iter().map(std::net::TcpListener::try_clone).collect::<io::Result<Vec<_>>>()?;
        for (socket, thread) in clones.into_iter().zip(self.threads.iter().cycle()) {
            drop(thread.orders.send(Order::Listen(address, socket)));
        }
        Ok(sockets)
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.open.all()
    }

    /// Accepts nothing any more, lets what is open end, and cuts what has not ended after `patience`. Says how many those were.
    pub fn stop(mut self, patience: Duration) -> usize {
        self.drain.send_replace(Leaving::everybody());
        self.bound.clear();
        let end = std::time::Instant::now() + patience;
        while self.connections() > 0 && std::time::Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
        let cut = self.connections();
        self.cut.send_replace(true);
        let end = std::time::Instant::now() + LAST_WORDS;
        for Thread { handle, .. } in self.threads {
            while !handle.is_finished() && std::time::Instant::now() < end {
                thread::sleep(Duration::from_millis(1));
            }
        }
        cut
    }
}

/// A socket of one thread. The address may come later than the socket.
fn socket(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    bind(&socket, address)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Binds a socket to `address` alone, whether this host has it already or not.
pub(super) fn bind(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv4() {
        socket.set_freebind_v4(true)?;
    } else {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    }
    socket.bind(&address.into())
}

/// A socket of a thread, at work.
struct Listening {
    task: tokio::task::JoinHandle<()>,
    close: oneshot::Sender<()>,
}

impl Listening {
    /// Accepts what is on its way, and then nothing more.
    fn close(self) {
        // A task that has ended accepts nothing anyway.
        self.close.send(()).unwrap_or_default();
    }
}

/// One thread, seen from inside.
pub(super) struct Here {
    pub(super) worker: Rc<Worker>,
    /// Turns true when connections end that have not ended by themselves.
    cut: watch::Receiver<bool>,
    index: usize,
    open: Arc<Loads>,
    others: Vec<mpsc::UnboundedSender<Order>>,
    /// Connections that there are files for.
    files: usize,
    full: Full,
}

impl Here {
    async fn run(self: Rc<Self>, mut orders: mpsc::UnboundedReceiver<Order>) {
        let (mut drain, mut cut) = (self.worker.drain(), self.cut.clone());
        let mut is_draining = false;
        #[cfg(feature = "http3")]
        let mut quic = quic::Doors::default();
        let mut sockets: BTreeMap<SocketAddr, Vec<Listening>> = BTreeMap::new();
        loop {
            let order = select! {
                biased;
                _ = cut.wait_for(|&cut| cut) => break,
                _ = drain.wait_for(|leaving| leaving.all), if !is_draining => {
                    is_draining = true;
                    #[cfg(feature = "http3")]
                    quic.close();
                    std::mem::take(&mut sockets).into_values().flatten().for_each(|listening| listening.task.abort());
                    continue;
                }
                // Connections end by themselves now; what another thread accepted may still be on its way here.
                order = orders.recv() => order,
            };
            match order {
                Some(Order::Listen(..)) if is_draining => {}
                Some(Order::Listen(address, socket)) => match TcpListener::from_std(socket) {
                    Ok(socket) => {
                        let (close, closed) = oneshot::channel();
                        let task = tokio::task::spawn_local(Rc::clone(&self).accept(socket, address, closed));
                        sockets.entry(address).or_default().push(Listening { task, close });
                    }
                    Err(error) => tracing::error!("{address} cannot be listened on: {error}"),
                },
                Some(Order::Close(address)) => {
                    sockets.remove(&address).into_iter().flatten().for_each(Listening::close);
                }
                Some(Order::Serve(stream, peer, open)) => match TcpStream::from_std(stream) {
                    Ok(stream) => self.serve(stream, peer, open),
                    Err(error) => tracing::debug!("a connection was lost between threads: {error}"),
                },
                #[cfg(feature = "http3")]
                Some(Order::Quic(order)) => quic.obey(&self, order),
                None => break,
            }
        }
    }

    async fn accept(self: Rc<Self>, socket: TcpListener, local: SocketAddr, closed: oneshot::Receiver<()>) {
        let mut closed = pin!(async {
            if closed.await.is_ok() {
                sleep(LATE).await;
            }
        });
        loop {
            let accepted = select! {
                biased;
                accepted = socket.accept() => accepted,
                () = &mut closed => return,
            };
            let (stream, client) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // The client has left already, or there are too many open files.
                    tracing::debug!(%local, "accept: {error}");
                    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                        sleep(REST).await;
                    }
                    continue;
                }
            };
            let peer = Peer { client, local, tls: None };
            match self.open.less_busy(self.index).and_then(|other| Some((other, self.others.get(other)?))) {
                None => self.serve(stream, peer, Open::new(&self.open, self.index)),
                Some((index, other)) => {
                    if let Ok(stream) = stream.into_std() {
                        drop(other.send(Order::Serve(stream, peer, Open::new(&self.open, index))));
                    }
                }
            }
        }
    }

    /// Has a client served here or by a thread that has far fewer.
    #[cfg(feature = "http3")]
    pub(super) fn share(self: &Rc<Self>, arrival: Box<quic::Arrival>) {
        match self.open.less_busy(self.index).and_then(|other| Some((other, self.others.get(other)?))) {
            None => quic::serve(self, *arrival, Open::new(&self.open, self.index)),
            Some((index, other)) => {
                drop(other.send(Order::Quic(quic::Order::Serve(arrival, Open::new(&self.open, index)))));
            }
        }
    }

    /// Lets a connection of `listener` in, which is counted while it lasts; none when there are too many.
    pub(super) fn admit(&self, view: &View, listener: &Listener) -> Option<Active> {
        listener.counts.connections.add(1);
        // Counted before it is judged: of threads that accept at once, none lets in one too many.
        let active = Active::new(&listener.counts);
        let is_full = self.open.all() > view.connections.min(self.files)
            || listener.counts.active.get() > u64::from(listener.file.max_connections);
        if is_full {
            listener.counts.reasons.add(Reason::Limit);
            return None;
        }
        Some(active)
    }

    fn serve(self: &Rc<Self>, stream: TcpStream, peer: Peer, open: Open) {
        let view = self.worker.view();
        let Some(listener) = view.at(peer.local) else { return };
        let Some(active) = self.admit(&view, &listener) else { return self.full.refuse(stream, listener.file.protocol) };
        let served = dispatch::serve(Rc::clone(&self.worker), listener, stream, peer);
        tokio::task::spawn_local(async move {
            // Counted until it ends, also when it ends by a panic.
            let _counted = (open, active);
            served.await;
        });
    }
}

impl Loads {
    /// Connections of all threads.
    fn all(&self) -> usize {
        self.0.iter().map(|load| load.load(Relaxed)).sum()
    }

    /// A thread that has far fewer connections than `index`.
    fn less_busy(&self, index: usize) -> Option<usize> {
        let load = |load: &AtomicUsize| load.load(Relaxed);
        let own = self.0.get(index).map(load)?;
        let (least, fewest) = self.0.iter().map(load).enumerate().min_by_key(|(_, load)| *load)?;
        (own > fewest + UNEVEN).then_some(least)
    }
}

/// A connection that is counted while it lasts, from the moment when it was accepted.
#[derive(Debug)]
pub(super) struct Open(Arc<Loads>, usize);

impl Open {
    fn new(loads: &Arc<Loads>, index: usize) -> Self {
        if let Some(load) = loads.0.get(index) {
            load.fetch_add(1, Relaxed);
        }
        Self(Arc::clone(loads), index)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(load) = self.0.0.get(self.1) {
            load.fetch_sub(1, Relaxed);
        }
    }
}

/// A connection of a listener, counted while it lasts.
pub(super) struct Active(Arc<ListenerCounts>);

impl Active {
    fn new(counts: &Arc<ListenerCounts>) -> Self {
        counts.active.add(1);
        Self(Arc::clone(counts))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.sub(1);
    }
}
