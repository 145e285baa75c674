//! A header of the PROXY protocol out of bytes that came so far. Pure; strict where a lenient reader and the sender could mean two
//! different things.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    str::FromStr,
};

use thiserror::Error;

use super::SIGNATURE;

/// The longest header of version 1 in bytes, its line end included.
pub const MAX_V1: usize = 107;

/// The longest header of version 2 in bytes that is taken. The format allows 65,551, of which no known sender makes use: what follows
/// the addresses (certificate names and the like) is skipped here.
pub const MAX_V2: usize = 4_096;

/// The fixed part of version 2.
const FIXED: usize = 16;

/// What a sender says of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Nothing: the connection is the sender's own, as those of health checks are, or it does not know.
    Local,
    /// Somebody else's.
    Proxied {
        /// Who connected.
        client: SocketAddr,
        /// To whom.
        server: SocketAddr,
    },
}

/// What is wrong with the first bytes of a connection that must begin with a header.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    /// They are of something else.
    #[error("the connection does not begin with a header of the PROXY protocol")]
    Foreign,
    /// More of them than a header may have.
    #[error("the header of the PROXY protocol is too long")]
    TooLong,
    /// A command, family or version that the format does not have, or that is not of TCP.
    #[error("the header of the PROXY protocol is of an unknown kind")]
    Kind,
    /// Addresses or ports that are none, or of which there are too few.
    #[error("the addresses in the header of the PROXY protocol are wrong")]
    Addresses,
}

/// The header at the beginning of `bytes`, and how many of them it is. `None` when more are needed to know; never for [`MAX_V2`] of
/// them.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    const WORD: &[u8] = b"PROXY ";
    if begins(bytes, &SIGNATURE) {
        return if bytes.len() < FIXED { Ok(None) } else { binary(bytes) };
    }
    match (begins(bytes, WORD), bytes.len() < WORD.len()) {
        (false, _) => Err(Malformed::Foreign),
        (true, true) => Ok(None),
        (true, false) => text(bytes),
    }
}

/// Whether what is there of `bytes` is as `start` says.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(a, b)| a == b)
}

