//! What a thousand listeners cost: planned cold and again, applied, per packet, in memory, and scraped.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use ga::{
    config,
    health::Beliefs,
    model::Intent,
    plan::{self, Overrides, Plan, State, Step},
    program::Sizes,
};
use ga_common::bench::{Listed, Load, order, target};
use serde_json::json;

use super::{
    edge::{self, Edge},
    frames::{self, Kind},
    kernel::Kernel,
    large::{FIRST_PORT, Large},
    packet, reload,
    report::{Figure, Goal, Report},
    stats::paired,
};

/// The number that is wanted.
const LISTENERS: usize = 1_000;
/// As many listeners give 10,000 series.
const SCRAPED: usize = 270;
const ROUNDS: usize = 5;
const SEED: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
/// Flows of the comparison of one listener with many.
const FLOWS: u32 = 64_000;
const PACKETS: u32 = 400_000;
/// Rounds of that comparison.
const COST_ROUNDS: usize = 9;

/// Measures.
pub fn run() -> Result<Report> {
    let mut report = Report::new("plan");
    report.about.insert("listeners", json!(LISTENERS));
    report.about.insert("rounds", json!(ROUNDS));
    eprintln!("planning {LISTENERS} listeners");
    planned(&mut report)?;
    eprintln!("an agent with {LISTENERS} listeners");
    report.figures.extend(reload::measure(LISTENERS, SCRAPED)?);
    eprintln!("a packet among {LISTENERS} listeners");
    cost(&mut report)?;
    Ok(report)
}

fn intent(large: Large) -> Result<Intent> {
    Ok(config::parse("large.toml", &large.text("[\"eth0\"]")).map_err(|report| anyhow::anyhow!("{report}"))?.intent)
}

fn build(intent: &Intent, running: &State) -> Result<Plan> {
    plan::build(intent, &Overrides::default(), &Beliefs::default(), running, SEED).context("no plan")
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let start = Instant::now();
    let value = work()?;
    Ok((start.elapsed().as_secs_f64() * 1e3, value))
}

/// The pure part: read, planned from nothing, planned again with one weight changed.
fn planned(report: &mut Report) -> Result<()> {
    let [all, changed, one] = [(LISTENERS, 0), (LISTENERS, 255), (1, 0)].map(|(listeners, weight)| Large { listeners, weight });
    let (mut read, mut cold, mut single, mut again, mut compared) = (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let (ms, before) = timed(|| intent(all))?;
        read.push(ms);
        let (after, alone) = (intent(changed)?, intent(one)?);
        single.push(timed(|| build(&alone, &State::default()))?.0);
        let (ms, old) = timed(|| build(&before, &State::default()))?;
        cold.push(ms);
        let mut running = old.target.clone();
        running.forget_slots();
        let (ms, new) = timed(|| build(&after, &running))?;
        again.push(ms);
        let filled = plan::steps(&running, &new.target).iter().filter(|step| matches!(step, Step::FillTable { .. })).count();
        ensure!(filled == 1, "one changed weight fills {filled} tables");
        compared.push(timed(|| Ok(plan::compare(Some(&old), &new)))?.0);
    }
    let single = Figure::new("", "", &single).value.median;
    let cold = Figure::new(format!("{LISTENERS} listeners planned cold"), "ms", &cold).beside("one listener", single);
    let again = Figure::new("one weight changed: planned", "ms", &again).beside("cold", cold.value.median);
    let goals = (
        Goal::at_most("planned cold, ms", cold.value.median, 10_000.0),
        Goal::at_most("planned again, ms", again.value.median, 100.0),
    );
    report.figures.push(Figure::new(format!("{LISTENERS} listeners read from the file"), "ms", &read));
    report.figures.push(cold.wants(goals.0));
    report.figures.push(again.wants(goals.1));
    report.figures.push(Figure::new("one weight changed: compared with the plan before", "ms", &compared));
    Ok(())
}

/// An edge with as many listeners, its flows, and what it costs.
struct Crowd {
    kernel: Kernel,
    edge: Edge,
    load: Load,
    new: Vec<f64>,
    known: Vec<f64>,
}

impl Crowd {
    fn new(listeners: usize) -> Result<Self> {
        // Roomy, so that every flow finds a slot.
        let sizes = Sizes { flows6: 64, ..Sizes::for_flows(2 * FLOWS) };
        let target = build(&intent(Large { listeners, weight: 255 })?, &State::default())?.target;
        let steps = plan::steps(&State::default(), &target);
        let mut edge = Edge::with(sizes, &steps)?;
        let mut kernel = Kernel::new(FLOWS)?;
        kernel.aim(target::GA, &edge.fd()?)?;
        let mut tuples = tuples(listeners);
        packet::shuffle(&mut tuples);
        kernel.set_list(&tuples)?;
        let load = Load { order: order::TUPLES, flows: FLOWS, target: target::GA, ..frames::load(Kind::Udp4)? };
        Ok(Self { kernel, edge, load, new: Vec::new(), known: Vec::new() })
    }

    /// All flows made anew, then packets of them.
    fn round(&mut self) -> Result<()> {
        self.edge.forget(true);
        let before = self.edge.sums()?;
        self.load.count = 0;
        self.new.push(self.kernel.run(&mut self.load, FLOWS)?.ns);
        self.known.push(self.kernel.run(&mut self.load, PACKETS)?.ns);
        let sums = self.edge.sums()?.since(before);
        let wanted = edge::Sums { forward: u64::from(FLOWS + PACKETS), new_flows: u64::from(FLOWS), ..edge::Sums::default() };
        ensure!(sums == wanted, "what was counted is {sums:?}");
        Ok(())
    }
}

/// Flows that are spread evenly over all listeners.
fn tuples(listeners: usize) -> Vec<Listed> {
    let tuple = |number: u32| {
        let source = u32::from_be_bytes([10, 64, 0, 0]) + (number >> 8);
        let listener = number as usize % listeners;
        let ports = [1024 + (number & 0xff) as u16, FIRST_PORT + listener as u16].map(u16::to_be_bytes);
        let addrs = [source.to_be_bytes(), crate::lab::VIP4.octets()].concat();
        let mut words = [0; 8];
        words.copy_from_slice(&addrs);
        let [a, b] = ports;
        [u64::from_ne_bytes(words), u64::from(u32::from_ne_bytes([a[0], a[1], b[0], b[1]]))]
    };
    (0..FLOWS).map(tuple).collect()
}

/// The same packets, spread over one listener and over all, in interleaved rounds.
fn cost(report: &mut Report) -> Result<()> {
    packet::pin()?;
    let (mut one, mut many) = (Crowd::new(1)?, Crowd::new(LISTENERS)?);
    for round in 0..=COST_ROUNDS {
        one.round()?;
        many.round()?;
        if round == 0 {
            // The first round makes pages and caches.
            [&mut one, &mut many].into_iter().for_each(|crowd| {
                crowd.new.clear();
                crowd.known.clear();
            });
        }
    }
    let figures = [("packet of a known flow", &many.known, &one.known), ("packet of a new flow", &many.new, &one.new)];
    for (name, many, one) in figures {
        let goal = Goal::at_most("ratio to one listener", paired(many, one), 1.15);
        let figure = Figure::new(format!("{name}, {LISTENERS} listeners"), "ns", many);
        report.figures.push(figure.beside("one listener", Figure::new("", "", one).value.median).wants(goal));
    }
    Ok(())
}
