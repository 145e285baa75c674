//! Endpoints of HTTP/2 that refuse streams, reset them, or end their connections: what nobody acted on is sent once more, and nothing
//! else is.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use ga::proxy::counts::Reason as Why;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{Request, Response};
use lab::{Client, Endpoint, Lab, becomes};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::Notify;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

const HTTP2: &str = "backend_protocol = \"https\"\nbackend_protocol_version = \"http2\"\nverify = false\n";

/// A connection to an endpoint.
struct Served {
    /// The endpoint's address ends with it.
    last: u8,
    /// How many connections were there before, to any of them.
    number: usize,
    connection: h2::server::Connection<TlsStream<tokio::net::TcpStream>, Bytes>,
    /// The same socket.
    socket: TcpStream,
}

/// Servers of HTTP/2 over TLS.
fn endpoints<F: Future<Output = ()>>(lasts: &[u8], serve: impl Fn(Served) -> F + Send + Sync + 'static) -> Endpoint {
    let made = rcgen::generate_simple_self_signed(["endpoint.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (acceptor, count) = (TlsAcceptor::from(Arc::new(config)), AtomicUsize::new(0));
    let serve = move |last, stream: TcpStream| {
        stream.set_nonblocking(true).unwrap();
        let socket = stream.try_clone().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let Ok(stream) = acceptor.accept(tokio::net::TcpStream::from_std(stream).unwrap()).await else { return };
            let Ok(connection) = h2::server::handshake(stream).await else { return };
            serve(Served { last, number: count.fetch_add(1, SeqCst), connection, socket }).await;
        });
    };
    Endpoint::several(lasts, serve).remove(0)
}

/// What endpoints saw.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    /// Writes it down; how much was there before.
    fn note(&self, what: impl Into<String>) -> usize {
        let mut seen = self.0.lock().unwrap();
        seen.push(what.into());
        seen.len() - 1
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Answers with the body, once it is there.
fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    tokio::spawn(async move {
        let body = whole(request).await;
        let head = Response::builder().header("content-length", body.len()).body(()).unwrap();
        let mut stream = respond.send_response(head, false).unwrap();
        stream.send_data(body.into(), true).unwrap();
    });
}

async fn whole(request: Request<RecvStream>) -> Vec<u8> {
    let (mut body, mut whole) = (request.into_body(), Vec::new());
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        whole.extend_from_slice(&data);
    }
    whole
}

fn head(method: &str, path: &str, length: usize) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {length}\r\n\r\n")
}

/// The status and body that a request gets.
fn ask(lab: &Lab, method: &str, path: &str, body: &str) -> (u16, String) {
    let (answer, body) = lab.client().ask(&format!("{}{body}", head(method, path, body.len())));
    (answer[9..12].parse().unwrap(), body)
}

#[test]
fn a_refused_stream_is_sent_once_more_whatever_its_method() {
    let seen = Seen::default();
    let noted = seen.clone();
    let endpoint = endpoints(&[2], move |mut served| {
        let seen = noted.clone();
        async move {
            while let Some(Ok((request, mut respond))) = served.connection.accept().await {
                match seen.note(format!("{} {}", served.number, request.method())) {
                    0 => respond.send_reset(Reason::REFUSED_STREAM),
                    _ => answer(request, respond),
                }
            }
        }
    });
    let lab = Lab::https(&endpoint, &[2], HTTP2);
    assert_eq!(ask(&lab, "POST", "/", "").0, 200);
    assert_eq!(seen.all(), ["0 POST", "0 POST"], "by the connection that there is");
    becomes(1, || lab.listener().counts.retries.get());
    assert_eq!(lab.listener().endpoints[0].counts.reasons.get(Why::Reset), 1);
}

