//! `bench packet|path [--json]`: what a packet costs, and what a path carries. Run it through `cargo xtask bench`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use ga_tests::bench::{packet, path};

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
    match args.iter().find(|arg| !arg.starts_with("--")).map(String::as_str) {
        Some("packet") => packet::run(json),
        Some("path") => path::run(json),
        _ => bail!("say what is to be measured: `bench packet [--json]` or `bench path [--json]`"),
    }
}
