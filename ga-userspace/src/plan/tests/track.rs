//! Plans one after the other, their steps done in the simulator, and clients of a listener whose endpoints answer them themselves:
//! no established connection moves, nor does a UDP flow whose endpoint gets new ones, and no more than those in transition are
//! remembered.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use etherparse::PacketBuilder;
use ga_common::{
    abi::{
        active::Before,
        entry::{Endpoint, Hop, Settings},
        flow::{Tuple, ticks},
        id::{EndpointId, ListenerId},
    },
    path::verdict::Verdict,
    sim::{Bytes, Sim},
};
use proptest::{collection::vec, prelude::*, sample::Index};

use super::fixtures::{instance, intent, listener};
use crate::{
    health::{Belief, Beliefs},
    model::{ClientIp, EndpointName, Protocol, Weight},
    plan::{Override, Overrides, State, Step, Transitions, build, steps},
};

const SEED: [u64; 2] = [7, 9];
const IDLE_S: u16 = 60;
const PLACES: [&str; 4] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];

#[derive(Clone, Debug)]
enum Act {
    /// The file has another weight for an endpoint, or has it no more, or again.
    Weight(usize, Option<u8>),
    /// What is believed of an endpoint.
    Health(usize, bool),
    Drain(usize, bool),
    /// The agent starts again.
    Restart,
    Open,
    Send(Index, u32),
    Flood(u16),
    Wait(u16),
}

fn act() -> impl Strategy<Value = Act> {
    let weight = prop::option::weighted(0.8, prop_oneof![Just(0_u8), Just(1), Just(100), Just(255)]);
    prop_oneof![
        3 => (0..PLACES.len(), weight).prop_map(|(which, weight)| Act::Weight(which, weight)),
        1 => (0..PLACES.len(), any::<bool>()).prop_map(|(which, up)| Act::Health(which, up)),
        1 => (0..PLACES.len(), any::<bool>()).prop_map(|(which, drained)| Act::Drain(which, drained)),
        1 => Just(Act::Restart),
        8 => Just(Act::Open),
        20 => (any::<Index>(), 0..100_000_u32).prop_map(|(which, bytes)| Act::Send(which, bytes)),
        1 => (1..100_u16).prop_map(Act::Flood),
        2 => (1..IDLE_S + 20).prop_map(Act::Wait),
    ]
}

struct Connection {
    port: u16,
    seq: u32,
    endpoint: EndpointId,
    heard: u32,
}

struct World {
    protocol: Protocol,
    sim: Sim,
    running: State,
    weights: [Option<u8>; PLACES.len()],
    overrides: Overrides,
    beliefs: Beliefs,
    names: BTreeMap<String, EndpointName>,
    transitions: Transitions,
    now: Duration,
    connections: Vec<Connection>,
    opened: u16,
}

impl World {
    fn new(protocol: Protocol) -> Self {
        let mut this = Self {
            protocol,
            sim: Sim::new(1024, SEED),
            running: State::default(),
            weights: [Some(100); PLACES.len()],
            overrides: Overrides::default(),
            beliefs: Beliefs::default(),
            names: BTreeMap::new(),
            transitions: Transitions::default(),
            now: Duration::ZERO,
            connections: Vec::new(),
            opened: 0,
        };
        this.plan();
        this
    }

    /// Plans what holds now, and does it.
    fn plan(&mut self) {
        let endpoints: Vec<_> = PLACES.iter().zip(self.weights).filter_map(|(place, weight)| Some((*place, weight?))).collect();
        let mut web = listener("web", self.protocol, "80", &endpoints);
        web.idle_timeout = Duration::from_secs(IDLE_S.into());
        web.groups[0].client_ip = ClientIp::L2;
        let intent = intent(vec![instance("shop", &["192.0.2.1"], &["198.51.100.1"], vec![web])]);
        let plan = build(&intent, &self.overrides, &self.beliefs, &self.running, SEED).unwrap();
        for endpoint in &plan.listeners[0].endpoints {
            self.names.insert(endpoint.name.address.to_string(), endpoint.name.clone());
        }
        self.go_to(&plan.target);
    }

