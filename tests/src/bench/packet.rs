//! Nanoseconds a packet: the kernel's own figure for many packets in a row, each put back before the next.
//!
//! Every case is measured in turn with two floors: a program that parses and swaps the MAC addresses, and the same with one look
//! into a hash table of as many 16-byte keys as there are flows. What the product counted must be what was asked for: a
//! benchmark that measures misses fails.

use anyhow::{Context as _, Result, bail, ensure};
use ga::program::Sizes;
use ga_common::{
    abi::reason::{Drop, Pass},
    bench::{Load, order, target},
};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;

use super::{
    edge::{Edge, Sums},
    frames::{self, Kind},
    kernel::{Kernel, Run},
    stats::{Spread, paired, short},
};

const ROUNDS: usize = 9;
const FLOWS: [u32; 4] = [1, 1_000, 64_000, 1_000_000];
const PACKETS: u32 = 400_000;

/// What must have become of every packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Forward,
    Return,
    New,
    Dropped(Drop),
    Passed(Pass),
}

/// One line of the table.
#[derive(Debug, Serialize)]
struct Figure {
    case: &'static str,
    flows: u32,
    table_slots: u32,
    ns: Spread,
    floor1_ns: Spread,
    floor2_ns: Option<Spread>,
    /// Median of the rounds' differences.
    above_floor1_ns: f64,
    /// Median of the rounds' ratios.
    ratio_to_floor2: Option<f64>,
}

/// A case and the rounds it had.
struct Case {
    name: &'static str,
    load: Load,
    fate: Fate,
    packets: u32,
    ga: Vec<f64>,
    floor1: Vec<f64>,
    floor2: Vec<f64>,
}

impl Case {
    fn new(name: &'static str, load: Load, fate: Fate) -> Self {
        Self { name, load, fate, packets: PACKETS, ga: Vec::new(), floor1: Vec::new(), floor2: Vec::new() }
    }

    fn figure(&self, flows: u32, table_slots: u32) -> Figure {
        let above: Vec<f64> = self.ga.iter().zip(&self.floor1).map(|(ga, floor)| ga - floor).collect();
        Figure {
            case: self.name,
            flows,
            table_slots,
            ns: Spread::of(&self.ga),
            floor1_ns: Spread::of(&self.floor1),
            floor2_ns: (!self.floor2.is_empty()).then(|| Spread::of(&self.floor2)),
            above_floor1_ns: Spread::of(&above).median,
            ratio_to_floor2: (!self.floor2.is_empty()).then(|| short(paired(&self.ga, &self.floor2))),
        }
    }
}

/// The product and the floors, ready to be called.
struct Bench {
    kernel: Kernel,
    edge: Edge,
}

impl Bench {
    fn new(flows: u32, sizes: Sizes) -> Result<Self> {
        let (mut kernel, mut edge) = (Kernel::new(flows)?, Edge::new(sizes)?);
        kernel.aim(target::GA, &edge.fd()?)?;
        Ok(Self { kernel, edge })
    }

