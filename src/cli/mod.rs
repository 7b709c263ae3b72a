//! The command line. The only user of `clap`, and of standard output and error.

mod args;
pub mod events;
pub mod exit;
mod human;
mod meter;
pub mod progress;
pub mod screen;
pub mod signals;
pub mod summary;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod samples;
