//! The flow tables, shared with packets: counted, aged and released by the agent without a system call.

use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::{Ebpf, maps::Map};
use ga_common::{
    abi::{
        flow::{Flow, FlowSlot, FlowSlot4, FlowSlot6, State, Tuple, unpack4, unpack6},
        id::EndpointId,
        limits::FLOW_WAYS,
    },
    word::Word,
};
use memmap2::{MmapOptions, MmapRaw};
use std::{
    collections::{BTreeMap, BTreeSet},
    marker::PhantomData,
    net::IpAddr,
    time::Duration,
};

use super::Error;

/// One flow table, mapped.
#[derive(Debug)]
struct Shared<T> {
    memory: MmapRaw,
    len: usize,
    of: PhantomData<[T]>,
}

/// What packets share with us: made of shared words only.
trait Words {}
impl Words for Word {}
impl<const K: usize, const W: usize> Words for FlowSlot<K, W> {}

impl<T: Words> Shared<T> {
    fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, Error> {
        let Some(Map::Array(data)) = ebpf.take_map(name) else { return Err(Error::Missing(name)) };
        let info = data.info().map_err(|source| Error::Map { map: name, source })?;
        let len = info.max_entries() as usize;
        let bytes = len * size_of::<T>();
        let memory = MmapOptions::new()
            .len(bytes)
            .map_raw(data.fd().as_fd().as_raw_fd())
            .map_err(|source| Error::Share { map: name, source })?;
        Ok(Self { memory, len, of: PhantomData })
    }

    fn all(&self) -> &[T] {
        // SAFETY: the mapping is page-aligned, `len` values long, lives as long as `self`, and `T` is made of shared words only:
        // every bit pattern is valid and every access by us is atomic, whatever packets do meanwhile.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast::<T>(), self.len) }
    }
}

/// Both flow tables.
#[derive(Debug)]
pub struct FlowTables {
    v4: Shared<FlowSlot4>,
    v6: Shared<FlowSlot6>,
    tags4: Shared<Word>,
    tags6: Shared<Word>,
}

/// Flows alive, by endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveFlows {
    /// IPv4 flows.
    pub v4: u64,
    /// IPv6 flows.
    pub v6: u64,
    /// Of both families.
    pub by_endpoint: BTreeMap<EndpointId, u64>,
}

/// A TCP flow that was idle for its timeout: what both sides must be told (RFC 5382 §5 leaves it to us; the specification
/// wants both sides closed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Where the client is.
    pub client: (IpAddr, u16),
    /// Where the client connected to.
    pub vip: (IpAddr, u16),
    /// What the endpoint saw as the client.
    pub egress: (IpAddr, u16),
    /// Where the endpoint is.
    pub endpoint: (IpAddr, u16),
    /// Sequence number the client expects next.
    pub to_client: u32,
    /// Sequence number the endpoint expects next.
    pub to_endpoint: u32,
}

impl FlowTables {
    /// Takes the maps out of a loaded object and maps them.
    pub fn open(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            v4: Shared::take(ebpf, "FLOWS4")?,
            v6: Shared::take(ebpf, "FLOWS6")?,
            tags4: Shared::take(ebpf, "TAGS4")?,
            tags6: Shared::take(ebpf, "TAGS6")?,
        })
    }

    /// The IPv4 slots.
    pub fn slots4(&self) -> &[FlowSlot4] {
        self.v4.all()
    }

    /// The IPv6 slots.
    pub fn slots6(&self) -> &[FlowSlot6] {
        self.v6.all()
    }

    /// The tags of the IPv4 slots, a word a group.
    pub fn tags4(&self) -> &[Word] {
        self.tags4.all()
    }

    /// The tags of the IPv6 slots.
    pub fn tags6(&self) -> &[Word] {
        self.tags6.all()
    }

    /// Frees what an agent that was killed in the middle of a sweep had claimed; how many slots there were.
    pub fn recover(&self) -> usize {
        recover(self.slots4(), self.tags4()) + recover(self.slots6(), self.tags6())
    }

    /// Counts the living flows at tick `now`.
    pub fn live(&self, now: u32) -> LiveFlows {
        let (mut live, v4, v6) = (LiveFlows::default(), self.slots4(), self.slots6());
        live.v4 = count(v4, v6, now, &mut live.by_endpoint);
        live.v6 = count(v6, v4, now, &mut live.by_endpoint);
        live
    }

    /// Endpoints that living flows are remembered to go to whose packets stay as they are.
    pub fn alone(&self, now: u32) -> BTreeSet<EndpointId> {
        let mut found = BTreeSet::new();
        alone(self.slots4(), now, &mut found);
        alone(self.slots6(), now, &mut found);
        found
    }

    /// Releases the pairs that both halves of were silent for their timeout, and tells which established TCP flows were among
    /// them.
    pub fn sweep(&self, now: u32) -> Vec<Idle> {
        let mut idle = Vec::new();
        let (v4, v6) = ((self.slots4(), self.tags4()), (self.slots6(), self.tags6()));
        sweep(v4, v6, now, &mut idle);
        sweep(v6, v4, now, &mut idle);
        idle
    }

    /// Ends the living pairs of which `is_over` says so, asked by client, endpoint and what the endpoint is reached at, and tells
    /// which established TCP flows were among them.
    pub fn end(&self, now: u32, is_over: impl Fn(IpAddr, EndpointId, (IpAddr, u16)) -> bool) -> Vec<Idle> {
        let mut ended = Vec::new();
        let (v4, v6) = ((self.slots4(), self.tags4()), (self.slots6(), self.tags6()));
        end(v4, v6, now, &is_over, &mut ended);
        end(v6, v4, now, &is_over, &mut ended);
        ended
    }
}

