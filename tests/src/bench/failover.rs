//! What the death of an endpoint does: how long new connections are still sent to it, and what clients notice; beside HAProxy,
//! which does the same at the same time in a lab of its own.

use std::{
    collections::BTreeSet,
    fs,
    io::Read as _,
    net::SocketAddr,
    process::Child,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{interval, timeout},
};

use super::report::{Figure, Goal, Report};
use crate::{
    lab::{Agent, Lab, VIP4, server4},
    traffic::Task,
};

const PORT: u16 = 80;
const CHECK_PORT: u16 = 8080;
/// Between two new connections.
const EVERY: Duration = Duration::from_millis(10);
/// A client gives up after this.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);
/// Who is answered later than this notices.
const SLOW: Duration = Duration::from_millis(500);
/// Load before the death.
const BEFORE: Duration = Duration::from_secs(2);

/// How endpoints are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    None,
    Tcp,
    Http,
    Fast,
}

impl Mode {
    const ALL: [Self; 4] = [Self::None, Self::Tcp, Self::Http, Self::Fast];

    const fn name(self) -> &'static str {
        match self {
            Self::None => "no check",
            Self::Tcp => "TCP check",
            Self::Http => "HTTP check",
            Self::Fast => "TCP check, every 200 ms when suspect",
        }
    }

    /// Further keys of our endpoint group.
    fn ours(self) -> String {
        let check = |keys: &str| format!("health_check = {{ port = {CHECK_PORT}, {keys} }}");
        match self {
            Self::None => String::new(),
            Self::Tcp => check("protocol = \"tcp\""),
            Self::Http => check("protocol = \"http\", path = \"/\""),
            Self::Fast => check("protocol = \"tcp\", fast_interval_ms = 200"),
        }
    }

    /// Further words of HAProxy's servers, with the same times.
    fn haproxys(self) -> String {
        let check = format!("check port {CHECK_PORT} inter 2s fall 3 rise 3");
        match self {
            Self::None => String::new(),
            Self::Tcp | Self::Http => check,
            Self::Fast => check + " fastinter 200ms",
        }
    }
}

/// How an endpoint dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// Its programs are gone: its host refuses.
    Refuses,
    /// It takes no packet any more.
    Silent,
}

impl Death {
    const fn name(self) -> &'static str {
        match self {
            Self::Refuses => "refuses",
            Self::Silent => "is silent",
        }
    }

    /// How long is watched afterwards, and until when a checked endpoint must be found dead: interval, and the documented window.
    const fn times(self, mode: Mode) -> (Duration, f64) {
        let (seconds, limit) = match (self, mode) {
            (_, Mode::None) => (10, 10.0),
            (Self::Refuses, _) => (10, 6.5),
            (Self::Silent, _) => (19, 15.5),
        };
        (Duration::from_secs(seconds), limit)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Product {
    Ga,
    Haproxy,
}

/// What came of one death.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    /// From the death to the last new connection that was sent there.
    last: Duration,
    sent: usize,
    /// Connections of clients since the death.
    clients: usize,
    errors: usize,
    slow: usize,
}

/// Measures.
pub fn run() -> Result<Report> {
    let mut report = Report::new("failover");
    report.about.insert("new connections a second", json!(1_000 / EVERY.as_millis()));
    report.about.insert("interval, threshold", json!("2 s, 3; both products"));
    report.about.insert("a client gives up after, s", json!(CLIENT_PATIENCE.as_secs()));
    report
        .about
        .insert("HAProxy", json!("mode tcp, roundrobin, retries 3, option redispatch, timeout connect 1s, timeout check 3s"));
    for mode in Mode::ALL {
        for death in [Death::Refuses, Death::Silent] {
            eprintln!("{}: an endpoint {}", mode.name(), death.name());
            let [ours, haproxys] = thread::scope(|scope| {
                let both = [Product::Ga, Product::Haproxy].map(|product| scope.spawn(move || once(product, mode, death)));
                both.map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            });
            report.figures.extend(figures(mode, death, ours?, haproxys.context("HAProxy")?));
        }
    }
    Ok(report)
}

fn figures(mode: Mode, death: Death, ours: Outcome, haproxys: Outcome) -> Vec<Figure> {
    let (watched, limit) = death.times(mode);
    let one = |what: &str, unit, of: &dyn Fn(Outcome) -> f64| {
        let name = format!("{}, endpoint {}: {what}", mode.name(), death.name());
        Figure::new(name, unit, &[of(ours)]).beside("HAProxy", of(haproxys))
    };
    let mut last = one("last new connection sent to it", "s", &|outcome| outcome.last.as_secs_f64());
    if mode == Mode::None {
        last = last.beside("watched", watched.as_secs_f64());
    } else {
        last = last.wants(Goal::at_most("the documented window, s", ours.last.as_secs_f64(), limit));
    }
    vec![
        last,
        one("new connections sent to it", "", &|outcome| outcome.sent as f64),
        one("errors seen by clients", "", &|outcome| outcome.errors as f64).beside("of connections", ours.clients as f64),
        one("clients answered late", "", &|outcome| outcome.slow as f64),
    ]
}

/// A program of ours that is ended when we are done.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn serve(lab: &Lab, number: usize) -> Result<Running> {
    let file = lab.dir.join(format!("web-{number}.conf"));
    let pid = lab.dir.join(format!("web-{number}.pid"));
    let text = format!(
        "daemon off;\nmaster_process off;\nerror_log /dev/null;\npid {};\nevents {{}}\nhttp {{ access_log off; server {{ \
         listen {PORT} backlog=4096; listen {CHECK_PORT}; location / {{ return 200 \"{number}\"; }} }} }}\n",
        pid.display()
    );
    fs::write(&file, text)?;
    Ok(Running(lab.servers[number - 1].spawn(&["nginx", "-e", "/dev/null", "-c", &file.to_string_lossy()])?))
}

