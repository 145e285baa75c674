//! Nanoseconds a packet: the kernel's own figure for many packets in a row, each put back before the next.
//!
//! Every case is measured in turn with two floors: a program that parses and swaps the MAC addresses, and the same with one look
//! into a hash table of as many 16-byte keys as there are flows. What the product counted must be what was asked for: a
//! benchmark that measures misses fails.

use std::rc::Rc;

use anyhow::{Context as _, Result, ensure};
use aya::programs::ProgramFd;
use ga::program::Sizes;
use ga_common::{
    abi::{
        family::Family,
        reason::{Drop, Pass},
    },
    bench::{Listed, Load, order, target},
    wire::vlan::{CUSTOMER, Tags},
};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::json;

use super::{
    edge::{Edge, PORT, Sums},
    frames::{self, Kind, VLAN},
    kernel::{Kernel, Run},
    modes,
    report::{Figure, Goal, Report},
    stats::{Spread, paired},
};

pub(super) const ROUNDS: usize = 9;
const FLOWS: [u32; 4] = [1, 1_000, 64_000, 1_000_000];
const PACKETS: u32 = 400_000;

/// What must have become of every packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Forward,
    Return,
    New,
    Dropped(Drop),
    Passed(Pass),
}

/// A case and the rounds it had.
pub(super) struct Case {
    name: &'static str,
    pub(super) load: Load,
    pub(super) fate: Fate,
    pub(super) packets: u32,
    pub(super) ga: Vec<f64>,
    floor1: Vec<f64>,
    floor2: Vec<f64>,
}

impl Case {
    pub(super) fn new(name: &'static str, load: Load, fate: Fate) -> Self {
        Self { name, load, fate, packets: PACKETS, ga: Vec::new(), floor1: Vec::new(), floor2: Vec::new() }
    }

    /// How far the product is above the floor of the same round; the median of the rounds.
    pub(super) fn above(&self) -> f64 {
        let above: Vec<f64> = self.ga.iter().zip(&self.floor1).map(|(ga, floor)| ga - floor).collect();
        Spread::of(&above).median
    }

    pub(super) fn figure(&self, flows: u32) -> Figure {
        let name = if flows == 0 { self.name.to_owned() } else { format!("{}, {flows} flows", self.name) };
        let figure = Figure::new(name, "ns", &self.ga).beside("floor 1", Spread::of(&self.floor1).median);
        let figure = figure.beside("above floor 1", self.above());
        if self.floor2.is_empty() {
            return figure;
        }
        let figure = figure.beside("floor 2", Spread::of(&self.floor2).median);
        figure.beside("ratio to floor 2", paired(&self.ga, &self.floor2))
    }

    pub(super) fn wants_above(&self, figure: Figure, limit: f64) -> Figure {
        figure.wants(Goal::at_most("above floor 1, ns", self.above(), limit))
    }
}

/// The product and the floors, ready to be called.
pub(super) struct Bench {
    kernel: Kernel,
    pub(super) edge: Rc<Edge>,
}

impl Bench {
    fn new(flows: u32, sizes: Sizes) -> Result<Self> {
        let mut edge = Edge::new(sizes)?;
        let fd = edge.fd()?;
        Self::over(&Rc::new(edge), &fd, flows)
    }

    /// Floors of their own for an edge that others use too.
    pub(super) fn over(edge: &Rc<Edge>, program: &ProgramFd, flows: u32) -> Result<Self> {
        let mut kernel = Kernel::new(flows)?;
        kernel.aim(target::GA, program)?;
        Ok(Self { kernel, edge: Rc::clone(edge) })
    }

    /// Runs packets through the product and checks what became of each.
    pub(super) fn ga(&mut self, load: Load, packets: u32, fate: Fate) -> Result<f64> {
        let before = self.edge.sums()?;
        let run = self.kernel.run(&mut Load { target: target::GA, ..load }, packets)?;
        check(self.edge.sums()?.since(before), u64::from(packets), fate, run)?;
        Ok(run.ns)
    }

    /// Runs packets through a floor.
    fn floor(&mut self, place: u32, load: Load, packets: u32) -> Result<f64> {
        let run = self.kernel.run(&mut Load { target: place, ..load }, packets)?;
        ensure!(run.misses == 0, "{} of {packets} packets missed the floor's table", run.misses);
        ensure!(run.action == 3 || load.frame[1] >> 32 & 0xffff == 0x0608, "the floor answered with action {}", run.action);
        Ok(run.ns)
    }

