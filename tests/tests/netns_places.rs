//! Endpoints that are named, not numbered: server groups, domains, load balancers and hosts of the inventory, with real clients,
//! servers and name servers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ga::status::{Endpoint, EndpointState};
use ga_tests::{
    lab::{Agent, EGRESS4, Lab, Nginx, VIP4, client4, curl, self_signed, server4},
    traffic::{Flows, Hello, Server, block_in, port_is_open, spread, until},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PATIENCE: Duration = Duration::from_secs(90);

/// Servers with ports of their own, of the weights 100, 50 and 0.
fn pool() -> String {
    let [a, b, c] = [1, 2, 3].map(server4);
    format!(
        "\n[[vserver_group]]\nname = \"pool\"\nservers = [{{ address = \"{a}\", port = 8080 }}, {{ address = \"{b}\", port = 9090, \
         weight = 50 }}, {{ address = \"{c}\", port = 7070, weight = 0 }}]\n\n[inventory.hosts]\nweb = \"{c}\"\n"
    )
}

/// One IPv4 instance; `node` are further keys of the node.
fn head(lab: &Lab, node: &str) -> String {
    let head = lab.head().replace("[node]\n", &format!("[node]\n{node}\n"));
    let head: String = head.lines().filter(|line| !line.starts_with("vips")).map(|line| format!("{line}\n")).collect();
    format!("{head}vips = [\"{VIP4}\"]\n")
}

fn group_of(endpoints: &[&str]) -> String {
    let endpoint = |keys: &&str| format!("\n[[instance.listener.endpoint_group.endpoint]]\n{keys}\n");
    let endpoints: String = endpoints.iter().map(endpoint).collect();
    format!("[[instance.listener.endpoint_group]]\nname = \"near\"\nregion = \"lab\"\n{endpoints}")
}

/// The endpoints of the lab, by address.
fn endpoints(agent: &Agent) -> Result<BTreeMap<String, Endpoint>> {
    Ok(agent.status()?.endpoints().map(|(path, endpoint)| (path.address, endpoint.clone())).collect())
}

/// A program in a namespace; ended when dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Program {
    fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        Ok(rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), signal)?)
    }
}

fn listener(port: u16, what: &str) -> String {
    format!("\n[[instance.listener]]\nname = \"port{port}\"\nprotocol = \"tcp\"\nports = \"{port}\"\n{what}\n")
}

/// How many of 3,000 connections to the port each server answered.
fn answers(lab: &Lab, port: u16) -> Result<[usize; 3]> {
    answers_of(lab, port, 3_000)
}

/// The same of `count` connections: a tenth of a small share is five standard deviations only of many.
fn answers_of(lab: &Lab, port: u16, count: u16) -> Result<[usize; 3]> {
    let to = SocketAddr::new(IpAddr::V4(VIP4), port);
    let by_server = spread(&lab.clients[0], client4(1).into(), 10_000, to, count)?;
    println!("port {port}: {by_server:?}");
    Ok([1, 2, 3].map(|server| by_server.get(&server).copied().unwrap_or_default()))
}

fn about(seen: [usize; 3], wanted: [usize; 3]) -> Result<()> {
    let is_near = seen.iter().zip(wanted).all(|(seen, wanted)| seen.abs_diff(wanted) <= wanted / 10);
    ensure!(is_near, "the servers answered {seen:?} connections, not about {wanted:?}");
    Ok(())
}

