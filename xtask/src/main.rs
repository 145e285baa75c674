//! Every chore of the project.

mod artifacts;
mod ci;
mod features;
mod files;
mod programs;
mod setup;
mod shell;
mod test;
mod tidy;
mod toolchain;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use crate::{setup::Scope, test::Ring};

/// Every chore of the project: set up, test, check, show, measure.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    after_help = "Example:\n  cargo xtask setup && cargo xtask test --ring unit"
)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Bring this machine to a building one: compiler and linker of the kernel program, test programs, bpffs
    ///
    /// Looks first and gets only what is missing; the second run takes a second. Installing needs root or sudo, and apt.
    #[command(after_help = "Examples:\n  cargo xtask setup\n  cargo xtask setup --for build    # only what compiling needs")]
    Setup {
        /// How much of a machine is needed
        #[arg(long = "for", value_enum, default_value_t = Scope::All)]
        scope: Scope,
    },
    /// Run the tests, ring by ring; the last line is the sum
    ///
    /// Ring unit needs no root. Rings packet and netns do; without it they are skipped loudly, and under CI=true that is a failure.
    #[command(
        after_help = "Examples:\n  cargo xtask test\n  cargo xtask test --ring unit maglev\n  CI=true cargo xtask test --ring netns"
    )]
    Test {
        /// Which ring
        #[arg(long, value_enum, default_value_t = Ring::All)]
        ring: Ring,
        /// Only tests whose name contains this
        filter: Option<String>,
    },
    /// Print which feature of the checklist is proven by which test
    ///
    /// A proof is a line `// proves: A01, C03` directly above a `#[test]`, or `# proves: A05` in a corpus file.
    #[command(
        after_help = "Examples:\n  cargo xtask features | grep missing\n  cargo xtask features --write    # after adding a proof"
    )]
    Features {
        /// Fail when a proven feature is no longer, or when lock or README are out of date
        #[arg(long, conflicts_with = "write")]
        check: bool,
        /// Rewrite docs/features.lock and the README's table
        #[arg(long)]
        write: bool,
    },
    /// Check the layout: first lines, lengths, arrows between rooms, unsafe, links, map layouts
    #[command(
        after_help = "Examples:\n  cargo xtask tidy\n  cargo xtask tidy --bless    # after an intended change of the map layouts"
    )]
    Tidy {
        /// Accept the map layouts as they are: rewrite ga-common/abi.lock
        #[arg(long)]
        bless: bool,
    },
    /// Run every check of a change, stopping at the first that fails
    #[command(after_help = "Example:\n  CI=true cargo xtask ci")]
    Ci,
    /// Show the product at work: clients, an edge and endpoints in network namespaces
    ///
    /// Needs root or sudo. Takes less than a minute once built, checks what it shows, and leaves nothing behind.
    #[command(after_help = "Examples:\n  cargo xtask demo\n  cargo xtask demo --keep && cargo xtask demo --down")]
    Demo {
        /// Leave everything up, and say how to play with it
        #[arg(long)]
        keep: bool,
        /// Take down what --keep left up
        #[arg(long, conflicts_with_all = ["keep", "svg"])]
        down: bool,
        /// Write the picture of what was seen as SVG
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
    /// Measure; without a name everything, which takes about fourteen minutes once built
    ///
    /// Every figure comes with a floor or a peer of the same run, and where a value is wanted, with that and whether it holds. Needs
    /// root or sudo. Progress goes to standard error.
    #[command(
        after_help = "Examples:\n  cargo xtask bench packet\n  cargo xtask bench path --json > path.json\n  cargo xtask bench --json > all.json"
    )]
    Bench {
        /// What is measured
        what: Option<Bench>,
        /// Print one JSON object of figures, and nothing else, on standard output
        #[arg(long)]
        json: bool,
    },
    /// Send random packets through the kernel, the simulator and a model, which must agree
    ///
    /// Prints seed and throughput. A disagreement is cut down to the few steps that lead to it, which --replay takes back.
    #[command(
        after_help = "Examples:\n  cargo xtask fuzz    # ten million packets, minutes\n  cargo xtask fuzz --simulator --packets 1000000 --seed 7"
    )]
    Fuzz {
        /// How many packets
        #[arg(long, default_value_t = 10_000_000)]
        packets: u64,
        /// Where random numbers come from; drawn and printed when not given
        #[arg(long)]
        seed: Option<u64>,
        /// Leave the kernel out
        #[arg(long)]
        simulator: bool,
        /// Run the steps that a disagreement printed
        #[arg(long, value_name = "FILE", conflicts_with = "seed")]
        replay: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Bench {
    /// What the programs ask of the verifier, and how long loading takes (half a minute)
    Program,
    /// Planning, changing and scraping a thousand listeners (a minute)
    Plan,
    /// Nanoseconds a packet, in the kernel's test run (two minutes)
    Packet,
    /// Throughput and latency of a whole path between namespaces (two minutes)
    Path,
    /// Probes: what ten thousand endpoints cost, and how soon a verdict counts (two minutes)
    Health,
    /// What the death of an endpoint does to clients, beside HAProxy (three minutes)
    Failover,
    /// What a request costs the proxy, beside nginx and HAProxy (three minutes)
    Proxy,
    /// How long requests take at 70 % of what the least of the three proxies can do (a minute)
    Tail,
    /// What connections and bytes cost that the proxy passes on, beside nginx and HAProxy (a minute)
    Relay,
}

/// A failure whose reason has been printed already.
#[derive(Debug)]
struct Silent;

impl std::fmt::Display for Silent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("failed, see above")
    }
}

