//! Which addresses packets can be sent to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why no packet can be sent to `address`; none when it can: unicast, global or private.
pub fn unusable(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => unusable_v4(v4),
        IpAddr::V6(v6) => unusable_v6(v6),
    }
}

fn unusable_v4(address: Ipv4Addr) -> Option<&'static str> {
    if address.octets()[0] == 0 {
        Some("it is unspecified")
    } else if address.is_loopback() {
        Some("loopback addresses never leave a host")
    } else if address.is_link_local() {
        // RFC 3927 §2.7: a router must not forward it.
        Some("link-local addresses are not forwarded")
    } else if address.is_multicast() {
        Some("it is a multicast address")
    } else if address.octets()[0] >= 240 {
        Some("it is a broadcast or reserved address")
    } else {
        None
    }
}

fn unusable_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_unspecified() {
        Some("it is unspecified")
    } else if address.is_loopback() {
        Some("loopback addresses never leave a host")
    } else if address.is_unicast_link_local() {
        // RFC 4291 §2.5.6: a router must not forward it.
        Some("link-local addresses are not forwarded")
    } else if address.is_multicast() {
        Some("it is a multicast address")
    } else if address.to_ipv4_mapped().is_some() {
        Some("it is an IPv4 address in IPv6 form; write it as IPv4")
    } else {
        None
    }
}
