//! Listeners that the agent serves itself: HTTP, HTTPS, TCP with forwarding rules or with the PROXY protocol to endpoints.
//!
//! Everything is chosen from the plan: [`View`] is the plan's answer in the form in which a request asks for it. A new plan swaps the
//! view; requests and connections that run keep the one they began with.
#![forbid(unsafe_code)]

mod bells;
pub mod circuit;
pub mod counts;
mod dispatch;
mod full;
pub mod guard;
pub mod http;
mod leaving;
pub mod log;
pub mod proxy_protocol;
#[cfg(feature = "http3")]
mod quic;
pub mod rules;
mod serve;
mod spare;
pub mod tcp;
pub mod tls;
mod upstream;
mod view;
mod worker;

pub use leaving::Leaving;
pub use serve::{Proxy, Unbound};
pub use tls::TlsInfo;
pub use view::{Egress, Endpoint, Group, Listener, Target, View, addresses};
pub use worker::{Peer, Shared, Worker};