// proves: C11, C12, K01, K02, K03, K04, K05, K08
#[test]
fn pools_and_names_answer_by_their_weights_on_ports_of_their_own() -> Result<()> {
    let lab = Lab::new(3)?;
    let _pool = [Server::start(&lab.servers[0], 1, &[8080])?, Server::start(&lab.servers[1], 2, &[9090, 8080])?];
    let _named = Server::start(&lab.servers[2], 3, &[7070, 83])?;
    let group = "[[instance.listener.endpoint_group]]\nname = \"near\"\nregion = \"lab\"\n";
    let endpoint = "[[instance.listener.endpoint_group.endpoint]]\n";
    let of_both = format!(
        "{group}\n{endpoint}type = \"clb\"\nvserver_group = \"pool\"\nweight = 100\n\n{endpoint}type = \"ecs\"\naddress = \"web\"\n\
         weight = 100\n"
    );
    let text = head(&lab, "")
        + &listener(80, "vserver_group = \"pool\"")
        + &listener(81, "vserver_group = \"pool\"")
        + &listener(82, "vserver_group = \"other\"")
        + &listener(83, &of_both);
    let [a, b] = [1, 2].map(server4);
    // The same servers, of other weights.
    let text = format!(
        "{text}\n[[vserver_group]]\nname = \"other\"\nservers = [{{ address = \"{a}\", port = 8080, weight = 50 }}, \
         {{ address = \"{b}\", port = 9090, weight = 100 }}]\n"
    );
    lab.configure(&(text.clone() + &pool()))?;
    let agent = Agent::start(&lab)?;
    about(answers(&lab, 80)?, [2_000, 1_000, 0])?;
    about(answers(&lab, 81)?, [2_000, 1_000, 0])?;
    about(answers(&lab, 82)?, [1_000, 2_000, 0])?;
    about(answers_of(&lab, 83, 12_000)?, [4_000, 2_000, 6_000])?;

    // One change, and all who name the pool follow; a port may belong to many servers.
    lab.configure(&(text + &pool().replace("port = 9090", "port = 8080").replace("weight = 50", "weight = 100")))?;
    agent.ok(&["reload"])?;
    about(answers(&lab, 80)?, [1_500, 1_500, 0])?;
    about(answers(&lab, 81)?, [1_500, 1_500, 0])?;
    about(answers(&lab, 82)?, [1_000, 2_000, 0])?;
    about(answers_of(&lab, 83, 12_000)?, [3_000, 3_000, 6_000])
}

// proves: C10, C16, C19
#[test]
fn endpoints_of_every_range_answer_and_see_nothing_but_the_egress_address() -> Result<()> {
    let lab = Lab::new(1)?;
    // The private ranges, a public address that is taken for a private one, and a public one.
    let kinds = [
        ("private_ip", [10, 64, 1, 1]),
        ("private_ip", [100, 64, 1, 1]),
        ("private_ip", [172, 16, 1, 1]),
        ("private_ip", [192, 168, 1, 1]),
        ("private_ip", [8, 8, 8, 8]),
        ("public_ip", [198, 18, 1, 1]),
        ("ip", [198, 19, 1, 1]),
    ];
    let server = Server::start(&lab.servers[0], 1, &[80, 81, 82, 83, 84, 85, 86])?;
    let mut text = head(&lab, "");
    for (port, (kind, octets)) in (80..).zip(kinds) {
        let address = Ipv4Addr::from(octets);
        lab.server_address(1, address.into())?;
        text += &listener(port, &group_of(&[&format!("type = \"{kind}\"\naddress = \"{address}\"")]));
    }
    lab.configure(&text)?;
    let agent = Agent::start(&lab)?;
    for (port, (kind, octets)) in (80..).zip(kinds) {
        let before = server.accepted();
        let to = SocketAddr::new(VIP4.into(), port);
        ensure!(spread(&lab.clients[0], client4(1).into(), 0, to, 10)? == BTreeMap::from([(1, 10)]), "{kind}");
        let local: BTreeSet<_> = server.connections()[before..].iter().map(|one| one.local.ip()).collect();
        ensure!(local == BTreeSet::from([Ipv4Addr::from(octets).into()]), "{kind}: {local:?}");
    }
    ensure!(server.peers() == BTreeSet::from([EGRESS4.into()]), "{:?}", server.peers());
    // What firewalls are told.
    let config = lab.dir.join("ga.toml").display().to_string();
    let told = agent.ok(&["egress", "--config", &config])?;
    ensure!(told.lines().any(|line| line.starts_with(&format!("lab\t{EGRESS4}\ttcp\tport80,port81,"))), "{told}");
    Ok(())
}

