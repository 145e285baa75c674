//! Neighbours as netlink describes them, and which of them are to be asked next whether they are still where they were.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Bound,
};

use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
};

/// Interface index and address.
pub(super) type Key = (u32, IpAddr);

/// One neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    /// Where frames for it go; none when it is not known, or does not answer.
    pub(super) mac: Option<[u8; 6]>,
    /// What the kernel thinks of it.
    pub(super) state: NeighbourState,
    /// It said that it is a router (RFC 4861 §4.4), which must not be forgotten when it is asked.
    pub(super) is_router: bool,
    /// Somebody else keeps it.
    pub(super) is_kept: bool,
}

impl Neighbour {
    /// The kernel is asking for it already.
    pub(super) fn is_sought(&self) -> bool {
        self.state == NeighbourState::Incomplete
    }
}

/// Who a message is about, and what it says.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<(Key, Neighbour)> {
    let (mut address, mut mac) = (None, None);
    let mut is_kept = message.header.flags.contains(NeighbourFlags::ExtLearned);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::from(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::from(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            NeighbourAttribute::ExtFlags(flags) => is_kept |= flags.contains(NeighbourExtFlags::Managed),
            _ => {}
        }
    }
    let state = message.header.state;
    if matches!(state, NeighbourState::Failed | NeighbourState::Incomplete | NeighbourState::None) {
        mac = None;
    }
    let is_router = message.header.flags.contains(NeighbourFlags::Router);
    Some(((message.header.ifindex, address?), Neighbour { mac, state, is_router, is_kept }))
}

/// Neighbours asked in one round.
const ASKED_AT_ONCE: usize = 32;

/// Takes care that no neighbour in use is believed for long without an answer.
///
/// Packets that XDP forwards do not use the kernel's neighbours, so the kernel does not notice when one of them went silent. Each
/// round some of those in use are asked at the address they had (unicast, RFC 4861 §7.3.3 and RFC 1122 §2.3.2.1); whoever has not
/// answered a round later is sought anew by everybody on the link.
#[derive(Debug, Default)]
pub(super) struct Asking {
    asked: BTreeSet<Key>,
    last: Option<Key>,
}

/// What a round of [`Asking`] wants of the kernel.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    /// To be asked where they were.
    pub(super) ask: Vec<Key>,
    /// To be sought anew.
    pub(super) seek: Vec<Key>,
}

impl Asking {
    /// The next round over the neighbours `in_use`.
    pub(super) fn round(&mut self, in_use: &BTreeSet<Key>, known: &BTreeMap<Key, Neighbour>) -> Round {
        let state = |key: &Key| known.get(key).map(|neighbour| neighbour.state);
        let seek = self.asked.iter().filter(|key| state(key) == Some(NeighbourState::Probe)).copied().collect();
        let is_kept = |key: &Key| known.get(key).is_some_and(|neighbour| neighbour.is_kept);
        let may_be_asked = |key: &&Key| {
            let can_answer =
                matches!(state(key), Some(NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay));
            can_answer && !is_kept(key)
        };
        let ask = turn(in_use, self.last, ASKED_AT_ONCE, may_be_asked);
        self.last = ask.last().copied().or(self.last);
        self.asked = ask.iter().copied().collect();
        Round { ask, seek }
    }
}

/// The next `count` of those of `keys` that `fit`, after `last` and then from the first.
pub(super) fn turn(keys: &BTreeSet<Key>, last: Option<Key>, count: usize, fit: impl Fn(&&Key) -> bool) -> Vec<Key> {
    let (after, rest) = match last {
        Some(last) => (Bound::Excluded(last), Some((Bound::Unbounded, Bound::Included(last)))),
        None => (Bound::Unbounded, None),
    };
    let rest = rest.into_iter().flat_map(|range| keys.range(range));
    keys.range((after, Bound::Unbounded)).chain(rest).filter(fit).take(count).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> Key {
        (2, IpAddr::from([10, 0, 0, n]))
    }

    fn world(states: &[NeighbourState]) -> (BTreeSet<Key>, BTreeMap<Key, Neighbour>) {
        let all = || (0..).map(key).zip(states);
        let neighbour = |state: &NeighbourState| Neighbour { mac: Some([2; 6]), state: *state, is_router: false, is_kept: false };
        (all().map(|(key, _)| key).collect(), all().map(|(key, state)| (key, neighbour(state))).collect())
    }

    #[test]
    fn only_those_in_use_that_can_answer_are_asked() {
        use NeighbourState as S;
        let states = [S::Reachable, S::Stale, S::Delay, S::Probe, S::Failed, S::Incomplete, S::Permanent, S::Noarp];
        let (mut in_use, mut known) = world(&states);
        assert_eq!(Asking::default().round(&in_use, &known), Round { ask: vec![key(0), key(1), key(2)], seek: vec![] });
        in_use.remove(&key(1));
        assert_eq!(Asking::default().round(&in_use, &known).ask, [key(0), key(2)]);
        known.entry(key(0)).and_modify(|neighbour| neighbour.is_kept = true);
        assert_eq!(Asking::default().round(&in_use, &known).ask, [key(2)]);
    }

    #[test]
    fn whoever_does_not_answer_within_a_round_is_sought() {
        let (in_use, mut known) = world(&[NeighbourState::Stale, NeighbourState::Stale]);
        let mut asking = Asking::default();
        assert_eq!(asking.round(&in_use, &known).ask, [key(0), key(1)]);
        // One answers, the other one is still being asked.
        known.entry(key(0)).and_modify(|neighbour| neighbour.state = NeighbourState::Reachable);
        known.entry(key(1)).and_modify(|neighbour| neighbour.state = NeighbourState::Probe);
        assert_eq!(asking.round(&in_use, &known), Round { ask: vec![key(0)], seek: vec![key(1)] });
        assert_eq!(asking.round(&in_use, &known).seek, [], "nobody is sought twice for one question");
    }

    #[test]
    fn everybody_has_a_turn() {
        let (in_use, known) = world(&[NeighbourState::Reachable; 100]);
        let mut asking = Asking::default();
        let rounds: Vec<Vec<Key>> = (0..4).map(|_| asking.round(&in_use, &known).ask).collect();
        assert!(rounds.iter().all(|round| round.len() == ASKED_AT_ONCE));
        let asked: BTreeSet<Key> = rounds.concat().into_iter().collect();
        assert_eq!(asked, in_use, "a hundred are asked in four rounds");
    }
}
