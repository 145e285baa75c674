//! Random sequences of packets, waits and changes of the world through a data path, every outcome judged by the [`model`](super::model).
//!
//! The same seed gives the same sequence as long as the data path does the same. A sequence that fails is cut down to what it takes
//! to fail, and printed in full: hex frames that `replay` takes back.

mod generator;
mod trace;

use std::{
    collections::BTreeMap,
    io::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use self::generator::Generator;
pub use self::trace::{Event, parse};
use super::{
    case::Case,
    dataplane::Dataplane,
    judge::Coverage,
    model::{Counts, Model},
    random::Random,
    world::{World, world},
};

/// Slots that a flow table ought to have for this: so many that places are never short.
pub const SLOTS: u32 = 4096;

/// Packets after which what is dear to compare is compared.
pub const SETTLE_EVERY: u64 = 2048;
/// Packets after which all flows are forgotten, and the trace with them.
const FORGET_EVERY: u64 = 8192;

/// What is to be done.
pub struct Plan<'a> {
    /// Where all random numbers come from.
    pub seed: u64,
    /// How many packets.
    pub packets: u64,
    /// Frames to mutate besides those that are made up.
    pub corpus: &'a BTreeMap<String, Vec<Case>>,
    /// Called about once a second with the number of packets so far.
    pub progress: &'a dyn Fn(u64),
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Packets.
    pub packets: u64,
    /// Of which sent.
    pub sent: u64,
    /// Pairs that were opened.
    pub opened: u64,
    /// Times that the data path had no room for a pair.
    pub full: u64,
    /// How long it took.
    pub took: Duration,
    /// Which reasons were met.
    pub coverage: Coverage,
}

/// A data path and the model beside it.
struct Stage<'a> {
    plane: &'a mut dyn Dataplane,
    model: Model,
    /// What the data path had counted before.
    before: BTreeMap<u16, Counts>,
    coverage: Coverage,
}

impl<'a> Stage<'a> {
    fn new(plane: &'a mut dyn Dataplane) -> anyhow::Result<Self> {
        plane.forget();
        let before = counted(plane)?;
        let mut stage = Self { plane, model: Model::new(), before, coverage: Coverage::default() };
        stage.install("standard")?;
        Ok(stage)
    }

    fn install(&mut self, name: &str) -> anyhow::Result<()> {
        let world = roomy(name)?;
        self.model.install(&world);
        self.plane.install(&world)
    }

    fn step(&mut self, event: &Event) -> anyhow::Result<()> {
        match event {
            Event::Wait(seconds) => self.plane.wait(*seconds),
            Event::World(name) => self.install(name)?,
            Event::Forget => {
                self.plane.forget();
                self.model.forget();
            }
            Event::Packet(frame) if self.model.is_doubtful(frame) => {}
            Event::Packet(frame) => {
                if self.model.is_close_call(frame, self.plane.now_ms()) {
                    self.plane.wait(1);
                }
                let seen = self.plane.send(frame)?;
                self.coverage.packets += 1;
                self.coverage.note(&seen);
                self.model.judge(frame, &seen, self.plane.now_ms())?;
            }
        }
        Ok(())
    }

    /// Compares counters, and whatever the data path compares rarely.
    fn settle(&mut self) -> anyhow::Result<()> {
        self.plane.settle()?;
        let now = counted(self.plane)?;
        for (id, want) in &self.model.counts {
            let (now, before) =
                (now.get(&id.0).copied().unwrap_or_default(), self.before.get(&id.0).copied().unwrap_or_default());
            let seen: Vec<u64> = now.iter().zip(before).map(|(now, before)| now - before).collect();
            ensure!(seen == want, "endpoint {id}: the model counted {want:?}, the data path {seen:?}");
        }
        Ok(())
    }
}

/// A world with room for all flows.
fn roomy(name: &str) -> anyhow::Result<World> {
    let mut world = world(name)?;
    (world.fixed.flows4, world.fixed.flows6) = (SLOTS, SLOTS);
    Ok(world)
}

