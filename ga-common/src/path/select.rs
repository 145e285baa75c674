//! A new flow: which endpoint, which egress address and port, and both halves of the pair.

use super::{
    flow::{NO_SLOT, PutError, hash, put, release},
    parse::Parsed,
    tables::{FlowMemory, Tables},
};
use crate::{
    abi::{
        entry::{AddressKey, Egress, Listener, Service, Settings, mapped},
        family::Family,
        flow::{Flow, Tuple, pack4, pack6, unpack4, unpack6},
        id::{EndpointId, ListenerId, TableId},
        limits::{MAX_EGRESS, NAT_RETRIES, SYN_TIMEOUT_S, TABLE_SIZE},
        reason::Drop,
    },
    hash::{Sip, scale},
    wire::frame::TCP,
};

/// What differs between IPv4 and IPv6 when a flow is made.
pub trait Addresses<const K: usize> {
    /// Which family this is.
    const FAMILY: Family;
    /// The addresses of a reply: from the endpoint to one of the egress addresses, which `n` draws; none when there is no
    /// egress address of this family.
    fn reply(endpoint: &AddressKey, egress: &Egress, n: u32) -> Option<[u64; K]>;
    /// Source and destination exchanged.
    fn turned(addrs: [u64; K]) -> [u64; K];
    /// The source as map key.
    fn source(addrs: [u64; K]) -> AddressKey;
    /// Whether an answer may go there: not to "this network", loopback, multicast, reserved and broadcast addresses (RFC 1122
    /// section 3.2.1.3) nor to their like in IPv6 (RFC 4291 sections 2.5 and 2.7).
    fn is_host(addrs: [u64; K]) -> bool;
}

/// IPv4.
pub struct V4;
/// IPv6.
pub struct V6;

impl Addresses<1> for V4 {
    const FAMILY: Family = Family::V4;

    #[inline(always)]
    fn reply(endpoint: &AddressKey, egress: &Egress, n: u32) -> Option<[u64; 1]> {
        let index = scale(n, u32::from(egress.count4)) as usize;
        if egress.count4 == 0 || index >= MAX_EGRESS {
            return None;
        }
        Some(pack4([endpoint[12], endpoint[13], endpoint[14], endpoint[15]], egress.v4[index]))
    }

    #[inline(always)]
    fn turned(addrs: [u64; 1]) -> [u64; 1] {
        let (src, dst) = unpack4(addrs);
        pack4(dst, src)
    }

    #[inline(always)]
    fn source(addrs: [u64; 1]) -> AddressKey {
        mapped(unpack4(addrs).0)
    }

    #[inline(always)]
    fn is_host(addrs: [u64; 1]) -> bool {
        !matches!(unpack4(addrs).0[0], 0 | 127 | 224..)
    }
}

impl Addresses<4> for V6 {
    const FAMILY: Family = Family::V6;

    #[inline(always)]
    fn reply(endpoint: &AddressKey, egress: &Egress, n: u32) -> Option<[u64; 4]> {
        let index = scale(n, u32::from(egress.count6)) as usize;
        if egress.count6 == 0 || index >= MAX_EGRESS {
            return None;
        }
        Some(pack6(*endpoint, egress.v6[index]))
    }

    #[inline(always)]
    fn turned(addrs: [u64; 4]) -> [u64; 4] {
        let (src, dst) = unpack6(addrs);
        pack6(dst, src)
    }

    #[inline(always)]
    fn source(addrs: [u64; 4]) -> AddressKey {
        unpack6(addrs).0
    }

    #[inline(always)]
    fn is_host(addrs: [u64; 4]) -> bool {
        let [first, ..] = addrs[0].to_ne_bytes();
        let [ninth, tenth, ..] = addrs[1].to_ne_bytes();
        // The first 80 bits are zero in the unspecified, the loopback and every mapped address.
        first != 0xff && (addrs[0] != 0 || ninth != 0 || tenth != 0)
    }
}

/// Where the client's packets come from on the cable: replies go back there.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Interface.
    pub ifindex: u32,
    /// The client's MAC or its router's.
    pub client_mac: [u8; 6],
    /// Ours.
    pub our_mac: [u8; 6],
}

