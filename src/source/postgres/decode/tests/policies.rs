//! Policies: what each default refuses, what each choice writes, and what is counted.

use arrow::array::{Decimal256Array, TimestampMillisecondArray};
use arrow::datatypes::{Float64Type, i256};

use super::*;
use crate::model::{CharPadding, InvalidUtf8, JsonNan, OnUnrepresentable, TimestampPrecision};

fn long(value: i64) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

fn column_of(values: &[Vec<u8>]) -> Vec<Row> {
    values.iter().map(|value| vec![Some(value.clone())]).collect()
}

fn with(mut plan: PgColumn, set: impl Fn(&mut Policies)) -> PgColumn {
    set(&mut plan.output.policies);
    plan
}

fn nulling(plan: PgColumn) -> PgColumn {
    with(plan, |policies| policies.on_unrepresentable = OnUnrepresentable::Null)
}

const MILLIS: Carrier = Carrier::Timestamp { unit: Precision::Millis, utc: false };

#[test]
fn what_cannot_be_held_becomes_null_and_is_counted() {
    let nan = hex("00000000c0000000");
    let one = hex("00010000000000000001");
    let micros = Carrier::Timestamp { unit: Precision::Micros, utc: true };
    let cases: [(PgColumn, Vec<u8>, Vec<u8>); 6] = [
        (binary(1700, DECIMAL), one.clone(), nan.clone()),
        (binary(1700, Carrier::Decimal256 { precision: 50, scale: 2 }), one, nan),
        (binary(1082, Carrier::Date32), vec![0; 4], i32::MAX.to_be_bytes().to_vec()),
        (binary(1083, Carrier::Time64), long(0), long(86_400_000_000)),
        (binary(1184, micros), long(0), long(i64::MIN)),
        (binary(1114, MILLIS), long(0), long(i64::MAX)),
    ];
    for (plan, good, bad) in cases {
        // First, last, side by side, in the midst, beside a NULL of its own; and in a second block.
        let (good, bad) = (vec![Some(good)], vec![Some(bad)]);
        let pattern = [&bad, &good, &bad, &bad, &vec![None], &good, &bad].map(Clone::clone);
        let rows: Vec<Row> = pattern.iter().cycle().take(7 * 100).cloned().collect();
        let valid: Vec<bool> = (0..700).map(|row| [1, 5].contains(&(row % 7))).collect();
        let error = decode_rows(vec![plan.clone()], &rows[1..]).unwrap_err();
        assert!(error.whole().contains("row 2 of the partition"), "{error}");

        let batch = decode_batch(
            vec![nulling(plan.clone()), nulling(plan.clone())],
            &rows.iter().map(|row| [row.clone(), row.clone()].concat()).collect::<Vec<_>>(),
        )
        .unwrap();
        let found = batch.rows.column(1);
        assert_eq!(found.data_type(), &plan.output.carrier.data_type());
        assert_eq!((0..700).map(|row| found.is_valid(row)).collect::<Vec<_>>(), valid);
        assert_eq!(*batch.changed, [400, 400]);
        let all = decode_batch(vec![nulling(plan.clone())], &vec![bad.clone(); 300]).unwrap();
        assert_eq!((all.rows.column(0).null_count(), all.changed[0]), (300, 300));

        // Where the plan says that there are no NULLs, none is made.
        let mut required = nulling(plan);
        required.output.nullable = false;
        assert_eq!(decode_rows(vec![required], &[bad]).unwrap_err().fault(), SourceFault::Data);
    }
}

#[test]
fn counts_begin_anew_with_each_batch() {
    let columns: Arc<[PgColumn]> = Arc::from(vec![binary(16, Carrier::Bool), nulling(binary(1082, Carrier::Date32))]);
    let mut decoder = BatchDecoder::new(&columns).unwrap();
    let row = |days: i32| vec![Some(vec![1]), Some(days.to_be_bytes().to_vec())];
    for (days, changed) in [(i32::MAX, &[0, 1][..]), (0, &[]), (i32::MIN, &[0, 1])] {
        let mut input = [opening(2), message(b'd', &payload(&[row(days)]))].concat();
        let mut fields = FieldTable::default();
        Framer::new(2).frame(&mut input, &mut fields, 9).unwrap();
        decoder.decode(&input, &fields, 0).unwrap();
        assert_eq!(*decoder.take_batch().unwrap().changed, *changed);
    }
}

