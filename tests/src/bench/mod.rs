//! Measurements. Absolute figures belong to one machine and one hour: every figure comes with a floor or a peer from the same
//! run, rounds are interleaved, and medians are compared.

mod candidate;
mod edge;
pub mod failover;
mod frames;
pub mod health;
mod kernel;
mod large;
mod memory;
mod modes;
pub mod packet;
pub mod path;
mod peers;
pub mod plan;
pub mod program;
pub mod proxy;
mod rate;
pub mod relay;
mod reload;
mod report;
mod stats;
pub mod tail;

pub use report::{Figure, Goal, Report, Wanted};
pub use stats::Spread;
