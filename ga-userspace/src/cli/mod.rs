//! The `ga` command: one file for each verb. Verbs ask and print; they never decide.

mod backend;
mod capture;
pub mod check;
mod client;
pub mod detach;
mod drops;
mod egress;
mod endpoints;
mod exit;
mod file;
mod flows;
mod mappings;
mod output;
mod packets;
mod pcapng;
pub mod plan;
mod reload;
pub mod run;
pub mod schema;
mod status;
mod trace;
mod trace_http;
mod units;
mod vsg;
mod watch;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

pub use client::{Client, ClientError};
pub use exit::{Exit, Failure};
pub use output::{ColorChoice, Format, Output, Style};

use crate::admin::DEFAULT_SOCKET;

const EXAMPLES: &str = "Examples:
  ga check /etc/ga/ga.toml           is the file right?
  ga run --config /etc/ga/ga.toml    the agent
  ga status --watch                  how things are, with rates
  ga endpoints drain 10.0.0.11       no new flows for an endpoint
  ga trace 203.0.113.7:40000 198.51.100.10:443/tcp    what would become of this packet, and why?
  ga trace http --host www.example.com --path /v1     which forwarding rule applies, and why not the others?
  ga flows --top clients             who has most connections";

/// A self-hosted global accelerator: TCP and UDP to the right endpoint, in the kernel
#[derive(Debug, Parser)]
#[command(name = "ga", version, after_long_help = format!("{EXAMPLES}\n\n{}", exit::EXIT_CODES), max_term_width = 110)]
struct Cli {
    /// The agent's admin socket [default: /run/ga/admin.sock] [env: GA_SOCKET]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// What answers look like
    #[arg(long, global = true, value_enum, default_value_t)]
    output: Format,
    /// The same as --output json
    #[arg(long, global = true)]
    json: bool,
    /// When to use colours; NO_COLOR is honoured
    #[arg(long, global = true, value_enum, default_value_t)]
    color: ColorChoice,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the agent
    #[command(after_long_help = run::EXAMPLES)]
    Run(run::RunArgs),
    /// Take the data path down; a stopped agent leaves it running
    #[command(after_long_help = detach::EXAMPLES)]
    Detach(detach::DetachArgs),
    /// Check a configuration
    #[command(after_long_help = check::EXAMPLES)]
    Check(check::CheckArgs),
    /// Show what a configuration would change
    #[command(after_long_help = plan::EXAMPLES)]
    Plan(plan::PlanArgs),
    /// Show what endpoints that see the client's address must be configured with
    #[command(after_long_help = backend::EXAMPLES)]
    Backend(backend::BackendArgs),
    /// Show the addresses that endpoints see
    #[command(after_long_help = egress::EXAMPLES)]
    Egress(egress::EgressArgs),
    /// About the configuration's format
    #[command(subcommand, after_long_help = schema::EXAMPLES)]
    Config(ConfigVerb),
    /// Make the agent read its configuration again, and wait until it is live
    #[command(after_long_help = reload::EXAMPLES)]
    Reload,
    /// Show how things are
    #[command(after_long_help = status::EXAMPLES)]
    Status(status::StatusArgs),
    /// Show which packets were dropped or passed to the host, and why
    #[command(after_long_help = drops::EXAMPLES)]
    Drops(drops::DropsArgs),
    /// List flows, count them, or show who has most
    #[command(after_long_help = flows::EXAMPLES)]
    Flows(flows::FlowsArgs),
    /// Explain what would become of a packet, or of a request
    #[command(after_long_help = trace::EXAMPLES)]
    Trace(trace::TraceArgs),
    /// Show what becomes of packets, as they come
    #[command(after_long_help = packets::EXAMPLES)]
    Watch(packets::WatchArgs),
    /// Write packets before and after translation into a file
    #[command(after_long_help = capture::EXAMPLES)]
    Capture(capture::CaptureArgs),
    /// Show which port of a custom routing listener leads to which host
    #[command(after_long_help = mappings::EXAMPLES)]
    Mappings(mappings::MappingsArgs),
    /// List endpoints; drain them, or change their weight
    #[command(after_long_help = endpoints::EXAMPLES)]
    Endpoints(endpoints::EndpointsArgs),
    /// List server groups; change their servers in the file
    #[command(after_long_help = vsg::EXAMPLES)]
    Vsg(vsg::VsgArgs),
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Print the JSON Schema of the configuration
    #[command(after_long_help = schema::EXAMPLES)]
    Schema(schema::SchemaArgs),
}

/// What every verb gets besides its own arguments.
#[derive(Clone, Debug)]
pub struct Context {
    /// The agent's admin socket.
    pub socket: PathBuf,
    /// Where answers go.
    pub output: Output,
}

impl Context {
    /// A client of the agent.
    pub fn client(&self) -> Client {
        Client::new(&self.socket)
    }
}

/// The whole command: parses the command line, runs the verb, says what went wrong.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let from_environment = || std::env::var_os("GA_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from);
    let socket = cli.socket.or_else(from_environment).unwrap_or_else(|| DEFAULT_SOCKET.into());
    let format = if cli.json { Format::Json } else { cli.output };
    let context = Context { socket, output: Output::new(format, cli.color) };
    dispatch(&cli.verb, &context).unwrap_or_else(|error| complain(&error, &context.output)).into()
}