    fn go_to(&mut self, target: &State) {
        for step in steps(&self.running, target) {
            self.running.apply(&step).unwrap();
            assert_eq!(self.running.check(), [], "after {step}");
            self.apply(&step);
        }
        assert_eq!(self.running, *target);
        self.running.forget_slots();
        self.transitions.note(&self.running, self.now);
    }

    fn apply(&mut self, step: &Step) {
        let sim = &mut self.sim;
        match step {
            Step::PutAddress(key, address) => drop(sim.addresses.insert(*key, *address)),
            Step::PutService(key, service) => {
                sim.settings.features = Settings::DIRECT;
                sim.services.insert(*key, *service);
            }
            Step::PutEgress(id, egress) => drop(sim.egress.insert(*id, *egress)),
            Step::PutListener(id, listener) => drop(sim.listeners.insert(*id, *listener)),
            Step::PutEndpoint(id, endpoint) => {
                sim.endpoints.insert(*id, *endpoint);
                let [high, low] = id.0.to_be_bytes();
                sim.hops.insert(*id, Hop { dst_mac: [2, 0, 0, 1, high, low], ifindex: 3, ..Hop::default() });
            }
            Step::RetireEndpoint(id) => {
                sim.endpoints.entry(*id).and_modify(|endpoint| endpoint.flags = Endpoint::RETIRED);
            }
            Step::FillTable { id, slots, .. } => drop(sim.tables.insert(*id, slots.to_vec())),
            Step::ReleaseTable(id) => drop(sim.tables.remove(id)),
            Step::Activate { listener, family, active } => {
                sim.active.insert(family.active_index(*listener), *active);
            }
            Step::SetSeed(_) | Step::SetGeneration(_) => {}
            Step::FillSheet { .. }
            | Step::ReleaseSheet(_)
            | Step::RemoveService(_)
            | Step::RemoveListener(_)
            | Step::RemoveEgress(_)
            | Step::RemoveAddress(_) => panic!("no plan of this test needs {step}"),
        }
    }

    fn is_udp(&self) -> bool {
        self.protocol == Protocol::Udp
    }

