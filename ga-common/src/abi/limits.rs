//! Every fixed capacity, with the memory it costs.

/// Layout number of everything in `abi`; a change of any layout or meaning raises it.
pub const ABI_VERSION: u32 = 1;

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

/// Listeners an edge can hold. 16 bytes each, and their drop counters.
pub const MAX_LISTENERS: u32 = 2_048;

/// Endpoint ids, retired ones included. 32 bytes each, and 40 bytes of counters a CPU.
pub const MAX_ENDPOINTS: u32 = 16_384;

/// Selection tables in use or being filled. 8 bytes each, plus the tables themselves.
pub const MAX_TABLES: u32 = 8_192;

/// Distinct next hops (interface and MAC pair). 16 bytes each.
pub const MAX_HOPS: u32 = 4_096;

/// Slots of a flow group: one group is searched before the other.
pub const FLOW_WAYS: u32 = 8;

/// Tries to claim a NAT port before the packet is dropped.
pub const NAT_RETRIES: u32 = 16;

/// Seconds a TCP flow is remembered before its handshake is complete.
pub const SYN_TIMEOUT_S: u16 = 30;

/// Seconds a TCP flow is remembered after both FINs or a RST.
pub const CLOSING_TIMEOUT_S: u16 = 10;
