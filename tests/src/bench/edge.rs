//! The product's program with a plan; without another one it is small: one VIP of each family, a TCP and a UDP listener, 64
//! endpoints each.

#![expect(clippy::wildcard_enum_match_arm, reason = "of a plan's steps only those that name endpoints and listeners matter")]

use std::{net::Ipv4Addr, thread::available_parallelism};

use anyhow::Result;
use aya::programs::ProgramFd;
use ga::{
    maps::{Counters, Fixed, FlowTables, Hops, Hosts, Maps},
    plan::Step,
    program::{self, Sizes},
};
use ga_common::{
    abi::{
        active::{Active, Before},
        entry::{Address, AddressKey, Egress, Endpoint, EndpointCounters, Hop, Listener, Service, ServiceKey, mapped},
        family::Family,
        flow::{Flow, FlowSlot, State, unpack4, unpack6},
        id::{EndpointId, InstanceId, ListenerId, TableId},
        limits::{MAX_EGRESS, TABLE_SIZE},
        reason::{Drop, Pass},
    },
    bench::Listed,
    wire::{
        frame::{TCP, UDP},
        vlan::Tags,
    },
};

use super::frames;

/// Who is addressed.
pub(super) const VIP4: [u8; 4] = [198, 51, 100, 10];
/// Who is addressed, IPv6.
pub(super) const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
/// The port of a TCP and of a UDP listener.
pub(super) const PORT: u16 = 80;
/// The port of a TCP listener that admits one new flow a second.
pub(super) const GUARDED: u16 = 81;

const ENDPOINTS: u16 = 64;
/// An interface that packets of clients do not come in by.
const ELSEWHERE: u32 = 2;

/// The loaded program.
pub(super) struct Edge {
    loaded: program::Loaded,
    flows: FlowTables,
    counters: Counters,
    endpoints: Vec<EndpointId>,
    listeners: Vec<ListenerId>,
    hops: Hops,
    hosts: Hosts,
    _maps: Maps,
}

/// Everything that packets count, summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// Sent to endpoints.
    pub forward: u64,
    /// Sent to clients.
    pub back: u64,
    /// Flows made.
    pub new_flows: u64,
    /// Dropped, by reason.
    pub drops: [u64; Drop::COUNT],
    /// Passed, by reason.
    pub passes: [u64; Pass::COUNT],
}

impl Sums {
    /// What was counted since `before`.
    pub(super) fn since(self, before: Self) -> Self {
        let (mut drops, mut passes) = ([0; Drop::COUNT], [0; Pass::COUNT]);
        for (i, drop) in drops.iter_mut().enumerate() {
            *drop = self.drops[i] - before.drops[i];
        }
        for (i, pass) in passes.iter_mut().enumerate() {
            *pass = self.passes[i] - before.passes[i];
        }
        Self {
            forward: self.forward - before.forward,
            back: self.back - before.back,
            new_flows: self.new_flows - before.new_flows,
            drops,
            passes,
        }
    }
}

impl Edge {
    /// Loads the program with flow tables of these sizes and fills its maps.
    pub(super) fn new(sizes: Sizes) -> Result<Self> {
        Self::with(sizes, &steps())
    }

    /// The same with another plan.
    pub(super) fn with(sizes: Sizes, steps: &[Step]) -> Result<Self> {
        let mut loaded = program::load(None, sizes)?;
        let (mut maps, mut hops) = (Maps::open(&mut loaded.ebpf)?, Hops::open(&mut loaded.ebpf)?);
        let hosts = Hosts::open(&mut loaded.ebpf)?;
        let cpus = available_parallelism()?.get() as u32;
        maps.set_fixed(Fixed { flows4: sizes.flows4, flows6: sizes.flows6, cpus, nat_first: 1024, nat_last: u16::MAX })?;
        let (mut endpoints, mut listeners) = (Vec::new(), vec![ListenerId::NONE]);
        for step in steps {
            maps.apply(step)?;
            match step {
                Step::PutEndpoint(id, endpoint) => {
                    // The hosts of a subnet have next hops of their own.
                    hops.set(*id, (endpoint.addr != [0; 16]).then_some(hop(Tags::NONE)))?;
                    endpoints.push(*id);
                }
                Step::PutListener(id, _) => listeners.push(*id),
                _ => {}
            }
        }
        let flows = FlowTables::open(&mut loaded.ebpf)?;
        let counters = Counters::open(&mut loaded.ebpf)?;
        Ok(Self { loaded, flows, counters, endpoints, listeners, hops, hosts, _maps: maps })
    }

