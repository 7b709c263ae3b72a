//! Every option arrives: as a flag, as a variable and as a key of a file.

use std::collections::BTreeSet;
use std::time::Duration;

use super::options::{Arity, OPTIONS};
use super::{ColorKind, ConfigErrors, Environment, FrontOptions, LogFormat, ProgressKind, ReportKind, load};
use crate::base::postgres::settings::{ConnectSettings, Password, ServerAddress};
use crate::export::request::ExportRequest;
use crate::model::{
    CharPadding, ColumnChoice, Compression, ConsistencyChoice, Direction, DuplicateColumns, Format, InvalidUtf8,
    JsonLargeNumbers, JsonNan, Layout, ManifestStats, Nested, Newline, OnExisting, OnSchemaChange, OnSignal,
    OnUnrepresentable, Policies, Preset, Protection, ReadMode, RelationRequest, ServerSideEncryption, Since,
    SourceProfile, StdinRule, Target, TimestampPrecision, UnconstrainedNumeric, Visibility,
};
use crate::source::postgres::Postgres;

type Flag = (&'static str, &'static str);
type Check = fn(&ExportRequest, &FrontOptions) -> bool;

/// An option with a value, the flags without which it would be refused, and how to see that it has arrived.
struct Case {
    key: &'static str,
    value: &'static str,
    with: &'static [Flag],
    arrived: Check,
}

const CSV: &[Flag] = &[("format", "csv")];
const WATERMARK: &[Flag] = &[("watermark", "at")];
const NDJSON: &[Flag] = &[("format", "ndjson")];

const EXTERNAL: &[Flag] = &[("workers", "external")];
const HASH: &[Flag] = &[("protect", "email=hash")];

const FOLDERS: &[Flag] = &[("partition_by", "country")];

const fn case(key: &'static str, value: &'static str, with: &'static [Flag], arrived: Check) -> Case {
    Case { key, value, with, arrived }
}

const fn plain(key: &'static str, value: &'static str, arrived: Check) -> Case {
    case(key, value, &[], arrived)
}

