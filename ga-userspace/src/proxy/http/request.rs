//! The way of one request: what is wrong with it, who gets it, and who gets it next when that one fails.

use std::{
    borrow::Cow,
    convert::Infallible,
    future::poll_fn,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request::Parts};
use hyper::body::{Body, Incoming};

use super::{
    super::{
        Listener,
        counts::Reason,
        guard::{self, Begun},
        upstream::{Exchange, Head},
    },
    answer::Refused,
    body::{Answer, Content, FromClient, Progress, count_sent},
    client::Client,
    forwarded,
    open::Way,
    served::Served,
    timer::Wait,
    tunnel::Tunnel,
};

/// What a connection gets for a request. A panic on the way is the end of this request alone.
pub(super) async fn serve(client: Rc<Client>, request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
    let mut served = Served::new(client);
    let (response, content) = match AssertUnwindSafe(answer(request, &mut served)).catch_unwind().await {
        Ok(Ok(answered)) => answered,
        Ok(Err(refused)) => refuse(refused, &mut served),
        Err(_) => refuse(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, Reason::Internal), &mut served),
    };
    served.status = response.status();
    Ok(response.map(|()| Answer::new(content, served)))
}

fn refuse(refused: Refused, served: &mut Served) -> (Response<()>, Content) {
    served.reason = Some(refused.reason);
    let (mut response, text) = refused.response();
    // What the client may still be sending is not read to its end for the sake of the next request.
    let is_over = matches!(refused.reason, Reason::ClientBodyTimeout | Reason::BadRequest | Reason::Method | Reason::TooLarge);
    if is_over && !served.client.is_h2 {
        served.client.lingers.set(true);
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    (response, Content::Whole(text))
}

async fn answer(request: Request<Incoming>, served: &mut Served) -> Result<(Response<()>, Content), Refused> {
    let client = Rc::clone(&served.client);
    let view = Arc::clone(&client.worker.view());
    let gone = Refused::new(StatusCode::SERVICE_UNAVAILABLE, Reason::NoEndpoint);
    let listener = view.listeners.get(&client.path).map(Arc::clone).ok_or(gone)?;
    served.listener = Some(Arc::clone(&listener));
    let http = listener.file.http.as_ref().ok_or(gone)?;
    client.timeouts.set(http.timeouts);

    if let Begun::Refused(refusal) = served.begun {
        return Err(Refused::by_guard(refusal));
    }
    let (mut parts, incoming) = request.into_parts();
    check(&parts, http.limits.target)?;
    spell(&mut parts)?;
    forwarded::sanitize(&mut parts.headers, http);
    forward(Forward { client, listener, ap: &view.ap, target: 0, parts }, incoming, served).await
}

/// What is not for any endpoint.
fn check(parts: &Parts, longest: usize) -> Result<(), Refused> {
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, Reason::Method));
    }
    if parts.uri.path_and_query().is_some_and(|target| target.as_str().len() > longest) {
        return Err(Refused::new(StatusCode::URI_TOO_LONG, Reason::TooLarge));
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

/// Gives the path its one spelling, which is matched and forwarded.
fn spell(parts: &mut Parts) -> Result<(), Refused> {
    let bad = Refused::new(StatusCode::BAD_REQUEST, Reason::BadRequest);
    let Cow::Owned(path) = guard::normalise(parts.uri.path()).map_err(|_| bad)? else { return Ok(()) };
    let target = parts.uri.query().map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    uri.path_and_query = Some(target.try_into().map_err(|_| bad)?);
    parts.uri = Uri::from_parts(uri).map_err(|_| bad)?;
    Ok(())
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
    client: Rc<Client>,
    listener: Arc<Listener>,
    ap: &'v str,
    target: usize,
    parts: Parts,
}

impl Forward<'_> {
    /// The next to be asked: not who was, and rather not who failed lately.
    fn choose(&self, number: u64, tried: &[usize]) -> Option<Way> {
        let (listener, port) = (&self.listener, self.client.peer.local.port());
        let mut avoided = Vec::new();
        loop {
            let shunned: &[usize] = if avoided.is_empty() { tried } else { &avoided };
            let Some(place) = listener.choose(self.target, self.client.ip, number, shunned) else { break };
            let way = Way::new(&self.client.worker, listener, place, port)?;
            if !way.slot.is_shunned() {
                return Some(way);
            }
            if avoided.is_empty() {
                avoided.extend_from_slice(tried);
            }
            avoided.push(place);
        }
        let place = listener.choose(self.target, self.client.ip, number, tried)?;
        Way::new(&self.client.worker, listener, place, port)
    }

    /// Sending it twice does what sending it once does (RFC 9110 §9.2.2).
    fn is_idempotent(&self) -> bool {
        [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE].contains(&self.parts.method)
    }
}

