//! Clients of HTTP/2 that are greedy or hostile, frame by frame: nothing of what is refused reaches an endpoint, what they hold is
//! bounded, and others are served as if they were not there.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;
mod raw;

use std::{io::Write, time::Duration};

use lab::{Endpoint, Lab, answer, read_head};
use raw::{
    Witness,
    h2::{
        CONTINUATION, Came, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, RST_STREAM, SETTINGS, WINDOW_UPDATE, fields,
        frame, integer, request,
    },
};

/// Codes of RFC 9113 §7.
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

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

/// The stream is reset: PROTOCOL_ERROR (RFC 9113 §8.1.1).
const MALFORMED: Came = Came::Reset(1);
/// The connection ends with the same: what cannot be a field at all.
const BROKEN: Came = Came::Goaway(1);
/// What HTTP/2 lets pass is answered.
const BAD_REQUEST: Came = Came::Status(400);
const METHOD: Came = Came::Status(499);

#[test]
fn heads_of_http2_that_are_no_requests_reach_nobody() {
    let (witness, lab) = http2("");
    let get = |path: &str| request("GET", path, &[]);
    let with = |name: &str, value: &str| request("GET", "/", &[(name, value)]);
    let pseudo = |fields_: &[(&str, &str)]| fields(fields_.iter().copied());
    let heads: Vec<(&str, Came, Vec<u8>)> = vec![
        ("empty path", MALFORMED, get("")),
        ("path without a slash", MALFORMED, get("x")),
        ("space in path", MALFORMED, get("/a b")),
        ("line in path", MALFORMED, get("/a\r\nX: 1")),
        ("star", BAD_REQUEST, get("*")),
        ("encoded separator", BAD_REQUEST, get("/a%2fb")),
        ("above the root", BAD_REQUEST, get("/../b")),
        ("method with a mark that is no token", BROKEN, request("GET?", "/", &[])),
        ("method with a line", BROKEN, request("GET /x HTTP/1.1\r\n", "/", &[])),
        ("empty method", BROKEN, request("", "/", &[])),
        ("CONNECT", METHOD, pseudo(&[(":method", "CONNECT"), (":authority", "a:443")])),
        ("TRACE", METHOD, request("TRACE", "/", &[])),
        (
            "scheme with more",
            MALFORMED,
            pseudo(&[(":method", "GET"), (":scheme", "http://evil/"), (":authority", "a"), (":path", "/")]),
        ),
        ("no scheme", MALFORMED, pseudo(&[(":method", "GET"), (":authority", "a"), (":path", "/")])),
        ("no path", MALFORMED, pseudo(&[(":method", "GET"), (":scheme", "http"), (":authority", "a")])),
        ("no method", MALFORMED, pseudo(&[(":scheme", "http"), (":authority", "a"), (":path", "/")])),
        ("no authority", BAD_REQUEST, pseudo(&[(":method", "GET"), (":scheme", "http"), (":path", "/")])),
        (
            "authority with a path",
            MALFORMED,
            pseudo(&[(":method", "GET"), (":scheme", "http"), (":authority", "a/b"), (":path", "/")]),
        ),
        (
            "authority with a user",
            BAD_REQUEST,
            pseudo(&[(":method", "GET"), (":scheme", "http"), (":authority", "u@a"), (":path", "/")]),
        ),
        (
            "authority with a space",
            MALFORMED,
            pseudo(&[(":method", "GET"), (":scheme", "http"), (":authority", "a b"), (":path", "/")]),
        ),
        ("another host", BAD_REQUEST, with("host", "b.example")),
        ("two paths", MALFORMED, with(":path", "/b")),
        ("two hosts", BAD_REQUEST, request("GET", "/", &[("host", "a.example"), ("host", "b.example")])),
        ("pseudo after a field", MALFORMED, request("GET", "/", &[("x", "1"), (":authority", "b")])),
        ("unknown pseudo", BROKEN, with(":evil", "1")),
        ("status", MALFORMED, with(":status", "200")),
        ("protocol without CONNECT", MALFORMED, request("GET", "/", &[(":protocol", "websocket")])),
        (
            "extended CONNECT without a path",
            MALFORMED,
            pseudo(&[(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "a")]),
        ),
        (
            "extended CONNECT without an authority",
            BAD_REQUEST,
            pseudo(&[(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/")]),
        ),
        ("upper case", BROKEN, with("X-Evil", "1")),
        ("empty name", BROKEN, with("", "1")),
        ("space in name", BROKEN, with("x y", "1")),
        ("colon in name", BROKEN, with("x:y", "1")),
        ("line in name", BROKEN, with("x\r\ny", "1")),
        ("NUL in name", BROKEN, with("x\0", "1")),
        ("CR in value", BROKEN, with("x", "a\rb")),
        ("LF in value", BROKEN, with("x", "a\nb")),
        ("NUL in value", BROKEN, with("x", "a\0b")),
        ("connection", MALFORMED, with("connection", "close")),
        ("keep-alive", MALFORMED, with("keep-alive", "5")),
        ("proxy-connection", MALFORMED, with("proxy-connection", "close")),
        ("upgrade", MALFORMED, with("upgrade", "x")),
        ("transfer-encoding", MALFORMED, with("transfer-encoding", "chunked")),
        ("te", MALFORMED, with("te", "gzip")),
        ("length and no body", MALFORMED, with("content-length", "5")),
        ("length with a sign", MALFORMED, with("content-length", "+0")),
        ("two lengths", MALFORMED, request("GET", "/", &[("content-length", "0"), ("content-length", "1")])),
    ];
    let mut wrong = Vec::new();
    for (name, expected, head) in heads {
        let mut client = Http2::new(&lab);
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, &head);
        let came = client.outcome(1);
        let seen = witness.take();
        if came != expected || !seen.is_empty() {
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
    // What names a request is dropped from trailers.
    client.outcome(3);
    assert!(witness.take().iter().all(|seen| !seen.head.contains("evil") && !seen.rest.contains("evil")));
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
    let (code, _) = flood(&lab, 10_000, |at| {
        let stream = at * 2 + 1;
        [frame(HEADERS, END_HEADERS, stream, &head), frame(WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes())].concat()
    });
    assert!(code.is_some_and(|code| code > 0), "{code:?}");
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

#[test]
fn windows_that_overflow_end_the_connection() {
    let (_, lab) = http2("");
    let setting = |value: u32| frame(SETTINGS, 0, 0, &[&4_u16.to_be_bytes()[..], &value.to_be_bytes()].concat());
    for bytes in [setting(u32::MAX), frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes())] {
        let mut client = Http2::new(&lab);
        client.stream.write_all(&bytes).unwrap();
        assert!(matches!(client.goaway(), Some(1 | 3)), "{bytes:?}");
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
