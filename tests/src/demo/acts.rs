//! The parts of the show, in order; each prints what it finds.

use std::{
    fs,
    net::IpAddr,
    path::PathBuf,
    process::Child,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    screen::{Screen, thousands},
    servers,
    site::{Site, more_addresses},
    stop::Stop,
    tally::{Spread, TOLERANCE},
    traffic::{self, Answers, Family, Protocol},
};
use crate::lab::{Agent, Namespace, server4, server6};

/// Ports of the TCP listener by weight.
const WEB: &[u16] = &[80, 8000, 8001, 8002];
/// Ports of the UDP listener; the second is another one on the servers.
const DNS: &[u16] = &[53, 5300];
/// Port of nginx behind the listener with affinity.
const GAME: u16 = 7000;

/// Flows by weight, TCP and UDP, both families, both client networks.
pub(super) fn spread(site: &Site, screen: &mut Screen, stop: &Stop) -> Result<Vec<Spread>> {
    screen.heading("New flows follow the weights");
    let status = site.agent.status()?;
    let clients = &site.lab.clients;
    let mut spreads = Vec::new();
    for (listener, protocol, ports, each) in [("web", Protocol::Tcp, WEB, 2000), ("dns", Protocol::Udp, DNS, 2000)] {
        for family in Family::ALL {
            let mut answers = traffic::crowd(clients, protocol, family, ports, each, stop)?;
            if protocol == Protocol::Tcp {
                for client in clients {
                    answers.merge(traffic::curl(client, family, 20)?);
                }
            }
            let spread = Spread::new(&status, listener, protocol, family, &answers)?;
            spread.show(screen);
            let (asked, answered) = (thousands(answers.asked()), thousands(answers.answered()));
            let worst = spread.worst();
            screen.check(
                worst <= TOLERANCE && answers.errors.is_empty(),
                &format!("{answered} of {asked} answered, shares at most {:.1} % off{}", worst * 100.0, answers.trouble()),
            );
            spreads.push(spread);
        }
    }
    screen.note("(TCP: 120 of them by curl. UDP: port 5300 is 53 on the servers)");
    Ok(spreads)
}

/// Connections of one address stay together. Returns the number of addresses.
pub(super) fn affinity(site: &Site, screen: &mut Screen, stop: &Stop) -> Result<usize> {
    const EACH: usize = 10;
    screen.heading("Affinity: a client address stays with its endpoint");
    let mut threads = Vec::new();
    for (client, number) in site.lab.clients.iter().zip(1..) {
        for (family, which) in Family::ALL.into_iter().zip(0..) {
            let sources: Vec<IpAddr> =
                more_addresses(number).iter().map(|pair| pair[which].parse()).collect::<Result<_, _>>().context("an address")?;
            let stop = stop.clone();
            threads.push(client.thread(move || {
                let connections = |source: &IpAddr| {
                    let mut answers = Answers::default();
                    for _ in (0..EACH).take_while(|_| !stop.is_set()) {
                        answers.add(traffic::ask(Protocol::Tcp, family, GAME, Some(*source)));
                    }
                    answers
                };
                sources.iter().map(connections).collect::<Vec<Answers>>()
            })?);
        }
    }
    let mut addresses = Vec::new();
    for thread in threads {
        addresses.extend(thread.join().map_err(|_panic| anyhow::anyhow!("a client panicked"))?);
    }
    stop.check()?;
    let stuck = addresses.iter().filter(|answers| answers.errors.is_empty() && answers.by_server.len() == 1).count();
    let mut homes = Answers::default();
    for home in addresses.iter().filter_map(|answers| answers.by_server.keys().next()) {
        homes.add(Ok(home.clone()));
    }
    let all = addresses.len();
    screen.check(stuck == all, &format!("{stuck} of {all} client addresses, {EACH} connections each, saw one endpoint only"));
    let shares: Vec<String> = homes.by_server.iter().map(|(server, addresses)| format!("{server} {addresses}")).collect();
    screen.check(homes.by_server.len() == 3, &format!("addresses for each server: {}", shares.join(" · ")));
    Ok(all)
}