const CASES: &[Case] = &[
    plain(
        "from",
        "postgres://u@127.0.0.2/e",
        |r, _| matches!(&connect(r).addresses[0], ServerAddress::Tcp { host, .. } if host == "127.0.0.2"),
    ),
    plain("password_file", "pw", |r, _| matches!(&connect(r).password, Some(Password::File(file)) if file == "pw")),
    plain(
        "password_command",
        "cat pw",
        |r, _| matches!(&connect(r).password, Some(Password::Command(command)) if command.expose() == "cat pw"),
    ),
    plain("table", "t2", |r, _| matches!(&r.shape.relation, RelationRequest::Table(t) if t == "t2")),
    plain("query", "select 2", |r, _| matches!(&r.shape.relation, RelationRequest::Query(q) if q == "select 2")),
    plain("to", "./elsewhere", |r, _| r.commit.target == Target::Destination("./elsewhere".into())),
    plain("aws_credential_command", "cat keys", |r, _| {
        r.commit.aws_credential_command.as_ref().is_some_and(|command| command.expose() == "cat keys")
    }),
    case("date", "2026-01-02", &[("to", "./{date}")], |r, _| {
        r.commit.target == Target::Destination("./2026-01-02".into())
    }),
    plain("columns", "a,b", |r, _| r.shape.columns.as_ref().is_some_and(|names| names == &["a", "b"])),
    plain("column", "x=a + 1", |r, _| r.shape.expressions == [("x".into(), "a + 1".into())]),
    plain("rename", "a=b", |r, _| r.shape.renames == [("a".into(), "b".into())]),
    plain("where", "a > 1", |r, _| r.shape.predicate.as_deref() == Some("a > 1")),
    plain("watermark", "at", |r, _| r.incremental.as_ref().is_some_and(|it| it.column == "at")),
    case("look_back", "1h", WATERMARK, |r, _| {
        r.incremental.as_ref().is_some_and(|it| it.look_back == Some(Duration::from_hours(1)))
    }),
    case("since", "none", WATERMARK, |r, _| r.incremental.as_ref().is_some_and(|it| it.since == Since::Nothing)),
    case("on_schema_change", "fail", WATERMARK, |r, _| {
        r.incremental.as_ref().is_some_and(|it| it.on_schema_change == OnSchemaChange::Fail)
    }),
    plain("key", "a desc", |r, _| r.shape.key.as_ref().is_some_and(|key| key == &[("a".into(), Direction::Desc)])),
    plain("format", "ndjson", |r, _| r.format.format == Format::Ndjson),
    plain("compression", "gzip:2", |r, _| r.format.compression == Compression::Gzip(2)),
    case("csv_header", "off", CSV, |r, _| !r.format.csv.header),
    case("csv_delimiter", ";", CSV, |r, _| r.format.csv.delimiter == b';'),
    case("csv_null", "NIL", CSV, |r, _| r.format.csv.null == "NIL"),
    case("csv_newline", "crlf", CSV, |r, _| r.format.csv.newline == Newline::Crlf),
    case("csv_bom", "true", CSV, |r, _| r.format.csv.bom),
    case("csv_formula_guard", "true", CSV, |r, _| r.format.csv.formula_guard),
    plain("row_group_rows", "77", |r, _| r.format.parquet.row_group_rows.get() == 77),
    plain("row_group_bytes", "7MiB", |r, _| r.format.parquet.row_group_bytes.get() == 7 << 20),
    plain("partition_by", "dt=a::date", |r, _| {
        r.shape.expressions == [("dt".into(), "a::date".into())]
            && r.commit.folders.as_ref().is_some_and(|folders| folders.columns == ["dt"])
    }),
    case("keep_partition_columns", "true", FOLDERS, |r, _| r.commit.folders.as_ref().is_some_and(|it| it.keep)),
    case("open_parts", "3", FOLDERS, |r, _| r.commit.folders.as_ref().is_some_and(|it| it.open.get() == 3)),
    plain("protect", "email=mask", |r, _| {
        r.commit.protect.as_ref().is_some_and(|it| it.of_name("email") == Some(Protection::Mask))
    }),
    plain("protect_file", "p.toml", |r, _| {
        r.commit.protect.as_ref().is_some_and(|it| it.of_name("my_email") == Some(Protection::Drop))
    }),
    case("protect_key_file", "k", HASH, |r, _| {
        r.commit.protect.as_ref().is_some_and(|it| it.key_file.as_ref().is_some_and(|file| file.ends_with("k")))
    }),
    case("protect_key_command", "cat k", HASH, |r, _| {
        r.commit.protect.as_ref().is_some_and(|it| it.key_command.as_ref().is_some_and(|it| it.expose() == "cat k"))
    }),
    plain("allow_rls", "true", |r, _| r.shape.allow_rls),
    plain("preset", "athena", |r, _| r.policies.preset == Preset::Athena),
    plain("on_unrepresentable", "null", |r, _| default(r).on_unrepresentable == OnUnrepresentable::Null),
    plain("unconstrained_numeric", "decimal(38, 9)", |r, _| {
        default(r).unconstrained_numeric == UnconstrainedNumeric::Decimal { precision: 38, scale: 9 }
    }),
    plain("timestamp_precision", "ms-exact", |r, _| default(r).timestamp_precision == TimestampPrecision::MillisExact),
    plain("char_padding", "trim", |r, _| default(r).char_padding == CharPadding::Trim),
    plain("invalid_utf8", "bytes", |r, _| default(r).invalid_utf8 == InvalidUtf8::Bytes),
    case("csv_nested", "json", CSV, |r, _| default(r).nested == Nested::Json),
    case("json_large_numbers", "string", NDJSON, |r, _| default(r).json_large_numbers == JsonLargeNumbers::String),
    case("json_nan", "error", NDJSON, |r, _| default(r).json_nan == JsonNan::Error),
    plain("duplicate_columns", "suffix", |r, _| r.policies.duplicate_columns == DuplicateColumns::Suffix),
    plain("column_policy", "a=b=trim", |r, _| r.policies.columns == [("a=b".into(), ColumnChoice::Trim)]),
    plain("readers", "7", |r, _| r.work.readers.get() == 7),
    plain("partitions", "9", |r, _| r.work.partitions.is_some_and(|n| n.get() == 9)),
    plain("part_size", "9MB", |r, _| r.work.part_size.get() == 9_000_000),
    plain("upload_chunk_size", "6MiB", |r, _| r.work.upload_chunk_size.get() == 6 << 20),
    plain("upload_concurrency", "9", |r, _| r.work.upload_concurrency.get() == 9),
    plain(
        "read_mode",
        "keyset",
        |r, _| matches!(r.work.read_mode, ReadMode::Keyset { page_size } if page_size.get() == 10_000),
    ),
    case(
        "page_size",
        "55",
        &[("read_mode", "keyset")],
        |r, _| matches!(r.work.read_mode, ReadMode::Keyset { page_size } if page_size.get() == 55),
    ),
    case("consistency", "per_partition", &[("from", "clickhouse://u@127.0.0.1/d")], |r, _| {
        r.work.consistency == Some(ConsistencyChoice::PerPartition)
    }),
    plain("max_rows", "12", |r, _| r.work.cap.as_ref().is_some_and(|cap| cap.max_rows.is_some_and(|n| n.get() == 12))),
    plain("limit", "2k", |r, f| {
        let cap = r.work.cap.as_ref().and_then(|cap| cap.max_rows);
        f.limited && r.work.allow_truncated && cap.is_some_and(|rows| rows.get() == 2_000)
    }),
    plain("tier", "pro", |r, _| r.work.cap.as_ref().is_some_and(|cap| cap.tier.as_deref() == Some("pro"))),
    plain("allow_truncated", "true", |r, _| r.work.allow_truncated),
    plain("min_rows", "3", |r, _| r.work.min_rows.is_some_and(|n| n.get() == 3)),
    plain("source_profile", "gentle", |r, _| r.work.source_profile == SourceProfile::Gentle),
    plain("yield_to_ddl", "5m", |r, _| r.work.source_limits.yield_to_ddl == Some(Duration::from_mins(5))),
    plain("max_snapshot_age", "2h", |r, _| r.work.source_limits.max_snapshot_age == Some(Duration::from_hours(2))),
    plain("max_duration", "90s", |r, _| r.work.source_limits.max_duration == Some(Duration::from_secs(90))),
    plain("max_replay_lag", "1m", |r, _| r.work.source_limits.max_replay_lag == Some(Duration::from_mins(1))),
    plain("max_bytes_per_second", "10MB", |r, _| {
        r.work.source_limits.max_bytes_per_second.is_some_and(|rate| rate.get() == 10_000_000)
    }),
    plain("workers", "external", |r, _| r.external.is_some()),
    case("max_workers", "9", EXTERNAL, |r, _| r.work.readers.get() == 9 && r.external.is_some()),
    case("stdin", "watch", EXTERNAL, |_, f| f.stdin == Some(StdinRule::Watch)),
    plain("run_id", "nightly-1", |r, _| r.commit.run_id == "nightly-1" && r.commit.run_id_given),
    plain("on_existing", "skip", |r, _| r.commit.on_existing == OnExisting::Skip),
    plain("visibility", "as-written", |r, _| r.commit.visibility == Visibility::AsWritten),
    plain("layout", "flat", |r, _| r.commit.layout == Layout::Flat),
    plain("single_file", "true", |r, _| r.commit.single_file),
    plain("manifest_stats", "none", |r, _| r.commit.manifest_stats == ManifestStats::None),
    plain("sse", "aws:kms", |r, _| r.commit.objects.sse == Some(ServerSideEncryption::Kms)),
    case("sse_kms_key_id", "alias/lake", &[("sse", "aws:kms")], |r, _| {
        r.commit.objects.sse_kms_key_id.as_deref() == Some("alias/lake")
    }),
    case("sse_bucket_key", "true", &[("sse", "aws:kms")], |r, _| r.commit.objects.sse_bucket_key == Some(true)),
    plain("storage_class", "STANDARD_IA", |r, _| r.commit.objects.storage_class.as_deref() == Some("STANDARD_IA")),
    plain("object_tag", "team=data", |r, _| r.commit.objects.tags == [("team".into(), "data".into())]),
    plain("sha256", "true", |r, _| r.commit.sha256),
    plain("keep_snapshot", "90s", |r, _| r.commit.keep_snapshot == Some(Duration::from_secs(90))),
    case("on_signal", "keep", &[("keep_snapshot", "90s")], |r, _| r.commit.on_signal == OnSignal::Keep),
    case("manifest", "m.json", &[("to", "-")], |r, f| {
        f.to_stdout && r.commit.target == Target::Stream { manifest: Some("m.json".into()) }
    }),
    case("keep_partial", "p.csv", &[("format", "source")], |r, _| r.work.keep_partial == Some("p.csv".into())),
    plain("progress", "json", |_, f| f.progress == ProgressKind::Json),
    plain("report", "json", |_, f| f.report == ReportKind::Json),
    plain("log_format", "json", |_, f| f.log_format == LogFormat::Json),
    plain("color", "never", |_, f| f.color == ColorKind::Never),
    plain("metrics_listen", "127.0.0.1:9187", |_, f| f.metrics_listen.is_some_and(|address| address.port() == 9187)),
    plain("report_file", "r.json", |_, f| f.report_file.as_deref().is_some_and(|file| file.ends_with("r.json"))),
    plain("metrics_file", "m.prom", |_, f| f.metrics_file.as_deref().is_some_and(|file| file.ends_with("m.prom"))),
];

