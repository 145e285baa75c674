//! Endpoints that see the client's address: real hosts that have the VIP too and answer clients themselves, on a link of the edge or
//! behind IP in IP, and hosts that answer by way of the edge.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Result, ensure};
use ga::status::Status;
use ga_tests::{
    lab::{Agent, Lab, VIP4, VIP6, client4, client6, ga_binary, pass_program, server4, server6},
    traffic::{End, Flows, Probe, Server, Storm, Unwrap, ask_many, spread, transfer, until},
};

const VIPS: [IpAddr; 2] = [IpAddr::V4(VIP4), IpAddr::V6(VIP6)];

fn client(vip: IpAddr) -> IpAddr {
    if vip.is_ipv4() { client4(1).into() } else { client6(1).into() }
}

/// A lab whose servers answer through the edge as any router, which does not look at answers; their links carry `mtu` bytes.
fn lab(servers: usize, mtu: &str) -> Result<Lab> {
    let lab = Lab::new(servers)?;
    lab.edge.run(&[
        "sysctl",
        "-qw",
        "net.ipv4.ip_forward=1",
        "net.ipv6.conf.all.forwarding=1",
        "net.ipv4.conf.all.rp_filter=0",
    ])?;
    for (index, server) in lab.servers.iter().enumerate() {
        lab.edge.run(&["ip", "link", "set", &format!("s{}", index + 1), "mtu", mtu])?;
        server.run(&["ip", "link", "set", "eth0", "mtu", mtu])?;
    }
    Ok(lab)
}

/// Configures a server as `ga backend` says; what unpacks IP in IP is up to the test, as kernels may lack the devices.
fn configure(lab: &Lab, number: usize) -> Result<()> {
    let server = &lab.servers[number - 1];
    server.run(&["ip", "link", "set", "lo", "up"])?;
    let (ga, file) = (ga_binary()?.display().to_string(), lab.dir.join("ga.toml").display().to_string());
    for address in [IpAddr::from(server4(number)), server6(number).into()] {
        let script = server.read(&[&ga, "backend", &file, "--commands", "--endpoint", &address.to_string()])?;
        let here: Vec<_> =
            script.lines().filter(|line| !line.contains("ip link")).map(|line| line.replace("ga-4in4", "lo")).collect();
        server.run(&["sh", "-c", &here.join("\n")])?;
    }
    Ok(())
}

/// Serves the VIPs themselves: a datagram's answer has the address that was asked.
fn serve(lab: &Lab, number: usize) -> Result<Server> {
    let addresses = VIPS.into_iter().flat_map(|vip| [80, 53].map(|port| SocketAddr::new(vip, port)));
    Server::start_at(&lab.servers[number - 1], number, addresses.collect())
}

/// The server and the agent.
fn start(lab: &Lab, back: &str) -> Result<(Server, Agent)> {
    let group = format!("preserve_client_ip = \"transparent\"\nreturn = \"{back}\"");
    let listener = |name, protocol, port| Lab::mapped_listener(name, protocol, port, &[255], "", &group);
    lab.configure(&(lab.head() + &listener("web", "tcp", "80") + &listener("dns", "udp", "53")))?;
    configure(lab, 1)?;
    let server = serve(lab, 1)?;
    Ok((server, Agent::start(lab)?))
}

