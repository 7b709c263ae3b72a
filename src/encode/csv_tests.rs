use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array, StringArray,
};
use proptest::prelude::*;

use super::*;
use crate::encode::samples::{batch, column, options, part, text};
use crate::model::{Compression, Format, FormatOptions};

fn csv(change: impl FnOnce(&mut CsvOptions)) -> FormatOptions {
    let mut options = options(Format::Csv, Compression::None);
    options.csv.header = false;
    change(&mut options.csv);
    options
}

fn strings(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// One text column.
fn lines(options: &FormatOptions, values: &[Option<&str>]) -> String {
    text(options, vec![column("a", Carrier::Text)], vec![strings(values)])
}

#[test]
fn quotes_stand_where_copy_puts_them() {
    for (value, expected) in [
        (None, ""),
        (Some(""), "\"\""),
        (Some("plain"), "plain"),
        (Some(" spaces "), " spaces "),
        (Some("a,b"), "\"a,b\""),
        (Some("a\"b"), "\"a\"\"b\""),
        (Some("\""), "\"\"\"\""),
        (Some("a\nb"), "\"a\nb\""),
        (Some("a\rb"), "\"a\rb\""),
        (Some("\\."), "\"\\.\""),
        (Some("\\.x"), "\\.x"),
        (Some("é€😀"), "é€😀"),
        (Some("sixteen bytes at once, then more"), "\"sixteen bytes at once, then more\""),
        (Some("more than sixteen bytes and no need"), "more than sixteen bytes and no need"),
    ] {
        assert_eq!(lines(&csv(|_| {}), &[value]), format!("{expected}\n"));
    }
    // Among other columns it cannot be taken for the end of data.
    let two = vec![column("a", Carrier::Text), column("b", Carrier::Text)];
    let values = vec![strings(&[Some("\\.")]), strings(&[None])];
    assert_eq!(text(&csv(|_| {}), two, values), "\\.,\n");
}

#[test]
fn null_text_is_told_from_the_same_value() {
    let options = csv(|csv| csv.null = "\\N".to_owned());
    assert_eq!(lines(&options, &[None, Some("\\N"), Some(""), Some("N")]), "\\N\n\"\\N\"\n\nN\n");

    // Values that are no text can equal it too.
    let options = csv(|csv| csv.null = "0".to_owned());
    let values: ArrayRef = Arc::new(Int32Array::from(vec![None, Some(0), Some(10)]));
    assert_eq!(text(&options, vec![column("a", Carrier::Int32)], vec![values]), "0\n\"0\"\n10\n");
    let options = csv(|csv| csv.null = "NaN".to_owned());
    let values: ArrayRef = Arc::new(Float64Array::from(vec![None, Some(f64::NAN), Some(0.5)]));
    assert_eq!(text(&options, vec![column("a", Carrier::Float64)], vec![values]), "NaN\n\"NaN\"\n0.5\n");
    let options = csv(|csv| csv.null = "\\x".to_owned());
    let values: ArrayRef = Arc::new(BinaryArray::from(vec![None, Some(b"".as_slice()), Some(b"\x01")]));
    assert_eq!(text(&options, vec![column("a", Carrier::Bytes)], vec![values]), "\\x\n\"\\x\"\n\\x01\n");
    let options = csv(|csv| csv.null = "f".to_owned());
    let values: ArrayRef = Arc::new(BooleanArray::from(vec![None, Some(false), Some(true)]));
    assert_eq!(text(&options, vec![column("a", Carrier::Bool)], vec![values]), "f\n\"f\"\nt\n");
}

#[test]
fn any_delimiter_is_quoted_in_any_type() {
    for (delimiter, micros, expected) in [
        (b'-', 0, "\"2000-01-01 00:00:00+00\"\n"),
        (b':', 0, "\"2000-01-01 00:00:00+00\"\n"),
        (b'y', i64::MAX, "\"infinity\"\n"),
        (b'\t', 0, "2000-01-01 00:00:00+00\n"),
        (b';', i64::MIN, "-infinity\n"),
    ] {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![micros]));
        let options = csv(|csv| csv.delimiter = delimiter);
        assert_eq!(text(&options, vec![column("a", Carrier::PgTimestampTz)], vec![values]), expected);
    }
}

