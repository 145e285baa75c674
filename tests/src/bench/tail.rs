//! How long requests take at 70 % of the least proxy's capacity: the same constant rate for all, and times from when each was due.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{
    peers::{PRODUCTS, Three, stage},
    rate::Rate,
    report::{Figure, Goal, Report},
    stats::Spread,
};
use crate::lab::Lab;

const ROUNDS: usize = 9;
const LASTS: Duration = Duration::from_secs(2);
const CONNECTIONS: usize = 64;
const SHARE: f64 = 0.7;

/// Measures.
pub fn run() -> Result<Report> {
    let (lab, _endpoint) = stage()?;
    let _three = Three::start(&lab)?;
    let mut report = Report::new("tail");
    let mut capacities = [const { Vec::new() }; 3];
    for _ in 0..3 {
        for (at, capacities) in capacities.iter_mut().enumerate() {
            capacities.push(capacity(&lab, at)?);
        }
    }
    let [ga, nginx, haproxy] = capacities.each_ref().map(|values| Spread::of(values).median);
    report.figures.push(Figure::new("capacity", "1/s", &capacities[0]).beside("nginx", nginx).beside("HAProxy", haproxy));
    let per_second = (SHARE * ga.min(nginx).min(haproxy)).round();
    report.about.insert("requests_per_second", json!(per_second));
    report.about.insert("connections", json!(CONNECTIONS));
    report.about.insert(
        "figure",
        json!("µs from when a request was due, the least of nine alternating runs: the machine's own stalls are nobody's"),
    );
    let mut times = [const { Vec::new() }; 3];
    for round in 0..ROUNDS {
        eprintln!("{per_second} requests a second, round {}", round + 1);
        for (product, times) in PRODUCTS.into_iter().zip(&mut times) {
            let (host, port, _) = product.at();
            let rate =
                Rate { to: (host.parse::<std::net::IpAddr>()?, port).into(), per_second, lasts: LASTS, connections: CONNECTIONS };
            let of = rate.run(&lab.edge)?;
            ensure!(of.failed == 0, "{product:?}: {} requests failed", of.failed);
            times.push(of);
        }
    }
    for (name, percentile, is_wanted) in [("p50", 50.0, false), ("p99", 99.0, true), ("p99.9", 99.9, false)] {
        let values = times.each_ref().map(|times| times.iter().map(|times| times.percentile(percentile)).collect::<Vec<_>>());
        let [ga, nginx, haproxy] = values.each_ref().map(|values| Spread::of(values).min);
        let figure = Figure::new(format!("{name} at 70 %"), "µs", &values[0]).beside("nginx", nginx).beside("HAProxy", haproxy);
        let goal = Goal::at_most("of the better peer", ga / nginx.min(haproxy), 1.0);
        report.figures.push(if is_wanted { figure.wants(goal) } else { figure });
    }
    Ok(report)
}

/// Requests a second that a proxy answers when clients ask as fast as they can.
fn capacity(lab: &Lab, product: usize) -> Result<f64> {
    let (host, port, _) = PRODUCTS[product].at();
    let url = format!("http://{host}:{port}/small");
    let text = lab.edge.read(&["taskset", "-c", "1", "wrk", "-t1", "-c64", "-d1", "-H", "Host: site.example", &url])?;
    ensure!(!text.contains("Non-2xx"), "answers are not 200: {text}");
    let line = text.lines().find_map(|line| line.strip_prefix("Requests/sec:")).context("no line `Requests/sec`")?;
    Ok(line.trim().parse()?)
}
