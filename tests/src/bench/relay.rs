//! What a TCP connection that is passed on costs, and its bytes: listeners that tell their endpoint of the client by PROXY protocol,
//! beside HAProxy in TCP mode and nginx's stream module, which tell it too.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use super::{
    peers::{ENDPOINT, PRODUCTS, Product, Program, TOLD_PORT, cpu_ns, ga, haproxy, listens, stage, start_nginx},
    report::{Figure, Goal, Report},
};
use crate::{
    lab::Lab,
    traffic::{block_in, stay_on},
};

const ROUNDS: usize = 5;
const MIB: u64 = 1 << 20;
/// nginx's module, a package of its own.
const STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A body, and how many of it are fetched, so many at a time.
#[derive(Clone, Copy, Debug)]
struct Body {
    name: &'static str,
    path: &'static str,
    mib: u64,
    count: usize,
    at_once: usize,
}

const BODIES: [Body; 3] = [
    Body { name: "relay, 64 KiB", path: "/large", mib: 0, count: 2_000, at_once: 8 },
    Body { name: "relay, 1 MiB", path: "/mebibyte", mib: 1, count: 400, at_once: 8 },
    Body { name: "relay, 64 MiB", path: "/bulk", mib: 64, count: 12, at_once: 4 },
];

/// Measures.
pub fn run() -> Result<Report> {
    let mut report = Report::new("relay");
    report.about.insert("threads", json!(1));
    report.about.insert("figure", json!("CPU µs of the process per connection or per MiB, the least of five alternating runs"));
    let (lab, _endpoint) = stage()?;
    let dir = lab.dir.join("relay");
    fs::create_dir_all(&dir)?;
    let listener = format!(
        "\n[[instance.listener]]\nname = \"relay\"\nprotocol = \"tcp\"\nports = \"{}\"\n[[instance.listener.endpoint_group]]\nregion = \"lab\"\n\
         preserve_client_ip = \"proxy_v1\"\n[[instance.listener.endpoint_group.endpoint]]\ntype = \"private_ip\"\naddress = \"{ENDPOINT}\"\n",
        TOLD_PORT
    );
    let agent = ga(&lab, 1, 0, &listener)?;
    let haproxy = haproxy(
        &lab,
        &format!(
            "frontend relay\n  mode tcp\n  option splice-auto\n  bind 127.0.0.1:9181 backlog 4096\n  default_backend told\nbackend told\n  mode tcp\n  \
             option splice-auto\n  server one {ENDPOINT}:{TOLD_PORT} send-proxy\n"
        ),
    )?;
    let nginx = if Path::new(STREAM).exists() {
        let main = format!(
            "load_module {STREAM};\nstream {{ server {{ listen 127.0.0.1:9081 backlog=4096; proxy_pass {ENDPOINT}:{TOLD_PORT}; proxy_protocol on; }} }}\n"
        );
        Some(start_nginx(&lab, "0", "relay", &main, "")?)
    } else {
        eprintln!("without nginx: its module is missing, libnginx-mod-stream");
        None
    };
    let pids = [Some(agent.pid()), nginx.as_ref().map(Program::pid), Some(haproxy.pid())];
    let products: Vec<_> = PRODUCTS.into_iter().zip(pids).filter_map(|(product, pid)| Some((at(product), pid?))).collect();
    for (at, _) in &products {
        listens(&lab, at.port())?;
    }
    eprintln!("relay, 128 bytes");
    report.figures.push(rounds("relay, a connection of 128 bytes", "µs", pids, |at| short(&lab, at))?);
    for body in BODIES {
        eprintln!("{}", body.name);
        let unit = if body.mib == 0 { "µs" } else { "µs/MiB" };
        report.figures.push(rounds(body.name, unit, pids, |at| bulk(&lab, at, body))?);
    }
    Ok(report)
}

fn at(product: Product) -> SocketAddr {
    match product {
        Product::Ga => (IpAddr::from(crate::lab::VIP4), TOLD_PORT).into(),
        Product::Nginx => ([127, 0, 0, 1], 9_081).into(),
        Product::Haproxy => ([127, 0, 0, 1], 9_181).into(),
    }
}

/// The CPU time of each that is there, by what `load` says it did.
fn rounds(name: &str, unit: &'static str, pids: [Option<u32>; 3], load: impl Fn(SocketAddr) -> Result<f64>) -> Result<Figure> {
    let mut costs = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for ((product, pid), costs) in PRODUCTS.into_iter().zip(pids).zip(&mut costs) {
            let Some(pid) = pid else { continue };
            let before = cpu_ns(pid)?;
            let done = load(at(product)).with_context(|| format!("{product:?}, {name}"))?;
            costs.push((cpu_ns(pid)? - before) as f64 / 1_000.0 / done);
        }
    }
    let least = |of: &[f64]| of.iter().copied().fold(f64::INFINITY, f64::min);
    let [ga, nginx, haproxy] = costs.each_ref().map(|costs| least(costs));
    let mut figure = Figure::new(name, unit, &costs[0]).beside("HAProxy", haproxy);
    if nginx.is_finite() {
        figure = figure.beside("nginx", nginx);
    }
    Ok(figure.wants(Goal::at_most("of the better peer", ga / nginx.min(haproxy), 1.0)))
}

/// A connection for each request; how many.
fn short(lab: &Lab, at: SocketAddr) -> Result<f64> {
    let url = format!("http://{at}/small");
    let words = ["taskset", "-c", "1", "wrk", "-t1", "-c64", "-d2", "-H", "Host: site.example", "-H", "Connection: close", &url];
    let text = lab.edge.read(&words)?;
    ensure!(!text.contains("Non-2xx"), "answers are not 200: {text}");
    let line = text.lines().find(|line| line.contains(" requests in ")).context("no line `requests in`")?;
    Ok(line.split_whitespace().next().context("a number")?.parse()?)
}

/// Fetches bodies; how many MiB, or how many where they are smaller.
fn bulk(lab: &Lab, at: SocketAddr, body: Body) -> Result<f64> {
    block_in(&lab.edge, Duration::from_secs(60), move || async move {
        stay_on(1)?;
        let mut all: JoinSet<_> = (0..body.at_once).map(|_| fetch(at, body)).collect();
        while let Some(done) = all.join_next().await {
            done??;
        }
        Ok((body.count as u64 * body.mib.max(1)) as f64)
    })
}

async fn fetch(at: SocketAddr, body: Body) -> Result<()> {
    let mut piece = vec![0; 256 << 10];
    for _ in 0..body.count / body.at_once {
        let mut stream = TcpStream::connect(at).await?;
        let request = format!("GET {} HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n", body.path);
        stream.write_all(request.as_bytes()).await?;
        let mut got = 0;
        while let read @ 1.. = stream.read(&mut piece).await? {
            got += read as u64;
        }
        ensure!(got > (body.mib * MIB).max(64 << 10), "{at}: {got} bytes of {}", body.path);
    }
    Ok(())
}
