//! The packet corpus through the real program in the kernel, with the simulator beside it. Needs root.

use ga_tests::packet::{
    case::{corpus, corpus_dir},
    judge::run_all,
    kernel::{Twin, prepare},
    random,
};

#[test]
fn the_kernel_keeps_every_promise_of_the_corpus_byte_for_byte_as_the_simulator() -> anyhow::Result<()> {
    prepare()?;
    let corpus = corpus(corpus_dir())?;
    let coverage = run_all(&mut Twin::new()?, &corpus)?;
    coverage.print("corpus, kernel beside simulator");
    let missing = coverage.missing();
    assert!(missing.is_empty(), "no case reaches {missing:?}");
    Ok(())
}

/// How many random packets go through both; about half a minute.
const RANDOM_PACKETS: usize = 20_000;

#[test]
fn kernel_and_simulator_agree_on_random_packets() -> anyhow::Result<()> {
    prepare()?;
    let seed = match std::env::var("GA_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => 0x6a09_e667_f3bc_c908,
    };
    println!("GA_SEED={seed}");
    let corpus = corpus(corpus_dir())?;
    let fates = random::run(&mut Twin::new()?, &corpus, seed, RANDOM_PACKETS)?;
    println!("{fates:?}");
    assert!(fates.sent > RANDOM_PACKETS / 10, "the packets must not all be refused: {fates:?}");
    Ok(())
}

#[test]
fn the_verifier_has_room_for_more() -> anyhow::Result<()> {
    prepare()?;
    let verified = Twin::new()?.verified()?;
    println!("{verified} instructions verified");
    assert!(verified < 750_000, "{verified} instructions of a million: changes will be refused soon");
    Ok(())
}
