//! Helpers shared by the test binaries.

pub mod lab;
pub mod traffic;
