//! Decoding of framed rows, the making of batches included: rows a second.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use outhaul::bench::CopyReader;
use outhaul::model::Format;
use outhaul::source::postgres::plan::Wire;

use super::samples;
use super::types::{ROWS, TYPES};

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    let types = TYPES.iter().map(|one| (one.name, one.table(ROWS)));
    for (name, table) in types.chain([("lineitem", samples::lineitem(32_768))]) {
        let (parquet, text) = (table.plan(Format::Parquet), table.plan(Format::Csv));
        let same = parquet.iter().zip(text.iter()).all(|(one, other)| one.output.carrier == other.output.carrier);
        // The text of a nested value is the server's.
        let sent = text.iter().all(|column| column.wire == Wire::Binary);
        let cases = if same { vec![("", text)] } else { vec![(" for parquet", parquet), (" for text", text)] };
        group.throughput(Throughput::Elements(table.rows));
        for (target, columns) in cases.into_iter().take(if sent { 2 } else { 1 }) {
            let mut reader = CopyReader::decoding(&columns).unwrap();
            group.bench_function(format!("{name}{target}"), |bencher| {
                bencher.iter_custom(|times| {
                    (0..times).map(|_| reader.read(&table.stream, drop).unwrap().decode).sum::<Duration>()
                });
            });
        }
    }
    group.finish();
}
