//! The sheet of custom routing: which port of an instance leads where. Its size is the same for ten ports and for all of them.
//!
//! Ports are found among ascending ranges. A range belongs to a block: a subnet whose hosts have the ports of the block's
//! destinations, host by host. How many of the block's ports come before a port says the rest by division.

use core::hint::black_box;

use super::{id::EndpointId, limits::MAX_ENDPOINTS};

/// Ranges of ports that lead somewhere, or nowhere, in a sheet; a power of two.
pub const MAX_RANGES: usize = 4_096;
/// Blocks of a sheet; a power of two.
pub const MAX_BLOCKS: usize = 1_024;
/// Destinations of all blocks of a sheet together; a power of two.
pub const MAX_DESTINATIONS: usize = 4_096;
/// Destinations of one block.
pub const MAX_DESTINATIONS_OF_A_BLOCK: usize = 128;

/// Neighbouring ports of one block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Index of the block, and [`Range::DENIED`]; [`Range::NOTHING`] where the ports lead nowhere.
    pub block: u16,
    /// How many of the block's ports come before the first of the range.
    pub position: u16,
}

impl Range {
    /// The ports lead nowhere.
    pub const NOTHING: u16 = u16::MAX;
    /// Packets to these ports are dropped.
    pub const DENIED: u16 = 1 << 15;
}

/// Hosts that ports lead to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// The first host, host order.
    pub first: u32,
    /// Ports of a host.
    pub width: u16,
    /// The subnet.
    pub endpoint: EndpointId,
    /// Index of its first destination.
    pub destination: u16,
    /// How many it has.
    pub destinations: u16,
}

/// Ports of every host of a block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// How many ports of a host come before these.
    pub before: u16,
    /// The first of them.
    pub port: u16,
    /// [`Target::TCP`] and [`Target::UDP`].
    pub protocols: u32,
}

impl Target {
    /// TCP is forwarded.
    pub const TCP: u32 = 1;
    /// UDP is forwarded.
    pub const UDP: u32 = 2;
}

/// All of an instance: 69,632 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The first port of each range, ascending; behind the last one, a port that no listener has.
    pub starts: [u16; MAX_RANGES],
    /// The ranges.
    pub ranges: [Range; MAX_RANGES],
    /// The blocks.
    pub blocks: [Block; MAX_BLOCKS],
    /// Their destinations.
    pub targets: [Target; MAX_DESTINATIONS],
}

const _: () = assert!(size_of::<Mapping>() == 69_632);

/// Where a port leads, in one word.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found(pub u64);

impl Found {
    /// Nowhere.
    pub const NOWHERE: Self = Self(0);
    const ALLOWED: u64 = 1 << 62;
    const DENIED: u64 = 2 << 62;

    const fn new(endpoint: EndpointId, host: u32, port: u16, is_denied: bool) -> Self {
        const { assert!(MAX_ENDPOINTS <= 1 << 14) };
        let kind = if is_denied { Self::DENIED } else { Self::ALLOWED };
        Self(kind | ((endpoint.0 as u64) & 0x3fff) << 48 | (host as u64) << 16 | port as u64)
    }

    /// It leads to a host that packets may not reach.
    #[inline(always)]
    pub const fn is_denied(self) -> bool {
        self.0 & Self::DENIED != 0
    }

    /// The subnet.
    #[inline(always)]
    pub const fn endpoint(self) -> EndpointId {
        EndpointId((self.0 >> 48) as u16 & 0x3fff)
    }

    /// The host.
    #[inline(always)]
    pub const fn host(self) -> [u8; 4] {
        ((self.0 >> 16) as u32).to_be_bytes()
    }

    /// Its port.
    #[inline(always)]
    pub const fn port(self) -> [u8; 2] {
        (self.0 as u16).to_be_bytes()
    }
}

impl Mapping {
    /// No port leads anywhere.
    pub const NOTHING: Self = Self {
        starts: [u16::MAX; MAX_RANGES],
        ranges: [Range { block: Range::NOTHING, position: 0 }; MAX_RANGES],
        blocks: [Block { first: 0, width: 0, endpoint: EndpointId(0), destination: 0, destinations: 0 }; MAX_BLOCKS],
        targets: [Target { before: 0, port: 0, protocols: 0 }; MAX_DESTINATIONS],
    };

    /// Where `port` leads for packets of `protocol`, one bit of [`Target::protocols`].
    #[inline(always)]
    pub fn find(&self, port: u16, protocol: u32) -> Found {
        // The last range that begins at or below the port. Without branches: each would double the ways that the verifier goes.
        let mut at = 0;
        let mut step = MAX_RANGES / 2;
        while step > 0 {
            at += step * is_at_most(self.starts[(at + step) & (MAX_RANGES - 1)], port);
            step /= 2;
        }
        let at = at & (MAX_RANGES - 1);
        let (start, Range { block, position }) = (self.starts[at], self.ranges[at]);
        if block == Range::NOTHING || start > port {
            return Found::NOWHERE;
        }
        let is_denied = block & Range::DENIED != 0;
        let block = &self.blocks[usize::from(block) & (MAX_BLOCKS - 1)];
        let position = u32::from(position) + u32::from(port - start);
        let Some(host) = position.checked_div(u32::from(block.width)) else { return Found::NOWHERE };
        let rest = (position - host * u32::from(block.width)) as u16;
        let (first, mut nth) = (usize::from(block.destination), 0);
        let mut step = MAX_DESTINATIONS_OF_A_BLOCK / 2;
        while step > 0 {
            let next = nth + step;
            let is_in = is_at_most(next as u16, block.destinations.wrapping_sub(1));
            nth += step * (is_in & is_at_most(self.targets[(first + next) & (MAX_DESTINATIONS - 1)].before, rest));
            step /= 2;
        }
        let target = &self.targets[(first + nth) & (MAX_DESTINATIONS - 1)];
        if target.protocols & protocol == 0 {
            return Found::NOWHERE;
        }
        let port = target.port.wrapping_add(rest.wrapping_sub(target.before));
        Found::new(block.endpoint, block.first.wrapping_add(host), port, is_denied)
    }
}

/// 1 when `a` is not above `b`, else 0.
#[inline(always)]
fn is_at_most(a: u16, b: u16) -> usize {
    // Hidden from the compiler as a whole: of what it knows to be 0 or 1 it makes a branch.
    black_box((black_box(u64::from(b).wrapping_sub(u64::from(a))) >> 63 ^ 1) as usize)
}
