//! Interfaces and neighbours as they were reported last.

use std::collections::BTreeMap;

use ga_common::abi::entry::Hop;
use netlink_packet_route::RouteNetlinkMessage;

use super::{
    Way,
    link::{self, Interface, exit},
    neighbour::{self, Key, Neighbour},
    route::Route,
};

/// What is known of interfaces, by index, and of neighbours.
#[derive(Debug, Default)]
pub(super) struct Picture {
    pub(super) interfaces: BTreeMap<u32, Interface>,
    pub(super) neighbours: BTreeMap<Key, Neighbour>,
}

/// What a change can matter for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing.
    None,
    /// Where frames for a neighbour go.
    Neighbour,
    /// An interface: routes and what is attached.
    Link,
}

impl Picture {
    /// Takes note of what the kernel reports.
    pub(super) fn note(&mut self, message: &RouteNetlinkMessage) -> News {
        match message {
            RouteNetlinkMessage::NewLink(link) => {
                let Some(new) = link::interface(link) else { return News::None };
                let old = self.interfaces.insert(new.ifindex, new.clone());
                if old == Some(new) { News::None } else { News::Link }
            }
            RouteNetlinkMessage::DelLink(link) => {
                let Some(gone) = link::interface(link) else { return News::None };
                self.neighbours.retain(|(ifindex, _), _| *ifindex != gone.ifindex);
                if self.interfaces.remove(&gone.ifindex).is_some() { News::Link } else { News::None }
            }
            RouteNetlinkMessage::NewNeighbour(message) => {
                let Some((key, new)) = neighbour::neighbour(message) else { return News::None };
                let old = self.neighbours.insert(key, new);
                if old.and_then(|old| old.mac) == new.mac { News::None } else { News::Neighbour }
            }
            RouteNetlinkMessage::DelNeighbour(message) => {
                let Some((key, _)) = neighbour::neighbour(message) else { return News::None };
                let old = self.neighbours.remove(&key);
                if old.is_some_and(|old| old.mac.is_some()) { News::Neighbour } else { News::None }
            }
            _ => News::None,
        }
    }

    /// What is new in another picture.
    pub(super) fn compare(&self, drawn: &Self) -> News {
        let macs = |picture: &Self| -> BTreeMap<Key, [u8; 6]> {
            picture.neighbours.iter().filter_map(|(key, neighbour)| Some((*key, neighbour.mac?))).collect()
        };
        if self.interfaces != drawn.interfaces {
            News::Link
        } else if macs(self) != macs(drawn) {
            News::Neighbour
        } else {
            News::None
        }
    }