// proves: K04, K06, K07, K09
#[test]
fn changes_of_a_pool_are_written_to_the_file_and_the_running_agent_follows() -> Result<()> {
    let lab = Lab::new(3)?;
    let _servers = [Server::start(&lab.servers[0], 1, &[8080])?, Server::start(&lab.servers[1], 2, &[9090, 8080])?];
    let _third = Server::start(&lab.servers[2], 3, &[7070, 8080])?;
    let text = head(&lab, "# Ours.") + &listener(80, "vserver_group = \"pool\" # all of it") + &pool();
    let file = lab.configure(&text)?;
    let agent = Agent::start(&lab)?;
    let path = file.display().to_string();
    let vsg = |words: &[&str]| agent.ga(&[&["vsg", "--config", &path], words].concat());
    let said = |words: &[&str]| -> Result<String> {
        let output = vsg(words)?;
        ensure!(output.status.success(), "ga vsg {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let refused = |words: &[&str], why: &str| -> Result<()> {
        let (before, generation) = (fs::read_to_string(&file)?, agent.status()?.generation);
        let output = vsg(words)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1) && said.contains(why), "ga vsg {words:?}: {}: {said}", output.status);
        ensure!(fs::read_to_string(&file)? == before && agent.status()?.generation == generation, "nothing changed");
        Ok(())
    };
    about(answers(&lab, 80)?, [2_000, 1_000, 0])?;

    let told = said(&["set", "pool", "--row", "2", "--column", "weight", "--value", "100"])?;
    ensure!(told.contains("is written; generation 2 is live"), "{told}");
    ensure!(fs::read_to_string(&file)? == text.replace("weight = 50", "weight = 100"), "nothing else changed in the file");
    about(answers(&lab, 80)?, [1_500, 1_500, 0])?;

    said(&["set", "pool", "--row", "2", "--column", "weight", "--replicate", "below"])?;
    about(answers(&lab, 80)?, [1_000, 1_000, 1_000])?;
    said(&["set", "pool", "--row", "1", "--column", "port", "--replicate", "all"])?;
    about(answers(&lab, 80)?, [1_000, 1_000, 1_000])?;
    let ports: Vec<_> = endpoints(&agent)?.into_keys().collect();
    ensure!(ports == [1, 2, 3].map(|n| format!("{}:8080", server4(n))), "{ports:?}");

    refused(&["set", "pool", "--column", "weight", "--reset"], "weight is empty in row 1, 2, 3")?;
    let open = Flows::open(&lab.clients[1], SocketAddr::new(VIP4.into(), 80), 60, Duration::from_millis(200))?;
    ensure!(open.hellos.iter().any(|hello| hello.server == 2), "one of 60 is at the second server");
    said(&["set", "pool", "--column", "weight", "--reset", "--values", "50,0,50"])?;
    about(answers(&lab, 80)?, [1_500, 0, 1_500])?;
    open.wait_for(200)?;
    open.all_well()?;
    refused(&["delete", "pool"], "used by lab/port80")?;
    let server = server4(1).to_string();
    refused(&["set", "pool", "--row", "2", "--column", "server", "--value", &server], "is in this group already")?;

    // What somebody else wrote into the file meanwhile goes live with the change, or stands in its way.
    let broken = fs::read_to_string(&file)?.replace("ports = \"80\"", "ports = \"eighty\"");
    fs::write(&file, broken)?;
    refused(&["set", "pool", "--row", "2", "--column", "weight", "--value", "9"], "would be wrong, and stays as it is")
}

