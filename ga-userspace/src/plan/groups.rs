//! The endpoint groups of a listener in the plan: their order, and who takes part in sharing out new flows.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use super::{
    EndpointView, Family, GroupView, ListenerView, identity, members,
    shares::{self, Member, Policy},
};
use crate::{
    health::Beliefs,
    model::{AllUnhealthy, EndpointGroup, GroupName, Instance, Listener},
};

/// All groups, in the order of their scheduling priority: the order that health decided on, where it did; else by the latency in
/// the file, and groups without one in file order after those that have one.
pub(super) fn views(instance: &Instance, listener: &Listener, beliefs: &Beliefs) -> Vec<GroupView> {
    let named = |group: &EndpointGroup| GroupName::new(instance, listener, group);
    let mut groups: Vec<_> = listener.groups.iter().map(|group| (named(group), group)).collect();
    groups.sort_by_key(|(name, group)| {
        let decided = beliefs.priority.get(name).copied();
        (Reverse(decided.is_some()), decided, group.latency.unwrap_or(Duration::MAX))
    });
    let view = |(index, (name, group)): (usize, (GroupName, &EndpointGroup))| GroupView {
        kind: group.kind,
        region: group.region.clone(),
        traffic_ratio: group.traffic_ratio,
        checked: group.health_check.is_some(),
        priority: index + 1,
        latency: group.latency,
        shares: BTreeMap::new(),
        name: name.group,
    };
    groups.into_iter().enumerate().map(view).collect()
}

/// Numbers by which endpoints claim slots: by place, so that two listeners with the same endpoints have the same table, and a
/// client with source-IP affinity meets the same endpoint on both. Where two groups name one place, the second claims apart.
pub(super) fn claim(endpoints: &mut [EndpointView]) {
    let mut seen = BTreeMap::<u64, u64>::new();
    for endpoint in endpoints {
        let place = identity::place(&endpoint.name);
        let before = seen.entry(place).or_default();
        endpoint.claim = if *before == 0 { place } else { identity::of_numbers([place, *before]) };
        *before += 1;
    }
}

/// Those groups that take part, as they share out the new flows of `family`.
pub(super) fn participants(view: &ListenerView, family: Family, takes_part: impl Fn(&GroupView) -> bool) -> Vec<shares::Group> {
    let member = |endpoint: &EndpointView, parts: u64| Member {
        identity: endpoint.claim,
        weight: members::share(endpoint.weight, endpoint.part, parts),
        up: endpoint.belief.up && !endpoint.belief.paused,
        percent: endpoint.belief.share_percent,
    };
    let group = |group: &GroupView| {
        let of_family = || view.of_group(group).filter(|endpoint| endpoint.is_of(family));
        let parts = members::common(of_family().map(|endpoint| endpoint.part));
        let members = of_family().map(|endpoint| member(endpoint, parts)).collect();
        shares::Group { ratio: group.traffic_ratio.0, checked: group.checked, members }
    };
    view.groups.iter().filter(|group| takes_part(group)).map(group).collect()
}

/// What holds when groups of `listener` fail.
pub(super) fn policy(view: &ListenerView) -> Policy {
    Policy { fail_open: view.all_unhealthy == AllUnhealthy::FailOpen, to_zero_ratio: view.failover_to_zero_ratio }
}

/// Notes what every endpoint and group got of the new flows of `family`.
pub(super) fn note_shares(view: &mut ListenerView, family: Family, share: impl Fn(u64) -> f64) {
    let mut of_groups = BTreeMap::<_, f64>::new();
    for endpoint in view.endpoints.iter_mut().filter(|endpoint| endpoint.is_of(family)) {
        endpoint.share = share(endpoint.claim);
        *of_groups.entry(&endpoint.name.group).or_default() += endpoint.share;
    }
    for group in &mut view.groups {
        if let Some(share) = of_groups.get(&group.name) {
            group.shares.insert(family, *share);
        }
    }
}
