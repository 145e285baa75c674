//! Listeners that the agent serves itself: here their packets are let in or kept out, and go to the host as they came.
//!
//! Nothing is remembered of them, for the connections are the host's. Access lists are asked about segments that open a connection
//! and about every UDP packet, as nobody knows which one is the first of its flow; where established flows are to be ended, about
//! every packet.
//!
//! Fragments are let in too: the first one shows the ports, and is judged as the whole packet would be; the others are nothing without
//! it.

use core::mem::offset_of;

use network_types::{ip::Ipv4Hdr, tcp::TcpHdr};

use super::{
    NOT_READY, OTHER_PROTOCOL, direct,
    explain::Stage,
    link::{self, Link},
    parse,
    select::{self, Addresses, V4, V6},
    tables::{FlowMemory, Scratch, Tables},
    verdict::Outcome,
};
use crate::{
    abi::{
        entry::{Address, Listener, ServiceKey},
        flow::{pack4, pack6},
        id::ListenerId,
        reason::{Drop, Pass},
    },
    wire::frame::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, MAX_OFFSET, TCP, UDP, ipv6},
};

/// Decides about a packet, `bytes` long, for such a listener; the service is in its room, and its source is the key there.
#[inline(never)]
pub(super) fn enter<const K: usize, T: Tables>(tables: &T, room: &Scratch<K>, bytes: u64) -> Outcome {
    let id = room.service.listener;
    let (Some(settings), Some(listener)) = (tables.settings(), tables.listener(id)) else { return NOT_READY };
    let is_opening = direct::opens(&room.packet);
    if listener.acl != 0
        && (is_opening || room.packet.tuple.protocol != TCP || listener.flags & Listener::STRICT != 0)
        && tables.denies(listener.acl, &room.key.addr)
    {
        tables.explain(|| Stage::denied(id));
        return Outcome::drop(Drop::Acl, id);
    }
    // No flow memory is used up: only a bound that somebody set counts.
    if is_opening && listener.admission != 0 && !select::admits(tables, settings, id, listener) {
        return Outcome::drop(Drop::Admission, id);
    }
    if !T::DRY {
        tables.count_served(id, is_opening, bytes);
    }
    Outcome::served(id)
}

/// A fragment for nobody whom the agent serves, or one that may hide what it is.
const NOBODYS: Outcome = Outcome::drop(Drop::Fragment, ListenerId::NONE);

/// Decides about a fragment to a VIP on which the agent serves some listener of its protocol; what else there is stays
/// [`OTHER_PROTOCOL`].
#[inline(always)]
pub fn piece<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Outcome {
    judge(frame, tables).unwrap_or(OTHER_PROTOCOL)
}

/// A fragment of TCP or UDP, whose headers hold together.
#[derive(Clone, Copy)]
struct Piece {
    protocol: u8,
    /// Offset of what it carries.
    l4: usize,
    /// Bytes of that.
    length: usize,
    /// How many bytes come before those in the whole packet.
    before: usize,
}

#[inline(always)]
fn judge<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Option<Outcome> {
    let Link { ether_type, tags } = link::read(frame)?;
    match ether_type {
        ETHERTYPE_IPV4 => {
            let mut room = FlowMemory::<1, 6>::room(tables)?;
            let piece = v4(frame, tags.l3(), &mut room.packet.tuple.addrs)?;
            decide::<1, V4, F, T>(frame, tables, &mut room, piece)
        }
        ETHERTYPE_IPV6 => {
            let mut room = FlowMemory::<4, 14>::room(tables)?;
            let piece = v6(frame, tags.l3(), &mut room.packet.tuple.addrs)?;
            decide::<4, V6, F, T>(frame, tables, &mut room, piece)
        }
        _ => None,
    }
}

