//! TLS of HTTPS listeners, and to endpoints that are spoken to with HTTPS.
//!
//! Reading order: `names` (which hosts a certificate is good for), `certificate` (its files), `policy` (versions and suites), `server`
//! (all certificates of a listener, never changed), `accept` (a client's handshake), `shown` (what it would be, without one), `connect`
//! (an endpoint's), `store` (what the workers share: swapped when the intent or a file changes).

mod accept;
mod certificate;
mod check;
mod connect;
mod names;
mod policy;
mod server;
mod shown;
mod store;

pub use accept::{AcceptError, HANDSHAKE_DEADLINE, TlsInfo, accept};
pub use certificate::CertificateError;
pub use check::{Found, check};
pub use connect::{ConnectError, connect, name_of};
pub use server::Server;
pub use shown::{Shown, server_name};
pub use store::{LOOK_EVERY, Prepared, Report, Store, Trouble, Why};
