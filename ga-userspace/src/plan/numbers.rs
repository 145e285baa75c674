//! Which number every instance, listener and endpoint of an intent has: its old one where it has one.

use std::collections::BTreeMap;

use ga_common::abi::{
    id::{EndpointId, InstanceId, ListenerId},
    limits::{MAX_ENDPOINTS, MAX_INSTANCES, MAX_LISTENERS},
};

use super::{PlanError, State, address_key, identity, ids::Pool};
use crate::model::{CustomGroup, EndpointGroup, EndpointKind, EndpointName, Instance, Listener, Name, Subnet};

/// The parts of an intent in the order of their names, whatever the order in the file.
pub(super) struct Sorted<'a> {
    /// Those that have anything.
    pub(super) instances: Vec<&'a Instance>,
    /// With their instances.
    pub(super) listeners: Vec<(&'a Instance, &'a Listener)>,
}

impl<'a> Sorted<'a> {
    pub(super) fn new(instances: &'a [Instance]) -> Self {
        let anything = |i: &&Instance| !(i.vips.is_empty() && i.egress_ips.is_empty() && i.listeners.is_empty());
        let mut instances: Vec<_> = instances.iter().filter(anything).collect();
        instances.sort_by_key(|instance| &instance.id);
        let mut listeners: Vec<_> =
            instances.iter().flat_map(|&instance| instance.listeners.iter().map(move |listener| (instance, listener))).collect();
        listeners.sort_by_key(|(instance, listener)| (&instance.id, &listener.name));
        Self { instances, listeners }
    }

    /// The endpoints of one listener, in the order of their names.
    pub(super) fn endpoints(instance: &'a Instance, listener: &'a Listener) -> Vec<EndpointName> {
        let names_of = |group: &'a EndpointGroup| group.endpoints.iter().map(|e| EndpointName::new(instance, listener, group, e));
        let mut names: Vec<_> = listener.groups.iter().flat_map(names_of).collect();
        names.extend(
            listener
                .custom
                .iter()
                .flat_map(|group| group.subnets.iter().map(|subnet| subnet_name(instance, listener, group, subnet))),
        );
        names.sort_unstable();
        names
    }
}

/// What a subnet is called as an endpoint.
pub(super) fn subnet_name(instance: &Instance, listener: &Listener, group: &CustomGroup, subnet: &Subnet) -> EndpointName {
    EndpointName {
        instance: instance.id.clone(),
        listener: listener.name.clone(),
        group: group.name.clone(),
        kind: EndpointKind::Vswitch,
        address: subnet.net.network().into(),
        port: None,
    }
}

/// The numbers.
pub(super) struct Numbers {
    pub(super) instances: BTreeMap<Name, InstanceId>,
    /// By identity.
    pub(super) listeners: BTreeMap<u64, ListenerId>,
    /// By identity.
    pub(super) endpoints: BTreeMap<u64, EndpointId>,
}

impl Numbers {
    pub(super) fn new(sorted: &Sorted<'_>, running: &State) -> Result<Self, PlanError> {
        Ok(Self {
            instances: instances(sorted, running)?,
            listeners: listeners(sorted, running)?,
            endpoints: endpoints(sorted, running)?,
        })
    }
}

/// Nothing in the maps names an instance, so it is known by its listeners; one without listeners by its addresses.
fn instances(sorted: &Sorted<'_>, running: &State) -> Result<BTreeMap<Name, InstanceId>, PlanError> {
    let of_listeners = || running.listeners.values().map(|listener| (listener.identity, listener.instance));
    let (by_listener, busy): (BTreeMap<_, _>, Vec<_>) = (of_listeners().collect(), of_listeners().map(|(_, id)| id).collect());
    let used = running.egress.keys().copied().chain(running.addresses.values().map(|address| address.instance));
    let mut pool = Pool::new(0, MAX_INSTANCES, used.chain(busy.iter().copied()).map(|id| u32::from(id.0)), []);
    let mut found = BTreeMap::new();
    for instance in &sorted.instances {
        let mut names =
            instance.listeners.iter().map(|listener| identity::of_listener(instance.id.as_str(), listener.name.as_str()));
        if let Some(id) = names.find_map(|name| by_listener.get(&name)) {
            found.insert(instance.id.clone(), *id);
        }
    }
    for instance in &sorted.instances {
        let mut ids = instance.vips.iter().chain(&instance.egress_ips).filter_map(|ip| running.addresses.get(&address_key(*ip)));
        let free = ids.find(|address| !busy.contains(&address.instance) && !found.values().any(|id| *id == address.instance));
        if let (false, Some(address)) = (found.contains_key(&instance.id), free) {
            found.insert(instance.id.clone(), address.instance);
        }
    }
    let missing = sorted.instances.iter().filter(|instance| !found.contains_key(&instance.id)).count();
    let full = full("instances", MAX_INSTANCES, pool.taken() + missing);
    for instance in &sorted.instances {
        if !found.contains_key(&instance.id) {
            let id = pool.take().and_then(|number| u16::try_from(number).ok()).ok_or_else(|| full.clone())?;
            found.insert(instance.id.clone(), InstanceId(id));
        }
    }
    Ok(found)
}

