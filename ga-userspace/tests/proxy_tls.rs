//! TLS of HTTPS listeners and to endpoints, on the loopback interface: handshakes of rustls and OpenSSL with certificates in files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

mod lab;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, SystemTime},
};

use ga::{
    config,
    model::{Backend, BackendTls, Intent},
    proxy::Proxy,
    proxy::tls::{self, AcceptError, ConnectError, HANDSHAKE_DEADLINE, Store, TlsInfo},
};
use rcgen::{CertificateParams, CertifiedIssuer, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm};
use rustls::{
    AlertDescription, ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion,
    client::Resumption,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::TlsConnector;

const LISTENER: &str = "ga-demo/web";

/// A directory with an issuer; what it issues lies in files.
struct Files {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

fn files() -> Files {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "the issuer");
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let files = Files { dir: tempfile::tempdir().unwrap(), issuer };
    fs::write(files.path("ca.pem"), files.issuer.pem()).unwrap();
    files
}

impl Files {
    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// The text of a file with certificate and key.
    fn text(&self, domain: &str, algorithm: &'static SignatureAlgorithm, days: i64) -> String {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::new(vec![domain.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, domain);
        let start = rcgen::date_time_ymd(2020, 1, 1);
        let today = (SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 86_400) as i64;
        let offset = today - start.unix_timestamp() / 86_400;
        params.not_before = start;
        params.not_after = start + Duration::from_secs(((offset + days) * 86_400) as u64);
        format!("{}{}", params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn write(&self, name: &str, domain: &str) {
        fs::write(self.path(name), self.text(domain, &PKCS_ECDSA_P256_SHA256, 90)).unwrap();
    }

    fn intent(&self, listener: &str, group: &str) -> Intent {
        let text = format!(
            "[node]\ninterfaces = [\"eth0\"]\n[[instance]]\nid = \"ga-demo\"\nvips = [\"198.51.100.10\"]\negress_ips = [\"203.0.113.5\"]\n\
             [[instance.listener]]\nname = \"web\"\nprotocol = \"https\"\nports = \"443\"\n{listener}\n\
             [[instance.listener.endpoint_group]]\nregion = \"eu\"\n{group}\n\
             [[instance.listener.endpoint_group.endpoint]]\ntype = \"ip\"\naddress = \"192.0.2.11\"\n"
        );
        let loaded = config::parse(&self.path("ga.toml"), &text);
        loaded.unwrap_or_else(|report| panic!("{:#?}\n{text}", report.problems)).intent
    }

    /// A client that believes the issuer.
    fn client(&self, protocols: &[&[u8]]) -> ClientConfig {
        self.client_of(rustls::ALL_VERSIONS, protocols)
    }

    fn client_of(&self, versions: &[&'static SupportedProtocolVersion], protocols: &[&[u8]]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config
    }
}

fn store(intent: &Intent) -> Arc<Store> {
    let store = Arc::new(Store::default());
    store.commit(store.prepare(intent).unwrap());
    store
}

/// Long after every file was written.
fn later() -> SystemTime {
    SystemTime::now() + Duration::from_secs(60)
}

type Accepted = Result<TlsInfo, AcceptError>;

/// Accepts connections of [`LISTENER`] and sends back what comes; says how each handshake went.
async fn serve(store: &Arc<Store>, deadline: Duration) -> (SocketAddr, mpsc::UnboundedReceiver<Accepted>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (said, hears) = mpsc::unbounded_channel();
    let store = Arc::clone(store);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (server, said) = (store.server(LISTENER).unwrap(), said.clone());
            tokio::spawn(async move {
                match tls::accept(stream, &server, deadline).await {
                    Ok((stream, info)) => {
                        drop(said.send(Ok(info)));
                        let (mut read, mut write) = tokio::io::split(stream);
                        drop(tokio::io::copy(&mut read, &mut write).await);
                    }
                    Err(error) => drop(said.send(Err(error))),
                }
            });
        }
    });
    (address, hears)
}

type Client = tokio_rustls::client::TlsStream<TcpStream>;

async fn dial(config: &Arc<ClientConfig>, address: SocketAddr, name: &str) -> std::io::Result<Client> {
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::clone(config)).connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await
}