#[test]
fn milliseconds_are_rounded_as_postgresql_rounds_them() {
    // What timestamp(3) of PostgreSQL 15 makes of microseconds since 2000-01-01, as milliseconds since then.
    let cases = [
        (0, 0),
        (499, 0),
        (500, 1),
        (1_499, 1),
        (1_500, 2),
        (-499, 0),
        (-500, -1),
        (-1_500, -2),
        (-1_501, -2),
        (999_999, 1_000),
        (9_223_371_331_199_999_999, 9_223_371_331_200_000),
        (-211_813_488_000_000_000, -211_813_488_000_000),
    ];
    let rows = column_of(&cases.map(|(micros, _)| long(micros)));
    let expected: Vec<i64> = cases.iter().map(|(_, millis)| millis + 946_684_800_000).collect();
    let round = with(binary(1114, MILLIS), |policies| policies.timestamp_precision = TimestampPrecision::Millis);
    let batch = decode_batch(vec![round], &rows).unwrap();
    assert_eq!(batch.rows.column(0).as_ref(), &TimestampMillisecondArray::from(expected) as &dyn Array);
    assert_eq!(*batch.changed, [10]);

    let exact = with(binary(1114, MILLIS), |policies| policies.timestamp_precision = TimestampPrecision::MillisExact);
    let error = decode_rows(vec![exact.clone()], &rows).unwrap_err().whole();
    assert!(error.contains("row 2 of the partition: a timestamp finer than milliseconds cannot be"), "{error}");
    let batch = decode_batch(vec![nulling(exact)], &rows).unwrap();
    assert_eq!((batch.rows.column(0).null_count(), batch.changed[0]), (10, 10));
}

#[test]
fn doubles_are_the_nearest_and_what_they_do_not_keep_is_counted() {
    let cases = [
        ("0", 0.0, true),
        ("1.50", 1.5, true),
        ("-0.125", -0.125, true),
        ("0.1", 0.1, true),
        ("0.1000000000000000055511151231257827021181583404541015625", 0.1, false),
        ("0.100000000000000005551115123125782702118158340454101562", 0.1, false),
        ("9007199254740992", 9_007_199_254_740_992.0, true),
        ("9007199254740993", 9_007_199_254_740_992.0, false),
        ("9007199254740993.0", 9_007_199_254_740_992.0, false),
        ("12345678901234567890", 12_345_678_901_234_567_890.0, false),
        ("100000000000000000000000", 1e23, true),
        ("100000000000000000000", 1e20, true),
        ("0.00000000000000000000000000000000000000000001", 1e-44, true),
    ];
    for (text, nearest, exact) in cases {
        let batch = decode_batch(vec![binary(1700, Carrier::Float64)], &column_of(&[numeric_wire(text)])).unwrap();
        let found = batch.rows.column(0).as_primitive::<Float64Type>().value(0);
        assert_eq!((found.to_bits(), batch.changed.is_empty()), (f64::to_bits(nearest), exact), "{text}");
    }
    for (wire, nearest) in [
        ("00000000c0000000", f64::NAN),
        ("00000000d0000020", f64::INFINITY),
        ("00000000f0000020", f64::NEG_INFINITY),
        // 1e-4000: nothing is nearer than zero.
        ("0001fc18000 00fa00001", 0.0),
    ] {
        let wire = hex(&wire.replace(' ', ""));
        let found = decode_value(binary(1700, Carrier::Float64), &wire).unwrap();
        assert_eq!(found.as_primitive::<Float64Type>().value(0).to_bits(), nearest.to_bits());
    }
    // 1e400 is finite, and an infinity would not be near it.
    let error = decode_value(binary(1700, Carrier::Float64), &hex("00010064000000000001")).unwrap_err();
    assert!(
        error.whole().contains("a number beyond all doubles cannot be written as a floating-point number"),
        "{error}"
    );
}

