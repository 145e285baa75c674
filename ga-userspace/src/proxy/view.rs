//! The plan as the proxy reads it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    sync::Arc,
};

use http::HeaderValue;

use super::{
    circuit::Load,
    counts::{EndpointCounts, ListenerCounts, RuleCounts},
    log::Log,
    rules::Matcher,
};
use crate::{
    model::{self, Affinity, Backend, Circuit, ClientIp, EndpointKind, EndpointName, Intent, Name, Target as FoundBy},
    plan::{Family, ListenerView, Plan, TargetView, Wheel, number_of},
};

/// Everything that the proxy serves; never changed, only swapped for another.
#[derive(Debug, Default)]
pub struct View {
    /// The plan's.
    pub generation: u64,
    /// This edge's access point.
    pub ap: String,
    /// Connections of clients at a time, over all listeners.
    pub connections: usize,
    /// Where requests are written to when they have ended.
    pub log: Option<Arc<Log>>,
    /// By their paths.
    pub listeners: BTreeMap<String, Arc<Listener>>,
    /// Those that are served no more and may have connections, as they were last.
    pub leaving: BTreeMap<String, Arc<Listener>>,
    by_address: BTreeMap<SocketAddr, Arc<Listener>>,
    /// Of those that speak HTTP/3.
    by_quic: BTreeMap<SocketAddr, Arc<Listener>>,
}

/// A listener that the agent serves.
#[derive(Debug)]
pub struct Listener {
    /// `instance/listener`.
    pub path: String,
    /// The instance.
    pub instance: Name,
    /// What the file says of it; its endpoints and groups are below.
    pub file: model::Listener,
    /// Where clients connect: every VIP at every port.
    pub addresses: Vec<SocketAddr>,
    /// Where connections to endpoints come from.
    pub egress: Egress,
    /// In file order.
    pub groups: Vec<Group>,
    /// Of all groups.
    pub endpoints: Vec<Endpoint>,
    /// The default one first, then one for each rule that forwards, in the order of the rules.
    pub targets: Vec<Target>,
    /// Which rule applies; those of [`Self::file`] in the same order.
    pub matcher: Arc<Matcher>,
    /// That clients may come by HTTP/3 too (`Alt-Svc`, RFC 9114 §3.1.1); none where they may not.
    pub alternative: Option<HeaderValue>,
    /// What happened here, since the agent began.
    pub counts: Arc<ListenerCounts>,
    /// The same of each rule, in their order.
    pub rules: Vec<Arc<RuleCounts>>,
    seed: [u64; 2],
}

/// Where clients of a listener connect: every VIP at every port.
pub fn addresses(instance: &model::Instance, file: &model::Listener) -> impl Iterator<Item = SocketAddr> {
    instance.vips.iter().flat_map(|vip| file.ports.iter().map(|port| (*vip, port.get()).into()))
}

/// Where connections to endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    /// The instance's.
    pub addresses: Vec<IpAddr>,
    /// Ports that no flow has: what comes back to them is for this host.
    pub ports: RangeInclusive<u16>,
}

/// An endpoint group.
#[derive(Debug)]
pub struct Group {
    /// Its name.
    pub name: Name,
    /// What its endpoints are spoken to with.
    pub backend: Backend,
    /// How they are told about clients.
    pub client_ip: ClientIp,
    /// What they are asked at a time.
    pub circuit: Circuit,
    /// What they have, and what was refused.
    pub load: Arc<Load>,
}

/// Somebody who answers.
#[derive(Debug)]
pub struct Endpoint {
    /// Its name.
    pub name: EndpointName,
    /// Its stable number: pools of connections go by it.
    pub identity: u64,
    /// Its place in [`Listener::groups`].
    pub group: usize,
    /// The domain that it was found by.
    pub domain: Option<String>,
    /// The host that it answers for, whatever the client asked for: an object store knows its buckets by their domains, and no other.
    pub own_host: Option<String>,
    /// New requests may go there, as far as is known.
    is_up: bool,
    /// How often that became so again, since the agent began.
    pub returns: u64,
    /// What happened with it, since the agent began.
    pub counts: Arc<EndpointCounts>,
}

/// Who new requests or connections go to.
#[derive(Debug)]
pub struct Target {
    /// The rule that forwards there; none for what no rule applies to.
    pub rule: Option<Name>,
    view: TargetView,
    wheels: BTreeMap<Family, Arc<Wheel>>,
}

