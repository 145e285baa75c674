//! What breaks and heals by itself: neighbours, links, interfaces, pins, maps, and a kernel that says no.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData},
};
use ga::status::{NextHop, Status};
use ga_common::abi::{
    custom::Mapping,
    entry::{Address, AddressKey, Egress, Endpoint, Hop, Listener, SelectionTable, Service, ServiceKey, Settings},
    filter,
    id::EndpointId,
    sheet::{Borders4, Borders6},
};
use ga_tests::{
    lab::{Agent, Lab, Namespace, VIP4, VIP6, client4, client6, pass_program, server4, server6},
    traffic::{Flows, Probe, Server, Transfer, ask_many, spread, until},
};

const VIPS: [IpAddr; 2] = [IpAddr::V4(VIP4), IpAddr::V6(VIP6)];
/// For what comes within a second on a machine that has nothing else to do.
const SOON: Duration = Duration::from_secs(10);
/// No break may be noticed for longer; it is a second on a machine that has nothing else to do. A kernel that is left alone needs
/// longer than this to notice that a neighbour went silent.
const HEALED: Duration = Duration::from_secs(5);
/// Longer than the agent takes to compare all maps once more.
const A_PASS: Duration = Duration::from_secs(30);

fn text(lab: &Lab, weights: &[u8]) -> String {
    lab.head() + &Lab::listener("web", "tcp", "80", weights, "") + &Lab::listener("dns", "udp", "53", weights, "")
}

fn start(lab: &Lab, text: &str) -> Result<Agent> {
    lab.configure(text)?;
    Agent::start(lab)
}

fn tcp(vip: IpAddr) -> SocketAddr {
    SocketAddr::new(vip, 80)
}

fn udp(vip: IpAddr) -> SocketAddr {
    SocketAddr::new(vip, 53)
}

/// New flows of both families and protocols are served.
fn forwards(lab: &Lab) -> Result<()> {
    for vip in VIPS {
        let from: IpAddr = if vip.is_ipv4() { client4(1).into() } else { client6(1).into() };
        spread(&lab.clients[0], from, 0, tcp(vip), 20)?;
        let datagrams = ask_many(&lab.clients[0], from, udp(vip), 5, 10)?;
        ensure!(datagrams.lost.is_empty(), "{} of 50 datagrams to {vip} are lost", datagrams.lost.len());
    }
    Ok(())
}

fn datagrams(server: &Server) -> u64 {
    server.datagrams().values().sum()
}

/// Waits until datagrams reach the server again, after what was on its way is over.
fn reached_again(server: &Server) -> Result<Duration> {
    let (start, before) = (Instant::now(), datagrams(server));
    until("a datagram at the server", Duration::from_secs(60), || Ok((datagrams(server) > before + 20).then_some(())))?;
    Ok(start.elapsed())
}

