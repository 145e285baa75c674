//! What probing ten thousand endpoints costs, and how long new flows go to the wrong endpoint after a verdict, at a real agent.

use std::{
    fs,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc::{Receiver, channel},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use etherparse::{SlicedPacket, TcpSlice, TransportSlice};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    large::{ELSEWHERE, FIRST_PORT, Large},
    reload::{first_of_second_server, ms},
    report::{Figure, Goal, Report},
};
use crate::{
    lab::{Agent, EGRESS4, Lab, VIP4, server4},
    traffic::{Server, until},
};

/// Endpoints, in groups of [`GROUP`].
const ENDPOINTS: u16 = 10_000;
const GROUP: u16 = 25;
/// Seconds between two probes of one of them.
const INTERVAL: u16 = 2;
const SECONDS: u64 = 20;
/// Where they are: all on the first server.
const CROWD: &str = "10.200.0.0/16";
const CHECK_PORT: u16 = 8080;
const LISTENERS: usize = 1_000;
const ROUNDS: usize = 7;
const PATIENCE: Duration = Duration::from_secs(60);
/// Probes that arrive within this time count as one bunch.
const BIN: Duration = Duration::from_millis(10);
/// So many are counted, one after the other, from the beginning.
const BINS: usize = 30_000;

/// Measures.
pub fn run() -> Result<Report> {
    let mut report = Report::new("health");
    report.about.insert("endpoints", json!(ENDPOINTS));
    report.about.insert("interval, s", json!(INTERVAL));
    report.about.insert("listeners", json!(LISTENERS));
    report.about.insert("cost", json!("of one core, with the endpoints' side of each packet, as namespaces share the processor"));
    eprintln!("probing {ENDPOINTS} endpoints");
    report.figures.extend(probing()?);
    eprintln!("verdicts among {LISTENERS} listeners");
    report.figures.push(verdicts()?);
    Ok(report)
}

fn crowd(number: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 200, 1, 0)) + u32::from(number))
}

/// Nanoseconds on a processor so far: of the prober's thread and of the whole agent.
fn spent(pid: u32) -> Result<[u64; 2]> {
    let mut spent = [0; 2];
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path();
        // A thread may end while it is looked at.
        let Ok(text) = fs::read_to_string(path.join("schedstat")) else { continue };
        let ns: u64 = text.split_whitespace().next().context("schedstat begins with a time")?.parse()?;
        let is_prober = fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "ga-health");
        spent = [spent[0] + if is_prober { ns } else { 0 }, spent[1] + ns];
    }
    Ok(spent)
}

/// When probes arrive.
struct Arrivals {
    begin: Instant,
    bins: Vec<AtomicU32>,
}

impl Arrivals {
    fn new() -> Arc<Self> {
        Arc::new(Self { begin: Instant::now(), bins: (0..BINS).map(|_| AtomicU32::new(0)).collect() })
    }

    fn bin(&self) -> usize {
        (self.begin.elapsed().as_micros() / BIN.as_micros()) as usize
    }

