use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal64Array, FixedSizeBinaryArray,
    Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, StringArray, Time64MicrosecondArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Decimal64Type, Decimal128Type};
use proptest::prelude::*;

mod combinations;
mod nested;
mod policies;

use super::*;
use crate::model::{Carrier, ColumnStatistics, Policies, Precision};
use crate::source::SourceFault;
use crate::source::postgres::frame::wire::{Row, cuts, message, opening, payload, pieces, rows, stream_cut};
use crate::source::postgres::frame::{FrameState, Framer};
use crate::source::postgres::plan::{PgType, TypeKind, Wire, oid};

fn column(name: &str, oid: u32, wire: Wire, carrier: Carrier) -> PgColumn {
    let kind = if oid >= oid::FIRST_NORMAL { TypeKind::Enum } else { TypeKind::Base };
    let pg_type = PgType { oid, base_oid: oid, typmod: None, name: format!("type {oid}"), kind };
    let mut column = PgColumn::plain(name, pg_type, wire, carrier);
    column.output.policy = "error".to_owned();
    column
}

/// The same column where no value can fail, for these reasons.
fn of_policy(mut column: PgColumn, policy: &str) -> PgColumn {
    column.output.policy = policy.to_owned();
    column
}

fn binary(oid: u32, carrier: Carrier) -> PgColumn {
    column("c", oid, Wire::Binary, carrier)
}

const DECIMAL: Carrier = Carrier::Decimal128 { precision: 12, scale: 2 };

/// One batch of all rows of a COPY payload.
fn decode_payload(columns: Vec<PgColumn>, payload: &[u8]) -> Result<Batch, DecodeError> {
    let width = u16::try_from(columns.len()).unwrap();
    let mut input = [opening(width), message(b'd', payload)].concat();
    let mut fields = FieldTable::default();
    let step = Framer::new(width).frame(&mut input, &mut fields, usize::MAX).unwrap();
    assert_eq!((step.consumed, step.state), (input.len(), FrameState::NeedMore));
    let mut decoder = BatchDecoder::new(&Arc::from(columns))?;
    assert_eq!(decoder.decode(&input, &fields, 0)?, fields.rows());
    decoder.take_batch()
}

fn decode_batch(columns: Vec<PgColumn>, rows: &[Row]) -> Result<Batch, DecodeError> {
    decode_payload(columns, &payload(rows))
}

fn decode_rows(columns: Vec<PgColumn>, rows: &[Row]) -> Result<RecordBatch, DecodeError> {
    Ok(decode_batch(columns, rows)?.rows)
}

fn decode_value(column: PgColumn, value: &[u8]) -> Result<ArrayRef, DecodeError> {
    let batch = decode_rows(vec![column], &[vec![Some(value.to_vec())]])?;
    Ok(Arc::clone(batch.column(0)))
}

