use proptest::prelude::*;

use super::*;

fn refuses<T: std::fmt::Debug>(parse: impl Fn(&str) -> Result<T, String>, texts: &[&str]) {
    for text in texts {
        let why = parse(text).expect_err(text);
        assert!(!why.is_empty(), "{text}");
    }
}

#[test]
fn sizes() {
    for (text, bytes) in [
        ("1", 1),
        ("1_000", 1_000),
        ("256MiB", 256 << 20),
        ("256 mib", 256 << 20),
        ("8k", 8192),
        ("64MB", 64_000_000),
        ("2GiB", 2 << 30),
        ("1TB", 1_000_000_000_000),
        ("17b", 17),
    ] {
        assert_eq!(size(text).map(NonZeroU64::get), Ok(bytes), "{text}");
    }
    refuses(size, &["", "MiB", "0", "0MiB", "-1", "+1", "1.5GiB", "1 parsec", "99999999999TiB", "٣MiB"]);
}

#[test]
fn durations() {
    for (text, millis) in [
        ("500ms", 500),
        ("30s", 30_000),
        ("5m", 300_000),
        ("5 min", 300_000),
        ("2h", 7_200_000),
        ("1d", 86_400_000),
        ("1_000s", 1_000_000),
    ] {
        assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
    }
    refuses(duration, &["", "s", "30", "0s", "-1s", "+1s", "1.5h", "1w", "30S", "99999999999999999999d", "off"]);
    assert_eq!(duration_or_off("off"), Ok(None));
    assert_eq!(duration_or_off("1s"), Ok(Some(Duration::from_secs(1))));
    refuses(duration_or_off, &["", "0s", "on"]);
}

#[test]
fn numbers_and_switches() {
    assert_eq!(count("10_000").map(NonZeroU64::get), Ok(10_000));
    for (text, number) in [("1", 1), ("10k", 10_000), ("5M", 5_000_000), ("1_500 k", 1_500_000)] {
        assert_eq!(rows(text).map(NonZeroU64::get), Ok(number), "{text}");
    }
    refuses(rows, &["", "k", "0k", "-1k", "1.5k", "10kb", "10g", "18446744073709551615k"]);
    refuses(count, &["", "0", "-1", "+1", "1e3", "18446744073709551616"]);
    for (text, on) in [("on", true), ("TRUE", true), ("1", true), ("off", false), ("no", false), ("false", false)] {
        assert_eq!(switch(text), Ok(on), "{text}");
    }
    refuses(switch, &["", "maybe", "2"]);
}

#[test]
fn codecs_and_their_formats() {
    let compression = |text: &str, format| {
        compression(text, format, |codec| match codec {
            "zstd" => Some("2".to_owned()),
            "gzip" => Some("7".to_owned()),
            _ => None,
        })
    };
    for (text, expected) in [
        ("none", Compression::None),
        ("snappy", Compression::Snappy),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd(2)),
        ("zstd:22", Compression::Zstd(22)),
        ("gzip", Compression::Gzip(7)),
        ("gzip:0", Compression::Gzip(0)),
    ] {
        assert_eq!(compression(text, Format::Parquet), Ok(expected), "{text}");
        let parquet_only = matches!(expected, Compression::Snappy | Compression::Lz4);
        for format in [Format::Csv, Format::Ndjson] {
            assert_eq!(compression(text, format).is_err(), parquet_only, "{text}");
        }
    }
    assert!(compression("snappy", Format::Csv).unwrap_err().contains("none, zstd or gzip"));
    assert!(compression("zstd:23", Format::Parquet).unwrap_err().contains("1 to 22"));
    refuses(
        |text| compression(text, Format::Parquet),
        &["", "brotli", "none:1", "lz4:3", "zstd:0", "zstd:", "gzip:10", "gzip:-1", "ZSTD"],
    );
}

#[test]
fn delimiters() {
    for (text, byte) in [(",", b','), ("\\t", b'\t'), ("\t", b'\t'), ("tab", b'\t'), ("|", b'|')] {
        assert_eq!(delimiter(text), Ok(byte), "{text}");
    }
    refuses(delimiter, &["", "\"", "\n", "\r", "\0", "ab", "é"]);
}

#[test]
fn dates_and_run_ids() {
    assert!(date("2026-02-28").is_ok());
    refuses(date, &["", "2026-02-30", "26-2-3", "2026-2-03", "20260203", "+2026-2-03", " 2026-2-03", "-999-01-02"]);
    for text in ["a", "nightly-2026-11-21.a_b", &"x".repeat(64)] {
        assert_eq!(run_id(text).as_deref(), Ok(text));
    }
    refuses(run_id, &["", "_a", ".a", "a/b", "a b", "é", &"x".repeat(65), "..", "{date}"]);
}

