//! Encoding, format by format: bytes of output a second from batches like those of an orders table.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::num::NonZeroU64;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use outhaul::encode::{Compression, CsvOptions, Format, FormatOptions, Newline, ParquetOptions, encoder};
use outhaul::plan::{Carrier, ColumnOrigin, ColumnPlan, ColumnStatistics, PgType, Policies, TypeKind, Wire};

const ROWS: i64 = 8192;

fn column(name: &str, carrier: Carrier) -> ColumnPlan {
    ColumnPlan {
        name: name.to_owned(),
        origin: ColumnOrigin::Column(name.to_owned()),
        pg_type: PgType { oid: 0, base_oid: 0, typmod: None, name: "any".to_owned(), kind: TypeKind::Base },
        wire: Wire::Binary,
        carrier,
        nullable: true,
        policies: Policies::default(),
        policy: "lossless".to_owned(),
        rewritten: false,
        note: None,
        statistics: ColumnStatistics::default(),
    }
}

/// A key, a price as text, a time in PostgreSQL's own epoch and a comment, some of them NULL.
fn orders(format: Format) -> (Arc<[ColumnPlan]>, RecordBatch) {
    let time = if format == Format::Parquet { Carrier::Int64 } else { Carrier::PgTimestampTz };
    let columns: Arc<[ColumnPlan]> = [
        column("id", Carrier::Int64),
        column("amount", Carrier::NumberText),
        column("created_at", time),
        column("note", Carrier::Text),
    ]
    .into();
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(0..ROWS)),
        Arc::new(StringArray::from_iter_values((0..ROWS).map(|n| format!("{}.{:02}", n * 7, n % 100)))),
        Arc::new(Int64Array::from_iter_values((0..ROWS).map(|n| n * 86_400_123_456))),
        Arc::new((0..ROWS).map(|n| (n % 5 > 0).then(|| format!("order {n}, to be packed"))).collect::<StringArray>()),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|column| Field::new(&column.name, column.carrier.data_type(), true)).collect();
    (columns, RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap())
}

fn options(format: Format, compression: Compression) -> FormatOptions {
    let csv = CsvOptions {
        header: true,
        delimiter: b',',
        null: String::new(),
        newline: Newline::Lf,
        bom: false,
        formula_guard: false,
    };
    let parquet = ParquetOptions {
        sorted: Vec::new(),
        delta: true,
        row_group_rows: NonZeroU64::new(122_880).unwrap(),
        row_group_bytes: NonZeroU64::new(16 << 20).unwrap(),
        metadata: Vec::new(),
    };
    FormatOptions { format, compression, csv, parquet }
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for (name, format, compression) in [
        ("csv", Format::Csv, Compression::None),
        ("ndjson", Format::Ndjson, Compression::None),
        ("parquet zstd", Format::Parquet, Compression::Zstd(1)),
    ] {
        let (columns, batch) = orders(format);
        let options = options(format, compression);
        group.throughput(Throughput::Elements(ROWS.unsigned_abs()));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut out = Vec::new();
                let mut part = encoder(&options, &columns).unwrap();
                part.encode(black_box(&batch), &mut out).unwrap();
                part.finish(&mut out).unwrap();
                out
            });
        });
    }
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
