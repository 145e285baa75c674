//! The task that asks for names when their time has come, and tells when they stand for something else.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hyper::header::HeaderValue;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::{
    select,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{sleep_until, timeout},
};

use super::{
    Addresses, Answer, Domain, DomainKnown, Families, Known, Origin, SourceKnown,
    dns::Dns,
    keep::{Kept, KeptDomain, KeptFile, KeptInventory},
    source::{self, Stamp},
};
use crate::model::{BackendIpVersion, Hosts, Intent, Inventory, Target};

/// Domains that are asked for at the same time.
const AT_ONCE: usize = 16;
/// How often the inventory's file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How soon what was learned is on disk.
const KEEP: Duration = Duration::from_secs(1);

/// What is to be known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Domains, and which of their records.
    domains: BTreeMap<String, Families>,
    inventory: Inventory,
    /// Addresses of a domain.
    limit: usize,
    servers: Vec<SocketAddr>,
    /// Counts orders.
    number: u64,
}

impl Wanted {
    /// What the named endpoints of `intent` need.
    pub fn of(intent: &Intent) -> Self {
        let mut domains: BTreeMap<String, Families> = BTreeMap::new();
        for group in intent.listeners().flat_map(|(_, listener)| &listener.groups) {
            for named in &group.named {
                if let Target::Domain(name) = &named.target {
                    let families = domains.entry(name.clone()).or_default();
                    families.v4 |= group.backend_ip_version != BackendIpVersion::Ipv6;
                    families.v6 |= group.backend_ip_version != BackendIpVersion::Ipv4;
                }
            }
        }
        Self {
            domains,
            inventory: intent.inventory.clone(),
            limit: intent.limits.addresses_per_domain as usize,
            servers: intent.node.resolvers.clone(),
            number: 0,
        }
    }

    /// Nothing has to be asked for.
    fn is_static(&self) -> bool {
        self.domains.is_empty() && self.inventory.file.is_none() && self.inventory.url.is_none()
    }
}

/// The way to the task.
pub struct Resolver {
    wanted: watch::Sender<Wanted>,
    known: watch::Receiver<Arc<Known>>,
    task: JoinHandle<()>,
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Resolver {
    /// Starts the task; nothing is wanted yet. What was known before the start is what names stand for until somebody answers.
    pub fn start(file: KeptFile) -> Self {
        let (wanted, orders) = watch::channel(Wanted::default());
        let (tell, known) = watch::channel(Arc::new(Known::default()));
        let kept = file.read();
        let task = tokio::spawn(Task::new(orders, tell, file, kept).run());
        Self { wanted, known, task }
    }

    /// Wants other names from now on, and waits until each was asked for once, but not longer than `patience`.
    pub async fn want(&mut self, mut wanted: Wanted, patience: Duration) {
        wanted.number = self.wanted.borrow().number;
        if *self.wanted.borrow() == wanted {
            return;
        }
        wanted.number += 1;
        let (number, patience) = (wanted.number, if wanted.is_static() { Duration::from_secs(1) } else { patience });
        self.wanted.send_replace(wanted);
        let mut known = self.known.clone();
        let settled = timeout(patience, known.wait_for(|known| known.settled >= number));
        if settled.await.is_err() {
            tracing::warn!(
                "not every name could be asked for yet; the plan goes on without those, and follows when they are known"
            );
        }
    }

    /// What is known now.
    pub fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.borrow())
    }

    /// Waits until what is known changes.
    pub async fn changed(&mut self) {
        if self.known.changed().await.is_err() {
            // The task ended; nothing will ever change again.
            std::future::pending::<()>().await;
        }
    }
}

/// A source of the inventory.
struct Source {
    known: SourceKnown,
    hosts: Hosts,
    next: Instant,
    asked: bool,
    stamp: Option<Stamp>,
    tag: Option<HeaderValue>,
}

/// What an errand brings back.
enum Brought {
    Domain(String, (Option<Answer>, Option<Answer>)),
    File(String, Option<Stamp>, Result<Option<Hosts>, String>),
    Url(String, Result<Option<(Hosts, Option<HeaderValue>)>, String>),
}

struct Entry {
    domain: Domain,
    families: Families,
    failures: u64,
    asked: bool,
    is_out: bool,
}

struct Task {
    orders: watch::Receiver<Wanted>,
    tell: watch::Sender<Arc<Known>>,
    file: KeptFile,
    /// What was learned, of names that are not wanted now too: an order may bring them back.
    kept: Kept,
    dirty: Option<Instant>,
    wanted: Wanted,
    dns: Dns,
    domains: BTreeMap<String, Entry>,
    sources: Vec<Source>,
    errands: JoinSet<Brought>,
}

impl Task {
    fn new(orders: watch::Receiver<Wanted>, tell: watch::Sender<Arc<Known>>, file: KeptFile, kept: Kept) -> Self {
        Self {
            orders,
            tell,
            file,
            kept,
            dirty: None,
            wanted: Wanted::default(),
            dns: Dns::new(&[]),
            domains: BTreeMap::new(),
            sources: Vec::new(),
            errands: JoinSet::new(),
        }
    }

