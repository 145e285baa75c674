//! A cable that takes its time. The kernel that tests run on need not have netem, so frames are carried by hand: from one end to the
//! other, in order, each as long after it came as was asked for.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{LinkAddr, bind},
};
use socket2::{Domain, Protocol, Socket, Type};

use super::Namespace;

/// Frames that are on their way at once, in one direction; what comes beyond that is lost.
const ON_THE_WAY: usize = 4_096;
/// How often a thread without frames looks whether it is wanted.
const LOOK: Duration = Duration::from_millis(50);
/// Longer than any frame.
const LONGEST: usize = 1 << 16;

/// Frames go from one interface of a namespace to another and back, each taking its time. Ends when it is dropped.
#[derive(Debug)]
pub struct Delay {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Taken down after the threads have ended.
    _namespace: Namespace,
}

#[derive(Debug)]
struct Shared {
    one_way_us: AtomicU64,
    lost: AtomicU64,
    stop: AtomicBool,
}

impl Delay {
    /// Connects two interfaces of a namespace that nothing else uses.
    pub(super) fn between(namespace: Namespace, ends: [&'static str; 2], one_way: Duration) -> Result<Self> {
        let [first, second] = namespace.within(move || -> Result<_> { Ok([open(ends[0])?, open(ends[1])?]) })??;
        let shared = Shared { one_way_us: AtomicU64::new(0), lost: AtomicU64::new(0), stop: AtomicBool::new(false) };
        let mut delay = Self { shared: Arc::new(shared), threads: Vec::new(), _namespace: namespace };
        delay.set(one_way);
        for [from, to] in [[&first, &second], [&second, &first]].map(|both| both.map(Arc::clone)) {
            let (queue, queued) = sync_channel(ON_THE_WAY);
            let [reader, writer] = [(); 2].map(|()| Arc::clone(&delay.shared));
            delay.threads.push(thread::spawn(move || reader.take(&from, &queue)));
            delay.threads.push(thread::spawn(move || writer.give(&to, &queued)));
        }
        Ok(delay)
    }

    /// From now on frames take that long, each way.
    pub fn set(&self, one_way: Duration) {
        self.shared.one_way_us.store(one_way.as_micros() as u64, Ordering::Relaxed);
    }

    /// Frames that did not arrive for want of room, or because they could not be sent.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// A socket for the frames of an interface. It never hears what it says itself.
fn open(device: &str) -> Result<Arc<Socket>> {
    const ETH_P_ALL: u16 = 3;
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(ETH_P_ALL.to_be()))))?;
    let mut all = getifaddrs()?.filter(|one| one.interface_name == device);
    let address: LinkAddr =
        all.find_map(|one| one.address?.as_link_addr().copied()).with_context(|| format!("there is no interface {device}"))?;
    bind(socket.as_raw_fd(), &address).with_context(|| format!("cannot listen at {device}"))?;
    socket.set_recv_buffer_size(4 << 20)?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(Arc::new(socket))
}

impl Shared {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Takes frames and notes when they came.
    fn take(&self, mut from: &Socket, queue: &SyncSender<(Instant, Vec<u8>)>) {
        let mut frame = vec![0; LONGEST];
        while !self.is_over() {
            match from.read(&mut frame) {
                Ok(length) if queue.try_send((Instant::now(), frame[..length].to_vec())).is_err() => self.lose(),
                Ok(_) => {}
                Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {}
                // The interface is down, or gone.
                Err(_) => sleep(LOOK),
            }
        }
    }

    /// Passes each on when its time has come.
    fn give(&self, mut to: &Socket, queue: &Receiver<(Instant, Vec<u8>)>) {
        while let Ok((came, frame)) = queue.recv() {
            let due = came + Duration::from_micros(self.one_way_us.load(Ordering::Relaxed));
            sleep(due.saturating_duration_since(Instant::now()));
            if self.is_over() {
                return;
            }
            if to.write(&frame).is_err() {
                self.lose();
            }
        }
    }

    fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}
