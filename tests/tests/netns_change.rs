//! Changes while traffic runs: reloads, drains, weights, and files that are wrong. What is open stays open.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use ga::status::{EndpointState, Status};
use ga_tests::{
    lab::{Agent, Lab, VIP4, VIP6, client4, client6, server4, server6},
    traffic::{End, Flows, Hello, Probe, Server, Storm, Transfer, ask_many, spread, until},
};

const VIPS: [IpAddr; 2] = [IpAddr::V4(VIP4), IpAddr::V6(VIP6)];
const PATIENCE: Duration = Duration::from_secs(20);

fn start(lab: &Lab, text: &str) -> Result<Agent> {
    lab.configure(text)?;
    Agent::start(lab)
}

fn client(number: usize, vip: IpAddr) -> IpAddr {
    if vip.is_ipv4() { client4(number).into() } else { client6(number).into() }
}

/// One TCP and one UDP listener with these weights.
fn text(lab: &Lab, weights: &[u8]) -> String {
    lab.head() + &Lab::listener("web", "tcp", "80", weights, "") + &Lab::listener("dns", "udp", "53", weights, "")
}

fn reload(lab: &Lab, agent: &Agent, text: &str) -> Result<()> {
    lab.configure(text)?;
    agent.ok(&["reload"]).map(|_| ())
}

/// Who answers 100 new connections, of either family.
fn new_connections(lab: &Lab) -> Result<BTreeMap<usize, usize>> {
    let mut sum = BTreeMap::new();
    for vip in VIPS {
        for (server, answered) in spread(&lab.clients[0], client(1, vip), 0, SocketAddr::new(vip, 80), 50)? {
            *sum.entry(server).or_default() += answered;
        }
    }
    Ok(sum)
}

/// A long transfer that this server serves.
fn transfer_at(lab: &Lab, vip: IpAddr, server: usize) -> Result<Transfer> {
    for _ in 0..40 {
        let transfer = Transfer::start(&lab.clients[0], SocketAddr::new(vip, 80))?;
        if transfer.server() == server {
            return Ok(transfer);
        }
        transfer.finish()?;
    }
    bail!("40 connections, and none at server {server}")
}

/// Bytes that a server received on connections that are still open.
fn open_bytes(server: &Server) -> u64 {
    server.connections().iter().filter(|one| one.end.is_none()).map(|one| one.received.bytes()).sum()
}

/// Waits until the open connections of a server carried more bytes.
fn still_runs(server: &Server) -> Result<()> {
    let before = open_bytes(server);
    until("progress of a transfer", PATIENCE, || Ok((open_bytes(server) > before + 2_000_000).then_some(())))
}

/// What a configuration decides, without what traffic counts.
fn decided(status: &Status) -> String {
    let mut status = status.clone();
    let mut text = format!("generation {} of {}\n", status.generation, status.config_hash);
    for instance in &mut status.instances {
        for listener in &mut instance.listeners {
            (listener.counters, listener.active_flows) = (Default::default(), 0);
            listener.drops.clear();
            for endpoint in listener.groups.iter_mut().flat_map(|group| &mut group.endpoints) {
                (endpoint.counters, endpoint.active_flows) = (Default::default(), 0);
            }
        }
        text += &format!("{instance:?}\n");
    }
    text + &format!("{:?} {:?}", status.interfaces, status.warnings)
}

fn weight_of(agent: &Agent, address: IpAddr) -> Result<(u8, EndpointState)> {
    let status = agent.status()?;
    let endpoint = status.endpoints().find(|(path, _)| path.listener == "web" && path.address == address.to_string());
    endpoint.map(|(_, endpoint)| (endpoint.weight, endpoint.state)).context("the endpoint is in the status")
}

