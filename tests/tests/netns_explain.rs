//! Explanations of a running edge: what is told of flows and packets is what they did, and asking changes nothing.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    net::{IpAddr, SocketAddr},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::Xdp;
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use ga::{
    maps::{Counters, FlowTables},
    program::{self, Sizes, Tool},
    status::{FlowList, FlowState, PacketEvent, Protocol, Trace, VerdictWord, WatchLine},
};
use ga_common::{
    abi::{
        entry::EndpointCounters,
        flow::{FlowSlot, State},
        id::{EndpointId, ListenerId},
        reason::Pass,
    },
    word::Word,
};
use ga_tests::{
    lab::{Agent, EGRESS4, EGRESS6, Lab, Namespace, VIP4, VIP6, client4, client6, ga_binary, server4},
    limits::VERIFIED,
    traffic::{Flows, Probe, Server, ask_many, block_in, dial, spread, until},
};

const VIPS: [IpAddr; 2] = [IpAddr::V4(VIP4), IpAddr::V6(VIP6)];
const MINUTE: Duration = Duration::from_secs(60);

fn text(lab: &Lab, servers: usize) -> String {
    let weights = vec![255; servers];
    lab.head() + &Lab::listener("web", "tcp", "80", &weights, "") + &Lab::listener("dns", "udp", "53", &weights, "")
}

fn start(lab: &Lab, text: &str) -> Result<Agent> {
    lab.configure(text)?;
    Agent::start(lab)
}

fn client(number: usize, vip: IpAddr) -> IpAddr {
    if vip.is_ipv4() { client4(number).into() } else { client6(number).into() }
}

/// Ids and names of the programs on the edge's interfaces, as the kernel tells.
fn programs(namespace: &Namespace) -> Result<Vec<(String, u64, String)>> {
    let links: serde_json::Value = serde_json::from_str(&namespace.read(&["ip", "-d", "-j", "link", "show"])?)?;
    let program = |link: &serde_json::Value| {
        let program = &link["xdp"]["prog"];
        Some((
            link["ifname"].as_str()?.to_owned(),
            program["id"].as_u64()?,
            program["name"].as_str().unwrap_or_default().to_owned(),
        ))
    };
    Ok(links.as_array().context("links are a list")?.iter().filter_map(program).collect())
}

/// A verb that goes on while packets are sent.
struct Verb(Child);

impl Verb {
    fn start(agent: &Agent, words: &[&str]) -> Result<Self> {
        let child = Command::new(ga_binary()?)
            .arg("--socket")
            .arg(agent.socket())
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Self(child))
    }

    /// Waits until the watching program is on every interface.
    fn watching(mut self, lab: &Lab) -> Result<Self> {
        until("the watching program", MINUTE, || {
            if let Some(status) = self.0.try_wait()? {
                let mut why = String::new();
                std::io::Read::read_to_string(self.0.stderr.as_mut().context("a pipe")?, &mut why)?;
                bail!("the verb ended with {status}: {why}");
            }
            let programs = programs(&lab.edge)?;
            Ok((!programs.is_empty() && programs.iter().all(|(_, _, name)| name == "ga_watch")).then_some(()))
        })?;
        Ok(self)
    }

    /// Waits for its end and returns what it printed to both.
    fn finish(mut self) -> Result<(String, String)> {
        until("the end of a verb", MINUTE, || Ok(self.0.try_wait()?))?;
        let read = |stream: Option<&mut dyn std::io::Read>| -> Result<String> {
            let mut text = String::new();
            stream.context("a pipe")?.read_to_string(&mut text)?;
            Ok(text)
        };
        let out = read(self.0.stdout.as_mut().map(|out| out as &mut dyn std::io::Read))?;
        let err = read(self.0.stderr.as_mut().map(|err| err as &mut dyn std::io::Read))?;
        let status = self.0.wait()?;
        ensure!(status.success(), "the verb ended with {status}: {err}");
        Ok((out, err))
    }
}

