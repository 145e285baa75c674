//! Messages of HTTP/2, whose framing is beyond doubt: what their heads must not say all the same.

use http::{Method, header, request::Parts};

use super::{Refusal, host};

/// Judges a head that was not read as bytes of HTTP/1.
///
/// # Errors
/// A method that is not for an edge, `*` for another method than `OPTIONS`, or `:authority` and `Host` (RFC 9113 §8.3.1) that are no
/// host, differ, or are both missing.
pub fn judge(parts: &Parts) -> Result<(), Refusal> {
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        return Err(Refusal::Method);
    }
    if parts.uri.path() == "*" && parts.method != Method::OPTIONS {
        return Err(Refusal::Target);
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter().map(|host| host.as_bytes());
    let host = hosts.next();
    let named = parts.uri.authority().map(|authority| authority.as_str().as_bytes()).or(host).ok_or(Refusal::Host)?;
    let port = if parts.uri.scheme_str() == Some("https") { 443 } else { 80 };
    let agrees = host.is_none_or(|host| host::same(named, host, port));
    if agrees && hosts.next().is_none() && host::is_host(named) { Ok(()) } else { Err(Refusal::Host) }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn authority_and_host_are_one_host() {
        let judged = |method: &str, uri: &str, hosts: &[&str]| {
            let request =
                hosts.iter().fold(Request::builder().method(method).uri(uri), |request, host| request.header("host", *host));
            judge(&request.body(()).unwrap().into_parts().0)
        };
        assert_eq!(judged("GET", "http://a.example/", &[]), Ok(()));
        assert_eq!(judged("GET", "https://a.example/", &["A.example:443"]), Ok(()));
        assert_eq!(judged("GET", "/", &["a.example"]), Ok(()));
        assert_eq!(judged("OPTIONS", "*", &["a.example"]), Ok(()));
        assert_eq!(judged("GET", "*", &["a.example"]), Err(Refusal::Target));
        assert_eq!(judged("CONNECT", "a.example:443", &[]), Err(Refusal::Method));
        assert_eq!(judged("TRACE", "/", &["a.example"]), Err(Refusal::Method));
        for (uri, hosts) in [
            ("/", &[][..]),
            ("/", &["a", "a"]),
            ("/", &["a b"]),
            ("http://u@a.example/", &[]),
            ("http://a.example/", &["b.example"]),
            ("http://a.example/", &["a.example", "b.example"]),
            ("http://a.example/", &["a.example:81"]),
        ] {
            assert_eq!(judged("GET", uri, hosts), Err(Refusal::Host), "{uri} {hosts:?}");
        }
    }
}
