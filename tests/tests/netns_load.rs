//! Load: floods, full tables, two CPUs at once, narrow links and long runs. What is established stays, what is refused is
//! counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{ArrayOfMaps, Map, MapData, PerCpuArray};
use ga::status::{Counters, Status};
use ga_common::abi::entry::EndpointCounters;
use ga_tests::{
    lab::{Agent, Lab, Namespace, VIP4, VIP6, server4},
    traffic::{Flood, Flows, Hello, Probe, Server, Spoofed, Storm, Transfers, arrived, block_in, dial, stay_on},
};
use tokio::{task::JoinSet, time::timeout};

const VIPS: [IpAddr; 2] = [IpAddr::V4(VIP4), IpAddr::V6(VIP6)];

fn vip(port: u16) -> SocketAddr {
    SocketAddr::new(VIPS[0], port)
}

fn head(lab: &Lab, node: &str) -> String {
    lab.head().replacen("[node]\n", &format!("[node]\n{node}\n"), 1)
}

fn start(lab: &Lab, text: &str) -> Result<Agent> {
    lab.configure(text)?;
    Agent::start(lab)
}

/// Asks through flows of `flood`, all from addresses that this namespace answers for, until each was answered or five rounds
/// are over: who answered, by the number of the flow.
fn ask(namespace: &Namespace, flood: Flood, cpu: usize) -> Result<BTreeMap<u32, Hello>> {
    namespace.within(move || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, flood.first_port))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let mut answers = BTreeMap::new();
        for _ in 0..5 {
            let open: Vec<u32> = (flood.from..flood.from + flood.count).filter(|number| !answers.contains_key(number)).collect();
            for some in open.chunks(64) {
                for &from in some {
                    Flood { from, count: 1, ..flood }.send_here(cpu)?;
                }
                let mut buffer = [0; 256];
                for _ in some {
                    let Ok(bytes) = socket.recv(&mut buffer) else { break };
                    let hello = Hello::parse(&buffer[..bytes])?;
                    let number = buffer[Hello::LEN..bytes].try_into().map(u64::from_le_bytes).context("a short answer")?;
                    let number = u32::try_from(number)?;
                    let before = answers.insert(number, hello);
                    ensure!(before.is_none_or(|before| before == hello), "flow {number} was {before:?} and is {hello:?}");
                }
            }
        }
        Ok(answers)
    })?
}

#[test]
fn two_cpus_never_claim_one_port_for_two_flows() -> Result<()> {
    const FLOWS: u32 = 8_000;
    let lab = Lab::new(1)?;
    let _servers = Server::start_all(&lab.servers, &[53])?;
    // In the end half of all ports are taken: both CPUs often ask for one that is not free.
    let text = head(&lab, "nat_ports = \"1024~32767\"") + &Lab::listener("dns", "udp", "53", &[255], "idle_timeout = 20");
    let agent = start(&lab, &text)?;
    // Addresses of the floods are the client's.
    lab.clients[0].run(&["ip", "route", "add", "local", "10.66.0.0/15", "dev", "lo"])?;
    let to = SocketAddrV4::new(VIP4, 53);
    let of = |cpu: usize| Flood {
        kind: Spoofed::Datagram,
        to,
        first: Ipv4Addr::new(10, 66 + cpu as u8, 0, 0),
        first_port: 4_000 + cpu as u16,
        ports: 1,
        from: 0,
        count: FLOWS,
    };
    let (mut taken, mut answered) = (BTreeMap::new(), 0);
    for round in 0..2 {
        let answers = std::thread::scope(|scope| {
            let asking = [0, 1].map(|cpu| {
                (
                    cpu,
                    scope.spawn({
                        let client = &lab.clients[0];
                        move || ask(client, of(cpu), cpu)
                    }),
                )
            });
            asking.map(|(cpu, thread)| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map(|answers| (cpu, answers))
            })
        });
        for result in answers {
            let (cpu, answers) = result?;
            answered += answers.len();
            for (number, hello) in answers {
                let flow = of(cpu).source(number);
                // What the server saw is the reply tuple: nobody else may have it, and the flow keeps it.
                let owner = *taken.entry((hello.server, hello.peer)).or_insert(flow);
                ensure!(owner == flow, "round {round}: {:?} belongs to {owner} and to {flow}", hello.peer);
            }
        }
    }
    let status = agent.status()?;
    let lost = agent.drops("dns")?;
    ensure!(lost.is_empty(), "drops: {lost:?}");
    ensure!(answered == 4 * FLOWS as usize, "{answered} of {} questions were answered", 4 * FLOWS);
    ensure!(taken.len() == 2 * FLOWS as usize, "{} flows had {} reply tuples", 2 * FLOWS, taken.len());
    // Both CPUs claimed: the counters are each CPU's own.
    let counters = Map::PerCpuArray(MapData::from_pin(lab.pin_dir.join("maps/COUNTERS"))?);
    let counters = PerCpuArray::<_, EndpointCounters>::try_from(counters)?;
    let mut claimed: Vec<u64> = Vec::new();
    for endpoint in status.endpoints() {
        let values = counters.get(&u32::from(endpoint.1.id), 0)?;
        claimed.resize(values.len(), 0);
        claimed.iter_mut().zip(values.iter()).for_each(|(sum, cpu)| *sum += cpu.new_flows);
    }
    ensure!(claimed.iter().filter(|flows| **flows > u64::from(FLOWS) / 4).count() >= 2, "flows made by each CPU: {claimed:?}");
    Ok(())
}

