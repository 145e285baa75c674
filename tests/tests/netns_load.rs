//! Load: floods, full tables, two CPUs at once, narrow links and long runs. What is established stays, what is refused is
//! counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ga::status::Status;
use ga_tests::{
    lab::{Agent, Lab, Namespace, VIP4, VIP6, client4},
    traffic::{Flood, Flows, Hello, Probe, Server, Spoofed, Storm, TransferReport, Transfers, ask_many, transfer, until},
};

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

/// Packets that a listener dropped, by reason.
fn dropped(status: &Status, listener: &str) -> BTreeMap<String, u64> {
    let found = status.listeners().find(|(_, one)| one.name == listener);
    found.map(|(_, one)| one.drops.iter().map(|drop| (drop.reason.clone(), drop.packets)).collect()).unwrap_or_default()
}

/// Every connection is known to the server that it reached, with the very bytes that were sent.
fn arrived(reports: &[TransferReport], servers: &[Server]) -> Result<()> {
    for report in reports {
        let server = &servers[report.hello.server - 1];
        let found = server.connections().into_iter().find(|one| one.peer == report.hello.peer && one.local == report.hello.local);
        let found = found.with_context(|| format!("no server knows {:?}", report.hello))?;
        ensure!(found.received == report.sent, "the server received {:?} of {:?}", found.received, report.sent);
    }
    Ok(())
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
    // So narrow that every port is asked for several times, by both CPUs.
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
    let lost = dropped(&status, "dns");
    ensure!(lost.is_empty(), "drops: {lost:?}");
    ensure!(answered == 4 * FLOWS as usize, "{answered} of {} questions were answered", 4 * FLOWS);
    ensure!(taken.len() == 2 * FLOWS as usize, "{} flows had {} reply tuples", 2 * FLOWS, taken.len());
    Ok(())
}

#[test]
fn the_last_ports_are_given_out_or_refused_and_nothing_hangs() -> Result<()> {
    const PORTS: u32 = 256;
    const ASKED: u32 = 2_000;
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
    let refused = dropped(&agent.status()?, "dns").get("no_port").copied().unwrap_or_default();
    // Every flow without an answer asked five times.
    ensure!(refused == u64::from(ASKED - given) * 5, "{refused} drops for {} flows that were refused", ASKED - given);

    // Connections: each is made or refused, and the refusal counted.
    let storm = Storm::start(&lab.clients[0], vip(80), Duration::ZERO)?;
    until("refused connections", Duration::from_secs(60), || {
        Ok(dropped(&agent.status()?, "web").contains_key("no_port").then_some(()))
    })?;
    let report = storm.finish()?;
    let made: u64 = report.answered.values().sum();
    ensure!(made > 0, "no connection was made: {:?}", report.failed.first());
    println!("{made} connections made, {} given up by their clients", report.failed.len());
    let probe = probe.finish()?;
    ensure!(probe.lost.is_empty(), "{} of {} datagrams of the known flow are lost", probe.lost.len(), probe.sent);
    flows.all_well()?;
    Ok(())
}

/// Established transfers, and connections all the time on two listeners, while something else happens.
fn during(what: &str, text: impl Fn(&Lab) -> String, flood: impl Fn(&Lab) -> Result<()>) -> Result<Status> {
    const TRANSFERS: usize = 200;
    let lab = Lab::new(2)?;
    let servers = Server::start_all(&lab.servers, &[80, 81, 53])?;
    let agent = start(&lab, &text(&lab))?;
    let transfers = Transfers::open(&lab.clients[0], vip(80), TRANSFERS, Duration::from_millis(250))?;
    let flows = Flows::open(&lab.clients[0], SocketAddr::new(VIPS[1], 80), 20, Duration::from_millis(100))?;
    let storms = [80, 81].map(|port| Storm::start(&lab.clients[0], vip(port), Duration::from_millis(20)));
    let [flooded, other] = storms;
    let before = agent.status()?;
    let began = Instant::now();
    flood(&lab)?;
    let took = began.elapsed();
    let after = agent.status()?;
    println!("{what}: {took:?}; drops {:?}, {:?}", dropped(&after, "web"), dropped(&after, "dns"));
    println!("flows before {:?}, after {:?}", before.flows.ipv4, after.flows.ipv4);
    let (other, flooded) = (other?.finish()?, flooded?.finish()?);
    let share = |report: &ga_tests::traffic::StormReport| {
        let well: u64 = report.answered.values().sum();
        (well, report.failed.len())
    };
    println!("connections (made, failed): {:?} on the other listener, {:?} on the flooded one", share(&other), share(&flooded));
    let reports = transfers.all_well().with_context(|| format!("transfers during {what}"))?;
    arrived(&reports, &servers)?;
    flows.all_well().with_context(|| format!("connections during {what}"))?;
    ensure!(reports.len() == TRANSFERS, "{} transfers", reports.len());
    let (made, failed) = share(&other);
    ensure!(failed == 0 && made > 0, "{failed} connections on the other listener failed, the first with {}", other.failed[0]);
    Ok(after)
}

