//! Traffic through a running edge: real clients and servers in namespaces, nothing simulated.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ga::status::{Endpoint, Status};
use ga_tests::{
    lab::{Agent, EGRESS4, EGRESS6, Lab, Namespace, VIP4, VIP6, client4, client6, pass_program, server4, server6},
    traffic::{Server, ask_many, block_in, dial, port_is_open, spread, transfer, until},
};

const VIPS: [IpAddr; 2] = [IpAddr::V4(VIP4), IpAddr::V6(VIP6)];
const MINUTE: Duration = Duration::from_secs(60);

/// With a fixed key and fixed ports the choice of endpoints is the same in every run.
fn seeded(lab: &Lab) -> String {
    lab.head().replace("[node]\n", "[node]\nhash_seed = \"000102030405060708090a0b0c0d0e0f\"\n")
}

fn start(lab: &Lab, text: &str) -> Result<Agent> {
    lab.configure(text)?;
    Agent::start(lab)
}

fn client(number: usize, vip: IpAddr) -> IpAddr {
    if vip.is_ipv4() { client4(number).into() } else { client6(number).into() }
}

fn egress(vip: IpAddr) -> IpAddr {
    if vip.is_ipv4() { EGRESS4.into() } else { EGRESS6.into() }
}

fn endpoint<'s>(status: &'s Status, listener: &str, address: IpAddr) -> Result<&'s Endpoint> {
    let wanted =
        |(path, _): &(ga::status::EndpointPath, &Endpoint)| path.listener == listener && path.address == address.to_string();
    status.endpoints().find(wanted).map(|(_, endpoint)| endpoint).with_context(|| format!("no endpoint {listener}/{address}"))
}

fn dropped(status: &Status, reason: &str) -> u64 {
    status.drops.iter().filter(|drop| drop.reason == reason).map(|drop| drop.packets).sum()
}

// proves: A01, B01, D11
#[test]
fn a_hundred_megabytes_go_both_ways_unchanged_on_both_families() -> Result<()> {
    let lab = Lab::new(1)?;
    let server = Server::start(&lab.servers[0], 1, &[80])?;
    let agent = start(&lab, &(lab.head() + &Lab::listener("bulk", "tcp", "80", &[255], "")))?;
    for (index, vip) in VIPS.into_iter().enumerate() {
        let report = transfer(&lab.clients[0], SocketAddr::new(vip, 80), 100_000_000)?;
        ensure!(report.sent.bytes() == 100_000_000, "only {} bytes were sent", report.sent.bytes());
        let connection = until("the end of the connection", MINUTE, || {
            Ok(server.connections().get(index).copied().filter(|connection| connection.end.is_some()))
        })?;
        ensure!(connection.received == report.sent, "the server received other bytes: {connection:?}");
        ensure!(connection.peer.ip() == egress(vip), "the server sees {}", connection.peer);
        ensure!(connection.local.ip().is_ipv4() == vip.is_ipv4(), "{vip} was served by {}", connection.local);
    }
    let status = agent.status()?;
    for address in [IpAddr::from(server4(1)), server6(1).into()] {
        let counters = endpoint(&status, "bulk", address)?.counters;
        ensure!(counters.new_flows == 1, "{address}: {counters:?}");
        ensure!(counters.forward_bytes > 100_000_000 && counters.return_bytes > 100_000_000, "{address}: {counters:?}");
    }
    Ok(())
}

