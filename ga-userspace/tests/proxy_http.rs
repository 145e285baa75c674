//! The way of a request through the proxy: real sockets at both ends, on loopback addresses.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::{
    io::{Read, Write},
    net::Shutdown,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use lab::{Endpoint, Lab, answer, read_head};

// proves: F01
#[test]
fn endpoints_learn_who_the_client_is_and_nothing_that_it_forges() {
    let endpoint = Endpoint::new(2, |stream| answer(stream, |head| ("200 OK", head.to_owned())));
    let lab = Lab::new(&endpoint, &[2], "");
    let mut client = lab.client();
    let (_, body) = client.ask(
        "GET /a?b=c HTTP/1.1\r\nHost: shop.example\r\nConnection: keep-alive, X-Own\r\nX-Own: 1\r\nKeep-Alive: 5\r\nGA-ID: forged\r\n\
         GA-AP: forged\r\nX_Forwarded_For: 6.6.6.6\r\nTE: gzip\r\nProxy-Connection: close\r\ntraceparent: 00-1-2-01\r\nX-Kept: yes\r\n\r\n",
    );
    assert!(body.starts_with("GET /a?b=c HTTP/1.1\r\nhost: shop.example\r\n"), "{body}");
    for kept in ["x-forwarded-for: 127.0.0.1\r\n", "x-kept: yes\r\n", "traceparent: 00-1-2-01\r\n"] {
        assert!(body.contains(kept), "{kept}: {body}");
    }
    for gone in ["x-own", "keep-alive", "ga-", "x_forwarded_for", "\r\nte:", "connection", "transfer-encoding", "x-real-ip"] {
        assert!(!body.contains(gone), "{gone}: {body}");
    }
    let (_, body) = client.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\n\r\n");
    assert!(body.contains("x-forwarded-for: 192.0.2.1, 192.0.2.2, 127.0.0.1\r\n"), "{body}");
    let (_, body) = client.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-For\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n");
    assert!(body.contains("x-forwarded-for: 127.0.0.1\r\n"), "{body}");
}

// proves: F08
#[test]
fn headers_of_the_edge_are_there_when_the_file_names_them() {
    let endpoint = Endpoint::new(2, |stream| answer(stream, |head| ("200 OK", head.to_owned())));
    let keys = "forwarded_headers = [\"ga_id\", \"ga_ap\", \"proto\", \"port\", \"real_ip\"]\nxff = \"replace\"\n";
    let lab = Lab::new(&endpoint, &[2], keys);
    let (_, body) = lab.client().ask(
        "GET / HTTP/1.1\r\nHost: a\r\nGA-ID: forged\r\nGA-X-Forward-Proto: forged\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
    );
    let port = format!("ga-x-forward-port: {}\r\n", endpoint.port);
    for there in
        ["ga-id: lab\r\n", "ga-x-forward-proto: http\r\n", &port, "x-real-ip: 127.0.0.1\r\n", "x-forwarded-for: 127.0.0.1\r\n"]
    {
        assert!(body.contains(there), "{there}: {body}");
    }
    assert!(!body.contains("forged") && !body.contains("6.6.6.6"), "{body}");
}

#[test]
fn one_connection_to_the_endpoint_serves_many_requests_of_many_clients() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    let endpoint = Endpoint::new(2, move |stream| {
        count.fetch_add(1, SeqCst);
        answer(stream, |_| ("200 OK", "hello".to_owned()));
    });
    let lab = Lab::new(&endpoint, &[2], "");
    for _ in 0..5 {
        let mut client = lab.client();
        for _ in 0..5 {
            let (head, body) = client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert!(head.starts_with("HTTP/1.1 200 OK") && body == "hello", "{head}{body}");
        }
    }
    assert_eq!(accepted.load(SeqCst), 1);
}

