//! IP addresses that packets can be sent to.

use std::net::IpAddr;

use super::{
    document::Context,
    problem::{Fault, Kind},
    tree::{Value, shorten},
};
use crate::model::unusable;

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
        "this is an IP literal; an endpoint of type \"domain\" has a name"
    } else {
        "write it as in \"198.51.100.10\" or \"2001:db8::10\""
    }
}
