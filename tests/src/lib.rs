//! Helpers shared by the test binaries.

#[cfg(feature = "privileged")]
pub mod demo;
pub mod lab;
pub mod packet;
pub mod traffic;
