//! The `ga` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ga::cli::main()
}