#[test]
fn headers_follow_the_rules_of_values() {
    let columns = vec![column("id", Carrier::Text), column("a,\"b\"", Carrier::Text), column("N", Carrier::Text)];
    let none = || vec![strings(&[]), strings(&[]), strings(&[])];
    let options = csv(|csv| csv.header = true);
    assert_eq!(text(&options, columns.clone(), none()), "id,\"a,\"\"b\"\"\",N\n");
    let options = csv(|csv| {
        csv.header = true;
        csv.newline = Newline::Crlf;
        csv.delimiter = b';';
        csv.null = "N".to_owned();
        csv.bom = true;
    });
    assert_eq!(text(&options, columns, none()), "\u{feff}id;\"a,\"\"b\"\"\";\"N\"\r\n");
}

#[test]
fn the_guard_stands_before_formulas_and_never_before_numbers() {
    let options = csv(|csv| csv.formula_guard = true);
    assert_eq!(
        lines(
            &options,
            &[Some("=1"), Some("+1"), Some("-1"), Some("@a"), Some("\t"), Some("\rb"), Some("a=1"), None, Some("")]
        ),
        "'=1\n'+1\n'-1\n'@a\n'\t\n\"'\rb\"\na=1\n\n\"\"\n"
    );
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![-1]));
    let texts = strings(&[Some("-1.5")]);
    let columns = vec![column("a", Carrier::Int32), column("b", Carrier::NumberText), column("c", Carrier::Json)];
    assert_eq!(text(&options, columns, vec![numbers, Arc::clone(&texts), texts]), "-1,-1.5,-1.5\n");
}

#[test]
fn guarded_values_are_counted_by_column_and_names_are_not() {
    let mut interval = column("=i", Carrier::Text);
    interval.free_text = false;
    let columns: Arc<[ColumnPlan]> = vec![column("-a", Carrier::Text), interval, column("b", Carrier::Text)].into();
    let lines = ["\n=1", "＝1", "＋", "－1", "＠a", "＂", "\u{feff}=1", "-2"];
    let texts = strings(&lines.map(Some));
    let intervals = strings(&["-1 days"; 8].map(Some));
    let plain = strings(&["1=2"; 8].map(Some));
    let batches = [batch(&columns, vec![texts, intervals, plain])];
    let options = csv(|csv| {
        csv.formula_guard = true;
        csv.header = true;
    });
    let (object, summary) = part(&options, &columns, &batches);
    let expected = "'-a,'=i,b\n\"'\n=1\",-1 days,1=2\n'＝1,-1 days,1=2\n'＋,-1 days,1=2\n'－1,-1 days,1=2\n\
        '＠a,-1 days,1=2\n＂,-1 days,1=2\n\u{feff}=1,-1 days,1=2\n'-2,-1 days,1=2\n";
    assert_eq!(String::from_utf8(object).unwrap(), expected);
    assert_eq!(*summary.changed, [6, 0, 0]);
    // Nothing to guard, and no guard.
    let names_only = part(&options, &columns, &[]).1;
    assert!(names_only.changed.is_empty());
    let (_, summary) = part(&csv(|_| {}), &columns, &batches);
    assert!(summary.changed.is_empty());
}

