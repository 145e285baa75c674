//! IP addresses that packets can be sent to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    document::Context,
    problem::{Fault, Kind},
    tree::{Value, shorten},
};

/// A usable unicast address; `what` begins the message.
pub(super) fn read(value: &Value<'_>, what: &str, cx: &mut Context<'_>) -> Option<IpAddr> {
    let text = value.string(&mut cx.problems)?;
    let Ok(address) = text.parse::<IpAddr>() else {
        let draft = Fault::new(Kind::BadValue, format!("{:?} is not an IP address", shorten(text)));
        value.problem(draft.help(why_not_an_address(text)), &mut cx.problems);
        return None;
    };
    match unusable(address) {
        None => Some(address),
        Some(why) => {
            let fault = Fault::new(Kind::BadValue, format!("{what} cannot be {address}: {why}"));
            value.problem(fault.help("use an address that other hosts send to: unicast, global or private"), &mut cx.problems);
            None
        }
    }
}

fn why_not_an_address(text: &str) -> &'static str {
    if text.parse::<std::net::SocketAddr>().is_ok() {
        "leave the port away: it is the listener's, or `port_mapping` says it"
    } else if text.contains('/') {
        "one address, without a prefix length"
    } else if text.contains('%') {
        "one address, without a zone"
    } else if text.contains(|c: char| c.is_ascii_alphabetic()) && text.contains('.') {
        "endpoints and our own addresses are IP literals; names are not supported yet in this version"
    } else {
        "write it as in \"198.51.100.10\" or \"2001:db8::10\""
    }
}

/// Why packets cannot have this address.
pub(super) fn unusable(address: IpAddr) -> Option<&'static str> {
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
