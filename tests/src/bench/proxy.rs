//! What a request costs the proxy, beside nginx and HAProxy in the same run.
//!
//! Everything is on the loopback of the edge's namespace. The proxy under test has one thread and CPU 0; clients (wrk, h2load) and the
//! endpoint (nginx) have CPU 1. The figure is the CPU time of the whole process, from `schedstat`, by the requests that were answered:
//! it hardly moves when something else takes time. Runs alternate, and the least of three counts.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    peers::{PRODUCTS, Product, Three, connector, cpu_ns, ga, listens, resident_kib, stage},
    report::{Figure, Goal, Report},
};
use crate::{lab::Lab, traffic::block_in};

const ROUNDS: usize = 3;
const SECONDS: u32 = 2;
/// Connections that wait.
const IDLE: usize = 4_000;

/// What clients do.
#[derive(Clone, Copy, Debug)]
struct Load {
    name: &'static str,
    path: &'static str,
    tls: bool,
    client: Client,
    /// Of nginx, of HAProxy, of the better one: what is wanted at most.
    goals: [Option<f64>; 3],
}

#[derive(Clone, Copy, Debug)]
enum Client {
    /// wrk with 64 connections.
    Kept,
    /// The same, a connection for each request.
    Fresh,
    /// h2load with 4 connections of 32 streams.
    Http2,
}

const LOADS: [Load; 6] = [
    Load { name: "HTTP, 128 bytes", path: "/small", tls: false, client: Client::Kept, goals: [Some(1.0), Some(0.9), None] },
    Load { name: "HTTP, 64 KiB", path: "/large", tls: false, client: Client::Kept, goals: [None, None, Some(0.85)] },
    Load { name: "TLS handshake", path: "/small", tls: true, client: Client::Fresh, goals: [None, None, Some(0.6)] },
    Load { name: "TLS, 128 bytes", path: "/small", tls: true, client: Client::Kept, goals: [None, None, Some(0.95)] },
    Load { name: "TLS, 64 KiB", path: "/large", tls: true, client: Client::Kept, goals: [None, None, Some(0.75)] },
    Load { name: "HTTP/2, 128 bytes", path: "/small", tls: true, client: Client::Http2, goals: [Some(0.9), Some(1.0), None] },
];

/// Measures.
pub fn run() -> Result<Report> {
    let mut report = Report::new("proxy");
    report.about.insert("threads", json!(1));
    report.about.insert("figure", json!("CPU µs of the process per request, the least of three alternating runs"));
    report.about.insert("clients", json!("wrk -t1 -c64; h2load -c4 -m32"));
    let (lab, _endpoint) = stage()?;
    let three = Three::start(&lab)?;
    let pids = three.pids();
    for load in LOADS {
        eprintln!("{}", load.name);
        let mut costs = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            for (at, product) in PRODUCTS.into_iter().enumerate() {
                costs[at].push(cost(&lab, pids[at], product, load)?);
            }
        }
        report.figures.push(figure(load, &costs));
    }
    drop(three);
    for (name, tls, limit) in [("idle connection", false, 1.5), ("idle TLS connection", true, 12.0)] {
        eprintln!("{name}");
        // Fresh processes: memory that was used before would be used again.
        let three = Three::start(&lab)?;
        let pids = three.pids();
        let mut of = [0.0; 3];
        for (at, product) in PRODUCTS.into_iter().enumerate() {
            of[at] = idle(&lab, pids[at], product, tls)?;
        }
        report.figures.push(
            Figure::new(name, "KiB", &[of[0]])
                .beside("nginx", of[1])
                .beside("HAProxy", of[2])
                .wants(Goal::at_most("memory", of[0], limit)),
        );
    }
    report.figures.push(rules(&lab)?);
    report.figures.push(threads(&lab)?);
    Ok(report)
}

fn figure(load: Load, costs: &[Vec<f64>; 3]) -> Figure {
    let least = |of: &[f64]| of.iter().copied().fold(f64::INFINITY, f64::min);
    let [ga, nginx, haproxy] = [least(&costs[0]), least(&costs[1]), least(&costs[2])];
    let mut figure = Figure::new(load.name, "µs", &costs[0]).beside("nginx", nginx).beside("HAProxy", haproxy);
    let peers = [("of nginx", nginx), ("of HAProxy", haproxy), ("of the better peer", nginx.min(haproxy))];
    for ((what, peer), limit) in peers.into_iter().zip(load.goals) {
        if let Some(limit) = limit {
            figure = figure.wants(Goal::at_most(what, ga / peer, limit));
        }
    }
    figure
}

