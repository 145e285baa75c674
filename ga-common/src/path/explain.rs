//! What a packet met on its way, stage by stage: told by `ga_trace`, and by nobody else.
//!
//! A stage is a record of fixed size, so that the kernel program can leave it in a map; [`Step`] is the same for readers.

use super::{
    parse::Parsed,
    verdict::{Outcome, Verdict},
};
use crate::abi::{
    entry::{Address, Service},
    flow::{Meta, State, Tuple, Way, pack4, pack6},
    id::{EndpointId, ListenerId, TableId},
};
use crate::wire::vlan::Tags;

/// Stages that a packet can have at most: all, with every try for a NAT port.
pub const STAGES: usize = 32;

/// What one stage found.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stage {
    kind: u8,
    /// Words of a pair of addresses: 1 for IPv4, 4 for IPv6.
    width: u8,
    half: u16,
    word: u32,
    words: [u64; 5],
}

/// All stages of one packet.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Trace {
    /// How many there are; more than [`STAGES`] when there was no room for all.
    pub count: u64,
    /// In their order.
    pub stages: [Stage; STAGES],
}

impl Trace {
    /// None.
    pub const EMPTY: Self = Self { count: 0, stages: [Stage { kind: 0, width: 0, half: 0, word: 0, words: [0; 5] }; STAGES] };
}

const _: () = assert!(size_of::<Stage>() == 48);

const PARSED: u8 = 1;
const ROLES: u8 = 2;
const KNOWN: u8 = 3;
const REOPENED: u8 = 4;
const SERVICE: u8 = 5;
const CHOSEN: u8 = 6;
const CANDIDATE: u8 = 7;
const HOP: u8 = 8;
const REWRITTEN: u8 = 9;
const VERDICT: u8 = 10;
const ICMP: u8 = 11;
const QUOTED: u8 = 12;
const TRANSLATED: u8 = 13;
const ANSWERED: u8 = 14;
const DENIED: u8 = 15;
const REFUSED: u8 = 16;
const ENCAPSULATED: u8 = 17;
const RETRIED: u8 = 18;
const TOO_BIG: u8 = 19;
const KEPT: u8 = 20;
const TRACKED: u8 = 21;

/// How it is known where a flow goes that may have begun with another table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// It follows a SYN that went there.
    Note,
    /// It is remembered.
    Memory,
    /// It began with the table before, or the table did not change.
    Before,
}

impl Stage {
    #[inline(always)]
    const fn of(kind: u8, half: u16, word: u32) -> Self {
        Self { kind, width: 0, half, word, words: [0; 5] }
    }

    #[inline(always)]
    fn with_tuple<const K: usize>(mut self, addrs: &[u64; K], tail: u64) -> Self {
        self.width = K as u8;
        self.words[..K].copy_from_slice(addrs);
        self.words[4] = tail;
        self
    }

    /// The headers hold together and the destination is one of ours.
    #[inline(always)]
    pub fn parsed<const K: usize>(packet: &Parsed<K>, tags: Tags) -> Self {
        let ([a, b, c, d], tuple) = (packet.tuple.ports, &packet.tuple);
        let tail = u64::from_ne_bytes([a, b, c, d, tuple.protocol, packet.ttl, packet.flags, 0]);
        Self::of(PARSED, packet.place.l4 as u16, tags.0).with_tuple(&tuple.addrs, tail)
    }

    /// An ICMP message to one of our addresses, of a type that is looked at.
    #[inline(always)]
    pub fn icmp<const K: usize>(addrs: &[u64; K], kind: u8, ttl: u8, offset: usize, tags: Tags) -> Self {
        let tail = u64::from_ne_bytes([0, 0, 0, 0, kind, ttl, 0, 0]);
        Self::of(ICMP, offset as u16, tags.0).with_tuple(addrs, tail)
    }

    /// An echo request was answered.
    #[inline(always)]
    pub fn answered() -> Self {
        Self::of(ANSWERED, 0, 0)
    }

