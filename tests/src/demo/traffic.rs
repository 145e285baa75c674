//! Clients: one question over a connection or a datagram of its own, answered by the name of a server.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Socket, Type};

use super::stop::Stop;
use crate::lab::{Namespace, VIP4, VIP6};

/// How long one question may take. Long: two retransmissions of a SYN fit.
const PATIENCE: Duration = Duration::from_secs(5);

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// As people write it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// What clients reach.
    pub(super) const fn vip(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(VIP4),
            Self::V6 => IpAddr::V6(VIP6),
        }
    }

    /// As it stands in a URL.
    pub(super) fn host(self) -> String {
        match self.vip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        }
    }

    const fn any(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// A connection and an HTTP request.
    Tcp,
    /// A datagram.
    Udp,
}

impl Protocol {
    /// As people write it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// Asks the VIP who answers, from a new source port.
pub(super) fn ask(protocol: Protocol, family: Family, port: u16, source: Option<IpAddr>) -> io::Result<String> {
    let target = SocketAddr::new(family.vip(), port);
    let source = SocketAddr::new(source.unwrap_or(family.any()), 0);
    match protocol {
        Protocol::Tcp => ask_tcp(target, source),
        Protocol::Udp => ask_udp(target, source),
    }
}

fn ask_tcp(target: SocketAddr, source: SocketAddr) -> io::Result<String> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    if !source.ip().is_unspecified() {
        socket.bind(&source.into())?;
    }
    socket.connect_timeout(&target.into(), PATIENCE)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: demo\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    for _ in 0..16 {
        let n = stream.read(&mut piece)?;
        answer.extend_from_slice(&piece[..n]);
        // The client ends the connection, so that no server is left in TIME-WAIT.
        if let Some(name) = body(&answer) {
            return Ok(name);
        }
        if n == 0 {
            break;
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "not an HTTP response with a name"))
}

/// The one line that the body is, once it is there.
fn body(answer: &[u8]) -> Option<String> {
    let (_, body) = std::str::from_utf8(answer).ok()?.split_once("\r\n\r\n")?;
    Some(body.strip_suffix('\n')?.to_owned())
}

fn ask_udp(target: SocketAddr, source: SocketAddr) -> io::Result<String> {
    let socket = std::net::UdpSocket::bind(source)?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let question = format!("{}", socket.local_addr()?.port());
    socket.send(question.as_bytes())?;
    let mut answer = [0; 64];
    let n = socket.recv(&mut answer)?;
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "not the answer to this question");
    let text = std::str::from_utf8(&answer[..n]).map_err(|_not_text| wrong())?;
    text.strip_suffix(&format!(" {question}")).map(str::to_owned).ok_or_else(wrong)
}

/// How often each server answered, and what went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    /// By the server's name.
    pub(super) by_server: BTreeMap<String, u64>,
    /// Questions without an answer.
    pub(super) errors: Vec<String>,
}

impl Answers {
    /// Answers and errors.
    pub(super) fn asked(&self) -> u64 {
        self.answered() + self.errors.len() as u64
    }

    /// Answers.
    pub(super) fn answered(&self) -> u64 {
        self.by_server.values().sum()
    }

    /// How often this server answered.
    pub(super) fn of(&self, server: &str) -> u64 {
        self.by_server.get(server).copied().unwrap_or_default()
    }

    /// One more.
    pub(super) fn add(&mut self, answer: io::Result<String>) {
        match answer {
            Ok(server) => *self.by_server.entry(server).or_default() += 1,
            Err(error) => self.errors.push(error.to_string()),
        }
    }

    /// Adds those of somebody else.
    pub(super) fn merge(&mut self, other: Self) {
        for (server, times) in other.by_server {
            *self.by_server.entry(server).or_default() += times;
        }
        self.errors.extend(other.errors);
    }

    /// For a sentence: nothing, or the first error.
    pub(super) fn trouble(&self) -> String {
        match self.errors.first() {
            None => String::new(),
            Some(first) => format!(" ({} without answer, the first: {first})", self.errors.len()),
        }
    }
}

/// `each` questions over `family` from every client at the same time, ports in turn. Errors end it early.
pub(super) fn crowd(
    clients: &[Namespace],
    protocol: Protocol,
    family: Family,
    ports: &'static [u16],
    each: usize,
    stop: &Stop,
) -> Result<Answers> {
    let mut threads = Vec::new();
    for client in clients {
        let stop = stop.clone();
        threads.push(client.thread(move || {
            let mut answers = Answers::default();
            for port in ports.iter().cycle().take(each) {
                if stop.is_set() || answers.errors.len() >= 3 {
                    break;
                }
                answers.add(ask(protocol, family, *port, None));
            }
            answers
        })?);
    }
    let mut all = Answers::default();
    for thread in threads {
        all.merge(thread.join().map_err(|_panic| anyhow::anyhow!("a client panicked"))?);
    }
    stop.check()?;
    Ok(all)
}

/// Connections by curl: three ports, `rounds` times each.
pub(super) fn curl(client: &Namespace, family: Family, rounds: usize) -> Result<Answers> {
    let url = format!("http://{}:[8000-8002]/?[1-{rounds}]", family.host());
    let text = client.read(&["curl", "-sS", "--max-time", "20", "-H", "Connection: close", &url])?;
    let mut answers = Answers::default();
    text.lines().for_each(|line| answers.add(Ok(line.to_owned())));
    Ok(answers)
}

/// Bits per second that iperf3 sees at the receiver.
pub(super) fn iperf3(client: &Namespace, family: Family, seconds: u32) -> Result<f64> {
    let (vip, time) = (family.vip().to_string(), seconds.to_string());
    let output = client.output(&["iperf3", "-c", &vip, "-p", "5201", "-t", &time, "-J", "--connect-timeout", "5000"])?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).context("iperf3 printed no report")?;
    match report["end"]["sum_received"]["bits_per_second"].as_f64() {
        Some(rate) => Ok(rate),
        None => bail!("iperf3: {}", report["error"].as_str().unwrap_or("no throughput in its report")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_counts_when_it_is_complete() {
        assert_eq!(body(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\ns1\n"), Some("s1".to_owned()));
        for incomplete in ["HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\ns1"] {
            assert_eq!(body(incomplete.as_bytes()), None);
        }
    }

    #[test]
    fn answers_add_up() {
        let mut answers = Answers::default();
        answers.add(Ok("s1".to_owned()));
        answers.add(Err(io::ErrorKind::TimedOut.into()));
        let mut all = answers.clone();
        all.merge(answers);
        assert_eq!((all.asked(), all.answered(), all.of("s1"), all.of("s2")), (4, 2, 2, 0));
        assert!(all.trouble().starts_with(" (2 without answer"));
    }
}