#[test]
fn bodies_stream_both_ways_with_a_length_and_in_chunks() {
    let endpoint = Endpoint::new(2, |mut stream| {
        while let Some(head) = read_head(&mut stream) {
            if let Some(length) = lab::field(&head, "content-length") {
                let mut body = vec![0; length.parse().unwrap()];
                stream.read_exact(&mut body).unwrap();
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
                stream.write_all(&body).unwrap();
            } else {
                assert_eq!(lab::field(&head, "transfer-encoding").as_deref(), Some("chunked"));
                let body = lab::read_chunked(&mut stream);
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n").unwrap();
                for piece in body.chunks(1000) {
                    write!(stream, "{:x}\r\n", piece.len()).unwrap();
                    stream.write_all(piece).unwrap();
                    stream.write_all(b"\r\n").unwrap();
                }
                stream.write_all(b"0\r\nX-Sum: 7\r\n\r\n").unwrap();
            }
        }
    });
    let lab = Lab::new(&endpoint, &[2], "");
    let mut client = lab.client();
    let big: String = (0..3_000_000).map(|at| char::from(b'a' + (at % 26) as u8)).collect();
    for length in [1, 5000, 65_536, 3_000_000] {
        let (head, body) =
            client.ask(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{}", &big[..length]));
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(body == big[..length], "{length}");
    }
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in big.as_bytes()[..300_000].chunks(7777) {
        client.send(&format!("{:x}\r\n{}\r\n", piece.len(), std::str::from_utf8(piece).unwrap()));
    }
    client.send("0\r\n\r\n");
    let head = client.head();
    assert_eq!(lab::field(&head, "transfer-encoding").as_deref(), Some("chunked"), "{head}");
    assert!(lab::read_chunked(&mut client.stream) == big.as_bytes()[..300_000]);
    let (head, _) = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

#[test]
fn one_100_is_sent_and_other_expectations_fail() {
    let endpoint = Endpoint::new(2, |stream| answer(stream, |head| ("200 OK", head.to_owned())));
    let lab = Lab::new(&endpoint, &[2], "");
    let mut client = lab.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 100 "));
    client.send("ok");
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let body = client.body(&head);
    assert!(!body.contains("expect"), "{body}");
    let (head, _) = lab.client().ask("POST / HTTP/1.1\r\nHost: a\r\nExpect: magic\r\nContent-Length: 0\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 417 "), "{head}");
}

#[test]
fn hints_reach_clients_that_know_them_before_the_answer_does() {
    let (told, tells) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let tells = std::sync::Mutex::new(tells);
    let endpoint = Endpoint::new(2, move |mut stream| {
        while read_head(&mut stream).is_some() {
            stream
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nKeep-Alive: 1\r\n\r\n")
                .unwrap();
            // The answer waits until the client has the hints.
            tells.lock().unwrap().recv().unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").unwrap();
        }
    });
    let lab = Lab::new(&endpoint, &[2], "");
    let mut client = lab.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head(), "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    told.lock().unwrap().send(()).unwrap();
    let head = client.head();
    assert_eq!((&head[..12], client.body(&head).as_str()), ("HTTP/1.1 200", "hello"));
    told.lock().unwrap().send(()).unwrap();
    client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    let head = client.head();
    assert_eq!((&head[..12], client.body(&head).as_str()), ("HTTP/1.1 200", "hello"));
}

#[test]
fn requests_that_come_together_or_in_halves_or_after_a_rest_are_answered_in_their_order() {
    let endpoint = Endpoint::new(2, |stream| answer(stream, |head| ("200 OK", head.lines().next().unwrap_or("").to_owned())));
    let lab = Lab::new(&endpoint, &[2], "");
    let mut client = lab.client();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    for round in 0..3 {
        let (first, rest) = (get("/1"), get("/2") + &get("/3"));
        let (half, other) = first.split_at(7);
        client.send(half);
        std::thread::sleep(Duration::from_millis(20));
        client.send(&(other.to_owned() + &rest));
        for path in ["/1", "/2", "/3"] {
            let head = client.head();
            assert_eq!(client.body(&head), format!("GET {path} HTTP/1.1"), "{round}");
        }
        // Long enough for the connection to let go of all it need not have.
        std::thread::sleep(Duration::from_millis(700));
    }
    // The last one is none: it is answered after those before it.
    client.send(
        &(get("/4") + "POST /5 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxy" + "GET /6 HTTP/1.1\nHost: a\n\n" + &get("/7")),
    );
    let statuses: Vec<String> = (0..3)
        .map(|_| {
            let head = client.head();
            let body = client.body(&head);
            format!("{} {body}", &head[9..12])
        })
        .collect();
    assert_eq!(statuses, ["200 GET /4 HTTP/1.1", "200 POST /5 HTTP/1.1", "400 Bad Request"]);
    assert_eq!(client.stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn clients_of_http_1_0_keep_a_connection_only_if_they_ask_for_it() {
    let endpoint = Endpoint::new(2, |mut stream| {
        while let Some(head) = read_head(&mut stream) {
            let answer = if head.contains("/chunks") {
                "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            } else {
                "Content-Length: 5\r\n\r\nhello"
            };
            write!(stream, "HTTP/1.1 200 OK\r\n{answer}").unwrap();
        }
    });
    let lab = Lab::new(&endpoint, &[2], "");
    let mut client = lab.client();
    let (head, body) = client.ask("GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n");
    assert_eq!((lab::field(&head, "connection").as_deref(), body.as_str()), (Some("keep-alive"), "hello"));
    // Nobody taught it chunks: the end of the connection is the end of the answer.
    client.send("GET /chunks HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n");
    let head = client.head();
    let mut body = String::new();
    client.stream.read_to_string(&mut body).unwrap();
    assert_eq!((lab::field(&head, "connection").as_deref(), body.as_str()), (Some("close"), "hello"));
    let mut client = lab.client();
    client.ask("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(client.stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn answers_without_a_body_end_with_their_head() {
    let endpoint = Endpoint::new(2, |mut stream| {
        while let Some(head) = read_head(&mut stream) {
            let status = if head.contains("/204") {
                "204 No Content"
            } else if head.contains("/304") {
                "304 Not Modified"
            } else {
                "200 OK\r\nContent-Length: 5"
            };
            write!(stream, "HTTP/1.1 {status}\r\n\r\n").unwrap();
            if head.starts_with("GET /200") {
                stream.write_all(b"hello").unwrap();
            }
        }
    });
    let lab = Lab::new(&endpoint, &[2], "");
    let mut client = lab.client();
    for (target, status) in [("HEAD /200", "200"), ("GET /204", "204"), ("GET /304", "304"), ("HEAD /200", "200")] {
        client.send(&format!("{target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let head = client.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
        if status == "200" {
            assert_eq!(lab::field(&head, "content-length").as_deref(), Some("5"), "{head}");
        }
    }
    assert_eq!(client.ask("GET /200 HTTP/1.1\r\nHost: a\r\n\r\n").1, "hello");
}

#[test]
fn upgrades_begin_with_the_endpoints_101_and_not_before() {
    let endpoint = Endpoint::new(2, |mut stream| {
        while let Some(head) = read_head(&mut stream) {
            if head.contains("/no") {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno").unwrap();
                continue;
            }
            assert_eq!(lab::field(&head, "upgrade").as_deref(), Some("echo"));
            assert_eq!(lab::field(&head, "connection").as_deref(), Some("upgrade"));
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly ").unwrap();
            let mut echo = stream.try_clone().unwrap();
            std::io::copy(&mut stream, &mut echo).unwrap();
            return;
        }
    });
    let lab = Lab::new(&endpoint, &[2], "");
    let mut client = lab.client();
    let upgrade = "HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    let (head, body) = client.ask(&format!("GET /no {upgrade}"));
    assert!(head.starts_with("HTTP/1.1 200 ") && body == "no", "{head}{body}");
    client.send(&format!("GET /yes {upgrade}said before"));
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 ") && lab::field(&head, "upgrade").as_deref() == Some("echo"), "{head}");
    client.send(" and after");
    client.stream.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    client.stream.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "early said before and after");
}

#[test]
fn methods_that_are_none_of_an_edge_are_refused() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let endpoint = Endpoint::new(2, move |_| {
        count.fetch_add(1, SeqCst);
    });
    let lab = Lab::new(&endpoint, &[2], "");
    for request in ["CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let (head, _) = lab.client().ask(request);
        assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
    }
    assert_eq!(asked.load(SeqCst), 0);
}

// proves: A19
#[test]
fn a_silent_endpoint_is_waited_for_as_long_as_the_file_says() {
    let endpoint = Endpoint::new(2, |mut stream| while read_head(&mut stream).is_some() {});
    let lab = Lab::new(&endpoint, &[2], "request_timeout = 1\n");
    let begun = Instant::now();
    let (head, _) = lab.client().ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(950) && took < Duration::from_secs(3), "{took:?}");
}

// proves: A18
#[test]
fn a_connection_that_asks_nothing_is_closed_when_the_file_says() {
    let endpoint = Endpoint::new(2, |stream| answer(stream, |_| ("200 OK", "hello".to_owned())));
    let lab = Lab::new(&endpoint, &[2], "idle_timeout = 1\n");
    let mut client = lab.client();
    for _ in 0..3 {
        client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        std::thread::sleep(Duration::from_millis(500));
    }
    client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let begun = Instant::now();
    assert_eq!(client.stream.read(&mut [0; 1]).unwrap(), 0);
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(3), "{took:?}");
}

// proves: C09
#[test]
fn an_endpoint_that_refuses_costs_no_client_an_error() {
    let endpoint = Endpoint::new(2, |stream| answer(stream, |_| ("200 OK", "hello".to_owned())));
    // Nobody listens at the others.
    let lab = Lab::new(&endpoint, &[2, 3, 4], "");
    let mut client = lab.client();
    for at in 0..1000 {
        if at % 10 == 0 {
            client = lab.client();
        }
        let (head, body) = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
        assert!(head.starts_with("HTTP/1.1 200 ") && body == "hello", "{at}: {head}{body}");
    }
}

#[test]
fn what_nobody_takes_is_502_and_what_nobody_may_take_503() {
    let endpoint = Endpoint::new(2, |stream| answer(stream, |_| ("200 OK", "hello".to_owned())));
    let refused = Lab::new(&endpoint, &[3], "");
    let (head, _) = refused.client().ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    let nobody = Lab::weighted(&endpoint, &[2], 0);
    let (head, _) = nobody.client().ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
}

#[test]
fn a_connection_that_the_endpoint_closed_meanwhile_costs_nothing() {
    let endpoint = Endpoint::new(2, |mut stream| {
        // It does not say that it closes, and does so when the next request is there.
        if read_head(&mut stream).is_some() {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").unwrap();
            drop(stream.read(&mut [0]));
        }
    });
    let lab = Lab::new(&endpoint, &[2], "");
    let mut client = lab.client();
    // More than the budget for repeats has.
    for at in 0..200 {
        let (head, _) = client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 "), "{at}: {head}");
    }
}

#[test]
fn a_request_that_may_have_been_acted_on_is_not_sent_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let endpoint = Endpoint::new(2, move |mut stream| {
        if read_head(&mut stream).is_some() {
            count.fetch_add(1, SeqCst);
        }
    });
    let lab = Lab::new(&endpoint, &[2], "");
    let (head, _) = lab.client().ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    assert_eq!(asked.load(SeqCst), 1);
}

#[test]
fn answers_that_could_be_read_in_two_ways_are_no_answers() {
    for bad in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\na",
        "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "hello",
        "",
    ] {
        let endpoint = Endpoint::new(2, move |mut stream| {
            if read_head(&mut stream).is_some() {
                stream.write_all(bad.as_bytes()).unwrap();
            }
        });
        let lab = Lab::new(&endpoint, &[2], "");
        let (head, _) = lab.client().ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 502 "), "{bad:?}: {head}");
    }
}

