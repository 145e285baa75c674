//! The prober: one thread of its own that makes the probes, keeps the book, and tells what changed.
//!
//! A thread and not a task among the agent's: ten thousand probes a few seconds need one processor's attention without passing from
//! one to another, and neither planning nor netlink may make them late.

use std::{collections::BTreeMap, io, net::IpAddr, sync::Arc, thread, time::Duration};

use socket2::Socket;
use tokio::{
    runtime, select,
    sync::{mpsc, watch},
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until},
};

use super::{
    book::{Book, Errand, Event},
    machine::Flip,
    outcome::Outcome,
    probe::probe,
    report::Report,
    roster::Roster,
};

/// How often everything is reported although no verdict changed: shares that rise, round trips, counts.
const REPORT: Duration = Duration::from_secs(1);
/// Verdicts that change within this time after a report wait for the next: the first is never delayed.
const TOGETHER: Duration = Duration::from_millis(5);
/// How exactly probes are timed: those of a few milliseconds leave together.
const GRAIN: Duration = Duration::from_millis(2);
/// Probes that are on their way at once, each a socket.
const AT_ONCE: usize = 8_192;
/// Sockets of one source that wait for somebody else to ask.
const IDLE: usize = 256;
/// Sockets that are left to the rest of the agent.
const RESERVED: u64 = 256;

/// What is to be probed.
#[derive(Clone, Debug, Default)]
struct Wanted {
    roster: Arc<Roster>,
    panic_threshold: Option<u8>,
}

/// A prober at work. It ends when this is dropped.
#[derive(Debug)]
pub struct Prober {
    start: Instant,
    wanted: watch::Sender<Wanted>,
    reports: watch::Receiver<Arc<Report>>,
}

impl Prober {
    /// Starts with a book whose times begin now. The thread's sockets are in the network namespace of the caller.
    pub fn start(book: Book) -> io::Result<Self> {
        let start = Instant::now();
        let room = AT_ONCE.min(sockets());
        let (wanted, new) = watch::channel(Wanted::default());
        let (tell, reports) = watch::channel(Arc::new(book.report(Duration::ZERO)));
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || {
            let (ended, outcomes) = mpsc::unbounded_channel();
            let worker = Worker {
                start,
                book,
                room,
                on_their_way: 0,
                idle: BTreeMap::new(),
                ended,
                tell,
                told: start,
                looked: start,
                dirty: false,
                unable: None,
            };
            runtime.block_on(worker.run(new, outcomes));
        };
        thread::Builder::new().name("ga-health".to_owned()).spawn(work)?;
        Ok(Self { start, wanted, reports })
    }

    /// Probes these from now on.
    pub fn want(&self, roster: Arc<Roster>, panic_threshold: Option<u8>) {
        self.wanted.send_replace(Wanted { roster, panic_threshold });
    }

    /// What is known.
    pub fn latest(&self) -> Arc<Report> {
        Arc::clone(&self.reports.borrow())
    }

    /// Waits for a report that was not seen yet. Never ends when the thread is gone, which only its own panic brings about.
    pub async fn changed(&mut self) -> Arc<Report> {
        if self.reports.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        Arc::clone(&self.reports.borrow_and_update())
    }

    /// How long it is until a moment of a report.
    pub fn left(&self, at: Duration) -> Duration {
        at.saturating_sub(self.start.elapsed())
    }

    /// How long ago something of a report was.
    pub fn age(&self, at: Duration) -> Duration {
        self.start.elapsed().saturating_sub(at)
    }
}

/// How many sockets probes may have: as many as the process may get, less what the rest of it needs.
fn sockets() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = AT_ONCE as u64 + 2 * RESERVED;
    let better = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let current = match current {
        Some(current) if current < better => {
            let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(better), maximum });
            if raised.is_ok() { better } else { current }
        }
        current => current.unwrap_or(wanted),
    };
    usize::try_from(current.saturating_sub(RESERVED)).unwrap_or(AT_ONCE).max(1)
}

/// A probe that ended.
type Ended = (Errand, Outcome, Option<Socket>);

