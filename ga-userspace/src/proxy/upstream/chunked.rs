//! Chunked bodies (RFC 9112 §7.1), read strictly: what is not exactly as the RFC says ends the connection.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The longest line that says a chunk's size, with extensions.
const LINE: usize = 1024;
/// The most bytes of trailers.
const TRAILERS: usize = 16 * 1024;
/// The most trailers.
const FIELDS: usize = 64;

/// Where in the body the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Chunked {
    /// At a line with a size.
    Size,
    /// In a chunk of which so many bytes are left.
    Data(u64),
    /// At the end of a chunk's line.
    End,
    /// In the trailers.
    Trailers,
    /// Behind the body.
    Done,
}

/// What bytes came to.
#[derive(Debug)]
pub(in crate::proxy) enum Decoded {
    /// A piece of the body.
    Data(Bytes),
    /// What came behind it.
    Trailers(HeaderMap),
    /// Nothing before more bytes are there.
    More,
    /// The body has ended.
    Done,
}

/// The bytes are not a chunked body.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Malformed;

impl Chunked {
    /// Takes the next piece from the front of `bytes`.
    ///
    /// # Errors
    ///
    /// When they are not what the RFC allows there.
    pub(in crate::proxy) fn decode(&mut self, bytes: &mut BytesMut) -> Result<Decoded, Malformed> {
        loop {
            match *self {
                Self::Size => {
                    let Some(end) = line(bytes, LINE)? else { return Ok(Decoded::More) };
                    let size = size(bytes.get(..end).ok_or(Malformed)?)?;
                    bytes.advance(end + 2);
                    *self = if size == 0 { Self::Trailers } else { Self::Data(size) };
                }
                Self::Data(_) if bytes.is_empty() => return Ok(Decoded::More),
                Self::Data(left) => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let left = left.saturating_sub(taken as u64);
                    *self = if left == 0 { Self::End } else { Self::Data(left) };
                    return Ok(Decoded::Data(bytes.split_to(taken).freeze()));
                }
                Self::End => match bytes.get(..2) {
                    None if bytes.first().is_none_or(|byte| *byte == b'\r') => return Ok(Decoded::More),
                    Some(b"\r\n") => {
                        bytes.advance(2);
                        *self = Self::Size;
                    }
                    None | Some(_) => return Err(Malformed),
                },
                Self::Trailers => {
                    let Some(trailers) = trailers(bytes)? else { return Ok(Decoded::More) };
                    *self = Self::Done;
                    return Ok(if trailers.is_empty() { Decoded::Done } else { Decoded::Trailers(trailers) });
                }
                Self::Done => return Ok(Decoded::Done),
            }
        }
    }
}

/// Where the first line ends, before its CR LF.
fn line(bytes: &[u8], most: usize) -> Result<Option<usize>, Malformed> {
    match bytes.iter().take(most).position(|byte| *byte == b'\n') {
        Some(end) if end > 0 && bytes.get(end - 1) == Some(&b'\r') => Ok(Some(end - 1)),
        Some(_) => Err(Malformed),
        None if bytes.len() >= most => Err(Malformed),
        None => Ok(None),
    }
}

fn size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, extension) = line.split_at(digits);
    let extends = extension.iter().find(|byte| !matches!(byte, b' ' | b'\t')).is_none_or(|byte| *byte == b';');
    let clean = extension.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
    if digits.is_empty() || digits.len() > 16 || !extends || !clean {
        return Err(Malformed);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Malformed)?;
    u64::from_str_radix(text, 16).map_err(|_| Malformed)
}

fn trailers(bytes: &mut BytesMut) -> Result<Option<HeaderMap>, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut trailers = HeaderMap::new();
    let taken = match httparse::parse_headers(bytes, &mut fields).map_err(|_| Malformed)? {
        httparse::Status::Partial if bytes.len() >= TRAILERS => return Err(Malformed),
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete((taken, fields)) => {
            for field in fields {
                let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
                trailers.append(name, HeaderValue::from_bytes(field.value).map_err(|_| Malformed)?);
            }
            taken
        }
    };
    bytes.advance(taken);
    Ok(Some(trailers))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body, the trailers' names and what is left of `bytes` that came in pieces of `step`.
    fn read(bytes: &[u8], step: usize) -> Result<(Vec<u8>, Vec<String>, usize), Malformed> {
        let (mut state, mut buffer, mut body, mut names) = (Chunked::Size, BytesMut::new(), Vec::new(), Vec::new());
        for piece in bytes.chunks(step.max(1)) {
            buffer.extend_from_slice(piece);
            loop {
                match state.decode(&mut buffer)? {
                    Decoded::Data(data) => body.extend_from_slice(&data),
                    Decoded::Trailers(trailers) => names.extend(trailers.keys().map(ToString::to_string)),
                    Decoded::More | Decoded::Done => break,
                }
            }
        }
        Ok((body, names, if state == Chunked::Done { buffer.len() } else { usize::MAX }))
    }

    #[test]
    fn pieces_come_out_whole_wherever_they_are_cut() {
        let bytes = b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n";
        for step in 1..bytes.len() {
            assert_eq!(read(bytes, step), Ok((b"hello world".to_vec(), vec!["x-sum".to_owned()], 0)), "{step}");
        }
    }

    #[test]
    fn what_the_rfc_does_not_allow_is_refused() {
        for bytes in [
            "0x1\r\nZ\r\n0\r\n\r\n",
            "1_0\r\n",
            "1;a=b\nZ\r\n",
            "1\r\r;a=b\r\nZ\r\n",
            "1\r\nZXX0\r\n\r\n",
            "\n0\r\n\r\n",
            "10000000000000001\r\nZ\r\n",
            "\r\n",
            "-1\r\n",
            " 1\r\nZ\r\n",
            "1 x\r\nZ\r\n",
            "1;\x00\r\nZ\r\n",
        ] {
            assert_eq!(read(bytes.as_bytes(), 100), Err(Malformed), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_any_bytes_reads_the_same(bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'2'), Just(b';'), any::<u8>()], 0..60), step in 1_usize..9) {
            prop_assert_eq!(read(&bytes, step).is_err(), read(&bytes, bytes.len()).is_err());
        }
    }
}