async fn forward(request: Forward<'_>, incoming: Incoming, served: &mut Served) -> Result<(Response<()>, Content), Refused> {
    let Forward { client, listener, .. } = &request;
    let fields = forwarded::fields(client, listener, request.ap, &request.parts.headers);
    let upgrade = if served.begun == Begun::Upgrade { upgrade(&request.parts) } else { None };
    let target = request.parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let head = Head {
        method: &request.parts.method,
        target,
        host: host(&request.parts),
        headers: &request.parts.headers,
        forwarded: &fields,
        upgrade: upgrade.as_ref(),
    };
    let (body, progress) = FromClient::new(incoming, Arc::clone(listener));
    let number = listener.number(client.ip, client.worker.random());
    let (mut body, mut tried, mut last) = (body, Vec::new(), None);
    let mut fresh: Option<Way> = None;
    client.worker.budget_in();
    loop {
        let is_again = fresh.is_some();
        let Some(way) = fresh.take().or_else(|| request.choose(number, &tried)) else { break };
        let Some(endpoint) = listener.endpoints.get(way.place) else { break };
        served.given_to(&endpoint.counts);
        let reused = match is_again {
            true => None,
            false => poll_fn(|cx| Poll::Ready(Exchange::<FromClient>::reuse(&way.slot, None, cx))).await,
        };
        let link = match reused {
            Some(link) => {
                endpoint.counts.reused.add(1);
                link
            }
            None => match way.open(client, listener).await {
                Ok(link) => link,
                Err(reason) => {
                    served.failed(reason);
                    last = Some(reason);
                    tried.push(way.place);
                    if !client.worker.budget_out() {
                        break;
                    }
                    listener.counts.retries.add(1);
                    continue;
                }
            },
        };
        let mut exchange = Exchange::new(link, Rc::clone(&way.slot), head, body);
        let answered = poll_fn(|cx| poll_answer(&mut exchange, &progress, served, cx)).await;
        served.timer().disarm();
        count_sent(&progress, &endpoint.counts);
        let reason = match answered {
            Ok(response) => return Ok(answered_by(response, exchange, served)),
            Err(reason) => reason,
        };
        let failure = exchange.into_failure();
        if matches!(reason, Reason::ClientClosed | Reason::ClientBodyTimeout) {
            return Err(client.refused().map_or_else(|| status_of(reason), Refused::by_guard));
        }
        served.failed(reason);
        last = Some(reason);
        // Once more only where nobody can have acted on it twice, and where what is to be sent is still whole.
        let is_safe = !failure.is_sent || request.is_idempotent();
        let is_worth = reason == Reason::Reset && !failure.is_heard;
        let Some(whole) = failure.body.filter(|_| is_safe && is_worth && client.worker.budget_out()) else { break };
        listener.counts.retries.add(1);
        body = whole;
        if failure.is_stale {
            fresh = Some(way);
        } else {
            tried.push(way.place);
        }
    }
    Err(last.map_or(Refused::new(StatusCode::SERVICE_UNAVAILABLE, Reason::NoEndpoint), status_of))
}

/// The status that a client is told for what an endpoint, or it itself, failed with.
fn status_of(reason: Reason) -> Refused {
    let status = match reason {
        Reason::TimeoutHead => StatusCode::GATEWAY_TIMEOUT,
        Reason::ClientBodyTimeout => StatusCode::REQUEST_TIMEOUT,
        Reason::ClientClosed | Reason::BadRequest => StatusCode::BAD_REQUEST,
        Reason::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Reason::NoEndpoint | Reason::Limit => StatusCode::SERVICE_UNAVAILABLE,
        Reason::ClientHeadTimeout
        | Reason::ClientWriteTimeout
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
        | Reason::TlsVerify => StatusCode::BAD_GATEWAY,
    };
    Refused::new(status, reason)
}

/// Waits for the answer's head, and for nothing too long.
fn poll_answer(
    exchange: &mut Exchange<FromClient>,
    progress: &Progress,
    served: &Served,
    cx: &mut Context<'_>,
) -> Poll<Result<Response<()>, Reason>> {
    if let Poll::Ready(answered) = exchange.poll_answer(cx) {
        return Poll::Ready(answered);
    }
    let timeouts = served.client.timeouts.get();
    let (wait, patience) = if exchange.is_sent() {
        let http = served.listener.as_ref().and_then(|listener| listener.file.http.as_ref());
        (Wait::Answer, http.map_or(timeouts.body, |http| http.request_timeout))
    } else if progress.waits.get() {
        (Wait::Body, timeouts.body)
    } else {
        (Wait::Send, timeouts.body)
    };
    let timer = served.timer();
    let moved = progress.seen.replace(progress.received.get()) != progress.received.get();
    if timer.waits_for() != Some(wait) || (moved && wait != Wait::Answer) {
        timer.arm(wait, patience);
    }
    match timer.poll(cx) {
        Poll::Ready(Wait::Answer | Wait::Send) => Poll::Ready(Err(Reason::TimeoutHead)),
        Poll::Ready(Wait::Body) => Poll::Ready(Err(Reason::ClientBodyTimeout)),
        Poll::Ready(_) | Poll::Pending => Poll::Pending,
    }
}

fn answered_by(response: Response<()>, mut exchange: Box<Exchange<FromClient>>, served: &mut Served) -> (Response<()>, Content) {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        if let Some(link) = exchange.into_link() {
            *served.client.tunnel.borrow_mut() = Tunnel::new(*link, served);
        }
        return (response, Content::Whole(Bytes::new()));
    }
    if !exchange.is_sent() {
        // The client is told before it has sent everything; who reads the rest is not known.
        served.client.lingers.set(true);
    }
    let content = match exchange.take_rest() {
        Some(rest) => Content::Whole(rest),
        None if exchange.is_done() => Content::Whole(Bytes::new()),
        None => Content::Http1(exchange),
    };
    (response, content)
}
