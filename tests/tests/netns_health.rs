//! Health checks with real servers: who is probed, how soon a verdict comes, and that only new flows follow it.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ga::status::{EndpointState, Health};
use ga_tests::{
    lab::{Agent, EGRESS4, EGRESS6, Lab, Nginx, VIP4, VIP6, client4, client6, server4, server6},
    traffic::{Flows, Server, ask_many, spread, until},
};

const PATIENCE: Duration = Duration::from_secs(20);
const BOTH: [u8; 2] = [255, 255];

fn start(lab: &Lab, text: &str) -> Result<Agent> {
    lab.configure(text)?;
    Agent::start(lab)
}

/// A TCP listener whose group has this health check.
fn web(lab: &Lab, weights: &[u8], check: &str) -> String {
    lab.head() + &Lab::mapped_listener("web", "tcp", "80", weights, "", &format!("health_check = {{ {check} }}"))
}

/// What probes say of an endpoint of a listener.
fn health(agent: &Agent, listener: &str, address: IpAddr) -> Result<Option<Health>> {
    let status = agent.status()?;
    let mut endpoints = status.endpoints();
    let found = endpoints.find(|(path, _)| path.listener == listener && path.address == address.to_string());
    Ok(found.with_context(|| format!("{address} is in the status"))?.1.health.clone())
}

/// Waits for a verdict, and returns how long that took.
fn wait_for(agent: &Agent, listener: &str, address: IpAddr, healthy: bool) -> Result<(Duration, Health)> {
    let begin = Instant::now();
    let what = format!("{listener}/{address} {}", if healthy { "healthy" } else { "unhealthy" });
    let health = until(&what, PATIENCE, || Ok(health(agent, listener, address)?.filter(|health| health.healthy == healthy)))?;
    Ok((begin.elapsed(), health))
}

/// Waits until every endpoint of a listener answered a probe.
fn all_probed(agent: &Agent, listener: &str) -> Result<()> {
    until("an answer to every probe", PATIENCE, || {
        let status = agent.status()?;
        let mut endpoints = status.endpoints().filter(|(path, _)| path.listener == listener);
        Ok(endpoints
            .all(|(_, endpoint)| endpoint.health.as_ref().is_some_and(|health| health.round_trip_ms.is_some()))
            .then_some(()))
    })
}

