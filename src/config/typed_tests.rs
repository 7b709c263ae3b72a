use crate::base::telemetry::LogFormat;
use std::num::{NonZeroU32, NonZeroU64};

use super::*;
use crate::config::options;
use crate::model::{Direction, Layout, ManifestStats, Newline, OnExisting, ReadMode, TimestampPrecision, Visibility};

/// Words of a command line; `--flag value` or `--switch`.
fn flags(words: &[&str]) -> Vec<(&'static str, Vec<String>)> {
    let mut flags: Vec<(&'static str, Vec<String>)> = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let key = word.strip_prefix("--").unwrap_or_else(|| panic!("{word}")).replace('-', "_");
        let option = options::by_key(&key).unwrap_or_else(|| panic!("{key}"));
        let value = if option.arity == options::Arity::Switch { "true" } else { words.next().unwrap() };
        match flags.iter_mut().find(|(key, _)| *key == option.key) {
            Some((_, values)) => values.push(value.to_owned()),
            None => flags.push((option.key, vec![value.to_owned()])),
        }
    }
    flags
}

const BASE: [&str; 6] = ["--from", "postgres://me@db/shop", "--table", "public.orders", "--to", "out"];

fn load_words(words: &[&str]) -> Result<(ExportRequest, FrontOptions), ConfigErrors> {
    load(flags(words), &Environment::of([], []), true)
}

/// An export of a table, with more flags; a flag of the base given again replaces it.
fn with(words: &[&str]) -> Result<ExportRequest, ConfigErrors> {
    let given = flags(words);
    let mut all = flags(&BASE);
    all.retain(|(key, _)| {
        let replaced = given.iter().any(|(other, _)| other == key);
        let instead = *key == "table" && words.contains(&"--query");
        !(replaced || instead)
    });
    all.extend(given);
    load(all, &Environment::of([], []), true).map(|(request, _)| request)
}

fn ok(words: &[&str]) -> ExportRequest {
    with(words).unwrap_or_else(|errors| panic!("{words:?}: {errors}"))
}

#[test]
fn defaults_are_the_designs() {
    let (request, front) = load_words(&BASE).unwrap();
    assert_eq!(request.shape.relation, RelationRequest::Table("public.orders".into()));
    assert!(request.shape.columns.is_none() && request.shape.key.is_none() && request.shape.predicate.is_none());
    let format = &request.format;
    assert_eq!((format.format, format.compression), (Format::Parquet, Compression::Zstd(1)));
    assert_eq!((format.parquet.row_group_rows.get(), format.parquet.row_group_bytes.get()), (122_880, 16 << 20));
    let csv = CsvOptions {
        header: true,
        delimiter: b',',
        null: String::new(),
        newline: Newline::Lf,
        bom: false,
        formula_guard: false,
    };
    assert_eq!(format.csv, csv);
    let work = &request.work;
    assert_eq!((work.readers.get(), work.partitions, work.part_size.get()), (4, None, 256 << 20));
    assert_eq!((work.read_mode, work.cap.clone(), work.min_rows), (ReadMode::Copy, None, None));
    assert!(!work.allow_truncated);
    let commit = &request.commit;
    assert_eq!(commit.target, Target::Destination("out".into()));
    assert_eq!((commit.on_existing, commit.visibility), (OnExisting::Fail, Visibility::AtCommit));
    assert_eq!((commit.layout, commit.manifest_stats), (Layout::Nested, ManifestStats::Safe));
    assert!(!commit.single_file && !commit.sha256 && !commit.run_id_given);
    assert_eq!(value::run_id(&commit.run_id).as_ref(), Ok(&commit.run_id), "{}", commit.run_id);
    assert_eq!(commit.run_id.len(), "20261121T040000Z-1a2b3c4d".len());
    let expected = FrontOptions {
        report_file: None,
        progress: ProgressKind::Auto,
        report: ReportKind::Text,
        log_format: LogFormat::Text,
        color: ColorKind::Auto,
        metrics_listen: None,
        metrics_file: None,
        labels: vec![("relation", "public.orders".to_owned()), ("to", "out".to_owned())],
        to_stdout: false,
        has_target: true,
        limited: false,
        stdin: None,
    };
    assert_eq!(front, expected);
}

