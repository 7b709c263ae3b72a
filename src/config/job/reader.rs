//! The form of a job file: its tables and their keys.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::{ExportTable, JobFile, Layer, is_default, is_of_export};
use crate::config::options::{OptionInfo, by_key, nearest};
use crate::config::raw::{Origin, Setting, at_home, expand_home, homeless, misshapen, scalar, tier, unknown, values};
use crate::config::{ConfigError, Environment, position};
use crate::model::{OnError, SnapshotScope};

/// Reads the text of a job file.
pub(super) struct Reader<'a> {
    pub(super) text: &'a str,
    pub(super) path: &'a Path,
    /// What `~` stands for: an address is the same wherever it is used.
    pub(super) environment: &'a Environment,
    pub(super) errors: Vec<ConfigError>,
}

impl Reader<'_> {
    fn place(&self, at: usize) -> Origin {
        let (line, column) = position(self.text.as_bytes().get(..at).unwrap_or_default());
        Origin::File(self.path.to_owned(), line, column)
    }

    fn wrong(&mut self, at: usize, what: &str, hint: &str) {
        self.errors.push(ConfigError::new(format!("{}: {what}", self.place(at)), hint));
    }

    /// Where something goes, with the home directory for `~`.
    fn address(&mut self, at: usize, written: &str) -> Option<String> {
        let address = at_home(written, self.environment);
        if address.is_none() {
            self.errors.push(homeless(&self.place(at)));
        }
        address
    }

    /// What the file says; its mistakes are in `errors`.
    pub(super) fn file(&mut self) -> JobFile {
        let mut file = JobFile {
            path: self.path.to_owned(),
            root: None,
            state: None,
            on_error: OnError::default(),
            snapshot: SnapshotScope::default(),
            defaults: Layer::new(),
            exports: Vec::new(),
            tiers: BTreeMap::new(),
            mistakes: Vec::new(),
        };
        let document = match DeTable::parse(self.text) {
            Ok(document) => document,
            Err(error) => {
                // Not the error's Display: it quotes the line, which may hold a password.
                let (at, why) = (error.span().map_or(0, |span| span.start), error.message().to_owned());
                self.wrong(at, &why, "the file must be TOML");
                return file;
            }
        };
        for (key, value) in document.get_ref() {
            let at = key.span().start;
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("root", DeValue::String(root)) => file.root = self.address(at, root),
                ("state", DeValue::String(state)) => file.state = self.address(at, state),
                ("on_error", DeValue::String(word)) if word == "continue" => file.on_error = OnError::Continue,
                ("on_error", DeValue::String(word)) if word == "stop" => file.on_error = OnError::Stop,
                ("on_error", _) => self.wrong(at, "on_error is continue or stop", "write one of them in quotes"),
                ("snapshot", DeValue::String(word)) if word == "run" => file.snapshot = SnapshotScope::Run,
                ("snapshot", DeValue::String(word)) if word == "export" => file.snapshot = SnapshotScope::Export,
                ("snapshot", _) => self.wrong(at, "snapshot is run or export", "write one of them in quotes"),
                ("defaults", DeValue::Table(table)) => file.defaults = self.layer(table, &[], is_default),
                ("tiers", DeValue::Table(table)) => {
                    for (name, cap) in table {
                        match tier(&self.place(name.span().start), name.get_ref(), cap) {
                            Ok(cap) => drop(file.tiers.insert(name.get_ref().to_string(), cap)),
                            Err(error) => self.errors.push(error),
                        }
                    }
                }
                ("export", DeValue::Array(tables)) => {
                    for table in tables {
                        match table.get_ref() {
                            DeValue::Table(entries) => {
                                let export = self.export(table.span().start, entries);
                                file.exports.push(export);
                            }
                            _ => self.wrong(at, "an export is a table", "write [[export]] above its keys"),
                        }
                    }
                }
                ("root" | "state" | "defaults" | "tiers" | "export", _) => {
                    self.wrong(at, "the value is of the wrong kind", "config/job.example.toml shows the form");
                }
                (name, _) => {
                    let near = nearest(name, ["root", "state", "on_error", "snapshot", "defaults", "export", "tiers"]);
                    let hint = match (near, by_key(name)) {
                        (_, Some(option)) => format!("write {} under [defaults] or [[export]]", option.key),
                        (Some(near), None) => format!("did you mean {near}?"),
                        (None, None) => "config/job.example.toml shows the keys".to_owned(),
                    };
                    self.wrong(at, &format!("unknown key {name:?}"), &hint);
                }
            }
        }
        file
    }

    fn export(&mut self, at: usize, entries: &DeTable<'_>) -> ExportTable {
        const OWN: [&str; 3] = ["name", "except", "unset"];
        let settings = self.layer(entries, &OWN, is_of_export);
        let mut export =
            ExportTable { origin: self.place(at), name: None, except: Vec::new(), unset: Vec::new(), settings };
        for (key, value) in entries.iter().filter(|(key, _)| OWN.contains(&key.get_ref().as_ref())) {
            let list = match value.get_ref() {
                DeValue::Array(items) => items.iter().map(scalar).collect::<Option<Vec<_>>>(),
                _ => scalar(value).map(|text| vec![text]),
            };
            match (key.get_ref().as_ref(), list) {
                ("name", Some(list)) if list.len() == 1 => export.name = list.into_iter().next(),
                ("except", Some(list)) => export.except = list,
                ("unset", Some(list)) => {
                    for name in &list {
                        if !by_key(name).is_some_and(is_of_export) {
                            let hint = "name defaults that may differ between exports";
                            self.wrong(key.span().start, &format!("unset names {name:?}"), hint);
                        }
                    }
                    export.unset = list;
                }
                (name, _) => {
                    let what = format!("the value of {name} is of the wrong kind");
                    self.wrong(key.span().start, &what, "write a string, or a list of strings");
                }
            }
        }
        let pattern = export.pattern().is_some();
        if !export.except.is_empty() && !pattern {
            self.wrong(at, "except has no meaning beside one table", "leave it out, or write a pattern in table");
        }
        if export.name.is_some() && pattern {
            self.wrong(at, "name has no meaning beside a pattern", "each table of it is called by its own name");
        }
        export
    }

    /// The options of one table of the file.
    fn layer(&mut self, entries: &DeTable<'_>, own: &[&'static str], may_stand: fn(&OptionInfo) -> bool) -> Layer {
        let mut layer = Layer::new();
        for (key, value) in entries.iter().filter(|(key, _)| !own.contains(&key.get_ref().as_ref())) {
            let (name, origin) = (key.get_ref().as_ref(), self.place(key.span().start));
            match by_key(name) {
                Some(option) if may_stand(option) => match values(option, value) {
                    Some(values) => drop(layer.insert(option.key, Setting { values, origin })),
                    None => self.errors.push(misshapen(&origin, name)),
                },
                Some(option) if is_default(option) => {
                    let what = format!("{name} is the whole run's");
                    self.wrong(key.span().start, &what, "write it under [defaults]");
                }
                Some(_) => {
                    let what = format!("a job has no {name}");
                    self.wrong(key.span().start, &what, "leave it out; `outhaul export` takes it");
                }
                None => self.errors.push(unknown(&origin, name, own)),
            }
        }
        expand_home(&mut layer, self.environment, &mut self.errors);
        layer
    }
}
