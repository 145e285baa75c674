//! TCP listeners that the kernel cannot serve: those with forwarding rules on the server name of TLS, those whose endpoints get the
//! PROXY protocol, and those whose clients send it (specification §1.9, §1.15.3).
//!
//! A connection is accepted before its endpoint is known. With rules the client's first bytes are looked at, and go to the endpoint as
//! they came: nothing here takes part in TLS. What is not served ends with a reset, as where the kernel serves.

mod bulk;
mod hello;
mod relay;

use std::{io, net::IpAddr, ops::ControlFlow, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use self::{
    hello::{Hello, MAX_BYTES, MAX_HELLO},
    relay::{End, Side, relay},
};
use super::{
    Listener, Peer, Worker,
    circuit::{Held, Unit},
    counts::Reason,
    guard::{Asked, Limits},
    proxy_protocol::{self, Version},
    rules::Act,
    upstream::{self, Slot},
};

/// How long a client may take to say whom it wants to speak to. One that does not, because it waits for the server to speak first,
/// goes to the default groups.
pub const SNIFF_TIMEOUT: Duration = Duration::from_secs(3);

/// How long an endpoint may take to accept; then another is tried.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long all endpoints that are tried one after the other may take.
pub const CONNECT_ALL: Duration = Duration::from_secs(10);

/// What is read of the head of an HTTP request.
const HEAD: Limits = Limits { head: MAX_HELLO, target: 8 * 1024, fields: 100 };

/// Bytes that are read at once of a client's first.
const READ: usize = 2_048;

/// Serves one connection of `peer` at `listener` to its end.
pub async fn serve(worker: Rc<Worker>, listener: Arc<Listener>, mut client: TcpStream, peer: Peer) {
    // In a box: what is needed until there is an endpoint is not kept as long as the connection lasts.
    let opened = Box::pin(open(&worker, &listener, &mut client, &peer)).await;
    drop(worker);
    let Opened { listener, place, stream, held: _held } = match opened {
        Ok(opened) => opened,
        Err(reason) => {
            listener.counts.reasons.add(reason);
            relay::reset(&client);
            return;
        }
    };
    let Some(endpoint) = listener.endpoints.get(place) else { return };
    let (whole, own) = (&listener.counts, &endpoint.counts);
    let _active = own.active.lasting();
    let moved = |side: Side, bytes: usize| {
        let bytes = bytes as u64;
        match side {
            Side::Client => (whole.bytes_in.add(bytes), own.bytes_in.add(bytes)),
            Side::Endpoint => (whole.bytes_out.add(bytes), own.bytes_out.add(bytes)),
        };
    };
    match relay(client, stream, listener.file.idle_timeout, moved).await {
        End::Complete => {}
        End::Broken(Side::Client) => whole.reasons.add(Reason::ClientClosed),
        End::Broken(Side::Endpoint) => {
            whole.reasons.add(Reason::Reset);
            own.reasons.add(Reason::Reset);
        }
        End::Idle => whole.reasons.add(Reason::Idle),
    }
}

/// A connection to the endpoint that the client's is for, which has got what the client said so far.
struct Opened {
    /// As it was when the endpoint was chosen.
    listener: Arc<Listener>,
    /// The endpoint's in it.
    place: usize,
    stream: TcpStream,
    /// The connection's place among what the endpoint's group may have.
    held: Held,
}

async fn open(worker: &Worker, listener: &Arc<Listener>, client: &mut TcpStream, peer: &Peer) -> Result<Opened, Reason> {
    let (hello, said) = if listener.file.rules.is_empty() {
        (Hello::More, Vec::new())
    } else {
        sniff(client, listener.file.http_sniff).await.map_err(|_broken| Reason::ClientClosed)?
    };
    // The plan may have changed while the client was silent.
    let listener = worker.listener(&listener.path).unwrap_or_else(|| Arc::clone(listener));
    let target = target(&listener, &hello)?;
    let (place, mut stream, held) = connect(worker, &listener, target, peer).await?;
    let endpoint = listener.endpoints.get(place).ok_or(Reason::Internal)?;
    let version = listener.groups.get(endpoint.group).and_then(|group| Version::of(group.client_ip));
    let mut first = version.map_or_else(Vec::new, |version| proxy_protocol::write(version, peer.client, peer.local));
    first.extend_from_slice(&said);
    if let Err(_broken) = timeout(CONNECT_TIMEOUT, stream.write_all(&first)).await.unwrap_or_else(|late| Err(late.into())) {
        endpoint.counts.reasons.add(Reason::Reset);
        return Err(Reason::Reset);
    }
    listener.counts.bytes_in.add(said.len() as u64);
    endpoint.counts.bytes_in.add(said.len() as u64);
    listener.counts.requests.add(1);
    endpoint.counts.requests.add(1);
    Ok(Opened { listener, place, stream, held })
}

/// The client's first bytes, until they say whom it wants to speak to or that they do not: within [`SNIFF_TIMEOUT`].
async fn sniff(client: &mut TcpStream, http: bool) -> io::Result<(Hello, Vec<u8>)> {
    let mut bytes = Vec::new();
    let hello = timeout(SNIFF_TIMEOUT, read_hello(client, &mut bytes, http)).await.unwrap_or(Ok(Hello::Foreign))?;
    Ok((hello, bytes))
}

/// With `http` the host of a request that is no TLS counts as a name.
async fn read_hello(client: &mut TcpStream, bytes: &mut Vec<u8>, http: bool) -> io::Result<Hello> {
    let mut asked = http.then(Asked::default);
    while bytes.len() < MAX_BYTES {
        bytes.reserve(READ);
        if client.read_buf(bytes).await? == 0 {
            break;
        }
        match (hello::read(bytes), &mut asked) {
            (Hello::More, _) => {}
            (Hello::Foreign, Some(asked)) => match asked.feed(bytes, &HEAD) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(name)) => return Ok(name.map_or(Hello::Unnamed, Hello::Named)),
                Err(_refusal) => return Ok(Hello::Foreign),
            },
            (known @ (Hello::Named(_) | Hello::Unnamed | Hello::Foreign), _) => return Ok(known),
        }
    }
    Ok(Hello::Foreign)
}

