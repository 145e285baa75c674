//! A walk over flow memory: every living pair as people think of it. Reads only; packets do not notice.

use std::net::SocketAddr;

use ga_common::abi::{
    flow::{Flow, FlowSlot, Tuple, ticks},
    id::EndpointId,
};

use super::{
    FlowTables,
    flows::{Ends, far_peer, near_peer},
};

/// A flow: what its two halves say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// IANA number.
    pub protocol: u8,
    /// Where the client is.
    pub client: SocketAddr,
    /// Where the client sends to.
    pub vip: SocketAddr,
    /// What the endpoint sees as the client.
    pub egress: SocketAddr,
    /// Where the endpoint is.
    pub endpoint: SocketAddr,
    /// Only where it goes is remembered: its packets stay as they are, and answers do not pass by here.
    pub is_alone: bool,
    /// Whose counters.
    pub id: EndpointId,
    /// How far it is.
    pub stage: Stage,
    /// Ticks since the last packet that counts, in either direction.
    pub idle: u32,
    /// Ticks until it is forgotten if nothing comes.
    pub left: u32,
    /// Seconds of silence that are allowed; the longer of both halves.
    pub timeout_s: u16,
    /// Slots of the half towards the endpoint and of the half towards the client; the latter is none while it is being changed.
    pub slots: (u32, Option<u32>),
}

/// How far a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nobody has answered yet.
    Opening,
    /// Packets went both ways.
    Open,
    /// One side said that it is done.
    Closing,
    /// Both did, or one broke it off.
    Closed,
}

impl FlowTables {
    /// Shows `visit` every living pair at tick `now`, IPv4 first.
    pub fn walk(&self, now: u32, mut visit: impl FnMut(Pair)) {
        walk(self.slots4(), self.slots6(), now, &mut visit);
        walk(self.slots6(), self.slots4(), now, &mut visit);
    }
}

/// What a half and its peer were, when they were looked at.
struct Seen {
    life: Life,
    flags: u8,
    is_silent: bool,
}

impl Seen {
    fn of<const K: usize, const W: usize>(slot: &FlowSlot<K, W>, now: u32) -> Self {
        Self { life: life(slot, now), flags: slot.meta().flags(), is_silent: slot.is_silent(now) }
    }
}

/// `across` is the other family's table.
fn walk<const K: usize, const W: usize, const P: usize, const Q: usize>(
    slots: &[FlowSlot<K, W>],
    across: &[FlowSlot<P, Q>],
    now: u32,
    visit: &mut impl FnMut(Pair),
) where
    [u64; K]: Ends,
    [u64; P]: Ends,
{
    for (index, slot) in slots.iter().enumerate() {
        let state = slot.state();
        if !state.is_live() {
            continue;
        }
        let flow = slot.load();
        // What was copied counts only if the slot is still the same tenant's.
        if flow.flags & Flow::<K>::RETURN != 0 || slot.state() != state {
            continue;
        }
        let far = far_peer(across, index, state);
        let (peer, (egress, endpoint)) = if state.is_across() {
            // The answers' tuple, the other way round; half such a pair leads nowhere.
            let Some(far) = far else { continue };
            let (endpoint, egress) = far.addrs().ends();
            (Some((state.peer_across(), Seen::of(far, now))), (egress, endpoint))
        } else {
            let near = near_peer(slots, index, state);
            (near.map(|peer| (state.peer(), Seen::of(peer, now))), flow.new_addrs.ends())
        };
        let own = Seen::of(slot, now);
        let halves = || [Some(&own), peer.as_ref().map(|(_, seen)| seen)].into_iter().flatten();
        let left = halves().map(|half| half.life.left).max().unwrap_or(0);
        if left == 0 && halves().all(|half| half.is_silent) {
            continue;
        }
        let flags = halves().fold(0, |flags, half| flags | half.flags);
        let (ports, new) = (pair(flow.tuple.ports), pair(flow.new_ports));
        let (client, vip) = flow.tuple.addrs.ends();
        visit(Pair {
            protocol: flow.tuple.protocol & !Tuple::<K>::ALONE,
            is_alone: flow.tuple.protocol & Tuple::<K>::ALONE != 0,
            client: SocketAddr::new(client, ports.0),
            vip: SocketAddr::new(vip, ports.1),
            egress: SocketAddr::new(egress, new.0),
            endpoint: SocketAddr::new(endpoint, new.1),
            id: EndpointId(flow.endpoint),
            stage: if flags & Flow::<K>::CLOSED != 0 {
                Stage::Closed
            } else if flags & Flow::<K>::FIN != 0 {
                Stage::Closing
            } else if flags & Flow::<K>::ESTABLISHED != 0 {
                Stage::Open
            } else {
                Stage::Opening
            },
            idle: halves().map(|half| half.life.idle).min().unwrap_or(0),
            left,
            timeout_s: halves().map(|half| half.life.timeout_s).max().unwrap_or(0),
            slots: (index as u32, peer.as_ref().map(|(at, _)| *at)),
        });
    }
}

