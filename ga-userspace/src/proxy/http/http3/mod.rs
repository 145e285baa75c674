//! HTTP/3 to clients (RFC 9114): streams of QUIC, their frames and heads by the library h3, and requests that go the way of all others.
//!
//! What the library leaves to its caller is done here: frames of any length are refused before they are kept, data waits in QUIC until
//! the request takes it, a stream that ends within a frame is an error, and a body is as long as its head says. Where a head has a
//! pseudo-header twice, the last counts, for everybody. Nothing is sent in 0-RTT.

mod body;
mod frames;
mod serve;
mod transport;

pub(super) use body::Body;
pub(in crate::proxy) use serve::serve;