#[test]
fn somebody_else_is_asked_first_and_nobody_more_than_twice() {
    let seen = Seen::default();
    let noted = seen.clone();
    let endpoint = endpoints(&[2, 3], move |mut served| {
        let seen = noted.clone();
        async move {
            while let Some(Ok((request, mut respond))) = served.connection.accept().await {
                seen.note(format!("{}{}", served.last, request.uri().path()));
                match (served.last, request.uri().path()) {
                    (3, "/one") => answer(request, respond),
                    _ => respond.send_reset(Reason::REFUSED_STREAM),
                }
            }
        }
    });
    let lab = Lab::https(&endpoint, &[2, 3], HTTP2);
    for _ in 0..30 {
        assert_eq!(ask(&lab, "POST", "/one", "").0, 200);
    }
    let at = |what: &str| seen.all().iter().filter(|seen| *seen == what).count();
    assert!(at("2/one") > 0 && at("3/one") == 30, "{:?}", seen.all());
    assert_eq!(ask(&lab, "POST", "/none", "").0, 502);
    assert_eq!((at("2/none") + at("3/none"), at("2/none").abs_diff(at("3/none"))), (3, 1));
}

#[test]
fn what_an_endpoint_may_have_acted_on_is_not_sent_again() {
    for (reason, method, body) in [
        (Reason::INTERNAL_ERROR, "POST", ""),
        (Reason::CANCEL, "GET", ""),
        // It says that it did not process it, but what it took is gone.
        (Reason::REFUSED_STREAM, "POST", "hello"),
    ] {
        let seen = Seen::default();
        let noted = seen.clone();
        let endpoint = endpoints(&[2], move |mut served| {
            let seen = noted.clone();
            async move {
                while let Some(Ok((request, mut respond))) = served.connection.accept().await {
                    let seen = seen.clone();
                    tokio::spawn(async move {
                        seen.note(String::from_utf8(whole(request).await).unwrap());
                        respond.send_reset(reason);
                    });
                }
            }
        });
        let lab = Lab::https(&endpoint, &[2], HTTP2);
        assert_eq!(ask(&lab, method, "/", body).0, 502, "{reason:?}");
        assert_eq!(seen.all(), [body], "{reason:?}");
    }
}

#[test]
fn a_body_that_nobody_took_is_sent_to_who_is_asked_next() {
    let seen = Seen::default();
    let noted = seen.clone();
    let endpoint = endpoints(&[2], move |mut served| {
        let seen = noted.clone();
        async move {
            while let Some(Ok((request, mut respond))) = served.connection.accept().await {
                match seen.note("") {
                    0 => respond.send_reset(Reason::REFUSED_STREAM),
                    _ => answer(request, respond),
                }
            }
        }
    });
    let lab = Lab::https(&endpoint, &[2], HTTP2);
    let mut client = lab.client();
    client.send(&head("POST", "/", 5));
    becomes(2, || seen.all().len());
    client.send("hello");
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(client.body(&head), "hello");
}

