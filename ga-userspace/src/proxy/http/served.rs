//! What is to be said of a request when it has ended, however it does.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use http::{HeaderValue, Method, StatusCode, Uri, Version, header, request::Parts};
use tokio::time::Instant;

use super::{
    super::{
        Listener,
        circuit::{self, Held, Unit},
        counts::{Count, EndpointCounts, Reason},
        log::{Line, Log},
    },
    client::Client,
    timer::Timer,
    websocket::WebSocket,
};

/// A request until its end.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) client: Rc<Client>,
    pub(super) listener: Option<Arc<Listener>>,
    pub(super) endpoint: Option<Arc<EndpointCounts>>,
    /// Its place among what the endpoint group may have.
    pub(super) held: Option<Held>,
    pub(super) status: StatusCode,
    pub(super) reason: Option<Reason>,
    pub(super) bytes_out: u64,
    /// Nothing of the answer is to come.
    pub(super) complete: bool,
    /// What it asks for by an extended CONNECT, until that is answered.
    pub(super) websocket: Option<Box<WebSocket>>,
    /// What is written of it, if anything is.
    pub(super) noted: Option<Box<Noted>>,
    /// Of a stream of HTTP/2: the connection's own is for all of them.
    own: Timer,
}

/// What the access log says of a request, kept until it ends.
#[derive(Debug)]
pub(super) struct Noted {
    log: Arc<Log>,
    begun: Instant,
    method: Method,
    uri: Uri,
    version: Version,
    host: Option<HeaderValue>,
    agent: Option<HeaderValue>,
    trace: Option<HeaderValue>,
    pub(super) rule: Option<usize>,
    /// Bytes of its body.
    pub(super) received: u64,
    pub(super) retries: u32,
    pub(super) reused: bool,
    /// The endpoint's place and address.
    pub(super) endpoint: Option<(usize, SocketAddr)>,
    /// How long the last connection to an endpoint took to open; none when one was at hand.
    pub(super) connect: Option<Duration>,
    /// Until the answer's head came.
    pub(super) first: Option<Duration>,
}

impl Noted {
    pub(super) fn new(log: &Arc<Log>, parts: &Parts) -> Box<Self> {
        Box::new(Self {
            log: Arc::clone(log),
            begun: Instant::now(),
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            version: parts.version,
            host: parts.headers.get(header::HOST).cloned(),
            agent: parts.headers.get(header::USER_AGENT).cloned(),
            trace: parts.headers.get("traceparent").cloned(),
            rule: None,
            received: 0,
            retries: 0,
            reused: false,
            endpoint: None,
            connect: None,
            first: None,
        })
    }

    /// The answer's head is there.
    pub(super) fn answered(&mut self) {
        self.first = Some(self.begun.elapsed());
    }

    fn write(&self, served: &Served) {
        let random = served.client.worker.random();
        let Some(listener) = served.listener.as_ref() else { return };
        if !self.log.takes(random, served.status.as_u16(), served.reason.is_some()) {
            return;
        }
        fn text(value: Option<&HeaderValue>) -> &[u8] {
            value.map_or(&b""[..], HeaderValue::as_bytes)
        }
        let endpoint = self.endpoint.and_then(|(place, _)| listener.endpoints.get(place));
        let line = Line {
            listener: &listener.path,
            id: random,
            client: served.client.peer.client,
            method: self.method.as_str(),
            host: self.uri.authority().map_or(text(self.host.as_ref()), |authority| authority.as_str().as_bytes()),
            target: self.uri.path_and_query().map_or("", |target| target.as_str()),
            version: match self.version {
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_3 => "HTTP/3",
                _ => "HTTP/1.1",
            },
            agent: text(self.agent.as_ref()),
            trace: text(self.trace.as_ref()),
            status: served.status.as_u16(),
            bytes_in: self.received,
            bytes_out: served.bytes_out,
            rule: self.rule.and_then(|rule| listener.file.rules.get(rule)).map(|rule| rule.name.as_str()),
            group: endpoint.and_then(|endpoint| listener.groups.get(endpoint.group)).map(|group| group.name.as_str()),
            endpoint: self.endpoint.map(|(_, address)| address),
            reused: self.reused,
            retries: self.retries,
            connect: self.connect.filter(|_| !self.reused),
            first: self.first,
            total: self.begun.elapsed(),
            reason: served.reason.map(Reason::word),
        };
        served.client.worker.log(&self.log, &line);
    }
}

impl Served {
    pub(super) fn new(client: Rc<Client>) -> Box<Self> {
        client.begin();
        Box::new(Self {
            client,
            listener: None,
            endpoint: None,
            held: None,
            status: StatusCode::INTERNAL_SERVER_ERROR,
            reason: None,
            bytes_out: 0,
            complete: false,
            websocket: None,
            noted: None,
            own: Timer::default(),
        })
    }

    /// What its waits are timed with: in the task that serves it.
    pub(super) fn timer(&self) -> &Timer {
        if self.client.is_h2 { &self.own } else { &self.client.timer }
    }

    /// It is for that group, which `has_streams` where many requests share a connection.
    ///
    /// # Errors
    ///
    /// When the group has as many as it may.
    pub(super) fn enter(&mut self, listener: &Listener, group: usize, has_streams: bool) -> Result<(), Reason> {
        self.held = None;
        if let Some(group) = listener.groups.get(group) {
            self.held = Some(group.load.hold(Unit::Request, circuit::requests(group.circuit, has_streams))?);
        }
        Ok(())
    }

    /// Does what opens a connection, and notes how long it took.
    pub(super) async fn timed<T>(&mut self, opening: impl Future<Output = T>) -> T {
        let begun = self.noted.is_some().then(Instant::now);
        let opened = opening.await;
        if let (Some(noted), Some(begun)) = (&mut self.noted, begun) {
            noted.connect = Some(begun.elapsed());
        }
        opened
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
            self.reason = Some(if self.client.is_late.get() { Reason::ClientWriteTimeout } else { Reason::ClientClosed });
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
        if let Some(noted) = self.noted.take() {
            noted.write(self);
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
        self.client.end(idle);
    }
}
