//! TCP listeners that the agent serves, with real connections on loopback addresses: rules on the server name, the PROXY protocol both
//! ways, endpoints that refuse.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

mod lab;

use std::{
    future::Future,
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use ga::{
    config,
    health::Beliefs,
    plan::{self, Overrides, State},
    proxy::{Listener, Proxy, View, counts::Reason, proxy_protocol, tcp::SNIFF_TIMEOUT},
};
use lab::becomes;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, ServerName},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{LocalSet, spawn_local},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const PATIENCE: Duration = Duration::from_secs(20);

/// The file's VIP becomes 127.0.NET.1, its egress address 127.0.NET.2, endpoints 192.0.2.N become 127.0.NET.N: the configuration
/// refuses loopback addresses. All have one port.
struct Site {
    net: u8,
    proxy: Proxy,
    edge: SocketAddr,
}

impl Site {
    /// Serves a listener that has `body`.
    fn new(net: u8, body: &str) -> Self {
        let port = 20_000 + u16::from(net);
        let text = format!(
            "[node]\ninterfaces = [\"eth0\"]\n[[instance]]\nid = \"shop\"\nvips = [\"198.51.100.1\"]\negress_ips = [\"203.0.113.1\"]\n\
             [[instance.listener]]\nname = \"web\"\nports = \"{port}\"\n{body}"
        );
        let mut intent =
            config::parse("test.toml", &text).unwrap_or_else(|report| panic!("{:#?}\n{text}", report.problems)).intent;
        let instance = &mut intent.instances[0];
        (instance.vips, instance.egress_ips) = (vec![[127, 0, net, 1].into()], vec![[127, 0, net, 2].into()]);
        for endpoint in instance.listeners[0].groups.iter_mut().flat_map(|group| &mut group.endpoints) {
            let IpAddr::V4(address) = endpoint.address else { panic!("an IPv4 endpoint") };
            endpoint.address = [127, 0, net, address.octets()[3]].into();
        }
        let plan = plan::build(&intent, &Overrides::default(), &Beliefs::default(), &State::default(), [1, 2]).unwrap();
        let mut proxy = Proxy::start(1).unwrap();
        let unbound = proxy.apply(View::new(&plan, &intent, &View::default()));
        assert!(unbound.is_empty(), "{unbound:?}");
        Self { net, proxy, edge: SocketAddr::from(([127, 0, net, 1], port)) }
    }

    fn listener(&self) -> Arc<Listener> {
        Arc::clone(&self.proxy.shared().view.load().listeners["shop/web"])
    }

    /// The sockets of an endpoint.
    async fn endpoint(&self, last: u8) -> TcpListener {
        TcpListener::bind((IpAddr::from([127, 0, self.net, last]), self.edge.port())).await.unwrap()
    }

    /// An endpoint that answers everything it got to the end, behind its own number.
    async fn echo(&self, last: u8) {
        let socket = self.endpoint(last).await;
        spawn_local(async move {
            loop {
                let (mut stream, _) = socket.accept().await.unwrap();
                spawn_local(async move {
                    let mut got = Vec::new();
                    if stream.read_to_end(&mut got).await.is_ok() {
                        stream.write_all(&[format!("{last}:").as_bytes(), &got].concat()).await.unwrap();
                    }
                });
            }
        });
    }

    /// An endpoint that ends TLS with a certificate for `name` and says who it is.
    async fn secured(&self, last: u8, name: &str) -> RootCertStore {
        let key = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let secret = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
        let config =
            ServerConfig::builder().with_no_client_auth().with_single_cert(vec![key.cert.der().clone()], secret).unwrap();
        let (acceptor, socket) = (TlsAcceptor::from(Arc::new(config)), self.endpoint(last).await);
        spawn_local(async move {
            loop {
                let (stream, _) = socket.accept().await.unwrap();
                let acceptor = acceptor.clone();
                spawn_local(async move {
                    // Some clients here do not speak TLS.
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    stream.write_all(&[last]).await.unwrap();
                    stream.shutdown().await.unwrap();
                });
            }
        });
        let mut roots = RootCertStore::empty();
        roots.add(key.cert.der().clone()).unwrap();
        roots
    }

    /// What comes back for `bytes`.
    async fn talk(&self, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(self.edge).await?;
        stream.write_all(bytes).await?;
        stream.shutdown().await?;
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap()?;
        Ok(answer)
    }

