//! Configuration: raw (as written, unknown keys refused) becomes typed (as used). `config/default.toml` is the only
//! home of defaults.

pub mod connection;
mod conninfo;
mod contradictions;
pub mod front;
pub mod options;
pub mod raw;
pub mod typed;
pub mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

pub use front::{FrontOptions, LogFormat, ProgressKind, ReportKind};
pub use typed::load;

/// One mistake in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// What is wrong, and where.
    pub what: String,
    /// What to do.
    pub hint: String,
}

impl ConfigError {
    pub(crate) fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into() }
    }
}

/// All mistakes in the configuration at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{} ({})", error.what, error.hint)?;
        }
        Ok(())
    }
}

/// The process's surroundings as a value, so that rules over it are pure and tests need no global state.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// Files that stand for those on disk; `None` reads the disk.
    files: Option<BTreeMap<PathBuf, String>>,
    /// The name of the person who runs the process.
    pub user: Option<String>,
}

impl Environment {
    /// The real one.
    pub fn of_process() -> Self {
        let variables: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| name.into_string().ok().zip(value.into_string().ok()))
            .collect();
        let user = variables.get("USER").or_else(|| variables.get("LOGNAME")).cloned();
        Self { variables, files: None, user }
    }

    /// One made of values, for tests.
    pub fn of<'a>(
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
        files: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        Self {
            variables: variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            files: Some(files.into_iter().map(|(name, text)| (name.into(), text.to_owned())).collect()),
            user: Some("tester".to_owned()),
        }
    }

    /// A variable; an empty one counts as unset, as in libpq.
    pub fn get(&self, name: &str) -> Option<String> {
        self.variables.get(name).filter(|value| !value.is_empty()).cloned()
    }

    /// All variables whose names begin so.
    pub fn variables(&self, prefix: &str) -> Vec<(String, String)> {
        let matching = self.variables.iter().filter(|(name, _)| name.starts_with(prefix));
        matching.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// A file's text.
    ///
    /// # Errors
    /// It cannot be read, or is not UTF-8.
    pub fn read(&self, path: &Path) -> std::io::Result<String> {
        match &self.files {
            None => std::fs::read_to_string(path),
            Some(files) => files.get(path).cloned().ok_or_else(|| std::io::ErrorKind::NotFound.into()),
        }
    }

    /// Whether others than its owner may read the file; libpq ignores such a password file.
    pub fn is_open_to_others(&self, path: &Path) -> bool {
        use std::os::unix::fs::PermissionsExt;
        self.files.is_none() && std::fs::metadata(path).is_ok_and(|facts| facts.permissions().mode() & 0o077 != 0)
    }
}
