//! HTTP/3 of HTTPS listeners, on loopback addresses: a client of the same libraries, and bytes of which no client consists.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

mod lab;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use ga::{
    config,
    proxy::{Proxy, counts::Reason},
};
use http::{HeaderMap, Request, Response};
use lab::{Endpoint, answer, field, read_chunked, read_head};
use quinn::{ConnectionError, ReadError, ReadToEndError, VarInt, crypto::rustls::QuicClientConfig};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::{RootCertStore, pki_types::CertificateDer};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy with an HTTPS listener that speaks HTTP/3.
struct Site {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
    proxy: Proxy,
    text: String,
    edge: SocketAddr,
}

impl Site {
    /// The endpoint is 127.0.0.11; the listener has `keys`, the proxy `threads`.
    fn new(endpoint: &Endpoint, keys: &str, threads: usize) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "the issuer");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let port = endpoint.port;
        let text = lab::file(&format!(
            "[[instance.listener]]\nname = \"web\"\nprotocol = \"https\"\nports = \"{port}\"\nhttp_version = \"http3\"\n\
             certificates = {{ default = \"{}\" }}\n{keys}[[instance.listener.endpoint_group]]\nregion = \"here\"\n\
             [[instance.listener.endpoint_group.endpoint]]\ntype = \"private_ip\"\naddress = \"10.0.0.11\"\n",
            dir.path().join("edge.pem").display()
        ));
        let proxy = Proxy::start(threads).unwrap();
        let mut site = Self { dir, issuer, proxy, text, edge: (Ipv4Addr::LOCALHOST, port).into() };
        site.certify("shop.example");
        site.apply();
        site
    }

    /// A new certificate for `name` in the file.
    fn certify(&self, name: &str) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let made = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.dir.path().join("edge.pem"), made.pem() + &key.serialize_pem()).unwrap();
        made.der().to_vec()
    }

    /// Serves what the file says.
    fn apply(&mut self) {
        serve(&mut self.proxy, &self.text);
    }

    fn counted(&self, reason: Reason) -> u64 {
        self.proxy.shared().view.load().listeners["lab/web"].counts.reasons.get(reason)
    }

    /// Waits until `reason` was counted.
    async fn counts(&self, reason: Reason) {
        let counted = async {
            while self.counted(reason) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, counted).await.unwrap_or_else(|_| panic!("{} was not counted", reason.word()));
    }

    /// A client's socket.
    fn socket(&self) -> quinn::Endpoint {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
        let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h3".to_vec()];
        let mut endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let crypto = Arc::new(QuicClientConfig::try_from(config).unwrap());
        endpoint.set_default_client_config(quinn::ClientConfig::new(crypto));
        endpoint
    }

    async fn dial(&self, name: &str) -> (quinn::Endpoint, quinn::Connection) {
        let socket = self.socket();
        let connection = timeout(PATIENCE, socket.connect(self.edge, name).unwrap()).await.unwrap().unwrap();
        (socket, connection)
    }

    /// A client of HTTP/3.
    async fn client(&self) -> Client {
        let (socket, quic) = self.dial("shop.example").await;
        let (mut driver, sender) = h3::client::new(h3_quinn::Connection::new(quic.clone())).await.unwrap();
        let ended = tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
        Client { sender, quic, socket, ended }
    }
}

/// Has `proxy` serve what the file says.
fn serve(proxy: &mut Proxy, text: &str) {
    let intent = config::parse("test.toml", text).unwrap_or_else(|report| panic!("{:#?}", report.problems)).intent;
    let tls = &proxy.shared().tls;
    tls.commit(tls.prepare(&intent).unwrap_or_else(|troubles| panic!("{troubles:#?}")));
    let before = proxy.shared().view.load_full();
    let unbound = proxy.apply(lab::planned(text, &before).1);
    assert!(unbound.is_empty(), "{unbound:?}");
}

