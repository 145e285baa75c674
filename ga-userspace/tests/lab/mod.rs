//! A proxy of one thread, endpoints and clients on loopback addresses. Endpoint `N` is 127.0.0.N; its port is the listener's.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "not every test uses all of it, and one fails by panicking")]

pub mod cases;

use std::{
    fmt::Debug,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use ga::{
    config,
    health::{Belief, Beliefs},
    model::{EndpointName, Intent},
    plan::{self, Overrides, State},
    proxy::{Leaving, Listener, Peer, Shared, TlsInfo, View, Worker, http},
};
use tokio::{sync::watch, task::LocalSet};

/// Longer than anything takes that a test does not wait for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server.
pub struct Endpoint {
    /// The listener's too.
    pub port: u16,
}

impl Endpoint {
    /// 127.0.0.`last`; each connection is given to `serve` on a thread of its own.
    pub fn new(last: u8, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::several(&[last], move |_, stream| serve(stream)).remove(0)
    }

    /// Several of them at one port.
    pub fn several(lasts: &[u8], serve: impl Fn(u8, TcpStream) + Send + Sync + 'static) -> Vec<Self> {
        let serve = Arc::new(serve);
        let sockets = loop {
            let first = TcpListener::bind((Ipv4Addr::new(127, 0, 0, lasts[0]), 0)).unwrap();
            let port = first.local_addr().unwrap().port();
            let others = lasts[1..].iter().map(|last| TcpListener::bind((Ipv4Addr::new(127, 0, 0, *last), port)));
            // Ports of listeners end at 65499.
            if let (true, Ok(others)) = (port < 65_500, others.collect::<Result<Vec<_>, _>>()) {
                break [first].into_iter().chain(others).collect::<Vec<_>>();
            }
        };
        let start = |(last, socket): (&u8, TcpListener)| {
            let (last, serve, port) = (*last, Arc::clone(&serve), socket.local_addr().unwrap().port());
            thread::spawn(move || {
                for stream in socket.incoming().flatten() {
                    let serve = Arc::clone(&serve);
                    stream.set_nodelay(true).unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    thread::spawn(move || serve(last, stream));
                }
            });
            Self { port }
        };
        lasts.iter().zip(sockets).map(start).collect()
    }
}

/// A proxy with one listener.
pub struct Lab {
    address: SocketAddr,
    shared: Arc<Shared>,
    file: String,
    drain: watch::Sender<Leaving>,
}

impl Lab {
    /// An HTTP listener with `keys`, whose endpoints are 127.0.0.N at the port of `endpoint`.
    pub fn new(endpoint: &Endpoint, lasts: &[u8], keys: &str) -> Self {
        Self::start(&listener(endpoint.port, lasts, keys, 255), None)
    }

    /// The same with endpoints of that weight.
    pub fn weighted(endpoint: &Endpoint, lasts: &[u8], weight: u8) -> Self {
        Self::start(&listener(endpoint.port, lasts, "", weight), None)
    }

    /// The same with `keys` of the node.
    pub fn logged(endpoint: &Endpoint, lasts: &[u8], keys: &str) -> Self {
        let text = listener(endpoint.port, lasts, "", 255);
        Self::start(&text.replacen("[[instance]]", &format!("{keys}[[instance]]"), 1), None)
    }

    /// An HTTPS listener, to clients whose TLS is done with: its group has `keys`.
    pub fn https(endpoint: &Endpoint, lasts: &[u8], keys: &str) -> Self {
        Self::secure(endpoint, lasts, keys, None)
    }

    /// The same, to clients who agreed on HTTP/2.
    pub fn https2(endpoint: &Endpoint, lasts: &[u8], keys: &str) -> Self {
        Self::secure(endpoint, lasts, keys, Some(http2()))
    }

    fn secure(endpoint: &Endpoint, lasts: &[u8], keys: &str, tls: Option<TlsInfo>) -> Self {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("edge.pem");
        let made = rcgen::generate_simple_self_signed(["shop.example".to_owned()]).unwrap();
        std::fs::write(&file, made.cert.pem() + &made.signing_key.serialize_pem()).unwrap();
        let certificate = format!("certificates = {{ default = {:?} }}\n", file.display().to_string());
        let text = listener(endpoint.port, lasts, &certificate, 255).replacen("\"http\"", "\"https\"", 1);
        Self::start(&text.replacen("region", &format!("{keys}region"), 1), tls)
    }

    /// An HTTP listener with `keys`, to clients who agreed on HTTP/2.
    pub fn http2(endpoint: &Endpoint, lasts: &[u8], keys: &str) -> Self {
        Self::start(&listener(endpoint.port, lasts, keys, 255), Some(http2()))
    }

    fn start(text: &str, tls: Option<TlsInfo>) -> Self {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let (intent, view) = view(text);
        shared.tls.commit(shared.tls.prepare(&intent).unwrap_or_else(|troubles| panic!("{troubles:#?}")));
        shared.view.store(Arc::new(view));
        let (drain, drained) = watch::channel(Leaving::default());
        let seen = Arc::clone(&shared);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, async move {
                let worker = Worker::new(seen, drained);
                socket.set_nonblocking(true).unwrap();
                let socket = tokio::net::TcpListener::from_std(socket).unwrap();
                while let Ok((stream, client)) = socket.accept().await {
                    stream.set_nodelay(true).unwrap();
                    let listener = worker.listener("lab/web").unwrap();
                    let local = listener.addresses[0];
                    let peer = Peer { client, local, tls: tls.clone() };
                    tokio::task::spawn_local(http::serve(std::rc::Rc::clone(&worker), &listener, stream, peer));
                }
            });
        });
        Self { address, shared, file: text.to_owned(), drain }
    }

    /// A client.
    pub fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The listener.
    pub fn listener(&self) -> Arc<Listener> {
        Arc::clone(&self.shared.view.load().listeners["lab/web"])
    }

    /// Those endpoints are believed to be down, and the others to be up.
    pub fn believe(&self, down: &[u8]) {
        let before = self.shared.view.load_full();
        let is_down = |name: &EndpointName| matches!(name.address, IpAddr::V4(address) if down.contains(&address.octets()[3]));
        let names = before.listeners["lab/web"].endpoints.iter().map(|endpoint| &endpoint.name).filter(|name| is_down(name));
        let belief = Belief { up: false, ..Belief::default() };
        let beliefs = Beliefs { endpoints: names.map(|name| (name.clone(), belief)).collect(), ..Beliefs::default() };
        self.shared.view.store(Arc::new(believed(&self.file, &before, &beliefs).1));
    }

    /// Tells the proxy to end.
    pub fn drain(&self) {
        self.drain.send_replace(Leaving::everybody());
    }
}

