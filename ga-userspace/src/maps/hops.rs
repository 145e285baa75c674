//! Next hops: an entry that an endpoint names is never changed; a new way is a new entry and one store.

use std::collections::BTreeMap;

use aya::Ebpf;
use ga_common::abi::{
    entry::Hop,
    id::{EndpointId, HopId},
    limits::{MAX_ENDPOINTS, MAX_HOPS},
};

use super::{Cells, Error};

/// How to get to endpoints.
pub struct Hops {
    hops: Cells<Hop>,
    of_endpoint: Cells<u32>,
    ids: BTreeMap<Hop, HopId>,
    named: BTreeMap<EndpointId, Hop>,
    next: u16,
}

impl Hops {
    /// Takes the maps out of a loaded object and learns what they hold.
    pub fn open(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let hops = Cells::<Hop>::take(ebpf, "HOPS")?;
        let of_endpoint = Cells::<u32>::take(ebpf, "ENDPOINT_HOPS")?;
        let (mut ids, mut named) = (BTreeMap::new(), BTreeMap::new());
        for id in 0..MAX_ENDPOINTS as u16 {
            let hop_id = of_endpoint.get(u32::from(id))?;
            if hop_id != 0 {
                let hop = hops.get(hop_id)?;
                named.insert(EndpointId(id), hop);
                ids.insert(hop, HopId(hop_id as u16));
            }
        }
        let next = ids.values().map(|id| id.0).max().unwrap_or(0) + 1;
        Ok(Self { hops, of_endpoint, ids, named, next })
    }

    /// The way to `endpoint`, as packets know it.
    pub fn of(&self, endpoint: EndpointId) -> Option<Hop> {
        self.named.get(&endpoint).copied()
    }

    /// Changes the way to `endpoint`; true when it was another.
    pub fn set(&mut self, endpoint: EndpointId, hop: Option<Hop>) -> Result<bool, Error> {
        if self.of(endpoint) == hop {
            return Ok(false);
        }
        let id = match hop {
            Some(hop) => self.id(hop)?,
            None => HopId::UNKNOWN,
        };
        self.of_endpoint.set(u32::from(endpoint.0), u32::from(id.0))?;
        match hop {
            Some(hop) => self.named.insert(endpoint, hop),
            None => self.named.remove(&endpoint),
        };
        Ok(true)
    }

    fn id(&mut self, hop: Hop) -> Result<HopId, Error> {
        if let Some(&id) = self.ids.get(&hop) {
            return Ok(id);
        }
        let named = &self.named;
        self.ids.retain(|hop, _| named.values().any(|used| used == hop));
        // Next-fit: an entry that was given up lately is written last.
        let taken = |id: u16| self.ids.values().any(|used| used.0 == id);
        let limit = MAX_HOPS as u16;
        let candidates = (self.next..limit).chain(1..self.next.min(limit));
        let id = candidates.into_iter().find(|&id| !taken(id)).ok_or(Error::HopsFull { limit: MAX_HOPS - 1 })?;
        self.hops.set(u32::from(id), hop)?;
        self.next = id + 1;
        self.ids.insert(hop, HopId(id));
        Ok(HopId(id))
    }
}
