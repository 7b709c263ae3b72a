//! Columns, batches and options for the tests of this stage.

use std::num::NonZeroU64;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray, Time64MicrosecondArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::concat;
use arrow::datatypes::{Field, Schema};

use super::{Compression, CsvOptions, EncodeSummary, Format, FormatOptions, Newline, ParquetOptions, encoder};
use crate::plan::{Carrier, ColumnOrigin, ColumnPlan, ColumnStatistics, PgType, Policies, Precision, TypeKind, Wire};

pub(super) fn column(name: &str, carrier: Carrier) -> ColumnPlan {
    ColumnPlan {
        name: name.to_owned(),
        origin: ColumnOrigin::Column(name.to_owned()),
        pg_type: PgType { oid: 25, base_oid: 25, typmod: None, name: "text".to_owned(), kind: TypeKind::Base },
        wire: Wire::Binary,
        carrier,
        nullable: true,
        policies: Policies::default(),
        policy: "error".to_owned(),
        rewritten: false,
        note: None,
        statistics: ColumnStatistics::default(),
    }
}

pub(super) fn options(format: Format, compression: Compression) -> FormatOptions {
    FormatOptions {
        format,
        compression,
        csv: CsvOptions {
            header: true,
            delimiter: b',',
            null: String::new(),
            newline: Newline::Lf,
            bom: false,
            formula_guard: false,
        },
        parquet: ParquetOptions {
            row_group_rows: NonZeroU64::new(122_880).unwrap(),
            row_group_bytes: NonZeroU64::new(16 << 20).unwrap(),
            metadata: vec![("outhaul.run_id".to_owned(), "r1".to_owned())],
            sorted: Vec::new(),
        },
    }
}

pub(super) fn batch(columns: &[ColumnPlan], arrays: Vec<ArrayRef>) -> RecordBatch {
    let field = |(column, array): (&ColumnPlan, &ArrayRef)| Field::new(&column.name, array.data_type().clone(), true);
    let schema = Schema::new(columns.iter().zip(&arrays).map(field).collect::<Vec<_>>());
    RecordBatch::try_new(Arc::new(schema), arrays).unwrap()
}

/// Encodes a part; returns its bytes and what the encoder says of it.
pub(super) fn part(
    options: &FormatOptions,
    columns: &Arc<[ColumnPlan]>,
    batches: &[RecordBatch],
) -> (Vec<u8>, EncodeSummary) {
    let mut encoder = encoder(options, columns).unwrap();
    let mut object = Vec::new();
    for batch in batches {
        // A buffer of its own each time: an encoder may only append.
        let mut out = b"kept".to_vec();
        encoder.encode(batch, &mut out).unwrap();
        object.extend_from_slice(out.strip_prefix(b"kept").unwrap());
    }
    let summary = encoder.finish(&mut object).unwrap();
    (object, summary)
}

pub(super) fn text(options: &FormatOptions, columns: Vec<ColumnPlan>, arrays: Vec<ArrayRef>) -> String {
    let batch = batch(&columns, arrays);
    String::from_utf8(part(options, &columns.into(), &[batch]).0).unwrap()
}

/// One column for each carrier, with the values that `array` gives it.
pub(super) fn every_column() -> Arc<[ColumnPlan]> {
    [
        Carrier::Bool,
        Carrier::Int16,
        Carrier::Int32,
        Carrier::Int64,
        Carrier::Float32,
        Carrier::Float64,
        Carrier::NumberText,
        Carrier::Decimal128 { precision: 12, scale: 2 },
        Carrier::Text,
        Carrier::Json,
        Carrier::Bytes,
        Carrier::Uuid,
        Carrier::PgDate,
        Carrier::PgTime,
        Carrier::PgTimestamp,
        Carrier::PgTimestampTz,
        Carrier::Date32,
        Carrier::Time64,
        Carrier::Timestamp { unit: Precision::Micros, utc: false },
        Carrier::Timestamp { unit: Precision::Micros, utc: true },
    ]
    .iter()
    .enumerate()
    .map(|(index, carrier)| column(&format!("c{index}"), carrier.clone()))
    .collect()
}

/// Three values of the carrier, the second NULL, repeated to `rows`.
fn array(carrier: &Carrier, rows: usize) -> ArrayRef {
    let micros = [Some(-1), None, Some(86_399_000_001_i64)];
    let three: ArrayRef = match carrier {
        Carrier::Bool => Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        Carrier::Int16 => Arc::new(Int16Array::from(vec![Some(i16::MIN), None, Some(7)])),
        Carrier::Int32 | Carrier::PgDate => Arc::new(Int32Array::from(vec![Some(-1), None, Some(7_305)])),
        Carrier::Int64 => Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)])),
        Carrier::PgTime => Arc::new(Int64Array::from(vec![Some(0), None, Some(86_400_000_000)])),
        Carrier::PgTimestamp | Carrier::PgTimestampTz => Arc::new(Int64Array::from(micros.to_vec())),
        Carrier::Float32 => Arc::new(Float32Array::from(vec![Some(0.1), None, Some(-1e10)])),
        Carrier::Float64 => Arc::new(Float64Array::from(vec![Some(0.1), None, Some(-1e100)])),
        Carrier::NumberText => Arc::new(StringArray::from(vec![Some("1.50"), None, Some("NaN")])),
        Carrier::Decimal128 { precision, scale } => Arc::new(
            Decimal128Array::from(vec![Some(-5), None, Some(123_456)])
                .with_precision_and_scale(*precision, *scale)
                .unwrap(),
        ),
        Carrier::Text => Arc::new(StringArray::from(vec![Some(""), None, Some("a,\"b\"\r\n\\.é")])),
        Carrier::Json => Arc::new(StringArray::from(vec![Some("{\"a\": [1, \" \"]}"), None, Some("null")])),
        Carrier::Bytes => Arc::new(BinaryArray::from(vec![Some(b"".as_slice()), None, Some(b"\x00\xff")])),
        Carrier::Uuid => {
            let values = [Some([0_u8; 16]), None, Some([0xab; 16])];
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.into_iter(), 16).unwrap())
        }
        Carrier::Date32 => Arc::new(Date32Array::from(vec![Some(-1), None, Some(18_262)])),
        Carrier::Time64 => Arc::new(Time64MicrosecondArray::from(vec![Some(0), None, Some(86_399_999_999)])),
        Carrier::Timestamp { unit: Precision::Micros, utc: false } => {
            Arc::new(TimestampMicrosecondArray::from(micros.to_vec()))
        }
        Carrier::Timestamp { unit: Precision::Micros, utc: true } => {
            Arc::new(TimestampMicrosecondArray::from(micros.to_vec()).with_timezone("UTC"))
        }
        Carrier::Timestamp { unit: Precision::Millis, .. }
        | Carrier::Decimal256 { .. }
        | Carrier::List(_)
        | Carrier::Struct(_)
        | Carrier::Map => unreachable!("not among the carriers of both text and Parquet"),
    };
    let repeated = vec![three.as_ref(); rows.div_ceil(3)];
    if repeated.is_empty() { three.slice(0, 0) } else { concat(&repeated).unwrap().slice(0, rows) }
}

pub(super) fn every_value(columns: &[ColumnPlan], rows: usize) -> RecordBatch {
    batch(columns, columns.iter().map(|column| array(&column.carrier, rows)).collect())
}

pub(super) fn only_nulls(columns: &[ColumnPlan], rows: usize) -> RecordBatch {
    batch(columns, columns.iter().map(|column| new_null_array(&column.carrier.data_type(), rows)).collect())
}