fn default(request: &ExportRequest) -> &Policies {
    &request.policies.default
}

const FROM: Flag = ("from", "postgres://u@127.0.0.1/d");
const TABLE: Flag = ("table", "public.orders");
const TO: Flag = ("to", "./orders");

fn load_only(flags: &[Flag], environment: &Environment) -> Result<(ExportRequest, FrontOptions), ConfigErrors> {
    load(flags.iter().map(|(key, value)| (*key, vec![(*value).to_owned()])).collect(), environment, true)
}

fn arrives(case: &Case, how: &str, flags: &[Flag], environment: &Environment) {
    let mut flags = flags.to_vec();
    flags.extend_from_slice(case.with);
    for flag in [FROM, TABLE, TO] {
        let replaced = flag.0 == case.key || (case.key == "query" && flag.0 == "table");
        if !replaced && !flags.iter().any(|(key, _)| *key == flag.0) {
            flags.push(flag);
        }
    }
    let (request, front) =
        load_only(&flags, environment).unwrap_or_else(|errors| panic!("{how} {}: {errors}", case.key));
    assert!((case.arrived)(&request, &front), "{how} {}: {request:?} {front:?}", case.key);
}

/// How a request connects.
fn connect(request: &ExportRequest) -> &ConnectSettings {
    let source: &dyn std::any::Any = request.source.as_ref();
    &source.downcast_ref::<Postgres>().unwrap().connect
}

