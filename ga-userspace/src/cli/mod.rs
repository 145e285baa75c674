//! One file per verb; prints, never decides.

pub mod check;
pub mod schema;
