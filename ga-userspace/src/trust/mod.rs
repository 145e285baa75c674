//! Whom connections of this host believe: TLS as a client, for probes, inventories and endpoints.
#![forbid(unsafe_code)]

mod client;
mod roots;

pub use client::{client, server_name};
pub use roots::TrustError;