    /// From now on packets for endpoints leave with these tags.
    pub(super) fn tag(&mut self, tags: Tags) -> Result<()> {
        for id in &self.endpoints {
            self.hops.set(*id, Some(hop(tags)))?;
        }
        Ok(())
    }

    /// From now on the way to a host behind custom routing is known.
    pub(super) fn know(&mut self, host: Ipv4Addr) -> Result<()> {
        self.hosts.set(host, Some(hop(Tags::NONE)))?;
        Ok(())
    }

    /// The program.
    pub(super) fn fd(&mut self) -> Result<ProgramFd> {
        Ok(program::program(&mut self.loaded.ebpf)?.fd()?.try_clone()?)
    }

    /// What was counted so far.
    pub(super) fn sums(&self) -> Result<Sums> {
        let mut sums = Sums::default();
        for id in &self.endpoints {
            let EndpointCounters { forward_packets, return_packets, new_flows, .. } = self.counters.endpoint(*id)?;
            sums.forward += forward_packets;
            sums.back += return_packets;
            sums.new_flows += new_flows;
        }
        for listener in &self.listeners {
            for count in self.counters.drops(*listener)? {
                sums.drops[count.reason as usize] += count.packets;
            }
        }
        for count in self.counters.passes()? {
            sums.passes[count.reason as usize] += count.packets;
        }
        Ok(sums)
    }

    /// The flows of a load to `port`, by number: what their clients send.
    pub(super) fn numbers(&self, first: u32, family: Family, port: u16) -> Vec<Listed> {
        let number = |source: [u8; 4], ports: [u8; 4]| [frames::number(first, source, [ports[0], ports[1]]), 0];
        match family {
            Family::V4 => {
                forward(self.flows.slots4(), port).map(|flow| number(unpack4(flow.tuple.addrs).0, flow.tuple.ports)).collect()
            }
            Family::V6 => forward(self.flows.slots6(), port)
                .map(|flow| {
                    let [.., a, b, c, d] = unpack6(flow.tuple.addrs).0;
                    number([a, b, c, d], flow.tuple.ports)
                })
                .collect(),
        }
    }

    /// The IPv4 flows, as tuples: what their endpoints send.
    pub(super) fn replies(&self) -> Vec<Listed> {
        let live = self.flows.slots4().iter().filter(|slot| slot.state().is_live()).map(FlowSlot::load);
        let back = live.filter(|flow| flow.flags & Flow::<1>::RETURN != 0);
        back.map(|flow| [flow.tuple.addrs[0], u64::from(u32::from_ne_bytes(flow.tuple.ports))]).collect()
    }

    /// Makes all flows what they are once both sides have spoken.
    pub(super) fn establish(&self) {
        self.flows.slots4().iter().for_each(establish);
        self.flows.slots6().iter().for_each(establish);
    }

    /// Forgets all IPv4 flows. In a worn table every slot was used before, as after hours of work; in a new one none.
    pub(super) fn forget(&self, worn: bool) {
        let state = if worn { State::NEVER.claimed().freed() } else { State::NEVER };
        for slot in self.flows.slots4() {
            slot.set_state(state);
        }
        for tags in self.flows.tags4() {
            tags.store(0);
        }
    }
}

fn hop(tags: Tags) -> Hop {
    Hop { dst_mac: [2, 0, 0, 0, 1, 1], src_mac: [2, 0, 0, 0, 1, 2], ifindex: ELSEWHERE, tags: tags.0 }
}

fn establish<const K: usize, const W: usize>(slot: &FlowSlot<K, W>) {
    if slot.state().is_live() {
        let meta = slot.meta().with(Flow::<K>::ESTABLISHED | Flow::<K>::ANSWERED);
        slot.meta_cell().store(meta.0);
        let (cell, _, timeout) = slot.timeout_change(900);
        cell.store(timeout);
    }
}

