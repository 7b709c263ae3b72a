//! The table of options: flag, environment variable and config key share one name, and this is where it stands.

/// How often an option may be given, and whether it takes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    /// `--flag VALUE`, once.
    One,
    /// `--flag VALUE`, again and again; a list in a file, one a line in the environment.
    Many,
    /// `--flag`; `true` or `false` in a file or the environment.
    Switch,
}

/// The heading under which `--help` shows an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heading {
    /// Where from, where to.
    Ends,
    /// Which rows and columns.
    Shape,
    /// How they are written.
    Format,
    /// How the work is split.
    Work,
    /// How it is committed.
    Commit,
    /// What people see.
    People,
}

impl Heading {
    /// Its words in `--help`.
    pub fn title(self) -> &'static str {
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

/// One option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionInfo {
    /// The config key, in `snake_case`.
    pub key: &'static str,
    /// How it is given.
    pub arity: Arity,
    /// What stands for its value in `--help`.
    pub value: &'static str,
    /// Where `--help` shows it.
    pub heading: Heading,
    /// What it does, in one sentence, with its unit.
    pub help: &'static str,
    /// Whether it does something in this version.
    pub availability: Availability,
}

/// Whether an option does something in this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// It does.
    Now,
    /// It belongs to a later version: hidden from `--help`, and refused.
    Later,
}

impl OptionInfo {
    /// The flag, without its dashes.
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }

    /// The flag of one letter, where there is one.
    pub fn short(&self) -> Option<char> {
        (self.key == "readers").then_some('j')
    }

    /// Whether `--help` leaves it out.
    pub fn is_hidden(&self) -> bool {
        self.availability != Availability::Now
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("OUTHAUL_{}", self.key.to_uppercase())
    }
}

const fn option(
    heading: Heading,
    key: &'static str,
    arity: Arity,
    value: &'static str,
    help: &'static str,
) -> OptionInfo {
    OptionInfo { key, arity, value, heading, help, availability: Availability::Now }
}

const fn later(heading: Heading, key: &'static str, arity: Arity, value: &'static str) -> OptionInfo {
    OptionInfo { key, arity, value, heading, help: "not in this version yet", availability: Availability::Later }
}

use Arity::{Many, One, Switch};
use Heading::{Commit, Ends, Format, People, Shape, Work};

