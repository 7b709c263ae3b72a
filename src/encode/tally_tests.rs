use arrow::array::{
    BinaryArray, Float32Array, Float64Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
    TimestampMillisecondArray,
};
use proptest::prelude::*;

use super::*;
use crate::encode::samples::{batch, column, every_column, every_value, only_nulls, parquet_only};

fn summary(carrier: Carrier, stats: ManifestStats, arrays: Vec<ArrayRef>) -> ColumnSummary {
    let columns: Arc<[ColumnPlan]> = vec![column("a", carrier)].into();
    let mut tally = Tally::new(&columns, stats);
    for array in arrays {
        tally.observe(&batch(&columns, vec![array])).unwrap();
    }
    tally.finish().remove(0)
}

fn ends(carrier: Carrier, arrays: Vec<ArrayRef>) -> (String, String, bool) {
    let summary = summary(carrier, ManifestStats::All, arrays);
    (summary.min.unwrap(), summary.max.unwrap(), summary.exact)
}

fn exact(min: &str, max: &str) -> (String, String, bool) {
    (min.to_owned(), max.to_owned(), true)
}

#[test]
fn every_carrier_has_its_extremes_in_postgres_text() {
    let columns = every_column();
    let mut tally = Tally::new(&columns, ManifestStats::All);
    tally.observe(&only_nulls(&columns, 2)).unwrap();
    tally.observe(&every_value(&columns, 3)).unwrap();
    tally.observe(&every_value(&columns, 0)).unwrap();
    let found = tally.finish();
    let expected = [
        Some(("f", "t")),
        Some(("-32768", "7")),
        Some(("-1", "7305")),
        Some(("-9223372036854775808", "9223372036854775807")),
        Some(("-1e+10", "0.1")),
        Some(("-1e+100", "0.1")),
        None,
        Some(("-0.05", "1234.56")),
        Some(("", "a,\"b\"\r\n\\.é")),
        None,
        Some(("\\x", "\\x00ff")),
        Some(("00000000-0000-0000-0000-000000000000", "abababab-abab-abab-abab-abababababab")),
        Some(("1999-12-31", "2020-01-01")),
        Some(("00:00:00", "24:00:00")),
        Some(("1999-12-31 23:59:59.999999", "2000-01-01 23:59:59.000001")),
        Some(("1999-12-31 23:59:59.999999+00", "2000-01-01 23:59:59.000001+00")),
        Some(("1969-12-31", "2020-01-01")),
        Some(("00:00:00", "23:59:59.999999")),
        Some(("1969-12-31 23:59:59.999999", "1970-01-01 23:59:59.000001")),
        Some(("1969-12-31 23:59:59.999999+00", "1970-01-01 23:59:59.000001+00")),
    ];
    for (column, (found, expected)) in columns.iter().zip(found.iter().zip(expected)) {
        assert_eq!(found.nulls, 3);
        assert_eq!(found.min.as_deref().zip(found.max.as_deref()), expected, "{:?}", column.carrier);
        assert_eq!(found.exact, expected.is_some());
    }
}

/// NULLs are the column's own, not those inside its values.
#[test]
fn nested_values_have_nulls_but_no_extremes() {
    let columns = parquet_only();
    let mut tally = Tally::new(&columns, ManifestStats::All);
    tally.observe(&every_value(&columns, 4)).unwrap();
    tally.observe(&only_nulls(&columns, 2)).unwrap();
    for (column, found) in columns.iter().zip(tally.finish()) {
        assert_eq!(found.nulls, 3, "{:?}", column.carrier);
        let expected = match column.carrier {
            Carrier::Timestamp { utc: false, .. } => Some(("1969-12-31 23:59:59.999", "1972-09-26 23:43:20.001")),
            Carrier::Timestamp { utc: true, .. } => Some(("1969-12-31 23:59:59.999+00", "1972-09-26 23:43:20.001+00")),
            _ => None,
        };
        assert_eq!(found.min.as_deref().zip(found.max.as_deref()), expected, "{:?}", column.carrier);
        assert_eq!(found.exact, expected.is_some());
    }
}

#[test]
fn what_is_withheld_follows_the_flag() {
    let columns = every_column();
    for stats in [ManifestStats::Safe, ManifestStats::None] {
        let mut tally = Tally::new(&columns, stats);
        tally.observe(&every_value(&columns, 3)).unwrap();
        for (column, summary) in columns.iter().zip(tally.finish()) {
            let hidden = stats == ManifestStats::None
                || matches!(column.carrier, Carrier::Text | Carrier::Json | Carrier::Bytes | Carrier::NumberText);
            assert_eq!((summary.min.is_none(), summary.max.is_none(), summary.exact), (hidden, hidden, !hidden));
            assert_eq!(summary.nulls, 1);
        }
    }
}