fn hex(digits: &str) -> Vec<u8> {
    assert!(digits.len().is_multiple_of(2));
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// `COPY (SELECT …) TO … (FORMAT binary)` of PostgreSQL 15: two rows of the values of [`types`].
const TYPES: &str = concat!(
    "5047434f50590aff0d0a00000000000000000000160000000101000000028000000000047fffffff0000",
    "0008800000000000000000000004ffffffff000000043fc00000000000087ff80000000000000000000e",
    "0003000100000002000c0d801e78000000076772c3bcc39f65000000046162202000000011017b226122",
    "3a205b312c206e756c6c5d7d000000077b2261223a317d0000000200ff000000100123456789abcdef01",
    "23456789abcdef00000004ffffffff00000008000000141dd75fff00000008fffca2fec4c82001000000",
    "08000303be7ca52800000000056861707079ffffffff000000000000000a0001ffff0000000201f40016",
    "0000000100000000027fff0000000480000000000000087fffffffffffffff0000000400000000000000",
    "048000000000000008fff00000000000000000000a0001ffff4000000200640000000000000000000000",
    "03015b5d000000046e756c6c00000000000000100000000000000000000000000000000000000004fff4",
    "da8b00000008000000000000000000000008fd0f7cc1411fa000000000087fffff5bb3b29fff00000003",
    "7361640000000178ffffffffffffffffffff",
);

/// Columns of [`TYPES`], and what its two rows are as arrays.
fn types() -> Vec<(PgColumn, ArrayRef)> {
    let of = |array: ArrayRef, oid, carrier| (binary(oid, carrier), array);
    let uuids = [hex("0123456789abcdef0123456789abcdef"), vec![0; 16]];
    let decimals = |values: [Option<i64>; 2]| -> ArrayRef {
        let array = Decimal64Array::from(values.to_vec());
        Arc::new(array.with_precision_and_scale(12, 2).unwrap())
    };
    let text = |a: &str, b: &str| -> ArrayRef { Arc::new(StringArray::from(vec![a, b])) };
    vec![
        of(Arc::new(BooleanArray::from(vec![true, false])), 16, Carrier::Bool),
        of(Arc::new(Int16Array::from(vec![i16::MIN, i16::MAX])), 21, Carrier::Int16),
        of(Arc::new(Int32Array::from(vec![i32::MAX, i32::MIN])), 23, Carrier::Int32),
        of(Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX])), 20, Carrier::Int64),
        of(Arc::new(Int64Array::from(vec![4_294_967_295, 0])), 26, Carrier::Int64),
        of(Arc::new(Float32Array::from(vec![1.5, -0.0])), 700, Carrier::Float32),
        of(Arc::new(Float64Array::from(vec![f64::NAN, f64::NEG_INFINITY])), 701, Carrier::Float64),
        of(decimals([Some(12_345_678), Some(-1)]), 1700, DECIMAL),
        of(text("grüße", ""), 25, Carrier::Text),
        of(text("ab  ", ""), 1042, Carrier::Text),
        of(text("{\"a\": [1, null]}", "[]"), 3802, Carrier::Json),
        of(text("{\"a\":1}", "null"), 114, Carrier::Json),
        of(Arc::new(BinaryArray::from(vec![&b"\0\xff"[..], b""])), 17, Carrier::Bytes),
        of(Arc::new(FixedSizeBinaryArray::try_from_iter(uuids.iter()).unwrap()), 2950, Carrier::Uuid),
        of(Arc::new(Int32Array::from(vec![-1, -730_485])), 1082, Carrier::PgDate),
        of(Arc::new(Int64Array::from(vec![86_399_999_999, 0])), 1083, Carrier::PgTime),
        of(
            Arc::new(Int64Array::from(vec![-946_684_799_999_999, -211_813_488_000_000_000])),
            1114,
            Carrier::PgTimestamp,
        ),
        of(
            Arc::new(Int64Array::from(vec![848_541_600_000_000, 9_223_371_331_199_999_999])),
            1184,
            Carrier::PgTimestampTz,
        ),
        of(text("happy", "sad"), 16_385, Carrier::Text),
        of(Arc::new(StringArray::from(vec![None, Some("x")])), 25, Carrier::Text),
        of(Arc::new(StringArray::from(vec![Some(""), None])), 25, Carrier::Text),
        of(decimals([Some(5), None]), 1700, DECIMAL),
    ]
}

#[test]
fn every_type_comes_as_postgresql_sent_it() {
    let (columns, expected): (Vec<_>, Vec<_>) = types().into_iter().unzip();
    let batch = decode_payload(columns.clone(), &hex(TYPES)).unwrap().rows;
    assert_eq!(batch.num_rows(), 2);
    for ((plan, expected), found) in columns.iter().zip(&expected).zip(batch.columns()) {
        assert_eq!(found.data_type(), &plan.output.carrier.data_type());
        // Through text, because NaN is not equal to itself.
        assert_eq!(format!("{found:?}"), format!("{expected:?}"), "type {}", plan.pg_type.oid);
    }
}

