//! What lies in maps: layouts, ids, limits and reasons. Touching a layout raises [`limits::ABI_VERSION`].

pub mod active;
pub mod custom;
pub mod entry;
pub mod family;
pub mod filter;
pub mod flow;
pub mod id;
pub mod limits;
pub mod reason;
pub mod sheet;
