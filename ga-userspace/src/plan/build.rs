//! Intent to plan: the one decision about what the data path shall hold.
//!
//! A pure function. From an empty state the same intent gives the same plan, whatever the order in the file; from a running
//! one, everything that is known by its identity keeps its number, and a table whose shares did not change is not touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ga_common::abi::{
    active::{Active, Before},
    entry::{Endpoint, Listener as ListenerEntry},
    id::{EndpointId, Generation, ListenerId, TableId},
    limits::{MAX_ADDRESSES, MAX_SERVICES, MAX_TABLES, TABLE_SIZE},
    sheet::AclWord,
};

use ipnet::Ipv4Net;

use super::{
    CustomTable, CustomView, EndpointView, Family, GroupView, InstanceView, ListenerView, Note, Overrides, Plan, PlanError,
    Selection, State, TableInfo, TableView, acl, address_key, entries,
    error::within,
    groups, identity,
    ids::Pool,
    numbers::{Numbers, Sorted, subnet_name},
    shares,
    sheets::{Numbering, Sheet},
    targets, transition,
};
use crate::{
    health::Beliefs,
    model::{
        self, AclMode, Affinity, BackendIpVersion, ClientIp, EndpointGroup, EndpointKind, EndpointName, GroupKind, Instance,
        Intent, Listener, Part, Protocol, Weight,
    },
};

/// Plans `intent` with what was set by hand and what is believed of endpoints, given what the maps hold. `seed` is the key of the
/// hash, which the agent keeps.
pub fn build(
    intent: &Intent,
    overrides: &Overrides,
    beliefs: &Beliefs,
    running: &State,
    seed: [u64; 2],
) -> Result<Plan, PlanError> {
    build_sized(intent, Known { overrides, beliefs }, running, seed, TABLE_SIZE)
}

/// What counts beside the file.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) overrides: &'a Overrides,
    pub(super) beliefs: &'a Beliefs,
}

/// The same with tables of another prime size.
pub(super) fn build_sized(
    intent: &Intent,
    known: Known<'_>,
    running: &State,
    seed: [u64; 2],
    table_size: usize,
) -> Result<Plan, PlanError> {
    let sorted = Sorted::new(&intent.instances);
    let numbers = Numbers::new(&sorted, running)?;
    let mut target = State {
        generation: running.generation,
        seed,
        egress: entries::egress(&sorted, &numbers)?,
        addresses: entries::addresses(&sorted, &numbers),
        services: entries::services(&sorted, &numbers)?,
        ..State::default()
    };
    fits(running, &target)?;
    let mut listeners: Vec<_> =
        sorted.listeners.iter().map(|(instance, listener)| view(instance, listener, known, &numbers)).collect();
    let mut sheets = Numbering::new(running);
    for view in &listeners {
        let entry = listener_entry(view, &numbers);
        let former = former(running.listeners.get(&view.id), view, &entry);
        let (acl, flags) = (acl_word(view, &mut sheets)?.0, entry.flags | former);
        target.listeners.insert(view.id, ListenerEntry { acl, flags, ..entry });
        target.endpoints.extend(view.endpoints.iter().map(|endpoint| (endpoint.id, endpoint_entry(view, endpoint))));
    }
    custom(&listeners, &mut target, &mut sheets)?;
    retire(running, &mut target);
    tables(&mut listeners, running, &mut target, table_size)?;
    pass_over(&listeners, &mut target);
    target.sheets = sheets.infos;
    let noop = target == *running;
    if !noop {
        target.generation = Generation(running.generation.0 + 1);
    }
    let notes = notes(&sorted, known.overrides, &listeners);
    let instances = sorted.instances.iter().map(|instance| instance_view(instance, &numbers)).collect();
    Ok(Plan { generation: target.generation, target, instances, listeners, notes, sheets: sheets.contents, noop, table_size })
}

/// Old and new entries are in the maps together for a while.
fn fits(running: &State, target: &State) -> Result<(), PlanError> {
    let added = target.addresses.keys().filter(|key| !running.addresses.contains_key(*key)).count();
    within("addresses", running.addresses.len() + added, MAX_ADDRESSES)?;
    // Services that go are removed before new ones are added.
    within("services (address, port and protocol)", target.services.len(), MAX_SERVICES)
}

fn instance_view(instance: &Instance, numbers: &Numbers) -> InstanceView {
    let (mut vips, mut egress_ips) = (instance.vips.clone(), instance.egress_ips.clone());
    vips.sort_unstable();
    egress_ips.sort_unstable();
    InstanceView { name: instance.id.clone(), id: numbers.instances[&instance.id], vips, egress_ips }
}

