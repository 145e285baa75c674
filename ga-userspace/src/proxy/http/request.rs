//! The way of one request: what is wrong with it, who gets it, and who gets it next when that one fails.

use std::{
    borrow::Cow,
    future::poll_fn,
    panic::AssertUnwindSafe,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header, request::Parts, uri::PathAndQuery};
use thiserror::Error;

use super::{
    super::{
        Listener,
        counts::Reason,
        guard::{self, Refusal, normalise},
        rules::{self, Act, Changes},
        upstream::{self, Exchange, Lines},
    },
    answer::{Answered, Head, Refused},
    body::{Answer, Content, FromClient, Progress, Source, count_sent},
    client::Client,
    forwarded,
    multiplexed::{self, Lost, Unanswered},
    open::{Host, Way},
    served::{Noted, Served},
    tunnel::Tunnel,
    websocket,
};
use crate::model::HttpLimits;

/// A rule says that nobody answers: the connection or the stream ends.
#[derive(Clone, Copy, Debug, Error)]
#[error("a rule drops the request")]
pub(super) struct Dropped;

/// What a connection gets for a request. A panic on the way is the end of this request alone.
// Not `async fn`, which keeps what it is given twice.
pub(super) fn serve(client: Rc<Client>, request: Request<Source>) -> impl Future<Output = Result<Answered, Dropped>> {
    let (mut parts, source) = request.into_parts();
    async move {
        let mut served = Served::new(client);
        let answered = {
            let answer = pin!(answer(&mut parts, source, &mut served));
            AssertUnwindSafe(answer).catch_unwind().await
        };
        let (mut head, content) = match answered {
            Ok(Ok(answered)) => answered,
            Ok(Err(refused)) => refuse(refused, &mut served),
            Err(_) => refuse(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, Reason::Internal), &mut served),
        };
        if served.reason == Some(Reason::Dropped) {
            return Err(Dropped);
        }
        if let Some(alternative) = served.listener.as_ref().and_then(|listener| listener.alternative.as_ref()) {
            head.set(&header::ALT_SVC, alternative);
        }
        served.status = head.status;
        Ok(Answered { head, body: Answer::new(content, served) })
    }
}

/// What a client gets for a message that is none, on a connection of HTTP/1.
pub(super) fn refuse_message(client: Rc<Client>, refusal: Refusal) -> Answered {
    let mut served = Served::new(client);
    served.listener = served.client.worker.listener(&served.client.path);
    let (head, content) = refuse(Refused::by_guard(refusal), &mut served);
    served.status = head.status;
    Answered { head, body: Answer::new(content, served) }
}

