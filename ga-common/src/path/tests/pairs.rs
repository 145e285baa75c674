//! Pairs: opened, kept and closed together, whatever packets come in whatever order.

use std::{collections::BTreeMap, vec::Vec};

use proptest::prelude::*;

use super::fixture::{CLIENT_SIDE, ENDPOINT_SIDE, End, Kind, check, client, edge, send, vip};
use crate::{
    abi::{
        family::Family,
        flow::{Flow, ticks},
        limits::FLOW_WAYS,
        reason::{Drop, Pass},
    },
    path::{parse::flag, verdict::Verdict},
    sim::Sim,
};

const SYN: Kind = Kind::Tcp(flag::SYN);
const ACK: Kind = Kind::Tcp(flag::ACK);
const FIN: Kind = Kind::Tcp(flag::FIN | flag::ACK);
const RST: Kind = Kind::Tcp(flag::RST);
const SYN_ACK: Kind = Kind::Tcp(flag::SYN | flag::ACK);

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A client sends.
    Client { family: Family, number: u32, port: u16, kind: Kind },
    /// An endpoint answers something that it saw, lately or long ago.
    Endpoint { which: usize, kind: Kind },
    /// Nothing, for a while.
    Silence(u16),
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![4 => Just(SYN), 3 => Just(ACK), 1 => Just(FIN), 1 => Just(RST), 1 => Just(SYN_ACK), 3 => Just(Kind::Udp)]
}

fn event() -> impl Strategy<Value = Event> {
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    prop_oneof![
        6 => (family, 1..8u32, 1..3u16, kind()).prop_map(|(family, number, port, kind)| Event::Client { family, number, port, kind }),
        4 => (any::<usize>(), kind()).prop_map(|(which, kind)| Event::Endpoint { which, kind }),
        1 => (1..40u16).prop_map(Event::Silence),
    ]
}

/// What an endpoint saw: itself, and us in the client's place. By protocol.
type Seen = (bool, End, End);

/// Who was behind what endpoints saw: client and VIP, the last ones.
#[derive(Default)]
struct Owners {
    of: BTreeMap<Seen, (End, End)>,
    order: Vec<Seen>,
}

