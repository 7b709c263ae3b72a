//! The table of options. Flag, environment variable and config key share one name; a row says it, how the value is parsed,
//! and what `--help` shows. A row makes a field of [`Given`], from which the request is put together in `typed.rs`.

mod taken;

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use chrono::NaiveDate;

use super::folders::{self, FolderTerm};
use super::protect;
use super::typed::{ColorKind, ProgressKind, ReportKind};
use super::value::{self, words};
use crate::base::memory::{OPEN_PARTS_MAX, READERS_MAX, UPLOAD_CONCURRENCY_MAX};
use crate::base::telemetry::LogFormat;
use crate::base::telemetry::exporter::listen_address;
use crate::model::{
    CharPadding, ColumnChoice, ConsistencyChoice, CredentialCommand, Direction, DuplicateColumns, Format, InvalidUtf8,
    JsonLargeNumbers, JsonNan, Layout, ManifestStats, Nested, Newline, OnExisting, OnSchemaChange, OnSignal,
    OnUnrepresentable, Preset, Protection, ReadMode, ServerSideEncryption, Since, SourceProfile, StdinRule,
    TimestampPrecision, UnconstrainedNumeric, Visibility, Workers,
};

pub(crate) use taken::{of_connection, of_keep, of_resume, of_worker};

/// How often an option may be given, and whether it takes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arity {
    /// `--flag VALUE`, once.
    One,
    /// `--flag VALUE`, again and again; a list in a file, one a line in the environment.
    Many,
    /// `--flag`; `true` or `false` in a file or the environment.
    Switch,
}

/// The heading under which `--help` shows an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heading {
    Ends,
    Shape,
    Format,
    Work,
    Commit,
    People,
}

impl Heading {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Ends => "Source and destination",
            Self::Shape => "Shape of the data",
            Self::Format => "Format",
            Self::Work => "Work",
            Self::Commit => "Commit",
            Self::People => "For people",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct OptionInfo {
    /// The config key, in `snake_case`.
    pub(crate) key: &'static str,
    pub(crate) arity: Arity,
    /// What stands for its value in `--help`.
    pub(crate) value: &'static str,
    pub(crate) heading: Heading,
    /// What it does, in one sentence, with its unit.
    pub(crate) help: &'static str,
    /// The flag of one letter, where there is one.
    pub(crate) short: Option<char>,
    /// Other flags for the same key.
    pub(crate) aliases: &'static [&'static str],
    /// Whether a value may begin with a minus: `--to -`, and predicates.
    pub(crate) hyphens: bool,
    /// Whether a file may have a list for what is one comma-separated value as a flag.
    pub(crate) list: bool,
    /// Whether a config file cannot have it, because it says which files are read.
    pub(crate) before_files: bool,
    /// Parses a value into its field; nothing for what `connection` and the files before it read themselves.
    pub(super) set: Option<Set>,
}

/// Parses one value into the field of its option, or says what would be right.
type Set = fn(&mut Given, &str) -> Result<(), String>;

impl OptionInfo {
    /// What most options have.
    const PLAIN: Self = Self {
        key: "",
        arity: Arity::One,
        value: "",
        heading: Heading::Ends,
        help: "",
        short: None,
        aliases: &[],
        hyphens: false,
        list: false,
        before_files: false,
        set: None,
    };

    /// The flag, without its dashes.
    pub(crate) fn flag(&self) -> String {
        self.key.replace('_', "-")
    }

    /// The words that its value may be, as its parser tells them; none where it may be others.
    pub(crate) fn words(&self) -> Vec<String> {
        let refused = self.set.and_then(|set| set(&mut Given::default(), "").err());
        let listed = refused.as_deref().and_then(|text| text.strip_prefix("one of ")?.strip_suffix(" is wanted"));
        listed.map_or_else(Vec::new, |words| words.split(", ").map(str::to_owned).collect())
    }

    pub(crate) fn variable(&self) -> String {
        format!("OUTHAUL_{}", self.key.to_uppercase())
    }
}

type One<T> = Option<T>;
type Switch<T> = Option<T>;
type Many<T> = Vec<T>;