fn sleep(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

fn next_hops(agent: &Agent) -> Result<Vec<NextHop>> {
    Ok(agent.status()?.endpoints().map(|(_, endpoint)| endpoint.next_hop).collect())
}

fn wait_for(agent: &Agent, what: &str, patience: Duration, holds: impl Fn(&Status) -> bool) -> Result<Status> {
    let found = until(what, patience, || Ok(Some(agent.status()?).filter(&holds)));
    found.with_context(|| format!("the agent's log:\n{}", agent.log()))
}

/// Traffic that must survive: open connections, a transfer, and numbered datagrams of one socket in each family.
struct Load {
    flows: Flows,
    transfer: Transfer,
    probes: [Probe; 2],
}

impl Load {
    fn start(lab: &Lab) -> Result<Self> {
        Ok(Self {
            flows: Flows::open(&lab.clients[1], tcp(VIPS[0]), 40, Duration::from_millis(50))?,
            transfer: Transfer::start(&lab.clients[0], tcp(VIPS[0]))?,
            probes: [Probe::start(&lab.clients[0], udp(VIPS[0]))?, Probe::start(&lab.clients[0], udp(VIPS[1]))?],
        })
    }

    /// Nothing broke; the longest time without an answer.
    fn finish(self) -> Result<Duration> {
        self.flows.all_well()?;
        self.transfer.finish()?;
        let mut gap = Duration::ZERO;
        for probe in self.probes {
            let report = probe.finish()?;
            ensure!(report.peers.len() == 1, "the endpoint saw the one flow as {:?}", report.peers);
            ensure!(report.doubled == 0, "{} answers came twice", report.doubled);
            gap = gap.max(report.longest_gap());
        }
        Ok(gap)
    }
}

#[test]
fn an_endpoint_that_silently_takes_another_mac_is_found() -> Result<()> {
    let lab = Lab::new(1)?;
    let servers = Server::start_all(&lab.servers, &[80, 53])?;
    let agent = start(&lab, &text(&lab, &[255]))?;
    let load = Load::start(&lab)?;
    for mac in ["02:00:00:00:aa:01", "02:00:00:00:aa:02", "02:00:00:00:aa:03"] {
        sleep(700);
        lab.servers[0].run(&["ip", "link", "set", "eth0", "address", mac])?;
        println!("reached again after {:?}", reached_again(&servers[0])?);
    }
    let gap = load.finish()?;
    println!("longest gap {gap:?}");
    ensure!(gap < HEALED, "no answer for {gap:?}");
    wait_for(&agent, "every next hop", SOON, |status| {
        status.endpoints().all(|(_, endpoint)| endpoint.next_hop == NextHop::Resolved)
    })?;
    forwards(&lab)
}

#[test]
fn replies_follow_a_client_that_comes_by_another_way() -> Result<()> {
    let lab = Lab::new(1)?;
    lab.second_cable()?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let agent = start(&lab, &text(&lab, &[255]).replace("\"c1\"", "\"c1\", \"x1\""))?;
    let load = Load::start(&lab)?;
    sleep(700);
    // Another router, and then another interface.
    lab.clients[0].run(&["ip", "link", "set", "eth0", "address", "02:00:00:00:cc:01"])?;
    sleep(700);
    lab.move_client()?;
    sleep(700);
    let gap = load.finish()?;
    println!("longest gap {gap:?}");
    ensure!(gap < HEALED, "no answer for {gap:?}");
    let moved = agent.status()?.flow_events.get("client_moved").copied().unwrap_or_default();
    // The transfer and two probes, twice.
    ensure!(moved >= 6, "{moved} moves of clients were counted");
    Ok(())
}

#[test]
fn neighbours_that_are_forgotten_or_silent_cost_no_packet() -> Result<()> {
    let lab = Lab::new(1)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let agent = start(&lab, &text(&lab, &[255]))?;
    let load = Load::start(&lab)?;
    let address = server4(1).to_string();
    for round in 0..15 {
        let command: &[&str] = match round % 3 {
            0 => &["ip", "neigh", "flush", "dev", "s1"],
            1 => &["ip", "neigh", "replace", &address, "dev", "s1", "nud", "failed"],
            _ => &["ip", "neigh", "del", &address, "dev", "s1"],
        };
        lab.edge.run(command)?;
        sleep(100);
    }
    // The server answers nobody who asks for its address: the way that was known is still the best guess, and it is said.
    lab.servers[0].run(&["sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=8"])?;
    lab.edge.run(&["ip", "neigh", "replace", &address, "dev", "s1", "nud", "failed"])?;
    wait_for(&agent, "a doubtful next hop", SOON, |status| {
        status.endpoints().any(|(_, endpoint)| endpoint.next_hop == NextHop::Stale)
    })?;
    sleep(1_500);
    let human = agent.ok(&["status"])?;
    ensure!(human.contains("next hop does not answer"), "the status is silent:\n{human}");
    lab.servers[0].run(&["sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=0"])?;
    wait_for(&agent, "a sure next hop", SOON, |status| {
        status.endpoints().all(|(_, endpoint)| endpoint.next_hop == NextHop::Resolved)
    })?;
    let gap = load.finish()?;
    ensure!(gap == Duration::ZERO, "datagrams were lost for {gap:?}");
    Ok(())
}

#[test]
fn links_that_flap_break_no_flow() -> Result<()> {
    let lab = Lab::new(1)?;
    let servers = Server::start_all(&lab.servers, &[80, 53])?;
    let agent = start(&lab, &text(&lab, &[255]))?;
    // IPv6 addresses go with the link unless told to stay.
    lab.edge.run(&["sysctl", "-qw", "net.ipv6.conf.all.keep_addr_on_down=1"])?;
    let flows = Flows::open(&lab.clients[1], tcp(VIPS[0]), 40, Duration::from_millis(50))?;
    let transfer = Transfer::start(&lab.clients[1], tcp(VIPS[0]))?;
    let probe = Probe::start(&lab.clients[1], udp(VIPS[0]))?;
    const DOWN: u64 = 300;
    for link in ["s1", "c2", "s1", "c2", "s1"] {
        lab.edge.run(&["ip", "link", "set", link, "down"])?;
        sleep(DOWN);
        lab.edge.run(&["ip", "link", "set", link, "up"])?;
        println!("{link}: reached again after {:?}", reached_again(&servers[0])?);
        flows.wait_for(40)?;
    }
    // The far end goes, and with it the carrier only.
    lab.servers[0].run(&["ip", "link", "set", "eth0", "down"])?;
    sleep(DOWN);
    lab.servers[0].run(&["ip", "link", "set", "eth0", "up"])?;
    lab.servers[0].run(&["ip", "route", "replace", "default", "via", "10.0.1.1"])?;
    println!("the server's end: reached again after {:?}", reached_again(&servers[0])?);
    let report = probe.finish()?;
    println!("longest gap {:?}", report.longest_gap());
    ensure!(report.peers.len() == 1, "the endpoint saw the one flow as {:?}", report.peers);
    ensure!(report.longest_gap() < HEALED, "no answer for {:?}", report.longest_gap());
    flows.all_well()?;
    transfer.finish()?;
    wait_for(&agent, "every IPv4 next hop", SOON, |status| {
        let mut v4 = status.endpoints().filter(|(path, _)| path.address == server4(1).to_string());
        v4.all(|(_, endpoint)| endpoint.next_hop == NextHop::Resolved)
    })?;
    Ok(())
}

/// An endpoint that is at two servers and behind whichever the edge's routes name.
const ANYCAST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, 1));

fn behind_gateways(lab: &Lab) -> Result<String> {
    for server in &lab.servers {
        server.run(&["ip", "addr", "add", "10.9.0.1/32", "dev", "lo"])?;
    }
    lab.edge.run(&["ip", "route", "add", "10.9.0.1", "via", "10.0.1.11", "metric", "10"])?;
    let to = |name: &str, protocol: &str, port: &str| {
        let endpoints = [("private_ip", ANYCAST, 255), ("private_ip", server6(1).into(), 255)];
        Lab::listener_to(name, protocol, port, &endpoints, "", "backend_ip_version = \"affinity\"\n")
    };
    Ok(lab.head() + &to("web", "tcp", "80") + &to("dns", "udp", "53"))
}

