//! Framing: rows and bytes of the stream a second.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use outhaul::bench::CopyReader;

use super::samples;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    for (name, table) in [("lineitem", samples::lineitem(32_768)), ("two int8", samples::narrow(131_072))] {
        let mut reader = CopyReader::framing(table.width());
        let bytes = u64::try_from(table.stream.len()).unwrap();
        group.throughput(Throughput::ElementsAndBytes { elements: table.rows, bytes });
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                (0..times).map(|_| reader.read(&table.stream, drop).unwrap().frame).sum::<Duration>()
            });
        });
    }
    group.finish();
}