    /// Which endpoint speaks TLS with a client of `name` that believes `roots`.
    async fn name(&self, name: &str, roots: RootCertStore) -> std::io::Result<u8> {
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let stream = TcpStream::connect(self.edge).await?;
        let talk = async {
            let mut stream = connector.connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await?;
            stream.read_u8().await
        };
        timeout(PATIENCE, talk).await.unwrap()
    }

    fn reasons(&self, reason: Reason) -> u64 {
        self.listener().counts.reasons.get(reason)
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

fn group(text: &str, endpoints: &[u8]) -> String {
    let endpoint = |last| format!("[[instance.listener.endpoint_group.endpoint]]\ntype = \"ip\"\naddress = \"192.0.2.{last}\"\n");
    let endpoints: String = endpoints.iter().map(endpoint).collect();
    format!("[[instance.listener.endpoint_group]]\nregion = \"eu\"\n{text}\n{endpoints}")
}

fn with_rules(defaults: &[u8]) -> String {
    let rule = |name: &str, host: &str, act: &str| {
        format!("[[instance.listener.rule]]\nname = \"{name}\"\nwhen = [{{ host = [\"{host}\"] }}]\ndo = [{act}]\n")
    };
    [
        group("", defaults),
        group("name = \"api\"\nkind = \"virtual\"", &[12]),
        rule("api", "*.api.example", "{ forward = \"api\" }"),
        rule("closed", "closed.example", "{ drop = true }"),
    ]
    .concat()
}

fn is_reset<T: std::fmt::Debug>(answer: std::io::Result<T>) {
    let error = answer.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error:?}");
}

// proves: B05, G15
#[test]
fn the_server_name_of_tls_leads_to_the_group_of_its_rule() {
    run(async {
        let site = Site::new(31, &with_rules(&[11]));
        let (defaults, api) = (site.secured(11, "www.example").await, site.secured(12, "v1.api.example").await);
        assert_eq!(site.name("v1.api.example", api.clone()).await.unwrap(), 12);
        assert_eq!(site.name("www.example", defaults.clone()).await.unwrap(), 11);
        is_reset(site.name("closed.example", defaults).await);
        becomes((1, 2), || (site.reasons(Reason::Dropped), site.listener().counts.requests.get()));
        assert_eq!(site.listener().rules.iter().map(|rule| rule.hits.get()).collect::<Vec<_>>(), [1, 1]);
    });
}

#[test]
fn what_says_no_name_goes_to_the_default_groups() {
    run(async {
        let site = Site::new(32, &with_rules(&[11]));
        site.echo(11).await;
        assert_eq!(site.talk(b"SSH-2.0-client\r\n").await.unwrap(), b"11:SSH-2.0-client\r\n");
        assert_eq!(site.talk(b"").await.unwrap(), b"11:");
        let half = b"\x16\x03\x01\x02\x00\x01";
        assert_eq!(site.talk(half).await.unwrap(), [b"11:", &half[..]].concat());
    });
}

#[test]
fn the_host_of_plain_http_is_a_name_where_the_file_says_so() {
    run(async {
        let ask = |host: &str| format!("GET / HTTP/1.1\r\nX: y\r\nHost: {host}\r\n\r\n").into_bytes();
        let site = Site::new(42, &format!("http_sniff = true\n{}", with_rules(&[11])));
        site.echo(11).await;
        site.echo(12).await;
        for (host, last) in [("v1.API.example:8080", 12), ("www.example", 11), ("192.0.2.1", 11)] {
            let (asked, expected) = (ask(host), format!("{last}:"));
            assert_eq!(site.talk(&asked).await.unwrap(), [expected.as_bytes(), &asked].concat(), "{host}");
        }
        is_reset(site.talk(&ask("closed.example")).await);
        // A head in pieces is waited for; what is no request, and what two servers could read differently, names nobody.
        let mut slow = TcpStream::connect(site.edge).await.unwrap();
        for piece in ask("v1.api.example").chunks(9) {
            slow.write_all(piece).await.unwrap();
            slow.flush().await.unwrap();
            tokio::task::yield_now().await;
        }
        slow.shutdown().await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, slow.read_to_end(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with(b"12:GET"), "{answer:?}");
        for odd in [&b"SSH-2.0-client\r\n"[..], b"GET / HTTP/1.1\r\nHost: v1.api.example\r\nHost: x\r\n\r\n", &[b'A'; 40_000]] {
            assert!(site.talk(odd).await.unwrap().starts_with(b"11:"));
        }
        // TLS is read as ever.
        let api = site.secured(13, "unused").await;
        assert!(site.name("closed.example", api).await.is_err());
        assert_eq!(site.reasons(Reason::Dropped), 2);
        // Without the key HTTP has no name.
        let site = Site::new(43, &with_rules(&[11]));
        site.echo(11).await;
        assert!(site.talk(&ask("v1.api.example")).await.unwrap().starts_with(b"11:"));
    });
}

#[test]
fn a_server_that_speaks_first_is_reached_when_the_client_has_been_silent_long_enough() {
    run(async {
        let site = Site::new(33, &with_rules(&[11]));
        let endpoint = site.endpoint(11).await;
        let mut client = TcpStream::connect(site.edge).await.unwrap();
        let started = Instant::now();
        let (mut server, _) = timeout(PATIENCE, endpoint.accept()).await.unwrap().unwrap();
        assert!(started.elapsed() >= SNIFF_TIMEOUT, "{:?}", started.elapsed());
        server.write_all(b"220 ready").await.unwrap();
        let mut greeting = [0; 9];
        client.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"220 ready");
    });
}

