//! Clients that are slow, silent, greedy or hostile: what they hold is bounded, and others are served as if they were not there.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;
mod raw;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use lab::{Endpoint, Lab, answer, read_head};
use raw::{
    Witness,
    h2::{
        CONTINUATION, Came, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, PING, PRIORITY, RST_STREAM, SETTINGS,
        WINDOW_UPDATE, fields, frame, integer, request,
    },
    somebody_else,
};

const QUICK: &str = "idle_timeout = 1\ntimeouts = { first_byte = 1, head = 1, body = 1, write = 1 }\n";
/// Codes of RFC 9113 §7.
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

/// A client that reads until the end, and how long that took. A reset is an end.
fn ends(stream: &mut TcpStream) -> (String, Duration) {
    let begun = Instant::now();
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        bytes.extend_from_slice(&piece[..read]);
    }
    (String::from_utf8_lossy(&bytes).into_owned(), begun.elapsed())
}

/// Somewhere between too early and too late, for a deadline of one second on a machine that does other things too.
fn is_about_a_second(took: Duration) -> bool {
    (Duration::from_millis(700)..Duration::from_secs(10)).contains(&took)
}

#[test]
fn silence_ends_with_the_first_deadline_that_passes() {
    let witness = Witness::default();
    let lab = Lab::new(&witness.endpoint(), &[2], QUICK);
    let cases: [(&str, &str); 5] = [
        ("", ""),
        ("GET / HT", "408"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: ", "408"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc", "408"),
        ("GET /served HTTP/1.1\r\nHost: a\r\n\r\n", "200"),
    ];
    for (bytes, status) in cases {
        let mut client = lab.client();
        client.send(bytes);
        let (heard, took) = ends(&mut client.stream);
        assert_eq!(heard.get(9..12).unwrap_or_default(), status, "{bytes:?}: {heard}");
        assert!(is_about_a_second(took), "{bytes:?} took {took:?}");
    }
}

/// A byte now and then does not keep a head alive: the deadline is the whole head's.
#[test]
fn a_head_that_trickles_is_cut_while_others_are_served() {
    let witness = Witness::default();
    let lab = Lab::new(&witness.endpoint(), &[2], QUICK);
    let mut slow: Vec<_> = (0..20).map(|_| lab.client()).collect();
    let begun = Instant::now();
    let mut sent = 0;
    for byte in b"GET / HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".chunks(1) {
        sent += usize::from(slow.iter_mut().all(|client| client.stream.write_all(byte).is_ok()));
        let served = Instant::now();
        somebody_else(&lab, "/quick");
        assert!(served.elapsed() < Duration::from_millis(700), "others wait");
        std::thread::sleep(Duration::from_millis(100));
        if begun.elapsed() > Duration::from_secs(4) {
            break;
        }
    }
    assert!(sent > 3, "the test did not trickle");
    for client in &mut slow {
        let (heard, _) = ends(&mut client.stream);
        // Bytes that were on their way when the connection was closed may have it reset.
        assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 408"), "{heard}");
    }
    assert!(witness.take().iter().all(|seen| seen.head.starts_with("GET /quick ")));
}

#[test]
fn a_client_that_does_not_read_is_cut() {
    let endpoint = Endpoint::new(2, |mut stream| {
        while let Some(head) = read_head(&mut stream) {
            let size = if head.starts_with("GET /large") { 64 << 20 } else { 0 };
            let piece = vec![0; 1 << 16];
            if write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").is_err() {
                return;
            }
            for _ in 0..size >> 16 {
                if stream.write_all(&piece).is_err() {
                    return;
                }
            }
        }
    });
    let lab = Lab::new(&endpoint, &[2], QUICK);
    let mut client = lab.client();
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    // It reads nothing for longer than it may, and then what is left.
    std::thread::sleep(Duration::from_secs(3));
    let mut read = 0;
    let mut piece = vec![0; 1 << 16];
    while let Ok(count @ 1..) = client.stream.read(&mut piece) {
        read += count;
    }
    assert!(read < 64 << 20, "all of it came");
}

// HTTP/2.

fn http2(keys: &str) -> (Witness, Lab) {
    let witness = Witness::default();
    let lab = Lab::http2(&witness.endpoint(), &[2], keys);
    (witness, lab)
}

/// A request of somebody who does nothing wrong.
fn is_served(lab: &Lab, path: &str) {
    let mut client = Http2::new(lab);
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &request("GET", path, &[]));
    assert_eq!(client.outcome(1), Came::Status(200));
}

