//! Values and keys of the maps that the agent writes and packets read.

use super::{
    id::{EndpointId, InstanceId, ListenerId},
    limits::{MAX_EGRESS, MTU_PLACES},
};

/// An address as map key: IPv6 as it is, IPv4 mapped (`::ffff:a.b.c.d`, RFC 4291 §2.5.5.2).
pub type AddressKey = [u8; 16];

/// The key of an IPv4 address.
#[inline(always)]
pub const fn mapped(v4: [u8; 4]) -> AddressKey {
    // As one number: an array of bytes is cleared byte by byte on the BPF target.
    (0xffff_0000_0000 | u32::from_be_bytes(v4) as u128).to_be_bytes()
}

/// An address in two words, as it lies in memory.
#[inline(always)]
pub const fn words(k: &AddressKey) -> [u64; 2] {
    [
        u64::from_ne_bytes([k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7]]),
        u64::from_ne_bytes([k[8], k[9], k[10], k[11], k[12], k[13], k[14], k[15]]),
    ]
}

/// The address of [`words`].
#[inline(always)]
pub const fn key([high, low]: [u64; 2]) -> AddressKey {
    let ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]) = (high.to_ne_bytes(), low.to_ne_bytes());
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// What one of our addresses is for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// [`Address::VIP`], [`Address::EGRESS`] and [`Address::CUSTOM`].
    pub roles: u8,
    /// Protocols that have a listener on this VIP: [`Address::TCP`], [`Address::UDP`]; and one that the agent serves:
    /// [`Address::HOST_TCP`], [`Address::HOST_UDP`].
    pub protocols: u8,
    /// Whose address it is.
    pub instance: InstanceId,
}

impl Address {
    /// Clients send to it.
    pub const VIP: u8 = 1;
    /// Endpoints answer to it.
    pub const EGRESS: u8 = 2;
    /// Ports without a service are asked for in the instance's custom routing.
    pub const CUSTOM: u8 = 4;
    /// Some TCP port of this VIP has a listener.
    pub const TCP: u8 = 1;
    /// Some UDP port of this VIP has a listener.
    pub const UDP: u8 = 2;
    /// The agent serves some TCP port of this VIP: fragments may be the host's.
    pub const HOST_TCP: u8 = 4;
    /// The same of UDP.
    pub const HOST_UDP: u8 = 8;
}

/// (VIP, port, protocol).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceKey {
    /// The VIP.
    pub addr: AddressKey,
    /// Network byte order.
    pub port: [u8; 2],
    /// IANA protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

/// Who serves a [`ServiceKey`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// The listener.
    pub listener: ListenerId,
    /// Port at the endpoint (port mapping applied), network byte order; zero where packets keep the port they came to, because
    /// endpoints answer clients themselves ([`Listener::L2`], [`Listener::IPIP`]); the port itself where the agent serves it
    /// ([`Listener::HOST`]).
    pub endpoint_port: [u8; 2],
}

impl Service {
    /// Whether the listener's endpoints answer clients themselves.
    #[inline(always)]
    pub const fn is_direct(self) -> bool {
        u16::from_ne_bytes(self.endpoint_port) == 0
    }
}

/// What packets must know of a listener.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listener {
    /// Whose egress addresses its flows take.
    pub instance: InstanceId,
    /// Idle timeout in seconds (RFC 5382 calls it the idle-timeout of the mapping).
    pub idle_timeout_s: u16,
    /// [`Listener::SOURCE_IP`], [`Listener::IN_USE`], [`Listener::L2`], [`Listener::IPIP`], [`Listener::STRICT`],
    /// [`Listener::GATEWAY`], [`Listener::HOST`], [`Listener::FORMER`].
    pub flags: u32,
    /// Stable hash of (instance, listener name): survives restarts and reordering.
    pub identity: u64,
    /// New flows a second that all CPUs together admit; 0 is [`Settings::admission`].
    pub admission: u32,
    /// Who may open flows: an [`AclWord`](super::sheet::AclWord).
    pub acl: u32,
}

impl Listener {
    /// Client affinity by source IP: the hash takes source and destination address only.
    pub const SOURCE_IP: u32 = 1;
    /// The entry belongs to the running plan.
    pub const IN_USE: u32 = 2;
    /// Custom routing: the port says which host, and hosts have their own next hops.
    pub const CUSTOM: u32 = 1 << 31;
    /// Packets go to the endpoint's MAC address as they came, and endpoints, which have the VIP too, answer clients themselves.
    pub const L2: u32 = 1 << 16;
    /// Packets go to the endpoint within an IP packet (RFC 2003, RFC 2473, RFC 4213); it answers clients itself.
    pub const IPIP: u32 = 1 << 17;
    /// Sources that the access lists keep out lose their flows too, where flows are not remembered.
    pub const STRICT: u32 = 1 << 18;
    /// Packets keep the client's address and port; endpoints answer to it by way of this edge.
    pub const GATEWAY: u32 = 1 << 19;
    /// The agent serves it: packets are let in or kept out, and pass to the host.
    pub const HOST: u32 = 1 << 20;
    /// The agent served it until a moment ago, and has connections of it: their segments pass to the host, new ones are flows.
    pub const FORMER: u32 = 1 << 21;
}

