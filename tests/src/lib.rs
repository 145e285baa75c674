//! Helpers shared by the test binaries.

#[cfg(feature = "bench")]
pub mod bench;
#[cfg(feature = "privileged")]
pub mod demo;
pub mod lab;
pub mod packet;
pub mod traffic;
