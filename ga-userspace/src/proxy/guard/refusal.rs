//! Why a client's message is refused, and what it is told.

use http::StatusCode;

/// What is wrong with a message. The connection ends with the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// The first line is not `METHOD target HTTP/1.1` with one space between (RFC 9112 §3).
    RequestLine,
    /// A target that no request has (RFC 9112 §3.2).
    Target,
    /// A line does not end with CR LF (RFC 9112 §2.2), or has a CR elsewhere.
    LineEnd,
    /// A header field has a wrong name, a wrong byte in its value, no colon, or goes on in the next line (RFC 9112 §5).
    Field,
    /// `Host` is missing, there twice, not a host, or not the target's (RFC 9112 §3.2).
    Host,
    /// `Content-Length` is not one decimal number (RFC 9112 §6.3).
    Length,
    /// `Transfer-Encoding` is beside `Content-Length`, in HTTP/1.0, or does not end with one `chunked` (RFC 9112 §6.1).
    Framing,
    /// A chunk does not follow RFC 9112 §7.1 to the letter.
    Chunk,
    /// The trailer section is not made of fields, or too large.
    Trailer,
    /// `CONNECT` and `TRACE` are not for an edge.
    Method,
    /// The target is longer than the listener allows.
    TargetTooLong,
    /// An expectation other than `100-continue` (RFC 9110 §10.1.1).
    Expectation,
    /// The head is larger, or has more fields, than the listener allows.
    HeadTooLarge,
    /// A transfer coding that the edge does not know (RFC 9112 §6.1).
    Coding,
    /// Another version than HTTP/1.0 and HTTP/1.1.
    Version,
}

impl Refusal {
    /// What the client is answered.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::RequestLine
            | Self::Target
            | Self::LineEnd
            | Self::Field
            | Self::Host
            | Self::Length
            | Self::Framing
            | Self::Chunk
            | Self::Trailer => StatusCode::BAD_REQUEST,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }

    /// As logs and metrics call it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::RequestLine => "bad_request_line",
            Self::Target => "bad_target",
            Self::LineEnd => "bad_line_end",
            Self::Field => "bad_field",
            Self::Host => "bad_host",
            Self::Length => "bad_length",
            Self::Framing => "bad_framing",
            Self::Chunk => "bad_chunk",
            Self::Trailer => "bad_trailer",
            Self::Method => "bad_method",
            Self::TargetTooLong => "target_too_long",
            Self::Expectation => "bad_expectation",
            Self::HeadTooLarge => "head_too_large",
            Self::Coding => "bad_coding",
            Self::Version => "bad_version",
        }
    }
}