#[test]
fn bytes_behind_an_answer_are_nobodys_answer() {
    let endpoint = Endpoint::new(2, |mut stream| {
        while read_head(&mut stream).is_some() {
            let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
            // At once: what comes when the next request is on its way cannot be told from its answer.
            stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood{evil}").as_bytes()).unwrap();
        }
    });
    let lab = Lab::new(&endpoint, &[2], "");
    let mut client = lab.client();
    for _ in 0..20 {
        assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").1, "good");
    }
}

// proves: A15
#[test]
fn requests_of_one_address_go_to_one_endpoint_when_the_file_says_so() {
    let endpoints = Endpoint::several(&[2, 3, 4], |name, stream| answer(stream, move |_| ("200 OK", name.to_string())));
    for (keys, most) in [("client_affinity = \"source_ip\"\n", 1), ("", 3)] {
        let lab = Lab::new(&endpoints[0], &[2, 3, 4], keys);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let mut client = lab.client();
            for _ in 0..10 {
                seen.insert(client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").1);
            }
        }
        assert_eq!(seen.len(), most, "{keys}: {seen:?}");
    }
}

#[test]
fn a_draining_edge_answers_and_closes() {
    let endpoint = Endpoint::new(2, |stream| answer(stream, |_| ("200 OK", "hello".to_owned())));
    let lab = Lab::new(&endpoint, &[2], "");
    let (mut idle, mut busy) = (lab.client(), lab.client());
    idle.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    busy.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na");
    std::thread::sleep(Duration::from_millis(100));
    lab.drain();
    assert_eq!(idle.stream.read(&mut [0; 1]).unwrap(), 0);
    busy.send("bc");
    let head = busy.head();
    assert!(head.starts_with("HTTP/1.1 200 ") && lab::field(&head, "connection").as_deref() == Some("close"), "{head}");
}

