//! What a thousand clients who mean harm cost a proxy, and what somebody else's requests take meanwhile, beside nginx and HAProxy with
//! the limits that they have by default.
//!
//! Each proxy is new for each kind of abuse. The abusers share CPU 1 with the endpoint and with the client who means well, and give way
//! to both.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::process::setpriority_process;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy, sink, split},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use super::{
    peers::{PRODUCTS, Three, connector, cpu_ns, resident_kib, stage},
    rate::{Rate, Times},
    report::{Figure, Goal, Report},
};
use crate::{lab::Lab, traffic::stay_on};

const CLIENTS: usize = 1_000;
const LASTS: Duration = Duration::from_secs(4);
/// Between what slow clients do.
const PAUSE: Duration = Duration::from_millis(500);
/// What the client who means well asks.
const PER_SECOND: f64 = 500.0;
const CONNECTIONS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Abuse {
    /// Nobody means harm.
    None,
    SlowHeads,
    SlowBodies,
    /// Of answers of 4 MiB, into a small window.
    SlowReads,
    /// Connections on which no ClientHello comes.
    SilentTls,
    /// Settings and nothing else.
    IdleHttp2,
    /// A thousand requests that are taken back at once.
    Resets,
    /// A head of 1 MiB that does not end.
    Continuations,
    /// Ten heads of 16 KiB that are 47 MB when they are read.
    Bombs,
}

const ALL: [(Abuse, &str); 9] = [
    (Abuse::None, "nobody"),
    (Abuse::SlowHeads, "slow heads"),
    (Abuse::SlowBodies, "slow bodies"),
    (Abuse::SlowReads, "slow reads"),
    (Abuse::SilentTls, "silent TLS"),
    (Abuse::IdleHttp2, "idle HTTP/2"),
    (Abuse::Resets, "reset flood"),
    (Abuse::Continuations, "CONTINUATION flood"),
    (Abuse::Bombs, "HPACK bombs"),
];

/// What it came to for one proxy.
struct Harm {
    /// Peak of resident memory, MiB.
    peak: f64,
    /// CPU seconds.
    cpu: f64,
    others: Times,
}

/// Measures.
pub fn run() -> Result<Report> {
    let mut report = Report::new("abuse");
    report.about.insert("clients", json!(CLIENTS));
    report.about.insert("seconds", json!(LASTS.as_secs()));
    report.about.insert("others", json!("500 requests a second over 16 connections, µs from when each was due"));
    let (lab, _endpoint) = stage()?;
    for (abuse, name) in ALL {
        eprintln!("{name}");
        let three = Three::start(&lab)?;
        let mut harm = Vec::new();
        for (at, pid) in three.pids().into_iter().enumerate() {
            harm.push(suffer(&lab, at, pid, abuse)?);
        }
        let three = |what: &str, unit, of: fn(&Harm) -> f64| {
            Figure::new(format!("{name}: {what}"), unit, &[of(&harm[0])])
                .beside("nginx", of(&harm[1]))
                .beside("HAProxy", of(&harm[2]))
        };
        report.figures.push(three("peak memory", "MiB", |harm| harm.peak));
        report.figures.push(three("CPU", "s", |harm| harm.cpu));
        let others = three("p99 of others", "µs", |harm| harm.others.percentile(99.0));
        report.figures.push(others.wants(Goal::at_most("others' requests that failed", harm[0].others.failed as f64, 0.0)));
    }
    Ok(report)
}

fn suffer(lab: &Lab, product: usize, pid: u32, abuse: Abuse) -> Result<Harm> {
    let (host, plain, tls) = PRODUCTS[product].at();
    let host: IpAddr = host.parse()?;
    let before = cpu_ns(pid)?;
    let abusers = abusers(lab, (host, plain).into(), (host, tls).into(), abuse)?;
    let rate = Rate { to: (host, plain).into(), per_second: PER_SECOND, lasts: LASTS, connections: CONNECTIONS };
    let others = rate.run(&lab.edge)?;
    let harm = Harm { peak: resident_kib(pid, "VmHWM:")? as f64 / 1024.0, cpu: (cpu_ns(pid)? - before) as f64 / 1e9, others };
    abusers.join().ok().context("the abusers panicked")??;
    Ok(harm)
}

