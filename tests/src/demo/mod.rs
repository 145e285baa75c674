//! The demo: clients, an edge and servers in network namespaces, real traffic, and what became of it.

mod acts;
mod https;
mod picture;
mod screen;
mod servers;
mod site;
mod stop;
mod svg;
mod tally;
mod traffic;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use self::{
    picture::PICTURE,
    screen::{Ink, Screen, thousands},
    site::Site,
    stop::Stop,
};
use crate::lab::ga_binary;

/// The product at work: clients, an edge and servers in network namespaces
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo xtask demo")]
struct Args {
    /// Leave everything up and say how to play with it
    #[arg(long)]
    keep: bool,
    /// Take down what --keep left up
    #[arg(long, conflicts_with_all = ["keep", "svg"])]
    down: bool,
    /// Write the picture as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Be the UDP echo of a server
    #[arg(long, hide = true, value_name = "NAME")]
    serve_udp: Option<String>,
}

/// Ended by a signal, as a shell counts.
const INTERRUPTED: u8 = 130;

/// The whole program.
pub fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(name) = &args.serve_udp {
        return report(servers::serve_udp(name).context("the UDP echo"));
    }
    if args.down {
        return report(down());
    }
    let stop = Stop::default();
    match watched(args, &stop) {
        Ok(code) => code,
        Err(error) => report(Err(error)),
    }
}

