//! Connections to endpoints.

mod connect;

pub(super) use connect::connect;
