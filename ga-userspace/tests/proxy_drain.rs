//! How connections end when the edge does, or when their listener goes: after what they are at, and told so.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;
mod raw;

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use ga::proxy::{Proxy, View};
use lab::{Client, Endpoint, Lab, answer, field, read_head};
use raw::h2::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, PING, SETTINGS, request};

const PATIENCE: Duration = Duration::from_secs(20);

/// RFC 9113 §6.8: first that nothing more should come, and when that must have arrived, what was the last that did.
#[test]
fn http2_is_told_twice_that_the_edge_ends() {
    let endpoint = Endpoint::new(2, |stream| answer(stream, |_| ("200 OK", "hello".to_owned())));
    let lab = Lab::http2(&endpoint, &[2], "");
    let mut client = Http2::new(&lab);
    client.patience(PATIENCE);
    // Half a request, which the edge waits for.
    client.send(HEADERS, END_HEADERS, 1, &request("POST", "/", &[("content-length", "3")]));
    client.send(DATA, 0, 1, b"a");
    while client.next().unwrap().kind != SETTINGS {}
    lab.drain();
    let (mut last, mut pinged, mut answers) = (Vec::new(), false, BTreeMap::new());
    // The first request is answered after the second GOAWAY, and the connection ends then.
    while let Some(frame) = client.next() {
        match frame.kind {
            GOAWAY => {
                let number = |at: usize| u32::from_be_bytes(frame.payload[at..at + 4].try_into().unwrap());
                assert_eq!(number(4), 0, "no error");
                last.push(number(0));
                match last[..] {
                    // What is on its way meanwhile is served.
                    [_] => assert!(client.send(HEADERS, END_HEADERS | END_STREAM, 3, &request("GET", "/late", &[]))),
                    _ => assert!(client.send(DATA, END_STREAM, 1, b"bc")),
                }
            }
            PING if frame.flags & 1 == 0 => {
                assert_eq!(last, [0x7fff_ffff], "it is asked whether the first one arrived");
                pinged = true;
                assert!(client.send(PING, 1, 0, &frame.payload));
            }
            HEADERS => drop(answers.insert(frame.stream, frame.payload[0])),
            _ => {}
        }
    }
    assert!(pinged);
    assert_eq!(last, [0x7fff_ffff, 3], "the second one names the last request that came");
    assert_eq!(answers.into_keys().collect::<Vec<_>>(), [1, 3], "both are answered");
}

fn site(port: u16, name: &str) -> String {
    lab::listener(port, &[2], "", 255).replace("\"web\"", &format!("{name:?}"))
}

fn client(port: u16) -> Client {
    let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Client { stream }
}

/// Answers at once, or never.
fn endpoint() -> Endpoint {
    Endpoint::new(2, |mut stream| {
        while let Some(head) = read_head(&mut stream) {
            if head.contains("/never") {
                std::thread::sleep(PATIENCE);
            }
            let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
            stream.read_exact(&mut vec![0; length]).unwrap();
            std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        }
    })
}

#[test]
fn what_has_not_ended_in_time_is_cut() {
    let endpoint = endpoint();
    let mut proxy = Proxy::start(2).unwrap();
    let unbound = proxy.apply(lab::planned(&site(endpoint.port, "web"), &View::default()).1);
    assert!(unbound.is_empty(), "{unbound:?}");
    let mut clients: Vec<_> = (0..8).map(|_| client(endpoint.port)).collect();
    for client in &mut clients {
        client.send("GET /never HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let mut idle = client(endpoint.port);
    idle.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(proxy.stop(Duration::from_millis(300)), 8, "those that are waited for in vain, not the idle one");
    for client in clients.iter_mut().chain([&mut idle]) {
        match client.stream.read(&mut [0]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("the process lives, the connection does not: {other:?}"),
        }
    }
}

#[test]
fn connections_of_a_listener_that_goes_end_after_what_they_are_at() {
    let endpoint = endpoint();
    let other = endpoint.port ^ 1;
    let mut proxy = Proxy::start(2).unwrap();
    let first = lab::planned(&site(endpoint.port, "web"), &View::default()).1;
    assert!(proxy.apply(first).is_empty());
    let (mut idle, mut busy) = (client(endpoint.port), client(endpoint.port));
    idle.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    busy.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na");
    std::thread::sleep(Duration::from_millis(200));
    let before = proxy.shared().view.load_full();
    let second = lab::planned(&site(other, "other"), &before).1;
    proxy.apply(second);
    assert_eq!(idle.stream.read(&mut [0]).unwrap(), 0, "nothing was asked: it ends");
    busy.send("bc");
    let head = busy.head();
    assert!(head.starts_with("HTTP/1.1 200 "), "what was begun is done as before: {head}");
    assert_eq!(field(&head, "connection").as_deref(), Some("close"), "{head}");
    // What was on its way is served once; soon nobody listens.
    let mut late = client(endpoint.port);
    let (head, _) = late.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(field(&head, "connection").as_deref(), Some("close"), "{head}");
    let start = std::time::Instant::now();
    let refused = loop {
        match TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], endpoint.port))) {
            Err(error) => break error,
            Ok(_) => assert!(start.elapsed() < PATIENCE, "somebody still listens"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(proxy.stop(Duration::from_secs(5)), 0);
}
