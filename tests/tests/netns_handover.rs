//! Restarts and upgrades of the agent while clients use listeners that it serves: nobody is refused, nothing open breaks.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr, TcpStream},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::net::UnixDatagram,
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ga_tests::{
    lab::{Agent, Lab, VIP4, server4},
    traffic::{Flows, Server, Stop, Task, until},
};
use rustix::{
    io::{FdFlags, fcntl_setfd},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of a download, each a tenth of a second after the other.
const DRIPS: usize = 60;

fn site(port: u16) -> SocketAddr {
    (IpAddr::from(VIP4), port).into()
}

/// A server that answers `/` at once and `/drip` slowly, and speaks back what it hears after a change of protocol.
fn http_server(lab: &Lab) -> Result<Task<()>> {
    Task::start(&lab.servers[0], |mut stop: Stop| async move {
        let socket = tokio::net::TcpListener::bind("0.0.0.0:80").await?;
        let serve = async {
            loop {
                let (stream, _) = socket.accept().await?;
                tokio::spawn(answer(stream));
            }
        };
        tokio::select! {
            ended = serve => ended,
            () = stop.wait() => Ok(()),
        }
    })
}

async fn answer(mut stream: tokio::net::TcpStream) -> Result<()> {
    let mut read = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8(read.drain(..end).collect())?;
        if head.starts_with("GET /drip ") {
            stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {DRIPS}\r\n\r\n").as_bytes()).await?;
            for number in 0..DRIPS {
                stream.write_all(&[b'a' + (number % 26) as u8]).await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        } else if head.starts_with("GET /talk ") {
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: talk\r\n\r\n").await?;
            let mut piece = [0; 64];
            loop {
                let length = stream.read(&mut piece).await?;
                if length == 0 {
                    return Ok(());
                }
                stream.write_all(&piece[..length]).await?;
            }
        } else {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await?;
        }
    }
}

/// A client's connection.
struct Client(BufReader<TcpStream>);

impl Client {
    fn open(to: SocketAddr) -> Result<Self> {
        // Nobody may be refused; a connection may wait while one agent follows the other.
        let stream = TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("connecting to {to}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    fn ask(&mut self, path: &str, fields: &str) -> io::Result<()> {
        self.0.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nHost: site.example\r\n{fields}\r\n").as_bytes())
    }

    /// The head of an answer; none when the connection ended before its first byte.
    fn head(&mut self) -> io::Result<Option<String>> {
        let mut head = String::new();
        loop {
            let before = head.len();
            if self.0.read_line(&mut head)? == 0 {
                return if head.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            if head.get(before..) == Some("\r\n") {
                return Ok(Some(head));
            }
        }
    }

    /// Asks for `/`; none when the connection had ended before, as any connection may between two requests.
    fn get(&mut self, is_new: bool) -> Result<Option<bool>> {
        let head = self.ask("/", "").and_then(|()| self.head());
        let head = match head {
            Ok(Some(head)) => head,
            Ok(None) if !is_new => return Ok(None),
            Ok(None) => anyhow::bail!("a new connection ended without an answer"),
            Err(error) if !is_new && error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) if !is_new && error.kind() == io::ErrorKind::BrokenPipe => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("a request failed, is_new: {is_new}")),
        };
        ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let mut body = [0; 2];
        self.0.read_exact(&mut body)?;
        ensure!(&body == b"ok", "{body:?}");
        Ok(Some(!head.to_ascii_lowercase().contains("connection: close")))
    }
}

/// What a load did.
#[derive(Debug, Default)]
struct Load {
    requests: usize,
    connections: usize,
    slowest: Duration,
}

/// Asks without pause until it is stopped, `each` requests on a connection; none may be refused and none may fail.
fn load(lab: &Lab, to: SocketAddr, each: usize) -> Result<Task<Load>> {
    Task::start(&lab.clients[0], move |stop: Stop| async move {
        let mut load = Load::default();
        while !stop.is_set() {
            let start = Instant::now();
            let mut client = Client::open(to)?;
            load.connections += 1;
            for number in 0..each {
                let again = client.get(number == 0).with_context(|| format!("request {number} of a connection, {load:?}"))?;
                load.requests += usize::from(again.is_some());
                load.slowest = load.slowest.max(start.elapsed());
                if again != Some(true) {
                    break;
                }
            }
        }
        Ok(load)
    })
}

fn finish(loads: Vec<Task<Load>>) -> Result<()> {
    for load in loads {
        let load = load.finish()?;
        println!("{load:?}");
        ensure!(load.requests > 20, "{load:?}");
    }
    Ok(())
}

const MAPPED: &str = "port_mapping = [{ listener = 81, endpoint = 80 }]";

fn text(lab: &Lab, threads: u16, other: bool) -> String {
    let head = lab.head().replace("[node]\n", &format!("[node]\nproxy_threads = {threads}\n"));
    let to = [("private_ip", server4(1).into(), 255)];
    let other = if other { Lab::listener_to("other", "http", "81", &to, "", MAPPED) } else { String::new() };
    head + &Lab::listener_to("site", "http", "80", &to, "", "") + &other + &Lab::listener("plain", "tcp", "82", &[255], "")
}

/// Waits until somebody has written that.
fn wrote(lab: &Lab, words: &str, times: usize) -> Result<()> {
    let written = || -> Result<bool> { Ok(fs::read_to_string(lab.dir.join("agent.log"))?.matches(words).count() >= times) };
    until(words, PATIENCE, || Ok(written()?.then_some(())))
        .with_context(|| fs::read_to_string(lab.dir.join("agent.log")).unwrap_or_default())
}

fn refused(lab: &Lab, to: SocketAddr) -> Result<bool> {
    lab.clients[1].within(move || match TcpStream::connect_timeout(&to, Duration::from_secs(5)) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(true),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(false),
    })?
}