fn report(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn down() -> Result<()> {
    let there = site::exists();
    site::remove()?;
    println!("{}", if there { "the demo is down: namespaces, processes, pins and files are gone" } else { "there is no demo" });
    Ok(())
}

/// Runs the show in a thread while this one waits for signals; whatever happens, nothing is left, unless it is to be kept.
fn watched(args: Args, stop: &Stop) -> Result<ExitCode> {
    ensure!(rustix::process::geteuid().is_root(), "network namespaces need root: `cargo xtask demo` asks sudo for it");
    ensure!(!site::exists(), "a demo is up, or one left something behind: `cargo xtask demo --down` removes it");
    let keep = args.keep;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("cannot wait for signals")?;
    let shown = runtime.block_on(async {
        let [mut interrupt, mut terminate, mut hangup] =
            [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
        let (done, mut ended) = tokio::sync::oneshot::channel();
        let worker = {
            let stop = stop.clone();
            thread::spawn(move || {
                let shown = show(&args, &stop);
                // Nobody waits any more only when this process ends.
                done.send(()).unwrap_or_default();
                shown
            })
        };
        tokio::select! {
            _ = &mut ended => {}
            _ = interrupt.recv() => stop.set(),
            _ = terminate.recv() => stop.set(),
            _ = hangup.recv() => stop.set(),
        }
        if stop.is_set() {
            eprintln!("\ninterrupted: taking everything down");
        }
        worker.join().unwrap_or_else(|_panic| bail!("the show panicked"))
    });
    if !keep || shown.is_err() || stop.is_set() {
        site::remove()?;
    }
    if stop.is_set() {
        return Ok(INTERRUPTED.into());
    }
    let failures = shown?;
    if failures.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("error: not everything was as it should be:");
    failures.iter().for_each(|failure| eprintln!("  {failure}"));
    Ok(ExitCode::FAILURE)
}

/// The show; returns what was not as it should be.
fn show(args: &Args, stop: &Stop) -> Result<Vec<String>> {
    let mut screen = Screen::new(stop.clone());
    screen.line(&screen.paint(Ink::Bold, "ga: a global accelerator of your own, in network namespaces of this machine"));
    screen.line("");
    PICTURE.lines().for_each(|line| screen.line(line));

    screen.heading("Build the network, start servers and agent");
    let (lab, servers) = Site::network(stop)?;
    screen.check(true, "6 namespaces, 5 cables; nginx, a UDP echo and iperf3 on each server");
    let mut site = Site::start(lab, servers)?;
    let status = site.agent.status()?;
    let native = status.interfaces.iter().filter(|interface| interface.mode == ga::status::AttachMode::Native).count();
    screen.check(
        status.interfaces.iter().all(|interface| interface.attached),
        &format!("`ga run --config config/demo.toml`: XDP on {} interfaces, {native} native", status.interfaces.len()),
    );

    let spreads = acts::spread(&site, &mut screen, stop)?;
    let addresses = acts::affinity(&site, &mut screen, stop)?;
    let rates = acts::throughput(&site, &mut screen, stop)?;
    acts::drain(&site, &mut screen, stop)?;
    let https = https::show(&mut site, &mut screen, stop)?;
    let killed = acts::kill(&mut site, &mut screen, stop)?;
    counters(&site, &screen)?;
    screen.check(site.servers_run()?, "every server still runs");

    if let Some(path) = &args.svg {
        svg::write(path, &svg::Findings { spreads: &spreads, addresses, rates, https: &https, killed })?;
        screen.note(&format!("the picture is in {}", path.display()));
    }
    let (seconds, failures) = (screen.seconds(), screen.failures.len());
    screen.heading("Sum");
    let flows: u64 = spreads.iter().map(tally::Spread::flows).sum();
    let text = match failures {
        0 => format!(
            "all as it should be: {} flows and {} requests, none lost, in {seconds:.0} s",
            thousands(flows),
            thousands(https.urls.iter().map(|(_, _, answers)| answers.answered()).sum::<u64>() + https.answered)
        ),
        _ => format!("{failures} findings are not as they should be"),
    };
    let ink = if failures == 0 { Ink::Green } else { Ink::Red };
    screen.line(&format!("  {}", screen.paint(ink, &text)));
    stop.check()?;
    if args.keep {
        play(&site, &screen)?;
        site.keep();
    } else {
        screen.note("`cargo xtask demo --keep` leaves everything up to play with");
    }
    Ok(screen.failures)
}

/// What `ga status` and `ga drops` say, on the same terminal.
fn counters(site: &Site, screen: &Screen) -> Result<()> {
    screen.heading("The counters");
    for verb in ["status", "drops"] {
        screen.command(&format!("ga {verb}"));
        let status = Command::new(ga_binary()?).arg("--socket").arg(site.agent.socket()).arg(verb).status()?;
        ensure!(status.success(), "ga {verb}: {status}");
        screen.line("");
    }
    Ok(())
}

/// Commands to play with.
fn play(site: &Site, screen: &Screen) -> Result<()> {
    let ga = relative(&ga_binary()?);
    let client = format!("nsenter --net=/run/netns/{}", site.lab.clients[0].name);
    let config = site.lab.dir.join("ga.toml");
    screen.heading("Everything is up. To play with it, as root");
    for (what, commands) in [
        (
            "from a client, through the edge",
            vec![
                format!("{client} curl http://198.51.100.10/"),
                format!("{client} curl 'http://[2001:db8:100::10]:8001/'"),
                format!(
                    "{client} curl --cacert {} --resolve api.demo.example:443:198.51.100.10 https://api.demo.example/",
                    site.lab.dir.join("cert.pem").display()
                ),
                format!("{client} sh -c 'echo hello | socat -t1 - udp:198.51.100.10:5300'"),
                format!("{client} iperf3 -c 198.51.100.10 -t 5"),
            ],
        ),
        (
            "the agent",
            vec![
                format!("export GA_SOCKET={}", site.agent.socket().display()),
                format!("{ga} status --watch"),
                format!("{ga} trace http --tls --host www.demo.example --path /api/cart"),
                format!("{ga} drops"),
                format!("{ga} endpoints drain ga-demo/web/10.0.1.11"),
                format!("{ga} endpoints undrain ga-demo/web/10.0.1.11"),
                format!("$EDITOR {} && {ga} reload", config.display()),
                format!("kill -9 {}    # the data path goes on", site.agent.pid()),
            ],
        ),
        (
            "look inside",
            vec![
                "ip netns list".to_owned(),
                format!("nsenter --net=/run/netns/{}", site.lab.edge.name),
                "bpftool net".to_owned(),
            ],
        ),
        ("take it down", vec!["cargo xtask demo --down".to_owned()]),
    ] {
        screen.line(&format!("  {}", screen.paint(Ink::Bold, what)));
        commands.iter().for_each(|command| screen.line(&format!("    {command}")));
    }
    Ok(())
}

fn relative(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}
