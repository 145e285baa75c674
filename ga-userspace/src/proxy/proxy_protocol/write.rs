//! The header that endpoints get in front of a connection. Pure.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::SIGNATURE;
use crate::model::ClientIp;

/// How a header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl Version {
    /// What endpoints of a group with `client_ip` get; none where they get no header.
    pub const fn of(client_ip: ClientIp) -> Option<Self> {
        match client_ip {
            ClientIp::ProxyV1 => Some(Self::V1),
            ClientIp::ProxyV2 => Some(Self::V2),
            ClientIp::Hidden | ClientIp::L2 | ClientIp::Ipip | ClientIp::Gateway => None,
        }
    }
}

/// The header of a connection of `client` to `server`. A header has addresses of one family: where the two differ, which they do when
/// a trusted proxy in front speaks the other family, the IPv4 one is written as an IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2).
pub fn write(version: Version, client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let ips = match (client.ip(), server.ip()) {
        (IpAddr::V4(client), IpAddr::V4(server)) => Ok((client, server)),
        (client, server) => Err((wide(client), wide(server))),
    };
    let (from, to) = (client.port(), server.port());
    match (version, ips) {
        (Version::V1, Ok((client, server))) => format!("PROXY TCP4 {client} {server} {from} {to}\r\n").into_bytes(),
        (Version::V1, Err((client, server))) => format!("PROXY TCP6 {client} {server} {from} {to}\r\n").into_bytes(),
        (Version::V2, Ok((client, server))) => binary(0x11, &client.octets(), &server.octets(), from, to),
        (Version::V2, Err((client, server))) => binary(0x21, &client.octets(), &server.octets(), from, to),
    }
}

fn wide(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// Version 2, command PROXY.
fn binary<const N: usize>(family: u8, client: &[u8; N], server: &[u8; N], from: u16, to: u16) -> Vec<u8> {
    // Two addresses of at most 16 bytes and two ports.
    let length = (2 * N + 4) as u8;
    [&SIGNATURE[..], &[0x21, family, 0, length], client, server, &from.to_be_bytes(), &to.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn headers_are_as_the_format_says() {
        let (client, server) = (at("192.0.2.1:4000"), at("198.51.100.2:80"));
        assert_eq!(write(Version::V1, client, server), b"PROXY TCP4 192.0.2.1 198.51.100.2 4000 80\r\n");
        assert_eq!(
            write(Version::V2, client, server),
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x02\x0f\xa0\0\x50"
        );
        let (client, server) = (at("[2001:db8::1]:4000"), at("[2001:db8::2]:80"));
        assert_eq!(write(Version::V1, client, server), b"PROXY TCP6 2001:db8::1 2001:db8::2 4000 80\r\n");
        assert_eq!(write(Version::V2, client, server).len(), 52);
    }

    #[test]
    fn two_families_are_written_as_one() {
        let (client, server) = (at("192.0.2.1:4000"), at("[2001:db8::2]:80"));
        assert_eq!(write(Version::V1, client, server), b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 4000 80\r\n");
    }
}
