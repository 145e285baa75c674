//! What a request costs the proxy, beside nginx and HAProxy in the same run.
//!
//! Everything is on the loopback of the edge's namespace. The proxy under test has one thread and CPU 0; clients (wrk, h2load) and the
//! endpoint (nginx) have CPU 1. The figure is the CPU time of the whole process, from `schedstat`, by the requests that were answered:
//! it hardly moves when something else takes time. Runs alternate, and the least of three counts.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::{Child, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::report::{Figure, Goal, Report};
use crate::{
    lab::{Agent, Lab, VIP4},
    traffic::{block_in, until},
};

/// An address of the namespace that is neither VIP nor egress: endpoints are there.
const ENDPOINT: &str = "10.99.0.1";
const ENDPOINT_PORT: u16 = 8080;
const PATIENCE: Duration = Duration::from_secs(20);
const ROUNDS: usize = 3;
const SECONDS: u32 = 2;
/// Connections that wait.
const IDLE: usize = 4_000;

const PRODUCTS: [Product; 3] = [Product::Ga, Product::Nginx, Product::Haproxy];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Product {
    Ga,
    Nginx,
    Haproxy,
}

impl Product {
    /// Where it serves: plain, and by TLS.
    fn at(self) -> (String, u16, u16) {
        match self {
            Self::Ga => (VIP4.to_string(), 80, 443),
            Self::Nginx => ("127.0.0.1".to_owned(), 9_080, 9_443),
            Self::Haproxy => ("127.0.0.1".to_owned(), 9_180, 9_543),
        }
    }
}

/// What clients do.
#[derive(Clone, Copy, Debug)]
struct Load {
    name: &'static str,
    path: &'static str,
    tls: bool,
    client: Client,
    /// Of nginx, of HAProxy, of the better one: what is wanted at most.
    goals: [Option<f64>; 3],
}

#[derive(Clone, Copy, Debug)]
enum Client {
    /// wrk with 64 connections.
    Kept,
    /// The same, a connection for each request.
    Fresh,
    /// h2load with 4 connections of 32 streams.
    Http2,
}

const LOADS: [Load; 6] = [
    Load { name: "HTTP, 128 bytes", path: "/small", tls: false, client: Client::Kept, goals: [Some(1.0), Some(0.9), None] },
    Load { name: "HTTP, 64 KiB", path: "/large", tls: false, client: Client::Kept, goals: [None, None, Some(0.85)] },
    Load { name: "TLS handshake", path: "/small", tls: true, client: Client::Fresh, goals: [None, None, Some(0.6)] },
    Load { name: "TLS, 128 bytes", path: "/small", tls: true, client: Client::Kept, goals: [None, None, Some(0.95)] },
    Load { name: "TLS, 64 KiB", path: "/large", tls: true, client: Client::Kept, goals: [None, None, Some(0.75)] },
    Load { name: "HTTP/2, 128 bytes", path: "/small", tls: true, client: Client::Http2, goals: [Some(0.9), Some(1.0), None] },
];

/// A program; ended when dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Measures.
pub fn run() -> Result<Report> {
    let mut report = Report::new("proxy");
    report.about.insert("threads", json!(1));
    report.about.insert("figure", json!("CPU µs of the process per request, the least of three alternating runs"));
    report.about.insert("clients", json!("wrk -t1 -c64; h2load -c4 -m32"));
    let lab = Lab::new(1)?;
    lab.edge.run(&["ip", "addr", "add", &format!("{ENDPOINT}/32"), "dev", "lo"])?;
    certificate(&lab)?;
    let _endpoint = endpoint(&lab)?;
    let (nginx_peer, haproxy_peer) = (nginx(&lab)?, haproxy(&lab)?);
    let agent = ga(&lab, 1, 0)?;
    for (_, plain, tls) in PRODUCTS.map(Product::at) {
        listens(&lab, plain)?;
        listens(&lab, tls)?;
    }
    let pids = [agent.pid(), nginx_peer.0.id(), haproxy_peer.0.id()];
    for load in LOADS {
        eprintln!("{}", load.name);
        let mut costs = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            for (at, product) in PRODUCTS.into_iter().enumerate() {
                costs[at].push(cost(&lab, pids[at], product, load)?);
            }
        }
        report.figures.push(figure(load, &costs));
    }
    drop((agent, nginx_peer, haproxy_peer));
    for (name, tls, limit) in [("idle connection", false, 1.5), ("idle TLS connection", true, 12.0)] {
        eprintln!("{name}");
        // Fresh processes: memory that was used before would be used again.
        let (nginx, haproxy, agent) = (nginx(&lab)?, haproxy(&lab)?, ga(&lab, 1, 0)?);
        for (_, plain, secured) in PRODUCTS.map(Product::at) {
            listens(&lab, plain)?;
            listens(&lab, secured)?;
        }
        let pids = [agent.pid(), nginx.0.id(), haproxy.0.id()];
        let mut of = [0.0; 3];
        for (at, product) in PRODUCTS.into_iter().enumerate() {
            of[at] = idle(&lab, pids[at], product, tls)?;
        }
        report.figures.push(
            Figure::new(name, "KiB", &[of[0]])
                .beside("nginx", of[1])
                .beside("HAProxy", of[2])
                .wants(Goal::at_most("memory", of[0], limit)),
        );
    }
    report.figures.push(rules(&lab)?);
    report.figures.push(threads(&lab)?);
    Ok(report)
}