struct Client {
    sender: h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
    quic: quinn::Connection,
    socket: quinn::Endpoint,
    ended: tokio::task::JoinHandle<h3::error::ConnectionError>,
}

type Exchange = h3::client::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

impl Client {
    /// Sends a head.
    async fn begin(&mut self, request: Request<()>) -> Exchange {
        timeout(PATIENCE, self.sender.send_request(request)).await.unwrap().unwrap()
    }

    /// Head, body and trailers of the answer to a request with that body.
    async fn ask(&mut self, request: Request<()>, body: &[u8]) -> (Response<()>, Vec<u8>, Option<HeaderMap>) {
        let mut exchange = self.begin(request).await;
        if !body.is_empty() {
            exchange.send_data(Bytes::copy_from_slice(body)).await.unwrap();
        }
        exchange.finish().await.unwrap();
        end(&mut exchange).await
    }
}

/// The answer.
async fn end(exchange: &mut Exchange) -> (Response<()>, Vec<u8>, Option<HeaderMap>) {
    let whole = async {
        let head = exchange.recv_response().await.unwrap();
        let mut body = Vec::new();
        while let Some(mut piece) = exchange.recv_data().await.unwrap() {
            body.extend_from_slice(&piece.copy_to_bytes(piece.remaining()));
        }
        let trailers = exchange.recv_trailers().await.unwrap();
        (head, body, trailers)
    };
    timeout(PATIENCE, whole).await.unwrap()
}

fn get(target: &str) -> Request<()> {
    Request::get(format!("https://shop.example{target}")).body(()).unwrap()
}

fn post(target: &str) -> Request<()> {
    Request::post(format!("https://shop.example{target}")).body(()).unwrap()
}

/// What the endpoint was asked.
type Seen = Arc<Mutex<Vec<String>>>;

/// An endpoint that answers with the target, and what it was asked.
fn noting() -> (Endpoint, Seen) {
    let seen = Seen::default();
    let heads = Arc::clone(&seen);
    let endpoint = Endpoint::new(11, move |stream| {
        answer(stream, |head| {
            heads.lock().unwrap().push(head.to_owned());
            ("200 OK", head.split(' ').nth(1).unwrap().to_owned())
        });
    });
    (endpoint, seen)
}

// proves: H04
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_http3_take_the_way_of_all_others() {
    let (endpoint, seen) = noting();
    let rules = "[[instance.listener.rule]]\nname = \"gone\"\nwhen = [{ path = \"/gone\" }]\n\
                 do = [{ fixed_response = { code = 410, type = \"text/plain\", content = \"gone\" } }]\n\
                 [[instance.listener.rule]]\nname = \"dropped\"\nwhen = [{ path = \"/dropped\" }]\ndo = [{ drop = true }]\n";
    let site = Site::new(&endpoint, rules, 1);
    let mut client = site.client().await;
    let (head, body, _) = client.ask(get("/a/../b?c"), b"").await;
    assert_eq!((head.status().as_u16(), &body[..]), (200, &b"/b?c"[..]));
    assert!(head.headers().contains_key("date"));
    let asked = seen.lock().unwrap().pop().unwrap();
    assert!(asked.starts_with("GET /b?c HTTP/1.1\r\n") && field(&asked, "host").unwrap() == "shop.example", "{asked}");
    assert_eq!(field(&asked, "x-forwarded-for").unwrap(), "127.0.0.1");
    assert!(field(&asked, "transfer-encoding").is_none() && field(&asked, "content-length").is_none(), "{asked}");

    let request =
        Request::post("https://shop.example/p").header("content-length", "5").header("cookie", "a=1").header("cookie", "b=2");
    let (head, ..) = client.ask(request.body(()).unwrap(), b"12345").await;
    assert_eq!(head.status(), 200);
    let asked = seen.lock().unwrap().pop().unwrap();
    assert_eq!(
        (field(&asked, "content-length").unwrap(), field(&asked, "cookie").unwrap()),
        ("5".to_owned(), "a=1; b=2".to_owned())
    );

    let (head, body, _) = client.ask(get("/gone"), b"").await;
    assert_eq!(
        (head.status().as_u16(), &body[..], &head.headers()["content-length"]),
        (410, &b"gone"[..], &"4".parse().unwrap())
    );
    let (head, body, _) = client.ask(Request::head("https://shop.example/gone").body(()).unwrap(), b"").await;
    assert_eq!((head.status().as_u16(), body.len()), (410, 0));
    // Another host than the certificate is good for.
    let (head, ..) = client.ask(Request::get("https://other.example/").body(()).unwrap(), b"").await;
    assert_eq!(head.status(), 421);
    let long = "x".repeat(9000);
    assert_eq!(client.ask(get(&format!("/{long}")), b"").await.0.status(), 414);
    let many = (0..101).fold(Request::get("https://shop.example/"), |request, number| request.header(format!("x-{number}"), "1"));
    assert_eq!(client.ask(many.body(()).unwrap(), b"").await.0.status(), 431);
    // Nobody answers, and the connection goes on.
    let mut exchange = client.begin(get("/dropped")).await;
    exchange.finish().await.unwrap();
    assert!(timeout(PATIENCE, exchange.recv_response()).await.unwrap().is_err());
    assert_eq!(client.ask(get("/last"), b"").await.1, b"/last");
}