#[test]
fn shape_flags() {
    let shape = ok(&[
        "--columns",
        "id,\"Na,me\"",
        "--column",
        "total=a = b",
        "--column",
        "two=2",
        "--rename",
        "id=Id",
        "--where",
        "x > 1",
        "--key",
        "created_at desc, id",
    ])
    .shape;
    assert_eq!(shape.columns.unwrap(), ["id", "Na,me"]);
    assert_eq!(shape.expressions, [("total".into(), "a = b".into()), ("two".into(), "2".into())]);
    assert_eq!(shape.renames, [("id".into(), "Id".into())]);
    assert_eq!(shape.predicate.as_deref(), Some("x > 1"));
    assert_eq!(shape.key.unwrap(), [("created_at".into(), Direction::Desc), ("id".into(), Direction::Asc)]);
    assert_eq!(ok(&["--query", "select 1"]).shape.relation, RelationRequest::Query("select 1".into()));
}

#[test]
fn format_flags() {
    for (words, compression) in [
        (&["--format", "csv"][..], Compression::None),
        (&["--format", "ndjson"], Compression::None),
        (&["--format", "csv", "--compression", "gzip"], Compression::Gzip(6)),
        (&["--format", "ndjson", "--compression", "zstd"], Compression::Zstd(1)),
        (&["--compression", "snappy"], Compression::Snappy),
        (&["--compression", "zstd:9"], Compression::Zstd(9)),
        (&["--preset", "postgres", "--on-unrepresentable", "error"], Compression::Zstd(1)),
    ] {
        assert_eq!(ok(words).format.compression, compression, "{words:?}");
    }
    let csv = ok(&[
        "--format",
        "csv",
        "--csv-header",
        "off",
        "--csv-delimiter",
        "\\t",
        "--csv-null",
        "\\N",
        "--csv-newline",
        "crlf",
        "--csv-bom",
        "--csv-formula-guard",
    ])
    .format
    .csv;
    let expected = CsvOptions {
        header: false,
        delimiter: b'\t',
        null: "\\N".into(),
        newline: Newline::Crlf,
        bom: true,
        formula_guard: true,
    };
    assert_eq!(csv, expected);
    let parquet = ok(&["--row-group-rows", "10", "--row-group-bytes", "1MiB"]).format.parquet;
    assert_eq!((parquet.row_group_rows.get(), parquet.row_group_bytes.get()), (10, 1 << 20));
}

#[test]
fn work_flags() {
    let work = ok(&[
        "--readers",
        "8",
        "--partitions",
        "32",
        "--part-size",
        "1GiB",
        "--upload-chunk-size",
        "16MiB",
        "--upload-concurrency",
        "2",
        "--read-mode",
        "keyset",
        "--page-size",
        "500",
        "--max-rows",
        "10_000",
        "--allow-truncated",
        "--min-rows",
        "5",
    ])
    .work;
    assert_eq!((work.readers.get(), work.partitions.map(NonZeroU32::get)), (8, Some(32)));
    assert_eq!(
        (work.part_size.get(), work.upload_chunk_size.get(), work.upload_concurrency.get()),
        (1 << 30, 16 << 20, 2)
    );
    assert_eq!(work.read_mode, ReadMode::Keyset { page_size: NonZeroU64::new(500).unwrap() });
    assert_eq!(work.cap, Some(RowCap { tier: None, max_rows: NonZeroU64::new(10_000) }));
    assert!(work.allow_truncated && work.min_rows == NonZeroU64::new(5));
    for (tier, max_rows) in
        [("free", 10_000), ("pro", 100_000), ("team", 1_000_000), ("scale", 10_000_000), ("enterprise", 0)]
    {
        let cap = ok(&["--tier", tier]).work.cap;
        assert_eq!(cap, Some(RowCap { tier: Some(tier.into()), max_rows: NonZeroU64::new(max_rows) }));
    }
}

