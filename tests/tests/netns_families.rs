//! Clients of one family, endpoints of the other: real stacks on both sides of the translation.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use ga::status::Status;
use ga_tests::{
    lab::{Agent, EGRESS4, EGRESS6, Lab, VIP4, VIP6, client4, client6, pass_program, server4, server6},
    traffic::{Server, ask_many, transfer},
};

const VIPS: [IpAddr; 2] = [IpAddr::V4(VIP4), IpAddr::V6(VIP6)];

fn client(vip: IpAddr) -> IpAddr {
    if vip.is_ipv4() { client4(1).into() } else { client6(1).into() }
}

/// TCP and UDP listeners at port 80 whose endpoint is server 1 in IPv6, and at port 81 the same in IPv4.
fn fixed() -> String {
    let one = |name, protocol, port, address, version| {
        let group = format!("backend_ip_version = \"{version}\"");
        Lab::listener_to(name, protocol, port, &[("private_ip", address, 255)], "", &group)
    };
    one("web6", "tcp", "80", server6(1).into(), "ipv6")
        + &one("dns6", "udp", "80", server6(1).into(), "ipv6")
        + &one("web4", "tcp", "81", server4(1).into(), "ipv4")
        + &one("dns4", "udp", "81", server4(1).into(), "ipv4")
}

fn start(lab: &Lab, text: &str) -> Result<Agent> {
    lab.configure(text)?;
    Agent::start(lab)
}

fn told(status: &Status) -> u64 {
    status.drops.iter().filter(|drop| drop.reason == "too_big").map(|drop| drop.packets).sum()
}

// proves: D10
#[test]
fn clients_of_both_families_are_served_by_endpoints_of_the_one_that_is_set() -> Result<()> {
    const BYTES: u64 = 30_000_000;
    let lab = Lab::new(1)?;
    let server = Server::start(&lab.servers[0], 1, &[80, 81])?;
    let agent = start(&lab, &(lab.head() + &fixed()))?;
    let mut served = 0;
    for (port, egress) in [(80, IpAddr::from(EGRESS6)), (81, EGRESS4.into())] {
        for vip in VIPS {
            let report = transfer(&lab.clients[0], SocketAddr::new(vip, port), BYTES)?;
            ensure!(report.sent.bytes() == BYTES, "{vip}:{port}: {} bytes were sent", report.sent.bytes());
            let connection = server.connections()[served];
            ensure!(connection.peer.ip() == egress, "{vip}:{port}: the server sees {}", connection.peer);
            served += 1;
            let datagrams = ask_many(&lab.clients[0], client(vip), SocketAddr::new(vip, port), 20, 50)?;
            ensure!(datagrams.sent == 1_000 && datagrams.lost.len() <= 1, "{vip}:{port}: lost are {:?}", datagrams.lost);
        }
        let senders = server.datagrams();
        let from = senders.keys().filter(|sender| sender.ip() == egress).count();
        ensure!(from == 40, "{from} of 40 senders came from {egress}: {senders:?}");
    }
    for (path, endpoint) in agent.status()?.endpoints() {
        let counters = endpoint.counters;
        ensure!(counters.new_flows >= 2 && counters.return_packets > 500, "{path:?}: {counters:?}");
    }
    Ok(())
}

/// Bytes of a datagram that the client's stack takes whole, by what it knows of the path.
fn path_mtu(lab: &Lab, vip: IpAddr) -> Result<String> {
    lab.clients[0].read(&["ip", "route", "get", &vip.to_string()])
}

#[test]
fn what_does_not_fit_in_the_other_family_is_refused_and_senders_hear_of_it() -> Result<()> {
    let lab = Lab::new(1)?;
    // Answers to what came by a veth arrive only where a native program runs.
    let _native = pass_program(&lab.clients[0], "eth0")?;
    for (namespace, device) in [(&lab.edge, "s1"), (&lab.servers[0], "eth0")] {
        namespace.run(&["ip", "link", "set", device, "mtu", "1400"])?;
    }
    let _server = Server::start(&lab.servers[0], 1, &[80, 81])?;
    let agent = start(&lab, &(lab.head() + &fixed()))?;
    for vip in VIPS {
        for port in [80, 81] {
            let report = transfer(&lab.clients[0], SocketAddr::new(vip, port), 3_000_000);
            report.with_context(|| format!("{vip}:{port}"))?;
        }
    }
    // Segments were asked for that fit: nothing was refused.
    ensure!(told(&agent.status()?) == 0, "{} packets did not fit", told(&agent.status()?));
    // Datagrams are as long as they are.
    for (vip, port, length, mtu) in [(VIPS[0], 80, 1_400 - 28, "mtu 1380"), (VIPS[1], 81, 1_440 - 48, "mtu 1420")] {
        let before = told(&agent.status()?);
        lab.clients[0].within(move || -> Result<()> {
            let socket = std::net::UdpSocket::bind(SocketAddr::new(client(vip), 0))?;
            socket.connect(SocketAddr::new(vip, port))?;
            socket.send(&vec![7; length])?;
            Ok(())
        })??;
        ga_tests::traffic::until("what the client knows of the path", std::time::Duration::from_secs(20), || {
            Ok(path_mtu(&lab, vip)?.contains(mtu).then_some(()))
        })
        .with_context(|| format!("{vip}: {}", path_mtu(&lab, vip).unwrap_or_default()))?;
        ensure!(told(&agent.status()?) == before + 1, "{vip}: {} packets did not fit", told(&agent.status()?) - before);
    }
    Ok(())
}