fn refuse(refused: Refused, served: &mut Served) -> (Head, Content) {
    served.reason = Some(refused.reason);
    let (mut response, text) = refused.response();
    // What the client may still be sending is not read to its end for the sake of the next request.
    let is_over = matches!(refused.reason, Reason::ClientBodyTimeout | Reason::BadRequest | Reason::Method | Reason::TooLarge);
    if is_over && !served.client.is_h2 {
        served.client.lingers.set(true);
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    (response.into(), Content::Whole(text))
}

async fn answer(parts: &mut Parts, source: Source, served: &mut Served) -> Result<(Head, Content), Refused> {
    let client = Rc::clone(&served.client);
    let view = Arc::clone(&client.worker.view());
    let gone = Refused::new(StatusCode::SERVICE_UNAVAILABLE, Reason::NoEndpoint);
    let listener = view.listener(&client.path).ok_or(gone)?;
    served.listener = Some(Arc::clone(listener));
    let http = listener.file.http.as_ref().ok_or(gone)?;
    client.timeouts.set(http.timeouts);

    let websocket = websocket::asked(parts, &client.worker);
    served.noted = view.log.as_ref().map(|log| Noted::new(log, parts));
    served.websocket = websocket?;
    if client.is_h2 {
        // Messages of HTTP/1 were judged as bytes.
        guard::judge(parts).map_err(Refused::by_guard)?;
    }
    check(parts, &http.limits)?;
    belongs(parts, &client)?;
    canonical(parts)?;
    if host(parts).is_empty() {
        parts.headers.insert(header::HOST, forwarded::here(&client));
    }
    forwarded::sanitize(&mut parts.headers, http);
    let (target, changes) = {
        let asked = rules::Request::new(parts, client.ip, client.peer.local, client.peer.tls.is_some());
        let decision = listener.matcher.decide(&asked);
        if let Some(noted) = &mut served.noted {
            noted.rule = decision.rule;
        }
        if let Some(rule) = decision.rule.and_then(|rule| listener.rules.get(rule)) {
            rule.hits.add(1);
        }
        match decision.act {
            Act::Forward { target, changes } => (*target, changes),
            Act::Redirect(redirect) => return Ok((redirect.response(&asked).into(), Content::Whole(Bytes::new()))),
            Act::Fixed(fixed) => {
                let (parts, bytes) = fixed.response::<Bytes>().into_parts();
                if served.websocket.is_some() && parts.status.is_success() {
                    // It would say that the tunnel stands.
                    return Err(websocket::NOT_SERVED);
                }
                return Ok((Response::from_parts(parts, ()).into(), Content::Whole(bytes)));
            }
            Act::Drop => return Err(Refused::new(StatusCode::FORBIDDEN, Reason::Dropped)),
        }
    };
    changed(changes, parts, &client)?;
    let is_rewritten = changes.rewrites_host();
    forward(Forward { client: &client, listener, ap: &view.ap, target, parts, is_rewritten }, source, served).await
}

/// Changes what a rule changes before a request is forwarded.
fn changed(changes: &Changes, parts: &mut Parts, client: &Client) -> Result<(), Refused> {
    changes.apply(parts, &client.address).map_err(|_| Refused::new(StatusCode::BAD_REQUEST, Reason::BadRequest))
}

/// Spells the path in the one way in which it is matched and forwarded.
fn canonical(parts: &mut Parts) -> Result<(), Refused> {
    let bad = Refused::new(StatusCode::BAD_REQUEST, Reason::BadRequest);
    let path = match normalise(parts.uri.path()).map_err(|_| bad)? {
        Cow::Borrowed(_) => return Ok(()),
        Cow::Owned(path) => path,
    };
    let target = parts.uri.query().map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    uri.path_and_query = Some(PathAndQuery::try_from(target).map_err(|_| bad)?);
    parts.uri = uri.try_into().map_err(|_| bad)?;
    Ok(())
}

/// What is not for any endpoint.
fn check(parts: &Parts, limits: &HttpLimits) -> Result<(), Refused> {
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, Reason::Method));
    }
    if parts.uri.path_and_query().is_some_and(|target| target.as_str().len() > limits.target) {
        return Err(Refused::new(StatusCode::URI_TOO_LONG, Reason::TooLarge));
    }
    if parts.headers.len() > limits.fields {
        return Err(Refused::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Reason::TooLarge));
    }
    if let Some(expect) = parts.headers.get(header::EXPECT)
        && !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(Refused::new(StatusCode::EXPECTATION_FAILED, Reason::BadRequest));
    }
    if host(parts).is_empty() && parts.version != Version::HTTP_10 {
        return Err(Refused::new(StatusCode::BAD_REQUEST, Reason::BadRequest));
    }
    Ok(())
}

/// A connection is for the hosts that its certificate is good for (RFC 9110 §15.5.20).
fn belongs(parts: &Parts, client: &Client) -> Result<(), Refused> {
    let host = host(parts);
    let Some(tls) = client.peer.tls.as_ref().filter(|_| !host.is_empty()) else { return Ok(()) };
    if std::str::from_utf8(host).is_ok_and(|host| tls.covers(host)) {
        return Ok(());
    }
    Err(Refused::new(StatusCode::MISDIRECTED_REQUEST, Reason::Misdirected))
}

/// Whom the request is for: the target's authority goes before the field (RFC 9112 §3.2.2, RFC 9113 §8.3.1).
fn host(parts: &Parts) -> &[u8] {
    let field = || parts.headers.get(header::HOST).map_or(&b""[..], HeaderValue::as_bytes);
    parts.uri.authority().map_or_else(field, |authority| authority.as_str().as_bytes())
}

/// The protocol that the client wants the connection to become. Not HTTP/2, which is agreed on otherwise (RFC 9113 §3.1).
fn upgrade(parts: &Parts) -> Option<HeaderValue> {
    let upgrade = parts.headers.get(header::UPGRADE)?;
    let asked = parts.version == Version::HTTP_11 && parts.method == Method::GET && names_upgrade(&parts.headers);
    let is_http = || upgrade.as_bytes().get(..3).is_some_and(|start| start.eq_ignore_ascii_case(b"h2c"));
    (asked && !is_http()).then(|| upgrade.clone())
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"))
}

/// A request for somebody of a target.
struct Forward<'v> {
    client: &'v Rc<Client>,
    listener: &'v Arc<Listener>,
    ap: &'v str,
    target: usize,
    parts: &'v Parts,
    /// A rule wrote the host.
    is_rewritten: bool,
}