// proves: A20
#[test]
fn an_upgrade_refuses_nobody_and_breaks_nothing() -> Result<()> {
    let lab = Lab::new(1)?;
    let _server = http_server(&lab)?;
    let _plain = Server::start_all(&lab.servers, &[82])?;
    lab.configure(&text(&lab, 1, true))?;
    let mut agent = Agent::start(&lab)?;
    let flows = Flows::open(&lab.clients[1], site(82), 10, Duration::from_millis(20))?;
    let [mut download, mut talk] =
        lab.clients[1].within(|| -> Result<_> { Ok([Client::open(site(80))?, Client::open(site(80))?]) })??;
    download.ask("/drip", "")?;
    download.head()?.context("a download")?;
    talk.ask("/talk", "Connection: upgrade\r\nUpgrade: talk\r\n")?;
    ensure!(talk.head()?.context("an answer")?.starts_with("HTTP/1.1 101 "));
    let loads = vec![load(&lab, site(80), 1)?, load(&lab, site(80), 20)?, load(&lab, site(81), 3)?];
    ensure!(!refused(&lab, site(81))?);

    // More threads, the same listeners; then fewer.
    let mut old = Vec::new();
    for (round, threads) in [3, 2].into_iter().enumerate() {
        lab.configure(&text(&lab, threads, true))?;
        let next = Agent::spawn_by(&lab, &[], &["--take-over"])?;
        wrote(&lab, "another agent has taken over", round + 1)?;
        old.push(std::mem::replace(&mut agent, next));
        let generation = agent.status()?.generation;
        ensure!(generation > 0, "the new agent answers");
        talk.0.get_mut().write_all(b"are you there?")?;
        let mut said = [0; 14];
        talk.0.read_exact(&mut said)?;
        ensure!(&said == b"are you there?", "the first agent moves the bytes of its tunnels on");
    }
    finish(loads)?;
    flows.wait_for(100)?;
    flows.all_well()?;
    // The second agent had nothing that lasts; the first has.
    ensure!(old[1].wait(PATIENCE)?.success());
    ensure!(old[0].ended()?.is_none(), "the first agent left its open connections");
    let mut body = [0; DRIPS];
    download.0.read_exact(&mut body)?;
    ensure!(body.iter().enumerate().all(|(number, byte)| *byte == b'a' + (number % 26) as u8), "{body:?}");
    drop((download, talk));
    ensure!(old[0].wait(PATIENCE)?.success());

    // A listener that is not in the file any more is not listened at, although its sockets came too.
    lab.configure(&text(&lab, 2, false))?;
    let next = Agent::spawn_by(&lab, &[], &["--take-over"])?;
    wrote(&lab, "another agent has taken over", 3)?;
    ensure!(agent.wait(PATIENCE)?.success());
    ensure!(refused(&lab, site(81))? && !refused(&lab, site(80))?);
    drop(next);
    Ok(())
}