fn http2() -> TlsInfo {
    let mut tls = TlsInfo::default();
    tls.is_h2 = true;
    tls
}

/// The file of an HTTP listener `lab/web` with `keys`, whose endpoints are 127.0.0.N.
pub fn listener(port: u16, lasts: &[u8], keys: &str, weight: u8) -> String {
    let endpoint = |last: &u8| {
        format!(
            "[[instance.listener.endpoint_group.endpoint]]\ntype = \"private_ip\"\naddress = \"10.0.0.{last}\"\nweight = {weight}\n"
        )
    };
    let endpoints: String = lasts.iter().map(endpoint).collect();
    file(&format!(
        "[[instance.listener]]\nname = \"web\"\nprotocol = \"http\"\nports = \"{port}\"\n{keys}\
         [[instance.listener.endpoint_group]]\nregion = \"here\"\n{endpoints}"
    ))
}

/// A file with one instance and `listeners`.
pub fn file(listeners: &str) -> String {
    format!(
        "[node]\ninterfaces = [\"eth0\"]\n[[instance]]\nid = \"lab\"\nvips = [\"198.51.100.10\"]\negress_ips = [\"203.0.113.5\"]\n{listeners}"
    )
}

/// Planned as the agent does, with addresses of this host: endpoints cannot have those in a file.
pub fn view(text: &str) -> (Intent, View) {
    planned(text, &View::default())
}