/// Whom the rules lead to.
fn target(listener: &Listener, hello: &Hello) -> Result<usize, Reason> {
    let name = match hello {
        Hello::Named(name) => Some(name.as_str()),
        Hello::More | Hello::Unnamed | Hello::Foreign => None,
    };
    let decision = listener.matcher.decide_name(name);
    if let Some(rule) = decision.rule.and_then(|rule| listener.rules.get(rule)) {
        rule.hits.add(1);
    }
    match decision.act {
        Act::Forward { target, .. } => Ok(*target),
        Act::Drop => Err(Reason::Dropped),
        // Rules of TCP listeners do nothing else: the configuration refuses it.
        Act::Redirect(_) | Act::Fixed(_) => Err(Reason::Internal),
    }
}

/// Connects to the endpoint that is chosen, or, where one does not accept, to the others of the target: each once, and all of them
/// within [`CONNECT_ALL`].
async fn connect(worker: &Worker, listener: &Listener, target: usize, peer: &Peer) -> Result<(usize, TcpStream, Held), Reason> {
    let random = worker.random();
    let number = listener.number(peer.client.ip(), random);
    let until = Instant::now() + CONNECT_ALL;
    let (mut tried, mut why) = (Vec::new(), Reason::NoEndpoint);
    while let Some((place, slot)) = next(worker, listener, target, peer, number, &tried) {
        let Some(endpoint) = listener.endpoints.get(place) else { break };
        let Some(group) = listener.groups.get(endpoint.group) else { break };
        let held = group.load.hold(Unit::Connection, group.circuit.connections)?;
        if !tried.is_empty() {
            listener.counts.retries.add(1);
        }
        let patience = CONNECT_TIMEOUT.min(until.saturating_duration_since(Instant::now()));
        let address = listener.address(place, peer.local.port());
        match upstream::connect(address, &listener.egress, random, patience).await {
            Ok(stream) => {
                slot.succeeded();
                endpoint.counts.connections.add(1);
                return Ok((place, stream, held));
            }
            Err(reason) => {
                slot.failed(endpoint.returns);
                endpoint.counts.reasons.add(reason);
                why = reason;
                tried.push(place);
            }
        }
        if Instant::now() >= until {
            break;
        }
    }
    Err(why)
}

/// The next to be tried: not who was, and rather not who failed lately.
fn next(
    worker: &Worker,
    listener: &Listener,
    target: usize,
    peer: &Peer,
    number: u64,
    tried: &[usize],
) -> Option<(usize, Rc<Slot>)> {
    // A client behind a proxy may be of a family that the instance has no VIP of.
    let family: IpAddr = peer.local.ip();
    let found = |place: usize| {
        let endpoint = listener.endpoints.get(place)?;
        let backend = &listener.groups.get(endpoint.group)?.backend;
        let address = listener.address(place, peer.local.port());
        Some((place, worker.pools().slot(endpoint.identity, address, backend, &endpoint.counts), endpoint.returns))
    };
    let mut avoided = tried.to_vec();
    while let Some(place) = listener.choose(target, family, number, &avoided) {
        let (place, slot, returns) = found(place)?;
        if !slot.is_shunned(returns) {
            return Some((place, slot));
        }
        avoided.push(place);
    }
    found(listener.choose(target, family, number, tried)?).map(|(place, slot, _)| (place, slot))
}
