use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal64Array, Decimal128Array, Float32Array, Float64Array, Int32Array,
    Int64Array, StringArray,
};
use proptest::prelude::*;
use serde_json::Value;

use crate::encode::samples::{batch, column, options, part, text};
use crate::model::{Carrier, ColumnPlan, Compression, Format, JsonLargeNumbers, Policies};

fn ndjson(columns: Vec<ColumnPlan>, arrays: Vec<ArrayRef>) -> String {
    text(&options(Format::Ndjson, Compression::None), columns, arrays)
}

fn values(carrier: Carrier, array: impl arrow::array::Array + 'static) -> Vec<String> {
    let lines = ndjson(vec![column("a", carrier)], vec![Arc::new(array)]);
    let value = |line: &str| line.strip_prefix("{\"a\":").unwrap().strip_suffix('}').unwrap().to_owned();
    lines.lines().map(value).collect()
}

#[test]
fn values_are_those_of_row_to_json() {
    assert_eq!(
        values(Carrier::Bool, BooleanArray::from(vec![Some(true), Some(false), None])),
        ["true", "false", "null"]
    );
    assert_eq!(
        values(
            Carrier::Float64,
            Float64Array::from(vec![1.0, -0.0, 1e15, 1e-5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY])
        ),
        ["1", "-0", "1e+15", "1e-05", "\"NaN\"", "\"Infinity\"", "\"-Infinity\""]
    );
    assert_eq!(values(Carrier::Float32, Float32Array::from(vec![0.1, 1e6, f32::NAN])), ["0.1", "1e+06", "\"NaN\""]);
    assert_eq!(
        values(Carrier::NumberText, StringArray::from(vec!["1.50", "-0.001", "NaN", "-Infinity"])),
        ["1.50", "-0.001", "\"NaN\"", "\"-Infinity\""]
    );
    let decimals = Decimal64Array::from(vec![-5, 1_250]).with_precision_and_scale(12, 2).unwrap();
    assert_eq!(values(Carrier::Decimal128 { precision: 12, scale: 2 }, decimals), ["-0.05", "12.50"]);
    assert_eq!(
        values(Carrier::Bytes, BinaryArray::from(vec![b"\x00\xff".as_slice(), b""])),
        ["\"\\\\x00ff\"", "\"\\\\x\""]
    );
    assert_eq!(
        values(Carrier::PgTimestampTz, Int64Array::from(vec![123_000, i64::MAX, i64::MIN, -211_813_488_000_000_000])),
        ["\"2000-01-01T00:00:00.123+00:00\"", "\"infinity\"", "\"-infinity\"", "\"4714-11-24T00:00:00+00:00 BC\""]
    );
    assert_eq!(values(Carrier::PgTimestamp, Int64Array::from(vec![0])), ["\"2000-01-01T00:00:00\""]);
    assert_eq!(values(Carrier::PgDate, Int32Array::from(vec![0, i32::MAX])), ["\"2000-01-01\"", "\"infinity\""]);
    assert_eq!(values(Carrier::PgTime, Int64Array::from(vec![86_400_000_000])), ["\"24:00:00\""]);
    assert_eq!(
        values(Carrier::Json, StringArray::from(vec!["{\"a\": [1, 2.50],\n \"b c\": \" \\\" \"}", "null"])),
        ["{\"a\":[1,2.50],\"b c\":\" \\\" \"}", "null"]
    );
    assert_eq!(values(Carrier::Text, StringArray::from(vec!["a\"b\\\n\u{1}/é"])), ["\"a\\\"b\\\\\\n\\u0001/é\""]);
}

#[test]
fn every_column_stands_in_order() {
    let columns = vec![column("z", Carrier::Int32), column("a\"\n", Carrier::Text), column("", Carrier::Int32)];
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![Some(1), None])),
        Arc::new(StringArray::from(vec![None, Some("")])),
        Arc::new(Int32Array::from(vec![None, Some(-2)])),
    ];
    assert_eq!(
        ndjson(columns, arrays),
        "{\"z\":1,\"a\\\"\\n\":null,\"\":null}\n{\"z\":null,\"a\\\"\\n\":\"\",\"\":-2}\n"
    );
}

