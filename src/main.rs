//! The `outhaul` binary: parse, run, exit code.

fn main() {}
