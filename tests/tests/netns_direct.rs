//! Endpoints that see the client's address and answer clients themselves: real hosts that have the VIP too, on a link of the
//! edge or behind IP in IP.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use ga::status::Status;
use ga_tests::{
    lab::{Agent, Lab, Namespace, VIP4, VIP6, client4, client6, ga_binary, pass_program, server4, server6},
    traffic::{Server, Unwrap, ask_many, transfer},
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
fn configure(lab: &Lab, server: &Namespace) -> Result<()> {
    server.run(&["ip", "link", "set", "lo", "up"])?;
    let (ga, file) = (ga_binary()?.display().to_string(), lab.dir.join("ga.toml").display().to_string());
    for address in [IpAddr::from(server4(1)), server6(1).into()] {
        let script = server.read(&[&ga, "backend", &file, "--commands", "--endpoint", &address.to_string()])?;
        let here: Vec<_> =
            script.lines().filter(|line| !line.contains("ip link")).map(|line| line.replace("ga-4in4", "lo")).collect();
        server.run(&["sh", "-c", &here.join("\n")])?;
    }
    Ok(())
}

/// Serves the VIPs themselves: a datagram's answer has the address that was asked.
fn serve(server: &Namespace) -> Result<Server> {
    let addresses = VIPS.into_iter().flat_map(|vip| [80, 53].map(|port| SocketAddr::new(vip, port)));
    Server::start_at(server, 1, addresses.collect())
}

/// The server and the agent.
fn start(lab: &Lab, back: &str) -> Result<(Server, Agent)> {
    let group = format!("preserve_client_ip = \"transparent\"\nreturn = \"{back}\"");
    let listener = |name, protocol, port| Lab::mapped_listener(name, protocol, port, &[255], "", &group);
    lab.configure(&(lab.head() + &listener("web", "tcp", "80") + &listener("dns", "udp", "53")))?;
    configure(lab, &lab.servers[0])?;
    let server = serve(&lab.servers[0])?;
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
