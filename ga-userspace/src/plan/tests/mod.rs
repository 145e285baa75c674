//! Tests of the whole room; those of one file stand in it.

mod acl;
mod build;
mod change;
mod custom;
mod fixtures;
mod groups;
mod properties;
mod track;
