//! WebSocket over a stream of HTTP/2 (RFC 8441): the client's extended CONNECT becomes the upgrade of HTTP/1.1 that endpoints know, and
//! the endpoint's 101 becomes 200. The key of RFC 6455, which such a client does not send, is made here and its answer checked here.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use hyper::{
    ext::Protocol,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    super::{
        Worker,
        counts::Reason,
        upstream::{Exchange, Lines},
    },
    answer::{Fields, Head, Refused},
    body::{Content, FromClient},
    served::Served,
    tunnel::Tunnel,
};

/// The value of `Upgrade`.
pub(super) const UPGRADE: HeaderValue = HeaderValue::from_static("websocket");
/// What is said to a client whose CONNECT cannot be served (RFC 9220 §3).
pub(super) const NOT_SERVED: Refused = Refused::new(StatusCode::NOT_IMPLEMENTED, Reason::Method);

/// A request for a WebSocket that is not answered yet.
#[derive(Debug)]
pub(super) struct WebSocket {
    /// The stream's bytes, once its answer is on the way.
    stream: OnUpgrade,
    /// What an endpoint that speaks WebSocket answers to the key.
    accept: String,
}

/// Makes an upgrade of a request that is an extended CONNECT; none when it is another request.
///
/// # Errors
///
/// [`NOT_SERVED`] when it is for another protocol.
pub(super) fn asked(parts: &mut Parts, worker: &Worker) -> Result<Option<Box<WebSocket>>, Refused> {
    if parts.method != Method::CONNECT {
        return Ok(None);
    }
    let Some(protocol) = parts.extensions.remove::<Protocol>() else { return Ok(None) };
    let is_websocket = protocol.as_str().eq_ignore_ascii_case("websocket");
    let stream = parts.extensions.remove::<OnUpgrade>().filter(|_| is_websocket).ok_or(NOT_SERVED)?;
    parts.method = Method::GET;
    let mut nonce = [0; 16];
    for half in nonce.chunks_exact_mut(8) {
        half.copy_from_slice(&worker.random().to_ne_bytes());
    }
    let key = BASE64.encode(&nonce);
    let accept = accept(&key);
    parts.headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::try_from(key).map_err(|_| NOT_SERVED)?);
    Ok(Some(Box::new(WebSocket { stream, accept })))
}

/// What is answered to a key (RFC 6455 §4.2.2).
fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref())
}

impl WebSocket {
    /// What the client gets for the endpoint's answer. Behind a 101 the stream is a tunnel.
    ///
    /// # Errors
    ///
    /// The endpoint does not speak WebSocket, or answers with a status that would tell the client that it does (RFC 8441 §5).
    pub(super) fn answered(
        self,
        lines: Lines,
        exchange: Box<Exchange<FromClient>>,
        served: &mut Served,
    ) -> Result<(Head, Content), Refused> {
        if lines.status != StatusCode::SWITCHING_PROTOCOLS && !lines.status.is_success() {
            return Ok((lines.into(), Content::Http1(exchange)));
        }
        let fields = lines.fields().ok().filter(|fields| self.is_accepted(lines.status, fields));
        let tunnel = exchange.into_link().and_then(|link| Tunnel::new(*link, served));
        let (Some(mut fields), Some(tunnel)) = (fields, tunnel) else {
            served.failed(Reason::BadAnswer);
            return Err(Refused::new(StatusCode::BAD_GATEWAY, Reason::BadAnswer));
        };
        fields.remove(header::SEC_WEBSOCKET_ACCEPT);
        let client = Rc::clone(&served.client);
        // As long as it lives its connection has something to do.
        client.begin();
        tokio::task::spawn_local(async move {
            if let Ok(upgraded) = self.stream.await {
                tunnel.run(Stream { io: TokioIo::new(upgraded), ended: false }, Bytes::new()).await;
            }
            client.end(client.patience.get());
        });
        Ok((Head { status: lines.status, fields: Fields::Map(fields) }, Content::Whole(Bytes::new())))
    }

    fn is_accepted(&self, status: StatusCode, fields: &HeaderMap) -> bool {
        let only = |name| {
            let mut values = fields.get_all(name).iter();
            values.next().filter(|_| values.next().is_none()).map_or(&b""[..], HeaderValue::as_bytes)
        };
        status == StatusCode::SWITCHING_PROTOCOLS
            && only(header::UPGRADE).eq_ignore_ascii_case(UPGRADE.as_bytes())
            && only(header::SEC_WEBSOCKET_ACCEPT) == self.accept.as_bytes()
    }
}

/// A stream's bytes in both directions.
struct Stream {
    io: TokioIo<Upgraded>,
    /// Nothing more comes.
    ended: bool,
}

impl AsyncRead for Stream {
    /// The library takes a reset for an end. It is told apart by what writes, whose task has noticed when this one has its next turn.
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ended {
            return match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Ready(flushed) => Poll::Ready(flushed),
                Poll::Pending => Poll::Ready(Ok(())),
            };
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            return Poll::Ready(Ok(()));
        }
        self.ended = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455 §1.3.
    #[test]
    fn a_key_has_one_answer() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