#[test]
fn lists_of_names() {
    for (text, expected) in [
        ("a", &["a"][..]),
        ("a, B ,c", &["a", "B", "c"]),
        (r#""a,b","c ""d""""#, &["a,b", r#"c "d""#]),
        ("größe", &["größe"]),
    ] {
        assert_eq!(names(text).unwrap(), expected, "{text}");
    }
    refuses(names, &["", ",", "a,", ",a", "a,,b", "a b", "\"a", "\"\"", "a\"b", "\"a\"b", "a=b"]);
}

#[test]
fn keys() {
    use Direction::{Asc, Desc};
    for (text, expected) in [
        ("id", &[("id", Asc)][..]),
        ("created_at desc,id", &[("created_at", Desc), ("id", Asc)]),
        (r#""Created, at" DESC NULLS LAST , "a b" asc"#, &[("Created, at", Desc), ("a b", Asc)]),
    ] {
        let terms = key(text).unwrap();
        let terms: Vec<(&str, Direction)> = terms.iter().map(|(name, direction)| (name.as_str(), *direction)).collect();
        assert_eq!(terms, expected, "{text}");
    }
    refuses(key, &["", "a down", "a desc nulls first", "a,", "a desc desc", "a=b"]);
}

#[test]
fn pairs() {
    let pair = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
    assert_eq!(expression("total=price * quantity"), pair("total", "price * quantity"));
    assert_eq!(expression("is = a = b"), pair("is", "a = b"));
    assert_eq!(expression("\"a=b\"='x=y'"), pair("a=b", "'x=y'"));
    assert_eq!(rename("id=OrderId"), pair("id", "OrderId"));
    assert_eq!(rename("\"a=b\" = \"c d\""), pair("a=b", "c d"));
    refuses(expression, &["", "a", "a=", "=1", "a b=1"]);
    refuses(rename, &["", "a", "a=", "=b", "a=b=c", "a=b,c=d"]);
}

#[test]
fn column_policies() {
    let policy = |column: &str| Ok((column.to_owned(), ColumnChoice::Error));
    for (text, column) in [
        ("c=error", "c"),
        ("c=d=error", "c=d"),
        ("\"c=d\"=error", "c=d"),
        (" \"c=d\" = error", "c=d"),
        ("\"a, b\"=error", "a, b"),
        ("\"\"\"q\"\"\"=error", "\"q\""),
        ("\"c\"=d=error", "\"c\"=d"),
        ("a \"b\"=error", "a \"b\""),
        ("\"open=error", "\"open"),
    ] {
        assert_eq!(column_policy(text), policy(column), "{text}");
    }
    assert_eq!(column_policy("\"n\"=decimal(9,2)").unwrap().1, ColumnChoice::Decimal { precision: 9, scale: 2 });
    assert!(column_policy("\"c\"").is_err() && column_policy("\"c\"=errr").is_err());
    for name in ["v", "c=d", "it's", "a \"b\"", "Größe"] {
        let written = crate::model::policy::written(name, "error");
        // What a shell makes of it.
        let word = match written.strip_prefix('\'').and_then(|word| word.strip_suffix('\'')) {
            Some(word) => word.replace(r"'\''", "'"),
            None => written,
        };
        assert_eq!(column_policy(&word), policy(name), "{word}");
    }
}

#[test]
fn tables() {
    let name = |schema: Option<&str>, name: &str| Ok((schema.map(str::to_owned), name.to_owned()));
    assert_eq!(table("Orders"), name(None, "orders"));
    assert_eq!(table("public.Orders"), name(Some("public"), "orders"));
    assert_eq!(table(r#""My.Schema"."Or""ders""#), name(Some("My.Schema"), "Or\"ders"));
    assert_eq!(table("a=b"), name(None, "a=b"), "odd names are the server's to refuse");
    let (fits, long) = ("x".repeat(63), "x".repeat(64));
    assert_eq!(table(&fits), name(None, &fits));
    refuses(table, &["a\0b", "\"a\0b\""]);
    refuses(whole_name, &[&long, &format!("s.\"{long}\""), &format!("{long}.t")]);
    assert_eq!(whole_name(&fits), Ok(()));
    refuses(table, &["", ".", "a.", ".a", "a.b.c", "a b", "\"a", "\"a\"b", "a.\"b\"c"]);
}

proptest! {
    #![proptest_config(crate::regressions::kept())]

    #[test]
    fn any_name_can_be_quoted(list in proptest::collection::vec(".+", 1..5)) {
        let text: Vec<String> = list.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
        prop_assert_eq!(names(&text.join(",")).unwrap(), list);
    }

    #[test]
    fn no_text_panics(text in ".*") {
        let _ = (size(&text), count(&text), names(&text), key(&text), table(&text));
        let _ = (expression(&text), rename(&text), delimiter(&text), run_id(&text), date(&text));
    }
}
