//! The JSON report of a command: one envelope around what each has to say (`config/report.v1.schema.json`), on standard
//! output where `--report json` asks for it, and in the file of `--report-file`.

use std::ffi::OsString;
use std::path::PathBuf;

use chrono::{DateTime, SecondsFormat, Utc};
use clap::ArgMatches;
use serde::Serialize;

use super::exit;
use super::screen::{Screen, stdout_answer};
use crate::base::voice;
use crate::base::whole_file::{Readers, write_whole};
use crate::config::{Environment, at_home};
use crate::export::ExportError;
use crate::model::{ErrorCode, ExportErrorKind};

/// Raised when a field of the envelope changes its meaning or goes away.
const REPORT_VERSION: u32 = 1;

/// The form of the report at the end (`--report`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReportForm {
    /// A summary for people.
    Text,
    /// The one JSON line.
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReportPlace {
    Stdout,
    /// Standard error: the data have standard output (`--to -`).
    Stderr,
}

/// Where the reports of this process go, and what all of them share.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    /// The command, once it is known to be one.
    pub(crate) command: Option<String>,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) form: ReportForm,
    pub(crate) place: ReportPlace,
    /// `--report-file`.
    pub(crate) file: Option<PathBuf>,
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    report_version: u32,
    command: Option<&'a str>,
    version: &'static str,
    started_at: String,
    ended_at: String,
    #[serde(flatten)]
    body: &'a T,
    errors: &'a [ErrorRecord],
}

/// One error of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ErrorRecord {
    code: Code,
    kind: ExportErrorKind,
    message: String,
    hint: Option<String>,
    retryable: bool,
}

/// What an error is: by itself where that is known, else by its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Code {
    Known(ErrorCode),
    Class(ExportErrorKind),
}

impl ErrorRecord {
    pub(crate) fn of(error: &ExportError) -> Self {
        Self {
            code: error.code.map_or(Code::Class(error.kind), Code::Known),
            kind: error.kind,
            message: error.sentence(),
            hint: error.hint.as_deref().map(voice::one_line),
            retryable: error.kind.retryable(),
        }
    }
}

impl Reporter {
    /// What the command line and the environment ask for, read before either is understood: even a command line that makes
    /// no sense gets its report where a script asked for one.
    pub(crate) fn wished(arguments: &[OsString], environment: &Environment, commands: &[String]) -> Self {
        let given = |flag: &str| {
            let joined = format!("{flag}=");
            arguments.iter().enumerate().rev().find_map(|(at, argument)| {
                let text = argument.to_str()?;
                match text.strip_prefix(&joined) {
                    Some(value) => Some(value.to_owned()),
                    None if text == flag => Some(arguments.get(at + 1)?.to_str()?.to_owned()),
                    None => None,
                }
            })
        };
        let or_variable = |flag: &str, variable: &str| given(flag).or_else(|| environment.get(variable));
        let says = |word: &str| arguments.iter().any(|argument| argument == word);
        let json = says("--json") || or_variable("--report", "OUTHAUL_REPORT").as_deref() == Some("json");
        let command = arguments
            .iter()
            .skip(1)
            .find_map(|argument| commands.iter().find(|command| *argument == ***command).cloned());
        Self {
            command,
            started_at: Utc::now(),
            form: if json { ReportForm::Json } else { ReportForm::Text },
            place: if [given("--to"), given("--output")].iter().any(|rows| rows.as_deref() == Some("-"))
                || short_output_is_stdout(arguments)
            {
                ReportPlace::Stderr
            } else {
                ReportPlace::Stdout
            },
            file: or_variable("--report-file", "OUTHAUL_REPORT_FILE")
                .map(|file| PathBuf::from(at_home(&file, environment).unwrap_or(file))),
        }
    }

    /// The same once the command line is understood: then it is known for certain where its rows go.
    pub(crate) fn beside_rows_of(mut self, matches: &ArgMatches) -> Self {
        let goes_to_stdout =
            |id: &&str| matches.try_get_one::<String>(id).is_ok_and(|place| place.is_some_and(|place| place == "-"));
        if ["to", "output"].iter().any(goes_to_stdout) {
            self.place = ReportPlace::Stderr;
        }
        self
    }

    pub(crate) fn is_json(&self) -> bool {
        self.form == ReportForm::Json
    }

    /// Gives the report of a command out that has an exit code of its own, as far as somebody asked for it.
    pub(crate) fn give(&self, screen: &Screen, body: &impl Serialize, errors: &[ErrorRecord]) {
        let _ = self.answer(screen, body, errors);
    }

