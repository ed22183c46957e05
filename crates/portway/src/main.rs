//! The `portway` command. Everything is in the library, where tests can reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    portway::cli::main()
}