impl Drop for Verb {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn flows(agent: &Agent, words: &[&str]) -> Result<FlowList> {
    Ok(serde_json::from_str(&agent.ok(&[&["flows", "--json"], words].concat())?)?)
}

#[test]
fn the_kernel_accepts_the_tools_with_room_to_spare() -> Result<()> {
    let verified = |program: &Xdp| program.info()?.verified_instruction_count().context("this kernel does not tell");
    let mut object = program::load(None, Sizes::for_flows(1024))?.ebpf;
    let usual = verified(program::program(&mut object)?)?;
    println!("ga: {usual} instructions verified");
    for tool in [Tool::Trace, Tool::Watch] {
        let mut object = program::load_tool(None, Sizes::for_flows(1024), tool)?;
        let tool_takes = verified(program::tool_program(&mut object, tool)?)?;
        println!("{}: {tool_takes}", tool.name());
        // What is noted between the stages keeps the verifier from seeing that ways meet again.
        let most = if tool == Tool::Watch { usual + 60_000 } else { VERIFIED / 2 };
        ensure!(tool_takes < most, "{} takes the verifier {tool_takes} instructions, ga {usual}", tool.name());
    }
    Ok(())
}

#[test]
fn flows_are_listed_counted_and_ranked_as_they_are() -> Result<()> {
    let lab = Lab::new(2)?;
    let servers = Server::start_all(&lab.servers, &[80, 53])?;
    let agent = start(&lab, &text(&lab, 2))?;
    let open = [
        Flows::open(&lab.clients[0], SocketAddr::new(VIPS[0], 80), 30, Duration::from_millis(50))?,
        Flows::open(&lab.clients[1], SocketAddr::new(VIPS[1], 80), 12, Duration::from_millis(50))?,
    ];
    ask_many(&lab.clients[0], client(1, VIPS[0]), SocketAddr::new(VIPS[0], 53), 5, 2)?;
    open.iter().try_for_each(|flows| flows.wait_for(2))?;

    let all = flows(&agent, &["--limit", "1000"])?;
    ensure!(all.matched == 47 && all.flows.len() == 47, "{} flows, {} listed", all.matched, all.flows.len());
    // Every listed flow is one that a server sees, with the endpoint and the egress port that the list says.
    let mut seen: BTreeSet<(SocketAddr, SocketAddr)> = BTreeSet::new();
    for server in &servers {
        seen.extend(server.connections().iter().map(|connection| (connection.peer, connection.local)));
    }
    for row in &all.flows {
        let client_side = (row.vip.ip() == VIPS[0] && row.client.ip() == client(1, VIPS[0]))
            || (row.vip.ip() == VIPS[1] && row.client.ip() == client(2, VIPS[1]));
        ensure!(client_side && [IpAddr::from(EGRESS4), EGRESS6.into()].contains(&row.egress.ip()), "{row:?}");
        ensure!(row.state == FlowState::Open && row.peer_slot.is_some(), "{row:?}");
        match row.protocol {
            Protocol::Tcp => {
                ensure!(seen.contains(&(row.egress, row.endpoint)), "no server knows {row:?}");
                ensure!(row.listener.as_deref() == Some("lab/web") && row.timeout_s == 900, "{row:?}");
                ensure!(row.idle_s < 10.0 && (row.left_s + row.idle_s - 900.0).abs() < 1.0, "{row:?}");
            }
            Protocol::Udp => ensure!(row.listener.as_deref() == Some("lab/dns"), "{row:?}"),
        }
    }
    let count = |words: &[&str]| -> Result<u64> { Ok(agent.ok(&[&["flows", "--count"], words].concat())?.trim().parse()?) };
    ensure!(count(&[])? == 47 && count(&["--proto", "udp"])? == 5 && count(&["--listener", "web"])? == 42, "counts");
    ensure!(count(&["--client", "192.0.0.0/16"])? == 35 && count(&["--client", "2001:db8::/32"])? == 12, "counts by client");
    ensure!(count(&["--state", "opening"])? == 0 && count(&["--state", "open"])? == 47, "counts by state");
    let by_endpoint: u64 = [server4(1), server4(2)]
        .iter()
        .map(|address| count(&["--endpoint", &address.to_string(), "--proto", "tcp"]))
        .sum::<Result<u64>>()?;
    ensure!(by_endpoint == 30, "{by_endpoint} TCP flows to the IPv4 endpoints");
    let limited = flows(&agent, &["--limit", "7"])?;
    ensure!(limited.matched == 47 && limited.flows.len() == 7, "the limit: {} of {}", limited.flows.len(), limited.matched);
    let top = flows(&agent, &["--top", "clients", "-n", "1"])?;
    ensure!(top.top.len() == 1 && top.top[0].name == client(1, VIPS[0]).to_string() && top.top[0].flows == 35, "{:?}", top.top);
    let listeners = flows(&agent, &["--top", "listeners"])?;
    let listeners: Vec<_> = listeners.top.iter().map(|row| (row.name.as_str(), row.flows)).collect();
    ensure!(listeners == [("lab/web", 42), ("lab/dns", 5)], "{listeners:?}");
    // A pipe gets a header and a line for each.
    let piped = agent.ok(&["flows", "--limit", "1000"])?;
    ensure!(piped.lines().count() == 48 && piped.starts_with("proto\tclient\tvip\t"), "{piped}");
    let refused = agent.ga(&["flows", "--listener", "no-such"])?;
    ensure!(refused.status.code() == Some(1), "an unknown listener: {}", refused.status);
    for flows in open {
        flows.all_well()?;
    }
    Ok(())
}

#[test]
fn a_watch_shows_the_packets_of_a_filter_and_puts_the_program_back() -> Result<()> {
    let lab = Lab::new(1)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let agent = start(&lab, &text(&lab, 1))?;
    let before = programs(&lab.edge)?;
    ensure!(before.len() == 3 && before.iter().all(|(_, _, name)| name == "ga"), "attached are {before:?}");
    for vip in VIPS {
        let from = client(1, vip).to_string();
        let verb =
            Verb::start(&agent, &["watch", "--json", "--host", &from, "--port", "5353", "--proto", "udp", "--count", "6"])?
                .watching(&lab)?;
        // Others' packets are not shown, whatever they are.
        spread(&lab.clients[1], client(2, vip), 0, SocketAddr::new(vip, 80), 3)?;
        ask_from(&lab, SocketAddr::new(client(1, vip), 5353), SocketAddr::new(vip, 53), 3)?;
        let (out, _) = verb.finish()?;
        let packets: Vec<PacketEvent> = out.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        ensure!(packets.len() == 6, "{} packets:\n{out}", packets.len());
        for (index, packet) in packets.iter().enumerate() {
            let (before, after) = (packet.before.context("IP")?, packet.after.context("sent")?);
            ensure!(packet.verdict == VerdictWord::Send && packet.listener.as_deref() == Some("lab/dns"), "{packet:?}");
            let (there, back) = ((SocketAddr::new(client(1, vip), 5353)), SocketAddr::new(vip, 53));
            if index % 2 == 0 {
                ensure!(
                    (SocketAddr::new(before.src, before.sport), SocketAddr::new(before.dst, before.dport)) == (there, back),
                    "{packet:?}"
                );
                ensure!(packet.interface == "c1" && packet.out.as_deref() == Some("s1"), "{packet:?}");
            } else {
                ensure!(
                    (SocketAddr::new(after.src, after.sport), SocketAddr::new(after.dst, after.dport)) == (back, there),
                    "{packet:?}"
                );
                ensure!(packet.interface == "s1" && packet.out.as_deref() == Some("c1"), "{packet:?}");
            }
        }
        ensure!(programs(&lab.edge)? == before, "attached after the watch are {:?}", programs(&lab.edge)?);
    }
    // A drop says why; the filter by reason leaves everything else out.
    let verb = Verb::start(&agent, &["watch", "--reason", "no_flow", "--count", "1", "--seconds", "30"])?.watching(&lab)?;
    ask_many(&lab.clients[0], client(1, VIPS[0]), SocketAddr::new(VIPS[0], 53), 2, 2)?;
    stray_segment(&lab)?;
    let (out, _) = verb.finish()?;
    ensure!(out.lines().count() == 1 && out.contains(" drop no_flow tcp 192.0.2.2:4444 > 198.51.100.10:80 "), "{out}");
    ensure!(out.contains("lab/web: a TCP segment other than SYN"), "{out}");
    ensure!(programs(&lab.edge)? == before, "attached after the watch are {:?}", programs(&lab.edge)?);
    Ok(())
}

/// Asks `count` questions one after the other from one address and port.
fn ask_from(lab: &Lab, from: SocketAddr, to: SocketAddr, count: usize) -> Result<()> {
    lab.clients[0].within(move || -> Result<()> {
        let socket = std::net::UdpSocket::bind(from)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.connect(to)?;
        for _ in 0..count {
            socket.send(b"who is there?")?;
            socket.recv(&mut [0; 512]).context("no answer")?;
        }
        Ok(())
    })?
}

/// A segment of no flow, from the first client.
fn stray_segment(lab: &Lab) -> Result<()> {
    lab.clients[0].within(|| -> Result<()> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(socket2::Protocol::from(255)))?;
        let mut packet = Vec::new();
        PacketBuilder::ipv4(client4(1).octets(), VIP4.octets(), 64).tcp(4444, 80, 1, 100).ack(1).write(&mut packet, &[])?;
        socket.send_to(&packet, &SocketAddr::new(VIP4.into(), 0).into())?;
        Ok(())
    })?
}

