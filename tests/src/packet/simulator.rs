//! The simulator as a data path.

use std::collections::BTreeMap;

use anyhow::bail;
use ga::{
    maps::places,
    plan::{Sheet, Step},
};
use ga_common::{
    abi::{
        entry::{Egress, Endpoint, EndpointCounters, ServedCounters, Settings},
        flow::{Flow, FlowSlot, FlowSlot4, FlowSlot6, TICK_SHIFT, ticks},
        id::{EndpointId, Generation, ListenerId},
        limits::ABI_VERSION,
        sheet::{Border, Borders},
    },
    path::verdict::Verdict,
    sim::{Bytes, Sim, tags},
    word::Word,
};

use super::{
    dataplane::{Action, Dataplane, Seen},
    world::{INGRESS, SLOTS, World, tables},
};

/// The simulator, with every table of every world.
pub struct Simulator {
    /// Its tables.
    pub sim: Sim,
    waited_ms: u64,
}

impl Simulator {
    /// Without a world.
    pub fn new() -> anyhow::Result<Self> {
        Self::with_slots(SLOTS)
    }

    /// With room for more or fewer flows.
    pub fn with_slots(slots: u32) -> anyhow::Result<Self> {
        let mut this = Self { sim: Sim::new(slots as usize, [0; 2]), waited_ms: 0 };
        for step in tables() {
            this.apply(&step)?;
        }
        Ok(this)
    }

    fn apply(&mut self, step: &Step) -> anyhow::Result<()> {
        let sim = &mut self.sim;
        match step {
            Step::SetSeed(seed) => sim.settings.seed = *seed,
            Step::SetGeneration(Generation(number)) => sim.settings.generation = *number,
            Step::PutAddress(key, address) => {
                sim.addresses.insert(*key, *address);
            }
            Step::RemoveAddress(key) => {
                sim.addresses.remove(key);
            }
            Step::PutService(key, service) => {
                if service.is_direct() {
                    sim.settings.features |= Settings::DIRECT;
                }
                sim.services.insert(*key, *service);
            }
            Step::RemoveService(key) => {
                sim.services.remove(key);
            }
            Step::PutEgress(id, egress) => {
                sim.egress.insert(*id, *egress);
            }
            Step::RemoveEgress(id) => {
                sim.egress.insert(*id, Egress::default());
            }
            Step::PutListener(id, listener) => {
                sim.listeners.insert(*id, *listener);
            }
            Step::RemoveListener(id) => {
                sim.listeners.remove(id);
            }
            Step::PutEndpoint(id, endpoint) => {
                sim.endpoints.insert(*id, *endpoint);
                sim.settings.features = sim.settings.features & !Settings::GATEWAY | gateway(sim);
            }
            Step::RetireEndpoint(id) => match sim.endpoints.get_mut(id) {
                Some(endpoint) => *endpoint = endpoint.retired(),
                None => bail!("endpoint {id} is retired before it was put"),
            },
            Step::FillTable { id, slots, .. } => {
                sim.tables.insert(*id, slots.to_vec());
            }
            Step::Activate { listener, family, active } => {
                sim.active.insert(family.active_index(*listener), *active);
            }
            Step::ReleaseTable(id) => {
                sim.tables.remove(id);
            }
            Step::FillSheet { id, content } => match content {
                Sheet::Acl4(borders) => drop(sim.acls4.insert(id.number.into(), filled(borders))),
                Sheet::Acl6(borders) => drop(sim.acls6.insert(id.number.into(), filled(borders))),
                Sheet::Custom(table) => drop(sim.mappings.insert(id.number.into(), table.filled())),
            },
            Step::ReleaseSheet(_) => bail!("no world gives up a sheet"),
        }
        Ok(())
    }
}

fn gateway(sim: &Sim) -> u64 {
    if sim.endpoints.values().any(Endpoint::is_gateway) { Settings::GATEWAY } else { 0 }
}

fn filled<B: Border>(borders: &[B]) -> Box<Borders<B>> {
    let mut table = Box::new(Borders::NONE);
    table.fill(borders.iter().copied());
    table
}

/// Flow memory and counters of one moment.
pub struct Memory {
    flows4: Vec<FlowSlot4>,
    flows6: Vec<FlowSlot6>,
    tags4: Vec<Word>,
    tags6: Vec<Word>,
    admitted: BTreeMap<ListenerId, (u32, u32)>,
    counters: BTreeMap<EndpointId, EndpointCounters>,
    served: BTreeMap<ListenerId, ServedCounters>,
}

