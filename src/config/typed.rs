//! Settings as used: every value parsed, every contradiction found, all mistakes told at once.

use std::fmt::Display;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use super::raw::{Origin, Raw, Setting};
use super::{ConfigError, ConfigErrors, Environment, connection, contradictions, destination, options, value};
use crate::base::memory;
use crate::base::telemetry::exporter::listen_address;
use crate::export::request::ExportRequest;
use crate::model::{
    CommitOptions, Compression, CsvOptions, Format, FormatOptions, Layout, ManifestStats, Newline, OnExisting,
    ParquetOptions, Preset, ReadMode, RelationRequest, RowCap, ShapeOptions, SourceLimits, SourceProfile, Target,
    Visibility, WorkOptions,
};
use crate::source::postgres::ConnectSettings;
use crate::store::{UPLOAD_CHUNK_BYTES_MAX, UPLOAD_CHUNK_BYTES_MIN};

/// `--progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the flag's own words")]
pub enum ProgressKind {
    Auto,
    Bar,
    Plain,
    Json,
    None,
}

/// `--report`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the flag's own words")]
pub enum ReportKind {
    Text,
    Json,
}

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the flag's own words")]
pub enum LogFormat {
    Text,
    Json,
}

/// What people see; nothing of it changes what is exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontOptions {
    /// Progress on standard error.
    pub progress: ProgressKind,
    /// The end report.
    pub report: ReportKind,
    /// The form of log lines.
    pub log_format: LogFormat,
    /// Where metrics are served.
    pub metrics_listen: Option<SocketAddr>,
    /// Where metrics are written.
    pub metrics_file: Option<PathBuf>,
    /// Whether rows go to standard output, which then carries nothing else.
    pub to_stdout: bool,
}

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
    let (raw, errors) = Raw::read(flags, environment);
    let mut reader = Reader { raw: &raw, errors };
    let connect = connection::settings(&raw, environment).map_err(|errors| reader.errors.extend(errors)).ok();
    let policies = reader.policies();
    let format = reader.format(policies.preset);
    let shape = reader.shape();
    let work = reader.work();
    let commit = reader.commit(need_target, &shape);
    let front = reader.front();
    reader.errors.extend(contradictions::find(&raw, &format, &work, policies.preset));
    match (connect, reader.errors.is_empty()) {
        (Some(connect), true) => {
            Ok((ExportRequest { connect, shape, format, policies, work, commit, keeper: None }, front))
        }
        _ => Err(ConfigErrors(reader.errors)),
    }
}

