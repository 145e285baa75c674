//! The life of the agent: killed, restarted, refused, and what packets notice of it, which is nothing.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ga::status::{AttachMode, Status};
use ga_tests::{
    lab::{Agent, Lab, Namespace, VIP4, VIP6, client4, client6, ga_binary, pass_program},
    traffic::{Flows, Probe, Server, Storm, ask_many, spread, transfer},
};

const VIPS: [IpAddr; 2] = [IpAddr::V4(VIP4), IpAddr::V6(VIP6)];

fn text(lab: &Lab, servers: usize) -> String {
    let weights = vec![255; servers];
    lab.head() + &Lab::listener("web", "tcp", "80", &weights, "") + &Lab::listener("dns", "udp", "53", &weights, "")
}

fn start(lab: &Lab, text: &str) -> Result<Agent> {
    lab.configure(text)?;
    Agent::start(lab)
}

/// A thing that forwards, briefly, in both families and protocols.
fn forwards(lab: &Lab) -> Result<()> {
    for (number, client) in (1..).zip(&lab.clients) {
        for vip in VIPS {
            let from: IpAddr = if vip.is_ipv4() { client4(number).into() } else { client6(number).into() };
            spread(client, from, 0, SocketAddr::new(vip, 80), 20)?;
            let datagrams = ask_many(client, from, SocketAddr::new(vip, 53), 5, 10)?;
            ensure!(datagrams.lost.is_empty(), "{} of 50 datagrams to {vip} are lost", datagrams.lost.len());
            let report = transfer(client, SocketAddr::new(vip, 80), 2_000_000)?;
            ensure!(report.sent.bytes() == 2_000_000, "the transfer was cut short");
        }
    }
    Ok(())
}

/// Every counter by its name, for comparisons.
fn counters(status: &Status) -> Vec<(String, u64)> {
    let endpoints = status.endpoints().flat_map(|(path, endpoint)| {
        let counters = endpoint.counters;
        [
            ("forward_packets", counters.forward_packets),
            ("forward_bytes", counters.forward_bytes),
            ("return_packets", counters.return_packets),
            ("return_bytes", counters.return_bytes),
            ("new_flows", counters.new_flows),
        ]
        .map(|(name, value)| (format!("{path} {name}"), value))
    });
    let passes = status.passes.iter().map(|pass| (format!("passed {}", pass.reason), pass.packets));
    endpoints.chain(passes).collect()
}

fn drops(status: &Status) -> u64 {
    status.drops.iter().map(|drop| drop.packets).sum()
}

/// Ids of the programs on the edge's interfaces, by interface, as the kernel tells.
fn programs(namespace: &Namespace) -> Result<Vec<(String, u64)>> {
    let links: serde_json::Value = serde_json::from_str(&namespace.read(&["ip", "-d", "-j", "link", "show"])?)?;
    let program = |link: &serde_json::Value| {
        let name = link["ifname"].as_str()?.to_owned();
        Some((name, link["xdp"]["prog"]["id"].as_u64()?))
    };
    Ok(links.as_array().context("links are a list")?.iter().filter_map(program).collect())
}

fn no_pins(lab: &Lab) -> Result<()> {
    for folder in ["maps", "links"] {
        let pins = fs::read_dir(lab.pin_dir.join(folder)).map(Iterator::count).unwrap_or_default();
        ensure!(pins == 0, "{pins} {folder} are still pinned");
    }
    Ok(())
}

