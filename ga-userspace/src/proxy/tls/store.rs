//! What the workers share: how each HTTPS listener shakes hands, and how endpoints are spoken to.
//!
//! A certificate is read and judged before anybody sees it. When its files change it is read again, once they are quiet; one that
//! cannot be used leaves the one before in place. Connections keep what they began with.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{ClientConfig, crypto::aws_lc_rs::Ticketer, server::ProducesTickets};

use super::{
    certificate::{Certificate, CertificateError, Stamp},
    policy,
    server::{Certificates, Server},
};
use crate::{
    model::{Backend, BackendTls, Certificate as Files, HttpVersion, Intent, Listener as File, Tls, TlsPolicy},
    trust::{self, TrustError},
};

/// How often files are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Handshakes of all listeners.
#[derive(Debug, Default)]
pub struct Store {
    servers: ArcSwap<BTreeMap<String, Arc<Server>>>,
    clients: ArcSwap<Vec<(Backend, Arc<ClientConfig>)>>,
    kept: Mutex<Kept>,
}

/// What the rest is made from.
#[derive(Debug, Default)]
struct Kept {
    listeners: BTreeMap<String, Listener>,
    certificates: BTreeMap<Files, Read<Arc<Certificate>>>,
    clients: Vec<(Backend, Read<Arc<ClientConfig>>)>,
}

/// What was made of files, and how reading them went.
#[derive(Clone, Debug)]
struct Read<T> {
    /// In use.
    good: T,
    /// The state of the files when they were read last; none when they might have changed since without showing it.
    seen: Option<Stamp>,
    /// Why the files as they are cannot be used.
    failure: Option<String>,
    /// How often they could not.
    failures: u64,
}

/// An HTTPS listener.
#[derive(Clone, Debug)]
struct Listener {
    tls: Tls,
    max_version: HttpVersion,
    ticketer: Arc<dyn ProducesTickets>,
}

/// What an intent needs, read and judged; takes effect by [`Store::commit`].
#[derive(Debug)]
pub struct Prepared(Kept);

/// What stands between an intent and its use.
#[derive(Debug, thiserror::Error)]
#[error("{listener}: {why}")]
pub struct Trouble {
    /// `instance/listener`.
    pub listener: String,
    /// The file, as the intent names it; none when no file is at fault.
    pub file: Option<String>,
    /// What is wrong.
    #[source]
    pub why: Why,
}

/// What is wrong with files of a listener.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// With those of a certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// With those that vouch for endpoints.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// With the library.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// A certificate in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// `instance/listener`.
    pub listener: String,
    /// The domain; `default` for the default one.
    pub name: String,
    /// Its file.
    pub file: String,
    /// When it is not good yet, in Unix seconds.
    pub not_before: i64,
    /// When it is not good any more, in Unix seconds.
    pub not_after: i64,
    /// Why the files as they are now cannot be used; the certificate before is in use then.
    pub failure: Option<String>,
    /// How often files could not be used since the agent started.
    pub failures: u64,
}

impl Store {
    /// How the listener of that path shakes hands; none of one that is no HTTPS listener.
    pub fn server(&self, listener: &str) -> Option<Arc<Server>> {
        self.servers.load().get(listener).map(Arc::clone)
    }

    /// How endpoints of groups with that backend are spoken to; none where they are spoken to without TLS.
    pub fn client(&self, backend: &Backend) -> Option<Arc<ClientConfig>> {
        self.clients.load().iter().find(|(known, _)| known == backend).map(|(_, config)| Arc::clone(config))
    }

    /// Reads what `intent` needs and this store has not. A file that was good before and is not now is no trouble: what was read
    /// before goes on. Blocks on files.
    pub fn prepare(&self, intent: &Intent) -> Result<Prepared, Vec<Trouble>> {
        self.look_at(None);
        let mut next = Kept::default();
        let kept = self.kept();
        let mut troubles = Vec::new();
        for (path, file) in proxied(intent) {
            for (named, why) in listener(&path, file, &kept, &mut next) {
                troubles.push(Trouble { listener: path.clone(), file: named, why });
            }
        }
        if troubles.is_empty() { Ok(Prepared(next)) } else { Err(troubles) }
    }

    /// New handshakes are those of the prepared intent from now on.
    pub fn commit(&self, Prepared(mut next): Prepared) {
        let mut kept = self.kept();
        // What was read since it was prepared is newer.
        for (files, read) in &mut next.certificates {
            if let Some(newer) = kept.certificates.get(files) {
                *read = newer.clone();
            }
        }
        *kept = next;
        self.publish(&kept);
    }

    /// Reads again what changed and is quiet. Blocks on files.
    pub fn look(&self, now: SystemTime) {
        self.look_at(Some(now));
    }

