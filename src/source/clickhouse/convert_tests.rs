use arrow::array::{Float64Array, UInt8Array, UInt64Array};
use arrow::datatypes::Decimal128Type;

use super::super::mapping::{ChTerms, map_type};
use super::super::types::ChType;
use super::*;
use crate::model::{Format, Preset};

fn with<T>(policies: Policies, work: impl FnOnce(&mut Conversion<'_>) -> T) -> (T, u64) {
    let mut conversion = Conversion { column: "c", policies: &policies, changed: 0 };
    let made = work(&mut conversion);
    (made, conversion.changed)
}

#[test]
fn numbers_are_widened_and_never_narrowed() {
    let small: ArrayRef = Arc::new(UInt8Array::from(vec![Some(255), None]));
    let large: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX]));
    let (made, _) = with(Policies::default(), |one| one.array(&small, &Carrier::Int16).unwrap());
    assert_eq!(made.data_type(), &DataType::Int16);
    let decimal = Carrier::Decimal128 { precision: 20, scale: 0 };
    let (made, _) = with(Policies::default(), |one| one.array(&large, &decimal).unwrap());
    assert_eq!(made.as_primitive::<Decimal128Type>().value(0), i128::from(u64::MAX));
    let (text, _) = with(Policies::default(), |one| one.array(&large, &Carrier::NumberText).unwrap());
    assert_eq!(text.as_string::<i32>().value(0), "18446744073709551615");
    let (refused, _) = with(Policies::default(), |one| one.array(&large, &Carrier::Int64));
    assert!(matches!(refused, Err(ConvertError::Type { .. })));
}

#[test]
fn text_that_is_not_utf8_follows_its_policy() {
    let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![Some(&b"caf\xe9"[..]), None, Some(b"ok")]));
    let (refused, _) = with(Policies::default(), |one| one.array(&bytes, &Carrier::Text));
    assert!(matches!(refused, Err(ConvertError::Utf8 { .. })));
    let replace = Policies { invalid_utf8: InvalidUtf8::Replace, ..Policies::default() };
    let (text, changed) = with(replace, |one| one.array(&bytes, &Carrier::Text).unwrap());
    let text: Vec<Option<&str>> = text.as_string::<i32>().iter().collect();
    assert_eq!((text, changed), (vec![Some("caf\u{fffd}"), None, Some("ok")], 1));
    let (kept, _) = with(Policies::default(), |one| one.array(&bytes, &Carrier::Bytes).unwrap());
    assert_eq!(kept.as_binary::<i32>().value(0), b"caf\xe9");
}

#[test]
fn milliseconds_are_rounded_refused_or_null() {
    let stamps: ArrayRef = Arc::new(Int64Array::from(vec![1_500, 2_000, -1_500]));
    let carrier = Carrier::Timestamp { unit: Precision::Millis, utc: true };
    let policies = |timestamp_precision, on_unrepresentable| Policies {
        on_unrepresentable,
        timestamp_precision,
        ..Policies::default()
    };
    let millis = |policies| {
        let (made, changed) = with(policies, |one| one.array(&stamps, &carrier));
        let made = made.map(|made| {
            let values = made.as_primitive::<arrow::datatypes::TimestampMillisecondType>();
            values.iter().collect::<Vec<_>>()
        });
        (made, changed)
    };
    let (rounded, changed) = millis(policies(TimestampPrecision::Millis, OnUnrepresentable::Error));
    // Both are before 2000.
    assert_eq!((rounded.unwrap(), changed), (vec![Some(1), Some(2), Some(-2)], 2));
    let exact = TimestampPrecision::MillisExact;
    assert!(matches!(millis(policies(exact, OnUnrepresentable::Error)).0, Err(ConvertError::TooFine { .. })));
    let (nulls, changed) = millis(policies(exact, OnUnrepresentable::Null));
    assert_eq!((nulls.unwrap(), changed), (vec![None, Some(2), None], 2));
}

#[test]
fn numbers_that_json_does_not_have_follow_their_policy() {
    let numbers: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.5), Some(f64::NAN), None, Some(f64::INFINITY)]));
    let json = |json_nan| Policies { json_nan, ..Policies::default() };
    let (refused, _) = with(json(JsonNan::Error), |one| one.array(&numbers, &Carrier::Float64));
    assert!(matches!(refused, Err(ConvertError::NotFinite { .. })));
    let (made, changed) = with(json(JsonNan::Null), |one| one.array(&numbers, &Carrier::Float64).unwrap());
    assert_eq!((made.null_count(), changed), (3, 2));
}

#[test]
fn a_member_that_does_not_fit_is_null_within_its_struct() {
    let policies = Policies {
        timestamp_precision: TimestampPrecision::MillisExact,
        on_unrepresentable: OnUnrepresentable::Null,
        ..Policies::default()
    };
    let terms = ChTerms { format: Format::Parquet, preset: Preset::Postgres, policies };
    let carrier = map_type(&ChType::parse("Tuple(at DateTime64(6), n UInt8)").unwrap(), &terms).unwrap().carrier;
    let stamps: ArrayRef = Arc::new(Int64Array::from(vec![1_500, 2_000]));
    let numbers: ArrayRef = Arc::new(UInt8Array::from(vec![1, 2]));
    let sent = StructArray::from(vec![
        (Arc::new(Field::new("1", DataType::Int64, false)), stamps),
        (Arc::new(Field::new("2", DataType::UInt8, false)), numbers),
    ]);
    let sent: ArrayRef = Arc::new(sent);
    let (made, changed) = with(policies, |one| one.array(&sent, &carrier).unwrap());
    let members = made.as_struct();
    assert_eq!((members.column(0).null_count(), members.column(1).null_count(), changed), (1, 0, 1));
}
