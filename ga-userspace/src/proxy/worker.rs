//! What one thread of the proxy works with: nothing of it is shared with other threads but [`Shared`].

use std::{
    cell::{Cell, RefCell, RefMut},
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::Context,
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::{ArcSwap, Guard};
use bytes::BytesMut;
use tokio::sync::watch;

use super::{
    Leaving, Listener, View,
    bells::{Bell, Bells},
    log::{self, Line, Log},
    tls::{self, TlsInfo},
    upstream::{Pools, SCRATCH},
};

/// Requests sent once more that a thread may spend before it has saved any, and at most.
const BUDGET: u32 = 1000;
/// What each request saves, and what each repetition costs.
const SAVED: u32 = 1;
const COST: u32 = 4;

/// What all threads see.
#[derive(Debug, Default)]
pub struct Shared {
    /// The newest plan.
    pub view: ArcSwap<View>,
    /// Handshakes with clients and endpoints.
    pub tls: Arc<tls::Store>,
}

/// What is to be written to a log; none when nothing waits.
#[derive(Debug, Default)]
struct Lines(Option<(Arc<Log>, Vec<u8>)>);

/// One thread: connections, pools and requests of a thread never leave it.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    random: Cell<u64>,
    pools: Rc<Pools>,
    /// What repetitions may cost.
    budget: Cell<u32>,
    /// Lines that wait for others, and the log that they are for.
    lines: Rc<RefCell<Lines>>,
    drain: watch::Receiver<Leaving>,
    bells: Rc<Bells>,
    /// Room for a piece of an answer, between reading it and writing it.
    scratch: RefCell<Box<[u8]>>,
    /// The second since 1970, and as it is written.
    date: RefCell<(u64, String)>,
}

/// Who is at the other end of a client's connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where the client is: with the PROXY protocol, where it says.
    pub client: SocketAddr,
    /// Where it connected to.
    pub local: SocketAddr,
    /// What was agreed on with TLS; none over plain TCP.
    pub tls: Option<Box<TlsInfo>>,
}

impl Worker {
    /// A thread that has no connections yet. Those end that `drain` names.
    pub fn new(shared: Arc<Shared>, drain: watch::Receiver<Leaving>) -> Rc<Self> {
        let random = Cell::new(RandomState::new().hash_one(0_u8));
        let scratch = RefCell::new(vec![0; SCRATCH].into());
        Rc::new(Self {
            shared,
            random,
            pools: Rc::default(),
            budget: Cell::new(BUDGET * COST),
            lines: Rc::default(),
            drain,
            bells: Rc::default(),
            scratch,
            date: RefCell::default(),
        })
    }

    /// What all threads see.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The newest plan. What asks keeps it to its end and asks again for the next.
    pub fn view(&self) -> Guard<Arc<View>> {
        self.shared.view.load()
    }

    /// The listener of that path in the newest plan; as it was last when it was taken away and has connections.
    pub fn listener(&self, path: &str) -> Option<Arc<Listener>> {
        self.view().listener(path).map(Arc::clone)
    }

    /// 64 bits, each as good as random, that nobody else got: for choices, not for secrets.
    pub fn random(&self) -> u64 {
        // SplitMix64.
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Connections to endpoints.
    pub(super) fn pools(&self) -> &Rc<Pools> {
        &self.pools
    }

    /// Room that nobody else uses before this is given back; never to be held where somebody waits.
    pub(super) fn scratch(&self) -> RefMut<'_, Box<[u8]>> {
        self.scratch.borrow_mut()
    }

    /// Writes what time it is, as RFC 9110 §5.6.7 has it.
    pub(super) fn date(&self, out: &mut BytesMut) {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut date = self.date.borrow_mut();
        if date.0 != second {
            *date = (second, httpdate::fmt_http_date(now));
        }
        out.extend_from_slice(date.1.as_bytes());
    }

    /// A request came: repetitions may cost more.
    pub(super) fn budget_in(&self) {
        self.budget.set((self.budget.get() + SAVED).min(BUDGET * COST));
    }

    /// Whether a request may be sent once more. Where most requests fail, repeating all of them would make things worse.
    pub(super) fn budget_out(&self) -> bool {
        let left = self.budget.get().checked_sub(COST);
        self.budget.set(left.unwrap_or(self.budget.get()));
        left.is_some()
    }

    /// Writes `line` to `log`, soon.
    pub(super) fn log(&self, log: &Arc<Log>, line: &Line<'_>) {
        let mut lines = self.lines.borrow_mut();
        if lines.0.as_ref().is_some_and(|(other, _)| !Arc::ptr_eq(other, log)) {
            lines.flush();
        }
        let (_, piece) = lines.0.get_or_insert_with(|| {
            let lines = Rc::downgrade(&self.lines);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(log::PATIENCE).await;
                if let Some(lines) = lines.upgrade() {
                    lines.borrow_mut().flush();
                }
            });
            (Arc::clone(log), Vec::with_capacity(log::PIECE + 1024))
        });
        log.add(piece, line);
        if piece.len() >= log::PIECE {
            lines.flush();
        }
    }

    /// Changes when connections shall end.
    pub fn drain(&self) -> watch::Receiver<Leaving> {
        self.drain.clone()
    }

    /// Wakes the task that is polled whenever other connections than before shall end, until the bell is dropped.
    pub(super) fn bell(&self, cx: &Context<'_>) -> Bell {
        Bells::add(&self.bells, &self.drain, cx)
    }

    /// Connections of the listener of that path shall end.
    pub fn is_draining(&self, path: &str) -> bool {
        self.drain.borrow().has(path)
    }
}

impl Lines {
    fn flush(&mut self) {
        if let Some((log, piece)) = self.0.take() {
            log.send(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_numbers_are_not_the_same() {
        let (_drain, drained) = watch::channel(Leaving::default());
        let worker = Worker::new(Arc::default(), drained);
        let mut numbers: Vec<u64> = (0..1000).map(|_| worker.random()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 1000);
    }
}
