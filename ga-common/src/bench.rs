//! What the benchmark tells its kernel programs. No part of the product reads this.

/// Words of a frame that are put back before every packet.
pub const WORDS: usize = 10;

/// Programs a packet can be handed to, as places in the array of programs.
pub mod target {
    /// The product's program.
    pub const GA: u32 = 0;
    /// Parses and swaps the MAC addresses.
    pub const SWAP: u32 = 1;
    /// The same, and one look into a hash table.
    pub const LOOKUP: u32 = 2;
    /// Puts the packet's key into that hash table.
    pub const INSERT: u32 = 3;
    /// Rewrites the MAC addresses and redirects, always the same way.
    pub const REDIRECT: u32 = 4;
    /// Sends the frame out of where it came in.
    pub const OUT: u32 = 5;
    /// How many there are.
    pub const COUNT: usize = 6;
}

/// How a packet's flow is drawn.
pub mod order {
    /// One after the other, ever new.
    pub const SEQUENCE: u32 = 0;
    /// The list holds numbers of flows; it is walked round and round.
    pub const NUMBERS: u32 = 1;
    /// The list holds tuples; it is walked round and round.
    pub const TUPLES: u32 = 2;
    /// Always the same frame.
    pub const FIXED: u32 = 3;
}

/// The load of one run.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// The frame of flow 0.
    pub frame: [u64; WORDS],
    /// Packets so far.
    pub count: u64,
    /// Lookups that found nothing; packets that nobody took.
    pub misses: u64,
    /// Last 32 bits of the source address of flow 0; flow `n` adds `n >> 14`, and `n` modulo 2^14 is its source port.
    pub source: u32,
    /// How many entries of the list there are.
    pub flows: u32,
    /// One of [`order`].
    pub order: u32,
    /// One of [`target`].
    pub target: u32,
    /// Where the redirecting program sends frames.
    pub ifindex: u32,
    /// Zero.
    pub pad: u32,
    /// New destination and source MAC of the redirecting program.
    pub macs: [u8; 12],
    /// Zero.
    pub pad2: u32,
}

/// An entry of the list: the number of a flow, or a tuple: source and destination address, source and destination port, as they lie in an IPv4 frame.
pub type Listed = [u64; 2];

/// Lowest source port.
pub const FIRST_PORT: u32 = 1024;
/// Flows of one source address, as a power of two.
pub const PORT_BITS: u32 = 14;

const _: () = assert!(size_of::<Load>() == WORDS * 8 + 56);

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, integers only, and no padding: the size is asserted above.
unsafe impl aya::Pod for Load {}