#[test]
fn twenty_kills_are_not_noticed_by_packets() -> Result<()> {
    let lab = Lab::new(3)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let mut agent = start(&lab, &text(&lab, 3))?;
    let pause = Duration::from_millis(100);
    let flows = [
        Flows::open(&lab.clients[0], SocketAddr::new(VIPS[0], 80), 100, pause)?,
        Flows::open(&lab.clients[1], SocketAddr::new(VIPS[1], 80), 100, pause)?,
    ];
    let probe = Probe::start(&lab.clients[0], SocketAddr::new(VIPS[0], 53))?;
    let storm = Storm::start(&lab.clients[1], SocketAddr::new(VIPS[0], 80), Duration::from_millis(50))?;
    let mut before = agent.status()?;
    let (mut slowest, mut sum) = (Duration::ZERO, Duration::ZERO);
    for round in 1..=20 {
        agent.kill()?;
        // Without any agent packets go on.
        flows.iter().try_for_each(|flows| flows.wait_for(50))?;
        let start = Instant::now();
        agent = Agent::start(&lab)?;
        let took = start.elapsed();
        slowest = slowest.max(took);
        sum += took;
        // A second is the aim; the verifier's share of it depends on what else runs on this machine.
        ensure!(took < Duration::from_secs(15), "round {round}: the agent answered only after {took:?}");
        let after = agent.status()?;
        for ((name, old), (same, new)) in counters(&before).into_iter().zip(counters(&after)) {
            ensure!(name == same && new >= old, "round {round}: {name} went from {old} to {new}");
        }
        ensure!(
            after.generation == before.generation,
            "round {round}: generation {}, not {}",
            after.generation,
            before.generation
        );
        before = after;
    }
    println!("slowest of 20 starts: {slowest:?}; mean: {:?}", sum / 20);
    let probe = probe.finish()?;
    ensure!(probe.lost.is_empty() && probe.sent > 1000, "{} of {} datagrams are lost", probe.lost.len(), probe.sent);
    ensure!(probe.peers.len() == 1, "the endpoint saw the one flow as {:?}", probe.peers);
    storm.all_well()?;
    for flows in flows {
        let report = flows.all_well()?;
        println!("{} exchanges on {} connections, the slowest took {:?}", report.exchanged, report.flows, report.slowest);
    }
    let lost = drops(&agent.status()?);
    ensure!(lost == 0, "{lost} packets were dropped");
    Ok(())
}

#[test]
fn a_restart_replaces_the_program_by_the_link_and_loses_nothing() -> Result<()> {
    let lab = Lab::new(2)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let mut agent = start(&lab, &text(&lab, 2))?;
    let links = |lab: &Lab| -> Result<Vec<u64>> {
        let id = |name: &&str| {
            let pin = lab.pin_dir.join("links").join(name).display().to_string();
            let json: serde_json::Value =
                serde_json::from_str(&lab.edge.read(&["bpftool", "-j", "link", "show", "pinned", &pin])?)?;
            json["id"].as_u64().context("a link has an id")
        };
        ["c1", "c2", "s1", "s2"].iter().map(id).collect()
    };
    let flows = Flows::open(&lab.clients[0], SocketAddr::new(VIPS[0], 80), 50, Duration::from_millis(20))?;
    let probe = Probe::start(&lab.clients[1], SocketAddr::new(VIPS[1], 53))?;
    let (link_ids, mut program_ids) = (links(&lab)?, programs(&lab.edge)?);
    ensure!(program_ids.len() == 4, "attached are {program_ids:?}");
    for round in 1..=3 {
        let ended = agent.stop()?;
        ensure!(ended.success(), "the agent ended with {ended}");
        ensure!(programs(&lab.edge)? == program_ids, "the end of the agent changed the programs");
        flows.wait_for(100)?;
        agent = Agent::start(&lab)?;
        let now = programs(&lab.edge)?;
        let same = now.iter().zip(&program_ids).filter(|(new, old)| new.1 == old.1).count();
        ensure!(now.len() == 4 && same == 0, "round {round}: {now:?} after {program_ids:?}");
        ensure!(links(&lab)? == link_ids, "round {round}: the links were made again");
        program_ids = now;
        flows.wait_for(100)?;
    }
    let probe = probe.finish()?;
    ensure!(probe.lost.is_empty(), "{} of {} datagrams are lost", probe.lost.len(), probe.sent);
    flows.all_well()?;
    forwards(&lab)
}