// proves: A20
#[test]
fn a_weight_change_keeps_every_open_connection() -> Result<()> {
    let lab = Lab::new(3)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let agent = start(&lab, &text(&lab, &[200, 100, 50]))?;
    let pause = Duration::from_millis(20);
    let flows = [
        Flows::open(&lab.clients[0], SocketAddr::new(VIPS[0], 80), 50, pause)?,
        Flows::open(&lab.clients[1], SocketAddr::new(VIPS[1], 80), 50, pause)?,
    ];
    let transfer = Transfer::start(&lab.clients[1], SocketAddr::new(VIPS[0], 80))?;
    let probe = Probe::start(&lab.clients[0], SocketAddr::new(VIPS[1], 53))?;
    let before = agent.status()?.generation;
    for weights in [[1, 100, 200], [255, 255, 255], [0, 0, 1]] {
        reload(&lab, &agent, &text(&lab, &weights))?;
        flows.iter().try_for_each(|flows| flows.wait_for(100))?;
    }
    ensure!(agent.status()?.generation == before + 3, "three changes are three generations");
    let answered = new_connections(&lab)?;
    ensure!(answered == [(3, 100)].into(), "new connections go by the new weights: {answered:?}");
    let report = transfer.finish()?;
    ensure!(report.sent.bytes() > 1_000_000, "the transfer carried only {} bytes", report.sent.bytes());
    let probe = probe.finish()?;
    ensure!(probe.lost.is_empty() && probe.peers.len() == 1, "{} datagrams are lost, {:?}", probe.lost.len(), probe.peers);
    flows.into_iter().try_for_each(|flows| flows.all_well().map(|_| ()))
}

// proves: C05
#[test]
fn weight_zero_and_drain_send_nothing_new_and_let_the_old_finish() -> Result<()> {
    let lab = Lab::new(2)?;
    let servers = Server::start_all(&lab.servers, &[80, 53])?;
    let agent = start(&lab, &text(&lab, &[255, 255]))?;
    let four = transfer_at(&lab, VIPS[0], 1)?;
    let six = transfer_at(&lab, VIPS[1], 1)?;

    reload(&lab, &agent, &text(&lab, &[0, 255]))?;
    ensure!(weight_of(&agent, server4(1).into())? == (0, EndpointState::Zero), "weight 0 is not shown");
    let answered = new_connections(&lab)?;
    ensure!(answered == [(2, 100)].into(), "with weight 0 new connections went to {answered:?}");
    let datagrams = ask_many(&lab.clients[0], client4(1).into(), SocketAddr::new(VIPS[0], 53), 50, 1)?;
    ensure!(datagrams.servers == [2].into(), "with weight 0 new flows went to {:?}", datagrams.servers);
    still_runs(&servers[0])?;

    reload(&lab, &agent, &text(&lab, &[255, 255]))?;
    ensure!(new_connections(&lab)?.len() == 2, "with its weight back the endpoint gets nothing");
    for address in [IpAddr::from(server4(1)), server6(1).into()] {
        agent.ok(&["endpoints", "drain", &format!("lab/web/{address}")])?;
        ensure!(weight_of(&agent, address)? == (0, EndpointState::Drained), "{address} is not shown as drained");
    }
    let answered = new_connections(&lab)?;
    ensure!(answered == [(2, 100)].into(), "to a drained endpoint went {answered:?}");
    still_runs(&servers[0])?;
    for (transfer, name) in [(four, "IPv4"), (six, "IPv6")] {
        let report = transfer.finish().with_context(|| format!("the {name} transfer"))?;
        ensure!(report.hello.server == 1 && report.sent.bytes() > 4_000_000, "{report:?}");
    }
    let ended = |connection: &ga_tests::traffic::Connection| connection.end.is_some_and(|(end, _)| end == End::Closed);
    until("orderly ends", PATIENCE, || Ok(servers[0].connections().iter().all(ended).then_some(())))
}

