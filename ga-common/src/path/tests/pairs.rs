//! Pairs: opened, kept and closed together, whatever packets come in whatever order.

use super::fixture::{CLIENT_SIDE, ENDPOINT_SIDE, Kind, client, edge, send, vip};
use crate::{
    abi::flow::Flow,
    path::{parse::flag, tables::Family},
};

const SYN: Kind = Kind::Tcp(flag::SYN);
const ACK: Kind = Kind::Tcp(flag::ACK);
const RST: Kind = Kind::Tcp(flag::RST);

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