/// 200 rules on the listener beside two: the requests fit none of them.
fn rules(lab: &Lab) -> Result<Figure> {
    let load = LOADS[0];
    let mut costs = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        for (at, count) in [2, 200].into_iter().enumerate() {
            let agent = ga(lab, 1, count, "")?;
            listens(lab, 80)?;
            costs[at].push(cost(lab, agent.pid(), Product::Ga, load)?);
        }
    }
    let least = |of: &[f64]| of.iter().copied().fold(f64::INFINITY, f64::min);
    let (few, many) = (least(&costs[0]), least(&costs[1]));
    Ok(Figure::new("200 rules", "µs", &costs[1]).beside("2 rules", few).wants(Goal::at_most("of two rules", many / few, 1.05)))
}

/// Two threads on CPU 0 beside one: what sharing costs.
fn threads(lab: &Lab) -> Result<Figure> {
    let load = LOADS[0];
    let mut costs = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        for (at, count) in [1, 2].into_iter().enumerate() {
            let agent = ga(lab, count, 0, "")?;
            listens(lab, 80)?;
            costs[at].push(cost(lab, agent.pid(), Product::Ga, load)?);
        }
    }
    let least = |of: &[f64]| of.iter().copied().fold(f64::INFINITY, f64::min);
    let (one, two) = (least(&costs[0]), least(&costs[1]));
    Ok(Figure::new("two threads", "µs", &costs[1]).beside("one thread", one).wants(Goal::at_most(
        "of one thread",
        two / one,
        1.08,
    )))
}

/// CPU µs of `pid` for each request.
fn cost(lab: &Lab, pid: u32, product: Product, load: Load) -> Result<f64> {
    let (host, plain, tls) = product.at();
    let (scheme, port) = if load.tls { ("https", tls) } else { ("http", plain) };
    let url = format!("{scheme}://{host}:{port}{}", load.path);
    let seconds = format!("-d{SECONDS}");
    let count = (u64::from(SECONDS) * 40_000).to_string();
    let wrk = ["taskset", "-c", "1", "wrk", "-t1", "-c64", &seconds, "-H", "Host: site.example"];
    let words = match load.client {
        Client::Kept => [&wrk[..], &[&url]].concat(),
        Client::Fresh => [&wrk[..], &["-H", "Connection: close", &url]].concat(),
        Client::Http2 => {
            vec!["taskset", "-c", "1", "h2load", "-t1", "-c4", "-m32", "-n", &count, "-H", ":authority: site.example", &url]
        }
    };
    let before = cpu_ns(pid)?;
    let text = lab.edge.read(&words)?;
    let used = cpu_ns(pid)? - before;
    let done = answered(&text, load.client).with_context(|| format!("{product:?}, {}: {text}", load.name))?;
    Ok(used as f64 / 1_000.0 / done)
}

/// Requests that were answered well; none may fail.
fn answered(text: &str, client: Client) -> Result<f64> {
    if let Client::Http2 = client {
        let line = text.lines().find(|line| line.starts_with("requests:")).context("no line `requests:`")?;
        let number = |what: &str| -> Result<f64> {
            let part = line.split(',').find(|part| part.contains(what)).context("a number")?;
            part.split_whitespace().find_map(|word| word.parse().ok()).context("a number")
        };
        ensure!(number("failed")? == 0.0 && number("errored")? == 0.0, "requests failed");
        ensure!(text.contains(" 0 4xx, 0 5xx"), "answers are not 200");
        return number("succeeded");
    }
    ensure!(!text.contains("Non-2xx"), "answers are not 200");
    let line = text.lines().find(|line| line.contains(" requests in ")).context("no line `requests in`")?;
    Ok(line.split_whitespace().next().context("a number")?.parse()?)
}

/// KiB of resident memory for each connection that waits after a request.
fn idle(lab: &Lab, pid: u32, product: Product, tls: bool) -> Result<f64> {
    let (host, plain, secured) = product.at();
    let to = (host.parse::<IpAddr>()?, if tls { secured } else { plain }).into();
    let trust = if tls { Some(connector(lab, &[])?) } else { None };
    let before = resident_kib(pid, "VmRSS:")?;
    let after = block_in(&lab.edge, Duration::from_secs(120), move || async move {
        let mut kept: Vec<Box<dyn Wire>> = Vec::new();
        for _ in 0..IDLE {
            let stream = TcpStream::connect::<SocketAddr>(to).await?;
            let mut stream: Box<dyn Wire> = match &trust {
                Some(connector) => Box::new(connector.connect("site.example".try_into()?, stream).await?),
                None => Box::new(stream),
            };
            stream.write_all(b"GET /small HTTP/1.1\r\nHost: site.example\r\n\r\n").await?;
            let mut answer = Vec::new();
            while !answer.ends_with(&[b'x'; 128]) {
                ensure!(stream.read_buf(&mut answer).await? > 0, "{to} closed a connection");
            }
            kept.push(stream);
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        resident_kib(pid, "VmRSS:")
    })?;
    Ok(after.saturating_sub(before) as f64 / IDLE as f64)
}

/// A connection, whatever it is made of.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}