fn happen(sim: &Sim, owners: &mut Owners, event: Event) {
    match event {
        Event::Silence(seconds) => sim.tick.set(sim.tick.get() + ticks(seconds)),
        Event::Client { family, number, port, kind } => {
            let (client, vip) = (client(family, number, port), vip(family, false));
            match send(sim, client, vip, kind, CLIENT_SIDE) {
                Ok((egress, endpoint)) => {
                    let seen = (kind == Kind::Udp, endpoint, egress);
                    owners.of.insert(seen, (client, vip));
                    owners.order.push(seen);
                }
                Err(outcome) => {
                    let Verdict::Drop(reason) = outcome.verdict() else { panic!("{event:?} passed: {outcome:?}") };
                    assert!(matches!(reason, Drop::NoFlow | Drop::NoPort | Drop::FlowTableFull), "{event:?}: {reason:?}");
                    assert!(reason != Drop::NoFlow || !matches!(kind, SYN | Kind::Udp), "{event:?} needs no flow");
                }
            }
        }
        Event::Endpoint { which, kind } if !owners.order.is_empty() => {
            let (is_udp, endpoint, egress) = owners.order[which % owners.order.len()];
            let kind = if is_udp {
                Kind::Udp
            } else if kind == Kind::Udp {
                ACK
            } else {
                kind
            };
            match send(sim, endpoint, egress, kind, ENDPOINT_SIDE) {
                Ok((from, to)) => {
                    let (client, vip) = owners.of[&(is_udp, endpoint, egress)];
                    assert_eq!((to, from), (client, vip), "a reply went astray");
                }
                Err(outcome) => assert_eq!(outcome.verdict(), Verdict::Pass(Pass::NoReturnFlow)),
            }
        }
        Event::Endpoint { .. } => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// No two living flows expect the same tuple, halves live and die together, replies reach the client that owns them, sums
    /// are right: in plenty, with few ports, and with few slots.
    #[test]
    fn whatever_comes_every_reply_reaches_its_client(
        events in proptest::collection::vec(event(), 1..120),
        (slots, ports) in prop_oneof![Just((256, 1000)), Just((256, 3)), Just((16, 1000)), Just((8, 4))],
    ) {
        let sim = edge(slots, ports, &[1, 1]);
        let mut owners = Owners::default();
        for event in events {
            happen(&sim, &mut owners, event);
            check(&sim);
        }
    }
}

#[test]
fn a_full_table_refuses_new_flows_and_serves_every_old_one() {
    for family in Family::ALL {
        let sim = edge(256, 10_000, &[1]);
        let vip = vip(family, false);
        let (mut open, mut refused) = (Vec::new(), 0);
        for number in 1..3000 {
            let client = client(family, number, 7);
            match send(&sim, client, vip, SYN, CLIENT_SIDE) {
                Ok(ends) => open.push((client, ends)),
                Err(outcome) => {
                    assert_eq!(outcome.verdict(), Verdict::Drop(Drop::FlowTableFull));
                    refused += 1;
                }
            }
            check(&sim);
        }
        assert_eq!(open.len() + refused, 2999);
        assert_eq!(open.len() * 2, 256, "every slot is used before a flow is refused for good");
        for (client, (egress, endpoint)) in open {
            assert_eq!(send(&sim, endpoint, egress, SYN_ACK, ENDPOINT_SIDE), Ok((vip, client)));
            assert_eq!(send(&sim, client, vip, ACK, CLIENT_SIDE), Ok((egress, endpoint)));
        }
    }
}

#[test]
fn when_all_ports_are_taken_new_flows_are_refused_and_nobody_gets_anothers_port() {
    for kind in [SYN, Kind::Udp] {
        let sim = edge(1024, 8, &[1]);
        let vip = vip(Family::V4, false);
        let mut taken = BTreeMap::new();
        for number in 1..200 {
            let client = client(Family::V4, number, 9);
            match send(&sim, client, vip, kind, CLIENT_SIDE) {
                Ok((egress, _)) => assert_eq!(taken.insert(egress, client), None, "{egress:?} is shared"),
                Err(outcome) => assert_eq!(outcome.verdict(), Verdict::Drop(Drop::NoPort)),
            }
        }
        assert_eq!(taken.len(), 8);
        check(&sim);
    }
}

#[test]
fn a_syn_on_a_closed_pair_opens_a_new_one_and_leaves_nothing_of_the_old() {
    for family in Family::ALL {
        let sim = edge(64, 1000, &[1]);
        let (client, vip) = (client(family, 1, 1), vip(family, false));
        for round in 1..50 {
            let (egress, endpoint) = send(&sim, client, vip, SYN, CLIENT_SIDE).unwrap();
            assert_eq!(send(&sim, endpoint, egress, SYN_ACK, ENDPOINT_SIDE), Ok((vip, client)));
            let closing = if round % 2 == 0 { [(true, RST), (true, RST)] } else { [(true, FIN), (false, FIN)] };
            for (by_client, kind) in closing {
                match by_client {
                    true => send(&sim, client, vip, kind, CLIENT_SIDE).unwrap(),
                    false => send(&sim, endpoint, egress, kind, ENDPOINT_SIDE).unwrap(),
                };
            }
            let opened: u64 = sim.counters.borrow().values().map(|c| c.new_flows).sum();
            assert_eq!(opened, round);
            assert_eq!(sim.live4().len() + sim.live6().len(), 2);
        }
    }
}

#[test]
fn a_half_whose_peer_was_taken_away_touches_no_stranger() {
    let (family, mut strangers) = (Family::V4, 0);
    for number in 2..60 {
        let sim = edge(8, 1000, &[1]);
        let (ours, theirs, vip) = (client(family, 1, 1), client(family, number, 2), vip(family, false));
        let (src, dst) = send(&sim, ours, vip, SYN, CLIENT_SIDE).unwrap();
        // Somebody frees the return half alone: nobody should, and nobody else must suffer.
        let (index, _) = sim.live4().into_iter().find(|(_, flow)| flow.flags & Flow::<1>::RETURN != 0).unwrap();
        let slot = &sim.flows4[index as usize];
        let (tags, at) = (&sim.tags4[(index / FLOW_WAYS) as usize], index % FLOW_WAYS * 8);
        tags.turn(tags.load() & 0xff << at);
        slot.set_state(slot.state().freed());
        let (their_src, their_dst) = send(&sim, theirs, vip, SYN, CLIENT_SIDE).unwrap();
        strangers += usize::from(slot.state().is_live());
        assert!(send(&sim, dst, src, ACK, ENDPOINT_SIDE).is_err(), "a reply without a return half is nobody's");

        send(&sim, ours, vip, RST, CLIENT_SIDE).unwrap();
        let closed = |flow: &Flow<1>| flow.flags & Flow::<1>::CLOSED != 0;
        assert_eq!(sim.live4().iter().filter(|(_, flow)| closed(flow)).count(), 1, "our own half alone is closed");
        send(&sim, ours, vip, SYN, CLIENT_SIDE).unwrap();
        let reply = send(&sim, their_dst, their_src, ACK, ENDPOINT_SIDE);
        assert_eq!(reply.map(|(_, to)| to), Ok(theirs), "the stranger's flow is whole");
    }
    assert!(strangers > 3, "a stranger took the slot {strangers} times");
}