#[test]
fn a_pool_whose_servers_are_probed_loses_those_that_fail() -> Result<()> {
    let lab = Lab::new(2)?;
    let _first = Server::start(&lab.servers[0], 1, &[8080])?;
    let second = Server::start(&lab.servers[1], 2, &[9090])?;
    let [a, b] = [1, 2].map(server4);
    let pool = format!(
        "\n[[vserver_group]]\nname = \"pool\"\nhealth_check = {{ interval = 1, threshold = 2 }}\n\
         servers = [{{ address = \"{a}\", port = 8080 }}, {{ address = \"{b}\", port = 9090 }}]\n"
    );
    lab.configure(&(head(&lab, "") + &listener(80, "vserver_group = \"pool\"") + &pool))?;
    let agent = Agent::start(&lab)?;
    about(answers(&lab, 80)?, [1_500, 1_500, 0])?;
    let state = || -> Result<_> { Ok(endpoints(&agent)?[&format!("{b}:9090")].state) };
    drop(second);
    until("a verdict", PATIENCE, || Ok((state()? == EndpointState::Unhealthy).then_some(())))?;
    about(answers(&lab, 80)?, [3_000, 0, 0])?;
    let _second = Server::start(&lab.servers[1], 2, &[9090])?;
    until("another verdict", PATIENCE, || Ok((state()? == EndpointState::Active).then_some(())))?;
    about(answers(&lab, 80)?, [1_500, 1_500, 0])
}

/// The zone `lab.test` in a namespace of its own, at the address of the third server.
struct Zone<'l> {
    lab: &'l Lab,
    dir: PathBuf,
    serial: u32,
    server: Option<Program>,
}

impl<'l> Zone<'l> {
    fn new(lab: &'l Lab) -> Result<Self> {
        let dir = lab.dir.join("dns");
        fs::create_dir_all(&dir)?;
        let text = format!(
            "server:\n    rundir: \"{0}\"\n    listen: {1}@53\n    udp-workers: 1\n    tcp-workers: 1\n    \
             background-workers: 1\ndatabase:\n    storage: \"{0}\"\nlog:\n  - target: stderr\n    any: warning\n\
             zone:\n  - domain: lab.test\n    storage: \"{0}\"\n    file: \"zone\"\n",
            dir.display(),
            server4(3),
        );
        fs::write(dir.join("knot.conf"), text)?;
        Ok(Self { lab, dir, serial: 0, server: None })
    }

    fn write(&mut self, addresses: &[Ipv4Addr]) -> Result<()> {
        self.serial += 1;
        let mut text = format!(
            "$TTL 5\n@ SOA ns.lab.test. admin.lab.test. {} 60 60 60 5\n@ NS ns.lab.test.\nns A {}\n",
            self.serial,
            server4(3)
        );
        addresses.iter().for_each(|address| text += &format!("pool A {address}\n"));
        (1..=200).for_each(|number| text += &format!("many A 10.200.0.{number}\n"));
        text += "loop CNAME pool-of-loop\npool-of-loop CNAME loop\n";
        Ok(fs::write(self.dir.join("zone"), text)?)
    }

    /// Starts the server anew. Without a zone it answers SERVFAIL.
    fn serve(&mut self) -> Result<()> {
        self.server = None;
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log"))?;
        let config = self.dir.join("knot.conf").display().to_string();
        let mut command = self.lab.servers[2].command(&["knotd", "-c", &config]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.server = Some(Program(command.spawn().context("cannot start knotd")?));
        let at = SocketAddr::new(server4(3).into(), 53);
        until("the name server", PATIENCE, || {
            Ok(block_in(&self.lab.servers[2], PATIENCE, move || port_is_open(at))?.then_some(()))
        })
    }

    fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        self.server.as_ref().context("it runs")?.signal(signal)
    }
}