/// Begins the abuse; it ends by itself.
fn abusers(lab: &Lab, plain: SocketAddr, tls: SocketAddr, abuse: Abuse) -> Result<std::thread::JoinHandle<Result<()>>> {
    let connector = connector(lab, &[b"h2"])?;
    lab.edge.thread(move || {
        stay_on(1)?;
        // Of this thread alone.
        setpriority_process(None, 19)?;
        let clients = if abuse == Abuse::None { 0 } else { CLIENTS };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let one = |_| {
                let connector = connector.clone();
                // That a proxy ends it is what is wanted.
                async move { timeout(LASTS, one(abuse, plain, tls, connector)).await.is_ok_and(|ended| ended.is_ok()) }
            };
            let mut all: JoinSet<bool> = (0..clients).map(one).collect();
            while all.join_next().await.is_some() {}
        });
        Ok(())
    })
}

async fn one(abuse: Abuse, plain: SocketAddr, tls: SocketAddr, connector: TlsConnector) -> Result<()> {
    match abuse {
        Abuse::None => Ok(()),
        Abuse::SlowHeads => trickle(plain, b"GET /small HTTP/1.1\r\nHost: site.example\r\n", b"X-A: b\r\n").await,
        Abuse::SlowBodies => {
            trickle(plain, b"POST /upload HTTP/1.1\r\nHost: site.example\r\nContent-Length: 1000000\r\n\r\n", b"x").await
        }
        Abuse::SlowReads => {
            let socket = TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(4_096)?;
            let mut stream = socket.connect(plain).await?;
            stream.write_all(b"GET /four HTTP/1.1\r\nHost: site.example\r\n\r\n").await?;
            loop {
                stream.read_u8().await?;
                sleep(PAUSE).await;
            }
        }
        Abuse::SilentTls => {
            let mut stream = TcpStream::connect(tls).await?;
            stream.read_u8().await?;
            Ok(())
        }
        Abuse::IdleHttp2 => http2(tls, &connector, Vec::new()).await,
        Abuse::Resets => {
            let pair = |at: u32| {
                [frame(HEADERS, END_STREAM | END_HEADERS, at * 2 + 1, &head()), frame(RST_STREAM, 0, at * 2 + 1, &CANCEL)]
            };
            let pieces = (0..10).map(|batch| (batch * 100..batch * 100 + 100).flat_map(pair).collect::<Vec<_>>().concat());
            http2(tls, &connector, pieces.collect()).await
        }
        Abuse::Continuations => {
            let field = [&[0, 1, b'x'][..], &length(4_000), &[b'v'; 4_000]].concat();
            let mut pieces = vec![frame(HEADERS, END_STREAM, 1, &head())];
            pieces.extend((0..64).map(|_| frame(CONTINUATION, 0, 1, &field.repeat(4))));
            http2(tls, &connector, pieces).await
        }
        Abuse::Bombs => {
            // One field is remembered, and said again by a byte each time.
            let field = [&[0x40, 1, b'x'][..], &length(3_900), &[b'v'; 3_900]].concat();
            let block = [head(), field, vec![0xbe; 12_000]].concat();
            http2(tls, &connector, (0..10).map(|at| frame(HEADERS, END_STREAM | END_HEADERS, at * 2 + 1, &block)).collect()).await
        }
    }
}

async fn trickle(to: SocketAddr, first: &[u8], then: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(first).await?;
    loop {
        sleep(PAUSE).await;
        stream.write_all(then).await?;
    }
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// Speaks HTTP/2 as far as to send these pieces, and reads what comes until the connection ends.
async fn http2(to: SocketAddr, connector: &TlsConnector, pieces: Vec<Vec<u8>>) -> Result<()> {
    let stream = connector.connect("site.example".try_into()?, TcpStream::connect(to).await?).await?;
    let (mut from, mut to) = split(stream);
    to.write_all(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[])].concat()).await?;
    // The proxy's settings have begun to come.
    from.read_u8().await?;
    let send = async {
        to.write_all(&frame(SETTINGS, ACK, 0, &[])).await?;
        for piece in pieces {
            to.write_all(&piece).await?;
        }
        to.flush().await
    };
    // Who would stop reading would be no more than slow.
    let mut nobody = sink();
    let (read, wrote) = tokio::join!(copy(&mut from, &mut nobody), send);
    read?;
    Ok(wrote?)
}

/// RFC 9113 §4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET https://site.example/small` (RFC 7541): the static table's fields, and names with values of their own.
fn head() -> Vec<u8> {
    [&[0x82, 0x87, 0x04, 6][..], b"/small", &[0x01, 12], b"site.example"].concat()
}

/// The length of a string that is no Huffman code (RFC 7541 §5.1).
fn length(of: usize) -> Vec<u8> {
    let mut rest = of - 127;
    let mut bytes = vec![127];
    while rest >= 128 {
        bytes.push(rest as u8 | 128);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}
