//! The memory a packet may ask. The kernel implements it over BPF maps, the simulator over ordinary memory.

use core::ops::DerefMut;

use crate::abi::{
    active::Active,
    custom::{Found, Mapping},
    entry::{Address, AddressKey, Egress, Endpoint, Hop, Listener, Service, ServiceKey, Settings},
    family::Family,
    flow::{FlowSlot, State, Tuple, Way},
    id::{EndpointId, InstanceId, ListenerId, TableId},
    reason::Event,
    sheet::{Borders4, Borders6},
};
use crate::word::Word;

use super::{
    acl,
    cross::icmp::Report,
    custom,
    explain::Stage,
    fail,
    flow::{self, NO_SLOT, News},
    gateway,
    parse::{Parsed, Place},
    select,
    track::{self, Tracked},
    verdict::Outcome,
};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the endpoint.
    Forward,
    /// From the endpoint to the client.
    Return,
}

/// What a packet keeps outside the stack, of which the kernel gives 512 bytes, once it turns out to be of no known flow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Scratch<const K: usize> {
    /// The packet.
    pub packet: Parsed<K>,
    /// The tuple of the replies.
    pub reply: Tuple<K>,
    /// What the packet becomes.
    pub to: Tuple<K>,
    /// The way back to the client.
    pub from: Way,
    /// The service that is asked for.
    pub key: ServiceKey,
    /// Who serves it.
    pub service: Service,
    /// The hash of the packet's tuple.
    pub hash: u64,
    /// Who was chosen.
    pub endpoint: EndpointId,
    /// Who did not answer, and is not to be chosen again; [`EndpointId::NONE`] for a first try.
    pub avoid: EndpointId,
    /// Whose egress addresses it takes.
    pub instance: InstanceId,
    /// The slot of the forward half.
    pub forward: u32,
    /// The slot of the return half.
    pub back: u32,
    /// Seconds of silence after which the new pair is over.
    pub timeout_s: u16,
    /// What the packet says of its flow.
    pub news: News,
    /// Where the endpoint is.
    pub target: AddressKey,
    /// Custom routing leads to a host that must not be reached.
    pub is_denied: u32,
    /// What an ICMP error of the other family becomes.
    pub report: Report,
}

/// A half of the pair that is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// From the client on.
    Forward,
    /// From the endpoint back.
    Return,
}

impl<const K: usize> Scratch<K> {
    /// What packets of a half look like on arrival.
    #[inline(always)]
    pub fn half(&self, which: Half) -> &Tuple<K> {
        match which {
            Half::Forward => &self.packet.tuple,
            Half::Return => &self.reply,
        }
    }

    /// Empty room.
    pub const fn new() -> Self {
        let tuple = Tuple { addrs: [0; K], ports: [0; 4], protocol: 0 };
        Self {
            packet: Parsed { tuple, place: Place { l3: 0, l4: 0 }, flags: 0, ack: 0, speaks: false, ttl: 0 },
            reply: tuple,
            to: tuple,
            from: Way { dst: 0, src: 0, ifindex: 0, tags: 0 },
            key: ServiceKey { addr: [0; 16], port: [0; 2], protocol: 0, pad: 0 },
            service: Service { listener: ListenerId::NONE, endpoint_port: [0; 2] },
            hash: 0,
            endpoint: EndpointId::NONE,
            avoid: EndpointId::NONE,
            instance: InstanceId(0),
            forward: NO_SLOT,
            back: NO_SLOT,
            timeout_s: 0,
            news: News { flags: 0, seq: 0 },
            target: [0; 16],
            is_denied: 0,
            report: Report::NONE,
        }
    }
}

impl<const K: usize> Default for Scratch<K> {
    fn default() -> Self {
        Self::new()
    }
}

/// The flow slots of one family.
pub trait FlowMemory<const K: usize, const W: usize> {
    /// Some room that nobody else uses while the packet is on its way.
    type Room<'a>: DerefMut<Target = Scratch<K>>
    where
        Self: 'a;

