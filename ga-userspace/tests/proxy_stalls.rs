//! Clients of HTTP/2 that take their answers not, or a byte at a time, that do not acknowledge settings, or send frames that carry
//! nothing: what they hold is bounded and ends, and others are served as if they were not there.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;
mod raw;

use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

use ga::proxy::counts::Reason;
use lab::{Endpoint, Lab, becomes, read_head};
use raw::h2::{
    CONTINUATION, Came, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    frame, request,
};

const QUICK: &str = "idle_timeout = 60\ntimeouts = { first_byte = 1, write = 1 }\n";
/// Codes of RFC 9113 §7.
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Answers `/large` with 10 MiB, `/later` after a moment, all else with nothing.
fn endpoint() -> Endpoint {
    Endpoint::new(2, |mut stream| {
        let piece = vec![0; 1 << 16];
        while let Some(head) = read_head(&mut stream) {
            let size: usize = if head.starts_with("GET /large") { 10 << 20 } else { 0 };
            if head.contains(" /later ") {
                std::thread::sleep(Duration::from_secs(3));
            }
            if write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").is_err() {
                return;
            }
            for _ in 0..size >> 16 {
                if stream.write_all(&piece).is_err() {
                    return;
                }
            }
        }
    })
}

fn setting(name: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

/// The window of every stream.
const INITIAL_WINDOW: u16 = 4;

fn ask(client: &mut Http2, stream: u32, path: &str) {
    client.send(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", path, &[]));
}

fn is_served(lab: &Lab) {
    let mut client = Http2::new(lab);
    ask(&mut client, 1, "/");
    assert_eq!(client.outcome(1), Came::Status(200));
}

fn reason(lab: &Lab, reason: Reason) -> u64 {
    lab.listener().counts.reasons.get(reason)
}

/// Streams that are reset while `client` reads for at most so long, with their codes.
fn resets(client: &mut Http2, count: usize) -> Vec<(u32, u32)> {
    let mut resets = Vec::new();
    client.patience(Duration::from_secs(10));
    while resets.len() < count {
        let Some(frame) = client.next() else { break };
        if frame.kind == RST_STREAM {
            resets.push((frame.stream, u32::from_be_bytes(frame.payload[..4].try_into().unwrap())));
        }
    }
    resets
}

#[test]
fn streams_whose_window_stays_closed_are_reset_and_their_connection_goes_on() {
    let lab = Lab::http2(&endpoint(), &[2], QUICK);
    let mut client = Http2::new(&lab);
    client.stream.write_all(&setting(INITIAL_WINDOW, 0)).unwrap();
    let begun = Instant::now();
    for at in 0..100 {
        ask(&mut client, at * 2 + 1, "/large");
    }
    let mut reset = resets(&mut client, 100);
    assert!(begun.elapsed() >= Duration::from_millis(900), "not before the deadline");
    reset.sort_unstable();
    assert_eq!(reset, (0..100).map(|at| (at * 2 + 1, CANCEL)).collect::<Vec<_>>());
    assert_eq!(reason(&lab, Reason::ClientWriteTimeout), 100);
    // Nothing of them is left, and the connection serves.
    ask(&mut client, 201, "/");
    assert_eq!(client.outcome(201), Came::Status(200));
    assert_eq!(lab.listener().groups[0].load.requests(), 0);
}

#[test]
fn a_byte_at_a_time_does_not_keep_a_stream() {
    let lab = Lab::http2(&endpoint(), &[2], QUICK);
    let mut client = Http2::new(&lab);
    client.stream.write_all(&setting(INITIAL_WINDOW, 0)).unwrap();
    ask(&mut client, 1, "/large");
    let mut writer = client.stream.try_clone().unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let trickle = std::thread::spawn(move || {
        let update = frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes());
        while stopped.recv_timeout(Duration::from_millis(50)).is_err() && writer.write_all(&update).is_ok() {}
    });
    assert_eq!(resets(&mut client, 1), [(1, CANCEL)]);
    stop.send(()).unwrap();
    trickle.join().unwrap();
    ask(&mut client, 3, "/");
    assert_eq!(client.outcome(3), Came::Status(200));
}

/// One stream's client takes nothing of it while it takes all of another; an endpoint that is slow is no client that is.
#[test]
fn a_stream_that_stalls_ends_alone() {
    let lab = Lab::http2(&endpoint(), &[2], QUICK);
    let mut client = Http2::new(&lab);
    let most: u32 = 1 << 30;
    client.stream.write_all(&setting(INITIAL_WINDOW, 0)).unwrap();
    client.send(WINDOW_UPDATE, 0, 0, &most.to_be_bytes());
    for (stream, path) in [(1, "/large"), (3, "/large"), (5, "/later")] {
        ask(&mut client, stream, path);
    }
    client.send(WINDOW_UPDATE, 0, 3, &most.to_be_bytes());
    let (mut taken, mut reset, mut later) = (0, Vec::new(), false);
    client.patience(Duration::from_secs(10));
    while !(later && taken == 10 << 20 && !reset.is_empty()) {
        let frame = client.next().expect("a frame");
        match frame.kind {
            DATA => {
                assert_eq!(frame.stream, 3);
                taken += frame.payload.len();
            }
            RST_STREAM => reset.push(frame.stream),
            HEADERS if frame.stream == 5 => later = true,
            _ => {}
        }
    }
    assert_eq!(reset, [1]);
}

/// A client that takes slowly takes all of it: the deadline is for each piece.
#[test]
fn a_client_that_is_slow_but_takes_gets_all_of_it() {
    let lab = Lab::http2(&endpoint(), &[2], &QUICK.replace("write = 1", "write = 2"));
    let mut client = Http2::new(&lab);
    client.send(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
    ask(&mut client, 1, "/large");
    let (mut taken, mut waits) = (0, 0);
    while taken < 10 << 20 {
        let frame = client.next().expect("a frame");
        assert_ne!(frame.kind, RST_STREAM, "after {taken}");
        if frame.kind == DATA {
            taken += frame.payload.len();
            if taken >> 21 > waits {
                waits += 1;
                std::thread::sleep(Duration::from_millis(700));
            }
            client.send(WINDOW_UPDATE, 0, 1, &(frame.payload.len() as u32).to_be_bytes());
        }
    }
    assert!(waits >= 4, "it was not slow");
}

fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().split(' ').next().unwrap().parse::<usize>().unwrap() << 10
}

/// A hundred answers of 10 MiB whose client opens every window and reads nothing: of each stream no more is kept than its share of what
/// may be sent, 64 KiB and what was read last. The bound has room for the endpoints, which are in this process too.
#[test]
fn a_connection_that_takes_nothing_of_a_hundred_answers_holds_little() {
    let lab = Lab::http2(&endpoint(), &[2], "");
    is_served(&lab);
    let before = resident();
    let mut connections = Vec::new();
    for _ in 0..2 {
        let mut client = Http2::new(&lab);
        client.stream.write_all(&setting(INITIAL_WINDOW, 0x7fff_ffff)).unwrap();
        client.send(WINDOW_UPDATE, 0, 0, &(0x7fff_ffff_u32 - 65_535).to_be_bytes());
        for at in 0..100 {
            ask(&mut client, at * 2 + 1, "/large");
        }
        connections.push(client);
    }
    becomes(200, || lab.listener().groups[0].load.requests());
    // Until nothing moves any more.
    let mut last = 0;
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(500));
        let now = lab.listener().counts.bytes_out.get() as usize + resident();
        if now.abs_diff(last) < 64 << 10 {
            break;
        }
        last = now;
    }
    assert_eq!(lab.listener().groups[0].load.requests(), 200, "all of them are there");
    let grown = resident().saturating_sub(before);
    println!("two connections hold {} KiB", grown >> 10);
    assert!(grown < 80 << 20, "{} MiB", grown >> 20);
    is_served(&lab);
}

