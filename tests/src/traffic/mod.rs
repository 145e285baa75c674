//! Real sockets in namespaces: servers that say who they are, and clients that notice whatever goes wrong.
//!
//! Everything here runs on one thread per namespace and task, because a socket belongs to the namespace of the thread that
//! made it. Every wait has an end.

mod dial;
mod digest;
mod flood;
mod flows;
mod probe;
mod server;
mod steady;
mod storm;
mod task;
mod transfer;
mod unwrap;

pub use dial::{Hello, dial, port_is_open, spread};
pub use digest::Digest;
pub use flood::{Flood, Spoofed, stay_on};
pub use flows::{FlowReport, Flows};
pub use probe::{Probe, ProbeReport, ask_many};
pub use server::{Connection, End, Server};
pub use steady::{Asked, Steady};
pub use storm::{Storm, StormReport};
pub use task::{Stop, Task, block_in, until};
pub use transfer::{Transfer, TransferReport, Transfers, arrived, transfer};
pub use unwrap::Unwrap;