/// Addresses as people write them.
pub(super) trait Ends: Copy {
    /// Source and destination.
    fn ends(self) -> (IpAddr, IpAddr);
}

impl Ends for [u64; 1] {
    fn ends(self) -> (IpAddr, IpAddr) {
        let (src, dst) = unpack4(self);
        (src.into(), dst.into())
    }
}

impl Ends for [u64; 4] {
    fn ends(self) -> (IpAddr, IpAddr) {
        let (src, dst) = unpack6(self);
        (src.into(), dst.into())
    }
}

fn count<const K: usize, const W: usize, const P: usize, const Q: usize>(
    slots: &[FlowSlot<K, W>],
    across: &[FlowSlot<P, Q>],
    now: u32,
    by_endpoint: &mut BTreeMap<EndpointId, u64>,
) -> u64 {
    let mut total = 0;
    for (index, slot) in slots.iter().enumerate() {
        if slot.state().is_live() && is_pair_alive(slots, across, index, slot, now) {
            let flow = slot.load();
            if flow.flags & Flow::<K>::RETURN == 0 {
                total += 1;
                *by_endpoint.entry(EndpointId(flow.endpoint)).or_default() += 1;
            }
        }
    }
    total
}

fn alone<const K: usize, const W: usize>(slots: &[FlowSlot<K, W>], now: u32, found: &mut BTreeSet<EndpointId>) {
    let is_alone = |slot: &&FlowSlot<K, W>| {
        slot.state().is_live() && slot.meta().protocol() & Tuple::<K>::ALONE != 0 && !slot.is_silent(now)
    };
    found.extend(slots.iter().filter(is_alone).map(|slot| slot.meta().endpoint()));
}

/// The same rule by which packets judge: either half was heard of, and they name each other. `across` is the other family's table.
fn is_pair_alive<const K: usize, const W: usize, const P: usize, const Q: usize>(
    slots: &[FlowSlot<K, W>],
    across: &[FlowSlot<P, Q>],
    index: usize,
    slot: &FlowSlot<K, W>,
    now: u32,
) -> bool {
    let state = slot.state();
    !slot.is_silent(now)
        || near_peer(slots, index, state).is_some_and(|peer| !peer.is_silent(now))
        || far_peer(across, index, state).is_some_and(|peer| !peer.is_silent(now))
}

/// The other half in the same table of the half at `index`.
pub(super) fn near_peer<const K: usize, const W: usize>(
    slots: &[FlowSlot<K, W>],
    index: usize,
    state: State,
) -> Option<&FlowSlot<K, W>> {
    let peer = slots.get(state.peer() as usize)?;
    (peer.state().is_live() && peer.state().peer() as usize == index).then_some(peer)
}

/// The other half in the other family's table of the half at `index`.
pub(super) fn far_peer<const P: usize, const Q: usize>(
    across: &[FlowSlot<P, Q>],
    index: usize,
    state: State,
) -> Option<&FlowSlot<P, Q>> {
    let peer = across.get(state.peer_across() as usize)?;
    (peer.state().is_live() && peer.state().peer_across() as usize == index).then_some(peer)
}

/// Frees a slot that is ours, because we claimed it.
fn free<const K: usize, const W: usize>(slot: &FlowSlot<K, W>, tags: &[Word], index: usize) {
    let (group, at) = (index / FLOW_WAYS as usize, index % FLOW_WAYS as usize * 8);
    if let Some(tags) = tags.get(group) {
        tags.turn(tags.load() & 0xff << at);
    }
    slot.set_state(slot.state().freed());
}

/// Frees the slots that were claimed by somebody who is not there any more: packets keep one for less than a microsecond.
fn recover<const K: usize, const W: usize>(slots: &[FlowSlot<K, W>], tags: &[Word]) -> usize {
    let busy = |(_, slot): &(usize, &FlowSlot<K, W>)| slot.state().is_busy();
    let claimed: Vec<_> = slots.iter().enumerate().filter(busy).map(|(index, slot)| (index, slot, slot.state())).collect();
    if !claimed.is_empty() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let left = claimed.into_iter().filter(|(_, slot, state)| slot.state() == *state);
    left.map(|(index, slot, _)| free(slot, tags, index)).count()
}

/// Slots and tags of one family.
type Table<'a, const K: usize, const W: usize> = (&'a [FlowSlot<K, W>], &'a [Word]);
/// A half, and what its sender acknowledged last.
type Half<const K: usize> = (Flow<K>, u32);

