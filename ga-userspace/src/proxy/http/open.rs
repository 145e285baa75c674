//! A connection to an endpoint, for a request.

use std::{borrow::Cow, net::SocketAddr, rc::Rc};

use tokio::time::{Instant, timeout_at};

use super::{
    super::{
        Listener, Worker,
        counts::Reason,
        rules::host_of,
        tls,
        upstream::{self, Link, Place, Slot, Stream},
    },
    client::Client,
};
use crate::model::Backend;

/// The endpoint at a place of the listener, and how it is reached.
#[derive(Debug)]
pub(super) struct Way<'l> {
    /// Its place.
    pub(super) place: usize,
    pub(super) address: SocketAddr,
    pub(super) slot: Rc<Slot>,
    pub(super) backend: &'l Backend,
    domain: Option<&'l str>,
}

/// Whom TLS is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'h> {
    pub(super) host: &'h [u8],
    /// A rule wrote the host.
    pub(super) rewritten: bool,
}

impl<'l> Way<'l> {
    /// To the endpoint at `place`; none when the place is none.
    pub(super) fn new(worker: &Worker, listener: &'l Listener, place: usize, port: u16) -> Option<Self> {
        let endpoint = listener.endpoints.get(place)?;
        let backend = &listener.groups.get(endpoint.group)?.backend;
        let address = listener.address(place, port);
        let slot = worker.pools().slot(endpoint.identity, address, backend, &endpoint.counts);
        Some(Self { place, address, slot, backend, domain: endpoint.domain.as_deref() })
    }

    /// Whom the endpoint must be, with TLS: connections are kept by it.
    pub(super) fn name(&self, asked: Asked<'_>) -> Option<String> {
        self.backend.tls.as_ref()?;
        Some(self.server_name(asked).to_str().into_owned())
    }

    fn server_name(&self, asked: Asked<'_>) -> rustls::pki_types::ServerName<'static> {
        let host = String::from_utf8_lossy(asked.host);
        let host = host_of(&host);
        tls::name_of(asked.rewritten.then_some(host), self.domain, host, self.address.ip())
    }

    /// A fresh connection that carries one request after the other.
    pub(super) async fn open(&self, client: &Client, listener: &Listener, asked: Asked<'_>) -> Result<Box<Link>, Reason> {
        let stream = self.connect(client, listener, asked).await?;
        Ok(Link::new(stream, self.name(asked)))
    }

    /// A place on a connection of HTTP/2, and whether it was there.
    pub(super) async fn share(&self, client: &Client, listener: &Listener, asked: Asked<'_>) -> Result<(Place, bool), Reason> {
        let name = self.name(asked).map_or(Cow::Borrowed(""), Cow::Owned);
        if let Some(place) = self.slot.shared.place(&name) {
            return Ok((place, true));
        }
        let stream = self.connect(client, listener, asked).await?;
        Ok((self.slot.shared.add(stream, &name).await?, false))
    }

    async fn connect(&self, client: &Client, listener: &Listener, asked: Asked<'_>) -> Result<Stream, Reason> {
        let connected = self.try_connect(client, listener, asked).await;
        match &connected {
            Ok(_) => {
                self.slot.succeeded();
                self.slot.counts.connections.add(1);
            }
            Err(_) => self.slot.failed(),
        }
        connected
    }

    async fn try_connect(&self, client: &Client, listener: &Listener, asked: Asked<'_>) -> Result<Stream, Reason> {
        let patience = client.timeouts.get().connect;
        let until = Instant::now() + patience;
        let stream = upstream::connect(self.address, &listener.egress, client.worker.random(), patience).await?;
        if self.backend.tls.is_none() {
            return Ok(Stream::Plain(stream));
        }
        let config = client.worker.shared().tls.client(self.backend).ok_or(Reason::TlsVerify)?;
        let handshake = tls::connect(&config, self.backend, self.server_name(asked), stream);
        match timeout_at(until, handshake).await {
            Err(_) => Err(Reason::TimeoutConnect),
            Ok(Err(tls::ConnectError::Verify(_))) => Err(Reason::TlsVerify),
            Ok(Err(tls::ConnectError::Handshake(_) | tls::ConnectError::NoHttp2)) => Err(Reason::TlsHandshake),
            Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
        }
    }
}
