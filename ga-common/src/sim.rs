//! The tables and frames of a packet's way in ordinary memory: tests, fuzzing and explanations run what the kernel runs.

use std::{
    boxed::Box,
    cell::{Cell, RefCell, RefMut},
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use crate::{
    abi::{
        active::Active,
        custom::Mapping,
        entry::{
            Address, AddressKey, Egress, Endpoint, EndpointCounters, Hop, Listener, ServedCounters, Service, ServiceKey,
            Settings, mtu_place,
        },
        family::Family,
        filter,
        flow::{Flow, FlowSlot, FlowSlot4, FlowSlot6},
        id::{EndpointId, InstanceId, ListenerId, TableId},
        limits::{ADMISSION_TICKS, FLOW_WAYS, NOTES, TOLD_AT_ONCE},
        reason::Event,
        sheet::{Borders4, Borders6},
    },
    path::{
        tables::{Direction, FlowMemory, Scratch, Tables},
        verdict::Outcome,
    },
    wire::frame::{ETH_LEN, Frame, MAX_OFFSET},
    word::Word,
};

/// A frame in a vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// From the destination MAC on.
    pub bytes: Vec<u8>,
    /// Interface it came in by.
    pub ifindex: u32,
}

impl Frame for Bytes {
    fn window<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        self.bytes.get_mut(offset..offset + N)?.try_into().ok()
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn sum(&mut self, offset: usize, length: usize) -> Option<u32> {
        let bytes = self.bytes.get(offset..offset + length)?;
        let pair = |pair: &[u8]| u32::from(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        Some(bytes.chunks(2).map(pair).sum())
    }

    fn cut(&mut self, length: usize) -> bool {
        let is_longer = length <= self.bytes.len();
        self.bytes.truncate(length);
        is_longer
    }

    fn grow_head(&mut self, by: i32) -> bool {
        let bytes = by.unsigned_abs() as usize;
        if by >= 0 {
            self.bytes.splice(..0, std::iter::repeat_n(0, bytes));
        } else if bytes + ETH_LEN > self.bytes.len() {
            return false;
        } else {
            self.bytes.drain(..bytes);
        }
        true
    }
}

/// All maps, ordered, plus the clock and the CPU.
#[derive(Debug)]
pub struct Sim {
    /// What holds for all packets.
    pub settings: Settings,
    /// The coarse clock.
    pub tick: Cell<u32>,
    /// The CPU that runs the next packet.
    pub cpu: Cell<u32>,
    /// Our addresses.
    pub addresses: BTreeMap<AddressKey, Address>,
    /// VIP, port, protocol.
    pub services: BTreeMap<ServiceKey, Service>,
    /// Listeners.
    pub listeners: BTreeMap<ListenerId, Listener>,
    /// Tables in use, by [`Family::active_index`].
    pub active: BTreeMap<u32, Active>,
    /// Table contents.
    pub tables: BTreeMap<TableId, Vec<EndpointId>>,
    /// Endpoints.
    pub endpoints: BTreeMap<EndpointId, Endpoint>,
    /// Egress addresses.
    pub egress: BTreeMap<InstanceId, Egress>,
    /// IPv4 access lists.
    pub acls4: BTreeMap<u32, Box<Borders4>>,
    /// IPv6 access lists.
    pub acls6: BTreeMap<u32, Box<Borders6>>,
    /// Sheets of custom routing.
    pub mappings: BTreeMap<u32, Box<Mapping>>,
    /// Next hops of hosts behind custom routing.
    pub hosts: BTreeMap<[u8; 4], Hop>,
    /// Hosts whose next hop was asked for.
    pub wanted: RefCell<BTreeSet<[u8; 4]>>,
    /// Next hops.
    pub hops: BTreeMap<EndpointId, Hop>,
    /// MTUs, by [`mtu_place`].
    pub mtus: BTreeMap<u32, u32>,
    /// Senders told that their packets are too big in the current period, and when that began.
    pub told: Cell<(u32, u32)>,
    /// IPv4 flows.
    pub flows4: Vec<FlowSlot4>,
    /// IPv6 flows.
    pub flows6: Vec<FlowSlot6>,
    /// Tags of the IPv4 slots, a word for every [`FLOW_WAYS`].
    pub tags4: Vec<Word>,
    /// Tags of the IPv6 slots.
    pub tags6: Vec<Word>,
    /// Notes of SYNs.
    pub notes: Vec<Word>,
    /// Room of the IPv4 packet on its way.
    pub room4: RefCell<Scratch<1>>,
    /// Room of the IPv6 packet on its way.
    pub room6: RefCell<Scratch<4>>,
    /// New flows of each listener in the current admission period, and when that began.
    pub admitted: RefCell<BTreeMap<ListenerId, (u32, u32)>>,
    /// What happened in flow memory.
    pub events: RefCell<BTreeMap<Event, u64>>,
    /// What was counted.
    pub counters: RefCell<BTreeMap<EndpointId, EndpointCounters>>,
    /// What was counted for listeners that the agent serves.
    pub served: RefCell<BTreeMap<ListenerId, ServedCounters>>,
}

impl Sim {
    /// Empty tables with room for `slots` flow halves of each family, a power of two.
    pub fn new(slots: usize, seed: [u64; 2]) -> Self {
        assert!(slots.is_power_of_two(), "flow tables have a power of two of slots");
        let mask = slots as u32 - 1;
        let settings = Settings {
            abi: crate::abi::limits::ABI_VERSION,
            cpus: 1,
            seed,
            flow4_mask: mask,
            flow6_mask: mask,
            nat_first: 1024,
            nat_span: 31_744,
            ..Settings::default()
        };
        Self {
            settings,
            tick: Cell::new(1),
            cpu: Cell::new(0),
            addresses: BTreeMap::new(),
            services: BTreeMap::new(),
            listeners: BTreeMap::new(),
            active: BTreeMap::new(),
            tables: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            egress: BTreeMap::new(),
            acls4: BTreeMap::new(),
            acls6: BTreeMap::new(),
            mappings: BTreeMap::new(),
            hosts: BTreeMap::new(),
            wanted: RefCell::default(),
            hops: BTreeMap::new(),
            mtus: BTreeMap::new(),
            told: Cell::default(),
            flows4: (0..slots).map(|_| FlowSlot4::free()).collect(),
            flows6: (0..slots).map(|_| FlowSlot6::free()).collect(),
            tags4: tags(slots),
            tags6: tags(slots),
            notes: (0..NOTES).map(|_| Word::new(0)).collect(),
            room4: RefCell::default(),
            room6: RefCell::default(),
            admitted: RefCell::default(),
            events: RefCell::default(),
            counters: RefCell::default(),
            served: RefCell::default(),
        }
    }