#[test]
fn logical_types_are_shifted_to_1970() {
    let days = |days: i32| days.to_be_bytes();
    let long = |value: i64| value.to_be_bytes();
    let date = decode_value(binary(1082, Carrier::Date32), &days(-10_957)).unwrap();
    assert_eq!(date.as_ref(), &Date32Array::from(vec![0]) as &dyn Array);
    // 5874897-12-31, PostgreSQL's last day.
    let date = decode_value(binary(1082, Carrier::Date32), &days(2_145_031_948)).unwrap();
    assert_eq!(date.as_ref(), &Date32Array::from(vec![2_145_042_905]) as &dyn Array);
    let time = decode_value(binary(1083, Carrier::Time64), &long(1)).unwrap();
    assert_eq!(time.as_ref(), &Time64MicrosecondArray::from(vec![1]) as &dyn Array);
    for (oid, utc) in [(1114, false), (1184, true)] {
        let plan = binary(oid, Carrier::Timestamp { unit: Precision::Micros, utc });
        let found = decode_value(plan, &long(-946_684_799_999_999)).unwrap();
        let expected = TimestampMicrosecondArray::from(vec![1]).with_timezone_opt(utc.then_some("UTC"));
        assert_eq!(found.as_ref(), &expected as &dyn Array);
    }
}

#[test]
fn special_values_are_kept_by_the_carriers_that_can() {
    let long = |value: i64| value.to_be_bytes().to_vec();
    for (oid, carrier, value) in [
        (1083, Carrier::PgTime, 86_400_000_000),
        (1114, Carrier::PgTimestamp, i64::MIN),
        (1184, Carrier::PgTimestampTz, i64::MAX),
    ] {
        let found = decode_value(binary(oid, carrier), &long(value)).unwrap();
        assert_eq!(found.as_ref(), &Int64Array::from(vec![value]) as &dyn Array);
    }
    let found = decode_value(binary(1082, Carrier::PgDate), &i32::MAX.to_be_bytes()).unwrap();
    assert_eq!(found.as_ref(), &Int32Array::from(vec![i32::MAX]) as &dyn Array);
}

#[test]
fn what_a_carrier_cannot_hold_is_named_with_its_flag() {
    let i32s = |value: i32| value.to_be_bytes().to_vec();
    let i64s = |value: i64| value.to_be_bytes().to_vec();
    let timestamp = Carrier::Timestamp { unit: Precision::Micros, utc: true };
    let cases = [
        (1082, Carrier::Date32, i32s(i32::MAX), "infinity cannot be written as a Parquet date"),
        (1082, Carrier::Date32, i32s(i32::MIN), "-infinity cannot be"),
        (1082, Carrier::Date32, i32s(i32::MAX - 1), "a date that far in the future cannot be"),
        (1083, Carrier::Time64, i64s(86_400_000_000), "24:00:00 cannot be"),
        (1184, timestamp.clone(), i64s(i64::MAX), "infinity cannot be"),
        (1184, timestamp.clone(), i64s(i64::MIN), "-infinity cannot be"),
        (1184, timestamp.clone(), i64s(9_223_371_331_199_999_999), "a timestamp that far in the future cannot be"),
        (1700, DECIMAL, hex("00000000c0000000"), "NaN cannot be written as decimal(12,2)"),
        (1700, DECIMAL, hex("00000000d0000020"), "Infinity cannot be"),
        (1700, DECIMAL, hex("00000000f0000020"), "-Infinity cannot be"),
        (1700, DECIMAL, hex("0001ffff400000040001"), "a number with more digits after the point cannot be"),
        (1700, DECIMAL, hex("00010003000000000001"), "a number with more digits before the point cannot be"),
    ];
    for (oid, carrier, value, expected) in cases {
        let rows = [vec![None], vec![Some(value)]];
        let error = decode_rows(vec![binary(oid, carrier)], &rows).unwrap_err();
        let text = error.whole();
        assert!(text.starts_with(&format!("column \"c\" (type {oid}), row 2 of the partition: ")), "{text}");
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("--on-unrepresentable"), "{text}");
        assert_eq!(error.fault(), SourceFault::Data);
    }
}

