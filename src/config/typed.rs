//! Settings as used: every value parsed, every contradiction found, all mistakes told at once.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use chrono::{NaiveDate, Utc};

use super::front::FrontOptions;
use super::raw::{Raw, Setting};
use super::{ConfigError, ConfigErrors, Environment, connection, options, value};
use crate::encode::{Compression, CsvOptions, Format, FormatOptions, Newline, ParquetOptions};
use crate::export::request::{
    CommitOptions, ExportRequest, ManifestStats, OnExisting, ReadMode, RowCap, ShapeOptions, Target, Visibility,
    WorkOptions,
};
use crate::limits;
use crate::plan::RelationRequest;
use crate::store::Layout;

/// Reads and checks everything. `flags` are config key and values as given on the command line; `need_target` is
/// whether a destination must be named (`export`) or may be missing (`plan`).
///
/// # Errors
/// All mistakes at once.
pub fn load(
    flags: Vec<(&'static str, Vec<String>)>,
    environment: &Environment,
    need_target: bool,
) -> Result<(ExportRequest, FrontOptions), ConfigErrors> {
    let raw = Raw::load(flags, environment).map_err(ConfigErrors)?;
    let mut reader = Reader { raw: &raw, errors: Vec::new() };
    reader.refuse_later();
    let connect = connection::settings(&raw, environment).map_err(|errors| reader.errors.extend(errors)).ok();
    let format = reader.format();
    let shape = reader.shape();
    let work = reader.work();
    let commit = reader.commit(need_target, &shape);
    let front = reader.front();
    reader.contradictions(&format, &work, &commit);
    match (connect, reader.errors.is_empty()) {
        (Some(connect), true) => Ok((ExportRequest { connect, shape, format, work, commit }, front)),
        _ => Err(ConfigErrors(reader.errors)),
    }
}

/// Parses settings one by one and keeps the mistakes.
pub(super) struct Reader<'a> {
    pub(super) raw: &'a Raw,
    pub(super) errors: Vec<ConfigError>,
}

