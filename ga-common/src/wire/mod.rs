//! Bytes on the cable, no policy.

pub mod checksum;
pub mod extension;
pub mod frame;
pub mod mss;
pub mod vlan;
