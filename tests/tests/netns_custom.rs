//! Custom routing with real clients and hosts: every port leads to its host, on this wire or behind a router, and the policy holds.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use ga::status::{Mapping, MappingList};
use ga_tests::{
    lab::{Agent, EGRESS4, Lab, Namespace, VIP4, server4},
    traffic::until,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// Who is behind the second server; all sixteen are there.
const FAR: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 0);
/// On the wire of the first server.
const NEAR: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 1, 17), Ipv4Addr::new(10, 0, 1, 31)];

fn far(host: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(FAR.to_bits() + u32::from(host))
}

fn text(lab: &Lab, ports: &str, subnets: &[(&str, &str)]) -> String {
    let mut text = format!(
        "[node]\ninterfaces = {}\nmetrics = \"off\"\n[[instance]]\nid = \"lab\"\nvips = [\"{VIP4}\"]\negress_ips = [\"{EGRESS4}\"]\n\
         [[instance.listener]]\nname = \"rooms\"\ntype = \"custom_routing\"\nports = \"{ports}\"\n\
         [[instance.listener.custom_group]]\nregion = \"eu\"\ndestinations = [{{ ports = \"81~82\", protocols = [\"tcp\", \"udp\"] }}]\n",
        lab.interfaces()
    );
    for (cidr, policy) in subnets {
        text += &format!("[[instance.listener.custom_group.endpoint]]\ncidr = \"{cidr}\"\n{policy}\n");
    }
    text
}

/// Hosts that say by TCP and UDP who was asked; the number says how often any was.
fn hosts(lab: &Lab) -> Result<Arc<AtomicU64>> {
    let asked = Arc::new(AtomicU64::new(0));
    for host in NEAR {
        lab.servers[0].run(&["ip", "addr", "add", &format!("{host}/24"), "dev", "eth0"])?;
    }
    for host in 0..16 {
        lab.servers[1].run(&["ip", "addr", "add", &format!("{}/32", far(host)), "dev", "lo"])?;
    }
    lab.edge.run(&["ip", "route", "add", &format!("{FAR}/28"), "via", &server4(2).to_string()])?;
    for (server, host) in NEAR.map(|host| (0, host)).into_iter().chain((0..16).map(|host| (1, far(host)))) {
        for port in [81, 82] {
            serve(&lab.servers[server], SocketAddr::new(host.into(), port), &asked)?;
        }
    }
    Ok(asked)
}

/// Serves in threads that last as long as the test.
fn serve(namespace: &Namespace, at: SocketAddr, asked: &Arc<AtomicU64>) -> Result<()> {
    let (tcp, udp) = namespace.within(move || -> Result<_> { Ok((TcpListener::bind(at)?, UdpSocket::bind(at)?)) })??;
    let count = Arc::clone(asked);
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            count.fetch_add(1, Ordering::Relaxed);
            let from = stream.peer_addr().map(|from| from.ip().to_string()).unwrap_or_default();
            drop(stream.write_all(format!("{at} {from}").as_bytes()));
        }
    });
    let count = Arc::clone(asked);
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = udp.recv_from(&mut buffer) {
            count.fetch_add(1, Ordering::Relaxed);
            drop(udp.send_to(format!("{at} {}", from.ip()).as_bytes(), from));
        }
    });
    Ok(())
}

/// What a connection to a port of the VIP is told, if anything.
fn by_tcp(lab: &Lab, port: u16, patience: Duration) -> Result<Option<String>> {
    lab.clients[0].within(move || {
        let Ok(mut stream) = TcpStream::connect_timeout(&SocketAddr::new(VIP4.into(), port), patience) else { return Ok(None) };
        let mut text = String::new();
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.read_to_string(&mut text)?;
        Ok(Some(text))
    })?
}

/// The same for a datagram.
fn by_udp(lab: &Lab, port: u16, patience: Duration) -> Result<Option<String>> {
    lab.clients[0].within(move || {
        let socket = UdpSocket::bind((IpAddr::from([0, 0, 0, 0]), 0))?;
        socket.connect((VIP4, port))?;
        socket.set_read_timeout(Some(patience))?;
        socket.send(b"who")?;
        let mut buffer = [0; 64];
        Ok(socket.recv(&mut buffer).ok().map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned()))
    })?
}

fn rows(agent: &Agent, more: &[&str]) -> Result<Vec<Mapping>> {
    let (mut rows, mut page) = (Vec::new(), 1);
    loop {
        let number = page.to_string();
        let words = [&["mappings", "--json", "--size", "50", "--page", &number], more].concat();
        let list: MappingList = serde_json::from_str(&agent.ok(&words)?)?;
        let is_last = list.port_mappings.len() < 50;
        rows.extend(list.port_mappings);
        if is_last {
            ensure!(rows.len() as u64 == list.total_count, "{} rows of {}", rows.len(), list.total_count);
            return Ok(rows);
        }
        page += 1;
    }
}

fn to(row: &Mapping) -> SocketAddr {
    SocketAddr::new(row.destination_socket_address.ip_address.into(), row.destination_socket_address.port)
}

