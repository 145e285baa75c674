//! What stands between clients and hyper, whose HTTP/1 is more lenient than an edge may be: messages that two servers could read
//! differently are refused here, before anything of them is routed.

mod path;
mod trailers;

pub use path::{BadPath, normalise};
pub use trailers::scrub as scrub_trailers;