/// TCP and UDP of both families: the server sees the client, whose packets come to the VIP; answers do not meet the edge's eyes.
fn clients_are_seen(lab: &Lab, server: &Server, agent: &Agent) -> Result<()> {
    for (index, vip) in VIPS.into_iter().enumerate() {
        let report = transfer(&lab.clients[0], SocketAddr::new(vip, 80), 5_000_000)?;
        ensure!(report.sent.bytes() == 5_000_000, "only {} bytes were sent", report.sent.bytes());
        let connection = server.connections()[index];
        ensure!(connection.peer.ip() == client(vip), "the server sees {}, not the client", connection.peer);
        ensure!(connection.local == SocketAddr::new(vip, 80), "the client was served at {}", connection.local);

        let report = ask_many(&lab.clients[0], client(vip), SocketAddr::new(vip, 53), 10, 100)?;
        ensure!(report.sent == 1_000 && report.lost.len() <= 1, "{} of {} are lost", report.lost.len(), report.sent);
        let senders = server.datagrams();
        ensure!(senders.keys().filter(|sender| sender.ip() == client(vip)).count() == 10, "datagrams came from {senders:?}");
    }
    ensure!(server.peers() == VIPS.map(client).into(), "others were seen: {:?}", server.peers());
    let status: Status = agent.status()?;
    for (path, endpoint) in status.endpoints() {
        let counters = endpoint.counters;
        ensure!(counters.forward_packets > 400 && counters.return_packets == 0, "{path:?}: {counters:?}");
    }
    Ok(())
}

// proves: F03, F06
#[test]
fn endpoints_on_the_link_see_clients_and_answer_them() -> Result<()> {
    let lab = lab(1, "1500")?;
    let (server, agent) = start(&lab, "l2")?;
    clients_are_seen(&lab, &server, &agent)
}

// proves: F03, F06
#[test]
fn endpoints_that_unpack_ip_in_ip_see_clients_and_answer_them() -> Result<()> {
    // Room for an outer header.
    let lab = lab(1, "1600")?;
    // What is unpacked here are packets as they were sent, which GRO would join; XDP makes the cable poll in its stead.
    let _xdp = pass_program(&lab.servers[0], "eth0")?;
    lab.servers[0].run(&["ethtool", "-K", "eth0", "gro", "off"])?;
    let unwrap = Unwrap::start(&lab.servers[0])?;
    let (server, agent) = start(&lab, "ipip")?;
    clients_are_seen(&lab, &server, &agent)?;
    let [v4_in_4, .., v6_in_6] = unwrap.counts();
    ensure!(v4_in_4 > 1_000 && v6_in_6 > 1_000, "unpacked: {:?}", unwrap.counts());
    Ok(())
}

#[test]
fn clients_of_endpoints_that_unpack_ip_in_ip_hear_what_fits() -> Result<()> {
    const BYTES: u64 = 5_000_000;
    let lab = lab(1, "1500")?;
    let _xdp = pass_program(&lab.servers[0], "eth0")?;
    // What is answered where it came from arrives on a veth only where a native program runs.
    let _native = pass_program(&lab.clients[0], "eth0")?;
    lab.servers[0].run(&["ethtool", "-K", "eth0", "gro", "off"])?;
    let _unwrap = Unwrap::start(&lab.servers[0])?;
    let (_server, agent) = start(&lab, "ipip")?;
    for (vip, mtu) in VIPS.into_iter().zip(["mtu 1480", "mtu 1460"]) {
        let report = transfer(&lab.clients[0], SocketAddr::new(vip, 80), BYTES)?;
        ensure!(report.sent.bytes() == BYTES, "only {} bytes were sent", report.sent.bytes());
        let known = lab.clients[0].read(&["ip", "route", "get", &vip.to_string()])?;
        ensure!(known.contains(mtu), "the client knows of the path to {vip}: {known}");
    }
    let drops = agent.status()?.drops;
    ensure!(drops.iter().any(|drop| drop.reason == "too_big" && drop.packets > 0), "nothing was refused: {drops:?}");
    Ok(())
}

/// A TCP listener to three servers with these weights, which forgets what is silent for ten seconds.
fn weighted(lab: &Lab, weights: [u8; 3]) -> String {
    let group = "preserve_client_ip = \"transparent\"\nreturn = \"l2\"";
    lab.head() + &Lab::mapped_listener("web", "tcp", "80", &weights, "idle_timeout = 10", group)
}

fn is_in_transition(agent: &Agent) -> Result<bool> {
    Ok(agent.status()?.listeners().any(|(_, listener)| listener.in_transition))
}