fn view(instance: &Instance, listener: &Listener, known: Known<'_>, numbers: &Numbers) -> ListenerView {
    let of_group = |group: &EndpointGroup| -> Vec<_> {
        let view = |e: &model::Endpoint| EndpointView {
            found_by: e.found_by.clone(),
            part: e.part,
            serves: families(instance, group, e.address),
            ..endpoint_view(EndpointName::new(instance, listener, group, e), e.weight, known, numbers)
        };
        group.endpoints.iter().map(view).collect()
    };
    let mut endpoints: Vec<_> = listener.groups.iter().flat_map(of_group).collect();
    let subnets = listener.custom.iter().flat_map(|group| group.subnets.iter().map(move |subnet| (group, subnet)));
    endpoints.extend(
        subnets.map(|(group, subnet)| {
            endpoint_view(subnet_name(instance, listener, group, subnet), Weight::default(), known, numbers)
        }),
    );
    endpoints.sort_by(|a, b| a.name.cmp(&b.name));
    groups::claim(&mut endpoints);
    let id_of = |group: &str, net: Ipv4Net| {
        let is_it = |endpoint: &&EndpointView| {
            endpoint.name.group.as_str() == group && endpoint.name.address == IpAddr::V4(net.network())
        };
        endpoints.iter().find(is_it).map(|endpoint| endpoint.id)
    };
    let custom = listener.is_custom().then(|| CustomView::new(listener, id_of));
    let mut view = ListenerView {
        instance: instance.id.clone(),
        name: listener.name.clone(),
        id: numbers.listeners[&identity::of_listener(instance.id.as_str(), listener.name.as_str())],
        protocol: listener.protocol,
        ports: listener.ports.clone(),
        affinity: listener.affinity,
        // The model allows 900 seconds at most.
        idle_timeout_s: u16::try_from(listener.idle_timeout.as_secs()).unwrap_or(u16::MAX),
        max_new_flows_per_second: listener.max_new_flows_per_second,
        client_ip: listener.client_ip(),
        acl: acl::view(instance, listener),
        all_unhealthy: listener.all_unhealthy,
        failover_to_zero_ratio: listener.failover_to_zero_ratio,
        port_mapping: listener.port_mapping().clone(),
        groups: groups::views(instance, listener, known.beliefs),
        custom,
        endpoints,
        tables: BTreeMap::new(),
        targets: Vec::new(),
    };
    if listener.is_proxied() {
        view.targets = targets::views(listener, &view);
    }
    view
}

/// The families whose clients an endpoint is for: its own with affinity and where it gets the client's packets, else all that have a VIP.
fn families(instance: &Instance, group: &EndpointGroup, address: IpAddr) -> BTreeSet<Family> {
    match group.backend_ip_version {
        _ if group.client_ip.is_kept() => [Family::of(address)].into(),
        BackendIpVersion::Affinity => [Family::of(address)].into(),
        BackendIpVersion::Ipv4 | BackendIpVersion::Ipv6 => instance.vips.iter().map(|vip| Family::of(*vip)).collect(),
    }
}

/// One that is whole and serves IPv4 clients.
fn endpoint_view(name: EndpointName, configured: Weight, known: Known<'_>, numbers: &Numbers) -> EndpointView {
    let set = known.overrides.endpoints.get(&name).copied().unwrap_or_default();
    let (identity, belief) = (identity::of(&name), known.beliefs.of(&name));
    let (id, weight) = (numbers.endpoints[&identity], set.effective(configured));
    // The claim is known when all endpoints of the listener are, the share when its table is.
    EndpointView {
        name,
        id,
        identity,
        claim: 0,
        configured,
        weight,
        part: Part::WHOLE,
        found_by: None,
        drained: set.drained,
        belief,
        serves: [Family::V4].into(),
        share: 0.0,
    }
}

