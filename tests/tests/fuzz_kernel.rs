//! The program in the kernel, the simulator and the model, three opinions about every packet. Needs root.
//! `GA_SEED` and `GA_PACKETS` choose what is run; `cargo xtask fuzz` runs the many.

use ga_tests::packet::{
    case::{corpus, corpus_dir},
    fuzz::{Plan, SETTLE_EVERY, SLOTS, run},
    kernel::{Twin, prepare},
};

/// Some seconds.
const PACKETS: u64 = 200_000;

fn from_environment(name: &str, default: u64) -> anyhow::Result<u64> {
    Ok(std::env::var(name).map_or(Ok(default), |value| value.parse())?)
}

#[test]
fn kernel_simulator_and_model_are_of_one_opinion() -> anyhow::Result<()> {
    prepare()?;
    let (seed, packets) = (from_environment("GA_SEED", 0x1319_8a2e_0370_7344)?, from_environment("GA_PACKETS", PACKETS)?);
    let corpus = corpus(corpus_dir())?;
    println!("GA_SEED={seed} GA_PACKETS={packets}");
    let mut twin = Twin::with(SLOTS, SETTLE_EVERY)?;
    let report = run(&mut twin, &Plan { seed, packets, corpus: &corpus, progress: &|_| {} })?;
    report.print("random packets, kernel, simulator and model");
    report.is_telling()
}