// proves: C05
#[test]
fn changes_of_weights_under_load_break_no_connection() -> Result<()> {
    let lab = lab(3, "1600")?;
    lab.configure(&weighted(&lab, [200, 100, 50]))?;
    (1..=3).try_for_each(|number| configure(&lab, number))?;
    let _servers = (1..=3).map(|number| serve(&lab, number)).collect::<Result<Vec<_>>>()?;
    let mut agent = Agent::start(&lab)?;
    let pause = Duration::from_millis(20);
    let flows = [
        Flows::open(&lab.clients[0], SocketAddr::new(VIPS[0], 80), 40, pause)?,
        Flows::open(&lab.clients[0], SocketAddr::new(VIPS[1], 80), 40, pause)?,
    ];
    let storm = Storm::start(&lab.clients[1], SocketAddr::new(VIPS[0], 80), Duration::from_millis(10))?;
    ensure!(!is_in_transition(&agent)?, "nothing has changed yet");
    let remembered = || -> Result<u64> { Ok(agent.status()?.listeners().map(|(_, listener)| listener.active_flows).sum()) };
    ensure!(remembered()? == 0, "flows are remembered, and nothing has changed");
    for weights in [[1, 100, 200], [255, 255, 255], [0, 0, 1]] {
        lab.configure(&weighted(&lab, weights))?;
        agent.ok(&["reload"])?;
        flows.iter().try_for_each(|flows| flows.wait_for(100))?;
        ensure!(is_in_transition(&agent)?, "a change that nobody knows of");
    }
    // All that began at the first two servers: most of them.
    ensure!(remembered()? > 40, "too few flows are remembered for that one server has all slots");
    agent.stop()?;
    agent = Agent::start(&lab)?;
    flows.iter().try_for_each(|flows| flows.wait_for(100))?;
    lab.configure(&weighted(&lab, [0, 1, 0]))?;
    agent.ok(&["reload"])?;
    flows.iter().try_for_each(|flows| flows.wait_for(100))?;
    let listed = agent.ok(&["flows", "--listener", "web"])?;
    ensure!(listed.contains(&client4(1).to_string()) && listed.contains(&server4(1).to_string()), "{listed}");
    let storm = storm.all_well()?;
    ensure!(storm.answered.len() == 3, "new connections went to {:?}", storm.answered);
    // Long after the last change older flows still go where they began, and when they are over nothing is left.
    std::thread::sleep(Duration::from_secs(22));
    flows.iter().try_for_each(|flows| flows.wait_for(100))?;
    ensure!(is_in_transition(&agent)?, "open flows are not remembered any more");
    flows.into_iter().try_for_each(|flows| flows.all_well().map(|_| ()))?;
    until("the end of the transition", Duration::from_secs(60), || Ok((!is_in_transition(&agent)?).then_some(())))
}

const GATEWAY: &str = "preserve_client_ip = \"transparent\"\nreturn = \"gateway\"";

/// A lab whose edge forwards nothing but what `ga` does, and whose servers have another way to clients than the edge, but for what
/// `ga backend` tells them of these listeners.
fn gateway(text: &str, servers: usize) -> Result<Lab> {
    let lab = Lab::new(servers)?;
    lab.configure(&(lab.head() + text))?;
    let (ga, file) = (ga_binary()?.display().to_string(), lab.dir.join("ga.toml").display().to_string());
    for (number, server) in (1..).zip(&lab.servers) {
        server.run(&["ip", "link", "add", "other", "type", "veth", "peer", "name", "elsewhere"])?;
        for device in ["other", "elsewhere"] {
            server.run(&["ip", "link", "set", device, "up"])?;
        }
        for family in ["-4", "-6"] {
            server.run(&["ip", family, "route", "replace", "default", "dev", "other"])?;
        }
        server.run(&["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1"])?;
        for (address, edge) in [
            (IpAddr::from(server4(number)), format!("10.0.{number}.1")),
            (server6(number).into(), format!("fd00:10:{number}::1")),
        ] {
            let script =
                server.read(&[&ga, "backend", &file, "--commands", "--endpoint", &address.to_string(), "--edge", &edge])?;
            // It may run again and again.
            server.run(&["sh", "-c", &script])?;
            server.run(&["sh", "-c", &script])?;
        }
    }
    Ok(lab)
}