#[test]
fn packets_follow_the_route_and_the_gateway() -> Result<()> {
    let lab = Lab::new(2)?;
    let text = behind_gateways(&lab)?;
    let at = [tcp(ANYCAST), udp(ANYCAST)].to_vec();
    let servers = [Server::start_at(&lab.servers[0], 1, at.clone())?, Server::start_at(&lab.servers[1], 2, at)?];
    let agent = start(&lab, &text)?;
    ensure!(next_hops(&agent)?.iter().all(|hop| *hop == NextHop::Resolved), "next hops are {:?}", next_hops(&agent)?);
    let probe = Probe::start(&lab.clients[0], udp(VIPS[0]))?;
    reached_again(&servers[0])?;
    ensure!(datagrams(&servers[1]) == 0, "the second server was reached");

    // Another gateway: nothing is lost, because the old one is used until the new one is known.
    lab.edge.run(&["ip", "route", "add", "10.9.0.1", "via", "10.0.2.11", "metric", "5"])?;
    reached_again(&servers[1])?;
    lab.edge.run(&["ip", "route", "del", "10.9.0.1", "via", "10.0.2.11", "metric", "5"])?;
    reached_again(&servers[0])?;
    let report = probe.finish()?;
    ensure!(report.lost.is_empty(), "{} of {} datagrams are lost", report.lost.len(), report.sent);

    // The gateway takes another MAC.
    let probe = Probe::start(&lab.clients[0], udp(VIPS[0]))?;
    reached_again(&servers[0])?;
    lab.servers[0].run(&["ip", "link", "set", "eth0", "address", "02:00:00:00:bb:01"])?;
    println!("the gateway's MAC: reached again after {:?}", reached_again(&servers[0])?);

    // The link to it goes, and there is another way: a dead link is not waited for.
    lab.edge.run(&["ip", "route", "add", "10.9.0.1", "via", "10.0.2.11", "metric", "20"])?;
    lab.edge.run(&["ip", "link", "set", "s1", "down"])?;
    println!("another way: reached again after {:?}", reached_again(&servers[1])?);
    let report = probe.finish()?;
    println!("longest gap {:?}", report.longest_gap());
    ensure!(report.longest_gap() < HEALED, "no answer for {:?}", report.longest_gap());

    // No route at all, and the interface gone: the endpoint has no next hop, and it is said.
    lab.edge.run(&["ip", "route", "del", "10.9.0.1", "via", "10.0.2.11"])?;
    lab.unplug_server(2)?;
    wait_for(&agent, "no next hop", SOON, |status| {
        let mut anycast = status.endpoints().filter(|(path, _)| path.address == ANYCAST.to_string());
        anycast.all(|(_, endpoint)| endpoint.next_hop == NextHop::Unresolved)
    })?;
    Ok(())
}

/// Ids of the programs on the edge's interfaces, by interface, as the kernel tells.
fn programs(namespace: &Namespace) -> Result<BTreeMap<String, u64>> {
    let links: serde_json::Value = serde_json::from_str(&namespace.read(&["ip", "-d", "-j", "link", "show"])?)?;
    let program = |link: &serde_json::Value| {
        let name = link["ifname"].as_str()?.to_owned();
        Some((name, link["xdp"]["prog"]["id"].as_u64()?))
    };
    Ok(links.as_array().context("links are a list")?.iter().filter_map(program).collect())
}

fn reattached(status: &Status, name: &str) -> Option<u64> {
    status.interfaces.iter().find(|interface| interface.name == name && interface.attached).map(|interface| interface.reattached)
}

#[test]
fn an_interface_that_is_made_again_is_attached_again() -> Result<()> {
    let lab = Lab::new(2)?;
    let servers = Server::start_all(&lab.servers, &[80, 53])?;
    let mut agent = start(&lab, &text(&lab, &[255, 255]))?;
    let flows = Flows::open(&lab.clients[0], tcp(VIPS[0]), 40, Duration::from_millis(50))?;
    let ours = programs(&lab.edge)?["s1"];
    for round in 1..=2 {
        lab.unplug_server(1)?;
        let status = wait_for(&agent, "the loss", SOON, |status| status.interfaces.iter().any(|one| !one.attached))?;
        let lost: Vec<_> = status.interfaces.iter().filter(|one| !one.attached).collect();
        ensure!(lost.len() == 1 && lost[0].name == "s1" && lost[0].ifindex == 0, "lost are {lost:?}");
        let human = agent.ok(&["status"])?;
        ensure!(human.contains("s1 NOT ATTACHED") && human.contains("s1: there is no such interface"), "the status is\n{human}");
        lab.plug_server(1)?;
        wait_for(&agent, "the interface", SOON, |status| reattached(status, "s1") == Some(round))?;
        ensure!(programs(&lab.edge)?.get("s1") == Some(&ours), "attached are {:?}", programs(&lab.edge)?);
        // Flows of the server behind it go on.
        let at_first = flows.hellos.iter().filter(|hello| hello.server == 1).count();
        ensure!(at_first > 0, "no flow is at the first server");
        flows.wait_for(200)?;
        let before = servers[0].accepted();
        until("new connections at the first server", SOON, || {
            forwards(&lab)?;
            Ok((servers[0].accepted() > before).then_some(()))
        })?;
    }
    flows.all_well()?;
    // Somebody else is quicker.
    lab.unplug_server(2)?;
    wait_for(&agent, "the loss", SOON, |status| reattached(status, "s2").is_none())?;
    agent.kill()?;
    lab.plug_server(2)?;
    let mut agent = Agent::start(&lab)?;
    ensure!(programs(&lab.edge)?.len() == 4, "attached are {:?}", programs(&lab.edge)?);
    forwards(&lab)?;
    ensure!(agent.stop()?.success(), "the agent did not end well");
    Ok(())
}

