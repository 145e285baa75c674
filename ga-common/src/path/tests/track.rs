//! Just-enough tracking: flows of listeners that remember nothing as long as nothing changes stay where they began, whatever
//! changes, and only flows whose slot has changed take memory.

use std::{collections::BTreeSet, net::IpAddr, vec, vec::Vec};

use etherparse::PacketBuilder;
use proptest::{collection::vec as many, prelude::*, sample::Index};

use super::fixture::{CLIENT_SIDE, End, LISTENER, client, edge, vip};
use crate::{
    abi::{
        active::{Active, Before},
        entry::{Endpoint, Listener, Settings},
        family::Family,
        flow::{Flow, FlowSlot, Tuple, pack4, pack6, ticks},
        id::{EndpointId, TableId},
        limits::TABLE_SIZE,
        reason::Event,
    },
    hash::scale,
    path::{flow, parse::flag, verdict::Verdict},
    sim::{Bytes, Sim},
    wire::frame::TCP,
};

/// Idle timeout of the listener in seconds.
const IDLE_S: u16 = 60;
/// Endpoints of each family.
const ENDPOINTS: u16 = 4;

/// Something that happens.
#[derive(Clone, Debug)]
enum Act {
    /// Some percent of all slots get another endpoint; the number chooses slots and endpoint.
    Change(u8, u16),
    /// The slots are as they were before some earlier change.
    Back(Index),
    /// Nobody may be chosen for new flows.
    Empty,
    /// An endpoint is removed; its flows may end in peace.
    Retire(u16),
    /// A client connects, and perhaps the table changes before its first segment.
    Open(Option<(u8, u16)>),
    /// A client goes on, so many bytes further.
    Send(Index, u32),
    /// A client that was done connects again from the same port.
    Again(Index),
    /// SYNs whose clients never come back.
    Flood(u8),
    /// Seconds go by.
    Wait(u16),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..=100u8, any::<u16>()).prop_map(|(percent, draw)| Act::Change(percent, draw)),
        1 => any::<Index>().prop_map(Act::Back),
        1 => Just(Act::Empty),
        1 => (0..ENDPOINTS).prop_map(Act::Retire),
        8 => prop_oneof![3 => Just(None), 1 => (0..=100u8, any::<u16>()).prop_map(Some)].prop_map(Act::Open),
        14 => (any::<Index>(), 0..200_000u32).prop_map(|(which, bytes)| Act::Send(which, bytes)),
        1 => any::<Index>().prop_map(Act::Again),
        1 => (1..50u8).prop_map(Act::Flood),
        3 => (1..IDLE_S + 20).prop_map(Act::Wait),
    ]
}

/// An established connection.
#[derive(Clone, Debug)]
struct Connection {
    port: u16,
    seq: u32,
    endpoint: EndpointId,
    heard: u32,
}

/// An edge, what its control has decided, and its clients.
struct World {
    sim: Sim,
    family: Family,
    connections: Vec<Connection>,
    tables: Vec<Vec<EndpointId>>,
    active: Active,
    /// When the table before is given up.
    until: u32,
    /// Slots that have had two endpoints since the table before was in use.
    touched: Vec<bool>,
    ports: u16,
}

impl World {
    fn new(family: Family, slots: usize) -> Self {
        let mut sim = edge(slots, 100, &[1; ENDPOINTS as usize]);
        sim.settings.features = Settings::DIRECT;
        sim.services.values_mut().for_each(|service| service.endpoint_port = [0; 2]);
        let listener = Listener { idle_timeout_s: IDLE_S, flags: Listener::IN_USE | Listener::L2, ..Listener::default() };
        sim.listeners.insert(LISTENER, listener);
        let table = sim.tables[&TableId(1 + family as u32)].clone();
        let mut this = Self {
            sim,
            family,
            connections: Vec::new(),
            tables: Vec::new(),
            active: Active::EMPTY,
            until: 0,
            touched: vec![false; TABLE_SIZE],
            ports: 1000,
        };
        this.put(table);
        this
    }

    fn id(&self, number: u16) -> EndpointId {
        EndpointId(self.family as u16 * 100 + number)
    }

    fn point(&mut self, active: Active) {
        self.active = active;
        self.sim.active.insert(self.family.active_index(LISTENER), active);
    }

