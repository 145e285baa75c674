//! What an operator of a large configuration waits for: a start, a change, a scrape. Measured at a real agent, with packets.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    large::{ELSEWHERE, FIRST_PORT, Large},
    memory,
    report::{Figure, Goal},
};
use crate::{
    lab::{Agent, Lab, VIP4, server4},
    traffic::{Hello, Server},
};

const ROUNDS: usize = 7;
/// Nothing that is waited for may take longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Flows come from the ports after this one.
const FIRST_SOURCE: u16 = 2_000;
/// Pause between two flows.
const BETWEEN: Duration = Duration::from_micros(100);
/// A question without an answer is asked anew after this.
const LOST: Duration = Duration::from_millis(20);

/// Measures with `listeners` listeners, and scrapes with `scraped` of them.
pub(super) fn measure(listeners: usize, scraped: usize) -> Result<Vec<Figure>> {
    let lab = Lab::new(2)?;
    lab.edge.run(&["ip", "route", "add", ELSEWHERE, "via", &server4(1).to_string()])?;
    let _servers = Server::start_all(&lab.servers, &[FIRST_PORT])?;
    let configure = |large: Large| lab.configure(&large.text(&lab.interfaces()));
    configure(Large { listeners, weight: 0 })?;
    let started = Instant::now();
    let agent = Agent::start_within(&lab, PATIENCE)?;
    let mut start = Figure::new(format!("start of the agent, {listeners} listeners"), "ms", &[ms(started.elapsed())]);
    let (mut swaps, mut answers, mut trips, mut port) = (Vec::new(), Vec::new(), Vec::new(), FIRST_SOURCE);
    for round in 0..=ROUNDS {
        configure(Large { listeners, weight: 255 })?;
        let swap = swap(&lab, agent.socket(), port)?;
        port = swap.next_port;
        // The first change finds the agent with cold caches; it counts as a start does, not as a change.
        if round > 0 {
            swaps.push(ms(swap.packets));
            answers.push(ms(swap.answer));
            trips.push(ms(swap.trip));
        }
        configure(Large { listeners, weight: 0 })?;
        reload(agent.socket())?;
    }
    start = start.beside("one change of it, answered", Figure::new("", "", &answers).value.median);
    let one = Figure::new(format!("one weight changed of {listeners} listeners: request to packets"), "ms", &swaps);
    let goal = Goal::at_most("request to packets, ms", one.value.median, 50.0);
    let one = one.wants(goal).beside("a packet's round trip", Figure::new("", "", &trips).value.median);
    let answered = Figure::new(format!("one weight changed of {listeners} listeners: request to answer"), "ms", &answers);
    let mut figures = vec![start, one, answered];
    figures.push(scrapes(&lab, None)?);
    figures.push(memory::figure(&lab.pin_dir.join("maps"))?);
    configure(Large { listeners: scraped, weight: 0 })?;
    reload(agent.socket())?;
    figures.push(scrapes(&lab, Some(50.0))?);
    Ok(figures)
}

/// Milliseconds.
pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// One change, from the request on.
struct Swap {
    /// Until the first packet went the new way.
    packets: Duration,
    /// Until the agent answered.
    answer: Duration,
    /// What one of those packets takes, there and back.
    trip: Duration,
    /// Where the next flows may come from: a known flow keeps its server.
    next_port: u16,
}

/// Asks for a reload while new flows ask who serves them, one after the other.
fn swap(lab: &Lab, socket: &Path, first_port: u16) -> Result<Swap> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let asking = lab.clients[0].thread(move || first_of_second_server(&stopped, first_port))?;
    // The flows before the change are part of what is measured: they go the old way.
    thread::sleep(Duration::from_millis(100));
    let asked = Instant::now();
    let answered = reload(socket);
    let answer = asked.elapsed();
    if answered.is_err() {
        stop.store(true, Ordering::Relaxed);
    }
    let found = asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    answered?;
    let (seen, trip, next_port) = found?;
    let packets = seen.checked_duration_since(asked).context("a flow was served by the second server before the change")?;
    Ok(Swap { packets, answer, trip, next_port })
}

/// When a flow was first served by the second server, the mean of a round trip, and the next unused port.
pub(super) fn first_of_second_server(stop: &AtomicBool, first_port: u16) -> Result<(Instant, Duration, u16)> {
    let to = SocketAddr::new(VIP4.into(), FIRST_PORT);
    let begin = Instant::now();
    let (mut flows, mut trips) = (0, Duration::ZERO);
    for port in first_port..u16::MAX {
        if begin.elapsed() >= PATIENCE || stop.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(BETWEEN);
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(LOST))?;
        let mut answer = [0; 256];
        let asked = Instant::now();
        socket.send(b"who").context("asking")?;
        let Ok(bytes) = socket.recv(&mut answer) else { continue };
        (flows, trips) = (flows + 1, trips + asked.elapsed());
        if Hello::parse(&answer[..bytes])?.server == 2 {
            return Ok((Instant::now(), trips / flows, port + 1));
        }
    }
    anyhow::bail!("no flow of {flows} was served by the second server")
}

/// Asks the agent to read its configuration again, and waits until it has.
fn reload(socket: &Path) -> Result<()> {
    let mut stream = UnixStream::connect(socket).context("the admin socket")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"POST /v1/reload HTTP/1.1\r\nhost: ga\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("the answer to a reload")?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "the reload was refused: {answer}");
    Ok(())
}

/// Scrapes the agent, and asks the same listener for something that is not there: what HTTP alone costs.
fn scrapes(lab: &Lab, wanted_ms: Option<f64>) -> Result<Figure> {
    let (times, floors, series) = lab.edge.within(|| {
        let (mut times, mut floors, mut series) = (Vec::new(), Vec::new(), 0);
        for _ in 0..=ROUNDS {
            floors.push(get("/nothing")?.0);
            let (took, text) = get("/metrics")?;
            ensure!(text.contains("\nga_agent_up 1\n"), "the agent did not answer the scrape");
            series = text.lines().filter(|line| line.starts_with("ga_")).count();
            times.push(took);
        }
        Ok((times, floors, series))
    })??;
    let figure = Figure::new(format!("metrics scrape, {series} series"), "ms", &times);
    let figure = figure.beside("a request for nothing", Figure::new("", "", &floors).value.median);
    Ok(match wanted_ms {
        Some(limit) => {
            ensure!(series >= 10_000, "only {series} series were scraped");
            let goal = Goal::at_most("scrape, ms", figure.value.median, limit);
            figure.wants(goal)
        }
        None => figure,
    })
}

fn get(path: &str) -> Result<(f64, String)> {
    let begin = Instant::now();
    let mut stream = TcpStream::connect("127.0.0.1:9464").context("the metrics listener")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: ga\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("the answer to a scrape")?;
    Ok((ms(begin.elapsed()), answer))
}
