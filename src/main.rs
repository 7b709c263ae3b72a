//! The `outhaul` binary: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    outhaul::cli::main()
}
