//! The head of a request that the guard has let pass.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header, request::Parts};
use httparse::ParserConfig;

/// As many fields as there is room for without asking.
const USUAL_FIELDS: usize = 128;

/// What `bytes`, a whole head, say, and whether the client waits for leave to send the body.
pub(super) fn parse(bytes: &[u8], fields: usize) -> Option<(Parts, bool)> {
    let (mut few, mut many);
    let room = if fields <= USUAL_FIELDS {
        few = [const { MaybeUninit::uninit() }; USUAL_FIELDS];
        &mut few[..]
    } else {
        many = vec![MaybeUninit::uninit(); fields];
        &mut many[..]
    };
    let mut parsed = httparse::Request::new(&mut []);
    ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, bytes, room).ok()?;
    // Values are pieces of one copy.
    let whole = Bytes::copy_from_slice(bytes);
    let start = bytes.as_ptr().addr();
    let piece = |part: &[u8]| {
        let from = part.as_ptr().addr().checked_sub(start)?;
        Some(whole.slice(from..from + part.len()))
    };
    let mut headers = HeaderMap::with_capacity(parsed.headers.len() + 1);
    let mut expects = false;
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        expects |= name == header::EXPECT;
        headers.append(name, HeaderValue::from_maybe_shared(piece(field.value)?).ok()?);
    }
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
    parts.uri = Uri::from_maybe_shared(piece(parsed.path?.as_bytes())?).ok()?;
    parts.version = if parsed.version? == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    parts.headers = headers;
    Some((parts, expects))
}
