//! Mutated packets in random order and random worlds: nothing is expected of them but that kernel and simulator agree.

use std::collections::BTreeMap;

use anyhow::Context as _;

use super::{
    case::Case,
    craft::{Bound, frame, with_zero_sum},
    dataplane::{Action, Dataplane},
    show::hex,
    world::world,
};

const WORLDS: [&str; 12] = [
    "standard",
    "one_armed",
    "only_a",
    "only_b",
    "own_port",
    "empty",
    "nobody",
    "no_egress",
    "no_hop",
    "two_ports",
    "tiny",
    "ghost",
];

/// Frames that were sent lately: replies and further packets of their flows are made from them.
const LIVELY: usize = 64;

/// A small generator (SplitMix64, Steele et al. 2014): the same seed gives the same packets on every machine.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound.max(1) as u64) as usize
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// How many packets met which fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// Sent by either way.
    pub sent: usize,
    /// Passed.
    pub passed: usize,
    /// Dropped.
    pub dropped: usize,
}

/// Sends `count` mutated packets through `plane`.
pub fn run(plane: &mut dyn Dataplane, corpus: &BTreeMap<String, Vec<Case>>, seed: u64, count: usize) -> anyhow::Result<Fates> {
    let originals = originals(corpus);
    let mut random = Random(seed);
    let (mut lively, mut fates): (Vec<Vec<u8>>, _) = (Vec::new(), Fates::default());
    plane.forget();
    plane.install(&world("standard")?)?;
    for number in 0..count {
        if random.once_in(200) {
            plane.install(&world(WORLDS[random.below(WORLDS.len())])?)?;
        }
        if random.once_in(2000) {
            plane.forget();
            lively.clear();
        }
        if random.once_in(20) {
            plane.wait(random.below(25) as u16);
        }
        let pool = if lively.is_empty() || random.once_in(3) { &originals } else { &lively };
        let mut packet = pool[random.below(pool.len())].clone();
        mutate(&mut packet, &mut random, plane.shortest());
        let seen = plane.send(&packet).with_context(|| format!("packet {number} of seed {seed}: {}", hex(&packet)))?;
        match seen.action {
            Action::Pass(_) => fates.passed += 1,
            Action::Drop(..) | Action::Refuse(..) => fates.dropped += 1,
            Action::Tx | Action::Redirect => {
                fates.sent += 1;
                let reply = turned(&seen.bytes);
                for frame in [packet, reply] {
                    if lively.len() == LIVELY {
                        lively.swap_remove(random.below(LIVELY));
                    }
                    lively.push(frame);
                }
            }
        }
    }
    Ok(fates)
}

/// Every frame of the corpus that needs nothing to have happened before.
pub(super) fn originals(corpus: &BTreeMap<String, Vec<Case>>) -> Vec<Vec<u8>> {
    let unbound = Bound::default();
    let packets = corpus.values().flatten().flat_map(|case| &case.packets);
    packets.filter_map(|packet| frame(&with_zero_sum(packet, &unbound).ok()?, &unbound).ok()).collect()
}

/// The frame with source and destination exchanged: its sums stay what they are.
fn turned(frame: &[u8]) -> Vec<u8> {
    let mut reply = frame.to_vec();
    let (addrs, length, l4) = match frame.get(12..15) {
        Some([0x08, 0x00, vihl]) => (26, 4, 14 + usize::from(vihl & 15) * 4),
        Some([0x86, 0xdd, _]) => (22, 16, 54),
        _ => return reply,
    };
    let mut exchange = |at: usize, n: usize| {
        if at + 2 * n <= reply.len() {
            for i in at..at + n {
                reply.swap(i, i + n);
            }
        }
    };
    exchange(0, 6);
    exchange(addrs, length);
    exchange(l4, 2);
    reply
}

pub(super) fn mutate(frame: &mut Vec<u8>, random: &mut Random, shortest: usize) {
    for _ in 0..random.below(3) {
        let headers = frame.len().min(80);
        let v4 = frame.get(12) == Some(&8);
        let (ttl, l4) = if v4 { (22, 34) } else { (21, 54) };
        let mut put = |at: usize, byte: u8| {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        };
        match random.below(10) {
            0 => put(random.below(headers), random.number() as u8),
            1 => {
                let at = random.below(headers);
                let byte = frame.get(at).copied().unwrap_or(0) ^ (1 << random.below(8));
                frame[at..].iter_mut().take(1).for_each(|place| *place = byte);
            }
            2 => frame.truncate(shortest.max(random.below(frame.len()))),
            3 => frame.extend(std::iter::repeat_n(0x5a, random.below(40))),
            4 => put(ttl, random.below(4) as u8),
            // Few source ports, so that flows meet.
            5 => put(l4 + 1, random.below(8) as u8),
            6 | 7 => put(l4 + 13, [0x02, 0x10, 0x11, 0x04, 0x12, 0x14, 0x18, random.number() as u8][random.below(8)]),
            // IPv4 fragment bits, or the IPv6 next header.
            8 => put(20, random.below(64) as u8),
            _ => put(l4 + 3, [80, 53, 187, 88, 3, random.number() as u8][random.below(6)]),
        }
    }
}
