//! Columns, batches and options for the tests of this stage.

use std::num::NonZeroU64;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal64Array, Decimal128Array, Decimal256Array,
    FixedSizeBinaryArray, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, ListArray, MapArray,
    RecordBatch, StringArray, StructArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, UInt32Array, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field, Schema, i256};

use super::{EncodeSummary, encoder};
use crate::model::{
    Carrier, ColumnOrigin, ColumnPlan, ColumnStatistics, Compression, CsvOptions, Format, FormatOptions, Member,
    Newline, ParquetOptions, Policies, Precision,
};

pub(crate) fn column(name: &str, carrier: Carrier) -> ColumnPlan {
    ColumnPlan {
        name: name.to_owned(),
        origin: ColumnOrigin::Column(name.to_owned()),
        type_name: "text".to_owned(),
        sent_as: "binary".to_owned(),
        free_text: carrier == Carrier::Text,
        carrier,
        nullable: true,
        policies: Policies::default(),
        policy: "error".to_owned(),
        ordered: true,
        may_show: false,
        rewritten: false,
        text_varies: false,
        shared_name: None,
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
            delta: true,
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
    let mut encoder = encoder(options, columns, true).unwrap();
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

/// One column for each carrier that both text and Parquet have.
pub(super) fn every_column() -> Arc<[ColumnPlan]> {
    numbered(&[
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
    ])
}

/// One column for each carrier that only Parquet has, nested ones within each other.
pub(super) fn parquet_only() -> Arc<[ColumnPlan]> {
    let carriers = every_column().iter().map(|column| column.carrier.clone()).collect::<Vec<_>>();
    let scalars = [
        Carrier::Decimal256 { precision: 39, scale: 2 },
        Carrier::Decimal256 { precision: 76, scale: 76 },
        Carrier::Timestamp { unit: Precision::Millis, utc: false },
        Carrier::Timestamp { unit: Precision::Millis, utc: true },
    ];
    let range = [
        member("lower", Carrier::Decimal128 { precision: 20, scale: 0 }, true),
        member("upper", Carrier::Decimal128 { precision: 20, scale: 0 }, true),
        member("lower_inc", Carrier::Bool, false),
        member("upper_inc", Carrier::Bool, false),
        member("empty", Carrier::Bool, false),
    ];
    let range = Carrier::Struct(Arc::new(range));
    let everything = carriers.iter().chain(&scalars).chain([&Carrier::Map, &range]).enumerate();
    let everything = everything.map(|(place, carrier)| member(&format!("m{place}"), carrier.clone(), true));
    let nested = [
        Carrier::Map,
        range.clone(),
        Carrier::Struct(everything.collect()),
        list(range),
        list(Carrier::Map),
        list(list(Carrier::Struct(Arc::new([member("deep", list(Carrier::Uuid), true)])))),
    ];
    let lists = carriers.into_iter().chain(scalars.clone()).map(list);
    numbered(&lists.chain(scalars.clone()).chain(nested).collect::<Vec<_>>())
}

fn numbered(carriers: &[Carrier]) -> Arc<[ColumnPlan]> {
    carriers.iter().enumerate().map(|(index, carrier)| column(&format!("c{index}"), carrier.clone())).collect()
}

/// All columns that a format can be asked to write.
pub(super) fn columns_of(format: Format) -> Arc<[ColumnPlan]> {
    match format {
        Format::Parquet => {
            let both = every_column();
            let carriers: Vec<Carrier> =
                both.iter().chain(parquet_only().iter()).map(|column| column.carrier.clone()).collect();
            numbered(&carriers)
        }
        Format::Csv | Format::Ndjson | Format::Source => every_column(),
    }
}

pub(super) fn list(element: Carrier) -> Carrier {
    Carrier::List(Arc::new(element))
}

pub(super) fn member(name: &str, carrier: Carrier, nullable: bool) -> Member {
    Member { name: name.to_owned(), carrier, nullable }
}

/// Three values of the carrier, the second NULL, repeated to `rows`.
pub(super) fn array(carrier: &Carrier, rows: usize) -> ArrayRef {
    let three = nested(carrier).unwrap_or_else(|| scalar(carrier));
    let repeated = vec![three.as_ref(); rows.div_ceil(3)];
    if repeated.is_empty() { three.slice(0, 0) } else { concat(&repeated).unwrap().slice(0, rows) }
}

/// Something, NULL and something empty; the elements and members of the first are a value, NULL and a value.
fn nested(carrier: &Carrier) -> Option<ArrayRef> {
    let nulls = Some(NullBuffer::from(vec![true, false, true]));
    let lengths = OffsetBuffer::from_lengths([3, 0, 0]);
    match (carrier, carrier.data_type()) {
        (Carrier::List(element), DataType::List(field)) => {
            Some(Arc::new(ListArray::try_new(field, lengths, array(element, 3), nulls).unwrap()))
        }
        (Carrier::Struct(members), DataType::Struct(fields)) => {
            let arrays = members.iter().map(|member| {
                let places = if member.nullable { [1, 0, 2] } else { [0, 0, 2] };
                take(&array(&member.carrier, 3), &UInt32Array::from(places.to_vec()), None).unwrap()
            });
            Some(Arc::new(StructArray::try_new(fields, arrays.collect(), nulls).unwrap()))
        }
        (Carrier::Map, DataType::Map(field, sorted)) => {
            let DataType::Struct(fields) = field.data_type().clone() else { unreachable!("entries are structs") };
            let keys: ArrayRef = Arc::new(StringArray::from(vec!["", "b.\"c\"", "a"]));
            let values: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), None, Some("")]));
            let entries = StructArray::try_new(fields, vec![keys, values], None).unwrap();
            Some(Arc::new(MapArray::try_new(field, lengths, entries, nulls, sorted).unwrap()))
        }
        _ => None,
    }
}

