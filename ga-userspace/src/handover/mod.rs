//! Listening sockets that outlive the process that made them: given to the next agent, or kept by the service manager.
//!
//! A socket that another process holds too goes on collecting connections when this one ends; the other accepts them.

mod line;
mod manager;

use std::{collections::BTreeMap, net::SocketAddr, net::TcpListener};

pub use line::{AskError, Line, Said, TOKEN, ask};
pub use manager::{Kept, inherited, ready, stopping};

/// Sockets by the address that they listen at.
pub type Sockets = BTreeMap<SocketAddr, Vec<TcpListener>>;

/// Adds a socket that listens; false if it cannot be said where.
fn add(sockets: &mut Sockets, socket: TcpListener) -> bool {
    let Ok(address) = socket.local_addr() else { return false };
    // It is accepted from without waiting.
    let is_ready = socket.set_nonblocking(true).is_ok();
    if is_ready {
        sockets.entry(address).or_default().push(socket);
    }
    is_ready
}