async fn echo(stream: &mut Client, text: &[u8]) {
    stream.write_all(text).await.unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(back, text);
}

fn shown(stream: &Client) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

fn certificate_in(path: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

/// Version and suite that OpenSSL agrees on with the server, and the name that it was shown; none when they agree on nothing.
async fn openssl(address: SocketAddr, arguments: &[&str]) -> Option<(String, String, String)> {
    let mut command = Command::new("openssl");
    // Security level 0: without it OpenSSL itself refuses what is old.
    command.args(["s_client", "-connect", &address.to_string(), "-brief", "-cipher", "ALL:@SECLEVEL=0"]).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned());
    let name = value("Peer certificate:").and_then(|subject| subject.rsplit_once("CN = ").map(|(_, name)| name.to_owned()));
    Some((value("Protocol version:")?, value("Ciphersuite:")?, name.unwrap_or_default()))
}

// proves: H01, A04
#[tokio::test]
async fn a_client_gets_the_certificate_of_the_name_that_it_asks_for() {
    let files = files();
    for (name, domain) in [("a.pem", "a.example"), ("b.pem", "b.example"), ("w.pem", "*.b.example")] {
        files.write(name, domain);
    }
    let listener = "certificates = { default = \"a.pem\", additional = [\n{ domain = \"b.example\", cert = \"b.pem\" },\n\
                    { domain = \"*.b.example\", cert = \"w.pem\" }] }";
    let (address, mut hears) = serve(&store(&files.intent(listener, "")), HANDSHAKE_DEADLINE).await;
    let config = Arc::new(files.client(&[]));
    for (name, file) in [("a.example", "a.pem"), ("b.example", "b.pem"), ("x.b.example", "w.pem"), ("B.EXAMPLE", "b.pem")] {
        let mut stream = dial(&config, address, name).await.unwrap();
        assert_eq!(shown(&stream), certificate_in(&files.path(file)), "{name}");
        echo(&mut stream, b"GET / HTTP/1.1\r\n\r\n").await;
        let info = hears.recv().await.unwrap().unwrap();
        assert_eq!(info.server_name, Some(name.to_ascii_lowercase()));
        assert!(info.covers(name) && !info.covers("c.example"), "{name}");
        let is_wild = file == "w.pem";
        assert_eq!((info.covers("y.b.example"), info.covers("a.example")), (is_wild, file == "a.pem"), "{name}");
    }
    let (_, _, unknown) = openssl(address, &["-servername", "other.example"]).await.unwrap();
    let (_, _, none) = openssl(address, &["-noservername"]).await.unwrap();
    assert_eq!((unknown.as_str(), none.as_str()), ("a.example", "a.example"));
    assert_eq!(hears.recv().await.unwrap().unwrap().server_name.as_deref(), Some("other.example"));
    assert_eq!(hears.recv().await.unwrap().unwrap().server_name, None);
}