#[test]
fn wide_decimals_are_exact() {
    let decimal = |text: &str, precision, scale| {
        decode_value(binary(1700, Carrier::Decimal256 { precision, scale }), &numeric_wire(text))
    };
    let nines = "9".repeat(76);
    for (text, precision, scale, unscaled) in [
        (nines.as_str(), 76, 0, nines.clone()),
        (
            "-123456789012345678901234567890123456789.25",
            50,
            3,
            "-123456789012345678901234567890123456789250".to_owned(),
        ),
        ("0.00", 39, 1, "0".to_owned()),
        ("0.0000000000000000000000000000000000000001", 76, 40, "1".to_owned()),
    ] {
        let expected = Decimal256Array::from(vec![i256::from_string(&unscaled).unwrap()]);
        let expected = expected.with_precision_and_scale(precision, scale).unwrap();
        assert_eq!(decimal(text, precision, scale).unwrap().as_ref(), &expected as &dyn Array, "{text}");
    }
    let above = format!("1{}", "0".repeat(76));
    for (text, precision, scale) in
        [(above.as_str(), 76, 0), (nines.as_str(), 75, 0), ("0.01", 76, 1), (nines.as_str(), 76, 1)]
    {
        assert_eq!(decimal(text, precision, scale).unwrap_err().fault(), SourceFault::Data, "{text}");
    }
}

#[test]
fn numbers_of_64_bits_are_decimals() {
    let money = decode_value(binary(790, Carrier::Decimal128 { precision: 19, scale: 2 }), &hex("fffffffffffffb2e"));
    assert_eq!(money.unwrap().as_primitive::<Decimal128Type>().value_as_string(0), "-12.34");
    let xid8 = Carrier::Decimal128 { precision: 20, scale: 0 };
    let xid8 = decode_value(binary(5069, xid8), &[0xff; 8]).unwrap();
    assert_eq!(xid8.as_primitive::<Decimal128Type>().value(0), i128::from(u64::MAX));
    let text = decode_value(binary(5069, Carrier::NumberText), &[0xff; 8]).unwrap();
    assert_eq!(text.as_string::<i32>().value(0), "18446744073709551615");
}

#[test]
fn json_has_no_nan_unless_as_a_string() {
    let cases = [
        (binary(700, Carrier::Float32), 1.5_f32.to_be_bytes().to_vec(), f32::NAN.to_be_bytes().to_vec(), "NaN"),
        (
            binary(701, Carrier::Float64),
            1.5_f64.to_be_bytes().to_vec(),
            f64::NEG_INFINITY.to_be_bytes().to_vec(),
            "-Infinity",
        ),
        (binary(1700, Carrier::NumberText), numeric_wire("1.5"), hex("00000000d0000020"), "Infinity"),
    ];
    for (plan, good, bad, name) in cases {
        let rows = column_of(&[good, bad]);
        let batch = decode_batch(vec![plan.clone()], &rows).unwrap();
        assert_eq!((batch.rows.column(0).null_count(), batch.changed.len()), (0, 0));
        let error = with(plan.clone(), |policies| policies.json_nan = JsonNan::Error);
        let error = decode_rows(vec![error], &rows).unwrap_err();
        assert!(error.whole().contains(&format!("row 2 of the partition: {name} is no number in JSON")), "{error}");
        assert!(error.whole().contains("--json-nan"), "{error}");
        assert_eq!(error.fault(), SourceFault::Data);
        let null = with(plan, |policies| policies.json_nan = JsonNan::Null);
        let batch = decode_batch(vec![null], &rows).unwrap();
        assert!(batch.rows.column(0).is_valid(0) && batch.rows.column(0).is_null(1));
        assert_eq!(*batch.changed, [1]);
    }
}

