//! The real program in the kernel, by `BPF_PROG_TEST_RUN`, and the simulator beside it: every packet goes through both, and
//! action, frame, counters and flow memory must agree.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use aya::{
    Ebpf,
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use ga::{
    maps::{Counters, FlowTables, Hops, Maps},
    program::{Sizes, load},
};
use ga_common::abi::{
    entry::EndpointCounters,
    flow::{FlowSlot, State, TICK_SHIFT},
    id::{EndpointId, ListenerId},
    reason::{Drop, Pass},
};
use rustix::{
    process::geteuid,
    thread::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
};

use super::{
    dataplane::{Action, Dataplane, Seen},
    show::{difference, hex},
    simulator::Simulator,
    world::{LISTENER_COUNT, SLOTS, World, endpoints, tables},
};

/// Ticks by which the kernel's clock may run ahead between a packet and our look at it: four seconds of a busy machine.
const SLACK: u32 = 1000;

/// Refuses to go on without root and keeps this thread on CPU 0: NAT ports depend on the CPU.
pub fn prepare() -> anyhow::Result<()> {
    ensure!(
        geteuid().is_root(),
        "the kernel corpus loads programs into the kernel: run it as root (`cargo xtask test` skips it loudly)"
    );
    let mut cpus = CpuSet::new();
    cpus.set(0);
    sched_setaffinity(None, &cpus).context("stay on CPU 0")
}

/// The program and its maps.
struct Machine {
    ebpf: Ebpf,
    maps: Maps,
    hops: Hops,
    flows: FlowTables,
    counters: Counters,
    counted: Reasons,
}

/// How often each reason was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Reasons {
    passes: BTreeMap<Pass, u64>,
    drops: BTreeMap<(ListenerId, Drop), u64>,
}

impl Machine {
    fn new() -> anyhow::Result<Self> {
        let mut ebpf = load(None, Sizes { flows4: SLOTS, flows6: SLOTS })?.ebpf;
        let program: &mut Xdp = ebpf.program_mut("ga").context("the object has no program `ga`")?.try_into()?;
        program.load()?;
        let mut maps = Maps::open(&mut ebpf)?;
        for step in tables() {
            maps.apply(&step)?;
        }
        let (hops, flows) = (Hops::open(&mut ebpf)?, FlowTables::open(&mut ebpf)?);
        let counters = Counters::open(&mut ebpf)?;
        Ok(Self { ebpf, maps, hops, flows, counters, counted: Reasons::default() })
    }

    fn install(&mut self, world: &World) -> anyhow::Result<()> {
        if world.ready {
            self.maps.set_fixed(world.fixed)?;
        }
        for step in &world.steps {
            self.maps.apply(step)?;
        }
        for (id, hop) in &world.hops {
            self.hops.set(*id, *hop)?;
        }
        Ok(())
    }

    fn forget(&self) {
        self.flows.slots4().iter().for_each(forget);
        self.flows.slots6().iter().for_each(forget);
    }

    fn reasons(&self) -> anyhow::Result<Reasons> {
        let mut reasons = Reasons::default();
        for count in self.counters.passes()? {
            reasons.passes.insert(count.reason, count.packets);
        }
        for listener in (0..LISTENER_COUNT).map(ListenerId).chain([ListenerId::NONE]) {
            for count in self.counters.drops(listener)? {
                reasons.drops.insert((listener, count.reason), count.packets);
            }
        }
        Ok(reasons)
    }

    fn send(&mut self, frame: &[u8]) -> anyhow::Result<Seen> {
        let program: &Xdp = self.ebpf.program("ga").context("the object has no program `ga`")?.try_into()?;
        let mut out = vec![0xff; frame.len() + 64];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = program.test_run(options).with_context(|| format!("{} bytes: {}", frame.len(), hex(frame)))?;
        out.truncate(result.data_size_out as usize);
        let counted = self.reasons()?;
        let (passes, drops) = (advanced(&self.counted.passes, &counted.passes), advanced(&self.counted.drops, &counted.drops));
        self.counted = counted;
        let action = match (result.return_value, &passes[..], &drops[..]) {
            (1, [], [((listener, reason), 1)]) => Action::Drop(*reason, *listener),
            (2, [(reason, 1)], []) => Action::Pass(*reason),
            (3, [], []) => Action::Tx,
            (4, [], []) => Action::Redirect,
            (code, passes, drops) => bail!("XDP action {code}, counted {passes:?} and {drops:?} for {}", hex(frame)),
        };
        Ok(Seen { action, bytes: out, ifindex: None })
    }
}

fn forget<const K: usize, const W: usize>(slot: &FlowSlot<K, W>) {
    slot.set_state(State::NEVER);
    slot.set_clock(0, 0);
}

fn advanced<T: Ord + Copy>(before: &BTreeMap<T, u64>, after: &BTreeMap<T, u64>) -> Vec<(T, u64)> {
    after
        .iter()
        .map(|(key, count)| (*key, count - before.get(key).copied().unwrap_or(0)))
        .filter(|(_, advance)| *advance > 0)
        .collect()
}