#[test]
fn broken_values_are_a_protocol_fault() {
    let cases: [(u32, Carrier, &[u8]); 16] = [
        (16, Carrier::Bool, b"\x02"),
        (16, Carrier::Bool, b""),
        (21, Carrier::Int16, b"abc"),
        (20, Carrier::Int64, b"abcd"),
        (2950, Carrier::Uuid, b"short"),
        (1083, Carrier::PgTime, &[0xff; 8]),
        (1083, Carrier::Time64, &[0x7f; 8]),
        (3802, Carrier::Json, b""),
        (3802, Carrier::Json, b"\x02{}"),
        (1700, DECIMAL, b""),
        (1700, DECIMAL, &[0; 7]),
        (1700, DECIMAL, &[0; 9]),
        (1700, Carrier::NumberText, &[0, 1, 0, 0, 0, 0, 0, 0]),
        (1700, Carrier::NumberText, &[0, 0, 0, 0, 0x10, 0, 0, 0]),
        (1700, Carrier::NumberText, &[0, 0, 0, 0, 0, 0, 0x40, 0]),
        (1700, Carrier::NumberText, &[0, 1, 0, 0, 0, 0, 0, 0, 0x27, 0x10]),
    ];
    for (oid, carrier, value) in cases {
        let error = decode_value(binary(oid, carrier.clone()), value).unwrap_err();
        assert_eq!(error.fault(), SourceFault::Protocol, "{carrier:?} {value:?}: {error}");
    }
    // A jsonb of no bytes with input behind it must not borrow its version from there.
    let rows = [vec![Some(vec![]), Some(vec![1])]];
    let jsonb = || binary(3802, Carrier::Json);
    assert!(decode_rows(vec![jsonb(), jsonb()], &rows).is_err());
}

#[test]
fn a_null_where_the_catalog_promises_none_is_an_error() {
    let mut plan = binary(25, Carrier::Text);
    plan.output.nullable = false;
    let some = vec![Some(b"x".to_vec())];
    assert!(decode_rows(vec![plan.clone()], std::slice::from_ref(&some)).is_ok());
    let error = decode_rows(vec![plan], &[some.clone(), some, vec![None]]).unwrap_err();
    assert!(error.whole().contains("column \"c\" (type 25), row 3 of the partition: NULL"), "{error}");
    assert_eq!(error.fault(), SourceFault::Data);
}

#[test]
fn text_is_valid_utf8_value_by_value() {
    let row = |value: &[u8]| vec![Some(value.to_vec())];
    // Two halves of "ü" are valid only together.
    for broken in [&b"\xff"[..], b"\xc3"] {
        let rows = [row(b"ok"), row("grüße".as_bytes()), row(broken), row(b"\xbc")];
        for plan in [
            binary(25, Carrier::Text),
            column("c", 600, Wire::OutputText, Carrier::Text),
            column("c", 600, Wire::JsonText, Carrier::Json),
        ] {
            let error = decode_rows(vec![plan], &rows).unwrap_err();
            assert!(error.whole().contains("row 3 of the partition: text that is not valid UTF-8"), "{error}");
            assert_eq!(error.fault(), SourceFault::Data);
        }
    }
}

#[test]
fn a_plan_without_a_decoder_is_refused() {
    for plan in [
        binary(25, Carrier::Int32),
        // A tsvector, and money, whose spelling is the database's.
        binary(3614, Carrier::Text),
        binary(790, Carrier::Text),
        binary(1114, Carrier::Timestamp { unit: Precision::Micros, utc: true }),
        column("c", 23, Wire::OutputText, Carrier::Int32),
    ] {
        let error = BatchDecoder::new(&Arc::from(vec![plan])).unwrap_err();
        assert!(matches!(error, DecodeError::NoDecoder { .. }), "{error}");
    }
}

