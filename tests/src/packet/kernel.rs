//! The real program in the kernel, by `BPF_PROG_TEST_RUN`, and the simulator beside it: every packet goes through both, and
//! action, frame, counters and flow memory must agree.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, PerCpuValues},
    programs::{TestRun as _, TestRunOptions, Xdp},
    util::nr_cpus,
};
use ga::{
    maps::{Counters, FlowTables, Hops, Hosts, Maps, Mtus},
    program::{Sizes, load},
};
use ga_common::{
    abi::{
        entry::EndpointCounters,
        flow::{FlowSlot, State, TICK_SHIFT},
        id::{EndpointId, ListenerId},
        reason::{Drop, Pass},
    },
    word::Word,
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
    admissions: PerCpuArray<MapData, u64>,
    ebpf: Ebpf,
    maps: Maps,
    hops: Hops,
    mtus: Mtus,
    hosts: Hosts,
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
    fn new(slots: u32) -> anyhow::Result<Self> {
        let mut ebpf = load(None, Sizes { flows4: slots, flows6: slots })?.ebpf;
        let mut maps = Maps::open(&mut ebpf)?;
        for step in tables() {
            maps.apply(&step)?;
        }
        let (hops, hosts, flows) = (Hops::open(&mut ebpf)?, Hosts::open(&mut ebpf)?, FlowTables::open(&mut ebpf)?);
        let (mtus, counters) = (Mtus::open(&mut ebpf)?, Counters::open(&mut ebpf)?);
        let admissions = ebpf.take_map("ADMISSIONS").context("the object has no map `ADMISSIONS`")?.try_into()?;
        Ok(Self { admissions, ebpf, maps, hops, mtus, hosts, flows, counters, counted: Reasons::default() })
    }

    fn install(&mut self, world: &World) -> anyhow::Result<()> {
        if world.ready {
            self.maps.set_fixed(world.fixed)?;
        }
        for step in &world.steps {
            self.maps.apply(step)?;
        }
        self.mtus.set(world.mtus.iter().copied())?;
        for (id, hop) in &world.hops {
            self.hops.set(*id, *hop)?;
        }
        for (host, hop) in &world.hosts {
            self.hosts.set((*host).into(), Some(*hop))?;
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.flows.slots4().iter().for_each(forget);
        self.flows.slots6().iter().for_each(forget);
        self.flows.tags4().iter().chain(self.flows.tags6()).for_each(|tags| tags.store(0));
        for listener in 0..u32::from(LISTENER_COUNT) {
            let none = PerCpuValues::try_from(vec![0; nr_cpus().expect("the kernel tells its CPUs")]).expect("one a CPU");
            self.admissions.set(listener, none, 0).expect("a counter can be cleared");
        }
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

    /// The action that the program returns for a frame, the frame afterwards, and the ticks between which it happened.
    fn send(&self, frame: &[u8]) -> anyhow::Result<(u32, Vec<u8>, [u32; 2])> {
        let program: &Xdp = self.ebpf.program("ga").context("the object has no program `ga`")?.try_into()?;
        let mut out = vec![0xff; frame.len() + 64];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let before = tick();
        let result = program.test_run(options);
        let after = tick();
        let result = result.with_context(|| format!("{} bytes: {}", frame.len(), hex(frame)))?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value, out, [before, after]))
    }

    /// What was counted since the last time.
    fn advance(&mut self) -> anyhow::Result<Reasons> {
        let counted = self.reasons()?;
        let advance = Reasons {
            passes: advanced(&self.counted.passes, &counted.passes),
            drops: advanced(&self.counted.drops, &counted.drops),
        };
        self.counted = counted;
        Ok(advance)
    }
}

impl Reasons {
    fn note(&mut self, action: Action) {
        match action {
            Action::Pass(reason) => *self.passes.entry(reason).or_default() += 1,
            Action::Drop(reason, listener) | Action::Refuse(reason, listener) => {
                *self.drops.entry((listener, reason)).or_default() += 1
            }
            Action::Tx | Action::Redirect => {}
        }
    }
}

/// The action's number in the kernel; 0, `XDP_ABORTED`, is nobody's.
fn code(action: Action) -> u32 {
    match action {
        Action::Drop(..) => 1,
        Action::Pass(_) => 2,
        Action::Tx | Action::Refuse(..) => 3,
        Action::Redirect => 4,
    }
}

fn forget<const K: usize, const W: usize>(slot: &FlowSlot<K, W>) {
    slot.set_state(State::NEVER);
    slot.set_clock(0, 0);
}

fn advanced<T: Ord + Copy>(before: &BTreeMap<T, u64>, after: &BTreeMap<T, u64>) -> BTreeMap<T, u64> {
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
    /// What the simulator gave as reasons since counters were compared.
    reasons: Reasons,
    /// Counters and flow memory are compared after that many packets.
    patience: u64,
    unsettled: u64,
}

impl Twin {
    /// Loads the program twice: once to be set up and once to be left blank.
    pub fn new() -> anyhow::Result<Self> {
        Self::with(SLOTS, 1)
    }

    /// With room for other than [`SLOTS`] halves of flows, and counters and flow memory compared only after `patience` packets:
    /// action and frame are compared after each, whatever it is.
    pub fn with(slots: u32, patience: u64) -> anyhow::Result<Self> {
        Ok(Self {
            simulator: Simulator::with_slots(slots)?,
            ready: Machine::new(slots)?,
            blank: Machine::new(slots)?,
            is_ready: true,
            reasons: Reasons::default(),
            patience,
            unsettled: 0,
        })
    }

