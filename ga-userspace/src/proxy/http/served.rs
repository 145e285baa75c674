//! What is to be said of a request when it has ended, however it does.

use std::{rc::Rc, sync::Arc};

use http::StatusCode;

use super::{
    super::{
        Listener,
        counts::{Count, EndpointCounts, Reason},
    },
    client::Client,
    timer::Timer,
};

/// A request until its end.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) client: Rc<Client>,
    pub(super) listener: Option<Arc<Listener>>,
    pub(super) endpoint: Option<Arc<EndpointCounts>>,
    pub(super) status: StatusCode,
    pub(super) reason: Option<Reason>,
    pub(super) bytes_out: u64,
    /// Nothing of the answer is to come.
    pub(super) complete: bool,
    /// Of a stream of HTTP/2: the connection's own is for all of them.
    own: Timer,
}

impl Served {
    pub(super) fn new(client: Rc<Client>) -> Box<Self> {
        client.begin();
        Box::new(Self {
            client,
            listener: None,
            endpoint: None,
            status: StatusCode::INTERNAL_SERVER_ERROR,
            reason: None,
            bytes_out: 0,
            complete: false,
            own: Timer::default(),
        })
    }

    /// What its waits are timed with: in the task that serves it.
    pub(super) fn timer(&self) -> &Timer {
        if self.client.is_h2 { &self.own } else { &self.client.timer }
    }

    /// It went to that endpoint.
    pub(super) fn given_to(&mut self, endpoint: &Arc<EndpointCounts>) {
        self.let_go();
        endpoint.requests.add(1);
        endpoint.active.add(1);
        self.endpoint = Some(Arc::clone(endpoint));
    }

    /// The endpoint has nothing to do with it any more.
    pub(super) fn let_go(&mut self) {
        if let Some(endpoint) = self.endpoint.take() {
            endpoint.active.sub(1);
        }
    }

    /// The endpoint failed, for that reason.
    pub(super) fn failed(&self, reason: Reason) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.reasons.add(reason);
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if !self.complete && self.reason.is_none() {
            self.reason = Some(Reason::ClientClosed);
        }
        let class = usize::from(self.status.as_u16() / 100).saturating_sub(1);
        let one = |statuses: &[Count; 5]| {
            if let Some(count) = statuses.get(class) {
                count.add(1);
            }
        };
        if let Some(endpoint) = &self.endpoint {
            one(&endpoint.statuses);
            endpoint.bytes_out.add(self.bytes_out);
        }
        let mut idle = self.client.timeouts.get().first_byte;
        if let Some(listener) = &self.listener {
            listener.counts.requests.add(1);
            listener.counts.bytes_out.add(self.bytes_out);
            one(&listener.counts.statuses);
            if let Some(reason) = self.reason {
                listener.counts.reasons.add(reason);
            }
            idle = listener.file.idle_timeout;
        }
        self.let_go();
        // What follows a change of protocol is no request.
        if self.status != StatusCode::SWITCHING_PROTOCOLS
            && let Some(guard) = self.client.guard.get()
        {
            guard.answered();
        }
        self.client.end(idle);
    }
}