/// Both protocols reach the host of a row, at once or as soon as its neighbour is known.
fn reaches(lab: &Lab, row: &Mapping) -> Result<()> {
    let expected = format!("{} {EGRESS4}", to(row));
    for (what, ask) in [("TCP", by_tcp as fn(&Lab, u16, Duration) -> Result<Option<String>>), ("UDP", by_udp)] {
        let answer =
            until(&format!("{what} to {}", to(row)), PATIENCE, || ask(lab, row.accelerator_port, Duration::from_secs(3)))?;
        ensure!(answer == expected, "port {} by {what}: {answer}, not {expected}", row.accelerator_port);
    }
    Ok(())
}

// proves: J02, J07
#[test]
fn every_row_forwards_to_its_host_by_tcp_and_udp() -> Result<()> {
    let lab = Lab::new(2)?;
    let _asked = hosts(&lab)?;
    let allow = "policy = \"allow_all\"";
    lab.configure(&text(&lab, "20~90", &[("10.9.0.0/28", allow), ("10.0.1.16/28", allow)]))?;
    let agent = Agent::start(&lab)?;
    let all = rows(&agent, &[])?;
    ensure!(all.len() == 64 && all.iter().all(|row| row.accelerator_port != 25), "{} rows", all.len());
    let is_there = |row: &&Mapping| {
        let host = row.destination_socket_address.ip_address;
        row.vswitch == "10.9.0.0/28" || NEAR.contains(&host)
    };
    let there: Vec<&Mapping> = all.iter().filter(is_there).collect();
    ensure!(there.len() == 36, "{} rows of hosts", there.len());
    for row in there {
        reaches(&lab, row)?;
        let (ip, port) = (to(row).ip().to_string(), to(row).port().to_string());
        let back = rows(&agent, &["--endpoint", &row.vswitch, "--ip", &ip, "--port", &port])?;
        ensure!(back == [row.clone()], "asked the other way: {back:?}");
    }
    Ok(())
}

// proves: J05, J06
#[test]
fn nobody_is_reached_who_is_not_allowed() -> Result<()> {
    let lab = Lab::new(2)?;
    let asked = hosts(&lab)?;
    let near = ("10.0.1.16/28", "policy = \"allow_all\"");
    lab.configure(&text(&lab, "101~180", &[("10.9.0.0/28", "")]))?;
    let mut agent = Agent::start(&lab)?;
    let first = rows(&agent, &[])?;
    ensure!(first.len() == 32 && first.iter().all(|row| row.destination_traffic_state == "deny"), "all rows are denied");
    let short = Duration::from_millis(200);
    for row in first.iter().step_by(5) {
        ensure!(by_tcp(&lab, row.accelerator_port, short)?.is_none() && by_udp(&lab, row.accelerator_port, short)?.is_none());
    }
    ensure!(asked.load(Ordering::Relaxed) == 0, "somebody was reached");
    ensure!(agent.drops("rooms")?.get("custom_denied").is_some_and(|drops| *drops >= 14), "{:?}", agent.drops("rooms")?);

    let allow = "policy = \"allow_custom\"\nallow = [{ address = \"10.9.0.4\", ports = \"82\" }, { address = \"10.9.0.15\" }]";
    lab.configure(&text(&lab, "101~180", &[("10.9.0.0/28", allow)]))?;
    agent.ok(&["reload"])?;
    let states = rows(&agent, &[])?;
    let allowed: BTreeSet<String> =
        states.iter().filter(|row| row.destination_traffic_state == "allow").map(|row| to(row).to_string()).collect();
    ensure!(allowed == ["10.9.0.15:81", "10.9.0.15:82", "10.9.0.4:82"].map(str::to_owned).into(), "{allowed:?}");
    let denied = ["10.9.0.4:81", "10.9.0.5:82", "10.9.0.14:82"];
    for row in states.iter().filter(|row| allowed.contains(&to(row).to_string())) {
        reaches(&lab, row)?;
    }
    let before = asked.load(Ordering::Relaxed);
    for row in states.iter().filter(|row| denied.contains(&to(row).to_string().as_str())) {
        ensure!(by_tcp(&lab, row.accelerator_port, short)?.is_none() && by_udp(&lab, row.accelerator_port, short)?.is_none());
    }
    ensure!(asked.load(Ordering::Relaxed) == before, "somebody was reached");

    // Another subnet and a restart: old rows are where they were. Ports that lead somewhere cannot go.
    lab.configure(&text(&lab, "101~180", &[near, ("10.9.0.0/28", "policy = \"allow_all\"")]))?;
    agent.stop()?;
    let agent = Agent::start(&lab)?;
    let grown = rows(&agent, &[])?;
    let places = |rows: &[Mapping]| rows.iter().map(|row| (row.accelerator_port, to(row))).collect::<BTreeSet<_>>();
    ensure!(grown.len() == 64 && places(&first).is_subset(&places(&grown)), "{grown:?}");
    reaches(&lab, grown.iter().find(|row| to(row).ip() == IpAddr::from(far(7))).context("a row of the seventh host")?)?;
    reaches(&lab, grown.iter().find(|row| to(row).ip() == IpAddr::from(NEAR[1])).context("a row of the neighbour")?)?;
    lab.configure(&text(&lab, "102~180", &[near, ("10.9.0.0/28", "")]))?;
    let refused = agent.ga(&["reload"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
    ensure!(!refused.status.success() && said.contains("port 101 cannot go"), "{said}");
    Ok(())
}
