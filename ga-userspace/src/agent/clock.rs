//! The agent's clocks. Flow memory is judged by the same coarse clock that packets use.

use std::time::{SystemTime, UNIX_EPOCH};

use ga_common::abi::flow::TICK_SHIFT;
use rustix::time::{ClockId, clock_gettime};

/// Now, in ticks of flow memory.
pub(super) fn tick() -> u32 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    let ns = u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0);
    (ns >> TICK_SHIFT) as u32
}

/// Seconds since 1970.
pub(super) fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