fn counted(plane: &dyn Dataplane) -> anyhow::Result<BTreeMap<u16, Counts>> {
    let counters = plane.counters()?;
    let counts = counters
        .into_iter()
        .map(|(id, c)| (id.0, [c.forward_packets, c.forward_bytes, c.return_packets, c.return_bytes, c.new_flows, c.failures]));
    Ok(counts.collect())
}

/// Runs a plan. The error holds the seed, the shortest sequence found that fails, and why it does.
pub fn run(plane: &mut dyn Dataplane, plan: &Plan<'_>) -> anyhow::Result<Report> {
    let started = Instant::now();
    let shortest = plane.shortest();
    let mut generator = Generator::new(Random(plan.seed), plan.corpus, shortest);
    let (mut trace, mut packets, mut told) = (Vec::new(), 0, started);
    let mut stage = Stage::new(plane)?;
    let failed = loop {
        if packets == plan.packets {
            break stage.settle().err();
        }
        let event = generator.next(&stage.model, packets % FORGET_EVERY == FORGET_EVERY - 1);
        let result = stage.step(&event);
        packets += u64::from(matches!(event, Event::Packet(_)));
        if matches!(event, Event::Forget) {
            trace.clear();
            trace.push(Event::World(generator.world()));
        } else {
            trace.push(event);
        }
        let result = result.and_then(|()| if packets % SETTLE_EVERY == 0 { stage.settle() } else { Ok(()) });
        if let Err(error) = result {
            break Some(error);
        }
        if told.elapsed() > Duration::from_secs(1) {
            told = Instant::now();
            (plan.progress)(packets);
        }
    };
    if let Some(error) = failed {
        drop(stage);
        // Said at once: to cut it down takes a while.
        drop(writeln!(std::io::stdout(), "seed {}, packet {packets}: {error:#}", plan.seed));
        let few = trace::shorten(&trace, |events| replay(plane, events).is_err());
        let why = replay(plane, &few).err().unwrap_or(error);
        let text = trace::show(&few);
        return Err(why).with_context(|| format!("seed {}, packet {packets}; it fails after these:\n{text}", plan.seed));
    }
    let counts: Vec<Counts> = stage.model.counts.values().copied().collect();
    let sum = |at: usize| counts.iter().map(|counts| counts[at]).sum::<u64>();
    let (sent, opened) = (sum(0) + sum(2), sum(4));
    Ok(Report { packets, sent, opened, full: stage.model.full, took: started.elapsed(), coverage: stage.coverage })
}

/// Runs a sequence from the beginning, comparing everything after every packet.
pub fn replay(plane: &mut dyn Dataplane, events: &[Event]) -> anyhow::Result<()> {
    let mut stage = Stage::new(plane)?;
    for (number, event) in events.iter().enumerate() {
        stage.step(event).with_context(|| format!("at step {}", number + 1))?;
        if matches!(event, Event::Packet(_)) {
            stage.settle().with_context(|| format!("after step {}", number + 1))?;
        }
    }
    Ok(())
}

impl Report {
    /// That it was no walk in the park: packets were sent, pairs opened, and places were not short.
    pub fn is_telling(&self) -> anyhow::Result<()> {
        if self.sent * 10 < self.packets || self.opened * 100 < self.packets {
            bail!(
                "{} of {} packets were sent and {} pairs opened: the packets must not all be refused",
                self.sent,
                self.packets,
                self.opened
            );
        }
        ensure!(self.full * 1000 < self.opened, "{} of {} pairs found no place: they were not judged", self.full, self.opened);
        Ok(())
    }

    /// Prints the reasons and the line, past the test harness.
    pub fn print(&self, what: &str) {
        self.coverage.print(what);
        drop(writeln!(std::io::stdout(), "  {}", self.line()));
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let rate = self.packets as f64 / self.took.as_secs_f64().max(0.001);
        format!(
            "{} packets, {} sent, {} pairs opened, {} found no place, 0 mismatches; {rate:.0} packets/s",
            self.packets, self.sent, self.opened, self.full,
        )
    }
}