#[test]
fn a_client_that_says_nothing_or_half_of_it_is_not_waited_for_long() {
    let endpoint = Endpoint::new(2, |stream| answer(stream, |_| ("200 OK", "hello".to_owned())));
    let lab = Lab::new(&endpoint, &[2], "timeouts = { first_byte = 1, head = 1, body = 1 }\n");
    let mut silent = lab.client();
    let (mut half, mut body) = (lab.client(), lab.client());
    half.send("GET / HTTP/1.1\r\nHo");
    body.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na");
    assert_eq!(silent.stream.read(&mut [0; 1]).unwrap(), 0);
    assert!(half.head().starts_with("HTTP/1.1 408 "));
    assert!(body.head().starts_with("HTTP/1.1 408 "));
    let reasons = &lab.listener().counts.reasons;
    assert_eq!(reasons.get(ga::proxy::counts::Reason::ClientHeadTimeout), 1);
}

#[test]
fn heads_that_are_too_large_are_refused() {
    let endpoint = Endpoint::new(2, |stream| answer(stream, |_| ("200 OK", "hello".to_owned())));
    let lab = Lab::new(
        &endpoint,
        &[2],
        "http_limits = { head = \"8KiB\", target = \"1KiB\", fields = 10 }\n"
            .replace("\"8KiB\"", "8192")
            .replace("\"1KiB\"", "1024")
            .as_str(),
    );
    let long = "x".repeat(9000);
    let many: String = (0..20).map(|at| format!("X-{at}: 1\r\n")).collect();
    for (request, status) in [
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", &long[..2000]), "414"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), "431"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), "431"),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", &long[..1000]), "200"),
    ] {
        let (head, _) = lab.client().ask(&request);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {head}");
    }
}