impl Simulator {
    /// What a packet may change.
    pub fn remember(&self) -> Memory {
        let sim = &self.sim;
        Memory {
            flows4: sim.flows4.iter().map(copy).collect(),
            flows6: sim.flows6.iter().map(copy).collect(),
            tags4: sim.tags4.iter().map(|word| Word::new(word.load())).collect(),
            tags6: sim.tags6.iter().map(|word| Word::new(word.load())).collect(),
            admitted: sim.admitted.borrow().clone(),
            counters: sim.counters.borrow().clone(),
            served: sim.served.borrow().clone(),
        }
    }

    /// Undoes what packets have done since.
    pub fn restore(&mut self, memory: Memory) {
        (self.sim.flows4, self.sim.flows6) = (memory.flows4, memory.flows6);
        (self.sim.tags4, self.sim.tags6) = (memory.tags4, memory.tags6);
        self.sim.admitted.replace(memory.admitted);
        self.sim.counters.replace(memory.counters);
        self.sim.served.replace(memory.served);
    }
}

fn copy<const K: usize, const W: usize>(slot: &FlowSlot<K, W>) -> FlowSlot<K, W> {
    let copy = FlowSlot::free();
    copy.store(&slot.load());
    let (seen, ack) = slot.clock();
    copy.set_clock(seen, ack);
    copy.set_state(slot.state());
    copy
}

impl Dataplane for Simulator {
    fn install(&mut self, world: &World) -> anyhow::Result<()> {
        for step in &world.steps {
            self.apply(step)?;
        }
        let settings = &mut self.sim.settings;
        settings.abi = if world.ready { ABI_VERSION } else { 0 };
        settings.cpus = world.fixed.cpus;
        (settings.flow4_mask, settings.flow6_mask) = (world.fixed.flows4 - 1, world.fixed.flows6 - 1);
        settings.nat_first = world.fixed.nat_first;
        settings.nat_span = world.fixed.nat_last - world.fixed.nat_first + 1;
        self.sim.mtus = places(world.mtus.iter().copied());
        self.sim.hosts.extend(world.hosts.iter().copied());
        for (id, hop) in &world.hops {
            match hop {
                Some(hop) => self.sim.hops.insert(*id, *hop),
                None => self.sim.hops.remove(id),
            };
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.sim.flows4.fill_with(FlowSlot4::free);
        self.sim.flows6.fill_with(FlowSlot6::free);
        let slots = self.sim.flows4.len();
        (self.sim.tags4, self.sim.tags6) = (tags(slots), tags(slots));
        self.sim.admitted.take();
    }

    fn wait(&mut self, seconds: u16) {
        // The flows grow older; the clock stays: draws of NAT ports depend on it.
        self.sim.flows4.iter().for_each(|slot| age(slot, ticks(seconds)));
        self.sim.flows6.iter().for_each(|slot| age(slot, ticks(seconds)));
        self.waited_ms += u64::from(seconds) * 1000;
    }

    fn now_ms(&self) -> u64 {
        (u64::from(self.sim.tick.get()) << TICK_SHIFT) / 1_000_000 + self.waited_ms
    }

    fn send(&mut self, frame: &[u8]) -> anyhow::Result<Seen> {
        let mut bytes = Bytes { bytes: frame.to_vec(), ifindex: INGRESS };
        let outcome = self.sim.run(&mut bytes);
        let (action, ifindex) = match outcome.verdict() {
            Verdict::Pass(reason) => (Action::Pass(reason), None),
            Verdict::Drop(reason) if outcome.is_answered() => (Action::Refuse(reason, outcome.listener()), Some(INGRESS)),
            Verdict::Drop(reason) => (Action::Drop(reason, outcome.listener()), None),
            Verdict::Send(INGRESS) => (Action::Tx, Some(INGRESS)),
            Verdict::Send(ifindex) => (Action::Redirect, Some(ifindex)),
        };
        Ok(Seen { action, bytes: bytes.bytes, ifindex })
    }

    fn pairs(&self) -> usize {
        let forward4 = self.sim.live4().iter().filter(|(_, flow)| flow.flags & Flow::<1>::RETURN == 0).count();
        let forward6 = self.sim.live6().iter().filter(|(_, flow)| flow.flags & Flow::<4>::RETURN == 0).count();
        forward4 + forward6
    }

    fn counters(&self) -> anyhow::Result<BTreeMap<EndpointId, EndpointCounters>> {
        Ok(self.sim.counters.borrow().clone())
    }

    fn shortest(&self) -> usize {
        0
    }
}

fn age<const K: usize, const W: usize>(slot: &FlowSlot<K, W>, ticks: u32) {
    let (seen, ack) = slot.clock();
    slot.set_clock(seen.wrapping_sub(ticks), ack);
}
