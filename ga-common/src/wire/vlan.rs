//! VLAN tags of a frame (IEEE 802.1Q), as one number; how they are read and changed.

use super::frame::{ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame};

/// None, one or two tags: bits 0–11 are the VID of the inner or only tag, bits 12–23 that of the outer one, bits 24–25 their
/// count, and bits 26 and 27 say that the first and the second tag on the cable is a service tag. Priorities are no part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tags(pub u32);

/// Length of a tag.
pub const TAG_LEN: usize = 4;
/// TPID of a customer tag (IEEE 802.1Q table 9-1).
pub const CUSTOMER: [u8; 2] = [0x81, 0x00];
/// TPID of a service tag.
pub const SERVICE: [u8; 2] = [0x88, 0xa8];

/// Whether an EtherType is a TPID.
#[inline(always)]
pub const fn is_tpid(ether_type: [u8; 2]) -> bool {
    matches!(ether_type, CUSTOMER | SERVICE)
}

/// The bits of a tag's second half that are not its VID: priority and drop eligibility.
const PRIORITY: u8 = 0xf0;

impl Tags {
    /// An untagged frame.
    pub const NONE: Self = Self(0);
    const COUNT: u32 = 24;
    /// The second tag's bit is the next one.
    const FIRST_IS_SERVICE: u32 = 1 << 26;

    /// The same with one more tag behind those there are; at most two.
    #[inline(always)]
    pub const fn with(self, tpid: [u8; 2], vid: u16) -> Self {
        let service = if matches!(tpid, SERVICE) { Self::FIRST_IS_SERVICE << self.count() } else { 0 };
        // What was the only tag becomes the outer one.
        let vids = (self.0 & 0xfff) << 12 | (vid & 0xfff) as u32;
        Self((self.0 & Self::FIRST_IS_SERVICE) | service | (self.count() + 1) << Self::COUNT | vids)
    }

    /// How many tags there are: 0 to 2.
    #[inline(always)]
    pub const fn count(self) -> u32 {
        (self.0 >> Self::COUNT) & 3
    }

    /// Offset of what they are in front of: 14, 18 or 22.
    #[inline(always)]
    pub const fn l3(self) -> usize {
        ETH_LEN + TAG_LEN * self.count() as usize
    }

    /// TPID and VID of the `n`th tag on the cable, with a priority of 0; meaningless from [`Tags::count`] on.
    #[inline(always)]
    pub const fn tag(self, n: u32) -> [u8; TAG_LEN] {
        let [t0, t1] = if self.0 & (Self::FIRST_IS_SERVICE << n) != 0 { SERVICE } else { CUSTOMER };
        let is_outer = n + 1 < self.count();
        let [v0, v1] = ((if is_outer { self.0 >> 12 } else { self.0 } & 0xfff) as u16).to_be_bytes();
        [t0, t1, v0, v1]
    }
}

/// The tags of a tagged frame and the EtherType behind them, side by side, or 0 where there are three, something else than IP
/// behind them, or the frame ends: a number is what the kernel returns in a register.
#[inline(always)]
pub fn tagged<F: Frame>(frame: &mut F) -> u64 {
    let (mut tags, mut at) = (Tags::NONE, ETH_LEN - 2);
    for _ in 0..2 {
        let Some(&mut [t0, t1, c0, c1, e0, e1]) = frame.window::<6>(at) else { return 0 };
        tags = tags.with([t0, t1], u16::from_be_bytes([c0, c1]));
        at += TAG_LEN;
        if matches!([e0, e1], ETHERTYPE_IPV4 | ETHERTYPE_IPV6) {
            let [b0, b1, b2, b3] = tags.0.to_ne_bytes();
            return u64::from_ne_bytes([b0, b1, b2, b3, e0, e1, 0, 0]);
        }
        if !is_tpid([e0, e1]) {
            return 0;
        }
    }
    0
}

/// Changes the tags. The inner tag's priority stays with the inner tag and the outer one's with the outer; a tag that was not
/// there has priority 0. The MAC addresses hold anything afterwards when the number of tags changed.
#[inline(always)]
pub fn retag<F: Frame>(frame: &mut F, have: Tags, want: Tags) -> bool {
    const AT: usize = ETH_LEN - 2;
    let (mut outer, mut inner) = (0, 0);
    if have.count() > 0 {
        let Some(tag) = frame.window::<TAG_LEN>(AT) else { return false };
        inner = tag[2] & PRIORITY;
    }
    if have.count() > 1 {
        let Some(tag) = frame.window::<TAG_LEN>(AT + TAG_LEN) else { return false };
        (outer, inner) = (inner, tag[2] & PRIORITY);
    }
    let by = (want.count() as i32 - have.count() as i32) * TAG_LEN as i32;
    if by != 0 && !frame.grow_head(by) {
        return false;
    }
    let first = if want.count() > 1 { outer } else { inner };
    if want.count() > 0 && !put(frame, AT, want.tag(0), first) {
        return false;
    }
    want.count() < 2 || put(frame, AT + TAG_LEN, want.tag(1), inner)
}

#[inline(always)]
fn put<F: Frame>(frame: &mut F, at: usize, tag: [u8; TAG_LEN], priority: u8) -> bool {
    let Some(place) = frame.window::<TAG_LEN>(at) else { return false };
    *place = [tag[0], tag[1], tag[2] | priority, tag[3]];
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_come_out_as_they_went_in() {
        assert_eq!((Tags::NONE.count(), Tags::default()), (0, Tags::NONE));
        for first in [CUSTOMER, SERVICE] {
            let one = Tags::NONE.with(first, 0x123);
            assert_eq!((one.count(), one.tag(0)), (1, [first[0], first[1], 0x01, 0x23]));
            for second in [CUSTOMER, SERVICE] {
                let two = one.with(second, 0xfff);
                assert_eq!((two.count(), two.tag(0), two.tag(1)), (2, one.tag(0), [second[0], second[1], 0x0f, 0xff]));
            }
        }
    }

    #[test]
    fn the_layout_is_what_the_agent_may_rely_on() {
        assert_eq!(Tags::NONE.with(CUSTOMER, 10).0, 0x0100_000a);
        assert_eq!(Tags::NONE.with(SERVICE, 20).with(CUSTOMER, 10).0, 0x0601_400a);
    }

    #[test]
    fn a_priority_does_not_get_into_the_vid() {
        assert_eq!(Tags::NONE.with(CUSTOMER, 0xe00a), Tags::NONE.with(CUSTOMER, 10));
    }
}