#[test]
fn every_option_arrives_by_flag_variable_and_file() {
    const PASSWORD: (&str, &str) = ("pw", "hunter2\n");
    const PROTECT: (&str, &str) = ("p.toml", "[columns]\n'*email' = 'drop'\n");
    for case in CASES {
        let option = OPTIONS.iter().find(|option| option.key == case.key).unwrap();
        arrives(case, "flag", &[(case.key, case.value)], &Environment::of([], [PASSWORD, PROTECT]));
        let variable = option.variable();
        arrives(case, "variable", &[], &Environment::of([(variable.as_str(), case.value)], [PASSWORD, PROTECT]));
        let value = if option.arity == Arity::Switch { case.value.to_owned() } else { format!("{:?}", case.value) };
        let file = format!("{} = {value}\n", case.key);
        let environment = Environment::of([], [PASSWORD, PROTECT, ("c.toml", file.as_str())]);
        arrives(case, "file", &[("config", "c.toml")], &environment);
    }
}

#[test]
fn the_checks_can_fail() {
    for case in CASES {
        let (request, front) = load_only(&[FROM, TABLE, TO], &Environment::of([], [])).unwrap();
        assert!(!(case.arrived)(&request, &front), "{} arrives although nobody gave it", case.key);
    }
}

#[test]
fn no_option_is_left_out() {
    // The file names the other options, and is named in the test above. The environment is set before there is one to read.
    let tested: BTreeSet<&str> = CASES.iter().map(|case| case.key).chain(["config", "env_file"]).collect();
    let all: BTreeSet<&str> = OPTIONS.iter().map(|option| option.key).collect();
    assert_eq!(tested, all);
}
