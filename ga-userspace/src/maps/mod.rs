//! The maps of the data path: the only room that writes them. It makes no choice: steps come from the plan.
//!
//! One file per kind of memory: `flows` (shared with packets, word by word), `walk` (the same for people), `hops` (how to get to
//! endpoints), `mtus` (what fits on the way), `counters` (read only), `tables` (who is chosen), `sheets` (who may open flows), `repair` (puts right what somebody else changed), `watch` and
//! `trace` (of the programs beside the usual one), and here all else that a plan describes.

mod counters;
mod filter;
mod flows;
mod hops;
mod hosts;
mod mtus;
mod repair;
mod sheets;
mod tables;
mod trace;
mod walk;
mod watch;

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, Map, MapData, MapError},
};
use ga_common::abi::{
    active::Active,
    entry::{Address, AddressKey, Egress, Endpoint, Listener, Service, ServiceKey, Settings},
    filter as places,
    id::{EndpointId, Generation, InstanceId, ListenerId, TableId},
    limits::{DIRECT_WORDS, GATEWAY_WORDS, MAX_ENDPOINTS, MAX_INSTANCES, MAX_LISTENERS, MAX_TABLES},
};

pub use counters::{Counters, DropCount, PassCount};
pub use flows::{FlowTables, Idle, LiveFlows};
pub use hops::Hops;
pub use hosts::Hosts;
pub use mtus::{Mtus, places};
pub use repair::{REPAIRED, Repairs, TABLES_A_PASS};
use sheets::Sheets;
use tables::{Fill, SelectionTables};
pub use trace::TraceMap;
pub use walk::{Pair, Stage};
pub use watch::{Told, WatchMaps, WatchRing};

use self::{
    filter::Filter,
    repair::{Contents, settings},
};
use crate::plan::{Family, SheetId, State, Step, TableInfo};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object does not have a map that we want.
    #[error("the program has no map {0}")]
    Missing(&'static str),
    /// The kernel said no.
    #[error("map {map}: {source}")]
    Map {
        /// Which map.
        map: &'static str,
        /// What it said.
        source: MapError,
    },
    /// The flow tables could not be shared.
    #[error("map {map} cannot be mapped into memory: {source}")]
    Share {
        /// Which map.
        map: &'static str,
        /// What it said.
        source: std::io::Error,
    },
    /// A table is not what it should be, and what it should be is not known.
    #[error("table {id} is not what it should be, and the running plan does not have its content: reload the configuration")]
    UnknownTable {
        /// Which one.
        id: TableId,
    },
    /// A sheet is not what it should be, and what it should be is not known.
    #[error("{id} is not what it should be, and the running plan does not have its content: reload the configuration")]
    UnknownSheet {
        /// Which one.
        id: SheetId,
    },
    /// No room.
    #[error("all {limit} next hops are in use")]
    HopsFull {
        /// How many there are.
        limit: u32,
    },
}

impl Error {
    /// Whether the same may succeed a moment later: the kernel is short of memory, or busy.
    pub fn is_passing(&self) -> bool {
        use rustix::io::Errno;
        let Self::Map { source, .. } = self else { return false };
        let error = if let MapError::SyscallError(error) = source {
            &error.io_error
        } else if let MapError::CreateError { io_error, .. } = source {
            io_error
        } else {
            return false;
        };
        let passing = [Errno::NOMEM, Errno::BUSY, Errno::AGAIN, Errno::TOOBIG, Errno::INTR];
        passing.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
    }
}

/// Adds the map's name to an error.
fn on<T>(map: &'static str, result: Result<T, MapError>) -> Result<T, Error> {
    result.map_err(|source| Error::Map { map, source })
}

/// Takes a map out of the object.
fn take<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, Error> {
    on(name, T::try_from(ebpf.take_map(name).ok_or(Error::Missing(name))?))
}

/// An array map and its name.
struct Cells<V: Pod> {
    name: &'static str,
    array: Array<MapData, V>,
}

impl<V: Pod> Cells<V> {
    fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, Error> {
        Ok(Self { name, array: take(ebpf, name)? })
    }

    fn get(&self, index: u32) -> Result<V, Error> {
        on(self.name, self.array.get(&index, 0))
    }

    fn set(&mut self, index: u32, value: V) -> Result<(), Error> {
        on(self.name, self.array.set(index, value, 0))
    }
}

/// The table that a step fills.
fn fill(step: &Step) -> Option<Fill<'_>> {
    if let Step::FillTable { id, digest, slots } = step { Some(Fill { id: *id, digest: *digest, slots }) } else { None }
}

/// The settings that do not come from a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// Slots of the IPv4 flow table.
    pub flows4: u32,
    /// Slots of the IPv6 flow table.
    pub flows6: u32,
    /// CPUs that share the NAT ports.
    pub cpus: u32,
    /// First NAT port.
    pub nat_first: u16,
    /// Last NAT port.
    pub nat_last: u16,
}