#[test]
fn a_program_that_somebody_detached_is_attached_again() -> Result<()> {
    let lab = Lab::new(1)?;
    let servers = Server::start_all(&lab.servers, &[80, 53])?;
    let agent = start(&lab, &text(&lab, &[255]))?;
    let before = programs(&lab.edge)?;
    let load = Load::start(&lab)?;
    for round in 1..=2 {
        for link in ["c1", "s1"] {
            let pin = lab.pin_dir.join("links").join(link).display().to_string();
            lab.edge.run(&["bpftool", "link", "detach", "pinned", &pin])?;
            wait_for(&agent, "the program", SOON, |status| reattached(status, link) == Some(round))?;
            ensure!(programs(&lab.edge)? == before, "attached are {:?}, not {before:?}", programs(&lab.edge)?);
            reached_again(&servers[0])?;
        }
    }
    let gap = load.finish()?;
    ensure!(gap < HEALED, "no answer for {gap:?}");

    // A foreign program that came in between is left alone and reported; ours comes back when it is gone.
    let pin = lab.pin_dir.join("links/c2").display().to_string();
    let pid = rustix::process::Pid::from_raw(agent.pid().cast_signed()).context("the agent has a number")?;
    rustix::process::kill_process(pid, rustix::process::Signal::STOP)?;
    lab.edge.run(&["bpftool", "link", "detach", "pinned", &pin])?;
    let foreign = pass_program(&lab.edge, "c2");
    rustix::process::kill_process(pid, rustix::process::Signal::CONT)?;
    let foreign = foreign?;
    let status = wait_for(&agent, "the trouble", SOON, |status| reattached(status, "c2").is_none())?;
    let trouble = status.interfaces.iter().find_map(|one| one.trouble.clone()).unwrap_or_default();
    ensure!(trouble.contains("another XDP program"), "the trouble is {trouble:?}");
    drop(foreign);
    wait_for(&agent, "the program", SOON, |status| reattached(status, "c2").is_some())?;
    ensure!(programs(&lab.edge)? == before, "attached are {:?}, not {before:?}", programs(&lab.edge)?);
    forwards(&lab)
}

fn pins(lab: &Lab) -> Vec<PathBuf> {
    let in_dir = |folder: &str| fs::read_dir(lab.pin_dir.join(folder)).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut pins: Vec<_> = ["maps", "links"].into_iter().flat_map(in_dir).collect();
    pins.sort();
    pins
}

#[test]
fn pins_that_somebody_removes_are_made_again() -> Result<()> {
    let lab = Lab::new(1)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let mut agent = start(&lab, &text(&lab, &[255]))?;
    let (all, generation, attached) = (pins(&lab), agent.status()?.generation, programs(&lab.edge)?);
    let load = Load::start(&lab)?;
    let mut removed = 0;
    for round in 0..3 {
        let gone: Vec<_> = if round == 0 { all.iter().skip(1).step_by(2).collect() } else { all.iter().collect() };
        gone.iter().try_for_each(fs::remove_file)?;
        if round == 2 {
            ["maps", "links"].iter().try_for_each(|folder| fs::remove_dir(lab.pin_dir.join(folder)))?;
            fs::remove_dir(&lab.pin_dir)?;
        }
        removed += gone.len() as u64;
        let status = wait_for(&agent, "the pins", SOON, |status| status.repairs.pins >= removed)?;
        ensure!(status.repairs.pins == removed, "{} pins were made again, and {removed} removed", status.repairs.pins);
        ensure!(pins(&lab) == all, "pinned are {:?}, not {all:?}", pins(&lab));
    }
    ensure!(load.finish()? == Duration::ZERO, "datagrams were lost");
    // The directory is still locked, and still holds the data path.
    let other = lab.dir.join("other.sock").display().to_string();
    let (code, log) = Agent::refused(&lab, &[], &["--admin-socket", &other])?;
    ensure!(code == 6, "a second agent, exit code {code}: {log}");
    let load = Load::start(&lab)?;
    agent.kill()?;
    ensure!(programs(&lab.edge)? == attached, "attached are {:?} without an agent", programs(&lab.edge)?);
    let agent = Agent::start(&lab)?;
    ensure!(agent.status()?.generation == generation, "the maps were not adopted");
    ensure!(load.finish()? == Duration::ZERO, "datagrams were lost");
    Ok(())
}

/// A pinned map of the lab.
fn map(lab: &Lab, name: &str) -> Result<MapData> {
    MapData::from_pin(lab.pin_dir.join("maps").join(name)).with_context(|| format!("no map {name}"))
}

fn array<V: Pod>(lab: &Lab, name: &str) -> Result<Array<MapData, V>> {
    Ok(Array::try_from(Map::Array(map(lab, name)?))?)
}

fn table<K: Pod, V: Pod>(lab: &Lab, name: &str) -> Result<HashMap<MapData, K, V>> {
    Ok(HashMap::try_from(Map::HashMap(map(lab, name)?))?)
}

