//! What clients and endpoints must not get through the proxy: real sockets at both ends, bytes as they come.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;
mod raw;

use std::{
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use lab::{Endpoint, Lab, cases, field, read_head};
use raw::{Seen, Witness, somebody_else};

/// The statuses that a client gets for `bytes`, up to so many; 100 left out. Whether the connection has ended after them is said too.
fn answers(lab: &Lab, bytes: &[u8], most: usize) -> (Vec<u16>, bool) {
    let mut client = lab.client();
    // Who is refused early may find the connection closed.
    drop(client.stream.write_all(bytes));
    let (mut statuses, mut closes) = (Vec::new(), false);
    while statuses.len() < most {
        let head = client.head();
        if head.is_empty() {
            return (statuses, true);
        }
        let status: u16 = head[9..12].parse().unwrap();
        if status != 100 {
            client.body(&head);
            statuses.push(status);
            closes = field(&head, "connection").is_some_and(|value| value == "close");
        }
    }
    if closes {
        assert_eq!(client.stream.read(&mut [0; 16]).unwrap_or(0), 0, "something follows the last answer");
    }
    (statuses, closes)
}

#[test]
fn every_request_of_the_table_gets_the_required_answer() {
    let witness = Witness::default();
    let lab = Lab::new(&witness.endpoint(), &[2], "");
    somebody_else(&lab, "/first");
    let mut wrong = Vec::new();
    for case in cases::all() {
        witness.take();
        let connections = witness.accepted();
        let (statuses, closes) = answers(&lab, &case.bytes(), case.answers.len());
        let path = format!("/other-{}", case.number);
        somebody_else(&lab, &path);
        let mut seen = witness.take();
        let other = seen.pop().unwrap();
        let is_refused = case.seen == 0;
        let good = statuses == case.answers
            && seen.len() == case.seen
            && (closes || !is_refused)
            && other.head.starts_with(&format!("GET {path} "))
            // An endpoint that did not read a body of GET would take it for the next request: its connection is not used again.
            && (witness.accepted() == connections) == (case.number != 42);
        if !good {
            wrong.push(format!("{} {}: {statuses:?}, closes: {closes}, seen: {seen:?}", case.number, case.name));
        }
        for Seen { head, body, rest } in &seen {
            let lower = head.to_lowercase();
            let fine = match case.number {
                40 => lower.contains("content-length: 1\r\n") && body == "Z",
                41 => lower.contains("x-forwarded-for: 127.0.0.1\r\n"),
                42 => lower.contains("content-length: 35\r\n") && body.starts_with("GET /evil"),
                50 => body == "Z",
                52 => !lower.contains("upgrade") && !lower.contains("http2-settings"),
                55 => !lower.contains("x_forwarded_for"),
                56 => rest == "0\r\n\r\n",
                59 => head.starts_with("GET /admin HTTP/1.1\r\n"),
                _ => true,
            };
            if !fine {
                wrong.push(format!("{} {}: {head:?} {rest:?}", case.number, case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_byte_hides_a_transfer_encoding_from_one_of_two() {
    let witness = Witness::default();
    let lab = Lab::new(&witness.endpoint(), &[2], "");
    for byte in (0..=b' ').chain(0x7f..=0xff) {
        let alone = [byte];
        let b = &alone[..];
        let fields: [[&[u8]; 5]; 5] = [
            [b, b"Transfer-Encoding", b":", b" chunked", b""],
            [b"Transfer-Encoding", b, b":", b" chunked", b""],
            [b"Transfer-Encoding", b":", b, b"chunked", b""],
            [b"Transfer-Encoding", b":", b" chunked", b, b""],
            [b"Transfer-Encoding", b":", b" chunked", b" ", b],
        ];
        for (place, field) in fields.iter().enumerate() {
            let request =
                [b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n", &*field.concat(), b"\r\n\r\n0\r\n\r\n"].concat();
            let (statuses, _) = answers(&lab, &request, 1);
            assert!(matches!(*statuses, [400 | 501]), "byte {byte:#x} at place {place}: {statuses:?}");
        }
    }
    assert!(witness.take().is_empty());
}

/// A body that turns bad after the endpoint has got a part of it: the client is told, and the endpoint's connection is not used again.
#[test]
fn a_body_that_turns_bad_on_its_way_ends_both_connections() {
    let witness = Witness::default();
    let lab = Lab::new(&witness.endpoint(), &[2], "");
    let mut client = lab.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nZ\r\n");
    while witness.accepted() == 0 {
        std::thread::yield_now();
    }
    client.send("1\r\nZXX");
    assert_eq!(&client.head()[9..12], "400");
    somebody_else(&lab, "/other");
    assert_eq!(witness.accepted(), 2);
    assert_eq!(witness.take().len(), 1);
}

/// A client that is slow in the middle of a request does not make it two.
#[test]
fn a_pause_before_the_body_changes_nothing() {
    let witness = Witness::default();
    let lab = Lab::new(&witness.endpoint(), &[2], "");
    let body = "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = lab.client();
    client.send(&format!("POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
    std::thread::sleep(std::time::Duration::from_millis(300));
    client.send(body);
    let head = client.head();
    assert_eq!(client.body(&head), "/slow");
    somebody_else(&lab, "/other");
    let seen = witness.take();
    assert_eq!((seen.len(), &*seen[0].body), (2, body));
}

#[test]
fn a_client_that_is_answered_101_may_have_sent_its_first_bytes() {
    let endpoint = Endpoint::new(2, |mut stream| {
        let head = read_head(&mut stream).unwrap();
        assert!(head.to_lowercase().contains("upgrade: echo\r\n"));
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").unwrap();
        let mut bytes = [0; 9];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    let lab = Lab::new(&endpoint, &[2], "");
    let mut client = lab.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nGET /\n");
    assert_eq!(&client.head()[9..12], "101");
    client.send("evi");
    let mut bytes = [0; 9];
    client.stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"GET /\nevi");
}

/// No tunnel before the endpoint's 101: what a client sends ahead is a request when the endpoint declines.
#[test]
fn an_upgrade_that_is_declined_leaves_no_tunnel() {
    let witness = Witness::default();
    let lab = Lab::new(&witness.endpoint(), &[2], "");
    let mut client = lab.client();
    client.send(
        "GET /up HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\nGET /evil\n\n",
    );
    for path in ["/up", "/next"] {
        let head = client.head();
        assert_eq!(client.body(&head), path);
    }
    assert_eq!(&client.head()[9..12], "400");
    assert_eq!(witness.take().len(), 2);
}

/// What an endpoint says that answers each connection's first request with `answer`, and all others rightly.
fn after(answer: &'static str, request: &str) -> (String, usize) {
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    let endpoint = Endpoint::new(2, move |mut stream| {
        let is_first = count.fetch_add(1, SeqCst) == 0;
        let mut says_wrong = is_first;
        while let Some(head) = read_head(&mut stream) {
            let path = head.split(' ').nth(1).unwrap();
            let right = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len());
            let says = if std::mem::take(&mut says_wrong) { answer } else { &*right };
            if stream.write_all(says.as_bytes()).is_err() {
                return;
            }
        }
    });
    let lab = Lab::new(&endpoint, &[2], "");
    let mut client = lab.client();
    client.send(request);
    let head = client.head();
    for other in 0..3 {
        somebody_else(&lab, &format!("/other-{other}"));
    }
    (head, accepted.load(SeqCst))
}

#[test]
fn an_answer_that_can_be_read_in_two_ways_is_none() {
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nZ\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nZZ",
        "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nZ",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nZ",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "junk\r\n\r\n",
    ] {
        let (head, accepted) = after(answer, get);
        assert_eq!((head.get(9..12), accepted), (Some("502"), 2), "{answer:?}: {head:?}");
    }
    let flood: &str =
        Box::leak(format!("{}HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000)).into_boxed_str());
    assert_eq!(after(flood, get).0.get(9..12), Some("502"));
}

/// Bytes beyond an answer are nobody's: the connection that they came by is not used again.
#[test]
fn what_follows_an_answer_reaches_nobody() {
    let stray = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray";
    let head = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for (request, answer, status) in [
        (get, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nZ", "200"),
        (head, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "200"),
        (head, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "200"),
        (get, "HTTP/1.1 204 No Content\r\n\r\n", "204"),
        (get, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "304"),
        (get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nZ\r\n0\r\n\r\n", "200"),
    ] {
        let answer: &str = Box::leak(format!("{answer}{stray}").into_boxed_str());
        let (head, accepted) = after(answer, request);
        assert_eq!((head.get(9..12), accepted), (Some(status), 2), "{answer:?}: {head:?}");
    }
}

/// An endpoint that answers before it has the whole request has said what it has to say: the rest is not the next request.
#[test]
fn an_early_answer_ends_the_endpoints_connection() {
    let witness = Witness::default();
    let accepted = Arc::new(AtomicUsize::new(0));
    let (count, witnessing) = (Arc::clone(&accepted), witness.clone());
    let endpoint = Endpoint::new(2, move |mut stream| {
        if count.fetch_add(1, SeqCst) > 0 {
            return witnessing.serve(stream);
        }
        read_head(&mut stream).unwrap();
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").unwrap();
        // Whatever comes afterwards is taken for requests.
        witnessing.serve(stream);
    });
    let lab = Lab::new(&endpoint, &[2], "");
    let mut client = lab.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n");
    let head = client.head();
    assert_eq!((&head[9..12], &*client.body(&head)), ("403", "no"));
    drop(client.stream.write_all(b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"));
    for other in 0..3 {
        somebody_else(&lab, &format!("/other-{other}"));
    }
    assert_eq!(accepted.load(SeqCst), 2);
    assert!(witness.take().iter().all(|seen| !seen.head.contains("evil")));
}

/// What an endpoint does not read of a request is not the beginning of somebody else's: GET and HEAD need no body, and many servers
/// that answer them do not look for one.
#[test]
fn a_body_that_an_endpoint_ignores_is_never_the_next_request() {
    let endpoint = Endpoint::new(2, |mut stream| {
        while let Some(head) = read_head(&mut stream) {
            // Late: all of the body is there, and stays there.
            std::thread::sleep(std::time::Duration::from_millis(50));
            let target = head.split(' ').nth(1).unwrap_or_default();
            let body = if head.starts_with("HEAD ") { "" } else { target };
            if write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", target.len()).is_err() {
                return;
            }
        }
    });
    let lab = Lab::new(&endpoint, &[2], "");
    let hidden = "GET /evil HTTP/1.1\r\nX: ";
    let length = hidden.len();
    for method in ["GET", "HEAD"] {
        let begin = format!("{method} /ignored HTTP/1.1\r\nHost: a.example\r\n");
        let whole = format!("{begin}Content-Length: {length}\r\n\r\n{hidden}");
        let chunked = format!("{begin}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{hidden}\r\n0\r\n\r\n");
        for request in [whole, chunked] {
            let mut client = lab.client();
            client.send(&request);
            assert!(client.head().starts_with("HTTP/1.1 200 "));
            somebody_else(&lab, "/next");
        }
    }
}

#[test]
fn a_request_of_http10_without_a_host_is_for_the_address_that_its_client_connected_to() {
    let witness = Witness::default();
    let endpoint = witness.endpoint();
    let lab = Lab::new(&endpoint, &[2], "");
    assert_eq!(answers(&lab, b"GET / HTTP/1.0\r\n\r\n", 1).0, [200]);
    let head = witness.take().remove(0).head;
    assert_eq!(field(&head, "host"), Some(format!("127.0.0.1:{}", endpoint.port)), "{head}");
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        assert_eq!(answers(&lab, format!("GET / {version}\r\nHost:\r\n\r\n").as_bytes(), 1).0, [400], "{version}");
    }
}
