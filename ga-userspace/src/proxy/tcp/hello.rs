//! The server name of a TLS ClientHello out of the bytes that came so far, without taking part in the handshake. Pure.
//!
//! rustls could read the message too, but refuses those of clients that it would not serve (TLS 1.1 and older, which name no signature
//! algorithms), and here only the endpoint decides whom it serves.

use std::net::IpAddr;

/// The longest ClientHello in bytes: key shares that withstand quantum computers take some 2 KiB, tickets and padding a few more.
pub(super) const MAX_HELLO: usize = 16_384;

/// So many bytes of a connection hold the longest ClientHello, in records of at least 16 bytes each on average.
pub(super) const MAX_BYTES: usize = MAX_HELLO + MAX_HELLO / 16 * RECORD_HEADER;

const RECORD_HEADER: usize = 5;

/// What the first bytes of a connection say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hello {
    /// Not enough yet; never of [`MAX_BYTES`].
    More,
    /// A ClientHello for this server, in lower case.
    Named(String),
    /// A ClientHello without the name of a server.
    Unnamed,
    /// Something else, or a ClientHello that is malformed or too long.
    Foreign,
}

/// What `bytes` are the beginning of. The outer name where the client encrypts the inner one (RFC 9849).
pub(super) fn read(bytes: &[u8]) -> Hello {
    let message = match message(bytes) {
        Ok(Some(message)) => message,
        Ok(None) if bytes.len() >= MAX_BYTES => return Hello::Foreign,
        Ok(None) => return Hello::More,
        Err(NotTls) => return Hello::Foreign,
    };
    match server_name(&message) {
        Some(Some(name)) => Hello::Named(name),
        Some(None) => Hello::Unnamed,
        None => Hello::Foreign,
    }
}

struct NotTls;