#[derive(Clone, Copy)]
struct Life {
    idle: u32,
    left: u32,
    timeout_s: u16,
}

fn life<const K: usize, const W: usize>(slot: &FlowSlot<K, W>, now: u32) -> Life {
    // Another CPU's clock may be a little ahead of ours: that is no silence.
    let idle = u32::try_from(now.wrapping_sub(slot.clock().0).cast_signed()).unwrap_or(0);
    let timeout_s = slot.load().timeout_s;
    Life { idle, left: ticks(timeout_s).saturating_sub(idle), timeout_s }
}

fn pair(ports: [u8; 4]) -> (u16, u16) {
    let [a, b, c, d] = ports;
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

#[cfg(test)]
mod tests {
    use ga_common::abi::flow::{FlowSlot4, FlowSlot6, State, Tuple, pack4, pack6};

    use super::*;

    const CLIENT: [u8; 4] = [192, 0, 2, 7];
    const VIP: [u8; 4] = [198, 51, 100, 10];
    const EGRESS: [u8; 4] = [203, 0, 113, 5];
    const SERVER: [u8; 4] = [10, 0, 0, 11];

    fn half(src: [u8; 4], dst: [u8; 4], new: ([u8; 4], [u8; 4]), ports: [u8; 4], new_ports: [u8; 4], flags: u8) -> Flow<1> {
        Flow {
            tuple: Tuple { addrs: pack4(src, dst), ports, protocol: 6 },
            flags,
            endpoint: 3,
            new_addrs: pack4(new.0, new.1),
            new_ports,
            ifindex: 0,
            dst_mac: [0; 6],
            src_mac: [0; 6],
            tags: 0,
            timeout_s: 100,
        }
    }

    /// Slot 1 is towards the endpoint, slot 2 towards the client.
    fn memory(flags: [u8; 2], seen: [u32; 2]) -> Vec<FlowSlot4> {
        let slots: Vec<_> = (0..4).map(|_| FlowSlot4::free()).collect();
        let (there, back) = ([0x9c, 0x40, 0, 80], [0x1f, 0x90, 4, 0]);
        slots[1].store(&half(CLIENT, VIP, (EGRESS, SERVER), there, [4, 0, 0x1f, 0x90], flags[0]));
        slots[2].store(&half(SERVER, EGRESS, (VIP, CLIENT), back, [0, 80, 0x9c, 0x40], flags[1] | Flow::<1>::RETURN));
        for (slot, peer, seen) in [(1, 2, seen[0]), (2, 1, seen[1])] {
            slots[slot].set_clock(seen, 0);
            slots[slot].set_state(State::NEVER.claimed().live(peer));
        }
        slots
    }

    fn pairs(slots: &[FlowSlot4], now: u32) -> Vec<Pair> {
        let mut pairs = Vec::new();
        walk::<1, 6, 4, 14>(slots, &[], now, &mut |pair| pairs.push(pair));
        pairs
    }

    #[test]
    fn a_pair_is_one_flow_with_both_sides_of_the_translation() {
        let now = 5000;
        let found = pairs(&memory([Flow::<1>::ESTABLISHED; 2], [now - 700, now - 300]), now);
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let expected = Pair {
            protocol: 6,
            client: address("192.0.2.7:40000"),
            vip: address("198.51.100.10:80"),
            egress: address("203.0.113.5:1024"),
            endpoint: address("10.0.0.11:8080"),
            is_alone: false,
            id: EndpointId(3),
            stage: Stage::Open,
            idle: 300,
            left: ticks(100) - 300,
            timeout_s: 100,
            slots: (1, Some(2)),
        };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn a_pair_between_families_is_one_flow_whichever_way() {
        let now = 5000;
        let (slots4, slots6) = ([FlowSlot4::free(), FlowSlot4::free()], [FlowSlot6::free(), FlowSlot6::free()]);
        let (client6, vip6, egress6, server6) = ([0xc; 16], [0x1; 16], [0xe; 16], [0xb; 16]);
        let (there, back) = ([0x9c, 0x40, 0, 80], [0x1f, 0x90, 4, 0]);
        let half6 = |src, dst, new_addrs, ports, new_ports, flags| Flow::<4> {
            tuple: Tuple { addrs: pack6(src, dst), ports, protocol: 6 },
            flags,
            endpoint: 3,
            new_addrs,
            new_ports,
            ifindex: 0,
            dst_mac: [0; 6],
            src_mac: [0; 6],
            tags: 0,
            timeout_s: 100,
        };
        let kept = |src, dst| [pack4(src, dst)[0], 0, 0, 0];
        // An IPv4 client with an IPv6 endpoint in the first slots, the reverse in the second ones.
        slots4[0].store(&half(CLIENT, VIP, ([0; 4], [0; 4]), there, [4, 0, 0x1f, 0x90], 0));
        slots6[0].store(&half6(server6, egress6, kept(VIP, CLIENT), back, [0, 80, 0x9c, 0x40], Flow::<4>::RETURN));
        slots6[1].store(&half6(client6, vip6, kept(EGRESS, SERVER), there, [4, 0, 0x1f, 0x90], 0));
        slots4[1].store(&half(SERVER, EGRESS, ([0; 4], [0; 4]), back, [0, 80, 0x9c, 0x40], Flow::<1>::RETURN));
        for (slot, at) in slots4.iter().zip(0..) {
            slot.set_clock(now, 0);
            slot.set_state(State::NEVER.claimed().live_across(at));
        }
        for (slot, at) in slots6.iter().zip(0..) {
            slot.set_clock(now, 0);
            slot.set_state(State::NEVER.claimed().live_across(at));
        }
        let mut found = Vec::new();
        walk(&slots4, &slots6, now, &mut |pair| found.push(pair));
        walk(&slots6, &slots4, now, &mut |pair| found.push(pair));
        let ends: Vec<_> = found.iter().map(|p| (p.client, p.vip, p.egress, p.endpoint, p.slots)).collect();
        let v4 = |addr: [u8; 4], port| SocketAddr::new(addr.into(), port);
        let v6 = |addr: [u8; 16], port| SocketAddr::new(addr.into(), port);
        assert_eq!(
            ends,
            [
                (v4(CLIENT, 40_000), v4(VIP, 80), v6(egress6, 1024), v6(server6, 8080), (0, Some(0))),
                (v6(client6, 40_000), v6(vip6, 80), v4(EGRESS, 1024), v4(SERVER, 8080), (1, Some(1))),
            ]
        );
    }

    #[test]
    fn the_stage_is_that_of_both_halves() {
        let stage = |flags| pairs(&memory(flags, [10, 10]), 10)[0].stage;
        let (open, fin, closed) = (Flow::<1>::ESTABLISHED, Flow::<1>::FIN, Flow::<1>::CLOSED);
        assert_eq!(stage([0, 0]), Stage::Opening);
        assert_eq!(stage([open, open]), Stage::Open);
        assert_eq!(stage([open, open | fin]), Stage::Closing);
        assert_eq!(stage([open, open | fin | closed]), Stage::Closed);
    }

    #[test]
    fn what_is_silent_on_both_halves_or_being_written_is_left_out() {
        let slots = memory([0, 0], [0, 0]);
        assert!(pairs(&slots, ticks(100) + 1).is_empty());
        assert_eq!(pairs(&slots, ticks(100)).len(), 1);
        slots[1].set_state(slots[1].state().claimed());
        assert!(pairs(&slots, 0).is_empty());
        let slots = memory([0, 0], [0, 0]);
        slots[2].set_state(slots[2].state().freed());
        assert_eq!(pairs(&slots, 0)[0].slots, (1, None), "half a pair is shown as such");
    }
}
