//! Keys of HTTP and HTTPS listeners, and of what their endpoints are spoken to with (specification §1.2, §1.4, §1.12).

use std::{net::IpAddr, ops::RangeInclusive, sync::Arc, time::Duration};

use ipnet::IpNet;

use super::{
    document::Context,
    http_waits,
    problem::{Fault, Kind},
    tls,
    tree::{Table, Value, not_a_word, shorten},
};
use crate::model::{Backend, ForwardedHeaders, Http, HttpVersion, Protocol, Tls, TlsPolicy, Xff};

/// Seconds from the end of a request to the first byte of its answer.
pub(super) const REQUEST_TIMEOUT_S: RangeInclusive<u32> = 1..=180;

/// Without the key.
pub(super) const DEFAULT_REQUEST_TIMEOUT_S: u32 = 60;

/// Words of `http_version`.
const VERSIONS: [(&str, HttpVersion); 3] =
    [("http1.1", HttpVersion::Http1), ("http2", HttpVersion::Http2), ("http3", HttpVersion::Http3)];

/// Words of `xff`.
pub(super) const XFFS: [(&str, Xff); 2] = [("append", Xff::Append), ("replace", Xff::Replace)];

/// Words of `forwarded_headers`.
const HEADERS: [&str; 5] = ["ga_id", "ga_ap", "proto", "port", "real_ip"];

/// Keys that only HTTP and HTTPS listeners have.
const ONLY_HTTP: [&str; 8] = [
    "request_timeout",
    "http_version",
    "forwarded_headers",
    "xff",
    "trusted_proxies",
    "underscores_in_headers",
    "timeouts",
    "http_limits",
];

/// What the listener says of HTTP: nothing when it speaks something else; `Err` when that is a problem.
pub(super) fn read(listener: &Table<'_>, protocol: Option<Protocol>, cx: &mut Context<'_>) -> Result<Option<Http>, ()> {
    let Some(protocol) = protocol else { return Err(()) };
    if !protocol.is_http() {
        return only_http(listener, protocol, cx).map(|()| None);
    }
    let timeout = listener
        .optional("request_timeout")
        .map_or(Some(DEFAULT_REQUEST_TIMEOUT_S), |value| value.integer(REQUEST_TIMEOUT_S, &mut cx.problems));
    let version = match listener.optional("http_version") {
        Some(value) => version(&value, protocol, cx),
        None if protocol == Protocol::Https => Some(HttpVersion::Http2),
        None => Some(HttpVersion::Http1),
    };
    let forwarded = listener.optional("forwarded_headers").map_or(Some(ForwardedHeaders::default()), |value| headers(&value, cx));
    let xff = listener.optional("xff").map_or(Some(Xff::Append), |value| xff(&value, cx));
    let trusted = listener.optional("trusted_proxies").map_or(Some(Vec::new()), |value| networks(&value, cx));
    let before = cx.problems.count();
    let underscores = listener.optional("underscores_in_headers").and_then(|value| value.boolean(&mut cx.problems));
    let timeouts = Arc::new(http_waits::timeouts(listener.optional("timeouts"), cx));
    let limits = http_waits::limits(listener.optional("http_limits"), cx);
    if cx.problems.count() > before {
        return Err(());
    }
    let read = || {
        Some(Http {
            max_version: version?,
            request_timeout: Duration::from_secs(u64::from(timeout?)),
            forwarded: forwarded?,
            xff: xff?,
            trusted: trusted?,
            underscores: underscores.unwrap_or(false),
            timeouts,
            limits,
        })
    };
    read().map(Some).ok_or(())
}

fn only_http(listener: &Table<'_>, protocol: Protocol, cx: &mut Context<'_>) -> Result<(), ()> {
    let before = cx.problems.count();
    for value in ONLY_HTTP.into_iter().filter_map(|key| listener.optional(key)) {
        let draft =
            Fault::new(Kind::NotAllowed, format!("this key is for http and https listeners, not for {}", protocol.word()));
        value.problem(draft.help("remove the key, or set `protocol = \"http\"`"), &mut cx.problems);
    }
    if cx.problems.count() == before { Ok(()) } else { Err(()) }
}

fn version(value: &Value<'_>, protocol: Protocol, cx: &mut Context<'_>) -> Option<HttpVersion> {
    let word = value.string(&mut cx.problems)?;
    if protocol == Protocol::Http {
        let draft = Fault::new(Kind::NotAllowed, "`http_version` is for https listeners: without TLS clients speak HTTP/1.1");
        value.problem(draft.help("remove the key"), &mut cx.problems);
        return None;
    }
    if word == "http3" && !cfg!(feature = "http3") {
        let draft = Fault::new(Kind::NotAllowed, "this program was built without HTTP/3");
        let help = "use \"http2\": browsers speak it wherever they speak HTTP/3; or build with the feature `http3`, which is on by default";
        value.problem(draft.help(help), &mut cx.problems);
        return None;
    }
    value.word(&VERSIONS, &mut cx.problems)
}