impl Forward<'_> {
    /// The next to be asked: not who was, and rather not who failed lately.
    fn choose(&self, number: u64, tried: &[usize]) -> Option<Way> {
        let (listener, port) = (self.listener, self.client.peer.local.port());
        let host = Host { name: host(self.parts), is_rewritten: self.is_rewritten };
        let mut avoided = Vec::new();
        loop {
            let shunned: &[usize] = if avoided.is_empty() { tried } else { &avoided };
            let Some(place) = listener.choose(self.target, self.client.ip, number, shunned) else { break };
            let way = Way::new(&self.client.worker, listener, place, port, host)?;
            if !way.is_shunned() {
                return Some(way);
            }
            if avoided.is_empty() {
                avoided.extend_from_slice(tried);
            }
            avoided.push(place);
        }
        let place = listener.choose(self.target, self.client.ip, number, tried)?;
        Way::new(&self.client.worker, listener, place, port, host)
    }

    /// Sending it twice does what sending it once does (RFC 9110 §9.2.2).
    fn is_idempotent(&self) -> bool {
        [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE].contains(&self.parts.method)
    }
}

async fn forward(request: Forward<'_>, source: Source, served: &mut Served) -> Result<(Head, Content), Refused> {
    let Forward { client, listener, .. } = request;
    let fields = forwarded::fields(client, listener, request.ap, &request.parts.headers);
    let upgrade = match &served.websocket {
        Some(_) => Some(websocket::UPGRADE),
        None if client.is_h2 => None,
        None => upgrade(request.parts),
    };
    let target = request.parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let head = upstream::Head {
        method: &request.parts.method,
        target,
        host: host(request.parts),
        headers: &request.parts.headers,
        forwarded: &fields,
        upgrade: upgrade.as_ref(),
    };
    let (body, progress) = FromClient::new(source, Arc::clone(listener));
    let number = listener.number(client.ip, client.worker.random());
    let (mut body, mut tried, mut last) = (body, Vec::new(), None);
    let mut fresh: Option<Way> = None;
    let mut retries = 0;
    client.worker.budget_in();
    loop {
        let is_again = fresh.is_some();
        let Some(way) = fresh.take().or_else(|| request.choose(number, &tried)) else { break };
        let Some(endpoint) = listener.endpoints.get(way.place) else { break };
        if let Err(full) = served.enter(listener, endpoint.group, way.is_http2) {
            last = Some(full);
            break;
        }
        served.given_to(&endpoint.counts);
        // A host that a rule writes goes before.
        let own_host = endpoint.own_host.as_deref().filter(|_| !request.is_rewritten);
        let head = upstream::Head { host: own_host.map_or(head.host, str::as_bytes), ..head };
        if way.is_http2 {
            if served.websocket.is_some() {
                return Err(websocket::NOT_SERVED);
            }
            let mut was_reused = false;
            let unanswered = match served.timed(way.share(client, listener)).await {
                Err(reason) => Unanswered { reason, lost: Lost::Unsent, body: Some(body) },
                Ok((mut place, was_there)) => {
                    was_reused = was_there;
                    endpoint.counts.reused.add(u64::from(was_there));
                    let answered = multiplexed::ask(&mut place, head, body, &progress, served).await;
                    served.timer().disarm();
                    count_sent(&progress, &endpoint.counts);
                    note(served, &way, was_there, retries, progress.received.get(), answered.is_ok());
                    match answered {
                        Ok((response, lender)) => {
                            let (parts, incoming) = response.into_parts();
                            return Ok((Response::from_parts(parts, ()).into(), Content::Http2(incoming, (place, lender))));
                        }
                        Err(unanswered) => unanswered,
                    }
                }
            };
            let Unanswered { reason, lost, body: whole } = unanswered;
            if matches!(reason, Reason::ClientClosed | Reason::ClientBodyTimeout | Reason::BadRequest) {
                return Err(status_of(reason));
            }
            served.failed(reason);
            last = Some(reason);
            let is_safe = lost.is_harmless() || (lost == Lost::Broken && request.is_idempotent());
            let is_stale = was_reused && matches!(lost, Lost::Left | Lost::Broken);
            let Some(whole) = whole.filter(|_| is_safe && (is_stale || client.worker.budget_out())) else { break };
            listener.counts.retries.add(1);
            retries += 1;
            body = whole;
            if is_stale {
                fresh = Some(way);
                continue;
            }
            let is_first = !tried.contains(&way.place);
            tried.push(way.place);
            // Who does not process it now may do so at once, and is asked once more where there is nobody else.
            if is_first && lost.is_declined() && request.choose(number, &tried).is_none() {
                fresh = Some(way);
            }
            continue;
        }
        let reused = match is_again {
            true => None,
            false => poll_fn(|cx| Poll::Ready(Exchange::<FromClient>::reuse(&way.slot, way.name(), cx))).await,
        };
        let link = match reused {
            Some(link) => {
                endpoint.counts.reused.add(1);
                link
            }
            None => match served.timed(way.open(client, listener)).await {
                Ok(link) => link,
                Err(reason) => {
                    served.failed(reason);
                    last = Some(reason);
                    tried.push(way.place);
                    if !client.worker.budget_out() {
                        break;
                    }
                    listener.counts.retries.add(1);
                    retries += 1;
                    continue;
                }
            },
        };
        let carried = link.is_used();
        let mut exchange = Exchange::new(link, Rc::clone(&way.slot), head, body);
        let answered = poll_fn(|cx| poll_answer(&mut exchange, &progress, served, cx)).await;
        served.timer().disarm();
        count_sent(&progress, &endpoint.counts);
        note(served, &way, carried, retries, progress.received.get(), answered.is_ok());
        let reason = match answered {
            Ok(lines) => {
                return match served.websocket.take() {
                    None => Ok(answered_by(lines, exchange, served)),
                    Some(websocket) => websocket.answered(lines, exchange, served),
                };
            }
            Err(reason) => reason,
        };
        let failure = exchange.into_failure();
        if matches!(reason, Reason::ClientClosed | Reason::ClientBodyTimeout) {
            // A body that is none ends the way one does whose client left.
            let refusal = client.refused.get();
            return Err(refusal.map_or(status_of(reason), Refused::by_guard));
        }
        served.failed(reason);
        last = Some(reason);
        // Once more only where nobody can have acted on it twice, and where what is to be sent is still whole.
        let is_safe = !failure.is_sent || request.is_idempotent();
        let is_worth = reason == Reason::Reset && !failure.is_heard;
        let Some(whole) = failure.body.filter(|_| is_safe && is_worth) else { break };
        // A connection that the endpoint had closed by then says nothing of how it does: the fresh one does.
        if !failure.is_stale && !client.worker.budget_out() {
            break;
        }
        listener.counts.retries.add(1);
        retries += 1;
        body = whole;
        if failure.is_stale {
            fresh = Some(way);
        } else {
            tried.push(way.place);
        }
    }
    Err(last.map_or(Refused::new(StatusCode::SERVICE_UNAVAILABLE, Reason::NoEndpoint), status_of))
}

