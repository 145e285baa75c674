//! Measurements. Absolute figures belong to one machine and one hour: every figure comes with a floor or a peer from the same
//! run, rounds are interleaved, and medians are compared.

mod candidate;
mod edge;
mod frames;
mod kernel;
pub mod packet;
pub mod path;
mod stats;

pub use stats::Spread;