    /// The endpoint of the flow did not answer: another one is tried.
    #[inline(always)]
    pub fn retried(endpoint: EndpointId) -> Self {
        Self::of(RETRIED, endpoint.0, 0)
    }

    /// The flow may have begun with another table, and goes there.
    #[inline(always)]
    pub fn tracked(endpoint: EndpointId, by: By) -> Self {
        Self::of(TRACKED, endpoint.0, by as u32)
    }

    /// It does not fit where it would leave; the sender's packets must not be longer than `mtu` bytes.
    #[inline(always)]
    pub fn too_big(mtu: u16) -> Self {
        Self::of(TOO_BIG, mtu, 0)
    }

    /// A SYN was answered by a RST.
    #[inline(always)]
    pub fn refused() -> Self {
        Self::of(REFUSED, 0, 0)
    }

    /// The packet that an ICMP error is about, as those look that come the other way.
    #[inline(always)]
    pub fn quoted<const K: usize>(tuple: &Tuple<K>) -> Self {
        Self::of(QUOTED, 0, 0).with_tuple(&tuple.addrs, tail(tuple))
    }

    /// What those are translated to, which the quoted packet came as, the other way round.
    #[inline(always)]
    pub fn translated<const K: usize>(to: &Tuple<K>) -> Self {
        Self::of(TRANSLATED, 0, 0).with_tuple(&to.addrs, tail(to))
    }

    /// What the destination is to us.
    #[inline(always)]
    pub fn roles(address: &Address) -> Self {
        Self::of(ROLES, address.instance.0, u32::from(address.roles) | u32::from(address.protocols) << 8)
    }

    /// The packet belongs to a flow: its slot, what the slot is, the half in it, the tick of the last packet that counts.
    #[inline(always)]
    pub fn known(index: u32, state: State, meta: Meta, seen: u32) -> Self {
        let mut stage = Self::of(KNOWN, meta.endpoint().0, index);
        stage.words[0] = state.0;
        stage.words[1] = u64::from(seen) << 8 | u64::from(meta.flags());
        stage
    }

    /// It belonged to a flow that is over, and opens another.
    #[inline(always)]
    pub fn reopened(index: u32) -> Self {
        Self::of(REOPENED, 0, index)
    }

    /// A listener has the address, port and protocol.
    #[inline(always)]
    pub fn service(service: Service) -> Self {
        Self::of(SERVICE, service.listener.0, u32::from(u16::from_be_bytes(service.endpoint_port)))
    }

    /// The endpoint that the listener's table names: by which slot of it, and by which hash; `by_source` when it is one of the
    /// addresses only.
    #[inline(always)]
    pub fn chosen(table: TableId, slot: u32, hash: u64, by_source: bool, endpoint: EndpointId) -> Self {
        let mut stage = Self::of(CHOSEN, endpoint.0, table.0);
        stage.words[0] = u64::from(slot);
        stage.words[1] = hash;
        stage.words[2] = u64::from(by_source);
        stage
    }

    /// A try for a NAT port: what replies would look like, and whether no living flow has that.
    #[inline(always)]
    pub fn candidate<const K: usize>(reply: &Tuple<K>, is_free: bool) -> Self {
        Self::of(CANDIDATE, 0, u32::from(is_free)).with_tuple(&reply.addrs, tail(reply))
    }

    /// It keeps the client's address and port: what replies look like, and whether no other living flow has that.
    #[inline(always)]
    pub fn kept<const K: usize>(reply: &Tuple<K>, is_free: bool) -> Self {
        Self::of(KEPT, 0, u32::from(is_free)).with_tuple(&reply.addrs, tail(reply))
    }

    /// Where it goes next.
    #[inline(always)]
    pub fn hop(way: &Way) -> Self {
        let mut stage = Self::of(HOP, 0, way.ifindex);
        stage.words[0] = way.dst;
        stage.words[1] = way.src;
        stage.words[2] = u64::from(way.tags);
        stage
    }

    /// What it looks like when it leaves.
    #[inline(always)]
    pub fn rewritten<const K: usize>(to: &Tuple<K>) -> Self {
        Self::of(REWRITTEN, 0, 0).with_tuple(&to.addrs, tail(to))
    }

