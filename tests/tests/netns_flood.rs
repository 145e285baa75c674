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

/// Established transfers, and connections all the time on two listeners, while something else happens.
fn during(
    what: &str,
    listener: &str,
    text: impl Fn(&Lab) -> String,
    flood: impl Fn(&Lab) -> Result<()>,
) -> Result<BTreeMap<String, u64>> {
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
    agent.drops(listener)
}

fn flooded(lab: &Lab) -> String {
    let both = [255, 255];
    head(lab, "flows = 65536\nnat_ports = \"1024~65535\"")
        + &Lab::listener("web", "tcp", "80", &both, "")
        + &Lab::listener("calm", "tcp", "81", &both, "")
        + &Lab::listener("dns", "udp", "53", &both, "")
}

#[test]
#[ignore = "the rules of admission are not there yet"]
fn a_million_spoofed_syns_harm_nobody_who_is_connected() -> Result<()> {
    let flood = |lab: &Lab| {
        let to = SocketAddrV4::new(VIP4, 80);
        let first = Ipv4Addr::new(10, 66, 0, 0);
        let flood = Flood { kind: Spoofed::Syn, to, first, first_port: 1024, ports: 16, from: 0, count: 1_000_000 };
        flood.send_by_two(&lab.clients[1])
    };
    let drops = during("a million SYNs", "web", flooded, flood)?;
    ensure!(drops.get("admission").is_some_and(|&packets| packets > 0), "nobody was refused: {drops:?}");
    Ok(())
}

#[test]
#[ignore = "the rules of admission are not there yet"]
fn four_times_the_table_in_random_flows_harms_nobody_who_is_connected() -> Result<()> {
    let flood = |lab: &Lab| {
        let to = SocketAddrV4::new(VIP4, 53);
        let first = Ipv4Addr::new(10, 66, 0, 0);
        let flood = Flood { kind: Spoofed::Datagram, to, first, first_port: 1024, ports: 16, from: 0, count: 4 * 65_536 };
        flood.send_by_two(&lab.clients[1])
    };
    let drops = during("four times the table", "dns", flooded, flood)?;
    ensure!(drops.values().sum::<u64>() > 0, "all flows were accepted: {drops:?}");
    Ok(())
}
