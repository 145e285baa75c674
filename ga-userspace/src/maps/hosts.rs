//! Next hops of hosts behind custom routing. A packet for a host that is not there makes an entry without an interface, which asks
//! for one.

use std::{collections::BTreeMap, net::Ipv4Addr};

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use ga_common::abi::entry::Hop;

use super::{Error, Repairs, on, take};

const MAP: &str = "HOSTS";

/// The hosts that packets asked for.
pub struct Hosts {
    map: HashMap<MapData, [u8; 4], Hop>,
    known: BTreeMap<Ipv4Addr, Option<Hop>>,
}

impl Hosts {
    /// Takes the map out of a loaded object.
    pub fn open(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self { map: take(ebpf, MAP)?, known: BTreeMap::new() })
    }

    /// Looks who is asked for; true when somebody is who was not before.
    pub fn look(&mut self) -> Result<bool, Error> {
        let before = self.known.len();
        for entry in self.map.iter() {
            let (address, hop) = on(MAP, entry)?;
            self.known.entry(Ipv4Addr::from(address)).or_insert((hop.ifindex != 0).then_some(hop));
        }
        Ok(self.known.len() > before)
    }

    /// Everybody, with the way there as packets know it.
    pub fn all(&self) -> &BTreeMap<Ipv4Addr, Option<Hop>> {
        &self.known
    }

    /// Changes the way to a host; true when it was another.
    pub fn set(&mut self, host: Ipv4Addr, hop: Option<Hop>) -> Result<bool, Error> {
        if self.known.get(&host) == Some(&hop) {
            return Ok(false);
        }
        on(MAP, self.map.insert(host.octets(), hop.unwrap_or_default(), 0))?;
        self.known.insert(host, hop);
        Ok(true)
    }

    /// Forgets a host; the next packet to it asks again.
    pub fn forget(&mut self, host: Ipv4Addr) -> Result<(), Error> {
        self.known.remove(&host);
        match self.map.remove(&host.octets()) {
            Err(aya::maps::MapError::KeyNotFound) => Ok(()),
            result => on(MAP, result),
        }
    }

    /// Writes again what somebody else changed.
    pub fn repair(&mut self) -> Repairs {
        let mut repairs = Repairs::default();
        repairs.note(MAP, self.restore());
        repairs
    }

    fn restore(&mut self) -> Result<u64, Error> {
        let mut mended = 0;
        let held: Vec<([u8; 4], Hop)> = self.map.iter().collect::<Result<_, _>>().or_else(|error| on(MAP, Err(error)))?;
        let is_foreign = |(host, hop): &&([u8; 4], Hop)| hop.ifindex != 0 && !self.known.contains_key(&Ipv4Addr::from(*host));
        for (host, _) in held.iter().filter(is_foreign) {
            on(MAP, self.map.remove(host))?;
            mended += 1;
        }
        for (host, hop) in &self.known {
            let right = hop.unwrap_or_default();
            if self.map.get(&host.octets(), 0).ok() != Some(right) {
                on(MAP, self.map.insert(host.octets(), right, 0))?;
                mended += 1;
            }
        }
        Ok(mended)
    }
}
