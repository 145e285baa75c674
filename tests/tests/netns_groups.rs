//! Endpoint groups with real clients and servers: how new flows are split, who takes over, and what happens where nobody probes.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ga::status::{Endpoint, EndpointState};
use ga_tests::{
    lab::{Agent, Lab, VIP4, client4, pass_program, server4},
    traffic::{Server, ask_many, block_in, port_is_open, spread, until},
};

const PATIENCE: Duration = Duration::from_secs(60);
const WEB: SocketAddr = SocketAddr::new(IpAddr::V4(VIP4), 80);

/// One IPv4 instance.
fn head(lab: &Lab) -> String {
    let head = lab.head();
    let lines = head.lines().map(|line| match line.split(" = ").next() {
        Some("vips") => format!("vips = [\"{VIP4}\"]\n"),
        Some(_) | None => format!("{line}\n"),
    });
    lines.collect()
}

fn group(name: &str, keys: &str, addresses: &[Ipv4Addr]) -> String {
    let mut text = format!("\n[[instance.listener.endpoint_group]]\nname = \"{name}\"\nregion = \"{name}\"\n{keys}\n");
    for address in addresses {
        text += &format!("\n[[instance.listener.endpoint_group.endpoint]]\ntype = \"private_ip\"\naddress = \"{address}\"\n");
    }
    text
}

fn listener(protocol: &str, port: u16, groups: &str) -> String {
    format!("\n[[instance.listener]]\nname = \"{protocol}{port}\"\nprotocol = \"{protocol}\"\nports = \"{port}\"\n{groups}")
}

fn start(lab: &Lab, listeners: &str) -> Result<Agent> {
    lab.configure(&(head(lab) + listeners))?;
    Agent::start(lab)
}

fn endpoint(agent: &Agent, address: Ipv4Addr) -> Result<Endpoint> {
    let status = agent.status()?;
    let found = status.endpoints().find(|(path, _)| path.address == address.to_string());
    Ok(found.with_context(|| format!("{address} is in the status"))?.1.clone())
}

// proves: B12, B15, B20
#[test]
fn the_near_group_keeps_its_ratio_and_the_far_one_gets_the_rest_by_tcp_and_udp() -> Result<()> {
    let lab = Lab::new(2)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    // The far one stands first in the file.
    let groups =
        group("far", "latency_ms = 50", &[server4(1)]) + &group("near", "latency_ms = 5\ntraffic_ratio = 50", &[server4(2)]);
    let agent = start(&lab, &(listener("tcp", 80, &groups) + &listener("udp", 53, &groups)))?;
    let status = agent.ok(&["status"])?;
    ensure!(status.contains("near") && status.contains("5.0 ms") && status.contains("50 %"), "{status}");

    let by_server = spread(&lab.clients[0], client4(1).into(), 10_000, WEB, 6_000)?;
    let near = by_server.get(&2).copied().unwrap_or_default();
    println!("TCP: {near} of 6000 to the near group");
    ensure!((2_880..=3_120).contains(&near), "{near} of 6000 connections went to the near group");

    let before = endpoint(&agent, server4(2))?.counters.new_flows;
    ensure!(before == near as u64, "the status says {before}");
    ask_many(&lab.clients[0], client4(1).into(), SocketAddr::new(VIP4.into(), 53), 3_000, 1)?;
    let status = agent.status()?;
    let flows = |address: Ipv4Addr| {
        let of = status.endpoints().filter(|(path, _)| path.listener == "udp53" && path.address == address.to_string());
        of.map(|(_, endpoint)| endpoint.counters.new_flows).sum::<u64>()
    };
    let (near, far) = (flows(server4(2)), flows(server4(1)));
    println!("UDP: {near} of {} to the near group", near + far);
    ensure!(near + far == 3_000 && near.abs_diff(1_500) <= 100, "{near} of {} flows went to the near group", near + far);
    Ok(())
}

// proves: E12
#[test]
fn when_all_are_unhealthy_clients_are_refused_at_once_or_tried_anyway() -> Result<()> {
    let lab = Lab::new(1)?;
    let checked = "health_check = { protocol = \"tcp\", port = 81, interval = 1, threshold = 2 }";
    let groups = group("only", checked, &[server4(1)]);
    // A veth delivers what XDP sends back only to a far end that runs XDP itself.
    let _far_end = pass_program(&lab.clients[0], "eth0")?;
    let _server = Server::start(&lab.servers[0], 1, &[80])?;
    let agent = start(&lab, &listener("tcp", 80, &groups))?;
    until("a verdict", PATIENCE, || Ok((endpoint(&agent, server4(1))?.state == EndpointState::Unhealthy).then_some(())))?;
    let begin = Instant::now();
    let open = block_in(&lab.clients[0], PATIENCE, || port_is_open(WEB))?;
    ensure!(!open && begin.elapsed() < Duration::from_secs(5), "refused: {open}, after {:?}", begin.elapsed());
    ensure!(agent.drops("tcp80")?.get("no_endpoint").copied().unwrap_or_default() > 0, "the refusal is counted");

    let open = listener("tcp", 80, &groups).replace("ports = \"80\"\n", "ports = \"80\"\nall_unhealthy = \"fail_open\"\n");
    lab.configure(&(head(&lab) + &open))?;
    agent.ok(&["reload"])?;
    ensure!(block_in(&lab.clients[0], PATIENCE, || port_is_open(WEB))?, "all endpoints are tried when the listener fails open");
    Ok(())
}

// proves: C08
#[test]
fn a_dead_endpoint_that_nobody_probes_is_tried_then_left_and_clients_succeed() -> Result<()> {
    let lab = Lab::new(2)?;
    let _server = Server::start(&lab.servers[0], 1, &[80])?;
    // Packets reach the second server, where nobody has that address: they vanish.
    let dead = Ipv4Addr::new(10, 99, 0, 2);
    lab.edge.run(&["ip", "route", "add", "10.99.0.2/32", "via", &server4(2).to_string()])?;
    let agent = start(&lab, &listener("tcp", 80, &group("only", "", &[server4(1), dead])))?;

    let begin = Instant::now();
    let by_server = spread(&lab.clients[0], client4(1).into(), 0, WEB, 32)?;
    println!("32 connections, half of them first to a dead endpoint: {:?}", begin.elapsed());
    ensure!(by_server.get(&1) == Some(&32), "{by_server:?}");
    let seen = endpoint(&agent, dead)?;
    ensure!(seen.counters.new_flows >= 3, "it was tried: {seen:?}");
    ensure!(agent.status()?.flow_events.get("endpoint_failed").copied().unwrap_or_default() >= 3, "failures are counted");
    until("the pause", PATIENCE, || Ok(agent.log().contains("does not answer clients").then_some(())))?;
    until("its end", PATIENCE, || Ok(agent.log().contains("is tried again").then_some(())))?;
    let after = endpoint(&agent, dead)?;
    ensure!(after.state == EndpointState::Active && after.share == 0.5, "{after:?}");
    Ok(())
}
