//! WebSocket over HTTP/2 (RFC 8441), which endpoints see as the upgrade of HTTP/1.1: real clients and servers on loopback addresses.
#![allow(
    clippy::unwrap_used,
    clippy::result_large_err,
    reason = "a test fails by panicking; what a library refuses with is large"
)]

mod lab;
mod raw;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    pin::Pin,
    sync::mpsc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use ga::proxy::counts::Reason;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Method, Request, Response, body::Incoming, client::conn::http2, ext::Protocol};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lab::{Endpoint, Lab, becomes, field, read_head};
use raw::h2::{Came, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, RST_STREAM, SETTINGS, fields};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

/// A client that was told that it may ask for other protocols.
async fn client(lab: &Lab) -> http2::SendRequest<Empty<Bytes>> {
    let stream = tokio::net::TcpStream::connect(lab.address()).await.unwrap();
    let (sender, mut connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    while !connection.is_extended_connect_protocol_enabled() {
        assert!(Pin::new(&mut connection).now_or_never().is_none());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::spawn(connection);
    sender
}

fn connect(protocol: &'static str) -> Request<Empty<Bytes>> {
    let request = Request::builder().method(Method::CONNECT).uri("https://a.example/chat?room=1");
    let request = request.header("sec-websocket-version", "13").header("origin", "https://a.example");
    request.extension(Protocol::from_static(protocol)).body(Empty::new()).unwrap()
}

async fn asked(lab: &Lab) -> Response<Incoming> {
    client(lab).await.send_request(connect("websocket")).await.unwrap()
}

/// A server of WebSocket that says what it hears, and who asked.
fn echo() -> (Endpoint, mpsc::Receiver<String>) {
    let (heads, seen) = mpsc::channel();
    let endpoint = Endpoint::new(2, move |stream| {
        let noted = |request: &_, response| {
            heads.send(format!("{request:?}")).unwrap();
            Ok(response)
        };
        let Ok(mut socket) = tokio_tungstenite::tungstenite::accept_hdr(stream, noted) else { return };
        while let Ok(message) = socket.read() {
            if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
                return;
            }
        }
    });
    (endpoint, seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_of_http2_speaks_to_a_server_that_knows_http1() {
    let (endpoint, seen) = echo();
    let lab = Lab::http2(&endpoint, &[2], "");
    let mut sender = client(&lab).await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let response = sender.send_request(connect("websocket")).await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        for of_http1 in ["sec-websocket-accept", "upgrade", "connection"] {
            assert!(!response.headers().contains_key(of_http1), "{response:?}");
        }
        let stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        sockets.push(WebSocketStream::from_raw_socket(stream, Role::Client, None).await);
        let head = seen.recv().unwrap();
        for there in ["GET", "/chat?room=1", "\"origin\"", "\"x-forwarded-for\": \"127.0.0.1\""] {
            assert!(head.contains(there), "{there}: {head}");
        }
    }
    // More than any window takes.
    let large = Message::binary(vec![7; 3_000_000]);
    for socket in &mut sockets {
        for message in [Message::text("hello"), large.clone()] {
            let (mut out, mut back) = socket.split();
            let (sent, answer) = tokio::join!(out.send(message.clone()), back.next());
            sent.unwrap();
            assert!(answer.unwrap().unwrap() == message);
        }
    }
    let counts = &lab.listener().counts;
    becomes(3, || counts.statuses[0].get());
    assert_eq!(counts.statuses[1].get(), 0, "it is counted as the upgrade that it is");
    assert_eq!(lab.listener().groups[0].load.requests(), 3, "each holds its place");
    for mut socket in sockets {
        socket.close(None).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    }
    becomes(0, || lab.listener().groups[0].load.requests());
    assert!(counts.bytes_out.get() > 9_000_000 && counts.bytes_in.get() > 9_000_000);
}

/// An endpoint whose answer to everything is this.
fn says(answer: &'static str) -> Endpoint {
    Endpoint::new(2, move |mut stream| {
        while read_head(&mut stream).is_some() {
            stream.write_all(answer.as_bytes()).unwrap();
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_answer_of_websocket_opens_no_tunnel() {
    for (answer, status) in [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 403),
        ("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", 302),
        // 2xx would say that the tunnel stands.
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 502),
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 502),
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            502,
        ),
    ] {
        let lab = Lab::http2(&says(answer), &[2], "");
        let response = asked(&lab).await;
        assert_eq!(response.status().as_u16(), status, "{answer}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body == "no", status == 403, "{body:?}");
        becomes(u64::from(status == 502), || lab.listener().counts.reasons.get(Reason::BadAnswer));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_a_websocket_is_not_served() {
    let nobody = || Endpoint::new(2, |_| panic!("nobody is asked"));
    let rule = "[[instance.listener.rule]]\nname = \"hello\"\nwhen = [{ path = \"/chat\" }]\ndo = [{ fixed_response = { code = 200 } }]\n";
    let http2 = "backend_protocol = \"https\"\nbackend_protocol_version = \"http2\"\nverify = false\n";
    for (lab, protocol) in [
        (Lab::http2(&nobody(), &[2], ""), "connect-udp"),
        // An answer of 200 would say that the tunnel stands.
        (Lab::http2(&nobody(), &[2], rule), "websocket"),
        (Lab::https2(&nobody(), &[2], http2), "websocket"),
    ] {
        let response = client(&lab).await.send_request(connect(protocol)).await.unwrap();
        assert_eq!(response.status().as_u16(), 501);
        becomes(1, || lab.listener().counts.reasons.get(Reason::Method));
    }
}

/// An endpoint whose connections are given to the test, with the head of what they were asked, and the right answer to it.
fn held() -> (Endpoint, mpsc::Receiver<(TcpStream, String)>) {
    let (streams, given) = mpsc::channel();
    let endpoint = Endpoint::new(2, move |mut stream| {
        let key = field(&read_head(&mut stream).unwrap(), "sec-websocket-key").unwrap();
        let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        streams.send((stream, answer)).unwrap();
    });
    (endpoint, given)
}

/// A client, frame by frame, whose stream 1 is a tunnel to the endpoint's connection.
fn opened(keys: &str) -> (Lab, Http2, TcpStream) {
    let (endpoint, given) = held();
    let lab = Lab::http2(&endpoint, &[2], keys);
    let mut client = Http2::new(&lab);
    ask(&mut client);
    let (mut stream, answer) = given.recv().unwrap();
    stream.write_all(answer.as_bytes()).unwrap();
    assert_eq!(client.outcome(1), Came::Status(200));
    (lab, client, stream)
}

fn ask(client: &mut Http2) {
    let head = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":authority", "a.example"),
        (":path", "/"),
        ("sec-websocket-version", "13"),
    ];
    client.send(HEADERS, END_HEADERS, 1, &fields(head));
}

/// The next DATA of stream 1, and whether it is the last.
fn data(client: &mut Http2) -> (Vec<u8>, bool) {
    let frame = std::iter::from_fn(|| client.next()).find(|frame| frame.kind == DATA && frame.stream == 1).unwrap();
    (frame.payload, frame.flags & END_STREAM != 0)
}

fn read<const N: usize>(stream: &mut TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn nothing_passes_before_the_endpoints_101() {
    let (endpoint, given) = held();
    let lab = Lab::http2(&endpoint, &[2], "");
    let mut client = Http2::new(&lab);
    let settings = std::iter::from_fn(|| client.next()).find(|frame| frame.kind == SETTINGS).unwrap().payload;
    assert!(settings.chunks(6).any(|setting| setting == [0, 8, 0, 0, 0, 1]), "RFC 8441 section 3: {settings:?}");
    ask(&mut client);
    client.send(DATA, 0, 1, b"early");
    let (mut stream, answer) = given.recv().unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    stream.write_all(format!("{answer}first").as_bytes()).unwrap();
    assert_eq!(client.outcome(1), Came::Status(200));
    assert_eq!(data(&mut client).0, b"first");
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(&read(&mut stream), b"early");
}

#[test]
fn the_end_of_one_direction_is_not_the_end_of_the_other() {
    let (_lab, mut client, mut stream) = opened("");
    client.send(DATA, END_STREAM, 1, b"last");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"last");
    stream.write_all(b"bye").unwrap();
    assert_eq!(data(&mut client).0, b"bye");
    drop(stream);
    assert_eq!(data(&mut client), (Vec::new(), true));
}

#[test]
fn a_reset_and_a_lost_client_end_the_endpoints_connection() {
    let (lab, mut client, mut stream) = opened("");
    client.send(RST_STREAM, 0, 1, &8_u32.to_be_bytes());
    // Nothing was said in either direction: without a reset this would be the end of one of them only.
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    becomes(0, || lab.listener().groups[0].load.requests());
    let (lab, client, mut stream) = opened("");
    drop(client);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    becomes(0, || lab.listener().groups[0].load.requests());
}

#[test]
fn a_tunnel_lives_as_long_as_something_is_said_and_its_connection_with_it() {
    let (_lab, mut client, mut stream) = opened("idle_timeout = 1\ntimeouts = { tunnel = 3 }\n");
    // Longer than a connection may have nothing to do.
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(1_500));
        stream.write_all(b"tick").unwrap();
        assert_eq!(data(&mut client).0, b"tick");
    }
    let begun = std::time::Instant::now();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "and no longer than it may be silent");
    assert!(begun.elapsed() > Duration::from_secs(2));
    assert_eq!(data(&mut client), (Vec::new(), true));
    assert!(client.goaway().is_some(), "nothing is left to do");
}

#[test]
fn a_tunnel_outlives_the_beginning_of_a_drain() {
    let (lab, mut client, mut stream) = opened("");
    lab.drain();
    while client.next().unwrap().kind != GOAWAY {}
    client.send(DATA, 0, 1, b"still");
    assert_eq!(&read(&mut stream), b"still");
    stream.write_all(b"here").unwrap();
    assert_eq!(data(&mut client).0, b"here");
    drop(stream);
    client.send(DATA, END_STREAM, 1, b"");
    assert_eq!(data(&mut client), (Vec::new(), true));
}