    /// Runs one packet.
    pub fn run(&self, frame: &mut Bytes) -> Outcome {
        crate::path::packet(frame, self)
    }

    /// All living IPv4 halves with their slot index.
    pub fn live4(&self) -> Vec<(u32, Flow<1>)> {
        live(&self.flows4)
    }

    /// All living IPv6 halves with their slot index.
    pub fn live6(&self) -> Vec<(u32, Flow<4>)> {
        live(&self.flows6)
    }
}

/// The tags of so many unused slots.
pub fn tags(slots: usize) -> Vec<Word> {
    (0..slots.div_ceil(FLOW_WAYS as usize)).map(|_| Word::new(0)).collect()
}

fn live<const K: usize, const W: usize>(slots: &[FlowSlot<K, W>]) -> Vec<(u32, Flow<K>)> {
    let is_live = |slot: &FlowSlot<K, W>| slot.state().is_live();
    (0..).zip(slots).filter(|(_, slot)| is_live(slot)).map(|(index, slot)| (index, slot.load())).collect()
}

impl FlowMemory<1, 6> for Sim {
    type Room<'a> = RefMut<'a, Scratch<1>>;

    fn room(&self) -> Option<RefMut<'_, Scratch<1>>> {
        self.room4.try_borrow_mut().ok()
    }

    fn slot(&self, index: u32) -> Option<&FlowSlot4> {
        self.flows4.get(index as usize)
    }

    fn tags(&self, group: u32) -> Option<&Word> {
        self.tags4.get(group as usize)
    }

    fn mask(&self, settings: &Settings) -> u32 {
        settings.flow4_mask
    }
}

impl FlowMemory<4, 14> for Sim {
    type Room<'a> = RefMut<'a, Scratch<4>>;

    fn room(&self) -> Option<RefMut<'_, Scratch<4>>> {
        self.room6.try_borrow_mut().ok()
    }

    fn slot(&self, index: u32) -> Option<&FlowSlot6> {
        self.flows6.get(index as usize)
    }

    fn tags(&self, group: u32) -> Option<&Word> {
        self.tags6.get(group as usize)
    }

    fn mask(&self, settings: &Settings) -> u32 {
        settings.flow6_mask
    }
}

impl Tables for Sim {
    fn settings(&self) -> Option<&Settings> {
        (self.settings.abi != 0).then_some(&self.settings)
    }

    fn tick(&self) -> u32 {
        self.tick.get()
    }

    fn cpu(&self) -> u32 {
        self.cpu.get()
    }

    fn filter(&self, word: u32) -> u64 {
        let place = |key: &AddressKey| filter::place(key);
        self.addresses.keys().map(place).filter(|(at, _)| *at == word).fold(0, |bits, (_, bit)| bits | bit)
    }

