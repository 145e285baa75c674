//! What a rule may ask about a request.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Method, header::HOST, request::Parts};

/// A request, as far as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// The peer of the TCP connection.
    pub client: IpAddr,
    /// Where it connected.
    pub local: SocketAddr,
    /// It speaks TLS.
    pub https: bool,
    /// The method.
    pub method: &'r Method,
    /// Whom it asks for, without port and without a dot at its end; empty when it does not say.
    pub host: &'r str,
    /// The path, normalised: what will be forwarded.
    pub path: &'r str,
    /// What stands behind `?`.
    pub query: Option<&'r str>,
    /// All of them.
    pub headers: &'r HeaderMap,
}

impl<'r> Request<'r> {
    /// What stands in `parts`; `client` is the peer of the connection, `local` where it connected.
    pub fn new(parts: &'r Parts, client: IpAddr, local: SocketAddr, https: bool) -> Self {
        let named = || parts.headers.get(HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let authority = parts.uri.authority().map_or_else(named, http::uri::Authority::host);
        Self {
            client: client.to_canonical(),
            local,
            https,
            method: &parts.method,
            host: host_of(authority),
            path: parts.uri.path(),
            query: parts.uri.query(),
            headers: &parts.headers,
        }
    }
}

/// The host of `host:port`, without a dot at its end.
pub fn host_of(authority: &str) -> &str {
    let host = match authority.rsplit_once(':') {
        // An IPv6 address has colons within its brackets.
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_no_part_of_the_host() {
        for (authority, host) in [
            ("example.com", "example.com"),
            ("example.com:8080", "example.com"),
            ("example.com.:8080", "example.com"),
            ("[2001:db8::1]:443", "[2001:db8::1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("", ""),
            (":80", ""),
        ] {
            assert_eq!(host_of(authority), host, "{authority}");
        }
    }
}