fn figure(load: Load, costs: &[Vec<f64>; 3]) -> Figure {
    let least = |of: &[f64]| of.iter().copied().fold(f64::INFINITY, f64::min);
    let [ga, nginx, haproxy] = [least(&costs[0]), least(&costs[1]), least(&costs[2])];
    let mut figure = Figure::new(load.name, "µs", &costs[0]).beside("nginx", nginx).beside("HAProxy", haproxy);
    let peers = [("of nginx", nginx), ("of HAProxy", haproxy), ("of the better peer", nginx.min(haproxy))];
    for ((what, peer), limit) in peers.into_iter().zip(load.goals) {
        if let Some(limit) = limit {
            figure = figure.wants(Goal::at_most(what, ga / peer, limit));
        }
    }
    figure
}

/// 200 rules on the listener beside two: the requests fit none of them.
fn rules(lab: &Lab) -> Result<Figure> {
    let load = LOADS[0];
    let mut costs = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        for (at, count) in [2, 200].into_iter().enumerate() {
            let agent = ga(lab, 1, count)?;
            listens(lab, 80)?;
            costs[at].push(cost(lab, agent.pid(), Product::Ga, load)?);
        }
    }
    let least = |of: &[f64]| of.iter().copied().fold(f64::INFINITY, f64::min);
    let (few, many) = (least(&costs[0]), least(&costs[1]));
    Ok(Figure::new("200 rules", "µs", &costs[1]).beside("2 rules", few).wants(Goal::at_most("of two rules", many / few, 1.05)))
}

/// Two threads on CPU 0 beside one: what sharing costs.
fn threads(lab: &Lab) -> Result<Figure> {
    let load = LOADS[0];
    let mut costs = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        for (at, count) in [1, 2].into_iter().enumerate() {
            let agent = ga(lab, count, 0)?;
            listens(lab, 80)?;
            costs[at].push(cost(lab, agent.pid(), Product::Ga, load)?);
        }
    }
    let least = |of: &[f64]| of.iter().copied().fold(f64::INFINITY, f64::min);
    let (one, two) = (least(&costs[0]), least(&costs[1]));
    Ok(Figure::new("two threads", "µs", &costs[1]).beside("one thread", one).wants(Goal::at_most(
        "of one thread",
        two / one,
        1.08,
    )))
}

/// CPU µs of `pid` for each request.
fn cost(lab: &Lab, pid: u32, product: Product, load: Load) -> Result<f64> {
    let (host, plain, tls) = product.at();
    let (scheme, port) = if load.tls { ("https", tls) } else { ("http", plain) };
    let url = format!("{scheme}://{host}:{port}{}", load.path);
    let seconds = format!("-d{SECONDS}");
    let count = (u64::from(SECONDS) * 40_000).to_string();
    let wrk = ["taskset", "-c", "1", "wrk", "-t1", "-c64", &seconds, "-H", "Host: site.example"];
    let words = match load.client {
        Client::Kept => [&wrk[..], &[&url]].concat(),
        Client::Fresh => [&wrk[..], &["-H", "Connection: close", &url]].concat(),
        Client::Http2 => {
            vec!["taskset", "-c", "1", "h2load", "-t1", "-c4", "-m32", "-n", &count, "-H", ":authority: site.example", &url]
        }
    };
    let before = cpu_ns(pid)?;
    let text = lab.edge.read(&words)?;
    let used = cpu_ns(pid)? - before;
    let done = answered(&text, load.client).with_context(|| format!("{product:?}, {}: {text}", load.name))?;
    Ok(used as f64 / 1_000.0 / done)
}