    /// Looks every [`LOOK_EVERY`], for ever.
    pub async fn watch(self: Arc<Self>) {
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let store = Arc::clone(&self);
            if let Err(error) = tokio::task::spawn_blocking(move || store.look(SystemTime::now())).await {
                tracing::error!("looking at certificates: {error}");
            }
        }
    }

    /// Every certificate of every listener.
    pub fn report(&self) -> Vec<Report> {
        let kept = self.kept();
        let of_listener = |(path, listener): (&String, &Listener)| {
            let named = named(&listener.tls);
            let report = |(name, files): (&str, &Files)| {
                let read = kept.certificates.get(files)?;
                Some(Report {
                    listener: path.clone(),
                    name: name.to_owned(),
                    file: files.cert.clone(),
                    not_before: read.good.not_before,
                    not_after: read.good.not_after,
                    failure: read.failure.clone(),
                    failures: read.failures,
                })
            };
            named.filter_map(report).collect::<Vec<_>>()
        };
        kept.listeners.iter().flat_map(of_listener).collect()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // No half-made change is left behind by a panic: values are put in place whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With `quiet`, files that changed shortly before are left for the next time.
    fn look_at(&self, quiet: Option<SystemTime>) {
        let mut kept = self.kept();
        let mut changed = false;
        let policies = policies(&kept.listeners);
        for (files, read) in &mut kept.certificates {
            let stamp = || Stamp::of([files.cert.as_str(), files.key.as_str()]);
            let again = |good: &Arc<Certificate>| replacement(files, good, policies.get(files).copied()).map(Arc::new);
            changed |= read.again(&files.cert, quiet, stamp, again);
        }
        for (backend, read) in &mut kept.clients {
            let Some(BackendTls { verify: true, ca: Some(ca) }) = &backend.tls else { continue };
            changed |= read.again(ca, quiet, || Stamp::of([ca.as_str()]), |_| client(backend).map(Arc::new));
        }
        if changed {
            self.publish(&kept);
        }
    }

    fn publish(&self, kept: &Kept) {
        let mut servers = BTreeMap::new();
        for (path, listener) in &kept.listeners {
            match server(listener, &kept.certificates) {
                Ok(Some(server)) => drop(servers.insert(path.clone(), Arc::new(server))),
                Ok(None) => {}
                Err(error) => tracing::error!("{path}: TLS: {error}"),
            }
        }
        self.servers.store(Arc::new(servers));
        let clients = kept.clients.iter().map(|(backend, read)| (backend.clone(), Arc::clone(&read.good)));
        self.clients.store(Arc::new(clients.collect()));
    }
}

impl<T> Read<T> {
    fn first(good: T, stamp: Stamp) -> Self {
        let seen = Some(stamp).filter(|stamp| !stamp.is_fresh(SystemTime::now()));
        Self { good, seen, failure: None, failures: 0 }
    }

    /// Whether there is something new in use.
    fn again<E: std::fmt::Display>(
        &mut self,
        file: &str,
        quiet: Option<SystemTime>,
        stamp: impl Fn() -> Stamp,
        read: impl FnOnce(&T) -> Result<T, E>,
    ) -> bool {
        let before = stamp();
        if self.seen.as_ref() == Some(&before) || quiet.is_some_and(|now| before.is_fresh(now)) {
            return false;
        }
        let read = read(&self.good);
        if stamp() != before {
            return false;
        }
        // Without a clock to compare with, the same state may still change.
        self.seen = quiet.map(|_| before);
        match read {
            Ok(good) => {
                if self.failure.take().is_some() || quiet.is_some() {
                    tracing::info!("{file}: read again");
                }
                self.good = good;
                true
            }
            Err(error) => {
                let error = error.to_string();
                if self.failure.as_ref() != Some(&error) {
                    tracing::warn!("{error}; what was read before stays in use");
                    self.failures += 1;
                }
                self.failure = Some(error);
                false
            }
        }
    }
}

/// HTTP and HTTPS listeners by their paths.
fn proxied(intent: &Intent) -> impl Iterator<Item = (String, &File)> {
    let http = intent.listeners().filter(|(_, listener)| listener.protocol.is_http());
    http.map(|(instance, listener)| (format!("{}/{}", instance.id, listener.name), listener))
}

/// Every certificate of a listener with what it is called.
pub(super) fn named(tls: &Tls) -> impl Iterator<Item = (&str, &Files)> {
    let additional = tls.additional.iter().map(|(domain, files)| (domain.as_str(), files));
    std::iter::once(("default", &tls.default)).chain(additional)
}

