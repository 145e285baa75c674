//! The head of an endpoint's answer, kept as the lines in which it came: most are written to the client as they are.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use httparse::Header;

use super::super::counts::Reason;

/// An answer's status, and the fields that are for the client: not those of one connection only (RFC 9110 §7.6.1), nor how the
/// answer was delimited but for its length.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Lines {
    /// Its status.
    pub(in crate::proxy) status: StatusCode,
    /// `name: value`, each with CR LF behind it.
    pub(in crate::proxy) text: Vec<u8>,
    /// It says how long the answer is.
    pub(in crate::proxy) has_length: bool,
    /// It says when it was made.
    pub(in crate::proxy) has_date: bool,
}

/// What an answer says of how it is delimited, and of its connection.
#[derive(Debug, Default)]
pub(super) struct Framing<'h> {
    /// `Transfer-Encoding: chunked`.
    pub(super) coding: bool,
    pub(super) length: Option<u64>,
    /// `Connection: close`.
    pub(super) close: bool,
    /// The protocol that the connection becomes.
    pub(super) upgrade: Option<&'h [u8]>,
    /// `Connection` names fields.
    names: bool,
}

impl Lines {
    /// One more field.
    pub(super) fn add(&mut self, name: &str, value: &[u8]) {
        for piece in [name.as_bytes(), b": ", value, b"\r\n"] {
            self.text.extend_from_slice(piece);
        }
    }

    /// The whole head as HTTP/1.1 has it.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(self.status.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.status.canonical_reason().unwrap_or_default().as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.text);
        out.extend_from_slice(b"\r\n");
    }

    /// The fields, for a client that does not get them as lines.
    ///
    /// # Errors
    ///
    /// One of them is none.
    pub(in crate::proxy) fn fields(&self) -> Result<HeaderMap, Reason> {
        let mut fields = HeaderMap::new();
        for line in self.text.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = (line.get(..colon).unwrap_or_default(), line.get(colon + 2..).unwrap_or_default());
            let name = HeaderName::from_bytes(name).map_err(|_| Reason::BadAnswer)?;
            fields.append(name, HeaderValue::from_bytes(value).map_err(|_| Reason::BadAnswer)?);
        }
        Ok(fields)
    }
}

/// What the fields of an answer say, and those that are for the client.
///
/// # Errors
///
/// What could be read in two ways.
pub(super) fn read_fields<'h>(status: StatusCode, headers: &[Header<'h>]) -> Result<(Framing<'h>, Lines), Reason> {
    let mut framing = Framing::default();
    let mut lines = Lines { status, text: Vec::with_capacity(256), has_length: false, has_date: false };
    for Header { name, value } in headers {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let passes = match name.len() {
            2 if is("te") => false,
            4 if is("date") => {
                lines.has_date = true;
                true
            }
            7 if is("upgrade") => {
                framing.upgrade = Some(value);
                false
            }
            10 if is("connection") => {
                framing.close |= words(value).any(|word| word.eq_ignore_ascii_case(b"close"));
                framing.names |= words(value).any(|word| !is_usual(word));
                false
            }
            10 if is("keep-alive") => false,
            14 if is("content-length") => {
                // Two lengths are refused even when they agree.
                if framing.length.replace(number(value)?).is_some() {
                    return Err(Reason::BadAnswer);
                }
                lines.has_length = !status.is_informational() && status != StatusCode::NO_CONTENT;
                lines.has_length
            }
            14 if is("http2-settings") => false,
            16 if is("proxy-connection") => false,
            17 if is("transfer-encoding") => {
                if framing.coding || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Reason::BadAnswer);
                }
                framing.coding = true;
                false
            }
            _ => true,
        };
        if passes {
            lines.add(name, value);
        }
    }
    if framing.names {
        lines.text.clear();
        let named = |name: &str| {
            let connections = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("connection"));
            connections.flat_map(|header| words(header.value)).any(|word| word.eq_ignore_ascii_case(name.as_bytes()))
        };
        for Header { name, value } in headers {
            let is = |other: &&str| name.eq_ignore_ascii_case(other);
            let is_length = is(&"content-length");
            if if is_length { lines.has_length } else { !(HOPS.iter().any(is) || named(name)) } {
                lines.add(name, value);
            }
        }
    }
    Ok((framing, lines))
}

/// Fields of one connection only.
const HOPS: [&str; 7] = ["te", "upgrade", "connection", "keep-alive", "http2-settings", "proxy-connection", "transfer-encoding"];

/// What `Connection` may say besides the names of fields, or of those that never pass.
fn is_usual(word: &[u8]) -> bool {
    word.is_empty() || [&b"close"[..], b"keep-alive", b"upgrade"].iter().any(|usual| word.eq_ignore_ascii_case(usual))
}

/// The members of a list.
fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// A number of bytes: digits and nothing else.
fn number(value: &[u8]) -> Result<u64, Reason> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Reason::BadAnswer);
    }
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(Reason::BadAnswer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, &str)]) -> Result<(String, bool), Reason> {
        let headers: Vec<Header<'_>> = fields.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
        let (framing, lines) = read_fields(StatusCode::OK, &headers)?;
        assert_eq!(framing.length.is_some(), lines.has_length);
        assert_eq!(lines.fields()?.len(), lines.text.iter().filter(|byte| **byte == b'\n').count());
        Ok((String::from_utf8_lossy(&lines.text).replace("\r\n", "|"), framing.close))
    }

    #[test]
    fn what_is_of_one_connection_stays_behind() {
        let all = [
            ("Server", "a"),
            ("connection", "close, X-Hop"),
            ("Keep-Alive", "timeout=5"),
            ("x-hop", "1"),
            ("Content-Length", "5"),
            ("upgrade", "h2c"),
            ("set-cookie", "a=b"),
            ("Set-Cookie", "c=d"),
        ];
        assert_eq!(read(&all), Ok(("Server: a|Content-Length: 5|set-cookie: a=b|Set-Cookie: c=d|".to_owned(), true)));
        assert_eq!(read(&[("transfer-encoding", "chunked"), ("x", "y")]), Ok(("x: y|".to_owned(), false)));
        // How long it is cannot be named away.
        assert_eq!(
            read(&[("connection", "content-length"), ("content-length", "5")]),
            Ok(("content-length: 5|".to_owned(), false))
        );
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for fields in [
            &[("content-length", "5"), ("Content-Length", "5")][..],
            &[("content-length", "+5")],
            &[("content-length", "")],
            &[("content-length", "5, 5")],
            &[("content-length", "99999999999999999999")],
            &[("transfer-encoding", "gzip, chunked")],
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
        ] {
            assert_eq!(read(fields), Err(Reason::BadAnswer), "{fields:?}");
        }
    }
}
