//! A job file: several exports of one run, each with the options of `outhaul export` under their own names.

mod choice;
mod incremental;
mod people;
mod reader;
pub(crate) mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::options::{Heading, OPTIONS, OptionInfo, by_key, of_connection};
use super::raw::{Origin, Raw, Setting};
use super::{ConfigError, ConfigErrors, Environment, FrontOptions, destination, typed};
use crate::base::{glob, voice};
use crate::export::job::{JobExport, JobRequest};
use crate::export::request::ExportRequest;
use crate::model::{AbsentColumn, ListedRelation, OnError, ProtectRule, SnapshotScope, Target};
use crate::source::Source;
pub(crate) use choice::JobChoice;
use choice::{chosen, means};
use reader::Reader;

/// The options that are the whole run's: they stand in `[defaults]`, in the environment or on the command line, and in no
/// `[[export]]`.
const OF_RUN: [&str; 23] = [
    "from",
    "password_file",
    "password_command",
    "aws_credential_command",
    "date",
    "env_file",
    "allow_rls",
    "readers",
    "read_mode",
    "page_size",
    "source_profile",
    "yield_to_ddl",
    "max_snapshot_age",
    "max_duration",
    "max_replay_lag",
    "max_bytes_per_second",
    "run_id",
    "keep_snapshot",
    "on_signal",
    "since",
    "workers",
    "max_workers",
    "stdin",
];

/// The options that no job has.
const OF_ONE_EXPORT: [&str; 2] = ["config", "manifest"];

/// Settings by their keys.
type Layer = BTreeMap<&'static str, Setting>;

/// A job file as it is written.
#[derive(Debug)]
pub(crate) struct JobFile {
    path: PathBuf,
    root: Option<String>,
    /// Where incremental exports are remembered.
    state: Option<String>,
    on_error: OnError,
    snapshot: SnapshotScope,
    defaults: Layer,
    exports: Vec<ExportTable>,
    tiers: BTreeMap<String, String>,
    /// What is wrong with its form.
    mistakes: Vec<ConfigError>,
}

/// One `[[export]]`.
#[derive(Debug)]
struct ExportTable {
    origin: Origin,
    name: Option<String>,
    /// Patterns of tables that a pattern in `table` does not mean.
    except: Vec<String>,
    /// Defaults that do not hold for it.
    unset: Vec<String>,
    settings: Layer,
}

/// The options that `outhaul run` takes as flags: those of the run, and those for people.
pub(crate) fn of_run() -> impl Iterator<Item = &'static OptionInfo> {
    let people = OPTIONS.iter().filter(|option| option.heading == Heading::People);
    OF_RUN.iter().filter_map(|key| by_key(key)).chain(people)
}

/// Whether an option may stand in an `[[export]]`.
pub(crate) fn is_of_export(option: &OptionInfo) -> bool {
    option.heading != Heading::People && !OF_RUN.contains(&option.key) && !OF_ONE_EXPORT.contains(&option.key)
}

/// Whether an option may stand in `[defaults]`.
pub(crate) fn is_default(option: &OptionInfo) -> bool {
    let names_rows = matches!(option.key, "table" | "query");
    !option.before_files && !names_rows && !OF_ONE_EXPORT.contains(&option.key)
}