fn listeners(sorted: &Sorted<'_>, running: &State) -> Result<BTreeMap<u64, ListenerId>, PlanError> {
    let wanted = sorted.listeners.iter().map(|(instance, listener)| {
        let path = format!("{}/{}", instance.id, listener.name);
        (identity::of_listener(instance.id.as_str(), listener.name.as_str()), path)
    });
    let known: BTreeMap<u64, u32> = running.listeners.iter().map(|(id, listener)| (listener.identity, u32::from(id.0))).collect();
    // Entries of retired endpoints still name removed listeners; flows of those may be alive.
    let retired = running.endpoints.values().filter(|e| e.listener != ListenerId::NONE).map(|e| u32::from(e.listener.0));
    let pool = Pool::new(0, MAX_LISTENERS, known.values().copied(), retired);
    Ok(assign("listeners", MAX_LISTENERS, pool, wanted.collect(), &known)?.into_iter().map(|(i, n)| (i, ListenerId(n))).collect())
}

fn endpoints(sorted: &Sorted<'_>, running: &State) -> Result<BTreeMap<u64, EndpointId>, PlanError> {
    let names = sorted.listeners.iter().flat_map(|(instance, listener)| Sorted::endpoints(instance, listener));
    let wanted = names.map(|name| (identity::of(&name), name.to_string())).collect();
    let of = |is_in_use: bool| {
        let entries = running.endpoints.iter().filter(move |(_, endpoint)| endpoint.is_in_use() == is_in_use);
        entries.map(|(id, endpoint)| (endpoint.identity, u32::from(id.0)))
    };
    let known = of(false).chain(of(true)).collect();
    let numbers = |is_in_use: bool| of(is_in_use).map(|(_, number)| number);
    let pool = Pool::new(0, MAX_ENDPOINTS, numbers(true), numbers(false));
    Ok(assign("endpoints", MAX_ENDPOINTS, pool, wanted, &known)?.into_iter().map(|(i, n)| (i, EndpointId(n))).collect())
}

/// Numbers for `wanted` (identity, name): the known ones first, so that a new one cannot take them.
fn assign(
    what: &'static str,
    limit: u32,
    mut pool: Pool,
    wanted: Vec<(u64, String)>,
    known: &BTreeMap<u64, u32>,
) -> Result<BTreeMap<u64, u16>, PlanError> {
    let mut names = BTreeMap::new();
    for (identity, name) in &wanted {
        if let Some(first) = names.insert(*identity, name) {
            return Err(PlanError::SameIdentity { first: first.clone(), second: name.clone() });
        }
    }
    let kept: BTreeMap<u64, u32> =
        wanted.iter().filter_map(|(identity, _)| known.get(identity).map(|number| (*identity, pool.keep(*number)))).collect();
    let full = full(what, limit, pool.taken() + wanted.len() - kept.len());
    let mut numbers = BTreeMap::new();
    for (identity, _) in wanted {
        let number = kept.get(&identity).copied().or_else(|| pool.take());
        numbers.insert(identity, number.and_then(|number| u16::try_from(number).ok()).ok_or_else(|| full.clone())?);
    }
    Ok(numbers)
}

fn full(what: &'static str, limit: u32, value: usize) -> PlanError {
    PlanError::Capacity { what, limit: u64::from(limit), value: value as u64 }
}
