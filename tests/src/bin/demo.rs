//! `cargo xtask demo`: the product at work in network namespaces.

use std::process::ExitCode;

fn main() -> ExitCode {
    ga_tests::demo::main()
}
