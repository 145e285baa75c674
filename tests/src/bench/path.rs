//! What a path carries: client, edge and two servers in namespaces, the product beside others that do the same job.
//!
//! Every candidate has a lab of its own, all of them stand side by side, and rounds go from one to the next. Offloads are off
//! everywhere (a native XDP program switches them off for its peer anyway), so that everybody carries the same packets.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use ga_common::bench::{Load, order, target};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Value, json};

use super::{
    candidate::{Candidate, Kind, PORT_BULK, PORT_UDP, PORT_WEB},
    frames,
    report::{Figure, Goal, Report},
    stats::{Spread, paired},
};
use crate::lab::VIP4;

const ROUNDS: usize = 5;
const UDP_FLOWS: u32 = 256;
/// Frames of the run that finds out how many frames a longer one takes.
const FIRST_FRAMES: u32 = 200_000;
/// What that longer run should take.
const UDP_SECONDS: f64 = 0.5;

/// Everything that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Metric {
    UdpPacketsPerSecond,
    ConnectionsPerSecond,
    LatencyP50Us,
    LatencyP99Us,
    TcpMbitPerSecond,
}

const METRICS: [Metric; 5] = [
    Metric::UdpPacketsPerSecond,
    Metric::ConnectionsPerSecond,
    Metric::LatencyP50Us,
    Metric::LatencyP99Us,
    Metric::TcpMbitPerSecond,
];

impl Metric {
    /// Name and unit.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::UdpPacketsPerSecond => ("UDP of 64 bytes", "pps"),
            Self::ConnectionsPerSecond => ("TCP connections", "cps"),
            Self::LatencyP50Us => ("request latency p50", "us"),
            Self::LatencyP99Us => ("request latency p99", "us"),
            Self::TcpMbitPerSecond => ("TCP stream", "Mbit/s"),
        }
    }
}

/// Values of one candidate, by metric and round.
#[derive(Default)]
struct Rounds(Vec<(Metric, Vec<f64>)>);

impl Rounds {
    fn push(&mut self, metric: Metric, value: f64) {
        match self.0.iter_mut().find(|(known, _)| *known == metric) {
            Some((_, values)) => values.push(value),
            None => self.0.push((metric, vec![value])),
        }
    }

    fn of(&self, metric: Metric) -> &[f64] {
        self.0.iter().find(|(known, _)| *known == metric).map_or(&[], |(_, values)| values)
    }
}

/// Measures.
pub fn run() -> Result<Report> {
    let kinds = [Kind::Ga, Kind::Nftables, Kind::Haproxy, Kind::Redirect];
    let mut candidates = kinds
        .into_iter()
        .map(|kind| Ok((Candidate::new(kind).with_context(|| format!("setting up {}", kind.name()))?, Rounds::default())))
        .collect::<Result<Vec<_>>>()?;
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        for (candidate, rounds) in &mut candidates {
            measure(candidate, rounds).with_context(|| format!("measuring {}", candidate.kind.name()))?;
        }
    }
    let mut report = Report::new("path");
    report.about.insert("rounds", json!(ROUNDS));
    report.figures = METRICS.into_iter().flat_map(|metric| figures(metric, &candidates)).collect();
    Ok(report)
}

fn measure(candidate: &mut Candidate, rounds: &mut Rounds) -> Result<()> {
    if candidate.kind.forwards_udp() {
        rounds.push(Metric::UdpPacketsPerSecond, udp(candidate)?);
    }
    if candidate.kind.forwards_tcp() {
        rounds.push(Metric::ConnectionsPerSecond, wrk(candidate, &["-c64", "-d2s", "-H", "Connection: close"])?.0);
        let (_, p50, p99) = wrk(candidate, &["-c1", "-d1s"])?;
        rounds.push(Metric::LatencyP50Us, p50);
        rounds.push(Metric::LatencyP99Us, p99);
        rounds.push(Metric::TcpMbitPerSecond, bulk(candidate)?);
    }
    Ok(())
}

/// 64-byte UDP packets per second that arrive at the servers: the kernel makes them at the client's interface.
fn udp(candidate: &mut Candidate) -> Result<f64> {
    let (seconds, _) = udp_run(candidate, FIRST_FRAMES)?;
    let frames = (f64::from(FIRST_FRAMES) * UDP_SECONDS / seconds).clamp(100_000.0, 8_000_000.0) as u32;
    let (seconds, arrived) = udp_run(candidate, frames)?;
    ensure!(
        arrived * 10 > u64::from(frames) * 9,
        "only {arrived} of {frames} frames arrived: this would measure how fast they are lost"
    );
    Ok(arrived as f64 / seconds)
}