fn dispatch(verb: &Verb, context: &Context) -> anyhow::Result<Exit> {
    match verb {
        Verb::Run(args) => run::run(args, context),
        Verb::Detach(args) => detach::run(args, context),
        Verb::Check(args) => check::run(args, context),
        Verb::Plan(args) => block_on(plan::run(args, context)),
        Verb::Backend(args) => backend::run(args, context),
        Verb::Egress(args) => egress::run(args, context),
        Verb::Config(ConfigVerb::Schema(args)) => schema::run(args, context),
        Verb::Reload => block_on(reload::run(context)),
        Verb::Status(args) => block_on(status::run(args, context)),
        Verb::Drops(args) => block_on(drops::run(args, context)),
        Verb::Flows(args) => block_on(flows::run(args, context)),
        Verb::Trace(args) => block_on(trace::run(args, context)),
        Verb::Watch(args) => block_on(packets::run(args, context)),
        Verb::Capture(args) => block_on(capture::run(args, context)),
        Verb::Mappings(args) => block_on(mappings::run(args, context)),
        Verb::Endpoints(args) => block_on(endpoints::run(args, context)),
        Verb::Vsg(args) => block_on(vsg::run(args, context)),
    }
}

fn block_on(verb: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(verb)
}

/// Says what went wrong: people read it on standard error, programs that asked for JSON get the refusal itself.
fn complain(error: &anyhow::Error, output: &Output) -> Exit {
    let exit = Exit::of(error);
    let refusal = error.chain().find_map(|cause| match cause.downcast_ref::<ClientError>() {
        Some(ClientError::Refused(refusal)) => Some(refusal),
        Some(_) | None => None,
    });
    match (refusal, output.format) {
        _ if exit == Exit::Ok => {}
        (Some(refusal), Format::Json) => {
            if let Err(error) = output.view(refusal, |_| String::new()) {
                eprintln!("ga: {error}");
            }
        }
        (Some(refusal), Format::Table) => {
            eprintln!("ga: {refusal}");
            refusal.problem_lines().for_each(|line| eprintln!("  {line}"));
        }
        (None, Format::Table | Format::Json) => eprintln!("ga: {error:#}"),
    }
    exit
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Cli, ErrorKind> {
        Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.kind())
    }

    #[test]
    fn the_command_tree_is_sound_and_every_verb_has_examples() {
        fn walk(command: &clap::Command) {
            let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:\n  ga "), "{} has no examples", command.get_name());
            command.get_subcommands().for_each(walk);
        }
        Cli::command().debug_assert();
        walk(&Cli::command());
    }

    #[test]
    fn help_documents_the_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains(exit::EXIT_CODES), "{help}");
    }

    #[test]
    fn command_lines_are_understood() {
        for line in [
            "ga run --config ga.toml --admin-socket a --pin-dir p --state-dir s",
            "ga --socket /tmp/x status --watch",
            "ga status --watch=0.5 --output json --socket /tmp/x --color never",
            "ga drops --watch=2",
            "ga drops --interval 0.5 --listener lab/web",
            "ga flows --listener web --client 192.0.2.0/24 --proto tcp --state open --limit 7 --json",
            "ga flows --endpoint 2001:db8::11 --count",
            "ga flows --top clients -n 3",
            "ga watch --host 192.0.2.0/24 --port 80 --proto tcp --verdict drop --reason no_flow --count 7 --seconds 3 --sample 5",
            "ga watch --src 192.0.2.7 --sport 4000 --dst ::/0 --dport 53 --rate 5",
            "ga capture -w x.pcapng -c 5 --seconds 2 --snaplen 128 --proto icmp6",
            "ga trace 192.0.2.7:4000 198.51.100.10:80/tcp --flags syn,ack --ttl 3 --payload 100 --interface eth0",
            "ga trace [2001:db8::7]:4000 [2001:db8::1]:53/udp",
            "ga trace --pcap x.pcap --nth 3 --json",
            "ga trace http --host a.example --path /x --method POST --header a:b --header c:d --client ::1 --listener shop/web",
            "ga trace http --config x.toml --host a.example --json",
            "ga endpoints list",
            "ga endpoints drain ga-demo/game/10.0.0.11",
            "ga endpoints weight 2001:db8::11 50",
            "ga check ga.toml",
            "ga plan new.toml --against old.toml",
            "ga config schema",
            "ga egress --config ga.toml",
            "ga vsg list --config ga.toml",
            "ga vsg --config ga.toml show pool-a --json",
            "ga vsg set pool-a --row 2 --column weight --replicate below",
            "ga vsg set pool-a --row 2 --column port --value 80 --replicate all --dry-run",
            "ga vsg set pool-a --column weight --reset --values 1,2,3",
            "ga vsg delete pool-a",
            "ga reload",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
        for line in [
            "ga run",
            "ga status --watch 5",
            "ga flows --client web",
            "ga watch --seconds 0",
            "ga trace",
            "ga trace 192.0.2.7:4000",
            "ga trace http",
            "ga trace http --host a.example --header a",
            "ga trace 192.0.2.7:4000 198.51.100.10:80",
            "ga trace --pcap x.pcap 192.0.2.7:4000 198.51.100.10:80/tcp",
            "ga watch --verdict lost",
            "ga capture -c 5",
            "ga flows --proto icmp",
            "ga flows -n 3",
            "ga flows --top clients --count",
            "ga endpoints weight 10.0.0.11 256",
            "ga endpoints weight 10.0.0.11",
            "ga endpoints drain a/10.0.0.11",
            "ga status --output yaml",
            "ga vsg set pool-a --row 2 --column weight",
            "ga vsg set pool-a --column weight --replicate below",
            "ga vsg set pool-a --row 2 --column name --value x",
            "ga vsg set pool-a --row 2 --column weight --value 1 --values 1,2",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
