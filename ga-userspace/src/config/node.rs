//! `[node]`.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use super::{
    bounds,
    document::Context,
    keys,
    problem::{Fault, Kind},
    text,
    tree::{Table, Value, shorten},
};
use crate::model::{AccessLog, LogFormat, Node, PROXY_CONNECTIONS, Seed, XdpMode};

/// Flows of one family: from a test's to what 64-byte slots make 4 GiB.
pub(super) const FLOWS: RangeInclusive<u32> = 1_024..=16_777_216;
pub(super) const DEFAULT_FLOWS: u32 = 65_536;
/// Below the ephemeral ports of a Linux host, which begin at 32768.
pub(super) const DEFAULT_NAT_PORTS: RangeInclusive<u16> = 1_024..=64_511;
/// The same where the agent has connections of its own, from the ports below.
pub(super) const NAT_PORTS_BESIDE_PROXY: RangeInclusive<u16> = 16_384..=64_511;
pub(super) const DEFAULT_AP: &str = "local";
pub(super) const DEFAULT_METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9_464);

/// Per cent of an instance's endpoints; with 100 nobody could exceed it.
pub(super) const PANIC_THRESHOLD: RangeInclusive<u32> = 1..=99;

/// More threads than any host has CPUs help nobody.
pub(super) const PROXY_THREADS: RangeInclusive<u32> = 1..=1_024;

/// Seconds; a day is longer than anybody waits for a restart.
pub(super) const DRAIN_TIMEOUT_S: RangeInclusive<u32> = 0..=86_400;
pub(super) const DEFAULT_DRAIN_TIMEOUT_S: u32 = 30;

/// Fewer source ports than this cannot be shared out between CPUs.
const MIN_NAT_PORTS: u16 = 256;
/// Ports from 1024 on, side by side, that the agent's own connections to any one endpoint may need.
const MIN_OWN_PORTS: u16 = 1_024;

/// More servers than this help nobody.
const MAX_RESOLVERS: usize = 8;

/// Words of `xdp_mode`.
pub(super) const XDP_MODES: [(&str, XdpMode); 3] =
    [("auto", XdpMode::Auto), ("native", XdpMode::Native), ("generic", XdpMode::Generic)];

/// Words of `format` of `access_log`.
pub(super) const LOG_FORMATS: [(&str, LogFormat); 2] = [("json", LogFormat::Json), ("text", LogFormat::Text)];

/// Per cent of requests.
pub(super) const LOG_SAMPLE: RangeInclusive<u32> = 1..=100;

pub(super) fn read(table: &Table<'_>, cx: &mut Context<'_>) -> Option<Node> {
    let ap = match table.optional("ap") {
        Some(value) => text::label(&value, cx),
        None => Some(DEFAULT_AP.to_owned()),
    };
    let interfaces = table
        .required("interfaces", "name the interfaces that carry traffic: `interfaces = [\"eth0\"]`", &mut cx.problems)
        .and_then(|value| interfaces(&value, cx));
    let xdp_mode = table.optional("xdp_mode").map_or(Some(XdpMode::Auto), |value| value.word(&XDP_MODES, &mut cx.problems));
    let flows = table.optional("flows").map_or(Some(DEFAULT_FLOWS), |value| value.integer(FLOWS, &mut cx.problems));
    let nat_ports = table.optional("nat_ports").map_or(Some(DEFAULT_NAT_PORTS), |value| nat_ports(&value, cx));
    let hash_seed = table.optional("hash_seed").map_or(Some(None), |value| hash_seed(&value, cx).map(Some));
    let metrics = table.optional("metrics").map_or(Some(Some(DEFAULT_METRICS)), |value| metrics(&value, cx));
    let resolvers = table.optional("resolvers").map_or(Some(Vec::new()), |value| resolvers(&value, cx));
    let panic_threshold = match table.optional("panic_threshold") {
        Some(value) => value.integer(PANIC_THRESHOLD, &mut cx.problems).and_then(|percent| u8::try_from(percent).ok()).map(Some),
        None => Some(None),
    };
    let access_log = match table.optional("access_log") {
        Some(value) => access_log(&value, cx).map(Some),
        None => Some(None),
    };
    let proxy_threads = match table.optional("proxy_threads") {
        Some(value) => value.integer(PROXY_THREADS, &mut cx.problems).and_then(|count| u16::try_from(count).ok()).map(Some),
        None => Some(None),
    };
    let proxy_connections = table
        .optional("proxy_connections")
        .map_or(Some(PROXY_CONNECTIONS), |value| value.integer(bounds::CONNECTIONS, &mut cx.problems));
    let drain_timeout = table
        .optional("drain_timeout")
        .map_or(Some(DEFAULT_DRAIN_TIMEOUT_S), |value| value.integer(DRAIN_TIMEOUT_S, &mut cx.problems));
    Some(Node {
        ap: ap?,
        interfaces: interfaces?,
        xdp_mode: xdp_mode?,
        flows: flows?,
        nat_ports: nat_ports?,
        hash_seed: hash_seed?,
        metrics: metrics?,
        resolvers: resolvers?,
        panic_threshold: panic_threshold?,
        access_log: access_log?,
        proxy_threads: proxy_threads?,
        proxy_connections: proxy_connections?,
        drain_timeout: Duration::from_secs(drain_timeout?.into()),
    })
}