fn udp_run(candidate: &mut Candidate, packets: u32) -> Result<(f64, u64)> {
    let before = candidate.arrived()?;
    let (mac, ifindex, source) = (candidate.gateway_mac, candidate.client_ifindex, candidate.client);
    let load = frames::udp(mac, source.octets(), VIP4.octets(), PORT_UDP)?;
    let mut load = Load { order: order::NUMBERS, flows: UDP_FLOWS, target: target::OUT, ..load };
    let mut kernel = candidate.generator.take().context("the generator is away")?;
    let (kernel, result) = candidate.lab.clients[0].within(move || {
        let mut set = CpuSet::new();
        set.set(0);
        let pinned = sched_setaffinity(None, &set).context("cannot stay on one CPU");
        let start = Instant::now();
        let result = pinned.and_then(|()| kernel.live(&mut load, packets, ifindex));
        let seconds = start.elapsed().as_secs_f64();
        (kernel, result.map(|()| seconds))
    })?;
    candidate.generator = Some(kernel);
    let seconds = result?;
    std::thread::sleep(std::time::Duration::from_millis(20));
    Ok((seconds, candidate.arrived()? - before))
}

/// Requests per second, and the median and 99th percentile of their latency in microseconds.
fn wrk(candidate: &Candidate, options: &[&str]) -> Result<(f64, f64, f64)> {
    let url = format!("http://{VIP4}:{PORT_WEB}/");
    let mut words = vec!["wrk", "-t1", "--latency"];
    words.extend(options);
    words.push(&url);
    let text = candidate.lab.clients[0].read(&words)?;
    let after = |label: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(label));
        line.map(str::trim).with_context(|| format!("wrk does not say {label}:\n{text}"))
    };
    ensure!(!text.contains("Non-2xx"), "wrk got other answers than it should:\n{text}");
    Ok((after("Requests/sec:")?.parse()?, microseconds(after("50%")?)?, microseconds(after("99%")?)?))
}

/// `1.23ms` and its like.
fn microseconds(text: &str) -> Result<f64> {
    let (number, factor) = match text {
        _ if text.ends_with("us") => (text.trim_end_matches("us"), 1.0),
        _ if text.ends_with("ms") => (text.trim_end_matches("ms"), 1e3),
        _ => (text.trim_end_matches('s'), 1e6),
    };
    Ok(number.parse::<f64>().with_context(|| format!("{text:?} is no time"))? * factor)
}

/// One TCP connection's throughput in Mbit/s.
fn bulk(candidate: &Candidate) -> Result<f64> {
    let (vip, port) = (VIP4.to_string(), PORT_BULK.to_string());
    let text = candidate.lab.clients[0].read(&["iperf3", "-c", &vip, "-p", &port, "-t", "2", "-J"])?;
    let report: Value = serde_json::from_str(&text).context("iperf3 printed no JSON")?;
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64().context("iperf3 received nothing")?;
    Ok(bits / 1e6)
}

/// The figures of all candidates; the product's with what is wanted of it.
fn figures(metric: Metric, candidates: &[(Candidate, Rounds)]) -> Vec<Figure> {
    let values = |kind: Kind| {
        candidates.iter().find(|(candidate, _)| candidate.kind == kind).map_or(&[][..], |(_, rounds)| rounds.of(metric))
    };
    let over = |base: Kind| paired(values(Kind::Ga), values(base));
    let goals = match metric {
        Metric::UdpPacketsPerSecond => vec![
            Goal::at_least("ratio to nftables", over(Kind::Nftables), 5.0),
            Goal::at_least("ratio to the bare redirect", over(Kind::Redirect), 0.75),
        ],
        Metric::ConnectionsPerSecond => vec![
            Goal::at_least("ratio to nftables", over(Kind::Nftables), 1.0),
            Goal::at_least("ratio to haproxy", over(Kind::Haproxy), 1.0),
        ],
        Metric::LatencyP50Us => vec![Goal::at_most("ratio to nftables", over(Kind::Nftables), 1.0)],
        Metric::LatencyP99Us | Metric::TcpMbitPerSecond => Vec::new(),
    };
    let (what, unit) = metric.words();
    let measured = candidates.iter().filter(|(_, rounds)| !rounds.of(metric).is_empty());
    let mut figures: Vec<_> = measured
        .map(|(candidate, rounds)| {
            let figure = Figure::new(format!("{what}, {}", candidate.kind.name()), unit, rounds.of(metric));
            let base = values(Kind::Nftables);
            let is_compared = !base.is_empty() && candidate.kind != Kind::Nftables;
            if is_compared { figure.beside("ratio to nftables", paired(rounds.of(metric), base)) } else { figure }
        })
        .collect();
    if let Some(first) = figures.first_mut() {
        first.goals = goals;
        for kind in [Kind::Nftables, Kind::Haproxy, Kind::Redirect].into_iter().filter(|kind| !values(*kind).is_empty()) {
            first.beside.insert(kind.name(), Spread::of(values(kind)).short().median);
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::microseconds;

    #[test]
    fn times_of_wrk_are_read() {
        assert_eq!(microseconds("93.00us").unwrap(), 93.0);
        assert_eq!(microseconds("1.50ms").unwrap(), 1500.0);
        assert_eq!(microseconds("2.00s").unwrap(), 2e6);
    }
}
