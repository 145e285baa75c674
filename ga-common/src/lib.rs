//! What the kernel program and the agent both believe.
//!
//! Reading order: [`wire`] (bytes on the cable), [`abi`] (what lies in maps), [`hash`] (the one keyed hash), [`path`] (the
//! way of one packet), [`sim`] (the same way over ordinary memory), [`watch`] (a look at packets on
//! their way).
#![cfg_attr(not(any(test, feature = "sim")), no_std)]

pub mod abi;
#[cfg(feature = "bench")]
pub mod bench;
pub mod hash;
pub mod path;
#[cfg(feature = "user")]
mod pod;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod watch;
pub mod wire;
pub mod word;