// proves: C17
#[test]
fn a_domain_is_followed_within_its_ttl_and_keeps_its_last_answer_when_dns_is_out() -> Result<()> {
    use rustix::process::Signal;

    let lab = Lab::new(3)?;
    let _servers = Server::start_all(&lab.servers, &[80, 82])?;
    let mut zone = Zone::new(&lab)?;
    let [a, b, c] = [1, 2, 3].map(server4);
    zone.write(&[a, b])?;
    zone.serve()?;
    let literal = format!("type = \"private_ip\"\naddress = \"{c}\"\nweight = 100");
    let group = group_of(&["type = \"domain\"\naddress = \"pool.lab.test\"\nweight = 100", &literal]);
    let hostile = |name: &str| group_of(&[&format!("type = \"domain\"\naddress = \"{name}.lab.test\""), &literal]);
    let listeners = listener(80, &group) + &listener(81, &hostile("many")) + &listener(82, &hostile("loop"));
    lab.configure(&(head(&lab, &format!("resolvers = [\"{c}\"]")) + &listeners))?;
    let agent = Agent::start(&lab)?;
    let seen = |wanted: &[Ipv4Addr]| -> Result<Option<()>> {
        let wanted: Vec<_> = wanted.iter().map(ToString::to_string).collect();
        let is_ours = |endpoint: &Endpoint| endpoint.origin.name.as_deref() == Some("pool.lab.test");
        let found: Vec<_> = endpoints(&agent)?.into_iter().filter(|(_, e)| is_ours(e)).map(|(at, _)| at).collect();
        Ok((found == wanted).then_some(()))
    };
    until("both addresses", PATIENCE, || seen(&[a, b]))?;
    // An answer that is too long is cut, one that leads in circles is none, and both leave the other endpoints alone.
    let named = |name: &str| -> Result<_> {
        let found = agent.status()?.names.into_iter().find(|one| one.name == format!("{name}.lab.test"));
        found.with_context(|| format!("{name} is known"))
    };
    let (many, circle) = (named("many")?, named("loop")?);
    ensure!((many.addresses.len(), many.left_out, many.error) == (16, 184, None), "{:?}", many.addresses);
    ensure!(circle.addresses.is_empty() && circle.error.is_some(), "{circle:?}");
    about(answers(&lab, 82)?, [0, 0, 3_000])?;
    about(answers(&lab, 80)?, [750, 750, 1_500])?;

    // Those that are established stay where they are, whatever the name stands for later.
    let open = Flows::open(&lab.clients[1], SocketAddr::new(VIP4.into(), 80), 60, Duration::from_millis(200))?;
    ensure!(open.hellos.iter().any(|hello| hello.server == 1), "one of 60 is at the first server");
    zone.write(&[b])?;
    zone.signal(Signal::HUP)?;
    let begin = Instant::now();
    until("the change", PATIENCE, || seen(&[b]))?;
    println!("the change was followed after {:?}, its TTL is 5 s", begin.elapsed());
    ensure!(begin.elapsed() < Duration::from_secs(10), "the change was followed after {:?}", begin.elapsed());
    about(answers(&lab, 80)?, [0, 1_500, 1_500])?;

    // A server without its zone, and one that says nothing.
    let origin = || -> Result<_> { Ok(endpoints(&agent)?.remove(&b.to_string()).context("the address stays")?.origin) };
    let mut errors = Vec::new();
    fs::remove_file(zone.dir.join("zone"))?;
    zone.serve()?;
    for silent in [false, true] {
        if silent {
            zone.signal(Signal::STOP)?;
        }
        let error = until("an error of its own", PATIENCE, || Ok(origin()?.error.filter(|error| !errors.contains(error))))?;
        println!("silent {silent}: {error}");
        errors.push(error);
        about(answers(&lab, 80)?, [0, 1_500, 1_500])?;
        let text = agent.ok(&["endpoints", "list"])?;
        let origin = origin()?;
        ensure!(origin.ttl_s == Some(0) && origin.age_s.is_some_and(|age| age >= 5), "{origin:?}");
        ensure!(text.contains("dns pool.lab.test") && text.contains("s old"), "{text}");
    }

    // A restart during the outage.
    drop(agent);
    let agent = Agent::start_within(&lab, PATIENCE)?;
    ensure!(endpoints(&agent)?.contains_key(&b.to_string()), "the last answer outlives the agent");
    about(answers(&lab, 80)?, [0, 1_500, 1_500])?;
    zone.write(&[a])?;
    zone.serve()?;
    until("the end of the outage", PATIENCE, || Ok(endpoints(&agent)?.contains_key(&a.to_string()).then_some(())))?;
    about(answers(&lab, 80)?, [1_500, 0, 1_500])?;
    open.wait_for(200)?;
    open.all_well()?;
    Ok(())
}

