//! Floods of new flows: who is connected stays connected, other listeners do not notice, and what is refused is counted.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ga_tests::{
    lab::{Agent, Lab, VIP4, VIP6},
    traffic::{Flood, Flows, Server, Spoofed, Storm, StormReport, Transfers, arrived},
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

/// Established transfers, and connections all the time on two listeners, while something else happens. Returns the drops of
/// `listener`, and what happened in flow memory.
fn during(
    what: &str,
    listener: &str,
    text: impl Fn(&Lab) -> String,
    flood: impl Fn(&Lab) -> Result<()>,
) -> Result<[BTreeMap<String, u64>; 2]> {
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
    println!("{what}: {took:?}; drops {:?}, {:?}", agent.drops("web")?, agent.drops("dns")?);
    println!("flows before {:?}, after {:?}", before.flows.ipv4, after.flows.ipv4);
    let (other, flooded) = (other?.finish()?, flooded?.finish()?);
    let share = |report: &StormReport| {
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
    Ok([agent.drops(listener)?, after.flow_events])
}

/// Three listeners; `web` and `dns` are further keys of those that are flooded.
fn three(lab: &Lab, web: &str, dns: &str) -> String {
    let both = [255, 255];
    head(lab, "flows = 65536\nnat_ports = \"1024~65535\"")
        + &Lab::listener("web", "tcp", "80", &both, web)
        + &Lab::listener("calm", "tcp", "81", &both, "")
        + &Lab::listener("dns", "udp", "53", &both, dns)
}

fn flood(kind: Spoofed, port: u16, count: u32) -> Flood {
    let (to, first) = (SocketAddrV4::new(VIP4, port), Ipv4Addr::new(10, 66, 0, 0));
    Flood { kind, to, first, first_port: 1024, ports: 16, from: 0, count }
}

fn million_syns(lab: &Lab) -> Result<()> {
    flood(Spoofed::Syn, 80, 1_000_000).send_by_two(&lab.clients[1])
}

#[test]
fn a_million_spoofed_syns_harm_nobody_who_is_connected() -> Result<()> {
    // Without an allowance of its own: never answered flows make room for others.
    let [_, events] = during("a million SYNs", "web", |lab| three(lab, "", ""), million_syns)?;
    let gave_way: u64 = ["evicted", "port_reused"].iter().filter_map(|event| events.get(*event)).sum();
    ensure!(gave_way > 100_000, "hardly anybody made room: {events:?}");
    Ok(())
}

#[test]
fn what_is_above_a_listeners_allowance_is_refused_and_counted() -> Result<()> {
    let text = |lab: &Lab| three(lab, "max_new_flows_per_second = 1000", "");
    let [drops, _] = during("a million SYNs, 1,000 a second allowed", "web", text, million_syns)?;
    ensure!(drops.get("admission").is_some_and(|&packets| packets > 500_000), "hardly anybody was refused: {drops:?}");
    Ok(())
}

#[test]
fn four_times_the_table_in_random_flows_harms_nobody_who_is_connected() -> Result<()> {
    // The endpoints answer all of them, so that these flows are as good as others: only the allowance keeps them out.
    let text = |lab: &Lab| three(lab, "", "max_new_flows_per_second = 1000\nidle_timeout = 20");
    let random = |lab: &Lab| flood(Spoofed::Datagram, 53, 4 * 65_536).send_by_two(&lab.clients[1]);
    let [drops, _] = during("four times the table", "dns", text, random)?;
    ensure!(drops.get("admission").is_some_and(|&packets| packets > 100_000), "hardly anybody was refused: {drops:?}");
    Ok(())
}
