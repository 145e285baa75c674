//! `ga trace http`: which rule applies to a request, what it does, and who gets it. Nothing is sent.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue, Request as HttpRequest, header::HOST, request::Parts};

use super::Agent;
use crate::{
    model::{Affinity, Protocol},
    proxy::{
        Listener, View, guard,
        rules::{Act, Changes, Request, judge},
        tls::{Shown, Store, server_name},
    },
    status::{Code, HttpCandidate, HttpRewritten, HttpTrace, HttpTraceOrder, Refusal, RuleTried, SCHEMA_VERSION, TlsShown},
};

impl Agent {
    /// Explains a request.
    pub(super) fn trace_http(&self, order: &HttpTraceOrder) -> Result<HttpTrace, Refusal> {
        explain(&self.proxy.shared().view.load(), &self.proxy.shared().tls, order, true)
    }
}

/// What would become of a request under `view`, whose certificates are in `store`; without `knows_key` the key of affinity is not the one that an agent has.
///
/// # Errors
/// There is no such listener, or what the order describes is no request.
pub fn explain(view: &View, store: &Store, order: &HttpTraceOrder, knows_key: bool) -> Result<HttpTrace, Refusal> {
    let listener = named(view, order)?;
    let client = order.client.unwrap_or_else(|| somebody(listener));
    let parts = request(order)?;
    let is_https = listener.file.protocol == Protocol::Https;
    let local = listener.addresses.iter().find(|address| address.is_ipv4() == client.to_canonical().is_ipv4());
    let local = local.or(listener.addresses.first()).copied().unwrap_or(SocketAddr::new(client, 0));
    let request = Request::new(&parts, client, local, is_https);
    let tried = judge(&listener.file.rules, &request).into_iter().map(|judged| RuleTried {
        rule: judged.rule.name.to_string(),
        priority: judged.rule.priority,
        unmet: judged.unmet,
    });
    let (tls, is_misdirected) = shown(listener, store, order)?;
    let decision = listener.matcher.decide(&request);
    let mut trace = HttpTrace {
        schema_version: SCHEMA_VERSION,
        listener: listener.path.to_string(),
        client,
        host: request.host.to_owned(),
        target: target(&parts),
        tls,
        tried: Vec::new(),
        rule: None,
        action: String::new(),
        answer: None,
        rewritten: None,
        endpoint: None,
        candidates: Vec::new(),
    };
    if is_misdirected {
        trace.action = "misdirected".to_owned();
        trace.answer = Some("421".to_owned());
        return Ok(trace);
    }
    trace.tried = tried.collect();
    trace.rule = decision.rule.and_then(|rule| listener.file.rules.get(rule)).map(|rule| rule.name.to_string());
    match decision.act {
        Act::Forward { target, changes } => {
            trace.action = "forward".to_owned();
            if !changes.is_empty() {
                trace.rewritten = Some(rewritten(changes, &parts, client)?);
            }
            who(listener, (*target, changes.rewrites_host()), client, local.port(), knows_key, &mut trace);
        }
        Act::Redirect(redirect) => {
            trace.action = "redirect".to_owned();
            let response: http::Response<()> = redirect.response(&request);
            let location = response.headers().get(http::header::LOCATION).and_then(|value| value.to_str().ok());
            trace.answer = Some(format!("{} to {}", response.status().as_u16(), location.unwrap_or("nowhere")));
        }
        Act::Fixed(fixed) => {
            trace.action = "fixed_response".to_owned();
            let response: http::Response<hyper::body::Bytes> = fixed.response();
            let kind = response.headers().get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let kind = kind.map_or_else(String::new, |kind| format!(", {} bytes of {kind}", response.body().len()));
            trace.answer = Some(format!("{}{kind}", response.status().as_u16()));
        }
        Act::Drop => trace.action = "drop".to_owned(),
    }
    Ok(trace)
}

/// What the client is shown by an HTTPS listener, and whether its request does not belong there.
fn shown(listener: &Listener, store: &Store, order: &HttpTraceOrder) -> Result<(Option<TlsShown>, bool), Refusal> {
    if listener.file.protocol != Protocol::Https {
        if order.server_name.is_some() {
            let message = format!("{} has no certificates: only an https listener ends TLS here", listener.path);
            return Err(Refusal::new(Code::Invalid, message));
        }
        return Ok((None, false));
    }
    let name = order.server_name.as_deref();
    let Some(server) = store.server(&listener.path) else {
        let shown = TlsShown { server_name: server_name(name, &order.host), certificate: None, is_believed: None };
        return Ok((Some(shown), false));
    };
    let Shown { server_name, certificate, is_believed, is_covered } = server.shown(name, &order.host);
    Ok((Some(TlsShown { server_name, certificate: Some(certificate), is_believed: Some(is_believed) }), !is_covered))
}