// proves: C14
#[test]
fn a_network_load_balancer_is_an_endpoint_and_proxy_headers_pass_through() -> Result<()> {
    let lab = Lab::new(1)?;
    let _behind = Server::start(&lab.servers[0], 1, &[8080])?;
    let config = lab.dir.join("haproxy.cfg");
    fs::write(
        &config,
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
         listen passes\n  bind :80\n  server s 127.0.0.1:8080\n\
         listen takes\n  bind :81 accept-proxy\n  server s 127.0.0.1:8080 send-proxy-v2\n",
    )?;
    let _balancer = Program(lab.servers[0].spawn(&["haproxy", "-db", "-f", &config.display().to_string()])?);
    let group = group_of(&[&format!("type = \"nlb\"\naddress = \"{}\"", server4(1))]);
    lab.configure(&(head(&lab, "") + &listener(80, &group) + &listener(81, &group)))?;
    let _agent = Agent::start(&lab)?;
    let open = SocketAddr::new(server4(1).into(), 80);
    until("the load balancer", PATIENCE, || Ok(block_in(&lab.servers[0], PATIENCE, move || port_is_open(open))?.then_some(())))?;

    // Version 1 and 2 of the header, 192.0.2.2:4000 to the VIP's port 81: what the client sends is what the server gets.
    let v1 = format!("PROXY TCP4 192.0.2.2 {VIP4} 4000 81\r\n").into_bytes();
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend([192, 0, 2, 2].into_iter().chain(VIP4.octets()).chain([15, 160, 0, 81]));
    for header in [&v1, &v2] {
        let mut sent = header.clone();
        sent.extend((0..100_000_u32).map(|n| (n % 251) as u8));
        let back = echoed(&lab, 80, &sent, sent.len())?;
        ensure!(back == sent, "{} bytes came back, others than were sent", back.len());
    }
    // A load balancer that takes the header hands it on in its own words.
    let back = echoed(&lab, 81, &[&v1[..], b"hello"].concat(), v2.len() + 5)?;
    ensure!(back == [&v2[..], b"hello"].concat(), "{back:?}");
    Ok(())
}

/// Sends bytes to the VIP and returns as many as come back after the server's hello.
fn echoed(lab: &Lab, port: u16, bytes: &[u8], count: usize) -> Result<Vec<u8>> {
    let (bytes, to) = (bytes.to_vec(), SocketAddr::new(VIP4.into(), port));
    block_in(&lab.clients[0], PATIENCE, move || async move {
        let mut stream = tokio::net::TcpStream::connect(to).await?;
        let (mut reader, mut writer) = stream.split();
        let mut back = vec![0; Hello::LEN + count];
        let (sent, read) = tokio::join!(writer.write_all(&bytes), reader.read_exact(&mut back));
        sent?;
        read?;
        Ok(back.split_off(Hello::LEN))
    })
}

