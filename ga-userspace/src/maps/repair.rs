//! Repairs: what the maps hold is compared with what they should hold, and written again where somebody else changed it.
//!
//! A pass reads every entry of every map that a plan describes; flows and counters belong to packets and are left alone. Of the
//! selection tables only [`TABLES_A_PASS`] are read through, in turn: a table takes 131 kB. A table that was put in another's
//! place, or removed, is found by every pass.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hasher as _},
    io,
    ops::Bound,
    os::fd::AsFd as _,
    sync::Arc,
};

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError},
};
use ga_common::abi::{
    active::Active,
    entry::{SelectionTable, Settings},
    filter,
    id::{EndpointId, InstanceId, ListenerId, TableId},
    limits::{ABI_VERSION, FILTER_WORDS, MAX_ADDRESSES, MAX_ENDPOINTS, MAX_INSTANCES, MAX_LISTENERS, MAX_SERVICES, MAX_TABLES},
};

use super::{Cells, Error, Fixed, Maps, on, tables::Fill};
use crate::plan::{Family, Sheet, SheetId, State};

/// The maps that are compared.
pub const REPAIRED: [&str; 20] = [
    "SETTINGS",
    "FILTER",
    "DIRECT",
    "GATEWAY",
    "ADDRESSES",
    "EGRESS",
    "ACLS4",
    "ACLS6",
    "MAPPINGS",
    "SHEET_DIGESTS",
    "LISTENERS",
    "ENDPOINTS",
    "TABLES",
    "DIGESTS",
    "ACTIVE",
    "SERVICES",
    "HOPS",
    "ENDPOINT_HOPS",
    "MTUS",
    "HOSTS",
];
/// Selection tables whose content is read in one pass.
pub const TABLES_A_PASS: usize = 64;
/// Selection tables whose content is computed again in one pass, which takes two milliseconds each.
const REBUILT_A_PASS: usize = 8;

/// What a pass found.
#[derive(Debug, Default)]
pub struct Repairs {
    /// Entries that were written again, by map.
    pub entries: BTreeMap<&'static str, u64>,
    /// Maps that could not be looked at or not be mended.
    pub failed: Vec<Error>,
}

impl Repairs {
    /// Takes note of what became of a map.
    pub(super) fn note(&mut self, map: &'static str, result: Result<u64, Error>) {
        match result {
            Ok(0) => {}
            Ok(count) => *self.entries.entry(map).or_default() += count,
            Err(error) => self.failed.push(error),
        }
    }

    /// Both together.
    pub fn and(mut self, other: Self) -> Self {
        for (map, count) in other.entries {
            self.note(map, Ok(count));
        }
        self.failed.extend(other.failed);
        self
    }
}

/// Selection tables as they were put into the outer map.
pub(super) struct Contents {
    /// The outer map, seen as the numbers of the maps in it.
    maps: Array<MapData, u32>,
    known: BTreeMap<TableId, Content>,
    last: Option<TableId>,
    /// Opening a map by its number takes CAP_SYS_ADMIN.
    readable: bool,
}

/// One table.
#[derive(Clone, Copy, Debug)]
struct Content {
    /// Number of the map in the kernel.
    map: u32,
    /// Hash of its slots.
    hash: u64,
}

impl Contents {
    pub(super) fn new(outer: &MapData) -> Result<Self, Error> {
        let again = outer.fd().as_fd().try_clone_to_owned().map_err(|source| Error::Share { map: "TABLES", source })?;
        let data = on("TABLES", MapData::from_fd(again))?;
        let maps = on("TABLES", Array::try_from(Map::Array(data)))?;
        Ok(Self { maps, known: BTreeMap::new(), last: None, readable: true })
    }

    /// Number of the map that is a table now.
    fn map(&self, id: TableId) -> Result<Option<u32>, Error> {
        match self.maps.get(&id.0, 0) {
            Ok(map) => Ok(Some(map)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(Error::Map { map: "TABLES", source }),
        }
    }

    /// Takes note of a table that was just put there.
    pub(super) fn put(&mut self, id: TableId, slots: &[EndpointId]) -> Result<(), Error> {
        self.known.remove(&id);
        if let Some(map) = self.map(id)? {
            self.known.insert(id, Content { map, hash: hash(slots) });
        }
        Ok(())
    }

    /// Takes note of a table that was given up.
    pub(super) fn release(&mut self, id: TableId) {
        self.known.remove(&id);
    }

    /// Whether a table was put there, and not given up since.
    pub(super) fn is_known(&self, id: TableId) -> bool {
        self.known.contains_key(&id)
    }

    /// What a table holds now; none when we may not look.
    fn read(&mut self, map: u32) -> Result<Option<u64>, Error> {
        let data = match MapData::from_id(map) {
            Ok(data) => data,
            Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::info!("without CAP_SYS_ADMIN the content of selection tables is not checked, only which ones they are");
                self.readable = false;
                return Ok(None);
            }
            Err(source) => return Err(Error::Map { map: "TABLES", source }),
        };
        let table = on("TABLES", Array::<_, SelectionTable>::try_from(Map::Array(data)))?;
        on("TABLES", table.get(&0, 0)).map(|slots| Some(hash(&slots)))
    }
}