#[test]
fn heads_of_http2_that_are_no_requests_reach_nobody() {
    let (witness, lab) = http2("");
    let get = |path: &str| request("GET", path, &[]);
    let with = |name: &str, value: &str| request("GET", "/", &[(name, value)]);
    let pseudo = |fields_: &[(&str, &str)]| fields(fields_.iter().copied());
    let heads: Vec<(&str, Vec<u8>)> = vec![
        ("empty path", get("")),
        ("path without a slash", get("x")),
        ("space in path", get("/a b")),
        ("line in path", get("/a\r\nX: 1")),
        ("star", get("*")),
        ("fragment", get("/a#b")),
        ("encoded separator", get("/a%2fb")),
        ("above the root", get("/../b")),
        ("method with a mark that is no token", request("GET?", "/", &[])),
        ("method with a line", request("GET /x HTTP/1.1\r\n", "/", &[])),
        ("empty method", request("", "/", &[])),
        ("CONNECT", pseudo(&[(":method", "CONNECT"), (":authority", "a:443")])),
        ("TRACE", request("TRACE", "/", &[])),
        ("scheme with more", pseudo(&[(":method", "GET"), (":scheme", "http://evil/"), (":authority", "a"), (":path", "/")])),
        ("no scheme", pseudo(&[(":method", "GET"), (":authority", "a"), (":path", "/")])),
        ("no path", pseudo(&[(":method", "GET"), (":scheme", "http"), (":authority", "a")])),
        ("no method", pseudo(&[(":scheme", "http"), (":authority", "a"), (":path", "/")])),
        ("no authority", pseudo(&[(":method", "GET"), (":scheme", "http"), (":path", "/")])),
        ("authority with a path", pseudo(&[(":method", "GET"), (":scheme", "http"), (":authority", "a/b"), (":path", "/")])),
        ("authority with a user", pseudo(&[(":method", "GET"), (":scheme", "http"), (":authority", "u@a"), (":path", "/")])),
        ("authority with a space", pseudo(&[(":method", "GET"), (":scheme", "http"), (":authority", "a b"), (":path", "/")])),
        ("another host", with("host", "b.example")),
        ("two paths", with(":path", "/b")),
        ("two hosts", request("GET", "/", &[("host", "a.example"), ("host", "b.example")])),
        ("pseudo after a field", request("GET", "/", &[("x", "1"), (":authority", "b")])),
        ("unknown pseudo", with(":evil", "1")),
        ("status", with(":status", "200")),
        (
            "extended CONNECT",
            pseudo(&[
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "http"),
                (":authority", "a"),
                (":path", "/"),
            ]),
        ),
        ("upper case", with("X-Evil", "1")),
        ("empty name", with("", "1")),
        ("space in name", with("x y", "1")),
        ("colon in name", with("x:y", "1")),
        ("line in name", with("x\r\ny", "1")),
        ("NUL in name", with("x\0", "1")),
        ("CR in value", with("x", "a\rb")),
        ("LF in value", with("x", "a\nb")),
        ("NUL in value", with("x", "a\0b")),
        ("connection", with("connection", "close")),
        ("keep-alive", with("keep-alive", "5")),
        ("proxy-connection", with("proxy-connection", "close")),
        ("upgrade", with("upgrade", "x")),
        ("transfer-encoding", with("transfer-encoding", "chunked")),
        ("te", with("te", "gzip")),
        ("length and no body", with("content-length", "5")),
        ("length with a sign", with("content-length", "+0")),
        ("two lengths", request("GET", "/", &[("content-length", "0"), ("content-length", "1")])),
    ];
    let mut wrong = Vec::new();
    for (name, head) in heads {
        let mut client = Http2::new(&lab);
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, &head);
        let came = client.outcome(1);
        let seen = witness.take();
        if !came.is_refusal() || !seen.is_empty() {
            wrong.push(format!("{name}: {came:?}, seen: {seen:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    is_served(&lab, "/other");
}

#[test]
fn heads_of_http2_become_heads_of_http1() {
    let (witness, lab) = http2("");
    let mut client = Http2::new(&lab);
    let head = request("get", "/a/../b?c", &[("cookie", "a=1"), ("te", "trailers"), ("cookie", "b=2"), ("host", "a.example")]);
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &head);
    assert_eq!(client.outcome(1), Came::Status(200));
    let seen = witness.take().remove(0).head;
    assert!(seen.starts_with("get /b?c HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains("cookie: a=1; b=2\r\n") && seen.matches("host: ").count() == 1, "{seen}");
}

#[test]
fn a_body_of_another_length_than_said_ends_its_stream_and_the_endpoints_connection() {
    let (witness, lab) = http2("");
    for body in ["abcd", "abcdef"] {
        let mut client = Http2::new(&lab);
        client.send(HEADERS, END_HEADERS, 1, &request("POST", "/", &[("content-length", "5")]));
        client.send(DATA, END_STREAM, 1, body.as_bytes());
        assert!(client.outcome(1).is_refusal(), "{body}");
        is_served(&lab, "/other");
    }
    let paths: Vec<String> = witness.take().iter().map(|seen| seen.head.split(' ').nth(1).unwrap().to_owned()).collect();
    assert!(!paths.contains(&"/".to_owned()), "{paths:?}");
}

#[test]
fn trailers_of_http2_bring_nothing_that_belongs_into_the_head() {
    let (witness, lab) = http2("");
    let mut client = Http2::new(&lab);
    client.send(HEADERS, END_HEADERS, 1, &request("POST", "/", &[]));
    client.send(DATA, 0, 1, b"Z");
    let trailers = fields([("content-length", "5"), ("host", "evil"), ("authorization", "evil"), ("x-sum", "1")]);
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &trailers);
    assert_eq!(client.outcome(1), Came::Status(200));
    let seen = witness.take().remove(0);
    assert_eq!((&*seen.body, &*seen.rest), ("Z", "1\r\nZ\r\n0\r\nx-sum: 1\r\n\r\n"));
    client.send(HEADERS, END_HEADERS, 3, &request("POST", "/", &[]));
    client.send(HEADERS, END_HEADERS | END_STREAM, 3, &fields([(":path", "/evil")]));
    assert!(client.outcome(3).is_refusal());
}

/// Sends frames until the connection takes no more, and says what it ended with and how many frames it took.
fn flood(lab: &Lab, most: u32, mut frames: impl FnMut(u32) -> Vec<u8>) -> (Option<u32>, u32) {
    let mut client = Http2::new(lab);
    let mut reader = Http2 { stream: client.stream.try_clone().unwrap() };
    let reading = std::thread::spawn(move || reader.goaway());
    let mut sent = 0;
    while sent < most && client.stream.write_all(&frames(sent)).is_ok() {
        sent += 1;
    }
    (reading.join().unwrap(), sent)
}

#[test]
fn resets_by_the_thousand_end_the_connection() {
    let endpoint = Endpoint::new(2, |stream| answer(stream, |_| ("200 OK", String::new())));
    let lab = Lab::http2(&endpoint, &[2], "");
    let head = request("GET", "/", &[]);
    let (code, _) = flood(&lab, 10_000, |at| {
        let stream = at * 2 + 1;
        [frame(HEADERS, END_HEADERS | END_STREAM, stream, &head), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    });
    assert_eq!(code, Some(ENHANCE_YOUR_CALM));
    is_served(&lab, "/");
}

#[test]
fn streams_that_the_edge_must_reset_by_the_thousand_end_the_connection() {
    let (_, lab) = http2("");
    let head = request("POST", "/", &[]);
    let (code, sent) = flood(&lab, 10_000, |at| {
        let stream = at * 2 + 1;
        [frame(HEADERS, END_HEADERS, stream, &head), frame(WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes())].concat()
    });
    assert!(code.is_some_and(|code| code > 0) && sent < 10_000, "{code:?} after {sent}");
    is_served(&lab, "/");
}

#[test]
fn a_head_without_an_end_ends_the_connection() {
    let (witness, lab) = http2("");
    let piece = fields([("x", &*"a".repeat(8000))]);
    let (code, sent) = flood(&lab, 10_000, |at| match at {
        0 => frame(HEADERS, 0, 1, &request("GET", "/", &[])),
        _ => frame(CONTINUATION, 0, 1, &piece),
    });
    assert!(code.is_some_and(|code| code > 0) && sent < 1000, "{code:?} after {sent}");
    let (code, sent) = flood(&lab, 1_000_000, |at| match at {
        0 => frame(HEADERS, 0, 1, &request("GET", "/", &[])),
        _ => frame(CONTINUATION, 0, 1, &[]),
    });
    assert!(code.is_some_and(|code| code > 0) && sent < 1_000_000, "{code:?} after {sent}");
    assert!(witness.take().is_empty());
}

/// A field that is remembered and then named five thousand times is as large as what it stands for.
#[test]
fn a_head_is_as_large_as_what_it_stands_for() {
    let (witness, lab) = http2("");
    let value = "a".repeat(3900);
    let mut block = request("GET", "/", &[]);
    block.push(0x40);
    block.extend(integer(1, 7, 0));
    block.push(b'x');
    block.extend(integer(value.len(), 7, 0));
    block.extend(value.as_bytes());
    block.extend([0x80 | 62; 5000]);
    let mut client = Http2::new(&lab);
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    let came = client.outcome(1);
    assert!(came.is_refusal(), "{came:?}");
    assert!(witness.take().is_empty());
    is_served(&lab, "/");
}

/// Frames that cost an answer each are not answered without end to a client that does not read.
#[test]
fn frames_that_want_answers_are_bounded() {
    let (_, lab) = http2(QUICK);
    for kind in [PING, SETTINGS] {
        let mut client = Http2::new(&lab);
        client.stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        let payload: &[u8] = if kind == PING { &[0; 8] } else { &[] };
        let many = frame(kind, 0, 0, payload).repeat(1000);
        // 34 MB of them, and nothing is read.
        let sent = (0..2000).take_while(|_| client.stream.write_all(&many).is_ok()).count();
        assert!(sent < 2000, "kind {kind}: all were taken");
        is_served(&lab, "/");
    }
    for frames in [frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 0]), frame(DATA, 0, 1, &[])] {
        let mut client = Http2::new(&lab);
        client.send(HEADERS, END_HEADERS, 1, &request("POST", "/", &[]));
        // They cost nothing but reading them, or end the connection.
        for _ in 0..100 {
            drop(client.stream.write_all(&frames.repeat(100)));
        }
        is_served(&lab, "/");
    }
}

#[test]
fn windows_that_overflow_end_the_connection() {
    let (_, lab) = http2("");
    let setting = |value: u32| frame(SETTINGS, 0, 0, &[&4_u16.to_be_bytes()[..], &value.to_be_bytes()].concat());
    for bytes in [setting(u32::MAX), frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes())] {
        let mut client = Http2::new(&lab);
        client.stream.write_all(&bytes).unwrap();
        assert_eq!(client.goaway(), Some(3), "{bytes:?}");
    }
    let mut client = Http2::new(&lab);
    client.stream.write_all(&[setting(0), setting(0x7fff_ffff)].concat()).unwrap();
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &request("GET", "/", &[]));
    assert_eq!(client.outcome(1), Came::Status(200));
    is_served(&lab, "/");
}