#[test]
fn commit_flags() {
    let commit = ok(&[
        "--to",
        "s3://b/{table}/{date}/{run_id}/",
        "--date",
        "2026-02-03",
        "--run-id",
        "r-1",
        "--on-existing",
        "replace",
        "--visibility",
        "as-written",
        "--layout",
        "flat",
        "--manifest-stats",
        "none",
        "--sha256",
    ])
    .commit;
    assert_eq!(commit.target, Target::Destination("s3://b/public.orders/2026-02-03/r-1/".into()));
    assert!(commit.run_id_given && commit.run_id == "r-1" && commit.sha256);
    assert_eq!((commit.on_existing, commit.visibility), (OnExisting::Replace, Visibility::AsWritten));
    assert_eq!((commit.layout, commit.manifest_stats), (Layout::Flat, ManifestStats::None));
    let single = ok(&["--to", "out/a.parquet", "--single-file"]);
    assert!(single.commit.single_file && single.work.readers.get() == 1);
    let stdout = ok(&["--to", "-", "--manifest", "m.json", "--readers", "1"]);
    assert_eq!(stdout.commit.target, Target::Stream { manifest: Some("m.json".into()) });
    assert_eq!(ok(&["--to", "-"]).work.readers.get(), 1, "the default of 4 readers contradicts nothing");
    assert_eq!(ok(&["--to", "-", "--readers", "8"]).work.readers.get(), 1, "readers are a bound");
    for name in ["größe", "注文", "e\u{301}t", "हिन्दी"] {
        let quoted = format!("\"{name}\"");
        let to = ok(&["--to", "x/{table}", "--table", &quoted]).commit.target;
        assert_eq!(to, Target::Destination(format!("x/{name}")));
    }
    assert_eq!(ok(&["--to", "{table}", "--table", "Orders"]).commit.target, Target::Destination("orders".into()));
}

#[test]
fn a_plan_needs_no_destination() {
    let words = &BASE[..4];
    assert!(load(flags(words), &Environment::of([], []), false).is_ok());
    assert!(load_words(words).unwrap_err().to_string().contains("nothing says where to write"));
}

#[test]
fn people_flags() {
    let words = [
        "--progress",
        "json",
        "--report",
        "json",
        "--log-format",
        "json",
        "--metrics-listen",
        "127.0.0.1:9187",
        "--metrics-file",
        "m.prom",
    ];
    let (_, front) = load_words(&[&BASE[..], &words].concat()).unwrap();
    assert_eq!((front.progress, front.report), (ProgressKind::Json, ReportKind::Json));
    assert_eq!(front.log_format, LogFormat::Json);
    assert!(front.metrics_listen.is_some() && front.metrics_file == Some("m.prom".into()));
}

/// Each flag line makes one mistake; what a person reads is told in full.
fn each_reads(mistakes: &[(&[&str], &str)]) {
    for (words, expected) in mistakes {
        let errors = with(words).unwrap_err();
        assert_eq!(errors.to_string(), *expected, "{words:?}");
    }
}

#[test]
fn what_one_process_alone_can_do_has_no_workers() {
    each_reads(&[
        (
            &["--max-workers", "5"][..],
            "--max-workers has no meaning without --workers external (add that, or leave it out)",
        ),
        (&["--stdin", "ignore"], "--stdin has no meaning without --workers external (add that, or leave it out)"),
        (
            &["--workers", "external", "--to", "-"],
            "--workers has no meaning with --to -, which one process writes (leave --workers external out)",
        ),
        (
            &["--workers", "external", "--single-file", "--to", "x.csv", "--format", "csv"],
            "--workers has no meaning with --single-file, which one process writes (leave --workers external out)",
        ),
        (
            &["--workers", "external", "--visibility", "as-written"],
            "--workers has no meaning with --visibility as-written: parts appear at the commit (leave --workers external out)",
        ),
        (
            &["--workers", "external", "--read-mode", "keyset"],
            "--workers has no meaning with --read-mode keyset, which has no snapshot to share (leave --workers external out)",
        ),
    ]);
}

