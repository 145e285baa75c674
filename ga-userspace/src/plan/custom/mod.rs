//! Custom routing: which listener port leads where (specification §1.17).
//!
//! Reading order: `allocate` (ports to subnets, once and for good), `mapping` (the two ways to ask for it), `table` (what the data
//! path is told).

mod allocate;
mod mapping;
mod table;

pub use allocate::{Allocation, Refused, settle};
pub use mapping::{CustomView, Part, Row};
pub use table::Table;