/// A field of [`Given`], which takes one value or each of several.
trait Put<T> {
    fn put(&mut self, value: T);
}

impl<T> Put<T> for Option<T> {
    fn put(&mut self, value: T) {
        *self = Some(value);
    }
}

impl<T> Put<T> for Vec<T> {
    fn put(&mut self, value: T) {
        self.push(value);
    }
}

/// Makes [`OPTIONS`] and [`Given`] of rows `key: Arity<Type> = parser, "VALUE", more facts…, "help";` where the key
/// stands beside a field that cannot have its name, and an option that is read elsewhere has no type.
macro_rules! options {
    ($($heading:ident { $(
        $field:ident $($key:literal)?: $arity:ident $(<$type:ty> = $parse:expr)?, $value:literal, $($fact:ident: $is:expr,)*
        $help:literal;
    )* })*) => {
        /// All options of `outhaul export` and `outhaul plan`, in the order of `--help`.
        pub(crate) const OPTIONS: &[OptionInfo] = &[$($(OptionInfo {
            key: options!(@key $field $($key)?),
            arity: Arity::$arity,
            value: $value,
            heading: Heading::$heading,
            help: $help,
            set: options!(@set $field $($parse)?),
            $($fact: $is,)*
            ..OptionInfo::PLAIN
        }),*),*];

        /// The values of all options, parsed. A field is empty where nobody gave the option and it has no default, or where
        /// what was given is wrong.
        #[derive(Debug, Default)]
        pub(super) struct Given { $($($(pub(super) $field: $arity<$type>,)?)*)* }
    };
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
    (@set $field:ident) => { None };
    (@set $field:ident $parse:expr) => {
        Some(|given, text| {
            given.$field.put(($parse)(text)?);
            Ok(())
        })
    };
}

