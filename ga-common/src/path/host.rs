//! Listeners that the agent serves itself: here their packets are let in or kept out, and go to the host as they came.
//!
//! Nothing is remembered of them, for the connections are the host's. Access lists are asked about segments that open a connection
//! and about every UDP packet, as nobody knows which one is the first of its flow; where established flows are to be ended, about
//! every packet.
//!
//! Fragments of IPv4 are let in too: the first one shows the ports, and is judged as the whole packet would be; the others are nothing
//! without it.

use core::mem::offset_of;

use network_types::{ip::Ipv4Hdr, tcp::TcpHdr};

use super::{
    NOT_READY, OTHER_PROTOCOL, TRUNCATED, direct,
    explain::Stage,
    link::{self, Link},
    parse,
    select::{self, Addresses, V4},
    tables::{FlowMemory, Scratch, Tables},
    verdict::Outcome,
};
use crate::{
    abi::{
        entry::{Address, Listener, ServiceKey, mapped},
        flow::{Tuple, pack4},
        id::ListenerId,
        reason::{Drop, Pass},
    },
    wire::frame::{ETHERTYPE_IPV4, Frame, TCP, UDP},
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

#[inline(always)]
fn judge<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Option<Outcome> {
    let Link { ether_type: ETHERTYPE_IPV4, tags } = link::read(frame)? else { return None };
    let (l3, bytes) = (tags.l3(), frame.len() as u64);
    let ip = frame.window::<20>(l3)?;
    const FRAGS: usize = offset_of!(Ipv4Hdr, frags);
    let (vihl, total) = (ip[0], usize::from(u16::from_be_bytes([ip[2], ip[3]])));
    let (fragment, protocol) = (u16::from_be_bytes([ip[FRAGS], ip[FRAGS + 1]]) & 0x3fff, ip[9]);
    let (src, dst) = ([ip[12], ip[13], ip[14], ip[15]], [ip[16], ip[17], ip[18], ip[19]]);
    // Headers that do not hold together were dropped before.
    let header = usize::from(vihl & 0x0f) * 4;
    let (shortest, bit) = match protocol {
        TCP => (20, Address::HOST_TCP),
        UDP => (8, Address::HOST_UDP),
        _ => return None,
    };
    let Some(mut room) = FlowMemory::<1, 6>::room(tables) else { return Some(TRUNCATED) };
    let room = &mut *room;
    room.key = ServiceKey { addr: mapped(dst), port: [0; 2], protocol, pad: 0 };
    if fragment == 0 || tables.address(&room.key.addr)?.protocols & bit == 0 {
        return None;
    }
    let offset = usize::from(fragment & 0x1fff) * 8;
    // Those that hide a header, or lie over one, are nobody's (RFC 1858 section 3, RFC 3128).
    if offset != 0 {
        return Some(if offset < shortest { NOBODYS } else { Outcome::served(ListenerId::NONE) });
    }
    if total < header + shortest {
        return Some(NOBODYS);
    }
    let (ports, flags) = if protocol == TCP {
        let tcp = frame.window::<20>(l3 + header)?;
        ([tcp[0], tcp[1], tcp[2], tcp[3]], tcp[offset_of!(TcpHdr, _bitfield_1) + 1])
    } else {
        let udp = frame.window::<8>(l3 + header)?;
        ([udp[0], udp[1], udp[2], udp[3]], 0)
    };
    room.packet.tuple = Tuple { addrs: pack4(src, dst), ports, protocol };
    room.packet.flags = flags;
    room.key.port = [ports[2], ports[3]];
    let Some(service) = tables.service(&room.key) else { return Some(NOBODYS) };
    if tables.listener(service.listener).is_none_or(|listener| listener.flags & Listener::HOST == 0) {
        return Some(NOBODYS);
    }
    tables.explain(|| Stage::service(service));
    room.service = service;
    room.key.addr = mapped(src);
    let is_ours = parse::is_maybe_ours(tables, &room.key.addr) && tables.address(&room.key.addr).is_some();
    if is_ours || !V4::is_host(room.packet.tuple.addrs) {
        return Some(Outcome::pass(Pass::Martian));
    }
    Some(enter(tables, room, bytes))
}