#[test]
fn settings_that_are_never_acknowledged_end_the_connection() {
    let lab = Lab::http2(&endpoint(), &[2], QUICK);
    let mut client = Http2::bare(&lab);
    client.send(SETTINGS, 0, 0, &[]);
    let begun = Instant::now();
    let mut stream = 1;
    // It asks all the time, so it is not idle.
    while client.stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", "/", &[]))).is_ok() {
        stream += 2;
        std::thread::sleep(Duration::from_millis(50));
        assert!(begun.elapsed() < Duration::from_secs(10), "it never ended");
    }
    assert!(begun.elapsed() >= Duration::from_millis(900), "not before the deadline");
    // One that does acknowledge them lives on.
    let mut good = Http2::new(&lab);
    for stream in [1, 3] {
        ask(&mut good, stream, "/");
        assert_eq!(good.outcome(stream), Came::Status(200));
        std::thread::sleep(Duration::from_secs(2));
    }
}

#[test]
fn frames_that_carry_nothing_end_the_connection_by_the_thousand() {
    let lab = Lab::http2(&endpoint(), &[2], "");
    let floods = [
        ("PING", frame(PING, 0, 0, &[0; 8]), 12_000),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[]), 1_200),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 0]), 1_200),
        ("unknown", frame(0x42, 0, 0, b"x"), 1_200),
    ];
    for (at, (name, one, many)) in floods.into_iter().enumerate() {
        let mut client = Http2::new(&lab);
        client.send(HEADERS, END_HEADERS, 1, &request("POST", "/later", &[]));
        // What the edge answers is read.
        let mut reader = Http2 { stream: client.stream.try_clone().unwrap() };
        let reading = std::thread::spawn(move || reader.goaway());
        drop(client.stream.write_all(&one.repeat(many)));
        assert_eq!(reading.join().unwrap(), Some(ENHANCE_YOUR_CALM), "{name}");
        becomes(at as u64 + 1, || reason(&lab, Reason::Flood));
        is_served(&lab);
    }
    // A few of each are nobody's fault.
    let mut client = Http2::new(&lab);
    for one in [frame(PING, 0, 0, &[0; 8]), frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 0]), frame(0x42, 0, 0, b"x")] {
        client.stream.write_all(&one.repeat(100)).unwrap();
    }
    ask(&mut client, 1, "/");
    assert_eq!(client.outcome(1), Came::Status(200));
}

