//! HTTP/2 through the proxy, to clients and to endpoints: real clients and servers on loopback addresses.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::{io::Write as _, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, Version, body::Incoming, client::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lab::{Endpoint, Lab, answer, read_head};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// A client of the proxy that agreed on HTTP/2.
async fn client(lab: &Lab) -> http2::SendRequest<Full<Bytes>> {
    let stream = tokio::net::TcpStream::connect(lab.address()).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(method: &str, target: &str, body: &str) -> Request<Full<Bytes>> {
    let uri = format!("https://127.0.0.1{target}");
    Request::builder().method(method).uri(uri).body(Full::new(Bytes::from(body.to_owned()))).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_http2_reach_endpoints_of_http1() {
    let endpoint = Endpoint::new(2, |stream| answer(stream, |head| ("200 OK", head.to_owned())));
    let lab = Lab::http2(&endpoint, &[2], "");
    let mut sender = client(&lab).await;
    let mut asked = request("POST", "/a?b", "hello");
    for cookie in ["a=1", "b=2"] {
        asked.headers_mut().append("cookie", cookie.parse().unwrap());
    }
    let response = sender.send_request(asked).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
    let body = String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    for there in [
        "POST /a?b HTTP/1.1\r\nhost: 127.0.0.1\r\n",
        "cookie: a=1; b=2\r\n",
        "content-length: 5\r\n",
        "x-forwarded-for: 127.0.0.1\r\n",
    ] {
        assert!(body.contains(there), "{there}: {body}");
    }
    let many = (0..50).map(|at| sender.send_request(request("GET", &format!("/{at}"), "")));
    for response in futures_util::future::join_all(many).await {
        assert_eq!(response.unwrap().status().as_u16(), 200);
    }
    let refused = sender.send_request(request("TRACE", "/", "")).await.unwrap();
    assert_eq!(refused.status().as_u16(), 405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_of_http1_become_trailers_of_http2() {
    let endpoint = Endpoint::new(2, |mut stream| {
        while read_head(&mut stream).is_some() {
            let answer =
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\ngrpc-status: 0\r\nHost: evil\r\n\r\n";
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let lab = Lab::http2(&endpoint, &[2], "");
    let response = client(&lab).await.send_request(request("GET", "/", "")).await.unwrap();
    let collected = response.into_body().collect().await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    assert_eq!(trailers.get("grpc-status").and_then(|value| value.to_str().ok()), Some("0"));
    assert!(trailers.get("host").is_none());
    assert_eq!(collected.to_bytes(), "hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_fails_alone() {
    let endpoint = Endpoint::new(2, |mut stream| {
        while let Some(head) = read_head(&mut stream) {
            if head.contains("/bad") {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").unwrap();
                return;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").unwrap();
        }
    });
    let lab = Lab::http2(&endpoint, &[2], "");
    let mut sender = client(&lab).await;
    // The reset may overtake the head.
    if let Ok(bad) = sender.send_request(request("GET", "/bad", "")).await {
        assert!(bad.into_body().collect().await.is_err());
    }
    let good = sender.send_request(request("GET", "/good", "")).await.unwrap();
    assert_eq!(good.into_body().collect().await.unwrap().to_bytes(), "hello");
}

/// A server with TLS that speaks what `alpn` says, and answers with the version it was spoken to with and the names it was asked for.
fn tls_endpoint(alpn: &'static [u8]) -> Endpoint {
    let made = rcgen::generate_simple_self_signed(["endpoint.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Endpoint::new(2, move |stream| {
        let acceptor = acceptor.clone();
        stream.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let Ok(stream) = acceptor.accept(tokio::net::TcpStream::from_std(stream).unwrap()).await else { return };
            let name = stream.get_ref().1.server_name().unwrap_or("none").to_owned();
            let service = service_fn(move |request: Request<Incoming>| {
                let name = name.clone();
                async move {
                    let version = format!("{:?} {name} ", request.version());
                    let body = request.into_body().collect().await?.to_bytes();
                    Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from([version.as_bytes(), &body].concat()))))
                }
            });
            let io = TokioIo::new(stream);
            if alpn == b"h2" {
                drop(hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await);
            } else {
                drop(hyper::server::conn::http1::Builder::new().serve_connection(io, service).await);
            }
        });
    })
}

// proves: D08, D09
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_are_spoken_to_with_tls_and_with_http2_when_the_file_says_so() {
    for (alpn, keys, expected) in [
        (&b"http/1.1"[..], "backend_protocol = \"https\"\nverify = false\n", "HTTP/1.1 shop.example hello"),
        (
            b"h2",
            "backend_protocol = \"https\"\nbackend_protocol_version = \"http2\"\nverify = false\n",
            "HTTP/2.0 shop.example hello",
        ),
    ] {
        let endpoint = tls_endpoint(alpn);
        let lab = Lab::https(&endpoint, &[2], keys);
        for _ in 0..3 {
            let (head, body) = lab.client().ask("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\n\r\nhello");
            assert!(head.starts_with("HTTP/1.1 200 ") && body == expected, "{head}{body}");
        }
        let strict = Lab::https(&endpoint, &[2], &keys.replace("verify = false\n", ""));
        let (head, _) = strict.client().ask("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
        assert!(strict.listener().endpoints[0].counts.reasons.get(ga::proxy::counts::Reason::TlsVerify) > 0);
    }
}
