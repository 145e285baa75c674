//! `GET` over HTTP/1.1, plain or in TLS: one request, no redirect is followed, and no more of the answer is read than is needed.

use std::sync::{Arc, OnceLock};

use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Method, Request,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::{outcome::Reason, roster::Check};
use crate::{
    model::HealthCheck,
    trust::{self, TrustError},
};

/// Bytes of a body that are searched for the expected text.
const BODY_LIMIT: usize = 64 << 10;

/// Asks over a connection, and judges the answer.
pub(super) async fn ask<S>(stream: S, how: &HealthCheck) -> Result<(), Reason>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| Reason::Broken(error.to_string());
    let (mut sender, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(broken)?;
    let request = Request::builder()
        .method(Method::GET)
        .uri(&how.path)
        .header(HOST, how.host.as_deref().unwrap_or_default())
        .header(USER_AGENT, concat!("ga/", env!("CARGO_PKG_VERSION"), " health"))
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| Reason::Broken(error.to_string()))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status().as_u16();
        if !how.expected_status.iter().any(|range| range.contains(status)) {
            return Err(Reason::Status(status));
        }
        match &how.body {
            Some(text) => find(answer.into_body(), text.as_bytes()).await,
            None => Ok(()),
        }
    };
    tokio::pin!(connection, exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // The connection ends before its answer was looked at: that one is complete then, or there is none.
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(broken(error)),
        },
    }
}

/// The text within the first bytes of the body.
async fn find(mut body: Incoming, text: &[u8]) -> Result<(), Reason> {
    let mut read: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Reason::Broken(error.to_string()))?;
        read.extend(frame.data_ref().map_or(&[][..], |data| &data[..data.len().min(BODY_LIMIT - read.len())]));
        if read.windows(text.len()).any(|window| window == text) {
            return Ok(());
        }
        if read.len() >= BODY_LIMIT {
            break;
        }
    }
    Err(Reason::Body)
}

/// The same in TLS.
pub(super) async fn ask_secured<S>(stream: S, check: &Check) -> Result<(), Reason>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let tls = |error: &dyn std::fmt::Display| Reason::Tls(error.to_string());
    let config = config(check.how.verify).as_ref().map_err(|error| tls(error))?;
    let name = trust::server_name(check.how.host.as_deref().unwrap_or_default(), check.target.ip());
    let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await.map_err(|error| tls(&error))?;
    ask(stream, &check.how).await
}

/// Made once for each answer to whether certificates count: a probe asks whether the endpoint serves, and a load balancer's endpoints
/// often have certificates of their own making.
fn config(verify: bool) -> &'static Result<Arc<ClientConfig>, TrustError> {
    static TRUSTING: OnceLock<Result<Arc<ClientConfig>, TrustError>> = OnceLock::new();
    static VERIFYING: OnceLock<Result<Arc<ClientConfig>, TrustError>> = OnceLock::new();
    let once = if verify { &VERIFYING } else { &TRUSTING };
    once.get_or_init(|| trust::client(verify, None, &[]).map(Arc::new))
}