/// The listener of that name; without one the only one that there is.
fn named<'v>(view: &'v View, order: &HttpTraceOrder) -> Result<&'v Listener, Refusal> {
    let name = order.listener.as_deref();
    let has_requests = |listener: &&Listener| {
        (listener.file.protocol.is_http() || !listener.file.rules.is_empty())
            && !(order.tls && listener.file.protocol == Protocol::Http)
    };
    let is_named = |listener: &&Listener| name.is_none_or(|name| *listener.path == *name || listener.file.name.as_str() == name);
    let found: Vec<&Listener> = view.listeners.values().map(AsRef::as_ref).filter(has_requests).filter(is_named).collect();
    match (found.as_slice(), name) {
        ([one], _) => Ok(one),
        ([], Some(name)) => {
            let message = format!(
                "no http or https listener, and none with rules, is called {name}; `ga trace` explains packets of others"
            );
            Err(Refusal::new(Code::NotFound, message))
        }
        ([], None) => Err(Refusal::new(Code::NotFound, "there is no http or https listener, and none with rules")),
        (several, _) => {
            let message = "several listeners have requests: name one by --listener";
            Err(Refusal::new(Code::Ambiguous, message).with_problems(several.iter().map(|listener| &*listener.path)))
        }
    }
}

/// A client of a family that the listener has (RFC 5737, RFC 3849).
fn somebody(listener: &Listener) -> IpAddr {
    if listener.addresses.iter().any(SocketAddr::is_ipv4) {
        IpAddr::from([192, 0, 2, 1])
    } else {
        IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])
    }
}

/// The request as it is after the checks that stand before rules.
fn request(order: &HttpTraceOrder) -> Result<Parts, Refusal> {
    let invalid = |what: String| Refusal::new(Code::Invalid, what);
    let (path, query) = order.target.split_once('?').map_or((order.target.as_str(), None), |(path, query)| (path, Some(query)));
    let path = guard::normalise(path).map_err(|error| invalid(format!("{error}: such a request is answered by 400")))?;
    let target = query.map_or_else(|| path.to_string(), |query| format!("{path}?{query}"));
    let mut request = HttpRequest::builder().method(order.method.as_str()).uri(target).header(HOST, &order.host);
    for (name, value) in &order.headers {
        request = request.header(name, value);
    }
    let (parts, ()) = request.body(()).map_err(|error| invalid(format!("this is no request: {error}")))?.into_parts();
    Ok(parts)
}

fn target(parts: &Parts) -> String {
    parts.uri.path_and_query().map_or_else(String::new, ToString::to_string)
}

fn rewritten(changes: &Changes, before: &Parts, client: IpAddr) -> Result<HttpRewritten, Refusal> {
    let invalid = |what: String| Refusal::new(Code::Invalid, what);
    let client = HeaderValue::try_from(client.to_canonical().to_string()).map_err(|error| invalid(error.to_string()))?;
    let mut after = before.clone();
    changes.apply(&mut after, &client).map_err(|error| invalid(format!("{error}: such a request is answered by 400")))?;
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let values = |headers: &HeaderMap, name| headers.get_all(name).iter().map(text).collect::<Vec<_>>();
    let set =
        after.headers.keys().filter(|name| **name != HOST && values(&after.headers, *name) != values(&before.headers, *name));
    Ok(HttpRewritten {
        host: after.headers.get(HOST).map(text).unwrap_or_default(),
        target: target(&after),
        set: set.map(|name| format!("{name}: {}", values(&after.headers, name).join(", "))).collect(),
        removed: before.headers.keys().filter(|name| !after.headers.contains_key(*name)).map(ToString::to_string).collect(),
    })
}

/// The endpoints that the target's table has, and the one that it has for this client.
fn who(
    listener: &Listener,
    (target, is_rewritten): (usize, bool),
    client: IpAddr,
    port: u16,
    knows_key: bool,
    trace: &mut HttpTrace,
) {
    let address = |endpoint| listener.address(endpoint, port);
    if listener.file.affinity == Affinity::SourceIp && knows_key {
        let chosen = listener.choose(target, client, listener.number(client, 0), &[]);
        trace.endpoint = chosen.map(|endpoint| address(endpoint).to_string());
    }
    let group = |endpoint: usize| {
        let group = listener.endpoints.get(endpoint).and_then(|endpoint| listener.groups.get(endpoint.group));
        group.map_or_else(String::new, |group| group.name.to_string())
    };
    let host = |endpoint: usize| listener.endpoints.get(endpoint).filter(|_| !is_rewritten)?.own_host.clone();
    trace.candidates = listener
        .shares(target, client)
        .into_iter()
        .map(|(endpoint, share)| HttpCandidate {
            group: group(endpoint),
            address: address(endpoint),
            share,
            host: host(endpoint),
        })
        .collect();
}