    /// How frames go by a route.
    pub(super) fn way(&self, route: Route) -> Way {
        let Some(exit) = exit(&self.interfaces, route.ifindex) else { return Way::Through(route.ifindex) };
        let mac = self.neighbours.get(&(route.ifindex, route.via)).and_then(|neighbour| neighbour.mac);
        match (mac, self.interfaces.get(&route.ifindex)) {
            // Neighbours in a VLAN know the MAC address of its interface, which need not be that of what carries it.
            (Some(dst_mac), Some(interface)) => {
                Way::Known(Hop { dst_mac, src_mac: interface.mac, ifindex: exit.ifindex, tags: exit.packed().0 })
            }
            _ => Way::Through(exit.ifindex),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use ga_common::wire::vlan::{CUSTOMER, SERVICE, Tags};
    use netlink_packet_route::{
        AddressFamily,
        link::{InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, VlanProtocol},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    };

    use super::*;

    fn eth0(mac: u8, flags: LinkFlags) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 2;
        message.header.flags = flags;
        message.attributes = vec![LinkAttribute::IfName("eth0".to_owned()), LinkAttribute::Address(vec![mac; 6])];
        message
    }

    fn server(mac: u8, state: NeighbourState) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = 2;
        message.header.state = state;
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet([10, 0, 0, 1].into())),
            NeighbourAttribute::LinkLayerAddress(vec![mac; 6]),
        ];
        message
    }

    const UP: LinkFlags = LinkFlags::Up.union(LinkFlags::LowerUp);

    fn route() -> Route {
        Route { ifindex: 2, via: IpAddr::from([10, 0, 0, 1]) }
    }

    fn hop(dst: u8, src: u8) -> Way {
        Way::Known(Hop { dst_mac: [dst; 6], src_mac: [src; 6], ifindex: 2, tags: 0 })
    }

    #[test]
    fn a_way_follows_what_is_reported() {
        use RouteNetlinkMessage as M;
        let mut picture = Picture::default();
        let steps = [
            (M::NewLink(eth0(1, UP)), News::Link, Way::Through(2)),
            (M::NewNeighbour(server(7, NeighbourState::Reachable)), News::Neighbour, hop(7, 1)),
            (M::NewNeighbour(server(7, NeighbourState::Stale)), News::None, hop(7, 1)),
            (M::NewNeighbour(server(8, NeighbourState::Stale)), News::Neighbour, hop(8, 1)),
            (M::NewNeighbour(server(8, NeighbourState::Failed)), News::Neighbour, Way::Through(2)),
            (M::NewNeighbour(server(8, NeighbourState::Permanent)), News::Neighbour, hop(8, 1)),
            (M::NewLink(eth0(1, UP)), News::None, hop(8, 1)),
            (M::NewLink(eth0(3, UP)), News::Link, hop(8, 3)),
            (M::NewLink(eth0(3, LinkFlags::Up)), News::Link, hop(8, 3)),
            (M::DelNeighbour(server(8, NeighbourState::Stale)), News::Neighbour, Way::Through(2)),
            (M::NewNeighbour(server(8, NeighbourState::Stale)), News::Neighbour, hop(8, 3)),
            (M::DelLink(eth0(3, UP)), News::Link, Way::Through(2)),
        ];
        for (number, (message, news, way)) in steps.into_iter().enumerate() {
            assert_eq!((picture.note(&message), picture.way(route())), (news, way), "step {number}");
        }
        assert!(picture.neighbours.is_empty(), "neighbours go with their link");
    }

    #[test]
    fn a_way_over_vlans_leaves_by_what_carries_them_with_their_tags() {
        let mut picture = Picture::default();
        let vlan = |index, parent, id, protocol| {
            let mut message = eth0(index, UP);
            message.header.index = u32::from(index);
            let data = InfoData::Vlan(vec![InfoVlan::Id(id), InfoVlan::Protocol(protocol)]);
            message.attributes.extend([LinkAttribute::Link(parent), LinkAttribute::LinkInfo(vec![LinkInfo::Data(data)])]);
            RouteNetlinkMessage::NewLink(message)
        };
        picture.note(&RouteNetlinkMessage::NewLink(eth0(1, UP)));
        picture.note(&vlan(3, 2, 100, VlanProtocol::Ieee8021Ad));
        picture.note(&vlan(4, 3, 7, VlanProtocol::Ieee8021Q));
        let service = Tags::NONE.with(SERVICE, 100);
        for (ifindex, src, tags) in [(2, 1, Tags::NONE), (3, 3, service), (4, 4, service.with(CUSTOMER, 7))] {
            let route = Route { ifindex, ..route() };
            assert_eq!(picture.way(route), Way::Through(2), "interface {ifindex}: the neighbour is not known yet");
            let mut message = server(7, NeighbourState::Reachable);
            message.header.ifindex = ifindex;
            assert_eq!(picture.note(&RouteNetlinkMessage::NewNeighbour(message)), News::Neighbour);
            let hop = Hop { dst_mac: [7; 6], src_mac: [src; 6], ifindex: 2, tags: tags.0 };
            assert_eq!(picture.way(route), Way::Known(hop), "interface {ifindex}");
        }
        assert_eq!(picture.note(&vlan(3, 2, 101, VlanProtocol::Ieee8021Ad)), News::Link, "another tag is a change");
    }

    #[test]
    fn what_one_protocol_says_of_a_link_is_not_the_link() {
        let mut picture = Picture::default();
        picture.note(&RouteNetlinkMessage::NewLink(eth0(1, UP)));
        let mut partial = LinkMessage::default();
        partial.header.index = 2;
        partial.header.interface_family = AddressFamily::Inet6;
        assert_eq!(picture.note(&RouteNetlinkMessage::NewLink(partial.clone())), News::None);
        assert_eq!(picture.note(&RouteNetlinkMessage::DelLink(partial)), News::None);
        assert_eq!(picture.interfaces[&2].name, "eth0");
    }

    #[test]
    fn a_lost_report_is_found_by_comparing() {
        let drawn = |mac, state| {
            let mut picture = Picture::default();
            picture.note(&RouteNetlinkMessage::NewLink(eth0(1, UP)));
            picture.note(&RouteNetlinkMessage::NewNeighbour(server(mac, state)));
            picture
        };
        let old = drawn(7, NeighbourState::Reachable);
        assert_eq!(old.compare(&drawn(7, NeighbourState::Stale)), News::None);
        assert_eq!(old.compare(&drawn(8, NeighbourState::Stale)), News::Neighbour);
        assert_eq!(old.compare(&drawn(7, NeighbourState::Failed)), News::Neighbour);
        assert_eq!(old.compare(&Picture::default()), News::Link);
    }
}