// proves: C11
#[test]
fn an_inventory_is_asked_in_tls_by_whom_its_authority_vouches_for() -> Result<()> {
    let lab = Lab::new(3)?;
    let _servers = Server::start_all(&lab.servers[..2], &[80])?;
    let dir = lab.dir.join("inventory");
    fs::create_dir_all(&dir)?;
    let (good, other) = (authority(&lab, &dir, "good")?, authority(&lab, &dir, "other")?);
    let name = |number| fs::write(dir.join("hosts.json"), format!("{{ \"web\": \"{}\" }}", server4(number)));
    name(1)?;
    let _nginx = nginx(&lab, &dir)?;
    let configure = |ca: &Path| {
        let group = group_of(&["type = \"ecs\"\naddress = \"web\""]);
        let inventory =
            format!("\n[inventory]\nurl = \"https://{}/hosts.json\"\nca = \"{}\"\ninterval = 5\n", server4(3), ca.display());
        lab.configure(&(head(&lab, "") + &listener(80, &group) + &inventory))
    };
    configure(&other)?;
    let agent = Agent::start(&lab)?;
    let error = until("a refusal", PATIENCE, || Ok(agent.status()?.names.first().and_then(|name| name.error.clone())))?;
    ensure!(error.contains("TLS: invalid peer certificate"), "{error}");
    ensure!(endpoints(&agent)?.is_empty(), "nobody knows the name");

    configure(&good)?;
    agent.ok(&["reload"])?;
    until("the name", PATIENCE, || Ok(endpoints(&agent)?.contains_key(&server4(1).to_string()).then_some(())))?;
    about(answers(&lab, 80)?, [3_000, 0, 0])?;
    name(2)?;
    until("the change", PATIENCE, || Ok(endpoints(&agent)?.contains_key(&server4(2).to_string()).then_some(())))?;
    about(answers(&lab, 80)?, [0, 3_000, 0])?;
    // What did not change is not sent again.
    until("an answer without a body", PATIENCE, || {
        Ok(fs::read_to_string(dir.join("access.log"))?.contains("\"GET /hosts.json HTTP/1.1\" 304 ").then_some(()))
    })
}

// proves: C15
#[test]
fn objects_of_a_store_are_fetched_through_http_and_https_by_the_domain_that_it_knows() -> Result<()> {
    let lab = Lab::new(3)?;
    let mut zone = Zone::new(&lab)?;
    zone.write(&[server4(1)])?;
    zone.serve()?;
    // It serves its own bucket, and nothing to those who ask for anybody else.
    let bucket = |listen: &str| {
        format!(
            "server {{ listen {listen} default_server; ssl_certificate DIR/cert.pem; ssl_certificate_key DIR/key.pem; return 403; }}\n\
             server {{ listen {listen}; server_name pool.lab.test; ssl_certificate DIR/cert.pem; ssl_certificate_key DIR/key.pem; \
             root DIR/objects; }}\n"
        )
    };
    let store = Nginx::start(&lab, 1, &(bucket("80") + &bucket("443 ssl")), &[80, 443], &["pool.lab.test"])?;
    fs::create_dir_all(store.dir.join("objects"))?;
    let object: String = (0..100_000).map(|number| format!("line {number}\n")).collect();
    fs::write(store.dir.join("objects/object.txt"), &object)?;
    self_signed(&lab.dir, &["www.shop.example"])?;
    let https = format!("certificates = {{ default = \"{}\" }}", lab.dir.join("both.pem").display());
    let vouched = format!("backend_protocol = \"https\"\nca = \"{}\"", store.dir.join("cert.pem").display());
    let served = |protocol: &str, port: u16, keys: &str, group: &str, to: u16| {
        format!(
            "\n[[instance.listener]]\nname = \"of-{port}\"\nprotocol = \"{protocol}\"\nports = \"{port}\"\n{keys}\n\
             [[instance.listener.endpoint_group]]\nname = \"store\"\nregion = \"lab\"\n{group}\n\
             port_mapping = [{{ listener = {port}, endpoint = {to} }}]\n\
             [[instance.listener.endpoint_group.endpoint]]\ntype = \"oss\"\naddress = \"pool.lab.test\"\n"
        )
    };
    let rule = "[[instance.listener.rule]]\nname = \"other\"\nwhen = [{ path = \"/other/*\" }]\n\
                do = [{ rewrite = { domain = \"other.lab.test\", path = \"/object.txt\" } }, { forward = \"store\" }]\n";
    let text = head(&lab, &format!("resolvers = [\"{}\"]", server4(3)))
        + &served("http", 80, "", "", 80)
        + rule
        + &served("https", 443, &https, "", 80)
        + &served("https", 8443, &https, &vouched, 443);
    lab.configure(&text)?;
    let agent = Agent::start(&lab)?;
    let ca = lab.dir.join("cert.pem").display().to_string();
    let fetch = |scheme: &str, port: u16, path: &str| {
        let resolve = format!("www.shop.example:{port}:{VIP4}");
        let url = format!("{scheme}://www.shop.example:{port}{path}");
        curl(&lab.clients[0], &["--fail", "--cacert", &ca, "--resolve", &resolve], &url)
    };
    until("the bucket's address", PATIENCE, || Ok(fetch("http", 80, "/object.txt").ok()))?;
    for (scheme, port) in [("http", 80), ("https", 443), ("https", 8443)] {
        ensure!(fetch(scheme, port, "/object.txt")? == object, "not the object, through {scheme} at {port}");
    }
    let refused = fetch("http", 80, "/other/object.txt").err().context("a bucket that is not there")?;
    ensure!(format!("{refused:#}").contains("403"), "a rule's host goes before: {refused:#}");
    let said = agent.ok(&["trace", "http", "--listener", "of-80", "--host", "www.shop.example"])?;
    ensure!(said.contains("of group store, 100.0 % of such requests, asked for pool.lab.test\n"), "{said}");
    Ok(())
}

