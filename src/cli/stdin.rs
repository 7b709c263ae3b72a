//! Standard input as the sign that whoever started this process lives: it ends with him, where it is a pipe or a socket.
//!
//! A process whose starter was killed without a word, as Spark does to the children of a task that is cancelled, is adopted
//! by the system and would read on for hours. Where standard input is /dev/null, a file or a terminal, its end says nothing:
//! so Kubernetes, Batch, systemd and xargs start a process.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, stdin};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;

use crate::model::StdinRule;

/// A line of whoever starts workers has the words of an error at most.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// Whether the end of standard input means something: as told, or by what it is now.
pub(super) fn is_watched(rule: Option<StdinRule>) -> bool {
    match rule {
        Some(StdinRule::Watch) => true,
        Some(StdinRule::Ignore) => false,
        None => {
            let input = stdin().as_fd().try_clone_to_owned().and_then(|input| File::from(input).metadata());
            input.is_ok_and(|facts| facts.file_type().is_fifo() || facts.file_type().is_socket())
        }
    }
}

/// Reads standard input on a thread of its own: each line goes to `line`, which says whether to go on, and its end to
/// `ended`.
pub(super) fn follow(mut line: impl FnMut(&str) -> bool + Send + 'static, ended: impl FnOnce() + Send + 'static) {
    let reading = move || {
        let mut input = BufReader::new(stdin());
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            match (&mut input).take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes) {
                Ok(0) | Err(_) => break,
                Ok(_) if !line(String::from_utf8_lossy(&bytes).trim_end()) => return,
                Ok(_) => {}
            }
        }
        ended();
    };
    // It stands in a read for as long as the process lives.
    if let Err(error) = std::thread::Builder::new().name("outhaul-stdin".into()).spawn(reading) {
        tracing::warn!(error = &error as &dyn std::error::Error, "standard input is not watched");
    }
}