// proves: H02
#[tokio::test]
async fn a_policy_agrees_on_its_versions_and_suites_only() {
    let files = files();
    fs::write(files.path("rsa.pem"), files.text("a.example", &PKCS_RSA_SHA256, 90)).unwrap();
    files.write("ec.pem", "a.example");
    let versions = ["-tls1", "-tls1_1", "-tls1_2", "-tls1_3"];
    let gcm = "ECDHE-RSA-AES128-GCM-SHA256";
    for (policy, file, expected) in [
        ("tls_cipher_policy_1_2", "rsa.pem", [false, false, true, false]),
        ("tls_cipher_policy_1_2_strict", "rsa.pem", [false, false, true, false]),
        ("tls_cipher_policy_1_2_strict_with_1_3", "rsa.pem", [false, false, true, true]),
        ("tls_cipher_policy_1_2_strict_with_1_3", "ec.pem", [false, false, true, true]),
    ] {
        let listener = format!("certificates = {{ default = \"{file}\" }}\nsecurity_policy = \"{policy}\"");
        let (address, _hears) = serve(&store(&files.intent(&listener, "")), HANDSHAKE_DEADLINE).await;
        for (version, expected) in versions.iter().zip(expected) {
            assert_eq!(openssl(address, &[version]).await.is_some(), expected, "{policy} {file} {version}");
        }
        if file == "rsa.pem" {
            let (_, suite, _) = openssl(address, &["-tls1_2", "-cipher", gcm]).await.unwrap();
            assert_eq!(suite, gcm);
            for other in ["ECDHE-RSA-AES128-SHA256", "ECDHE-RSA-AES128-SHA", "AES128-GCM-SHA256", "ECDHE-RSA-CHACHA20-POLY1305"] {
                assert_eq!(openssl(address, &["-tls1_2", "-cipher", other]).await, None, "{policy} {other}");
            }
        }
    }
    // Suites for RSA keys alone, and a key that is none.
    let listener = "certificates = { default = \"ec.pem\" }\nsecurity_policy = \"tls_cipher_policy_1_2_strict\"";
    let troubles = Store::default().prepare(&files.intent(listener, "")).unwrap_err();
    let said: Vec<_> = troubles.iter().map(ToString::to_string).collect();
    assert!(said[0].contains("tls_cipher_policy_1_2_strict has cipher suites for RSA only"), "{said:?}");
    assert_eq!(troubles[0].file, Some(files.path("ec.pem")));
}

#[tokio::test]
async fn aes_128_goes_first_unless_the_client_is_better_at_chacha20() {
    let files = files();
    files.write("a.pem", "a.example");
    let (address, _hears) = serve(&store(&files.intent("certificates = { default = \"a.pem\" }", "")), HANDSHAKE_DEADLINE).await;
    let (aes_128, aes_256, chacha) = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256");
    for (offered, agreed) in [
        (format!("{aes_256}:{chacha}:{aes_128}"), aes_128),
        (format!("{aes_256}:{chacha}"), aes_256),
        (format!("{chacha}:{aes_128}:{aes_256}"), chacha),
    ] {
        let (_, suite, _) = openssl(address, &["-tls1_3", "-ciphersuites", &offered]).await.unwrap();
        assert_eq!(suite, agreed, "{offered}");
    }
}

