//! The content of the data path's maps as one value.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

pub use ga_common::abi::family::Family;

use ga_common::abi::{
    active::Active,
    entry::{Address, AddressKey, Egress, Endpoint, Listener, Service, ServiceKey, mapped},
    id::{EndpointId, Generation, InstanceId, ListenerId, TableId},
};

use super::{SheetId, SheetInfo};

/// The key of `address`.
pub fn address_key(address: IpAddr) -> AddressKey {
    match address {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// A filled selection table.
#[derive(Clone, PartialEq, Eq)]
pub struct TableInfo {
    /// [`Selection::digest`](super::Selection::digest) of what it was made from.
    pub digest: u64,
    /// Its content, unless only the digest was read back from the maps.
    pub slots: Option<Arc<[EndpointId]>>,
}

impl fmt::Debug for TableInfo {
    /// 65,537 slots help nobody.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x} ({} slots known)", self.digest, self.slots.as_ref().map_or(0, |slots| slots.len()))
    }
}

/// Everything the data path knows, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The plan whose steps were all done.
    pub generation: Generation,
    /// Key of the one hash.
    pub seed: [u64; 2],
    /// Egress addresses by instance.
    pub egress: BTreeMap<InstanceId, Egress>,
    /// Our addresses.
    pub addresses: BTreeMap<AddressKey, Address>,
    /// Which listener serves what.
    pub services: BTreeMap<ServiceKey, Service>,
    /// Listeners in use; entries without [`Listener::IN_USE`] are left out.
    pub listeners: BTreeMap<ListenerId, Listener>,
    /// The table each listener chooses from, by family, and what is known of older flows.
    pub active: BTreeMap<(ListenerId, Family), Active>,
    /// Endpoints in use and retired ones.
    pub endpoints: BTreeMap<EndpointId, Endpoint>,
    /// Filled tables, active or not; never [`TableId::EMPTY`].
    pub tables: BTreeMap<TableId, TableInfo>,
    /// Filled sheets.
    pub sheets: BTreeMap<SheetId, SheetInfo>,
}

impl State {
    /// Drops the known slots of all tables; digests stay. A thousand tables are 128 MiB.
    pub fn forget_slots(&mut self) {
        for table in self.tables.values_mut() {
            table.slots = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_remember_the_family() {
        for (text, family) in [("192.0.2.1", Family::V4), ("2001:db8::1", Family::V6)] {
            assert_eq!(Family::of_key(&address_key(text.parse().unwrap())), family);
        }
    }
}