fn sweep<const K: usize, const W: usize, const P: usize, const Q: usize>(
    (slots, tags): Table<'_, K, W>,
    across: Table<'_, P, Q>,
    now: u32,
    idle: &mut Vec<Idle>,
) where
    [u64; K]: Ends,
    [u64; P]: Ends,
{
    for (index, slot) in slots.iter().enumerate() {
        let state = slot.state();
        if !state.is_live() || !slot.is_silent(now) || is_pair_alive(slots, across.0, index, slot, now) {
            continue;
        }
        idle.extend(release((slots, tags), across, index, state));
    }
}

fn end<const K: usize, const W: usize, const P: usize, const Q: usize>(
    (slots, tags): Table<'_, K, W>,
    across: Table<'_, P, Q>,
    now: u32,
    is_over: &impl Fn(IpAddr, EndpointId, (IpAddr, u16)) -> bool,
    ended: &mut Vec<Idle>,
) where
    [u64; K]: Ends,
    [u64; P]: Ends,
{
    for (index, slot) in slots.iter().enumerate() {
        let state = slot.state();
        if !state.is_live() || !is_pair_alive(slots, across.0, index, slot, now) {
            continue;
        }
        let flow = slot.load();
        if flow.flags & Flow::<K>::RETURN != 0 {
            continue;
        }
        // Where the answers come from, which an IPv4 slot does not say of an IPv6 endpoint.
        let endpoint = match far_peer(across.0, index, state) {
            Some(peer) => peer.addrs().ends().0,
            None => flow.new_addrs.ends().1,
        };
        let [.., e0, e1] = flow.new_ports;
        // What was copied counts only if the slot was the same flow's all the while, which releasing it finds out.
        if is_over(flow.tuple.addrs.ends().0, EndpointId(flow.endpoint), (endpoint, u16::from_be_bytes([e0, e1]))) {
            ended.extend(release((slots, tags), across, index, state));
        }
    }
}

/// Frees both halves of the pair whose one half is at `index` and was `state`; what both sides must be told.
fn release<const K: usize, const W: usize, const P: usize, const Q: usize>(
    (slots, tags): Table<'_, K, W>,
    across: Table<'_, P, Q>,
    index: usize,
    state: State,
) -> Option<Idle>
where
    [u64; K]: Ends,
    [u64; P]: Ends,
{
    let slot = &slots[index];
    let half = (slot.load(), slot.clock().1);
    if !slot.state_cell().swap(state.0, state.claimed().0) {
        return None;
    }
    free(slot, tags, index);
    // The other half dies with it, if it still is the other half.
    if let Some(peer) = near_peer(slots, index, state) {
        let other = take(peer, tags, state.peer() as usize, |state| state.peer() as usize == index)?;
        told(half, other)
    } else {
        let peer = far_peer(across.0, index, state)?;
        let other = take(peer, across.1, state.peer_across() as usize, |state| state.peer_across() as usize == index)?;
        told(half, other)
    }
}

/// Frees a slot while it is the peer that is meant; what it was.
fn take<const K: usize, const W: usize>(
    slot: &FlowSlot<K, W>,
    tags: &[Word],
    index: usize,
    is_peer: impl Fn(State) -> bool,
) -> Option<Half<K>> {
    let (state, half) = (slot.state(), (slot.load(), slot.clock().1));
    if !state.is_live() || !is_peer(state) || !slot.state_cell().swap(state.0, state.claimed().0) {
        return None;
    }
    free(slot, tags, index);
    Some(half)
}

/// What both sides of a pair must be told, if it was an established TCP flow.
fn told<const K: usize, const P: usize>(half: Half<K>, other: Half<P>) -> Option<Idle>
where
    [u64; K]: Ends,
    [u64; P]: Ends,
{
    let is_open = |flags: u8| flags & (Flow::<1>::ESTABLISHED | Flow::<1>::CLOSED) == Flow::<1>::ESTABLISHED;
    if half.0.tuple.protocol != ga_common::wire::frame::TCP || !is_open(half.0.flags) || !is_open(other.0.flags) {
        return None;
    }
    Some(if half.0.flags & Flow::<K>::RETURN == 0 { tell(half, other) } else { tell(other, half) })
}

fn tell<const K: usize, const P: usize>(forward: Half<K>, back: Half<P>) -> Idle
where
    [u64; K]: Ends,
    [u64; P]: Ends,
{
    let (client, vip) = forward.0.tuple.addrs.ends();
    let (endpoint, egress) = back.0.tuple.addrs.ends();
    let ports = |p: [u8; 4]| (u16::from_be_bytes([p[0], p[1]]), u16::from_be_bytes([p[2], p[3]]));
    let ((client_port, vip_port), (endpoint_port, egress_port)) = (ports(forward.0.tuple.ports), ports(back.0.tuple.ports));
    Idle {
        client: (client, client_port),
        vip: (vip, vip_port),
        egress: (egress, egress_port),
        endpoint: (endpoint, endpoint_port),
        // What one side acknowledged last is what it expects next.
        to_client: forward.1,
        to_endpoint: back.1,
    }
}