impl View {
    /// What `plan` has for the proxy; `intent` is what it was made from, with what names stand for. Tables of `before` that would be
    /// the same are used again.
    pub fn new(plan: &Plan, intent: &Intent, before: &Self) -> Self {
        let served = intent.listeners().filter(|(_, listener)| listener.is_proxied());
        let ports = intent.node.proxy_ports();
        let listener = |(instance, file): (&model::Instance, &model::Listener)| {
            let view = plan.listeners.iter().find(|view| view.instance == instance.id && view.name == file.name)?;
            let path = view.path();
            let listener = Listener::new(
                (plan.target.seed, ports.clone()),
                instance,
                file,
                view,
                before.listeners.get(&path).map(Arc::as_ref),
            );
            Some((path, Arc::new(listener)))
        };
        let listeners: BTreeMap<String, Arc<Listener>> = served.filter_map(listener).collect();
        let at = |listener: &Arc<Listener>| {
            listener.addresses.iter().map(|address| (*address, Arc::clone(listener))).collect::<Vec<_>>()
        };
        let by_address = listeners.values().flat_map(at).collect();
        let by_quic = listeners.values().filter(|listener| listener.file.speaks_http3()).flat_map(at).collect();
        let log = intent.node.access_log.as_ref().map(|file| match &before.log {
            Some(known) if known.file() == file => Arc::clone(known),
            Some(_) | None => Arc::new(Log::open(file)),
        });
        // Connections may be on their way to those that were there a moment ago.
        let open = before.leaving.iter().filter(|(_, listener)| listener.counts.active.get() > 0);
        let leaving = open.chain(&before.listeners).filter(|(path, _)| !listeners.contains_key(*path));
        let leaving = leaving.map(|(path, listener)| (path.clone(), Arc::clone(listener))).collect();
        let connections = usize::try_from(intent.node.proxy_connections).unwrap_or(usize::MAX);
        Self {
            generation: plan.generation.0,
            connections,
            ap: intent.node.ap.clone(),
            listeners,
            leaving,
            by_address,
            by_quic,
            log,
        }
    }
}

impl View {
    /// The listener of that path, also one that is served no more.
    pub fn listener(&self, path: &str) -> Option<&Arc<Listener>> {
        self.listeners.get(path).or_else(|| self.leaving.get(path))
    }

    /// Where clients connect.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.by_address.keys().copied()
    }

    /// Where clients of HTTP/3 connect, by UDP.
    pub fn quic_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.by_quic.keys().copied()
    }

    /// The listener that speaks HTTP/3 at that address.
    pub fn quic_at(&self, address: SocketAddr) -> Option<Arc<Listener>> {
        self.by_quic.get(&address).map(Arc::clone)
    }

    /// The listener at that address, also one that is served no more.
    pub fn at(&self, address: SocketAddr) -> Option<Arc<Listener>> {
        let gone = || self.leaving.values().find(|listener| listener.addresses.contains(&address));
        self.by_address.get(&address).or_else(gone).map(Arc::clone)
    }
}

/// What clients of the listener are told about HTTP/3, for a day.
fn alternative(file: &model::Listener) -> Option<HeaderValue> {
    let port = file.ports.iter().next().filter(|_| file.speaks_http3())?;
    HeaderValue::try_from(format!("h3=\":{port}\"; ma=86400")).ok()
}

