//! HTTP listeners, which the agent serves, with real clients and nginx behind the edge.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use ga_tests::{
    lab::{Agent, Lab, Nginx, VIP4, VIP6, client4, client6, self_signed, server4},
    traffic::{Stop, Task},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PATIENCE: Duration = Duration::from_secs(20);

/// nginx on a server: `/` says the server's number, `/seen` what it was asked and by whom.
fn nginx(lab: &Lab, number: usize, port: u16) -> Result<Nginx> {
    let servers = format!(
        "server {{ listen {port}; listen [::]:{port} ipv6only=on; location / {{ return 200 \"{number}\"; }} location = /seen {{ \
         return 200 \"$remote_addr|$http_x_forwarded_for|$http_host|$http_ga_id|$http_ga_ap|$http_ga_x_forward_proto|\
         $http_ga_x_forward_port|$http_x_real_ip\"; }} }}"
    );
    Nginx::start(lab, number, &servers, &[port], &[])
}

/// A client with a connection on which one request follows the other.
struct Client {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Client {
    fn open(to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).with_context(|| format!("connecting to {to}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), host: to.ip().to_string() })
    }

    /// Status and body.
    fn get(&mut self, path: &str, headers: &str) -> Result<(u16, String)> {
        self.ask(path, headers)?;
        self.answer()
    }

    fn ask(&mut self, path: &str, headers: &str) -> Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: site.example\r\n{headers}\r\n");
        Ok(self.stream.get_mut().write_all(request.as_bytes())?)
    }

    fn answer(&mut self) -> Result<(u16, String)> {
        let (status, length) = self.head()?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((status, String::from_utf8(body)?))
    }