#[test]
fn endpoints_are_told_of_the_client_by_a_header_in_front_of_what_it_says() {
    run(async {
        for (net, version) in [(34, "proxy_v1"), (35, "proxy_v2")] {
            let site = Site::new(net, &group(&format!("preserve_client_ip = \"{version}\""), &[11]));
            let endpoint = site.endpoint(11).await;
            let mut client = TcpStream::connect(site.edge).await.unwrap();
            let (mut server, from) = timeout(PATIENCE, endpoint.accept()).await.unwrap().unwrap();
            assert_eq!(from.ip(), IpAddr::from([127, 0, net, 2]), "the egress address");
            client.write_all(b"hello").await.unwrap();
            client.shutdown().await.unwrap();
            let mut got = Vec::new();
            server.read_to_end(&mut got).await.unwrap();
            let (header, length) = proxy_protocol::parse(&got).unwrap().unwrap();
            let expected = proxy_protocol::Header::Proxied { client: client.local_addr().unwrap(), server: site.edge };
            assert_eq!((header, &got[length..]), (expected, &b"hello"[..]));
        }
    });
}

#[test]
fn a_trusted_proxy_says_who_the_client_is_and_must() {
    run(async {
        let body = |from: &str| {
            format!("proxy_protocol = {{ from = [\"{from}\"] }}\n{}", group("preserve_client_ip = \"proxy_v1\"", &[11]))
        };
        let site = Site::new(36, &body("127.0.0.0/8"));
        site.echo(11).await;
        let said = site.talk(b"PROXY TCP4 192.0.2.77 198.51.100.9 4000 443\r\nhello").await.unwrap();
        let expected = format!("11:PROXY TCP4 192.0.2.77 127.0.36.1 4000 {}\r\nhello", site.edge.port());
        assert_eq!(String::from_utf8(said).unwrap(), expected);
        assert!(site.talk(b"hello").await.is_ok_and(|answer| answer.is_empty()) || site.reasons(Reason::ProxyHeader) == 1);
        assert_eq!(site.reasons(Reason::ProxyHeader), 1);
        // What others send is theirs.
        let site = Site::new(37, &body("10.0.0.0/8"));
        site.echo(11).await;
        let forged = "PROXY TCP4 192.0.2.77 198.51.100.9 4000 443\r\nhello";
        let said = String::from_utf8(site.talk(forged.as_bytes()).await.unwrap()).unwrap();
        assert!(said.starts_with("11:PROXY TCP4 127.0.0.1 127.0.37.1 ") && said.ends_with(forged), "{said}");
    });
}

#[test]
fn an_endpoint_that_refuses_is_passed_over_and_without_any_the_client_is_reset() {
    run(async {
        let site = Site::new(38, &group("preserve_client_ip = \"proxy_v2\"", &[11, 12, 13]));
        site.echo(13).await;
        for _ in 0..12 {
            assert!(site.talk(b"x").await.unwrap().starts_with(b"13:"));
        }
        assert!(site.listener().counts.retries.get() > 0);
        assert_eq!(site.reasons(Reason::Refused), 0, "clients did not notice");
        assert!(site.listener().endpoints.iter().map(|endpoint| endpoint.counts.reasons.get(Reason::Refused)).sum::<u64>() > 0);
        let site = Site::new(39, &group("preserve_client_ip = \"proxy_v2\"", &[11, 12]));
        is_reset(site.talk(b"x").await);
        becomes((1, 1), || (site.reasons(Reason::Refused), site.listener().counts.retries.get()));
    });
}
