//! Endpoints that see the client's address and answer clients themselves: real hosts that have the VIP too, on a link of the
//! edge or behind IP in IP.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use ga::status::Status;
use ga_tests::{
    lab::{Agent, Lab, Namespace, VIP4, VIP6, client4, client6},
    traffic::{Server, Unwrap, ask_many, transfer},
};

const VIPS: [IpAddr; 2] = [IpAddr::V4(VIP4), IpAddr::V6(VIP6)];

fn client(vip: IpAddr) -> IpAddr {
    if vip.is_ipv4() { client4(1).into() } else { client6(1).into() }
}

/// A lab whose servers have the VIPs and answer through the edge as any router, which does not look at answers.
fn lab(servers: usize) -> Result<Lab> {
    let lab = Lab::new(servers)?;
    lab.edge.run(&[
        "sysctl",
        "-qw",
        "net.ipv4.ip_forward=1",
        "net.ipv6.conf.all.forwarding=1",
        "net.ipv4.conf.all.rp_filter=0",
    ])?;
    for (index, server) in lab.servers.iter().enumerate() {
        owns_the_vips(server)?;
        // Room for an outer header.
        lab.edge.run(&["ip", "link", "set", &format!("s{}", index + 1), "mtu", "1600"])?;
        server.run(&["ip", "link", "set", "eth0", "mtu", "1600"])?;
    }
    Ok(lab)
}

fn owns_the_vips(server: &Namespace) -> Result<()> {
    let [arp, filter] = ["net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.rp_filter=0"];
    server.run(&["sysctl", "-qw", arp, "net.ipv4.conf.all.arp_announce=2", filter])?;
    server.run(&["ip", "link", "set", "lo", "up"])?;
    server.run(&["ip", "addr", "add", &format!("{VIP4}/32"), "dev", "lo"])?;
    server.run(&["ip", "addr", "add", &format!("{VIP6}/128"), "dev", "lo", "nodad"])
}

/// Serves the VIPs themselves: a datagram's answer has the address that was asked.
fn serve(server: &Namespace) -> Result<Server> {
    let addresses = VIPS.into_iter().flat_map(|vip| [80, 53].map(|port| SocketAddr::new(vip, port)));
    Server::start_at(server, 1, addresses.collect())
}

fn start(lab: &Lab, back: &str) -> Result<Agent> {
    let group = format!("preserve_client_ip = \"transparent\"\nreturn = \"{back}\"");
    let listener = |name, protocol, port| Lab::mapped_listener(name, protocol, port, &[255], "", &group);
    lab.configure(&(lab.head() + &listener("web", "tcp", "80") + &listener("dns", "udp", "53")))?;
    Agent::start(lab)
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
    let lab = lab(1)?;
    let server = serve(&lab.servers[0])?;
    let agent = start(&lab, "l2")?;
    clients_are_seen(&lab, &server, &agent)
}

// proves: F03, F06
#[test]
fn endpoints_that_unpack_ip_in_ip_see_clients_and_answer_them() -> Result<()> {
    let lab = lab(1)?;
    let server = serve(&lab.servers[0])?;
    let unwrap = Unwrap::start(&lab.servers[0])?;
    let agent = start(&lab, "ipip")?;
    clients_are_seen(&lab, &server, &agent)?;
    let [v4_in_4, .., v6_in_6] = unwrap.counts();
    ensure!(v4_in_4 > 1_000 && v6_in_6 > 1_000, "unpacked: {:?}", unwrap.counts());
    Ok(())
}
