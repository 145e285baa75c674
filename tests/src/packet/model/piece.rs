//! Fragments to VIPs on which the agent serves listeners: the first one is judged by its ports, the others follow.

use std::net::{IpAddr, SocketAddr};

use etherparse::Ipv4HeaderSlice;

use super::{
    link::tags,
    segment::{TCP, UDP, ip_at},
    site::Site,
};

/// A fragment of IPv4.
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
    let at = tags(frame).1 + 2;
    let bytes = frame.get(at..).filter(|bytes| bytes.len() >= 20 && bytes[0] >> 4 == 4)?;
    let (src, dst) = (ip_at(bytes, 12, true), ip_at(bytes, 16, true));
    let ip = Ipv4HeaderSlice::from_slice(bytes).ok()?;
    let (role, protocol) = (site.ours.get(&dst)?, ip.protocol().0);
    let (is_served, least) = match protocol {
        TCP => (role.serves_tcp, 20),
        UDP => (role.serves_udp, 8),
        _ => return None,
    };
    if !is_served {
        return None;
    }
    let behind = bytes.get(ip.slice().len()..usize::from(ip.total_len()))?;
    Some(match usize::from(ip.fragments_offset().value()) * 8 {
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
