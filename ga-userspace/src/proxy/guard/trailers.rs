//! Fields that come after a body: those that would change what was decided from the head are dropped.

use http::{HeaderMap, HeaderName, header};

/// Takes out of `trailers` what RFC 9110 §6.5.1 forbids there: framing, routing, authentication, conditions of the request, and how
/// the body is to be read; and names with an underscore, which some servers read as another field.
pub fn scrub(trailers: &mut HeaderMap) {
    let bad: Vec<HeaderName> = trailers.keys().filter(|name| is_forbidden(name)).cloned().collect();
    for name in bad {
        trailers.remove(name);
    }
}

fn is_forbidden(name: &HeaderName) -> bool {
    const FORBIDDEN: [HeaderName; 36] = [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
        header::HOST,
        header::FORWARDED,
        header::MAX_FORWARDS,
        header::VIA,
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::PROXY_AUTHENTICATE,
        header::WWW_AUTHENTICATE,
        header::COOKIE,
        header::SET_COOKIE,
        header::EXPECT,
        header::RANGE,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::CACHE_CONTROL,
        header::PRAGMA,
        header::AGE,
        header::EXPIRES,
        header::DATE,
        header::LOCATION,
        header::RETRY_AFTER,
        header::VARY,
        header::WARNING,
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
        header::IF_RANGE,
        header::ORIGIN,
    ];
    let word = name.as_str();
    FORBIDDEN.contains(name)
        || word.contains('_')
        || word.starts_with("x-forwarded-")
        || word.starts_with("ga-")
        || matches!(word, "keep-alive" | "proxy-connection" | "http2-settings" | "x-real-ip")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_harmless_fields_stay() {
        let mut trailers = HeaderMap::new();
        let names =
            ["content-length", "host", "authorization", "x-forwarded-for", "ga-id", "x_y", "keep-alive", "grpc-status", "x-sum"];
        for name in names {
            trailers.append(name, HeaderValue::from_static("1"));
            trailers.append(name, HeaderValue::from_static("2"));
        }
        scrub(&mut trailers);
        assert_eq!(trailers.keys_len(), 2);
        assert_eq!(trailers.get_all("grpc-status").iter().count(), 2);
        assert_eq!(trailers.get_all("x-sum").iter().count(), 2);
    }
}