#[test]
fn blanks_are_kept_or_trimmed() {
    let rows = column_of(&[b"ab  ".to_vec(), b"    ".to_vec(), b"  ab".to_vec(), b"".to_vec(), vec![b' '; 90]]);
    for wire in [Wire::Binary, Wire::OutputText] {
        let plan = column("c", 1042, wire, Carrier::Text);
        let kept = decode_batch(vec![plan.clone()], &rows).unwrap();
        assert_eq!(kept.rows.column(0).as_string::<i32>().value(0), "ab  ");
        assert!(kept.changed.is_empty());
        let trimmed =
            decode_batch(vec![with(plan, |policies| policies.char_padding = CharPadding::Trim)], &rows).unwrap();
        let expected: ArrayRef = Arc::new(StringArray::from(vec!["ab", "", "  ab", "", ""]));
        assert_eq!((trimmed.rows.column(0), &*trimmed.changed), (&expected, &[3][..]));
    }
    let text = with(binary(25, Carrier::Text), |policies| policies.char_padding = CharPadding::Trim);
    assert!(decode_batch(vec![text], &rows).unwrap().changed.is_empty(), "text has no padding");
}

#[test]
fn invalid_text_is_refused_replaced_or_bytes() {
    let values = [&b"ok"[..], b"\xff\xfeab", "grüße".as_bytes(), b"\xc3", b"\xbc", b""].map(<[u8]>::to_vec);
    let rows = column_of(&values);
    for plan in
        [binary(25, Carrier::Text), binary(16_390, Carrier::Text), column("c", 600, Wire::OutputText, Carrier::Text)]
    {
        let replace = with(plan, |policies| policies.invalid_utf8 = InvalidUtf8::Replace);
        let batch = decode_batch(vec![replace], &rows).unwrap();
        let expected: ArrayRef =
            Arc::new(StringArray::from(vec!["ok", "\u{fffd}\u{fffd}ab", "grüße", "\u{fffd}", "\u{fffd}", ""]));
        assert_eq!((batch.rows.column(0), &*batch.changed), (&expected, &[3][..]));
    }
    let mut bytes = binary(25, Carrier::Bytes);
    bytes.output.rewritten = true;
    let mut rows = rows;
    rows.push(vec![None]);
    let batch = decode_batch(vec![bytes], &rows).unwrap();
    assert_eq!(batch.rows.column(0).as_binary::<i32>().value(1), b"\xff\xfeab");
    assert_eq!(*batch.changed, [6], "every value but the NULL is written otherwise");
}

mod row_key {
    use super::*;
    use crate::model::Direction;
    use crate::source::postgres::plan::{Comparison, PgKeyColumn, RowKeyColumn};

    fn key_column(name: &str, oid: u32, place: Option<usize>, shown: bool) -> RowKeyColumn {
        RowKeyColumn { name: name.into(), pg_type: binary(oid, Carrier::Text).pg_type, place, shown }
    }

    fn error_with(key: RowKey, columns: Vec<PgColumn>, rows: &[Row]) -> String {
        let width = u16::try_from(rows[0].len()).unwrap();
        let mut input = [opening(width), message(b'd', &payload(rows))].concat();
        let mut fields = FieldTable::default();
        Framer::new(width).frame(&mut input, &mut fields, usize::MAX).unwrap();
        let mut decoder = BatchDecoder::new(&Arc::from(columns)).unwrap().with_row_key(key);
        match decoder.decode(&input, &fields, 0) {
            Err(error) => error.whole(),
            Ok(_) => decoder.take_batch().unwrap_err().whole(),
        }
    }

