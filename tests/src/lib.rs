//! Helpers shared by the test binaries.

#[cfg(feature = "bench")]
pub mod bench;
pub mod lab;
