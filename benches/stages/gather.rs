//! Text of batches on its way to the block that is written: bytes a second, appended to the block or copied there.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use outhaul::bench::Gather;

/// Text of a batch of lineitem as CSV.
const BATCH_BYTES: usize = 400_000;
/// What the encoder hands on at a time.
const PIECE_BYTES: usize = 32 * 1024;
const BATCHES: usize = 100;

pub(crate) fn bench(criterion: &mut Criterion) {
    let piece = vec![b'x'; PIECE_BYTES];
    let mut group = criterion.benchmark_group("gather");
    group.throughput(Throughput::Bytes(u64::try_from(BATCH_BYTES / PIECE_BYTES * PIECE_BYTES * BATCHES).unwrap()));
    for (name, lent) in [("copied", false), ("appended", true)] {
        let mut gather = Gather::default();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let batch = |_| {
                    gather.batch(lent, |out| {
                        (0..BATCH_BYTES / PIECE_BYTES).for_each(|_| out.extend_from_slice(black_box(&piece)));
                    })
                };
                (0..BATCHES).map(batch).sum::<usize>()
            });
        });
    }
    group.finish();
}
