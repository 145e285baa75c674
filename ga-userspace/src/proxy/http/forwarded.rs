//! What endpoints are told of clients (specification §1.12), and what clients may not say of themselves.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{super::Listener, client::Client};
use crate::model::{Http, Xff};

const XFF: HeaderName = HeaderName::from_static("x-forwarded-for");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const GA_ID: HeaderName = HeaderName::from_static("ga-id");
const GA_AP: HeaderName = HeaderName::from_static("ga-ap");
const PROTO: HeaderName = HeaderName::from_static("ga-x-forward-proto");
const PORT: HeaderName = HeaderName::from_static("ga-x-forward-port");

/// The host of a request that names none, which HTTP/1.0 need not: where the client connected to (RFC 9112 §3.3).
pub(super) fn here(client: &Client) -> HeaderValue {
    let usual = if client.peer.tls.is_some() { 443 } else { 80 };
    HeaderValue::try_from(name_of(client.peer.local, usual)).unwrap_or(HeaderValue::from_static("localhost"))
}

fn name_of(local: SocketAddr, usual: u16) -> String {
    if local.port() != usual {
        return local.to_string();
    }
    match local.ip() {
        IpAddr::V6(ip) => format!("[{ip}]"),
        IpAddr::V4(ip) => ip.to_string(),
    }
}

/// Removes what clients may not say: `GA-*`, names with an underscore (which servers take for a hyphen), and what `Connection` names,
/// which is for the edge alone (RFC 9110 §7.6.1); how messages are delimited and routed cannot be named away.
pub(super) fn sanitize(headers: &mut HeaderMap, http: &Http) {
    let is_forged = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with("ga-") || (name.contains('_') && !http.underscores)
    };
    if headers.keys().any(is_forged) {
        let forged: Vec<HeaderName> = headers.keys().filter(|name| is_forged(name)).cloned().collect();
        for name in forged {
            headers.remove(name);
        }
    }
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = (headers.get_all(header::CONNECTION).iter())
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(',').map(str::trim))
            .filter(|word| !["close", "keep-alive", "upgrade", "te"].iter().any(|usual| word.eq_ignore_ascii_case(usual)))
            .filter_map(|word| word.parse().ok())
            .filter(|name| ![header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::HOST].contains(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
}

/// The fields that the endpoint gets besides the client's. They replace those of the same name.
pub(super) fn fields(client: &Client, listener: &Listener, ap: &str, headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let mut fields = Vec::with_capacity(1);
    let Some(http) = &listener.file.http else { return fields };
    fields.push((XFF, chain(client, http, headers)));
    let told = http.forwarded;
    if told.real_ip {
        fields.push((REAL_IP, client.address.clone()));
    }
    let mut text = |name, text: &str| fields.extend(HeaderValue::from_str(text).ok().map(|value| (name, value)));
    if told.ga_id {
        text(GA_ID, listener.instance.as_str());
    }
    if told.ga_ap {
        text(GA_AP, ap);
    }
    if told.proto {
        text(PROTO, listener.file.protocol.word());
    }
    if told.port {
        fields.push((PORT, HeaderValue::from(client.peer.local.port())));
    }
    fields
}

/// Whom the request came by, the peer last.
fn chain(client: &Client, http: &Http, headers: &HeaderMap) -> HeaderValue {
    let before = || headers.get_all(XFF).iter().filter(|value| !value.is_empty());
    if before().next().is_none() || !(http.xff == Xff::Append || is_trusted(http, client.ip)) {
        return client.address.clone();
    }
    let mut chain = Vec::new();
    for value in before() {
        chain.extend_from_slice(value.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(client.address.as_bytes());
    HeaderValue::try_from(chain).unwrap_or_else(|_| client.address.clone())
}

fn is_trusted(http: &Http, ip: IpAddr) -> bool {
    http.trusted.iter().any(|network| network.contains(&ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_a_host_is_for_where_its_client_connected_to() {
        for (local, usual, name) in [
            ("192.0.2.1:80", 80, "192.0.2.1"),
            ("192.0.2.1:80", 443, "192.0.2.1:80"),
            ("[2001:db8::1]:443", 443, "[2001:db8::1]"),
            ("[2001:db8::1]:8443", 443, "[2001:db8::1]:8443"),
        ] {
            assert_eq!(name_of(local.parse().unwrap(), usual), name);
        }
    }
}