// proves: H04
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_other_versions_are_told_of_http3_and_those_of_other_listeners_are_not() {
    let (endpoint, _) = noting();
    let mut site = Site::new(&endpoint, "", 1);
    let alternative = |site: &Site| {
        let (port, file) = (site.edge.port(), site.dir.path().join("ca.pem"));
        fs::write(&file, site.issuer.pem()).unwrap();
        let said = ["--http1.1", "--http2"].map(|version| {
            let mut curl = std::process::Command::new("curl");
            curl.args([
                "-s",
                "-o",
                "/dev/null",
                "--max-time",
                "20",
                version,
                "-w",
                "%header{alt-svc} %{http_version}",
                "--cacert",
            ]);
            curl.arg(&file).args([
                "--resolve",
                &format!("shop.example:{port}:127.0.0.1"),
                &format!("https://shop.example:{port}/"),
            ]);
            String::from_utf8(curl.output().unwrap().stdout).unwrap()
        });
        (said, port)
    };
    let (said, port) = alternative(&site);
    assert_eq!(said, [format!("h3=\":{port}\"; ma=86400 1.1"), format!("h3=\":{port}\"; ma=86400 2")]);
    // The listener goes back to HTTP/2: the word is withdrawn, and nobody answers by UDP.
    site.text = site.text.replace("\"http3\"", "\"http2\"");
    site.apply();
    assert_eq!(alternative(&site).0, [" 1.1", " 2"]);
    let connecting = site.socket().connect(site.edge, "shop.example").unwrap();
    assert!(timeout(Duration::from_millis(500), connecting).await.map_or(true, |connected| connected.is_err()));
    // And again.
    site.text = site.text.replace("\"http2\"", "\"http3\"");
    site.apply();
    assert_eq!(site.client().await.ask(get("/"), b"").await.0.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_and_trailers_stream_both_ways() {
    let (told, heard) = mpsc::channel();
    let endpoint = Endpoint::new(11, move |mut stream| {
        let head = read_head(&mut stream).unwrap();
        assert_eq!(field(&head, "transfer-encoding").unwrap(), "chunked");
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        // Pieces come and go before the request has ended.
        let mut piece = [0; 10];
        stream.read_exact(&mut piece).unwrap();
        told.send(piece.to_vec()).unwrap();
        stream.write_all(b"5\r\nearly\r\n").unwrap();
        let rest = read_chunked(&mut stream);
        let length = format!("{:x}\r\n", rest.len());
        stream.write_all(length.as_bytes()).unwrap();
        stream.write_all(&rest).unwrap();
        stream.write_all(b"\r\n0\r\nx-end: yes\r\n\r\n").unwrap();
    });
    let site = Site::new(&endpoint, "", 1);
    let mut client = site.client().await;
    let mut exchange = client.begin(post("/")).await;
    exchange.send_data(Bytes::from_static(b"first")).await.unwrap();
    let head = timeout(PATIENCE, exchange.recv_response()).await.unwrap().unwrap();
    assert_eq!(head.status(), 200);
    let mut piece = timeout(PATIENCE, exchange.recv_data()).await.unwrap().unwrap().unwrap();
    assert_eq!(piece.copy_to_bytes(piece.remaining()), "early");
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), b"5\r\nfirst\r\n");
    // More than any window.
    let large = Bytes::from((0..3_000_000_u32).map(|number| number as u8).collect::<Vec<u8>>());
    let (mut send, mut receive) = exchange.split();
    let sent = large.clone();
    let sending = tokio::spawn(async move {
        send.send_data(sent).await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        send.send_trailers(trailers).await.unwrap();
        send.finish().await.unwrap();
    });
    let mut back = Vec::new();
    while let Some(mut piece) = timeout(PATIENCE, receive.recv_data()).await.unwrap().unwrap() {
        back.extend_from_slice(&piece.copy_to_bytes(piece.remaining()));
    }
    assert!(back == large, "{} bytes came back", back.len());
    assert_eq!(receive.recv_trailers().await.unwrap().unwrap()["x-end"], "yes");
    sending.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_resets_a_request_takes_it_away_from_the_endpoint() {
    let (told, heard) = mpsc::channel();
    let endpoint = Endpoint::new(11, move |mut stream| {
        read_head(&mut stream).unwrap();
        told.send("asked").unwrap();
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest));
        told.send("closed").unwrap();
    });
    let site = Site::new(&endpoint, "", 1);
    let mut client = site.client().await;
    let mut exchange = client.begin(get("/")).await;
    exchange.finish().await.unwrap();
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), "asked");
    exchange.stop_sending(h3::error::Code::H3_REQUEST_CANCELLED);
    drop(exchange);
    assert_eq!(tokio::task::spawn_blocking(move || heard.recv_timeout(PATIENCE)).await.unwrap(), Ok("closed"));
    site.counts(Reason::ClientClosed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_ends_too_early_is_not_taken_for_a_whole_one() {
    let endpoint = Endpoint::new(11, |mut stream| {
        read_head(&mut stream).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n").unwrap();
    });
    let site = Site::new(&endpoint, "", 1);
    let mut client = site.client().await;
    let mut exchange = client.begin(get("/")).await;
    exchange.finish().await.unwrap();
    // What was sent already may be lost with the reset.
    let mut ended = timeout(PATIENCE, exchange.recv_response()).await.unwrap().is_err();
    while !ended {
        match timeout(PATIENCE, exchange.recv_data()).await.unwrap() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the answer ended well"),
            Err(_) => ended = true,
        }
    }
}