    /// It is in an outer IPv4 packet now; `protocol` is that of what is within.
    #[inline(always)]
    pub fn encapsulated4(src: [u8; 4], dst: [u8; 4], protocol: u8) -> Self {
        Self::of(ENCAPSULATED, 0, u32::from(protocol)).with_tuple(&pack4(src, dst), 0)
    }

    /// It is in an outer IPv6 packet now.
    #[inline(always)]
    pub fn encapsulated6(src: &[u8; 16], dst: &[u8; 16], protocol: u8) -> Self {
        Self::of(ENCAPSULATED, 0, u32::from(protocol)).with_tuple(&pack6(*src, *dst), 0)
    }

    /// The listener's access lists keep the source out.
    #[inline(always)]
    pub fn denied(listener: ListenerId) -> Self {
        Self::of(DENIED, listener.0, 0)
    }

    /// What becomes of it.
    #[inline(always)]
    pub fn verdict(outcome: Outcome) -> Self {
        let (kind, number) = match outcome.verdict() {
            Verdict::Pass(reason) => (0, reason as u32),
            Verdict::Drop(reason) => (1, reason as u32),
            Verdict::Send(ifindex) => (2, ifindex),
        };
        let mut stage = Self::of(VERDICT, outcome.listener().0, number);
        stage.words[0] = kind;
        stage
    }
}

#[inline(always)]
fn tail<const K: usize>(tuple: &Tuple<K>) -> u64 {
    let [a, b, c, d] = tuple.ports;
    u64::from_ne_bytes([a, b, c, d, tuple.protocol, 0, 0, 0])
}

#[cfg(any(test, feature = "user", feature = "sim"))]
pub use step::{Step, TupleSeen};

#[cfg(any(test, feature = "user", feature = "sim"))]
mod step {
    use core::net::{IpAddr, SocketAddr};

    use super::*;
    use crate::abi::{
        flow::{unpack4, unpack6},
        id::InstanceId,
        reason::{Drop, Pass},
    };

