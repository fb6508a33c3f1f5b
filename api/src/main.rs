//! The program `nullspaced`: parses its arguments and runs the command.

use std::process::ExitCode;

fn main() -> ExitCode {
    api::cli::main()
}