/// A head of HTTP/3 without compression: POST https://shop.example/, and more fields.
fn raw_head(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0, 0];
    let usual = [(":method", "POST"), (":scheme", "https"), (":authority", "shop.example"), (":path", "/")];
    for (name, value) in usual.iter().chain(fields) {
        // A literal with a literal name (RFC 9204 §4.5.6), lengths of seven and three bits of prefix.
        let prefixed = |first: u8, most: usize, length: usize| match length {
            length if length < most => vec![first | length as u8],
            length => {
                let mut bytes = vec![first | most as u8];
                let mut rest = length - most;
                while rest >= 128 {
                    bytes.push((rest % 128) as u8 | 128);
                    rest /= 128;
                }
                bytes.push(rest as u8);
                bytes
            }
        };
        block.extend(prefixed(0x20, 7, name.len()));
        block.extend_from_slice(name.as_bytes());
        block.extend(prefixed(0, 127, value.len()));
        block.extend_from_slice(value.as_bytes());
    }
    let mut frame = vec![1, 0x80];
    frame.extend_from_slice(&(block.len() as u32).to_be_bytes()[1..]);
    frame.extend(block);
    frame
}

// proves: H04
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_which_no_request_consists_reach_no_endpoint_and_cost_no_memory() {
    let (told, heard) = mpsc::channel();
    let endpoint = Endpoint::new(11, move |mut stream| {
        let head = read_head(&mut stream).unwrap();
        let mut body = vec![0; if head.contains("x-last") { 4 } else { 0 }];
        if body.is_empty() {
            drop(stream.read_to_end(&mut body));
        } else {
            stream.read_exact(&mut body).unwrap();
        }
        drop(told.send((head, body)));
    });
    let site = Site::new(&endpoint, "", 1);
    let (_socket, quic) = site.dial("shop.example").await;
    // Without a control stream a client is not told that it broke the rules of one.
    let mut control = quic.open_uni().await.unwrap();
    control.write_all(&[0, 4, 0]).await.unwrap();

    // A head of a GiB: refused when it says so, not when it is there.
    let (mut send, mut receive) = quic.open_bi().await.unwrap();
    send.write_all(&[1, 0xc0, 0, 0, 0, 0x40, 0, 0, 0]).await.unwrap();
    assert_eq!(timeout(PATIENCE, send.stopped()).await.unwrap(), Ok(Some(EXCESSIVE_LOAD)));
    assert_eq!(refused(&mut receive).await, EXCESSIVE_LOAD);

    let data = |length: u8| [&[0, length][..], &[b'x'; 4]].concat();
    let cases: [(&str, Vec<u8>); 4] = [
        // It ends within its data; the endpoint is told a length, and is not.
        ("truncated", [raw_head(&[]), data(10)].concat()),
        ("short", [raw_head(&[("content-length", "10")]), data(4)].concat()),
        ("long", [raw_head(&[("content-length", "2")]), data(4)].concat()),
        ("twice", [raw_head(&[("content-length", "4"), ("content-length", "4")]), data(4)].concat()),
    ];
    for (name, bytes) in cases {
        let (mut send, mut receive) = quic.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        drop(send.finish());
        let answer = timeout(PATIENCE, receive.read_to_end(4096)).await.unwrap();
        // Reset, or told that the request was wrong: `:status` 400 is number 67 of the static table.
        let is_refused =
            answer.as_ref().map_or(true, |answer| answer.get(4) == Some(&(0xff)) && answer.get(5) == Some(&(67 - 63)));
        assert!(is_refused, "{name}: {answer:?}");
        if name != "twice" {
            let (head, body) = heard.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{name}"));
            let is_chunked = field(&head, "transfer-encoding").is_some();
            assert!(if is_chunked { !body.ends_with(b"0\r\n\r\n") } else { body.len() < 10 }, "{name}: {head}{body:?}");
        }
    }
    assert!(heard.try_recv().is_err());
    // The connection lives on, and frames that mean nothing are passed over.
    let (mut send, mut receive) = quic.open_bi().await.unwrap();
    send.write_all(&[&[0x21, 3, 1, 2, 3][..], &raw_head(&[("content-length", "4"), ("x-last", "1")]), &data(4)].concat())
        .await
        .unwrap();
    send.finish().unwrap();
    let (head, body) = heard.recv_timeout(PATIENCE).unwrap();
    assert_eq!((field(&head, "content-length").unwrap(), &body[..]), ("4".to_owned(), &b"xxxx"[..]));
    drop(timeout(PATIENCE, receive.read_to_end(4096)).await.unwrap());
    // A frame of the control stream that is as long ends the connection.
    control.write_all(&[0x21, 0xc0, 0, 0, 0, 0x40, 0, 0, 0]).await.unwrap();
    assert_eq!(closed(&quic).await, EXCESSIVE_LOAD);
}