/// How to connect, for a command that takes no other option of an export. `flags` as for [`load`].
///
/// # Errors
/// All mistakes at once.
pub fn load_connection(
    flags: Vec<(&'static str, Vec<String>)>,
    environment: &Environment,
) -> Result<ConnectSettings, ConfigErrors> {
    let (raw, errors) = Raw::read(flags, environment);
    let mut reader = Reader { raw: &raw, errors };
    let connect = connection::settings(&raw, environment).map_err(|errors| reader.errors.extend(errors)).ok();
    connect.filter(|_| reader.errors.is_empty()).ok_or(ConfigErrors(reader.errors))
}

/// What `keep` takes besides its destination: how to connect, and how long a session may wait for its locks. `flags` as
/// for [`load`].
///
/// # Errors
/// All mistakes at once.
pub fn load_keep(
    flags: Vec<(&'static str, Vec<String>)>,
    environment: &Environment,
) -> Result<(ConnectSettings, Option<Duration>), ConfigErrors> {
    let (raw, errors) = Raw::read(flags, environment);
    let mut reader = Reader { raw: &raw, errors };
    let connect = connection::settings(&raw, environment).map_err(|errors| reader.errors.extend(errors)).ok();
    let yield_to_ddl = reader.one("yield_to_ddl", None, value::duration_or_off);
    match (connect, reader.errors.is_empty()) {
        (Some(connect), true) => Ok((connect, yield_to_ddl)),
        _ => Err(ConfigErrors(reader.errors)),
    }
}

/// What `resume` takes besides its destination: how to connect, how many readers where that is given, and what people
/// see. `flags` as for [`load`].
///
/// # Errors
/// All mistakes at once.
pub fn load_resume(
    flags: Vec<(&'static str, Vec<String>)>,
    environment: &Environment,
) -> Result<(ConnectSettings, Option<NonZeroUsize>, FrontOptions), ConfigErrors> {
    let (raw, errors) = Raw::read(flags, environment);
    let mut reader = Reader { raw: &raw, errors };
    let connect = connection::settings(&raw, environment).map_err(|errors| reader.errors.extend(errors)).ok();
    let readers = reader.one("readers", NonZeroUsize::MIN, |text| bounded(text, memory::READERS_MAX as usize));
    let front = reader.front();
    match (connect, reader.errors.is_empty()) {
        (Some(connect), true) => Ok((connect, raw.given("readers").map(|_| readers), front)),
        _ => Err(ConfigErrors(reader.errors)),
    }
}

/// A length of time as options have it.
///
/// # Errors
/// What would be right.
pub fn duration(text: &str) -> Result<Duration, String> {
    value::duration(text)
}

pub(super) struct Reader<'a> {
    raw: &'a Raw,
    errors: Vec<ConfigError>,
}

impl Reader<'_> {
    fn complain(&mut self, key: &str, setting: &Setting, why: impl Display) {
        let values = setting.values.join(" ");
        let name = match &setting.origin {
            Origin::Flag(_) | Origin::Variable(_) => setting.origin.to_string(),
            Origin::Default | Origin::File(..) => format!("{}: {key}", setting.origin),
        };
        let what = format!("{name} is {values:?}");
        self.errors.push(ConfigError::new(what, why.to_string()));
    }

    /// A value that the defaults have, or a stand-in where it is wrong; the mistake is told at the end.
    pub(super) fn one<T>(&mut self, key: &str, fallback: T, parse: impl FnOnce(&str) -> Result<T, String>) -> T {
        if self.raw.get(key).is_none() {
            self.errors.push(ConfigError::new(format!("{key} has no default"), "please report this as a bug"));
        }
        self.optional(key, parse).unwrap_or(fallback)
    }

    fn optional<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let setting = self.raw.get(key)?;
        match parse(setting.values.first().map_or("", String::as_str)) {
            Ok(value) => Some(value),
            Err(why) => {
                self.complain(key, setting, why);
                None
            }
        }
    }

    pub(super) fn many<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let Some(setting) = self.raw.get(key) else { return Vec::new() };
        let mut parsed = Vec::new();
        for value in &setting.values {
            match parse(value) {
                Ok(value) => parsed.push(value),
                Err(why) => self.complain(key, setting, why),
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

    fn shape(&mut self) -> ShapeOptions {
        let table = self.optional("table", |text| value::table(text).map(|_| text.trim().to_owned()));
        let query = self.optional("query", value::text);
        match (self.raw.get("table"), self.raw.get("query")) {
            (Some(_), None) | (None, Some(_)) => {}
            (None, None) => self.errors.push(ConfigError::new(
                "nothing says what to export",
                "give exactly one of --table NAME and --query SQL",
            )),
            (Some(table), Some(query)) => {
                let places = format!("({} and {})", table.origin, query.origin);
                self.errors.push(ConfigError::new(
                    format!("--table and --query are both given {places}"),
                    "give exactly one of --table NAME and --query SQL",
                ));
            }
        }
        let relation = match (table, query) {
            (Some(table), _) => RelationRequest::Table(table),
            (None, query) => RelationRequest::Query(query.unwrap_or_default()),
        };
        ShapeOptions {
            relation,
            columns: self.optional("columns", value::names),
            expressions: self.many("column", value::expression),
            renames: self.many("rename", value::rename),
            predicate: self.optional("where", value::text),
            key: self.optional("key", value::key),
            allow_rls: self.one("allow_rls", false, value::switch),
        }
    }

    fn format(&mut self, preset: Preset) -> FormatOptions {
        const FORMATS: &[(&str, Format)] =
            &[("parquet", Format::Parquet), ("csv", Format::Csv), ("ndjson", Format::Ndjson)];
        let format = self.choice("format", FORMATS, Format::Parquet);
        let compression = self.compression(format, preset);
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
        if format == Format::Csv && csv.null.as_bytes().contains(&csv.delimiter) {
            self.errors.push(ConfigError::new("--csv-null holds the delimiter", "choose another text or delimiter"));
        }
        let parquet = ParquetOptions {
            row_group_rows: self.one("row_group_rows", NonZeroU64::MIN, value::count),
            row_group_bytes: self.one("row_group_bytes", NonZeroU64::MIN, value::size),
            metadata: Vec::new(),
            sorted: Vec::new(),
            delta: preset == Preset::Postgres,
        };
        FormatOptions { format, compression, csv, parquet }
    }

    /// As given, or the default of the format, which `config/default.toml` has in tables of its own.
    fn compression(&mut self, format: Format, preset: Preset) -> Compression {
        let raw = self.raw;
        let parse =
            |text: &str| value::compression(text, format, |codec| raw.entry("levels", codec).map(str::to_owned));
        if raw.get("compression").is_some() {
            return self.optional("compression", parse).unwrap_or(Compression::None);
        }
        let name = match format {
            Format::Parquet => "parquet",
            Format::Csv => "csv",
            Format::Ndjson => "ndjson",
        };
        let preset = match preset {
            Preset::Postgres => None,
            Preset::Athena => raw.entry("athena", name),
            Preset::Spectrum => raw.entry("spectrum", name),
        };
        parse(preset.or_else(|| raw.entry("by_format", name)).unwrap_or_default()).unwrap_or_else(|why| {
            self.errors.push(ConfigError::new(
                format!("compression of {name} has no default: {why}"),
                "please report this as a bug",
            ));
            Compression::None
        })
    }

    fn work(&mut self) -> WorkOptions {
        const PROFILES: &[(&str, SourceProfile)] =
            &[("gentle", SourceProfile::Gentle), ("balanced", SourceProfile::Balanced), ("fast", SourceProfile::Fast)];
        let one_stream = contradictions::one_stream(self.raw).is_some();
        let page_size = self.one("page_size", NonZeroU64::MIN, value::count);
        let keyset = ReadMode::Keyset { page_size };
        let tier = self.optional("tier", |text| Ok(text.to_owned()));
        let max_rows = self.optional("max_rows", value::count);
        let readers = self.one("readers", NonZeroUsize::MIN, |text| bounded(text, memory::READERS_MAX as usize));
        WorkOptions {
            // One ordered stream has one reader.
            readers: if one_stream { NonZeroUsize::MIN } else { readers },
            partitions: self.optional("partitions", |text| {
                let most = usize::try_from(memory::PARTITIONS_MAX).unwrap_or(usize::MAX);
                let partitions = u32::try_from(bounded(text, most)?.get()).map_err(|error| error.to_string())?;
                NonZeroU32::new(partitions).ok_or_else(|| "1 or more is wanted".to_owned())
            }),
            part_size: self.one("part_size", NonZeroU64::MIN, value::size),
            upload_chunk_size: self.one("upload_chunk_size", NonZeroUsize::MIN, |text| {
                let size = usize::try_from(value::size(text)?.get()).map_err(|error| error.to_string())?;
                let range = UPLOAD_CHUNK_BYTES_MIN..=UPLOAD_CHUNK_BYTES_MAX;
                NonZeroUsize::new(size)
                    .filter(|size| range.contains(&size.get()))
                    .ok_or_else(|| "from 5MiB to 5GiB is wanted: what S3 takes".to_owned())
            }),
            upload_concurrency: self
                .one("upload_concurrency", NonZeroUsize::MIN, |text| bounded(text, memory::UPLOAD_CONCURRENCY_MAX)),
            read_mode: self.choice("read_mode", &[("copy", ReadMode::Copy), ("keyset", keyset)], ReadMode::Copy),
            cap: self.cap(tier, max_rows),
            allow_truncated: self.one("allow_truncated", false, value::switch),
            min_rows: self.optional("min_rows", value::count),
            source_profile: self.choice("source_profile", PROFILES, SourceProfile::Balanced),
            source_limits: SourceLimits {
                yield_to_ddl: self.one("yield_to_ddl", None, value::duration_or_off),
                max_snapshot_age: self.optional("max_snapshot_age", value::duration),
                max_duration: self.optional("max_duration", value::duration),
                max_replay_lag: self.optional("max_replay_lag", value::duration),
                max_bytes_per_second: self.optional("max_bytes_per_second", value::size),
            },
        }
    }

    fn cap(&mut self, tier: Option<String>, max_rows: Option<NonZeroU64>) -> Option<RowCap> {
        if tier.is_some() && max_rows.is_some() {
            self.errors.push(ConfigError::new("--tier and --max-rows are both given", "give one of them"));
        }
        let Some(tier) = tier else { return max_rows.map(|max_rows| RowCap { tier: None, max_rows: Some(max_rows) }) };
        let Some(cap) = self.raw.entry("tiers", &tier) else {
            let known: Vec<&str> = self.raw.keys("tiers").collect();
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
        let date = self.optional("date", value::date);
        let given = self.optional("run_id", value::run_id);
        let run_id_given = given.is_some();
        let run_id = given.unwrap_or_else(destination::new_run_id);
        let manifest = self.optional("manifest", value::text).map(PathBuf::from);
        let target = match self.optional("to", value::text) {
            Some(to) if to == "-" => Target::Stream { manifest },
            Some(to) => match destination::expand(&to, date, &run_id, shape) {
                Ok(to) => Target::Destination(to),
                Err(error) => {
                    self.errors.push(error);
                    Target::Destination(to)
                }
            },
            None => {
                if need_target && self.raw.get("to").is_none() {
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
            keep_snapshot: self.optional("keep_snapshot", value::duration),
        }
    }

    fn front(&mut self) -> FrontOptions {
        use ProgressKind::{Auto, Bar, Json, None, Plain};
        let kinds = [("auto", Auto), ("bar", Bar), ("plain", Plain), ("json", Json), ("none", None)];
        FrontOptions {
            progress: self.choice("progress", &kinds, Auto),
            report: self.choice("report", &[("text", ReportKind::Text), ("json", ReportKind::Json)], ReportKind::Text),
            log_format: self.choice(
                "log_format",
                &[("text", LogFormat::Text), ("json", LogFormat::Json)],
                LogFormat::Text,
            ),
            metrics_listen: self.optional("metrics_listen", listen_address),
            metrics_file: self.optional("metrics_file", value::text).map(PathBuf::from),
            to_stdout: self.raw.get("to").is_some_and(|setting| setting.values == ["-"]),
        }
    }
}

fn bounded(text: &str, most: usize) -> Result<NonZeroUsize, String> {
    let wrong = || format!("a whole number from 1 to {most} is wanted");
    let count = usize::try_from(value::count(text).map_err(|_| wrong())?.get()).map_err(|_| wrong())?;
    NonZeroUsize::new(count).filter(|count| count.get() <= most).ok_or_else(wrong)
}

#[cfg(test)]
#[path = "typed_tests.rs"]
mod tests;
