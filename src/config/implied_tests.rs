use crate::config::{ConfigErrors, Environment, load};
use crate::export::request::ExportRequest;
use crate::model::{Compression, Format, Newline};

const FROM: (&str, &str) = ("from", "postgres://u@127.0.0.1/d");

fn load_with(
    to: &str,
    flags: &[(&'static str, &str)],
    variables: &[(&str, &str)],
    files: &[(&str, &str)],
) -> Result<ExportRequest, ConfigErrors> {
    let mut all = vec![FROM, ("table", "orders"), ("to", to)];
    all.extend(flags);
    let flags = all.iter().map(|(key, value)| (*key, vec![(*value).to_owned()])).collect();
    let environment = Environment::of(variables.iter().copied(), files.iter().copied());
    load(flags, &environment, true).map(|(request, _)| request)
}

fn ok(to: &str, flags: &[(&'static str, &str)]) -> ExportRequest {
    load_with(to, flags, &[], &[]).unwrap_or_else(|errors| panic!("{to} {flags:?}: {errors}"))
}

fn refused(to: &str, flags: &[(&'static str, &str)]) -> String {
    load_with(to, flags, &[], &[]).map(|_| ()).expect_err(to).to_string()
}

#[test]
fn the_end_of_a_name_says_format_and_codec() {
    use {Compression::*, Format::*};
    for (to, format, compression) in [
        ("x.parquet", Parquet, Zstd(1)),
        ("x.csv", Csv, None),
        ("X.CSV", Csv, None),
        ("out/x.csv.gz", Csv, Gzip(6)),
        ("./x.csv.zst", Csv, Zstd(1)),
        ("x.tsv", Csv, None),
        ("x.tsv.GZ", Csv, Gzip(6)),
        ("x.ndjson", Ndjson, None),
        ("x.ndjson.gz", Ndjson, Gzip(6)),
        ("x.ndjson.zst", Ndjson, Zstd(1)),
        ("x.jsonl", Ndjson, None),
        ("x.jsonl.gz", Ndjson, Gzip(6)),
        ("x.json", Ndjson, None),
        ("s3://lake/a/{date}/{table}.csv.gz", Csv, Gzip(6)),
        ("s3://lake/x.Parquet", Parquet, Zstd(1)),
        ("gs://b/x.csv", Csv, None),
        ("abfss://c@account.dfs.core.windows.net/x.json", Ndjson, None),
        ("file:///tmp/x.csv", Csv, None),
        ("a.parquet/x.csv", Csv, None),
    ] {
        let request = ok(to, &[]);
        assert_eq!((request.format.format, request.format.compression), (format, compression), "{to}");
        assert!(request.commit.single_file && request.work.readers.get() == 1, "{to}");
        let delimiter = if to.to_lowercase().contains(".tsv") { b'\t' } else { b',' };
        assert_eq!(request.format.csv.delimiter, delimiter, "{to}");
    }
}

#[test]
fn every_other_name_is_a_folder() {
    for to in [
        "x",
        "x.csv/",
        "x.parquet/",
        ".",
        "..",
        "x.txt/",
        "x.csv.bz2/",
        "v1.2",
        "2026.11.30",
        "my.table",
        ".txt",
        "csv",
        ".csv",
        "out/.csv.gz",
        "s3://lake.csv",
        "s3://lake/x.csv/",
        "x.csv/y",
        "x.xcsv",
        "{table}",
        "{schema}.{table}",
        "txt",
    ] {
        let request = ok(to, &[("table", "public.orders")]);
        assert!(!request.commit.single_file, "{to}");
        assert_eq!((request.format.format, request.work.readers.get()), (Format::Parquet, 4), "{to}");
    }
    // A table's own name is no end of a name.
    assert!(!ok("out/{table}", &[("table", "public.csv")]).commit.single_file);
}

#[test]
fn a_file_of_another_kind_is_refused() {
    for end in ["csv.bz2", "csv.xz", "csv.zip", "csv.zstd", "CSV.LZ4", "ndjson.bz2", "parquet.zip"] {
        for flags in [&[][..], &[("format", "csv")]] {
            let told = refused(&format!("s3://lake/out/x.{end}"), flags);
            let end = end.rsplit('.').next().unwrap().to_lowercase();
            assert!(
                told.contains(&format!("nothing is known that ends in .{end} (end the name in .parquet")),
                "{told}"
            );
        }
    }
    for end in ["xlsx", "txt", "pq", "parq", "PARQ", "gz", "zst", "zip", "avro"] {
        let told = refused(&format!("x.{end}"), &[]);
        assert!(told.contains(&format!("--to x.{end} looks like a file")), "{told}");
        // Who says what is in it has seen that the name does not.
        assert!(!ok(&format!("x.{end}"), &[("format", "csv")]).commit.single_file, "{end}");
    }
}

#[test]
fn what_agrees_is_welcome() {
    for (to, flags) in [
        ("x.csv.gz", &[("format", "CSV"), ("compression", "gzip:9"), ("single_file", "true")][..]),
        ("x.tsv", &[("format", "csv")]),
        ("x.tsv", &[("format", "tsv"), ("csv_delimiter", "tab")]),
        ("x.csv", &[("format", "tsv")]),
        ("x.csv", &[("csv_delimiter", ";"), ("csv_bom", "true"), ("partitions", "1"), ("readers", "8")]),
        ("x.jsonl", &[("format", "json")]),
        ("x.parquet", &[("compression", "snappy")]),
    ] {
        ok(to, flags);
    }
    assert_eq!(ok("x.csv.gz", &[("compression", "gzip:9")]).format.compression, Compression::Gzip(9));
    assert_eq!(ok("x", &[("format", "TSV")]).format.csv.delimiter, b'\t');
    assert_eq!(ok("x", &[("format", "Parquet")]).format.format, Format::Parquet);
    let environment = [("OUTHAUL_FORMAT", "csv")];
    assert!(load_with("x.csv", &[], &environment, &[]).unwrap().commit.single_file);
}

#[test]
fn what_contradicts_is_refused_by_both_names() {
    for (to, flags, expected) in [
        (
            "x.csv",
            &[("format", "parquet")][..],
            "--to x.csv names one file of CSV, and --format parquet says otherwise (leave one of them out)",
        ),
        (
            "x.csv",
            &[("compression", "gzip")],
            "--to x.csv names one file of CSV, and --compression gzip says otherwise (leave one of them out)",
        ),
        (
            "s3://lake/x.csv.gz",
            &[("compression", "zstd:3")],
            "--to s3://lake/x.csv.gz names one file of CSV with gzip, and --compression zstd:3 says otherwise (leave one \
             of them out)",
        ),
        (
            "x.tsv",
            &[("csv_delimiter", ";")],
            "--to x.tsv names one file of CSV with tabs, and --csv-delimiter ; says otherwise (leave one of them out)",
        ),
        (
            "x",
            &[("format", "tsv"), ("csv_delimiter", ";")],
            "--format tsv has tabs between its values, and --csv-delimiter ; says otherwise (leave one of them out)",
        ),
        ("x.csv", &[("layout", "flat")], "--layout has no meaning with --to x.csv (leave it out)"),
        (
            "x.csv",
            &[("partitions", "3")],
            "--partitions has no meaning above 1 with --to x.csv, which is one stream (leave it out)",
        ),
        (
            "x.parquet.gz",
            &[],
            "--to x.parquet.gz: Parquet is compressed inside the file (end the name in .parquet, and add --compression gzip)",
        ),
    ] {
        assert_eq!(refused(to, flags), expected);
    }
    let errors = load_with("x.csv", &[], &[("OUTHAUL_FORMAT", "ndjson")], &[]).unwrap_err().to_string();
    assert!(errors.contains("--to x.csv names one file of CSV, and OUTHAUL_FORMAT=ndjson says otherwise"), "{errors}");
    let errors = load_with("x.csv", &[], &[("OUTHAUL_SINGLE_FILE", "off")], &[]).unwrap_err().to_string();
    assert!(errors.contains("OUTHAUL_SINGLE_FILE=off says otherwise"), "{errors}");
}

#[test]
fn a_config_file_names_files_too_and_a_flag_goes_before_it() {
    let file = [("/c.toml", "to = \"x.csv.gz\"\nformat = \"parquet\"\n")];
    let flags = vec![("config", vec!["/c.toml".to_owned()]), ("table", vec!["t".to_owned()])];
    let environment = Environment::of([("DATABASE_URL", "postgres://u@h/d")], file);
    let errors = load(flags.clone(), &environment, true).unwrap_err().to_string();
    let expected = "/c.toml:1:1: to = \"x.csv.gz\" names one file of CSV with gzip, and /c.toml:2:1: format = \"parquet\" says \
                    otherwise (leave one of them out)";
    assert_eq!(errors, expected);
    let flags = [flags, vec![("to", vec!["folder".to_owned()])]].concat();
    assert!(!load(flags, &environment, true).unwrap().0.commit.single_file);
}

#[test]
fn excel_gets_one_file_that_it_opens() {
    let request = ok("x.csv", &[("preset", "excel")]);
    let csv = &request.format.csv;
    assert!(csv.bom && csv.formula_guard && csv.header && request.commit.single_file);
    assert_eq!((request.format.format, csv.newline, csv.delimiter), (Format::Csv, Newline::Crlf, b','));
    assert_eq!(ok("x.csv", &[("preset", "excel"), ("csv_delimiter", ";")]).format.csv.delimiter, b';');
    assert!(ok("x", &[("preset", "excel"), ("single_file", "true")]).commit.single_file);
    let stream = ok("-", &[("preset", "excel")]);
    assert!(stream.format.csv.bom && !stream.commit.single_file);
    for (to, flags, expected) in [
        (
            "out/",
            &[("preset", "excel")][..],
            "--preset excel writes one file of CSV for Excel, and --to out/ names a folder (end it in a file's name: --to \
             out/orders.csv)",
        ),
        (
            "x.parquet",
            &[("preset", "excel")],
            "--preset excel writes one file of CSV for Excel, and --to x.parquet names one file of Parquet (leave one of \
             them out)",
        ),
        (
            "x.csv",
            &[("preset", "excel"), ("csv_newline", "lf")],
            "--preset excel writes one file of CSV for Excel, and --csv-newline lf says otherwise (leave one of them out)",
        ),
        (
            "x.csv.gz",
            &[("preset", "excel")],
            "--preset excel writes one file of CSV for Excel, and --to x.csv.gz names one file of CSV with gzip (leave one \
             of them out)",
        ),
    ] {
        assert_eq!(refused(to, flags), expected);
    }
}