// proves: H01
#[tokio::test]
async fn a_new_certificate_is_shown_to_new_clients_and_a_broken_one_to_nobody() {
    let files = files();
    files.write("a.pem", "a.example");
    let intent = files.intent("certificates = { default = \"a.pem\" }", "");
    let store = store(&intent);
    let (address, _hears) = serve(&store, HANDSHAKE_DEADLINE).await;
    let mut config = files.client(&[]);
    // A resumed session has the certificate that it began with.
    config.resumption = Resumption::disabled();
    let config = Arc::new(config);
    let shows = async || shown(&dial(&config, address, "a.example").await.unwrap());
    let state = || {
        let report = store.report().remove(0);
        (report.failures, report.failure)
    };
    let old = certificate_in(&files.path("a.pem"));
    let mut open = dial(&config, address, "a.example").await.unwrap();

    // Nothing is read while a file may still be written.
    files.write("a.pem", "a.example");
    let new = certificate_in(&files.path("a.pem"));
    store.look(SystemTime::now());
    assert_eq!(shows().await, old);
    store.look(later());
    assert_eq!(shows().await, new);
    echo(&mut open, b"still here").await;
    assert_eq!((shown(&open), state()), (old, (0, None)));

    // Cut off, another's key, expired, gone: what was good stays.
    let whole = files.text("a.example", &PKCS_ECDSA_P256_SHA256, 90);
    let other = files.text("a.example", &PKCS_ECDSA_P256_SHA256, 90);
    let mixed =
        format!("{}{}", &whole[..whole.find("-----BEGIN PRIVATE").unwrap()], &other[other.find("-----BEGIN PRIVATE").unwrap()..]);
    let expired = files.text("a.example", &PKCS_ECDSA_P256_SHA256, -1);
    let cases = [
        (Some(&whole[..300]), "not PEM"),
        (Some(&mixed), "it is not the key of the certificate"),
        (Some(&expired), "it has expired, and the one in use has not"),
        (None, "No such file"),
    ];
    for (times, (text, why)) in cases.into_iter().enumerate() {
        match text {
            Some(text) => fs::write(files.path("a.pem"), text).unwrap(),
            None => fs::remove_file(files.path("a.pem")).unwrap(),
        }
        // Looking twice at one fault is one failure; a reload goes on with what is good.
        store.look(later());
        store.look(later());
        store.commit(store.prepare(&intent).unwrap());
        let (failures, failure) = state();
        assert_eq!(failures, times as u64 + 1, "{failure:?}");
        assert!(failure.as_ref().is_some_and(|failure| failure.contains(why)), "{why}: {failure:?}");
        assert_eq!(shows().await, new, "{why}");
    }
    fs::write(files.path("a.pem"), &whole).unwrap();
    store.look(later());
    assert_eq!((shows().await, state()), (certificate_in(&files.path("a.pem")), (4, None)));

    // A renewal is a link that leads elsewhere, as certbot does it.
    files.write("live-2.pem", "a.example");
    fs::remove_file(files.path("a.pem")).unwrap();
    std::os::unix::fs::symlink(files.path("live-2.pem"), files.path("a.pem")).unwrap();
    store.look(later());
    assert_eq!(shows().await, certificate_in(&files.path("live-2.pem")));

    // A reload does not wait for files to be quiet.
    files.write("live-2.pem", "a.example");
    store.commit(store.prepare(&intent).unwrap());
    assert_eq!(shows().await, certificate_in(&files.path("live-2.pem")));
}

// proves: H01
#[tokio::test]
async fn a_certificate_that_was_never_good_stands_in_the_way_and_one_that_ends_is_reported() {
    let files = files();
    let intent =
        files.intent("certificates = { default = \"a.pem\", additional = [{ domain = \"b.example\", cert = \"b.pem\" }] }", "");
    let troubles = Store::default().prepare(&intent).unwrap_err();
    let named: Vec<_> = troubles.iter().filter_map(|trouble| trouble.file.clone()).collect();
    assert_eq!(named, [files.path("a.pem"), files.path("b.pem")], "every one is said");
    let found = tls::check(&intent, SystemTime::now());
    assert!(found.len() == 2 && found.iter().all(|found| !found.is_error), "another host may have them: {found:?}");

    fs::write(files.path("a.pem"), files.text("a.example", &PKCS_ECDSA_P256_SHA256, 5)).unwrap();
    files.write("b.pem", "c.example");
    let store = store(&intent);
    let report = store.report();
    let names: Vec<_> = report.iter().map(|report| (report.listener.as_str(), report.name.as_str())).collect();
    assert_eq!(names, [(LISTENER, "default"), (LISTENER, "b.example")]);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    let days = (report[0].not_after - now) / 86_400;
    assert!((3..=5).contains(&days), "{days}");
    let found: Vec<_> = tls::check(&intent, SystemTime::now()).into_iter().map(|found| (found.is_error, found.message)).collect();
    assert!(found[0].1.ends_with("the certificate expires within 5 days"), "{found:?}");
    assert!(found[1].1.ends_with("the certificate is not good for b.example, but for c.example"), "{found:?}");
    assert!(found.iter().all(|(is_error, _)| !is_error));
    fs::write(files.path("a.pem"), "nothing").unwrap();
    let found = tls::check(&intent, SystemTime::now());
    assert!(found[0].is_error && found[0].file == files.path("a.pem"), "{found:?}");
}

