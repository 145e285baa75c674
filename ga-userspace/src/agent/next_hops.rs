//! The way to every endpoint, as the kernel's routes and neighbours have it.
//!
//! A way that is not known any more stays in use as long as it can be right: it is more likely right than no way. It goes when its
//! interface is gone, or when its interface carries nothing and the route leads elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use ga_common::abi::{
    entry::{Endpoint, Hop, Listener},
    id::EndpointId,
};

use super::Error;
use crate::{
    maps::{Hops, Hosts, Mtus, Repairs},
    net::{Net, Way},
    plan::State,
    status::NextHop,
};

/// How long a host behind custom routing is looked for before it is forgotten, until a packet asks again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Next hops of endpoints.
pub(super) struct NextHops {
    hops: Hops,
    /// Hosts behind custom routing, and since when those are looked for that are not found.
    hosts: Hosts,
    missing: BTreeMap<Ipv4Addr, Instant>,
    mtus: Mtus,
    /// Endpoints whose way is used although it is not known any more.
    doubtful: BTreeSet<EndpointId>,
    /// Endpoints that packets with the VIP cannot reach, because a router is between.
    off_link: BTreeSet<EndpointId>,
    /// Endpoints that packets cannot be sent to.
    unknown: usize,
    changes: u64,
}

impl NextHops {
    pub(super) fn new(hops: Hops, hosts: Hosts, mtus: Mtus) -> Self {
        let (doubtful, off_link) = (BTreeSet::new(), BTreeSet::new());
        Self { hops, hosts, missing: BTreeMap::new(), mtus, doubtful, off_link, unknown: 0, changes: 0 }
    }

    /// What is known of the way to an endpoint.
    pub(super) fn of(&self, endpoint: EndpointId) -> NextHop {
        match self.hops.of(endpoint) {
            None if self.off_link.contains(&endpoint) => NextHop::OffLink,
            None => NextHop::Unresolved,
            Some(_) if self.doubtful.contains(&endpoint) => NextHop::Stale,
            Some(_) => NextHop::Resolved,
        }
    }

    /// How often the way to an endpoint changed since the start.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Endpoints that packets cannot be sent to.
    pub(super) fn unknown(&self) -> usize {
        self.unknown
    }

    /// Whether the next look is worth its while even when nothing was reported.
    pub(super) fn is_settled(&self) -> bool {
        self.unknown == 0 && self.doubtful.is_empty() && self.missing.is_empty()
    }

    /// Writes again what somebody else changed.
    pub(super) fn repair(&mut self) -> Repairs {
        self.hops.repair().and(self.hosts.repair()).and(self.mtus.repair())
    }

    /// Hosts behind custom routing.
    pub(super) fn hosts(&mut self) -> &mut Hosts {
        &mut self.hosts
    }

    /// Brings the next hops of the endpoints of `state` up to date, and those of hosts that packets asked for.
    pub(super) async fn follow(&mut self, net: &mut Net, state: &State) -> Result<(), Error> {
        // A subnet is at no address.
        let is_somewhere = |(_, endpoint): &(&EndpointId, &Endpoint)| endpoint.addr != [0; 16];
        let address_of = |(&id, endpoint): (&EndpointId, &Endpoint)| (id, IpAddr::from(endpoint.addr).to_canonical());
        let wanted: BTreeMap<EndpointId, IpAddr> = state.endpoints.iter().filter(is_somewhere).map(address_of).collect();
        let hosts = self.hosts.all().keys().map(|host| IpAddr::V4(*host));
        let ways = net.ways(&wanted.values().copied().chain(hosts).collect()).await?;
        self.follow_hosts(&ways, net)?;
        self.mtus.set(net.mtus())?;
        self.doubtful.clear();
        self.unknown = 0;
        let is_l2 = |id: &EndpointId| {
            let listener = state.endpoints.get(id).and_then(|endpoint| state.listeners.get(&endpoint.listener));
            listener.is_some_and(|listener| listener.flags & Listener::L2 != 0)
        };
        let off_link = wanted.iter().filter(|(id, address)| is_l2(id) && net.is_off_link(**address));
        let before = std::mem::replace(&mut self.off_link, off_link.map(|(id, _)| *id).collect());
        for id in self.off_link.difference(&before) {
            tracing::warn!(endpoint = %wanted[id], "not on a link of this edge: a listener with return = \"l2\" cannot reach it");
        }
        for (id, address) in wanted {
            let way = ways.get(&address).copied().unwrap_or(Way::Nowhere);
            let old = self.hops.of(id);
            let new = match way {
                _ if self.off_link.contains(&id) => None,
                Way::Known(hop) => Some(hop),
                Way::Through(_) | Way::Nowhere => old.filter(|hop| stays(*hop, way, net)),
            };
            if self.hops.set(id, new)? {
                self.changes += 1;
                tracing::debug!(%address, ?new, "next hop");
            }
            match (way, new) {
                (_, None) => self.unknown += 1,
                (Way::Through(_) | Way::Nowhere, Some(_)) => drop(self.doubtful.insert(id)),
                (Way::Known(_), Some(_)) => {}
            }
        }
        Ok(())
    }
}

impl NextHops {
    fn follow_hosts(&mut self, ways: &BTreeMap<IpAddr, Way>, net: &Net) -> Result<(), Error> {
        let now = Instant::now();
        for (host, old) in self.hosts.all().clone() {
            let way = ways.get(&IpAddr::V4(host)).copied().unwrap_or(Way::Nowhere);
            let new = match way {
                Way::Known(hop) => Some(hop),
                Way::Through(_) | Way::Nowhere => old.filter(|hop| stays(*hop, way, net)),
            };
            if self.hosts.set(host, new)? {
                self.changes += 1;
                tracing::debug!(%host, ?new, "next hop");
            }
            if matches!(way, Way::Known(_)) {
                self.missing.remove(&host);
            } else if now - *self.missing.entry(host).or_insert(now) > PATIENCE {
                self.missing.remove(&host);
                self.hosts.forget(host)?;
            }
        }
        Ok(())
    }
}

fn stays(hop: Hop, way: Way, net: &Net) -> bool {
    can_be_right(hop, way, net.known_interface(hop.ifindex).map(|interface| interface.carries))
}

/// Whether a hop that is not known any more can still be right; `carries` is none when its interface is gone.
fn can_be_right(hop: Hop, way: Way, carries: Option<bool>) -> bool {
    let elsewhere = matches!(way, Way::Through(ifindex) if ifindex != hop.ifindex);
    match carries {
        None => false,
        Some(true) => true,
        // Once the link is back the hop is most likely right again, and nobody need be asked before packets go.
        Some(false) => !elsewhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hop_stays_as_long_as_it_can_be_right() {
        let hop = Hop { dst_mac: [1; 6], src_mac: [2; 6], ifindex: 3, tags: 0 };
        let cases = [
            (Way::Nowhere, Some(true), true),
            (Way::Nowhere, Some(false), true),
            (Way::Nowhere, None, false),
            (Way::Through(3), Some(true), true),
            (Way::Through(3), Some(false), true),
            (Way::Through(3), None, false),
            (Way::Through(4), Some(true), true),
            (Way::Through(4), Some(false), false),
            (Way::Through(4), None, false),
        ];
        for (way, carries, expected) in cases {
            assert_eq!(can_be_right(hop, way, carries), expected, "{way:?} {carries:?}");
        }
    }
}
