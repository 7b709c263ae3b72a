//! `--protect` and the file of `--protect-file`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::options::Given;
use super::{ConfigError, Environment, value};
use crate::base::voice;
use crate::model::{AbsentColumn, ProtectKeyPlace, ProtectOptions, ProtectRule, Protection};

/// `column=how`, the column as it is called in the output, quoted where it must be.
pub(super) fn column(text: &str) -> Result<(String, Protection), String> {
    let (name, how) = value::expression(text).map_err(|_| "COLUMN=hash|mask|drop|null is wanted".to_owned())?;
    Ok((name, word(&how)?))
}

fn word(text: &str) -> Result<Protection, String> {
    let all = [Protection::Hash, Protection::Mask, Protection::Drop, Protection::Null];
    value::words(&all.map(|how| (how.word(), how)))(text)
}

/// The file, by the patterns of its columns.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProtectFile {
    columns: std::collections::BTreeMap<String, String>,
}

/// What of the options protects columns; `None` where nothing does.
pub(super) fn options(
    given: &mut Given,
    environment: &Environment,
    errors: &mut Vec<ConfigError>,
) -> Option<ProtectOptions> {
    let exact = given.protect.drain(..).map(|(name, how)| {
        let absent = AbsentColumn::Refused;
        ProtectRule { name, pattern: false, how, absent }
    });
    let mut rules: Vec<ProtectRule> = exact.collect();
    if let Some(path) = given.protect_file.take() {
        match rules_of(&path, environment) {
            Ok(patterns) => rules.extend(patterns),
            Err(why) => {
                let what = format!("--protect-file {}: {why}", path.display());
                errors.push(ConfigError::new(what, "config/protect.example.toml shows what such a file has"));
            }
        }
    }
    let key_file = given.protect_key_file.take();
    let key_command = given.protect_key_command.take();
    let hashes = rules.iter().any(|rule| rule.how == Protection::Hash);
    match (hashes, key_file.is_some(), key_command.is_some()) {
        (true, false, false) => {
            let hint = "give --protect-key-file FILE or --protect-key-command COMMAND";
            errors.push(ConfigError::new("columns are to be hashed, and there is no key", hint));
        }
        (true, true, true) => errors.push(two_keys()),
        (false, true, _) | (false, _, true) => {
            let what = "a key is given, and no column is to be hashed";
            errors.push(ConfigError::new(what, "add --protect COLUMN=hash, or leave the key out"));
        }
        _ => {}
    }
    // A process that resumes the run may stand in another folder.
    let key_file = key_file.map(absolute);
    (!rules.is_empty()).then_some(ProtectOptions { rules, key_file, key_command })
}

/// Where the key is found, for a command that goes on with what another process began.
pub(super) fn key_place(given: &mut Given, errors: &mut Vec<ConfigError>) -> ProtectKeyPlace {
    let (file, command) = (given.protect_key_file.take().map(absolute), given.protect_key_command.take());
    if file.is_some() && command.is_some() {
        errors.push(two_keys());
    }
    ProtectKeyPlace { file, command }
}

fn two_keys() -> ConfigError {
    ConfigError::new("--protect-key-file and --protect-key-command are both given", "give one of them")
}

fn absolute(file: PathBuf) -> PathBuf {
    std::path::absolute(&file).unwrap_or(file)
}

fn rules_of(path: &Path, environment: &Environment) -> Result<Vec<ProtectRule>, String> {
    let text = environment.read(path).map_err(|error| voice::plain(&error.to_string()))?;
    of_text(&text)
}

fn of_text(text: &str) -> Result<Vec<ProtectRule>, String> {
    let file: ProtectFile = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    let rule = |(name, how): (String, String)| {
        let how = word(&how).map_err(|why| format!("{name:?} is {how:?}: {why}"))?;
        // An idle name of a file is one too: the file is for many tables.
        Ok(ProtectRule { pattern: true, name, how, absent: AbsentColumn::Told })
    };
    let rules: Vec<ProtectRule> = file.columns.into_iter().map(rule).collect::<Result<_, String>>()?;
    if rules.is_empty() { Err("it protects no column".to_owned()) } else { Ok(rules) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::glob;

    #[test]
    fn columns_and_files_are_read_and_their_mistakes_told() {
        assert_eq!(column("email=hash"), Ok(("email".to_owned(), Protection::Hash)));
        assert_eq!(column("\"a=b\" = drop"), Ok(("a=b".to_owned(), Protection::Drop)));
        for (wrong, why) in
            [("email", "COLUMN="), ("email=", "COLUMN="), ("email=hsah", "did you mean hash?"), ("=hash", "COLUMN=")]
        {
            assert!(column(wrong).unwrap_err().contains(why), "{wrong}");
        }
        let rules = of_text(include_str!("../../config/protect.example.toml")).unwrap();
        assert!(rules.iter().any(|rule| rule.name == "*phone*" && rule.how == Protection::Mask));
        assert!(rules.iter().all(|rule| rule.pattern || !glob::is_pattern(&rule.name)));
        for (text, why) in [
            ("", "columns"),
            ("[columns]", "protects no column"),
            ("[columns]\nemail = \"maks\"", "did you mean mask?"),
            ("[columns]\n[other]", "other"),
        ] {
            assert!(of_text(text).unwrap_err().contains(why), "{text}");
        }
    }
}