    /// Both ends and the protocol of a packet.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TupleSeen {
        /// Source.
        pub src: SocketAddr,
        /// Destination.
        pub dst: SocketAddr,
        /// IANA number.
        pub protocol: u8,
    }

    impl TupleSeen {
        fn turned(self) -> Self {
            Self { src: self.dst, dst: self.src, ..self }
        }
    }

    /// A [`Stage`], taken apart.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Step {
        /// The headers hold together and the destination is one of ours.
        Parsed {
            /// Both ends.
            tuple: TupleSeen,
            /// TTL or hop limit.
            ttl: u8,
            /// TCP flags.
            flags: u8,
            /// VLAN tags in front of the IP header.
            tags: Tags,
            /// Offset of the transport header.
            l4: u16,
        },
        /// An ICMP message to one of our addresses, of a type that is looked at.
        Icmp {
            /// Source.
            src: IpAddr,
            /// Destination.
            dst: IpAddr,
            /// ICMP or ICMPv6 type.
            kind: u8,
            /// TTL or hop limit.
            ttl: u8,
            /// VLAN tags in front of the IP header.
            tags: Tags,
            /// Offset of the ICMP header.
            offset: u16,
        },
        /// An echo request was answered.
        Answered,
        /// A SYN was answered by a RST.
        Refused,
        /// It does not fit where it would leave.
        TooBig {
            /// What the sender's packets must not be longer than.
            mtu: u16,
        },
        /// The packet that an ICMP error is about, as we sent it.
        Quoted(TupleSeen),
        /// The same as it came to us.
        Translated(TupleSeen),
        /// What the destination is to us.
        Roles(Address),
        /// The packet belongs to a flow.
        Known {
            /// Slot of the half.
            index: u32,
            /// Slot of the other half.
            peer: u32,
            /// Flags of the half, as in `Flow`.
            flags: u8,
            /// Whose counters.
            endpoint: EndpointId,
            /// Tick of the last packet that counts.
            seen: u32,
        },
        /// It belonged to a flow that its endpoint did not answer, and opens another.
        Retried {
            /// Who did not answer.
            endpoint: EndpointId,
        },
        /// The flow may have begun with another table.
        Tracked {
            /// Where it goes.
            endpoint: EndpointId,
            /// How that is known.
            by: By,
        },
        /// It belonged to a flow that is over, and opens another.
        Reopened {
            /// Slot of that one.
            index: u32,
        },
        /// A listener has the address, port and protocol.
        Service {
            /// The listener.
            listener: ListenerId,
            /// The port at the endpoint.
            endpoint_port: u16,
        },
        /// The listener's access lists keep the source out.
        Denied {
            /// The listener.
            listener: ListenerId,
        },
        /// The endpoint that the listener's table names.
        Chosen {
            /// The table; [`TableId::EMPTY`] has nobody.
            table: TableId,
            /// The entry of the table.
            slot: u32,
            /// The hash that names the entry.
            hash: u64,
            /// It is one of the addresses only (source-IP affinity).
            by_source: bool,
            /// Who stands there.
            endpoint: EndpointId,
        },
        /// A try for a NAT port.
        Candidate {
            /// What replies would look like.
            reply: TupleSeen,
            /// Whether no living flow has it.
            is_free: bool,
        },
        /// It keeps the client's address and port.
        Kept {
            /// What replies would look like.
            reply: TupleSeen,
            /// Whether no other living flow has it.
            is_free: bool,
        },
        /// Where it goes next.
        Hop(Way),
        /// What it looks like when it leaves.
        Rewritten {
            /// Source.
            src: SocketAddr,
            /// Destination.
            dst: SocketAddr,
        },
        /// It is in an outer IP packet now.
        Encapsulated {
            /// Source of the outer packet.
            src: IpAddr,
            /// Its destination.
            dst: IpAddr,
            /// IANA number of what is within: 4 or 41.
            protocol: u8,
        },
        /// What becomes of it.
        Verdict(Verdict, ListenerId),
    }

    impl Stage {
        /// The stage for readers; none where nothing, or nothing of this version, was noted.
        pub fn read(&self) -> Option<Step> {
            Some(match self.kind {
                PARSED => {
                    let [.., ttl, flags, _] = self.words[4].to_ne_bytes();
                    Step::Parsed { tuple: self.tuple()?, ttl, flags, tags: Tags(self.word), l4: self.half }
                }
                ICMP => {
                    let [_, _, _, _, kind, ttl, ..] = self.words[4].to_ne_bytes();
                    let TupleSeen { src, dst, .. } = self.tuple()?;
                    Step::Icmp { src: src.ip(), dst: dst.ip(), kind, ttl, tags: Tags(self.word), offset: self.half }
                }
                ANSWERED => Step::Answered,
                REFUSED => Step::Refused,
                TOO_BIG => Step::TooBig { mtu: self.half },
                RETRIED => Step::Retried { endpoint: EndpointId(self.half) },
                TRACKED => Step::Tracked {
                    endpoint: EndpointId(self.half),
                    by: *[By::Note, By::Memory, By::Before].get(self.word as usize)?,
                },
                QUOTED => Step::Quoted(self.tuple()?.turned()),
                TRANSLATED => Step::Translated(self.tuple()?.turned()),
                ROLES => Step::Roles(Address {
                    roles: self.word as u8,
                    protocols: (self.word >> 8) as u8,
                    instance: InstanceId(self.half),
                }),
                KNOWN => Step::Known {
                    index: self.word,
                    peer: State(self.words[0]).peer(),
                    flags: self.words[1] as u8,
                    endpoint: EndpointId(self.half),
                    seen: (self.words[1] >> 8) as u32,
                },
                REOPENED => Step::Reopened { index: self.word },
                SERVICE => Step::Service { listener: ListenerId(self.half), endpoint_port: self.word as u16 },
                CHOSEN => Step::Chosen {
                    table: TableId(self.word),
                    slot: self.words[0] as u32,
                    hash: self.words[1],
                    by_source: self.words[2] != 0,
                    endpoint: EndpointId(self.half),
                },
                CANDIDATE => Step::Candidate { reply: self.tuple()?, is_free: self.word != 0 },
                KEPT => Step::Kept { reply: self.tuple()?, is_free: self.word != 0 },
                DENIED => Step::Denied { listener: ListenerId(self.half) },
                HOP => Step::Hop(Way { dst: self.words[0], src: self.words[1], ifindex: self.word, tags: self.words[2] as u32 }),
                REWRITTEN => {
                    let TupleSeen { src, dst, .. } = self.tuple()?;
                    Step::Rewritten { src, dst }
                }
                ENCAPSULATED => {
                    let TupleSeen { src, dst, .. } = self.tuple()?;
                    Step::Encapsulated { src: src.ip(), dst: dst.ip(), protocol: self.word as u8 }
                }
                VERDICT => {
                    let number = self.word as usize;
                    let listener = ListenerId(self.half);
                    Step::Verdict(
                        match self.words[0] {
                            0 => Verdict::Pass(*Pass::ALL.get(number)?),
                            1 => Verdict::Drop(*Drop::ALL.get(number)?),
                            _ => Verdict::Send(self.word),
                        },
                        listener,
                    )
                }
                _ => return None,
            })
        }

        fn tuple(&self) -> Option<TupleSeen> {
            let [a, b, c, d, w4] = self.words;
            let (src, dst): (IpAddr, IpAddr) = match self.width {
                1 => {
                    let (src, dst) = unpack4([a]);
                    (src.into(), dst.into())
                }
                4 => {
                    let (src, dst) = unpack6([a, b, c, d]);
                    (src.into(), dst.into())
                }
                _ => return None,
            };
            let [s0, s1, d0, d1, protocol, ..] = w4.to_ne_bytes();
            let (sport, dport) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
            Some(TupleSeen { src: SocketAddr::new(src, sport), dst: SocketAddr::new(dst, dport), protocol })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        abi::{
            flow::{Flow, FlowSlot4, pack4, pack6},
            id::InstanceId,
            reason::{Drop, Pass},
        },
        path::parse::Place,
        wire::vlan::CUSTOMER,
    };

    #[test]
    fn stages_survive_the_way_through_a_record() {
        let address = Address { roles: 3, protocols: 2, instance: InstanceId(7) };
        assert_eq!(Stage::roles(&address).read(), Some(Step::Roles(address)));
        let v4 = Tuple { addrs: pack4([192, 0, 2, 7], [198, 51, 100, 10]), ports: [0x0f, 0xa0, 0, 80], protocol: 6 };
        let seen = |src: &str, dst: &str, protocol| TupleSeen {
            src: src.parse().expect("an address"),
            dst: dst.parse().expect("an address"),
            protocol,
        };
        let reply = seen("192.0.2.7:4000", "198.51.100.10:80", 6);
        for is_free in [false, true] {
            assert_eq!(Stage::candidate(&v4, is_free).read(), Some(Step::Candidate { reply, is_free }));
            assert_eq!(Stage::kept(&v4, is_free).read(), Some(Step::Kept { reply, is_free }));
        }
        let v6 = Tuple { addrs: pack6([1; 16], [2; 16]), ports: [0, 53, 0, 54], protocol: 17 };
        let packet = Parsed { tuple: v6, place: Place { l3: 18, l4: 300 }, flags: 2, ack: 0, speaks: true, ttl: 63 };
        let tags = Tags::NONE.with(CUSTOMER, 100);
        let tuple = seen("[101:101:101:101:101:101:101:101]:53", "[202:202:202:202:202:202:202:202]:54", 17);
        assert_eq!(Stage::parsed(&packet, tags).read(), Some(Step::Parsed { tuple, ttl: 63, flags: 2, tags, l4: 300 }));
        assert_eq!(Stage::rewritten(&v4).read(), Some(Step::Rewritten { src: reply.src, dst: reply.dst }));
        let way = Way { dst: 1 << 47, src: 5, ifindex: 70_000, tags: 9 };
        assert_eq!(Stage::hop(&way).read(), Some(Step::Hop(way)));
        for by_source in [false, true] {
            let chosen = Stage::chosen(TableId(8000), 65_536, u64::MAX, by_source, EndpointId(16_383)).read();
            let (table, endpoint) = (TableId(8000), EndpointId(16_383));
            assert_eq!(chosen, Some(Step::Chosen { table, slot: 65_536, hash: u64::MAX, by_source, endpoint }));
        }
        let (src, dst) = (reply.src.ip(), reply.dst.ip());
        let icmp = Stage::icmp(&v4.addrs, 11, 255, 400, tags).read();
        assert_eq!(icmp, Some(Step::Icmp { src, dst, kind: 11, ttl: 255, tags, offset: 400 }));
        let turned = TupleSeen { src: reply.dst, dst: reply.src, ..reply };
        assert_eq!(Stage::quoted(&v4).read(), Some(Step::Quoted(turned)));
        assert_eq!(Stage::translated(&v4).read(), Some(Step::Translated(turned)));
        assert_eq!(Stage::answered().read(), Some(Step::Answered));
        assert_eq!(Stage::refused().read(), Some(Step::Refused));
        assert_eq!(Stage::too_big(1480).read(), Some(Step::TooBig { mtu: 1480 }));
        assert_eq!(Stage::retried(EndpointId(513)).read(), Some(Step::Retried { endpoint: EndpointId(513) }));
        let service = Service { listener: ListenerId(9), endpoint_port: [0x1f, 0x90] };
        assert_eq!(Stage::service(service).read(), Some(Step::Service { listener: ListenerId(9), endpoint_port: 8080 }));
        let outer = Stage::encapsulated4([192, 0, 2, 7], [198, 51, 100, 10], 41).read();
        assert_eq!(outer, Some(Step::Encapsulated { src, dst, protocol: 41 }));
        let outer = Stage::encapsulated6(&[1; 16], &[2; 16], 4).read();
        let (src, dst) = (tuple.src.ip(), tuple.dst.ip());
        assert_eq!(outer, Some(Step::Encapsulated { src, dst, protocol: 4 }));
        assert_eq!(Stage::denied(ListenerId(9)).read(), Some(Step::Denied { listener: ListenerId(9) }));
        for by in [By::Note, By::Memory, By::Before] {
            assert_eq!(Stage::tracked(EndpointId(9), by).read(), Some(Step::Tracked { endpoint: EndpointId(9), by }));
        }
        assert_eq!(Stage::reopened(7).read(), Some(Step::Reopened { index: 7 }));
        assert_eq!(Stage::default().read(), None);
    }

    #[test]
    fn every_verdict_survives_the_way_through_a_record() {
        let passes = Pass::ALL.iter().map(|reason| Outcome::pass(*reason));
        let drops = Drop::ALL.iter().map(|reason| Outcome::drop(*reason, ListenerId(5)));
        for outcome in passes.chain(drops).chain([Outcome::send(70_000)]) {
            assert_eq!(Stage::verdict(outcome).read(), Some(Step::Verdict(outcome.verdict(), outcome.listener())));
        }
    }

    #[test]
    fn a_known_flow_is_told_with_its_clock() {
        let slot = FlowSlot4::free();
        slot.store(&Flow {
            tuple: Tuple { addrs: [0], ports: [0; 4], protocol: 6 },
            flags: Flow::<1>::RETURN | Flow::<1>::CLOSED,
            endpoint: 3,
            new_addrs: [0],
            new_ports: [0; 4],
            ifindex: 0,
            dst_mac: [0; 6],
            src_mac: [0; 6],
            tags: 0,
            timeout_s: 900,
        });
        let state = State::NEVER.claimed().live(77);
        let expected = Step::Known { index: 76, peer: 77, flags: 9, endpoint: EndpointId(3), seen: u32::MAX };
        assert_eq!(Stage::known(76, state, slot.meta(), u32::MAX).read(), Some(expected));
    }
}