#[test]
fn the_last_ports_are_given_out_or_refused_and_nothing_hangs() -> Result<()> {
    const PORTS: u32 = 256;
    const ASKED: u32 = 800;
    let lab = Lab::new(1)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let text = head(&lab, "nat_ports = \"2000~2255\"")
        + &Lab::listener("web", "tcp", "80", &[255], "")
        + &Lab::listener("dns", "udp", "53", &[255], "idle_timeout = 20");
    let agent = start(&lab, &text)?;
    lab.clients[0].run(&["ip", "route", "add", "local", "10.66.0.0/15", "dev", "lo"])?;
    // Established ones: of both protocols, each in the port space that is going to be full.
    let flows = Flows::open(&lab.clients[1], vip(80), 60, Duration::from_millis(100))?;
    let probe = Probe::start(&lab.clients[1], vip(53))?;
    let flood = Flood {
        kind: Spoofed::Datagram,
        to: SocketAddrV4::new(VIP4, 53),
        first: Ipv4Addr::new(10, 66, 0, 0),
        first_port: 4_000,
        ports: 1,
        from: 0,
        count: ASKED / 2,
    };
    let mut answered = BTreeSet::new();
    for cpu in [0, 1] {
        let part = Flood { from: flood.count * cpu, ..flood };
        answered.extend(ask(&lab.clients[0], part, cpu as usize)?.into_values().map(|hello| hello.peer));
    }
    let given = answered.len() as u32;
    ensure!(given < PORTS && given * 100 >= (PORTS - 1) * 90, "{given} of {PORTS} ports were given out, one had been before");
    let refused = agent.drops("dns")?.get("no_port").copied().unwrap_or_default();
    // Every flow without an answer asked five times.
    ensure!(refused == u64::from(ASKED - given) * 5, "{refused} drops for {} flows that were refused", ASKED - given);

    // Connections that stay: each is made or refused, and the refusal counted.
    let held = std::thread::scope(|scope| {
        let client = &lab.clients[0];
        let trying = [0, 1].map(|cpu| scope.spawn(move || hold(client, vip(80), 200, cpu)));
        trying.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let mut made = flows.hellos.len() as u32;
    for held in held {
        made += held?;
    }
    ensure!(made <= PORTS && made * 100 >= PORTS * 90, "{made} connections were made with {PORTS} ports");
    let refused = agent.drops("web")?.get("no_port").copied().unwrap_or_default();
    ensure!(refused >= u64::from(460 - made), "{refused} drops for {} connections that were refused", 460 - made);
    let probe = probe.finish()?;
    ensure!(probe.lost.is_empty(), "{} of {} datagrams of the known flow are lost", probe.lost.len(), probe.sent);
    flows.all_well()?;
    Ok(())
}

/// Tries `count` connections at once and holds what it gets until all are decided: how many were made.
fn hold(namespace: &Namespace, to: SocketAddr, count: u32, cpu: usize) -> Result<u32> {
    block_in(namespace, Duration::from_secs(60), move || async move {
        stay_on(cpu)?;
        let mut all = JoinSet::new();
        for _ in 0..count {
            all.spawn(timeout(Duration::from_secs(4), dial(None, to)));
        }
        let made: Vec<_> = all.join_all().await.into_iter().filter_map(|one| one.ok()?.ok()).collect();
        Ok(made.len() as u32)
    })
}

/// What a running agent holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    kib: u64,
    files: usize,
    maps: usize,
}

impl Held {
    fn of(agent: &Agent) -> Result<Self> {
        let proc = format!("/proc/{}", agent.pid());
        let status = fs::read_to_string(format!("{proc}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the agent has no memory")?;
        let kib = line.trim().trim_end_matches(" kB").parse()?;
        let (mut files, mut maps) = (0, 0);
        for file in fs::read_dir(format!("{proc}/fdinfo"))? {
            files += 1;
            // One that was closed meanwhile is none.
            maps += usize::from(fs::read_to_string(file?.path()).is_ok_and(|text| text.contains("map_id:")));
        }
        Ok(Self { kib, files, maps })
    }

    /// Not more than at first, but for what an allocator and a connection or two make of it.
    fn is_bounded_by(self, first: Self) -> bool {
        self.kib <= first.kib + (16 << 10) && self.files <= first.files + 8 && self.maps <= first.maps
    }
}

/// Every counter of endpoints and listeners by its name.
fn counters(status: &Status) -> BTreeMap<String, u64> {
    let of = |name: String, counters: Counters| {
        [
            ("forward_packets", counters.forward_packets),
            ("forward_bytes", counters.forward_bytes),
            ("return_packets", counters.return_packets),
            ("return_bytes", counters.return_bytes),
            ("new_flows", counters.new_flows),
        ]
        .map(|(what, value)| (format!("{name} {what}"), value))
    };
    let endpoints = status.endpoints().flat_map(|(path, endpoint)| of(path.to_string(), endpoint.counters));
    let listeners = status.listeners().flat_map(|(_, listener)| of(listener.name.clone(), listener.counters));
    endpoints.chain(listeners).collect()
}

/// Tables that are in the outer map, used or not.
fn tables(lab: &Lab) -> Result<usize> {
    let outer = Map::ArrayOfMaps(MapData::from_pin(lab.pin_dir.join("maps/TABLES"))?);
    let outer = ArrayOfMaps::<MapData>::try_from(outer)?;
    Ok((0..outer.len()).filter(|index| outer.get(index, 0).is_ok()).count())
}

/// Reloads, drains and kills, one after the other, under every kind of traffic, for a minute or for `GA_SOAK_SECONDS`.
#[test]
fn a_long_run_of_changes_and_kills_breaks_and_leaks_nothing() -> Result<()> {
    let seconds = std::env::var("GA_SOAK_SECONDS").ok().map_or(Ok(60), |text| text.parse())?;
    let lab = Lab::new(3)?;
    let servers = Server::start_all(&lab.servers, &[80, 53])?;
    let text = |weights: &[u8]| {
        lab.head() + &Lab::listener("web", "tcp", "80", weights, "") + &Lab::listener("dns", "udp", "53", weights, "")
    };
    let mut agent = start(&lab, &text(&[255, 255, 255]))?;
    let flows = VIPS.map(|vip| Flows::open(&lab.clients[0], SocketAddr::new(vip, 80), 50, Duration::from_millis(200)));
    let probes = VIPS.map(|vip| Probe::start(&lab.clients[1], SocketAddr::new(vip, 53)));
    let transfers = Transfers::open(&lab.clients[1], vip(80), 10, Duration::from_millis(100))?;
    let storm = Storm::start(&lab.clients[0], vip(80), Duration::from_millis(50))?;
    let began = Instant::now();
    let (mut cycles, mut before, mut first) = (0_u32, counters(&agent.status()?), None);
    while began.elapsed() < Duration::from_secs(seconds) {
        // A change, a drain and its end, and from time to time a kill.
        let weight = |number: u32| (50 * (cycles + number) % 255) as u8;
        lab.configure(&text(&[255, weight(1), weight(2)]))?;
        agent.ok(&["reload"])?;
        let drained = format!("lab/web/{}", server4(2 + (cycles % 2) as usize));
        agent.ok(&["endpoints", "drain", &drained])?;
        std::thread::sleep(Duration::from_millis(300));
        agent.ok(&["endpoints", "undrain", &drained])?;
        let held = Held::of(&agent)?;
        // The first few make caches and arenas.
        if cycles >= 3 {
            let first = *first.get_or_insert(held);
            ensure!(held.is_bounded_by(first), "cycle {cycles}: the agent holds {held:?}, and held {first:?}");
        }
        if cycles % 3 == 2 {
            agent.kill()?;
            agent = Agent::start(&lab)?;
        }
        let after = counters(&agent.status()?);
        for (name, old) in &before {
            let new = after.get(name).copied().unwrap_or_default();
            ensure!(new >= *old, "cycle {cycles}: {name} went from {old} to {new}");
        }
        before = after;
        cycles += 1;
    }
    // Two listeners and two families: what runs, and at most as much for a change.
    let tables = tables(&lab)?;
    ensure!(tables <= 2 * 2 * 2 + 1, "{tables} tables are in use");
    println!("{cycles} cycles in {:?}, {tables} tables, {:?} at the end", began.elapsed(), Held::of(&agent)?);
    let mut lost = 0;
    for probe in probes {
        let probe = probe?.finish()?;
        ensure!(probe.peers.len() == 1, "the endpoint saw the one flow as {:?}", probe.peers);
        lost += probe.lost.len() as u64;
    }
    // A host that is busy elsewhere does not empty its sockets in time: that is not the edge's doing, and the host counts it.
    let mut overflowed = 0;
    for host in lab.servers.iter().chain(&lab.clients) {
        overflowed += host.counter("UdpRcvbufErrors")? + host.counter("Udp6RcvbufErrors")?;
    }
    ensure!(lost <= overflowed, "{lost} datagrams are lost, and hosts lost only {overflowed} of them");
    storm.all_well()?;
    arrived(&transfers.all_well()?, &servers)?;
    for flows in flows {
        flows?.all_well()?;
    }
    let status = agent.status()?;
    let drops: Vec<_> = status.drops.iter().filter(|drop| drop.packets > 0 && drop.reason != "no_flow").collect();
    ensure!(drops.is_empty(), "packets were dropped: {drops:?}");
    Ok(())
}
