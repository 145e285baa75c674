//! HTTP to clients, HTTP/1.1 and HTTP/2, and the way of a request through the edge.

mod answer;
mod body;
mod client;
mod forwarded;
mod frames;
#[cfg(feature = "http3")]
pub(super) mod http3;
mod lent;
mod multiplexed;
mod open;
mod pace;
mod plain;
mod request;
mod serve;
mod served;
mod streams;
mod timer;
mod tunnel;
mod watched;
mod websocket;
mod wire;

pub(super) use lent::Lent;
pub use serve::serve;