#[test]
fn a_second_agent_is_refused_and_the_first_goes_on() -> Result<()> {
    let lab = Lab::new(1)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let agent = start(&lab, &text(&lab, 1))?;
    let flows = Flows::open(&lab.clients[0], SocketAddr::new(VIPS[0], 80), 10, Duration::from_millis(20))?;
    let (generation, before) = (agent.status()?.generation, programs(&lab.edge)?);
    let other = lab.dir.join("other.sock").display().to_string();
    for options in [&[][..], &["--admin-socket", &other]] {
        let (code, log) = Agent::refused(&lab, &[], options)?;
        ensure!(code == 6 && log.contains("another agent"), "exit code {code}: {log}");
    }
    ensure!(agent.status()?.generation == generation && programs(&lab.edge)? == before, "the first agent was disturbed");
    flows.wait_for(100)?;
    flows.all_well()?;
    forwards(&lab)
}

#[test]
fn another_agent_on_the_same_interfaces_is_refused_with_its_own_pins() -> Result<()> {
    let lab = Lab::new(1)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let agent = start(&lab, &text(&lab, 1))?;
    let before = programs(&lab.edge)?;
    let (pins, socket) = (format!("{}-other", lab.pin_dir.display()), lab.dir.join("other.sock").display().to_string());
    let (code, log) = Agent::refused(&lab, &[], &["--pin-dir", &pins, "--admin-socket", &socket])?;
    ensure!(code == 5 && log.contains("another XDP program"), "exit code {code}: {log}");
    ensure!(!Path::new(&pins).exists(), "it left {pins} behind");
    ensure!(programs(&lab.edge)? == before, "the first agent's programs changed");
    agent.status()?;
    forwards(&lab)
}

#[test]
fn a_foreign_program_is_left_alone() -> Result<()> {
    let lab = Lab::new(1)?;
    lab.configure(&text(&lab, 1))?;
    let _foreign = pass_program(&lab.edge, "s1")?;
    let before = programs(&lab.edge)?;
    ensure!(before.len() == 1, "attached are {before:?}");
    let (code, log) = Agent::refused(&lab, &[], &[])?;
    ensure!(code == 5, "exit code {code}: {log}");
    let id = before[0].1.to_string();
    ensure!(["\"s1\"", &id, "ga_pass", "xdp off"].iter().all(|word| log.contains(word)), "the message is: {log}");
    ensure!(programs(&lab.edge)? == before, "attached are {:?}", programs(&lab.edge)?);
    no_pins(&lab)
}

#[test]
fn an_agent_without_capabilities_says_which_is_missing() -> Result<()> {
    let lab = Lab::new(1)?;
    lab.configure(&text(&lab, 1))?;
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"];
    let (code, log) = Agent::refused(&lab, &nobody, &[])?;
    ensure!(code == 4 && log.contains("CAP_BPF"), "exit code {code}: {log}");
    for capability in ["cap_bpf", "cap_net_admin", "cap_net_raw"] {
        let caps = ["cap_bpf", "cap_net_admin", "cap_net_raw"].into_iter().filter(|cap| *cap != capability);
        let list: Vec<_> = caps.map(|cap| format!("+{}", &cap[4..])).collect();
        let (inherit, ambient) = (format!("--inh-caps={}", list.join(",")), format!("--ambient-caps={}", list.join(",")));
        let through = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", &inherit, &ambient];
        let (code, log) = Agent::refused(&lab, &through, &[])?;
        ensure!(code == 4 && log.contains(&capability.to_uppercase()), "without {capability}, exit code {code}: {log}");
    }
    ensure!(programs(&lab.edge)?.is_empty(), "something is attached");
    no_pins(&lab)
}

