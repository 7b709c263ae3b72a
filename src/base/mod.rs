//! What every room may stand on, and which knows none of them.

pub(crate) mod budget;
pub(crate) mod command;
pub(crate) mod cpu;
pub(crate) mod failpoint;
pub(crate) mod glob;
pub(crate) mod http;
pub(crate) mod memory;
pub(crate) mod postgres;
pub(crate) mod retry;
pub(crate) mod spare;
pub(crate) mod telemetry;
pub(crate) mod text;
pub(crate) mod voice;
pub(crate) mod whole_file;
pub(crate) mod words;

use rustix::io::Errno;

/// What to do where the system lets the process open no more files or sockets (`EMFILE`, `ENFILE`).
pub(crate) const OPEN_FILES_HINT: &str =
    "the process may open no more files and connections: raise `ulimit -n`, or take fewer --readers";

/// Whether words quote the system's error for that: some libraries keep nothing else of it, and a sentence of ours leaves
/// its number out.
pub(crate) fn tells_of_open_files(text: &str) -> bool {
    let number = |error: &Errno| text.contains(&format!("(os error {})", error.raw_os_error()));
    text.contains("oo many open files") || [Errno::MFILE, Errno::NFILE].iter().any(number)
}
