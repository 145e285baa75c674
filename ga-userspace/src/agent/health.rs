//! Health in the agent: the prober's reports become beliefs, beliefs become a plan, and verdicts outlive a restart.

use std::{
    collections::BTreeSet,
    fs, io,
    io::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::task::{JoinHandle, spawn_blocking};

use super::{Agent, Error, names};
use crate::{
    health::{Beliefs, Book, Kept, Prober, Report, Roster},
    model::{EndpointName, Name},
    net::Net,
    status,
};

/// The prober, and what is kept of it.
pub(super) struct Health {
    prober: Prober,
    roster: Arc<Roster>,
    latest: Arc<Report>,
    file: PathBuf,
    /// What the file holds, or will.
    saved: Kept,
    saving: Option<JoinHandle<io::Result<()>>>,
    /// Why probes cannot leave with an address, by address.
    homeless: Vec<String>,
}

/// What is known before the first probe.
pub(super) struct Begun {
    book: Book,
    roster: Arc<Roster>,
    file: PathBuf,
    kept: Kept,
}

impl Begun {
    /// Reads the verdicts of before: an endpoint that was down when the agent stopped is down when it starts.
    pub(super) fn read(state_dir: &Path, roster: Roster, panic_threshold: Option<u8>) -> Result<Self, Error> {
        let file = state_dir.join("health.json");
        let error = |source| Error::State { path: file.clone(), source };
        let kept: Kept = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| error(source.into()))?,
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(source) => return Err(error(source)),
        };
        let roster = Arc::new(roster);
        let book = Book::new(Arc::clone(&roster), panic_threshold, &kept, Duration::ZERO);
        Ok(Self { book, roster, file, kept })
    }

    /// What the first plan is told.
    pub(super) fn beliefs(&self) -> Beliefs {
        self.book.report(Duration::ZERO).beliefs(&self.roster)
    }

    /// Begins to probe, with the addresses that probes leave with.
    pub(super) async fn start(self, net: &mut Net, served: BTreeSet<IpAddr>) -> Result<Health, Error> {
        let Self { book, roster, file, kept } = self;
        let homeless = house(net, &roster, served).await;
        let prober = Prober::start(book).map_err(|source| Error::System { what: "the prober's thread", source })?;
        Ok(Health { latest: prober.latest(), prober, roster, file, saved: kept, saving: None, homeless })
    }
}

/// Makes the addresses that probes leave with, and `served` ones of the proxy, this host's own, so that packets to them arrive; gives
/// back those that nobody uses. What could not be done.
async fn house(net: &mut Net, roster: &Roster, mut served: BTreeSet<IpAddr>) -> Vec<String> {
    served.extend(roster.sources());
    let failed = net.own(&served).await;
    let troubles = failed
        .into_iter()
        .map(|(address, why)| {
            format!("{address} cannot be made an address of this host: probes and the proxy cannot use it: {why}")
        })
        .collect::<Vec<_>>();
    for trouble in &troubles {
        tracing::error!("{trouble}");
    }
    troubles
}

impl Health {
    /// Waits for news.
    pub(super) async fn changed(&mut self) -> Arc<Report> {
        self.prober.changed().await
    }

    /// Who is probed.
    pub(super) fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// What a plan of `intent` is told.
    pub(super) fn beliefs(&self, roster: &Roster) -> Beliefs {
        self.latest.beliefs(roster)
    }

    /// What an operator should know.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        let panics = self.latest.panics.iter().map(|(instance, panic)| {
            format!(
                "{} of {} endpoints of {instance} began to fail at once: this host is suspected, and nobody is taken out",
                panic.suspects, panic.checks
            )
        });
        panics.chain(self.homeless.iter().cloned())
    }

    /// Writes down what is believed, if that changed and the last writing is done.
    fn save(&mut self) {
        if self.saving.as_ref().is_some_and(|saving| !saving.is_finished()) {
            return;
        }
        let kept = self.latest.kept();
        if kept.verdicts != self.saved.verdicts || kept.orders.priority() != self.saved.orders.priority() {
            let (file, bytes) = (self.file.clone(), serde_json::to_vec(&kept).unwrap_or_default());
            self.saving = Some(spawn_blocking(move || {
                let result = write(&file, &bytes);
                if let Err(error) = &result {
                    tracing::error!("{}: {error}; a restart will not know these verdicts", file.display());
                }
                result
            }));
            self.saved = kept;
        }
    }
}

/// All of it or nothing.
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = file.with_extension("new");
    let mut open = fs::File::create(&new)?;
    open.write_all(bytes)?;
    open.sync_all()?;
    fs::rename(&new, file)
}

impl Agent {
    /// The view of an endpoint.
    pub(super) fn health_of(&self, endpoint: &EndpointName) -> Option<status::Health> {
        let seen = self.health.latest.of(endpoint)?;
        Some(status::Health {
            healthy: seen.up,
            for_s: self.health.prober.age(seen.since).as_secs(),
            suspect: seen.suspect,
            failure: seen.failure.as_ref().map(ToString::to_string),
            round_trip_ms: seen.round_trip.map(|time| time.as_secs_f64() * 1e3),
            share_percent: seen.share_percent,
            held_for_s: seen.held_until.map(|until| self.health.prober.left(until).as_secs()),
        })
    }

    /// The view of all probes.
    pub(super) fn probes(&self) -> status::Probes {
        let report = &self.health.latest;
        let instances: BTreeSet<&Name> = report.roster.checks.iter().map(|check| &check.instance).collect();
        let panic = |name: &&Name| (name.to_string(), report.panics.contains_key(*name));
        status::Probes {
            checks: report.seen.len() as u64,
            results: report.probes.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect(),
            late_ms: report.pace.lateness(0.01).as_millis() as u64,
            largest_bunch: report.pace.largest_bunch as u64,
            panic: instances.iter().map(panic).collect(),
        }
    }

    /// Takes a report: when new flows must go elsewhere, they do from now on.
    pub(super) async fn judge(&mut self, report: Arc<Report>) {
        self.health.latest = report;
        let beliefs = self.believed(&self.health.roster);
        let same = beliefs.endpoints == self.beliefs.endpoints && beliefs.priority == self.beliefs.priority;
        if !same && let Err(error) = self.believe(&beliefs).await {
            // The next report comes within a second.
            tracing::error!("health: {error}");
            return;
        }
        self.beliefs = beliefs;
        self.health.save();
    }

    /// The same intent with other beliefs. The endpoints stay, so their next hops are known.
    pub(super) async fn believe(&mut self, beliefs: &Beliefs) -> Result<(), Error> {
        let plan = names::plan(&self.intent, &self.overrides, &self.addresses, beliefs, self.data_path.running())?;
        self.data_path.apply(&plan, Some(&self.plan)).await?;
        tracing::info!(generation = plan.generation.0, "applied what is believed of health");
        self.plan = plan;
        self.serve();
        Ok(())
    }

    /// Makes the addresses of probes, and `served` ones, this host's own.
    pub(super) async fn house(&mut self, served: BTreeSet<IpAddr>) {
        self.health.homeless = house(&mut self.net, &self.health.roster, served).await;
    }

    /// Probes what a new intent asks for.
    pub(super) async fn probe(&mut self, roster: Roster) {
        if *self.health.roster != roster {
            self.health.roster = Arc::new(roster);
        }
        self.house(self.served_addresses()).await;
        self.health.prober.want(Arc::clone(&self.health.roster), self.intent.node.panic_threshold);
    }
}