    /// Makes `flows` flows of `family` to `port` and lists them, also in the floor's table. In a table as full as it may become a few of
    /// them find no slot; more is an error.
    pub(super) fn open(&mut self, load: Load, flows: u32, family: Family, port: u16) -> Result<u32> {
        let before = self.edge.sums()?;
        self.kernel.run(&mut Load { target: target::GA, ..load }, flows)?;
        let sums = self.edge.sums()?.since(before);
        self.edge.establish();
        let numbers = self.edge.numbers(load.source, family, port);
        let made = numbers.len() as u32;
        ensure!(made <= flows && made >= flows - flows / 1000, "setting {flows} flows up: {made} are there, {sums:?}");
        self.list(numbers, Load { order: order::NUMBERS, ..load })
    }

    /// Lists what is to be sent, in no order, also in the floor's table; returns how many there are.
    pub(super) fn list(&mut self, mut flows: Vec<Listed>, load: Load) -> Result<u32> {
        let count = flows.len() as u32;
        shuffle(&mut flows);
        self.kernel.set_list(&flows)?;
        let mut fill = Load { flows: count, target: target::INSERT, ..load };
        let run = self.kernel.run(&mut fill, count)?;
        ensure!(run.action == 1 && run.misses == 0, "the floor's table cannot be filled");
        Ok(count)
    }

    /// All rounds of a case beside the first floor with a load of its own.
    fn beside(&mut self, mut case: Case, floor: Load) -> Result<Figure> {
        for _ in 0..ROUNDS {
            case.floor1.push(self.floor(target::SWAP, floor, case.packets)?);
            let ns = self.ga(case.load, case.packets, case.fate).with_context(|| format!("case {}", case.name))?;
            case.ga.push(ns);
        }
        Ok(case.figure(0))
    }

    /// One round of a case: the floors and the product, one after the other.
    pub(super) fn round(&mut self, case: &mut Case, with_lookup: bool) -> Result<()> {
        let done = case.ga.len() as u64 * u64::from(case.packets);
        case.load.count = if case.load.order == order::SEQUENCE { done } else { done % u64::from(case.load.flows) };
        case.floor1.push(self.floor(target::SWAP, case.load, case.packets)?);
        if with_lookup {
            case.floor2.push(self.floor(target::LOOKUP, case.load, case.packets)?);
        }
        let ns = self.ga(case.load, case.packets, case.fate).with_context(|| format!("case {}", case.name))?;
        case.ga.push(ns);
        Ok(())
    }
}

fn check(sums: Sums, packets: u64, fate: Fate, run: Run) -> Result<()> {
    let mut wanted = Sums::default();
    let action = match fate {
        Fate::Forward => {
            wanted.forward = packets;
            4
        }
        Fate::Return => {
            wanted.back = packets;
            3
        }
        Fate::New => {
            // In a table as full as it may become a few find no slot.
            let full = sums.drops[Drop::FlowTableFull as usize].min(packets / 1000);
            wanted.drops[Drop::FlowTableFull as usize] = full;
            (wanted.forward, wanted.new_flows) = (packets - full, packets - full);
            4
        }
        Fate::Dropped(reason) => {
            // Even the smallest allowance admits one now and then.
            let admitted = if reason == Drop::Admission { sums.new_flows.min(4) } else { 0 };
            (wanted.forward, wanted.new_flows) = (admitted, admitted);
            wanted.drops[reason as usize] = packets - admitted;
            1
        }
        Fate::Passed(reason) => {
            wanted.passes[reason as usize] = packets;
            2
        }
    };
    ensure!(sums == wanted, "{packets} packets should have been {fate:?}, but what was counted is {sums:?}");
    ensure!(run.action == action && run.misses == 0, "the answer was action {} where {fate:?} was wanted", run.action);
    Ok(())
}