/// One iperf3 run in each family; returns bits per second.
pub(super) fn throughput(site: &Site, screen: &mut Screen, stop: &Stop) -> Result<[f64; 2]> {
    screen.heading("Throughput: one TCP stream of iperf3, 2 s");
    let mut rates = [0.0; 2];
    for ((client, family), rate) in site.lab.clients.iter().zip(Family::ALL).zip(&mut rates) {
        stop.check()?;
        match traffic::iperf3(client, family, 2) {
            Ok(seen) => {
                *rate = seen;
                screen.check(seen > 0.0, &format!("{}: {:.2} Gbit/s", family.name(), seen / 1e9));
            }
            Err(error) => screen.check(false, &format!("{}: {error:#}", family.name())),
        }
    }
    screen.note("(everything shares this machine's CPUs: a sign of life, not a measurement)");
    Ok(rates)
}

/// A download by curl that takes three seconds.
struct Transfer {
    curl: Child,
    body: PathBuf,
    server: String,
    family: Family,
}

impl Transfer {
    /// Starts it and waits until its server is known.
    fn start(site: &Site, client: &Namespace, family: Family, number: usize, stop: &Stop) -> Result<Self> {
        let (body, head) = (site.lab.dir.join(format!("body-{number}")), site.lab.dir.join(format!("head-{number}")));
        drop(fs::remove_file(&head));
        let url = format!("http://{}:8001/file", family.host());
        let (to, heads) = (body.display().to_string(), head.display().to_string());
        let curl = client.spawn(&["curl", "-sS", "--max-time", "30", "-o", &to, "-D", &heads, &url])?;
        let mut transfer = Self { curl, body, server: String::new(), family };
        stop.wait("the response of a download", Duration::from_secs(10), || {
            let head = fs::read_to_string(&head).unwrap_or_default();
            let server = head.lines().find_map(|line| line.strip_prefix("X-Server: ")).map(str::trim);
            transfer.server = server.unwrap_or_default().to_owned();
            Ok(head.ends_with("\r\n\r\n"))
        })?;
        Ok(transfer)
    }

    fn runs(&mut self) -> Result<bool> {
        Ok(self.curl.try_wait()?.is_none())
    }

    /// Waits for its end; whether every byte is as it was sent.
    fn complete(mut self, site: &Site, stop: &Stop) -> Result<bool> {
        let mut success = false;
        stop.wait("the end of a download", Duration::from_secs(30), || {
            Ok(self.curl.try_wait()?.inspect(|status| success = status.success()).is_some())
        })?;
        let same = fs::read(&self.body)? == fs::read(servers::file(&site.lab))?;
        fs::remove_file(&self.body)?;
        Ok(success && same)
    }
}

/// Transfers of both families until each family has one from s1.
fn transfers(site: &Site, stop: &Stop) -> Result<Vec<Transfer>> {
    let first = servers::name(1);
    let mut all: Vec<Transfer> = Vec::new();
    for (client, family) in site.lab.clients.iter().zip(Family::ALL) {
        for _ in 0..30 {
            all.push(Transfer::start(site, client, family, all.len(), stop)?);
            let of_family: Vec<&Transfer> = all.iter().filter(|transfer| transfer.family == family).collect();
            if of_family.len() >= 2 && of_family.iter().any(|transfer| transfer.server == first) {
                break;
            }
        }
        ensure!(all.iter().any(|transfer| transfer.family == family && transfer.server == first), "no download came to {first}");
    }
    Ok(all)
}

fn endpoints_of_first() -> [String; 2] {
    [server4(1).to_string(), server6(1).to_string()].map(|address| format!("ga-demo/web/{address}"))
}

/// Drains s1 while it serves downloads, then undrains it.
pub(super) fn drain(site: &Site, screen: &mut Screen, stop: &Stop) -> Result<()> {
    screen.heading("Drain s1 while it serves downloads");
    let mut running = transfers(site, stop)?;
    let there = running.iter().filter(|transfer| transfer.server == servers::name(1)).count();
    screen.note(&format!("{} downloads by curl run, {there} of them from s1", running.len()));
    for endpoint in endpoints_of_first() {
        screen.command(&format!("ga endpoints drain {endpoint}"));
        let done = site.agent.ok(&["endpoints", "drain", &endpoint])?;
        screen.note(done.trim().split_once(": ").map_or(&*done, |(_endpoint, what)| what));
    }
    let mut still = 0;
    for transfer in &mut running {
        still += usize::from(transfer.runs()?);
    }
    screen.check(still == running.len(), &format!("{still} downloads go on after the drain"));
    let drained = sample(site, stop)?;
    let text = format!("of {} new connections {} went to s1{}", drained.asked(), drained.of("s1"), drained.trouble());
    screen.check(drained.of("s1") == 0 && drained.errors.is_empty(), &text);
    complete(site, screen, stop, running)?;
    for endpoint in endpoints_of_first() {
        screen.command(&format!("ga endpoints undrain {endpoint}"));
        let done = site.agent.ok(&["endpoints", "undrain", &endpoint])?;
        screen.note(done.trim().split_once(": ").map_or(&*done, |(_endpoint, what)| what));
    }
    let back = sample(site, stop)?;
    let text = format!("of {} new connections {} went to s1{}", back.asked(), back.of("s1"), back.trouble());
    screen.check(back.of("s1") > 0 && back.errors.is_empty(), &text);
    Ok(())
}

