//! Each stage by itself, one thread, from memory: `cargo bench --features bench [-- STAGE/NAME]`.
//!
//! `frame`, `decode`, `encode` and `tally` of lineitem-like rows and of single types, `gather` and `checksum` of bytes.
//! `receive` and `write` are the exceptions: they ask the system, and count CPU time instead of the clock's. To see what a
//! change did: `-- --save-baseline before`, then `-- --baseline before`.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

mod checksum;
mod decode;
mod encode;
mod frame;
mod gather;
mod receive;
mod samples;
mod types;
mod write;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

/// CPU time that this thread has spent, the system's share included.
fn thread_time() -> Duration {
    rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).try_into().unwrap()
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = stages;
    config = short();
    targets = frame::bench, decode::bench, encode::formats, encode::csv_by_type, encode::tally, gather::bench,
        checksum::bench, receive::bench, write::bench
}
criterion_main!(stages);