#[test]
fn an_upgrade_that_fails_leaves_the_old_agent_at_work() -> Result<()> {
    let lab = Lab::new(1)?;
    let _server = http_server(&lab)?;
    let _plain = Server::start_all(&lab.servers, &[82])?;
    let good = text(&lab, 2, true);
    lab.configure(&good)?;
    let agent = Agent::start(&lab)?;
    let flows = Flows::open(&lab.clients[1], site(82), 10, Duration::from_millis(20))?;
    let loads = vec![load(&lab, site(80), 1)?, load(&lab, site(80), 20)?];

    // It fails when all but its last socket is there.
    let holder = lab.edge.within(|| std::net::TcpListener::bind("127.0.0.1:9464"))??;
    lab.configure(&good.replace("metrics = \"off\"", "metrics = \"127.0.0.1:9464\""))?;
    let (code, log) = Agent::refused(&lab, &[], &["--take-over"])?;
    ensure!(code == 5 && log.contains("127.0.0.1:9464"), "exit code {code}: {log}");
    wrote(&lab, "this one goes on", 1)?;
    drop(holder);
    lab.configure(&good.replace("weight = 255", "weight = 100"))?;
    agent.ok(&["reload"])?;

    // It is killed at any moment.
    for (round, pause) in [20_u64, 120, 400].into_iter().enumerate() {
        let mut next = Agent::spawn_by(&lab, &[], &["--take-over"])?;
        wrote(&lab, "taking over from the agent", round + 2)?;
        std::thread::sleep(Duration::from_millis(pause));
        if fs::read_to_string(lab.dir.join("agent.log"))?.contains("another agent has taken over") {
            println!("the agent of round {round} was ready after {pause} ms");
            break;
        }
        next.kill()?;
        wrote(&lab, "this one goes on", round + 2)?;
        ensure!(agent.status()?.instances.len() == 1);
    }
    finish(loads)?;
    flows.wait_for(100)?;
    flows.all_well()?;
    Ok(())
}

/// A service manager, as far as sockets and readiness go: what sd_notify(3) and sd_listen_fds(3) say.
struct Manager {
    socket: UnixDatagram,
    kept: Vec<(String, OwnedFd)>,
    said: Vec<String>,
}

impl Manager {
    fn new(lab: &Lab) -> Result<Self> {
        let socket = UnixDatagram::bind(lab.dir.join("notify"))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, kept: Vec::new(), said: Vec::new() })
    }

    /// Starts an agent with the sockets that are kept.
    fn start(&self, lab: &Lab) -> Result<Agent> {
        let mut script = format!("export NOTIFY_SOCKET={}; ", lab.dir.join("notify").display());
        if !self.kept.is_empty() {
            let names: Vec<_> = self.kept.iter().map(|(name, _)| name.as_str()).collect();
            script += &format!("export LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={}; ", self.kept.len(), names.join(":"));
        }
        script += "exec \"$@\"";
        // First out of the way of the numbers that they are to have.
        for (from, (_, socket)) in (200..).zip(&self.kept) {
            fcntl_setfd(socket, FdFlags::empty())?;
            script += &format!(" {from}<&{}", socket.as_raw_fd());
        }
        for (_, socket) in &self.kept {
            script += &format!(" {}<&-", socket.as_raw_fd());
        }
        for (to, from) in (3..).zip(200..200 + self.kept.len()) {
            script += &format!(" {to}<&{from} {from}<&-");
        }
        let agent = Agent::spawn_by(lab, &["bash", "-c", &script, "bash"], &[]);
        for (_, socket) in &self.kept {
            fcntl_setfd(socket, FdFlags::CLOEXEC)?;
        }
        agent
    }

    /// Listens until an agent has said that.
    fn hear(&mut self, word: &str) -> Result<()> {
        until(word, PATIENCE, || {
            while self.receive()? {}
            Ok(self.said.iter().any(|line| line == word).then_some(()))
        })
    }

    fn receive(&mut self) -> Result<bool> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let (mut beside, mut text) = (RecvAncillaryBuffer::new(&mut space), [0; 4_096]);
        let got = match recvmsg(self.socket.as_fd(), &mut [IoSliceMut::new(&mut text)], &mut beside, RecvFlags::CMSG_CLOEXEC) {
            Ok(got) => got,
            Err(rustix::io::Errno::AGAIN) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let lines: Vec<String> = String::from_utf8_lossy(&text[..got.bytes]).lines().map(str::to_owned).collect();
        let name = lines.iter().find_map(|line| line.strip_prefix("FDNAME=")).map(str::to_owned);
        let says = |word: &str| lines.iter().any(|line| line == word);
        if let Some(name) = name {
            if says("FDSTORE=1") {
                for message in beside.drain() {
                    let RecvAncillaryMessage::ScmRights(fds) = message else { continue };
                    self.kept.extend(fds.map(|fd| (name.clone(), fd)));
                }
            }
            if says("FDSTOREREMOVE=1") {
                self.kept.retain(|(kept, _)| *kept != name);
            }
        }
        self.said.extend(lines);
        Ok(true)
    }
}