#[tokio::test]
async fn a_session_is_resumed_by_its_ticket_at_any_worker_and_after_a_renewal() {
    let files = files();
    files.write("a.pem", "a.example");
    let intent = files.intent("certificates = { default = \"a.pem\" }", "");
    let store = store(&intent);
    let (one, _one) = serve(&store, HANDSHAKE_DEADLINE).await;
    let (two, _two) = serve(&store, HANDSHAKE_DEADLINE).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(files.client_of(&[version], &[]));
        let kind = async |address| {
            let mut stream = dial(&config, address, "a.example").await.unwrap();
            // The tickets of TLS 1.3 come after the handshake.
            echo(&mut stream, b"hello").await;
            stream.get_ref().1.handshake_kind().unwrap()
        };
        assert_eq!(kind(one).await, HandshakeKind::Full);
        assert_eq!(kind(two).await, HandshakeKind::Resumed, "{version:?}");
        files.write("a.pem", "a.example");
        store.look(later());
        assert_eq!(kind(one).await, HandshakeKind::Resumed, "{version:?}");
    }
}

// proves: H01
#[tokio::test]
async fn http2_is_agreed_on_where_both_sides_have_it() {
    let files = files();
    files.write("a.pem", "a.example");
    for (version, offered, agreed) in [
        ("http2", &[b"h2".as_slice(), b"http/1.1"][..], Some("h2")),
        ("http2", &[b"http/1.1", b"h2"], Some("h2")),
        ("http2", &[b"http/1.1"], Some("http/1.1")),
        ("http2", &[], None),
        ("http1.1", &[b"h2", b"http/1.1"], Some("http/1.1")),
        ("http1.1", &[], None),
    ] {
        let listener = format!("certificates = {{ default = \"a.pem\" }}\nhttp_version = \"{version}\"");
        let (address, mut hears) = serve(&store(&files.intent(&listener, "")), HANDSHAKE_DEADLINE).await;
        let stream = dial(&Arc::new(files.client(offered)), address, "a.example").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed.map(str::as_bytes), "{version} {offered:?}");
        assert_eq!(hears.recv().await.unwrap().unwrap().is_h2, agreed == Some("h2"));
        // RFC 7301 §3.2: nothing in common ends the handshake, and the client is told why.
        let foreign: &[&[u8]] = if version == "http2" { &[b"h3", b"spdy/3"] } else { &[b"h3", b"h2"] };
        for protocol in foreign {
            let error = dial(&Arc::new(files.client(&[protocol])), address, "a.example").await.unwrap_err();
            let told = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
            assert_eq!(told, Some(&rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)), "{version}");
            assert!(matches!(hears.recv().await.unwrap(), Err(AcceptError::Refused(_))));
        }
    }
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_handshake_is_let_go_at_the_deadline() {
    let files = files();
    files.write("a.pem", "a.example");
    let (address, mut hears) =
        serve(&store(&files.intent("certificates = { default = \"a.pem\" }", "")), Duration::from_millis(300)).await;
    // The head of a record that carries a ClientHello of 512 bytes, and no more of it.
    for half in [&b""[..], &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(half).await.unwrap();
        assert!(matches!(hears.recv().await.unwrap(), Err(AcceptError::Timeout(_))), "{half:?}");
        assert!(stream.read(&mut [0; 8]).await.is_ok_and(|read| read == 0), "the connection is closed");
    }
    // One byte at a time does not help.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let drip = async {
        loop {
            if stream.write_all(&[22]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = drip => {}
        heard = hears.recv() => assert!(heard.unwrap().is_err()),
    }
    // Not TLS at all.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    loop {
        match hears.recv().await.unwrap() {
            Err(AcceptError::Refused(_)) => break,
            Err(AcceptError::Timeout(_) | AcceptError::Closed(_)) => {}
            Ok(info) => panic!("{info:?}"),
        }
    }
    assert_eq!(HANDSHAKE_DEADLINE, Duration::from_secs(10));
}

