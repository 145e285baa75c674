//! The agent, nginx and HAProxy as proxies before one endpoint, each with one thread on CPU 0; what they cost.

use std::{
    fs,
    process::{Child, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio_rustls::TlsConnector;

use crate::{
    lab::{Agent, Lab, VIP4},
    traffic::until,
};

/// An address of the namespace that is neither VIP nor egress: the endpoint is there.
pub(super) const ENDPOINT: &str = "10.99.0.1";
const ENDPOINT_PORT: u16 = 8080;
/// Where the endpoint wants a header of the PROXY protocol first.
pub(super) const TOLD_PORT: u16 = 8081;
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) const PRODUCTS: [Product; 3] = [Product::Ga, Product::Nginx, Product::Haproxy];

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Product {
    Ga,
    Nginx,
    Haproxy,
}

impl Product {
    /// Where it serves: plain, and by TLS.
    pub(super) fn at(self) -> (String, u16, u16) {
        match self {
            Self::Ga => (VIP4.to_string(), 80, 443),
            Self::Nginx => ("127.0.0.1".to_owned(), 9_080, 9_443),
            Self::Haproxy => ("127.0.0.1".to_owned(), 9_180, 9_543),
        }
    }
}

/// A program; ended when dropped.
pub(super) struct Program(Child);

impl Program {
    /// Of its process.
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// All of them, running. Where each serves at further ports is up to who starts them.
pub(super) struct Three {
    agent: Agent,
    nginx: Program,
    haproxy: Program,
}

impl Three {
    /// Starts them and waits until they serve.
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let three = Self { nginx: nginx(lab)?, haproxy: haproxy(lab, "")?, agent: ga(lab, 1, 0, "")? };
        for (_, plain, tls) in PRODUCTS.map(Product::at) {
            listens(lab, plain)?;
            listens(lab, tls)?;
        }
        Ok(three)
    }

    /// In the order of [`PRODUCTS`].
    pub(super) fn pids(&self) -> [u32; 3] {
        [self.agent.pid(), self.nginx.pid(), self.haproxy.pid()]
    }
}

/// A lab with a certificate, and the endpoint in it.
pub(super) fn stage() -> Result<(Lab, Program)> {
    let lab = Lab::new(1)?;
    lab.edge.run(&["ip", "addr", "add", &format!("{ENDPOINT}/32"), "dev", "lo"])?;
    certificate(&lab)?;
    let endpoint = endpoint(&lab)?;
    Ok((lab, endpoint))
}

/// CPU time of a process so far.
pub(super) fn cpu_ns(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        sum += text.split_whitespace().next().context("schedstat")?.parse::<u64>()?;
    }
    Ok(sum)
}

/// What a process has in memory, in KiB: `VmRSS` now, `VmHWM` at most so far.
pub(super) fn resident_kib(pid: u32, which: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find(|line| line.starts_with(which)).context("memory")?;
    Ok(line.split_whitespace().nth(1).context("a number")?.parse()?)
}

