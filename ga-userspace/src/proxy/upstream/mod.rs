//! Connections to endpoints: opened, kept for the next request, and driven by the task of the request that has them.

mod chunked;
mod connect;
mod h1;
mod h2;
mod head;
mod lines;
mod pool;
mod stream;

pub(super) use chunked::{Chunked, Decoded};
pub(super) use connect::connect;
pub(super) use h1::{Exchange, Head, Link, Piece, SCRATCH};
pub(super) use h2::Place;
pub(super) use head::strip;
pub(super) use lines::Lines;
pub(super) use pool::{Pools, Slot};
pub(super) use stream::Stream;