/// The table `access_log`.
fn access_log(value: &Value<'_>, cx: &mut Context<'_>) -> Option<AccessLog> {
    let table = value.table(&keys::ACCESS_LOG, &mut cx.problems)?;
    let path = table.required("path", "say where: `access_log = { path = \"/var/log/ga/access.log\" }`", &mut cx.problems);
    let path = path.and_then(|value| {
        let text = value.string(&mut cx.problems)?;
        if !text.starts_with('/') {
            let draft = Fault::new(Kind::BadValue, format!("{:?} is not a full path", shorten(text)));
            value.problem(draft.help("begin it with a slash: `/var/log/ga/access.log`"), &mut cx.problems);
            return None;
        }
        Some(text.to_owned())
    });
    let format = table.optional("format").map_or(Some(LogFormat::Json), |value| value.word(&LOG_FORMATS, &mut cx.problems));
    let sample = table.optional("sample").map_or(Some(100), |value| value.integer(LOG_SAMPLE, &mut cx.problems));
    Some(AccessLog { path: path?, format: format?, sample: u8::try_from(sample?).ok()? })
}

fn interfaces(value: &Value<'_>, cx: &mut Context<'_>) -> Option<Vec<String>> {
    let elements = value.array(&mut cx.problems)?;
    if elements.is_empty() {
        let draft = Fault::new(Kind::MissingKey, "at least one interface is needed").help("`interfaces = [\"eth0\"]`");
        value.problem(draft, &mut cx.problems);
    }
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    for element in &elements {
        let Some(name) = element.string(&mut cx.problems) else { continue };
        // What the kernel's dev_valid_name() takes.
        let valid = (1..=15).contains(&name.len()) && name != "." && name != "..";
        if !valid || name.chars().any(|c| c.is_whitespace() || c == '/' || c == ':') {
            let draft = Fault::new(Kind::BadValue, format!("{:?} is not the name of an interface", shorten(name)));
            element.problem(draft.help("1 to 15 characters, as `ip link` shows them"), &mut cx.problems);
        } else if !seen.insert(name) {
            element.problem(
                Fault::new(Kind::Duplicate, format!("interface {name:?} is listed twice")).help("list it once"),
                &mut cx.problems,
            );
        } else {
            names.push(name.to_owned());
        }
    }
    (names.len() == elements.len() && !names.is_empty()).then_some(names)
}

fn nat_ports(value: &Value<'_>, cx: &mut Context<'_>) -> Option<RangeInclusive<u16>> {
    cx.ledger.nat_ports = Some((value.span.clone(), value.path.clone()));
    let text = value.string(&mut cx.problems)?;
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let range = text.split_once(['~', '-']).and_then(|(first, last)| Some((number(first)?, number(last)?)));
    let Some((first, last)) = range.filter(|(first, last)| first <= last) else {
        let draft = Fault::new(Kind::BadValue, format!("{:?} is not a range of ports", shorten(text)));
        value.problem(draft.help("write it as in \"1024~64511\": 1 to 65535, the lower first"), &mut cx.problems);
        return None;
    };
    if last - first < MIN_NAT_PORTS - 1 {
        let message = format!("{} source ports are too few: {MIN_NAT_PORTS} are needed", last - first + 1);
        value.problem(Fault::new(Kind::OutOfRange, message).help("without the key it is \"1024~64511\""), &mut cx.problems);
        return None;
    }
    let left = first.saturating_sub(1_024).max(u16::MAX - last);
    if left < MIN_OWN_PORTS {
        let message = format!("these ports leave {left} to what the agent itself sends from egress addresses");
        let draft =
            Fault::new(Kind::Conflict, message).help("leave 1024 above or below them: without the key it is \"1024~64511\"");
        cx.problems.warn(value.span.clone(), &value.path, draft);
    }
    Some(first..=last)
}

fn hash_seed(value: &Value<'_>, cx: &mut Context<'_>) -> Option<Seed> {
    let text = value.string(&mut cx.problems)?;
    let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let half = |half: Option<&str>| half.and_then(|half| u64::from_str_radix(half, 16).ok());
    let seed = if digits { half(text.get(..16)).zip(half(text.get(16..))) } else { None };
    if seed.is_none() {
        let draft = Fault::new(Kind::BadValue, "a hash seed is 32 hexadecimal digits").help("`openssl rand -hex 16` makes one");
        value.problem(draft, &mut cx.problems);
    }
    seed.map(|(first, second)| Seed([first, second]))
}

fn metrics(value: &Value<'_>, cx: &mut Context<'_>) -> Option<Option<SocketAddr>> {
    let text = value.string(&mut cx.problems)?;
    if text == "off" {
        return Some(None);
    }
    let address = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
    if address.is_none() {
        let draft = Fault::new(Kind::BadValue, format!("{:?} is not an address with a port", shorten(text)))
            .help("write it as in \"127.0.0.1:9464\" or \"[::1]:9464\", or \"off\"");
        value.problem(draft, &mut cx.problems);
    }
    address.map(Some)
}

/// DNS servers, with port 53 unless another one is said.
fn resolvers(value: &Value<'_>, cx: &mut Context<'_>) -> Option<Vec<SocketAddr>> {
    let elements = value.array(&mut cx.problems)?;
    let mut servers = Vec::new();
    for element in elements.iter().take(MAX_RESOLVERS) {
        let text = element.string(&mut cx.problems)?;
        let ip = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
        match ip.or_else(|_| text.parse::<SocketAddr>()) {
            Ok(server) => servers.push(server),
            Err(_) => {
                let draft = Fault::new(Kind::BadValue, format!("{:?} is not the address of a server", shorten(text)));
                element.problem(
                    draft.help("write it as in \"10.0.0.53\", \"10.0.0.53:5353\" or \"[fd00::53]:53\""),
                    &mut cx.problems,
                );
            }
        }
    }
    if let Some(excess) = elements.get(MAX_RESOLVERS) {
        let draft = Fault::new(Kind::OutOfRange, format!("{MAX_RESOLVERS} servers are asked at most"));
        excess.problem(draft.help("remove some"), &mut cx.problems);
    }
    (servers.len() == elements.len()).then_some(servers)
}