    #[test]
    fn an_error_names_the_row_by_its_key() {
        let price = |oid| column("price", oid, Wire::Binary, DECIMAL);
        let row = |id: i32, price: &str, extra: &[Option<&[u8]>]| -> Row {
            let own = [Some(id.to_be_bytes().to_vec()), Some(hex(price))];
            own.into_iter().chain(extra.iter().map(|value| value.map(<[u8]>::to_vec))).collect()
        };
        let (one, nan) = ("00010000000000000001", "00000000c0000000");
        let id = key_column("id", 23, Some(0), true);
        let place = |name: &str, oid, shown| key_column(name, oid, None, shown);
        #[expect(clippy::type_complexity, reason = "the rows of one table")]
        let cases: Vec<(Vec<RowKeyColumn>, Vec<Option<&[u8]>>, &str)> = vec![
            (vec![id.clone()], vec![], "row with id = -5: NaN"),
            (vec![id.clone(), place("b", 25, true)], vec![Some(b"x\ny")], "row with id = -5, b = x\\ny: NaN"),
            // It is not read.
            (
                vec![place("b", 25, false), id.clone()],
                vec![],
                "b = (not shown; --manifest-stats all shows it), id = -5",
            ),
            (vec![place("b", 25, true)], vec![None], "row with b = NULL: NaN"),
            (vec![place("b", 25, true)], vec![Some(&[b'a'; 65])], "aaa…: NaN"),
            // money has no text here, and a key that is broken is none.
            (vec![place("m", 790, true), id], vec![], "row with id = -5: NaN"),
            (vec![place("n", 20, true)], vec![Some(b"x")], "row 2 of the partition: NaN"),
            (vec![], vec![], "row 2 of the partition: NaN"),
        ];
        for (key, extra, expected) in cases {
            let columns = vec![binary(23, Carrier::Int32), price(1700)];
            let key = RowKey::new(&columns, &key);
            assert_eq!(key.extra().len(), extra.len());
            let error = error_with(key, columns, &[row(1, one, &extra), row(-5, nan, &extra)]);
            assert!(error.contains(expected), "{expected}: {error}");
            assert!(error.starts_with("column \"price\" (type 1700), "), "{error}");
            assert!(
                error.ends_with("choose with --on-unrepresentable null|text or --column-policy price=null"),
                "{error}"
            );
        }
    }

    #[test]
    fn columns_are_added_only_where_a_value_can_fail() {
        let key = [key_column("id", 20, None, true)];
        let lossless = of_policy(binary(25, Carrier::Text), "lossless");
        let nulled = of_policy(binary(1042, Carrier::Text), "null, trim");
        assert!(RowKey::new(&[lossless.clone(), nulled], &key).extra().is_empty());
        assert_eq!(RowKey::new(&[lossless, binary(25, Carrier::Text)], &key).extra(), ["id"]);
    }

    #[test]
    fn text_that_is_not_vouched_for_is_named_by_its_key() {
        let columns = vec![binary(25, Carrier::Text)];
        let key = RowKey::new(&columns, &[key_column("id", 21, None, true)]);
        let row = |text: &[u8], id: u8| vec![Some(text.to_vec()), Some(vec![0, id])];
        let error = error_with(key, columns, &[row("ü".as_bytes(), 1), row(b"\xfc", 2)]);
        assert!(error.contains("row with id = 2: text that is not valid UTF-8"), "{error}");
        assert!(error.contains("--invalid-utf8 replace|bytes"), "{error}");
    }

    #[test]
    fn pages_know_their_key_as_text() {
        let paged = |name: &str| PgKeyColumn {
            name: name.into(),
            pg_type: binary(1184, Carrier::Text).pg_type,
            direction: Direction::Asc,
            nullable: true,
            comparison: Comparison::default(),
        };
        let mut text = binary(25, Carrier::Text);
        text.output.policy = "lossless".into();
        let columns = vec![binary(1700, DECIMAL), text.clone(), text];
        let row_key = [key_column("id", 20, None, true), key_column("at", 1184, None, true)];
        let key = RowKey::of_pages(&columns[..1], &row_key, &[paged("at"), paged("id")]);
        assert!(key.extra().is_empty());
        let row = vec![Some(hex("00000000c0000000")), Some(b"2000-01-01 00:00:00+00".to_vec()), Some(b"7".to_vec())];
        let error = error_with(key, columns.clone(), std::slice::from_ref(&row));
        assert!(error.contains("row with id = 7, at = 2000-01-01 00:00:00+00: NaN"), "{error}");
        let key = RowKey::of_pages(&columns[..1], &row_key, &[]);
        assert!(error_with(key, columns, &[row]).contains("row 1 of the partition: NaN"));
    }
}