/// Notes for the log who was asked, and how.
fn note(served: &mut Served, way: &Way, reused: bool, retries: u32, received: u64, answered: bool) {
    if let Some(noted) = &mut served.noted {
        noted.endpoint = Some((way.place, way.address));
        (noted.reused, noted.retries, noted.received) = (reused, retries, received);
        if answered {
            noted.answered();
        }
    }
}

/// The status that a client is told for what an endpoint, or it itself, failed with.
fn status_of(reason: Reason) -> Refused {
    let status = match reason {
        Reason::TimeoutHead => StatusCode::GATEWAY_TIMEOUT,
        Reason::ClientBodyTimeout => StatusCode::REQUEST_TIMEOUT,
        Reason::ClientClosed | Reason::BadRequest => StatusCode::BAD_REQUEST,
        Reason::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Reason::NoEndpoint | Reason::Limit | Reason::Circuit => StatusCode::SERVICE_UNAVAILABLE,
        Reason::ClientHeadTimeout
        | Reason::ClientWriteTimeout
        | Reason::Flood
        | Reason::TooLarge
        | Reason::Method
        | Reason::Misdirected
        | Reason::TlsHandshake
        | Reason::Dropped
        | Reason::Refused
        | Reason::TimeoutConnect
        | Reason::Reset
        | Reason::TimeoutBody
        | Reason::BadAnswer
        | Reason::TlsVerify
        | Reason::Idle
        | Reason::ProxyHeader => StatusCode::BAD_GATEWAY,
    };
    Refused::new(status, reason)
}

/// Waits for the answer's head, and for nothing too long.
fn poll_answer(
    exchange: &mut Exchange<FromClient>,
    progress: &Progress,
    served: &Served,
    cx: &mut Context<'_>,
) -> Poll<Result<Lines, Reason>> {
    let polled = exchange.poll_answer(cx);
    // What comes with an answer that is none is not passed on.
    if !matches!(polled, Poll::Ready(Err(_)))
        && let Some(hints) = exchange.take_hints()
        && served.client.speaks_hints.get()
    {
        served.client.hints.borrow_mut().extend_from_slice(&hints);
    }
    if polled.is_ready() {
        return polled;
    }
    progress.poll_late(exchange.is_sent(), served, cx).map(Err)
}

fn answered_by(lines: Lines, exchange: Box<Exchange<FromClient>>, served: &mut Served) -> (Head, Content) {
    if lines.status == StatusCode::SWITCHING_PROTOCOLS {
        if let Some(link) = exchange.into_link() {
            *served.client.tunnel.borrow_mut() = Tunnel::new(*link, served).map(Box::new);
        }
        return (lines.into(), Content::Whole(Bytes::new()));
    }
    if !exchange.is_sent() {
        // The client is told before it has sent everything; who reads the rest is not known.
        served.client.lingers.set(true);
    }
    (lines.into(), Content::Http1(exchange))
}