#[test]
fn numbers_that_doubles_change_are_strings_where_asked_for() {
    let policies = Policies { json_large_numbers: JsonLargeNumbers::String, ..Policies::default() };
    let strings = |name: &str, carrier: Carrier| ColumnPlan { policies, ..column(name, carrier) };
    let columns: Arc<[ColumnPlan]> = vec![
        strings("i", Carrier::Int64),
        column("same", Carrier::Int64),
        strings("n", Carrier::NumberText),
        strings("j", Carrier::Json),
        strings("d", Carrier::Decimal128 { precision: 38, scale: 2 }),
        strings("t", Carrier::Text),
        strings("f", Carrier::Float64),
    ]
    .into();
    let integers = [Some((1 << 53) + 1), Some(1 << 53), None, Some(i64::MIN)];
    let decimals = [Some(5), Some(12_345_678_901_234_567_890), None, Some(-10)];
    let decimals = Decimal128Array::from(decimals.to_vec()).with_precision_and_scale(38, 2).unwrap();
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(integers.to_vec())),
        Arc::new(Int64Array::from(integers.to_vec())),
        Arc::new(StringArray::from(vec![Some("0.30"), Some("-1.23456789012345678"), Some("NaN"), Some("-Infinity")])),
        Arc::new(StringArray::from(vec![
            Some("[9007199254740993, {\"a\": 1e400}]"),
            None,
            Some("[1, 2.50]"),
            Some("12345678901234567890"),
        ])),
        Arc::new(decimals),
        Arc::new(StringArray::from(vec!["9007199254740993"; 4])),
        Arc::new(Float64Array::from(vec![0.1; 4])),
    ];
    let batch = batch(&columns, arrays);
    let options = options(Format::Ndjson, Compression::None);
    let (object, summary) = part(&options, &columns, &[batch.slice(0, 1), batch.slice(1, 3)]);
    let tail = "\"t\":\"9007199254740993\",\"f\":0.1}\n";
    assert_eq!(
        String::from_utf8(object).unwrap(),
        [
            "{\"i\":\"9007199254740993\",\"same\":9007199254740993,\"n\":0.30,\"j\":[\"9007199254740993\",{\"a\":\"1e400\"}],\"d\":0.05,",
            tail,
            "{\"i\":9007199254740992,\"same\":9007199254740992,\"n\":\"-1.23456789012345678\",\"j\":null,\"d\":\"123456789012345678.90\",",
            tail,
            "{\"i\":null,\"same\":null,\"n\":\"NaN\",\"j\":[1,2.50],\"d\":null,",
            tail,
            "{\"i\":\"-9223372036854775808\",\"same\":-9223372036854775808,\"n\":\"-Infinity\",\"j\":\"12345678901234567890\",\"d\":-0.10,",
            tail,
        ]
        .concat()
    );
    // Values, not numbers: the first JSON value holds two.
    assert_eq!(*summary.changed, [2, 0, 1, 2, 1, 0, 0]);
}

proptest! {
    #![proptest_config(crate::regressions::kept())]

    #[test]
    fn lines_read_back_as_the_values(rows in prop::collection::vec((any::<Option<String>>(), any::<Option<i64>>(), any::<Option<f64>>()), 0..20)) {
        let columns = vec![column("text", Carrier::Text), column("int", Carrier::Int64), column("float", Carrier::Float64)];
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|row| row.0.as_deref()).collect::<StringArray>()),
            Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>()),
        ];
        let written = ndjson(columns, arrays);
        prop_assert_eq!(written.lines().count(), rows.len());
        for (line, (text, int, float)) in written.lines().zip(&rows) {
            let read: Value = serde_json::from_str(line).unwrap();
            prop_assert_eq!(read["text"].as_str(), text.as_deref());
            prop_assert_eq!(read["int"].as_i64(), *int);
            match float {
                None => prop_assert!(read["float"].is_null()),
                Some(number) if number.is_finite() => {
                    // Whole floats read as integers, and serde_json's own reading may be one step off.
                    let raw: &serde_json::value::RawValue = serde_json::from_str::<std::collections::HashMap<&str, &serde_json::value::RawValue>>(line).unwrap()["float"];
                    prop_assert_eq!(raw.get().parse::<f64>().unwrap().to_bits(), number.to_bits());
                }
                Some(number) => prop_assert_eq!(read["float"].as_str().unwrap().parse::<f64>().unwrap().is_nan(), number.is_nan()),
            }
        }
    }
}