/// An endpoint that answers to clients' addresses by way of this edge: several may have one address.
type Gateway = (AddressKey, EndpointId);

/// Every map that a plan describes.
pub struct Maps {
    settings: Cells<Settings>,
    listeners: Cells<Listener>,
    active: Cells<u32>,
    endpoints: Cells<Endpoint>,
    egress: Cells<Egress>,
    tables: SelectionTables,
    sheets: Sheets,
    addresses: HashMap<MapData, AddressKey, Address>,
    filter: Cells<u64>,
    services: HashMap<MapData, ServiceKey, Service>,
    direct: Filter<ServiceKey>,
    gateway: Filter<Gateway>,
    contents: Contents,
    /// What was set last.
    fixed: Option<Fixed>,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub fn open(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let Some(Map::ArrayOfMaps(outer)) = ebpf.map("TABLES") else { return Err(Error::Missing("TABLES")) };
        let contents = Contents::new(outer)?;
        Ok(Self {
            settings: Cells::take(ebpf, "SETTINGS")?,
            listeners: Cells::take(ebpf, "LISTENERS")?,
            active: Cells::take(ebpf, "ACTIVE")?,
            endpoints: Cells::take(ebpf, "ENDPOINTS")?,
            egress: Cells::take(ebpf, "EGRESS")?,
            tables: SelectionTables::open(ebpf)?,
            sheets: Sheets::open(ebpf)?,
            addresses: take(ebpf, "ADDRESSES")?,
            filter: Cells::take(ebpf, "FILTER")?,
            services: take(ebpf, "SERVICES")?,
            direct: Filter::open(ebpf, "DIRECT", DIRECT_WORDS, places::direct_place)?,
            gateway: Filter::open(ebpf, "GATEWAY", GATEWAY_WORDS, |(address, _)| places::gateway_place(address))?,
            contents,
            fixed: None,
        })
    }

    /// Writes the settings that do not come from a plan; seed and generation stay.
    pub fn set_fixed(&mut self, fixed: Fixed) -> Result<(), Error> {
        let old = self.settings.get(0)?;
        let kept = State { generation: Generation(old.generation), seed: old.seed, ..State::default() };
        let new = Settings { features: old.features, ..settings(fixed, &kept) };
        if new != old {
            self.settings.set(0, new)?;
        }
        self.fixed = Some(fixed);
        Ok(())
    }

    /// Does steps in order and tells which were done, also when one fails. Tables in a row are filled side by side.
    pub fn apply_all(&mut self, steps: &[Step], mut done: impl FnMut(&Step)) -> Result<(), Error> {
        for steps in steps.chunk_by(|one, next| fill(one).is_some() && fill(next).is_some()) {
            let tables: Vec<_> = steps.iter().filter_map(fill).collect();
            if tables.is_empty() {
                steps.iter().try_for_each(|step| self.apply(step).map(|()| done(step)))?;
                continue;
            }
            let mut failed = Ok(());
            for ((step, table), result) in steps.iter().zip(&tables).zip(self.tables.fill_all(&tables)?) {
                match result.and_then(|()| self.contents.put(table.id, table.slots)) {
                    Ok(()) => done(step),
                    Err(error) => failed = Err(error),
                }
            }
            failed?;
        }
        // What is given up is waited for now, so that the next change waits for nobody. Without that it would only take longer.
        if let Err(error) = self.tables.prepare(|id| self.contents.is_known(id)) {
            tracing::warn!("no tables are ready for the next change: {error}");
        }
        Ok(())
    }

    /// Does one step.
    pub fn apply(&mut self, step: &Step) -> Result<(), Error> {
        match step {
            Step::SetSeed(seed) => self.change_settings(|settings| settings.seed = *seed),
            Step::SetGeneration(Generation(number)) => self.change_settings(|settings| settings.generation = *number),
            Step::PutAddress(key, address) => {
                let (word, bit) = places::place(key);
                let bits = self.filter.get(word)?;
                self.filter.set(word, bits | bit)?;
                on("ADDRESSES", self.addresses.insert(key, address, 0))
            }
            Step::RemoveAddress(key) => {
                on("ADDRESSES", self.addresses.remove(key))?;
                let (word, _) = places::place(key);
                let bits = self.filter_word(word)?;
                self.filter.set(word, bits)
            }
            Step::PutService(key, service) if service.is_direct() => {
                self.direct.add(key)?;
                self.change_settings(|settings| settings.features |= Settings::DIRECT)?;
                on("SERVICES", self.services.insert(key, service, 0))
            }
            Step::PutService(key, service) => {
                on("SERVICES", self.services.insert(key, service, 0))?;
                self.close_direct(key)
            }
            Step::RemoveService(key) => {
                on("SERVICES", self.services.remove(key))?;
                self.close_direct(key)
            }
            Step::PutEgress(InstanceId(id), egress) => self.egress.set(u32::from(*id), *egress),
            Step::RemoveEgress(InstanceId(id)) => self.egress.set(u32::from(*id), Egress::default()),
            Step::PutListener(ListenerId(id), listener) => self.listeners.set(u32::from(*id), *listener),
            Step::RemoveListener(ListenerId(id)) => self.listeners.set(u32::from(*id), Listener::default()),
            Step::PutEndpoint(id, endpoint) => self.put_endpoint(*id, endpoint),
            Step::RetireEndpoint(EndpointId(id)) => {
                let endpoint = self.endpoints.get(u32::from(*id))?;
                self.endpoints.set(u32::from(*id), endpoint.retired())
            }
            Step::FillTable { id, digest, slots } => self.fill(Fill { id: *id, digest: *digest, slots }),
            Step::Activate { listener, family, active } => self.active.set(family.active_index(*listener), active.0),
            Step::FillSheet { id, content } => self.sheets.fill(*id, content),
            Step::ReleaseSheet(id) => self.sheets.release(*id),
            Step::ReleaseTable(id) => {
                self.contents.release(*id);
                self.tables.release(*id)
            }
        }
    }