/// An endpoint that speaks these protocols over TLS with the certificate in `file`.
async fn endpoint(file: &str, protocols: &[&[u8]]) -> SocketAddr {
    let chain = CertificateDer::pem_file_iter(file).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(file).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    drop(stream.write_all(b"welcome").await);
                    drop(stream.read(&mut [0; 1]).await);
                }
            });
        }
    });
    address
}

// proves: H03
#[tokio::test]
async fn an_endpoint_must_be_vouched_for_unless_the_file_says_otherwise() {
    let files = files();
    files.write("a.pem", "a.example");
    files.write("e.pem", "origin.example");
    let address = endpoint(&files.path("e.pem"), &[b"http/1.1"]).await;
    let own = "certificates = { default = \"a.pem\" }";
    let over = "backend_protocol = \"https\"";
    let dials = async |group: &str, name: &str| {
        let intent = files.intent(own, &format!("{over}\n{group}"));
        let backend = intent.instances[0].listeners[0].groups[0].backend.clone();
        let config = store(&intent).client(&backend).unwrap();
        let name = tls::name_of(None, Some(name), "", address.ip());
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = tls::connect(&config, &backend, name, stream).await?;
        let mut text = [0; 7];
        stream.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"welcome");
        Ok::<(), ConnectError>(())
    };
    let ca = "ca = \"ca.pem\"";
    assert!(dials(ca, "origin.example").await.is_ok());
    assert!(matches!(dials(ca, "other.example").await, Err(ConnectError::Verify(_))), "it is somebody else");
    assert!(matches!(dials("", "origin.example").await, Err(ConnectError::Verify(_))), "the system does not vouch for it");
    assert!(dials("verify = false", "other.example").await.is_ok());
    let http2 = format!("{ca}\nbackend_protocol_version = \"http2\"");
    assert!(matches!(dials(&http2, "origin.example").await, Err(ConnectError::NoHttp2)));
    let plain = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let plain_address = plain.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = plain.accept().await.unwrap();
        drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
    });
    let backend = Backend { tls: Some(BackendTls { verify: false, ca: None }), http2: false };
    let config = store(&files.intent(own, &format!("{over}\nverify = false"))).client(&backend).unwrap();
    let name = tls::name_of(None, None, "a.example", plain_address.ip());
    let stream = TcpStream::connect(plain_address).await.unwrap();
    let answer = tls::connect(&config, &backend, name, stream).await;
    assert!(matches!(answer, Err(ConnectError::Handshake(_))), "{answer:?}");
}

// proves: H03
#[test]
fn an_endpoint_is_asked_for_as_the_rule_the_domain_or_the_client_says() {
    let address: IpAddr = [192, 0, 2, 1].into();
    let name = |text: &str| ServerName::try_from(text.to_owned()).unwrap();
    let by_address = ServerName::IpAddress(address.into());
    assert_eq!(tls::name_of(Some("new.example"), Some("origin.example"), "web.example", address), name("new.example"));
    assert_eq!(tls::name_of(None, Some("origin.example"), "web.example", address), name("origin.example"));
    assert_eq!(tls::name_of(None, None, "web.example:8443", address), name("web.example"));
    assert_eq!(tls::name_of(None, None, "198.51.100.10", address), by_address);
}

#[tokio::test]
async fn who_vouches_for_endpoints_is_read_again_too() {
    let files = files();
    files.write("a.pem", "a.example");
    let text = fs::read_to_string(files.path("ca.pem")).unwrap();
    let intent = files.intent("certificates = { default = \"a.pem\" }", "backend_protocol = \"https\"\nca = \"ca.pem\"");
    let store = store(&intent);
    let backend = &intent.instances[0].listeners[0].groups[0].backend;
    let first = store.client(backend).unwrap();
    store.look(later());
    fs::write(files.path("ca.pem"), "broken").unwrap();
    let settled = store.client(backend).unwrap();
    store.look(later());
    assert!(Arc::ptr_eq(&settled, &store.client(backend).unwrap()), "what is broken is not taken");
    fs::write(files.path("ca.pem"), text.clone() + &text).unwrap();
    store.look(later());
    assert!(!Arc::ptr_eq(&first, &store.client(backend).unwrap()));
    fs::remove_file(files.path("ca.pem")).unwrap();
    let troubles = Store::default().prepare(&intent).unwrap_err();
    assert_eq!(troubles.len(), 1);
    assert!(troubles[0].to_string().starts_with(&format!("{LISTENER}: {}", files.path("ca.pem"))), "{}", troubles[0]);
    assert!(Path::new(&files.path("a.pem")).exists());
}