    /// Room for the packet that is on its way; every call gives the same, and no two are in use at once.
    fn room(&self) -> Option<Self::Room<'_>>;
    /// The slot at `index`, if the table is that large.
    fn slot(&self, index: u32) -> Option<&FlowSlot<K, W>>;
    /// The tags of a group of slots: one byte a slot, none of them zero once the slot was used.
    fn tags(&self, group: u32) -> Option<&Word>;
    /// Number of slots minus one; the number is a power of two.
    fn mask(&self, settings: &Settings) -> u32;

    /// [`flow::claim`]. This and what follows are rare: the kernel has functions of their own for them, which its verifier judges
    /// once and not on every way that leads there.
    #[inline(always)]
    fn claim(&self, hash: u64) -> u32
    where
        Self: Tables + Sized,
    {
        flow::claim::<K, W, Self>(self, hash, self.tick())
    }

    /// [`flow::evict`] for the sake of the slot's NAT port.
    #[inline(always)]
    fn reuse(&self, index: u32, hash: u64) -> u32
    where
        Self: Tables + Sized,
    {
        flow::evict::<K, W, Self>(self, index, hash, self.tick(), Event::PortReused)
    }

    /// [`fail::gives_up`].
    #[inline(always)]
    fn gives_up(&self, index: u32, state: State, opens: bool) -> bool
    where
        Self: Tables + Sized,
    {
        fail::gives_up::<K, W, Self>(self, index, state, opens)
    }

    /// [`fail::is_unreachable`].
    #[inline(always)]
    fn is_unreachable(&self, index: u32, state: State) -> bool
    where
        Self: Tables + Sized,
    {
        fail::is_unreachable::<K, W, Self>(self, index, state)
    }

    /// [`track::choose`] for the packet in its room.
    #[inline(always)]
    fn tracked(&self) -> Tracked
    where
        Self: Tables + Sized,
    {
        track::choose::<K, W, Self>(self)
    }

    /// [`track::remember`] of the packet in its room.
    #[inline(always)]
    fn remember(&self)
    where
        Self: Tables + Sized,
    {
        track::remember::<K, W, Self>(self);
    }

    /// [`flow::taken`] for one of the tuples in `room`, which is this packet's.
    #[inline(always)]
    fn taken(&self, room: &Scratch<K>, which: Half, hash: u64, mine: u32) -> u32
    where
        Self: Tables + Sized,
    {
        flow::taken::<K, W, Self>(self, room, which, hash, mine)
    }
}

/// Everything else.
pub trait Tables: FlowMemory<1, 6> + FlowMemory<4, 14> {
    /// Whether nothing may be written: the packet is only asked about.
    const DRY: bool = false;

    /// Notes what a stage found; nobody does unless somebody asks.
    #[inline(always)]
    fn explain(&self, _stage: impl FnOnce() -> Stage) {}

