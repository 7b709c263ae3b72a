//! Encoding of decoded batches: rows and bytes of output a second. And what the manifest counts of them, by itself.

use std::num::NonZeroU64;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use outhaul::encode::{Tally, encoder};
use outhaul::model::{
    ColumnPlan, Compression, CsvOptions, Format, FormatOptions, ManifestStats, Newline, ParquetOptions,
};
use outhaul::source::postgres::plan::Wire;

use super::samples::{self, Table, outputs};
use super::types::{QUOTED, ROWS, TYPES};

/// One row group of the default size.
const LINEITEM_ROWS: u64 = 122_880;

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
        row_group_rows: NonZeroU64::new(LINEITEM_ROWS).unwrap(),
        row_group_bytes: NonZeroU64::new(16 << 20).unwrap(),
        metadata: Vec::new(),
    };
    FormatOptions { format, compression, csv, parquet }
}

/// Writes one part into a buffer that is emptied after each batch. Returns its bytes.
fn part(options: &FormatOptions, columns: &Arc<[ColumnPlan]>, batches: &[RecordBatch], out: &mut Vec<u8>) -> usize {
    let mut bytes = 0;
    let mut part = encoder(options, columns, true).unwrap();
    for batch in batches {
        part.encode(batch, out).unwrap();
        bytes += out.len();
        out.clear();
    }
    part.finish(out).unwrap();
    bytes += out.len();
    out.clear();
    bytes
}

fn case(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, table: &Table, options: &FormatOptions) {
    let planned = table.plan(options.format);
    let columns = outputs(&planned);
    let batches = table.batches(&planned);
    let mut out = Vec::new();
    let bytes = u64::try_from(part(options, &columns, &batches, &mut out)).unwrap();
    group.throughput(Throughput::ElementsAndBytes { elements: table.rows, bytes });
    group.bench_function(name, |bencher| bencher.iter(|| part(options, &columns, &batches, &mut out)));
}

pub(crate) fn formats(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode lineitem");
    let table = samples::lineitem(LINEITEM_ROWS);
    for (name, format, compression) in [
        ("csv", Format::Csv, Compression::None),
        ("csv zstd", Format::Csv, Compression::Zstd(1)),
        ("csv gzip", Format::Csv, Compression::Gzip(6)),
        ("ndjson", Format::Ndjson, Compression::None),
        ("parquet", Format::Parquet, Compression::None),
        ("parquet snappy", Format::Parquet, Compression::Snappy),
        ("parquet zstd", Format::Parquet, Compression::Zstd(1)),
    ] {
        case(&mut group, name, &table, &options(format, compression));
    }
    group.finish();
}

pub(crate) fn csv_by_type(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode csv");
    for one in TYPES.iter().chain([&QUOTED]) {
        let table = one.table(ROWS);
        if table.plan(Format::Csv).iter().all(|column| column.wire == Wire::Binary) {
            case(&mut group, one.name, &table, &options(Format::Csv, Compression::None));
        }
    }
    group.finish();
}

pub(crate) fn tally(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tally lineitem");
    let table = samples::lineitem(LINEITEM_ROWS);
    for (name, format, stats) in [
        ("for parquet", Format::Parquet, ManifestStats::Safe),
        ("for text", Format::Csv, ManifestStats::Safe),
        ("for text, all statistics", Format::Csv, ManifestStats::All),
    ] {
        let planned = table.plan(format);
        let columns = outputs(&planned);
        let batches = table.batches(&planned);
        group.throughput(Throughput::Elements(table.rows));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut tally = Tally::new(&columns, stats);
                for batch in &batches {
                    tally.observe(batch).unwrap();
                }
                tally.finish()
            });
        });
    }
    group.finish();
}