/// The first handshake message, which may be spread over several records (RFC 8446 §5.1), without its header. `None` when more bytes
/// are needed.
fn message(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, NotTls> {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    const MAX_RECORD: usize = 16_384;
    let mut parts = Vec::new();
    let mut there = 0;
    let mut needed = None;
    while needed.is_none_or(|needed| there < needed) {
        // What is there already must be right: nobody waits for the rest of something else.
        let wrong =
            matches!(bytes.first(), Some(first) if *first != HANDSHAKE) || matches!(bytes.get(1), Some(major) if *major != 3);
        if wrong {
            return Err(NotTls);
        }
        let Some((header, rest)) = bytes.split_first_chunk::<RECORD_HEADER>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 || length > MAX_RECORD {
            return Err(NotTls);
        }
        let part = &rest[..length.min(rest.len())];
        if needed.is_none() {
            // Its header may itself be in several records.
            let start: Vec<u8> = parts.iter().copied().chain([part]).flatten().copied().take(4).collect();
            needed = match start[..] {
                [kind, ..] if kind != CLIENT_HELLO => return Err(NotTls),
                [_, a, b, c] => Some(4 + u32::from_be_bytes([0, a, b, c]) as usize),
                _ => None,
            };
            if needed.is_some_and(|needed| needed > MAX_HELLO) {
                return Err(NotTls);
            }
        }
        parts.push(part);
        there += part.len();
        if part.len() < length && needed.is_none_or(|needed| there < needed) {
            return Ok(None);
        }
        bytes = &rest[part.len()..];
    }
    let mut message = parts.concat();
    message.truncate(needed.unwrap_or(0));
    Ok(Some(message.split_off(4.min(message.len()))))
}

/// The name in the ClientHello (RFC 8446 §4.1.2), `Some(None)` when there is none, `None` when the message is malformed.
fn server_name(message: &[u8]) -> Option<Option<String>> {
    const VERSION_AND_RANDOM: usize = 34;
    const SERVER_NAME: u16 = 0;
    let rest = message.get(VERSION_AND_RANDOM..)?;
    let (_session, rest) = short(rest)?;
    let (_suites, rest) = long(rest)?;
    let (_compression, rest) = short(rest)?;
    if rest.is_empty() {
        // Extensions came with TLS 1.2.
        return Some(None);
    }
    let (mut extensions, after) = long(rest)?;
    let mut name = None;
    while let Some((kind, rest)) = extensions.split_first_chunk::<2>() {
        let (body, rest) = long(rest)?;
        if u16::from_be_bytes(*kind) == SERVER_NAME {
            // Two of them might be read differently by the endpoint (RFC 8446 §4.2 forbids them).
            if name.is_some() {
                return None;
            }
            name = Some(host_name(body)?);
        }
        extensions = rest;
    }
    (extensions.is_empty() && after.is_empty()).then(|| name.flatten())
}

/// The one name of a `server_name` extension (RFC 6066 §3). `Some(None)` for an address, which is not allowed there and names nobody.
fn host_name(body: &[u8]) -> Option<Option<String>> {
    const HOST_NAME: u8 = 0;
    let (list, after) = long(body)?;
    let (kind, rest) = list.split_first()?;
    let (name, others) = long(rest)?;
    let is_right = *kind == HOST_NAME && others.is_empty() && after.is_empty();
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !is_right || name.is_empty() || name.len() > 255 || !name.iter().all(is_of_name) {
        return None;
    }
    let name = str::from_utf8(name).ok()?;
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    Some((!name.is_empty() && name.parse::<IpAddr>().is_err()).then_some(name))
}

/// What is as long as its first byte says, and what follows.
fn short(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// What is as long as its first two bytes say, and what follows.
fn long(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName, server::Acceptor};

    use super::*;

    /// What a rustls client sends first, with key shares that withstand quantum computers; `alpn` makes it longer.
    fn hello(name: &str, alpn: usize) -> Vec<u8> {
        let mut config = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        config.alpn_protocols = (0..alpn).map(|number| format!("{number:0>200}").into_bytes()).collect();
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("a ClientHello");
        bytes
    }

    /// The same message in records of at most `size` bytes.
    fn cut(bytes: &[u8], size: usize) -> Vec<u8> {
        let mut message = Vec::new();
        let mut rest = bytes;
        while let Some((header, after)) = rest.split_first_chunk::<RECORD_HEADER>() {
            let (part, after) = after.split_at(usize::from(u16::from_be_bytes([header[3], header[4]])));
            message.extend(part);
            rest = after;
        }
        let record = |part: &[u8]| [&[22, 3, 1], &(part.len() as u16).to_be_bytes()[..], part].concat();
        message.chunks(size).flat_map(record).collect()
    }

    /// One record with a ClientHello that has these extensions.
    fn with_extensions(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let sized = |bytes: Vec<u8>| [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat();
        let all = extensions.iter().flat_map(|(kind, body)| [&kind.to_be_bytes()[..], &sized(body.clone())].concat()).collect();
        let body = [vec![3, 3], vec![7; 32], vec![0], sized(vec![0x13, 1]), vec![1, 0], sized(all)].concat();
        let message = [&[1, 0], &(body.len() as u16).to_be_bytes()[..], &body].concat();
        [vec![22, 3, 1], sized(message)].concat()
    }

    fn sni(name: &[u8]) -> (u16, Vec<u8>) {
        let length = name.len() as u16;
        (0, [&(length + 3).to_be_bytes()[..], &[0], &length.to_be_bytes(), name].concat())
    }

    fn of_rustls(bytes: &[u8]) -> Option<String> {
        let mut acceptor = Acceptor::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            acceptor.read_tls(&mut rest).expect("bytes");
            if let Some(accepted) = acceptor.accept().map_err(|(error, _)| error).expect("a ClientHello") {
                return accepted.client_hello().server_name().map(str::to_owned);
            }
        }
        None
    }

    #[test]
    fn a_client_hello_is_read_as_rustls_reads_it() {
        for (name, alpn) in [("a.example", 0), ("www.shop.example", 1), ("A.Example", 40), ("192.0.2.1", 0)] {
            let bytes = hello(name, alpn);
            let expected = of_rustls(&bytes);
            assert_eq!(expected.is_none(), name == "192.0.2.1");
            assert_eq!(read(&bytes), expected.map_or(Hello::Unnamed, Hello::Named), "{name}");
        }
    }

    #[test]
    fn large_hellos_and_small_records_are_read() {
        for (alpn, size) in [(0, 1), (0, 3), (0, 64), (40, 1000), (70, 100), (75, 16_384)] {
            let bytes = cut(&hello("big.example", alpn), size);
            if size > 16 {
                assert_eq!(read(&bytes), Hello::Named("big.example".to_owned()), "{alpn} names in records of {size}");
                assert!(alpn == 0 || bytes.len() > 4096);
            }
        }
        // Records of a byte each are five sixths waste: a short message still fits.
        let short = with_extensions(&[sni(b"a.example")]);
        assert_eq!(read(&cut(&short, 1)), Hello::Named("a.example".to_owned()));
        assert_eq!(read(&hello("big.example", 85)), Hello::Foreign, "longer than a ClientHello may be");
        let endless = cut(&hello("big.example", 75), 1);
        assert_eq!(read(&endless[..MAX_BYTES]), Hello::Foreign);
    }

    #[test]
    fn names_are_those_of_hosts() {
        let named = |name: &[u8]| read(&with_extensions(&[(0x2a2a, Vec::new()), sni(name), (0x5a5a, vec![0])]));
        assert_eq!(named(b"Shop.Example."), Hello::Named("shop.example".to_owned()));
        assert_eq!(named(b"192.0.2.1"), Hello::Unnamed);
        for wrong in [&b""[..], b"a b", b"a\0.example", b"a/b", b"\xff", &[b'a'; 256]] {
            assert_eq!(named(wrong), Hello::Foreign, "{wrong:?}");
        }
        assert_eq!(read(&with_extensions(&[])), Hello::Unnamed);
        assert_eq!(read(&with_extensions(&[sni(b"a.example"), sni(b"b.example")])), Hello::Foreign);
    }

    #[test]
    fn what_is_not_tls_is_known_by_its_first_bytes() {
        for bytes in
            [&b"S"[..], b"SSH-2.0", b"GET / HTTP/1.1", b"\x80\x2e\x01", b"\x16\x02", b"\x16\x03\x01\0\0", b"\x16\x03\x01\x40\x01"]
        {
            assert_eq!(read(bytes), Hello::Foreign, "{bytes:?}");
        }
        assert_eq!(read(b"\x16\x03\x01\x00\x04\x02"), Hello::Foreign, "a ServerHello");
        for bytes in [&b""[..], b"\x16", b"\x16\x03", b"\x16\x03\x01\x00\x04\x01"] {
            assert_eq!(read(bytes), Hello::More, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_answer(size in 17..3000_usize, cut_at in 0..20_000_usize) {
            let bytes = cut(&hello("www.shop.example", 20), size);
            let answer = read(&bytes);
            prop_assert_eq!(&answer, &Hello::Named("www.shop.example".to_owned()));
            let short = read(&bytes[..cut_at.min(bytes.len())]);
            prop_assert!(short == Hello::More || short == answer);
        }

        #[test]
        fn any_bytes_have_an_answer_that_stays(changes in prop::collection::vec((0..2000_usize, any::<u8>()), 0..8), cut_at in 0..2000_usize) {
            let mut bytes = cut(&hello("www.shop.example", 1), 300);
            for (place, byte) in changes {
                if let Some(old) = bytes.get_mut(place) {
                    *old = byte;
                }
            }
            let answer = read(&bytes);
            let short = read(&bytes[..cut_at.min(bytes.len())]);
            prop_assert!(short == Hello::More || short == answer);
        }
    }
}
