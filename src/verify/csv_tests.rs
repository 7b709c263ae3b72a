use proptest::prelude::*;

use super::*;
use crate::verify::columns::tests::columns as columns_of;
use crate::verify::value::Value;

fn options(newline: Newline, bom: bool) -> CsvOptions {
    CsvOptions { header: false, delimiter: b',', null: String::new(), newline, bom, formula_guard: false }
}

/// Reads columns of text that are called `a`, `b` and so on.
fn read(text: &str, width: usize, options: &CsvOptions, cut: usize) -> io::Result<(u64, Vec<ObservedStatistics>)> {
    let names = ["a", "b", "c"];
    let columns: Vec<(&str, TextKind)> =
        names.into_iter().cycle().take(width).map(|name| (name, TextKind::Text)).collect();
    let mut rows = CsvReader::new(options, &columns_of(&columns));
    for bytes in text.as_bytes().chunks(cut) {
        rows.take(bytes)?;
    }
    rows.end()
}

fn count(text: &str, columns: usize, options: &CsvOptions, cut: usize) -> io::Result<u64> {
    read(text, columns, options, cut).map(|(lines, _)| lines)
}

#[test]
fn records_are_lines_outside_quotes_however_bytes_are_cut() {
    let lf = options(Newline::Lf, false);
    let crlf = options(Newline::Crlf, false);
    let cases = [
        ("nothing", "", 2, &lf, 0),
        ("plain", "a,b\n1,2\n", 2, &lf, 2),
        ("a line feed in quotes", "a,b\n\"x\ny\",2\n", 2, &lf, 2),
        ("doubled quotes", "a\n\"\"\"\n\"\"\"\n\"\"\n", 1, &lf, 3),
        ("one column of NULLs", "a\n\n\n1\n\n", 1, &lf, 5),
        ("two columns of NULLs", "a,b\n,\n,\n", 2, &lf, 3),
        ("CRLF", "a,b\r\n1,\"2\"\r\n\"x\r\ny\",\r\n", 2, &crlf, 3),
        ("CRLF, one column of NULLs", "a\r\n\r\n\r\n", 1, &crlf, 3),
        ("a byte order mark", "\u{feff}a\n\n1\n", 1, &options(Newline::Lf, true), 3),
        ("a byte order mark and no header", "\u{feff}\n\n", 1, &options(Newline::Lf, true), 2),
    ];
    for (case, text, columns, options, wanted) in cases {
        for cut in [1, 2, 3, 5, 1_000] {
            assert_eq!(count(text, columns, options, cut).unwrap(), wanted, "{case}, cut at {cut}");
        }
    }
}

#[test]
fn wide_and_long_records_are_one_record() {
    let lf = options(Newline::Lf, false);
    let wide = format!("{}x\n", "x,".repeat(1_599));
    assert_eq!(count(&wide, 1_600, &lf, 1_000).unwrap(), 1);
    let long = format!("\"{}\"\n", "x\"\"\n".repeat(100_000));
    assert_eq!(count(&long, 1, &lf, 77).unwrap(), 1);
}

#[test]
fn damaged_records_are_errors() {
    let lf = options(Newline::Lf, false);
    for (text, columns) in [("a,b\n1\n", 2), ("a\n1,2\n", 1), ("a,b\n\n", 2), ("a\n1", 1), ("a\n\"1\n", 1)] {
        assert!(count(text, columns, &lf, 4).is_err(), "{text:?}");
    }
}

proptest! {
    #![proptest_config(crate::regressions::kept())]

    /// The writer is the `csv` crate's own, so that reader and writer are not both ours.
    #[test]
    fn counts_what_csv_wrote(rows in prop::collection::vec(prop::collection::vec("[a\",\n\r é]{0,6}", 3), 0..20), cut in 1_usize..50) {
        let mut writer = csv::Writer::from_writer(Vec::new());
        for row in &rows {
            writer.write_record(row).unwrap();
        }
        let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        let counted = count(&text, 3, &options(Newline::Lf, false), cut).unwrap();
        prop_assert_eq!(counted, u64::try_from(rows.len()).unwrap());
    }
}

#[test]
fn a_null_is_what_stands_unquoted() {
    let null = |text: &str| CsvOptions { null: text.to_owned(), ..options(Newline::Crlf, false) };
    for (text, options, nulls) in
        [(",\r\n\"\",\"\"\r\n", null(""), [1, 1]), ("NULL,NULL\r\n\"NULL\",NULLS\r\n,\r\n", null("NULL"), [1, 1])]
    {
        for cut in [1, 2, 100] {
            let (_, found) = read(text, 2, &options, cut).unwrap();
            assert_eq!([found[0].nulls, found[1].nulls], nulls, "{text:?} cut at {cut}");
        }
    }
}

#[test]
fn values_are_read_to_their_ends() {
    let long = "x".repeat(10_000);
    let text = format!("b,\"{long}\"\r\na,\"\r\"\r\n");
    for cut in [1, 77, 100_000] {
        let (_, found) = read(&text, 2, &options(Newline::Crlf, false), cut).unwrap();
        let ends = |found: &ObservedStatistics| found.extremes.clone().map(|ends| [ends.0, ends.1]).unwrap();
        let [Value::Bytes(min), Value::Bytes(max)] = ends(&found[0]) else { panic!("text") };
        assert_eq!((min.as_slice(), max.as_slice()), (&b"a"[..], &b"b"[..]));
        let [Value::Bytes(min), Value::Bytes(max)] = ends(&found[1]) else { panic!("text") };
        assert_eq!((min.as_slice(), max.len()), (&b"\r"[..], KEPT_BYTES + 3));
    }
}

#[test]
fn a_header_has_the_columns_names() {
    let with = |guard| CsvOptions { header: true, formula_guard: guard, ..options(Newline::Lf, false) };
    assert_eq!(count("a,b\n1,2\n", 2, &with(false), 3).unwrap(), 2);
    assert_eq!(count("'a,b\n1,2\n", 2, &with(true), 3).unwrap(), 2);
    for text in ["'a,b\n", "b,a\n", "a,\n", "a,b\r\n"] {
        assert!(count(text, 2, &with(false), 3).is_err(), "{text:?}");
    }
    assert!(count("a,b\n", 2, &CsvOptions { newline: Newline::Crlf, ..with(false) }, 3).is_err());
}