/// The endpoint for a new flow of `packet`.
#[inline(always)]
pub fn endpoint<const K: usize, A: Addresses<K>, T: Tables>(
    tables: &T,
    settings: &Settings,
    id: ListenerId,
    listener: &Listener,
    flow_hash: u64,
    packet: &Parsed<K>,
) -> Result<EndpointId, Drop> {
    let table = tables.active(id, A::FAMILY);
    if table == TableId::EMPTY {
        return Err(Drop::NoEndpoint);
    }
    let hash = if listener.flags & Listener::SOURCE_IP != 0 {
        Sip::new(settings.seed).words(packet.tuple.addrs).finish()
    } else {
        flow_hash
    };
    let chosen = tables.choose(table, scale((hash >> 32) as u32, TABLE_SIZE as u32));
    chosen.filter(|&id| id != EndpointId::NONE).ok_or(Drop::NoEndpoint)
}

/// Makes both halves of a pair: the reply tuple is claimed first, and that claim is the allocation of the NAT port. Returns the
/// forward half.
#[inline(always)]
pub fn open<const K: usize, const W: usize, A: Addresses<K>, T: Tables + FlowMemory<K, W>>(
    tables: &T,
    settings: &Settings,
    service: Service,
    endpoint: EndpointId,
    flow_hash: u64,
    packet: &Parsed<K>,
    origin: Origin,
) -> Result<Flow<K>, Drop> {
    let now = tables.tick();
    let (Some(to), Some(listener)) = (tables.endpoint(endpoint), tables.listener(service.listener)) else {
        return Err(Drop::NoEndpoint);
    };
    // An array map has an entry for every id; one that was never put is all zero.
    if to.flags == 0 {
        return Err(Drop::NoEndpoint);
    }
    let Some(egress) = tables.egress(listener.instance) else { return Err(Drop::NoEgress) };
    let tuple = packet.tuple;
    let timeout_s = if tuple.protocol == TCP { SYN_TIMEOUT_S } else { listener.idle_timeout_s };
    let [e0, e1] = service.endpoint_port;
    let [c0, c1, v0, v1] = tuple.ports;

    let mut back = Flow {
        tuple,
        flags: Flow::<K>::RETURN,
        endpoint: endpoint.0,
        new_addrs: A::turned(tuple.addrs),
        new_ports: [v0, v1, c0, c1],
        ifindex: origin.ifindex,
        dst_mac: origin.client_mac,
        src_mac: origin.our_mac,
        timeout_s,
    };
    let mut draw = flow_hash as u32;
    let mut claimed = Err(Drop::NoPort);
    for _ in 0..NAT_RETRIES {
        draw = draw.wrapping_mul(0x915f_77f5).wrapping_add(0x9e37_79b9);
        let Some(addrs) = A::reply(&to.addr, egress, draw.rotate_left(16)) else { return Err(Drop::NoEgress) };
        let [p0, p1] = nat_port(settings, tables.cpu(), draw).to_be_bytes();
        back.tuple = Tuple { addrs, ports: [e0, e1, p0, p1], protocol: tuple.protocol };
        match put(tables, settings, hash(settings, &back.tuple), &back, NO_SLOT, now) {
            Ok(index) => {
                claimed = Ok(index);
                break;
            }
            // Further draws depend on the time: a SYN that is sent again must not meet the very same ports again.
            Err(PutError::Taken) => draw = draw.wrapping_add(now),
            Err(PutError::Full) => claimed = Err(Drop::FlowTableFull),
        }
    }
    let back_index = claimed?;

    let forward = Flow {
        tuple,
        flags: 0,
        endpoint: endpoint.0,
        new_addrs: A::turned(back.tuple.addrs),
        new_ports: [back.tuple.ports[2], back.tuple.ports[3], e0, e1],
        ifindex: 0,
        dst_mac: [0; 6],
        src_mac: [0; 6],
        timeout_s,
    };
    match put(tables, settings, flow_hash, &forward, back_index, now) {
        Ok(_) => Ok(forward),
        Err(PutError::Taken | PutError::Full) => {
            release::<K, W, T>(tables, back_index);
            Err(Drop::FlowTableFull)
        }
    }
}

/// The `draw`th port of this CPU: ports are dealt out to CPUs in turn, so that no two CPUs can claim the same one.
#[inline(always)]
fn nat_port(settings: &Settings, cpu: u32, draw: u32) -> u16 {
    let nth = scale(draw, u32::from(settings.nat_span)) * settings.cpus;
    settings.nat_first.wrapping_add((nth + cpu) as u16)
}