#[test]
fn batches_end_at_their_bounds_and_rows_are_counted_through() {
    let text = of_policy(binary(25, Carrier::Text), "lossless");
    let columns: Arc<[PgColumn]> = Arc::from(vec![text, binary(1700, Carrier::NumberText)]);
    let mut decoder = BatchDecoder::new(&columns).unwrap();
    // 1e131071: ten bytes on the wire, 131,072 as text.
    let number = hex("00017fff0000000003e8");
    let mut some: Vec<Row> = vec![vec![Some(b"x".to_vec()), Some(number)]; 600];
    some.push(vec![Some(b"\xff".to_vec()), None]);
    let mut input = [opening(2), message(b'd', &payload(&some))].concat();
    let mut fields = FieldTable::default();
    Framer::new(2).frame(&mut input, &mut fields, usize::MAX).unwrap();
    let (mut next, mut rows) = (0, 0);
    let error = loop {
        next = decoder.decode(&input, &fields, next).unwrap();
        assert!(next == fields.rows() || decoder.is_full());
        assert!(decoder.rows() <= BLOCK_ROWS, "one block passes the bound of bytes");
        match decoder.take_batch() {
            Ok(batch) => rows += batch.rows.num_rows(),
            Err(error) => break error,
        }
    };
    assert_eq!(next, 601);
    assert!(rows > 300);
    assert!(error.whole().contains("row 601 of"), "{error}");

    let columns: Arc<[PgColumn]> = Arc::from(vec![binary(16, Carrier::Bool)]);
    let mut decoder = BatchDecoder::new(&columns).unwrap();
    let some: Vec<Row> = vec![vec![Some(vec![1])]; BATCH_ROWS_MAX + 1];
    let mut input = [opening(1), message(b'd', &payload(&some))].concat();
    Framer::new(1).frame(&mut input, &mut fields, usize::MAX).unwrap();
    assert_eq!(decoder.decode(&input, &fields, 0).unwrap(), BATCH_ROWS_MAX);
    assert_eq!(decoder.decode(&input, &fields, BATCH_ROWS_MAX).unwrap(), BATCH_ROWS_MAX);
    assert_eq!(decoder.take_batch().unwrap().rows.num_rows(), BATCH_ROWS_MAX);
    assert_eq!(decoder.decode(&input, &fields, BATCH_ROWS_MAX).unwrap(), BATCH_ROWS_MAX + 1);
    assert_eq!((decoder.rows(), decoder.bytes()), (1, 1));
    assert_eq!(decoder.take_batch().unwrap().rows.num_rows(), 1);
    assert_eq!(decoder.take_batch().unwrap().rows.num_rows(), 0);
}

#[test]
fn a_row_beyond_the_cap_is_told_and_not_decoded() {
    // The last is broken.
    let some: Vec<Row> = [vec![1], vec![0], vec![1, 2, 3]].map(|value| vec![Some(value)]).into();
    let mut input = [opening(1), message(b'd', &payload(&some))].concat();
    let mut fields = FieldTable::default();
    Framer::new(1).frame(&mut input, &mut fields, usize::MAX).unwrap();
    let capped = |cap| {
        let columns = Arc::from(vec![binary(16, Carrier::Bool)]);
        BatchDecoder::new(&columns).unwrap().with_cap(NonZeroU64::new(cap))
    };
    for cap in [1, 2] {
        let mut decoder = capped(cap);
        assert_eq!(decoder.decode(&input, &fields, 0).unwrap(), 3);
        assert!(decoder.is_beyond_cap());
        let batch = decoder.take_batch().unwrap();
        assert_eq!((batch.rows.num_rows() as u64, batch.beyond_cap), (cap, true));
        assert!(!decoder.take_batch().unwrap().beyond_cap, "told once");
        // What comes in the next read is as far behind the cap.
        assert_eq!(decoder.decode(&input, &fields, 0).unwrap(), 3);
        let batch = decoder.take_batch().unwrap();
        assert_eq!((batch.rows.num_rows(), batch.beyond_cap), (0, true));
    }
    for cap in [0, 3, 4] {
        assert!(capped(cap).decode(&input, &fields, 0).is_err(), "{cap}");
    }
}