/// DATA of length zero, heads of length zero, and an end of the head that never comes, piece by piece.
#[test]
fn data_and_heads_that_carry_nothing_end_the_connection() {
    let lab = Lab::http2(&endpoint(), &[2], "");
    let mut client = Http2::new(&lab);
    client.send(HEADERS, END_HEADERS, 1, &request("POST", "/later", &[]));
    drop(client.stream.write_all(&frame(DATA, 0, 1, &[]).repeat(12_000)));
    assert_eq!(client.goaway(), Some(ENHANCE_YOUR_CALM));
    let mut client = Http2::new(&lab);
    let mut reader = Http2 { stream: client.stream.try_clone().unwrap() };
    let reading = std::thread::spawn(move || reader.goaway());
    let mut taken = 0;
    while taken < 5_000 && client.send(HEADERS, END_HEADERS | END_STREAM, taken * 2 + 1, &[]) {
        taken += 1;
    }
    let code = reading.join().unwrap();
    assert!(code.is_some_and(|code| code > 0), "{code:?} after {taken}");
    let mut client = Http2::new(&lab);
    client.send(HEADERS, 0, 1, &request("GET", "/", &[]));
    drop(client.stream.write_all(&frame(CONTINUATION, 0, 1, &[]).repeat(2_000)));
    assert!(client.outcome(1).is_refusal());
    is_served(&lab);
}

/// What TLS agreed on is what is spoken (RFC 9113 §3.2, §3.3).
#[test]
fn another_protocol_than_agreed_on_is_refused() {
    let http2 = Lab::http2(&endpoint(), &[2], "");
    let mut stream = http2.client().stream;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").unwrap();
    let mut heard = Vec::new();
    drop(stream.read_to_end(&mut heard));
    assert!(!heard.starts_with(b"HTTP/1.1"), "{heard:?}");
    let http1 = Lab::new(&endpoint(), &[2], "");
    let mut client = Http2::bare(&http1);
    client.send(SETTINGS, 0, 0, &[]);
    ask(&mut client, 1, "/");
    let mut heard = Vec::new();
    drop(client.stream.read_to_end(&mut heard));
    assert!(heard.starts_with(b"HTTP/1.1 4") || heard.starts_with(b"HTTP/1.1 5") || heard.is_empty(), "{heard:?}");
    for lab in [http2, http1] {
        assert_eq!(lab.listener().endpoints[0].counts.requests.get(), 0);
    }
}