/// Measures.
pub fn run() -> Result<Report> {
    let mut report = Report::new("packet");
    report.about.insert("cpu", json!(pin()?));
    report.about.insert("rounds", json!(ROUNDS));
    for flows in FLOWS {
        eprintln!("known flows: {flows}");
        known_tcp(flows, &mut report.figures)?;
        known_udp(flows, &mut report.figures)?;
    }
    for (name, worn) in [("tcp4 new flow", false), ("tcp4 new flow, table worn", true)] {
        eprintln!("{name}");
        new_flows(name, worn, 4_096, 0, 2_000, 30, &mut report.figures)?;
        new_flows(name, worn, 1_000_000, 900_000, 100_000, 7, &mut report.figures)?;
    }
    eprintln!("tags and errors");
    tags_and_errors(&mut report.figures)?;
    modes::run(&mut report.figures)?;
    eprintln!("what is not forwarded");
    rest(&mut report.figures)?;
    Ok(report)
}

/// To the last CPU: interrupts prefer the first.
pub(super) fn pin() -> Result<usize> {
    let cpu = std::thread::available_parallelism()?.get() - 1;
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).context("cannot stay on one CPU")?;
    Ok(cpu)
}

pub(super) fn only4(flows: u32) -> Sizes {
    Sizes { flows6: 64, ..Sizes::for_flows(flows) }
}

/// TCP of both families, forward and, over IPv4, back: one round after the other.
fn known_tcp(flows: u32, figures: &mut Vec<Figure>) -> Result<()> {
    let mut edge = Edge::new(Sizes::for_flows(flows))?;
    let fd = edge.fd()?;
    let edge = Rc::new(edge);
    let lane = || Bench::over(&edge, &fd, flows);
    let (mut forward, mut back, mut six) = (lane()?, lane()?, lane()?);
    let flows4 = forward.open(frames::load(Kind::Tcp4 { syn: true })?, flows, Family::V4, PORT)?;
    let flows6 = six.open(frames::load(Kind::Tcp6 { syn: true })?, flows, Family::V6, PORT)?;
    let (ack4, ack6) = (frames::load(Kind::Tcp4 { syn: false })?, frames::load(Kind::Tcp6 { syn: false })?);
    let replies = Load { order: order::TUPLES, flows: flows4, ..ack4 };
    let listed = back.list(edge.replies(), replies)?;
    ensure!(listed == flows4, "{listed} of {flows4} flows can be answered");
    let numbers = |flows, load| Load { order: order::NUMBERS, flows, ..load };
    let mut lanes = [
        (forward, Case::new("tcp4 forward", numbers(flows4, ack4), Fate::Forward)),
        (back, Case::new("tcp4 return", replies, Fate::Return)),
        (six, Case::new("tcp6 forward", numbers(flows6, ack6), Fate::Forward)),
    ];
    // Twice around, so that every half is established: a client's segment after an answer of the endpoint.
    for lane in [0, 1, 2, 0] {
        let (bench, case) = &mut lanes[lane];
        bench.ga(case.load, case.load.flows, case.fate)?;
    }
    for _ in 0..ROUNDS {
        for (bench, case) in &mut lanes {
            bench.round(case, true)?;
        }
    }
    let [(_, forward), (_, back), (_, six)] = &lanes;
    for case in [forward, back] {
        let mut figure = case.figure(flows);
        if flows == FLOWS[0] {
            figure = case.wants_above(figure, 75.0);
        } else if flows == FLOWS[FLOWS.len() - 1] {
            figure = figure.wants(Goal::at_most("ratio to floor 2", paired(&case.ga, &case.floor2), 1.0));
        }
        figures.push(figure);
    }
    let ratio = paired(&six.ga, &forward.ga);
    figures.push(six.figure(flows).wants(Goal::at_most("ratio to tcp4 forward", ratio, 1.25)));
    Ok(())
}

fn known_udp(flows: u32, figures: &mut Vec<Figure>) -> Result<()> {
    let mut edge = Edge::new(only4(flows))?;
    let fd = edge.fd()?;
    let edge = Rc::new(edge);
    let (mut forward, mut back) = (Bench::over(&edge, &fd, flows)?, Bench::over(&edge, &fd, flows)?);
    let load = frames::load(Kind::Udp4)?;
    let flows = forward.open(load, flows, Family::V4, PORT)?;
    let replies = Load { order: order::TUPLES, flows, ..load };
    back.list(edge.replies(), replies)?;
    let mut lanes = [
        (forward, Case::new("udp4 forward", Load { order: order::NUMBERS, flows, ..load }, Fate::Forward)),
        (back, Case::new("udp4 return", replies, Fate::Return)),
    ];
    for _ in 0..ROUNDS {
        for (bench, case) in &mut lanes {
            bench.round(case, true)?;
        }
    }
    figures.extend(lanes.iter().map(|(_, case)| case.figure(flows)));
    Ok(())
}