#[test]
fn more_streams_than_allowed_are_refused_and_may_be_tried_again() {
    let endpoint = Endpoint::new(2, |mut stream| {
        // Keeps its clients waiting.
        while let Some(head) = read_head(&mut stream) {
            if head.starts_with("GET /quick ") {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            }
        }
    });
    let lab = Lab::http2(&endpoint, &[2], "");
    let mut client = Http2::new(&lab);
    // What the edge allows is known to the client before it asks.
    while client.next().is_none_or(|frame| frame.kind != SETTINGS || frame.flags != 1) {}
    let mut refused = 0;
    for at in 0..120 {
        client.send(HEADERS, END_HEADERS | END_STREAM, at * 2 + 1, &request("GET", "/slow", &[]));
    }
    client.patience(Duration::from_secs(2));
    while let Some(frame) = client.next() {
        assert_ne!(frame.kind, GOAWAY, "{frame:?}");
        if frame.kind == RST_STREAM {
            assert_eq!(frame.payload, REFUSED_STREAM.to_be_bytes());
            refused += 1;
        }
    }
    assert_eq!(refused, 20);
    is_served(&lab, "/quick");
}

#[test]
fn silent_connections_of_http2_end() {
    let (_, lab) = http2(QUICK);
    let (mut nothing, mut preface, mut half) = (lab.client().stream, Http2::bare(&lab), lab.client().stream);
    half.write_all(b"PRI * HT").unwrap();
    let mut idle = Http2::new(&lab);
    for stream in [&mut nothing, &mut preface.stream, &mut half, &mut idle.stream] {
        let (_, took) = ends(stream);
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
    // The clock of each began before the one before it had ended; at least one shows that there is a wait at all.
    let begun = Instant::now();
    let mut idle = Http2::new(&lab);
    idle.send(HEADERS, END_HEADERS | END_STREAM, 1, &request("GET", "/", &[]));
    assert_eq!(idle.outcome(1), Came::Status(200));
    ends(&mut idle.stream);
    assert!(is_about_a_second(begun.elapsed()), "{:?}", begun.elapsed());
}

/// Streams whose answers nobody takes are ended, and what is kept for them is bounded by windows.
#[test]
fn answers_that_are_not_taken_end_the_connection() {
    let endpoint = Endpoint::new(2, |stream| answer(stream, |_| ("200 OK", "a".repeat(1 << 20))));
    let lab = Lab::http2(&endpoint, &[2], QUICK);
    let mut client = Http2::bare(&lab);
    // No stream may send anything.
    client.send(SETTINGS, 0, 0, &[&4_u16.to_be_bytes()[..], &0_u32.to_be_bytes()].concat());
    for at in 0..50 {
        client.send(HEADERS, END_HEADERS | END_STREAM, at * 2 + 1, &request("GET", "/", &[]));
    }
    let begun = Instant::now();
    let mut resets = 0;
    while let Some(frame) = client.next() {
        resets += usize::from(frame.kind == RST_STREAM);
        if resets == 50 || frame.kind == GOAWAY {
            break;
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?} for {resets} resets", begun.elapsed());
}
