//! The packet corpus in the simulator: no root, no kernel.

use anyhow::{Context as _, ensure};
use ga_common::abi::{
    limits::{ADMISSION_TICKS, TOLD_AT_ONCE},
    reason::Drop,
};
use ga_tests::packet::{
    case::{corpus, corpus_dir},
    craft::{Bound, frame},
    dataplane::{Action, Dataplane as _},
    judge::run_all,
    simulator::Simulator,
    world::world,
};

#[test]
fn the_simulator_keeps_every_promise_of_the_corpus() -> anyhow::Result<()> {
    let corpus = corpus(corpus_dir())?;
    let coverage = run_all(&mut Simulator::new()?, &corpus)?;
    coverage.print("corpus, simulator");
    let missing = coverage.missing();
    assert!(missing.is_empty(), "no case reaches {missing:?}");
    Ok(())
}

#[test]
fn a_flood_of_packets_that_are_too_big_is_not_answered_by_a_flood() -> anyhow::Result<()> {
    let cases = corpus(corpus_dir())?.remove("too_big").context("no such theme")?;
    let case = cases.iter().find(|case| case.packets[0].expect == "refuse: too_big").context("no such case")?;
    let mut simulator = Simulator::new()?;
    simulator.install(&world(&case.world)?)?;
    let input = frame(&case.packets[0], &Bound::default())?;
    let mut answered = |count: u32| -> anyhow::Result<u32> {
        let mut answered = 0;
        for _ in 0..count {
            match simulator.send(&input)?.action {
                Action::Refuse(Drop::TooBig, _) => answered += 1,
                Action::Drop(Drop::TooBig, _) => {}
                other => anyhow::bail!("{other:?}"),
            }
        }
        simulator.sim.tick.set(simulator.sim.tick.get() + ADMISSION_TICKS);
        Ok(answered)
    };
    for period in 1..=3 {
        let told = answered(TOLD_AT_ONCE + 50)?;
        ensure!(told == TOLD_AT_ONCE, "{told} senders were told in period {period}, not {TOLD_AT_ONCE}");
    }
    ensure!(answered(7)? == 7, "a few are all told");
    Ok(())
}