    /// Sends a segment or a datagram; who gets it.
    fn send(&self, port: u16, is_syn: bool, seq: u32) -> Option<EndpointId> {
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]).ipv4([203, 0, 113, 7], [192, 0, 2, 1], 64);
        let mut frame = Bytes { bytes: Vec::new(), ifindex: 2 };
        if self.is_udp() {
            builder.udp(port, 80).write(&mut frame.bytes, &[]).unwrap();
        } else {
            let tcp = builder.tcp(port, 80, seq, 1000);
            let tcp = if is_syn { tcp.syn() } else { tcp.ack(7) };
            tcp.write(&mut frame.bytes, &[]).unwrap();
        }
        let is_sent = matches!(self.sim.run(&mut frame).verdict(), Verdict::Send(_));
        is_sent.then(|| EndpointId(u16::from_be_bytes([frame.bytes[4], frame.bytes[5]])))
    }

    /// The flows in flow memory: their endpoints.
    fn remembered(&self) -> Vec<EndpointId> {
        let now = self.sim.tick.get();
        let alone = self.sim.flows4.iter().filter(|slot| slot.state().is_live() && !slot.is_silent(now));
        let alone = alone.map(|slot| slot.meta()).filter(|meta| meta.protocol() & Tuple::<1>::ALONE != 0);
        alone.map(|meta| meta.endpoint()).collect()
    }

    fn wait(&mut self, seconds: u16) {
        self.sim.tick.set(self.sim.tick.get() + ticks(seconds));
        self.now += Duration::from_secs(seconds.into());
        let owners =
            || -> BTreeSet<ListenerId> { self.remembered().into_iter().map(|id| self.running.endpoints[&id].listener).collect() };
        if let Some(target) = self.transitions.ended(&self.running, self.now, owners) {
            self.go_to(&target);
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Weight(which, weight) => {
                self.weights[which] = weight;
                self.plan();
            }
            Act::Health(which, up) => {
                let name = self.names[PLACES[which]].clone();
                self.beliefs.endpoints.insert(name, Belief { up, ..Belief::default() });
                self.plan();
            }
            Act::Drain(which, drained) => {
                let name = self.names[PLACES[which]].clone();
                self.overrides.endpoints.insert(name, Override { weight: None::<Weight>, drained });
                self.plan();
            }
            Act::Restart => {
                self.transitions = Transitions::default();
                self.plan();
            }
            Act::Open => {
                self.opened += 1;
                let (port, seq) = (1000 + self.opened, u32::from(self.opened) << 16);
                if let Some(endpoint) = self.send(port, true, seq) {
                    assert_eq!(self.send(port, false, seq + 1), Some(endpoint), "the first segment follows its SYN");
                    self.connections.push(Connection { port, seq: seq + 1, endpoint, heard: self.sim.tick.get() });
                }
            }
            Act::Send(which, bytes) if !self.connections.is_empty() => {
                let index = which.index(self.connections.len());
                let (now, connection) = (self.sim.tick.get(), &mut self.connections[index]);
                if now - connection.heard >= ticks(IDLE_S) {
                    self.connections.swap_remove(index);
                    return;
                }
                (connection.seq, connection.heard) = (connection.seq.wrapping_add(bytes), now);
                let Connection { port, seq, endpoint, .. } = *connection;
                let seen = self.send(port, false, seq);
                if self.is_udp() && self.running.endpoints[&endpoint].flags != Endpoint::IN_USE {
                    // It may leave an endpoint that gets no new flows, for one that does.
                    match seen {
                        Some(seen) => self.connections[index].endpoint = seen,
                        None => drop(self.connections.swap_remove(index)),
                    }
                    return;
                }
                assert_eq!(seen, Some(endpoint), "an established connection has moved");
            }
            Act::Send(..) => {}
            // Nobody can tell such datagrams from those of flows that go on.
            Act::Flood(_) if self.is_udp() => {}
            Act::Flood(count) => {
                let before = self.remembered().len();
                for n in 0..count {
                    assert!(self.send(20_000 + n, true, 1).is_none_or(|id| self.running.endpoints.contains_key(&id)));
                }
                assert_eq!(self.remembered().len(), before, "SYNs took memory");
            }
            Act::Wait(seconds) => self.wait(seconds),
        }
        let remembered = self.remembered().len();
        assert!(remembered <= usize::from(self.opened), "more is remembered than ever began");
        let knows_more = self.running.active.values().any(|active| active.before() != Before::Same);
        assert!(remembered == 0 || knows_more, "flows are remembered, and nothing changed");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_established_connection_moves_whatever_is_planned(acts in vec(act(), 1..60)) {
        whatever_is_planned(Protocol::Tcp, acts);
    }

    #[test]
    fn no_udp_flow_moves_while_its_endpoint_gets_new_ones(acts in vec(act(), 1..60)) {
        whatever_is_planned(Protocol::Udp, acts);
    }
}

fn whatever_is_planned(protocol: Protocol, acts: Vec<Act>) {
    let mut world = World::new(protocol);
    acts.into_iter().for_each(|act| world.act(act));
    // When everybody has been silent for long enough, nothing is left.
    world.wait(IDLE_S + 1);
    world.wait(IDLE_S + 1);
    assert!(world.transitions.is_empty());
}

#[test]
fn new_udp_flows_do_not_go_to_an_endpoint_that_is_ill_from_the_moment_on_when_it_is() {
    let mut world = World::new(Protocol::Udp);
    (0..40).for_each(|_| world.act(Act::Open));
    let ill = world.connections[0].endpoint;
    let which =
        PLACES.iter().position(|place| world.running.endpoints[&ill].addr == crate::plan::address_key(place.parse().unwrap()));
    world.act(Act::Health(which.unwrap(), false));
    for n in 0..100 {
        assert_ne!(world.send(20_000 + n, false, 0), Some(ill));
    }
}