impl Reader<'_> {
    fn complain(&mut self, key: &str, setting: &Setting, value: &str, why: String) {
        self.errors.push(ConfigError::new(format!("{} is {value:?}", setting.origin.name(key)), why));
    }

    /// A value that the defaults have, or a stand-in where it is wrong; the mistake is told at the end.
    fn one<T>(&mut self, key: &str, fallback: T, parse: impl FnOnce(&str) -> Result<T, String>) -> T {
        self.optional(key, parse).unwrap_or(fallback)
    }

    pub(super) fn optional<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let setting = self.raw.get(key)?;
        let text = setting.values.first().map_or("", String::as_str);
        match parse(text) {
            Ok(value) => Some(value),
            Err(why) => {
                self.complain(key, setting, text, why);
                None
            }
        }
    }

    fn many<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let Some(setting) = self.raw.get(key) else { return Vec::new() };
        let mut parsed = Vec::new();
        for text in &setting.values {
            match parse(text) {
                Ok(value) => parsed.push(value),
                Err(why) => self.complain(key, setting, text, why),
            }
        }
        parsed
    }

    pub(super) fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)], fallback: T) -> T {
        self.one(key, fallback, |text| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice).ok_or_else(|| {
                let near = options::nearest(text, words.iter().copied());
                near.map_or_else(
                    || format!("one of {} is wanted", words.join(", ")),
                    |near| format!("did you mean {near}?"),
                )
            })
        })
    }

    fn refuse_later(&mut self) {
        let later = options::OPTIONS.iter().filter(|option| option.later);
        for option in later {
            if let Some(setting) = self.raw.get(option.key) {
                let what = format!("{} is not in this version yet", setting.origin.name(option.key));
                self.errors.push(ConfigError::new(what, "leave it out"));
            }
        }
        for (key, only) in [("preset", "postgres"), ("on_unrepresentable", "error")] {
            if let Some(setting) = self.raw.get(key)
                && setting.values.first().is_some_and(|value| value != only)
            {
                let value = setting.values.join(" ");
                let what = format!("{} is {value:?}, which is not in this version yet", setting.origin.name(key));
                self.errors.push(ConfigError::new(what, format!("only {only} works now")));
            }
        }
    }

    fn shape(&mut self) -> ShapeOptions {
        let table = self.optional("table", |text| some_text(text, "the name of a table or view"));
        let query = self.optional("query", |text| some_text(text, "a statement"));
        let relation = match (table, query) {
            (Some(table), None) => RelationRequest::Table(table),
            (None, Some(query)) => RelationRequest::Query(query),
            (table, _) => {
                let what =
                    if table.is_some() { "--table and --query are both given" } else { "nothing says what to export" };
                self.errors.push(ConfigError::new(what, "give exactly one of --table NAME and --query SQL"));
                RelationRequest::Query(String::new())
            }
        };
        let expression = |text: &str| value::pair(text, "name=expression");
        ShapeOptions {
            relation,
            columns: self.optional("columns", value::names),
            expressions: self.many("column", expression),
            renames: self.many("rename", |text| {
                let (old, new) = value::pair(text, "old=new")?;
                Ok((old, value::name(&new)?))
            }),
            predicate: self.optional("where", |text| some_text(text, "a predicate")),
            key: self.optional("key", value::key),
        }
    }

    fn format(&mut self) -> FormatOptions {
        const FORMATS: &[(&str, Format)] =
            &[("parquet", Format::Parquet), ("csv", Format::Csv), ("ndjson", Format::Ndjson)];
        let format = self.choice("format", FORMATS, Format::Parquet);
        let fallback = if format == Format::Parquet { Compression::Zstd(1) } else { Compression::None };
        let compression = self.one("compression", fallback, |text| value::compression(text, format));
        let csv = CsvOptions {
            header: self.one("csv_header", true, value::switch),
            delimiter: self.one("csv_delimiter", b',', value::delimiter),
            null: self.one("csv_null", String::new(), |text| {
                if text.contains(['"', '\r', '\n', '\0']) {
                    Err("text without quotes and line ends is wanted".to_owned())
                } else {
                    Ok(text.to_owned())
                }
            }),
            newline: self.choice("csv_newline", &[("lf", Newline::Lf), ("crlf", Newline::Crlf)], Newline::Lf),
            bom: self.one("csv_bom", false, value::switch),
            formula_guard: self.one("csv_formula_guard", false, value::switch),
        };
        let parquet = ParquetOptions {
            row_group_rows: self.one("row_group_rows", NonZeroU64::MIN, value::count),
            row_group_bytes: self.one("row_group_bytes", NonZeroU64::MIN, value::size),
            metadata: Vec::new(),
        };
        FormatOptions { format, compression, csv, parquet }
    }

    fn work(&mut self) -> WorkOptions {
        let page_size = self.one("page_size", NonZeroU64::MIN, value::count);
        let keyset = ReadMode::Keyset { page_size };
        let tier = self.optional("tier", |text| Ok(text.to_owned()));
        let max_rows = self.optional("max_rows", value::count);
        WorkOptions {
            readers: self.one("readers", NonZeroUsize::MIN, |text| bounded(text, limits::READERS_MAX)),
            partitions: self.optional("partitions", |text| {
                let most = usize::try_from(limits::PARTITIONS_MAX).unwrap_or(usize::MAX);
                let partitions = u32::try_from(bounded(text, most)?.get()).map_err(|error| error.to_string())?;
                NonZeroU32::new(partitions).ok_or_else(|| "1 or more is wanted".to_owned())
            }),
            part_size: self.one("part_size", NonZeroU64::MIN, value::size),
            upload_chunk_size: self.one("upload_chunk_size", NonZeroUsize::MIN, |text| {
                let size = usize::try_from(value::size(text)?.get()).map_err(|error| error.to_string())?;
                let range = limits::UPLOAD_CHUNK_BYTES_MIN..=limits::UPLOAD_CHUNK_BYTES_MAX;
                NonZeroUsize::new(size)
                    .filter(|size| range.contains(&size.get()))
                    .ok_or_else(|| "from 5MiB to 5GiB is wanted: what S3 takes".to_owned())
            }),
            upload_concurrency: self
                .one("upload_concurrency", NonZeroUsize::MIN, |text| bounded(text, limits::UPLOAD_CONCURRENCY_MAX)),
            read_mode: self.choice("read_mode", &[("copy", ReadMode::Copy), ("keyset", keyset)], ReadMode::Copy),
            cap: self.cap(tier, max_rows),
            allow_truncated: self.one("allow_truncated", false, value::switch),
            min_rows: self.optional("min_rows", value::count),
        }
    }

    fn cap(&mut self, tier: Option<String>, max_rows: Option<NonZeroU64>) -> Option<RowCap> {
        if tier.is_some() && max_rows.is_some() {
            self.errors.push(ConfigError::new("--tier and --max-rows are both given", "give one of them"));
        }
        let Some(tier) = tier else { return max_rows.map(|max_rows| RowCap { tier: None, max_rows: Some(max_rows) }) };
        let Some(cap) = self.raw.tier(&tier) else {
            let known: Vec<&str> = self.raw.tiers().collect();
            let what = format!("tier {tier:?} is not known");
            self.errors.push(ConfigError::new(what, format!("the tiers are {}", known.join(", "))));
            return None;
        };
        match (cap, value::count(cap)) {
            ("unlimited", _) => Some(RowCap { tier: Some(tier), max_rows: None }),
            (_, Ok(max_rows)) => Some(RowCap { tier: Some(tier), max_rows: Some(max_rows) }),
            (_, Err(why)) => {
                let what = format!("tier {tier:?} is {cap:?}");
                self.errors.push(ConfigError::new(what, format!("{why}, or \"unlimited\"")));
                None
            }
        }
    }

    fn commit(&mut self, need_target: bool, shape: &ShapeOptions) -> CommitOptions {
        let date = self.optional("date", |text| {
            NaiveDate::parse_from_str(text, "%Y-%m-%d").map_err(|_| "a date such as 2026-11-21 is wanted".to_owned())
        });
        let given = self.optional("run_id", value::run_id);
        let run_id_given = given.is_some();
        let run_id = given.unwrap_or_else(new_run_id);
        let manifest = self.optional("manifest", |text| Ok(PathBuf::from(text)));
        let target = match self.optional("to", |text| some_text(text, "a destination")) {
            Some(to) if to == "-" => Target::Stdout { manifest },
            Some(to) => match expand(&to, date, &run_id, shape) {
                Ok(to) => Target::Destination(to),
                Err(error) => {
                    self.errors.push(error);
                    Target::Destination(to)
                }
            },
            None => {
                if need_target {
                    let hint = "give --to DEST: a folder, s3://bucket/prefix/, or - for standard output";
                    self.errors.push(ConfigError::new("nothing says where to write", hint));
                }
                Target::Destination(".".to_owned())
            }
        };
        CommitOptions {
            target,
            run_id,
            run_id_given,
            on_existing: self.choice(
                "on_existing",
                &[("fail", OnExisting::Fail), ("skip", OnExisting::Skip), ("replace", OnExisting::Replace)],
                OnExisting::Fail,
            ),
            visibility: self.choice(
                "visibility",
                &[("at-commit", Visibility::AtCommit), ("as-written", Visibility::AsWritten)],
                Visibility::AtCommit,
            ),
            layout: self.choice("layout", &[("nested", Layout::Nested), ("flat", Layout::Flat)], Layout::Nested),
            single_file: self.one("single_file", false, value::switch),
            manifest_stats: self.choice(
                "manifest_stats",
                &[("safe", ManifestStats::Safe), ("all", ManifestStats::All), ("none", ManifestStats::None)],
                ManifestStats::Safe,
            ),
            sha256: self.one("sha256", false, value::switch),
        }
    }
}