fn hash(slots: &[EndpointId]) -> u64 {
    let mut hasher = DefaultHasher::new();
    slots.iter().for_each(|slot| hasher.write_u16(slot.0));
    hasher.finish()
}

impl<V: Pod + PartialEq> Cells<V> {
    /// Writes what is `right` wherever something else stands; returns in how many places.
    pub(super) fn restore(&mut self, right: impl IntoIterator<Item = (u32, V)>) -> Result<u64, Error> {
        let mut restored = 0;
        for (index, value) in right {
            if self.get(index)? != value {
                self.set(index, value)?;
                restored += 1;
            }
        }
        Ok(restored)
    }
}

/// The same for a hash map: entries that should not be there go, the others are put right.
fn restore<K: Pod + Ord, V: Pod + PartialEq>(
    name: &'static str,
    map: &mut HashMap<MapData, K, V>,
    right: &BTreeMap<K, V>,
    limit: u32,
) -> Result<u64, Error> {
    let mut restored = 0;
    // Keys that vanish meanwhile start the walk again, so it is bounded.
    let keys: Vec<K> = on(name, map.keys().take(limit as usize).collect())?;
    for stray in keys.iter().filter(|key| !right.contains_key(key)) {
        match map.remove(stray) {
            Ok(()) => restored += 1,
            Err(MapError::KeyNotFound) => {}
            Err(source) => return Err(Error::Map { map: name, source }),
        }
    }
    for (key, value) in right {
        match map.get(key, 0) {
            Ok(now) if now == *value => {}
            Ok(_) | Err(MapError::KeyNotFound) => {
                on(name, map.insert(key, value, 0))?;
                restored += 1;
            }
            Err(source) => return Err(Error::Map { map: name, source }),
        }
    }
    Ok(restored)
}

impl Maps {
    /// One pass: compares with `state`, in the order in which a plan would be written. `slots` makes the content of a table of a
    /// digest, `sheet` the content of a sheet.
    pub fn repair(
        &mut self,
        state: &State,
        slots: impl Fn(TableId, u64) -> Option<Arc<[EndpointId]>>,
        sheet: impl Fn(SheetId) -> Option<Sheet>,
    ) -> Repairs {
        let mut repairs = Repairs::default();
        if let Some(fixed) = self.fixed {
            let right = settings(fixed, state);
            repairs.note("SETTINGS", self.settings.restore([(0, right)]));
        }
        repairs.note("FILTER", self.filter.restore(filter_words(state)));
        let direct = state.services.iter().filter(|(_, service)| service.is_direct()).map(|(key, _)| *key);
        repairs.note("DIRECT", self.direct.restore(direct));
        let gateways = state.endpoints.iter().filter(|(_, endpoint)| endpoint.is_gateway());
        repairs.note("GATEWAY", self.gateway.restore(gateways.map(|(id, endpoint)| (endpoint.addr, *id))));
        repairs.note("ADDRESSES", restore("ADDRESSES", &mut self.addresses, &state.addresses, MAX_ADDRESSES));
        let egress = |id: u32| (id, state.egress.get(&InstanceId(id as u16)).copied().unwrap_or_default());
        repairs.note("EGRESS", self.egress.restore((0..MAX_INSTANCES).map(egress)));
        for (map, result) in self.sheets.repair(&state.sheets, sheet) {
            repairs.note(map, result);
        }
        let listener = |id: u32| (id, state.listeners.get(&ListenerId(id as u16)).copied().unwrap_or_default());
        repairs.note("LISTENERS", self.listeners.restore((0..MAX_LISTENERS).map(listener)));
        let endpoint = |id: u32| (id, state.endpoints.get(&EndpointId(id as u16)).copied().unwrap_or_default());
        repairs.note("ENDPOINTS", self.endpoints.restore((0..MAX_ENDPOINTS).map(endpoint)));
        repairs.note("TABLES", self.repair_tables(state, slots));
        let digest = |id: u32| (id, state.tables.get(&TableId(id)).map_or(0, |table| table.digest));
        repairs.note("DIGESTS", self.tables.digests.restore((0..MAX_TABLES).map(digest)));
        let tables: BTreeMap<u32, u32> =
            state.active.iter().map(|((listener, family), active)| (family.active_index(*listener), active.0)).collect();
        let active = |index: u32| (index, tables.get(&index).copied().unwrap_or(Active::EMPTY.0));
        repairs.note("ACTIVE", self.active.restore((0..MAX_LISTENERS * Family::ALL.len() as u32).map(active)));
        repairs.note("SERVICES", restore("SERVICES", &mut self.services, &state.services, MAX_SERVICES));
        repairs
    }

