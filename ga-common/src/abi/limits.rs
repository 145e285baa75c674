//! Every fixed capacity, with the memory it costs.

/// Layout number of everything in `abi`; a change of any layout or meaning raises it.
pub const ABI_VERSION: u32 = 3;

/// Entries of a selection table, a prime: 255:1 and 30/35/35 come out right. 131,074 bytes a table.
pub const TABLE_SIZE: usize = 65_537;

/// Instances an edge can hold. 168 bytes each.
pub const MAX_INSTANCES: u32 = 64;

/// Egress addresses of one family an instance can hold.
pub const MAX_EGRESS: usize = 8;

/// VIPs and egress addresses together. About 64 bytes each.
pub const MAX_ADDRESSES: u32 = 4_096;

/// (VIP, protocol, port) triples. About 64 bytes each.
pub const MAX_SERVICES: u32 = 131_072;

/// Listeners an edge can hold. 24 bytes each, and their drop counters.
pub const MAX_LISTENERS: u32 = 2_048;

/// Endpoint ids, retired ones included. 32 bytes each, and 40 bytes of counters a CPU.
pub const MAX_ENDPOINTS: u32 = 16_384;

/// Selection tables in use or being filled. 8 bytes each, plus the tables themselves.
pub const MAX_TABLES: u32 = 8_192;

/// Access lists of one family in use or being filled, the explicit empty one included. 8 bytes each, plus the lists themselves:
/// 140 kB each for IPv4, 560 kB for IPv6.
pub const MAX_ACLS: u32 = 512;

/// Sheets of custom routing in use or being filled, the explicit empty one included. 8 bytes each, plus the sheets themselves: 70 kB
/// each, however many ports they map.
pub const MAX_CUSTOM: u32 = 128;

/// Hosts behind custom routing whose next hop is known or wanted. About 72 bytes each that is.
pub const MAX_HOSTS: u32 = 16_384;

/// Seconds a UDP flow of custom routing is remembered without packets.
pub const CUSTOM_UDP_TIMEOUT_S: u16 = 20;

/// Distinct next hops (interface, MAC pair and VLAN tags). 20 bytes each.
pub const MAX_HOPS: u32 = 4_096;

/// Slots of a flow group: one group is searched before the other. One byte of a slot's hash each stands in the group's word of
/// tags.
pub const FLOW_WAYS: u32 = 8;

/// Words of the filter of our addresses; a power of two. 8 bytes each.
pub const FILTER_WORDS: u32 = 64;

/// Words of the filter of services whose endpoints answer clients themselves; a power of two. 8 bytes each.
pub const DIRECT_WORDS: u32 = 1_024;

/// Notes of SYNs of listeners whose flows are remembered only while something changes; a power of two. 8 bytes each: a flood of a
/// million SYNs a second leaves a note alone for a quarter of a second, and a handshake takes less.
pub const NOTES: u32 = 1 << 18;

/// Bytes by which the first segments of a connection may be ahead of its SYN.
pub const FIRST_BYTES: u32 = 1 << 16;

/// Words of the filter of endpoints that answer to clients' addresses by way of this edge; a power of two. 8 bytes each.
pub const GATEWAY_WORDS: u32 = 1_024;

/// Interfaces above this index are refused: a flow slot has 20 bits for one.
pub const MAX_IFINDEX: u32 = (1 << 20) - 1;

/// Tries to claim a NAT port before the packet is dropped.
pub const NAT_RETRIES: u32 = 16;

/// The last tries also take the ports of closed and of never answered flows.
pub const NAT_REUSING_RETRIES: u32 = 4;

/// Ticks (of 4.2 ms) for which a flow is safe from being evicted, answered or not.
pub const GRACE_TICKS: u32 = 24;

/// Ticks (of 4.2 ms) of silence before a repeated SYN counts as one: half a second. Clients wait a second (RFC 6298 section 2), and
/// whoever sends copies at once must not make an endpoint look dead.
pub const RETRY_TICKS: u32 = 119;

/// Places of a table that are looked at for an endpoint other than the one that did not answer.
pub const ELSEWHERE_TRIES: u32 = 16;

/// Places for the MTUs of interfaces and of VLANs on them; a power of two. 4 bytes each.
pub const MTU_PLACES: u32 = 1_024;

/// Senders of packets that are too big whom one CPU tells so in [`ADMISSION_TICKS`].
pub const TOLD_AT_ONCE: u32 = 250;

/// Ticks in which a listener's admissions are counted together.
pub const ADMISSION_TICKS: u32 = 64;

/// Seconds a TCP flow is remembered before its handshake is complete.
pub const SYN_TIMEOUT_S: u16 = 30;

/// Seconds a TCP flow is remembered after both FINs or a RST.
pub const CLOSING_TIMEOUT_S: u16 = 10;