fn some_text(text: &str, wanted: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err(format!("{wanted} is wanted")) } else { Ok(text.to_owned()) }
}

fn bounded(text: &str, most: usize) -> Result<NonZeroUsize, String> {
    let wrong = || format!("a whole number from 1 to {most} is wanted");
    let count = usize::try_from(value::count(text).map_err(|_| wrong())?.get()).map_err(|_| wrong())?;
    NonZeroUsize::new(count).filter(|count| count.get() <= most).ok_or_else(wrong)
}

/// A new run id: when it began, and enough randomness that no two runs share it.
fn new_run_id() -> String {
    format!("{}-{:08x}", Utc::now().format("%Y%m%dT%H%M%SZ"), rand::random::<u32>())
}

/// Expands `{date}`, `{run_id}` and `{table}`.
fn expand(to: &str, date: Option<NaiveDate>, run_id: &str, shape: &ShapeOptions) -> Result<String, ConfigError> {
    let date = date.unwrap_or_else(|| Utc::now().date_naive()).to_string();
    let mut expanded = String::new();
    let mut rest = to;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else {
            return Err(ConfigError::new(
                format!("--to {to}: a {{ is never closed"),
                "{date}, {run_id} and {table} expand",
            ));
        };
        expanded.push_str(before);
        match (name, &shape.relation) {
            ("date", _) => expanded.push_str(&date),
            ("run_id", _) => expanded.push_str(run_id),
            ("table", RelationRequest::Table(table)) => {
                expanded.push_str(&table.replace('"', "").replace(['/', '\\', ' '], "_"));
            }
            ("table", RelationRequest::Query(query)) => {
                // Where neither is given, that is the mistake to tell.
                if !query.is_empty() {
                    let what = "--to names {table}, and a --query has none";
                    return Err(ConfigError::new(what, "name the destination yourself"));
                }
            }
            _ => {
                let what = format!("--to {to}: {{{name}}} is not known");
                return Err(ConfigError::new(what, "{date}, {run_id} and {table} expand"));
            }
        }
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}