/// QUIC has no other TLS than 1.3 (RFC 9001 §4.2): a problem of an HTTP/3 listener whose policy has not.
pub(super) fn has_tls13(listener: &Table<'_>, tls: Option<&Tls>, cx: &mut Context<'_>) {
    let policy = tls.map(|tls| tls.policy).filter(|policy| *policy != TlsPolicy::Tls12StrictWith13);
    if let (Some(value), Some(policy)) = (listener.optional("http_version"), policy) {
        let draft = Fault::new(Kind::Conflict, format!("HTTP/3 needs TLS 1.3, which the policy {:?} has not", policy.word()));
        let help = format!("use the policy {:?}, or \"http2\"", TlsPolicy::Tls12StrictWith13.word());
        value.problem(draft.help(help), &mut cx.problems);
    }
}

fn headers(value: &Value<'_>, cx: &mut Context<'_>) -> Option<ForwardedHeaders> {
    let mut found = ForwardedHeaders::default();
    let before = cx.problems.count();
    for element in value.array(&mut cx.problems)? {
        let Some(word) = element.string(&mut cx.problems) else { continue };
        let header = match word {
            "ga_id" => &mut found.ga_id,
            "ga_ap" => &mut found.ga_ap,
            "proto" => &mut found.proto,
            "port" => &mut found.port,
            "real_ip" => &mut found.real_ip,
            _ => {
                element.problem(not_a_word(word, HEADERS.into_iter()), &mut cx.problems);
                continue;
            }
        };
        *header = true;
    }
    (cx.problems.count() == before).then_some(found)
}

fn xff(value: &Value<'_>, cx: &mut Context<'_>) -> Option<Xff> {
    if matches!(value.string(&mut cx.problems)?, "off" | "none" | "remove") {
        let draft = Fault::new(Kind::NotAllowed, "`X-Forwarded-For` of http and https listeners cannot be switched off");
        value.problem(draft.help("use \"append\" (the default) or \"replace\""), &mut cx.problems);
        return None;
    }
    value.word(&XFFS, &mut cx.problems)
}

/// Networks, or addresses that stand for themselves.
pub(super) fn networks(value: &Value<'_>, cx: &mut Context<'_>) -> Option<Vec<IpNet>> {
    let before = cx.problems.count();
    let mut found = Vec::new();
    for element in value.array(&mut cx.problems)? {
        let Some(text) = element.string(&mut cx.problems) else { continue };
        match text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            Ok(net) => found.push(net.trunc()),
            Err(_) => {
                let draft = Fault::new(Kind::BadValue, format!("{:?} is not a network", shorten(text)));
                element.problem(draft.help("write it as in \"10.0.0.0/8\" or \"2001:db8::/32\""), &mut cx.problems);
            }
        }
    }
    (cx.problems.count() == before).then_some(found)
}

/// `backend_protocol` and `backend_protocol_version` of an endpoint group.
pub(super) fn backend(group: &Table<'_>, protocol: Option<Protocol>, cx: &mut Context<'_>) -> Option<Backend> {
    let before = cx.problems.count();
    let (over, version) = (group.optional("backend_protocol"), group.optional("backend_protocol_version"));
    for value in [&over, &version].into_iter().flatten().filter(|_| !protocol.is_none_or(Protocol::is_http)) {
        let draft = Fault::new(Kind::NotAllowed, "endpoints of TCP and UDP listeners get what clients send");
        value.problem(draft.help("remove the key, or make the listener an http or https one"), &mut cx.problems);
    }
    if cx.problems.count() > before {
        return None;
    }
    for value in ["preserve_client_ip", "return"]
        .into_iter()
        .filter(|_| protocol.is_some_and(Protocol::is_http))
        .filter_map(|key| group.optional(key))
    {
        let draft = Fault::new(
            Kind::NotAllowed,
            "endpoints of http and https listeners are always told the client's address, by `X-Forwarded-For`",
        );
        value.problem(draft.help("remove the key"), &mut cx.problems);
    }
    let word = |value: &Option<Value<'_>>, cx: &mut Context<'_>| -> Option<String> {
        value.as_ref().and_then(|value| value.string(&mut cx.problems)).map(str::to_ascii_lowercase)
    };
    let is_tls = match (word(&over, cx).as_deref(), &over) {
        (None | Some("http"), _) => false,
        (Some("https"), Some(value)) if protocol == Some(Protocol::Http) => {
            let draft = Fault::new(Kind::NotAllowed, "endpoints of an http listener are spoken to by HTTP");
            value.problem(draft.help("set `protocol = \"https\"` for the listener, or remove the key"), &mut cx.problems);
            true
        }
        (Some("https"), _) => true,
        (Some(other), Some(value)) => {
            value.problem(not_a_word(other, ["http", "https"].into_iter()), &mut cx.problems);
            false
        }
        (Some(_), None) => false,
    };
    let http2 = match (word(&version, cx).as_deref(), &version) {
        (None | Some("http1.1"), _) => false,
        (Some("http2"), Some(value)) if !is_tls => {
            let draft = Fault::new(Kind::Conflict, "endpoints are spoken to by HTTP/2 only over TLS");
            value.problem(draft.help("set `backend_protocol = \"https\"`, or remove the key"), &mut cx.problems);
            false
        }
        (Some("http2"), _) => true,
        (Some(other), Some(value)) => {
            value.problem(not_a_word(other, ["http1.1", "http2"].into_iter()), &mut cx.problems);
            false
        }
        (Some(_), None) => false,
    };
    let tls = tls::backend(group, is_tls, cx);
    (cx.problems.count() == before).then_some(Backend { tls, http2 })
}
