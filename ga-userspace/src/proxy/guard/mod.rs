//! What stands between clients and hyper, whose HTTP/1 is more lenient than an edge may be: messages that two servers could read
//! differently are refused here, before anything of them is routed.

mod bytes;
mod chunks;
mod head;
mod host;
mod machine;
mod message;
mod path;
mod refusal;
mod sniff;
mod trailers;

#[cfg(test)]
mod tests;

pub use head::Body;
pub use machine::{Fed, Machine};
pub use message::judge;
pub use path::{BadPath, normalise};
pub use refusal::Refusal;
pub use sniff::Asked;
pub use trailers::scrub as scrub_trailers;

/// How large a head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole head.
    pub head: usize,
    /// Bytes of the target.
    pub target: usize,
    /// Fields.
    pub fields: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head: 32 * 1024, target: 8 * 1024, fields: 100 }
    }
}