#[test]
fn what_operators_set_by_hand_outlives_reloads_and_restarts() -> Result<()> {
    let lab = Lab::new(2)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let mut agent = start(&lab, &text(&lab, &[255, 255]))?;
    let addresses = [IpAddr::from(server4(1)), server6(1).into()];
    for address in addresses {
        agent.ok(&["endpoints", "drain", &format!("lab/web/{address}")])?;
        agent.ok(&["endpoints", "weight", &format!("lab/dns/{address}"), "7"])?;
    }
    let drained = |agent: &Agent, place: &str| -> Result<()> {
        for address in addresses {
            ensure!(weight_of(agent, address)? == (0, EndpointState::Drained), "{place}: {address} is not drained");
        }
        let status = agent.status()?;
        let sevens = status.endpoints().filter(|(path, one)| path.listener == "dns" && one.weight == 7).count();
        ensure!(sevens == 2, "{place}: {sevens} weights of 7");
        let answered = new_connections(&lab)?;
        ensure!(answered == [(2, 100)].into(), "{place}: to a drained endpoint went {answered:?}");
        Ok(())
    };
    drained(&agent, "at once")?;
    reload(&lab, &agent, &text(&lab, &[200, 100]))?;
    drained(&agent, "after a reload")?;
    agent.stop()?;
    agent = Agent::start(&lab)?;
    drained(&agent, "after a restart")?;
    agent.kill()?;
    agent = Agent::start(&lab)?;
    drained(&agent, "after a kill")?;

    for address in addresses {
        agent.ok(&["endpoints", "undrain", &format!("lab/web/{address}")])?;
        ensure!(weight_of(&agent, address)? == (200, EndpointState::Active), "{address} is not back");
    }
    ensure!(new_connections(&lab)?.len() == 2, "an endpoint that is not drained any more gets nothing");
    agent.ok(&["endpoints", "weight", &format!("lab/web/{}", server4(2)), "0"])?;
    agent.ok(&["endpoints", "weight", &format!("lab/web/{}", server6(2)), "0"])?;
    let answered = new_connections(&lab)?;
    ensure!(answered == [(1, 100)].into(), "with a weight of 0 set by hand: {answered:?}");
    let unknown = agent.ga(&["endpoints", "drain", "lab/web/10.99.0.1"])?;
    ensure!(unknown.status.code() == Some(1), "an endpoint that does not exist: {}", unknown.status);
    Ok(())
}

#[test]
fn an_endpoint_that_leaves_the_file_keeps_its_connections() -> Result<()> {
    let lab = Lab::new(2)?;
    let servers = Server::start_all(&lab.servers, &[80, 53])?;
    let both = text(&lab, &[255, 255]);
    let agent = start(&lab, &both)?;
    let flows = Flows::open(&lab.clients[0], SocketAddr::new(VIPS[0], 80), 40, Duration::from_millis(20))?;
    ensure!(flows.hellos.iter().any(|hello| hello.server == 2), "no connection at server 2");
    let transfer = transfer_at(&lab, VIPS[1], 2)?;
    reload(&lab, &agent, &text(&lab, &[255]))?;
    ensure!(agent.status()?.endpoints().count() == 4, "two endpoints of each listener are left");
    let answered = new_connections(&lab)?;
    ensure!(answered == [(1, 100)].into(), "to an endpoint that is gone went {answered:?}");
    flows.wait_for(200)?;
    still_runs(&servers[1])?;
    // Back again, gone again: ids are used anew, and open connections do not care.
    for weights in [&[255, 255][..], &[255], &[9, 255], &[255]] {
        reload(&lab, &agent, &text(&lab, weights))?;
    }
    flows.wait_for(200)?;
    still_runs(&servers[1])?;
    transfer.finish()?;
    flows.all_well()?;
    Ok(())
}

/// BPF maps of the whole host: tables inside other maps belong to no process.
fn bpf_maps(lab: &Lab) -> Result<usize> {
    let maps: serde_json::Value = serde_json::from_str(&lab.edge.read(&["bpftool", "map", "show", "-j"])?)?;
    Ok(maps.as_array().context("maps are a list")?.len())
}

fn open_files(agent: &Agent) -> Result<usize> {
    // nsenter became the agent: it keeps the process id.
    Ok(fs::read_dir(format!("/proc/{}/fd", agent.pid()))?.count())
}