/// Changes one entry of an array.
fn change<V: Pod>(lab: &Lab, name: &str, index: u32, change: impl FnOnce(&mut V)) -> Result<()> {
    let mut cells = array::<V>(lab, name)?;
    let mut value = cells.get(&index, 0)?;
    change(&mut value);
    Ok(cells.set(index, value, 0)?)
}

/// What the maps hold that are compared, as text.
fn held(lab: &Lab) -> Result<BTreeMap<&'static str, String>> {
    let mut held = BTreeMap::new();
    for name in ga::maps::REPAIRED {
        let dump = match name {
            "TABLES" => inner::<SelectionTable>(lab, name)?,
            "ACLS4" => inner::<Borders4>(lab, name)?,
            "ACLS6" => inner::<Borders6>(lab, name)?,
            "MAPPINGS" => inner::<Mapping>(lab, name)?,
            _ => {
                let pin = lab.pin_dir.join("maps").join(name).display().to_string();
                let dump = lab.edge.read(&["bpftool", "-j", "map", "dump", "pinned", &pin])?;
                let mut entries: Vec<serde_json::Value> = serde_json::from_str(&dump)?;
                entries.iter_mut().for_each(|entry| *entry = entry["formatted"].take());
                let mut lines: Vec<_> = entries.iter().map(serde_json::Value::to_string).collect();
                lines.sort();
                lines.join("\n")
            }
        };
        held.insert(name, dump);
    }
    Ok(held)
}

/// What is in the first maps of a map.
fn inner<V: Pod + Debug>(lab: &Lab, name: &str) -> Result<String> {
    let maps = array::<u32>(lab, name)?;
    let tables = (1..16).map_while(|id| maps.get(&id, 0).ok()).map(|map| -> Result<_> {
        let table: Array<_, V> = Array::try_from(Map::Array(MapData::from_id(map)?))?;
        Ok(format!("{:?}", table.get(&0, 0)?))
    });
    Ok(tables.collect::<Result<Vec<_>>>()?.join("\n"))
}

/// An endpoint that no flow is at.
fn spare(lab: &Lab) -> Result<u32> {
    let endpoints = array::<Endpoint>(lab, "ENDPOINTS")?;
    for id in 0..16 {
        if IpAddr::from(endpoints.get(&id, 0)?.addr).to_canonical() == IpAddr::from(server6(3)) {
            return Ok(id);
        }
    }
    anyhow::bail!("no endpoint is the third server")
}

/// The ways in which a map is spoilt: entries changed, removed, added. Known IPv4 flows need none of them.
fn spoil(lab: &Lab, name: &str) -> Result<u64> {
    match name {
        "SETTINGS" => change::<Settings>(lab, name, 0, |settings| (settings.generation, settings.nat_first) = (77, 9))?,
        "FILTER" => {
            let (word, bit) = filter::place(&VIP6.octets());
            change::<u64>(lab, name, word, |bits| *bits &= !bit)?;
        }
        "DIRECT" | "GATEWAY" => change::<u64>(lab, name, 9, |bits| *bits ^= 1)?,
        "ACLS4" => {
            let list = array::<u32>(lab, name)?.get(&1, 0)?;
            let mut list: Array<_, Borders4> = Array::try_from(Map::Array(MapData::from_id(list)?))?;
            list.set(0, Borders4::NONE, 0)?;
        }
        "ACLS6" | "MAPPINGS" => {
            let pin = lab.pin_dir.join("maps").join(name).display().to_string();
            lab.edge.run(&["bpftool", "map", "delete", "pinned", &pin, "key", "1", "0", "0", "0"])?;
        }
        "HOSTS" => table::<[u8; 4], Hop>(lab, name)?.insert([10, 7, 0, 1], Hop { ifindex: 7, ..Hop::default() }, 0)?,
        "SHEET_DIGESTS" => change::<u64>(lab, name, 7, |digest| *digest ^= 1)?,
        "LISTENERS" => change::<Listener>(lab, name, 0, |listener| listener.flags = 0)?,
        "ACTIVE" => change::<u32>(lab, name, 1, |table| *table = 0)?,
        "DIGESTS" => change::<u64>(lab, name, 4, |digest| *digest ^= 1)?,
        "ENDPOINTS" => change::<Endpoint>(lab, name, 0, |endpoint| endpoint.addr[15] ^= 1)?,
        "ENDPOINT_HOPS" => change::<u32>(lab, name, spare(lab)? + 1_000, |hop| *hop = 77)?,
        "HOPS" => {
            let id = array::<u32>(lab, "ENDPOINT_HOPS")?.get(&spare(lab)?, 0)?;
            change::<Hop>(lab, name, id, |hop| hop.ifindex = 9_999)?;
        }
        "MTUS" => change::<u32>(lab, name, 1_000, |mtu| *mtu = 77)?,
        "EGRESS" => change::<Egress>(lab, name, 0, |egress| egress.count4 = 0)?,
        "ADDRESSES" => {
            let mut addresses = table::<AddressKey, Address>(lab, name)?;
            let keys = addresses.keys().collect::<Result<Vec<_>, _>>()?;
            addresses.remove(&keys[0])?;
            addresses.insert(keys[1], Address { roles: 0, ..addresses.get(&keys[1], 0)? }, 0)?;
            addresses.insert([7; 16], Address { roles: Address::VIP, ..Address::default() }, 0)?;
            return Ok(3);
        }
        "SERVICES" => {
            let mut services = table::<ServiceKey, Service>(lab, name)?;
            let keys = services.keys().collect::<Result<Vec<_>, _>>()?;
            services.remove(&keys[0])?;
            services.insert(keys[1], Service { endpoint_port: [0, 9], ..services.get(&keys[1], 0)? }, 0)?;
            services.insert(ServiceKey { port: [0, 7], ..keys[2] }, services.get(&keys[2], 0)?, 0)?;
            return Ok(3);
        }
        "TABLES" => {
            // One is written over, one replaced and one removed.
            let maps = array::<u32>(lab, name)?;
            let mut first: Array<_, SelectionTable> = Array::try_from(Map::Array(MapData::from_id(maps.get(&1, 0)?)?))?;
            let slots = Box::new([EndpointId(3); size_of::<SelectionTable>() / size_of::<EndpointId>()]);
            first.set(0, *slots, 0)?;
            let pin = lab.pin_dir.join("maps/TABLES").display().to_string();
            let id = maps.get(&1, 0)?.to_string();
            lab.edge.run(&["bpftool", "map", "update", "pinned", &pin, "key", "2", "0", "0", "0", "value", "id", &id])?;
            lab.edge.run(&["bpftool", "map", "delete", "pinned", &pin, "key", "3", "0", "0", "0"])?;
            return Ok(3);
        }
        other => anyhow::bail!("nobody knows how to spoil {other}"),
    }
    Ok(1)
}

