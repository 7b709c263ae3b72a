//! Writing a local part: CPU time of the writer, its sync included, past the page cache and through it.

use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use outhaul::bench::{LOCAL_BLOCK_BYTES, write_blocks};

use super::thread_time;

const BYTES: usize = 256 << 20;

fn through_the_cache(mut file: File, bytes: &Bytes) {
    for block in bytes.chunks(LOCAL_BLOCK_BYTES) {
        file.write_all(block).unwrap();
    }
    file.sync_all().unwrap();
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let bytes = Bytes::from(vec![7; BYTES]);
    let mut group = criterion.benchmark_group("write");
    group.throughput(Throughput::Bytes(u64::try_from(BYTES).unwrap()));
    let spent = |write: &dyn Fn(File)| -> Duration {
        let file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let began = thread_time();
        write(file);
        thread_time().saturating_sub(began)
    };
    group.bench_function("past the cache", |bencher| {
        bencher
            .iter_custom(|times| (0..times).map(|_| spent(&|file| write_blocks(file, bytes.clone()).unwrap())).sum());
    });
    group.bench_function("through the cache", |bencher| {
        bencher.iter_custom(|times| (0..times).map(|_| spent(&|file| through_the_cache(file, &bytes))).sum());
    });
    group.finish();
}