/// Version 1: one line of words with one space between two of them.
fn text(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let Some(end) = bytes.iter().take(MAX_V1).position(|byte| *byte == b'\n') else {
        return if bytes.len() < MAX_V1 { Ok(None) } else { Err(Malformed::TooLong) };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or(Malformed::Kind)?;
    let line = str::from_utf8(line).map_err(|_not_text| Malformed::Kind)?;
    let mut words = line.split(' ').skip(1);
    let header = match words.next() {
        // What follows is to be ignored.
        Some("UNKNOWN") => Header::Local,
        Some(family @ ("TCP4" | "TCP6")) => {
            let client = word(words.next(), |word| address(family, word))?;
            let server = word(words.next(), |word| address(family, word))?;
            let client = SocketAddr::new(client, word(words.next(), port)?);
            let server = SocketAddr::new(server, word(words.next(), port)?);
            if words.next().is_some() {
                return Err(Malformed::Addresses);
            }
            Header::Proxied { client, server }
        }
        _ => return Err(Malformed::Kind),
    };
    Ok(Some((header, end + 1)))
}

fn word<T>(word: Option<&str>, read: impl Fn(&str) -> Option<T>) -> Result<T, Malformed> {
    word.and_then(read).ok_or(Malformed::Addresses)
}

fn address(family: &str, word: &str) -> Option<IpAddr> {
    let address = IpAddr::from_str(word).ok()?;
    (address.is_ipv4() == (family == "TCP4")).then_some(address)
}

fn port(word: &str) -> Option<u16> {
    let is_number = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    is_number.then(|| word.parse().ok()).flatten()
}

/// Version 2, of which all of the fixed part is there.
fn binary(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    const VERSIONS_AND_COMMANDS: RangeInclusive<u8> = 0x20..=0x21;
    const LOCAL: u8 = 0x20;
    let [.., command, family, high, low] = bytes[..FIXED] else { return Err(Malformed::Kind) };
    if !VERSIONS_AND_COMMANDS.contains(&command) {
        return Err(Malformed::Kind);
    }
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_V2 {
        return Err(Malformed::TooLong);
    }
    let Some(rest) = bytes.get(FIXED..length) else { return Ok(None) };
    let header = match (command, family) {
        (LOCAL, _) => Header::Local,
        // Unspecified, and sockets of one host: their addresses mean nothing here.
        (_, 0x00 | 0x31) => Header::Local,
        (_, 0x11) => proxied::<4>(rest)?,
        (_, 0x21) => proxied::<16>(rest)?,
        _ => return Err(Malformed::Kind),
    };
    Ok(Some((header, length)))
}

/// Two addresses of `N` bytes, two ports, and what is skipped.
fn proxied<const N: usize>(rest: &[u8]) -> Result<Header, Malformed>
where
    IpAddr: From<[u8; N]>,
{
    let read = || {
        let (client, rest) = rest.split_first_chunk::<N>()?;
        let (server, rest) = rest.split_first_chunk::<N>()?;
        let (client_port, rest) = rest.split_first_chunk::<2>()?;
        let (server_port, _) = rest.split_first_chunk::<2>()?;
        Some(Header::Proxied {
            client: SocketAddr::new((*client).into(), u16::from_be_bytes(*client_port)),
            server: SocketAddr::new((*server).into(), u16::from_be_bytes(*server_port)),
        })
    };
    read().ok_or(Malformed::Addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxied_by(client: &str, server: &str) -> Header {
        Header::Proxied { client: client.parse().expect("an address"), server: server.parse().expect("an address") }
    }

    #[test]
    fn version_1_is_read_as_it_is_written() {
        for (line, header) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.2 4000 80\r\n", proxied_by("192.0.2.1:4000", "198.51.100.2:80")),
            ("PROXY TCP6 2001:db8::1 ::1 65535 0\r\n", proxied_by("[2001:db8::1]:65535", "[::1]:0")),
            ("PROXY UNKNOWN\r\n", Header::Local),
            ("PROXY UNKNOWN ffff::1 whatever it is\r\n", Header::Local),
        ] {
            assert_eq!(parse(format!("{line}GET /").as_bytes()), Ok(Some((header, line.len()))), "{line:?}");
        }
    }

    #[test]
    fn version_1_has_no_other_form() {
        use Malformed::{Addresses, Foreign, Kind, TooLong};
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1 - 15));
        for (line, why) in [
            ("GET / HTTP/1.1\r\n", Foreign),
            ("PROXYxTCP4 192.0.2.1 198.51.100.2 1 2\r\n", Foreign),
            ("proxy TCP4 192.0.2.1 198.51.100.2 1 2\r\n", Foreign),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n", Kind),
            ("PROXY  TCP4 192.0.2.1 198.51.100.2 1 2\r\n", Kind),
            ("PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n", Kind),
            ("PROXY \u{fe}\r\n", Kind),
            ("PROXY TCP4 192.0.2.1  198.51.100.2 1 2\r\n", Addresses),
            ("PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n", Addresses),
            ("PROXY TCP4 ::1 ::2 1 2\r\n", Addresses),
            ("PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n", Addresses),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n", Addresses),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n", Addresses),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n", Addresses),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n", Addresses),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n", Addresses),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\r\n", Addresses),
            (&long, TooLong),
        ] {
            assert_eq!(parse(line.as_bytes()), Err(why), "{line:?}");
        }
        // The longest line that the format has ends with the last byte that is allowed.
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1 - 16));
        assert_eq!(parse(longest.as_bytes()), Ok(Some((Header::Local, MAX_V1))));
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).expect("a short body");
        [&SIGNATURE[..], &[command, family], &length.to_be_bytes(), body].concat()
    }

    #[test]
    fn version_2_is_read_and_what_follows_the_addresses_is_skipped() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 2, 0x0f, 0xa0, 0, 80];
        let header = proxied_by("192.0.2.1:4000", "198.51.100.2:80");
        assert_eq!(parse(&v2(0x21, 0x11, &v4)), Ok(Some((header, 28))));
        assert_eq!(parse(&v2(0x21, 0x11, &[&v4[..], &[4, 0, 1, 0]].concat())), Ok(Some((header, 32))));
        assert_eq!(parse(&v2(0x20, 0x11, &v4)), Ok(Some((Header::Local, 28))));
        assert_eq!(parse(&v2(0x20, 0x00, &[])), Ok(Some((Header::Local, 16))));
        assert_eq!(parse(&v2(0x21, 0x00, &[1, 2])), Ok(Some((Header::Local, 18))));
        assert_eq!(parse(&v2(0x21, 0x31, &[0; 216])), Ok(Some((Header::Local, 232))));
        assert_eq!(parse(&v2(0x21, 0x00, &[0; MAX_V2 - FIXED])), Ok(Some((Header::Local, MAX_V2))));
    }

    #[test]
    fn version_2_has_no_other_form() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 2, 0x0f, 0xa0, 0, 80];
        for (bytes, why) in [
            (v2(0x11, 0x11, &v4), Malformed::Kind),
            (v2(0x22, 0x11, &v4), Malformed::Kind),
            (v2(0x31, 0x11, &v4), Malformed::Kind),
            (v2(0x21, 0x12, &v4), Malformed::Kind),
            (v2(0x21, 0x41, &v4), Malformed::Kind),
            (v2(0x21, 0x11, &v4[..11]), Malformed::Addresses),
            (v2(0x21, 0x21, &v4), Malformed::Addresses),
            (v2(0x21, 0x00, &[0; MAX_V2 - FIXED + 1]), Malformed::TooLong),
            (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), Malformed::Foreign),
        ] {
            assert_eq!(parse(&bytes), Err(why), "{bytes:x?}");
        }
    }
}