#[test]
fn two_hundred_reloads_in_a_row_harm_nothing_and_leak_nothing() -> Result<()> {
    let lab = Lab::new(3)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let agent = start(&lab, &text(&lab, &[255, 255, 255]))?;
    let flows = Flows::open(&lab.clients[0], SocketAddr::new(VIPS[0], 80), 50, Duration::from_millis(50))?;
    let storm = Storm::start(&lab.clients[1], SocketAddr::new(VIPS[1], 80), Duration::from_millis(10))?;
    let probe = Probe::start(&lab.clients[0], SocketAddr::new(VIPS[1], 53))?;
    let generation = agent.status()?.generation;
    let mut counted = None;
    let begun = Instant::now();
    for round in 0..200_u8 {
        lab.configure(&text(&lab, &[255, 1 + round, 255 - round]))?;
        agent.ok(&["reload"]).with_context(|| format!("reload {round}"))?;
        if round == 20 {
            counted = Some((open_files(&agent)?, bpf_maps(&lab)?));
        }
    }
    println!("200 reloads took {:?}", begun.elapsed());
    let status = agent.status()?;
    ensure!(status.generation == generation + 200, "{} generations", status.generation - generation);
    ensure!(status.last_reload.successful && status.last_reload.failures == 0, "{:?}", status.last_reload);
    let (files, maps) = counted.context("counted on the way")?;
    ensure!(open_files(&agent)? <= files + 2, "{files} open files became {}", open_files(&agent)?);
    // 180 reloads that leaked would be 720 maps; others on this host may make a few meanwhile.
    until("the end of maps that are not used any more", PATIENCE, || Ok((bpf_maps(&lab)? <= maps + 60).then_some(())))
        .with_context(|| format!("{maps} maps became {:?}", bpf_maps(&lab)))?;
    let fills = &status.maps;
    let tables = fills.iter().find(|fill| fill.name == "tables").context("tables are counted")?;
    ensure!(tables.entries <= 12, "{} tables for 2 listeners of 2 families", tables.entries);
    flows.all_well()?;
    storm.all_well()?;
    let probe = probe.finish()?;
    ensure!(probe.lost.is_empty(), "{} of {} datagrams are lost", probe.lost.len(), probe.sent);
    Ok(())
}

#[test]
fn every_broken_file_is_rejected_and_nothing_changes() -> Result<()> {
    let lab = Lab::new(2)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let good = text(&lab, &[200, 100]);
    let agent = start(&lab, &good)?;
    let flows = Flows::open(&lab.clients[0], SocketAddr::new(VIPS[0], 80), 20, Duration::from_millis(50))?;
    let storm = Storm::start(&lab.clients[1], SocketAddr::new(VIPS[1], 80), Duration::from_millis(20))?;
    let before = decided(&agent.status()?);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ga-userspace/tests/broken");
    let mut files = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    ensure!(files.len() >= 200, "only {} broken files in {}", files.len(), folder.display());
    for (number, path) in (1..).zip(&files) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        fs::copy(path, lab.dir.join("ga.toml"))?;
        let refused = agent.ga(&["reload"])?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(refused.status.code() == Some(1), "{name}: {}: {said}", refused.status);
        ensure!(said.contains("ga.toml"), "{name}: the answer names no place: {said}");
        let status = agent.status()?;
        ensure!(decided(&status) == before, "{name} changed\n{before}\nto\n{}", decided(&status));
        ensure!(!status.last_reload.successful && status.last_reload.failures == number, "{name}: {:?}", status.last_reload);
        ensure!(status.last_reload.error.is_some(), "{name}: the status does not say why");
    }
    println!("{} broken files", files.len());
    // A file that is not there, or no text.
    fs::write(lab.dir.join("ga.toml"), [0xff, 0xfe, 0])?;
    ensure!(agent.ga(&["reload"])?.status.code() == Some(1), "bytes that are no text");
    fs::remove_file(lab.dir.join("ga.toml"))?;
    ensure!(agent.ga(&["reload"])?.status.code() == Some(1), "no file at all");
    ensure!(decided(&agent.status()?) == before, "something changed");
    flows.all_well()?;
    storm.all_well()?;
    reload(&lab, &agent, &good)?;
    let last = agent.status()?.last_reload;
    ensure!(last.successful && last.error.is_none(), "{last:?}");
    Ok(())
}