#[test]
fn maps_that_somebody_changes_are_put_right_and_counted() -> Result<()> {
    // An access list has half a megabyte, and is moved about on the stack.
    let large = thread::Builder::new().stack_size(32 << 20).spawn(spoilt_maps_are_put_right)?;
    large.join().map_err(|_| anyhow::anyhow!("the test panicked"))?
}

fn spoilt_maps_are_put_right() -> Result<()> {
    let lab = Lab::new(3)?;
    let servers = Server::start_all(&lab.servers, &[80, 53])?;
    let lists: String = [("all4", "192.0.2.0/24"), ("all6", "2001:db8::/32")]
        .map(|(name, entry)| format!("\n[[acl]]\nname = \"{name}\"\nentries = [\"{entry}\"]\n"))
        .concat();
    let acl = "acl = { mode = \"white\", lists = [\"all4\", \"all6\"] }";
    let rooms = "
        [[instance]]\nid = \"play\"\nvips = [\"198.51.100.77\"]\negress_ips = [\"203.0.113.77\"]
        [[instance.listener]]\nname = \"rooms\"\ntype = \"custom_routing\"\nports = \"101~116\"
        [[instance.listener.custom_group]]\nregion = \"eu\"\ndestinations = [{ ports = \"81\", protocols = [\"tcp\"] }]
        [[instance.listener.custom_group.endpoint]]\ncidr = \"10.7.0.0/28\"\n";
    let text = text(&lab, &[255, 100]) + &Lab::listener("spare", "tcp", "81", &[0, 0, 255], acl) + rooms + &lists;
    let agent = start(&lab, &text)?;
    forwards(&lab)?;
    let right = held(&lab)?;
    let flows = Flows::open(&lab.clients[0], tcp(VIPS[0]), 20, Duration::from_millis(100))?;
    let before: u64 = servers.iter().map(datagrams).sum();
    let probe = Probe::start(&lab.clients[1], udp(VIPS[0]))?;
    // A flow that is opened by what is wrong stays wrong.
    until("datagrams", SOON, || Ok((servers.iter().map(datagrams).sum::<u64>() > before + 20).then_some(())))?;
    let mut expected: BTreeMap<String, u64> = ga::maps::REPAIRED.map(|name| (name.to_lowercase(), 0)).into();
    for round in 0..2 {
        for name in ga::maps::REPAIRED {
            *expected.entry(name.to_lowercase()).or_default() += spoil(&lab, name)?;
        }
        if round == 0 {
            ensure!(held(&lab)?.iter().all(|(name, held)| right[name] != *held), "some map was not spoilt");
        }
        let status = wait_for(&agent, "the repairs", A_PASS, |status| {
            status.repairs.maps.iter().all(|(map, count)| *count >= expected[map])
        })?;
        ensure!(status.repairs.maps == expected, "put right were {:?}, not {expected:?}", status.repairs.maps);
        for (name, now) in held(&lab)? {
            ensure!(right[name] == now, "{name} is not as it was");
        }
        forwards(&lab)?;
        flows.wait_for(40)?;
    }
    flows.all_well()?;
    let report = probe.finish()?;
    ensure!(report.lost.is_empty(), "{} of {} datagrams are lost", report.lost.len(), report.sent);
    let human = agent.ok(&["status"])?;
    ensure!(human.contains("somebody else changed the data path"), "the status is silent:\n{human}");
    Ok(())
}