#[test]
fn nan_is_the_greatest_number() {
    let eight = |values: &[f64]| Arc::new(Float64Array::from(values.to_vec())) as ArrayRef;
    assert_eq!(ends(Carrier::Float64, vec![eight(&[1.0, f64::NAN, f64::INFINITY])]), exact("1", "NaN"));
    assert_eq!(ends(Carrier::Float64, vec![eight(&[-f64::NAN]), eight(&[2.0])]), exact("2", "NaN"));
    assert_eq!(ends(Carrier::Float64, vec![eight(&[f64::NAN])]), exact("NaN", "NaN"));
    assert_eq!(ends(Carrier::Float64, vec![eight(&[f64::INFINITY])]), exact("Infinity", "Infinity"));
    assert_eq!(ends(Carrier::Float64, vec![eight(&[f64::NEG_INFINITY, 0.5])]), exact("-Infinity", "0.5"));
    let four: ArrayRef = Arc::new(Float32Array::from(vec![Some(0.1), None, Some(f32::NAN)]));
    assert_eq!(ends(Carrier::Float32, vec![four]), exact("0.1", "NaN"));
}

#[test]
fn infinities_are_the_ends_of_time() {
    let dates: ArrayRef = Arc::new(Int32Array::from(vec![0, i32::MIN, i32::MAX]));
    assert_eq!(ends(Carrier::PgDate, vec![dates]), exact("-infinity", "infinity"));
    let stamps: ArrayRef = Arc::new(Int64Array::from(vec![0, i64::MAX]));
    assert_eq!(ends(Carrier::PgTimestampTz, vec![stamps]), exact("2000-01-01 00:00:00+00", "infinity"));
}

#[test]
fn long_values_become_bounds() {
    let texts = |values: &[String]| Arc::new(StringArray::from_iter_values(values)) as ArrayRef;
    let long = |last: char| format!("{}{last}{last}", "a".repeat(62));
    let (min, max, exact) = ends(Carrier::Text, vec![texts(&[long('é')])]);
    assert_eq!((min, max, exact), (format!("{}é", "a".repeat(62)), format!("{}ê", "a".repeat(62)), false));
    // Before the surrogates, and at the very end of all characters.
    let (_, max, _) = ends(Carrier::Text, vec![texts(&["\u{d7ff}".repeat(30)])]);
    assert_eq!(max, format!("{}\u{e000}", "\u{d7ff}".repeat(20)));
    let summary = summary(Carrier::Text, ManifestStats::All, vec![texts(&[char::MAX.to_string().repeat(30)])]);
    assert_eq!((summary.max, summary.exact), (None, false));
    let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![[&[7][..], &[0xff; 99]].concat().as_slice()]));
    let (min, max, exact) = ends(Carrier::Bytes, vec![bytes]);
    assert_eq!((min, max.as_str(), exact), (format!("\\x07{}", "ff".repeat(63)), "\\x08", false));
}

proptest! {
    #![proptest_config(crate::regressions::kept())]

    #[test]
    fn texts_lie_within_their_bounds(parts in prop::collection::vec(prop::collection::vec("[a\u{10ffff}é]{0,70}", 1..4), 1..4)) {
        let arrays = parts.iter().map(|values| Arc::new(StringArray::from_iter_values(values)) as ArrayRef).collect();
        let found = summary(Carrier::Text, ManifestStats::All, arrays);
        let values = || parts.iter().flatten();
        let (min, max) = (found.min.unwrap(), found.max);
        prop_assert!(values().all(|value| *value >= min && max.as_ref().is_none_or(|max| value <= max)));
        if found.exact {
            prop_assert_eq!(Some(&min), values().min());
            prop_assert_eq!(max.as_ref(), values().max());
        } else {
            prop_assert!(values().any(|value| value.len() > BOUND_BYTES_MAX));
        }
    }
}

/// The infinities of PostgreSQL are integers at the ends of its own microseconds: a value that is no infinity there must not
/// come out as one because it was counted otherwise.
#[test]
fn the_last_timestamps_are_no_infinities() {
    let stamp = |unit| Carrier::Timestamp { unit, utc: false };
    let last: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![9_224_318_015_999_000, -210_866_803_200_000]));
    let found = ends(stamp(Precision::Millis), vec![last]);
    assert_eq!(found, exact("4714-11-24 00:00:00 BC", "294276-12-31 23:59:59"));
    let last: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX]));
    let text = "294247-01-10 04:00:54.775807";
    assert_eq!(ends(stamp(Precision::Micros), vec![last]), exact(text, text));
    for past in [i64::MAX, i64::MIN] {
        let array: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![past]));
        let summary = summary(stamp(Precision::Millis), ManifestStats::All, vec![array]);
        assert_eq!((summary.min, summary.max, summary.exact), (None, None, false));
    }
}
