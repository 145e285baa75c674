//! What becomes of a packet.

use core::fmt;

use super::tables::Direction;
use crate::{
    abi::{
        family::Family,
        id::ListenerId,
        reason::{Drop, Pass},
    },
    wire::vlan::Tags,
};

/// The decision; the kernel program turns it into an XDP action and a counter in one exhaustive match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To the host's own stack, byte for byte as it came.
    Pass(Pass),
    /// Away with it, counted.
    Drop(Drop),
    /// Out by this interface, rewritten.
    Send(u32),
}

/// What is to be decided about a packet that two families are concerned in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It is one of the flow in this slot.
    Crosses(u32),
    /// It opens a flow.
    Opens,
    /// It is an ICMP error about a flow.
    Tells,
    /// It is one that is to be translated, and goes that way.
    Reports(Direction),
    /// It is to be translated, and goes that way.
    Becomes(Direction),
}

/// A verdict and the listener it is counted for, in one register: reason or interface, listener, kind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Outcome(u64);

impl Outcome {
    const DROP: u64 = 1 << 48;
    const SEND: u64 = 2 << 48;
    const KIND: u64 = 3 << 48;

    /// A dropped packet made way for an answer in its frame.
    const ANSWERED: u64 = 1 << 50;

    /// The MTU is beside the reason.
    const MTU_SHIFT: u32 = 8;

    /// Not decided: the packet belongs to no known flow.
    pub(super) const UNKNOWN: Self = Self(Self::KIND);

    /// Not decided: the packet opens a flow that keeps its client's address.
    pub(super) const KEEPS: Self = Self(Self::KIND | 1);

    /// Not decided: for a listener whose endpoints answer clients themselves. The number is the packet's VLAN tags.
    const DIRECT: u64 = 1 << 63;
    const SIX: u64 = 1 << 62;

    /// What is to be looked at again by [`cross`](super::cross), and as what.
    const ACROSS: u64 = 1 << 52;
    const WHAT: u64 = 7 * Self::ACROSS;
    const CROSSES: u64 = Self::KIND | Self::ACROSS;
    const OPENS: u64 = Self::KIND | (2 * Self::ACROSS);
    const TELLS: u64 = Self::KIND | (3 * Self::ACROSS);
    const BECOMES: u64 = Self::KIND | (4 * Self::ACROSS);
    const REPORTS: u64 = Self::KIND | (5 * Self::ACROSS);

    /// Not decided: the packet, of `family`, is one of the flow in slot `index`, whose other half is in the other family's table.
    pub(super) const fn crosses(family: Family, index: u32) -> Self {
        Self(Self::CROSSES | (family as u64) << 32 | index as u64)
    }

    /// Not decided: the packet, of `family`, opens a flow to an endpoint of the other one.
    pub(super) const fn opens_across(family: Family) -> Self {
        Self(Self::OPENS | (family as u64) << 32)
    }

    /// Not decided: the packet, of `family`, is an ICMP error about a flow whose other half is in the other family's table.
    pub(super) const fn tells_across(family: Family) -> Self {
        Self(Self::TELLS | (family as u64) << 32)
    }

    /// The packet, of `family`, is to become one of the other family, and goes that way.
    pub(super) const fn becomes_other(family: Family, direction: Direction) -> Self {
        Self(Self::BECOMES | (family as u64) << 32 | direction as u64)
    }

    /// The packet, of `family`, is an ICMP error that is to become one of the other family, and goes that way.
    pub(super) const fn reports_across(family: Family, direction: Direction) -> Self {
        Self(Self::REPORTS | (family as u64) << 32 | direction as u64)
    }

    /// Whether [`cross`](super::cross) is to decide.
    #[inline(always)]
    pub const fn is_across(self) -> bool {
        self.0 & Self::WHAT != 0
    }

