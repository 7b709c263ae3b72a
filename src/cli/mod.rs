//! The command line. The only user of `clap`, and of standard output and error.

mod args;