    fn fill(&mut self, table: Fill<'_>) -> Result<(), Error> {
        self.tables.fill(table)?;
        self.contents.put(table.id, table.slots)
    }

    /// Packets need not ask for a service any more that they had to ask for, if it was one.
    fn close_direct(&mut self, key: &ServiceKey) -> Result<(), Error> {
        if self.direct.is_empty() {
            return Ok(());
        }
        self.direct.remove(key)?;
        if !self.direct.is_empty() {
            return Ok(());
        }
        self.change_settings(|settings| settings.features &= !Settings::DIRECT)
    }

    /// Packets look at what an endpoint sends to anybody from before the first flow that needs it until its entry is another's.
    fn put_endpoint(&mut self, id: EndpointId, endpoint: &Endpoint) -> Result<(), Error> {
        let old = self.endpoints.get(u32::from(id.0))?;
        if endpoint.is_gateway() {
            self.gateway.add(&(endpoint.addr, id))?;
            self.change_settings(|settings| settings.features |= Settings::GATEWAY)?;
        }
        self.endpoints.set(u32::from(id.0), *endpoint)?;
        if !old.is_gateway() || endpoint.is_gateway() && old.addr == endpoint.addr {
            return Ok(());
        }
        self.gateway.remove(&(old.addr, id))?;
        if !self.gateway.is_empty() {
            return Ok(());
        }
        self.change_settings(|settings| settings.features &= !Settings::GATEWAY)
    }

    /// What the filter should say in one of its words.
    fn filter_word(&self, word: u32) -> Result<u64, Error> {
        let mut bits = 0;
        for key in self.addresses.keys() {
            let (at, bit) = places::place(&on("ADDRESSES", key)?);
            if at == word {
                bits |= bit;
            }
        }
        Ok(bits)
    }

    fn change_settings(&mut self, change: impl FnOnce(&mut Settings)) -> Result<(), Error> {
        let mut settings = self.settings.get(0)?;
        change(&mut settings);
        self.settings.set(0, settings)
    }

    /// What the maps hold: the running state that a plan starts from. Tables are known by their digests only.
    pub fn read(&mut self) -> Result<State, Error> {
        let settings = self.settings.get(0)?;
        let mut state = State { generation: Generation(settings.generation), seed: settings.seed, ..State::default() };
        for id in 0..MAX_LISTENERS as u16 {
            let listener = self.listeners.get(u32::from(id))?;
            if listener.flags & Listener::IN_USE != 0 {
                state.listeners.insert(ListenerId(id), listener);
                for family in Family::ALL {
                    let active = Active(self.active.get(family.active_index(ListenerId(id)))?);
                    state.active.insert((ListenerId(id), family), active);
                }
            }
        }
        for id in 0..MAX_ENDPOINTS as u16 {
            let endpoint = self.endpoints.get(u32::from(id))?;
            if endpoint.is_gateway() {
                self.gateway.know(&(endpoint.addr, EndpointId(id)));
            }
            if endpoint.flags != 0 {
                state.endpoints.insert(EndpointId(id), endpoint);
            }
        }
        for id in 1..MAX_TABLES {
            let digest = self.tables.digest(id)?;
            if digest != 0 {
                state.tables.insert(TableId(id), TableInfo { digest, slots: None });
            }
        }
        state.sheets = self.sheets.read()?;
        for id in 0..MAX_INSTANCES as u16 {
            let egress = self.egress.get(u32::from(id))?;
            if egress != Egress::default() {
                state.egress.insert(InstanceId(id), egress);
            }
        }
        for entry in self.addresses.iter() {
            let (key, address) = on("ADDRESSES", entry)?;
            state.addresses.insert(key, address);
        }
        for entry in self.services.iter() {
            let (key, service) = on("SERVICES", entry)?;
            if service.is_direct() {
                self.direct.know(&key);
            }
            state.services.insert(key, service);
        }
        Ok(state)
    }
}