/// Codes of HTTP/3 and of field compression (RFC 9114 §8.1, RFC 9204 §6).
const STREAM_CREATION_ERROR: VarInt = VarInt::from_u32(0x103);
const CLOSED_CRITICAL_STREAM: VarInt = VarInt::from_u32(0x104);
const FRAME_UNEXPECTED: VarInt = VarInt::from_u32(0x105);
const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(0x107);
const MISSING_SETTINGS: VarInt = VarInt::from_u32(0x10a);
const REQUEST_REJECTED: VarInt = VarInt::from_u32(0x10b);
const REQUEST_CANCELLED: VarInt = VarInt::from_u32(0x10c);
const DECOMPRESSION_FAILED: VarInt = VarInt::from_u32(0x200);

/// The code that the edge ends the connection with.
async fn closed(quic: &quinn::Connection) -> VarInt {
    let closed = timeout(PATIENCE, quic.closed()).await.unwrap();
    let ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed}") };
    close.error_code
}

/// The code that the edge ends an answer with.
async fn refused(receive: &mut quinn::RecvStream) -> VarInt {
    match timeout(PATIENCE, receive.read_to_end(4096)).await.unwrap() {
        Err(ReadToEndError::Read(ReadError::Reset(code))) => code,
        other => panic!("{other:?}"),
    }
}

