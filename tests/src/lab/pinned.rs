//! What the pinned maps of a data path hold, read while nobody else does: the agent may be dead.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError};
use ga_common::abi::{
    entry::{AddressKey, Endpoint, Listener, SelectionTable, Service, ServiceKey},
    family::Family,
    id::{ListenerId, TableId},
    limits::{MAX_ENDPOINTS, MAX_LISTENERS, MAX_TABLES},
};

/// A selection table, slot by slot: whose address, or nobody's.
pub(super) type Slots = Vec<Option<AddressKey>>;

/// A listener in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Port at the endpoint, by VIP, protocol and port.
    pub services: BTreeMap<ServiceKey, u16>,
    /// What new flows choose from, by whether of IPv6; none is left out.
    pub tables: BTreeMap<bool, Slots>,
}

/// Everything that packets may choose from, and what it occupies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// Listeners by their stable hash.
    pub listeners: BTreeMap<u64, Shown>,
    /// Tables that are filled.
    pub tables: usize,
    /// Endpoints in use.
    pub endpoints: usize,
}

fn pinned<T: TryFrom<Map, Error = MapError>>(dir: &Path, name: &str) -> Result<T> {
    let path = dir.join("maps").join(name);
    let open = || T::try_from(Map::from_map_data(MapData::from_pin(&path)?)?);
    open().with_context(|| format!("cannot read {}", path.display()))
}

/// Reads the pins under `dir`. The error says what packets could fall over: a service whose listener is not in use, a table that was
/// never filled, an entry that names no endpoint.
pub fn read(dir: &Path) -> Result<Picture> {
    let listeners: Array<MapData, Listener> = pinned(dir, "LISTENERS")?;
    let active: Array<MapData, u32> = pinned(dir, "ACTIVE")?;
    let digests: Array<MapData, u64> = pinned(dir, "DIGESTS")?;
    let endpoints: Array<MapData, Endpoint> = pinned(dir, "ENDPOINTS")?;
    let tables: ArrayOfMaps<MapData, Array<MapData, SelectionTable>> = pinned(dir, "TABLES")?;
    let services: HashMap<MapData, ServiceKey, Service> = pinned(dir, "SERVICES")?;

    let endpoints = (0..MAX_ENDPOINTS).map(|id| endpoints.get(&id, 0)).collect::<Result<Vec<_>, _>>()?;
    let mut picture = Picture::default();
    let mut names = BTreeMap::new();
    for id in 0..MAX_LISTENERS {
        let listener = listeners.get(&id, 0)?;
        if listener.flags & Listener::IN_USE == 0 {
            continue;
        }
        let mut shown = Shown::default();
        for family in Family::ALL {
            let number = active.get(&family.active_index(ListenerId(id as u16)), 0)?;
            if TableId(number) == TableId::EMPTY {
                continue;
            }
            let filled = digests.get(&number, 0)? != 0;
            ensure!(filled, "listener {id} chooses from table {number}, which is given up");
            let inner = tables.get(&number, 0).with_context(|| format!("listener {id} chooses from table {number}"))?;
            let table: SelectionTable = inner.get(&0, 0)?;
            let slots = table.iter().map(|endpoint| endpoints.get(usize::from(endpoint.0)));
            let slots: Slots = slots.map(|endpoint| endpoint.filter(|it| it.flags != 0).map(|it| it.addr)).collect();
            ensure!(slots.iter().all(Option::is_some), "an entry of table {number} names no endpoint");
            shown.tables.insert(family == Family::V6, slots);
        }
        names.insert(ListenerId(id as u16), listener.identity);
        picture.listeners.insert(listener.identity, shown);
    }
    for entry in services.iter() {
        let (key, service) = entry?;
        let name = names.get(&service.listener).with_context(|| format!("{key:?} has a listener that is not in use"))?;
        let port = u16::from_be_bytes(service.endpoint_port);
        if let Some(shown) = picture.listeners.get_mut(name) {
            shown.services.insert(key, port);
        }
    }
    for id in 1..MAX_TABLES {
        picture.tables += usize::from(digests.get(&id, 0)? != 0);
    }
    picture.endpoints = endpoints.iter().filter(|endpoint| endpoint.flags & Endpoint::IN_USE != 0).count();
    Ok(picture)
}

impl Picture {
    /// Whether every listener is as in one of two other pictures, each family for itself: a table is the one or the other, never
    /// something between, and so is what each VIP and port leads to.
    pub fn is_between(&self, old: &Self, new: &Self) -> Result<()> {
        for (name, shown) in &self.listeners {
            let other: Vec<&Shown> = [old, new].iter().filter_map(|picture| picture.listeners.get(name)).collect();
            ensure!(!other.is_empty(), "listener {name:016x} is in neither configuration");
            for (is_v6, slots) in &shown.tables {
                let known = other.iter().any(|other| other.tables.get(is_v6) == Some(slots));
                ensure!(known, "listener {name:016x} (IPv6: {is_v6}) has a table of neither configuration");
            }
            for (key, port) in &shown.services {
                let known = other.iter().any(|other| other.services.get(key) == Some(port));
                ensure!(known, "{key:?} leads to port {port}, as in neither configuration");
            }
        }
        // What both have is there all the time.
        for (name, shown) in &old.listeners {
            let Some(after) = new.listeners.get(name) else { continue };
            let now = self.listeners.get(name).with_context(|| format!("listener {name:016x} is gone"))?;
            for key in shown.services.keys().filter(|key| after.services.contains_key(*key)) {
                ensure!(now.services.contains_key(key), "{key:?} leads nowhere");
            }
            for is_v6 in shown.tables.keys().filter(|is_v6| after.tables.contains_key(*is_v6)) {
                ensure!(now.tables.contains_key(is_v6), "listener {name:016x} (IPv6: {is_v6}) has no table");
            }
        }
        Ok(())
    }
}
