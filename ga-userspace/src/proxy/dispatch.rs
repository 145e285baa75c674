//! From an accepted connection to what serves it.

use std::{pin::Pin, rc::Rc, sync::Arc};

use tokio::net::TcpStream;

use super::{Listener, Peer, Worker, counts::Reason, http, proxy_protocol, tcp, tls};
use crate::model::Protocol;

/// What serves a connection.
type Served = Pin<Box<dyn Future<Output = ()>>>;

/// Serves a connection to its end. What is needed only until that is known is gone then: most connections live long.
pub(super) fn serve(worker: Rc<Worker>, listener: Arc<Listener>, stream: TcpStream, peer: Peer) -> impl Future<Output = ()> {
    let begun = Box::pin(begin(worker, listener, stream, peer));
    async move {
        let served = begun.await;
        if let Some(served) = served {
            served.await;
        }
    }
}

async fn begin(worker: Rc<Worker>, listener: Arc<Listener>, mut stream: TcpStream, mut peer: Peer) -> Option<Served> {
    // Small answers must not wait for acknowledgements.
    stream.set_nodelay(true).ok()?;
    match proxy_protocol::accept(&mut stream, &listener.file.proxy_from, peer.client).await {
        Ok(client) => peer.client = client,
        Err(fault) => {
            tracing::debug!(listener = &*listener.path, proxy = %peer.client, "{fault}");
            listener.counts.reasons.add(Reason::ProxyHeader);
            return None;
        }
    }
    match listener.file.protocol {
        Protocol::Http => Some(http::serve(worker, &listener, stream, peer)),
        Protocol::Https => https(worker, &listener, stream, peer).await,
        Protocol::Tcp => Some(Box::pin(tcp::serve(worker, listener, stream, peer))),
        // Never asked for: the kernel serves it.
        Protocol::Udp => None,
    }
}

/// HTTP in TLS.
async fn https(worker: Rc<Worker>, listener: &Arc<Listener>, stream: TcpStream, peer: Peer) -> Option<Served> {
    let server = worker.shared().tls.server(&listener.path)?;
    match tls::accept(stream, &server, tls::HANDSHAKE_DEADLINE).await {
        Ok((stream, agreed)) => Some(http::serve(worker, listener, stream, Peer { tls: Some(Box::new(agreed)), ..peer })),
        Err(error) => {
            listener.counts.reasons.add(Reason::TlsHandshake);
            tracing::debug!(listener = &*listener.path, client = %peer.client, "handshake: {error}");
            None
        }
    }
}
