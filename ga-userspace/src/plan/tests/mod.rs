//! Tests of the whole room; those of one file stand in it.

mod build;
mod change;
mod fixtures;
mod groups;
mod properties;