    fn repair_tables(&mut self, state: &State, slots: impl Fn(TableId, u64) -> Option<Arc<[EndpointId]>>) -> Result<u64, Error> {
        self.contents.known.retain(|id, _| state.tables.contains_key(id));
        let mut other = Vec::new();
        for id in state.tables.keys() {
            let known = self.contents.known.get(id).map(|content| content.map);
            let now = self.contents.map(*id)?;
            if now.is_none() || known.is_some() && now != known {
                other.push(*id);
            }
        }
        let (mut restored, mut rebuilt) = (0, 0);
        for id in other.into_iter().chain(self.next_tables(state)) {
            let digest = state.tables.get(&id).map_or(0, |table| table.digest);
            let map = self.contents.map(id)?;
            let known = self.contents.known.get(&id).copied();
            let is_ours = known.is_none_or(|known| Some(known.map) == map);
            let now = match map.filter(|_| is_ours && self.contents.readable) {
                Some(map) => self.contents.read(map)?,
                None => None,
            };
            let is_right = match (known, now) {
                (Some(known), Some(now)) => known.hash == now,
                // What may not be read is right when it is the map that we put there, or found there.
                (_, None) => is_ours && map.is_some(),
                (None, Some(_)) => false,
            };
            if is_right {
                self.contents.last = Some(id);
                continue;
            }
            if rebuilt == REBUILT_A_PASS {
                break;
            }
            rebuilt += 1;
            let Some(content) = slots(id, digest) else {
                // An agent before this one filled it, for flows that are older still: nobody knows what it should be.
                let (None, Some(map), Some(hash)) = (known, map, now) else { return Err(Error::UnknownTable { id }) };
                self.contents.known.insert(id, Content { map, hash });
                self.contents.last = Some(id);
                continue;
            };
            if let (None, Some(map), true) = (known, map, now == Some(hash(&content))) {
                // Found there by this agent, seen for the first time, and right.
                self.contents.known.insert(id, Content { map, hash: hash(&content) });
            } else {
                self.fill(Fill { id, digest, slots: &content })?;
                restored += 1;
            }
            self.contents.last = Some(id);
        }
        Ok(restored)
    }

    /// Whose turn it is to be read.
    fn next_tables(&self, state: &State) -> Vec<TableId> {
        let after = self.contents.last.map_or(Bound::Unbounded, Bound::Excluded);
        let next = state.tables.range((after, Bound::Unbounded)).chain(&state.tables);
        let count = TABLES_A_PASS.min(state.tables.len());
        next.map(|(id, _)| *id).take(count).collect()
    }
}

/// One bit for each of our addresses.
fn filter_words(state: &State) -> impl Iterator<Item = (u32, u64)> {
    let mut words = [0; FILTER_WORDS as usize];
    for (word, bit) in state.addresses.keys().map(filter::place) {
        words[word as usize] |= bit;
    }
    (0..).zip(words)
}

/// What packets have to ask for that they need not ask for in most places.
fn features(state: &State) -> u64 {
    let is_direct = state.services.values().any(|service| service.is_direct());
    let is_gateway = state.endpoints.values().any(|endpoint| endpoint.is_gateway());
    [(is_direct, Settings::DIRECT), (is_gateway, Settings::GATEWAY)].into_iter().filter(|(is, _)| *is).map(|(_, bit)| bit).sum()
}

/// The whole record.
pub(super) fn settings(fixed: Fixed, state: &State) -> Settings {
    let ports = u32::from(fixed.nat_last - fixed.nat_first) + 1;
    Settings {
        abi: ABI_VERSION,
        cpus: fixed.cpus,
        seed: state.seed,
        generation: state.generation.0,
        flow4_mask: fixed.flows4 - 1,
        flow6_mask: fixed.flows6 - 1,
        nat_first: fixed.nat_first,
        nat_span: u16::try_from(ports / fixed.cpus.max(1)).unwrap_or(u16::MAX),
        // Flows are safe from eviction for about 0.1 s: those of one listener then take a quarter of the slots at most.
        features: features(state),
        admission: (fixed.flows4.min(fixed.flows6) / 4 * 5).max(10_000),
    }
}