impl std::error::Error for Silent {}

fn main() -> ExitCode {
    match run(Cli::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is::<Silent>() {
                eprintln!("error: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<()> {
    match chore {
        Chore::Setup { scope } => setup::run(scope),
        Chore::Test { ring, filter } => match test::run(ring, filter.as_deref())?.failed {
            true => Err(Silent.into()),
            false => Ok(()),
        },
        Chore::Features { check: true, .. } => features::run(features::Action::Check),
        Chore::Features { write: true, .. } => features::run(features::Action::Write),
        Chore::Features { .. } => features::run(features::Action::Print),
        Chore::Tidy { bless } => tidy::run(bless),
        Chore::Ci => ci::run(),
        Chore::Demo { keep, down, svg } => {
            let mut args = flags(&[], &[("--keep", keep), ("--down", down)]);
            if let Some(file) = svg {
                // The program runs at the root of the workspace, which need not be here.
                let file = std::path::absolute(file)?.into_os_string();
                args.extend(["--svg".into(), file]);
            }
            programs::run("demo", &args)
        }
        Chore::Fuzz { packets, seed, simulator, replay } => {
            let mut args = flags(&[], &[("--simulator", simulator)]);
            match replay {
                Some(file) => args.extend(["--replay".into(), std::path::absolute(file)?.into_os_string()]),
                None => args.extend(["--packets".into(), packets.to_string().into()]),
            }
            if let Some(seed) = seed {
                args.extend(["--seed".into(), seed.to_string().into()]);
            }
            programs::run("fuzz", &args)
        }
        Chore::Bench { what, json } => {
            let what = what.map(|what| match what {
                Bench::Program => "program",
                Bench::Plan => "plan",
                Bench::Packet => "packet",
                Bench::Path => "path",
                Bench::Health => "health",
                Bench::Failover => "failover",
                Bench::Proxy => "proxy",
                Bench::Tail => "tail",
                Bench::Relay => "relay",
            });
            programs::run("bench", &flags(what.as_slice(), &[("--json", json)]))
        }
    }
}

fn flags(words: &[&str], flags: &[(&str, bool)]) -> Vec<OsString> {
    let set = flags.iter().filter(|(_, set)| *set).map(|(flag, _)| *flag);
    words.iter().copied().chain(set).map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn every_chore_has_help_with_an_example() {
        let cli = Cli::command();
        cli.clone().debug_assert();
        for chore in cli.get_subcommands() {
            let help = chore.clone().render_long_help().to_string();
            assert!(help.contains("Example") && help.contains(&format!("cargo xtask {}", chore.get_name())), "{help}");
        }
    }

    #[test]
    fn flags_are_handed_on_only_when_set() {
        assert_eq!(flags(&["packet"], &[("--json", true)]), ["packet", "--json"]);
        assert_eq!(flags(&[], &[("--keep", false)]), Vec::<OsString>::new());
    }
}