/// The same after `before`.
pub fn planned(text: &str, before: &View) -> (Intent, View) {
    believed(text, before, &Beliefs::default())
}

fn believed(text: &str, before: &View, beliefs: &Beliefs) -> (Intent, View) {
    let mut intent = config::parse("test.toml", text).unwrap_or_else(|report| panic!("{:#?}", report.problems)).intent;
    for instance in &mut intent.instances {
        for address in instance.vips.iter_mut().chain(&mut instance.egress_ips) {
            *address = Ipv4Addr::LOCALHOST.into();
        }
        for endpoint in
            instance.listeners.iter_mut().flat_map(|listener| &mut listener.groups).flat_map(|group| &mut group.endpoints)
        {
            if let IpAddr::V4(address) = endpoint.address {
                endpoint.address = Ipv4Addr::new(127, 0, 0, address.octets()[3]).into();
            }
        }
    }
    let plan = plan::build(&intent, &Overrides::default(), beliefs, &State::default(), [1, 2]).unwrap();
    let view = View::new(&plan, &intent, before);
    (intent, view)
}

/// A client that knows of HTTP only what a test needs.
pub struct Client {
    pub stream: TcpStream,
}

impl Client {
    /// Sends these bytes.
    pub fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// The head of the next answer.
    pub fn head(&mut self) -> String {
        read_head(&mut self.stream).unwrap_or_default()
    }

    /// The body that belongs to `head`.
    pub fn body(&mut self, head: &str) -> String {
        let length = field(head, "content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    }

    /// The answer to `request`, its head and its body.
    pub fn ask(&mut self, request: &str) -> (String, String) {
        let mut writer = self.stream.try_clone().unwrap();
        let request = request.to_owned();
        // Who answers before it has read everything is read from meanwhile.
        let writing = thread::spawn(move || writer.write_all(request.as_bytes()));
        let head = self.head();
        let body = self.body(&head);
        drop(writing.join().unwrap());
        (head, body)
    }
}

/// Up to the empty line; none at the end of the stream.
pub fn read_head(stream: &mut impl Read) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8(head).unwrap())
}

/// The value of a field of a head.
pub fn field(head: &str, name: &str) -> Option<String> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.into_iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
}

/// A chunked body, its trailers included.
pub fn read_chunked(stream: &mut impl Read) -> Vec<u8> {
    let mut body = Vec::new();
    let line = |stream: &mut dyn Read| {
        let (mut line, mut byte) = (Vec::new(), [0]);
        while !line.ends_with(b"\r\n") {
            stream.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    };
    loop {
        let length = usize::from_str_radix(line(stream).trim(), 16).unwrap();
        if length == 0 {
            while line(stream) != "\r\n" {}
            return body;
        }
        let start = body.len();
        body.resize(start + length, 0);
        stream.read_exact(&mut body[start..]).unwrap();
        assert_eq!(line(stream), "\r\n");
    }
}

/// Answers every request on `stream` with what `of` makes of its head, once its body is read.
pub fn answer(mut stream: TcpStream, of: impl Fn(&str) -> (&'static str, String)) {
    while let Some(head) = read_head(&mut stream) {
        let mut body = vec![0; field(&head, "content-length").map_or(0, |length| length.parse().unwrap())];
        stream.read_exact(&mut body).unwrap();
        let (status, body) = of(&head);
        if write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).is_err() {
            return;
        }
    }
}

/// Waits until `now` says `wanted`: what is counted of an answer is counted after it was sent.
#[track_caller]
pub fn becomes<T: PartialEq + Debug>(wanted: T, mut now: impl FnMut() -> T) {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end && now() != wanted {
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(now(), wanted);
}
