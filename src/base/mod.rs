//! What every room may stand on, and which knows none of them.

pub mod cpu;
pub(crate) mod failpoint;
pub(crate) mod spare;
pub mod telemetry;
pub(crate) mod text;
pub(crate) mod words;
