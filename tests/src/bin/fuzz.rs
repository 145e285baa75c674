//! Fuzzes the packet path: `cargo xtask fuzz`.

use std::{
    fs,
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use clap::Parser;
use ga_tests::packet::{
    case::{corpus, corpus_dir},
    dataplane::Dataplane,
    fuzz::{Plan, SETTLE_EVERY, SLOTS, parse, replay, run},
    kernel::{Twin, prepare},
    simulator::Simulator,
};

/// Random packets through kernel, simulator and model, which must agree.
#[derive(Parser)]
struct Args {
    /// How many packets
    #[arg(long, default_value_t = 10_000_000)]
    packets: u64,
    /// Where random numbers come from; drawn from the clock and printed when not given
    #[arg(long)]
    seed: Option<u64>,
    /// Leave the kernel out: no root needed
    #[arg(long)]
    simulator: bool,
    /// Run a sequence that a failure printed, instead of random packets
    #[arg(long, value_name = "FILE", conflicts_with_all = ["packets", "seed"])]
    replay: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut plane: Box<dyn Dataplane> = if args.simulator {
        Box::new(Simulator::with_slots(SLOTS)?)
    } else {
        prepare()?;
        Box::new(Twin::with(SLOTS, SETTLE_EVERY)?)
    };
    if let Some(file) = &args.replay {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let events = parse(&text)?;
        replay(&mut *plane, &events)?;
        println!("{} steps, nobody disagrees", events.len());
        return Ok(());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let seed = args.seed.unwrap_or(now.as_secs() ^ u64::from(now.subsec_nanos()) << 32);
    println!("seed {seed}");
    let corpus = corpus(corpus_dir())?;
    let (started, terminal) = (Instant::now(), std::io::stderr().is_terminal());
    let progress = |done: u64| {
        let rate = done as f64 / started.elapsed().as_secs_f64();
        let left = (args.packets - done) as f64 / rate;
        if terminal {
            eprint!("\r{done} of {} packets, {rate:.0}/s, {left:.0} s left  ", args.packets);
            drop(std::io::stderr().flush());
        }
    };
    let report = run(&mut *plane, &Plan { seed, packets: args.packets, corpus: &corpus, progress: &progress });
    if terminal {
        eprint!("\r\x1b[K");
    }
    let report = report?;
    report.print("random packets");
    report.is_telling()
}