fn mapped(name: &str, protocol: &str, port: u16, to: u16, weights: &[u8]) -> String {
    let group = format!("{GATEWAY}\nport_mapping = [{{ listener = {port}, endpoint = {to} }}]");
    Lab::mapped_listener(name, protocol, &port.to_string(), weights, "", &group)
}

// proves: F03, F06
#[test]
fn endpoints_that_answer_by_way_of_the_edge_see_clients() -> Result<()> {
    let lab = gateway(&(mapped("web", "tcp", 80, 8080, &[255]) + &mapped("dns", "udp", 53, 5353, &[255])), 1)?;
    let server = Server::start(&lab.servers[0], 1, &[8080, 5353])?;
    let agent = Agent::start(&lab)?;
    for (index, vip) in VIPS.into_iter().enumerate() {
        let here = if vip.is_ipv4() { IpAddr::from(server4(1)) } else { server6(1).into() };
        let report = transfer(&lab.clients[0], SocketAddr::new(vip, 80), 5_000_000)?;
        ensure!(report.sent.bytes() == 5_000_000, "only {} bytes were sent", report.sent.bytes());
        let connection = server.connections()[index];
        ensure!(connection.peer.ip() == client(vip), "the server sees {}, not the client", connection.peer);
        ensure!(connection.local == SocketAddr::new(here, 8080), "the client was served at {}", connection.local);

        let report = ask_many(&lab.clients[0], client(vip), SocketAddr::new(vip, 53), 10, 100)?;
        ensure!(report.sent == 1_000 && report.lost.len() <= 1, "{} of {} are lost", report.lost.len(), report.sent);
        let senders = server.datagrams();
        ensure!(senders.keys().filter(|sender| sender.ip() == client(vip)).count() == 10, "datagrams came from {senders:?}");
    }
    ensure!(server.peers() == VIPS.map(client).into(), "others were seen: {:?}", server.peers());
    let status: Status = agent.status()?;
    for (path, endpoint) in status.endpoints() {
        let counters = endpoint.counters;
        ensure!(counters.forward_packets > 400 && counters.return_packets > 400, "{path:?}: {counters:?}");
    }
    let flows = agent.ok(&["flows", "--output", "json"])?;
    let of_client = format!("\"egress\": \"{}", client4(1));
    ensure!(flows.contains(&of_client) || flows.contains(&of_client.replace(": ", ":")), "no flow keeps its client:\n{flows}");
    Ok(())
}

#[test]
fn the_way_back_through_the_edge_is_explained() -> Result<()> {
    let lab = gateway(&mapped("web", "tcp", 80, 8080, &[255]), 1)?;
    let _server = Server::start(&lab.servers[0], 1, &[8080])?;
    let agent = Agent::start(&lab)?;
    let (client, vip, server) = (client4(1), VIP4, server4(1));
    let trace = |from: String, to: String| agent.ok(&["trace", &from, &to]);
    let opening = trace(format!("{client}:4000"), format!("{vip}:80/tcp"))?;
    let kept = format!("{client}:4000 is kept, to which {server}:8080 would answer by way of this edge: free");
    ensure!(opening.contains(&kept), "not explained:\n{opening}");
    ensure!(opening.contains(&format!("from {client}:4000 to {server}:8080")), "not rewritten:\n{opening}");
    let stranger = trace(format!("{server}:8080"), format!("{client}:4000/tcp"))?;
    ensure!(stranger.contains("not_ours"), "no flow, and not the host's:\n{stranger}");
    let flows = Flows::open(&lab.clients[0], SocketAddr::new(vip.into(), 80), 1, Duration::from_millis(50))?;
    let Some(hello) = flows.hellos.first() else { anyhow::bail!("no connection") };
    let answer = trace(format!("{server}:8080"), format!("{}/tcp", hello.peer))?;
    ensure!(answer.contains(&format!("from {vip}:80 to {}", hello.peer)), "not known:\n{answer}");
    flows.all_well()?;
    Ok(())
}

