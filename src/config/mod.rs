//! Configuration: raw (as written, unknown keys refused) becomes typed (as used). `config/default.toml` is the only
//! home of defaults.

mod connection;
mod contradictions;
mod destination;
pub(crate) mod env_file;
mod folders;
mod front;
mod implied;
pub(crate) mod job;
pub(crate) mod options;
mod own_format;
mod protect;
pub(crate) mod raw;
pub mod service;
pub(crate) mod synonyms;
mod typed;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use crate::base::telemetry::LogFormat;
pub(crate) use raw::{at_home, default_of};
pub use typed::{ColorKind, FrontOptions, ProgressKind, ReportKind, load};
pub(crate) use typed::{Resumption, duration, load_connection, load_front, load_keep, load_resume, load_worker};
pub(crate) use value::date;

/// Bytes of a configuration, environment, service or password file: far more than anybody writes by hand, so that a wrong
/// name does not fill the memory.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

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
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// Names of variables whose values are not UTF-8.
    unreadable: Vec<String>,
    /// Files that stand for those on disk; `None` reads the disk.
    files: Option<BTreeMap<PathBuf, String>>,
    /// The name of the person who runs the process.
    pub user: Option<String>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values and files may be secrets.
        f.debug_struct("Environment")
            .field("variables", &self.variables.keys())
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Environment {
    /// The real one.
    pub fn of_process() -> Self {
        let mut environment = Self::default();
        for (name, value) in std::env::vars_os() {
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => drop(environment.variables.insert(name, value)),
                (Ok(name), Err(_)) => environment.unreadable.push(name),
                (Err(_), _) => {}
            }
        }
        environment.user =
            environment.get("USER").or_else(|| environment.get("LOGNAME")).or_else(|| environment.user_of_process());
        environment
    }

    /// The process's owner by the password database: containers often lack `USER`.
    fn user_of_process(&self) -> Option<String> {
        use std::os::unix::fs::MetadataExt;
        let id = std::fs::metadata("/proc/self").ok()?.uid().to_string();
        let users = self.read(Path::new("/etc/passwd")).ok()?;
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1) == Some(id.as_str())).then(|| name.to_owned())
        })
    }

    /// One made of values, for tests.
    pub fn of<'a>(
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
        files: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        Self {
            variables: variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            unreadable: Vec::new(),
            files: Some(files.into_iter().map(|(name, text)| (name.into(), text.to_owned())).collect()),
            user: Some("tester".to_owned()),
        }
    }

    /// Takes in what says where a source is, as from a variable, and gives what `--from` names it by: a variable may hold a
    /// password, which a command line may not. `place` is where it was written.
    pub(crate) fn take_source(&mut self, place: &str, from: &str) -> String {
        if from.starts_with("env:") {
            return from.to_owned();
        }
        self.variables.insert(place.to_owned(), from.to_owned());
        format!("env:{place}")
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
    /// It cannot be read, is larger than `CONFIG_BYTES_MAX`, or is not UTF-8, which is told with its place.
    pub fn read(&self, path: &Path) -> io::Result<String> {
        if let Some(files) = &self.files {
            return files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into());
        }
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()).map_or(true, |length| length > CONFIG_BYTES_MAX) {
            return Err(io::Error::other(format!("it has more than {CONFIG_BYTES_MAX} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let (line, column) = position(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
            io::Error::new(io::ErrorKind::InvalidData, format!("line {line}, column {column}: not UTF-8"))
        })?;
        Ok(text.strip_prefix(value::BYTE_ORDER_MARK).map(str::to_owned).unwrap_or(text))
    }

    /// Whether there is such a file.
    pub fn is_there(&self, path: &Path) -> bool {
        self.files.as_ref().map_or_else(|| path.exists(), |files| files.contains_key(path))
    }

    /// Whether others than its owner may read the file; libpq ignores such a password file.
    pub fn is_open_to_others(&self, path: &Path) -> bool {
        use std::os::unix::fs::PermissionsExt;
        self.files.is_none() && std::fs::metadata(path).is_ok_and(|facts| facts.permissions().mode() & 0o077 != 0)
    }
}

/// The line and the column, both from 1, of what follows this text; columns are characters.
fn position(before: &[u8]) -> (usize, usize) {
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let lines = before.iter().take(start).filter(|byte| **byte == b'\n').count();
    let columns = before.iter().skip(start).filter(|byte| !matches!(byte, 0x80..=0xbf)).count();
    (lines + 1, columns + 1)
}

/// The options of `outhaul export` as a Markdown table.
pub fn options_markdown() -> String {
    let mut table = String::from("| Flag | Variable | Default | Meaning |\n|---|---|---|---|\n");
    for option in options::OPTIONS {
        let short = option.short.map_or_else(String::new, |letter| format!("`-{letter}` "));
        let default = match default_of(option) {
            Some(text) if text.is_empty() => "`\"\"`".to_owned(),
            Some(text) => format!("`{text}`"),
            None => String::new(),
        };
        let row = [
            format!("{short}`--{}`", option.flag()),
            format!("`{}`", option.variable()),
            default,
            option.help.replace('|', "\\|"),
        ];
        table.push_str("| ");
        table.push_str(&row.join(" | "));
        table.push_str(" |\n");
    }
    table
}

#[cfg(test)]
mod job_tests;
#[cfg(test)]
mod round_trip_tests;
#[cfg(test)]
mod tests;
