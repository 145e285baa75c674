//! Two CPUs at once: at every look at flow memory of one packet, another CPU runs a whole packet.

use std::{
    boxed::Box,
    cell::{Cell, RefCell, RefMut},
    collections::BTreeMap,
};

use proptest::prelude::*;

use super::fixture::{CLIENT_SIDE, ENDPOINT_SIDE, End, Kind, check, client, edge, send, send_over, vip};
use crate::{
    abi::{
        active::Active,
        entry::{Address, AddressKey, Egress, Endpoint, Hop, Listener, Service, ServiceKey, Settings},
        family::Family,
        flow::{FlowSlot4, FlowSlot6},
        id::{EndpointId, InstanceId, ListenerId, TableId},
        reason::Event,
    },
    path::{
        parse::flag,
        tables::{Direction, FlowMemory, Scratch, Tables},
    },
    sim::Sim,
    word::Word,
};

/// The tables of a simulator, with somebody else at work in the middle of a packet.
struct Meddled<'a> {
    sim: &'a Sim,
    looks: Cell<u32>,
    at: u32,
    room4: RefCell<Scratch<1>>,
    room6: RefCell<Scratch<4>>,
    meddle: RefCell<Option<Box<dyn FnOnce() + 'a>>>,
}

impl<'a> Meddled<'a> {
    fn new(sim: &'a Sim, at: u32, other_cpu: impl FnOnce() + 'a) -> Self {
        let meddle = RefCell::new(Some(Box::new(other_cpu) as Box<dyn FnOnce()>));
        Self { sim, looks: Cell::new(0), at, room4: RefCell::default(), room6: RefCell::default(), meddle }
    }

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
    type Room<'a>
        = RefMut<'a, Scratch<1>>
    where
        Self: 'a;

    fn room(&self) -> Option<Self::Room<'_>> {
        self.room4.try_borrow_mut().ok()
    }

    fn tags(&self, group: u32) -> Option<&Word> {
        self.look();
        FlowMemory::<1, 6>::tags(self.sim, group)
    }

    fn slot(&self, index: u32) -> Option<&FlowSlot4> {
        self.look();
        FlowMemory::<1, 6>::slot(self.sim, index)
    }

    fn mask(&self, settings: &Settings) -> u32 {
        settings.flow4_mask
    }
}

