//! The packet corpus in the simulator: no root, no kernel.

use ga_tests::packet::{
    case::{corpus, corpus_dir},
    judge::run_all,
    simulator::Simulator,
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