// proves: A20
#[test]
fn a_restart_by_a_service_manager_refuses_nobody() -> Result<()> {
    let lab = Lab::new(1)?;
    let _server = http_server(&lab)?;
    let _plain = Server::start_all(&lab.servers, &[82])?;
    let mut manager = Manager::new(&lab)?;
    lab.configure(&text(&lab, 2, true))?;
    let mut agent = manager.start(&lab)?;
    manager.hear("READY=1")?;
    // Two threads, and two addresses of the instance at each of two ports.
    ensure!(manager.kept.len() == 8, "{:?}", manager.kept);
    let pid = format!("MAINPID={}", agent.pid());
    ensure!(manager.said.contains(&pid), "{:?} has no {pid}", manager.said);
    let loads = vec![load(&lab, site(80), 1)?, load(&lab, site(80), 20)?];
    for (threads, other) in [(2, true), (1, true), (3, false), (3, false)] {
        lab.configure(&text(&lab, threads, other))?;
        manager.said.clear();
        let status = agent.stop()?;
        ensure!(status.success(), "{status}");
        manager.hear("STOPPING=1")?;
        manager.said.clear();
        agent = manager.start(&lab)?;
        manager.hear("READY=1")?;
        ensure!(refused(&lab, site(81))? != other, "the second listener, with {threads} threads");
    }
    let names: Vec<_> = manager.kept.iter().map(|(name, _)| name).collect();
    ensure!(names.iter().all(|name| name.ends_with("-80")), "what no listener has is not kept: {names:?}");
    finish(loads)?;
    let loads = vec![load(&lab, site(80), 1)?, load(&lab, site(80), 20)?];
    // Killed, it is followed by another in the same way.
    agent.kill()?;
    manager.said.clear();
    agent = manager.start(&lab)?;
    manager.hear("READY=1")?;
    // Nobody was refused; what was being answered at that moment is lost, and the load says so.
    let ended: Vec<_> = loads.into_iter().map(|load| load.finish()).collect();
    for load in ended {
        match load {
            Ok(load) => println!("{load:?}"),
            Err(error) => ensure!(!format!("{error:#}").contains("refused"), "{error:#}"),
        }
    }
    ensure!(!refused(&lab, site(80))?);
    drop(agent);
    Ok(())
}

#[test]
fn an_agent_that_stops_waits_for_its_connections_as_long_as_the_file_says() -> Result<()> {
    let lab = Lab::new(1)?;
    let _server = http_server(&lab)?;
    let text = text(&lab, 1, false).replace("[node]\n", "[node]\ndrain_timeout = 600\n");
    lab.configure(&text)?;
    let mut agent = Agent::start(&lab)?;
    let mut talk = lab.clients[0].within(|| Client::open(site(80)))??;
    talk.ask("/talk", "Connection: upgrade\r\nUpgrade: talk\r\n")?;
    ensure!(talk.head()?.context("an answer")?.starts_with("HTTP/1.1 101 "));
    lab.configure(&text.replace("drain_timeout = 600", "drain_timeout = 1"))?;
    agent.ok(&["reload"])?;
    // Which has less patience than any other file gives it.
    ensure!(agent.stop()?.success());
    ensure!(agent.log().contains("connections that had not ended were cut"), "{}", agent.log());
    Ok(())
}