/// Requests that were answered well; none may fail.
fn answered(text: &str, client: Client) -> Result<f64> {
    if let Client::Http2 = client {
        let line = text.lines().find(|line| line.starts_with("requests:")).context("no line `requests:`")?;
        let number = |what: &str| -> Result<f64> {
            let part = line.split(',').find(|part| part.contains(what)).context("a number")?;
            part.split_whitespace().find_map(|word| word.parse().ok()).context("a number")
        };
        ensure!(number("failed")? == 0.0 && number("errored")? == 0.0, "requests failed");
        ensure!(text.contains(" 0 4xx, 0 5xx"), "answers are not 200");
        return number("succeeded");
    }
    ensure!(!text.contains("Non-2xx"), "answers are not 200");
    let line = text.lines().find(|line| line.contains(" requests in ")).context("no line `requests in`")?;
    Ok(line.split_whitespace().next().context("a number")?.parse()?)
}

/// KiB of resident memory for each connection that waits after a request.
fn idle(lab: &Lab, pid: u32, product: Product, tls: bool) -> Result<f64> {
    let (host, plain, secured) = product.at();
    let to = (host.parse::<IpAddr>()?, if tls { secured } else { plain }).into();
    let trust = if tls { Some(connector(lab)?) } else { None };
    let before = resident_kib(pid)?;
    let after = block_in(&lab.edge, Duration::from_secs(120), move || async move {
        let mut kept: Vec<Box<dyn Wire>> = Vec::new();
        for _ in 0..IDLE {
            let stream = TcpStream::connect::<SocketAddr>(to).await?;
            let mut stream: Box<dyn Wire> = match &trust {
                Some(connector) => Box::new(connector.connect("site.example".try_into()?, stream).await?),
                None => Box::new(stream),
            };
            stream.write_all(b"GET /small HTTP/1.1\r\nHost: site.example\r\n\r\n").await?;
            let mut answer = Vec::new();
            while !answer.ends_with(&[b'x'; 128]) {
                ensure!(stream.read_buf(&mut answer).await? > 0, "{to} closed a connection");
            }
            kept.push(stream);
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        resident_kib(pid)
    })?;
    Ok(after.saturating_sub(before) as f64 / IDLE as f64)
}

/// A connection, whatever it is made of.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Trusts the certificate of this run.
fn connector(lab: &Lab) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(lab.dir.join("cert.pem"))? {
        roots.add(cert?)?;
    }
    Ok(TlsConnector::from(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())))
}

fn cpu_ns(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        sum += text.split_whitespace().next().context("schedstat")?.parse::<u64>()?;
    }
    Ok(sum)
}

fn resident_kib(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("a number")?.parse()?)
}

fn listens(lab: &Lab, port: u16) -> Result<()> {
    let is_there = || {
        let sockets = lab.edge.read(&["ss", "-Hltn", &format!("sport = :{port}")])?;
        Ok((!sockets.trim().is_empty()).then_some(()))
    };
    until(&format!("a listener at port {port}"), PATIENCE, is_there)
}

fn certificate(lab: &Lab) -> Result<()> {
    let at = |name: &str| lab.dir.join(name).display().to_string();
    let (key, cert) = (at("key.pem"), at("cert.pem"));
    lab.edge.run(&[
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "30",
        "-subj",
        "/CN=site.example",
        "-addext",
        "subjectAltName=DNS:site.example",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-keyout",
        &key,
        "-out",
        &cert,
    ])?;
    let both = fs::read_to_string(&cert)? + &fs::read_to_string(&key)?;
    Ok(fs::write(lab.dir.join("both.pem"), both)?)
}

fn start(lab: &Lab, cpu: &str, words: &[&str]) -> Result<Program> {
    let mut command = lab.edge.command(&["taskset", "-c", cpu]);
    command.args(words);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Ok(Program(child.with_context(|| format!("{words:?}"))?))
}

/// The endpoint: small answers from memory, large ones from a file.
fn endpoint(lab: &Lab) -> Result<Program> {
    let dir = lab.dir.join("endpoint");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("large"), vec![b'x'; 64 << 10])?;
    let small = "x".repeat(128);
    let server = format!(
        "server {{ listen {ENDPOINT}:{ENDPOINT_PORT} backlog=4096; location = /small {{ return 200 \"{small}\"; }} location = /large {{ root {}; }} }}",
        dir.display()
    );
    start_nginx(lab, "1", &dir, &server)
}

