//! Tells both sides of an idle TCP flow that it is over: a RST whose sequence number is exactly what the receiver expects next,
//! because nothing else is believed (RFC 5961 §3.2).

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use etherparse::PacketBuilder;
use socket2::{Domain, Protocol, Socket, Type};

use crate::maps::Idle;

/// Raw sockets, opened while the capability is there.
#[derive(Debug)]
pub(super) struct Resets {
    v4: Socket,
    v6: Socket,
}

/// `IPPROTO_RAW`: we write the IP header ourselves, for both families.
const IPPROTO_RAW: i32 = 255;
const TTL: u8 = 64;

impl Resets {
    pub(super) fn open() -> io::Result<Self> {
        let open = |domain| -> io::Result<Socket> {
            let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(IPPROTO_RAW)))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        Ok(Self { v4: open(Domain::IPV4)?, v6: open(Domain::IPV6)? })
    }

    /// Resets the client's side and the endpoint's.
    pub(super) fn send(&self, idle: &Idle) -> io::Result<()> {
        self.one(idle.vip, idle.client, idle.to_client)?;
        self.one(idle.egress, idle.endpoint, idle.to_endpoint)
    }

    fn one(&self, from: (IpAddr, u16), to: (IpAddr, u16), sequence: u32) -> io::Result<()> {
        let (builder, socket) = match (from.0, to.0) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => (PacketBuilder::ipv4(src.octets(), dst.octets(), TTL), &self.v4),
            (IpAddr::V6(src), IpAddr::V6(dst)) => (PacketBuilder::ipv6(src.octets(), dst.octets(), TTL), &self.v6),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return Ok(()),
        };
        let packet = builder.tcp(from.1, to.1, sequence, 0).rst();
        let mut bytes = Vec::with_capacity(packet.size(0));
        packet.write(&mut bytes, &[]).map_err(io::Error::other)?;
        // Port 0: a raw IPv6 socket refuses any other.
        socket.send_to(&bytes, &SocketAddr::new(to.0, 0).into()).map(|_sent| ())
    }
}