struct Worker {
    start: Instant,
    book: Book,
    room: usize,
    on_their_way: usize,
    /// By source.
    idle: BTreeMap<IpAddr, Vec<Socket>>,
    ended: mpsc::UnboundedSender<Ended>,
    tell: watch::Sender<Arc<Report>>,
    told: Instant,
    looked: Instant,
    /// A verdict changed that was not told yet.
    dirty: bool,
    /// Why the latest probe that could not be made was not.
    unable: Option<String>,
}

impl Worker {
    async fn run(mut self, mut wanted: watch::Receiver<Wanted>, mut outcomes: mpsc::UnboundedReceiver<Ended>) {
        let mut report: Interval = interval(REPORT);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ended = Vec::new();
        loop {
            let (next, is_due) = self.next();
            let (tell_at, is_dirty) = (self.told + TOGETHER, self.dirty);
            select! {
                biased;
                changed = wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let Wanted { roster, panic_threshold } = wanted.borrow_and_update().clone();
                    self.book.replace(roster, panic_threshold, self.now());
                    // Their addresses may be gone.
                    self.idle.clear();
                    self.tell();
                }
                () = sleep_until(tell_at), if is_dirty => self.tell(),
                () = sleep_until(next), if is_due => self.launch(),
                _count = outcomes.recv_many(&mut ended, 256) => {
                    for (errand, outcome, asker) in ended.drain(..) {
                        self.take(&errand, &outcome, asker);
                    }
                }
                _ = report.tick() => self.tell(),
            }
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// When to look for probes that are due, if there is room for any.
    fn next(&self) -> (Instant, bool) {
        match self.book.next().filter(|_| self.on_their_way < self.room) {
            Some(at) => ((self.start + at).max(self.looked + GRAIN), true),
            None => (self.start, false),
        }
    }

    fn launch(&mut self) {
        let now = Instant::now();
        self.looked = now;
        for errand in self.book.due(now - self.start, self.room - self.on_their_way) {
            self.on_their_way += 1;
            let ended = self.ended.clone();
            let asker = self.idle.get_mut(&errand.check.source).and_then(Vec::pop);
            tokio::spawn(async move {
                let (outcome, asker) = probe(&errand.check, asker).await;
                // The receiver is gone when the prober ends: then nobody wants to know.
                drop(ended.send((errand, outcome, asker)));
            });
        }
    }

    fn take(&mut self, errand: &Errand, outcome: &Outcome, asker: Option<Socket>) {
        self.on_their_way -= 1;
        if let Some(asker) = asker {
            let idle = self.idle.entry(errand.check.source).or_default();
            if idle.len() < IDLE {
                idle.push(asker);
            }
        }
        let now = self.now();
        for event in self.book.note(errand, outcome, now) {
            self.dirty = true;
            log(&event, errand, outcome);
        }
        if let Outcome::Unable(why) = outcome
            && self.unable.as_ref() != Some(why)
        {
            tracing::warn!(target = %errand.check.target, "probes cannot be made: {why}");
            self.unable = Some(why.clone());
        }
        if self.dirty && self.told.elapsed() >= TOGETHER {
            self.tell();
        }
    }

    fn tell(&mut self) {
        (self.told, self.dirty) = (Instant::now(), false);
        self.tell.send_replace(Arc::new(self.book.report(self.now())));
    }
}

fn log(event: &Event, errand: &Errand, outcome: &Outcome) {
    let check = &errand.check;
    let protocol = check.how.protocol.word();
    match event {
        Event::Flip(Flip::Up) => tracing::info!(instance = %check.instance, target = %check.target, protocol, "healthy"),
        Event::Flip(Flip::Down) => {
            let Outcome::Failed(reason) = outcome else { return };
            tracing::warn!(instance = %check.instance, target = %check.target, protocol, %reason, "unhealthy");
        }
        Event::Panic { instance, suspects, checks } => {
            tracing::error!(
                %instance,
                suspects,
                checks,
                "too many endpoints fail at once: this host is suspected, and nobody is taken out (node.panic_threshold)"
            );
        }
        Event::Order(group) => tracing::info!(%group, "the order of the groups changed with the latency to this one"),
        Event::Calm { instance } => tracing::info!(%instance, "few enough endpoints fail: verdicts are made again"),
    }
}