#[test]
fn weights_share_clients_out_and_flows_outlive_reloads_kills_and_changes_of_mode() -> Result<()> {
    let text = |weights: &[u8]| {
        Lab::mapped_listener("web", "tcp", "80", weights, "", GATEWAY)
            + &Lab::mapped_listener("dns", "udp", "53", weights, "", GATEWAY)
    };
    let lab = gateway(&text(&[255, 85]), 2)?;
    let servers = Server::start_all(&lab.servers, &[80, 53])?;
    let mut agent = Agent::start(&lab)?;
    let served = spread(&lab.clients[1], client4(2).into(), 0, SocketAddr::new(VIP4.into(), 80), 400)?;
    let first = served.get(&1).copied().unwrap_or_default();
    ensure!((260..=340).contains(&first), "the first server has {first} of 400 at 3 to 1: {served:?}");

    let flows: Vec<_> = VIPS
        .map(|vip| Flows::open(&lab.clients[0], SocketAddr::new(vip, 80), 20, Duration::from_millis(100)))
        .into_iter()
        .collect::<Result<_>>()?;
    let probe = Probe::start(&lab.clients[1], SocketAddr::new(VIP4.into(), 53))?;
    let storm = Storm::start(&lab.clients[1], SocketAddr::new(VIP6.into(), 80), Duration::from_millis(20))?;
    let head = lab.head();
    for weights in [[0, 255], [255, 0], [100, 100]] {
        lab.configure(&(head.clone() + &text(&weights)))?;
        agent.ok(&["reload"])?;
        flows.iter().try_for_each(|flows| flows.wait_for(40))?;
    }
    agent.kill()?;
    flows.iter().try_for_each(|flows| flows.wait_for(40))?;
    let agent = Agent::start(&lab)?;
    flows.iter().try_for_each(|flows| flows.wait_for(40))?;
    ensure!(storm.all_well()?.answered.values().sum::<u64>() > 20, "hardly any connection was made");
    let report = probe.finish()?;
    ensure!(report.lost.len() <= 1, "{} of {} datagrams are lost", report.lost.len(), report.sent);
    // What sees clients goes on seeing them; new flows do not.
    let hidden = Lab::listener("web", "tcp", "80", &[255, 255], "") + &Lab::listener("dns", "udp", "53", &[255, 255], "");
    lab.configure(&(head + &hidden))?;
    agent.ok(&["reload"])?;
    flows.iter().try_for_each(|flows| flows.wait_for(40))?;
    let peers: BTreeSet<IpAddr> = servers.iter().flat_map(Server::peers).collect();
    ensure!(peers.iter().all(|peer| (1..=2).any(|n| *peer == client4(n) || *peer == client6(n))), "others were seen: {peers:?}");
    flows.into_iter().try_for_each(|flows| flows.all_well().map(drop))
}

#[test]
fn an_idle_connection_is_closed_at_the_endpoint_in_the_clients_name() -> Result<()> {
    let lab = gateway(&Lab::mapped_listener("web", "tcp", "80", &[255], "idle_timeout = 10", GATEWAY), 1)?;
    let server = Server::start(&lab.servers[0], 1, &[80])?;
    let _agent = Agent::start(&lab)?;
    let silent = Duration::from_secs(600);
    let _flows: Vec<_> =
        VIPS.map(|vip| Flows::open(&lab.clients[0], SocketAddr::new(vip, 80), 1, silent)).into_iter().collect::<Result<_>>()?;
    until("resets at the server", Duration::from_secs(20), || {
        let ends = server.connections().into_iter().filter_map(|connection| connection.end);
        Ok((ends.filter(|(end, _)| *end == End::Reset).count() == 2).then_some(()))
    })
}
