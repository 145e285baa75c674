//! From an accepted connection to what serves it.

use std::{rc::Rc, sync::Arc};

use tokio::net::TcpStream;

use super::{Listener, Peer, Worker, http};
use crate::model::Protocol;

/// Serves a connection to its end.
pub(super) async fn serve(worker: Rc<Worker>, listener: Arc<Listener>, stream: TcpStream, peer: Peer) {
    // Small answers must not wait for acknowledgements.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    match listener.file.protocol {
        Protocol::Http => http::serve(worker, listener, stream, peer).await,
        Protocol::Https | Protocol::Tcp | Protocol::Udp => drop((worker, listener, stream, peer)),
    }
}
