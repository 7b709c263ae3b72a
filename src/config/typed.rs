//! Settings as used: every value parsed, every contradiction found, all mistakes told at once.

use std::num::NonZeroUsize;
use std::sync::Arc;

mod commands;

pub(crate) use commands::{Resumption, duration, load_connection, load_keep, load_resume, load_settings, load_worker};
pub(super) use commands::{front_of, source_of};

pub use super::front::{ColorKind, FrontOptions, ProgressKind, ReportKind};
use super::options::{Given, OPTIONS, OptionInfo};
use super::raw::{Origin, Raw, Setting};
use super::{ConfigError, ConfigErrors, Environment, connection, contradictions, destination, implied, protect, value};
use crate::export::outside::Outside;
use crate::export::request::ExportRequest;
use crate::model::{
    CommitOptions, Compression, CsvOptions, Format, FormatOptions, IncrementalOptions, ObjectOptions, ParquetOptions,
    Policies, PolicyOptions, Preset, ProtectOptions, RelationRequest, RowCap, ShapeOptions, Since, SourceLimits,
    Target, WorkOptions, Workers,
};
use crate::source::Source;
use crate::store::shown;

/// Reads and checks everything. `flags` are config key and values as given on the command line; `need_target` is
/// whether a destination must be named (`export`) or may be missing (`plan`).
///
/// # Errors
/// All mistakes at once.
///
/// # Examples
/// ```
/// use outhaul::config::{Environment, load};
///
/// let environment = Environment::of([("DATABASE_URL", "postgres://me@db.example/shop"), ("OUTHAUL_READERS", "8")], []);
/// let flags = [("table", "public.orders"), ("to", "s3://lake/orders/")];
/// let flags = flags.map(|(key, value)| (key, vec![value.to_owned()]));
/// let (request, _) = load(flags.into(), &environment, true)?;
/// assert_eq!(request.work.readers.get(), 8);
///
/// let mistakes = load(vec![("format", vec!["cvs".to_owned()])], &environment, true).unwrap_err();
/// assert!(mistakes.to_string().contains("did you mean csv?"));
/// # Ok::<(), outhaul::config::ConfigErrors>(())
/// ```
pub fn load(
    flags: Vec<(&'static str, Vec<String>)>,
    environment: &Environment,
    need_target: bool,
) -> Result<(ExportRequest, FrontOptions), ConfigErrors> {
    let (raw, errors) = Raw::read(flags, environment);
    of_raw(raw, errors, environment, need_target)
}

/// What people see of a command, whatever else of its options is wrong.
///
/// # Errors
/// An option for people is wrong itself.
pub(crate) fn load_front(
    flags: Vec<(&'static str, Vec<String>)>,
    environment: &Environment,
) -> Result<FrontOptions, ConfigErrors> {
    front_of(Raw::read(flags, environment).0)
}

/// The same, of what was read already.
///
/// # Errors
/// All mistakes at once, with those of `errors`.
pub(super) fn of_raw(
    mut raw: Raw,
    mut errors: Vec<ConfigError>,
    environment: &Environment,
    need_target: bool,
) -> Result<(ExportRequest, FrontOptions), ConfigErrors> {
    errors.extend(implied::add(&mut raw, environment));
    let mut settings = Settings::of(raw, errors, environment, OPTIONS.iter());
    let shape = settings.shape(need_target);
    let compression = settings.compression();
    let cap = settings.cap();
    let protect = protect::options(&mut settings.given, environment, &mut settings.errors);
    let commit = settings.commit(need_target, shape.as_ref().map(|shape| &shape.relation), protect);
    let source = settings.source.as_deref();
    settings.errors.extend(contradictions::find(&settings.raw, &settings.given, compression, cap.as_ref(), source));
    let request = settings.request(shape, compression, cap, commit).zip(settings.front());
    settings.end(request)
}

/// Everything that was written, and what it means.
struct Settings {
    raw: Raw,
    /// The values of the options that the command takes.
    given: Given,
    source: Option<Arc<dyn Source>>,
    errors: Vec<ConfigError>,
}

impl Settings {
    /// Reads all layers and parses the options that a command takes.
    fn read(
        flags: Vec<(&'static str, Vec<String>)>,
        environment: &Environment,
        options: impl Iterator<Item = &'static OptionInfo>,
    ) -> Self {
        let (raw, errors) = Raw::read(flags, environment);
        Self::of(raw, errors, environment, options)
    }

    /// Parses the options that a command takes.
    fn of(
        raw: Raw,
        mut errors: Vec<ConfigError>,
        environment: &Environment,
        options: impl Iterator<Item = &'static OptionInfo>,
    ) -> Self {
        let source = connection::source(&raw, environment).map_err(|mistakes| errors.extend(mistakes)).ok();
        let mut given = Given::default();
        for option in options {
            let (Some(set), Some(setting)) = (option.set, raw.get(option.key)) else { continue };
            for value in &setting.values {
                if let Err(why) = set(&mut given, value) {
                    errors.push(wrong(option.key, setting, why));
                }
            }
        }
        Self { raw, given, source, errors }
    }

    /// What was made of the settings, or every mistake in them.
    fn end<T>(mut self, made: Option<T>) -> Result<T, ConfigErrors> {
        if made.is_none() && self.errors.is_empty() {
            self.errors.push(ConfigError::new("an option has no default", "please report this as a bug"));
        }
        made.filter(|_| self.errors.is_empty()).ok_or(ConfigErrors(self.errors))
    }

    fn request(
        &mut self,
        shape: Option<ShapeOptions>,
        compression: Option<Compression>,
        cap: Option<RowCap>,
        commit: Option<CommitOptions>,
    ) -> Option<ExportRequest> {
        Some(ExportRequest {
            source: self.source.take()?,
            shape: shape?,
            format: self.format(compression?)?,
            policies: self.policies()?,
            work: self.work(cap)?,
            commit: commit?,
            incremental: self.incremental(),
            keeper: None,
            external: self.external(),
        })
    }

    fn shape(&mut self, need_target: bool) -> Option<ShapeOptions> {
        if self.names_nothing() {
            let (what, hint) = if need_target && self.raw.get("to").is_none() {
                ("nothing says what to export and where to write", "outhaul export orders --to orders.csv")
            } else {
                ("nothing says what to export", "give exactly one of --table NAME and --query SQL")
            };
            self.errors.push(ConfigError::new(what, hint));
        }
        let given = &mut self.given;
        let query = given.query.take().map(RelationRequest::Query);
        Some(ShapeOptions {
            relation: given.table.take().map(RelationRequest::Table).or(query)?,
            columns: given.columns_read(),
            expressions: given.expressions(),
            renames: std::mem::take(&mut given.rename),
            predicate: given.predicate.take(),
            key: given.key.take(),
            allow_rls: given.allow_rls?,
            scoped: None,
        })
    }

    fn incremental(&mut self) -> Option<IncrementalOptions> {
        let given = &mut self.given;
        Some(IncrementalOptions {
            column: given.watermark.take()?,
            look_back: given.look_back,
            since: given.since.take().unwrap_or(Since::Remembered),
            on_schema_change: given.on_schema_change?,
            state: None,
        })
    }

    fn names_nothing(&self) -> bool {
        self.raw.get("table").is_none() && self.raw.get("query").is_none() && !self.raw.unread
    }

    fn format(&mut self, compression: Compression) -> Option<FormatOptions> {
        let given = &mut self.given;
        let csv = CsvOptions {
            header: given.csv_header?,
            delimiter: given.csv_delimiter?,
            null: given.csv_null.clone()?,
            newline: given.csv_newline?,
            bom: given.csv_bom?,
            formula_guard: given.csv_formula_guard?,
        };
        let parquet = ParquetOptions {
            row_group_rows: given.row_group_rows?,
            row_group_bytes: given.row_group_bytes?,
            metadata: Vec::new(),
            sorted: Vec::new(),
            delta: given.preset? == Preset::Postgres,
        };
        Some(FormatOptions { format: given.format?, compression, csv, parquet })
    }

    /// As given, or the default of the format, which `config/default.toml` has in tables of its own.
    fn compression(&mut self) -> Option<Compression> {
        let (format, preset) = (self.given.format?, self.given.preset?);
        let parse =
            |text: &str| value::compression(text, format, |codec| self.raw.entry("levels", codec).map(str::to_owned));
        if let (Some(text), Some(setting)) = (&self.given.compression, self.raw.get("compression")) {
            return parse(text).map_err(|why| self.errors.push(wrong("compression", setting, why))).ok();
        }
        let name = match format {
            Format::Parquet => "parquet",
            Format::Csv => "csv",
            Format::Ndjson => "ndjson",
            Format::Source => return Some(Compression::None),
        };
        let preset = match preset {
            Preset::Postgres => None,
            Preset::Athena => self.raw.entry("athena", name),
            Preset::Spectrum => self.raw.entry("spectrum", name),
        };
        parse(preset.or_else(|| self.raw.entry("by_format", name))?).ok()
    }

    fn policies(&mut self) -> Option<PolicyOptions> {
        let given = &mut self.given;
        Some(PolicyOptions {
            preset: given.preset?,
            default: Policies {
                on_unrepresentable: given.on_unrepresentable?,
                unconstrained_numeric: given.unconstrained_numeric?,
                char_padding: given.char_padding?,
                invalid_utf8: given.invalid_utf8?,
                json_large_numbers: given.json_large_numbers?,
                json_nan: given.json_nan?,
                nested: given.csv_nested?,
                timestamp_precision: given.timestamp_precision?,
                as_text: false,
                formula_guard: given.csv_formula_guard?,
            },
            columns: std::mem::take(&mut given.column_policy),
            duplicate_columns: given.duplicate_columns?,
        })
    }

    fn work(&self, cap: Option<RowCap>) -> Option<WorkOptions> {
        let given = &self.given;
        let one_stream = contradictions::one_stream(&self.raw).is_some();
        Some(WorkOptions {
            // One ordered stream has one reader.
            readers: self.readers().map(|readers| if one_stream { NonZeroUsize::MIN } else { readers })?,
            partitions: given.partitions,
            part_size: given.part_size?,
            upload_chunk_size: given.upload_chunk_size?,
            upload_concurrency: given.upload_concurrency?,
            read_mode: given.read_mode?(given.page_size?),
            consistency: given.consistency,
            cap,
            allow_truncated: given.allow_truncated? || given.limit.is_some(),
            min_rows: given.min_rows,
            keep_partial: given.keep_partial.clone(),
            source_profile: given.source_profile?,
            source_limits: SourceLimits {
                yield_to_ddl: given.yield_to_ddl?,
                max_snapshot_age: given.max_snapshot_age,
                max_duration: given.max_duration,
                max_replay_lag: given.max_replay_lag,
                max_bytes_per_second: given.max_bytes_per_second,
            },
            served: None,
        })
    }

    /// How many read at the same time: readers of this process, or workers that others start.
    fn readers(&self) -> Option<NonZeroUsize> {
        self.given.max_workers.filter(|_| self.external().is_some()).or(self.given.readers)
    }

    fn external(&self) -> Option<Outside> {
        (self.given.workers == Some(Workers::External)).then(Outside::default)
    }

    fn cap(&mut self) -> Option<RowCap> {
        let max_rows = self.given.max_rows.or(self.given.limit);
        let Some(tier) = self.given.tier.clone() else { return max_rows.map(|_| RowCap { tier: None, max_rows }) };
        let Some(cap) = self.raw.entry("tiers", &tier) else {
            if self.raw.unread {
                return None;
            }
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

    fn commit(
        &mut self,
        need_target: bool,
        relation: Option<&RelationRequest>,
        protect: Option<ProtectOptions>,
    ) -> Option<CommitOptions> {
        let names_nothing = self.names_nothing();
        let given = &mut self.given;
        let run_id_given = given.run_id.is_some();
        let run_id = given.run_id.take().unwrap_or_else(destination::new_run_id);
        let target = match given.to.as_deref() {
            Some("-") => Some(Target::Stream { manifest: given.manifest.take() }),
            Some(to) => destination::expand(to, given.date, &run_id, relation)
                .map_err(|error| self.errors.push(error))
                .ok()
                .map(Target::Destination),
            None if need_target => {
                if self.raw.get("to").is_none() && !names_nothing && !self.raw.unread {
                    let hint = "give --to DEST: a folder, s3://bucket/prefix/, or - for standard output";
                    self.errors.push(ConfigError::new("nothing says where to write", hint));
                }
                None
            }
            None => Some(Target::Destination(".".to_owned())),
        };
        Some(CommitOptions {
            target: target?,
            run_id,
            run_id_given,
            on_existing: given.on_existing?,
            visibility: given.visibility?,
            layout: given.layout?,
            folders: given.folders(),
            protect,
            single_file: given.single_file?,
            manifest_stats: given.manifest_stats?,
            sha256: given.sha256?,
            take_over: false,
            keep_snapshot: given.keep_snapshot,
            on_signal: given.on_signal?,
            aws_credential_command: given.aws_credential_command.take(),
            objects: ObjectOptions {
                sse: given.sse,
                sse_kms_key_id: given.sse_kms_key_id.take(),
                sse_bucket_key: given.sse_bucket_key,
                storage_class: given.storage_class.take(),
                tags: std::mem::take(&mut given.object_tag),
            },
        })
    }

    fn front(&mut self) -> Option<FrontOptions> {
        let written = |key| self.raw.get(key).map(|setting| setting.values.join(" "));
        // The text of a query is nobody's label.
        let relation = written("table").unwrap_or_else(|| "query".to_owned());
        let labels = vec![("relation", relation), ("to", written("to").map_or_else(String::new, |to| shown(&to)))];
        let given = &mut self.given;
        Some(FrontOptions {
            labels,
            progress: given.progress?,
            report: given.report?,
            report_file: given.report_file.take(),
            log_format: given.log_format?,
            color: given.color?,
            metrics_listen: given.metrics_listen,
            metrics_file: given.metrics_file.take(),
            to_stdout: given.to.as_deref() == Some("-"),
            has_target: given.to.is_some(),
            limited: given.limit.is_some(),
            stdin: given.stdin,
        })
    }
}

/// A mistake in a value, with the place where it was written.
fn wrong(key: &str, setting: &Setting, why: String) -> ConfigError {
    let name = match &setting.origin {
        Origin::Flag(_) | Origin::Variable(_) | Origin::Implied(_) => setting.origin.to_string(),
        Origin::Default | Origin::File(..) => format!("{}: {key}", setting.origin),
    };
    ConfigError::new(format!("{name} is {:?}", setting.values.join(" ")), why)
}

#[cfg(test)]
#[path = "typed_tests.rs"]
mod tests;