/// Waits until somebody listens at that port.
pub(super) fn listens(lab: &Lab, port: u16) -> Result<()> {
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

fn program(lab: &Lab, cpu: &str, words: &[&str]) -> Result<Program> {
    let mut command = lab.edge.command(&["taskset", "-c", cpu]);
    command.args(words);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Ok(Program(child.with_context(|| format!("{words:?}"))?))
}

/// The endpoint: small answers from memory, large ones from a file.
fn endpoint(lab: &Lab) -> Result<Program> {
    let dir = lab.dir.join("endpoint");
    fs::create_dir_all(&dir)?;
    for (name, kib) in [("large", 64), ("mebibyte", 1 << 10), ("four", 4 << 10), ("bulk", 64 << 10)] {
        fs::write(dir.join(name), vec![b'x'; kib << 10])?;
    }
    let small = "x".repeat(128);
    let server = format!(
        "server {{ listen {ENDPOINT}:{ENDPOINT_PORT} backlog=4096; listen {ENDPOINT}:{TOLD_PORT} proxy_protocol backlog=4096;\n\
         location = /small {{ return 200 \"{small}\"; }} location / {{ root {}; }}\n\
         location = /upload {{ proxy_pass http://{ENDPOINT}:{ENDPOINT_PORT}/small; }} }}",
        dir.display()
    );
    start_nginx(lab, "1", "endpoint", "", &server)
}

/// nginx as a proxy, with connections to the endpoint kept.
fn nginx(lab: &Lab) -> Result<Program> {
    let at = lab.dir.display();
    let server = format!(
        "upstream endpoint {{ server {ENDPOINT}:{ENDPOINT_PORT}; keepalive 128; keepalive_requests 100000000; }}\n\
         server {{ listen 127.0.0.1:9080 backlog=4096; listen 127.0.0.1:9443 ssl http2 backlog=4096;\n\
         ssl_certificate {at}/cert.pem; ssl_certificate_key {at}/key.pem; ssl_protocols TLSv1.3; ssl_session_tickets on;\n\
         location / {{ proxy_pass http://endpoint; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }}"
    );
    start_nginx(lab, "0", "peer", "", &server)
}

/// nginx with one process and its files in the folder `name`; `main` stands before everything, `server` in `http`.
pub(super) fn start_nginx(lab: &Lab, cpu: &str, name: &str, main: &str, server: &str) -> Result<Program> {
    let dir = lab.dir.join(name);
    fs::create_dir_all(&dir)?;
    let at = dir.display();
    let temporary: String =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|what| format!("{what}_temp_path {at}/{what};\n")).concat();
    let conf = format!(
        "{main}daemon off;\nmaster_process off;\npid {at}/pid;\nworker_rlimit_nofile 20000;\nevents {{ worker_connections 8192; }}\n\
         http {{\naccess_log off;\nkeepalive_requests 100000000;\nkeepalive_timeout 300s;\nsendfile on;\n{temporary}{server}\n}}\n"
    );
    let path = dir.join("nginx.conf");
    fs::write(&path, conf)?;
    program(lab, cpu, &["nginx", "-e", &dir.join("log").display().to_string(), "-c", &path.display().to_string()])
}

/// HAProxy with one thread; `more` stands behind what serves HTTP.
pub(super) fn haproxy(lab: &Lab, more: &str) -> Result<Program> {
    let conf = format!(
        "global\n  nbthread 1\n  maxconn 8192\n  maxpipes 512\n  tune.ssl.default-dh-param 2048\ndefaults\n  mode http\n  timeout client 300s\n  timeout server 60s\n  \
         timeout connect 4s\n  timeout http-keep-alive 300s\n  option forwardfor\n  http-reuse always\nfrontend plain\n  bind 127.0.0.1:9180 backlog 4096\n  \
         bind 127.0.0.1:9543 ssl crt {}/both.pem alpn h2,http/1.1 ssl-min-ver TLSv1.3 backlog 4096\n  default_backend endpoint\nbackend endpoint\n  \
         server one {ENDPOINT}:{ENDPOINT_PORT} pool-max-conn 128\n{more}",
        lab.dir.display()
    );
    let path = lab.dir.join("haproxy.cfg");
    fs::write(&path, conf)?;
    program(lab, "0", &["haproxy", "-db", "-q", "-f", &path.display().to_string()])
}

/// The agent on CPU 0 with so many threads of the proxy and rules that no request meets; `more` listeners stand behind.
pub(super) fn ga(lab: &Lab, threads: usize, rules: usize, more: &str) -> Result<Agent> {
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
    lab.configure(&(head + &listener("http", 80, "") + &rules + &listener("https", 443, &certificates) + more))?;
    let mut agent = Agent::spawn_by(lab, &["taskset", "-c", "0"], &[])?;
    if let Some(code) = agent.ended()? {
        bail!("the agent ended with {code}");
    }
    until("the agent", PATIENCE, || Ok(agent.ga(&["status"])?.status.success().then_some(())))?;
    Ok(agent)
}

/// Trusts the certificate of this run, and offers those protocols.
pub(super) fn connector(lab: &Lab, alpn: &[&[u8]]) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(lab.dir.join("cert.pem"))? {
        roots.add(cert?)?;
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(TlsConnector::from(Arc::new(config)))
}
