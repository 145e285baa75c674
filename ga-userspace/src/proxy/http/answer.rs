//! Answers: endpoints' and the edge's own.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::{
    super::{counts::Reason, guard::Refusal, upstream::Lines},
    body::Answer,
};

/// The fields of an answer.
#[derive(Debug)]
pub(super) enum Fields {
    /// As an endpoint wrote them.
    Lines(Lines),
    /// One by one.
    Map(HeaderMap),
}

/// An answer's head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) fields: Fields,
}

impl Head {
    /// That field, whatever was said in it.
    pub(super) fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        match &mut self.fields {
            Fields::Lines(lines) => lines.set(name.as_str(), value.as_bytes()),
            Fields::Map(map) => drop(map.insert(name, value.clone())),
        }
    }
}

impl From<Response<()>> for Head {
    fn from(response: Response<()>) -> Self {
        let (parts, ()) = response.into_parts();
        Self { status: parts.status, fields: Fields::Map(parts.headers) }
    }
}

impl From<Lines> for Head {
    fn from(lines: Lines) -> Self {
        Self { status: lines.status, fields: Fields::Lines(lines) }
    }
}

/// What a client gets for a request.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) head: Head,
    pub(super) body: Answer,
}

impl Answered {
    /// The same, for a library to write.
    pub(super) fn into_response(self) -> Response<Answer> {
        let mut response = Response::new(self.body);
        let fields = match self.head.fields {
            Fields::Map(map) => Ok(map),
            Fields::Lines(lines) => lines.fields(),
        };
        match fields {
            Ok(fields) => {
                // HTTP/2 has no 101: what it becomes is said by 200 (RFC 8441 §5).
                let is_tunnel = self.head.status == StatusCode::SWITCHING_PROTOCOLS;
                *response.status_mut() = if is_tunnel { StatusCode::OK } else { self.head.status };
                *response.headers_mut() = fields;
            }
            Err(_) => *response.status_mut() = StatusCode::BAD_GATEWAY,
        }
        response
    }
}

/// Why a request gets no endpoint's answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) reason: Reason,
}

impl Refused {
    pub(super) const fn new(status: StatusCode, reason: Reason) -> Self {
        Self { status, reason }
    }

    /// What is wrong with a message of HTTP/1.
    pub(super) const fn by_guard(refusal: Refusal) -> Self {
        let reason = match refusal {
            Refusal::Method => Reason::Method,
            Refusal::TargetTooLong | Refusal::HeadTooLarge => Reason::TooLarge,
            Refusal::RequestLine
            | Refusal::Target
            | Refusal::LineEnd
            | Refusal::Field
            | Refusal::Host
            | Refusal::Length
            | Refusal::Framing
            | Refusal::Chunk
            | Refusal::Trailer
            | Refusal::Expectation
            | Refusal::Coding
            | Refusal::Version => Reason::BadRequest,
        };
        Self { status: refusal.status(), reason }
    }

    /// What the client is told.
    pub(super) fn response(self) -> (Response<()>, Bytes) {
        let mut response = Response::new(());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        }
        let text = self.status.canonical_reason().unwrap_or("refused");
        (response, Bytes::from_static(text.as_bytes()))
    }
}

/// What a client that took too long for its request's head is told, on a connection on which nothing else is to come.
pub(super) const HEAD_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