#[test]
fn text_as_bytes_and_json_are_written_as_copy_writes_them() {
    let columns = vec![column("t", Carrier::Bytes), column("j", Carrier::Json)];
    let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![Some(b"caf\xe9".as_slice()), Some(b""), None]));
    let json = strings(&[Some("{\"a\": 1,\n \"b\": []}"), Some("-5"), Some("\"\"")]);
    let options = csv(|csv| csv.formula_guard = true);
    assert_eq!(
        text(&options, columns, vec![bytes, json]),
        "\\x636166e9,\"{\"\"a\"\": 1,\n \"\"b\"\": []}\"\n\\x,-5\n,\"\"\"\"\"\"\n"
    );
}

fn field() -> impl Strategy<Value = Option<String>> {
    prop_oneof![Just(None), any::<String>().prop_map(Some), "[,;\"\\\\.\r\na]{0,40}".prop_map(Some)]
}

proptest! {
    #![proptest_config(crate::regressions::kept())]

    #[test]
    fn a_reader_gets_the_values_back(rows in prop::collection::vec((field(), field()), 0..20), crlf: bool, semicolon: bool) {
        let options = csv(|csv| {
            csv.newline = if crlf { Newline::Crlf } else { Newline::Lf };
            csv.delimiter = if semicolon { b';' } else { b',' };
            csv.null = "\\N".to_owned();
        });
        let (first, second): (Vec<_>, Vec<_>) = rows.iter().cloned().unzip();
        let arrays: Vec<ArrayRef> = vec![Arc::new(StringArray::from(first)), Arc::new(StringArray::from(second))];
        let written = text(&options, vec![column("a", Carrier::Text), column("b", Carrier::Text)], arrays);
        let mut reader = csv::ReaderBuilder::new().has_headers(false).delimiter(options.csv.delimiter).from_reader(written.as_bytes());
        let read: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(read.len(), rows.len());
        for (record, (first, second)) in read.iter().zip(&rows) {
            for (found, expected) in record.iter().zip([first, second]) {
                prop_assert_eq!(found, expected.as_deref().unwrap_or("\\N"));
            }
        }
    }

    /// The reader above cannot tell NULL from the same text; only quotes do.
    #[test]
    fn null_is_never_written_as_a_value(values in prop::collection::vec(field(), 0..20), null in "[a-b]{0,2}") {
        let options = csv(|csv| csv.null.clone_from(&null));
        for value in values {
            let written = lines(&options, &[value.as_deref()]);
            prop_assert_eq!(written == format!("{null}\n"), value.is_none());
        }
    }

    #[test]
    fn the_alphabets_hold_what_is_printed(bits: u64, delimiter in prop::sample::select((b' '..=b'~').filter(|&byte| byte != QUOTE).collect::<Vec<_>>())) {
        let micros = bits.cast_signed();
        for (carrier, array) in [
            (Carrier::Int64, Arc::new(Int64Array::from(vec![micros])) as ArrayRef),
            (Carrier::PgTimestampTz, Arc::new(Int64Array::from(vec![micros]))),
            (Carrier::Float64, Arc::new(Float64Array::from(vec![f64::from_bits(bits)]))),
            (Carrier::Bytes, Arc::new(BinaryArray::from(vec![bits.to_le_bytes().as_slice()]))),
            (Carrier::PgTimestamp, Arc::new(Int64Array::from(vec![micros]))),
            (Carrier::PgTime, Arc::new(Int64Array::from(vec![micros.rem_euclid(86_400_000_001)]))),
            (Carrier::PgDate, Arc::new(Int32Array::from(vec![i32::try_from(micros >> 32).unwrap()]))),
            (Carrier::Uuid, Arc::new(FixedSizeBinaryArray::try_from_iter([u128::from(bits).to_ne_bytes()].into_iter()).unwrap())),
        ] {
            let plain = text(&csv(|csv| csv.delimiter = b'\x01'), vec![column("a", carrier.clone())], vec![Arc::clone(&array)]);
            let written = text(&csv(|csv| csv.delimiter = delimiter), vec![column("a", carrier)], vec![array]);
            prop_assert_eq!(written.starts_with('"'), plain.as_bytes().contains(&delimiter));
        }
    }
}
