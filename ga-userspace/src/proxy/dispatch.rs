//! From an accepted connection to what serves it.

use std::{rc::Rc, sync::Arc};

use tokio::net::TcpStream;

use super::{Listener, Peer, Worker, counts::Reason, http, proxy_protocol, tcp, tls};
use crate::model::Protocol;

/// Serves a connection to its end.
pub(super) async fn serve(worker: Rc<Worker>, listener: Arc<Listener>, mut stream: TcpStream, mut peer: Peer) {
    // Small answers must not wait for acknowledgements.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    match proxy_protocol::accept(&mut stream, &listener.file.proxy_from, peer.client).await {
        Ok(client) => peer.client = client,
        Err(fault) => {
            tracing::debug!(listener = listener.path, proxy = %peer.client, "{fault}");
            listener.counts.reasons.add(Reason::ProxyHeader);
            return;
        }
    }
    match listener.file.protocol {
        Protocol::Http => http::serve(worker, listener, stream, peer).await,
        Protocol::Https => https(worker, listener, stream, peer).await,
        Protocol::Tcp => tcp::serve(worker, listener, stream, peer).await,
        // Never asked for: the kernel serves it.
        Protocol::Udp => {}
    }
}

/// HTTP in TLS.
async fn https(worker: Rc<Worker>, listener: Arc<Listener>, stream: TcpStream, peer: Peer) {
    let Some(server) = worker.shared().tls.server(&listener.path) else { return };
    match tls::accept(stream, &server, tls::HANDSHAKE_DEADLINE).await {
        Ok((stream, agreed)) => http::serve(worker, listener, stream, Peer { tls: Some(agreed), ..peer }).await,
        Err(error) => {
            listener.counts.reasons.add(Reason::TlsHandshake);
            tracing::debug!(listener = listener.path, client = %peer.client, "handshake: {error}");
        }
    }
}