    /// What [`cross`](super::cross) is to decide about a packet of which family.
    #[inline(always)]
    pub(super) const fn wanted(self) -> (Asked, Family) {
        let family = if self.0 >> 32 & 1 == 0 { Family::V4 } else { Family::V6 };
        let direction = if self.0 as u32 == 0 { Direction::Forward } else { Direction::Return };
        let asked = match self.0 & (Self::WHAT | Self::KIND) {
            Self::CROSSES => Asked::Crosses(self.0 as u32),
            Self::OPENS => Asked::Opens,
            Self::TELLS => Asked::Tells,
            Self::REPORTS => Asked::Reports(direction),
            _ => Asked::Becomes(direction),
        };
        (asked, family)
    }

    const fn new(kind: u64, number: u32, listener: ListenerId) -> Self {
        Self(kind | (listener.0 as u64) << 32 | number as u64)
    }

    /// From what [`Self::bits`] gave.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// As a number.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Passed; no listener is concerned.
    #[inline(always)]
    pub const fn pass(reason: Pass) -> Self {
        Self::new(0, reason as u32, ListenerId::NONE)
    }

    /// Passed to the proxy of `listener`, which the agent serves.
    #[inline(always)]
    pub const fn served(listener: ListenerId) -> Self {
        Self::new(0, Pass::Served as u32, listener)
    }

    /// Dropped on account of `listener`.
    #[inline(always)]
    pub const fn drop(reason: Drop, listener: ListenerId) -> Self {
        Self::new(Self::DROP, reason as u32, listener)
    }

    /// Dropped, for packets must not be longer than `mtu` bytes; 0 where no sender is to be told.
    #[inline(always)]
    pub const fn too_big(listener: ListenerId, mtu: u16) -> Self {
        Self::new(Self::DROP, Drop::TooBig as u32 | (mtu as u32) << Self::MTU_SHIFT, listener)
    }

    /// What [`Self::too_big`] was told.
    #[inline(always)]
    pub(super) const fn mtu(self) -> u16 {
        (self.0 >> Self::MTU_SHIFT) as u16
    }

    /// The same of a dropped packet whose frame holds an answer by now, to be sent where the packet came from.
    #[inline(always)]
    pub const fn answered(self) -> Self {
        Self(self.0 | Self::ANSWERED)
    }

    /// Whether it is [`Self::answered`].
    #[inline(always)]
    pub const fn is_answered(self) -> bool {
        self.0 & Self::ANSWERED != 0
    }

    /// Sent out of an interface.
    #[inline(always)]
    pub const fn send(ifindex: u32) -> Self {
        Self::new(Self::SEND, ifindex, ListenerId::NONE)
    }

    /// Not decided: [`direct::packet`](super::direct::packet) does, for a packet with these tags.
    #[inline(always)]
    pub(super) const fn direct(listener: ListenerId, family: Family, tags: Tags) -> Self {
        let six = if matches!(family, Family::V6) { Self::SIX } else { 0 };
        Self(Self::DIRECT | six | Self::new(0, tags.0, listener).0)
    }

    /// Whether [`direct::packet`](super::direct::packet) decides.
    #[inline(always)]
    pub const fn is_direct(self) -> bool {
        self.0 & Self::DIRECT != 0
    }

    /// Family and VLAN tags of a packet that is not decided yet.
    #[inline(always)]
    pub(super) const fn asked(self) -> (Family, Tags) {
        let family = if self.0 & Self::SIX != 0 { Family::V6 } else { Family::V4 };
        (family, Tags(self.0 as u32))
    }

    /// What becomes of the packet.
    #[inline(always)]
    pub const fn verdict(self) -> Verdict {
        let number = self.0 as u32;
        match self.0 & Self::KIND {
            0 => Verdict::Pass(Pass::of(number as u8)),
            Self::DROP => Verdict::Drop(Drop::of(number as u8)),
            _ => Verdict::Send(number),
        }
    }

    /// [`ListenerId::NONE`] where no listener is concerned or known.
    #[inline(always)]
    pub const fn listener(self) -> ListenerId {
        ListenerId((self.0 >> 32) as u16)
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({:?})", self.verdict(), self.listener())
    }
}
