//! VLAN tags (IEEE 802.1Q): which a frame has, and which it leaves with.

use ga_common::abi::entry::Hop;

/// TPID and VID of each tag, the outermost first: what a way is known by. Priorities are the frame's own.
pub type Vlans = Vec<(u16, u16)>;

/// A frame's tags as they lie on the cable, and the offset behind them, where the EtherType is.
pub fn tags(frame: &[u8]) -> (Vec<[u8; 4]>, usize) {
    let (mut tags, mut at) = (Vec::new(), 12);
    while let Some(&[t0, t1, c0, c1]) = frame.get(at..at + 4)
        && matches!([t0, t1], [0x81, 0x00] | [0x88, 0xa8])
    {
        tags.push([t0, t1, c0, c1]);
        at += 4;
    }
    (tags, at)
}

/// What a way is known by, of a frame with these tags.
pub fn vlans(tags: &[[u8; 4]]) -> Vlans {
    tags.iter().map(|[t0, t1, c0, c1]| (u16::from_be_bytes([*t0, *t1]), u16::from_be_bytes([*c0, *c1]) & 0xfff)).collect()
}

/// The tags of a next hop: VIDs from the innermost on in twelve bits each, then their number, then which are service tags.
pub fn of_hop(hop: &Hop) -> Vlans {
    let count = hop.tags >> 24 & 3;
    let tag = |n: u32| {
        let tpid = if hop.tags >> (26 + n) & 1 == 1 { 0x88a8 } else { 0x8100 };
        (tpid, (hop.tags >> (12 * (count - 1 - n)) & 0xfff) as u16)
    };
    (0..count).map(tag).collect()
}

/// The frame with other tags; a tag takes the priority of the one that was in its place, counted from the innermost.
pub fn retagged(frame: &[u8], want: &Vlans) -> Vec<u8> {
    let (have, at) = tags(frame);
    let mut out = frame[..12].to_vec();
    for (n, (tpid, vid)) in want.iter().enumerate() {
        let from_inside = want.len() - 1 - n;
        let priority = have.iter().rev().nth(from_inside).map_or(0, |tag| u16::from(tag[2] & 0xf0) << 8);
        out.extend(tpid.to_be_bytes());
        out.extend((priority | vid).to_be_bytes());
    }
    out.extend(&frame[at..]);
    out
}