#[test]
fn a_watch_ends_with_whoever_asked_and_with_the_agent() -> Result<()> {
    let lab = Lab::new(1)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let mut agent = start(&lab, &text(&lab, 1))?;
    let before = programs(&lab.edge)?;
    let usual = || -> Result<()> {
        until("the usual program", MINUTE, || Ok(programs(&lab.edge)?.iter().all(|(_, _, name)| name == "ga").then_some(())))
    };

    // The client is killed.
    let verb = Verb::start(&agent, &["watch", "--seconds", "600", "--count", "100000"])?.watching(&lab)?;
    // Meanwhile nobody else can.
    let refused = agent.ga(&["watch"])?;
    ensure!(refused.status.code() == Some(5), "a second watch ends with {}", refused.status);
    drop(verb);
    usual()?;
    ensure!(programs(&lab.edge)? == before, "other programs are attached: {:?}", programs(&lab.edge)?);

    // Its time is over.
    let (_, _) = Verb::start(&agent, &["watch", "--seconds", "1"])?.finish()?;
    ensure!(programs(&lab.edge)? == before, "other programs are attached: {:?}", programs(&lab.edge)?);

    // The agent is stopped.
    let mut verb = Verb::start(&agent, &["watch", "--seconds", "600", "--count", "100000"])?.watching(&lab)?;
    agent.stop()?;
    ensure!(programs(&lab.edge)? == before, "a stopped agent left {:?}", programs(&lab.edge)?);
    let status = until("the end of the verb", MINUTE, || Ok(verb.0.try_wait()?))?;
    ensure!(status.code() == Some(3), "the verb ends with {status}");

    // The agent is killed: its successor cleans up.
    agent = Agent::start(&lab)?;
    let _verb = Verb::start(&agent, &["watch", "--seconds", "600", "--count", "100000"])?.watching(&lab)?;
    agent.kill()?;
    ensure!(programs(&lab.edge)?.iter().all(|(_, _, name)| name == "ga_watch"), "nobody was there to replace the program");
    ask_many(&lab.clients[0], client(1, VIPS[0]), SocketAddr::new(VIPS[0], 53), 2, 2)?;
    let agent = Agent::start(&lab)?;
    ensure!(programs(&lab.edge)?.iter().all(|(_, _, name)| name == "ga"), "attached are {:?}", programs(&lab.edge)?);
    agent.status()?;
    Ok(())
}