#[test]
fn requests_are_written_to_the_log_when_they_have_ended() {
    let endpoint = Endpoint::new(2, |stream| answer(stream, |_| ("200 OK", "hello".to_owned())));
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("access.log");
    let lab = Lab::logged(&endpoint, &[2], &format!("access_log = {{ path = {:?} }}\n", path.display().to_string()));
    let mut client = lab.client();
    client.ask("POST /a?b HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\ntraceparent: 00-1-2-01\r\n\r\nabc");
    client.ask("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut lines = Vec::new();
    for _ in 0..100 {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect();
        if !lines.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let line = &lines[0];
    let expected = serde_json::json!({"listener": "lab/web", "method": "POST", "host": "shop.example", "target": "/a?b", "status": 200,
        "bytes_in": 3, "bytes_out": 5, "group": "default", "traceparent": "00-1-2-01", "retries": 0, "reused": false});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&line[key], value, "{key}: {line}");
    }
    assert!(line["total_ms"].as_f64() >= line["first_byte_ms"].as_f64() && line["endpoint"].is_string(), "{line}");
}

#[test]
fn an_endpoint_that_is_known_to_be_up_again_is_asked_at_once() {
    let serve = |last: u8| move |stream| answer(stream, move |_| ("200 OK", last.to_string()));
    let endpoint = Endpoint::new(2, serve(2));
    let lab = Lab::new(&endpoint, &[2, 3], "");
    let ask = || lab.client().ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").1;
    let refused = || lab.listener().endpoints[1].counts.reasons.get(ga::proxy::counts::Reason::Refused);
    while refused() < 3 {
        assert_eq!(ask(), "2");
    }
    let socket = std::net::TcpListener::bind(("127.0.0.3", endpoint.port)).unwrap();
    std::thread::spawn(move || socket.incoming().flatten().for_each(serve(3)));
    lab.believe(&[3]);
    lab.believe(&[]);
    assert!((0..100).any(|_| ask() == "3"), "three refusals are not held against it");
}