/// Some hundred new connections.
fn sample(site: &Site, stop: &Stop) -> Result<Answers> {
    let mut answers = Answers::default();
    for family in Family::ALL {
        answers.merge(traffic::crowd(&site.lab.clients, Protocol::Tcp, family, WEB, 100, stop)?);
    }
    Ok(answers)
}

fn complete(site: &Site, screen: &mut Screen, stop: &Stop, running: Vec<Transfer>) -> Result<()> {
    let all = running.len();
    let mut complete = 0;
    for transfer in running {
        complete += usize::from(transfer.complete(site, stop)?);
    }
    screen.check(complete == all, &format!("{complete} of {all} downloads are complete, every byte as it was sent"));
    Ok(())
}

/// Before, without, and after the agent.
const PHASES: usize = 3;

/// Traffic that goes on by itself.
struct Load {
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    end: Stop,
    phase: AtomicUsize,
    /// Answered and lost, by the phase in which the question was asked.
    counts: [[AtomicU64; 2]; PHASES],
}

impl Load {
    fn start(site: &Site) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut threads = Vec::new();
        for client in &site.lab.clients {
            for family in Family::ALL {
                let shared = Arc::clone(&shared);
                threads.push(client.thread(move || {
                    // Bounded, whatever becomes of the show.
                    let kinds = [(Protocol::Tcp, WEB[0]), (Protocol::Udp, DNS[1])];
                    for (protocol, port) in kinds.into_iter().cycle().take(100_000) {
                        if shared.end.is_set() {
                            break;
                        }
                        let phase = shared.phase.load(Ordering::Relaxed).min(PHASES - 1);
                        let lost = traffic::ask(protocol, family, port, None).is_err();
                        shared.counts[phase][usize::from(lost)].fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(1));
                    }
                })?);
            }
        }
        Ok(Self { threads, shared })
    }

    fn next_phase(&self) {
        self.shared.phase.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends it: answered and lost in each phase.
    fn finish(mut self) -> [[u64; 2]; PHASES] {
        self.shared.end.set();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
        std::array::from_fn(|phase| std::array::from_fn(|kind| self.shared.counts[phase][kind].load(Ordering::Relaxed)))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.end.set();
    }
}

/// What went on around the `kill -9`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Killed {
    /// Flows answered while there was no agent.
    pub(super) without_agent: u64,
    /// Questions without an answer, in all.
    pub(super) lost: u64,
}

/// `kill -9` of the agent while traffic goes on.
pub(super) fn kill(site: &mut Site, screen: &mut Screen, stop: &Stop) -> Result<Killed> {
    screen.heading("kill -9 of the agent while traffic goes on");
    let load = Load::start(site)?;
    let running = transfers(site, stop)?;
    stop.sleep(Duration::from_millis(500))?;
    let generation = site.agent.status()?.generation;
    let pid = site.agent.pid();
    site.agent.kill()?;
    load.next_phase();
    screen.command(&format!("kill -9 {pid}"));
    let gone = !site.agent.ga(&["status"])?.status.success();
    screen.check(gone, "the agent is gone: `ga status` gets no answer");
    stop.sleep(Duration::from_millis(1500))?;
    complete(site, screen, stop, running)?;
    site.agent = Agent::start(&site.lab)?;
    load.next_phase();
    let status = site.agent.status()?;
    screen
        .note(&format!("the agent is back at generation {} (was {generation}); known flows are still known", status.generation));
    stop.sleep(Duration::from_millis(500))?;
    let counts = load.finish();
    for (when, [answered, lost]) in ["before", "without agent", "with the next agent"].into_iter().zip(counts) {
        screen.check(answered > 0 && lost == 0, &format!("{when}: {} new flows answered, {lost} lost", thousands(answered)));
    }
    Ok(Killed { without_agent: counts[1][0], lost: counts.iter().map(|[_, lost]| lost).sum() })
}