    /// Status and length.
    fn head(&mut self) -> Result<(u16, usize)> {
        let (mut line, mut length, mut status) = (String::new(), 0, 0);
        loop {
            line.clear();
            ensure!(self.stream.read_line(&mut line)? > 0, "{} closed the connection instead of answering", self.host);
            let text = line.trim_end();
            if text.is_empty() {
                break;
            }
            if let Some(rest) = text.strip_prefix("HTTP/1.1 ") {
                status = rest.get(..3).context("a status")?.parse()?;
            } else if let Some((name, value)) = text.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        Ok((status, length))
    }
}

fn of4(port: u16) -> SocketAddr {
    (IpAddr::from(VIP4), port).into()
}

/// Which server answered how many of `count` requests of one connection.
fn answers(lab: &Lab, to: SocketAddr, count: usize) -> Result<BTreeMap<String, usize>> {
    lab.clients[0].within(move || {
        let mut client = Client::open(to)?;
        let mut seen = BTreeMap::new();
        for _ in 0..count {
            let (status, body) = client.get("/", "")?;
            ensure!(status == 200, "{status}: {body}");
            *seen.entry(body).or_default() += 1;
        }
        Ok(seen)
    })?
}

fn endpoints(weights: &[u8]) -> String {
    let one = |(index, weight): (usize, &u8)| {
        format!(
            "[[instance.listener.endpoint_group.endpoint]]\ntype = \"private_ip\"\naddress = \"{}\"\nweight = {weight}\n",
            server4(index + 1)
        )
    };
    weights.iter().enumerate().map(one).collect()
}

fn site(port: u16, keys: &str, group: &str, weights: &[u8]) -> String {
    format!(
        "\n[[instance.listener]]\nname = \"site{port}\"\nprotocol = \"http\"\nports = \"{port}\"\n{keys}\n\
         [[instance.listener.endpoint_group]]\nname = \"near\"\nregion = \"lab\"\n{group}\n{}",
        endpoints(weights)
    )
}

// proves: F01, F08, D01
#[test]
fn requests_reach_endpoints_that_are_told_the_client() -> Result<()> {
    let lab = Lab::new(1)?;
    let _nginx = nginx(&lab, 1, 8080)?;
    let mapped = |port| format!("port_mapping = [{{ listener = {port}, endpoint = 8080 }}]");
    let all = "forwarded_headers = [\"ga_id\", \"ga_ap\", \"proto\", \"port\", \"real_ip\"]";
    lab.configure(&(lab.head() + &site(80, "", &mapped(80), &[255]) + &site(81, all, &mapped(81), &[255])))?;
    let _agent = Agent::start(&lab)?;
    let forged = "GA-ID: forged\r\nGA-AP: forged\r\nGA-X-Forward-Proto: forged\r\nGA-X-Forward-Port: 1\r\n";
    let seen = |to: SocketAddr| lab.clients[0].within(move || Client::open(to)?.get("/seen", forged))?;
    let egress = ga_tests::lab::EGRESS4;
    let client = client4(1);
    ensure!(seen(of4(80))? == (200, format!("{egress}|{client}|site.example|||||")), "{:?}", seen(of4(80))?);
    ensure!(seen(of4(81))? == (200, format!("{egress}|{client}|site.example|lab|lab|http|81|{client}")), "{:?}", seen(of4(81))?);
    let six = (200, format!("{egress}|{}|site.example|lab|lab|http|81|{}", client6(1), client6(1)));
    ensure!(seen((IpAddr::from(VIP6), 81).into())? == six, "an IPv6 client is served by an IPv4 endpoint");
    Ok(())
}

// proves: A15, C09
#[test]
fn each_request_is_a_choice_by_weight_or_by_the_clients_address() -> Result<()> {
    let lab = Lab::new(3)?;
    let mut servers: Vec<_> = (1..=3).map(|number| nginx(&lab, number, 80)).collect::<Result<_>>()?;
    servers.extend((1..=3).map(|number| nginx(&lab, number, 81)).collect::<Result<Vec<_>>>()?);
    let sticky = "client_affinity = \"source_ip\"";
    lab.configure(&(lab.head() + &site(80, "", "", &[200, 100, 50]) + &site(81, sticky, "", &[255, 255, 255])))?;
    let agent = Agent::start(&lab)?;
    let seen = answers(&lab, of4(80), 7_000)?;
    println!("weights 200, 100, 50: {seen:?}");
    for (server, part) in [("1", 4_000_usize), ("2", 2_000), ("3", 1_000)] {
        let of = seen.get(server).copied().unwrap_or_default();
        // Two per cent of all, as the specification has it.
        ensure!(of.abs_diff(part) < 140, "server {server} answered {of} of 7000 requests, not about {part}");
    }
    let mut stuck = BTreeMap::<String, usize>::new();
    for _ in 0..20 {
        for (server, count) in answers(&lab, of4(81), 50)? {
            *stuck.entry(server).or_default() += count;
        }
    }
    ensure!(stuck.len() == 1 && stuck.values().sum::<usize>() == 1_000, "one client, one server: {stuck:?}");
    // One refuses: no client notices.
    drop(servers.remove(0));
    let seen = answers(&lab, of4(80), 1_000)?;
    ensure!(!seen.contains_key("1") && seen.values().sum::<usize>() == 1_000, "{seen:?}");
    let status = agent.status()?;
    let (_, listener) = status.listeners().find(|(_, listener)| listener.name == "site80").context("the listener")?;
    let proxied = listener.proxied.as_ref().context("it is served by the agent")?;
    ensure!(proxied.requests == 8_000 && proxied.retries > 0, "{proxied:?}");
    ensure!(agent.ok(&["status"])?.contains("8,000 2xx"), "{}", agent.ok(&["status"])?);
    Ok(())
}

/// Asks without pause until it is stopped; every answer must be 200.
fn asking(lab: &Lab, to: SocketAddr) -> Result<Task<usize>> {
    Task::start(&lab.clients[0], move |stop: Stop| async move {
        let mut count = 0;
        while !stop.is_set() {
            let mut client = Client::open(to)?;
            for _ in 0..20 {
                let (status, body) = client.get("/", "")?;
                if status != 200 {
                    bail!("{status}: {body}");
                }
                count += 1;
            }
        }
        Ok(count)
    })
}

// proves: A20
#[test]
fn reloads_lose_no_request() -> Result<()> {
    let lab = Lab::new(2)?;
    let _servers: Vec<_> = (1..=2).map(|number| nginx(&lab, number, 80)).collect::<Result<_>>()?;
    let file = |weights: &[u8], other: bool| {
        let other = if other { site(82, "", "", &[255]) } else { String::new() };
        lab.head() + &site(80, "idle_timeout = 60", "", weights) + &other
    };
    lab.configure(&file(&[255, 255], false))?;
    let agent = Agent::start(&lab)?;
    let mut kept = lab.clients[1].within(move || Client::open(of4(80)))??;
    ensure!(kept.get("/", "")?.0 == 200);
    let load = [asking(&lab, of4(80))?, asking(&lab, of4(80))?];
    for round in 0..100_u8 {
        lab.configure(&file(&[255, 100 + round % 100], round % 2 == 0))?;
        agent.ok(&["reload"])?;
    }
    for task in load {
        println!("{} requests during the reloads", task.finish()?);
    }
    ensure!(kept.get("/", "")?.0 == 200, "a connection from before is served on");
    Ok(())
}

/// Takes a body of whole pieces and says how many were right, or gives as many bytes as it is asked for.
fn bulk_server(lab: &Lab) -> Result<Task<()>> {
    Task::start(&lab.servers[0], |mut stop: Stop| async move {
        let socket = tokio::net::TcpListener::bind("0.0.0.0:80").await?;
        let serve = async {
            loop {
                let (stream, _) = socket.accept().await?;
                tokio::spawn(bulk(stream));
            }
        };
        tokio::select! {
            ended = serve => ended,
            () = stop.wait() => Ok(()),
        }
    })
}

async fn bulk(mut stream: tokio::net::TcpStream) -> Result<()> {
    let (piece, mut read) = (piece(), Vec::new());
    loop {
        let end = loop {
            if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8(read.drain(..end).collect())?.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<u64>().ok()).unwrap_or(0);
        let mut right = 0;
        for _ in 0..length / piece.len() as u64 {
            let held = read.len();
            read.resize(piece.len().max(held), 0);
            if let Some(rest) = read.get_mut(held..) {
                stream.read_exact(rest).await?;
            }
            right += u64::from(read == piece);
            read.clear();
        }
        match head.strip_prefix("get /bytes/") {
            Some(rest) => {
                let count: u64 = rest.split(' ').next().context("a number")?.parse()?;
                stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {count}\r\n\r\n").as_bytes()).await?;
                for _ in 0..count / piece.len() as u64 {
                    stream.write_all(&piece).await?;
                }
            }
            None => {
                let body = format!("{right} of {}", length / piece.len() as u64);
                stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
            }
        }
    }
}

/// A mebibyte in which no two neighbours are alike.
fn piece() -> Vec<u8> {
    (0..1_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

// proves: A03
#[test]
fn a_gibibyte_passes_both_ways_unchanged() -> Result<()> {
    const PIECES: u64 = 1 << 10;
    let lab = Lab::new(1)?;
    let _server = bulk_server(&lab)?;
    lab.configure(&(lab.head() + &site(80, "", "", &[255])))?;
    let _agent = Agent::start(&lab)?;
    lab.clients[0].within(|| {
        let mut client = Client::open(of4(80))?;
        let (piece, length) = (piece(), PIECES << 20);
        let stream = client.stream.get_mut();
        stream.write_all(format!("POST / HTTP/1.1\r\nHost: site.example\r\nContent-Length: {length}\r\n\r\n").as_bytes())?;
        for _ in 0..PIECES {
            stream.write_all(&piece)?;
        }
        let answer = client.answer()?;
        ensure!(answer == (200, format!("{PIECES} of {PIECES}")), "what the endpoint got is not what was sent: {answer:?}");
        client.ask(&format!("/bytes/{length}"), "")?;
        let (status, length) = client.head()?;
        ensure!(status == 200 && length as u64 == PIECES << 20, "{status}, {length} bytes");
        let mut got = vec![0; piece.len()];
        for number in 0..PIECES {
            client.stream.read_exact(&mut got)?;
            ensure!(got == piece, "piece {number} is not what the endpoint sent");
        }
        ensure!(client.get("/", "")?.0 == 200, "the connection is good for more");
        Ok(())
    })?
}

// proves: F02, B04
#[test]
fn https_reaches_groups_by_rule_and_tells_them_the_client() -> Result<()> {
    let lab = Lab::new(2)?;
    let _servers: Vec<_> = (1..=2).map(|number| nginx(&lab, number, 8080)).collect::<Result<_>>()?;
    let at = |name: &str| lab.dir.join(name).display().to_string();
    self_signed(&lab.dir, &["site.example", "api.example"])?;
    let group = |name: &str, kind: &str, server: usize| {
        format!(
            "[[instance.listener.endpoint_group]]\nname = \"{name}\"\nkind = \"{kind}\"\nregion = \"{name}\"\n\
             port_mapping = [{{ listener = 443, endpoint = 8080 }}]\n[[instance.listener.endpoint_group.endpoint]]\n\
             type = \"private_ip\"\naddress = \"{}\"\n",
            server4(server)
        )
    };
    let rule =
        "[[instance.listener.rule]]\nname = \"api\"\nwhen = [{ host = [\"api.example\"] }]\ndo = [{ forward = \"api\" }]\n";
    lab.configure(&format!(
        "{}\n[[instance.listener]]\nname = \"secure\"\nprotocol = \"https\"\nports = \"443\"\n\
         certificates = {{ default = \"{}\" }}\nforwarded_headers = [\"proto\"]\n{}{}{rule}",
        lab.head(),
        at("both.pem"),
        group("near", "default", 1),
        group("api", "virtual", 2)
    ))?;
    let _agent = Agent::start(&lab)?;
    let curl = |host: &str, path: &str, version: &str| {
        let resolve = format!("{host}:443:{VIP4}");
        let url = format!("https://{host}{path}");
        lab.clients[0].read(&["curl", "-sS", "--fail", version, "--cacert", &at("cert.pem"), "--resolve", &resolve, &url])
    };
    for version in ["--http1.1", "--http2"] {
        ensure!(curl("site.example", "/", version)? == "1", "no rule applies: the default group");
        ensure!(curl("api.example", "/", version)? == "2", "the rule's group");
    }
    let seen = curl("site.example", "/seen", "--http2")?;
    let wanted = format!("{}|{}|site.example|||https||", ga_tests::lab::EGRESS4, client4(1));
    ensure!(seen == wanted, "{seen} instead of {wanted}");
    Ok(())
}

#[test]
fn xdp_and_the_proxy_live_on_one_address_and_both_obey_access_lists() -> Result<()> {
    let lab = Lab::new(1)?;
    let _servers = [nginx(&lab, 1, 80)?, nginx(&lab, 1, 81)?, nginx(&lab, 1, 82)?];
    let acl = "acl = { mode = \"black\", lists = [\"first\"] }";
    let list = format!("\n[[acl]]\nname = \"first\"\nentries = [\"{}/32\"]\n", client4(1));
    let forwarded = Lab::listener("forwarded", "tcp", "81", &[255], "");
    lab.configure(&(lab.head() + &site(80, "", "", &[255]) + &forwarded + &site(82, acl, "", &[255]) + &list))?;
    let agent = Agent::start(&lab)?;
    let status = |client: usize, port: u16| {
        lab.clients[client].within(move || Client::open(of4(port)).and_then(|mut client| Ok(client.get("/", "")?.0)))
    };
    for client in [0, 1] {
        ensure!(status(client, 80)?? == 200 && status(client, 81)?? == 200, "both paths serve client {client}");
    }
    ensure!(status(1, 82)?? == 200, "who is not listed is served");
    ensure!(status(0, 82)?.is_err(), "who is listed is not");
    let denied = agent.drops("site82")?;
    ensure!(denied.get("acl").is_some_and(|packets| *packets > 0), "{denied:?}");
    Ok(())
}
