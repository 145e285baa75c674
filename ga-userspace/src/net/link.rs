//! Interfaces as netlink describes them, and the way down from a VLAN to the interface that carries it.

use std::collections::BTreeMap;

use ga_common::wire::vlan::Tags;
use netlink_packet_route::{
    AddressFamily,
    link::{InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached},
};

/// A program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpState {
    /// Its kernel id.
    pub program: u32,
    /// Whether the driver runs it.
    pub native: bool,
}

/// What makes an interface a VLAN of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// Index of the interface that carries it; none when that is in another namespace.
    pub parent: Option<u32>,
    /// The tag.
    pub tag: Tag,
}

/// A VLAN tag (IEEE 802.1Q §9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Its EtherType: 0x8100, or 0x88a8 for a service tag.
    pub protocol: u16,
    /// VLAN identifier, 12 bits.
    pub id: u16,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// Its MAC address; zero where it has none.
    pub mac: [u8; 6],
    /// What runs on it.
    pub xdp: Option<XdpState>,
    /// Switched on, and with a carrier.
    pub carries: bool,
    /// Bytes that an IP packet may have which leaves by it; none where it does not say.
    pub mtu: Option<u32>,
    /// Of what it is a VLAN.
    pub vlan: Option<Vlan>,
}

/// Tags that a frame can be given.
pub const MAX_TAGS: usize = 2;

/// Where frames for an interface really leave, and what they are tagged with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Index of the interface that is no VLAN.
    pub ifindex: u32,
    /// Outermost first, [`MAX_TAGS`] at most.
    pub tags: Vec<Tag>,
}

impl Exit {
    /// The tags as the packet path has them.
    pub fn packed(&self) -> Tags {
        self.tags.iter().fold(Tags::NONE, |tags, tag| tags.with(tag.protocol.to_be_bytes(), tag.id))
    }
}

/// Follows `ifindex` down to what carries it; none when a parent is unknown or there are more than [`MAX_TAGS`] tags.
pub fn exit(interfaces: &BTreeMap<u32, Interface>, ifindex: u32) -> Option<Exit> {
    let mut exit = Exit { ifindex, tags: Vec::new() };
    while let Some(vlan) = interfaces.get(&exit.ifindex)?.vlan {
        if exit.tags.len() == MAX_TAGS {
            return None;
        }
        // What is met later stands further out.
        exit.tags.insert(0, vlan.tag);
        exit.ifindex = vlan.parent?;
    }
    Some(exit)
}

/// The interface of a message; none when the message is about one protocol's side of it only.
pub(super) fn interface(link: &LinkMessage) -> Option<Interface> {
    if link.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let flags = link.header.flags;
    let mut interface = Interface {
        name: String::new(),
        ifindex: link.header.index,
        mac: [0; 6],
        xdp: None,
        carries: flags.contains(LinkFlags::Up) && flags.contains(LinkFlags::LowerUp),
        mtu: None,
        vlan: None,
    };
    let (mut parent, mut elsewhere) = (None, false);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Address(mac) => interface.mac = mac.as_slice().try_into().unwrap_or_default(),
            LinkAttribute::Mtu(mtu) => interface.mtu = Some(*mtu),
            LinkAttribute::Xdp(xdp) => interface.xdp = xdp_state(xdp),
            LinkAttribute::Link(index) => parent = Some(*index),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(infos) => interface.vlan = tag(infos).map(|tag| Vlan { parent: None, tag }),
            _ => {}
        }
    }
    if let Some(vlan) = &mut interface.vlan {
        vlan.parent = parent.filter(|_| !elsewhere);
    }
    Some(interface)
}

fn xdp_state(attributes: &[LinkXdp]) -> Option<XdpState> {
    let program = attributes.iter().find_map(|xdp| if let LinkXdp::ProgId(id) = xdp { Some(*id) } else { None })?;
    let native = attributes.iter().any(|xdp| matches!(xdp, LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Hardware)));
    (program != 0).then_some(XdpState { program, native })
}