/// A certificate authority; the first one made signs the certificate that the inventory's server has.
fn authority(lab: &Lab, dir: &Path, name: &str) -> Result<PathBuf> {
    let path = |file: &str| dir.join(file).display().to_string();
    let (key, certificate) = (path(&format!("{name}.key")), path(&format!("{name}.pem")));
    let fresh = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let subject = format!("/CN={name}");
    lab.servers[2].run(&[&fresh[..], &["-subj", &subject, "-keyout", &key, "-out", &certificate]].concat())?;
    if !dir.join("server.pem").exists() {
        let (server_key, server, names) = (path("server.key"), path("server.pem"), format!("subjectAltName=IP:{}", server4(3)));
        let signed = ["-subj", "/CN=inventory", "-CA", &certificate, "-CAkey", &key, "-keyout", &server_key, "-out", &server];
        let leaf = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", &names];
        lab.servers[2].run(&[&fresh[..], &signed, &leaf].concat())?;
    }
    Ok(certificate.into())
}

/// What is in `dir`, on port 443 of the third server.
fn nginx(lab: &Lab, dir: &Path) -> Result<Program> {
    let path = |name: &str| dir.join(name).display().to_string();
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|what| format!("{what}_temp_path {};\n", path(what)));
    let text = format!(
        "user root;\ndaemon off; pid {}; error_log {};\nevents {{}}\nhttp {{ access_log {}; default_type text/plain;\n{}\
         server {{ listen 443 ssl; ssl_certificate {}; ssl_certificate_key {}; root {}; }} }}\n",
        path("pid"),
        path("error.log"),
        path("access.log"),
        temporary.concat(),
        path("server.pem"),
        path("server.key"),
        dir.display(),
    );
    fs::write(dir.join("nginx.conf"), text)?;
    let nginx = Program(lab.servers[2].spawn(&["nginx", "-c", &path("nginx.conf"), "-p", &path("")])?);
    let at = SocketAddr::new(server4(3).into(), 443);
    until("nginx", PATIENCE, || Ok(block_in(&lab.servers[2], PATIENCE, move || port_is_open(at))?.then_some(())))?;
    Ok(nginx)
}