    /// How many instructions the verifier went through to accept the program; it gives up at a million.
    pub fn verified(&self) -> anyhow::Result<u32> {
        let program: &Xdp = self.ready.ebpf.program("ga").context("the object has no program `ga`")?.try_into()?;
        program.info()?.verified_instruction_count().context("this kernel does not tell")
    }

    fn machine(&mut self) -> &mut Machine {
        if self.is_ready { &mut self.ready } else { &mut self.blank }
    }

    /// Checks that counters of reasons and flow memory agree.
    fn compare(&mut self, is_sure: bool) -> anyhow::Result<()> {
        self.unsettled = 0;
        let kernel = self.machine().advance()?;
        let expected = std::mem::take(&mut self.reasons);
        ensure!(expected == kernel, "reasons: simulator {expected:?}, kernel {kernel:?}");
        self.align(is_sure)
    }

    /// Checks that flow memory agrees, but for the clocks when the tick changed meanwhile, and makes these agree too.
    fn align(&self, is_sure: bool) -> anyhow::Result<()> {
        let machine = if self.is_ready { &self.ready } else { &self.blank };
        let (sim, flows) = (&self.simulator.sim, &machine.flows);
        same(&sim.flows4, flows.slots4(), is_sure).context("IPv4 flows")?;
        same(&sim.flows6, flows.slots6(), is_sure).context("IPv6 flows")?;
        let words = |words: &[Word]| words.iter().map(Word::load).collect::<Vec<_>>();
        ensure!(words(&sim.tags4) == words(flows.tags4()), "the tags of IPv4 slots differ");
        ensure!(words(&sim.tags6) == words(flows.tags6()), "the tags of IPv6 slots differ");
        Ok(())
    }

    fn set_clocks(&mut self) {
        let sim = &self.simulator.sim;
        for machine in [&self.ready, &self.blank] {
            set_clocks(&sim.flows4, machine.flows.slots4());
            set_clocks(&sim.flows6, machine.flows.slots6());
        }
    }
}

fn same<const K: usize, const W: usize>(sim: &[FlowSlot<K, W>], kernel: &[FlowSlot<K, W>], is_sure: bool) -> anyhow::Result<()> {
    ensure!(sim.len() == kernel.len(), "{} slots in the simulator, {} in the kernel", sim.len(), kernel.len());
    for (index, (sim, kernel)) in sim.iter().zip(kernel).enumerate() {
        ensure!(sim.state() == kernel.state(), "slot {index}: simulator {:?}, kernel {:?}", sim.state(), kernel.state());
        if sim.state().is_live() {
            ensure!(sim.load() == kernel.load(), "slot {index}: simulator {:?}, kernel {:?}", sim.load(), kernel.load());
            let ((sim_seen, sim_ack), (seen, ack)) = (sim.clock(), kernel.clock());
            ensure!(sim_ack == ack, "slot {index}: acknowledged {sim_ack} in the simulator, {ack} in the kernel");
            ensure!(!is_sure || sim_seen == seen, "slot {index}: seen at {sim_seen} by the simulator, at {seen} by the kernel");
        }
    }
    Ok(())
}

fn set_clocks<const K: usize, const W: usize>(sim: &[FlowSlot<K, W>], kernel: &[FlowSlot<K, W>]) {
    for (sim, kernel) in sim.iter().zip(kernel).filter(|(sim, kernel)| sim.state().is_live() && kernel.state().is_live()) {
        let (seen, ack) = sim.clock();
        kernel.set_clock(seen, ack);
    }
}

impl Dataplane for Twin {
    fn install(&mut self, world: &World) -> anyhow::Result<()> {
        if self.unsettled > 0 {
            self.settle()?;
        }
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
        self.set_clocks();
    }

    fn now_ms(&self) -> u64 {
        self.simulator.now_ms()
    }

    fn send(&mut self, frame: &[u8]) -> anyhow::Result<Seen> {
        let (action, bytes, [before, after]) = self.machine().send(frame)?;
        let what = || format!("kernel and simulator differ on {}", hex(frame));
        // When the clock moved on meanwhile, nobody knows at which tick the program asked for it, and draws of NAT ports depend on it.
        let mut now = before;
        let expected = loop {
            let memory = (now != after).then(|| self.simulator.remember());
            self.simulator.sim.tick.set(now);
            let expected = self.simulator.send(frame)?;
            // What is dropped looks alike whatever the reason, but not what is remembered.
            let is_right =
                |twin: &Self| (code(expected.action), &expected.bytes) == (action, &bytes) && twin.align(false).is_ok();
            match memory {
                Some(memory) if !is_right(self) => self.simulator.restore(memory),
                _ => break expected,
            }
            now += 1;
        };
        if code(expected.action) != action {
            let reasons = self.machine().advance()?;
            bail!(
                "{}: simulator {:?}, kernel XDP action {action} between ticks {before} and {after}; since they last agreed \
                 the simulator counted {:?}, the kernel {reasons:?}",
                what(),
                expected.action,
                self.reasons
            );
        }
        ensure!(expected.bytes == bytes, "{}:\n{}", what(), difference(&expected.bytes, &bytes));
        self.reasons.note(expected.action);
        self.unsettled += 1;
        if self.unsettled >= self.patience {
            self.compare(before == after).with_context(what)?;
        }
        if before != after {
            self.set_clocks();
        }
        Ok(expected)
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        self.compare(true)
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
        for id in (0..LISTENER_COUNT).map(ListenerId) {
            let want = self.simulator.sim.served.borrow().get(&id).copied().unwrap_or_default();
            let ready = self.ready.counters.served(id)?;
            ensure!(ready == want, "listener {id}: the simulator let in {want:?}, the kernel {ready:?}");
        }
        Ok(expected)
    }

    fn shortest(&self) -> usize {
        // BPF_PROG_TEST_RUN wants an Ethernet header.
        14
    }
}
