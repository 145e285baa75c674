//! Listeners and endpoint groups that have as much as they may, with real connections on loopback addresses.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

mod lab;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use ga::{
    config,
    health::Beliefs,
    plan::{self, Overrides, State},
    proxy::{Listener, Proxy, View, counts::Reason},
};
use lab::becomes;

/// Longer than anything takes that a test does not wait for.
const PATIENCE: Duration = Duration::from_secs(20);

/// The file's VIP becomes 127.1.NET.1, its egress address 127.1.NET.2, endpoints 192.0.2.N become 127.1.NET.N: the configuration
/// refuses loopback addresses. All have one port.
struct Site {
    proxy: Proxy,
    edge: SocketAddr,
    net: u8,
}

impl Site {
    /// Serves a listener that has `body`, of a node that has `node`, with two threads.
    fn new(net: u8, node: &str, body: &str) -> Self {
        let port = 21_000 + u16::from(net);
        let text = format!(
            "[node]\ninterfaces = [\"eth0\"]\n{node}\n[[instance]]\nid = \"shop\"\nvips = [\"198.51.100.1\"]\n\
             egress_ips = [\"203.0.113.1\"]\n[[instance.listener]]\nname = \"web\"\nports = \"{port}\"\n{body}"
        );
        let mut intent =
            config::parse("test.toml", &text).unwrap_or_else(|report| panic!("{:#?}\n{text}", report.problems)).intent;
        let instance = &mut intent.instances[0];
        (instance.vips, instance.egress_ips) = (vec![[127, 1, net, 1].into()], vec![[127, 1, net, 2].into()]);
        for endpoint in instance.listeners[0].groups.iter_mut().flat_map(|group| &mut group.endpoints) {
            let IpAddr::V4(address) = endpoint.address else { panic!("an IPv4 endpoint") };
            endpoint.address = [127, 1, net, address.octets()[3]].into();
        }
        let plan = plan::build(&intent, &Overrides::default(), &Beliefs::default(), &State::default(), [1, 2]).unwrap();
        let mut proxy = Proxy::start(2).unwrap();
        let unbound = proxy.apply(View::new(&plan, &intent, &View::default()));
        assert!(unbound.is_empty(), "{unbound:?}");
        Self { proxy, edge: SocketAddr::from(([127, 1, net, 1], port)), net }
    }

    fn listener(&self) -> Arc<Listener> {
        Arc::clone(&self.proxy.shared().view.load().listeners["shop/web"])
    }

    fn failures(&self, reason: Reason) -> u64 {
        self.listener().counts.reasons.get(reason)
    }

    fn client(&self) -> TcpStream {
        let stream = TcpStream::connect(self.edge).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn endpoint(&self, last: u8) -> TcpListener {
        TcpListener::bind((IpAddr::from([127, 1, self.net, last]), self.edge.port())).unwrap()
    }

    /// An endpoint that answers a request when it is told to; what it is told with.
    fn held(&self, last: u8) -> Hold {
        let socket = self.endpoint(last);
        let waiting = Arc::<Mutex<Vec<TcpStream>>>::default();
        let hold = Hold(Arc::clone(&waiting));
        thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                waiting.lock().unwrap().push(stream);
            }
        });
        hold
    }
}

/// Connections that wait for an answer.
struct Hold(Arc<Mutex<Vec<TcpStream>>>);

impl Hold {
    /// So many have come.
    fn has(&self, count: usize) {
        eventually(|| self.0.lock().unwrap().len() == count);
    }

    /// Answers the oldest.
    fn answer(&self, text: &str) {
        let mut stream = self.0.lock().unwrap().remove(0);
        stream.write_all(text.as_bytes()).unwrap();
        // It is answered to its end when the proxy has closed it.
        drop(stream.read_to_end(&mut Vec::new()));
    }
}

fn eventually(is: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "it never came to that");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The status of the answer, when one comes.
fn status(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap().get(9..12).unwrap_or_default().to_owned()
}

fn ask(stream: &mut TcpStream) {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").unwrap();
}

const EMPTY: &str = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";

fn group(keys: &str, lasts: &[u8]) -> String {
    let endpoint = |last: &u8| {
        format!("[[instance.listener.endpoint_group.endpoint]]\ntype = \"private_ip\"\naddress = \"192.0.2.{last}\"\n")
    };
    let endpoints: String = lasts.iter().map(endpoint).collect();
    format!("[[instance.listener.endpoint_group]]\nregion = \"here\"\n{keys}\n{endpoints}")
}

/// Four connections, where three are let in.
fn three_are_let_in(site: &Site) {
    let mut open: Vec<TcpStream> = (0..3).map(|_| site.client()).collect();
    eventually(|| site.listener().counts.active.get() == 3);
    let mut refused = site.client();
    ask(&mut refused);
    assert_eq!(status(&mut refused), "503");
    let mut rest = String::new();
    refused.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "Service Unavailable", "and the connection ends");
    becomes((1, 3), || (site.failures(Reason::Limit), site.listener().counts.active.get()));
    // Those that were there are served, and one that ends makes room.
    ask(&mut open[0]);
    assert_eq!(status(&mut open[0]), "204");
    drop(open.remove(1));
    eventually(|| site.listener().counts.active.get() == 2);
    let mut next = site.client();
    ask(&mut next);
    assert_eq!(status(&mut next), "204");
    becomes(1, || site.failures(Reason::Limit));
}

fn fixed() -> String {
    let rule = "[[instance.listener.rule]]\nname = \"all\"\npriority = 1\nwhen = [{ path = [\"/\"] }]\n\
                do = [{ fixed_response = { code = 204 } }]\n";
    format!("{}{rule}", group("", &[5]))
}

