//! The `ga` command.

fn main() {}