    /// The same for a command whose answer the report is: its exit code.
    pub(crate) fn answer(&self, screen: &Screen, body: &impl Serialize, errors: &[ErrorRecord]) -> u8 {
        if self.form == ReportForm::Text && self.file.is_none() {
            return exit::COMPLETE;
        }
        let line = match self.line(body, errors, Utc::now()) {
            Ok(line) => line,
            // No report holds a map with keys other than text.
            Err(error) => {
                screen.line(&format!("warning: the report cannot be written: {error}"));
                return exit::INTERNAL;
            }
        };
        let written = match (self.form, self.place) {
            (ReportForm::Text, _) => exit::COMPLETE,
            (ReportForm::Json, ReportPlace::Stdout) => stdout_answer(&line),
            (ReportForm::Json, ReportPlace::Stderr) => {
                screen.raw_line(&line);
                exit::COMPLETE
            }
        };
        if let Some(file) = &self.file
            && let Err(error) = write_whole(file, format!("{line}\n").as_bytes(), Readers::Owner)
        {
            let why = voice::plain(&error.to_string());
            screen.line(&format!("warning: --report-file: cannot write {}: {why}", file.display()));
        }
        written
    }

    fn line(
        &self,
        body: &impl Serialize,
        errors: &[ErrorRecord],
        ended_at: DateTime<Utc>,
    ) -> Result<String, serde_json::Error> {
        let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Millis, true);
        serde_json::to_string(&Envelope {
            report_version: REPORT_VERSION,
            command: self.command.as_deref(),
            version: env!("CARGO_PKG_VERSION"),
            started_at: time(self.started_at),
            ended_at: time(ended_at),
            body,
            errors,
        })
    }
}

/// Whether `-o` has the value `-`, alone or behind flags that have none: `-qo -`.
fn short_output_is_stdout(arguments: &[OsString]) -> bool {
    arguments.iter().enumerate().any(|(at, argument)| {
        let letters = argument.to_str().and_then(|text| text.strip_prefix('-'));
        match letters.map(|letters| letters.trim_start_matches(['q', 'v'])) {
            Some("o") => arguments.get(at + 1).is_some_and(|value| value == "-"),
            Some("o-" | "o=-") => true,
            _ => false,
        }
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cli::golden;

    /// A reporter of a command that began in the beginning.
    pub(crate) fn reporter(form: ReportForm) -> Reporter {
        let place = ReportPlace::Stderr;
        let (command, started_at) = (Some("export".to_owned()), DateTime::UNIX_EPOCH);
        Reporter { command, started_at, form, place, file: None }
    }

    /// A report that took a second, against its golden file; it is what the schema says.
    pub(crate) fn check(name: &str, body: &impl Serialize, errors: &[ErrorRecord]) {
        check_of("export", name, body, errors);
    }

    /// The same of any command.
    pub(crate) fn check_of(command: &str, name: &str, body: &impl Serialize, errors: &[ErrorRecord]) {
        let ended_at = DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(1);
        let reporter = Reporter { command: Some(command.to_owned()), ..reporter(ReportForm::Json) };
        let line = reporter.line(body, errors, ended_at).unwrap();
        assert!(!line.contains('\n'));
        // The program's own version changes.
        let version = format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION"));
        golden::check(name, &(line.replace(&version, "\"version\":\"0.0.0\"") + "\n"));
        let schema = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/config/report.v1.schema.json")).unwrap();
        let schema: serde_json::Value = serde_json::from_slice(&schema).unwrap();
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        let report: serde_json::Value = serde_json::from_str(&line).unwrap();
        let problems: Vec<String> =
            validator.iter_errors(&report).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(problems.is_empty(), "{name}: {problems:#?}");
    }

    #[test]
    fn wishes_are_read_off_any_command_line() {
        let of = |text: &str, variables: &[(&str, &str)]| {
            let arguments: Vec<OsString> = text.split(' ').map(OsString::from).collect();
            let environment = Environment::of(variables.iter().copied(), []);
            let reporter = Reporter::wished(&arguments, &environment, &["export".to_owned(), "plan".to_owned()]);
            (reporter.is_json(), reporter.place == ReportPlace::Stderr, reporter.file, reporter.command)
        };
        let export = Some("export".to_owned());
        assert_eq!(of("outhaul export --table a", &[]), (false, false, None, export.clone()));
        assert_eq!(of("outhaul export --report json --table a", &[]), (true, false, None, export.clone()));
        assert_eq!(of("outhaul export --report=json --to=-", &[]), (true, true, None, export.clone()));
        assert_eq!(of("outhaul exprot --to -", &[("OUTHAUL_REPORT", "json")]), (true, true, None, None));
        for rows in ["-o -", "-o-", "-o=-", "-qo -", "-vvo-", "--output -", "--output=-"] {
            assert!(of(&format!("outhaul plul --dataset d {rows}"), &[]).1, "{rows}");
        }
        for file in ["-o x", "-ox", "-qo x", "--output x", "-", "-q -"] {
            assert!(!of(&format!("outhaul plul --dataset d {file}"), &[]).1, "{file}");
        }
        let home = [("HOME", "/h/me"), ("OUTHAUL_REPORT_FILE", "~/r.json")];
        assert_eq!(of("outhaul verify x", &home).2, Some("/h/me/r.json".into()));
        let text = "outhaul export --report text --report-file r.json";
        assert_eq!(of(text, &[("OUTHAUL_REPORT", "json")]), (false, false, Some("r.json".into()), export));
    }
}
