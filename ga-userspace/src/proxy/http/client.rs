//! A client's connection.

use std::{
    cell::{Cell, RefCell},
    fmt,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use http::HeaderValue;
use tokio::time::Instant;

use super::{
    super::{Listener, Peer, Worker, guard::Refusal},
    pace::Pace,
    streams::Turn,
    timer::{Timer, Wait},
    tunnel::Tunnel,
};
use crate::model::Timeouts;

/// What all requests of a connection share.
pub(super) struct Client {
    pub(super) worker: Rc<Worker>,
    /// The listener's.
    pub(super) path: String,
    pub(super) peer: Peer,
    /// The client's address, IPv4 as IPv4.
    pub(super) ip: IpAddr,
    /// The same as endpoints are told.
    pub(super) address: HeaderValue,
    pub(super) timer: Timer,
    /// Of what the client takes.
    pace: Pace,
    /// Those of the newest plan that a request saw.
    pub(super) timeouts: Cell<Timeouts>,
    pub(super) is_h2: bool,
    /// Whom the stream of HTTP/2 that is asked now waits for.
    pub(super) turn: Cell<Turn>,
    /// The stream that ends now does because its client takes nothing.
    pub(super) is_late: Cell<bool>,
    /// Requests that are not answered to their end.
    pub(super) active: Cell<u32>,
    /// What is wrong with the body of the request of HTTP/1 that is under way.
    pub(super) refused: Cell<Option<Refusal>>,
    /// Interim answers that are for the client, of the request under way.
    pub(super) hints: RefCell<Vec<u8>>,
    /// The request under way came by HTTP/1.1.
    pub(super) speaks_hints: Cell<bool>,
    /// How long the next request may take to come.
    pub(super) patience: Cell<Duration>,
    /// What the connection becomes when HTTP ends.
    pub(super) tunnel: RefCell<Option<Box<Tunnel>>>,
    /// The client may still be sending what nobody reads.
    pub(super) lingers: Cell<bool>,
}

impl Client {
    pub(super) fn new(worker: Rc<Worker>, listener: &Arc<Listener>, peer: Peer) -> Rc<Self> {
        let ip = peer.client.ip().to_canonical();
        let timeouts = listener.file.http.as_ref().map(|http| http.timeouts).unwrap_or_default();
        Rc::new(Self {
            worker,
            path: listener.path.clone(),
            ip,
            address: HeaderValue::try_from(ip.to_string()).unwrap_or(HeaderValue::from_static("unknown")),
            timer: Timer::default(),
            pace: Pace::default(),
            timeouts: Cell::new(timeouts),
            is_h2: peer.tls.as_ref().is_some_and(|tls| tls.is_h2 || tls.is_h3),
            turn: Cell::default(),
            is_late: Cell::new(false),
            active: Cell::new(0),
            refused: Cell::new(None),
            hints: RefCell::default(),
            speaks_hints: Cell::new(false),
            patience: Cell::new(timeouts.first_byte),
            tunnel: RefCell::new(None),
            lingers: Cell::new(false),
            peer,
        })
    }

    /// Bytes came.
    pub(super) fn heard(&self) {
        if !self.is_h2 && matches!(self.timer.waits_for(), Some(Wait::Idle | Wait::Park)) {
            self.timer.arm(Wait::Head, self.timeouts.get().head);
        }
    }

    /// The client takes nothing.
    pub(super) fn stalled(&self) {
        if !self.timer.is_stalled() {
            let timeouts = self.timeouts.get();
            self.timer.stall(self.pace.wait(timeouts.write, timeouts.min_rate, Instant::now));
        }
    }

    /// The client took so many bytes.
    pub(super) fn took(&self, bytes: usize) {
        self.timer.move_on();
        if !self.pace.is_kept() {
            return;
        }
        let timeouts = self.timeouts.get();
        self.pace.moved(bytes as u64, timeouts.write, timeouts.min_rate, Instant::now);
    }

    /// A request begins.
    pub(super) fn begin(&self) {
        self.active.set(self.active.get() + 1);
        self.timer.disarm();
    }

    /// A request has ended.
    pub(super) fn end(&self, idle: Duration) {
        self.active.set(self.active.get().saturating_sub(1));
        self.patience.set(idle);
        if self.active.get() == 0 {
            self.timer.arm(Wait::Idle, idle);
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("path", &self.path).field("peer", &self.peer).finish_non_exhaustive()
    }
}
