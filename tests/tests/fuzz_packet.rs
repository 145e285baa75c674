//! The simulator against the model: no root, no kernel. `GA_SEED` and `GA_PACKETS` choose what is run.

use ga_tests::packet::{
    case::{corpus, corpus_dir},
    fuzz::{Plan, SLOTS, run},
    simulator::Simulator,
};

/// Some seconds without optimisation.
const PACKETS: u64 = 100_000;

fn from_environment(name: &str, default: u64) -> anyhow::Result<u64> {
    Ok(std::env::var(name).map_or(Ok(default), |value| value.parse())?)
}

#[test]
fn the_simulator_does_with_every_packet_what_the_model_says() -> anyhow::Result<()> {
    let (seed, packets) = (from_environment("GA_SEED", 0x243f_6a88_85a3_08d3)?, from_environment("GA_PACKETS", PACKETS)?);
    let corpus = corpus(corpus_dir())?;
    println!("GA_SEED={seed} GA_PACKETS={packets}");
    let report = run(&mut Simulator::with_slots(SLOTS)?, &Plan { seed, packets, corpus: &corpus, progress: &|_| {} })?;
    report.print("random packets, simulator and model");
    report.is_telling()
}