#[test]
fn a_huge_row_is_a_batch_of_its_own() {
    let row = |bytes| vec![Some(vec![7; bytes])];
    let some: Vec<Row> = vec![row(1), row(2), row(BLOCK_BYTES_MAX + 1), row(3)];
    let mut input = [opening(1), message(b'd', &payload(&some))].concat();
    let mut fields = FieldTable::default();
    Framer::new(1).frame(&mut input, &mut fields, usize::MAX).unwrap();
    let mut decoder = BatchDecoder::new(&Arc::from(vec![binary(17, Carrier::Bytes)])).unwrap();
    let (mut next, mut rows) = (0, Vec::new());
    while next < fields.rows() {
        next = decoder.decode(&input, &fields, next).unwrap();
        rows.push(decoder.take_batch().unwrap().rows.num_rows());
    }
    assert_eq!(rows, [2, 1, 1]);
}

#[test]
fn no_columns_and_foreign_tables() {
    let batch = decode_rows(vec![], &[vec![], vec![]]).unwrap();
    assert_eq!((batch.num_rows(), batch.num_columns()), (2, 0));
    let mut decoder = BatchDecoder::new(&Arc::from(vec![binary(16, Carrier::Bool)])).unwrap();
    let error = decoder.decode(&[], &FieldTable::default(), 0).unwrap_err();
    assert!(matches!(error, DecodeError::Columns { expected: 1, found: 0 }), "{error}");
    // Positions into another input are an error, not a panic.
    let mut input = [opening(1), message(b'd', &payload(&[vec![Some(vec![1])]]))].concat();
    let mut fields = FieldTable::default();
    Framer::new(1).frame(&mut input, &mut fields, 9).unwrap();
    for carrier in [Carrier::Bool, DECIMAL, Carrier::Text] {
        let oid = match carrier {
            Carrier::Bool => 16,
            Carrier::Text => 25,
            _ => 1700,
        };
        let mut decoder = BatchDecoder::new(&Arc::from(vec![binary(oid, carrier)])).unwrap();
        assert!(decoder.decode(&[], &fields, 0).is_err());
    }
}

/// `numeric_send` and the text of the same value, from PostgreSQL 15.
const NUMERICS: &[(&str, &str)] = &[
    ("0000000000000000", "0"),
    ("0000000000000002", "0.00"),
    ("00010000000000000001", "1"),
    ("00010000400000000001", "-1"),
    ("0001ffff0000000103e8", "0.1"),
    ("0001ffff400000040001", "-0.0001"),
    ("0001fffe0000000503e8", "0.00001"),
    ("0001000000000000270f", "9999"),
    ("00010001000000000001", "10000"),
    ("000200010000000000010001", "10001"),
    ("000300010000000104d2162e03e8", "12345678.1"),
    ("000200000000000200011388", "1.50"),
    ("00010002000000000001", "100000000"),
    ("000a0009000000000063270f270f270f270f270f270f270f270f270f", "99999999999999999999999999999999999999"),
    ("000a00084000000303e7270f270f270f270f270f270f270f270f2706", "-99999999999999999999999999999999999.999"),
    ("0001fff7000000240001", "0.000000000000000000000000000000000001"),
    ("00010005000000000001", "100000000000000000000"),
    ("0001fffb000000140001", "0.00000000000000000001"),
    ("0002000000000004007b1194", "123.4500"),
    ("0001ffff0000000401f4", "0.0500"),
    ("00040001000000060064000000000064", "1000000.000001"),
    ("00000000c0000000", "NaN"),
    ("00000000d0000020", "Infinity"),
    ("00000000f0000020", "-Infinity"),
    ("00010000000000000064", "100"),
    ("0002000040000001000c0bb8", "-12.3"),
    ("0001000a000000000001", "10000000000000000000000000000000000000000"),
    ("000200000000000413880005", "5000.0005"),
    ("0003000100000002000a13551388", "104949.50"),
];