    /// Puts another table in use, as the agent does.
    fn put(&mut self, table: Vec<EndpointId>) {
        let id = TableId(100 + self.tables.len() as u32);
        self.sim.tables.insert(id, table.clone());
        self.tables.push(table);
        self.activate(id);
    }

    fn activate(&mut self, id: TableId) {
        let was = self.active.table();
        let before = match self.active.before() {
            before if was == id => before,
            Before::Table(table) if table == id => Before::Remembered,
            Before::Table(table) => Before::Table(table),
            before if was == TableId::EMPTY => before,
            Before::Same | Before::Remembered => Before::Table(was),
        };
        self.point(Active::of(id, before));
        self.until = self.sim.tick.get() + ticks(IDLE_S);
        if id == TableId::EMPTY {
            self.touched.fill(true);
        } else if let (Before::Table(before), Some(now)) = (before, self.sim.tables.get(&id)) {
            let past = &self.sim.tables[&before];
            self.touched.iter_mut().zip(past.iter().zip(now)).for_each(|(touched, (past, now))| *touched |= past != now);
        }
    }

    fn change(&mut self, percent: u8, draw: u16) {
        let to = self.id(draw % ENDPOINTS);
        let mut table = match self.active.table() {
            TableId::EMPTY => self.tables[0].clone(),
            id => self.sim.tables[&id].clone(),
        };
        for (slot, owner) in table.iter_mut().enumerate() {
            if (slot as u32).wrapping_mul(0x9e37_79b9).wrapping_add(u32::from(draw) << 16) >> 16 < u32::from(percent) * 656 {
                *owner = to;
            }
        }
        self.put(table);
    }

    /// Time goes by for the agent too.
    fn wait(&mut self, seconds: u16) {
        self.sim.tick.set(self.sim.tick.get() + ticks(seconds));
        if self.sim.tick.get() < self.until {
            return;
        }
        if let Before::Table(_) = self.active.before() {
            self.point(Active::of(self.active.table(), Before::Remembered));
        }
        if self.active.before() == Before::Remembered && self.remembered().is_empty() {
            self.point(Active::of(self.active.table(), Before::Same));
            self.touched.fill(false);
        }
    }

    /// The client ports of all that is in flow memory.
    fn remembered(&self) -> Vec<u16> {
        fn ports<const K: usize, const W: usize>(slots: &[FlowSlot<K, W>], now: u32) -> Vec<u16> {
            let live = slots.iter().filter(|slot| slot.state().is_live() && !slot.is_silent(now)).map(FlowSlot::load);
            live.map(|flow: Flow<K>| u16::from_be_bytes([flow.tuple.ports[0], flow.tuple.ports[1]])).collect()
        }
        let now = self.sim.tick.get();
        match self.family {
            Family::V4 => ports(&self.sim.flows4, now),
            Family::V6 => ports(&self.sim.flows6, now),
        }
    }

    fn client(&self, port: u16) -> End {
        client(self.family, 7, port)
    }

