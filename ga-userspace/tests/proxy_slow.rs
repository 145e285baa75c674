//! Clients that are slow or silent: what they hold is bounded, and others are served as if they were not there.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;
mod raw;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use ga::proxy::counts::Reason;
use lab::{Endpoint, Lab, read_head};
use raw::{
    Witness,
    h2::{Came, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, PING, PRIORITY, SETTINGS, frame, request},
    somebody_else,
};

const QUICK: &str = "idle_timeout = 1\ntimeouts = { first_byte = 1, head = 1, body = 1, write = 1 }\n";
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

/// Without a least rate a byte now and then keeps a body coming; with one it does not, and who is quick enough is served.
#[test]
fn a_body_that_trickles_is_cut_where_a_rate_is_wanted() {
    let witness = Witness::default();
    let keys = |rate| format!("timeouts = {{ body = 1, min_rate = {rate} }}\n");
    for (rate, piece, is_cut) in [(0, 1, false), (100, 1, true), (100, 400, false)] {
        let lab = Lab::new(&witness.endpoint(), &[2], &keys(rate));
        let mut client = lab.client();
        let length = piece * 20;
        client.send(&format!("POST /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"));
        let begun = Instant::now();
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(150));
            drop(client.stream.write_all(&b"x".repeat(piece)));
        }
        let (heard, _) = ends(&mut client.stream);
        assert_eq!(heard.get(9..12), Some(if is_cut { "408" } else { "200" }), "{rate}, {piece}: {heard}");
        assert!(begun.elapsed() >= Duration::from_secs(2), "it did not trickle");
        assert_eq!(witness.take().len(), usize::from(!is_cut));
    }
    let lab = Lab::http2(&witness.endpoint(), &[2], &keys(100));
    let mut client = Http2::new(&lab);
    client.send(HEADERS, END_HEADERS, 1, &request("POST", "/slow", &[]));
    let mut writer = client.stream.try_clone().unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let trickle = std::thread::spawn(move || {
        let byte = frame(DATA, 0, 1, b"x");
        while stopped.recv_timeout(Duration::from_millis(150)).is_err() && writer.write_all(&byte).is_ok() {}
    });
    assert_eq!(client.outcome(1), Came::Status(499));
    lab::becomes(1, || lab.listener().counts.reasons.get(Reason::ClientBodyTimeout));
    stop.send(()).unwrap();
    trickle.join().unwrap();
}

/// It takes some of its answer all the time, and is cut only where that is too slow.
#[test]
fn a_client_that_reads_slowly_is_cut_where_a_rate_is_wanted() {
    for (rate, is_cut) in [(0, false), (50_000_000, true)] {
        let endpoint = Endpoint::new(2, |mut stream| {
            if read_head(&mut stream).is_some() {
                drop(write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1_u64 << 30));
                while stream.write_all(&[0; 1 << 16]).is_ok() {}
            }
        });
        let lab = Lab::new(&endpoint, &[2], &format!("timeouts = {{ write = 3, min_rate = {rate} }}\n"));
        let mut client = lab.client();
        client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
        let begun = Instant::now();
        let cuts = || lab.listener().counts.reasons.get(Reason::ClientWriteTimeout);
        let mut piece = vec![0; 400_000];
        while begun.elapsed() < Duration::from_secs(if is_cut { 60 } else { 5 }) && cuts() == 0 {
            if client.stream.read_exact(&mut piece).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        lab::becomes(u64::from(is_cut), cuts);
    }
}