#[test]
fn no_packet_is_lost_while_programs_are_replaced() -> Result<()> {
    let lab = Lab::new(1)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let agent = start(&lab, &text(&lab, 1))?;
    let probes = [
        Probe::start(&lab.clients[0], SocketAddr::new(VIPS[0], 53))?,
        Probe::start(&lab.clients[1], SocketAddr::new(VIPS[1], 53))?,
    ];
    let connections = Flows::open(&lab.clients[0], SocketAddr::new(VIPS[0], 80), 20, Duration::from_millis(20))?;
    for _ in 0..5 {
        let (out, _) =
            Verb::start(&agent, &["watch", "--json", "--proto", "udp", "--sample", "50", "--count", "20"])?.finish()?;
        ensure!(out.lines().count() == 20, "{} of 20 packets were shown", out.lines().count());
    }
    for probe in probes {
        let report = probe.finish()?;
        let status = agent.status()?;
        let dropped: Vec<_> = status.drops.iter().filter(|drop| drop.packets > 0).collect();
        let lost = report.lost.len();
        ensure!(
            lost == 0 && report.sent > 500,
            "{lost} of {} datagrams are lost ({:?}); dropped: {dropped:?}",
            report.sent,
            report.lost
        );
        ensure!(report.peers.len() == 1, "one flow became {:?}", report.peers);
    }
    connections.all_well()?;
    Ok(())
}

#[test]
fn events_are_no_more_than_asked_for() -> Result<()> {
    let lab = Lab::new(1)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let agent = start(&lab, &text(&lab, 1))?;
    let probe = Probe::start(&lab.clients[0], SocketAddr::new(VIPS[0], 53))?;
    // About 2,000 packets a second.
    let (out, err) = Verb::start(&agent, &["watch", "--proto", "udp", "--rate", "10", "--seconds", "3"])?.finish()?;
    let shown = out.lines().count();
    ensure!((10..=50).contains(&shown), "{shown} packets in 3 seconds, with 10 a second allowed");
    ensure!(err.contains("left out because there were more in a second than asked for"), "{err}");
    let (out, _) = Verb::start(&agent, &["watch", "--proto", "udp", "--count", "17"])?.finish()?;
    ensure!(out.lines().count() == 17, "{} packets instead of 17", out.lines().count());
    probe.finish()?;
    Ok(())
}

/// The pcapng file's frames: interface and bytes, as the independent library tells.
fn frames(path: &std::path::Path) -> Result<Vec<(u32, Vec<u8>, String)>> {
    let bytes = fs::read(path)?;
    let (_, capture) = pcap_parser::parse_pcapng(&bytes).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let mut frames = Vec::new();
    for block in capture.sections.into_iter().flat_map(|section| section.blocks) {
        if let pcap_parser::Block::EnhancedPacket(packet) = block {
            let comment = packet
                .options
                .iter()
                .find(|option| option.code.0 == 1)
                .map(|option| String::from_utf8_lossy(&option.value).into_owned());
            frames.push((packet.if_id, packet.data[..packet.caplen as usize].to_vec(), comment.unwrap_or_default()));
        }
    }
    Ok(frames)
}

struct Seen {
    src: SocketAddr,
    dst: SocketAddr,
    ttl: u8,
    payload: Vec<u8>,
}