impl FlowMemory<4, 14> for Meddled<'_> {
    type Room<'a>
        = RefMut<'a, Scratch<4>>
    where
        Self: 'a;

    fn room(&self) -> Option<Self::Room<'_>> {
        self.room6.try_borrow_mut().ok()
    }

    fn tags(&self, group: u32) -> Option<&Word> {
        self.look();
        FlowMemory::<4, 14>::tags(self.sim, group)
    }

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
    fn filter(&self, word: u32) -> u64 {
        self.sim.filter(word)
    }
    fn admit(&self, id: ListenerId, allowed: u32, now: u32) -> bool {
        self.sim.admit(id, allowed, now)
    }
    fn mtu(&self, ifindex: u32, tags: u32) -> u32 {
        self.sim.mtu(ifindex, tags)
    }
    fn may_tell(&self, now: u32) -> bool {
        self.sim.may_tell(now)
    }
    fn turn(&self, cell: &Word, bits: u64) {
        self.sim.turn(cell, bits);
    }
    fn direct(&self, word: u32) -> u64 {
        self.sim.direct(word)
    }

    fn gateway(&self, word: u32) -> u64 {
        self.sim.gateway(word)
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
    fn active(&self, listener: ListenerId, family: Family) -> Active {
        self.sim.active(listener, family)
    }
    fn note(&self, index: u32) -> Option<&Word> {
        self.sim.note(index)
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
    fn hop(&self, id: EndpointId) -> Option<&Hop> {
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
    fn count_failure(&self, id: EndpointId) {
        self.sim.count_failure(id);
    }

    fn count_served(&self, id: ListenerId, is_opening: bool, bytes: u64) {
        self.sim.count_served(id, is_opening, bytes);
    }

    fn count_event(&self, event: Event) {
        self.sim.count_event(event);
    }
}

const SYN: Kind = Kind::Tcp(flag::SYN);

/// A packet: of client 1, 2, 3…, or of the endpoint to whoever that client is to it.
#[derive(Clone, Copy, Debug)]
struct Act {
    number: u32,
    is_reply: bool,
    kind: Kind,
}

fn act() -> impl Strategy<Value = Act> {
    let flags = [flag::SYN, flag::SYN, flag::ACK, flag::FIN | flag::ACK, flag::RST].map(|flags| Just(Kind::Tcp(flags)));
    (1..5u32, any::<bool>(), proptest::sample::select(flags.map(|just| just.0).to_vec()))
        .prop_map(|(number, is_reply, kind)| Act { number, is_reply, kind })
}

/// What the endpoint saw of each client last.
type Faces = RefCell<BTreeMap<u32, (End, End)>>;

/// The clients' port, which each of them would keep.
const PORT: u16 = 2000;

fn do_act<T: Tables>(tables: &T, faces: &Faces, act: Act) {
    let (client, vip) = (client(Family::V4, act.number, PORT), vip(Family::V4, false));
    if !act.is_reply {
        if let Ok(face) = send_over(tables, client, vip, act.kind, CLIENT_SIDE) {
            faces.borrow_mut().insert(act.number, face);
        }
        return;
    }
    let face = faces.borrow().get(&act.number).copied();
    if let Some((egress, endpoint)) = face {
        // Whom it reaches is looked at afterwards: a face of long ago may be somebody else's by now.
        let _anybody = send_over(tables, endpoint, egress, act.kind, ENDPOINT_SIDE);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// Whatever another CPU does at whatever look of ours: halves stay together, tuples stay single, and whoever is sent
    /// through gets the answers.
    #[test]
    fn another_cpu_at_any_moment_breaks_no_pair(
        before in proptest::collection::vec(act(), 0..8),
        ours in act(),
        theirs in proptest::collection::vec(act(), 1..4),
        at in 0..24u32,
    ) {
        let mut sim = edge(8, 1000, &[1]);
        sim.settings.cpus = 2;
        let (sim, faces) = (&sim, &Faces::default());
        before.into_iter().for_each(|act| do_act(sim, faces, act));
        let other_cpu = || {
            sim.cpu.set(1);
            theirs.iter().for_each(|act| do_act(sim, faces, *act));
        };
        let meddled = Meddled::new(sim, at, other_cpu);
        do_act(&meddled, faces, ours);
        check(sim);
        answers_arrive(sim);
    }
}

fn answers_arrive(sim: &Sim) {
    let vip = vip(Family::V4, false);
    for number in 1..5 {
        let client = client(Family::V4, number, PORT);
        if let Ok((egress, endpoint)) = send(sim, client, vip, Kind::Tcp(flag::ACK), CLIENT_SIDE) {
            let answer = send(sim, endpoint, egress, Kind::Tcp(flag::ACK), ENDPOINT_SIDE);
            assert_eq!(answer, Ok((vip, client)), "the answer to client {number}");
        }
    }
}

#[test]
fn a_flow_opened_on_another_cpu_in_the_middle_of_ours_is_never_overwritten() {
    // Few slots and many clients: some pairs of them want the same slot.
    for family in Family::ALL {
        for number in 2..50 {
            let mut at = 0;
            while meddle(family, client(family, 1, 1), client(family, number, 2), at) {
                at += 1;
            }
            assert!(at >= 8, "the packet was meddled with at {at} looks");
        }
    }
}

#[test]
fn of_two_cpus_that_want_one_port_at_once_one_gets_another() {
    for family in Family::ALL {
        for number in 2..20 {
            let mut at = 0;
            while meddle(family, client(family, 1, PORT), client(family, number, PORT), at) {
                at += 1;
            }
            assert!(at >= 10, "the packet was meddled with at {at} looks");
        }
    }
}

/// Opens a flow for `ours`, and at our look number `at` one for `theirs`; false when there was no such look.
fn meddle(family: Family, ours: End, theirs: End, at: u32) -> bool {
    let mut sim = edge(8, 1000, &[1]);
    sim.settings.cpus = 2;
    let (sim, vip) = (&sim, vip(family, false));
    let their_face = Cell::new(None);
    let other_cpu = || {
        sim.cpu.set(1);
        their_face.set(send(sim, theirs, vip, SYN, CLIENT_SIDE).ok());
    };
    let meddled = Meddled::new(sim, at, other_cpu);
    let our_face = send_over(&meddled, ours, vip, SYN, CLIENT_SIDE).ok();
    check(sim);
    for (face, client) in [(our_face, ours), (their_face.get(), theirs)] {
        if let Some((egress, endpoint)) = face {
            let answer = send(sim, endpoint, egress, Kind::Tcp(flag::SYN | flag::ACK), ENDPOINT_SIDE);
            assert_eq!(answer, Ok((vip, client)), "meddled with at look {at}");
        }
    }
    meddled.looks.get() > at
}

#[test]
fn a_pair_that_another_cpu_reopened_meanwhile_is_not_torn_down_again() {
    let act = |number, is_reply, flags| Act { number, is_reply, kind: Kind::Tcp(flags) };
    for at in 0..24 {
        // Whoever comes in between may take the very slots that were freed.
        for theirs in [&[][..], &[2], &[2, 3], &[3, 4, 2]] {
            for closed_by_client in [true, false] {
                let mut sim = edge(8, 1000, &[1]);
                sim.settings.cpus = 2;
                let (sim, faces) = (&sim, &Faces::default());
                do_act(sim, faces, act(1, false, flag::SYN));
                do_act(sim, faces, act(1, !closed_by_client, flag::RST));
                let other_cpu = || {
                    sim.cpu.set(1);
                    do_act(sim, faces, act(1, false, flag::SYN));
                    theirs.iter().for_each(|&number| do_act(sim, faces, act(number, false, flag::SYN)));
                };
                let meddled = Meddled::new(sim, at, other_cpu);
                do_act(&meddled, faces, act(1, false, flag::SYN));
                check(sim);
                answers_arrive(sim);
                let open: u64 = sim.counters.borrow().values().map(|counters| counters.new_flows).sum();
                assert!(open >= 2 && sim.live4().len().is_multiple_of(2), "meddled with at look {at}");
            }
        }
    }
}

#[test]
fn what_a_packet_changes_late_changes_no_later_tenant() {
    let act = |number, is_reply, flags| Act { number, is_reply, kind: Kind::Tcp(flags) };
    for at in 0..24 {
        for theirs in [&[1][..], &[2], &[2, 3], &[3, 4, 2], &[4, 3, 1]] {
            for (is_reply, late) in [(false, flag::ACK), (false, flag::FIN | flag::ACK), (true, flag::ACK), (true, flag::RST)] {
                let mut sim = edge(8, 1000, &[1]);
                sim.settings.cpus = 2;
                let (sim, faces) = (&sim, &Faces::default());
                do_act(sim, faces, act(1, false, flag::SYN));
                let other_cpu = || {
                    sim.cpu.set(1);
                    do_act(sim, faces, act(1, false, flag::RST));
                    do_act(sim, faces, act(1, false, flag::SYN));
                    do_act(sim, faces, act(1, false, flag::RST));
                    // Long enough for the closed pair to be forgotten and its slots to be somebody else's.
                    sim.tick.set(sim.tick.get() + 11 * 239);
                    theirs.iter().for_each(|&number| do_act(sim, faces, act(number, false, flag::SYN)));
                };
                let meddled = Meddled::new(sim, at, other_cpu);
                do_act(&meddled, faces, act(1, is_reply, late));
                check(sim);
                answers_arrive(sim);
            }
        }
    }
}