/// The coarse clock in ticks, as the program reads it.
fn tick() -> u32 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    ((now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64) >> TICK_SHIFT) as u32
}

/// Kernel and simulator, packet by packet.
pub struct Twin {
    simulator: Simulator,
    ready: Machine,
    /// Settings are never written here.
    blank: Machine,
    is_ready: bool,
}

impl Twin {
    /// Loads the program twice: once to be set up and once to be left blank.
    pub fn new() -> anyhow::Result<Self> {
        let blank = Machine::new()?;
        Ok(Self { simulator: Simulator::new()?, ready: Machine::new()?, blank, is_ready: true })
    }

    fn machine(&mut self) -> &mut Machine {
        if self.is_ready { &mut self.ready } else { &mut self.blank }
    }

    /// Gives the kernel's slots the ages that the simulator's have, after checking that they agree up to the time that really
    /// passed.
    fn align(&mut self, check: bool) -> anyhow::Result<()> {
        let now = tick();
        let sim_now = self.simulator.sim.tick.get();
        let machine = if self.is_ready { &self.ready } else { &self.blank };
        let (sim, flows) = (&self.simulator.sim, &machine.flows);
        if check {
            same(&sim.flows4, flows.slots4(), sim_now, now).context("IPv4 flows")?;
            same(&sim.flows6, flows.slots6(), sim_now, now).context("IPv6 flows")?;
        }
        age(&sim.flows4, flows.slots4(), sim_now, now);
        age(&sim.flows6, flows.slots6(), sim_now, now);
        Ok(())
    }
}

fn same<const K: usize, const W: usize>(
    sim: &[FlowSlot<K, W>],
    kernel: &[FlowSlot<K, W>],
    sim_now: u32,
    now: u32,
) -> anyhow::Result<()> {
    ensure!(sim.len() == kernel.len(), "{} slots in the simulator, {} in the kernel", sim.len(), kernel.len());
    for (index, (sim, kernel)) in sim.iter().zip(kernel).enumerate() {
        ensure!(sim.state() == kernel.state(), "slot {index}: simulator {:?}, kernel {:?}", sim.state(), kernel.state());
        if sim.state().is_live() {
            ensure!(sim.load() == kernel.load(), "slot {index}: simulator {:?}, kernel {:?}", sim.load(), kernel.load());
            let ((sim_seen, sim_ack), (seen, ack)) = (sim.clock(), kernel.clock());
            ensure!(sim_ack == ack, "slot {index}: acknowledged {sim_ack} in the simulator, {ack} in the kernel");
            let drift = now.wrapping_sub(seen).wrapping_sub(sim_now.wrapping_sub(sim_seen));
            // One tick ahead: the clock moved between our look and the kernel's.
            ensure!(drift.wrapping_add(1) < SLACK, "slot {index}: drift of {} ticks", drift as i32);
        }
    }
    Ok(())
}

fn age<const K: usize, const W: usize>(sim: &[FlowSlot<K, W>], kernel: &[FlowSlot<K, W>], sim_now: u32, now: u32) {
    for (sim, kernel) in sim.iter().zip(kernel).filter(|(sim, _)| sim.state().is_live()) {
        let (seen, ack) = sim.clock();
        kernel.set_clock(now.wrapping_sub(sim_now.wrapping_sub(seen)), ack);
    }
}

impl Dataplane for Twin {
    fn install(&mut self, world: &World) -> anyhow::Result<()> {
        self.is_ready = world.ready;
        self.simulator.install(world)?;
        self.machine().install(world)
    }

    fn forget(&mut self) {
        self.simulator.forget();
        self.ready.forget();
        self.blank.forget();
    }

    fn wait(&mut self, seconds: u16) {
        self.simulator.wait(seconds);
    }

    fn send(&mut self, frame: &[u8]) -> anyhow::Result<Seen> {
        self.align(false)?;
        let expected = self.simulator.send(frame)?;
        let seen = self.machine().send(frame)?;
        let what = || format!("kernel and simulator differ on {}", hex(frame));
        ensure!(expected.action == seen.action, "{}: simulator {:?}, kernel {:?}", what(), expected.action, seen.action);
        ensure!(expected.bytes == seen.bytes, "{}:\n{}", what(), difference(&expected.bytes, &seen.bytes));
        self.align(true).with_context(what)?;
        Ok(expected)
    }

    fn pairs(&self) -> usize {
        self.simulator.pairs()
    }

    fn counters(&self) -> anyhow::Result<BTreeMap<EndpointId, EndpointCounters>> {
        let expected = self.simulator.counters()?;
        for id in endpoints() {
            let kernel = [&self.ready, &self.blank].map(|machine| machine.counters.endpoint(id));
            let [ready, blank] = kernel;
            ensure!(blank? == EndpointCounters::default(), "endpoint {id} was counted before the settings were written");
            let (ready, want) = (ready?, expected.get(&id).copied().unwrap_or_default());
            ensure!(ready == want, "endpoint {id}: the simulator counted {want:?}, the kernel {ready:?}");
        }
        Ok(expected)
    }

    fn shortest(&self) -> usize {
        // BPF_PROG_TEST_RUN wants an Ethernet header.
        14
    }
}
