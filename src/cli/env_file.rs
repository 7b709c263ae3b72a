//! `--env-file`: the process starts over with the file's variables, so that everything that reads the environment, ours
//! or a library's, finds them.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ArgMatches;

use crate::config::{ConfigError, ConfigErrors, Environment, env_file};

/// The file that was asked for, by flag or by variable, where the command takes one.
pub(super) fn wanted(matches: &ArgMatches, environment: &Environment) -> Option<PathBuf> {
    let flag = matches.try_get_one::<String>("env_file").ok()?;
    flag.cloned().or_else(|| environment.get("OUTHAUL_ENV_FILE")).map(PathBuf::from)
}

/// Replaces this process by one that has the file's variables too; returns where all of them are set already. Called
/// before there are threads.
///
/// # Errors
/// The file makes no sense, or the program cannot be started again.
pub(super) fn enter(file: &Path, environment: &Environment) -> Result<(), ConfigErrors> {
    let variables = env_file::read(environment, file).map_err(ConfigErrors)?;
    // The last line of a name counts, as with docker.
    let variables: BTreeMap<_, _> = variables.into_iter().collect();
    // What is set to nothing counts as unset; but not for a line that sets it so, or the process would start for ever.
    let is_missing = |(name, value): &(String, String)| match std::env::var_os(name) {
        None => true,
        Some(set) => set.is_empty() && !value.is_empty(),
    };
    let missing: Vec<_> = variables.into_iter().filter(is_missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut arguments = std::env::args_os();
    let error = std::env::current_exe().map(|program| {
        let mut again = Command::new(program);
        if let Some(name) = arguments.next() {
            again.arg0(name);
        }
        again.args(arguments).envs(missing).exec()
    });
    let why = error.unwrap_or_else(|error| error);
    let what = format!("starting again with the environment of {}: {why}", file.display());
    Err(ConfigErrors(vec![ConfigError::new(what, "set the variables before outhaul starts")]))
}