    async fn run(mut self) {
        loop {
            self.send_out();
            let wake = self.next();
            select! {
                changed = self.orders.changed() => match changed {
                    Ok(()) => self.take_order(),
                    // Nobody asks any more.
                    Err(_) => return,
                },
                Some(brought) = self.errands.join_next() => if let Ok(brought) = brought {
                    self.take(brought);
                },
                () = sleep_until(wake.into()) => self.write(),
            }
            self.publish();
        }
    }

    /// When something is to be done next, if nobody comes before.
    fn next(&self) -> Instant {
        let now = Instant::now();
        let domains = self.domains.values().filter(|entry| !entry.is_out).map(|entry| entry.domain.next);
        let sources = self.sources.iter().map(|source| source.next);
        let soonest = domains.chain(sources).chain(self.dirty).min().unwrap_or(now + Duration::from_secs(60));
        // Those that wait for others to come back are not waited for in circles.
        soonest.max(now + Duration::from_millis(10))
    }

    fn take_order(&mut self) {
        let wanted = self.orders.borrow_and_update().clone();
        // `/etc/resolv.conf` may have changed since.
        self.dns = Dns::new(&wanted.servers);
        let now = Instant::now();
        let mut domains = BTreeMap::new();
        for (name, families) in &wanted.domains {
            let known = self.kept.domains.get(name).map(|kept| (kept.addresses.clone(), kept.learned_at));
            let new = || Entry { domain: Domain::new(now, known), families: *families, failures: 0, asked: false, is_out: false };
            let mut entry = self.domains.remove(name).unwrap_or_else(new);
            if entry.families != *families || wanted.limit != self.wanted.limit {
                (entry.families, entry.domain.next, entry.asked) = (*families, now, false);
            }
            domains.insert(name.clone(), entry);
        }
        self.domains = domains;
        if wanted.inventory != self.wanted.inventory {
            self.sources = self.sources_of(&wanted.inventory, now);
        }
        self.wanted = wanted;
    }

    fn sources_of(&self, inventory: &Inventory, now: Instant) -> Vec<Source> {
        let file = inventory.file.as_ref().map(|path| (Origin::File, path.display().to_string()));
        let url = inventory.url.as_ref().map(|url| (Origin::Url, url.clone()));
        let source = |(origin, place): (Origin, String)| {
            let kept = self.kept.inventories.get(&place);
            let hosts = kept.map(|kept| kept.hosts.clone()).unwrap_or_default();
            let learned_at = kept.map(|kept| kept.learned_at);
            let known = SourceKnown { origin, place, names: hosts.len(), learned_at, failures: 0, error: None };
            Source { known, hosts, next: now, asked: false, stamp: None, tag: None }
        };
        file.into_iter().chain(url).map(source).collect()
    }

    /// Sends somebody for everything whose time has come.
    fn send_out(&mut self) {
        let now = Instant::now();
        for (name, entry) in &mut self.domains {
            if entry.is_out || entry.domain.next > now || self.errands.len() >= AT_ONCE {
                continue;
            }
            entry.is_out = true;
            let (dns, name, families) = (self.dns.clone(), name.clone(), entry.families);
            self.errands.spawn(async move {
                let answers = dns.ask(&name, families).await;
                Brought::Domain(name, answers)
            });
        }
        for source in self.sources.iter_mut().filter(|source| source.next <= now) {
            let (place, stamp, tag) = (source.known.place.clone(), source.stamp, source.tag.clone());
            match source.known.origin {
                Origin::Static => {}
                Origin::File => {
                    source.next = now + LOOK;
                    self.errands.spawn(look(place, stamp));
                }
                Origin::Url => {
                    source.next = now + self.wanted.inventory.interval;
                    let ca = self.wanted.inventory.ca.clone();
                    self.errands.spawn(async move {
                        let brought = source::url(&place, ca.as_deref(), tag).await;
                        Brought::Url(place, brought)
                    });
                }
            }
        }
    }

    fn take(&mut self, brought: Brought) {
        match brought {
            Brought::Domain(name, (v4, v6)) => self.take_domain(name, v4, v6),
            Brought::File(place, stamp, result) => {
                if let Some(source) = self.sources.iter_mut().find(|source| source.known.place == place) {
                    source.stamp = stamp;
                    source.asked = true;
                    self.take_hosts(&place, result);
                }
            }
            Brought::Url(place, result) => {
                if let Some(source) = self.sources.iter_mut().find(|source| source.known.place == place) {
                    source.asked = true;
                    let result = result.map(|brought| {
                        brought.map(|(hosts, tag)| {
                            source.tag = tag;
                            hosts
                        })
                    });
                    self.take_hosts(&place, result);
                }
            }
        }
    }