#[test]
fn a_table_whose_digest_was_cleared_is_not_taken_for_a_free_one() -> Result<()> {
    let lab = Lab::new(2)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let text = |weights: &[u8]| {
        lab.head() + &Lab::listener("web", "tcp", "80", &[255, 100], "") + &Lab::listener("dns", "udp", "53", weights, "")
    };
    let agent = start(&lab, &text(&[1, 2]))?;
    let (active, maps) = (array::<u32>(&lab, "ACTIVE")?, array::<u32>(&lab, "TABLES")?);
    let tables = |active: &Array<MapData, u32>| (0..4).map(|index| active.get(&index, 0)).collect::<Result<Vec<_>, _>>();
    let before: Vec<_> = tables(&active)?.into_iter().map(|id| Ok((id, maps.get(&id, 0)?))).collect::<Result<_>>()?;
    for (id, _) in &before {
        change::<u64>(&lab, "DIGESTS", *id, |digest| *digest = 0)?;
    }
    lab.configure(&text(&[2, 1]))?;
    agent.ok(&["reload"])?;
    let after = tables(&active)?;
    let kept: Vec<_> = before.iter().filter(|(id, _)| after.contains(id)).collect();
    ensure!(kept.len() == 2, "tables {before:?} became {after:?}");
    for (id, map) in kept {
        ensure!(maps.get(id, 0)? == *map, "table {id} is in use and was replaced");
    }
    forwards(&lab)
}

#[test]
fn what_nobody_changed_is_not_put_right() -> Result<()> {
    let lab = Lab::new(2)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let mut agent = start(&lab, &text(&lab, &[255, 100]))?;
    for weights in [[1, 255], [255, 255], [0, 7]] {
        lab.configure(&text(&lab, &weights))?;
        agent.ok(&["reload"])?;
    }
    // A restart knows the tables by their digests only.
    agent.kill()?;
    let agent = Agent::start(&lab)?;
    let log = agent.log();
    until("two passes", A_PASS, || {
        // One spoilt cell is the sign that a pass is over.
        let done: u64 = agent.status()?.repairs.maps.values().sum();
        if done == 0 {
            change::<u64>(&lab, "DIGESTS", 4_000, |digest| *digest = 1)?;
        }
        Ok((done > 0).then_some(()))
    })
    .with_context(|| log)?;
    sleep(500);
    let maps = agent.status()?.repairs.maps;
    ensure!(maps.iter().all(|(map, count)| *count == u64::from(map == "digests")), "put right were {maps:?}");
    forwards(&lab)
}

/// What the kernel holds of a process.
fn descriptors(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

fn resident_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Selection tables that exist, whoever holds them.
fn tables(lab: &Lab) -> Result<usize> {
    let maps = array::<u32>(lab, "TABLES")?;
    Ok((0..maps.len()).filter(|id| maps.get(id, 0).is_ok()).count())
}

#[test]
fn a_thousand_reloads_leave_nothing_behind() -> Result<()> {
    let lab = Lab::new(2)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    // One table each, because a thousand are computed.
    let text = |weights: [u8; 2]| {
        let endpoints: Vec<_> =
            (1..).zip(weights).map(|(number, weight)| ("private_ip", server4(number).into(), weight)).collect();
        lab.head().replace(&format!(", \"{VIP6}\""), "") + &Lab::listener_to("web", "tcp", "80", &endpoints, "", "")
    };
    let texts = [text([255, 100]), text([100, 255])];
    let agent = start(&lab, &texts[0])?;
    let flows = Flows::open(&lab.clients[0], tcp(VIPS[0]), 20, Duration::from_millis(100))?;
    let transfer = Transfer::start(&lab.clients[1], tcp(VIPS[0]))?;
    let reload = |number: usize| -> Result<()> {
        lab.configure(&texts[number % 2])?;
        agent.ok(&["reload"]).map(|_| ())
    };
    let before = agent.status()?.generation;
    (1..=200).try_for_each(reload)?;
    let (fds, maps, memory) = (descriptors(agent.pid())?, tables(&lab)?, resident_kib(agent.pid())?);
    (201..=1000).try_for_each(reload)?;
    ensure!(agent.status()?.generation == before + 1000, "a thousand reloads are {} generations", agent.status()?.generation);
    // The admin socket's last connection may be closing.
    until("the descriptors", SOON, || Ok((descriptors(agent.pid())? <= fds).then_some(())))
        .with_context(|| format!("{fds} descriptors became {:?}", descriptors(agent.pid())))?;
    ensure!(tables(&lab)? == maps, "{maps} tables became {}", tables(&lab)?);
    let now = resident_kib(agent.pid())?;
    println!("{fds} descriptors, {maps} tables, {memory} KiB became {now} KiB");
    ensure!(now < memory + memory / 100, "{memory} KiB became {now} KiB");
    transfer.finish()?;
    flows.all_well()?;
    ensure!(agent.status()?.drops.iter().all(|drop| drop.packets == 0), "dropped were {:?}", agent.status()?.drops);
    Ok(())
}

/// An agent that is started through strace, which makes some of its calls to bpf() fail.
fn start_with(lab: &Lab, trace: &str, inject: &str) -> Result<Agent> {
    let mut through = vec!["strace", "-f", "-qq", "-o", trace, "-e", "trace=bpf"];
    if !inject.is_empty() {
        through.extend(["-e", inject]);
    }
    Agent::spawn_by(lab, &through, &[])
}

/// Waits until the agent answers or ends; none when it answers.
fn outcome(agent: &mut Agent) -> Result<Option<i32>> {
    until("an answer or an end", Duration::from_secs(60), || {
        if let Some(code) = agent.ended()? {
            return Ok(Some(Some(code)));
        }
        Ok(agent.ga(&["status"])?.status.success().then_some(None))
    })
}

#[test]
fn a_start_that_the_kernel_refuses_at_any_call_leaves_nothing_behind() -> Result<()> {
    let lab = Lab::new(1)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    lab.configure(&text(&lab, &[255]))?;
    let trace = lab.dir.join("calls").display().to_string();
    let mut agent = start_with(&lab, &trace, "")?;
    ensure!(outcome(&mut agent)?.is_none(), "the agent does not start under strace:\n{}", agent.log());
    end(&lab, &mut agent)?;
    // Every call of the first of its threads that is not one of many like it.
    let calls = fs::read_to_string(&trace)?;
    let mut points: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut by_thread: BTreeMap<&str, usize> = BTreeMap::new();
    for line in calls.lines().filter(|line| line.contains(" bpf(")) {
        let (thread, call) = line.split_once(" bpf(").context("a call")?;
        let number = by_thread.entry(thread).or_default();
        *number += 1;
        let command = call.split([',', ')']).next().unwrap_or_default().to_owned();
        points.entry(command).or_default().push(*number);
    }
    let mut chosen: Vec<usize> = Vec::new();
    for (command, numbers) in &points {
        // Of many alike some are enough.
        let step = numbers.len().div_ceil(8);
        chosen.extend(numbers.iter().step_by(step).chain(numbers.last()));
        println!("{}: {} calls", command, numbers.len());
    }
    chosen.sort_unstable();
    chosen.dedup();
    let mut refused = 0;
    for (round, number) in chosen.iter().enumerate() {
        let error = if round % 2 == 0 { "ENOMEM" } else { "EPERM" };
        let mut agent = start_with(&lab, &trace, &format!("inject=bpf:error={error}:when={number}"))?;
        match outcome(&mut agent).with_context(|| format!("call {number}, {error}:\n{}", agent.log()))? {
            // The kernel was asked what it can do, or could be asked otherwise.
            None => end(&lab, &mut agent)?,
            Some(code) => {
                ensure!([4, 5].contains(&code), "call {number}, {error}: exit code {code}:\n{}", agent.log());
                refused += 1;
            }
        }
        ensure!(pins(&lab).is_empty(), "call {number}, {error}: pinned are {:?}", pins(&lab));
        // The kernel detaches what an ended process held a moment later.
        until("the end of the data path", SOON, || Ok(programs(&lab.edge)?.is_empty().then_some(())))
            .with_context(|| format!("call {number}, {error}"))?;
    }
    println!("{} calls failed, {refused} starts were refused", chosen.len());
    ensure!(refused > 15, "only {refused} of {} starts were refused", chosen.len());
    let mut agent = Agent::start(&lab)?;
    forwards(&lab)?;
    agent.stop().map(|_| ())
}

/// Ends an agent that runs under strace, and takes the data path down.
fn end(lab: &Lab, agent: &mut Agent) -> Result<()> {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", agent.pid()))?;
    for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()).filter_map(rustix::process::Pid::from_raw) {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    }
    agent.wait(SOON)?;
    let pins = lab.pin_dir.display().to_string();
    agent.ok(&["detach", "--pin-dir", &pins]).map(|_| ())
}