/// nginx as a proxy, with connections to the endpoint kept.
fn nginx(lab: &Lab) -> Result<Program> {
    let dir = lab.dir.join("peer");
    fs::create_dir_all(&dir)?;
    let at = lab.dir.display();
    let server = format!(
        "upstream endpoint {{ server {ENDPOINT}:{ENDPOINT_PORT}; keepalive 128; keepalive_requests 100000000; }}\n\
         server {{ listen 127.0.0.1:9080 backlog=4096; listen 127.0.0.1:9443 ssl http2 backlog=4096;\n\
         ssl_certificate {at}/cert.pem; ssl_certificate_key {at}/key.pem; ssl_protocols TLSv1.3; ssl_session_tickets on;\n\
         location / {{ proxy_pass http://endpoint; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }}"
    );
    start_nginx(lab, "0", &dir, &server)
}

fn start_nginx(lab: &Lab, cpu: &str, dir: &Path, server: &str) -> Result<Program> {
    let at = dir.display();
    let temporary: String =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|what| format!("{what}_temp_path {at}/{what};\n")).concat();
    let conf = format!(
        "daemon off;\nmaster_process off;\npid {at}/pid;\nworker_rlimit_nofile 20000;\nevents {{ worker_connections 8192; }}\n\
         http {{\naccess_log off;\nkeepalive_requests 100000000;\nkeepalive_timeout 300s;\nsendfile on;\n{temporary}{server}\n}}\n"
    );
    let path = dir.join("nginx.conf");
    fs::write(&path, conf)?;
    start(lab, cpu, &["nginx", "-e", &dir.join("log").display().to_string(), "-c", &path.display().to_string()])
}

fn haproxy(lab: &Lab) -> Result<Program> {
    let conf = format!(
        "global\n  nbthread 1\n  maxconn 8192\n  tune.ssl.default-dh-param 2048\ndefaults\n  mode http\n  timeout client 300s\n  timeout server 60s\n  \
         timeout connect 4s\n  timeout http-keep-alive 300s\n  option forwardfor\n  http-reuse always\nfrontend plain\n  bind 127.0.0.1:9180 backlog 4096\n  \
         bind 127.0.0.1:9543 ssl crt {}/both.pem alpn h2,http/1.1 ssl-min-ver TLSv1.3 backlog 4096\n  default_backend endpoint\nbackend endpoint\n  \
         server one {ENDPOINT}:{ENDPOINT_PORT} pool-max-conn 128\n",
        lab.dir.display()
    );
    let path = lab.dir.join("haproxy.cfg");
    fs::write(&path, conf)?;
    start(lab, "0", &["haproxy", "-db", "-q", "-f", &path.display().to_string()])
}

/// The agent on CPU 0 with so many threads of the proxy and rules that no request meets.
fn ga(lab: &Lab, threads: usize, rules: usize) -> Result<Agent> {
    let group = |port: u16| {
        format!(
            "[[instance.listener.endpoint_group]]\nname = \"near\"\nregion = \"lab\"\nport_mapping = [{{ listener = {port}, endpoint = {ENDPOINT_PORT} }}]\n\
             [[instance.listener.endpoint_group.endpoint]]\ntype = \"private_ip\"\naddress = \"{ENDPOINT}\"\n"
        )
    };
    let rule = |number: usize| {
        let condition = match number % 3 {
            0 => format!("{{ host = [\"host-{number}.example\"] }}"),
            1 => format!("{{ path = [\"/area/{number}/*\"] }}"),
            _ => format!("{{ header = {{ name = \"x-tenant\", values = [\"t{number}\"] }} }}"),
        };
        format!("[[instance.listener.rule]]\nname = \"rule-{number}\"\nwhen = [{condition}]\ndo = [{{ forward = \"near\" }}]\n")
    };
    let rules: String = (0..rules).map(rule).collect();
    let head = lab.head().replace("[node]\n", &format!("[node]\nproxy_threads = {threads}\n")).replace(
        "[limits]\n",
        "[limits]\nrules_per_listener = 200\nrule_condition_items_per_listener = 200\nhttp_idle_timeout_max = 600\n",
    );
    let certificates = format!("certificates = {{ default = \"{}/both.pem\" }}", lab.dir.display());
    let listener = |protocol: &str, port: u16, keys: &str| {
        format!(
            "\n[[instance.listener]]\nname = \"{protocol}\"\nprotocol = \"{protocol}\"\nports = \"{port}\"\nidle_timeout = 300\n{keys}\n{}",
            group(port)
        )
    };
    lab.configure(&(head + &listener("http", 80, "") + &rules + &listener("https", 443, &certificates)))?;
    let mut agent = Agent::spawn_by(lab, &["taskset", "-c", "0"], &[])?;
    if let Some(code) = agent.ended()? {
        bail!("the agent ended with {code}");
    }
    until("the agent", PATIENCE, || Ok(agent.ga(&["status"])?.status.success().then_some(())))?;
    Ok(agent)
}
