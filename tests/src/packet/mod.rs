//! Packet tests are data: cases under `tests/corpus`, run in the simulator and in the kernel, which must agree.
//!
//! Reading order: [`world`] (named tables a case runs in), [`case`] (what a corpus file says), [`craft`] (fields to bytes, by
//! etherparse alone), [`dataplane`] (what a case is run through), [`judge`] (expectations against what happened), [`random`]
//! (mutated packets), [`model`] (a second opinion), [`fuzz`] (structured sequences of packets, judged by it), [`show`] (frames for
//! people).

pub mod case;
pub mod craft;
pub mod dataplane;
pub mod encap;
pub mod fuzz;
pub mod judge;
pub mod kernel;
pub mod model;
pub mod random;
pub mod show;
pub mod simulator;
pub mod told;
pub mod world;