#[test]
fn iperf3_curl_and_nginx_work_through_it() -> Result<()> {
    let lab = Lab::new(1)?;
    let listener = Lab::listener("tools", "tcp", "80,5201", &[255], "");
    let _agent = start(&lab, &(lab.head() + &listener + &Lab::listener("tools-udp", "udp", "5201", &[255], "")))?;
    let server = &lab.servers[0];

    let root = lab.dir.join("www");
    fs::create_dir_all(&root)?;
    fs::write(root.join("file"), vec![b'x'; 5_000_000])?;
    let conf = lab.dir.join("nginx.conf");
    let (dir, www) = (lab.dir.display(), root.display());
    let text = format!(
        "daemon off; user root; pid {dir}/nginx.pid; error_log {dir}/nginx.log;\nevents {{}}\nhttp {{ access_log off; \
         client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3; uwsgi_temp_path {dir}/t4; \
         scgi_temp_path {dir}/t5; server {{ listen 80; listen [::]:80; root {www}; }} }}\n"
    );
    fs::write(&conf, text)?;
    let mut nginx = Running(server.spawn(&["nginx", "-c", &conf.display().to_string()])?);
    let mut iperf = Running(server.spawn(&["iperf3", "-s", "-p", "5201"])?);

    for (vip, url) in [(VIPS[0], format!("http://{VIP4}/file")), (VIPS[1], format!("http://[{VIP6}]/file"))] {
        let curl = ["curl", "-gsS", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", "-m", "20", "-o", "/dev/null"];
        let got = lab.clients[0].read(&[&curl[..], &["-w", "%{http_code} %{size_download}", &url]].concat())?;
        ensure!(got == "200 5000000", "curl {url}: {got}");
        for more in [&["-n", "50M"][..], &["-n", "50M", "-R"], &["-u", "-b", "20M", "-t", "2"]] {
            let target = vip.to_string();
            let command = [&["timeout", "30", "iperf3", "-J", "-p", "5201", "-c", &target][..], more].concat();
            let json: serde_json::Value = serde_json::from_str(&lab.clients[0].read(&command)?)?;
            let end = &json["end"];
            let bytes = end["sum_received"]["bytes"].as_f64().or(end["sum"]["bytes"].as_f64()).unwrap_or_default();
            ensure!(bytes > 4e6, "iperf3 {more:?} to {vip}: {bytes} bytes");
        }
    }
    nginx.end()?;
    iperf.end()
}

/// A tool that is ended with the test.
struct Running(std::process::Child);

impl Running {
    fn end(&mut self) -> Result<()> {
        ensure!(self.0.try_wait()?.is_none(), "a server program ended by itself");
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

// proves: A02
#[test]
fn ten_thousand_datagrams_are_answered() -> Result<()> {
    let lab = Lab::new(3)?;
    let servers = Server::start_all(&lab.servers, &[53])?;
    let agent = start(&lab, &(lab.head() + &Lab::listener("dns", "udp", "53", &[255, 255, 255], "")))?;
    for vip in VIPS {
        let report = ask_many(&lab.clients[0], client(1, vip), SocketAddr::new(vip, 53), 100, 100)?;
        println!("{vip}: {} of {} datagrams lost, {} doubled", report.lost.len(), report.sent, report.doubled);
        ensure!(report.sent == 10_000 && report.lost.len() <= 10, "{} of {} are lost", report.lost.len(), report.sent);
        ensure!(report.doubled == 0, "{} answers came twice", report.doubled);
        ensure!(report.servers.len() == 3, "only servers {:?} answered", report.servers);
        ensure!(report.peers.iter().all(|peer| peer.ip() == egress(vip)), "servers saw {:?}", report.peers);
    }
    let flows: usize = servers.iter().map(|server| server.datagrams().len()).sum();
    let status = agent.status()?;
    let counted: u64 = status.endpoints().map(|(_, endpoint)| endpoint.counters.new_flows).sum();
    ensure!(flows as u64 == counted, "servers saw {flows} flows and the status says {counted}");
    Ok(())
}

// proves: C03
#[test]
fn connections_are_shared_by_weight() -> Result<()> {
    let lab = Lab::new(3)?;
    let servers = Server::start_all(&lab.servers, &[80])?;
    let weights = [200, 100, 50];
    let agent = start(&lab, &(seeded(&lab) + &Lab::listener("web", "tcp", "80", &weights, "")))?;
    for (number, vip) in (1..).zip(VIPS) {
        let answered = spread(&lab.clients[0], client(1, vip), 20_000, SocketAddr::new(vip, 80), 10_000)?;
        println!("{vip}: {answered:?}");
        let status = agent.status()?;
        for (index, weight) in weights.iter().enumerate() {
            let got = answered.get(&(index + 1)).copied().unwrap_or(0);
            let (share, want) = (got as f64 / 10_000.0, f64::from(*weight) / 350.0);
            ensure!((share - want).abs() <= 0.02, "server {} of {vip} got {share:.3}, wanted {want:.3}", index + 1);
            let address = if vip.is_ipv4() { IpAddr::from(server4(index + 1)) } else { server6(index + 1).into() };
            let counted = endpoint(&status, "web", address)?.counters.new_flows;
            ensure!(counted == got as u64, "{address} accepted {got} and the status says {counted}");
        }
        let accepted: usize = servers.iter().map(Server::accepted).sum();
        ensure!(accepted == number * 10_000, "the servers accepted {accepted}");
    }
    Ok(())
}

// proves: C04
#[test]
fn a_canary_of_one_in_256_gets_its_part() -> Result<()> {
    let lab = Lab::new(2)?;
    let _servers = Server::start_all(&lab.servers, &[80])?;
    let _agent = start(&lab, &(seeded(&lab) + &Lab::listener("web", "tcp", "80", &[255, 1], "")))?;
    let (count, part) = (10_000.0_f64, 1.0 / 256.0);
    let answered = spread(&lab.clients[0], client4(1).into(), 20_000, SocketAddr::new(VIPS[0], 80), count as u16)?;
    let canary = answered.get(&2).copied().unwrap_or(0) as f64;
    let (mean, sigma) = (count * part, (count * part * (1.0 - part)).sqrt());
    println!("the canary got {canary}, expected {mean:.1}, sigma {sigma:.1}");
    ensure!((canary - mean).abs() <= 4.0 * sigma, "the canary got {canary}, expected {mean:.1}");
    Ok(())
}

// proves: A12, A13, A14
#[test]
fn affinity_keeps_a_client_address_at_one_endpoint_and_nothing_else_does() -> Result<()> {
    let lab = Lab::new(3)?;
    let _servers = Server::start_all(&lab.servers, &[80, 90])?;
    let text = lab.head()
        + &Lab::listener("free", "tcp", "80", &[255, 255, 255], "")
        + &Lab::listener("sticky", "tcp", "90", &[255, 255, 255], "client_affinity = \"source_ip\"")
        + &Lab::listener("sticky-udp", "udp", "90", &[255, 255, 255], "client_affinity = \"source_ip\"");
    let _agent = start(&lab, &text)?;
    for vip in VIPS {
        let from = client(1, vip);
        let free = spread(&lab.clients[0], from, 0, SocketAddr::new(vip, 80), 100)?;
        ensure!(free.len() >= 2, "without affinity one client met only {free:?}");
        let sticky = spread(&lab.clients[0], from, 0, SocketAddr::new(vip, 90), 1000)?;
        ensure!(sticky.len() == 1 && sticky.values().sum::<usize>() == 1000, "with affinity one client met {sticky:?}");
        let datagrams = ask_many(&lab.clients[0], from, SocketAddr::new(vip, 90), 100, 10)?;
        ensure!(datagrams.servers.len() == 1 && datagrams.lost.is_empty(), "with affinity, UDP: {datagrams:?}");
        ensure!(datagrams.peers.len() == 100, "100 sockets are {} flows", datagrams.peers.len());
    }
    // Other addresses of the same network may go elsewhere: 40 addresses at one of 3 endpoints would be a wonder.
    let mut met = BTreeMap::new();
    for number in 10..50 {
        let address = IpAddr::from([192, 0, 2, number]);
        lab.clients[0].run(&["ip", "addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        let one = spread(&lab.clients[0], address, 0, SocketAddr::new(VIPS[0], 90), 5)?;
        ensure!(one.len() == 1, "{address} met {one:?}");
        met.extend(one);
    }
    ensure!(met.len() == 3, "40 client addresses met only {met:?}");
    Ok(())
}

// proves: A05, A06, D02
#[test]
fn exactly_the_listed_ports_are_open_and_the_host_refuses_the_others() -> Result<()> {
    let lab = Lab::new(1)?;
    lab.own_vips()?;
    // A server that would answer on every port of the scan: what is not listed must never get there.
    let scan: BTreeSet<u16> = (70..100).chain(8070..8090).chain([1, 443, 18080]).collect();
    let server = Server::start(&lab.servers[0], 1, &scan.iter().copied().collect::<Vec<_>>())?;
    let commas = "80,90,8080";
    let agent = start(&lab, &(lab.head() + &Lab::listener("web", "tcp", commas, &[255], "")))?;
    let lists: [(&str, BTreeSet<u16>); 3] =
        [(commas, [80, 90, 8080].into()), ("80~85", (80..=85).collect()), ("80,90~92", [80, 90, 91, 92].into())];
    let mut expected = 0;
    for (list, ports) in lists {
        lab.configure(&(lab.head() + &Lab::listener("web", "tcp", list, &[255], "")))?;
        agent.ok(&["reload"])?;
        for vip in VIPS {
            let scanned = scan.clone();
            let open = block_in(&lab.clients[0], MINUTE, move || async move {
                let mut open = BTreeSet::new();
                for port in scanned {
                    if port_is_open(SocketAddr::new(vip, port)).await? {
                        open.insert(port);
                    }
                }
                Ok(open)
            })?;
            ensure!(open == ports, "{list} on {vip} opens {open:?}");
            expected += ports.len();
        }
        let connections = server.connections();
        ensure!(connections.len() == expected, "the server accepted {}, not {expected}", connections.len());
        let last: BTreeSet<_> = connections.iter().rev().take(ports.len()).map(|connection| connection.local.port()).collect();
        ensure!(last == ports, "without a mapping a port keeps its number: {last:?}");
    }
    // Every port, and no flow beyond those of the listed ones.
    let flows = |status: &Status| status.endpoints().map(|(_, endpoint)| endpoint.counters.new_flows).sum::<u64>();
    ensure!(flows(&agent.status()?) == expected as u64, "more flows than connections");
    let open = block_in(&lab.clients[0], MINUTE, move || async move {
        let mut open = BTreeSet::new();
        for port in 1..=9999 {
            if port_is_open(SocketAddr::new(VIP4.into(), port)).await? {
                open.insert(port);
            }
        }
        Ok(open)
    })?;
    ensure!(open == [80, 90, 91, 92].into(), "of 9,999 ports {open:?} are open");
    ensure!(flows(&agent.status()?) == expected as u64 + 4, "more flows than connections");
    Ok(())
}

// proves: D03, D04
#[test]
fn mapped_ports_arrive_where_they_are_mapped_to() -> Result<()> {
    let lab = Lab::new(1)?;
    let server = Server::start(&lab.servers[0], 1, &[80, 90, 8001, 8002, 8080, 18080])?;
    let one = "port_mapping = [{ listener = 80, endpoint = 18080 }]";
    let two = "port_mapping = [{ listener = 8001, endpoint = 8080 }, { listener = 8002, endpoint = 8080 }]";
    let text = lab.head()
        + &Lab::mapped_listener("one", "tcp", "80,90", &[255], "", one)
        + &Lab::mapped_listener("two", "tcp", "8001,8002", &[255], "", two)
        + &Lab::mapped_listener("one-udp", "udp", "80,90", &[255], "", one);
    let _agent = start(&lab, &text)?;
    for vip in VIPS {
        for (port, arrives) in [(80, 18080), (90, 90), (8001, 8080), (8002, 8080)] {
            let to = SocketAddr::new(vip, port);
            let hello = block_in(&lab.clients[0], MINUTE, move || async move { dial(None, to).await.map(|(hello, _)| hello) })?;
            ensure!(hello.local.port() == arrives, "{to} arrives at {}", hello.local);
        }
        for (port, arrives) in [(80, 18080), (90, 90)] {
            let socket = lab.clients[0].within(move || udp(client(1, vip)))??;
            socket.connect(SocketAddr::new(vip, port))?;
            let hello = ask(&socket)?;
            ensure!(hello.local.port() == arrives, "datagrams to {vip} port {port} arrive at {}", hello.local);
        }
    }
    ensure!(server.accepted() == 8, "{} connections", server.accepted());
    Ok(())
}

fn udp(from: IpAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::new(from, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(socket)
}

fn ask(socket: &UdpSocket) -> Result<ga_tests::traffic::Hello> {
    socket.send(b"who is there?")?;
    let mut answer = [0; 512];
    let bytes = socket.recv(&mut answer).context("no answer")?;
    ga_tests::traffic::Hello::parse(&answer[..bytes])
}

// proves: C19, F07
#[test]
fn endpoints_see_only_the_egress_address_of_the_instance() -> Result<()> {
    let lab = Lab::new(2)?;
    let servers = Server::start_all(&lab.servers, &[80])?;
    let (vip, other_vip) = (IpAddr::from(VIP4), IpAddr::from([198, 51, 100, 20]));
    let other_egress = IpAddr::from([203, 0, 113, 6]);
    for client in &lab.clients {
        let routes = client.read(&["ip", "-4", "route", "show", &VIP4.to_string()])?;
        let gateway = routes.split_whitespace().nth(2).context("clients have a route")?.to_owned();
        client.run(&["ip", "route", "add", &other_vip.to_string(), "via", &gateway])?;
    }
    let instance = |id: &str, vip: IpAddr, egress: IpAddr, server: usize| {
        let endpoints = [("private_ip", IpAddr::from(server4(server)), 255)];
        format!("\n[[instance]]\nid = \"{id}\"\nvips = [\"{vip}\"]\negress_ips = [\"{egress}\"]\n")
            + &Lab::listener_to("web", "tcp", "80", &endpoints, "", "")
            + &Lab::listener_to("dns", "udp", "80", &endpoints, "", "")
    };
    let node = lab.head().split("[[instance]]").next().unwrap_or_default().to_owned();
    let text = node.clone() + &instance("first", vip, EGRESS4.into(), 1) + &instance("second", other_vip, other_egress, 2);
    let agent = start(&lab, &text)?;
    for (index, target) in [vip, other_vip].into_iter().enumerate() {
        for (number, namespace) in (1..).zip(&lab.clients) {
            let from = client(number, target);
            spread(namespace, from, 0, SocketAddr::new(target, 80), 100)?;
            ask_many(namespace, from, SocketAddr::new(target, 80), 20, 5)?;
        }
        let expected = [IpAddr::from(EGRESS4), other_egress][index];
        let seen = servers[index].peers();
        ensure!(seen == [expected].into(), "server {} sees {seen:?}, and not only {expected}", index + 1);
        ensure!(servers[index].accepted() == 200, "server {} accepted {}", index + 1, servers[index].accepted());
    }
    lab.configure(&(node + &instance("first", vip, EGRESS4.into(), 1) + &instance("second", other_vip, EGRESS4.into(), 2)))?;
    let shared = agent.ga(&["reload"])?;
    let why = String::from_utf8_lossy(&shared.stderr).into_owned();
    ensure!(shared.status.code() == Some(1) && why.contains(&EGRESS4.to_string()), "a shared egress address: {why}");
    Ok(())
}

// proves: C06
#[test]
fn a_single_endpoint_of_weight_one_gets_everything() -> Result<()> {
    let lab = Lab::new(1)?;
    let _server = Server::start(&lab.servers[0], 1, &[80])?;
    let _agent = start(&lab, &(lab.head() + &Lab::listener("web", "tcp", "80", &[1], "")))?;
    for vip in VIPS {
        let answered = spread(&lab.clients[0], client(1, vip), 0, SocketAddr::new(vip, 80), 500)?;
        ensure!(answered == [(1, 500)].into(), "{vip}: {answered:?}");
    }
    Ok(())
}

// proves: C10, C16
#[test]
fn endpoints_of_every_type_and_range_are_reached() -> Result<()> {
    let lab = Lab::new(2)?;
    let endpoints = [
        ("private_ip", "10.9.8.7"),
        ("private_ip", "100.64.3.2"),
        ("private_ip", "172.16.5.4"),
        ("private_ip", "192.168.77.1"),
        ("private_ip", "11.22.33.44"),
        ("public_ip", "47.1.2.3"),
        ("ip", "8.20.30.40"),
        ("private_ip", "fd12:3456::7"),
        ("public_ip", "2a00:1450::99"),
        ("ip", "2600:1f00::77"),
    ];
    let endpoints: Vec<(&str, IpAddr, u8)> =
        endpoints.iter().map(|(kind, address)| Ok((*kind, address.parse()?, 255))).collect::<Result<_>>()?;
    for (number, (_, address, _)) in endpoints.iter().enumerate() {
        lab.server_address(number % 2 + 1, *address)?;
    }
    let servers = (0..2).map(|index| {
        let mine = endpoints.iter().skip(index).step_by(2).map(|(_, address, _)| SocketAddr::new(*address, 80)).collect();
        Server::start_at(&lab.servers[index], index + 1, mine)
    });
    let servers: Vec<Server> = servers.collect::<Result<_>>()?;
    let group = "backend_ip_version = \"affinity\"";
    let text = lab.head()
        + &Lab::listener_to("web", "tcp", "80", &endpoints, "", group)
        + &Lab::listener_to("dns", "udp", "80", &endpoints, "", group);
    let agent = start(&lab, &text)?;
    for vip in VIPS {
        spread(&lab.clients[0], client(1, vip), 0, SocketAddr::new(vip, 80), 300)?;
        let datagrams = ask_many(&lab.clients[0], client(1, vip), SocketAddr::new(vip, 80), 200, 1)?;
        ensure!(datagrams.lost.is_empty(), "{} of 200 datagrams are lost", datagrams.lost.len());
    }
    let status = agent.status()?;
    let met: BTreeSet<IpAddr> = servers.iter().flat_map(Server::connections).map(|connection| connection.local.ip()).collect();
    for (kind, address, _) in endpoints {
        ensure!(met.contains(&address), "no connection arrived at {address}");
        for listener in ["web", "dns"] {
            let endpoint = endpoint(&status, listener, address)?;
            ensure!(endpoint.kind == kind && endpoint.counters.return_packets > 0, "{endpoint:?}");
        }
    }
    for server in &servers {
        let seen = server.peers();
        ensure!(seen == [EGRESS4.into(), EGRESS6.into()].into(), "servers see {seen:?}");
    }
    Ok(())
}

// proves: L03
#[test]
fn fragments_to_a_listener_are_dropped_and_counted_and_others_pass() -> Result<()> {
    let lab = Lab::new(1)?;
    let server = Server::start(&lab.servers[0], 1, &[53])?;
    let _host = Server::start(&lab.edge, 9, &[7000])?;
    let agent = start(&lab, &(lab.head() + &Lab::listener("dns", "udp", "53", &[255], "")))?;
    for (vip, host) in [(VIPS[0], "192.0.2.1"), (VIPS[1], "2001:db8:c1::1")] {
        let before = agent.status()?;
        let socket = lab.clients[0].within(move || udp(client(1, vip)))??;
        socket.send_to(&[7; 4000], SocketAddr::new(vip, 53))?;
        let drops = until("the count of dropped fragments", MINUTE, || {
            let now = dropped(&agent.status()?, "fragment") - dropped(&before, "fragment");
            Ok((now >= 3).then_some(now))
        })?;
        ensure!(drops == 3, "4,000 bytes are 3 fragments, {drops} were counted");
        // The same datagram to the edge itself is the edge's, and whole.
        socket.connect(SocketAddr::new(host.parse()?, 7000))?;
        socket.send(&[7; 4000])?;
        let mut answer = vec![0; 8000];
        let bytes = socket.recv(&mut answer).context("the edge's own service did not answer")?;
        ensure!(bytes == 4000 + ga_tests::traffic::Hello::LEN, "{bytes} bytes came back");
        ensure!(answer[..bytes].ends_with(&[7; 4000]), "other bytes came back");
        // And the listener still works.
        let socket = lab.clients[0].within(move || udp(client(1, vip)))??;
        socket.connect(SocketAddr::new(vip, 53))?;
        ensure!(ask(&socket)?.server == 1, "another server");
    }
    let seen: u64 = server.datagrams().values().sum();
    ensure!(seen == 2, "the server saw {seen} datagrams: fragments arrived");
    Ok(())
}

#[test]
fn what_is_the_hosts_own_stays_the_hosts() -> Result<()> {
    let lab = Lab::new(1)?;
    lab.own_vips()?;
    let _server = Server::start(&lab.servers[0], 1, &[80, 7000])?;
    let _agent = start(&lab, &(lab.head() + &Lab::listener("web", "tcp", "80", &[255], "")))?;
    let [inside, outside] = [&lab.servers[0], &lab.clients[0]];
    // Echo requests to a VIP are answered by the interface they came in by: what a veth sends that way arrives only here.
    let _native = pass_program(outside, "eth0")?;
    let own: [(&Namespace, &str); 6] = [
        (outside, "192.0.2.1"),
        (outside, "2001:db8:c1::1"),
        (inside, "10.0.1.1"),
        (inside, "fd00:10:1::1"),
        (outside, "198.51.100.10"),
        (outside, "2001:db8:100::10"),
    ];
    // Bound to each address, so that datagrams are answered by the address that was asked.
    let bound = own.iter().flat_map(|(_, address)| [22, 7000].map(|port| Ok(SocketAddr::new(address.parse()?, port))));
    let host = Server::start_at(&lab.edge, 9, bound.collect::<Result<_>>()?)?;
    for (number, (from, address)) in (1..).zip(own) {
        from.run(&["ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", address])?;
        let to = SocketAddr::new(address.parse()?, 22);
        let report = transfer(from, to, 3_000_000)?;
        ensure!(report.hello.server == 9, "{to} is served by {}", report.hello.server);
        ensure!(host.accepted() == number, "the edge accepted {}", host.accepted());
        let any = if to.is_ipv4() { IpAddr::from([0; 4]) } else { [0; 16].into() };
        let datagrams = ask_many(from, any, SocketAddr::new(to.ip(), 7000), 4, 25)?;
        ensure!(datagrams.lost.is_empty() && datagrams.servers == [9].into(), "{address}: {datagrams:?}");
    }
    // What the edge itself begins.
    let report = transfer(&lab.edge, SocketAddr::new(server4(1).into(), 80), 3_000_000)?;
    ensure!(report.hello.server == 1 && report.hello.peer.ip() == IpAddr::from([10, 0, 1, 1]), "{:?}", report.hello);
    lab.edge.run(&["ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", &client4(1).to_string()])
}

// proves: A10
#[test]
fn a_tcp_and_a_udp_listener_share_a_port() -> Result<()> {
    let lab = Lab::new(2)?;
    let _servers = Server::start_all(&lab.servers, &[80])?;
    let one = |name, protocol, address: [IpAddr; 2]| {
        let endpoints = address.map(|address| ("private_ip", address, 255));
        Lab::listener_to(name, protocol, "80", &endpoints, "", "backend_ip_version = \"affinity\"")
    };
    let text = lab.head()
        + &one("tcp", "tcp", [server4(1).into(), server6(1).into()])
        + &one("udp", "udp", [server4(2).into(), server6(2).into()]);
    let agent = start(&lab, &text)?;
    for vip in VIPS {
        let to = SocketAddr::new(vip, 80);
        ensure!(spread(&lab.clients[0], client(1, vip), 0, to, 50)? == [(1, 50)].into(), "TCP went elsewhere");
        let datagrams = ask_many(&lab.clients[0], client(1, vip), to, 50, 2)?;
        ensure!(datagrams.servers == [2].into() && datagrams.lost.is_empty(), "UDP: {datagrams:?}");
    }
    // The same port twice for one protocol is refused.
    lab.configure(&(text + &Lab::listener("again", "tcp", "80", &[255], "")))?;
    let refused = agent.ga(&["reload"])?;
    ensure!(refused.status.code() == Some(1), "the same port twice: {}", refused.status);
    Ok(())
}

#[test]
fn other_client_networks_are_served_alike() -> Result<()> {
    let lab = Lab::new(2)?;
    let servers = Server::start_all(&lab.servers, &[80])?;
    let _agent = start(&lab, &(lab.head() + &Lab::listener("web", "tcp", "80", &[255, 255], "")))?;
    for vip in VIPS {
        for (number, namespace) in (1..).zip(&lab.clients) {
            let answered = spread(namespace, client(number, vip), 0, SocketAddr::new(vip, 80), 200)?;
            ensure!(answered.len() == 2, "network {number}, {vip}: {answered:?}");
        }
    }
    ensure!(servers.iter().map(Server::accepted).sum::<usize>() == 800, "connections are missing");
    Ok(())
}