/// RFC 9113 §6.8: what is above the last stream that a GOAWAY names was not processed.
#[test]
fn what_came_too_late_for_a_connection_is_sent_by_the_next() {
    let (seen, told, stopped) = (Seen::default(), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (noted, tell, stops) = (seen.clone(), Arc::clone(&told), Arc::clone(&stopped));
    let endpoint = endpoints(&[2], move |mut served| {
        let (seen, told, stopped) = (noted.clone(), Arc::clone(&tell), Arc::clone(&stops));
        async move {
            loop {
                tokio::select! {
                    accepted = served.connection.accept() => {
                        let Some(Ok((request, respond))) = accepted else { return };
                        seen.note(format!("{}{}", served.number, request.uri().path()));
                        answer(request, respond);
                    }
                    () = told.notified() => break,
                }
            }
            stopped.notify_one();
            // The request is there, and nobody reads it.
            while served.socket.peek(&mut [0]).is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            served.connection.abrupt_shutdown(Reason::NO_ERROR);
            while let Some(Ok(_)) = served.connection.accept().await {}
            drop(served.connection);
            // A socket with something to be read would be closed by a reset.
            served.socket.set_nonblocking(false).unwrap();
            drop(served.socket.read_to_end(&mut Vec::new()));
        }
    });
    let lab = Lab::https(&endpoint, &[2], HTTP2);
    assert_eq!(ask(&lab, "POST", "/first", "").0, 200);
    told.notify_one();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(stopped.notified());
    assert_eq!(ask(&lab, "POST", "/late", "").0, 200);
    assert_eq!(seen.all(), ["0/first", "1/late"]);
}

#[test]
fn a_connection_that_the_endpoint_ends_gets_nothing_new_and_ends_what_it_has() {
    let (seen, go_on) = (Seen::default(), Arc::new(Notify::new()));
    let (noted, told) = (seen.clone(), Arc::clone(&go_on));
    let endpoint = endpoints(&[2], move |mut served| {
        let (seen, told) = (noted.clone(), Arc::clone(&told));
        async move {
            while let Some(Ok((request, respond))) = served.connection.accept().await {
                seen.note(format!("{}{}", served.number, request.uri().path()));
                if request.uri().path() == "/slow" {
                    let told = Arc::clone(&told);
                    tokio::spawn(async move {
                        told.notified().await;
                        answer(request, respond);
                    });
                    served.connection.graceful_shutdown();
                } else {
                    answer(request, respond);
                }
            }
        }
    });
    let lab = Lab::https(&endpoint, &[2], HTTP2);
    let mut slow = lab.client();
    slow.send(&head("POST", "/slow", 0));
    becomes(1, || seen.all().len());
    // The news are on their way; when they have arrived, another connection is opened.
    let moved = || seen.all().contains(&"1/next".to_owned());
    for _ in 0..1000 {
        assert_eq!(ask(&lab, "POST", "/next", "hello"), (200, "hello".to_owned()));
        if moved() {
            break;
        }
    }
    assert!(moved());
    for _ in 0..10 {
        assert_eq!(ask(&lab, "POST", "/more", "hello"), (200, "hello".to_owned()));
    }
    assert!(!seen.all().contains(&"0/more".to_owned()), "{:?}", seen.all());
    go_on.notify_one();
    let head = slow.head();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}

#[test]
fn where_a_connection_breaks_only_what_may_be_done_twice_is() {
    for (method, status, times) in [("GET", 200, 2), ("POST", 502, 1)] {
        let seen = Seen::default();
        let noted = seen.clone();
        let endpoint = endpoints(&[2], move |mut served| {
            let seen = noted.clone();
            async move {
                while let Some(Ok((request, respond))) = served.connection.accept().await {
                    let is_first = request.uri().path() == "/first";
                    if !is_first && seen.note("") == 0 {
                        return;
                    }
                    answer(request, respond);
                }
            }
        });
        let lab = Lab::https(&endpoint, &[2], HTTP2);
        assert_eq!(ask(&lab, method, "/first", "").0, 200);
        assert_eq!(ask(&lab, method, "/", "").0, status, "{method}");
        assert_eq!(seen.all().len(), times, "{method}");
    }
}

/// Who is answered before it has sent everything reads the answer to its end, whatever it still sends; the endpoint is told that nobody
/// sends the rest.
#[test]
fn an_upload_that_nobody_wants_ends_with_its_answer() {
    let seen = Seen::default();
    let noted = seen.clone();
    let endpoint = endpoints(&[2], move |mut served| {
        let seen = noted.clone();
        async move {
            while let Some(Ok((request, mut respond))) = served.connection.accept().await {
                let mut stream = respond.send_response(Response::builder().status(413).body(()).unwrap(), false).unwrap();
                stream.send_data(Bytes::from_static(b"too much"), true).unwrap();
                let seen = seen.clone();
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    while let Some(data) = body.data().await {
                        if let Err(error) = data {
                            seen.note(format!("{:?}", error.reason()));
                            return;
                        }
                    }
                });
            }
        }
    });
    let lab = Lab::https(&endpoint, &[2], HTTP2);
    let Client { mut stream } = lab.client();
    stream.write_all(head("POST", "/", 10_000_000).as_bytes()).unwrap();
    stream.write_all(&[b'a'; 1000]).unwrap();
    becomes(vec!["Some(CANCEL)".to_owned()], || seen.all());
    stream.write_all(&[b'a'; 100_000]).unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert!(all.starts_with("HTTP/1.1 413 ") && all.ends_with("\r\ntoo much\r\n0\r\n\r\n"), "{all}");
}