options! {
    Ends {
        from: One, "URL",
            "database to read: postgres://user@host:port/database, key=value pairs, clickhouse[s]://user@host:port/database, or env:NAME; without it DATABASE_URL or the PG* variables";
        password_file: One, "FILE",
            "file whose first line is the password; read again for each connection";
        password_command: One, "COMMAND",
            "shell command that prints the password; run again for each connection, for passwords that change and tokens that end";
        table: One<String> = value::relation, "NAME", short: Some('t'),
            "table, view or materialized view, quoted where SQL would need it: public.orders";
        query: One<String> = value::text, "SQL", hyphens: true,
            "one SELECT, WITH, VALUES or TABLE statement instead of a table";
        to: One<String> = value::text, "DEST", short: Some('o'), hyphens: true,
            "folder, or one file by the end of its name (.parquet, .csv, .tsv, .ndjson, .json, .csv.gz, …); s3://…, gs://…, az://…, abfss://…, file:///…, or - for standard output; {date}, {run_id}, {table} and {schema} expand";
        aws_credential_command: One<CredentialCommand> = credential_command, "COMMAND",
            "shell command that prints AWS credentials as the JSON of a credential_process; run again before they end, and used before any variable or profile";
        date: One<NaiveDate> = value::date, "YYYY-MM-DD",
            "what {date} expands to; today in UTC unless given";
        config: One, "FILE", before_files: true,
            "TOML file with any of these options";
        env_file: One, "FILE", before_files: true,
            "NAME=VALUE lines, put into the environment before anything of it is read; what is set there already stays";
    }
    Shape {
        columns: One<Vec<String>> = value::names, "A,B,C", list: true,
            "columns to write, in this order; letter case counts, other than plain names stand in double quotes; all unless given";
        column: Many<(String, String)> = value::expression, "NAME=EXPRESSION",
            "one more column, an SQL expression over the row; may be repeated";
        rename: Many<(String, String)> = value::rename, "OLD=NEW",
            "write column OLD under the name NEW; may be repeated";
        predicate "where": One<String> = value::text, "PREDICATE", hyphens: true,
            "only rows for which this SQL predicate holds";
        watermark: One<String> = value::column, "COLUMN",
            "export only what is new since the export of --since: rows with greater values of this timestamp, date or integer, and rows of later transactions; or an xid8 column that has the writing transaction's id";
        look_back: One<Duration> = value::duration, "DURATION",
            "with --watermark: how far the clock that sets the column may be behind the database's, or a row's time before its transaction";
        since: One<Since> = value::since, "none|URL",
            "with --watermark: the export to go on from, by its manifest, a run's record or a job's root; none exports all rows, as without it where nothing is remembered";
        key: One<Vec<(String, Direction)>> = value::key, "COL [DESC],…", list: true,
            "split and order rows by these columns, NULLs last; the primary key unless given, where order is needed";
        partition_by: Many<Vec<FolderTerm>> = folders::terms, "NAME[=EXPRESSION],…",
            "put rows into folders NAME=VALUE by these columns or SQL expressions, of text, integers, dates or booleans; the files leave them out; may be repeated";
        keep_partition_columns: Switch<bool> = value::switch, "",
            "with --partition-by: the files have its columns too";
        protect: Many<(String, Protection)> = protect::column, "COLUMN=HOW",
            "write an output column only as hash (HMAC-SHA-256 of its text), mask (letters become x, digits 0), null, or drop it; may be repeated";
        protect_file: One<PathBuf> = value::path, "FILE",
            "TOML file of such protections by patterns of column names, for many tables";
        protect_key_file: One<PathBuf> = value::path, "FILE",
            "file with the key of hashes, of 16 bytes or more; equal values have equal hashes wherever the key is the same";
        protect_key_command: One<CredentialCommand> = credential_command, "COMMAND",
            "shell command that prints the key of hashes";
        allow_rls: Switch<bool> = value::switch, "",
            "export what row security lets the role see; without it such a table is refused, not exported in part";
    }
    Format {
        format: One<Format> = value::format, "FORMAT",
            "parquet, csv, ndjson (or json, jsonl), tsv, which is CSV with tabs, or source: as ClickHouse writes it, in the FORMAT at the end of --query; the end of a file's name says it too";
        compression: One<String> = value::any, "CODEC",
            "none, snappy, zstd[:level], gzip[:level] or lz4; zstd:1 for Parquet and none for text unless given";
        preset: One<Preset> = words(&[
            ("postgres", Preset::Postgres), ("athena", Preset::Athena), ("spectrum", Preset::Spectrum),
            ("excel", Preset::Postgres),
        ]), "PRESET",
            "postgres: the richest types; athena or spectrum: types, units, codecs and row groups that these read; excel: one CSV file that Excel opens as it is";
        csv_header: One<bool> = value::switch, "on|off",
            "header line in every CSV part";
        csv_delimiter: One<u8> = value::delimiter, "CHAR", hyphens: true,
            "between CSV values: one ASCII character, or \\t";
        csv_null: One<String> = value::csv_null, "TEXT", hyphens: true,
            "unquoted text for NULL in CSV";
        csv_newline: One<Newline> = words(&[("lf", Newline::Lf), ("crlf", Newline::Crlf)]), "lf|crlf",
            "line end of CSV";
        csv_bom: Switch<bool> = value::switch, "",
            "byte order mark in front of every CSV part";
        csv_formula_guard: Switch<bool> = value::switch, "",
            "put ' in front of CSV text that a spreadsheet would run as a formula";
        row_group_rows: One<NonZeroU64> = value::rows, "ROWS",
            "most rows in a Parquet row group";
        row_group_bytes: One<NonZeroU64> = value::size, "SIZE",
            "encoded bytes at which a Parquet row group ends";
        on_unrepresentable: One<OnUnrepresentable> = words(&[
            ("error", OnUnrepresentable::Error), ("null", OnUnrepresentable::Null), ("text", OnUnrepresentable::Text),
        ]), "error|null|text",
            "values that a Parquet type cannot hold (NaN in a decimal, infinite dates, 24:00:00, arrays of arrays): fail with exit 14, write NULL, or write such columns as text";
        unconstrained_numeric: One<UnconstrainedNumeric> = value::unconstrained_numeric, "CHOICE",
            "numeric declared without a precision, in Parquet: text, decimal(P,S) or double";
        timestamp_precision: One<TimestampPrecision> = words(&[
            ("us", TimestampPrecision::Micros), ("ms", TimestampPrecision::Millis),
            ("ms-exact", TimestampPrecision::MillisExact),
        ]), "us|ms|ms-exact",
            "unit of Parquet timestamps; ms rounds finer values, ms-exact refuses them";
        char_padding: One<CharPadding> = words(&[
            ("keep", CharPadding::Keep), ("trim", CharPadding::Trim),
        ]), "keep|trim",
            "the blanks at the end of char(n)";
        invalid_utf8: One<InvalidUtf8> = words(&[
            ("error", InvalidUtf8::Error), ("replace", InvalidUtf8::Replace), ("bytes", InvalidUtf8::Bytes),
        ]), "CHOICE",
            "text of a SQL_ASCII database that is not UTF-8: error, replace (U+FFFD) or bytes (such columns as bytes)";
        csv_nested: One<Nested> = words(&[("text", Nested::Native), ("json", Nested::Json)]), "text|json",
            "arrays, composites, ranges and hstore in CSV";
        json_large_numbers: One<JsonLargeNumbers> = words(&[
            ("number", JsonLargeNumbers::Number), ("string", JsonLargeNumbers::String),
        ]), "number|string",
            "numbers in NDJSON that 64-bit floats would change, such as 2^53 + 1";
        json_nan: One<JsonNan> = words(&[
            ("string", JsonNan::String), ("null", JsonNan::Null), ("error", JsonNan::Error),
        ]), "string|null|error",
            "NaN and the infinities in NDJSON";
        duplicate_columns: One<DuplicateColumns> = words(&[
            ("error", DuplicateColumns::Error), ("suffix", DuplicateColumns::Suffix),
        ]), "error|suffix",
            "two output columns of one name: refuse them, or call the second NAME_2";
        column_policy: Many<(String, ColumnChoice)> = value::column_policy, "COL=CHOICE",
            "a choice for one output column: error, null, text, json, decimal(P,S), double, keep, trim, replace, bytes, number, string, round or raw; may be repeated";
    }
    Work {
        readers: One<NonZeroUsize> = value::bounded(READERS_MAX as usize), "N", short: Some('j'),
            "connections that read at the same time";
        partitions: One<NonZeroU32> = value::partitions, "N",
            "partitions to split the relation into; chosen by size unless given";
        part_size: One<NonZeroU64> = value::size, "SIZE",
            "bytes at which a part rolls";
        open_parts: One<NonZeroUsize> = value::bounded(OPEN_PARTS_MAX), "N",
            "with --partition-by: parts that a reader writes at the same time, each with a buffer of its own";
        upload_chunk_size: One<NonZeroUsize> = value::upload_chunk_size, "SIZE",
            "bytes of one upload request, 5MiB or more";
        upload_concurrency: One<NonZeroUsize> = value::bounded(UPLOAD_CONCURRENCY_MAX), "N",
            "chunks of one part in flight";
        read_mode: One<fn(NonZeroU64) -> ReadMode> = words::<fn(_) -> _>(&[
            ("copy", |_| ReadMode::Copy), ("keyset", |page_size| ReadMode::Keyset { page_size }),
        ]), "copy|keyset",
            "copy: everything under one snapshot; keyset: pages in short transactions, for poolers that forbid long ones";
        page_size: One<NonZeroU64> = value::rows, "ROWS",
            "rows a page, with --read-mode keyset";
        consistency: One<ConsistencyChoice> = words(&[
            ("part_set", ConsistencyChoice::PartSet), ("per_partition", ConsistencyChoice::PerPartition),
            ("single_statement", ConsistencyChoice::SingleStatement),
        ]), "MODE",
            "what the reads of a ClickHouse table have in common: part_set, per_partition or single_statement";
        max_rows: One<NonZeroU64> = value::rows, "N",
            "export at most the first N rows by key, such as 10k or 5m; exit 3 if there were more";
        tier: One<String> = value::any, "NAME",
            "a named --max-rows: free, pro, team, scale, enterprise, or one of the config file";
        limit: One<NonZeroU64> = value::rows, "N",
            "export the first N rows by key, and exit 0 where there are more: --max-rows N --allow-truncated";
        allow_truncated: Switch<bool> = value::switch, "",
            "exit 0 although a cap cut rows off";
        min_rows: One<NonZeroU64> = value::rows, "N",
            "fail, and publish nothing, where there are fewer rows";
        source_profile: One<SourceProfile> = words(&[
            ("gentle", SourceProfile::Gentle), ("balanced", SourceProfile::Balanced), ("fast", SourceProfile::Fast),
        ]), "PROFILE",
            "gentle: 2 readers, each table in one pass that leaves the server's cache alone; balanced; fast: 8 readers, more partitions";
        yield_to_ddl: One<Option<Duration>> = value::duration_or_off, "DURATION|off",
            "give way (exit 16) before somebody has waited so long for a lock that the run holds";
        max_snapshot_age: One<Duration> = value::duration, "DURATION",
            "give way (exit 16) once the snapshot is so old: as long, VACUUM removes nothing newer";
        max_duration: One<Duration> = value::duration, "DURATION",
            "give way (exit 16) where planning and reading take longer, such as 30s, 5m or 2h";
        max_replay_lag: One<Duration> = value::duration, "DURATION",
            "give way (exit 16) where the standby that is read falls so far behind";
        max_bytes_per_second: One<NonZeroU64> = value::size, "SIZE",
            "read no faster from the source, all readers together";
        workers: One<Workers> = words(&[("own", Workers::Own), ("external", Workers::External)]), "own|external",
            "own: this process reads; external: it plans, waits for the partitions that `outhaul worker` processes read elsewhere, and commits";
        max_workers: One<NonZeroUsize> = value::bounded(READERS_MAX as usize), "N",
            "with --workers external: workers that read at the same time, the others wait; as many as --readers unless given";
        stdin: One<StdinRule> = words(&[("watch", StdinRule::Watch), ("ignore", StdinRule::Ignore)]), "watch|ignore",
            "whether the end of standard input means that whoever starts the workers is gone; watch where it is a pipe or a socket at the start, unless given";
    }
    Commit {
        run_id: One<String> = value::run_id, "ID",
            "id of the run; the same id makes a retry report what the first try committed";
        on_existing: One<OnExisting> = words(&[
            ("fail", OnExisting::Fail), ("skip", OnExisting::Skip), ("replace", OnExisting::Replace),
        ]), "CHOICE",
            "where a manifest already stands: fail (exit 22), skip or replace";
        on_schema_change: One<OnSchemaChange> = words(&[
            ("report", OnSchemaChange::Report), ("fail", OnSchemaChange::Fail),
        ]), "report|fail",
            "with --watermark, where the columns differ from those of the export before: go on and tell, or fail (exit 13)";
        visibility: One<Visibility> = words(&[
            ("at-commit", Visibility::AtCommit), ("as-written", Visibility::AsWritten),
        ]), "WHEN",
            "at-commit: all parts appear together; as-written: each when it is finished";
        layout: One<Layout> = words(&[("nested", Layout::Nested), ("flat", Layout::Flat)]), "LAYOUT",
            "nested: parts under data/; flat: directly under the destination";
        single_file: Switch<bool> = value::switch, "",
            "write one ordered object at exactly the given key; a name such as orders.csv says so by itself";
        manifest_stats: One<ManifestStats> = words(&[
            ("safe", ManifestStats::Safe), ("all", ManifestStats::All), ("none", ManifestStats::None),
        ]), "CHOICE",
            "extremes in the manifest: safe (none of text, bytea, json), all or none";
        sse: One<ServerSideEncryption> = words(&ServerSideEncryption::ALL), "HOW",
            "how S3 encrypts what is written: AES256, aws:kms or aws:kms:dsse; as the bucket does unless given";
        sse_kms_key_id: One<String> = value::word, "KEY",
            "the key of KMS with --sse aws:kms or aws:kms:dsse: its id or ARN; the account's own key for S3 unless given";
        sse_bucket_key: Switch<bool> = value::switch, "",
            "with --sse aws:kms: one key of the bucket's instead of a call to KMS for each object";
        storage_class: One<String> = value::word, "CLASS",
            "storage class of the parts on S3 or GCS: STANDARD_IA, INTELLIGENT_TIERING, NEARLINE; the bucket's own unless given";
        object_tag: Many<(String, String)> = value::object_tag, "KEY=VALUE",
            "a tag of the parts on S3; may be repeated, ten times at most";
        sha256: Switch<bool> = value::switch, "",
            "SHA-256 of every part in the manifest, beside CRC64NVME";
        manifest: One<PathBuf> = value::path, "FILE",
            "where --to - writes its manifest";
        keep_partial: One<PathBuf> = value::path, "FILE",
            "with --format source: where the bytes stay that came before a failure; they are no whole answer";
        keep_snapshot: One<Duration> = value::duration, "DURATION",
            "hold the snapshot so long beyond this process, so that `outhaul resume` can go on with a run that died";
        on_signal: One<OnSignal> = words(&[("abort", OnSignal::Abort), ("keep", OnSignal::Keep)]), "abort|keep",
            "what a signal leaves: abort: nothing; keep, with --keep-snapshot: what is uploaded, for `outhaul resume`";
    }
    People {
        progress: One<ProgressKind> = words(&[
            ("auto", ProgressKind::Auto), ("bar", ProgressKind::Bar), ("plain", ProgressKind::Plain),
            ("json", ProgressKind::Json), ("none", ProgressKind::None),
        ]), "KIND",
            "on standard error: auto, bar, plain, json or none";
        report: One<ReportKind> = words(&[("text", ReportKind::Text), ("json", ReportKind::Json)]), "text|json",
            "the end report: text, or one JSON line, last on standard output";
        report_file: One<PathBuf> = value::path, "FILE",
            "write the JSON report to FILE too, also where the run fails";
        log_format: One<LogFormat> = words(&[("text", LogFormat::Text), ("json", LogFormat::Json)]), "text|json",
            "form of log lines on standard error";
        color: One<ColorKind> = words(&[
            ("auto", ColorKind::Auto), ("always", ColorKind::Always), ("never", ColorKind::Never),
        ]), "auto|always|never",
            "colours on the terminal: auto is where it takes them and NO_COLOR is not set";
        metrics_listen: One<SocketAddr> = listen_address, "ADDR",
            "serve Prometheus metrics at http://ADDR/metrics while the run lasts";
        metrics_file: One<PathBuf> = value::path, "FILE",
            "write Prometheus metrics to FILE";
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as the parser of an option")]
fn credential_command(text: &str) -> Result<CredentialCommand, String> {
    Ok(CredentialCommand::new(text.to_owned()))
}

/// The option of a config key.
pub(crate) fn by_key(key: &str) -> Option<&'static OptionInfo> {
    OPTIONS.iter().find(|option| option.key == key)
}

/// The word nearest to a mistyped one, where one is near enough to be meant: one letter in three may be wrong.
pub(crate) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.into_iter().map(|word| (strsim::damerau_levenshtein(wrong, word), word));
    let (distance, word) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= (word.chars().count() / 3).max(1)).then_some(word)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_plain_and_unique() {
        let keys: BTreeSet<_> = OPTIONS.iter().map(|option| option.key).collect();
        assert_eq!(keys.len(), OPTIONS.len());
        for option in OPTIONS {
            assert!(
                option.key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{option:?}"
            );
            assert!(!option.help.is_empty() && !option.help.ends_with('.'), "{option:?}");
        }
        let option = by_key("part_size").unwrap();
        assert_eq!((option.flag().as_str(), option.variable().as_str()), ("part-size", "OUTHAUL_PART_SIZE"));
    }

    #[test]
    fn a_slip_of_the_finger_finds_its_word() {
        for (wrong, near) in
            [("cvs", Some("csv")), ("parqet", Some("parquet")), ("njdson", Some("ndjson")), ("xlsx", None), ("", None)]
        {
            assert_eq!(nearest(wrong, ["parquet", "csv", "ndjson"]), near, "{wrong}");
        }
    }
}