/// Takes a frame apart and judges its checksums, by full sums.
fn judged(frame: &[u8]) -> Result<Seen> {
    let packet = SlicedPacket::from_ethernet(frame)?;
    let (src, dst, ttl) = match packet.net.as_ref().context("no IP")? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            ensure!(header.header_checksum == header.calc_header_checksum(), "the IPv4 checksum is wrong");
            (IpAddr::from(header.source), IpAddr::from(header.destination), header.time_to_live)
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            (IpAddr::from(header.source), IpAddr::from(header.destination), header.hop_limit)
        }
        NetSlice::Arp(_) => bail!("ARP"),
    };
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { bail!("no TCP") };
    let header = tcp.to_header();
    let good = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => header.calc_checksum_ipv4_raw(src.octets(), dst.octets(), tcp.payload())?,
        (IpAddr::V6(src), IpAddr::V6(dst)) => header.calc_checksum_ipv6_raw(src.octets(), dst.octets(), tcp.payload())?,
        _ => bail!("two families in one packet"),
    };
    ensure!(header.checksum == good, "the TCP checksum is {:04x} and should be {good:04x}", header.checksum);
    let payload = tcp.payload().to_vec();
    Ok(Seen { src: SocketAddr::new(src, header.source_port), dst: SocketAddr::new(dst, header.destination_port), ttl, payload })
}

#[test]
fn a_capture_has_every_frame_before_and_after_translation() -> Result<()> {
    let lab = Lab::new(1)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let agent = start(&lab, &text(&lab, 1))?;
    let before = programs(&lab.edge)?;
    for vip in VIPS {
        let path = lab.dir.join("capture.pcapng");
        let file = path.display().to_string();
        let verb = Verb::start(&agent, &["capture", "-w", &file, "--host", &vip.to_string(), "--port", "80", "-c", "8"])?
            .watching(&lab)?;
        let connection = block_in(&lab.clients[0], MINUTE, move || async move {
            let (hello, stream) = dial(None, SocketAddr::new(vip, 80)).await?;
            let local = stream.local_addr()?;
            drop(stream);
            Ok((hello, local))
        });
        let (hello, local) = connection?;
        // The rest of the eight packets, if the connection had fewer.
        spread(&lab.clients[0], client(1, vip), 0, SocketAddr::new(vip, 80), 3)?;
        let (out, _) = verb.finish()?;
        ensure!(out.starts_with("16 frames in "), "{out}");
        let frames = frames(&path)?;
        ensure!(frames.len() == 16, "{} frames", frames.len());
        let mut ours = 0;
        for pair in frames.chunks(2) {
            let [(0, before, comment), (1, after, _)] = pair else { bail!("frames do not come in pairs: {pair:?}") };
            let (old, new) = (judged(before).context("before")?, judged(after).context("after")?);
            ensure!(
                old.payload == new.payload && new.ttl == old.ttl - 1 && before.len() == after.len(),
                "more than addresses changed"
            );
            ensure!(comment.contains(" send tcp ") && comment.contains("lab/web"), "{comment}");
            let (peer, endpoint) = (hello.peer, hello.local);
            if old.src == local {
                ensure!((old.dst, new.src, new.dst) == (SocketAddr::new(vip, 80), peer, endpoint), "not the way to the endpoint");
                ours += 1;
            } else if new.dst == local {
                ensure!((old.src, old.dst, new.src) == (endpoint, peer, SocketAddr::new(vip, 80)), "not the way back");
                ours += 1;
            }
        }
        ensure!(ours >= 4, "only {ours} of 8 packets are those of the connection");
        ensure!(programs(&lab.edge)? == before, "attached after the capture are {:?}", programs(&lab.edge)?);
        fs::remove_file(&path)?;
    }
    // A drop is there too, with its reason, and once only.
    let path = lab.dir.join("drops.pcapng");
    let file = path.display().to_string();
    let verb =
        Verb::start(&agent, &["capture", "-w", &file, "--verdict", "drop", "-c", "1", "--seconds", "30", "--snaplen", "40"])?
            .watching(&lab)?;
    stray_segment(&lab)?;
    verb.finish()?;
    let frames = frames(&path)?;
    ensure!(frames.len() == 1 && frames[0].0 == 0 && frames[0].1.len() == 40, "{frames:?}");
    ensure!(frames[0].2.contains("drop no_flow"), "{}", frames[0].2);
    Ok(())
}