/// Ever new flows in a table for `room` flows that holds `before` flows already.
fn new_flows(
    name: &'static str,
    worn: bool,
    room: u32,
    before: u32,
    packets: u32,
    rounds: usize,
    figures: &mut Vec<Figure>,
) -> Result<()> {
    let mut bench = Bench::new(1, only4(room))?;
    let load = frames::load(Kind::Tcp4 { syn: true })?;
    let mut case = Case { packets, ..Case::new(name, load, Fate::New) };
    for _ in 0..rounds {
        bench.edge.forget(worn);
        if before > 0 {
            bench.ga(load, before, Fate::New)?;
        }
        case.load.count = u64::from(before);
        case.floor1.push(bench.floor(target::SWAP, case.load, packets)?);
        case.ga.push(bench.ga(case.load, packets, case.fate)?);
    }
    let mut figure = case.figure(before + packets);
    if before > 0 {
        figure = figure.wants(Goal::at_most("ns", Spread::of(&case.ga).median, 900.0));
    }
    figures.push(figure);
    Ok(())
}

/// One flow whose packets get another tag, a tag or none, and errors about it. The floor gets untagged segments and the errors.
fn tags_and_errors(figures: &mut Vec<Figure>) -> Result<()> {
    let fixed = |kind| anyhow::Ok(Load { order: order::FIXED, ..frames::load(kind)? });
    let (tagged, plain) = (|syn| fixed(Kind::Tagged { syn }), |syn| fixed(Kind::Tcp4 { syn }));
    let floor = plain(false)?;
    let other = Tags::NONE.with(CUSTOMER, VLAN + 1);
    let ways = [
        ("tcp4 forward, tag to another tag", tagged(true)?, tagged(false)?, other),
        ("tcp4 forward, tag taken off", tagged(true)?, tagged(false)?, Tags::NONE),
        ("tcp4 forward, tag put on", plain(true)?, plain(false)?, other),
    ];
    for (name, syn, ack, tags) in ways {
        let mut edge = Edge::new(only4(1_000))?;
        edge.tag(tags)?;
        let (mut bench, case) = (one_flow(edge, syn)?, Case::new(name, ack, Fate::Forward));
        figures.push(bench.beside(case, floor)?);
    }
    let mut bench = one_flow(Edge::new(only4(1_000))?, plain(true)?)?;
    let reply = bench.edge.replies().first().copied().context("the flow has no replies")?;
    let load = fixed(Kind::TooLong { reply })?;
    figures.push(bench.beside(Case::new("icmp4 error about tcp4, to the client", load, Fate::Return), load)?);
    Ok(())
}

/// An edge with the established flow that `syn` opens.
fn one_flow(mut edge: Edge, syn: Load) -> Result<Bench> {
    let fd = edge.fd()?;
    let mut bench = Bench::over(&Rc::new(edge), &fd, 1)?;
    bench.ga(syn, 1, Fate::New)?;
    bench.edge.establish();
    Ok(bench)
}

fn rest(figures: &mut Vec<Figure>) -> Result<()> {
    let mut bench = Bench::new(1, only4(1_000))?;
    let no_flow = frames::load(Kind::Tcp4 { syn: false })?;
    let cases = [
        (90.0, Case::new("tcp4 SYN refused by admission", frames::load(Kind::Refused)?, Fate::Dropped(Drop::Admission))),
        (90.0, Case::new("tcp4 drop no_flow", no_flow, Fate::Dropped(Drop::NoFlow))),
        (25.0, Case::new("udp4 not ours", frames::load(Kind::Stranger)?, Fate::Passed(Pass::NotOurs))),
        (25.0, Case::new("arp", frames::load(Kind::Arp)?, Fate::Passed(Pass::NotIp))),
    ];
    let mut cases = cases;
    bench.edge.forget(true);
    for _ in 0..ROUNDS {
        for (_, case) in &mut cases {
            bench.round(case, false)?;
        }
    }
    figures.extend(cases.iter().map(|(limit, case)| case.wants_above(case.figure(0), *limit)));
    Ok(())
}

/// Fisher and Yates, with a fixed seed: neighbours in the table do not follow each other.
pub(super) fn shuffle<T>(items: &mut [T]) {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for i in (1..items.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(i, (state >> 33) as usize % (i + 1));
    }
}