    fn take_domain(&mut self, name: String, v4: Option<Answer>, v6: Option<Answer>) {
        let limit = self.wanted.limit;
        let Some(entry) = self.domains.get_mut(&name) else { return };
        (entry.is_out, entry.asked) = (false, true);
        let before = entry.domain.error.clone();
        let changed = entry.domain.answered(v4, v6, limit, Instant::now(), unix(), chance());
        let Domain { addresses, error, learned_at, failures, .. } = &entry.domain;
        entry.failures += u64::from(*failures > 0);
        if *error != before {
            match error {
                Some(error) => tracing::warn!(domain = %name, "{error}; it stands for what it stood for: {addresses:?}"),
                None => tracing::info!(domain = %name, "it is answered again"),
            }
        }
        if changed {
            tracing::info!(domain = %name, ?addresses, "stands for");
        }
        if let Some(learned_at) = *learned_at {
            let kept = KeptDomain { addresses: addresses.clone(), learned_at };
            if changed || !self.kept.domains.contains_key(&name) {
                self.dirty.get_or_insert_with(|| Instant::now() + KEEP);
            }
            self.kept.domains.insert(name, kept);
        }
    }

    /// Names that were read, or none when they did not change.
    fn take_hosts(&mut self, place: &str, result: Result<Option<Hosts>, String>) {
        let Some(source) = self.sources.iter_mut().find(|source| source.known.place == place) else { return };
        let known = &mut source.known;
        match result {
            Ok(hosts) => {
                if known.error.take().is_some() {
                    tracing::info!(inventory = %place, "it can be read again");
                }
                known.learned_at = Some(unix());
                let Some(hosts) = hosts else { return };
                known.names = hosts.len();
                tracing::info!(inventory = %place, names = hosts.len(), "read");
                self.kept.inventories.insert(place.to_owned(), KeptInventory { hosts: hosts.clone(), learned_at: unix() });
                self.dirty.get_or_insert_with(|| Instant::now() + KEEP);
                source.hosts = hosts;
            }
            Err(error) => {
                known.failures += 1;
                if known.error.as_ref() != Some(&error) {
                    tracing::warn!(inventory = %place, "{error}; names stand for what they stood for");
                }
                known.error = Some(error);
            }
        }
    }

    /// Tells what is known, if it is anything new.
    fn publish(&self) {
        let asked = self.domains.values().all(|entry| entry.asked) && self.sources.iter().all(|source| source.asked);
        let settled = if asked { self.wanted.number } else { self.tell.borrow().settled };
        let (hosts, origins) = self.hosts();
        let domains = self.domains.iter().filter(|(_, entry)| !entry.domain.addresses.is_empty());
        let addresses: BTreeMap<String, Vec<IpAddr>> =
            domains.map(|(name, entry)| (name.clone(), entry.domain.addresses.clone())).collect();
        let new = Known {
            addresses: Addresses { hosts, domains: addresses },
            domains: self.domains.iter().map(|(name, entry)| (name.clone(), known(entry))).collect(),
            hosts: origins,
            sources: self.sources.iter().map(|source| source.known.clone()).collect(),
            settled,
        };
        self.tell.send_if_modified(|old| {
            let differs = **old != new;
            if differs {
                *old = Arc::new(new);
            }
            differs
        });
    }

    /// All names: what the configuration says comes first, then the file, then the address.
    fn hosts(&self) -> (Hosts, BTreeMap<String, Origin>) {
        let (mut hosts, mut origins) = (Hosts::new(), BTreeMap::new());
        let fixed = (Origin::Static, &self.wanted.inventory.hosts);
        for (origin, more) in std::iter::once(fixed).chain(self.sources.iter().map(|s| (s.known.origin, &s.hosts))) {
            for (name, addresses) in more {
                if !hosts.contains_key(name) {
                    hosts.insert(name.clone(), addresses.clone());
                    origins.insert(name.clone(), origin);
                }
            }
        }
        (hosts, origins)
    }

    fn write(&mut self) {
        if self.dirty.is_some_and(|when| when <= Instant::now()) {
            self.dirty = None;
            // What nobody wants any more is forgotten with the first write after it went.
            self.kept.domains.retain(|name, _| self.domains.contains_key(name));
            self.kept.inventories.retain(|place, _| self.sources.iter().any(|source| source.known.place == *place));
            if let Err(error) = self.file.write(&self.kept) {
                tracing::warn!("the addresses of names cannot be kept for a restart: {error}");
            }
        }
    }
}

/// Reads the file if it is another one than last time.
async fn look(place: String, last: Option<Stamp>) -> Brought {
    let path = std::path::PathBuf::from(&place);
    match source::stamp(&path).await {
        Err(error) => Brought::File(place, None, Err(error.to_string())),
        Ok(stamp) if Some(stamp) == last => Brought::File(place, last, Ok(None)),
        Ok(stamp) => match source::file(&path).await {
            Ok(hosts) => Brought::File(place, Some(stamp), Ok(Some(hosts))),
            // A half-written file is read again even when it is never touched again.
            Err(error) => Brought::File(place, None, Err(error)),
        },
    }
}

fn known(entry: &Entry) -> DomainKnown {
    DomainKnown {
        learned_at: entry.domain.learned_at,
        valid_until: entry.domain.valid_until,
        left_out: entry.domain.left_out,
        failures: entry.failures,
        error: entry.domain.error.clone(),
    }
}

fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// 0 to 1.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness retries are not spread, which harms nobody.
    getrandom(&mut bytes, GetRandomFlags::empty()).map_or(0.5, |_| f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX))
}