#[test]
fn the_admin_socket_streams_lines_as_they_come() -> Result<()> {
    let lab = Lab::new(1)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let agent = start(&lab, &text(&lab, 1))?;
    let order = r#"{"every":1,"per_second":100,"seconds":30,"count":2,"snap":0,"only":{"protocol":17}}"#;
    let socket = agent.socket().display().to_string();
    let mut curl = Command::new("curl")
        .args(["-sSN", "-m", "60", "--unix-socket", &socket, "-d", order, "http://ga/v1/watch"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(curl.stdout.take().context("a pipe")?).lines();
    let mut next = || -> Result<WatchLine> { Ok(serde_json::from_str(&lines.next().context("the stream ended")??)?) };
    ensure!(matches!(next()?, WatchLine::Started { interfaces, .. } if interfaces == ["c1", "c2", "s1"]), "it begins otherwise");
    // The first line came before any packet did.
    ask_from(&lab, SocketAddr::new(client(1, VIPS[0]), 0), SocketAddr::new(VIPS[0], 53), 1)?;
    ensure!(matches!(next()?, WatchLine::Packet(_)) && matches!(next()?, WatchLine::Packet(_)), "a question and its answer");
    ensure!(matches!(next()?, WatchLine::Ended(end) if end.told == 2), "it ends otherwise");
    ensure!(curl.wait()?.success(), "curl failed");
    Ok(())
}

/// Everything that packets and the agent leave in maps, but for what the hosts of the lab talk among themselves.
#[derive(Debug, PartialEq)]
struct Memory {
    flows4: Vec<(u32, String)>,
    flows6: Vec<(u32, String)>,
    tags: Vec<u64>,
    endpoints: Vec<EndpointCounters>,
    drops: Vec<u64>,
    passes: Vec<(Pass, u64)>,
}

/// The pinned maps, seen beside the agent.
struct Beside {
    flows: FlowTables,
    counters: Counters,
}

impl Beside {
    fn open(lab: &Lab, flows: u32) -> Result<Self> {
        let mut object = program::load_tool(Some(&lab.pin_dir), Sizes::for_flows(flows), Tool::Trace)?;
        Ok(Self { flows: FlowTables::open(&mut object)?, counters: Counters::open(&mut object)? })
    }

    fn read(&self) -> Result<Memory> {
        fn used<const K: usize, const W: usize>(slots: &[FlowSlot<K, W>]) -> Vec<(u32, String)> {
            let touched = |slot: &FlowSlot<K, W>| slot.state() != State::NEVER;
            let show = |slot: &FlowSlot<K, W>| format!("{:?} {:?} {:?}", slot.state(), slot.clock(), slot.load());
            (0..).zip(slots).filter(|(_, slot)| touched(slot)).map(|(index, slot)| (index, show(slot))).collect()
        }
        let others = [Pass::NotIp, Pass::NotOurs, Pass::OtherProtocol];
        let mut drops = Vec::new();
        for id in (0..8).map(ListenerId).chain([ListenerId::NONE]) {
            drops.extend(self.counters.drops(id)?.iter().map(|count| count.packets));
        }
        Ok(Memory {
            flows4: used(self.flows.slots4()),
            flows6: used(self.flows.slots6()),
            tags: self.flows.tags4().iter().chain(self.flows.tags6()).map(Word::load).collect(),
            endpoints: (0..32).map(|id| self.counters.endpoint(EndpointId(id))).collect::<Result<_, _>>()?,
            drops,
            passes: self
                .counters
                .passes()?
                .iter()
                .filter(|count| !others.contains(&count.reason))
                .map(|count| (count.reason, count.packets))
                .collect(),
        })
    }
}

/// A trace that leaves everything as it was. The end of a connection before may come in between, but not every time.
fn trace(agent: &Agent, beside: &Beside, words: &[&str]) -> Result<Trace> {
    for _ in 0..10 {
        let before = beside.read()?;
        let trace = serde_json::from_str(&agent.ok(&[&["trace", "--json"], words].concat())?)?;
        if beside.read()? == before {
            return Ok(trace);
        }
    }
    bail!("ga trace {words:?} changes something every time")
}

const FLOWS: u32 = 1024;

fn small(lab: &Lab, servers: usize) -> String {
    text(lab, servers).replace("metrics = \"off\"", &format!("metrics = \"off\"\nflows = {FLOWS}"))
        + &Lab::listener("empty", "tcp", "90", &[0], "")
}

#[test]
fn a_trace_names_the_endpoint_that_the_connection_then_reaches() -> Result<()> {
    let lab = Lab::new(3)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let agent = start(&lab, &small(&lab, 3))?;
    let beside = Beside::open(&lab, FLOWS)?;
    let mut reached = BTreeSet::new();
    for vip in VIPS {
        for port in 45_000..45_012 {
            let (from, to) = (SocketAddr::new(client(1, vip), port), SocketAddr::new(vip, 80));
            let words = [from.to_string(), format!("{to}/tcp")];
            let words = [words[0].as_str(), words[1].as_str()];
            let told = trace(&agent, &beside, &words)?;
            ensure!(told.verdict == VerdictWord::Send && !told.known && told.listener.as_deref() == Some("lab/web"), "{told:?}");
            let stages: Vec<_> = told.steps.iter().map(|step| step.stage.as_str()).collect();
            ensure!(stages == ["parse", "address", "listener", "endpoint", "nat", "rewrite", "hop"], "{stages:?}");
            let (hello, stream) = block_in(&lab.clients[0], MINUTE, move || async move {
                let (hello, stream) = dial(Some(from), to).await?;
                Ok((hello, stream.into_std()?))
            })?;
            ensure!(
                told.endpoint == Some(hello.local.ip().to_string()),
                "{from} reached {}, foretold was {:?}",
                hello.local,
                told.endpoint
            );
            ensure!(
                told.out == Some(format!("s{}", hello.server)),
                "{from} left by s{}, foretold was {:?}",
                hello.server,
                told.out
            );
            reached.insert(hello.server);

            // The flow is known now, in both directions.
            let known = trace(&agent, &beside, &[&words[..], &["--flags", "ack"]].concat())?;
            let sent = known.sent.context("it would be sent")?;
            ensure!(known.known && known.endpoint == told.endpoint, "{known:?}");
            ensure!(
                (sent.src, sent.sport) == (hello.peer.ip(), hello.peer.port()),
                "{known:?}, but the server sees {}",
                hello.peer
            );
            let (answer, interface) = ([hello.local.to_string(), format!("{}/tcp", hello.peer)], format!("s{}", hello.server));
            let back = trace(
                &agent,
                &beside,
                &[&answer[0], &answer[1], "--flags", "ack,psh", "--payload", "100", "--interface", &interface],
            )?;
            let sent = back.sent.context("it would be sent")?;
            let ends = (SocketAddr::new(sent.src, sent.sport), SocketAddr::new(sent.dst, sent.dport));
            ensure!(back.known && ends == (to, from) && back.out.as_deref() == Some("c1"), "{back:?}");
            let frame = back.frame_after.and_then(|frame| frame.bytes()).context("a frame")?;
            ensure!(judged(&frame)?.payload.len() == 100, "the frame is another");
            drop(stream);
        }
    }
    ensure!(reached.len() == 3, "24 connections reached only {reached:?}");
    // A SYN on a flow that is over opens another; the trace says so and leaves the old one.
    until("a closed flow", MINUTE, || {
        let words = [format!("{}:45000", client4(1)), format!("{VIP4}:80/tcp")];
        let told = trace(&agent, &beside, &[&words[0], &words[1]])?;
        Ok((told.verdict == VerdictWord::Send && told.steps.iter().any(|step| step.found.contains("a SYN opens another")))
            .then_some(()))
    })
}

#[test]
fn a_trace_tells_the_drop_or_pass_that_the_real_packet_then_meets() -> Result<()> {
    let lab = Lab::new(1)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let agent = start(&lab, &small(&lab, 1))?;
    let beside = Beside::open(&lab, FLOWS)?;
    let (from, vip) = (client4(1).octets(), VIP4.octets());
    let ip = |ttl, dst: [u8; 4]| PacketBuilder::ipv4(from, dst, ttl);
    let tcp = |ttl, dst, port| ip(ttl, dst).tcp(4000, port, 1, 100);
    let built = |builder: etherparse::PacketBuilderStep<etherparse::TcpHeader>| -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &[])?;
        Ok(bytes)
    };
    let udp = || -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        ip(64, vip).udp(4000, 53).write(&mut bytes, b"abc")?;
        Ok(bytes)
    };
    let (mut long, mut fragment) = (udp()?, udp()?);
    long[24..26].copy_from_slice(&100u16.to_be_bytes());
    fragment[6] = 0x20;
    let martian = PacketBuilder::ipv4(vip, vip, 64).tcp(4000, 80, 1, 100).syn();
    let gateway = [192, 0, 2, 1];
    let cases = [
        ("drop", "no_flow", built(tcp(64, vip, 80).ack(1))?),
        ("drop", "ttl_expired", built(tcp(1, vip, 80).syn())?),
        ("drop", "malformed", long),
        ("drop", "fragment", fragment),
        ("drop", "no_endpoint", built(tcp(64, vip, 90).syn())?),
        ("pass", "no_listener", built(tcp(64, vip, 81).syn())?),
        ("pass", "not_ours", built(tcp(64, gateway, 80).syn())?),
        ("pass", "martian", built(martian)?),
    ];
    for (verdict, reason, packet) in cases {
        let told = trace_packet(&lab, &agent, &beside, &[8, 0], &packet, "c1")?;
        ensure!(told.verdict.word() == verdict && told.reason.as_deref() == Some(reason), "{reason}: {told:?}");
        let before = counted(&agent, verdict, reason)?;
        let dst = SocketAddr::new(IpAddr::from([packet[16], packet[17], packet[18], packet[19]]), 0);
        lab.clients[0].within(move || -> Result<()> {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(socket2::Protocol::from(255)))?;
            socket.send_to(&packet, &dst.into())?;
            Ok(())
        })??;
        until(reason, MINUTE, || Ok((counted(&agent, verdict, reason)? > before).then_some(())))?;
    }
    pings_and_errors(&lab, &agent, &beside)?;
    // What is wrong with a question is said.
    let refused = agent.ga(&["trace", "192.0.2.2:1", "198.51.100.10:80/tcp", "--interface", "eth9"])?;
    ensure!(refused.status.code() == Some(1), "an interface that is not there: {}", refused.status);
    Ok(())
}

