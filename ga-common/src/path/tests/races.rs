//! Two CPUs at once: at every look at flow memory of one packet, another CPU runs a whole packet.

use std::{
    boxed::Box,
    cell::{Cell, RefCell},
};

use super::fixture::{CLIENT_SIDE, ENDPOINT_SIDE, End, Kind, check_pairs, client, edge, frame, read, send, vip};
use crate::{
    abi::{
        entry::{Address, AddressKey, Egress, Endpoint, Hop, Listener, Service, ServiceKey, Settings},
        flow::{FlowSlot4, FlowSlot6},
        id::{EndpointId, InstanceId, ListenerId, TableId},
    },
    path::{
        packet,
        parse::flag,
        tables::{Direction, Family, FlowMemory, Tables},
        verdict::Verdict,
    },
    sim::{Bytes, Sim},
    word::Word,
};

/// The tables of a simulator, with somebody else at work in the middle of a packet.
struct Meddled<'a> {
    sim: &'a Sim,
    looks: Cell<u32>,
    at: u32,
    meddle: RefCell<Option<Box<dyn FnOnce() + 'a>>>,
}

impl Meddled<'_> {
    fn look(&self) {
        let looks = self.looks.get();
        self.looks.set(looks + 1);
        if looks == self.at
            && let Some(meddle) = self.meddle.take()
        {
            meddle();
        }
    }
}

impl FlowMemory<1, 6> for Meddled<'_> {
    fn slot(&self, index: u32) -> Option<&FlowSlot4> {
        self.look();
        FlowMemory::<1, 6>::slot(self.sim, index)
    }

    fn mask(&self, settings: &Settings) -> u32 {
        settings.flow4_mask
    }
}

impl FlowMemory<4, 14> for Meddled<'_> {
    fn slot(&self, index: u32) -> Option<&FlowSlot6> {
        self.look();
        FlowMemory::<4, 14>::slot(self.sim, index)
    }

    fn mask(&self, settings: &Settings) -> u32 {
        settings.flow6_mask
    }
}

impl Tables for Meddled<'_> {
    fn settings(&self) -> Option<&Settings> {
        self.sim.settings()
    }
    fn tick(&self) -> u32 {
        self.sim.tick()
    }
    fn cpu(&self) -> u32 {
        0
    }
    fn address(&self, key: &AddressKey) -> Option<Address> {
        self.sim.address(key)
    }
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        self.sim.service(key)
    }
    fn listener(&self, id: ListenerId) -> Option<&Listener> {
        self.sim.listener(id)
    }
    fn active(&self, listener: ListenerId, family: Family) -> TableId {
        self.sim.active(listener, family)
    }
    fn choose(&self, table: TableId, slot: u32) -> Option<EndpointId> {
        self.sim.choose(table, slot)
    }
    fn endpoint(&self, id: EndpointId) -> Option<&Endpoint> {
        self.sim.endpoint(id)
    }
    fn egress(&self, id: InstanceId) -> Option<&Egress> {
        self.sim.egress(id)
    }
    fn hop(&self, id: EndpointId) -> Option<Hop> {
        self.sim.hop(id)
    }
    fn swap(&self, cell: &Word, old: u64, new: u64) -> bool {
        self.look();
        self.sim.swap(cell, old, new)
    }
    fn count(&self, id: EndpointId, direction: Direction, bytes: u64) {
        self.sim.count(id, direction, bytes);
    }
    fn count_flow(&self, id: EndpointId) {
        self.sim.count_flow(id);
    }
}

const SYN: Kind = Kind::Tcp(flag::SYN);

#[test]
fn a_flow_opened_on_another_cpu_in_the_middle_of_ours_is_never_overwritten() {
    for family in Family::ALL {
        // Few slots and many clients: some pairs of them want the same slot.
        for number in 2..50 {
            let mut at = 0;
            while meddle(family, client(family, 1, 1), client(family, number, 2), at) {
                at += 1;
            }
            assert!(at >= 8, "the packet was meddled with at {at} looks");
        }
    }
}

/// Opens a flow for `ours`, and at our look number `at` one for `theirs`; false when there was no such look.
fn meddle(family: Family, ours: End, theirs: End, at: u32) -> bool {
    let mut sim = edge(8, 1000, &[1]);
    sim.settings.cpus = 2;
    let sim = &sim;
    let sent = RefCell::new(None);
    let other_cpu = || {
        sim.cpu.set(1);
        let mut bytes = Bytes { bytes: frame(theirs, vip(family, false), SYN), ifindex: CLIENT_SIDE };
        if let Verdict::Send(_) = sim.run(&mut bytes).verdict {
            sent.replace(Some(read(&bytes.bytes)));
        }
    };
    let meddled = Meddled { sim, looks: Cell::new(0), at, meddle: RefCell::new(Some(Box::new(other_cpu))) };
    let mut bytes = Bytes { bytes: frame(ours, vip(family, false), SYN), ifindex: CLIENT_SIDE };
    let outcome = packet(&mut bytes, &meddled);
    check(sim);
    if let Verdict::Send(_) = outcome.verdict {
        replies_reach(sim, read(&bytes.bytes), ours, at);
    }
    if let Some(ends) = sent.take() {
        replies_reach(sim, ends, theirs, at);
    }
    meddled.looks.get() > at
}

fn replies_reach(sim: &Sim, (src, dst): (End, End), client: End, at: u32) {
    let reply = send(sim, dst, src, Kind::Tcp(flag::SYN | flag::ACK), ENDPOINT_SIDE);
    assert_eq!(reply.map(|(_, to)| to), Ok(client), "meddled with at look {at}");
}

fn check(sim: &Sim) {
    check_pairs(&sim.live4(), |index| sim.flows4[index as usize].state().peer());
    check_pairs(&sim.live6(), |index| sim.flows6[index as usize].state().peer());
}