    /// Runs packets through the product and checks what became of each.
    fn ga(&mut self, load: Load, packets: u32, fate: Fate) -> Result<f64> {
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

    /// Makes `flows` flows and lists them, also in the floor's table. In a table as full as it may become a few of them find no
    /// slot; more is an error.
    fn open(&mut self, load: Load, flows: u32) -> Result<u32> {
        let before = self.edge.sums()?;
        self.kernel.run(&mut Load { target: target::GA, ..load }, flows)?;
        let sums = self.edge.sums()?.since(before);
        let mut numbers = self.edge.numbers(load.source);
        let made = numbers.len() as u32;
        let full = sums.drops[Drop::FlowTableFull as usize] as u32;
        ensure!(made + full == flows && full <= flows / 1000, "setting {flows} flows up: {sums:?}");
        shuffle(&mut numbers);
        self.kernel.set_list(&numbers)?;
        let fill = Load { order: order::NUMBERS, flows: made, target: target::INSERT, ..load };
        let run = self.kernel.run(&mut { fill }, made)?;
        ensure!(run.action == 1 && run.misses == 0, "the floor's table cannot be filled");
        Ok(made)
    }

    /// One round of a case: the floors and the product, one after the other.
    fn round(&mut self, case: &mut Case, with_lookup: bool) -> Result<()> {
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
            (wanted.forward, wanted.new_flows) = (packets, packets);
            4
        }
        Fate::Dropped(reason) => {
            wanted.drops[reason as usize] = packets;
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

/// Measures and prints.
pub fn run(json: bool) -> Result<()> {
    let cpu = pin()?;
    let mut figures = Vec::new();
    for flows in FLOWS {
        eprintln!("known flows: {flows}");
        known4(flows, &mut figures)?;
        known6(flows, &mut figures)?;
        known_udp(flows, &mut figures)?;
    }
    for (name, worn) in [("tcp4 new flow", false), ("tcp4 new flow, table worn", true)] {
        eprintln!("{name}");
        new_flows(name, worn, 4_096, 0, 2_000, 30, &mut figures)?;
        new_flows(name, worn, 1_000_000, 250_000, 100_000, 7, &mut figures)?;
    }
    eprintln!("what is not forwarded");
    rest(&mut figures)?;
    if json { print_json(&figures, cpu) } else { print(&figures) }
}

/// To the last CPU: interrupts prefer the first.
fn pin() -> Result<usize> {
    let cpu = std::thread::available_parallelism()?.get() - 1;
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).context("cannot stay on one CPU")?;
    Ok(cpu)
}

fn only4(flows: u32) -> Sizes {
    Sizes { flows6: 64, ..Sizes::for_flows(flows) }
}

fn known4(flows: u32, figures: &mut Vec<Figure>) -> Result<()> {
    let sizes = only4(flows);
    let mut bench = Bench::new(flows, sizes)?;
    let flows = bench.open(frames::load(Kind::Tcp4 { syn: true })?, flows)?;
    let ack = frames::load(Kind::Tcp4 { syn: false })?;
    let mut forward = Case::new("tcp4 forward", Load { order: order::NUMBERS, flows, ..ack }, Fate::Forward);
    let mut back = Case::new("tcp4 return", Load { order: order::TUPLES, flows, ..ack }, Fate::Return);
    let mut lists = [bench.edge.numbers(ack.source), bench.edge.replies()];
    lists.iter_mut().for_each(|list| shuffle(list));
    for (list, case) in lists.iter().zip([&mut forward, &mut back]) {
        ensure!(list.len() == flows as usize, "{} of {flows} flows are in the table", list.len());
        bench.kernel.set_list(list)?;
        // Once around, so that every half is established.
        bench.ga(case.load, flows, case.fate)?;
        for _ in 0..ROUNDS {
            bench.round(case, case.fate == Fate::Forward)?;
        }
    }
    figures.extend([forward.figure(flows, sizes.flows4), back.figure(flows, sizes.flows4)]);
    Ok(())
}

fn known6(flows: u32, figures: &mut Vec<Figure>) -> Result<()> {
    let sizes = Sizes { flows4: 64, ..Sizes::for_flows(flows) };
    let mut bench = Bench::new(flows, sizes)?;
    let flows = bench.open(frames::load(Kind::Tcp6 { syn: true })?, flows)?;
    let ack = frames::load(Kind::Tcp6 { syn: false })?;
    let mut forward = Case::new("tcp6 forward", Load { order: order::NUMBERS, flows, ..ack }, Fate::Forward);
    bench.ga(forward.load, flows, forward.fate)?;
    for _ in 0..ROUNDS {
        bench.round(&mut forward, true)?;
    }
    figures.push(forward.figure(flows, sizes.flows6));
    Ok(())
}

fn known_udp(flows: u32, figures: &mut Vec<Figure>) -> Result<()> {
    let sizes = only4(flows);
    let mut bench = Bench::new(flows, sizes)?;
    let load = frames::load(Kind::Udp4)?;
    let flows = bench.open(load, flows)?;
    let mut forward = Case::new("udp4 forward", Load { order: order::NUMBERS, flows, ..load }, Fate::Forward);
    for _ in 0..ROUNDS {
        bench.round(&mut forward, true)?;
    }
    figures.push(forward.figure(flows, sizes.flows4));
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
    let sizes = only4(room);
    let mut bench = Bench::new(1, sizes)?;
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
    figures.push(case.figure(before + packets, sizes.flows4));
    Ok(())
}

fn rest(figures: &mut Vec<Figure>) -> Result<()> {
    let sizes = only4(1_000);
    let mut bench = Bench::new(1, sizes)?;
    let no_flow = frames::load(Kind::Tcp4 { syn: false })?;
    let mut cases = [
        Case::new("tcp4 drop no_flow", no_flow, Fate::Dropped(Drop::NoFlow)),
        Case::new("udp4 not ours", frames::load(Kind::Stranger)?, Fate::Passed(Pass::NotOurs)),
        Case::new("arp", frames::load(Kind::Arp)?, Fate::Passed(Pass::NotIp)),
    ];
    bench.edge.forget(true);
    for _ in 0..ROUNDS {
        for case in &mut cases {
            bench.round(case, false)?;
        }
    }
    figures.extend(cases.iter().map(|case| case.figure(0, sizes.flows4)));
    Ok(())
}

/// Fisher and Yates, with a fixed seed: neighbours in the table do not follow each other.
fn shuffle<T>(items: &mut [T]) {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for i in (1..items.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(i, (state >> 33) as usize % (i + 1));
    }
}

fn print(figures: &[Figure]) -> Result<()> {
    println!(
        "{:<26} {:>9} {:>9} {:>18} {:>10} {:>9} {:>10} {:>8}",
        "case", "flows", "slots", "ns min/med/max", "floor 1", "above it", "floor 2", "ratio"
    );
    for figure in figures {
        let Spread { min, median, max } = figure.ns;
        let floor2 = figure.floor2_ns.map_or("-".to_owned(), |floor| format!("{:.0}", floor.median));
        let ratio = figure.ratio_to_floor2.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        println!(
            "{:<26} {:>9} {:>9} {:>18} {:>10.0} {:>9.0} {:>10} {:>8}",
            figure.case,
            figure.flows,
            figure.table_slots,
            format!("{min:.0}/{median:.0}/{max:.0}"),
            figure.floor1_ns.median,
            figure.above_floor1_ns,
            floor2,
            ratio
        );
    }
    Ok(())
}

fn print_json(figures: &[Figure], cpu: usize) -> Result<()> {
    if figures.is_empty() {
        bail!("nothing was measured");
    }
    let report = serde_json::json!({ "bench": "packet", "cpu": cpu, "rounds": ROUNDS, "figures": figures });
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}