    fn note(&self) {
        if let Some(bin) = self.bins.get(self.bin()) {
            bin.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Those of whole bins since that one: the fullest, and the mean of all.
    fn since(&self, first: usize) -> Result<(f64, f64)> {
        let bins = self.bins.get(first + 1..self.bin()).context("more time has passed than is counted")?;
        let counts: Vec<f64> = bins.iter().map(|bin| f64::from(bin.load(Ordering::Relaxed))).collect();
        Ok((counts.iter().copied().fold(0.0, f64::max), counts.iter().sum::<f64>() / counts.len() as f64))
    }
}

/// A port that is open to probes until `stop`: calls `each` for every SYN, as nobody makes a connection that could be accepted. It looks
/// every millisecond, so that no packet has to wake it.
fn answer(stop: &AtomicBool, mut each: impl FnMut()) -> Result<()> {
    let (tcp, any) = (Some(Protocol::TCP), SocketAddr::from((Ipv4Addr::UNSPECIFIED, CHECK_PORT)));
    let (port, mut packets) = (Socket::new(Domain::IPV4, Type::STREAM, tcp)?, Socket::new(Domain::IPV4, Type::RAW, tcp)?);
    port.set_reuse_address(true)?;
    port.bind(&any.into())?;
    port.listen(4096)?;
    packets.set_nonblocking(true)?;
    let mut bytes = [0; 128];
    while !stop.load(Ordering::Relaxed) {
        while let Ok(length) = packets.read(&mut bytes) {
            // Longer ones, which are no SYNs, are cut off.
            let Ok(packet) = SlicedPacket::from_ip(&bytes[..length]) else { continue };
            let is_syn = |tcp: &TcpSlice<'_>| tcp.destination_port() == CHECK_PORT && tcp.syn() && !tcp.ack();
            if matches!(&packet.transport, Some(TransportSlice::Tcp(tcp)) if is_syn(tcp)) {
                each();
            }
        }
        sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// What as many questions cost a loop that does nothing else: one after the other, each ended by a reset.
fn floor(count: u16) -> Result<f64> {
    let begin = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    for number in 0..count {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_tcp_quickack(false)?;
        socket.connect(&SocketAddr::from((crowd(number), CHECK_PORT)).into()).context("a probe's floor")?;
    }
    let end = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Ok((end.tv_sec - begin.tv_sec) as f64 + (end.tv_nsec - begin.tv_nsec) as f64 / 1e9)
}

fn probing() -> Result<Vec<Figure>> {
    let lab = Lab::new(1)?;
    lab.servers[0].run(&["ip", "route", "add", "local", CROWD, "dev", "lo"])?;
    lab.edge.run(&["ip", "route", "add", CROWD, "via", &server4(1).to_string()])?;
    let arrivals = Arrivals::new();
    let counting = Arc::clone(&arrivals);
    // It ends with the process.
    drop(lab.servers[0].thread(move || answer(&AtomicBool::new(false), || counting.note()))?);
    sleep(Duration::from_millis(100));
    let per_second = ENDPOINTS / INTERVAL;
    let floor = lab.edge.within(move || floor(per_second))??;

    let group = format!("health_check = {{ port = {CHECK_PORT}, interval = {INTERVAL} }}");
    let mut text = format!(
        "[node]\nap = \"bench\"\ninterfaces = {}\nmetrics = \"off\"\n\n\
         [limits]\nlisteners_per_instance = 1000\nendpoints_per_group = {GROUP}\n\n\
         [[instance]]\nid = \"bench\"\nvips = [\"{VIP4}\"]\negress_ips = [\"{EGRESS4}\"]\n",
        lab.interfaces(),
    );
    for first in (0..ENDPOINTS).step_by(usize::from(GROUP)) {
        let endpoints: Vec<_> = (first..first + GROUP).map(|number| ("private_ip", crowd(number).into(), 255)).collect();
        let port = 100 + first / GROUP;
        text += &Lab::listener_to(&format!("l{port}"), "tcp", &port.to_string(), &endpoints, "", &group);
    }
    lab.configure(&text)?;
    let agent = Agent::start_within(&lab, PATIENCE)?;
    let passed = || -> Result<u64> { Ok(agent.status()?.probes.results["passed"]) };
    until("a probe of every endpoint", PATIENCE, || Ok((passed()? >= u64::from(ENDPOINTS)).then_some(())))?;
    // Asking costs the agent something too, so the questions lie outside of what is measured.
    let (before, cost, begin, first) = (passed()?, spent(agent.pid())?, Instant::now(), arrivals.bin());
    sleep(Duration::from_secs(SECONDS));
    let (fullest, mean) = arrivals.since(first)?;
    let (cost, took) = (spent(agent.pid())?.map(|ns| ns as f64).into_iter().zip(cost.map(|ns| ns as f64)), begin.elapsed());
    let probes = &agent.status()?.probes;
    let rate = (probes.results["passed"] - before) as f64 / took.as_secs_f64();
    let failed: u64 = probes.results.iter().filter(|(word, _)| *word != "passed").map(|(_, count)| count).sum();
    ensure!(failed == 0, "all endpoints are well: {:?}\n{}", probes.results, agent.log());
    let parts: Vec<f64> = cost.map(|(after, before)| (after - before) / took.as_nanos() as f64 * 100.0).collect();
    let prober = Figure::new(format!("{ENDPOINTS} endpoints every {INTERVAL} s: the prober"), "% of a core", &parts[..1]);
    let prober = prober.beside("a loop of as many connections", floor * 100.0);
    let goals = [
        Goal::at_most("of a core, %", parts[0], 10.0),
        Goal::at_least("of the probes that are due", rate / f64::from(per_second), 0.95),
    ];
    let one = |name: &str, unit, value: u64| Figure::new(name, unit, &[value as f64]);
    Ok(vec![
        goals.into_iter().fold(prober, Figure::wants),
        Figure::new("the whole agent", "% of a core", &parts[1..]),
        Figure::new("probes", "a second", &[rate]),
        one("99 of 100 probes are late by at most", "ms", probes.late_ms),
        one("most probes begun at once", "probes", probes.largest_bunch)
            .beside("due in a millisecond", f64::from(per_second) / 1e3),
        Figure::new("probes that arrive within 10 ms, at most", "times the mean", &[fullest / mean])
            .beside("the mean", mean)
            .wants(Goal::at_most("times the mean", fullest / mean, 4.0)),
    ])
}

/// A port that probes find open, and when each of them came; closed when dropped.
struct Checked {
    taken: Receiver<Instant>,
    stop: Arc<AtomicBool>,
}

impl Checked {
    fn open(lab: &Lab, number: usize) -> Result<Self> {
        let (tell, taken) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let work = move || answer(&stopped, || tell.send(Instant::now()).unwrap_or_default());
        drop(lab.servers[number - 1].thread(work)?);
        Ok(Self { taken, stop })
    }
}

impl Drop for Checked {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The second server becomes well again, time after time: from the answer that decides to the first new flow that goes there.
fn verdicts() -> Result<Figure> {
    let lab = Lab::new(2)?;
    lab.edge.run(&["ip", "route", "add", ELSEWHERE, "via", &server4(1).to_string()])?;
    let _servers = Server::start_all(&lab.servers, &[FIRST_PORT])?;
    let _first = Checked::open(&lab, 1)?;
    let mut second = Some(Checked::open(&lab, 2)?);
    let check = format!("health_check = {{ port = {CHECK_PORT}, interval = 1, threshold = 2, fast_interval_ms = 200 }}");
    let text = Large { listeners: LISTENERS, weight: 255 }.text(&lab.interfaces());
    // Of the first listener only the first two endpoints are hosts: the others are without weight, and of no interest.
    lab.configure(&text.replacen("region = \"lab\"\n", &format!("region = \"lab\"\n{check}\n"), 1))?;
    let agent = Agent::start_within(&lab, PATIENCE)?;
    let is_up = |wanted: bool| {
        until("a verdict", PATIENCE, || {
            let status = agent.status()?;
            let found = status.endpoints().find(|(path, _)| path.address == server4(2).to_string());
            let health = found.and_then(|(_, endpoint)| endpoint.health.as_ref());
            Ok(health.is_some_and(|health| health.healthy == wanted).then_some(()))
        })
    };
    let (mut times, mut trips, mut port) = (Vec::new(), Vec::new(), 2_000);
    for _ in 0..ROUNDS {
        drop(second.take());
        is_up(false)?;
        let stop = Arc::new(AtomicBool::new(false));
        let asking = lab.clients[0].thread(move || first_of_second_server(&stop, port))?;
        let checked = Checked::open(&lab, 2)?;
        let found = asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (seen, trip, next) = found?;
        // The second answer in a row decides.
        let decided = checked.taken.try_iter().nth(1).context("the second server was asked twice")?;
        times.push(ms(seen.saturating_duration_since(decided)));
        trips.push(ms(trip));
        port = next;
        second = Some(checked);
        is_up(true)?;
    }
    let figure = Figure::new(format!("verdict to packets, {LISTENERS} listeners"), "ms", &times);
    let goal = Goal::at_most("verdict to packets, ms", figure.value.median, 50.0);
    Ok(figure.wants(goal).beside("a packet's round trip", Figure::new("", "", &trips).value.median))
}
