//! Names in the file: the plan follows what they stand for, and status says what is known of them.

use std::time::{Duration, Instant};

use super::{Agent, Error, clock, seed};
use crate::{
    health::{Beliefs, Roster},
    model::{Intent, Target},
    plan::{self, EndpointView, Note, Overrides, Plan, State},
    resolve::{Addresses, Known},
    status,
};

/// How long a start or a reload waits for names that were never asked for.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Plans `intent` with what its names stand for.
pub(super) fn plan(
    intent: &Intent,
    overrides: &Overrides,
    addresses: &Addresses,
    beliefs: &Beliefs,
    running: &State,
) -> Result<Plan, Error> {
    let (whole, missing) = plan::resolved(intent, addresses);
    let mut plan = plan::build(&whole, overrides, beliefs, running, seed(intent, running)?)?;
    plan.notes.extend(missing.into_iter().map(Note::Missing));
    Ok(plan)
}

/// Who is probed, with what names stand for.
pub(super) fn roster(intent: &Intent, addresses: &Addresses) -> Roster {
    Roster::of(&plan::resolved(intent, addresses).0)
}

impl Agent {
    /// Plans anew when names stand for something else than the plan took them for. Established flows stay where they are.
    pub(super) async fn follow_names(&mut self) {
        if self.resolver.known().addresses == self.addresses {
            return;
        }
        if let Err(error) = self.apply(self.intent.clone(), self.overrides.clone()).await {
            tracing::error!("names stand for something else, and the plan cannot follow: {error}");
        }
    }

    /// What is known of the names in the file.
    pub(super) fn known_names(&self) -> Vec<status::Name> {
        let known = self.resolver.known();
        let domains = known.domains.iter().map(|(name, domain)| status::Name {
            source: status::Source::Dns,
            name: name.clone(),
            addresses: known.addresses.domains.get(name).into_iter().flatten().map(ToString::to_string).collect(),
            left_out: domain.left_out as u64,
            age_s: domain.learned_at.map(age),
            ttl_s: domain.valid_until.map(left),
            failures: domain.failures,
            error: domain.error.clone(),
        });
        let sources = known.sources.iter().map(|source| status::Name {
            source: source_of(source.origin),
            name: source.place.clone(),
            addresses: Vec::new(),
            left_out: 0,
            age_s: source.learned_at.map(age),
            ttl_s: None,
            failures: source.failures,
            error: source.error.clone(),
        });
        domains.chain(sources).collect()
    }

    /// Where the address of an endpoint is from.
    pub(super) fn origin(&self, view: &EndpointView) -> status::Origin {
        let Some(target) = &view.found_by else { return status::Origin::default() };
        let known = self.resolver.known();
        match target {
            Target::Domain(name) => {
                let domain = known.domains.get(name).cloned().unwrap_or_default();
                status::Origin {
                    source: status::Source::Dns,
                    name: Some(name.clone()),
                    age_s: domain.learned_at.map(age),
                    ttl_s: domain.valid_until.map(left),
                    error: domain.error,
                }
            }
            Target::Host { name, .. } => host(&known, name),
            Target::Pool(name) => {
                status::Origin { source: status::Source::ServerGroup, name: Some(name.to_string()), ..status::Origin::default() }
            }
        }
    }
}

fn host(known: &Known, name: &str) -> status::Origin {
    let origin = known.hosts.get(name).copied();
    let source = known.sources.iter().find(|source| Some(source.origin) == origin);
    status::Origin {
        source: origin.map_or(status::Source::Inventory, source_of),
        name: Some(name.to_owned()),
        age_s: source.and_then(|source| source.learned_at).map(age),
        ttl_s: None,
        error: source.and_then(|source| source.error.clone()),
    }
}

fn source_of(origin: crate::resolve::Origin) -> status::Source {
    match origin {
        crate::resolve::Origin::Static => status::Source::Inventory,
        crate::resolve::Origin::File => status::Source::InventoryFile,
        crate::resolve::Origin::Url => status::Source::InventoryUrl,
    }
}

fn age(learned_at: u64) -> u64 {
    clock::unix().saturating_sub(learned_at)
}

/// Seconds until then; 0 when it is over.
fn left(until: Instant) -> u64 {
    until.saturating_duration_since(Instant::now()).as_secs()
}