    /// The slot of every table that the flow from `port` belongs to.
    fn slot(&self, port: u16) -> usize {
        let ((src, sport), (dst, dport)) = (self.client(port), vip(self.family, false));
        let ([a, b], [c, d]) = (sport.to_be_bytes(), dport.to_be_bytes());
        let ports = [a, b, c, d];
        let hash = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let addrs = pack4(src.octets(), dst.octets());
                flow::hash(&self.sim.settings, &Tuple { addrs, ports, protocol: TCP })
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let addrs = pack6(src.octets(), dst.octets());
                flow::hash(&self.sim.settings, &Tuple { addrs, ports, protocol: TCP })
            }
            other => panic!("two families: {other:?}"),
        };
        scale((hash >> 32) as u32, TABLE_SIZE as u32) as usize
    }

    /// Sends a segment; who gets it.
    fn send(&self, port: u16, flags: u8, seq: u32) -> Option<EndpointId> {
        let ((src, sport), (dst, dport)) = (self.client(port), vip(self.family, false));
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]);
        let builder = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => builder.ipv4(src.octets(), dst.octets(), 64),
            (IpAddr::V6(src), IpAddr::V6(dst)) => builder.ipv6(src.octets(), dst.octets(), 64),
            other => panic!("two families: {other:?}"),
        };
        let tcp = builder.tcp(sport, dport, seq, 1000);
        let tcp = if flags & flag::SYN != 0 { tcp.syn() } else { tcp.ack(7) };
        let mut frame = Bytes { bytes: Vec::new(), ifindex: CLIENT_SIDE };
        tcp.write(&mut frame.bytes, &[]).unwrap();
        let sent = matches!(self.sim.run(&mut frame).verdict(), Verdict::Send(_));
        sent.then(|| self.id(frame.bytes[5].into()))
    }

    /// A connection from `port`, whose first segment comes after what `between` does.
    fn open(&mut self, port: u16, isn: u32, between: Option<(u8, u16)>) {
        let Some(endpoint) = self.send(port, flag::SYN, isn) else { return };
        if let Some((percent, draw)) = between {
            self.change(percent, draw);
        }
        assert_eq!(self.send(port, flag::ACK, isn.wrapping_add(1)), Some(endpoint), "the first segment follows its SYN");
        let (seq, heard) = (isn.wrapping_add(1), self.sim.tick.get());
        self.connections.push(Connection { port, seq, endpoint, heard });
    }

    fn go_on(&mut self, index: usize, bytes: u32) {
        let now = self.sim.tick.get();
        let connection = &mut self.connections[index];
        if now - connection.heard >= ticks(IDLE_S) {
            self.connections.swap_remove(index);
            return;
        }
        connection.seq = connection.seq.wrapping_add(bytes);
        connection.heard = now;
        let Connection { port, seq, endpoint, .. } = *connection;
        assert_eq!(self.send(port, flag::ACK, seq), Some(endpoint), "an established flow has moved");
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Change(percent, draw) => self.change(percent, draw),
            Act::Back(which) => self.activate(TableId(100 + which.index(self.tables.len()) as u32)),
            Act::Empty => self.activate(TableId::EMPTY),
            Act::Retire(number) => {
                let id = self.id(number);
                self.sim.endpoints.entry(id).and_modify(|endpoint| endpoint.flags = Endpoint::RETIRED);
            }
            Act::Open(between) => {
                self.ports += 1;
                self.open(self.ports, u32::from(self.ports) << 16, between);
            }
            Act::Send(which, bytes) if !self.connections.is_empty() => self.go_on(which.index(self.connections.len()), bytes),
            Act::Again(which) if !self.connections.is_empty() => {
                let old = self.connections.swap_remove(which.index(self.connections.len()));
                // RFC 6528: the clock has moved the initial sequence number on.
                self.open(old.port, old.seq.wrapping_add(10_000_000), None);
            }
            Act::Send(..) | Act::Again(_) => {}
            Act::Flood(count) => {
                let before = self.remembered();
                for n in 0..u16::from(count) {
                    self.send(40_000 + n, flag::SYN, 1);
                }
                assert_eq!(self.remembered(), before, "a flood of SYNs took memory");
            }
            Act::Wait(seconds) => self.wait(seconds),
        }
        let remembered = self.remembered();
        assert_eq!(remembered.iter().collect::<BTreeSet<_>>().len(), remembered.len(), "a flow is remembered twice");
        for port in remembered {
            assert!(self.touched[self.slot(port)], "a flow is remembered whose slot did not change");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn no_established_flow_moves_whatever_changes(is_v6: bool, acts in many(act(), 1..80)) {
        let mut world = World::new(if is_v6 { Family::V6 } else { Family::V4 }, 1024);
        acts.into_iter().for_each(|act| world.act(act));
        prop_assert!(!world.sim.events.borrow().contains_key(&Event::Untracked));
    }
}

#[test]
fn when_nothing_changes_nothing_is_remembered() {
    for family in Family::ALL {
        let mut world = World::new(family, 256);
        (0..200).for_each(|_| world.act(Act::Open(None)));
        assert!(world.remembered().is_empty());
        // Of four endpoints one takes all slots: three quarters of the flows are in transition.
        world.change(100, 1);
        (0..40).for_each(|n| world.go_on(n, 10));
        let moved = world.connections.iter().take(40).filter(|connection| connection.endpoint != world.id(1)).count();
        assert_eq!(world.remembered().len(), moved);
        assert!((20..40).contains(&moved));
    }
}