    /// What holds for all packets.
    fn settings(&self) -> Option<&Settings>;
    /// The coarse monotonic clock in ticks of [`TICK_SHIFT`](crate::abi::flow::TICK_SHIFT).
    fn tick(&self) -> u32;
    /// The CPU that runs this.
    fn cpu(&self) -> u32;
    /// One word of the filter of our addresses.
    fn filter(&self, word: u32) -> u64;
    /// Note number `index` of a SYN, below [`NOTES`](crate::abi::limits::NOTES).
    fn note(&self, index: u32) -> Option<&Word>;
    /// One word of the filter of services whose endpoints answer clients themselves.
    fn direct(&self, word: u32) -> u64;
    /// One word of the filter of endpoints that answer to clients' addresses by way of this edge.
    fn gateway(&self, word: u32) -> u64;
    /// What `key` is to us.
    fn address(&self, key: &AddressKey) -> Option<Address>;
    /// Who serves `key`.
    fn service(&self, key: &ServiceKey) -> Option<Service>;
    /// A listener.
    fn listener(&self, id: ListenerId) -> Option<&Listener>;
    /// The table new flows of `listener` use, and what is known of older ones.
    fn active(&self, listener: ListenerId, family: Family) -> Active;
    /// One entry of a table.
    fn choose(&self, table: TableId, slot: u32) -> Option<EndpointId>;
    /// [`select::elsewhere`]. Rare, so the kernel has it apart.
    #[inline(always)]
    fn elsewhere(&self, table: TableId, hash: u64, avoid: EndpointId) -> u32
    where
        Self: Sized,
    {
        select::elsewhere(self, table, hash, avoid)
    }
    /// [`gateway::answer`]. Rare, so the kernel has it apart.
    #[inline(always)]
    fn keep(&self, family: Family) -> Outcome
    where
        Self: Sized,
    {
        gateway::answer(self, family)
    }
    /// An endpoint.
    fn endpoint(&self, id: EndpointId) -> Option<&Endpoint>;
    /// An instance's egress addresses.
    fn egress(&self, id: InstanceId) -> Option<&Egress>;
    /// An IPv4 access list.
    #[inline(always)]
    fn acl4(&self, _number: u32) -> Option<&Borders4> {
        None
    }
    /// An IPv6 access list.
    #[inline(always)]
    fn acl6(&self, _number: u32) -> Option<&Borders6> {
        None
    }
    /// Whether the access lists that `word` names keep `source` out. Rare, so the kernel has it apart.
    #[inline(always)]
    fn denies(&self, word: u32, source: &AddressKey) -> bool {
        acl::denies(self, word, source)
    }
    /// A sheet of custom routing.
    #[inline(always)]
    fn mapping(&self, _number: u32) -> Option<&Mapping> {
        None
    }
    /// Where a port leads by a sheet of custom routing. Rare, so the kernel has it apart.
    #[inline(always)]
    fn leads(&self, number: u32, port: u32, protocol: u32) -> Found {
        custom::find(self, number, port, protocol)
    }
    /// How to get to a host behind custom routing; none while that is not known.
    #[inline(always)]
    fn host(&self, _address: [u8; 4]) -> Option<&Hop> {
        None
    }
    /// Asks the agent how to get to a host behind custom routing.
    #[inline(always)]
    fn want(&self, _address: [u8; 4]) {}
    /// How to get to an endpoint; none while its neighbour is unknown.
    fn hop(&self, id: EndpointId) -> Option<&Hop>;
    /// Bytes that an IP packet may have which leaves by this interface with these VLAN tags, packed; 0 when nobody knows.
    fn mtu(&self, ifindex: u32, tags: u32) -> u32;
    /// Whether this CPU may tell one more sender now that its packet is too big.
    fn may_tell(&self, now: u32) -> bool;
    /// Whether this CPU may open one more flow of a listener now, of `allowed` in [`ADMISSION_TICKS`](crate::abi::limits::ADMISSION_TICKS).
    fn admit(&self, id: ListenerId, allowed: u32, now: u32) -> bool;
    /// Turns the bits of `cell` that are set in `bits`, whatever other CPUs do with the rest of it meanwhile.
    fn turn(&self, cell: &Word, bits: u64);
    /// Compare-and-swap; true when `cell` held `old` and now holds `new`.
    fn swap(&self, cell: &Word, old: u64, new: u64) -> bool;
    /// Counts a packet of an endpoint.
    fn count(&self, id: EndpointId, direction: Direction, bytes: u64);
    /// Counts a new flow of an endpoint.
    fn count_flow(&self, id: EndpointId);
    /// Counts a flow that an endpoint did not answer.
    fn count_failure(&self, id: EndpointId);
    /// Counts a packet for a listener that the agent serves.
    fn count_served(&self, id: ListenerId, is_opening: bool, bytes: u64);
    /// Counts what happened in flow memory.
    fn count_event(&self, event: Event);
}
