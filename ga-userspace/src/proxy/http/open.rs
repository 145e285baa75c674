//! A connection to an endpoint, for a request.

use std::{net::SocketAddr, rc::Rc};

use rustls::pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};

use super::{
    super::{
        Listener, Worker,
        circuit::Unit,
        counts::Reason,
        tls,
        upstream::{self, Link, Place, Slot, Stream},
    },
    client::Client,
};

/// The endpoint at a place of the listener, and how it is reached.
#[derive(Debug)]
pub(super) struct Way {
    /// Its place.
    pub(super) place: usize,
    pub(super) address: SocketAddr,
    pub(super) slot: Rc<Slot>,
    /// It is spoken to with HTTP/2.
    pub(super) is_http2: bool,
    /// How often it was up again.
    returns: u64,
    /// Who the endpoint must be, and the same as text, where it is spoken to with TLS.
    name: Option<(ServerName<'static>, String)>,
}

/// The host that a request is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host<'r> {
    /// As it is forwarded.
    pub(super) name: &'r [u8],
    /// A rule wrote it.
    pub(super) is_rewritten: bool,
}

impl Way {
    /// To the endpoint at `place`; none when the place is none.
    pub(super) fn new(worker: &Worker, listener: &Listener, place: usize, port: u16, host: Host<'_>) -> Option<Self> {
        let endpoint = listener.endpoints.get(place)?;
        let backend = &listener.groups.get(endpoint.group)?.backend;
        let address = listener.address(place, port);
        let slot = worker.pools().slot(endpoint.identity, address, backend, &endpoint.counts);
        let name = backend.tls.as_ref().map(|_| {
            let host = (std::str::from_utf8(host.name).unwrap_or_default(), host.is_rewritten);
            let name = tls::name_of(Some(host.0).filter(|_| host.1), endpoint.domain.as_deref(), host.0, address.ip());
            let text = name.to_str().into_owned();
            (name, text)
        });
        Some(Self { place, address, slot, is_http2: backend.http2, returns: endpoint.returns, name })
    }

    /// Others are to be asked before it.
    pub(super) fn is_shunned(&self) -> bool {
        self.slot.is_shunned(self.returns)
    }

    /// What connections to reuse were opened for.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_ref().map(|(_, text)| text.as_str())
    }

    /// A fresh connection that carries one request after the other.
    pub(super) async fn open(&self, client: &Client, listener: &Listener) -> Result<Box<Link>, Reason> {
        // Opening is rare: its room is not every request's.
        let stream = Box::pin(self.connect(client, listener)).await?;
        Ok(Link::new(stream, self.name().map(str::to_owned)))
    }

    /// A place on a connection of HTTP/2, and whether the connection was there.
    pub(super) async fn share(&self, client: &Client, listener: &Listener) -> Result<(Place, bool), Reason> {
        let name = self.name().unwrap_or_default();
        if let Some(place) = self.slot.shared.place(name) {
            return Ok((place, true));
        }
        let group = listener.endpoints.get(self.place).and_then(|endpoint| listener.groups.get(endpoint.group));
        let group = group.ok_or(Reason::Internal)?;
        let held = group.load.hold(Unit::Connection, group.circuit.connections)?;
        let stream = Box::pin(self.connect(client, listener)).await?;
        Ok((Box::pin(self.slot.shared.add(stream, name, held)).await?, false))
    }

    async fn connect(&self, client: &Client, listener: &Listener) -> Result<Stream, Reason> {
        let patience = client.timeouts.get().connect;
        let opened = upstream::connect(self.address, &listener.egress, client.worker.random(), patience).await;
        let secured = match opened {
            Ok(stream) => {
                self.slot.counts.connections.add(1);
                self.secured(stream, client, listener).await
            }
            Err(reason) => Err(reason),
        };
        if secured.is_ok() {
            self.slot.succeeded()
        } else {
            self.slot.failed(self.returns)
        }
        secured
    }

    /// The connection as the endpoint's group says: over TLS, or as it is.
    async fn secured(&self, stream: TcpStream, client: &Client, listener: &Listener) -> Result<Stream, Reason> {
        let Some((name, _)) = &self.name else { return Ok(Stream::Plain(stream)) };
        let group = listener.endpoints.get(self.place).and_then(|endpoint| listener.groups.get(endpoint.group));
        let backend = &group.ok_or(Reason::Internal)?.backend;
        let config = client.worker.shared().tls.client(backend).ok_or(Reason::Internal)?;
        let handshake = tls::connect(&config, backend, name.clone(), stream);
        match timeout(client.timeouts.get().connect, handshake).await {
            Err(_) => Err(Reason::TimeoutConnect),
            Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
            Ok(Err(error)) => {
                tracing::debug!(listener = listener.path, endpoint = %self.address, "TLS: {error}");
                Err(Reason::TlsVerify)
            }
        }
    }
}
