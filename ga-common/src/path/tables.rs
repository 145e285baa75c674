//! The memory a packet may ask. The kernel implements it over BPF maps, the simulator over ordinary memory.

use crate::abi::{
    entry::{Address, AddressKey, Egress, Endpoint, Hop, Listener, Service, ServiceKey, Settings},
    family::Family,
    flow::FlowSlot,
    id::{EndpointId, InstanceId, ListenerId, TableId},
};
use crate::word::Word;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the endpoint.
    Forward,
    /// From the endpoint to the client.
    Return,
}

/// The flow slots of one family.
pub trait FlowMemory<const K: usize, const W: usize> {
    /// The slot at `index`, if the table is that large.
    fn slot(&self, index: u32) -> Option<&FlowSlot<K, W>>;
    /// Number of slots minus one; the number is a power of two.
    fn mask(&self, settings: &Settings) -> u32;
}

/// Everything else.
pub trait Tables: FlowMemory<1, 6> + FlowMemory<4, 14> {
    /// What holds for all packets.
    fn settings(&self) -> Option<&Settings>;
    /// The coarse monotonic clock in ticks of [`TICK_SHIFT`](crate::abi::flow::TICK_SHIFT).
    fn tick(&self) -> u32;
    /// The CPU that runs this.
    fn cpu(&self) -> u32;
    /// What `key` is to us.
    fn address(&self, key: &AddressKey) -> Option<Address>;
    /// Who serves `key`.
    fn service(&self, key: &ServiceKey) -> Option<Service>;
    /// A listener.
    fn listener(&self, id: ListenerId) -> Option<&Listener>;
    /// The table new flows of `listener` use; [`TableId::EMPTY`] when none can be chosen.
    fn active(&self, listener: ListenerId, family: Family) -> TableId;
    /// One entry of a table.
    fn choose(&self, table: TableId, slot: u32) -> Option<EndpointId>;
    /// An endpoint.
    fn endpoint(&self, id: EndpointId) -> Option<&Endpoint>;
    /// An instance's egress addresses.
    fn egress(&self, id: InstanceId) -> Option<&Egress>;
    /// How to get to an endpoint; none while its neighbour is unknown.
    fn hop(&self, id: EndpointId) -> Option<Hop>;
    /// Compare-and-swap; true when `cell` held `old` and now holds `new`.
    fn swap(&self, cell: &Word, old: u64, new: u64) -> bool;
    /// Counts a packet of an endpoint.
    fn count(&self, id: EndpointId, direction: Direction, bytes: u64);
    /// Counts a new flow of an endpoint.
    fn count_flow(&self, id: EndpointId);
}