/// Answers every request over TLS with the server name that it was asked for by.
async fn origin(file: &str) -> SocketAddr {
    let chain = CertificateDer::pem_file_iter(file).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(file).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let name = stream.get_ref().1.server_name().unwrap_or("nobody").to_owned();
                let mut head = Vec::new();
                while let Ok(byte) = stream.read_u8().await {
                    head.push(byte);
                    if head.ends_with(b"\r\n\r\n") {
                        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
                        drop(stream.write_all(answer.as_bytes()).await);
                        head.clear();
                    }
                }
            });
        }
    });
    address
}

/// Body, version and status of what curl gets for `url` from the listener at `port`.
async fn curl(files: &Files, port: u16, arguments: &[&str]) -> String {
    let mut command = Command::new("curl");
    let hosts = ["a.example", "b.example"].map(|host| format!("{host}:{port}:127.0.0.1"));
    command.args(["-s", "--max-time", "20", "--cacert", &files.path("ca.pem"), "-w", " %{http_version} %{http_code}"]);
    command.args(["--resolve", &hosts[0], "--resolve", &hosts[1], &format!("https://a.example:{port}/")]).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    String::from_utf8(output.stdout).unwrap()
}

// proves: A04, H01, H03
#[tokio::test]
async fn a_request_goes_through_tls_on_both_sides_and_not_where_it_does_not_belong() {
    let files = files();
    files.write("a.pem", "a.example");
    files.write("other.pem", "other.example");
    for (certificate, group, expected) in [
        ("a.pem", "ca = \"{ca}\"", "a.example"),
        ("other.pem", "ca = \"{ca}\"", "502"),
        ("a.pem", "", "502"),
        ("other.pem", "verify = false", "a.example"),
    ] {
        let endpoint = origin(&files.path(certificate)).await;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port();
        let text = lab::file(&format!(
            "[[instance.listener]]\nname = \"web\"\nprotocol = \"https\"\nports = \"{port}\"\n\
             certificates = {{ default = \"{}\" }}\n[[instance.listener.endpoint_group]]\nregion = \"eu\"\n\
             backend_protocol = \"https\"\n{}\nport_mapping = [{{ listener = {port}, endpoint = {} }}]\n\
             [[instance.listener.endpoint_group.endpoint]]\ntype = \"private_ip\"\naddress = \"10.0.0.1\"\n",
            files.path("a.pem"),
            group.replace("{ca}", &files.path("ca.pem")),
            endpoint.port(),
        ));
        let intent = config::parse("test.toml", &text).unwrap_or_else(|report| panic!("{:#?}", report.problems)).intent;
        let mut proxy = Proxy::start(1).unwrap();
        proxy.shared().tls.commit(proxy.shared().tls.prepare(&intent).unwrap());
        let unbound = proxy.apply(lab::view(&text).1);
        assert!(unbound.is_empty(), "{unbound:?}");
        for (argument, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
            let said = curl(&files, port, &[argument]).await;
            if expected == "502" {
                assert!(said.ends_with(&format!(" {version} 502")), "{certificate} {group}: {said}");
            } else {
                assert_eq!(said, format!("{expected} {version} 200"), "{certificate} {group}");
            }
            let said = curl(&files, port, &[argument, "-H", "Host: b.example"]).await;
            assert!(said.ends_with(&format!(" {version} 421")), "{said}");
        }
    }
}