fn haproxy(lab: &Lab, mode: Mode) -> Result<Running> {
    lab.edge.run(&["ip", "addr", "add", &format!("{VIP4}/32"), "dev", "lo"])?;
    let mut text = "defaults\n  mode tcp\n  retries 3\n  option redispatch\n  timeout connect 1s\n  timeout check 3s\n  \
                    timeout client 30s\n  timeout server 30s\n"
        .to_owned();
    text += &format!("listen web\n  bind {VIP4}:{PORT}\n  balance roundrobin\n");
    if mode == Mode::Http {
        text += "  option httpchk GET /\n";
    }
    for number in 1..=lab.servers.len() {
        text += &format!("  server s{number} {}:{PORT} {}\n", server4(number), mode.haproxys());
    }
    let file = lab.dir.join("haproxy.cfg");
    fs::write(&file, text)?;
    Ok(Running(lab.edge.spawn(&["haproxy", "-db", "-f", &file.to_string_lossy()])?))
}

/// Sees who asks for a connection at a server, before anything can drop it; until it is told to stop. When, of each new source.
fn watch(stop: &AtomicBool) -> Result<Vec<Instant>> {
    const ETH_P_IP: u16 = 0x0800;
    let mut socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(ETH_P_IP.to_be()))))?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let (mut seen, mut times, mut frame) = (BTreeSet::new(), Vec::new(), [0; 2048]);
    while !stop.load(Ordering::Relaxed) {
        let Ok(length) = socket.read(&mut frame) else { continue };
        let Ok(packet) = etherparse::SlicedPacket::from_ethernet(&frame[..length]) else { continue };
        let (Some(etherparse::NetSlice::Ipv4(ip)), Some(etherparse::TransportSlice::Tcp(tcp))) = (packet.net, packet.transport)
        else {
            continue;
        };
        if tcp.syn()
            && !tcp.ack()
            && tcp.destination_port() == PORT
            && seen.insert((ip.header().source_addr(), tcp.source_port()))
        {
            times.push(Instant::now());
        }
    }
    Ok(times)
}

/// One connection: who served it.
async fn ask() -> Result<u8> {
    let exchange = async {
        let mut stream = TcpStream::connect(SocketAddr::new(VIP4.into(), PORT)).await?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        answer.last().copied().filter(|_| answer.starts_with(b"HTTP/1.1 200")).context("no answer")
    };
    timeout(CLIENT_PATIENCE, exchange).await?
}

/// When a connection began, how long it took, and who served it.
type Asked = (Instant, Duration, Option<u8>);

/// New connections at a steady pace.
fn load(lab: &Lab) -> Result<Task<Vec<Asked>>> {
    Task::start(&lab.clients[0], |mut stop| async move {
        let (mut pace, mut all) = (interval(EVERY), JoinSet::new());
        loop {
            tokio::select! {
                () = stop.wait() => break,
                _ = pace.tick() => {}
            }
            all.spawn(async {
                let begin = Instant::now();
                let served = ask().await.ok();
                (begin, begin.elapsed(), served)
            });
        }
        Ok(all.join_all().await)
    })
}

fn once(product: Product, mode: Mode, death: Death) -> Result<Outcome> {
    let lab = Lab::new(2)?;
    let mut servers = vec![serve(&lab, 1)?, serve(&lab, 2)?];
    let mut agent = None;
    let mut proxy = None;
    match product {
        Product::Ga => {
            let group = Lab::mapped_listener("web", "tcp", &PORT.to_string(), &[255, 255], "", &mode.ours());
            lab.configure(&(lab.head() + &group))?;
            agent = Some(Agent::start(&lab)?);
        }
        Product::Haproxy => proxy = Some(haproxy(&lab, mode)?),
    }
    // Both serve, for longer than the checks need to find that out.
    let warm = load(&lab)?;
    thread::sleep(Duration::from_secs(3));
    let warm = warm.finish()?;
    ensure!(warm.iter().rev().take(100).all(|(_, _, by)| by.is_some()), "not everybody is served before the death");

    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let watcher = lab.servers[1].thread(move || watch(&stopped))?;
    let clients = load(&lab)?;
    thread::sleep(BEFORE);
    let died = Instant::now();
    match death {
        Death::Refuses => drop(servers.pop()),
        Death::Silent => lab.servers[1]
            .run(&["nft", "add table inet dead; add chain inet dead in { type filter hook input priority 0; policy drop; }"])?,
    }
    thread::sleep(death.times(mode).0);
    let clients = clients.finish()?;
    stop.store(true, Ordering::Relaxed);
    let sent = watcher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    drop((agent, proxy));
    ensure!(sent.iter().any(|at| *at < died), "the endpoint was never used");
    let since: Vec<_> = clients.iter().filter(|(begin, ..)| *begin >= died).collect();
    ensure!(since.iter().any(|(_, _, by)| *by == Some(b'1')), "the other endpoint serves nobody");
    let late: Vec<Instant> = sent.into_iter().filter(|at| *at >= died).collect();
    Ok(Outcome {
        last: late.last().map_or(Duration::ZERO, |at| *at - died),
        sent: late.len(),
        clients: since.len(),
        errors: since.iter().filter(|(_, _, by)| by.is_none()).count(),
        slow: since.iter().filter(|(_, took, by)| by.is_some() && *took > SLOW).count(),
    })
}