fn scalar(carrier: &Carrier) -> ArrayRef {
    let micros = [Some(-1), None, Some(86_399_000_001_i64)];
    match carrier {
        Carrier::Bool => Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        Carrier::Int16 => Arc::new(Int16Array::from(vec![Some(i16::MIN), None, Some(7)])),
        Carrier::Int32 | Carrier::PgDate => Arc::new(Int32Array::from(vec![Some(-1), None, Some(7_305)])),
        Carrier::Int64 => Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)])),
        Carrier::PgTime => Arc::new(Int64Array::from(vec![Some(0), None, Some(86_400_000_000)])),
        Carrier::PgTimestamp | Carrier::PgTimestampTz => Arc::new(Int64Array::from(micros.to_vec())),
        Carrier::Float32 => Arc::new(Float32Array::from(vec![Some(0.1), None, Some(-1e10)])),
        Carrier::Float64 => Arc::new(Float64Array::from(vec![Some(0.1), None, Some(-1e100)])),
        Carrier::NumberText => Arc::new(StringArray::from(vec![Some("1.50"), None, Some("NaN")])),
        Carrier::Decimal128 { precision: precision @ ..=18, scale } => Arc::new(
            Decimal64Array::from(vec![Some(-5), None, Some(123_456)])
                .with_precision_and_scale(*precision, *scale)
                .unwrap(),
        ),
        Carrier::Decimal128 { precision, scale } => Arc::new(
            Decimal128Array::from(vec![Some(-5), None, Some(123_456)])
                .with_precision_and_scale(*precision, *scale)
                .unwrap(),
        ),
        Carrier::Decimal256 { precision, scale } => {
            let greatest = i256::from_string(&"9".repeat(usize::from(*precision)));
            let values = vec![Some(i256::from(-5)), None, greatest];
            Arc::new(Decimal256Array::from(values).with_precision_and_scale(*precision, *scale).unwrap())
        }
        Carrier::Text => Arc::new(StringArray::from(vec![Some(""), None, Some("a,\"b\"\r\n\\.é")])),
        Carrier::Json => Arc::new(StringArray::from(vec![Some("{\"a\": [1, \" \"]}"), None, Some("null")])),
        Carrier::Bytes => Arc::new(BinaryArray::from(vec![Some(b"".as_slice()), None, Some(b"\x00\xff")])),
        Carrier::Uuid => {
            let values = [Some([0_u8; 16]), None, Some([0xab; 16])];
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.into_iter(), 16).unwrap())
        }
        Carrier::Date32 => Arc::new(Date32Array::from(vec![Some(-1), None, Some(18_262)])),
        Carrier::Time64 => Arc::new(Time64MicrosecondArray::from(vec![Some(0), None, Some(86_399_999_999)])),
        Carrier::Timestamp { unit: Precision::Micros, utc } => {
            Arc::new(TimestampMicrosecondArray::from(micros.to_vec()).with_timezone_opt(utc.then_some("UTC")))
        }
        Carrier::Timestamp { unit: Precision::Millis, utc } => {
            Arc::new(TimestampMillisecondArray::from(micros.to_vec()).with_timezone_opt(utc.then_some("UTC")))
        }
        Carrier::List(_) | Carrier::Struct(_) | Carrier::Map => unreachable!("nested"),
    }
}

pub(super) fn every_value(columns: &[ColumnPlan], rows: usize) -> RecordBatch {
    batch(columns, columns.iter().map(|column| array(&column.carrier, rows)).collect())
}

pub(super) fn only_nulls(columns: &[ColumnPlan], rows: usize) -> RecordBatch {
    batch(columns, columns.iter().map(|column| new_null_array(&column.carrier.data_type(), rows)).collect())
}

/// Numbers without order, the same in every run.
pub(crate) fn scrambled(row: i64, values: i64) -> i64 {
    let mut x = (row.cast_unsigned() + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 1).cast_signed() % values
}