fn number_text(wire: &[u8]) -> String {
    let found = decode_value(binary(1700, Carrier::NumberText), wire).unwrap();
    found.as_string::<i32>().value(0).to_owned()
}

fn decimal(wire: &[u8], precision: u8, scale: i8) -> Option<i128> {
    let carrier = Carrier::Decimal128 { precision, scale };
    let alone = numeric::decimal(wire, precision, scale).ok();
    // In a row others follow, whatever they are.
    for byte in [0x00, 0x27, 0xff] {
        let row = [wire, &[byte; 8]].concat();
        let mut decimals = numeric::Decimals::new(precision, scale);
        // The second time its header is known.
        for time in 0..2 {
            let found = match precision {
                ..=18 => decimals.long_at(&row, wire.len()).map(i128::from),
                _ => decimals.wide_at(&row, wire.len()),
            };
            assert_eq!(found.ok(), alone, "{wire:x?} before {byte:x}, {time}");
        }
    }
    match decode_value(binary(1700, carrier), wire) {
        Ok(found) if precision <= 18 => Some(found.as_primitive::<Decimal64Type>().value(0).into()),
        Ok(found) => Some(found.as_primitive::<Decimal128Type>().value(0)),
        Err(error) => {
            assert_eq!(error.fault(), SourceFault::Data, "{error}");
            None
        }
    }
}

/// The model: decimal text as the unscaled integer of `decimal(precision, scale)`.
fn decimal_model(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let scale = usize::try_from(scale).unwrap();
    let kept = &fraction[..fraction.len().min(scale)];
    if fraction[kept.len()..].bytes().any(|digit| digit != b'0') {
        return None;
    }
    let digits = format!("{whole}{kept}{}", "0".repeat(scale - kept.len()));
    let significant = digits.trim_start_matches(['-', '0']);
    (significant.len() <= usize::from(precision)).then(|| digits.parse().unwrap())
}

