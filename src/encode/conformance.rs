//! What every encoder promises, asked of every format with every compression.

use std::io::Read;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::samples::{columns_of, every_column, every_value, only_nulls, options, part};
use super::{EncodeError, encoder};
use crate::model::{Carrier, ColumnPlan, Compression, Format, FormatOptions};

const COMPRESSIONS: [Compression; 5] =
    [Compression::None, Compression::Snappy, Compression::Lz4, Compression::Zstd(1), Compression::Gzip(6)];

fn every_format() -> impl Iterator<Item = FormatOptions> {
    let formats = [Format::Parquet, Format::Csv, Format::Ndjson];
    formats.into_iter().flat_map(|format| COMPRESSIONS.map(|compression| options(format, compression))).filter(
        |options| {
            options.format == Format::Parquet || !matches!(options.compression, Compression::Snappy | Compression::Lz4)
        },
    )
}

/// What a part says, in a form that can be compared: text, or the batch that a Parquet reader gives.
#[derive(Debug, PartialEq)]
enum Content {
    Text(String),
    Table(RecordBatch),
}

impl Content {
    fn of(options: &FormatOptions, object: &[u8]) -> Self {
        let mut text = String::new();
        match (options.format, options.compression) {
            (Format::Parquet, _) => {
                let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::copy_from_slice(object)).unwrap();
                let schema = Arc::clone(reader.schema());
                let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
                return Self::Table(concat_batches(&schema, &batches).unwrap());
            }
            (_, Compression::Gzip(_)) => flate2::read::MultiGzDecoder::new(object).read_to_string(&mut text).unwrap(),
            (_, Compression::Zstd(_)) => {
                zstd::stream::read::Decoder::new(object).unwrap().read_to_string(&mut text).unwrap()
            }
            _ => { object }.read_to_string(&mut text).unwrap(),
        };
        Self::Text(text)
    }

    /// Data rows, as a reader of the format counts them.
    fn rows(&self, options: &FormatOptions) -> usize {
        match self {
            Self::Table(batch) => batch.num_rows(),
            Self::Text(text) if options.format == Format::Csv => {
                csv::Reader::from_reader(text.as_bytes()).records().map(Result::unwrap).count()
            }
            Self::Text(text) => {
                assert!(text.is_empty() || text.ends_with('\n'));
                text.lines().inspect(|line| assert!(serde_json::from_str::<serde_json::Value>(line).is_ok())).count()
            }
        }
    }
}

fn cut(batch: &RecordBatch, rows: usize) -> Vec<RecordBatch> {
    let from = (0..batch.num_rows()).step_by(rows);
    from.map(|from| batch.slice(from, rows.min(batch.num_rows() - from))).collect()
}

#[test]
fn parts_hold_the_rows_that_the_summary_names() {
    for options in every_format() {
        let columns = columns_of(options.format);
        for batches in [
            vec![],
            vec![every_value(&columns, 0)],
            vec![every_value(&columns, 1)],
            vec![only_nulls(&columns, 5)],
            vec![every_value(&columns, 3), only_nulls(&columns, 2), every_value(&columns, 1_500)],
        ] {
            let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
            let (object, summary) = part(&options, &columns, &batches);
            assert!(!object.is_empty() || options.compression == Compression::None, "{options:?}");
            assert_eq!(Content::of(&options, &object).rows(&options), rows, "{options:?}");
            assert_eq!(summary.rows, u64::try_from(rows).ok());
            assert_eq!(summary.header_rows, u32::from(options.format == Format::Csv));
            assert_eq!(summary.header_bytes > 0, options.format == Format::Csv);
            assert!(summary.changed.is_empty());
        }
    }
}

#[test]
fn how_batches_are_cut_changes_nothing() {
    for options in every_format() {
        let columns = columns_of(options.format);
        let whole = every_value(&columns, 1_100);
        let (expected_bytes, _) = part(&options, &columns, std::slice::from_ref(&whole));
        let expected = Content::of(&options, &expected_bytes);
        for rows in [1, 7, 512, 1_099] {
            let (object, _) = part(&options, &columns, &cut(&whole, rows));
            if options.format != Format::Parquet && options.compression == Compression::None {
                assert_eq!(object, expected_bytes);
            }
            assert_eq!(Content::of(&options, &object), expected, "{options:?} by {rows}");
        }
    }
}