#[test]
fn wrong_values_and_contradictions_read_well() {
    each_reads(&[
        (&["--readers", "many"][..], "--readers is \"many\" (a whole number from 1 to 256 is wanted)"),
        (&["--readers", "0"], "--readers is \"0\" (a whole number from 1 to 256 is wanted)"),
        (&["--layout", "netsed"], "--layout is \"netsed\" (did you mean nested?)"),
        (&["--layout", "x"], "--layout is \"x\" (one of nested, flat is wanted)"),
        (
            &["--format", "csv", "--compression", "snappy"],
            "--compression is \"snappy\" (snappy is a codec of Parquet; CSV and NDJSON take none, zstd or gzip)",
        ),
        (&["--tier", "gold"], "tier \"gold\" is not known (the tiers are enterprise, free, pro, scale, team)"),
        (&["--max-rows", "1", "--tier", "free"], "--tier and --max-rows are both given (give one of them)"),
        (
            &["--min-rows", "11", "--max-rows", "10"],
            "--min-rows 11 can never be met under a cap of 10 rows (lower the one or raise the other)",
        ),
        (
            &["--limit", "5", "--max-rows", "5"],
            "--limit and --max-rows are both given (give one of them: --limit N is --max-rows N --allow-truncated)",
        ),
        (
            &["--limit", "5", "--tier", "free"],
            "--limit and --tier are both given (give one of them: --limit N is --max-rows N --allow-truncated)",
        ),
        (&["--limit", "ten"], "--limit is \"ten\" (a whole number of 1 or more is wanted, such as 5000, 10k or 5m)"),
        (&["--table", "a,b"], "--table is \"a,b\" (--table takes one name: run an export for each table)"),
        (&["--table", "public.*"], "--table is \"public.*\" (--table takes one name: run an export for each table)"),
        (&["--page-size", "5"], "--page-size has no meaning without --read-mode keyset (add that, or leave it out)"),
        (&["--csv-bom"], "--csv-bom has no meaning where the format is not CSV (add --format csv, or leave it out)"),
        (
            &["--row-group-rows", "5", "--format", "csv"],
            "--row-group-rows has no meaning where the format is not Parquet (leave it out)",
        ),
        (
            &["--single-file", "--partitions", "2"],
            "--partitions has no meaning above 1 with --single-file, which is one stream (leave it out)",
        ),
        (
            &["--to", "-", "--partitions", "2"],
            "--partitions has no meaning above 1 with --to -, which is one stream (leave it out)",
        ),
        (&["--to", "-", "--single-file"], "--single-file has no meaning with --to - (leave it out)"),
        (&["--to", "-", "--on-existing", "skip"], "--on-existing has no meaning with --to - (leave it out)"),
        (
            &["--single-file", "--to", "out/"],
            "--single-file writes a file, and --to names a folder (end --to in the file's name)",
        ),
        (
            &["--manifest", "m"],
            "--manifest has no meaning without --to - (leave it out: a destination has its manifest at _manifest.json)",
        ),
    ]);
}

#[test]
fn a_preset_has_defaults_of_its_own_that_anybody_can_override() {
    let plain = ok(&[]);
    let athena = ok(&["--preset", "athena"]);
    let spectrum = ok(&["--preset", "spectrum"]);
    assert_eq!(athena.format.parquet.row_group_bytes.get(), 64 << 20);
    assert_eq!(spectrum.format.parquet.row_group_bytes.get(), 64 << 20);
    assert!(athena.format.parquet.row_group_rows > plain.format.parquet.row_group_rows);
    assert_eq!(plain.policies.default.timestamp_precision, TimestampPrecision::Micros);
    assert_eq!(athena.policies.default.timestamp_precision, TimestampPrecision::Millis);
    assert_eq!(spectrum.policies.default.timestamp_precision, TimestampPrecision::Micros);
    assert_eq!((athena.format.compression, spectrum.format.compression), (Compression::Zstd(1), Compression::Snappy));
    let own = ok(&["--preset", "athena", "--timestamp-precision", "us", "--row-group-bytes", "1MiB"]);
    assert_eq!(own.policies.default.timestamp_precision, TimestampPrecision::Micros);
    assert_eq!(own.format.parquet.row_group_bytes.get(), 1 << 20);
    let variable = [("OUTHAUL_PRESET", "spectrum"), ("OUTHAUL_COMPRESSION", "gzip")];
    let (request, _) = load(flags(&BASE), &Environment::of(variable, []), true).unwrap();
    assert_eq!(request.format.compression, Compression::Gzip(6));
    assert_eq!(request.format.parquet.row_group_bytes.get(), 64 << 20);
    for preset in ["athena", "spectrum"] {
        assert_eq!(ok(&["--preset", preset, "--format", "ndjson"]).format.compression, Compression::None);
        let mut words = BASE.to_vec();
        words.extend(["--preset", preset, "--format", "csv"]);
        let errors = load_words(&words).unwrap_err();
        assert!(errors.to_string().starts_with(&format!("--preset {preset} with --format csv (")), "{errors}");
    }
}