#[test]
fn pins_that_are_not_on_a_bpf_file_system_are_refused() -> Result<()> {
    let lab = Lab::new(1)?;
    lab.configure(&text(&lab, 1))?;
    let pins = lab.dir.join("pins").display().to_string();
    let (code, log) = Agent::refused(&lab, &[], &["--pin-dir", &pins])?;
    ensure!(code == 4 && log.contains("BPF file system") && log.contains("mount -t bpf"), "exit code {code}: {log}");
    ensure!(!Path::new(&pins).exists() && programs(&lab.edge)?.is_empty(), "something was left behind");
    Ok(())
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() -> Result<()> {
    let lab = Lab::new(1)?;
    let good = text(&lab, 1);
    lab.configure(&good.replace("\"s1\"", "\"s1\", \"s9\""))?;
    let (code, log) = Agent::refused(&lab, &[], &[])?;
    ensure!(code == 1 && log.contains("\"s9\""), "an interface that is not there, exit code {code}: {log}");
    ensure!(programs(&lab.edge)?.is_empty(), "something is attached");
    no_pins(&lab)?;

    // A port that somebody else holds.
    let _holder = lab.edge.within(|| std::net::TcpListener::bind("127.0.0.1:9464"))??;
    lab.configure(&good.replace("metrics = \"off\"", "metrics = \"127.0.0.1:9464\""))?;
    let (code, log) = Agent::refused(&lab, &[], &[])?;
    ensure!(code == 5 && log.contains("127.0.0.1:9464"), "a port in use, exit code {code}: {log}");
    ensure!(programs(&lab.edge)?.is_empty(), "something is attached");
    no_pins(&lab)
}

#[test]
fn pinned_maps_of_another_size_are_made_anew() -> Result<()> {
    let lab = Lab::new(1)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let good = text(&lab, 1);
    let mut agent = start(&lab, &good)?;
    forwards(&lab)?;
    agent.stop()?;
    let mut agent = start(&lab, &good.replace("metrics = \"off\"", "metrics = \"off\"\nflows = 4096"))?;
    let log = agent.log();
    ensure!(log.contains("not adopted: FLOWS4 has 262144 slots"), "the log does not say why: {log}");
    ensure!(agent.status()?.flows.ipv4.capacity == 4096, "the size is {:?}", agent.status()?.flows.ipv4);
    forwards(&lab)?;
    agent.stop()?;
    // And a map that somebody removed.
    fs::remove_file(lab.pin_dir.join("maps/COUNTERS"))?;
    let agent = Agent::start(&lab)?;
    ensure!(agent.log().contains("the pinned map COUNTERS is missing"), "the log does not say why: {}", agent.log());
    forwards(&lab)
}

fn modes(agent: &Agent) -> Result<Vec<(String, AttachMode)>> {
    Ok(agent.status()?.interfaces.into_iter().map(|interface| (interface.name, interface.mode)).collect())
}

#[test]
fn generic_mode_forwards_when_it_is_asked_for() -> Result<()> {
    let lab = Lab::new(2)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let agent = start(&lab, &text(&lab, 2).replace("metrics = \"off\"", "metrics = \"off\"\nxdp_mode = \"generic\""))?;
    let modes = modes(&agent)?;
    ensure!(modes.len() == 4 && modes.iter().all(|(_, mode)| *mode == AttachMode::Generic), "modes are {modes:?}");
    let shown = lab.edge.read(&["ip", "link", "show", "c1"])?;
    ensure!(shown.contains("xdpgeneric"), "the kernel says {shown}");
    forwards(&lab)
}

#[test]
fn where_native_mode_is_refused_generic_mode_is_announced() -> Result<()> {
    let lab = Lab::new(1)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    // A veth whose peer has jumbo frames refuses native XDP.
    lab.servers[0].run(&["ip", "link", "set", "eth0", "mtu", "9000"])?;
    let mut agent = start(&lab, &text(&lab, 1))?;
    let found = modes(&agent)?;
    let expected = [("c1", AttachMode::Native), ("c2", AttachMode::Native), ("s1", AttachMode::Generic)];
    ensure!(found == expected.map(|(name, mode)| (name.to_owned(), mode)), "modes are {found:?}");
    let log = agent.log();
    ensure!(log.contains("generic XDP, which is slower") && log.contains("refuses native XDP"), "nothing announced: {log}");
    forwards(&lab)?;
    // Whoever insists on native mode gets nothing.
    agent.stop()?;
    drop(agent);
    for pin in fs::read_dir(lab.pin_dir.join("links"))? {
        fs::remove_file(pin?.path())?;
    }
    fs::remove_dir_all(lab.dir.join("state"))?;
    for pin in fs::read_dir(lab.pin_dir.join("maps"))? {
        fs::remove_file(pin?.path())?;
    }
    lab.configure(&text(&lab, 1).replace("metrics = \"off\"", "metrics = \"off\"\nxdp_mode = \"native\""))?;
    let (code, log) = Agent::refused(&lab, &[], &[])?;
    ensure!(code == 4 && log.contains("\"s1\" refuses native XDP"), "exit code {code}: {log}");
    ensure!(programs(&lab.edge)?.is_empty(), "attached are {:?}", programs(&lab.edge)?);
    no_pins(&lab)
}

#[test]
fn an_edge_with_one_interface_forwards() -> Result<()> {
    let lab = Lab::one_armed(2)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let agent = start(&lab, &text(&lab, 2))?;
    ensure!(modes(&agent)? == [("lan".to_owned(), AttachMode::Native)], "modes are {:?}", modes(&agent)?);
    forwards(&lab)?;
    drop(agent);

    let lab = Lab::one_armed(1)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let agent = start(&lab, &text(&lab, 1).replace("metrics = \"off\"", "metrics = \"off\"\nxdp_mode = \"generic\""))?;
    ensure!(modes(&agent)? == [("lan".to_owned(), AttachMode::Generic)], "modes are {:?}", modes(&agent)?);
    forwards(&lab)
}

#[test]
fn metrics_tell_what_was_forwarded() -> Result<()> {
    let lab = Lab::new(1)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let agent = start(&lab, &text(&lab, 1).replace("metrics = \"off\"", "metrics = \"127.0.0.1:9464\""))?;
    forwards(&lab)?;
    let metrics = lab.edge.read(&["curl", "-sS", "-f", "-m", "5", "http://127.0.0.1:9464/metrics"])?;
    let value = |family: &str, words: &[&str]| -> Result<f64> {
        let lines = metrics.lines().filter(|line| line.starts_with(family) && words.iter().all(|word| line.contains(word)));
        let values: Vec<f64> = lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        ensure!(!values.is_empty(), "no {family} with {words:?} in\n{metrics}");
        Ok(values.iter().sum())
    };
    let status = agent.status()?;
    for (_, listener) in status.listeners() {
        let name = format!("\"{}\"", listener.name);
        for (direction, packets) in
            [("\"forward\"", listener.counters.forward_packets), ("\"return\"", listener.counters.return_packets)]
        {
            let got = value("ga_listener_packets_total", &[&name, direction])?;
            ensure!(got == packets as f64 && got > 0.0, "{name} {direction}: {got} in metrics, {packets} in the status");
        }
    }
    ensure!(metrics.trim_end().ends_with("# EOF"), "the metrics are cut short");
    Ok(())
}

#[test]
fn only_root_and_the_agents_user_may_change_anything() -> Result<()> {
    let lab = Lab::new(1)?;
    let agent = start(&lab, &text(&lab, 1))?;
    let generation = agent.status()?.generation;
    let (ga, socket) = (ga_binary()?.display().to_string(), agent.socket().display().to_string());
    let by = |group: &str, words: &[&str]| {
        let group = format!("--regid={group}");
        let nobody = ["setpriv", "--reuid=65534", &group, "--clear-groups", &ga, "--socket", &socket];
        lab.edge.output(&[&nobody[..], words].concat())
    };
    // A member of the socket's group looks and changes nothing.
    let seen = by("0", &["status"])?;
    ensure!(seen.status.success(), "the group may look: {}", String::from_utf8_lossy(&seen.stderr));
    let writes: [&[&str]; 4] = [
        &["reload"],
        &["endpoints", "drain", "lab/web/10.0.1.11"],
        &["endpoints", "undrain", "lab/web/10.0.1.11"],
        &["endpoints", "weight", "lab/web/10.0.1.11", "7"],
    ];
    for words in writes {
        for group in ["0", "65534"] {
            let refused = by(group, words)?;
            ensure!(refused.status.code() == Some(4), "{words:?} by group {group}: {}", refused.status);
        }
    }
    // Anybody else does not even look.
    ensure!(by("65534", &["status"])?.status.code() == Some(4), "anybody may look");
    let status = agent.status()?;
    ensure!(status.generation == generation, "something changed");
    ensure!(status.endpoints().all(|(_, endpoint)| endpoint.weight == 255), "a weight changed");
    Ok(())
}