/// Who serves 60 new connections of each family.
fn who_serves(lab: &Lab, port: u16) -> Result<Vec<usize>> {
    let mut all = Vec::new();
    for (from, vip) in [(client4(1).into(), IpAddr::V4(VIP4)), (client6(1).into(), VIP6.into())] {
        all.extend(spread(&lab.clients[0], from, 0, SocketAddr::new(vip, port), 60)?.into_keys());
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

// proves: E01, E06
#[test]
fn a_closed_port_is_unhealthy_within_seven_seconds_and_healthy_again_after_three_answers() -> Result<()> {
    let lab = Lab::new(2)?;
    let mut servers = Server::start_all(&lab.servers, &[80])?;
    let agent = start(&lab, &web(&lab, &BOTH, "protocol = \"tcp\""))?;
    all_probed(&agent, "web")?;
    let peers: Vec<IpAddr> = servers[1].peers().into_iter().collect();
    ensure!(peers.is_empty(), "of a SYN-ACK nobody makes a connection: {peers:?}");
    ensure!(who_serves(&lab, 80)? == [1, 2], "both serve while both are well");
    let peers: Vec<IpAddr> = servers[1].peers().into_iter().collect();
    ensure!(peers.iter().all(|peer| [IpAddr::V4(EGRESS4), EGRESS6.into()].contains(peer)), "connections come from {peers:?}");

    drop(servers.pop());
    let (took, seen) = wait_for(&agent, "web", server4(2).into(), false)?;
    ensure!(took <= Duration::from_millis(7_500) && took >= Duration::from_secs(3), "unhealthy after {took:?}");
    ensure!(seen.failure.as_deref() == Some("refused"), "{seen:?}");
    wait_for(&agent, "web", server6(2).into(), false)?;
    ensure!(who_serves(&lab, 80)? == [1], "new connections go to the other");
    let status = agent.status()?;
    let endpoint = status.endpoints().find(|(path, _)| path.address == server4(2).to_string()).context("the endpoint")?.1;
    ensure!(endpoint.state == EndpointState::Unhealthy && endpoint.share == 0.0, "{endpoint:?}");
    ensure!(agent.ok(&["status"])?.contains("unhealthy for"), "the screen says so");
    ensure!(agent.log().matches("unhealthy").count() == 2, "one line for each change:\n{}", agent.log());

    servers.push(Server::start(&lab.servers[1], 2, &[80])?);
    let (took, _) = wait_for(&agent, "web", server4(2).into(), true)?;
    // Two intervals lie between three answers; the first comes within one.
    ensure!(took >= Duration::from_millis(3_900) && took <= Duration::from_millis(7_500), "healthy after {took:?}");
    wait_for(&agent, "web", server6(2).into(), true)?;
    ensure!(who_serves(&lab, 80)? == [1, 2], "it serves again");
    Ok(())
}

// proves: E07, E09
#[test]
fn the_check_port_decides_and_established_connections_stay() -> Result<()> {
    let lab = Lab::new(2)?;
    let _servers = Server::start_all(&lab.servers, &[80])?;
    let mut checked = Server::start_all(&lab.servers, &[8080])?;
    let agent = start(&lab, &web(&lab, &BOTH, "port = 8080, interval = 1, threshold = 2"))?;
    all_probed(&agent, "web")?;
    let flows = [(0, IpAddr::V4(VIP4)), (1, VIP6.into())]
        .map(|(client, vip)| Flows::open(&lab.clients[client], SocketAddr::new(vip, 80), 20, Duration::from_millis(20)));
    let [v4, v6] = flows;
    let flows = [v4?, v6?];
    let at_second = flows.iter().flat_map(|flows| &flows.hellos).filter(|hello| hello.server == 2).count();
    ensure!(at_second > 0, "some of the connections are at the second server");

    drop(checked.pop());
    for address in [server4(2).into(), server6(2).into()] {
        wait_for(&agent, "web", address, false)?;
    }
    ensure!(who_serves(&lab, 80)? == [1], "new connections go to the other, although port 80 is served");
    flows.iter().try_for_each(|flows| flows.wait_for(200))?;
    for flows in flows {
        flows.all_well()?;
    }
    Ok(())
}

// proves: E04
#[test]
fn a_black_hole_is_unhealthy_after_thirteen_seconds() -> Result<()> {
    let lab = Lab::new(2)?;
    let _servers = Server::start_all(&lab.servers, &[80])?;
    let agent = start(&lab, &web(&lab, &BOTH, ""))?;
    all_probed(&agent, "web")?;
    lab.servers[1].run(&["ip", "route", "add", "blackhole", &format!("{EGRESS4}/32")])?;
    let (took, seen) = wait_for(&agent, "web", server4(2).into(), false)?;
    // Three probes of three seconds with two intervals between, the first at most one interval later.
    ensure!(took >= Duration::from_millis(12_900) && took <= Duration::from_millis(15_800), "unhealthy after {took:?}");
    ensure!(seen.failure.as_deref() == Some("timeout"), "{seen:?}");
    let other = health(&agent, "web", server6(2).into())?.context("it is probed")?;
    ensure!(other.healthy, "the other family of the same host is another endpoint");
    Ok(())
}

/// nginx on port 80 and, with a certificate of its own making, on 443.
fn nginx(lab: &Lab, number: usize) -> Result<Nginx> {
    let locations = "location = /ok { return 204; } location = /moved { return 301 http://127.0.0.1:1/; } \
                     location = /broken { return 500; } location = /missing { return 404; } \
                     location = /text { return 200 \"all is well\"; }";
    let servers = format!(
        "server {{ listen [::]:80 ipv6only=off; {locations} }} server {{ listen [::]:443 ipv6only=off ssl; \
         ssl_certificate DIR/cert.pem; ssl_certificate_key DIR/key.pem; {locations} }}"
    );
    Nginx::start(lab, number, &servers, &[80, 443], &["health.example"])
}

// proves: E02, E03
#[test]
fn the_answer_to_a_get_decides_plain_and_in_tls() -> Result<()> {
    let lab = Lab::new(1)?;
    let nginx = nginx(&lab, 1)?;
    let cases = [
        ("ok", "path = \"/ok\"", None),
        ("moved", "path = \"/moved\"", None),
        ("broken", "path = \"/broken\"", Some("status 500")),
        ("missing", "path = \"/missing\"", Some("status 404")),
        ("expected", "path = \"/missing\", expected_status = \"200,404\"", None),
        ("unexpected", "path = \"/ok\", expected_status = \"200\"", Some("status 204")),
        ("body", "path = \"/text\", body = \"is well\"", None),
        ("nobody", "path = \"/text\", body = \"is ill\"", Some("body without the expected text")),
    ];
    let mut text = lab.head();
    let mut expected = Vec::new();
    for (protocol, first) in [("http", 1000_u16), ("https", 2000)] {
        let port = if protocol == "http" { 80 } else { 443 };
        for (number, (name, check, failure)) in (first..).zip(cases) {
            let group =
                format!("health_check = {{ protocol = \"{protocol}\", port = {port}, interval = 1, threshold = 2, {check} }}");
            let name = format!("{protocol}-{name}");
            text += &Lab::mapped_listener(&name, "tcp", &number.to_string(), &[255], "", &group);
            expected.push((name, failure));
        }
    }
    let group = "health_check = { protocol = \"https\", port = 443, interval = 1, threshold = 2, verify = true, path = \"/ok\", \
                 host = \"health.example\" }";
    text += &Lab::mapped_listener("verified", "tcp", "3000", &[255], "", group);
    let agent = start(&lab, &text.replace("[limits]", "[limits]\nlisteners_per_instance = 50"))?;
    for (name, failure) in expected {
        for address in [IpAddr::V4(server4(1)), server6(1).into()] {
            match failure {
                Some(why) => {
                    let (_, seen) = wait_for(&agent, &name, address, false)?;
                    ensure!(seen.failure.as_deref() == Some(why), "{name}: {seen:?}");
                }
                None => {
                    let probed = || Ok(health(&agent, &name, address)?.filter(|health| health.round_trip_ms.is_some()));
                    let seen = until(&format!("a probe of {name}"), PATIENCE, probed)?;
                    ensure!(seen.healthy && seen.failure.is_none(), "{name}: {seen:?}");
                }
            }
        }
    }
    let (_, seen) = wait_for(&agent, "verified", server4(1).into(), false)?;
    ensure!(seen.failure.as_deref().is_some_and(|why| why.starts_with("tls: ")), "{seen:?}");
    let log = nginx.log("access.log");
    let ours = [format!("::ffff:{EGRESS4}"), EGRESS6.to_string()];
    let from = |line: &str| line.split(' ').nth(4).map(str::to_owned);
    ensure!(ours.iter().all(|own| log.lines().any(|line| from(line).as_ref() == Some(own))), "both families are probed:\n{log}");
    let asked = |line: &str| from(line).is_some_and(|address| ours.contains(&address)) && line.contains(" /");
    ensure!(log.lines().all(asked), "probes leave with the egress addresses:\n{log}");
    ensure!(agent.status()?.probes.results["unable"] == 0, "every probe could be made");
    Ok(())
}

// proves: E08
#[test]
fn endpoints_of_a_udp_listener_need_a_service_that_answers_probes() -> Result<()> {
    let lab = Lab::new(2)?;
    let _server = Server::start(&lab.servers[0], 1, &[53])?;
    let _udp_only = lab.servers[1].within(|| UdpSocket::bind("[::]:53"))??;
    let group = "health_check = { interval = 1, threshold = 2 }";
    let agent = start(&lab, &(lab.head() + &Lab::mapped_listener("dns", "udp", "53", &BOTH, "", group)))?;
    let (_, seen) = wait_for(&agent, "dns", server4(2).into(), false)?;
    ensure!(seen.failure.as_deref() == Some("refused"), "{seen:?}");
    wait_for(&agent, "dns", server4(1).into(), true)?;
    let report = ask_many(&lab.clients[0], client4(1).into(), SocketAddr::new(VIP4.into(), 53), 40, 1)?;
    ensure!(report.lost.is_empty() && report.servers == [1].into(), "{report:?}");
    Ok(())
}

// proves: E10
#[test]
fn without_a_health_check_nobody_is_probed() -> Result<()> {
    let lab = Lab::new(1)?;
    let _server = Server::start(&lab.servers[0], 1, &[80])?;
    let segments = || lab.servers[0].counter("TcpInSegs");
    let ours = || lab.edge.read(&["ip", "route", "show", "table", "local", "proto", "103"]);
    let agent = start(&lab, &(lab.head() + &Lab::listener("web", "tcp", "80", &[255], "")))?;
    let reload = |text: &str| -> Result<()> {
        lab.configure(text)?;
        agent.ok(&["reload"]).map(drop)
    };
    let silent = |what: &str| -> Result<()> {
        let before = segments()?;
        sleep(Duration::from_secs(5));
        let came = segments()? - before;
        ensure!(came == 0, "{what}: {came} TCP segments came to the server");
        Ok(())
    };
    silent("by default")?;
    ensure!(health(&agent, "web", server4(1).into())?.is_none() && ours()?.is_empty(), "nothing is known, nothing is owned");

    // The counter can count: two probes of each family, at least.
    reload(&web(&lab, &[255], "interval = 1"))?;
    let before = segments()?;
    sleep(Duration::from_secs(5));
    ensure!(segments()? - before >= 8, "probes come when they are on");
    ensure!(ours()?.contains(&EGRESS4.to_string()), "their answers find this host");

    reload(&web(&lab, &[255], "enabled = false, interval = 1"))?;
    sleep(Duration::from_millis(200));
    silent("switched off")?;
    ensure!(ours()?.is_empty(), "what was owned is given back");
    Ok(())
}

#[test]
fn endpoints_without_traffic_are_probed_too() -> Result<()> {
    let lab = Lab::new(2)?;
    let _servers = Server::start_all(&lab.servers, &[80])?;
    let agent = start(&lab, &web(&lab, &[0, 255], "interval = 1, threshold = 2"))?;
    agent.ok(&["endpoints", "drain", &server4(2).to_string()])?;
    all_probed(&agent, "web")?;
    let before = agent.status()?.probes.results["passed"];
    until("more probes", PATIENCE, || Ok((agent.status()?.probes.results["passed"] >= before + 8).then_some(())))?;
    ensure!(agent.status()?.probes.checks == 4, "two hosts of two families");
    Ok(())
}

#[test]
fn verdicts_outlive_the_agent_and_detaching_gives_the_addresses_back() -> Result<()> {
    let lab = Lab::new(2)?;
    let _server = Server::start(&lab.servers[0], 1, &[80])?;
    let check = "interval = 1, threshold = 2, initial = \"unhealthy\"";
    let mut agent = start(&lab, &web(&lab, &BOTH, check))?;
    let healthy = |agent: &Agent, number: usize| -> Result<bool> {
        Ok(health(agent, "web", server4(number).into())?.context("it is probed")?.healthy)
    };
    ensure!(!healthy(&agent, 1)? && !healthy(&agent, 2)?, "unhealthy until they pass");
    wait_for(&agent, "web", server4(1).into(), true)?;
    wait_for(&agent, "web", server6(1).into(), true)?;
    let saved = || fs::read_to_string(lab.dir.join("state/health.json")).unwrap_or_default();
    until("the verdicts on disk", PATIENCE, || Ok((saved().matches("true").count() == 2).then_some(())))?;
    let generation = agent.status()?.generation;
    agent.kill()?;
    drop(agent);
    let mut agent = Agent::start(&lab)?;
    ensure!(healthy(&agent, 1)? && !healthy(&agent, 2)?, "as before: {}", saved());
    ensure!(agent.status()?.generation == generation, "the same tables");
    ensure!(who_serves(&lab, 80)? == [1], "who was unhealthy still is");
    agent.stop()?;
    let ours = || lab.edge.read(&["ip", "route", "show", "table", "local", "proto", "103"]);
    ensure!(!ours()?.is_empty(), "the addresses outlive the agent as the data path does");
    let ga = ga_tests::lab::ga_binary()?.display().to_string();
    lab.edge.run(&[&ga, "detach", "--pin-dir", &lab.pin_dir.display().to_string()])?;
    ensure!(ours()?.is_empty(), "and go with it");
    Ok(())
}