#[test]
fn sighup_reloads() -> Result<()> {
    let lab = Lab::new(2)?;
    let agent = start(&lab, &text(&lab, &[255, 255]))?;
    let hangup = || -> Result<()> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(agent.pid())?).context("a process id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).context("no signal")
    };
    lab.configure(&text(&lab, &[3, 255]))?;
    hangup()?;
    until("the new weight", PATIENCE, || Ok((weight_of(&agent, server4(1).into())?.0 == 3).then_some(())))?;
    let before = decided(&agent.status()?);
    lab.configure("this is no TOML")?;
    hangup()?;
    until("the refusal", PATIENCE, || Ok((agent.status()?.last_reload.failures == 1).then_some(())))?;
    ensure!(decided(&agent.status()?) == before, "a broken file changed something");
    ensure!(agent.log().contains("ERROR reload"), "the log says nothing: {}", agent.log());
    Ok(())
}

#[test]
fn a_plan_foretells_and_changes_nothing() -> Result<()> {
    let lab = Lab::new(2)?;
    let agent = start(&lab, &text(&lab, &[255, 255]))?;
    let before = decided(&agent.status()?);
    let new = lab.dir.join("new.toml").display().to_string();
    fs::write(&new, text(&lab, &[255, 7]))?;
    let json = |words: &[&str]| -> Result<serde_json::Value> { Ok(serde_json::from_str(&agent.ok(words)?)?) };
    let foretold = json(&["plan", &new, "--output", "json"])?;
    ensure!(foretold["noop"] == false, "the plan says nothing changes: {foretold}");
    let said = agent.ok(&["plan", &new])?;
    ensure!(said.contains(&server4(2).to_string()) && said.contains('7'), "the plan says: {said}");
    ensure!(agent.ga(&["plan", &new, "--exit-code"])?.status.code() == Some(1), "differences are exit code 1");
    ensure!(decided(&agent.status()?) == before, "a plan changed something");

    lab.configure(&text(&lab, &[255, 7]))?;
    let done = json(&["reload", "--output", "json"])?;
    ensure!(done["report"] == foretold, "foretold was {foretold}\ndone was {}", done["report"]);
    ensure!(weight_of(&agent, server4(2).into())?.0 == 7, "the weight is not in force");
    ensure!(json(&["plan", &new, "--output", "json"])?["noop"] == true, "the same file again changes something");
    ensure!(agent.ok(&["reload"])?.contains("no change"), "the same file again changes something");
    fs::write(&new, "[node")?;
    ensure!(agent.ga(&["plan", &new])?.status.code() == Some(1), "a broken file has a plan");
    Ok(())
}

/// How long a connection lived after its last byte, as its client sees it.
fn silence(from: IpAddr, vip: IpAddr) -> Result<Duration> {
    let socket = socket2::Socket::new(socket2::Domain::for_address((vip, 80).into()), socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&SocketAddr::new(vip, 80).into(), PATIENCE)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut hello = [0; Hello::LEN];
    stream.read_exact(&mut hello)?;
    stream.write_all(b"still here")?;
    let mut echo = [0; 10];
    stream.read_exact(&mut echo)?;
    let begun = Instant::now();
    match stream.read(&mut echo) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(begun.elapsed()),
        other => bail!("the client of {vip} got {other:?} after {:?}", begun.elapsed()),
    }
}