/// One listener that the kernel serves, or the agent.
fn moving(lab: &Lab, protocol: &str) -> String {
    lab.head() + &Lab::listener_to("site", protocol, "80", &[("private_ip", server4(1).into(), 255)], "", "")
}

// proves: A20
#[test]
fn a_listener_moves_between_the_kernel_and_the_agent_and_nobody_is_refused() -> Result<()> {
    let lab = Lab::new(1)?;
    let _server = http_server(&lab)?;
    lab.configure(&moving(&lab, "http"))?;
    let agent = Agent::start(&lab)?;
    let loads = vec![load(&lab, site(80), 1)?, load(&lab, site(80), 20)?];
    let talking = || -> Result<Client> {
        lab.clients[1].within(|| {
            let mut talk = Client::open(site(80))?;
            talk.ask("/talk", "Connection: upgrade\r\nUpgrade: talk\r\n")?;
            ensure!(talk.head()?.context("an answer")?.starts_with("HTTP/1.1 101 "));
            Ok(talk)
        })?
    };
    let mut talks = vec![talking()?];
    for round in 0..6 {
        lab.configure(&moving(&lab, if round % 2 == 0 { "tcp" } else { "http" }))?;
        agent.ok(&["reload"])?;
        talks.push(talking()?);
        for talk in &mut talks {
            talk.0.get_mut().write_all(b"still there?")?;
            let mut said = [0; 12];
            talk.0.read_exact(&mut said).with_context(|| format!("round {round}"))?;
            ensure!(&said == b"still there?", "whoever served a connection serves it on");
        }
    }
    finish(loads)
}

// proves: I01
#[test]
fn who_may_come_to_what_the_agent_serves_is_decided_before_it() -> Result<()> {
    let lab = Lab::new(1)?;
    let _server = http_server(&lab)?;
    let to = [("private_ip", server4(1).into(), 255)];
    let text = |keys: &str| lab.head() + &Lab::listener_to("site", "http", "80", &to, keys, "");
    let list = |client: IpAddr| format!("\n[[acl]]\nname = \"few\"\nentries = [\"{client}\"]\n");
    let acl = "acl = { mode = \"white\", lists = [\"few\"] }";
    lab.configure(&(text(acl) + &list(ga_tests::lab::client4(1).into())))?;
    let agent = Agent::start(&lab)?;
    let reach = |client: usize| {
        lab.clients[client].within(|| match TcpStream::connect_timeout(&site(80), Duration::from_millis(1_500)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                Client(BufReader::new(stream)).get(true).map(|_| true)
            }
            Err(_) => Ok(false),
        })?
    };
    ensure!(reach(0)? && !reach(1)?, "the list names the first client only");
    ensure!(agent.drops("site")?.get("acl").is_some_and(|drops| *drops > 0), "{:?}", agent.drops("site")?);

    // So many may come in a second; the others are not heard, and their SYNs are sent again.
    lab.configure(&text("max_new_flows_per_second = 20"))?;
    agent.ok(&["reload"])?;
    let (mut served, mut kept) = (0, Vec::new());
    let opened = lab.clients[0].within(|| -> Result<Vec<_>> {
        let sockets = (0..200).map(|_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            // Under way.
            drop(socket.connect(&site(80).into()));
            Ok(socket)
        });
        sockets.collect()
    })??;
    until("connections that were let in", PATIENCE, || Ok(opened.iter().any(|socket| socket.peer_addr().is_ok()).then_some(())))?;
    for socket in opened {
        if socket.peer_addr().is_ok() {
            socket.set_nonblocking(false)?;
            let stream: TcpStream = socket.into();
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut client = Client(BufReader::new(stream));
            ensure!(client.get(true)?.is_some());
            served += 1;
            kept.push(client);
        }
    }
    ensure!((1..200).contains(&served), "{served} of 200 were let in at once");
    ensure!(agent.drops("site")?.get("admission").is_some_and(|drops| *drops > 0), "{:?}", agent.drops("site")?);
    Ok(())
}