impl JobFile {
    /// Reads a job file. Mistakes of its form are told by [`JobFile::source`]: what it says of how people hear of them is
    /// known by then.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn read(path: &Path, environment: &Environment) -> Result<Self, ConfigErrors> {
        let text = environment.read(path).map_err(|error| {
            let what = format!("cannot read the job file {}: {}", path.display(), voice::plain(&error.to_string()));
            ConfigErrors(vec![ConfigError::new(what, "check the name of the file, and who may read it")])
        })?;
        let mut reader = Reader { text: &text, path, environment, errors: Vec::new() };
        let file = reader.file();
        if file.exports.is_empty() && reader.errors.is_empty() {
            let what = format!("{}: there is no [[export]]", path.display());
            reader.errors.push(ConfigError::new(what, "config/job.example.toml shows what a job file has"));
        }
        Ok(Self { mistakes: reader.errors, ..file })
    }

    /// Whether the source has to say which tables there are.
    pub(crate) fn has_patterns(&self) -> bool {
        self.exports.iter().any(|export| export.pattern().is_some())
    }

    /// Where all exports read.
    ///
    /// # Errors
    /// All mistakes of the file's form, or else of the connection, at once.
    pub(crate) fn source(
        &self,
        flags: Vec<(&'static str, Vec<String>)>,
        environment: &Environment,
    ) -> Result<Arc<dyn Source>, ConfigErrors> {
        if !self.mistakes.is_empty() {
            return Err(ConfigErrors(self.mistakes.clone()));
        }
        let mut settings = self.defaults.clone();
        settings.retain(|key, _| of_connection().any(|option| option.key == *key));
        let (raw, errors) = Raw::of_job(settings, &self.tiers, flags, environment);
        typed::source_of(raw, errors, environment)
    }

    /// The options by which another process connects as this one does, but for what stands in the environment, which it has
    /// too.
    pub(crate) fn connection(
        &self,
        flags: Vec<(&'static str, Vec<String>)>,
        environment: &Environment,
    ) -> Vec<(String, Vec<String>)> {
        let mut settings = self.defaults.clone();
        settings.retain(|key, _| of_connection().any(|option| option.key == *key));
        let (raw, _) = Raw::of_job(settings, &self.tiers, flags, environment);
        let written = |option: &OptionInfo| {
            let setting = raw.get(option.key)?;
            let told = matches!(setting.origin, Origin::File(..) | Origin::Flag(_));
            told.then(|| (option.key.to_owned(), setting.values.clone()))
        };
        of_connection().filter_map(written).collect()
    }

    /// The job: each export as it is asked for. `listed` is what the source has, where the file has patterns.
    ///
    /// # Errors
    /// All mistakes at once.
    pub(crate) fn job(
        &self,
        flags: &[(&'static str, Vec<String>)],
        environment: &Environment,
        source: &Arc<dyn Source>,
        listed: &[ListedRelation],
        choice: &JobChoice,
    ) -> Result<(JobRequest, FrontOptions), ConfigErrors> {
        let mut errors = of_no_job(environment);
        let mut flags = flags.to_vec();
        let (raw, _) = Raw::of_job(self.defaults.clone(), &self.tiers, flags.clone(), environment);
        let (run_id_given, date_given) = (raw.get("run_id").is_some(), raw.get("date").is_some());
        // One id and one day for all of them, whatever the clock says meanwhile.
        let fixed = [("run_id", destination::new_run_id()), ("date", destination::today())];
        flags
            .extend(fixed.into_iter().filter(|(key, _)| raw.get(key).is_none()).map(|(key, value)| (key, vec![value])));
        let mut exports: Vec<(JobExport, String)> = Vec::new();
        let mut front = None;
        for (place, table) in self.exports.iter().enumerate() {
            let names = table.tables(listed).unwrap_or_else(|error| {
                errors.push(error);
                Vec::new()
            });
            for (name, settings) in
                names.into_iter().map(|table_name| table.settings(&self.defaults, table_name.as_deref()))
            {
                let written = settings.get("to").map_or_else(String::new, |to| to.values.join(" "));
                let (raw, mistakes) = Raw::of_job(settings, &self.tiers, flags.clone(), environment);
                match typed::of_raw(raw, mistakes, environment, true) {
                    Ok((mut request, options)) => {
                        request.source = Arc::clone(source);
                        request.commit.run_id_given = run_id_given;
                        self.share_names(&mut request, place);
                        exports.push((JobExport { name, limited: options.limited, request }, written));
                        front.get_or_insert(options);
                    }
                    Err(ConfigErrors(mistakes)) => {
                        // What stands in the defaults is wrong for each of them, and told once.
                        let new = mistakes.into_iter().filter(|mistake| !errors.contains(mistake)).collect::<Vec<_>>();
                        errors.extend(new);
                    }
                }
            }
        }
        errors.extend(clashes(&exports));
        if self.snapshot == SnapshotScope::Export && exports.iter().any(|(export, _)| export.request.external.is_some())
        {
            let what = "--workers has no meaning with snapshot = \"export\": workers read all exports under one";
            errors.push(ConfigError::new(what, "leave one of them out"));
        }
        let root = self.root(&exports, &flags, environment).map_err(|error| errors.push(error)).ok();
        errors.extend(self.remember(&mut exports, root.as_deref(), &flags));
        let (exports, left_out) = chosen(exports, choice).unwrap_or_else(|mistakes| {
            errors.extend(mistakes);
            (Vec::new(), Vec::new())
        });
        let run_id = exports.first().map(|export| export.request.commit.run_id.clone());
        let date = self.value("date", &flags, environment);
        let (Some(front), Some(root), Some(run_id), true) = (front, root, run_id, errors.is_empty()) else {
            return Err(ConfigErrors(errors));
        };
        let labels = vec![("relation", "job".to_owned()), ("to", crate::store::shown(&root))];
        Ok((
            JobRequest {
                root,
                run_id,
                on_error: self.on_error,
                snapshot: self.snapshot,
                date,
                date_given,
                exports,
                left_out,
            },
            FrontOptions { labels, ..front },
        ))
    }

    /// A name of `--protect` that stands in the defaults, or in an export that means several tables, is of one of them at
    /// least. Under snapshots of their own some commit before others are planned: then each has to have it.
    fn share_names(&self, request: &mut ExportRequest, place: usize) {
        let Some(table) = self.exports.get(place).filter(|_| self.snapshot == SnapshotScope::Run) else { return };
        let own = table.settings.contains_key("protect");
        if own && table.pattern().is_none() {
            return;
        }
        let group = if own { place.saturating_add(1) } else { 0 };
        for rule in refused(request) {
            rule.absent = AbsentColumn::RefusedByAll(group);
        }
    }

    /// Whether the day is part of an address.
    pub(crate) fn names_the_day(&self) -> bool {
        let layers = self.exports.iter().map(|export| &export.settings).chain([&self.defaults]);
        let addresses = layers.filter_map(|layer| layer.get("to")).flat_map(|to| &to.values).chain(&self.root);
        addresses.into_iter().any(|address| address.contains("{date}"))
    }

    /// An option of the run, as it is written.
    fn value(&self, key: &str, flags: &[(&'static str, Vec<String>)], environment: &Environment) -> String {
        let (raw, _) = Raw::of_job(self.defaults.clone(), &self.tiers, flags.to_vec(), environment);
        raw.get(key).map(|setting| setting.values.join(" ")).unwrap_or_default()
    }

    /// Where the run's record goes: as the file says, or the folder that all destinations share.
    fn root(
        &self,
        exports: &[(JobExport, String)],
        flags: &[(&'static str, Vec<String>)],
        environment: &Environment,
    ) -> Result<String, ConfigError> {
        let [run_id, date] = ["run_id", "date"].map(|key| self.value(key, flags, environment));
        let expanded = |text: &str| text.replace("{run_id}", &run_id).replace("{date}", &date);
        if let Some(root) = &self.root {
            if root.contains(['{', '}']) && expanded(root).contains(['{', '}']) {
                let what = format!("{}: root = {root:?} has a placeholder", self.path.display());
                return Err(ConfigError::new(what, "{date} and {run_id} expand in root"));
            }
            return Ok(expanded(root));
        }
        shared(exports.iter().map(|(_, to)| expanded(to))).ok_or_else(|| {
            let what = format!("{}: the destinations have no folder in common", self.path.display());
            ConfigError::new(what, "write root = \"URL\" at the top: the run's record goes there")
        })
    }
}

/// The rules of `--protect` for columns that have to be there.
fn refused(request: &mut ExportRequest) -> impl Iterator<Item = &mut ProtectRule> {
    let rules = request.commit.protect.iter_mut().flat_map(|protect| &mut protect.rules);
    rules.filter(|rule| rule.absent != AbsentColumn::Told)
}

/// The folder that all destinations share before `{table}` and `{schema}`.
pub(super) fn shared(destinations: impl Iterator<Item = String>) -> Option<String> {
    let folder = |to: &str| {
        let end = ["{table}", "{schema}"].iter().filter_map(|name| to.find(name)).min();
        let before = end.map_or_else(|| to.trim_end_matches('/'), |end| &to[..end]);
        before.rsplit_once('/').map(|(folder, _)| folder.to_owned()).unwrap_or_default()
    };
    let mut common: Option<Vec<String>> = None;
    for to in destinations {
        let segments: Vec<String> = folder(&to).split('/').map(str::to_owned).collect();
        common = Some(match common {
            None => segments,
            Some(common) => {
                let same = common.iter().zip(&segments).take_while(|(one, other)| one == other).count();
                common.into_iter().take(same).collect()
            }
        });
    }
    let root = common?.join("/");
    // A scheme alone is no place, and neither is the root of all files.
    let is_place = !root.is_empty() && !root.ends_with(':') && !root.ends_with(":/") && root != "file://";
    is_place.then_some(root)
}

/// Exports of the same name, or of the same place.
fn clashes(exports: &[(JobExport, String)]) -> Vec<ConfigError> {
    let (mut names, mut places) = (BTreeSet::new(), BTreeMap::<String, &str>::new());
    let mut errors = Vec::new();
    for (export, _) in exports {
        let name = export.name.as_str();
        if !names.insert(name) {
            let what = format!("two exports are called {name}");
            errors.push(ConfigError::new(what, "give one of them a name of its own: name = \"…\""));
        }
        let to = match &export.request.commit.target {
            Target::Destination(to) => format!("{}/", to.trim_end_matches('/')),
            Target::Stream { .. } => {
                let what = format!("export {name}: a job cannot write to standard output");
                errors.push(ConfigError::new(what, "name a folder in its `to`"));
                continue;
            }
        };
        let other = places.iter().find(|(place, _)| place.starts_with(&to) || to.starts_with(place.as_str()));
        if let Some((_, other)) = other {
            let what = format!("exports {other} and {name} write to the same place, or one inside the other: {to}");
            errors.push(ConfigError::new(what, "put {table} or {schema} in `to`"));
        }
        places.insert(to, name);
    }
    errors
}

/// Variables of the environment that would mean the same for every export.
fn of_no_job(environment: &Environment) -> Vec<ConfigError> {
    let wrong = OPTIONS.iter().filter(|option| {
        let of_run = of_run().any(|known| known.key == option.key);
        !of_run && environment.get(&option.variable()).is_some()
    });
    wrong
        .map(|option| {
            let what = format!("environment variable {} has no meaning for a job", option.variable());
            ConfigError::new(what, format!("unset it, and write {} in the job file", option.key))
        })
        .collect()
}

impl ExportTable {
    /// The pattern that stands for its table, where one does.
    fn pattern(&self) -> Option<String> {
        let table = self.settings.get("table")?.values.join(" ");
        let is_pattern = glob::is_pattern(&table) && !table.contains('"');
        is_pattern.then_some(table)
    }

    /// The tables that it means, as `--table` takes them; one that is not told where it is as written.
    fn tables(&self, listed: &[ListedRelation]) -> Result<Vec<Option<String>>, ConfigError> {
        let Some(pattern) = self.pattern() else { return Ok(vec![None]) };
        let meant: Vec<&ListedRelation> =
            listed.iter().filter(|relation| relation.part_of.is_none() && means(&pattern, relation)).collect();
        choice::all_there(&self.except, &pattern, &meant)
            .map_err(|(what, hint)| ConfigError::new(format!("{}: {what}", self.origin), hint))?;
        let wanted = meant.into_iter().filter(|relation| !self.except.iter().any(|except| means(except, relation)));
        let tables: Vec<Option<String>> = wanted.map(|relation| Some(relation.table.clone())).collect();
        if tables.is_empty() {
            let what = format!("{}: table = {pattern:?} means no table", self.origin);
            return Err(ConfigError::new(what, "`outhaul ls` shows what there is; * stands for any characters"));
        }
        Ok(tables)
    }

    /// Its settings for a table, over the defaults, and what it is called.
    fn settings(&self, defaults: &Layer, table: Option<&str>) -> (String, Layer) {
        let mut settings = defaults.clone();
        settings.retain(|key, _| !self.unset.iter().any(|unset| unset == key));
        settings.extend(self.settings.iter().map(|(key, setting)| (*key, setting.clone())));
        if let Some(table) = table {
            let origin = self.origin.clone();
            settings.insert("table", Setting { values: vec![table.to_owned()], origin });
        }
        let written = || settings.get("table").map(|table| table.values.join(" "));
        let name = self.name.clone().filter(|_| table.is_none()).or_else(written);
        (name.unwrap_or_else(|| "query".to_owned()), settings)
    }
}