/// strace, attached to a running agent.
struct Tracer(Child);

impl Tracer {
    fn attach(agent: &Agent, inject: &str) -> Result<Self> {
        let pid = agent.pid().to_string();
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=bpf", "-e", inject, "-p", &pid]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let tracer = Self(child);
        let status = format!("/proc/{pid}/status");
        until("strace", SOON, || {
            let traced =
                fs::read_to_string(&status)?.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"));
            Ok(traced.then_some(()))
        })?;
        Ok(tracer)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // It lets the agent go when it is asked to end.
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), rustix::process::Signal::TERM)
            .unwrap_or_default();
        drop(self.0.wait());
    }
}

#[test]
fn a_change_that_the_kernel_refuses_is_undone_and_a_passing_refusal_is_not_noticed() -> Result<()> {
    let lab = Lab::new(2)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let (old, new) = (text(&lab, &[255, 100]), text(&lab, &[100, 255]));
    let agent = start(&lab, &old)?;
    let load = Load::start(&lab)?;
    let (mut refused, mut applied) = (0, 0);
    for number in 1..=40_u32 {
        let generation = agent.status()?.generation;
        let before = held(&lab)?;
        lab.configure(&new)?;
        // Four times in a row is for good, twice is not.
        let times = if number % 2 == 0 { 2 } else { 4 };
        let tracer = Tracer::attach(&agent, &format!("inject=bpf:error=ENOMEM:when={number}..{}", number + times - 1))?;
        let output = agent.ga(&["reload"])?;
        drop(tracer);
        if output.status.success() {
            applied += 1;
            ensure!(agent.status()?.generation == generation + 1, "call {number}: the generation did not change");
            lab.configure(&old)?;
            agent.ok(&["reload"])?;
            continue;
        }
        refused += 1;
        ensure!(output.status.code() == Some(4), "call {number}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        let status = agent.status()?;
        ensure!(status.generation == generation, "call {number}: generation {} after {generation}", status.generation);
        ensure!(!status.last_reload.successful, "call {number}: the failure is not in the status");
        let differing: Vec<_> =
            held(&lab)?.into_iter().filter(|(name, now)| before[name] != *now).map(|(name, _)| name).collect();
        ensure!(
            differing.iter().all(|name| ["TABLES", "DIGESTS"].contains(name)),
            "call {number}: {differing:?} are not as before"
        );
        forwards(&lab)?;
        lab.configure(&old)?;
        agent.ok(&["reload"])?;
    }
    println!("{refused} changes were refused and {applied} applied");
    ensure!(refused >= 5 && applied >= 5, "{refused} changes were refused and {applied} applied");
    ensure!(load.finish()? == Duration::ZERO, "datagrams were lost");
    forwards(&lab)
}