/// Asks about a packet with a capture file, as an operator would.
fn trace_packet(lab: &Lab, agent: &Agent, beside: &Beside, link: &[u8], packet: &[u8], interface: &str) -> Result<Trace> {
    let mut file = [0xa1b2_c3d4_u32.to_le_bytes(), [2, 0, 4, 0], [0; 4], [0; 4], [0xff, 0xff, 0, 0], [1, 0, 0, 0]].concat();
    let frame = [&[2; 6][..], &[4; 6], link, packet].concat();
    let length = u32::try_from(frame.len())?.to_le_bytes();
    file.extend([[0; 4], [0; 4], length, length].concat());
    file.extend(&frame);
    let path = lab.dir.join("packet.pcap");
    fs::write(&path, file)?;
    trace(agent, beside, &["--pcap", &path.display().to_string(), "--interface", interface])
}

/// An echo request is answered, an error about a flow goes to whom it concerns, one about nothing of ours to the host.
fn pings_and_errors(lab: &Lab, agent: &Agent, beside: &Beside) -> Result<()> {
    let stages = |told: &Trace| told.steps.iter().map(|step| step.stage.clone()).collect::<Vec<_>>();
    let mut echo = Vec::new();
    PacketBuilder::ipv4(client4(1).octets(), VIP4.octets(), 64).icmpv4_echo_request(1, 2).write(&mut echo, b"ping")?;
    // In VLAN 100, to which the answer goes too.
    let told = trace_packet(lab, agent, beside, &[0x81, 0, 0, 100, 8, 0], &echo, "c1")?;
    ensure!(told.verdict == VerdictWord::Send && told.out.as_deref() == Some("c1"), "{told:?}");
    ensure!(stages(&told) == ["parse", "address", "echo"] && told.steps[0].found.contains(", VLAN 100,"), "{told:?}");
    let answer = told.frame_after.and_then(|frame| frame.bytes()).context("a frame")?;
    ensure!(answer[12..16] == [0x81, 0, 0, 100] && answer[38] == 0, "the answer is {answer:?}");

    let (from, to) = (SocketAddr::new(client4(1).into(), 46_000), SocketAddr::new(VIP4.into(), 80));
    let (hello, stream) = block_in(&lab.clients[0], MINUTE, move || async move {
        let (hello, stream) = dial(Some(from), to).await?;
        Ok((hello, stream.into_std()?))
    })?;
    let (IpAddr::V4(egress), IpAddr::V4(server)) = (hello.peer.ip(), hello.local.ip()) else { bail!("not IPv4: {hello:?}") };
    let unreachable = |port| -> Result<Vec<u8>> {
        let mut quoted = Vec::new();
        PacketBuilder::ipv4(egress.octets(), server.octets(), 63)
            .tcp(port, hello.local.port(), 1, 100)
            .write(&mut quoted, &[])?;
        let mut error = Vec::new();
        PacketBuilder::ipv4(server.octets(), egress.octets(), 64)
            .icmpv4(etherparse::Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::Host))
            .write(&mut error, &quoted)?;
        Ok(error)
    };
    let told = trace_packet(lab, agent, beside, &[8, 0], &unreachable(hello.peer.port())?, "s1")?;
    ensure!(told.verdict == VerdictWord::Send && told.known && told.out.as_deref() == Some("c1"), "{told:?}");
    ensure!(stages(&told) == ["parse", "address", "quote", "flow", "rewrite", "hop"], "{told:?}");
    ensure!(told.steps[2].found.contains(&format!("tcp packet from {} to {}", hello.peer, hello.local)), "{told:?}");
    ensure!(told.steps[4].found.contains(&format!("from {from} to {to}")), "{told:?}");
    let told = trace_packet(lab, agent, beside, &[8, 0], &unreachable(1)?, "s1")?;
    ensure!(told.verdict == VerdictWord::Pass && told.reason.as_deref() == Some("icmp_unknown"), "{told:?}");
    drop(stream);
    Ok(())
}

/// Packets that met this end so far.
fn counted(agent: &Agent, verdict: &str, reason: &str) -> Result<u64> {
    let status = agent.status()?;
    Ok(match verdict {
        "drop" => status.drops.iter().filter(|drop| drop.reason == reason).map(|drop| drop.packets).sum(),
        _ => status.passes.iter().filter(|pass| pass.reason == reason).map(|pass| pass.packets).sum(),
    })
}
