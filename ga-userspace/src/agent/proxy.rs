//! The proxy in the agent: every plan becomes its view.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    thread::available_parallelism,
    time::Duration,
};

use super::{Agent, Error, certificates};
use crate::{
    model::{Action, Intent, Listener, Node},
    plan::{self, EndpointView},
    proxy::{
        self, Proxy, View,
        counts::{Count, Reason, Reasons},
        tls,
    },
    status::{Certificate, Circuit, Proxied, ProxiedEndpoint, RuleHits},
};

pub(super) fn start(node: &Node) -> Result<Proxy, Error> {
    let threads = node.proxy_threads.map_or_else(|| available_parallelism().map_or(1, usize::from), usize::from);
    Proxy::start(threads).map_err(|source| Error::System { what: "threads of the proxy", source })
}

/// What the proxy's sockets need: the addresses of every instance that it serves listeners of.
pub(super) fn addresses(intent: &Intent) -> BTreeSet<IpAddr> {
    let served = intent.instances.iter().filter(|instance| instance.listeners.iter().any(Listener::is_proxied));
    served.flat_map(|instance| instance.vips.iter().chain(&instance.egress_ips)).copied().collect()
}

/// Lets connections end; those that have not after `patience` are cut.
pub(super) async fn stop(proxy: Proxy, patience: Duration) {
    let open = proxy.connections();
    if open > 0 {
        tracing::info!(open, "waiting for connections of http and https listeners to end");
    }
    if let Ok(cut @ 1..) = tokio::task::spawn_blocking(move || proxy.stop(patience)).await {
        tracing::warn!(cut, "connections that had not ended were cut");
    }
}

impl Agent {
    /// Gets ready for what `intent` has the proxy serve, before the maps send packets there: the addresses are this host's own, and
    /// connections wait at sockets.
    pub(super) async fn expect(&mut self, intent: &Intent) {
        let new = addresses(intent);
        let mut both = self.served_addresses();
        if !new.is_subset(&both) {
            both.extend(new);
            self.house(both).await;
        }
        let served = intent.listeners().filter(|(_, listener)| listener.is_proxied());
        self.proxy.expect(served.flat_map(|(instance, listener)| proxy::addresses(instance, listener)));
    }

    /// The addresses of what the proxy serves, and of what it served when connections of it are open.
    pub(super) fn served_addresses(&self) -> BTreeSet<IpAddr> {
        let mut all = addresses(&self.intent);
        for listener in self.proxy.shared().view.load().leaving.values() {
            all.extend(listener.addresses.iter().map(SocketAddr::ip).chain(listener.egress.addresses.iter().copied()));
        }
        all
    }

    /// The proxy serves what the plan says.
    pub(super) fn serve(&mut self) {
        let (whole, _) = plan::resolved(&self.intent, &self.addresses);
        // A listener must have its certificates when its first client comes.
        certificates::apply(&self.proxy.shared().tls, &self.intent);
        let before = self.proxy.shared().view.load_full();
        let view = View::new(&self.plan, &whole, &before);
        self.unbound = self.proxy.apply(view);
        self.kept.follow(self.proxy.sockets());
        for unbound in &self.unbound {
            tracing::error!("{unbound}");
        }
    }

    /// When connections of listeners that the proxy serves no more have ended, nothing is kept for them.
    pub(super) async fn end_leaving(&mut self) {
        let view = self.proxy.shared().view.load_full();
        if view.leaving.values().any(|listener| listener.counts.active.get() > 0) {
            return;
        }
        self.data_path.end_former().await;
        if !view.leaving.is_empty() {
            self.serve();
            self.house(self.served_addresses()).await;
        }
    }

    /// Certificates of HTTPS listeners.
    pub(super) fn certificates(&self) -> Vec<Certificate> {
        let of_store = |report: tls::Report| Certificate {
            listener: report.listener,
            name: report.name,
            not_after: report.not_after,
            failure: report.failure,
            failures: report.failures,
        };
        self.proxy.shared().tls.report().into_iter().map(of_store).collect()
    }

    /// Lines of the access log that were lost.
    pub(super) fn access_log_lost(&self) -> u64 {
        self.proxy.shared().view.load().log.as_ref().map_or(0, |log| log.lost.get())
    }

    /// What was done for the listener of that path, if the proxy serves it.
    pub(super) fn proxied(&self, path: &str) -> Option<Proxied> {
        let view = self.proxy.shared().view.load();
        let listener = view.listeners.get(path)?;
        let counts = &listener.counts;
        let hits = |(rule, counts): (&crate::model::Rule, &std::sync::Arc<proxy::counts::RuleCounts>)| RuleHits {
            rule: rule.name.to_string(),
            priority: rule.priority,
            does: does(&rule.action),
            hits: counts.hits.get(),
        };
        let own = self.unbound.iter().filter(|unbound| listener.addresses.contains(&unbound.address));
        Some(Proxied {
            connections: counts.connections.get(),
            active: counts.active.get(),
            max_connections: listener.file.max_connections.into(),
            requests: counts.requests.get(),
            statuses: statuses(&counts.statuses),
            bytes_in: counts.bytes_in.get(),
            bytes_out: counts.bytes_out.get(),
            retries: counts.retries.get(),
            failures: failures(&counts.reasons),
            rules: listener.file.rules.iter().zip(&listener.rules).map(hits).collect(),
            circuits: listener.groups.iter().map(circuit).collect(),
            trouble: own.map(ToString::to_string).collect(),
        })
    }

    /// What the endpoint did for the proxy, if that serves its listener.
    pub(super) fn proxied_endpoint(&self, endpoint: &EndpointView) -> Option<ProxiedEndpoint> {
        let view = self.proxy.shared().view.load();
        let listener = view.listeners.get(&format!("{}/{}", endpoint.name.instance, endpoint.name.listener))?;
        let counts = &listener.endpoints.iter().find(|other| other.identity == endpoint.identity)?.counts;
        Some(ProxiedEndpoint {
            connections: counts.connections.get(),
            reused: counts.reused.get(),
            active: counts.active.get(),
            requests: counts.requests.get(),
            statuses: statuses(&counts.statuses),
            bytes_in: counts.bytes_in.get(),
            bytes_out: counts.bytes_out.get(),
            failures: failures(&counts.reasons),
        })
    }
}

/// What a rule does, in a few words.
fn does(action: &Action) -> String {
    match action {
        Action::Forward(groups) => {
            format!("forward to {}", groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
        Action::Redirect(redirect) => format!("redirect {}", redirect.code),
        Action::Fixed(fixed) => format!("fixed response {}", fixed.code),
        Action::Drop => "drop".to_owned(),
    }
}

fn circuit(group: &proxy::Group) -> Circuit {
    let (load, most) = (&group.load, group.circuit);
    Circuit {
        group: group.name.to_string(),
        connections: [load.connections(), most.connections],
        requests: [load.requests(), most.requests],
        refused: load.refused.get(),
    }
}

/// Those that happened.
fn statuses(counts: &[Count; 5]) -> BTreeMap<String, u64> {
    let named = counts.iter().zip(1..).map(|(count, class): (_, u8)| (format!("{class}xx"), count.get()));
    named.filter(|(_, count)| *count > 0).collect()
}

/// Those that happened.
fn failures(reasons: &Reasons) -> BTreeMap<String, u64> {
    let named = Reason::ALL.into_iter().map(|reason| (reason.word().to_owned(), reasons.get(reason)));
    named.filter(|(_, count)| *count > 0).collect()
}
