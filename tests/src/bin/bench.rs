//! `bench [packet|path|plan|program|health|failover|proxy|tail|relay] [--json]`: what a packet, a path, a change of the plan, the
//! program, probes and requests cost, and what the death of an endpoint does; all of them without a name. Run it through `cargo xtask bench`.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use ga_tests::bench::{Report, failover, health, packet, path, plan, program, proxy, relay, tail};
use serde_json::{Map, Value};

type Bench = fn() -> Result<Report>;

/// In the order in which they run.
const BENCHES: [(&str, Bench); 9] = [
    ("program", program::run),
    ("plan", plan::run),
    ("packet", packet::run),
    ("path", path::run),
    ("health", health::run),
    ("failover", failover::run),
    ("proxy", proxy::run),
    ("tail", tail::run),
    ("relay", relay::run),
];

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    let json = args.iter().any(|arg| arg == "--json");
    let name = args.iter().find(|arg| !arg.starts_with("--"));
    let chosen: Vec<_> = BENCHES.iter().filter(|(bench, _)| name.is_none_or(|name| name == bench)).collect();
    if chosen.is_empty() {
        let names = BENCHES.map(|(name, _)| name).join(", ");
        bail!("say what is to be measured: one of {names}, or nothing for all, and `--json` for figures as JSON");
    }
    let mut objects = Map::new();
    for (bench, run) in chosen {
        let report = run().with_context(|| format!("bench {bench}"))?;
        // A table at once, JSON at the end: whoever reads it wants one object.
        if !json {
            println!("── {bench}\n{}", report.table());
        }
        objects.insert(report.bench.to_owned(), report.json());
    }
    if json {
        let one = match name {
            Some(name) => objects.remove(name).unwrap_or_default(),
            None => Value::Object(objects),
        };
        println!("{}", serde_json::to_string_pretty(&one)?);
    }
    Ok(())
}