fn forward<const K: usize, const W: usize>(slots: &[FlowSlot<K, W>], port: u16) -> impl Iterator<Item = Flow<K>> {
    let live = slots.iter().filter(|slot| slot.state().is_live()).map(FlowSlot::load);
    live.filter(move |flow| flow.flags & Flow::<K>::RETURN == 0 && flow.tuple.ports[2..] == port.to_be_bytes())
}

/// The small plan.
pub(super) fn steps() -> Vec<Step> {
    let (tcp, udp, guarded) = (ListenerId(0), ListenerId(1), ListenerId(2));
    let instance = InstanceId(0);
    let listener = listener(instance);
    let vip = Address { roles: Address::VIP, protocols: Address::TCP | Address::UDP, instance };
    let egress_role = Address { roles: Address::EGRESS, protocols: 0, instance };
    let (vip4, vip6) = (mapped(VIP4), VIP6);
    let mut egress = Egress { count4: MAX_EGRESS as u16, count6: MAX_EGRESS as u16, ..Egress::default() };
    let mut steps = vec![Step::SetSeed([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210])];
    for n in 0..MAX_EGRESS {
        egress.v4[n] = [203, 0, 113, n as u8 + 1];
        egress.v6[n] = [0x20, 1, 0xd, 0xb8, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n as u8 + 1];
        steps.push(Step::PutAddress(mapped(egress.v4[n]), egress_role));
        steps.push(Step::PutAddress(egress.v6[n], egress_role));
    }
    steps.extend([Step::PutAddress(vip4, vip), Step::PutAddress(vip6, vip), Step::PutEgress(instance, egress)]);
    steps.extend([Step::PutListener(tcp, listener), Step::PutListener(udp, listener)]);
    steps.push(Step::PutListener(guarded, Listener { identity: 2, admission: 1, ..listener }));
    for (nth, listener, family) in [(0, tcp, Family::V4), (1, tcp, Family::V6), (2, udp, Family::V4)] {
        steps.extend(serve(nth, listener, family, family));
    }
    steps.push(Step::Activate { listener: guarded, family: Family::V4, active: Active::of(TableId(1), Before::Same) });
    for addr in [vip4, vip6] {
        for (protocol, port, listener) in [(TCP, PORT, tcp), (UDP, PORT, udp), (TCP, GUARDED, guarded)] {
            let key = ServiceKey { addr, port: port.to_be_bytes(), protocol, pad: 0 };
            steps.push(Step::PutService(key, Service { listener, endpoint_port: [0x1f, 0x90] }));
        }
    }
    steps
}

/// A listener that admits as many new flows as can be.
pub(super) fn listener(instance: InstanceId) -> Listener {
    let flags = Listener::IN_USE;
    Listener { instance, idle_timeout_s: 900, flags, identity: 1, admission: u32::MAX, ..Listener::default() }
}

/// The `nth` set of endpoints and its table, which `listener` uses for clients of a family.
pub(super) fn serve(nth: u16, listener: ListenerId, clients: Family, endpoints: Family) -> Vec<Step> {
    let first = nth * ENDPOINTS;
    let put = |n: u16| {
        let addr: AddressKey = match endpoints {
            Family::V4 => mapped([10, 0, nth as u8, n as u8 + 10]),
            Family::V6 => [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, nth as u8, n as u8 + 10],
        };
        let endpoint = Endpoint { addr, listener, port: [0; 2], flags: Endpoint::IN_USE, identity: u64::from(first + n) };
        Step::PutEndpoint(EndpointId(first + n), endpoint)
    };
    let id = TableId(u32::from(nth) + 1);
    let slots = (0..TABLE_SIZE).map(|slot| EndpointId(first + slot as u16 % ENDPOINTS)).collect();
    let fill = Step::FillTable { id, digest: u64::from(nth) + 1, slots };
    (0..ENDPOINTS)
        .map(put)
        .chain([fill, Step::Activate { listener, family: clients, active: Active::of(id, Before::Same) }])
        .collect()
}
