//! What clients' packets say of endpoints that nobody probes: the kernel counts flows that were not answered, and whoever fails too
//! often is left alone for a while.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ga_common::abi::{id::EndpointId, reason::Event};

use super::{Agent, Error};
use crate::{
    health::{Beliefs, Passive, Roster},
    maps::Counters,
    model::EndpointName,
    plan::{EndpointView, ListenerView, Plan},
};

/// How often failures are looked at.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// Failures that were counted, and what follows from them.
pub(super) struct Failures {
    passive: Passive,
    /// Somebody is paused, or is not any more, and the plan does not know it.
    is_news: bool,
    /// What the counters said the last time.
    all: u64,
    by_endpoint: BTreeMap<EndpointId, u64>,
}

impl Failures {
    /// From now on; what was counted before is of no account.
    pub(super) fn new(counters: &Counters, plan: &Plan) -> Result<Self, Error> {
        let mut failures = Self {
            passive: Passive::default(),
            is_news: false,
            all: counters.event(Event::EndpointFailed)?,
            by_endpoint: BTreeMap::new(),
        };
        if failures.all > 0 {
            for endpoint in plan.listeners.iter().flat_map(|listener| &listener.endpoints) {
                failures.by_endpoint.insert(endpoint.id, counters.endpoint(endpoint.id)?.failures);
            }
        }
        Ok(failures)
    }

    /// Reads the counters, if any has changed; returns who failed how often since the last time.
    fn read(&mut self, counters: &Counters, plan: &Plan) -> Result<Vec<(EndpointName, u64)>, Error> {
        let all = counters.event(Event::EndpointFailed)?;
        let new = all.saturating_sub(self.all);
        if new == 0 {
            return Ok(Vec::new());
        }
        self.all = all;
        let mut failed = Vec::new();
        for endpoint in plan.listeners.iter().flat_map(unchecked) {
            let count = counters.endpoint(endpoint.id)?.failures;
            let before = self.by_endpoint.insert(endpoint.id, count).unwrap_or(0);
            // An endpoint with the number of a former one may begin with its count.
            let since = count.saturating_sub(before).min(new);
            if since > 0 {
                failed.push((endpoint.name.clone(), since));
            }
        }
        Ok(failed)
    }
}

/// The endpoints of groups that nobody probes.
fn unchecked(listener: &ListenerView) -> impl Iterator<Item = &EndpointView> {
    let groups: BTreeSet<_> = listener.groups.iter().filter(|group| !group.checked).map(|group| &group.name).collect();
    listener.endpoints.iter().filter(move |endpoint| groups.contains(&endpoint.name.group))
}

impl Agent {
    /// All that a plan of `roster`'s intent is told.
    pub(super) fn believed(&self, roster: &Roster) -> Beliefs {
        let mut beliefs = self.health.beliefs(roster);
        self.failures.passive.tell(&mut beliefs);
        beliefs
    }

    /// Pauses who failed too often, and ends pauses that are over.
    pub(super) async fn look(&mut self) {
        let now = self.started.elapsed();
        match self.failures.read(self.data_path.counters(), &self.plan) {
            Ok(failed) => {
                for (name, count) in failed {
                    if self.failures.passive.failed(&name, count, now) {
                        self.failures.is_news = true;
                        tracing::warn!(endpoint = %name, "does not answer clients, and is left alone for a while");
                    }
                }
            }
            Err(error) => tracing::error!("failures of endpoints: {error}"),
        }
        for name in self.failures.passive.end(now) {
            tracing::info!(endpoint = %name, "is tried again");
            self.failures.is_news = true;
        }
        if !self.failures.is_news {
            return;
        }
        let roster = Arc::clone(self.health.roster());
        let beliefs = self.believed(&roster);
        match self.believe(&beliefs).await {
            Ok(()) => (self.beliefs, self.failures.is_news) = (beliefs, false),
            // The next look comes soon.
            Err(error) => tracing::error!("failures of endpoints: {error}"),
        }
    }
}
