//! Fragments to VIPs on which the agent serves listeners: the first one is judged by its ports, the others follow.

use std::net::{IpAddr, SocketAddr};

use etherparse::{Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice};

use super::{
    link::tags,
    segment::{TCP, UDP, Walked, ip_at, walk},
    site::Site,
};

/// A fragment.
pub(super) enum Piece {
    /// Not the first one.
    Later,
    /// Its header is cut off, or may be meant to lie over another's.
    Hidden,
    /// With the whole transport header.
    First {
        /// TCP or UDP.
        protocol: u8,
        /// Who sends it.
        src: IpAddr,
        /// Where it goes.
        dst: SocketAddr,
        /// It opens a TCP connection.
        opens: bool,
    },
}

/// A fragment that the agent may have to do with; its headers are known to hold together.
pub(super) fn read(frame: &[u8], site: &Site) -> Option<Piece> {
    let l3 = tags(frame).1 + 2;
    let bytes = frame.get(l3..).filter(|bytes| bytes.len() >= 20)?;
    let (src, dst, protocol, before, behind) = if bytes[0] >> 4 == 4 {
        let ip = Ipv4HeaderSlice::from_slice(bytes).ok()?;
        let behind = bytes.get(ip.slice().len()..usize::from(ip.total_len()))?;
        (ip_at(bytes, 12, true), ip_at(bytes, 16, true), ip.protocol().0, ip.fragments_offset().value(), behind)
    } else {
        let ip = Ipv6HeaderSlice::from_slice(bytes).ok()?;
        let end = l3 + 40 + usize::from(ip.payload_length());
        let Walked::Fragment(protocol, at) = walk(frame, ip.next_header().0, l3 + 40, end) else { return None };
        let fragment = Ipv6FragmentHeaderSlice::from_slice(frame.get(at..end)?).ok()?;
        (ip_at(bytes, 8, false), ip_at(bytes, 24, false), protocol, fragment.fragment_offset().value(), frame.get(at + 8..end)?)
    };
    let role = site.ours.get(&dst)?;
    let (is_served, least) = match protocol {
        TCP => (role.serves_tcp, 20),
        UDP => (role.serves_udp, 8),
        _ => return None,
    };
    if !is_served {
        return None;
    }
    Some(match usize::from(before) * 8 {
        0 if behind.len() < least => Piece::Hidden,
        0 => {
            let port = u16::from_be_bytes([behind[2], behind[3]]);
            let opens = protocol == TCP && behind[13] & 0x17 == 0x02;
            Piece::First { protocol, src, dst: SocketAddr::new(dst, port), opens }
        }
        offset if offset < least => Piece::Hidden,
        _ => Piece::Later,
    })
}
