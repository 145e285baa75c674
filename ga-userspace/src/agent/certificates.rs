//! Files that the configuration names, in the agent: judged before a configuration takes effect, and looked at while it runs.

use super::{Agent, Error};
use crate::{
    config::{
        self,
        problem::{Report, Severity},
    },
    model::Intent,
    proxy::tls::Store,
};

const HELP: &str = "PEM, readable by the agent; `ga check` says more";

/// What keeps files from being used that `loaded` names, as problems of its text.
pub(super) fn check(store: &Store, loaded: &config::Loaded, text: &str) -> Result<(), Error> {
    let Err(troubles) = store.prepare(&loaded.intent) else { return Ok(()) };
    let problem = |trouble: &crate::proxy::tls::Trouble| {
        let file = trouble.file.as_deref()?;
        config::problem_of_file(loaded, file, Severity::Error, &trouble.why.to_string(), HELP)
    };
    let mut problems: Vec<_> = troubles.iter().filter_map(problem).collect();
    problems.sort_by_key(|problem| problem.place.offset);
    problems.dedup();
    let omitted = troubles.len().saturating_sub(problems.len());
    let report = Box::new(Report { problems, omitted, warnings: Vec::new() });
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
}