#[test]
fn a_connection_more_than_the_listener_may_have_gets_503_until_one_ends() {
    three_are_let_in(&Site::new(1, "", &format!("protocol = \"http\"\nmax_connections = 3\n{}", fixed())));
}

#[test]
fn a_connection_more_than_the_edge_may_have_gets_503_until_one_ends() {
    three_are_let_in(&Site::new(2, "proxy_connections = 3", &format!("protocol = \"http\"\n{}", fixed())));
}

#[test]
fn many_more_connections_than_allowed_are_closed_and_those_that_are_there_are_served() {
    let site = Site::new(3, "", &format!("protocol = \"http\"\nmax_connections = 3\nidle_timeout = 60\n{}", fixed()));
    let mut open: Vec<TcpStream> = (0..3).map(|_| site.client()).collect();
    eventually(|| site.listener().counts.active.get() == 3);
    let many: Vec<TcpStream> = (0..400).map(|_| site.client()).collect();
    eventually(|| site.failures(Reason::Limit) == 400);
    ask(&mut open[2]);
    assert_eq!(status(&mut open[2]), "204");
    for mut stream in many {
        let mut bytes = Vec::new();
        // Told, or reset.
        match stream.read_to_end(&mut bytes) {
            Ok(_) => assert!(bytes.starts_with(b"HTTP/1.1 503 "), "{bytes:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    becomes(3, || site.listener().counts.active.get());
}

#[test]
fn a_request_more_than_its_group_may_have_gets_503_until_one_is_answered() {
    let site = Site::new(4, "", &format!("protocol = \"http\"\n{}", group("circuit = { requests = 2 }", &[5])));
    let hold = site.held(5);
    let mut first = site.client();
    let mut second = site.client();
    for client in [&mut first, &mut second] {
        ask(client);
    }
    hold.has(2);
    let mut third = site.client();
    ask(&mut third);
    assert_eq!(status(&mut third), "503");
    becomes((1, 2), || (site.failures(Reason::Circuit), site.listener().groups[0].load.requests()));
    assert_eq!(site.listener().endpoints[0].counts.requests.get(), 2, "the endpoint did not hear of it");
    hold.answer(EMPTY);
    eventually(|| site.listener().groups[0].load.requests() == 1);
    let mut fourth = site.client();
    ask(&mut fourth);
    hold.has(2);
    hold.answer(EMPTY);
    hold.answer(EMPTY);
    for client in [&mut first, &mut second, &mut fourth] {
        assert_eq!(status(client), "204");
    }
    eventually(|| site.listener().groups[0].load.requests() == 0);
    assert_eq!(site.listener().groups[0].load.refused.get(), 1);
}

#[test]
fn a_websocket_holds_its_place_in_the_group_until_it_ends() {
    let site = Site::new(5, "", &format!("protocol = \"http\"\n{}", group("circuit = { connections = 1 }", &[5])));
    let hold = site.held(5);
    let mut socket = site.client();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
    hold.has(1);
    let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    hold.0.lock().unwrap()[0].write_all(switched.as_bytes()).unwrap();
    assert_eq!(status(&mut socket), "101");
    let mut other = site.client();
    ask(&mut other);
    assert_eq!(status(&mut other), "503");
    drop(socket);
    hold.0.lock().unwrap().clear();
    eventually(|| site.listener().groups[0].load.requests() == 0);
    let mut other = site.client();
    ask(&mut other);
    hold.has(1);
    hold.answer(EMPTY);
    assert_eq!(status(&mut other), "204");
}

#[test]
fn a_relayed_connection_more_than_its_group_may_have_is_reset() {
    let body = format!("proxy_protocol = {{ from = [\"192.0.2.0/24\"] }}\n{}", group("circuit = { connections = 2 }", &[5]));
    let site = Site::new(6, "", &body);
    let hold = site.held(5);
    let open = [site.client(), site.client()];
    hold.has(2);
    let error = site.client().read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    becomes((1, 2), || (site.failures(Reason::Circuit), site.listener().groups[0].load.connections()));
    drop(open);
    hold.0.lock().unwrap().clear();
    eventually(|| site.listener().groups[0].load.connections() == 0);
    let _next = site.client();
    hold.has(1);
}

#[test]
fn an_endpoint_that_refuses_relays_is_asked_last_for_a_while() {
    let body = format!("proxy_protocol = {{ from = [\"192.0.2.0/24\"] }}\n{}", group("", &[5, 6]));
    let site = Site::new(7, "", &body);
    // Nobody listens at the other.
    let hold = site.held(5);
    for count in 1..=40 {
        let _client = site.client();
        hold.has(count);
    }
    let listener = site.listener();
    let refused: u64 = listener.endpoints.iter().map(|endpoint| endpoint.counts.reasons.get(Reason::Refused)).sum();
    // Three of each thread.
    assert!((3..=6).contains(&refused), "{refused}");
}

/// Endpoints whose queue is full do not answer: each is waited for, but all of them not longer than a client waits.
#[test]
fn endpoints_that_are_silent_do_not_hold_a_relay_for_long() {
    let body = format!("proxy_protocol = {{ from = [\"192.0.2.0/24\"] }}\n{}", group("", &[5, 6, 7, 8]));
    let site = Site::new(8, "", &body);
    let mut full = Vec::new();
    for last in 5..=8 {
        let address = SocketAddr::from(([127, 1, 8, last], site.edge.port()));
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(0).unwrap();
        let fill = |_| TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
        full.push((socket, (0..4).map_while(fill).collect::<Vec<_>>()));
    }
    let begun = Instant::now();
    let mut client = site.client();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let took = begun.elapsed();
    assert!((Duration::from_secs(9)..Duration::from_secs(14)).contains(&took), "{took:?}");
    becomes(1, || site.failures(Reason::TimeoutConnect));
}