/// All options of `outhaul export` and `outhaul plan`, in the order of `--help`.
pub const OPTIONS: &[OptionInfo] = &[
    option(
        Ends,
        "from",
        One,
        "URL",
        "PostgreSQL to read: postgres://user@host:port/database, key=value pairs, or env:NAME; without it DATABASE_URL or the PG* variables",
    ),
    option(Ends, "password_file", One, "FILE", "file whose first line is the password"),
    later(Ends, "password_command", One, "COMMAND"),
    option(
        Ends,
        "table",
        One,
        "NAME",
        "table, view or materialized view, quoted where SQL would need it: public.orders",
    ),
    option(Ends, "query", One, "SQL", "one SELECT, WITH, VALUES or TABLE statement instead of a table"),
    option(
        Ends,
        "to",
        One,
        "DEST",
        "folder, file:///…, s3://…, gs://…, az://…, abfss://…, or - for standard output; {date}, {run_id} and {table} expand",
    ),
    option(Ends, "date", One, "YYYY-MM-DD", "what {date} expands to; today in UTC unless given"),
    option(Ends, "config", One, "FILE", "TOML file with any of these options"),
    option(
        Shape,
        "columns",
        One,
        "A,B,C",
        "columns to write, in this order; letter case counts, other than plain names stand in double quotes; all unless given",
    ),
    option(
        Shape,
        "column",
        Many,
        "NAME=EXPRESSION",
        "one more column, an SQL expression over the row; may be repeated",
    ),
    option(Shape, "rename", Many, "OLD=NEW", "write column OLD under the name NEW; may be repeated"),
    option(Shape, "where", One, "PREDICATE", "only rows for which this SQL predicate holds"),
    option(
        Shape,
        "key",
        One,
        "COL [DESC],…",
        "split and order rows by these columns, NULLs last; the primary key unless given, where order is needed",
    ),
    option(
        Shape,
        "allow_rls",
        Switch,
        "",
        "export what row security lets the role see; without it such a table is refused, not exported in part",
    ),
    option(Format, "format", One, "FORMAT", "parquet, csv or ndjson"),
    option(
        Format,
        "compression",
        One,
        "CODEC",
        "none, snappy, zstd[:level], gzip[:level] or lz4; zstd:1 for Parquet and none for text unless given",
    ),
    option(
        Format,
        "preset",
        One,
        "PRESET",
        "postgres: the richest types; athena or spectrum: types, units, codecs and row groups that these read",
    ),
    option(Format, "csv_header", One, "on|off", "header line in every CSV part"),
    option(Format, "csv_delimiter", One, "CHAR", "between CSV values: one ASCII character, or \\t"),
    option(Format, "csv_null", One, "TEXT", "unquoted text for NULL in CSV"),
    option(Format, "csv_newline", One, "lf|crlf", "line end of CSV"),
    option(Format, "csv_bom", Switch, "", "byte order mark in front of every CSV part"),
    option(
        Format,
        "csv_formula_guard",
        Switch,
        "",
        "put ' in front of CSV text that a spreadsheet would run as a formula",
    ),
    option(Format, "row_group_rows", One, "ROWS", "most rows in a Parquet row group"),
    option(Format, "row_group_bytes", One, "SIZE", "encoded bytes at which a Parquet row group ends"),
    option(
        Format,
        "on_unrepresentable",
        One,
        "error|null|text",
        "values that a Parquet type cannot hold (NaN in a decimal, infinite dates, 24:00:00, arrays of arrays): fail with exit 14, write NULL, or write such columns as text",
    ),
    option(
        Format,
        "unconstrained_numeric",
        One,
        "CHOICE",
        "numeric declared without a precision, in Parquet: text, decimal(P,S) or double",
    ),
    option(
        Format,
        "timestamp_precision",
        One,
        "us|ms|ms-exact",
        "unit of Parquet timestamps; ms rounds finer values, ms-exact refuses them",
    ),
    option(Format, "char_padding", One, "keep|trim", "the blanks at the end of char(n)"),
    option(
        Format,
        "invalid_utf8",
        One,
        "CHOICE",
        "text of a SQL_ASCII database that is not UTF-8: error, replace (U+FFFD) or bytes (such columns as bytes)",
    ),
    option(Format, "csv_nested", One, "text|json", "arrays, composites, ranges and hstore in CSV"),
    option(
        Format,
        "json_large_numbers",
        One,
        "number|string",
        "numbers in NDJSON that 64-bit floats would change, such as 2^53 + 1",
    ),
    option(Format, "json_nan", One, "string|null|error", "NaN and the infinities in NDJSON"),
    option(
        Format,
        "duplicate_columns",
        One,
        "error|suffix",
        "two output columns of one name: refuse them, or call the second NAME_2",
    ),
    option(
        Format,
        "column_policy",
        Many,
        "COL=CHOICE",
        "a choice for one output column: error, null, text, json, decimal(P,S), double, keep, trim, replace, bytes, number, string or round; may be repeated",
    ),
    option(Work, "readers", One, "N", "connections that read at the same time"),
    option(Work, "partitions", One, "N", "partitions to split the relation into; chosen by size unless given"),
    option(Work, "part_size", One, "SIZE", "bytes at which a part rolls"),
    option(Work, "upload_chunk_size", One, "SIZE", "bytes of one upload request, 5MiB or more"),
    option(Work, "upload_concurrency", One, "N", "chunks of one part in flight"),
    option(
        Work,
        "read_mode",
        One,
        "copy|keyset",
        "copy: everything under one snapshot; keyset: pages in short transactions, for poolers that forbid long ones",
    ),
    option(Work, "page_size", One, "ROWS", "rows a page, with --read-mode keyset"),
    option(Work, "max_rows", One, "N", "export at most the first N rows by key; exit 3 if there were more"),
    option(
        Work,
        "tier",
        One,
        "NAME",
        "a named --max-rows: free, pro, team, scale, enterprise, or one of the config file",
    ),
    option(Work, "allow_truncated", Switch, "", "exit 0 although a cap cut rows off"),
    option(Work, "min_rows", One, "N", "fail, and publish nothing, where there are fewer rows"),
    option(
        Work,
        "source_profile",
        One,
        "PROFILE",
        "gentle: 2 readers, each table in one pass that leaves the server's cache alone; balanced; fast: 8 readers, more partitions",
    ),
    option(
        Work,
        "yield_to_ddl",
        One,
        "DURATION|off",
        "give way (exit 16) before somebody has waited so long for a lock that the run holds",
    ),
    option(
        Work,
        "max_snapshot_age",
        One,
        "DURATION",
        "give way (exit 16) once the snapshot is so old: as long, VACUUM removes nothing newer",
    ),
    option(
        Work,
        "max_duration",
        One,
        "DURATION",
        "give way (exit 16) where planning and reading take longer, such as 30s, 5m or 2h",
    ),
    option(
        Work,
        "max_replay_lag",
        One,
        "DURATION",
        "give way (exit 16) where the standby that is read falls so far behind",
    ),
    option(Work, "max_bytes_per_second", One, "SIZE", "read no faster from the source, all readers together"),
    option(Commit, "run_id", One, "ID", "id of the run; the same id makes a retry report what the first try committed"),
    option(Commit, "on_existing", One, "CHOICE", "where a manifest already stands: fail (exit 22), skip or replace"),
    option(
        Commit,
        "visibility",
        One,
        "WHEN",
        "at-commit: all parts appear together; as-written: each when it is finished",
    ),
    option(Commit, "layout", One, "LAYOUT", "nested: parts under data/; flat: directly under the destination"),
    option(Commit, "single_file", Switch, "", "write one ordered object at exactly the given key"),
    option(
        Commit,
        "manifest_stats",
        One,
        "CHOICE",
        "extremes in the manifest: safe (none of text, bytea, json), all or none",
    ),
    option(Commit, "sha256", Switch, "", "SHA-256 of every part in the manifest, beside CRC64NVME"),
    option(Commit, "manifest", One, "FILE", "where --to - writes its manifest"),
    option(
        Commit,
        "keep_snapshot",
        One,
        "DURATION",
        "hold the snapshot so long beyond this process, so that `outhaul resume` can go on with a run that died",
    ),
    option(People, "progress", One, "KIND", "on standard error: auto, bar, plain, json or none"),
    option(People, "report", One, "text|json", "the end report: text, or one JSON line, last on standard output"),
    option(People, "log_format", One, "text|json", "form of log lines on standard error"),
    option(
        People,
        "metrics_listen",
        One,
        "ADDR",
        "serve Prometheus metrics at http://ADDR/metrics while the run lasts",
    ),
    option(People, "metrics_file", One, "FILE", "write Prometheus metrics to FILE"),
];

/// The option of a config key.
pub fn by_key(key: &str) -> Option<&'static OptionInfo> {
    OPTIONS.iter().find(|option| option.key == key)
}

/// The word nearest to a mistyped one, where one is near enough to be meant: one letter in three may be wrong.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
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