// proves: A16
#[test]
fn an_idle_connection_is_closed_at_the_configured_second_on_both_sides() -> Result<()> {
    let lab = Lab::new(1)?;
    let server = Server::start(&lab.servers[0], 1, &[80])?;
    let ten = |seconds: &str| lab.head() + &Lab::listener("web", "tcp", "80", &[255], &format!("idle_timeout = {seconds}"));
    let agent = start(&lab, &ten("10"))?;
    // Whoever says something now and then is not idle.
    let alive = Flows::open(&lab.clients[1], SocketAddr::new(VIPS[0], 80), 4, Duration::from_secs(6))?;
    let begun = Instant::now();
    let clients = VIPS.map(|vip| lab.clients[0].thread(move || silence(client(1, vip), vip)));
    for (client, vip) in clients.into_iter().zip(VIPS) {
        let silence = client?.join().map_err(|_| anyhow::anyhow!("the client of {vip} panicked"))??;
        println!("{vip}: reset after {silence:?}");
        ensure!((8.0..=12.0).contains(&silence.as_secs_f64()), "{vip}: the client was reset after {silence:?}");
    }
    let resets = until("resets at the server", PATIENCE, || {
        let ends = server.connections().into_iter().filter_map(|connection| connection.end);
        let resets: Vec<_> = ends.filter(|(end, _)| *end == End::Reset).map(|(_, at)| at - begun).collect();
        Ok((resets.len() == 2).then_some(resets))
    })?;
    ensure!(resets.iter().all(|at| (8.0..=13.0).contains(&at.as_secs_f64())), "the server was reset after {resets:?}");
    until("a quarter of a minute", PATIENCE, || Ok((begun.elapsed() > Duration::from_secs(15)).then_some(())))?;
    alive.all_well()?;
    for seconds in ["9", "901"] {
        lab.configure(&ten(seconds))?;
        ensure!(agent.ga(&["reload"])?.status.code() == Some(1), "an idle timeout of {seconds} s is accepted");
    }
    Ok(())
}

// proves: A17
#[test]
fn a_silent_udp_flow_is_forgotten_after_its_timeout() -> Result<()> {
    let lab = Lab::new(1)?;
    let server = lab.servers[0].within(|| UdpSocket::bind("0.0.0.0:53"))??;
    server.set_read_timeout(Some(Duration::from_secs(5)))?;
    let ten = |seconds: &str| lab.head() + &Lab::listener("dns", "udp", "53", &[255], &format!("idle_timeout = {seconds}"));
    let agent = start(&lab, &ten("10"))?;
    let socket = lab.clients[0].within(|| UdpSocket::bind("0.0.0.0:0"))??;
    socket.connect((VIP4, 53))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut buffer = [0; 64];
    let flows = || -> Result<(u64, u64)> {
        let status = agent.status()?;
        Ok((status.flows.ipv4.live, status.endpoints().map(|(_, endpoint)| endpoint.counters.new_flows).sum()))
    };

    socket.send(b"one")?;
    let (_, egress) = server.recv_from(&mut buffer)?;
    let first = Instant::now();
    ensure!(flows()? == (1, 1), "flows are {:?}", flows()?);
    until("eight seconds", PATIENCE, || Ok((first.elapsed() > Duration::from_secs(8)).then_some(())))?;
    socket.send(b"two")?;
    let (_, again) = server.recv_from(&mut buffer)?;
    let last = Instant::now();
    ensure!(again == egress && flows()? == (1, 1), "after 8 s the endpoint saw {again} instead of {egress}: {:?}", flows()?);
    // Still known: an answer that comes late arrives. It is a packet like any other, and the time begins anew.
    server.send_to(b"late", egress)?;
    ensure!(socket.recv(&mut buffer)? == 4, "a late answer is lost");

    let forgotten = until("oblivion", PATIENCE, || Ok((flows()?.0 == 0).then(|| last.elapsed())))?;
    println!("forgotten after {forgotten:?}");
    ensure!((9.5..=20.0).contains(&forgotten.as_secs_f64()), "the flow was forgotten after {forgotten:?}");
    server.send_to(b"too late", egress)?;
    let lost = socket.recv(&mut buffer);
    ensure!(lost.is_err(), "an answer to a forgotten flow arrived");
    socket.send(b"three")?;
    server.recv_from(&mut buffer)?;
    ensure!(flows()? == (1, 2), "the next datagram begins a new flow: {:?}", flows()?);
    for seconds in ["9", "21"] {
        lab.configure(&ten(seconds))?;
        ensure!(agent.ga(&["reload"])?.status.code() == Some(1), "an idle timeout of {seconds} s is accepted");
    }
    Ok(())
}