/// What no client of HTTP/3 sends ends its connection, with the code that the standard has for it, and nobody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_breaks_the_rules_is_told_which() {
    let (endpoint, _) = noting();
    let site = Site::new(&endpoint, "", 1);
    let mut other = site.client().await;
    /// A stream of the client, of both directions or of one, and what it sends.
    type Sent<'s> = (bool, &'s [u8]);
    let cases: [(&str, &[Sent<'_>], VarInt); 8] = [
        ("data before a head", &[(false, &[0, 4, 0]), (true, &[0, 1, 7])], FRAME_UNEXPECTED),
        ("settings again", &[(false, &[0, 4, 0, 4, 0])], FRAME_UNEXPECTED),
        ("a head on the control stream", &[(false, &[0, 4, 0, 1, 2, 0, 0])], FRAME_UNEXPECTED),
        ("no settings", &[(false, &[0, 13, 1, 7])], MISSING_SETTINGS),
        ("two control streams", &[(false, &[0, 4, 0]), (false, &[0, 4, 0])], STREAM_CREATION_ERROR),
        ("a field of a table that is empty", &[(false, &[0, 4, 0]), (true, &[1, 3, 2, 0, 0x80])], DECOMPRESSION_FAILED),
        ("a table index that is nobody's", &[(false, &[0, 4, 0]), (true, &[1, 4, 0, 0, 0xff, 0x7f])], DECOMPRESSION_FAILED),
        ("no control stream any more", &[(false, &[0, 4, 0])], CLOSED_CRITICAL_STREAM),
    ];
    for (name, streams, code) in cases {
        let (_socket, quic) = site.dial("shop.example").await;
        let mut open = Vec::new();
        for (is_request, bytes) in streams {
            let (mut send, receive) = match is_request {
                true => quic.open_bi().await.map(|(send, receive)| (send, Some(receive))).unwrap(),
                false => (quic.open_uni().await.unwrap(), None),
            };
            send.write_all(bytes).await.unwrap();
            if code == CLOSED_CRITICAL_STREAM {
                send.finish().unwrap();
            }
            open.push((send, receive));
        }
        assert_eq!(closed(&quic).await, code, "{name}");
    }
    assert_eq!(other.ask(get("/"), b"").await.1, b"/");
}

/// Floods: whoever sends more than a client can need is sent away, and others do not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_too_much_is_sent_away() {
    let (endpoint, _) = noting();
    let site = Site::new(&endpoint, "", 1);
    let mut other = site.client().await;
    let control = async |quic: &quinn::Connection| {
        let mut control = quic.open_uni().await.unwrap();
        control.write_all(&[0, 4, 0]).await.unwrap();
        control
    };
    // Requests that are taken back, with a head and without one.
    for head in [raw_head(&[]), vec![1, 40, 0, 0]] {
        let (_socket, quic) = site.dial("shop.example").await;
        let _control = control(&quic).await;
        for _ in 0..100_000 {
            let Ok(Ok((mut send, mut receive))) = timeout(PATIENCE, quic.open_bi()).await else { break };
            drop(send.write_all(&head).await);
            drop((send.reset(REQUEST_CANCELLED), receive.stop(REQUEST_CANCELLED)));
        }
        assert_eq!(closed(&quic).await, EXCESSIVE_LOAD);
        assert_eq!(other.ask(get("/still"), b"").await.1, b"/still");
    }
    // Frames that carry nothing.
    for (is_request, frame) in [(false, &[13, 1, 7][..]), (false, &[0x21, 0]), (true, &[0x21, 1, 7]), (true, &[0, 0])] {
        let (_socket, quic) = site.dial("shop.example").await;
        let mut control = control(&quic).await;
        let flood = frame.repeat(2_000);
        let (mut send, _receive) = quic.open_bi().await.unwrap();
        if is_request {
            drop(send.write_all(&[raw_head(&[]), flood].concat()).await);
        } else {
            drop(control.write_all(&flood).await);
        }
        assert_eq!(closed(&quic).await, EXCESSIVE_LOAD, "{is_request} {frame:?}");
    }
    site.counts(Reason::Flood).await;
    assert_eq!(other.ask(get("/still"), b"").await.1, b"/still");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_on_which_nothing_comes_are_given_up_and_the_connection_goes_on() {
    let (endpoint, seen) = noting();
    let site = Site::new(&endpoint, "timeouts = { head = 1 }\n", 1);
    let mut client = site.client().await;
    let mut idle = Vec::new();
    for bytes in [&[1][..], &[1, 40, 0, 0]].repeat(20) {
        let (mut send, receive) = client.quic.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        idle.push((send, receive));
    }
    for (send, receive) in &mut idle {
        assert_eq!(refused(receive).await, REQUEST_REJECTED);
        assert_eq!(timeout(PATIENCE, send.stopped()).await.unwrap(), Ok(Some(REQUEST_REJECTED)));
    }
    site.counts(Reason::ClientHeadTimeout).await;
    assert_eq!(client.ask(get("/still"), b"").await.1, b"/still");
    assert_eq!(seen.lock().unwrap().len(), 1, "the endpoint was asked once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_counted_as_those_of_tcp_are() {
    let (endpoint, _) = noting();
    for (node, keys) in [("", "max_connections = 2\n"), ("proxy_connections = 2\n", "")] {
        let mut site = Site::new(&endpoint, keys, 1);
        site.text = site.text.replace("[node]\n", &format!("[node]\n{node}"));
        site.apply();
        let (mut first, second) = (site.client().await, site.client().await);
        let socket = site.socket();
        let third = timeout(PATIENCE, socket.connect(site.edge, "shop.example").unwrap()).await.unwrap();
        // The transport's, for it has not got as far as HTTP (RFC 9000 §20.1).
        let refused = matches!(&third, Err(ConnectionError::ConnectionClosed(close)) if u64::from(close.error_code) == 2);
        assert!(refused, "{third:?}");
        site.counts(Reason::Limit).await;
        assert_eq!(first.ask(get("/"), b"").await.1, b"/");
        second.quic.close(VarInt::from_u32(0x100), b"");
        let gone = async {
            while site.proxy.connections() > 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, gone).await.unwrap();
        assert_eq!(site.client().await.ask(get("/next"), b"").await.1, b"/next");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_changes_its_address_keeps_its_connection_and_connections_are_shared_out_to_threads() {
    let (endpoint, _) = noting();
    let site = Site::new(&endpoint, "timeouts = { first_byte = 60 }\n", 2);
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(site.client().await);
    }
    for (number, client) in clients.iter_mut().enumerate() {
        client.socket.rebind(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).unwrap();
        let target = format!("/{number}");
        assert_eq!(client.ask(get(&target), b"").await.1, target.as_bytes());
    }
    assert_eq!(site.proxy.connections(), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_certificates_are_shown_to_new_connections() {
    let (endpoint, _) = noting();
    let site = Site::new(&endpoint, "", 1);
    let shown = |quic: &quinn::Connection| {
        quic.peer_identity().unwrap().downcast::<Vec<CertificateDer<'static>>>().unwrap().remove(0).to_vec()
    };
    let mut old = site.client().await;
    let before = shown(&old.quic);
    let new = site.certify("shop.example");
    site.proxy.shared().tls.look(std::time::SystemTime::now() + Duration::from_secs(60));
    let after = shown(&site.client().await.quic);
    assert!(before != after && after == new);
    assert_eq!(old.ask(get("/"), b"").await.0.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_end_when_idle_and_when_the_edge_ends_and_no_request_is_lost() {
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let endpoint = Endpoint::new(11, move |stream| {
        answer(stream, |head| {
            if head.starts_with("GET /slow") {
                gate.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            }
            ("200 OK", "done".to_owned())
        });
    });
    let site = Site::new(&endpoint, "idle_timeout = 1\n", 1);
    let mut idle = site.client().await;
    assert_eq!(idle.ask(get("/"), b"").await.0.status(), 200);
    let ended = timeout(PATIENCE, idle.ended).await.unwrap().unwrap();
    assert!(ended.is_h3_no_error(), "{ended:?}");

    let mut client = site.client().await;
    let mut slow = client.begin(get("/slow")).await;
    slow.finish().await.unwrap();
    // It has got to the endpoint.
    while site.proxy.shared().view.load().listeners["lab/web"].endpoints[0].counts.active.get() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let Site { proxy, .. } = site;
    let stopping = tokio::task::spawn_blocking(move || proxy.stop(PATIENCE));
    tokio::time::sleep(Duration::from_millis(50)).await;
    go.send(()).unwrap();
    let (head, body, _) = end(&mut slow).await;
    assert_eq!((head.status().as_u16(), &body[..]), (200, &b"done"[..]));
    assert_eq!(stopping.await.unwrap(), 0);
    assert!(timeout(PATIENCE, client.ended).await.unwrap().unwrap().is_h3_no_error());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_handshakes_must_come_twice() {
    let (endpoint, _) = noting();
    let site = Site::new(&endpoint, "", 1);
    // First packets of clients that never say more: each is a handshake for ten seconds.
    let clients: Vec<_> = (0..65).map(|_| site.socket()).collect();
    let from = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    from.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut packet = [0; 2048];
    // A long header: the two bits of its type say what it is (RFC 9000 §17.2).
    let is_retry = |packet: &[u8]| packet[0] & 0xf0 == 0xf0;
    for (number, client) in clients.iter().enumerate() {
        let sink = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let connecting = client.connect(sink.local_addr().unwrap(), "shop.example").unwrap();
        let (length, _) = sink.recv_from(&mut packet).unwrap();
        drop(connecting);
        from.send_to(&packet[..length], site.edge).unwrap();
        // The last one is told to show that it is where it says.
        loop {
            let (length, _) = from.recv_from(&mut packet).unwrap_or_else(|error| panic!("{number}: {error}"));
            match is_retry(&packet[..length]) {
                true if number < 64 => panic!("client {number} was sent away"),
                false if number == 64 => {}
                _ => break,
            }
        }
    }
    // Which a real one does.
    assert_eq!(site.client().await.ask(get("/"), b"").await.0.status(), 200);
}