fn listener_entry(view: &ListenerView, numbers: &Numbers) -> ListenerEntry {
    let affinity = match view.affinity {
        Affinity::None => 0,
        Affinity::SourceIp => ListenerEntry::SOURCE_IP,
    };
    let client_ip = match view.client_ip {
        ClientIp::Hidden | ClientIp::ProxyV1 | ClientIp::ProxyV2 => 0,
        ClientIp::L2 => ListenerEntry::L2,
        ClientIp::Ipip => ListenerEntry::IPIP,
        ClientIp::Gateway => ListenerEntry::GATEWAY,
    };
    let strict = if view.acl.as_ref().is_some_and(|acl| acl.kill_established) { ListenerEntry::STRICT } else { 0 };
    let custom = if view.custom.is_some() { ListenerEntry::CUSTOM } else { 0 };
    let host = if view.is_served() { ListenerEntry::HOST } else { 0 };
    ListenerEntry {
        instance: numbers.instances[&view.instance],
        idle_timeout_s: view.idle_timeout_s,
        flags: ListenerEntry::IN_USE | affinity | client_ip | strict | custom | host,
        identity: identity::of_listener(view.instance.as_str(), view.name.as_str()),
        admission: view.max_new_flows_per_second,
        acl: AclWord::NONE.0,
    }
}

/// Whether connections of `view` may be the host's, because the agent served it: until somebody says that there are none.
fn former(before: Option<&ListenerEntry>, view: &ListenerView, now: &ListenerEntry) -> u32 {
    let known = before.filter(|before| before.identity == now.identity && view.protocol.number() == 6 && !view.is_served());
    let was_hosts = known.is_some_and(|before| before.flags & (ListenerEntry::HOST | ListenerEntry::FORMER) != 0);
    if was_hosts { ListenerEntry::FORMER } else { 0 }
}

/// How the listener names its access lists.
fn acl_word(view: &ListenerView, sheets: &mut Numbering<'_>) -> Result<AclWord, PlanError> {
    let Some(acl) = &view.acl else { return Ok(AclWord::NONE) };
    let mut number = |family| acl.sheets.get(&family).map_or(Ok(0), |sheet| sheets.number(sheet));
    Ok(AclWord::new(number(Family::V4)?, number(Family::V6)?, acl.mode == AclMode::White))
}

/// How instances name their custom routing.
fn custom(listeners: &[ListenerView], target: &mut State, sheets: &mut Numbering<'_>) -> Result<(), PlanError> {
    for (id, egress) in &mut target.egress {
        let is_of = |view: &&ListenerView| target.listeners.get(&view.id).is_some_and(|entry| entry.instance == *id);
        let views: Vec<&CustomView> = listeners.iter().filter(is_of).filter_map(|view| view.custom.as_ref()).collect();
        if !views.is_empty() {
            egress.custom = sheets.number(&Sheet::Custom(Arc::new(CustomTable::new(views.into_iter())?)))?.into();
        }
    }
    Ok(())
}

fn endpoint_entry(listener: &ListenerView, view: &EndpointView) -> Endpoint {
    // The hosts of a subnet are elsewhere each.
    let addr = if view.name.kind == EndpointKind::Vswitch { [0; 16] } else { address_key(view.name.address) };
    let port = view.name.port.unwrap_or(0).to_be_bytes();
    let gateway = if listener.client_ip == ClientIp::Gateway { Endpoint::GATEWAY } else { 0 };
    Endpoint { addr, listener: listener.id, port, flags: Endpoint::IN_USE | gateway, identity: view.identity }
}

/// What the maps have and the plan has not stays as a retired entry: flows may name it. So may flows that keep their clients'
/// addresses, though new ones do not.
fn retire(running: &State, target: &mut State) {
    for (id, endpoint) in &running.endpoints {
        let kept = target.endpoints.entry(*id).or_insert(endpoint.retired());
        if kept.identity == endpoint.identity {
            kept.flags |= endpoint.flags & Endpoint::GATEWAY;
        }
    }
}

/// Number and identity of an endpoint, by the number by which it claims slots.
type Owners = BTreeMap<u64, (EndpointId, u64)>;

/// A table per listener and family: the running one where its content would be the same, else a new one.
fn tables(listeners: &mut [ListenerView], running: &State, target: &mut State, size: usize) -> Result<(), PlanError> {
    let mut pool = Pool::new(TableId::EMPTY.0 + 1, MAX_TABLES, running.tables.keys().map(|id| id.0), []);
    let mut missing = 0;
    let is_default = |group: &GroupView| group.kind == GroupKind::Default;
    for view in listeners {
        for family in Family::ALL {
            let selection =
                Selection::new(shares::candidates(&groups::participants(view, family, is_default), groups::policy(view)));
            let digest = selection.digest(size);
            let owners: Owners = view.endpoints.iter().map(|e| (e.claim, (e.id, e.identity))).collect();
            // The kernel chooses for none that the agent serves.
            let (id, info) = if selection.is_empty() || view.is_served() {
                (TableId::EMPTY, None)
            } else if let Some((id, info)) = kept(running, view.id, family, digest, &selection, &owners) {
                (id, Some(info))
            } else if let Some(number) = pool.take_lowest() {
                (TableId(number), Some(filled(&selection, digest, &owners, size)))
            } else {
                missing += 1;
                continue;
            };
            let before = before(view, running, family, id);
            target.active.insert((view.id, family), Active::of(id, before));
            target.tables.extend(info.map(|info| (id, info)));
            if let Before::Table(before) = before {
                target.tables.extend(running.tables.get(&before).map(|info| (before, info.clone())));
            }
            groups::note_shares(view, family, |claim| selection.fraction(claim));
            view.tables.insert(family, TableView { id, digest, selection });
        }
    }
    within("selection tables", pool.taken() + missing, MAX_TABLES - 1)
}