/// Takes over or reads what one listener needs; what is wrong with it.
fn listener(path: &str, file: &File, kept: &Kept, next: &mut Kept) -> Vec<(Option<String>, Why)> {
    let mut wrong = Vec::new();
    for (_, files) in file.tls.iter().flat_map(named) {
        let known = next.certificates.get(files).or_else(|| kept.certificates.get(files)).cloned();
        let read = known.map_or_else(|| first(files), Ok);
        let judged = read.and_then(|read| {
            fits(files, &read.good, file.tls.as_ref().map(|tls| tls.policy))?;
            Ok(read)
        });
        match judged {
            Ok(read) => drop(next.certificates.insert(files.clone(), read)),
            Err(error) => wrong.push((Some(files.cert.clone()), error.into())),
        }
    }
    let backends = file.groups.iter().map(|group| &group.backend).filter(|backend| backend.tls.is_some());
    for backend in backends {
        let is_same = |(known, _): &&(Backend, Read<_>)| known == backend;
        if next.clients.iter().any(|known| is_same(&known)) {
            continue;
        }
        let known = kept.clients.iter().find(is_same).map(|(_, read)| read.clone());
        match known.map_or_else(|| first_client(backend), Ok) {
            Ok(read) => next.clients.push((backend.clone(), read)),
            Err(error) => wrong.push((backend.tls.as_ref().and_then(|tls| tls.ca.clone()), error.into())),
        }
    }
    if let Some(tls) = &file.tls {
        let ticketer = kept.listeners.get(path).map_or_else(Ticketer::new, |before| Ok(Arc::clone(&before.ticketer)));
        let max_version = file.http.as_ref().map(|http| http.max_version).unwrap_or_default();
        match ticketer {
            Ok(ticketer) => drop(next.listeners.insert(path.to_owned(), Listener { tls: tls.clone(), max_version, ticketer })),
            Err(error) => wrong.push((None, error.into())),
        }
    }
    wrong
}

fn first(files: &Files) -> Result<Read<Arc<Certificate>>, CertificateError> {
    let stamp = Stamp::of([files.cert.as_str(), files.key.as_str()]);
    Ok(Read::first(Arc::new(Certificate::read(files)?), stamp))
}

fn first_client(backend: &Backend) -> Result<Read<Arc<ClientConfig>>, TrustError> {
    let ca = backend.tls.as_ref().and_then(|tls| tls.ca.as_deref());
    let stamp = Stamp::of(ca);
    Ok(Read::first(Arc::new(client(backend)?), stamp))
}

fn client(backend: &Backend) -> Result<ClientConfig, TrustError> {
    let (verify, ca) = backend.tls.as_ref().map_or((true, None), |tls| (tls.verify, tls.ca.as_deref()));
    let protocol: &[u8] = if backend.http2 { b"h2" } else { b"http/1.1" };
    trust::client(verify, ca.map(Path::new), &[protocol])
}

/// What the files have now, if it may take the place of `before`.
fn replacement(files: &Files, before: &Certificate, policy: Option<TlsPolicy>) -> Result<Certificate, CertificateError> {
    let new = Certificate::read(files)?;
    fits(files, &new, policy)?;
    let now = unix_seconds(SystemTime::now());
    if new.not_after < now && before.is_valid_at(now) {
        return Err(CertificateError::Expired { path: (&files.cert).into() });
    }
    Ok(new)
}

/// Whether a policy has suites for a certificate.
pub(super) fn fits(files: &Files, certificate: &Certificate, policy: Option<TlsPolicy>) -> Result<(), CertificateError> {
    match policy.filter(|policy| policy::is_for_rsa_only(*policy) && !certificate.is_rsa()) {
        Some(policy) => Err(CertificateError::Policy { path: (&files.key).into(), word: policy.word() }),
        None => Ok(()),
    }
}

/// The narrowest policy that each certificate must serve.
fn policies(listeners: &BTreeMap<String, Listener>) -> BTreeMap<Files, TlsPolicy> {
    let mut policies = BTreeMap::new();
    for listener in listeners.values() {
        for (_, files) in named(&listener.tls) {
            let policy = policies.entry(files.clone()).or_insert(listener.tls.policy);
            *policy = (*policy).min(listener.tls.policy);
        }
    }
    policies
}

fn server(listener: &Listener, certificates: &BTreeMap<Files, Read<Arc<Certificate>>>) -> Result<Option<Server>, rustls::Error> {
    let of = |files: &Files| certificates.get(files).map(|read| Arc::clone(&read.good));
    let Some(default) = of(&listener.tls.default) else { return Ok(None) };
    let additional = listener.tls.additional.iter().filter_map(|(domain, files)| Some((domain.clone(), of(files)?)));
    let certificates = Certificates::new(default, additional);
    Server::new(listener.tls.policy, listener.max_version, certificates, Arc::clone(&listener.ticketer)).map(Some)
}

pub(super) fn unix_seconds(now: SystemTime) -> i64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