fn tag(infos: &[LinkInfo]) -> Option<Tag> {
    let data = infos.iter().find_map(|info| if let LinkInfo::Data(InfoData::Vlan(vlan)) = info { Some(vlan) } else { None })?;
    let mut tag = Tag { protocol: 0x8100, id: 0 };
    for info in data {
        match info {
            InfoVlan::Id(id) => tag.id = *id,
            InfoVlan::Protocol(protocol) => tag.protocol = (*protocol).into(),
            _ => {}
        }
    }
    Some(tag)
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{Emitable as _, Parseable as _};
    use netlink_packet_route::link::{InfoKind, VlanProtocol};

    use super::*;

    fn message(index: u32, name: &str, attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        message.attributes =
            vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::Address(vec![2, 0, 0, 0, 0, index as u8])];
        message.attributes.extend(attributes);
        message
    }

    fn vlan(parent: u32, id: u16, protocol: VlanProtocol) -> Vec<LinkAttribute> {
        let data = InfoData::Vlan(vec![InfoVlan::Id(id), InfoVlan::Protocol(protocol)]);
        vec![LinkAttribute::Link(parent), LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(data)])]
    }

    /// As the kernel would send it: through bytes.
    fn known(messages: impl IntoIterator<Item = LinkMessage>) -> BTreeMap<u32, Interface> {
        let through_bytes = |message: LinkMessage| {
            let mut bytes = vec![0; message.buffer_len()];
            message.emit(&mut bytes);
            let read = LinkMessage::parse(&bytes).unwrap();
            interface(&read).unwrap()
        };
        messages.into_iter().map(through_bytes).map(|interface| (interface.ifindex, interface)).collect()
    }

    #[test]
    fn an_interface_that_is_no_vlan_is_its_own_exit() {
        let all = known([message(2, "eth0", vec![])]);
        assert_eq!(exit(&all, 2), Some(Exit { ifindex: 2, tags: Vec::new() }));
        assert_eq!(exit(&all, 3), None, "what is not there has no exit");
        let eth0 = &all[&2];
        assert_eq!((eth0.name.as_str(), eth0.mac, eth0.carries, eth0.vlan), ("eth0", [2, 0, 0, 0, 0, 2], true, None));
    }

    #[test]
    fn vlans_are_followed_down_to_what_carries_them() {
        let all = known([
            message(2, "eth0", vec![]),
            message(3, "eth0.100", vlan(2, 100, VlanProtocol::Ieee8021Ad)),
            message(4, "eth0.100.7", vlan(3, 7, VlanProtocol::Ieee8021Q)),
            message(5, "deeper", vlan(4, 9, VlanProtocol::Ieee8021Q)),
            message(6, "orphan", vlan(99, 9, VlanProtocol::Ieee8021Q)),
        ]);
        let outer = Tag { protocol: 0x88a8, id: 100 };
        assert_eq!(exit(&all, 3), Some(Exit { ifindex: 2, tags: vec![outer] }));
        assert_eq!(exit(&all, 4), Some(Exit { ifindex: 2, tags: vec![outer, Tag { protocol: 0x8100, id: 7 }] }));
        assert_eq!(exit(&all, 5), None, "three tags are too many");
        assert_eq!(exit(&all, 6), None, "the parent is not there");
    }

    #[test]
    fn a_vlan_whose_parent_is_in_another_namespace_has_no_exit() {
        let mut attributes = vlan(2, 100, VlanProtocol::Ieee8021Q);
        attributes.push(LinkAttribute::LinkNetNsId(0));
        let all = known([message(2, "eth0", vec![]), message(3, "eth0.100", attributes)]);
        assert_eq!(exit(&all, 3), None);
    }

    #[test]
    fn a_circle_ends() {
        let ring = |index, parent| message(index, "ring", vlan(parent, 1, VlanProtocol::Ieee8021Q));
        assert_eq!(exit(&known([ring(2, 3), ring(3, 2)]), 2), None);
    }

    #[test]
    fn a_link_carries_only_when_it_is_on_and_has_a_carrier() {
        for (flags, carries) in [(LinkFlags::Up | LinkFlags::LowerUp, true), (LinkFlags::Up, false), (LinkFlags::LowerUp, false)]
        {
            let mut eth0 = message(2, "eth0", vec![]);
            eth0.header.flags = flags;
            assert_eq!(known([eth0])[&2].carries, carries, "{flags:?}");
        }
    }
}