/// What packets must know of an endpoint.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is; all zero for a subnet, whose hosts are elsewhere each.
    pub addr: AddressKey,
    /// Whose endpoint it is.
    pub listener: ListenerId,
    /// The port it serves, network byte order; 0 is [`Service::endpoint_port`].
    pub port: [u8; 2],
    /// [`Endpoint::IN_USE`] or [`Endpoint::RETIRED`], [`Endpoint::GATEWAY`] and [`Endpoint::PASSED_OVER`].
    pub flags: u32,
    /// Stable hash of (instance, listener, group, type, address and port, if it has one of its own).
    pub identity: u64,
}

impl Endpoint {
    /// The entry belongs to the running plan.
    pub const IN_USE: u32 = 1;
    /// The entry was in use once; its id is not given away while flows may name it.
    pub const RETIRED: u32 = 2;
    /// Some of its flows may keep their client's address: what it sends to anybody may be an answer.
    pub const GATEWAY: u32 = 4;
    /// No new flows are given to it. Told only where the path cannot tell new flows from others: of UDP that is answered directly.
    pub const PASSED_OVER: u32 = 8;

    /// Whether the entry belongs to the running plan.
    #[inline(always)]
    pub const fn is_in_use(&self) -> bool {
        self.flags & Self::IN_USE != 0
    }

    /// Whether what it sends to anybody may be an answer.
    #[inline(always)]
    pub const fn is_gateway(&self) -> bool {
        self.flags & Self::GATEWAY != 0
    }

    /// The same entry, kept for its flows only.
    #[inline(always)]
    pub const fn retired(self) -> Self {
        Self { flags: Self::RETIRED | self.flags & Self::GATEWAY, ..self }
    }

    /// The port that flows of `service` reach this endpoint at: its own, if it has one.
    #[inline(always)]
    pub fn port_of(&self, service: Service) -> [u8; 2] {
        if self.port == [0, 0] { service.endpoint_port } else { self.port }
    }
}

/// An instance's egress addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// How many of `v4` are set.
    pub count4: u16,
    /// How many of `v6` are set.
    pub count6: u16,
    /// Number of the instance's sheet of custom routing; 0 is none.
    pub custom: u32,
    /// IPv4 addresses.
    pub v4: [[u8; 4]; MAX_EGRESS],
    /// IPv6 addresses.
    pub v6: [[u8; 16]; MAX_EGRESS],
}

/// A next hop; never changed while an endpoint names it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// The neighbour's MAC address.
    pub dst_mac: [u8; 6],
    /// The MAC address of our interface.
    pub src_mac: [u8; 6],
    /// Our interface.
    pub ifindex: u32,
    /// VLAN tags on that way, packed.
    pub tags: u32,
}

/// Where the MTU of packets is that leave by an interface with these VLAN tags, packed. What shares a place with others has the least
/// MTU of them: packets that would fit are told to be shorter then.
#[inline(always)]
pub const fn mtu_place(ifindex: u32, tags: u32) -> u32 {
    (ifindex ^ tags.wrapping_mul(0x9e37_79b1) >> 22) & (MTU_PLACES - 1)
}

/// The one record that holds for all packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// [`ABI_VERSION`](super::limits::ABI_VERSION) of whoever made the maps.
    pub abi: u32,
    /// CPUs that share the NAT ports.
    pub cpus: u32,
    /// Key of the one hash; equal on all edges of a fleet.
    pub seed: [u64; 2],
    /// The plan that is running.
    pub generation: u64,
    /// Slots of the IPv4 flow table minus one (a power of two minus one).
    pub flow4_mask: u32,
    /// Slots of the IPv6 flow table minus one.
    pub flow6_mask: u32,
    /// First NAT port.
    pub nat_first: u16,
    /// NAT ports of one CPU: port = first + n * cpus + cpu, n below this.
    pub nat_span: u16,
    /// New flows a second of a listener that says nothing of its own; 0 is no bound.
    pub admission: u32,
    /// [`Settings::DIRECT`], [`Settings::GATEWAY`].
    pub features: u64,
}

impl Settings {
    /// Some service is in the filter of those whose endpoints answer clients themselves.
    pub const DIRECT: u64 = 1;
    /// Some endpoint is in the filter of those that answer to clients' addresses by way of this edge.
    pub const GATEWAY: u64 = 2;
}

/// What is counted for an endpoint, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointCounters {
    /// Packets from clients.
    pub forward_packets: u64,
    /// Bytes of frames from clients.
    pub forward_bytes: u64,
    /// Packets to clients.
    pub return_packets: u64,
    /// Bytes of frames to clients.
    pub return_bytes: u64,
    /// Flows that chose this endpoint.
    pub new_flows: u64,
    /// Flows that it did not answer, or that it could not be reached for.
    pub failures: u64,
}

/// What is counted for a listener that the agent serves, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServedCounters {
    /// Packets from clients that were let in.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// Those that open a TCP connection.
    pub openings: u64,
}

/// One selection table.
pub type SelectionTable = [EndpointId; super::limits::TABLE_SIZE];

const _: () = {
    assert!(size_of::<Address>() == 4);
    assert!(size_of::<ServiceKey>() == 20);
    assert!(size_of::<Service>() == 4);
    assert!(size_of::<Listener>() == 24);
    assert!(size_of::<Endpoint>() == 32);
    assert!(size_of::<Egress>() == 168);
    assert!(size_of::<Hop>() == 20);
    assert!(size_of::<Settings>() == 56);
    assert!(size_of::<EndpointCounters>() == 48);
    assert!(size_of::<ServedCounters>() == 24);
};