#[inline(always)]
fn v4<F: Frame>(frame: &mut F, l3: usize, addrs: &mut [u64; 1]) -> Option<Piece> {
    let ip = frame.window::<20>(l3)?;
    const FRAGS: usize = offset_of!(Ipv4Hdr, frags);
    let (header, total) = (usize::from(ip[0] & 0x0f) * 4, usize::from(u16::from_be_bytes([ip[2], ip[3]])));
    let fragment = u16::from_be_bytes([ip[FRAGS], ip[FRAGS + 1]]) & 0x3fff;
    *addrs = pack4([ip[12], ip[13], ip[14], ip[15]], [ip[16], ip[17], ip[18], ip[19]]);
    let before = usize::from(fragment & 0x1fff) * 8;
    let piece = Piece { protocol: ip[9], l4: l3 + header, length: total.saturating_sub(header), before };
    if fragment == 0 { None } else { Some(piece) }
}

#[inline(always)]
fn v6<F: Frame>(frame: &mut F, l3: usize, addrs: &mut [u64; 4]) -> Option<Piece> {
    let bytes = frame.len();
    let ip = ipv6(frame, l3)?;
    let (version, next, end) = (ip.vcf[0] >> 4, ip.next_hdr, l3 + 40 + usize::from(u16::from_be_bytes(ip.payload_len)));
    *addrs = pack6(ip.src_addr, ip.dst_addr);
    // To whoever looks at the first header only, what is malformed is of no protocol of ours.
    if version != 6 || end > bytes {
        return None;
    }
    let upper = frame.walk(next, l3 + 40, end);
    let at = upper.offset();
    if !upper.is_fragment() || at > MAX_OFFSET {
        return None;
    }
    let &mut [_, _, o0, o1, ..] = frame.window::<8>(at)?;
    // RFC 8200 section 4.5: units of eight bytes, and three other bits behind them.
    let before = usize::from(u16::from_be_bytes([o0, o1]) & 0xfff8);
    Some(Piece { protocol: upper.protocol(), l4: at + 8, length: end.saturating_sub(at + 8), before })
}

/// Decides about `piece`, whose addresses are in its room.
#[inline(always)]
fn decide<const K: usize, A: Addresses<K>, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    room: &mut Scratch<K>,
    piece: Piece,
) -> Option<Outcome> {
    let Piece { protocol, l4, length, before } = piece;
    let (shortest, bit) = match protocol {
        TCP => (20, Address::HOST_TCP),
        UDP => (8, Address::HOST_UDP),
        _ => return None,
    };
    let addrs = room.packet.tuple.addrs;
    room.key = ServiceKey { addr: A::destination(addrs), port: [0; 2], protocol, pad: 0 };
    if tables.address(&room.key.addr)?.protocols & bit == 0 {
        return None;
    }
    // Those that hide a header, or lie over one, are nobody's (RFC 1858 section 3, RFC 3128).
    if before != 0 {
        return Some(if before < shortest { NOBODYS } else { Outcome::served(ListenerId::NONE) });
    }
    if length < shortest {
        return Some(NOBODYS);
    }
    let bytes = frame.len() as u64;
    let (ports, flags) = if protocol == TCP {
        let tcp = frame.window::<20>(l4)?;
        ([tcp[0], tcp[1], tcp[2], tcp[3]], tcp[offset_of!(TcpHdr, _bitfield_1) + 1])
    } else {
        let udp = frame.window::<8>(l4)?;
        ([udp[0], udp[1], udp[2], udp[3]], 0)
    };
    (room.packet.tuple.ports, room.packet.tuple.protocol, room.packet.flags) = (ports, protocol, flags);
    room.key.port = [ports[2], ports[3]];
    let Some(service) = tables.service(&room.key) else { return Some(NOBODYS) };
    if tables.listener(service.listener).is_none_or(|listener| listener.flags & Listener::HOST == 0) {
        return Some(NOBODYS);
    }
    tables.explain(|| Stage::service(service));
    room.service = service;
    room.key.addr = A::source(addrs);
    let is_ours = parse::is_maybe_ours(tables, &room.key.addr) && tables.address(&room.key.addr).is_some();
    if is_ours || !A::is_host(addrs) {
        return Some(Outcome::pass(Pass::Martian));
    }
    Some(enter(tables, room, bytes))
}
