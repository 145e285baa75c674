//! Routes: the kernel is asked once for each address, and again only when something could have changed the answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType, RouteVia},
};
use rtnetlink::{Handle, RouteMessageBuilder};

/// Interface and gateway, or the address itself when it is on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) ifindex: u32,
    pub(super) via: IpAddr,
}

/// Questions on their way at once: what the kernel answers must fit the socket's buffer.
const AT_ONCE: usize = 32;
/// Doubtful answers that are asked for again in one go; the others stay in use meanwhile.
const AGAIN_AT_ONCE: usize = 2_048;
/// Answers that are doubted in one review, whatever was reported.
const REVIEWED: usize = 256;

/// What the kernel answered.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// None: there was no route.
    known: BTreeMap<IpAddr, Option<Route>>,
    doubtful: BTreeSet<IpAddr>,
    reviewed: Option<IpAddr>,
}

impl Routes {
    /// The way to `address`, as far as it was asked for.
    pub(super) fn of(&self, address: IpAddr) -> Option<Route> {
        self.known.get(&address).copied().flatten()
    }

    /// Whether some answers may be wrong by now.
    pub(super) fn are_doubtful(&self) -> bool {
        !self.doubtful.is_empty()
    }

    /// Any answer may be wrong.
    pub(super) fn doubt_all(&mut self) {
        self.doubtful = self.known.keys().copied().collect();
    }

    /// A route came, went or changed: answers for addresses under it may be wrong. True when there are any.
    pub(super) fn doubt(&mut self, changed: &RouteMessage) -> bool {
        if changed.header.flags.contains(RouteFlags::Cloned) {
            return false;
        }
        let before = self.doubtful.len();
        let length = changed.header.destination_prefix_length;
        let destination = changed.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => Some(IpAddr::from(*v4)),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => Some(IpAddr::from(*v6)),
            _ => None,
        });
        let family = changed.header.address_family;
        let covers = |address: &&IpAddr| match destination {
            Some(prefix) => covers(prefix, length, **address),
            None => family == if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 },
        };
        self.doubtful.extend(self.known.keys().filter(covers));
        self.doubtful.len() > before
    }

    /// Doubts some answers in turn: a change that nobody reported is found sooner or later.
    pub(super) fn review(&mut self) {
        let after = self.reviewed.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let some: Vec<IpAddr> =
            self.known.range((after, std::ops::Bound::Unbounded)).map(|(address, _)| *address).take(REVIEWED).collect();
        self.reviewed = some.last().copied();
        self.doubtful.extend(some);
    }

    /// Asks for those of `wanted` that were never asked for and for some of the doubtful ones, and forgets what is not wanted.
    pub(super) async fn ask(&mut self, handle: &Handle, wanted: &BTreeSet<IpAddr>) {
        self.known.retain(|address, _| wanted.contains(address));
        self.doubtful.retain(|address| wanted.contains(address));
        let new = wanted.iter().filter(|address| !self.known.contains_key(*address));
        let again = self.doubtful.iter().take(AGAIN_AT_ONCE);
        let questions: BTreeSet<IpAddr> = new.chain(again).copied().collect();
        let mut answers =
            stream::iter(questions).map(|address| async move { (address, ask(handle, address).await) }).buffer_unordered(AT_ONCE);
        while let Some((address, route)) = answers.next().await {
            self.known.insert(address, route);
            self.doubtful.remove(&address);
        }
    }
}

