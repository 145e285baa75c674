//! Files that the configuration names, in the agent: judged before a configuration takes effect, and looked at while it runs.

use super::{Agent, Error};
use crate::{
    config::{
        self,
        problem::{self, Severity},
    },
    model::Intent,
    proxy::tls::{Report, Store, Trouble},
};

/// A certificate that ends within this time is named, in seconds.
const SOON: i64 = 14 * 24 * 3_600;

const HELP: &str = "PEM, readable by the agent; `ga check` says more";

/// What keeps files from being used that `loaded` names, as problems of its text.
pub(super) fn check(store: &Store, loaded: &config::Loaded, text: &str) -> Result<(), Error> {
    let Err(troubles) = store.prepare(&loaded.intent) else { return Ok(()) };
    let of_file = |trouble: &Trouble| {
        let file = trouble.file.as_deref()?;
        config::problem_of_file(loaded, file, Severity::Error, &trouble.why.to_string(), HELP)
    };
    let mut problems: Vec<_> = troubles.iter().filter_map(of_file).collect();
    problems.sort_by_key(|problem| problem.place.offset);
    problems.dedup();
    let omitted = troubles.len().saturating_sub(problems.len());
    let report = Box::new(problem::Report { problems, omitted, warnings: Vec::new() });
    Err(Error::Config { report, text: text.to_owned() })
}

/// New handshakes are those of `intent` from now on.
pub(super) fn apply(store: &Store, intent: &Intent) {
    match store.prepare(intent) {
        Ok(prepared) => store.commit(prepared),
        // They were judged a moment ago: somebody took them away since.
        Err(troubles) => troubles.iter().for_each(|trouble| tracing::error!("{trouble}")),
    }
}

impl Agent {
    /// Looks at the files from now on.
    pub(super) fn watch_certificates(&mut self) {
        let store = std::sync::Arc::clone(&self.proxy.shared().tls);
        self.tasks.spawn(store.watch());
    }

    /// What an operator should know of certificates, in sentences.
    pub(super) fn certificate_warnings(&self) -> Vec<String> {
        let now = i64::try_from(super::clock::unix()).unwrap_or(i64::MAX);
        let mut warnings = Vec::new();
        for Report { listener, name, file, not_after, failure, .. } in self.proxy.shared().tls.report() {
            if let Some(failure) = failure {
                warnings.push(format!("{listener}: the certificate of {name} stays as it was: {failure}"));
            }
            if not_after < now {
                warnings.push(format!("{listener}: the certificate of {name} has expired: {file}"));
            } else if not_after < now + SOON {
                let days = (not_after - now) / (24 * 3_600) + 1;
                warnings.push(format!("{listener}: the certificate of {name} expires within {days} days: {file}"));
            }
        }
        for (instance, listener) in self.intent.listeners() {
            for group in &listener.groups {
                if group.backend.tls.as_ref().is_some_and(|tls| !tls.verify) {
                    let name = &group.name;
                    warnings.push(format!(
                        "{}/{}: certificates of the endpoints of {name} are not verified",
                        instance.id, listener.name
                    ));
                }
            }
        }
        warnings
    }
}
