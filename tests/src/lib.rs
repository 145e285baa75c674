//! Helpers shared by the test binaries.

#[cfg(feature = "bench")]
pub mod bench;
#[cfg(feature = "privileged")]
pub mod demo;
pub mod lab;
#[cfg(feature = "privileged")]
pub mod limits;
pub mod packet;
pub mod traffic;