#[test]
fn refusals_and_wrong_destinations_read_well() {
    each_reads(&[
        (&["--preset", "spectrun"][..], "--preset is \"spectrun\" (did you mean spectrum?)"),
        (&["--column-policy", "a=nul"], "--column-policy is \"a=nul\" (did you mean null?)"),
        (&["--column-policy", "a"], "--column-policy is \"a\" (COLUMN=CHOICE is wanted)"),
        (
            &["--column-policy", "a=decimal(5,6)"],
            "--column-policy is \"a=decimal(5,6)\" (\"decimal(5,6)\" is none of error, null, text, json, double, keep, \
             trim, replace, bytes, number, string, round, raw, decimal(P,S))",
        ),
        (
            &["--unconstrained-numeric", "decimal"],
            "--unconstrained-numeric is \"decimal\" (text, double or decimal(P,S) such as decimal(38,9) is wanted)",
        ),
        (&["--json-nan", "null"], "--json-nan has no meaning where the format is not NDJSON (leave it out)"),
        (
            &["--format", "csv", "--timestamp-precision", "ms"],
            "--timestamp-precision has no meaning where the format is not Parquet (leave it out)",
        ),
        (
            &["--preset", "spectrum", "--compression", "lz4"],
            "--compression lz4 with --preset spectrum, which does not read it (one of none, snappy, gzip is wanted)",
        ),
        (&["--to", "{day}"], "--to {day}: {day} is not known ({date}, {run_id}, {table} and {schema} expand)"),
        (&["--to", "{date"], "--to {date: a { is never closed ({date}, {run_id}, {table} and {schema} expand)"),
        (
            &["--to", "{table}", "--table", "\"a/b\""],
            "--to: {table} is \"a/b\" here, which cannot stand in a path (write a name in its place)",
        ),
        (
            &["--to", "{table}", "--query", "select 1"],
            "--to names {table}, and a --query has none (name the destination yourself)",
        ),
        (
            &["--run-id", "_x"],
            "--run-id is \"_x\" (1 to 64 letters, digits or . _ - : + are wanted, the first a letter or a digit; in Airflow {{ ts_nodash }} is such an id)",
        ),
        (&["--csv-null", ",", "--format", "csv"], "--csv-null holds the delimiter (choose another text or delimiter)"),
        (
            &["--upload-chunk-size", "1MiB"],
            "--upload-chunk-size is \"1MiB\" (from 5MiB to 5GiB is wanted: what S3 takes)",
        ),
        (&["--where", " "], "--where is \" \" (it is empty: leave it out, or write one)"),
    ]);
}

#[test]
fn a_table_and_a_query_are_one_too_many_and_say_where_they_came_from() {
    let environment = Environment::of([("OUTHAUL_TABLE", "orders"), ("DATABASE_URL", "postgres://u@h/d")], []);
    let errors = load(flags(&["--query", "select 1", "--to", "out"]), &environment, true).unwrap_err();
    let expected = "--table and --query are both given (environment variable OUTHAUL_TABLE and --query) (give exactly one \
                    of --table NAME and --query SQL)";
    assert_eq!(errors.to_string(), expected);
    let errors = load_words(&["--from", "postgres://u@h/d", "--to", "out"]).unwrap_err();
    let expected = "nothing says what to export (give exactly one of --table NAME and --query SQL)";
    assert_eq!(errors.to_string(), expected);
    let errors = load_words(&["--from", "postgres://u@h/d"]).unwrap_err();
    let expected = "nothing says what to export and where to write (outhaul export orders --to orders.csv)";
    assert_eq!(errors.to_string(), expected);
}

#[test]
fn a_switch_that_is_off_contradicts_nothing() {
    let environment = Environment::of([("OUTHAUL_SINGLE_FILE", "false"), ("OUTHAUL_CSV_BOM", "off")], []);
    assert!(load(flags(&BASE), &environment, true).is_ok());
    let errors = load(flags(&BASE), &Environment::of([("OUTHAUL_CSV_BOM", "on")], []), true).unwrap_err();
    assert!(
        errors.to_string().starts_with("environment variable OUTHAUL_CSV_BOM: --csv-bom has no meaning"),
        "{errors}"
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let file = "unknown_key = 1\nreaders = 0\n";
    let environment = Environment::of([("OUTHAUL_TABEL", "1"), ("OUTHAUL_CONFIG", "/c.toml")], [("/c.toml", file)]);
    let words = ["--from", "mysql://h", "--format", "cvs", "--preset", "athene", "--part-size", "big"];
    let errors = load(flags(&words), &environment, true).unwrap_err();
    assert_eq!(errors.0.len(), 7, "{errors}");
    for words in [
        "unknown_key",
        "OUTHAUL_TABEL",
        "/c.toml:2:1: readers",
        "--from: no URL of a source",
        "did you mean csv?",
        "did you mean athena?",
        "--part-size",
    ] {
        assert!(errors.to_string().contains(words), "{words}: {errors}");
    }
}