/// What `numeric_send` does with decimal text.
fn numeric_wire(text: &str) -> Vec<u8> {
    let unsigned = text.trim_start_matches('-');
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let padded = format!("{:0>width$}", whole, width = whole.len().next_multiple_of(4));
    let mut digits = padded.clone() + fraction;
    digits += &"0".repeat(digits.len().next_multiple_of(4) - digits.len());
    let mut groups: Vec<u16> = (0..digits.len()).step_by(4).map(|at| digits[at..at + 4].parse().unwrap()).collect();
    let mut weight = i16::try_from(padded.len() / 4).unwrap() - 1;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    while groups.first() == Some(&0) {
        groups.remove(0);
        weight -= 1;
    }
    let zero = groups.is_empty();
    let mut bytes = u16::try_from(groups.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend((if zero { 0 } else { weight }).to_be_bytes());
    bytes.extend((if text.starts_with('-') && !zero { 0x4000_u16 } else { 0 }).to_be_bytes());
    bytes.extend(u16::try_from(fraction.len()).unwrap().to_be_bytes());
    bytes.extend(groups.iter().flat_map(|group| group.to_be_bytes()));
    bytes
}

#[test]
fn numerics_are_what_postgresql_says() {
    for &(wire, text) in NUMERICS {
        let wire = hex(wire);
        assert_eq!(number_text(&wire), text);
        if text.contains('N') || text.contains('I') {
            continue;
        }
        assert_eq!(numeric_wire(text), wire, "the tests' encoder, {text}");
        for (precision, scale) in [(38, 0), (38, 2), (38, 38), (12, 2), (5, 4), (38, 20), (1, 1)] {
            assert_eq!(
                decimal(&wire, precision, scale),
                decimal_model(text, precision, scale),
                "{text} as decimal({precision}, {scale})"
            );
        }
    }
}

#[test]
fn the_largest_and_the_finest_numeric_are_written_out() {
    let text = number_text(&hex("00017fff00000000270f"));
    assert_eq!(text, format!("9999{}", "0000".repeat(32_767)));
    let text = number_text(&hex("0001f001000038010001"));
    assert_eq!(text.len(), 2 + 0x3801);
    assert_eq!(text.trim_start_matches(['0', '.']), "");
    assert_eq!(number_text(&hex("0000000000003fff")).len(), 2 + 16_383);
    // A shift that no integer holds.
    assert_eq!(decimal(&hex("00017fff00000000270f"), 38, 38), None);
    assert_eq!(decimal(&hex("0001800000003fff270f"), 38, 38), None);
    assert_eq!(decimal(&hex("00018000000000000000"), 38, 0), Some(0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..crate::regressions::kept() })]

    #[test]
    fn numeric_text_and_decimals_equal_the_model(
        negative: bool,
        whole in "0|[1-9][0-9]{0,8}|[1-9][0-9]{8,40}|[1-9]0{0,30}[0-9]",
        fraction in "|[0-9]{1,4}|[0-9]{1,30}|0{1,20}[0-9]{1,3}0{0,9}",
        (precision, scale) in (1_u8..=38).prop_flat_map(|p| (Just(p), 0..=i8::try_from(p).unwrap())),
    ) {
        let point = if fraction.is_empty() { "" } else { "." };
        let zero = !whole.contains(|c| c != '0') && !fraction.contains(|c| c != '0');
        let sign = if negative && !zero { "-" } else { "" };
        let text = format!("{sign}{whole}{point}{fraction}");
        let wire = numeric_wire(&text);
        prop_assert_eq!(number_text(&wire), text.clone());
        prop_assert_eq!(decimal(&wire, precision, scale), decimal_model(&text, precision, scale));
        prop_assert_eq!(decimal(&wire, 38, scale), decimal_model(&text, 38, scale));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..crate::regressions::kept() })]

    #[test]
    fn generated_rows_come_back_through_framer_and_decoder(
        rows in rows(3, 30),
        message_cuts in cuts(),
        network_cuts in cuts(),
        max_rows in 1_usize..20,
        batch_rows in 1_usize..9,
    ) {
        let columns: Arc<[PgColumn]> = Arc::from(vec![binary(17, Carrier::Bytes); 3]);
        let mut framer = Framer::new(3);
        let mut fields = FieldTable::default();
        let mut decoder = BatchDecoder::new(&columns).unwrap();
        let (mut buffer, mut found) = (Vec::new(), Vec::<Row>::new());
        let mut take = |decoder: &mut BatchDecoder| {
            let batch = decoder.take_batch().unwrap();
            for row in 0..batch.rows.num_rows() {
                let values = batch.rows.columns().iter().map(|column| {
                    let column = column.as_binary::<i32>();
                    column.is_valid(row).then(|| column.value(row).to_vec())
                });
                found.push(values.collect());
            }
        };
        for arrival in pieces(&stream_cut(3, &rows, &message_cuts), &network_cuts) {
            buffer.extend_from_slice(arrival);
            loop {
                let step = framer.frame(&mut buffer, &mut fields, max_rows).unwrap();
                prop_assert_eq!(decoder.decode(&buffer, &fields, 0).unwrap(), fields.rows());
                if decoder.rows() >= batch_rows {
                    take(&mut decoder);
                }
                buffer.drain(..step.consumed);
                if step.state != FrameState::Full {
                    break;
                }
            }
        }
        take(&mut decoder);
        prop_assert_eq!(found, rows);
    }
}