fn flooded(lab: &Lab) -> String {
    let both = [255, 255];
    head(lab, "flows = 65536")
        + &Lab::listener("web", "tcp", "80", &both, "")
        + &Lab::listener("calm", "tcp", "81", &both, "")
        + &Lab::listener("dns", "udp", "53", &both, "")
}

#[test]
fn a_million_spoofed_syns_harm_nobody_who_is_connected() -> Result<()> {
    let flood = |lab: &Lab| {
        let to = SocketAddrV4::new(VIP4, 80);
        let first = Ipv4Addr::new(10, 66, 0, 0);
        let flood = Flood { kind: Spoofed::Syn, to, first, first_port: 1024, ports: 16, from: 0, count: 1_000_000 };
        flood.send_by_two(&lab.clients[1])
    };
    let status = during("a million SYNs", flooded, flood)?;
    let drops = dropped(&status, "web");
    ensure!(drops.get("admission").is_some_and(|&packets| packets > 0), "nobody was refused: {drops:?}");
    Ok(())
}

#[test]
fn four_times_the_table_in_random_flows_harms_nobody_who_is_connected() -> Result<()> {
    let flood = |lab: &Lab| {
        let to = SocketAddrV4::new(VIP4, 53);
        let first = Ipv4Addr::new(10, 66, 0, 0);
        let flood = Flood { kind: Spoofed::Datagram, to, first, first_port: 1024, ports: 16, from: 0, count: 4 * 65_536 };
        flood.send_by_two(&lab.clients[1])
    };
    let status = during("four times the table", flooded, flood)?;
    let drops = dropped(&status, "dns");
    ensure!(drops.values().sum::<u64>() > 0, "all flows were accepted: {drops:?}");
    Ok(())
}

