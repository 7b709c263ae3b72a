//! Settings as written: which value, and where it came from. Layers: defaults, file, environment, flags.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::options::{Arity, OPTIONS, OptionInfo, by_key, nearest};
use super::{ConfigError, Environment};

/// The embedded defaults.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");
/// The embedded tiers.
pub const TIERS: &str = include_str!("../../config/tiers.toml");

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `config/default.toml`.
    Default,
    /// A config file, and the line in it.
    File(PathBuf, usize),
    /// An environment variable.
    Variable(String),
    /// A flag, without its dashes.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the defaults"),
            Self::File(file, line) => write!(f, "{}, line {line}", file.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

impl Origin {
    /// What a person wrote there to set `key`: `--key`, the variable's name, or the key and its place in the file.
    pub(crate) fn name(&self, key: &str) -> String {
        match self {
            Self::Default | Self::File(..) => format!("{self}: {key}"),
            Self::Variable(_) | Self::Flag(_) => self.to_string(),
        }
    }
}

/// A value as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// One entry, or one for each time that a repeatable option was given.
    pub values: Vec<String>,
    /// Where it was written.
    pub origin: Origin,
}

/// All settings that were written anywhere, the strongest layer winning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Raw {
    settings: BTreeMap<&'static str, Setting>,
    tiers: BTreeMap<String, String>,
}

impl Raw {
    /// Reads all layers. `flags` are key and values, as given on the command line.
    ///
    /// # Errors
    /// Every unknown key and every value of the wrong shape.
    pub fn load(flags: Vec<(&'static str, Vec<String>)>, environment: &Environment) -> Result<Self, Vec<ConfigError>> {
        let mut raw = Self::default();
        let mut errors = Vec::new();
        raw.file(DEFAULTS, None, &mut errors);
        raw.file(TIERS, None, &mut errors);
        let file = flags.iter().find(|(key, _)| *key == "config").and_then(|(_, values)| values.first().cloned());
        let file = file.or_else(|| environment.get("OUTHAUL_CONFIG"));
        if let Some(name) = file {
            let path = PathBuf::from(name);
            match environment.read(&path) {
                Ok(text) => raw.file(&text, Some(&path), &mut errors),
                Err(error) => {
                    let what = format!("reading the config file {}: {error}", path.display());
                    errors.push(ConfigError::new(what, "check the name given to --config"));
                }
            }
        }
        raw.variables(environment, &mut errors);
        for (key, values) in flags {
            let origin = Origin::Flag(key.replace('_', "-"));
            raw.settings.insert(key, Setting { values, origin });
        }
        if errors.is_empty() { Ok(raw) } else { Err(errors) }
    }

    /// A setting.
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.settings.get(key)
    }

    /// The settings that came from outside the defaults.
    pub fn given(&self, key: &str) -> Option<&Setting> {
        self.get(key).filter(|setting| setting.origin != Origin::Default)
    }

    /// A tier's cap, as written.
    pub fn tier(&self, name: &str) -> Option<&str> {
        self.tiers.get(name).map(String::as_str)
    }

    /// All tiers' names.
    pub fn tiers(&self) -> impl Iterator<Item = &str> {
        self.tiers.keys().map(String::as_str)
    }

    fn file(&mut self, text: &str, path: Option<&PathBuf>, errors: &mut Vec<ConfigError>) {
        let name = path.map_or("config/default.toml".into(), |path| path.display().to_string());
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => {
                errors.push(ConfigError::new(format!("{name}: {error}"), "the file must be TOML"));
                return;
            }
        };
        for (key, value) in table {
            let line = line_of(text, &key);
            if let ("tiers", toml::Value::Table(tiers)) = (key.as_str(), &value) {
                self.tiers.extend(tiers.iter().map(|(tier, cap)| (tier.clone(), scalar(cap).unwrap_or_default())));
                continue;
            }
            let Some(option) = by_key(&key) else {
                errors.push(unknown(&format!("{name}, line {line}"), &key));
                continue;
            };
            let origin = path.map_or(Origin::Default, |path| Origin::File(path.clone(), line));
            match values(option, &value) {
                Some(values) => drop(self.settings.insert(option.key, Setting { values, origin })),
                None => errors.push(ConfigError::new(
                    format!("{origin}: {key} is not of the right shape"),
                    "write a string, a number, true or false, or a list of strings",
                )),
            }
        }
    }

    fn variables(&mut self, environment: &Environment, errors: &mut Vec<ConfigError>) {
        for (name, value) in environment.variables("OUTHAUL_") {
            // The test build's own switches are not settings, and an empty variable counts as unset.
            if name.starts_with("OUTHAUL_TEST_") || value.is_empty() {
                continue;
            }
            if let Some(option) = OPTIONS.iter().find(|option| option.variable() == name) {
                let setting = Setting { values: vec![value], origin: Origin::Variable(name) };
                self.settings.insert(option.key, setting);
            } else {
                let names: Vec<String> = OPTIONS.iter().map(OptionInfo::variable).collect();
                let hint = nearest(&name, names.iter().map(String::as_str))
                    .map_or_else(|| "unset it".to_owned(), |near| format!("did you mean {near}?"));
                errors.push(ConfigError::new(format!("environment variable {name} is not known"), hint));
            }
        }
    }
}

fn unknown(place: &str, key: &str) -> ConfigError {
    let hint = nearest(key, OPTIONS.iter().map(|option| option.key))
        .map_or_else(|| "config/default.toml lists the keys".to_owned(), |near| format!("did you mean {near}?"));
    ConfigError::new(format!("{place}: unknown key {key:?}"), hint)
}

/// The line on which a top-level key stands, from 1; 1 where it cannot be told.
fn line_of(text: &str, key: &str) -> usize {
    let stands = |line: &str| {
        let line = line.trim_start().trim_start_matches('[').trim_start_matches(['"', '\'']);
        line.strip_prefix(key)
            .is_some_and(|rest| rest.trim_start_matches(['"', '\'']).trim_start().starts_with(['=', '.', ']']))
    };
    text.lines().position(stands).map_or(1, |index| index + 1)
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(switch) => Some(switch.to_string()),
        _ => None,
    }
}

fn values(option: &OptionInfo, value: &toml::Value) -> Option<Vec<String>> {
    match (option.arity, value) {
        (Arity::Many, toml::Value::Array(items)) => items.iter().map(scalar).collect(),
        // Lists that are one comma-separated value as a flag.
        (Arity::One, toml::Value::Array(items)) if matches!(option.key, "columns" | "key") => {
            Some(vec![items.iter().map(scalar).collect::<Option<Vec<_>>>()?.join(",")])
        }
        (Arity::Switch, toml::Value::Boolean(_)) => Some(vec![scalar(value)?]),
        (Arity::Switch, _) => None,
        _ => Some(vec![scalar(value)?]),
    }
}
