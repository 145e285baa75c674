//! What becomes of a packet.

use crate::abi::{
    id::ListenerId,
    reason::{Drop, Pass},
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

/// A verdict and the listener it is counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What becomes of the packet.
    pub verdict: Verdict,
    /// [`ListenerId::NONE`] where no listener is concerned or known.
    pub listener: ListenerId,
}

impl Outcome {
    /// Passed; no listener is concerned.
    #[inline(always)]
    pub const fn pass(reason: Pass) -> Self {
        Self { verdict: Verdict::Pass(reason), listener: ListenerId::NONE }
    }

    /// Dropped on account of `listener`.
    #[inline(always)]
    pub const fn drop(reason: Drop, listener: ListenerId) -> Self {
        Self { verdict: Verdict::Drop(reason), listener }
    }
}