fn covers(prefix: IpAddr, length: u8, address: IpAddr) -> bool {
    match (prefix, address) {
        (IpAddr::V4(prefix), IpAddr::V4(address)) => {
            let shift = 32 - u32::from(length.min(32));
            prefix.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
        }
        (IpAddr::V6(prefix), IpAddr::V6(address)) => {
            let shift = 128 - u32::from(length.min(128));
            prefix.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// What the kernel would do with a packet to `address`; none when it would not send it.
async fn ask(handle: &Handle, address: IpAddr) -> Option<Route> {
    let length = if address.is_ipv4() { 32 } else { 128 };
    let question = RouteMessageBuilder::<IpAddr>::new().destination_prefix(address, length).ok()?;
    let mut routes = Box::pin(handle.route().get(question.build()).execute());
    match routes.try_next().await {
        Ok(answer) => route(address, &answer?),
        Err(error) => {
            // Not an error of ours: the endpoint is unreachable for now.
            tracing::debug!(%address, "no route: {error}");
            None
        }
    }
}

fn route(address: IpAddr, answer: &RouteMessage) -> Option<Route> {
    if answer.header.kind != RouteType::Unicast {
        return None;
    }
    let (mut ifindex, mut via) = (None, address);
    for attribute in &answer.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => via = (*gateway).into(),
            RouteAttribute::Gateway(RouteAddress::Inet6(gateway)) => via = (*gateway).into(),
            // IPv4 by an IPv6 gateway (RFC 9229).
            RouteAttribute::Via(RouteVia::Inet(gateway)) => via = (*gateway).into(),
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => via = (*gateway).into(),
            _ => {}
        }
    }
    Some(Route { ifindex: ifindex?, via })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(addresses: &[&str]) -> Routes {
        let known = addresses.iter().map(|text| (text.parse().unwrap(), None)).collect();
        Routes { known, ..Routes::default() }
    }

    fn changed(prefix: Option<&str>, length: u8, family: AddressFamily) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.destination_prefix_length = length;
        let address = prefix.map(|text| match text.parse().unwrap() {
            IpAddr::V4(v4) => RouteAddress::Inet(v4),
            IpAddr::V6(v6) => RouteAddress::Inet6(v6),
        });
        message.attributes.extend(address.map(RouteAttribute::Destination));
        message
    }

    fn doubtful(routes: &Routes) -> Vec<String> {
        routes.doubtful.iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn a_change_is_about_the_addresses_under_it() {
        let all = ["10.0.1.1", "10.0.2.1", "10.1.0.1", "fd00::1", "fd01::1"];
        let cases: [(Option<&str>, u8, AddressFamily, &[&str]); 6] = [
            (Some("10.0.0.0"), 16, AddressFamily::Inet, &["10.0.1.1", "10.0.2.1"]),
            (Some("10.0.2.1"), 32, AddressFamily::Inet, &["10.0.2.1"]),
            (Some("192.0.2.0"), 24, AddressFamily::Inet, &[]),
            (Some("fd00::"), 16, AddressFamily::Inet6, &["fd00::1"]),
            (None, 0, AddressFamily::Inet, &["10.0.1.1", "10.0.2.1", "10.1.0.1"]),
            (None, 0, AddressFamily::Inet6, &["fd00::1", "fd01::1"]),
        ];
        for (prefix, length, family, expected) in cases {
            let mut routes = known(&all);
            assert_eq!(routes.doubt(&changed(prefix, length, family)), !expected.is_empty());
            assert_eq!(doubtful(&routes), expected, "{prefix:?}/{length}");
        }
    }

    #[test]
    fn what_the_kernel_only_remembers_is_no_change() {
        let mut routes = known(&["10.0.0.1"]);
        let mut cloned = changed(Some("10.0.0.1"), 32, AddressFamily::Inet);
        cloned.header.flags = RouteFlags::Cloned;
        assert!(!routes.doubt(&cloned));
    }

    #[test]
    fn reviews_go_round() {
        let addresses: Vec<String> = (0..600).map(|n| format!("10.0.{}.{}", n / 250, n % 250)).collect();
        let mut routes = known(&addresses.iter().map(String::as_str).collect::<Vec<_>>());
        for expected in [256, 512, 600, 600] {
            routes.review();
            assert_eq!(routes.doubtful.len(), expected);
        }
        routes.doubtful.clear();
        routes.review();
        assert_eq!(routes.doubtful.len(), 256, "from the first again");
    }

    #[test]
    fn only_what_would_be_sent_is_a_route() {
        let address = IpAddr::from([10, 0, 0, 1]);
        let mut answer = changed(Some("10.0.0.1"), 32, AddressFamily::Inet);
        answer.attributes.extend([RouteAttribute::Oif(7), RouteAttribute::Gateway(RouteAddress::Inet([10, 9, 9, 9].into()))]);
        answer.header.kind = RouteType::Unicast;
        assert_eq!(route(address, &answer), Some(Route { ifindex: 7, via: [10, 9, 9, 9].into() }));
        for kind in [RouteType::Local, RouteType::Unreachable, RouteType::BlackHole] {
            answer.header.kind = kind;
            assert_eq!(route(address, &answer), None, "{kind:?}");
        }
    }
}