impl Listener {
    fn new(
        (seed, ports): ([u64; 2], RangeInclusive<u16>),
        instance: &model::Instance,
        file: &model::Listener,
        view: &ListenerView,
        before: Option<&Self>,
    ) -> Self {
        let load = |name: &Name| {
            let known = before.and_then(|before| before.groups.iter().find(|group| group.name == *name));
            known.map(|group| Arc::clone(&group.load)).unwrap_or_default()
        };
        let groups = file.groups.iter().map(|group| Group {
            name: group.name.clone(),
            backend: group.backend.clone(),
            client_ip: group.client_ip,
            circuit: group.circuit,
            load: load(&group.name),
        });
        let groups: Vec<Group> = groups.collect();
        let known = |identity| before?.endpoints.iter().find(|endpoint| endpoint.identity == identity);
        let rule = |rule: &model::Rule| {
            let known = before.and_then(|before| {
                let place = before.file.rules.iter().position(|known| known.name == rule.name)?;
                before.rules.get(place).map(Arc::clone)
            });
            known.unwrap_or_default()
        };
        let is_store = |found: &FoundBy| {
            let all = file.groups.iter().flat_map(|group| &group.endpoints);
            all.into_iter().any(|endpoint| endpoint.kind == EndpointKind::Oss && endpoint.found_by.as_ref() == Some(found))
        };
        let domain = |found: &FoundBy| match found {
            FoundBy::Domain(domain) => Some(domain.clone()),
            FoundBy::Host { .. } | FoundBy::Pool(_) => None,
        };
        let endpoint = |endpoint: &crate::plan::EndpointView| {
            let (known, is_up) = (known(endpoint.identity), endpoint.belief.up && !endpoint.belief.paused);
            Endpoint {
                counts: known.map(|known| Arc::clone(&known.counts)).unwrap_or_default(),
                name: endpoint.name.clone(),
                identity: endpoint.identity,
                group: groups.iter().position(|group| group.name == endpoint.name.group).unwrap_or(0),
                domain: endpoint.found_by.as_ref().and_then(domain),
                own_host: endpoint.found_by.as_ref().filter(|found| is_store(found)).and_then(domain),
                is_up,
                returns: known.map_or(0, |known| known.returns + u64::from(is_up && !known.is_up)),
            }
        };
        let mut listener = Self {
            path: view.path(),
            instance: instance.id.clone(),
            file: file.clone(),
            addresses: addresses(instance, file).collect(),
            egress: Egress { addresses: instance.egress_ips.clone(), ports },
            endpoints: view.endpoints.iter().map(endpoint).collect(),
            groups,
            targets: Vec::new(),
            matcher: match before.filter(|before| before.file.rules == file.rules) {
                Some(before) => Arc::clone(&before.matcher),
                None => Arc::new(Matcher::new(&file.rules)),
            },
            alternative: alternative(file),
            counts: before.map(|before| Arc::clone(&before.counts)).unwrap_or_default(),
            rules: file.rules.iter().map(rule).collect(),
            seed,
        };
        listener.targets = view.targets.iter().map(|target| listener.target(target, view, before)).collect();
        listener
    }

    fn target(&self, target: &TargetView, view: &ListenerView, before: Option<&Self>) -> Target {
        // Endpoints are named by their place: a table may be used again where no place changed.
        let same_places = |before: &&Self| {
            before.endpoints.len() == self.endpoints.len()
                && before.endpoints.iter().zip(&self.endpoints).all(|(a, b)| a.identity == b.identity)
        };
        let before = before.filter(same_places);
        let index = |claim| view.endpoints.iter().position(|endpoint| endpoint.claim == claim).unwrap_or(0) as u16;
        let wheel = |family| {
            let selection = target.selections.get(&family)?;
            let same = |other: &&Target| other.view.selections.get(&family) == Some(selection);
            let known = before.and_then(|before| before.targets.iter().find(same)?.wheels.get(&family));
            Some((family, known.map_or_else(|| Wheel::new(selection, index).map(Arc::new), |known| Some(Arc::clone(known)))?))
        };
        Target { rule: target.rule.clone(), view: target.clone(), wheels: Family::ALL.into_iter().filter_map(wheel).collect() }
    }

    /// The number of a request or connection of `client`: its own with affinity, else `random`.
    pub fn number(&self, client: IpAddr, random: u64) -> u64 {
        match self.file.affinity {
            Affinity::SourceIp => number_of(self.seed, client),
            Affinity::None => random,
        }
    }

    /// The place in [`Self::endpoints`] of the endpoint of `target` that [`number`](Self::number) leads to; with `tried`, of one that
    /// is not among them. None when nobody may be chosen.
    pub fn choose(&self, target: usize, client: IpAddr, number: u64, tried: &[usize]) -> Option<usize> {
        let wheel = self.targets.get(target)?.wheels.get(&Family::of(client.to_canonical()))?;
        let index = match tried {
            [] => wheel.at(number),
            tried => wheel.elsewhere(number, |index| tried.contains(&usize::from(index)))?,
        };
        Some(usize::from(index))
    }

    /// The places in [`Self::endpoints`] of those that may be chosen of `target` for `client`, each with its part.
    pub fn shares(&self, target: usize, client: IpAddr) -> Vec<(usize, f64)> {
        let wheel = self.targets.get(target).and_then(|target| target.wheels.get(&Family::of(client.to_canonical())));
        wheel
            .map(|wheel| wheel.shares().into_iter().map(|(index, share)| (usize::from(index), share)).collect())
            .unwrap_or_default()
    }

    /// Where to reach the endpoint at that place for clients of listener port `port`.
    pub fn address(&self, endpoint: usize, port: u16) -> SocketAddr {
        let name = &self.endpoints[endpoint].name;
        let mapped = || model::Port::new(u32::from(port)).map_or(port, |port| self.file.port_mapping().endpoint_port(port));
        (name.address, name.port.unwrap_or_else(mapped)).into()
    }
}
