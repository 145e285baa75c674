//! A connection to an endpoint, for a request.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use super::{
    super::{
        Listener, Worker,
        counts::Reason,
        upstream::{self, Link, Slot, Stream},
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
}

impl Way {
    /// To the endpoint at `place`; none when the place is none.
    pub(super) fn new(worker: &Worker, listener: &Listener, place: usize, port: u16) -> Option<Self> {
        let endpoint = listener.endpoints.get(place)?;
        let backend = &listener.groups.get(endpoint.group)?.backend;
        let address = listener.address(place, port);
        let slot = worker.pools().slot(endpoint.identity, address, backend, &endpoint.counts);
        Some(Self { place, address, slot })
    }

    /// A fresh connection.
    pub(super) async fn open(&self, client: &Client, listener: &Arc<Listener>) -> Result<Box<Link>, Reason> {
        let patience = client.timeouts.get().connect;
        let opened = upstream::connect(self.address, &listener.egress, client.worker.random(), patience).await;
        match opened {
            Ok(stream) => {
                self.slot.succeeded();
                self.slot.counts.connections.add(1);
                Ok(Link::new(Stream::Plain(stream), None))
            }
            Err(reason) => {
                self.slot.failed();
                Err(reason)
            }
        }
    }
}
