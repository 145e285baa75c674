//! Next hops: an entry that an endpoint names is never changed; a new way is a new entry and one store.

use std::collections::{BTreeMap, BTreeSet};

use aya::Ebpf;
use ga_common::abi::{
    entry::Hop,
    id::{EndpointId, HopId},
    limits::{MAX_ENDPOINTS, MAX_HOPS},
};

use super::{Cells, Error, Repairs};

/// How to get to endpoints.
pub struct Hops {
    hops: Cells<Hop>,
    of_endpoint: Cells<u32>,
    named: BTreeMap<EndpointId, Hop>,
    ids: Ids,
}

/// Which hop has which number, and how many endpoints name it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ids {
    by_hop: BTreeMap<Hop, (HopId, u32)>,
    taken: BTreeSet<u16>,
    next: u16,
}

impl Ids {
    fn of(&self, hop: &Hop) -> HopId {
        self.by_hop.get(hop).map_or(HopId::UNKNOWN, |(id, _)| *id)
    }

    /// One more endpoint names `hop`. The number, and whether it is a new one; none when all are taken.
    fn name(&mut self, hop: Hop) -> Option<(HopId, bool)> {
        if let Some((id, endpoints)) = self.by_hop.get_mut(&hop) {
            *endpoints += 1;
            return Some((*id, false));
        }
        // Next-fit: an entry that was given up lately is written last, because packets may still be about to read it.
        let limit = MAX_HOPS as u16;
        let next = self.next.clamp(1, limit);
        let id = (next..limit).chain(1..next).find(|id| !self.taken.contains(id))?;
        self.next = id + 1;
        self.known(hop, HopId(id));
        Some((HopId(id), true))
    }

    /// One more endpoint names `hop`, which has this number.
    fn known(&mut self, hop: Hop, id: HopId) {
        self.by_hop.entry(hop).or_insert((id, 0)).1 += 1;
        self.taken.insert(id.0);
    }

    /// One endpoint fewer names `hop`.
    fn release(&mut self, hop: &Hop) {
        let Some((id, endpoints)) = self.by_hop.get_mut(hop) else { return };
        *endpoints -= 1;
        if *endpoints == 0 {
            self.taken.remove(&id.0);
            self.by_hop.remove(hop);
        }
    }
}

impl Hops {
    /// Takes the maps out of a loaded object; nothing is believed to be in them.
    pub fn open(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            hops: Cells::take(ebpf, "HOPS")?,
            of_endpoint: Cells::take(ebpf, "ENDPOINT_HOPS")?,
            named: BTreeMap::new(),
            ids: Ids::default(),
        })
    }

    /// Learns what the maps hold.
    pub fn read(&mut self) -> Result<(), Error> {
        (self.named, self.ids) = (BTreeMap::new(), Ids::default());
        for endpoint in 0..MAX_ENDPOINTS as u16 {
            let id = self.of_endpoint.get(u32::from(endpoint))?;
            // A number that no hop can have was written by somebody else, and is as good as none.
            if (1..MAX_HOPS).contains(&id) {
                let hop = self.hops.get(id)?;
                self.named.insert(EndpointId(endpoint), hop);
                self.ids.known(hop, HopId(id as u16));
            }
        }
        self.ids.next = self.ids.taken.last().map_or(1, |highest| highest + 1);
        Ok(())
    }

    /// The way to `endpoint`, as packets know it.
    pub fn of(&self, endpoint: EndpointId) -> Option<Hop> {
        self.named.get(&endpoint).copied()
    }

    /// Changes the way to `endpoint`; true when it was another.
    pub fn set(&mut self, endpoint: EndpointId, hop: Option<Hop>) -> Result<bool, Error> {
        let old = self.of(endpoint);
        if old == hop {
            return Ok(false);
        }
        let id = match hop {
            Some(hop) => self.name(hop)?,
            None => HopId::UNKNOWN,
        };
        if let Err(error) = self.of_endpoint.set(u32::from(endpoint.0), u32::from(id.0)) {
            hop.iter().for_each(|hop| self.ids.release(hop));
            return Err(error);
        }
        match hop {
            Some(hop) => self.named.insert(endpoint, hop),
            None => self.named.remove(&endpoint),
        };
        old.iter().for_each(|old| self.ids.release(old));
        Ok(true)
    }

    fn name(&mut self, hop: Hop) -> Result<HopId, Error> {
        let (id, is_new) = self.ids.name(hop).ok_or(Error::HopsFull { limit: MAX_HOPS - 1 })?;
        if is_new && let Err(error) = self.hops.set(u32::from(id.0), hop) {
            self.ids.release(&hop);
            return Err(error);
        }
        Ok(id)
    }

    /// Writes again what somebody else changed: the hops that endpoints name, and who names which.
    pub fn repair(&mut self) -> Repairs {
        let mut repairs = Repairs::default();
        let by_id: BTreeMap<u32, Hop> = self.ids.by_hop.iter().map(|(hop, (id, _))| (u32::from(id.0), *hop)).collect();
        repairs.note("HOPS", self.hops.restore(by_id));
        let right = |endpoint: u32| {
            let hop = self.named.get(&EndpointId(endpoint as u16));
            (endpoint, u32::from(hop.map_or(HopId::UNKNOWN, |hop| self.ids.of(hop)).0))
        };
        repairs.note("ENDPOINT_HOPS", self.of_endpoint.restore((0..MAX_ENDPOINTS).map(right)));
        repairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(n: u16) -> Hop {
        Hop { ifindex: u32::from(n), ..Hop::default() }
    }

    #[test]
    fn a_hop_has_one_number_as_long_as_anybody_names_it() {
        let mut ids = Ids::default();
        assert_eq!(ids.name(hop(7)), Some((HopId(1), true)));
        assert_eq!(ids.name(hop(7)), Some((HopId(1), false)));
        ids.release(&hop(7));
        assert_eq!(ids.of(&hop(7)), HopId(1));
        ids.release(&hop(7));
        assert_eq!(ids.of(&hop(7)), HopId::UNKNOWN);
        assert_eq!(ids.name(hop(7)), Some((HopId(2), true)), "a number that was given up is not the next one");
    }

    #[test]
    fn every_number_but_the_unknown_one_is_given_before_none_is_left() {
        let mut ids = Ids::default();
        let mut given: Vec<u16> = (1..MAX_HOPS as u16).map(|n| ids.name(hop(n)).unwrap().0.0).collect();
        given.sort_unstable();
        assert!(given.into_iter().eq(1..MAX_HOPS as u16));
        assert_eq!(ids.name(hop(0)), None);
        ids.release(&hop(9));
        assert_eq!(ids.name(hop(0)), Some((HopId(9), true)));
    }
}