/// Tells of endpoints to which no new flows go, where nobody can tell the first datagram of a flow from others.
fn pass_over(listeners: &[ListenerView], target: &mut State) {
    for view in listeners.iter().filter(|view| view.client_ip.is_direct() && view.protocol == Protocol::Udp) {
        for endpoint in view.endpoints.iter().filter(|endpoint| endpoint.share == 0.0) {
            target.endpoints.entry(endpoint.id).and_modify(|entry| entry.flags |= Endpoint::PASSED_OVER);
        }
    }
}

/// What is known of the flows of a listener that are older than its table.
fn before(view: &ListenerView, running: &State, family: Family, table: TableId) -> Before {
    // Where answers pass by here flows are remembered anyway.
    if !view.client_ip.is_direct() {
        return Before::Same;
    }
    let active = running.active.get(&(view.id, family)).copied().unwrap_or_default();
    match transition::before(active, table) {
        Before::Table(before) if !running.tables.contains_key(&before) => Before::Remembered,
        before @ (Before::Same | Before::Remembered | Before::Table(_)) => before,
    }
}

/// The table that the listener chooses from now, or that its older flows go by, if every slot of it is right: same shares, same numbers.
fn kept(
    running: &State,
    listener: ListenerId,
    family: Family,
    digest: u64,
    selection: &Selection,
    owners: &Owners,
) -> Option<(TableId, TableInfo)> {
    let active = running.active.get(&(listener, family))?;
    let before = if let Before::Table(before) = active.before() { before } else { active.table() };
    let of_digest = |id: TableId| running.tables.get(&id).filter(|info| info.digest == digest).map(|info| (id, info));
    let (id, info) = of_digest(active.table()).or_else(|| of_digest(before))?;
    let same = |claim: u64| {
        let (id, identity) = owners[&claim];
        running.endpoints.get(&id).is_some_and(|entry| entry.identity == identity)
    };
    selection.candidates().iter().all(|candidate| same(candidate.identity)).then(|| (id, info.clone()))
}

fn filled(selection: &Selection, digest: u64, owners: &Owners, size: usize) -> TableInfo {
    TableInfo { digest, slots: Some(selection.owners(size, |claim| owners[&claim].0)) }
}

fn notes(sorted: &Sorted<'_>, overrides: &Overrides, listeners: &[ListenerView]) -> Vec<Note> {
    let known = |name: &EndpointName| listeners.iter().any(|l| l.endpoints.iter().any(|endpoint| endpoint.name == *name));
    let unmatched = overrides.endpoints.keys().filter(|name| !known(name)).cloned().map(Note::OverrideUnmatched);
    let mut notes: Vec<_> = unmatched.collect();
    for family in Family::ALL {
        let has = |ips: &[IpAddr]| ips.iter().any(|ip| Family::of(*ip) == family);
        for instance in &sorted.instances {
            let balances = |listener: &&ListenerView| listener.instance == instance.id && listener.custom.is_none();
            let of_instance = || listeners.iter().filter(balances);
            let empty = |listener: &&ListenerView| listener.tables.get(&family).is_none_or(|table| table.selection.is_empty());
            if has(&instance.vips) {
                notes.extend(of_instance().filter(empty).map(|listener| Note::NoEndpoint { listener: listener.path(), family }));
            }
            let reached = |endpoint: &EndpointView| Family::of(endpoint.name.address) == family && endpoint.weight != Weight(0);
            if !has(&instance.egress_ips) && of_instance().any(|listener| listener.endpoints.iter().any(reached)) {
                notes.push(Note::NoEgress { instance: instance.id.clone(), family });
            }
        }
    }
    notes
}
