//! Heads of messages: what is written of a request, what is taken out of what passes, and what fields say.

use std::fmt::Write as _;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::h1::{Head, Sending};

/// Pieces of a request's body up to here are copied behind what is to be written.
const COPIED: usize = 4 * 1024;

/// Fields of one connection only (RFC 9110 §7.6.1). How messages are delimited is no part of this: it is written anew.
fn is_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "transfer-encoding"
            | "te"
            | "upgrade"
            | "http2-settings"
            | "proxy-authenticate"
            | "proxy-authorization"
    )
}

/// Removes what is of one connection only, and what `Connection` names.
pub(in crate::proxy) fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = (headers.get_all(header::CONNECTION).iter())
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|word| word.trim().parse().ok())
            .filter(|name| *name != header::CONTENT_LENGTH && *name != header::HOST)
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "te", "upgrade", "http2-settings"] {
        headers.remove(name);
    }
}

pub(super) fn put(write: &mut BytesMut, queued: &mut Bytes, data: Bytes) {
    if data.len() <= COPIED { write.put_slice(&data) } else { *queued = data }
}

pub(super) fn field(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

pub(super) fn write_head(out: &mut BytesMut, head: Head<'_>, sending: Sending) {
    out.put_slice(head.method.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(head.target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    field(out, "host", head.host);
    let mut cookies = false;
    for (name, value) in head.headers {
        let replaced = || head.forwarded.iter().any(|(own, _)| own == name);
        match name.as_str() {
            "host" | "content-length" | "expect" => {}
            // HTTP/2 may have cut it (RFC 9113 §8.2.3).
            "cookie" if cookies => {}
            "cookie" => {
                cookies = true;
                let pieces: Vec<&[u8]> = head.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
                field(out, "cookie", &pieces.join(&b"; "[..]));
            }
            "te" if value.as_bytes() == b"trailers" && head.upgrade.is_none() => {
                out.put_slice(b"te: trailers\r\nconnection: te\r\n");
            }
            _ if is_hop(name) || replaced() => {}
            name => field(out, name, value.as_bytes()),
        }
    }
    for (name, value) in head.forwarded {
        field(out, name.as_str(), value.as_bytes());
    }
    if let Some(upgrade) = head.upgrade {
        field(out, "connection", b"upgrade");
        field(out, "upgrade", upgrade.as_bytes());
    }
    match sending {
        // Who sends no body of these methods says so only if the client did (RFC 9110 §8.6).
        Sending::Length(0) if *head.method != Method::POST && *head.method != Method::PUT && *head.method != Method::PATCH => {}
        Sending::Length(length) => {
            // Writing to memory does not fail.
            write!(out, "content-length: {length}\r\n").unwrap_or_default();
        }
        Sending::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
        Sending::Done => {}
    }
    out.put_slice(b"\r\n");
}