#[test]
fn parquet_gives_back_the_very_values() {
    let columns = columns_of(Format::Parquet);
    let written = every_value(&columns, 100);
    for compression in COMPRESSIONS {
        let options = options(Format::Parquet, compression);
        let (object, _) = part(&options, &columns, &cut(&written, 33));
        let Content::Table(read) = Content::of(&options, &object) else { unreachable!("a Parquet part") };
        for (index, column) in columns.iter().enumerate() {
            // The files carry no Arrow schema, so that a reader gives the type that Parquet itself names.
            let read = arrow::compute::cast(read.column(index), &column.carrier.data_type()).unwrap();
            assert_eq!(&read, written.column(index), "{:?}", column.carrier);
        }
    }
}

#[test]
fn text_parts_join_without_their_headers() {
    let columns = every_column();
    let batch = every_value(&columns, 700);
    for options in every_format().filter(|options| options.format != Format::Parquet) {
        for bom in [false, true] {
            let options =
                FormatOptions { csv: crate::model::CsvOptions { bom, ..options.csv.clone() }, ..options.clone() };
            let (one, _) = part(&options, &columns, &[batch.clone(), batch.clone()]);
            let (first, summary) = part(&options, &columns, std::slice::from_ref(&batch));
            let header = usize::try_from(summary.header_bytes).unwrap();
            let joined = [&first, &first[header..]].concat();
            assert_eq!(Content::of(&options, &joined), Content::of(&options, &one), "{options:?}");
            if options.format == Format::Csv {
                let Content::Text(line) = Content::of(&options, &first[..header]) else { unreachable!("text") };
                assert_eq!(line.trim_start_matches('\u{feff}').lines().count(), 1);
                assert_eq!(line.starts_with('\u{feff}'), bom);
            }
        }
    }
}

/// Some readers stop after the first gzip member or zstd frame (python-zstandard#59, Perl's `gunzip`).
#[test]
fn a_text_object_that_stands_alone_is_one_frame() {
    let columns = every_column();
    for options in every_format().filter(|options| options.format != Format::Parquet) {
        for batches in [vec![], vec![every_value(&columns, 700)]] {
            let (parts, _) = part(&options, &columns, &batches);
            let mut encoder = encoder(&options, &columns, false).unwrap();
            let mut object = Vec::new();
            for batch in &batches {
                encoder.encode(batch, &mut object).unwrap();
            }
            let summary = encoder.finish(&mut object).unwrap();
            let mut first = String::new();
            match options.compression {
                Compression::Gzip(_) => flate2::read::GzDecoder::new(&object[..]).read_to_string(&mut first).unwrap(),
                Compression::Zstd(_) => {
                    let frame = zstd::stream::read::Decoder::new(&object[..]).unwrap().single_frame();
                    { frame }.read_to_string(&mut first).unwrap()
                }
                _ => continue,
            };
            assert_eq!(Content::Text(first), Content::of(&options, &parts), "{options:?}");
            assert_eq!((summary.header_rows, summary.header_bytes), (u32::from(options.format == Format::Csv), 0));
        }
    }
}

#[test]
fn batches_of_other_types_are_refused() {
    let planned = every_column();
    let good = every_value(&planned, 3);
    let mut shuffled: Vec<ColumnPlan> = planned.to_vec();
    shuffled.swap(2, 3);
    let zoned: Vec<ColumnPlan> = planned
        .iter()
        .cloned()
        .map(|column| match column.carrier {
            Carrier::Timestamp { unit, utc } => {
                ColumnPlan { carrier: Carrier::Timestamp { unit, utc: !utc }, ..column }
            }
            Carrier::Decimal128 { precision, .. } => {
                ColumnPlan { carrier: Carrier::Decimal128 { precision, scale: 3 }, ..column }
            }
            _ => column,
        })
        .collect();
    let fewer = good.project(&[0, 1]).unwrap();
    let more = every_value(&[&planned[..], &planned[..1]].concat(), 3);
    for options in every_format() {
        for wrong in [every_value(&shuffled, 3), every_value(&zoned, 3), fewer.clone(), more.clone()] {
            let mut encoder = encoder(&options, &planned, true).unwrap();
            let error = encoder.encode(&wrong, &mut Vec::new()).unwrap_err();
            assert!(matches!(error, EncodeError::WrongCarrier { .. }), "{error}");
        }
    }
}