/// A host behind `near` whose packets cross a link with an MTU of 1,400 bytes that neither end knows of.
fn behind_a_narrow_link(lab: &Lab, near: &Namespace, net: u8) -> Result<[Namespace; 2]> {
    let [router, host] = ["router", "host"].map(|what| Namespace::new(&format!("{}-{what}{net}", lab.name)));
    let (router, host) = (router?, host?);
    for namespace in [near, &router] {
        namespace.run(&["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])?;
    }
    for (from, port, to, mtu) in [(near, "far", &router, "1400"), (&router, "down", &host, "1500")] {
        from.run(&[
            "ip", "link", "add", port, "mtu", mtu, "type", "veth", "peer", "name", "eth0", "mtu", mtu, "netns", &to.name,
        ])?;
        from.run(&["ip", "link", "set", port, "up"])?;
        to.run(&["ip", "link", "set", "eth0", "up"])?;
        // Whole checksums, as on any cable: XDP forwards what it gets.
        for (namespace, device) in [(from, port), (to, "eth0")] {
            namespace.run(&["ethtool", "-K", device, "tx", "off", "tso", "off", "gso", "off"])?;
        }
    }
    for (namespace, device, number) in
        [(near, "far", "0.1"), (&router, "eth0", "0.2"), (&router, "down", "1.1"), (&host, "eth0", "1.2")]
    {
        let number6 = number.replace('.', "::");
        namespace.run(&["ip", "addr", "add", &format!("10.{net}.{number}/24"), "dev", device])?;
        namespace.run(&["ip", "addr", "add", &format!("fd00:{net}:{number6}/64"), "dev", device, "nodad"])?;
    }
    for (namespace, gateway) in [(&host, "1.1"), (&router, "0.1")] {
        let gateway6 = gateway.replace('.', "::");
        namespace.run(&["ip", "-4", "route", "add", "default", "via", &format!("10.{net}.{gateway}")])?;
        namespace.run(&["ip", "-6", "route", "add", "default", "via", &format!("fd00:{net}:{gateway6}")])?;
    }
    near.run(&["ip", "-4", "route", "add", &format!("10.{net}.1.0/24"), "via", &format!("10.{net}.0.2")])?;
    near.run(&["ip", "-6", "route", "add", &format!("fd00:{net}:1::/64"), "via", &format!("fd00:{net}:0::2")])?;
    Ok([router, host])
}

/// Routes of the edge to the host behind `near`.
fn reach(lab: &Lab, near: [IpAddr; 2], net: u8) -> Result<()> {
    let [near4, near6] = near;
    lab.edge.run(&["ip", "-4", "route", "add", &format!("10.{net}.1.0/24"), "via", &near4.to_string()])?;
    lab.edge.run(&["ip", "-6", "route", "add", &format!("fd00:{net}:1::/64"), "via", &near6.to_string()])
}

fn far_addresses(net: u8) -> Result<[IpAddr; 2]> {
    Ok([format!("10.{net}.1.2").parse()?, format!("fd00:{net}:1::2").parse()?])
}

#[test]
fn path_mtu_discovery_works_behind_the_edge_and_before_it() -> Result<()> {
    const BYTES: u64 = 3_000_000;
    let lab = Lab::new(2)?;
    // Server 1 is a router to a far server, client 1 a router to a far client; both ways have a narrow link.
    let [_server_router, far_server] = behind_a_narrow_link(&lab, &lab.servers[0], 71)?;
    let [_client_router, far_client] = behind_a_narrow_link(&lab, &lab.clients[0], 72)?;
    reach(&lab, [ga_tests::lab::server4(1).into(), ga_tests::lab::server6(1).into()], 71)?;
    reach(&lab, [client4(1).into(), ga_tests::lab::client6(1).into()], 72)?;
    let _far = Server::start(&far_server, 1, &[80])?;
    let _near = Server::start(&lab.servers[1], 2, &[81])?;
    let endpoints = |addresses: [IpAddr; 2]| addresses.map(|address| ("private_ip", address, 255));
    let both = "backend_ip_version = \"affinity\"";
    let near = [ga_tests::lab::server4(2).into(), ga_tests::lab::server6(2).into()];
    let text = lab.head()
        + &Lab::listener_to("far", "tcp", "80", &endpoints(far_addresses(71)?), "", both)
        + &Lab::listener_to("near", "tcp", "81", &endpoints(near), "", both);
    let _agent = start(&lab, &text)?;
    for address in VIPS {
        for (what, client, port) in [
            ("a narrow link behind the edge", &lab.clients[1], 80),
            ("a narrow link before the edge", &far_client, 81),
            ("both", &far_client, 80),
        ] {
            let report = transfer(client, SocketAddr::new(address, port), BYTES);
            let report = report.with_context(|| format!("{what}, {address}"))?;
            ensure!(report.sent.bytes() == BYTES, "{what}, {address}: {} bytes", report.sent.bytes());
        }
    }
    // The links are narrow: what does not fit is refused there.
    let refused: u64 =
        lab.servers[0].read(&["cat", "/proc/net/snmp"])?.lines().filter(|line| line.starts_with("Ip:")).count() as u64;
    ensure!(refused == 2, "the kernel counts in another way");
    let created = lab.servers[0].read(&["nstat", "-asz", "IpFragFails", "Ip6OutFragFails"]).unwrap_or_default();
    println!("{created}");
    Ok(())
}
