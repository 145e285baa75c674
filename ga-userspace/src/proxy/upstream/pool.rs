//! Connections that wait for the next request: of one worker, so that nobody locks.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{super::counts::EndpointCounts, h1::Link, h2::Shared};
use crate::model::Backend;

/// The most connections that wait for the next request to one endpoint.
const IDLE: usize = 1024;
/// The longest that one waits.
const IDLE_FOR: Duration = Duration::from_secs(45);
/// How often those that waited too long are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// So many connections that failed one after the other, within [`GRUDGE`], and the endpoint is asked last for as long.
const FAILURES: u32 = 3;
const GRUDGE: Duration = Duration::from_secs(10);

/// An endpoint's identity, and where it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key(u64, SocketAddr);

/// The pools of all endpoints.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Pools {
    slots: RefCell<HashMap<Key, Rc<Slot>, BuildHasherDefault<Mixed>>>,
    swept: Cell<bool>,
}

/// What is known of one endpoint at one address.
#[derive(Debug)]
pub(in crate::proxy) struct Slot {
    #[expect(clippy::vec_box, reason = "a connection moves between requests and here, and is large")]
    idle: RefCell<Vec<Box<Link>>>,
    /// Those of HTTP/2.
    pub(in crate::proxy) shared: Shared,
    backend: Backend,
    failures: Cell<u32>,
    /// The first of them.
    failed: Cell<Option<Instant>>,
    /// Until when it is asked last, and how often it had been up again when that began.
    shunned: Cell<Option<(Instant, u64)>>,
    pub(in crate::proxy) counts: Arc<EndpointCounts>,
}

impl Pools {
    /// The pool of the endpoint of that identity at `address`, which is spoken to as `backend` says.
    pub(in crate::proxy) fn slot(
        self: &Rc<Self>,
        identity: u64,
        address: SocketAddr,
        backend: &Backend,
        counts: &Arc<EndpointCounts>,
    ) -> Rc<Slot> {
        let mut slots = self.slots.borrow_mut();
        if let Some(slot) = slots.get(&Key(identity, address)).filter(|slot| slot.backend == *backend) {
            return Rc::clone(slot);
        }
        if !self.swept.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(self)));
        }
        let slot = Rc::new(Slot {
            idle: RefCell::default(),
            shared: Shared::default(),
            backend: backend.clone(),
            failures: Cell::new(0),
            failed: Cell::new(None),
            shunned: Cell::new(None),
            counts: Arc::clone(counts),
        });
        slots.insert(Key(identity, address), Rc::clone(&slot));
        slot
    }
}

impl Slot {
    /// A connection that waits and is still open: the one that waited least.
    pub(super) fn take(&self, name: Option<&str>) -> Option<Box<Link>> {
        let mut idle = self.idle.borrow_mut();
        match name {
            None => idle.pop(),
            Some(_) => {
                let place = idle.iter().rposition(|link| link.name() == name)?;
                Some(idle.remove(place))
            }
        }
    }

    /// Keeps a connection for the next request.
    pub(super) fn put(&self, link: Box<Link>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE {
            idle.push(link);
        }
    }

    /// A connection could not be opened; so far the endpoint had been up again `returns` times.
    pub(in crate::proxy) fn failed(&self, returns: u64) {
        let now = Instant::now();
        if self.failed.get().is_none_or(|first| now - first > GRUDGE) {
            self.failed.set(Some(now));
            self.failures.set(0);
        }
        self.failures.set(self.failures.get() + 1);
        if self.failures.get() >= FAILURES {
            self.shunned.set(Some((now + GRUDGE, returns)));
        }
    }

    /// The endpoint answered.
    pub(in crate::proxy) fn succeeded(&self) {
        if self.failures.replace(0) > 0 {
            self.shunned.set(None);
        }
    }

    /// Others are to be asked before this one: unless it is known to be up since, when it has been so `returns` times.
    pub(in crate::proxy) fn is_shunned(&self, returns: u64) -> bool {
        self.shunned.get().is_some_and(|(until, before)| returns == before && Instant::now() < until)
    }
}

/// Closes what waited too long or was closed at the other end, and forgets endpoints that nobody speaks to.
async fn sweep(pools: Weak<Pools>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(pools) = pools.upgrade() else { return };
        let now = Instant::now();
        pools.slots.borrow_mut().retain(|_, slot| {
            slot.idle.borrow_mut().retain_mut(|link| now - link.since() < IDLE_FOR && link.is_open());
            slot.shared.sweep();
            let empty = slot.idle.borrow().is_empty() && slot.shared.is_empty() && slot.failures.get() == 0;
            !(empty && Rc::strong_count(slot) == 1)
        });
    }
}

/// Identities are as good as random already: nobody outside chooses them.
#[derive(Debug, Default)]
pub(super) struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(u64::from(number));
    }

    fn write_u16(&mut self, number: u16) {
        self.write_u64(u64::from(number));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}