    fn direct(&self, word: u32) -> u64 {
        let direct = self.services.iter().filter(|(_, service)| service.is_direct()).map(|(key, _)| filter::direct_place(key));
        direct.filter(|(at, _)| *at == word).fold(0, |bits, (_, bit)| bits | bit)
    }

    fn gateway(&self, word: u32) -> u64 {
        let gateways = self.endpoints.values().filter(|endpoint| endpoint.is_gateway());
        let places = gateways.map(|endpoint| filter::gateway_place(&endpoint.addr));
        places.filter(|(at, _)| *at == word).fold(0, |bits, (_, bit)| bits | bit)
    }

    fn address(&self, key: &AddressKey) -> Option<Address> {
        self.addresses.get(key).copied()
    }

    fn service(&self, key: &ServiceKey) -> Option<Service> {
        self.services.get(key).copied()
    }

    fn listener(&self, id: ListenerId) -> Option<&Listener> {
        self.listeners.get(&id)
    }

    fn active(&self, listener: ListenerId, family: Family) -> Active {
        self.active.get(&family.active_index(listener)).copied().unwrap_or_default()
    }

    fn note(&self, index: u32) -> Option<&Word> {
        self.notes.get(index as usize)
    }

    fn choose(&self, table: TableId, slot: u32) -> Option<EndpointId> {
        self.tables.get(&table)?.get(slot as usize).copied()
    }

    fn endpoint(&self, id: EndpointId) -> Option<&Endpoint> {
        self.endpoints.get(&id)
    }

    fn egress(&self, id: InstanceId) -> Option<&Egress> {
        self.egress.get(&id)
    }

    fn acl4(&self, number: u32) -> Option<&Borders4> {
        self.acls4.get(&number).map(|list| &**list)
    }

    fn acl6(&self, number: u32) -> Option<&Borders6> {
        self.acls6.get(&number).map(|list| &**list)
    }

    fn mapping(&self, number: u32) -> Option<&Mapping> {
        self.mappings.get(&number).map(|mapping| &**mapping)
    }

    fn host(&self, address: [u8; 4]) -> Option<&Hop> {
        self.hosts.get(&address).filter(|hop| hop.ifindex != 0)
    }

    fn want(&self, address: [u8; 4]) {
        if !self.hosts.contains_key(&address) && self.wanted.borrow_mut().insert(address) {
            self.count_event(Event::HostWanted);
        }
    }

    fn hop(&self, id: EndpointId) -> Option<&Hop> {
        self.hops.get(&id)
    }

    fn mtu(&self, ifindex: u32, tags: u32) -> u32 {
        self.mtus.get(&mtu_place(ifindex, tags)).copied().unwrap_or(0)
    }

    fn may_tell(&self, now: u32) -> bool {
        let (since, count) = self.told.get();
        let (since, count) = if now.wrapping_sub(since) >= ADMISSION_TICKS { (now, 0) } else { (since, count) };
        self.told.set((since, count + 1));
        count < TOLD_AT_ONCE
    }

    fn admit(&self, id: ListenerId, allowed: u32, now: u32) -> bool {
        let mut admitted = self.admitted.borrow_mut();
        let (since, count) = admitted.entry(id).or_default();
        if now.wrapping_sub(*since) >= ADMISSION_TICKS {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= allowed
    }

    fn turn(&self, cell: &Word, bits: u64) {
        cell.turn(bits);
    }

    fn swap(&self, cell: &Word, old: u64, new: u64) -> bool {
        cell.swap(old, new)
    }

    fn count(&self, id: EndpointId, direction: Direction, bytes: u64) {
        let mut counters = self.counters.borrow_mut();
        let entry = counters.entry(id).or_default();
        match direction {
            Direction::Forward => {
                entry.forward_packets += 1;
                entry.forward_bytes += bytes;
            }
            Direction::Return => {
                entry.return_packets += 1;
                entry.return_bytes += bytes;
            }
        }
    }

    fn count_flow(&self, id: EndpointId) {
        self.counters.borrow_mut().entry(id).or_default().new_flows += 1;
    }

    fn count_failure(&self, id: EndpointId) {
        self.counters.borrow_mut().entry(id).or_default().failures += 1;
        self.count_event(Event::EndpointFailed);
    }

    fn count_served(&self, id: ListenerId, is_opening: bool, bytes: u64) {
        let mut served = self.served.borrow_mut();
        let entry = served.entry(id).or_default();
        entry.packets += 1;
        entry.bytes += bytes;
        entry.openings += u64::from(is_opening);
    }

    fn count_event(&self, event: Event) {
        *self.events.borrow_mut().entry(event).or_default() += 1;
    }
}
