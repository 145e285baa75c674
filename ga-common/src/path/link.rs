//! The link layer: what lies behind Ethernet and its VLAN tags, and the head a frame leaves with.

use crate::wire::{
    frame::{ETH_LEN, Frame, ether_type, set_macs},
    vlan::{Tags, is_tpid},
};

/// What the link layer says of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// EtherType of what the tags are in front of.
    pub ether_type: [u8; 2],
    /// The tags.
    pub tags: Tags,
}

/// Reads the link layer; none when it is cut off, has three tags, or something else than IP behind its tags.
#[inline(always)]
pub fn read<F: Frame>(frame: &mut F) -> Option<Link> {
    let ether_type = ether_type(frame.window::<ETH_LEN>(0)?);
    if !is_tpid(ether_type) {
        return Some(Link { ether_type, tags: Tags::NONE });
    }
    let packed = frame.tagged();
    if packed == 0 {
        return None;
    }
    let [t0, t1, t2, t3, e0, e1, ..] = packed.to_ne_bytes();
    let tags = Tags(u32::from_ne_bytes([t0, t1, t2, t3]));
    Some(Link { ether_type: [e0, e1], tags })
}

/// Gives a frame that has the tags `have` the tags `want` and new MAC addresses; none when the frame is shorter than it was a
/// moment ago, or when there is no room in front of it.
#[inline(always)]
pub fn leave<F: Frame>(frame: &mut F, have: Tags, want: Tags, dst_mac: [u8; 6], src_mac: [u8; 6]) -> Option<()> {
    if have != want && !frame.retag(have, want) {
        return None;
    }
    set_macs(frame.window::<ETH_LEN>(0)?, dst_mac, src_mac);
    Some(())
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use etherparse::{Ethernet2Header, PacketBuilder, SingleVlanHeader, VlanId};
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{
        sim::Bytes,
        wire::{
            frame::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
            vlan::{CUSTOMER, SERVICE},
        },
    };

    const OLD: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    const NEW: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 3], [2, 0, 0, 0, 0, 4]);

    /// A tag as etherparse sees it: TPID, priority (drop eligibility included), VID.
    type Tag = ([u8; 2], u8, u16);

    fn tag() -> impl Strategy<Value = Tag> {
        (prop_oneof![Just(CUSTOMER), Just(SERVICE)], 0u8..16, 0u16..4096)
    }

    /// A frame with `tags` and an IP packet, by etherparse.
    fn frame((destination, source): ([u8; 6], [u8; 6]), tags: &[Tag], ether_type: [u8; 2], ip: &[u8]) -> Bytes {
        let types: Vec<[u8; 2]> = tags.iter().map(|(tpid, ..)| *tpid).chain([ether_type]).collect();
        let number = |at: usize| u16::from_be_bytes(types[at]).into();
        let mut bytes = Ethernet2Header { source, destination, ether_type: number(0) }.to_bytes().to_vec();
        for (n, (_, priority, vid)) in tags.iter().enumerate() {
            let tag = SingleVlanHeader {
                pcp: (priority >> 1).try_into().unwrap(),
                drop_eligible_indicator: priority & 1 != 0,
                vlan_id: VlanId::try_new(*vid).unwrap(),
                ether_type: number(n + 1),
            };
            bytes.extend(tag.to_bytes());
        }
        bytes.extend(ip);
        Bytes { bytes, ifindex: 1 }
    }

    fn packed(tags: &[Tag]) -> Tags {
        tags.iter().fold(Tags::NONE, |sum, (tpid, _, vid)| sum.with(*tpid, *vid))
    }

    fn ip() -> Vec<u8> {
        let mut bytes = Vec::new();
        PacketBuilder::ipv4([192, 0, 2, 1], [198, 51, 100, 1], 64).udp(1, 2).write(&mut bytes, b"hello").unwrap();
        bytes
    }

    /// The priorities that `want`'s tags must have, on a frame that had `have`'s.
    fn kept(have: &[Tag], want: &[Tag]) -> Vec<Tag> {
        let of = |tags: &[Tag], behind: usize| tags.len().checked_sub(behind + 1).map_or(0, |at| tags[at].1);
        (0..want.len()).map(|n| (want[n].0, of(have, want.len() - 1 - n), want[n].2)).collect()
    }

    proptest! {
        #[test]
        fn a_frame_leaves_with_the_tags_of_its_way(have in vec(tag(), 0..=2), want in vec(tag(), 0..=2)) {
            let mut bytes = frame(OLD, &have, ETHERTYPE_IPV4, &ip());
            let link = read(&mut bytes).unwrap();
            prop_assert_eq!(link, Link { ether_type: ETHERTYPE_IPV4, tags: packed(&have) });
            prop_assert_eq!(link.tags.l3(), 14 + 4 * have.len());
            leave(&mut bytes, link.tags, packed(&want), NEW.0, NEW.1).unwrap();
            prop_assert_eq!(bytes, frame(NEW, &kept(&have, &want), ETHERTYPE_IPV4, &ip()));
        }

        #[test]
        fn a_frame_that_ends_within_its_tags_says_nothing(have in vec(tag(), 1..=2), six in any::<bool>()) {
            let ether_type = if six { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
            let whole = frame(OLD, &have, ether_type, &[]);
            for length in 0..whole.bytes.len() {
                let mut cut = Bytes { bytes: whole.bytes[..length].to_vec(), ifindex: 1 };
                prop_assert_eq!(read(&mut cut), None);
            }
            prop_assert_eq!(read(&mut whole.clone()).map(|link| link.ether_type), Some(ether_type));
        }

        #[test]
        fn three_tags_and_other_payloads_behind_tags_are_nobodys(have in vec(tag(), 3), other in any::<[u8; 2]>()) {
            prop_assert_eq!(read(&mut frame(OLD, &have, ETHERTYPE_IPV4, &ip())), None);
            prop_assume!(other != ETHERTYPE_IPV4 && other != ETHERTYPE_IPV6);
            prop_assert_eq!(read(&mut frame(OLD, &have[..2], other, &ip())), None);
            prop_assume!(!is_tpid(other));
            prop_assert_eq!(read(&mut frame(OLD, &have[..1], other, &ip())), None);
        }
    }

    #[test]
    fn an_untagged_frame_is_whatever_it_is() {
        let arp = read(&mut frame(OLD, &[], [0x08, 0x06], &[0; 28])).unwrap();
        assert_eq!(arp, Link { ether_type: [0x08, 0x06], tags: Tags::NONE });
    }
}
