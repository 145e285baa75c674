//! The requests of `tests/http/requests.toml`, as bytes, to nginx, to HAProxy and to the proxy: what each answers, and whether an
//! endpoint hears of it. Only ours is judged; what the others do is printed beside it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../ga-userspace/tests/lab/mod.rs"]
mod lab;

use std::{
    fmt::Write as _,
    fs,
    io::{ErrorKind, Read, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use lab::{Endpoint, Lab, cases};

/// Somebody who stands before an endpoint.
struct Edge {
    address: SocketAddr,
    /// Bytes that its endpoint has got.
    heard: Arc<AtomicUsize>,
}

/// A server that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// An endpoint that answers whatever it gets, and how much it got.
fn endpoint() -> (Endpoint, Arc<AtomicUsize>) {
    let heard = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&heard);
    let endpoint = Endpoint::new(2, move |mut stream: TcpStream| {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut piece) {
            count.fetch_add(read, SeqCst);
            bytes.extend_from_slice(&piece[..read]);
            // As many answers as there are heads; it does not matter what bodies look like.
            while let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                drop(bytes.drain(..end + 4));
                if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                    return;
                }
            }
        }
    });
    (endpoint, heard)
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Starts `program` and waits until it listens on `port`.
fn start(program: &str, args: &[&str], port: u16) -> Running {
    let mut command = Command::new(program);
    let child = command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let running = Running(child.unwrap_or_else(|error| panic!("{program}: {error}: `cargo xtask setup` installs it")));
    let until = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(Instant::now() < until, "{program} does not listen");
        thread::sleep(Duration::from_millis(20));
    }
    running
}

fn nginx(dir: &Path) -> (Edge, Running) {
    let ((endpoint, heard), port) = (endpoint(), free_port());
    let dir = dir.display();
    let text = format!(
        "daemon off;\nmaster_process off;\npid {dir}/nginx.pid;\nevents {{}}\nhttp {{\n  access_log off;\n  client_body_temp_path \
         {dir}/body;\n  proxy_temp_path {dir}/proxy;\n  fastcgi_temp_path {dir}/fastcgi;\n  uwsgi_temp_path {dir}/uwsgi;\n  \
         scgi_temp_path {dir}/scgi;\n  upstream endpoint {{ server 127.0.0.2:{}; keepalive 8; }}\n  server {{\n    listen \
         127.0.0.1:{port};\n    location / {{ proxy_pass http://endpoint; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
         proxy_set_header Host $host; }}\n  }}\n}}\n",
        endpoint.port
    );
    let file = format!("{dir}/nginx.conf");
    fs::write(&file, text).unwrap();
    let running = start("nginx", &["-e", &format!("{dir}/nginx.log"), "-c", &file], port);
    (Edge { address: (Ipv4Addr::LOCALHOST, port).into(), heard }, running)
}

fn haproxy(dir: &Path) -> (Edge, Running) {
    let ((endpoint, heard), port) = (endpoint(), free_port());
    let text = format!(
        "defaults\n  mode http\n  timeout connect 2s\n  timeout client 5s\n  timeout server 5s\n\nfrontend front\n  bind \
         127.0.0.1:{port}\n  default_backend back\n\nbackend back\n  server endpoint 127.0.0.2:{}\n",
        endpoint.port
    );
    let file = dir.join("haproxy.cfg");
    fs::write(&file, text).unwrap();
    let running = start("haproxy", &["-db", "-f", &file.to_string_lossy()], port);
    (Edge { address: (Ipv4Addr::LOCALHOST, port).into(), heard }, running)
}

/// What a client gets.
struct Outcome {
    /// 100 left out.
    statuses: Vec<u16>,
    forwarded: bool,
}

impl Outcome {
    fn text(&self) -> String {
        let statuses: Vec<String> = self.statuses.iter().map(ToString::to_string).collect();
        let statuses = if statuses.is_empty() { "-".to_owned() } else { statuses.join("+") };
        format!("{statuses}{}", if self.forwarded { " fwd" } else { "" })
    }
}

impl Edge {
    /// Sends `bytes` and waits for `most` answers, the connection's end, or until nothing comes for `quiet`.
    fn ask(&self, bytes: &[u8], most: usize, quiet: Duration) -> Outcome {
        let before = self.heard.load(SeqCst);
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(quiet)).unwrap();
        // Who is refused early may find the connection closed.
        drop(stream.write_all(bytes));
        let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
        while statuses(&answer).len() < most {
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => answer.extend_from_slice(&piece[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        Outcome { statuses: statuses(&answer), forwarded: self.heard.load(SeqCst) > before }
    }
}

/// The statuses of what came, without 100.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    let after = text.split("HTTP/1.").skip(1).filter_map(|rest| rest.get(2..5)?.parse().ok());
    after.filter(|status| *status != 100).collect()
}

#[test]
fn three_columns_of_the_same_requests() {
    let dir = tempfile::tempdir().unwrap();
    let (nginx, _nginx) = nginx(dir.path());
    let (haproxy, _haproxy) = haproxy(dir.path());
    let (endpoint, heard) = endpoint();
    let ours = Edge { address: Lab::new(&endpoint, &[2], "").address(), heard };
    let mut table = format!("{:<38} {:<12} {:<14} {:<14} ours\n", "request", "required", "nginx", "HAProxy");
    let (mut wrong, mut theirs) = (Vec::new(), 0);
    for case in cases::all() {
        let bytes = case.bytes();
        let most = case.answers.len();
        let ask = |edge: &Edge, quiet| edge.ask(&bytes, most, Duration::from_millis(quiet));
        let (nginx, haproxy, ours) = thread::scope(|scope| {
            let nginx = scope.spawn(|| ask(&nginx, 400));
            let haproxy = scope.spawn(|| ask(&haproxy, 400));
            let ours = ask(&ours, 20_000);
            (nginx.join().unwrap(), haproxy.join().unwrap(), ours)
        });
        let required = Outcome { statuses: case.answers.clone(), forwarded: case.seen > 0 };
        let name = format!("{:02} {}", case.number, case.name);
        writeln!(table, "{name:<38} {:<12} {:<14} {:<14} {}", required.text(), nginx.text(), haproxy.text(), ours.text())
            .unwrap();
        theirs += usize::from(nginx.statuses == case.answers) + usize::from(haproxy.statuses == case.answers);
        if ours.text() != required.text() {
            wrong.push(name);
        }
    }
    println!("{table}");
    assert!(wrong.is_empty(), "{wrong:?}\n{table}");
    assert!(theirs > 40, "the others do not answer\n{table}");
}
