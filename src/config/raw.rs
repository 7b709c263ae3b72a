//! Settings as written: which value, and where it came from. Layers: defaults, file, environment, flags.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::options::{Arity, OPTIONS, OptionInfo, by_key, nearest};
use super::synonyms::meant;
use super::value::count;
use super::{ConfigError, Environment, position};
use crate::base::voice;

pub(crate) const DEFAULTS: &str = include_str!("../../config/default.toml");
pub(crate) const TIERS: &str = include_str!("../../config/tiers.toml");
/// What stands in the defaults besides settings.
const DEFAULT_TABLES: &[&str] =
    &["by_format", "athena", "spectrum", "excel_file", "gentle", "fast", "levels", "keep", "worker", "demo"];

/// The options in whose values `~` is the home directory.
const HOME_KEYS: [&str; 9] = [
    "to",
    "since",
    "manifest",
    "report_file",
    "metrics_file",
    "password_file",
    "keep_partial",
    "protect_file",
    "protect_key_file",
];

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `config/default.toml`.
    Default,
    /// A config file, and the line and column in it.
    File(PathBuf, usize, usize),
    Variable(String),
    /// A flag, without its dashes.
    Flag(String),
    /// Another option says it, which the clause tells: `--to a.csv names one file of CSV`.
    Implied(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the defaults"),
            Self::File(file, line, column) => write!(f, "{}:{line}:{column}", file.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Implied(clause) => f.write_str(clause),
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// One entry, or one for each time that a repeatable option was given.
    pub(crate) values: Vec<String>,
    pub(crate) origin: Origin,
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The value may hold a password.
        f.debug_struct("Setting").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// All settings that were written anywhere, the strongest layer winning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Raw {
    settings: BTreeMap<&'static str, Setting>,
    /// The tables that hold no settings, by table and key.
    tables: BTreeMap<(&'static str, String), String>,
    /// Whether something was written that could not be read: what seems to be missing may stand there.
    pub(super) unread: bool,
    /// Whether it is of one export of a job, where the defaults need not mean anything for each.
    pub(super) in_job: bool,
}

impl Raw {
    /// Reads all layers. `flags` are key and values, as given on the command line. With what could be read comes every
    /// unknown key and every value of the wrong kind.
    pub(crate) fn read(flags: Vec<(&'static str, Vec<String>)>, environment: &Environment) -> (Self, Vec<ConfigError>) {
        let mut raw = defaults().clone();
        let mut errors = Vec::new();
        raw.file(TIERS, None, &["tiers"], &mut errors);
        let file = flags.iter().find(|(key, _)| *key == "config").and_then(|(_, values)| values.first().cloned());
        let file = file.or_else(|| environment.get("OUTHAUL_CONFIG"));
        if let Some(name) = file {
            let path = PathBuf::from(name);
            match environment.read(&path) {
                Ok(text) => raw.file(&text, Some(&path), &["tiers"], &mut errors),
                Err(error) => {
                    let why = voice::plain(&error.to_string());
                    let what = format!("--config: cannot read {}: {why}", path.display());
                    errors.push(ConfigError::new(what, "check the name of the file, and who may read it"));
                }
            }
        }
        raw.finished(flags, environment, errors)
    }

    /// The same where the file's settings are those of one export of a job: `settings` over the defaults, with `tiers`.
    pub(super) fn of_job(
        settings: BTreeMap<&'static str, Setting>,
        tiers: &BTreeMap<String, String>,
        flags: Vec<(&'static str, Vec<String>)>,
        environment: &Environment,
    ) -> (Self, Vec<ConfigError>) {
        let mut raw = defaults().clone();
        let mut errors = Vec::new();
        raw.file(TIERS, None, &["tiers"], &mut errors);
        raw.tables.extend(tiers.iter().map(|(name, cap)| (("tiers", name.clone()), cap.clone())));
        raw.settings.extend(settings);
        raw.in_job = true;
        raw.finished(flags, environment, errors)
    }

    /// With what stands above a file.
    fn finished(
        mut self,
        flags: Vec<(&'static str, Vec<String>)>,
        environment: &Environment,
        mut errors: Vec<ConfigError>,
    ) -> (Self, Vec<ConfigError>) {
        self.variables(environment, &mut errors);
        for (key, values) in flags {
            let origin = Origin::Flag(key.replace('_', "-"));
            self.settings.insert(key, Setting { values, origin });
        }
        expand_home(&mut self.settings, environment, &mut errors);
        self.preset("preset");
        self.preset("source_profile");
        self.unread = !errors.is_empty();
        (self, errors)
    }

    /// Puts the defaults of the preset that `key` names in place of the general ones.
    fn preset(&mut self, key: &str) {
        let Some([preset]) = self.get(key).map(|setting| setting.values.as_slice()) else { return };
        let entries = self.tables.iter().filter(|((table, _), _)| table == preset);
        let settings: Vec<_> =
            entries.filter_map(|((_, key), value)| Some((by_key(key)?.key, value.clone()))).collect();
        for (key, value) in settings {
            if self.given(key).is_none() {
                self.settings.insert(key, Setting { values: vec![value], origin: Origin::Default });
            }
        }
    }

    /// Sets what another option says, which `clause` tells.
    pub(super) fn imply(&mut self, key: &'static str, value: &str, clause: &str) {
        let setting = Setting { values: vec![value.to_owned()], origin: Origin::Implied(clause.to_owned()) };
        self.settings.insert(key, setting);
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Setting> {
        self.settings.get(key)
    }

    /// The settings that came from outside the defaults.
    pub(crate) fn given(&self, key: &str) -> Option<&Setting> {
        self.get(key).filter(|setting| setting.origin != Origin::Default)
    }

    /// An entry of a table that holds no settings, as written.
    pub(crate) fn entry(&self, table: &'static str, key: &str) -> Option<&str> {
        self.tables.get(&(table, key.to_owned())).map(String::as_str)
    }

    /// The keys of such a table.
    pub(crate) fn keys(&self, table: &'static str) -> impl Iterator<Item = &str> {
        self.tables.keys().filter(move |(name, _)| *name == table).map(|(_, key)| key.as_str())
    }

    /// Reads a file; `tables` may stand in it besides settings.
    fn file(&mut self, text: &str, path: Option<&Path>, tables: &[&'static str], errors: &mut Vec<ConfigError>) {
        let place = |at: usize| {
            path.map_or(Origin::Default, |path| {
                let (line, column) = position(text.as_bytes().get(..at).unwrap_or_default());
                Origin::File(path.to_owned(), line, column)
            })
        };
        let document = match DeTable::parse(text) {
            Ok(document) => document,
            Err(error) => {
                // Not the error's Display: it quotes the line, which may hold a password.
                let at = error.span().map_or(0, |span| span.start);
                errors.push(ConfigError::new(format!("{}: {}", place(at), error.message()), "the file must be TOML"));
                return;
            }
        };
        for (key, value) in document.get_ref() {
            let (name, origin) = (key.get_ref().as_ref(), place(key.span().start));
            let table = tables.iter().find(|table| **table == name);
            match (table, by_key(name), value.get_ref()) {
                (Some(table), _, DeValue::Table(entries)) => {
                    for (key, value) in entries {
                        let (key, place) = (key.get_ref(), place(key.span().start));
                        let read = match *table {
                            "tiers" => tier(&place, key, value),
                            _ => scalar(value).ok_or_else(|| misshapen(&place, key)),
                        };
                        match read {
                            Ok(text) => drop(self.tables.insert((table, key.to_string()), text)),
                            Err(error) => errors.push(error),
                        }
                    }
                }
                (None, Some(option), _) if !option.before_files => match values(option, value) {
                    Some(values) => drop(self.settings.insert(option.key, Setting { values, origin })),
                    None => errors.push(misshapen(&origin, name)),
                },
                (Some(_), _, _) => errors.push(misshapen(&origin, name)),
                _ if ["export", "defaults"].contains(&name) && !matches!(value.get_ref(), DeValue::String(_)) => {
                    let what = format!("{origin}: {name} is of a job file");
                    errors.push(ConfigError::new(what, "a file with several exports goes to `outhaul run FILE`"));
                }
                _ => errors.push(unknown(&origin, name, tables)),
            }
        }
    }

    fn variables(&mut self, environment: &Environment, errors: &mut Vec<ConfigError>) {
        for name in environment.unreadable.iter().filter(|name| name.starts_with("OUTHAUL_") || name.starts_with("PG"))
        {
            let what = format!("environment variable {name} is not UTF-8");
            errors.push(ConfigError::new(what, "set it again, or unset it"));
        }
        for (name, value) in environment.variables("OUTHAUL_") {
            // The test build's own switches are not settings.
            if name.starts_with("OUTHAUL_TEST_") {
                continue;
            }
            // Nor is what a container or a pipeline sets to nothing: it would take away what a file has, rules too.
            if value.is_empty() {
                continue;
            }
            let Some(option) = OPTIONS.iter().find(|option| option.variable() == name) else {
                let key = name.trim_start_matches("OUTHAUL_").to_lowercase();
                // The environment is shared: a wrapper's own OUTHAUL_BIN is no mistake, a mistyped option is.
                if let Some(hint) = meant(&key, &value) {
                    errors.push(ConfigError::new(format!("environment variable {name} is not known"), hint));
                }
                continue;
            };
            let values = match option.arity {
                Arity::Many => value.lines().map(str::to_owned).collect(),
                Arity::One | Arity::Switch => vec![value],
            };
            self.settings.insert(option.key, Setting { values, origin: Origin::Variable(name) });
        }
    }
}

/// Puts the home directory for `~` in the settings that may have it.
pub(super) fn expand_home(
    settings: &mut BTreeMap<&'static str, Setting>,
    environment: &Environment,
    errors: &mut Vec<ConfigError>,
) {
    for key in HOME_KEYS {
        let Some(setting) = settings.get_mut(key) else { continue };
        for value in &mut setting.values {
            match at_home(value, environment) {
                Some(expanded) => *value = expanded,
                None => errors.push(homeless(&setting.origin)),
            }
        }
    }
}

/// A value with the home directory for `~`, as a shell puts it outside of quotes and nobody does in a file; `None` where
/// nothing says which that is.
pub(crate) fn at_home(value: &str, environment: &Environment) -> Option<String> {
    match value.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/')) {
        Some(rest) => environment.get("HOME").map(|home| format!("{}{rest}", home.trim_end_matches('/'))),
        None => Some(value.to_owned()),
    }
}

pub(super) fn homeless(origin: &Origin) -> ConfigError {
    ConfigError::new(format!("{origin} begins with ~, and HOME is not set"), "write the whole path")
}

/// An entry of a table of `config/default.toml` that holds no settings.
pub(crate) fn default_entry(table: &'static str, key: &str) -> Option<String> {
    defaults().entry(table, key).map(str::to_owned)
}

/// The default of an option, where it has one, as `config/default.toml` has it.
pub(crate) fn default_of(option: &OptionInfo) -> Option<String> {
    defaults().get(option.key).map(|setting| setting.values.join(","))
}

/// `--help` asks for each default by itself, so the file is read once.
fn defaults() -> &'static Raw {
    static DEFAULT: LazyLock<Raw> = LazyLock::new(|| {
        let mut raw = Raw::default();
        raw.file(DEFAULTS, None, DEFAULT_TABLES, &mut Vec::new());
        raw
    });
    &DEFAULT
}

pub(super) fn unknown(origin: &Origin, key: &str, tables: &[&'static str]) -> ConfigError {
    let keys = OPTIONS.iter().filter(|option| !option.before_files).map(|option| option.key);
    let known = keys.chain(tables.iter().copied());
    let hint = nearest(key, known)
        .map_or_else(|| "config/default.toml lists the keys".to_owned(), |near| format!("did you mean {near}?"));
    ConfigError::new(format!("{origin}: unknown key {key:?}"), hint)
}

pub(super) fn misshapen(origin: &Origin, key: &str) -> ConfigError {
    let hint = match by_key(key).map(|option| option.arity) {
        Some(Arity::Switch) => "write true or false",
        Some(Arity::Many) => "write a string or a list of strings",
        Some(Arity::One) | None => "write a string or a whole number",
    };
    ConfigError::new(format!("{origin}: the value of {key} is of the wrong kind"), hint)
}

/// An entry of `[tiers]`. What is written below that line is of that table, also where an option was meant, which would be
/// left out silently.
pub(super) fn tier(origin: &Origin, name: &str, value: &Spanned<DeValue<'_>>) -> Result<String, ConfigError> {
    if by_key(name).is_some() {
        let hint = format!("put it above [tiers], where the options stand; a tier cannot be called {name}");
        return Err(ConfigError::new(format!("{origin}: {name} stands below [tiers]"), hint));
    }
    let cap = scalar(value).filter(|cap| cap == "unlimited" || count(cap).is_ok());
    cap.ok_or_else(|| {
        let what = format!("{origin}: tier {name} is no number of rows");
        ConfigError::new(what, "a tier is a whole number of 1 or more, or \"unlimited\"; options stand above [tiers]")
    })
}

pub(super) fn scalar(value: &Spanned<DeValue<'_>>) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(i64::from_str_radix(number.as_str(), number.radix()).ok()?.to_string()),
        DeValue::Boolean(switch) => Some(switch.to_string()),
        DeValue::Datetime(time) => Some(time.to_string()),
        DeValue::Float(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

pub(super) fn values(option: &OptionInfo, value: &Spanned<DeValue<'_>>) -> Option<Vec<String>> {
    match (option.arity, value.get_ref()) {
        (Arity::Many, DeValue::Array(items)) => items.iter().map(scalar).collect(),
        (Arity::One, DeValue::Array(items)) if option.list => {
            Some(vec![items.iter().map(scalar).collect::<Option<Vec<_>>>()?.join(",")])
        }
        (Arity::Switch, DeValue::Boolean(_)) => Some(vec![scalar(value)?]),
        (Arity::Switch, _) => None,
        _ => Some(vec![scalar(value)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, variables: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<Raw, Vec<ConfigError>> {
        let variables = variables.iter().copied().chain([("OUTHAUL_CONFIG", "/c.toml")]);
        let environment = Environment::of(variables, [("/c.toml", file)]);
        checked(flags.iter().map(|(key, value)| (*key, vec![(*value).to_owned()])).collect(), &environment)
    }

    fn checked(flags: Vec<(&'static str, Vec<String>)>, environment: &Environment) -> Result<Raw, Vec<ConfigError>> {
        let (raw, errors) = Raw::read(flags, environment);
        if errors.is_empty() { Ok(raw) } else { Err(errors) }
    }

    fn whole(errors: &[ConfigError]) -> Vec<String> {
        errors.iter().map(|error| format!("{} ({})", error.what, error.hint)).collect()
    }

    #[test]
    fn the_embedded_files_are_right() {
        let raw = checked(Vec::new(), &Environment::of([], [])).unwrap();
        assert!(raw.get("readers").is_some() && raw.given("readers").is_none());
        let mut tiers: Vec<&str> = raw.keys("tiers").collect();
        tiers.sort_unstable();
        assert_eq!(tiers, ["enterprise", "free", "pro", "scale", "team"]);
    }

    #[test]
    fn the_defaults_have_no_mistakes() {
        let mut errors = Vec::new();
        Raw::default().file(DEFAULTS, None, DEFAULT_TABLES, &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
    }

    #[test]
    fn flags_go_before_variables_before_the_file_before_defaults() {
        let file = "\nreaders = 8\nlayout = \"flat\"\nreport = \"json\"\n";
        let raw = load(file, &[("OUTHAUL_READERS", "9"), ("OUTHAUL_LAYOUT", "nested")], &[("readers", "10")]).unwrap();
        for (key, value, origin) in [
            ("readers", "10", "--readers"),
            ("layout", "nested", "environment variable OUTHAUL_LAYOUT"),
            ("report", "json", "/c.toml:4:1"),
            ("progress", "auto", "the defaults"),
        ] {
            let setting = raw.get(key).unwrap();
            assert_eq!((setting.values.join("|").as_str(), setting.origin.to_string().as_str()), (value, origin));
        }
    }

    #[test]
    fn an_empty_variable_takes_nothing_away() {
        let lists: Vec<_> =
            OPTIONS.iter().filter(|option| option.arity == Arity::Many && !option.before_files).collect();
        assert!(lists.iter().any(|option| option.key == "protect"), "{lists:?}");
        for option in lists {
            let raw = load(&format!("{} = [\"a=b\"]", option.key), &[(&option.variable(), "")], &[]).unwrap();
            assert_eq!(raw.get(option.key).unwrap().values, ["a=b"], "{}", option.key);
        }
        assert_eq!(load("", &[("OUTHAUL_READERS", "")], &[]).unwrap().given("readers"), None);
        assert_eq!(load("", &[("OUTHAUL_REDERS", "")], &[]).unwrap().given("readers"), None);
    }

    #[test]
    fn a_file_may_write_lists_numbers_and_dates() {
        let file = "columns = [\"a\", 'b']\ncolumn = [\"x=1\", \"y=2\"]\nrename = \"a=b\"\nmax_rows = 1_000\n\
                    date = 2026-11-21\nsha256 = true\n[tiers]\ntrial = 5\nfree = \"unlimited\"\n";
        let raw = load(file, &[], &[]).unwrap();
        let values = |key: &str| raw.get(key).unwrap().values.clone();
        assert_eq!(values("columns"), ["a,b"]);
        assert_eq!(values("column"), ["x=1", "y=2"]);
        assert_eq!(values("rename"), ["a=b"]);
        assert_eq!((values("max_rows"), values("date")), (vec!["1000".to_owned()], vec!["2026-11-21".to_owned()]));
        assert_eq!(values("sha256"), ["true"]);
        assert_eq!((raw.entry("tiers", "trial"), raw.entry("tiers", "free")), (Some("5"), Some("unlimited")));
        assert_eq!(raw.entry("tiers", "pro"), Some("100000"), "tiers are added, not replaced");
    }

    #[test]
    fn mistakes_have_their_line_and_the_nearest_word() {
        for (file, expected) in [
            ("\npart_szie = 1", "/c.toml:2:1: unknown key \"part_szie\" (did you mean part_size?)"),
            ("quux = 1", "/c.toml:1:1: unknown key \"quux\" (config/default.toml lists the keys)"),
            ("config = 'x'", "/c.toml:1:1: unknown key \"config\" (config/default.toml lists the keys)"),
            ("[tires]\nfree = 1", "/c.toml:1:2: unknown key \"tires\" (did you mean tiers?)"),
            (
                "readers = 1.5",
                "/c.toml:1:1: the value of readers is of the wrong kind (write a string or a whole number)",
            ),
            ("sha256 = 'yes'", "/c.toml:1:1: the value of sha256 is of the wrong kind (write true or false)"),
            (
                "[[export]]\ntable = 'a'",
                "/c.toml:1:3: export is of a job file (a file with several exports goes to `outhaul run FILE`)",
            ),
            (
                "[defaults]\nto = 'a'",
                "/c.toml:1:2: defaults is of a job file (a file with several exports goes to `outhaul run FILE`)",
            ),
            ("tiers = 3", "/c.toml:1:1: the value of tiers is of the wrong kind (write a string or a whole number)"),
            ("readers = 1\n  readers = 2", "/c.toml:2:3: duplicate key (the file must be TOML)"),
            ("# é\n  reader = 1", "/c.toml:2:3: unknown key \"reader\" (did you mean readers?)"),
            (
                "[tiers]\n 'é' = 1.5",
                "/c.toml:2:2: tier é is no number of rows (a tier is a whole number of 1 or more, or \"unlimited\"; \
                 options stand above [tiers])",
            ),
            ("readers = 1\nlayout: flat", "/c.toml:2:9: key with no value, expected `=` (the file must be TOML)"),
            ("env_file = 'x'", "/c.toml:1:1: unknown key \"env_file\" (config/default.toml lists the keys)"),
            ("[levels]\nzstd = 22", "/c.toml:1:2: unknown key \"levels\" (config/default.toml lists the keys)"),
        ] {
            let errors = load(file, &[], &[]).unwrap_err();
            assert_eq!(whole(&errors), [expected], "{file}");
        }
    }

    #[test]
    fn an_option_below_the_tiers_is_no_tier() {
        for option in OPTIONS {
            for value in ["1", "'x'", "true", "['x']"] {
                let errors = load(&format!("[tiers]\ntrial = 500\n{} = {value}", option.key), &[], &[]).unwrap_err();
                let what = format!("/c.toml:3:1: {} stands below [tiers]", option.key);
                assert_eq!(errors.iter().map(|error| error.what.as_str()).collect::<Vec<_>>(), [what], "{value}");
            }
        }
        for entry in ["max-rows = 'many'", "trial = 0", "trial = -1", "trial = '10k'", "trial = true", "t = 2026-11-21"]
        {
            let errors = load(&format!("[tiers]\n{entry}"), &[], &[]).unwrap_err();
            assert!(errors[0].what.ends_with("is no number of rows"), "{entry}: {errors:?}");
        }
    }

    #[test]
    fn a_tilde_is_the_home_directory() {
        let home = [("HOME", "/h/me/")];
        for (to, expected) in [
            ("~/out", "/h/me/out"),
            ("~", "/h/me"),
            ("~you/out", "~you/out"),
            ("./~/out", "./~/out"),
            ("s3://b/~/x", "s3://b/~/x"),
        ] {
            for raw in [load("", &home, &[("to", to)]), load(&format!("to = {to:?}"), &home, &[])] {
                assert_eq!(raw.unwrap().get("to").unwrap().values, [expected], "{to}");
            }
        }
        for key in ["report_file", "metrics_file"] {
            let raw = load(&format!("{key} = '~/x'"), &home, &[]).unwrap();
            assert_eq!(raw.get(key).unwrap().values, ["/h/me/x"], "{key}");
        }
        let errors = load("", &[], &[("to", "~/out")]).unwrap_err();
        assert_eq!(whole(&errors), ["--to begins with ~, and HOME is not set (write the whole path)"]);
    }

    #[test]
    fn mistyped_variables_are_refused_but_not_others_of_the_prefix() {
        let errors = load("", &[("OUTHAUL_REDERS", "1"), ("OUTHAUL_BIN", "/opt"), ("OUTHAUL_TEST_OFF", "locks")], &[])
            .unwrap_err();
        assert_eq!(
            whole(&errors),
            ["environment variable OUTHAUL_REDERS is not known (did you mean OUTHAUL_READERS?)"]
        );
        for (name, hint) in [
            ("DRY_RUN", "--dry-run has no variable"),
            ("DRYRUN", "--dry-run has no variable"),
            ("VERBOSE", "--verbose has no variable"),
            ("ONLY", "--only has no variable"),
            ("ROW_LIMIT", "--limit N"),
            ("FILTER", "--where PREDICATE"),
            ("JSON", "--report json"),
            ("ORDER_BY", "--key COLUMN"),
        ] {
            let errors = load("", &[(&format!("OUTHAUL_{name}"), "1")], &[]).unwrap_err();
            assert!(errors.len() == 1 && errors[0].hint.contains(hint), "{name}: {errors:?}");
        }
        // What Kubernetes sets beside a Service of our name, what other commands read, and where a server may be named.
        for name in [
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_HTTP",
            "PORT",
            "PORT_8080_TCP",
            "PORT_8080_TCP_PROTO",
            "PORT_8080_TCP_PORT",
            "PORT_8080_TCP_ADDR",
            "API_KEY",
            "API_KEY_FILE",
            "LINK_SECRET",
            "WEBHOOK_SECRET",
            "COMMIT",
            "DSN",
            "DATABASE_URL",
            "HOST",
        ] {
            load("", &[(&format!("OUTHAUL_{name}"), "1")], &[]).unwrap();
        }
        load("", &[("OUTHAUL_DRY_RUN", "false"), ("OUTHAUL_JSON", "")], &[]).unwrap();
        let unreadable =
            Environment { unreadable: vec!["OUTHAUL_TO".into(), "LANG".into()], ..Environment::of([], []) };
        let errors = checked(Vec::new(), &unreadable).unwrap_err();
        assert_eq!(whole(&errors), ["environment variable OUTHAUL_TO is not UTF-8 (set it again, or unset it)"]);
    }

    #[test]
    fn all_mistakes_are_told_and_no_secret() {
        let errors = load("a1 = 1\nb2 = 2\n", &[("OUTHAUL_TIERR", "canary")], &[]).unwrap_err();
        assert_eq!(errors.len(), 3);
        for file in ["from = \"postgres://u:canary@h", "from = postgres://u:canary@h", "from = 'x' canary"] {
            let errors = load(file, &[], &[]).unwrap_err();
            assert!(whole(&errors)[0].starts_with("/c.toml:1:"), "{errors:?}");
            assert!(!format!("{errors:?}").contains("canary"), "{errors:?}");
        }
        let raw = load("from = 'postgres://u:canary@h'", &[], &[]).unwrap();
        assert!(!format!("{raw:?}").contains("canary"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let errors = checked(vec![("config", vec!["/no.toml".into()])], &Environment::of([], [])).unwrap_err();
        assert!(errors[0].what.contains("/no.toml"), "{errors:?}");
    }
}
