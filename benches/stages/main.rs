//! Each stage by itself, one thread, from memory: `cargo bench --features bench [-- STAGE/NAME]`.
//!
//! `frame`, `decode`, `encode` and `tally` of lineitem-like rows and of single types, `gather` and `checksum` of bytes. To see what
//! a change did: `-- --save-baseline before`, then `-- --baseline before`.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

mod checksum;
mod decode;
mod encode;
mod frame;
mod gather;
mod samples;
mod types;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

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
        checksum::bench
}
criterion_main!(stages);
