//! How the lines on standard error look: coloured for a terminal, as JSON records for a collector of logs, or plain.

use std::ffi::OsString;
use std::io::{self, IsTerminal};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::base::telemetry::LogFormat;
use crate::config::{ColorKind, Environment};

const END: &str = "\u{1b}[0m";

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Looks {
    pub(crate) color: ColorKind,
    /// Whether each line is a JSON record (`--log-format json`).
    pub(crate) json: bool,
}

impl Looks {
    pub(crate) const PLAIN: Self = Self { color: ColorKind::Never, json: false };

    /// Those that the command line or the environment asks for, read before either is understood: even a command line
    /// that makes no sense is answered so.
    pub(crate) fn wished(arguments: &[OsString], environment: &Environment) -> Self {
        let given = |flag: &str, variable: &str| {
            let joined = format!("{flag}=");
            let told = arguments.iter().enumerate().rev().find_map(|(at, argument)| {
                let text = argument.to_str()?;
                match text.strip_prefix(&joined) {
                    Some(value) => Some(value.to_owned()),
                    None if text == flag => Some(arguments.get(at + 1)?.to_str()?.to_owned()),
                    None => None,
                }
            });
            told.or_else(|| environment.get(variable))
        };
        let color = match given("--color", "OUTHAUL_COLOR").as_deref() {
            Some("always") => ColorKind::Always,
            Some("never") => ColorKind::Never,
            _ => ColorKind::Auto,
        };
        Self { color, json: given("--log-format", "OUTHAUL_LOG_FORMAT").as_deref() == Some("json") }
    }

    pub(crate) fn of(color: ColorKind, format: LogFormat) -> Self {
        Self { color, json: format == LogFormat::Json }
    }

    /// Whether standard error has colours.
    pub(crate) fn paints_stderr(self) -> bool {
        !self.json && self.paints(io::stderr().is_terminal())
    }

    /// Whether standard output has.
    pub(crate) fn paints_stdout(self) -> bool {
        self.paints(io::stdout().is_terminal())
    }

    fn paints(self, terminal: bool) -> bool {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        match self.color {
            ColorKind::Always => true,
            ColorKind::Never => false,
            ColorKind::Auto => terminal && !dumb && !set("NO_COLOR"),
        }
    }
}

/// Colours what a reader looks for first: what failed, what was cut, and what to do.
pub(crate) fn painted(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(paint).collect();
    lines.join("\n")
}

fn paint(line: &str) -> String {
    let word = |word: &str, color: &str| line.strip_prefix(word).map(|rest| format!("{color}{word}{END}{rest}"));
    word("error:", "\u{1b}[1;31m")
        .or_else(|| word("warning:", "\u{1b}[33m"))
        .or_else(|| word("TRUNCATED", "\u{1b}[1;33m"))
        .or_else(|| line.starts_with("hint:").then(|| dim(line)))
        .unwrap_or_else(|| line.to_owned())
}

pub(super) fn dim(text: &str) -> String {
    format!("\u{1b}[2m{text}{END}")
}

pub(super) fn cyan(text: &str) -> String {
    format!("\u{1b}[36m{text}{END}")
}

/// A record in the form that log records have, of what is otherwise said in lines.
#[derive(Debug, Serialize)]
struct SaidRecord<'a> {
    timestamp: String,
    level: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    target: &'static str,
}

/// One message as one line of JSON.
pub(crate) fn record(text: &str, now: DateTime<Utc>) -> String {
    let (mut level, mut hint, mut message) = ("INFO", None, Vec::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("error: ") {
            level = "ERROR";
            message.push(rest);
        } else if let Some(rest) = line.strip_prefix("warning: ") {
            level = "WARN";
            message.push(rest);
        } else if let Some(rest) = line.strip_prefix("hint: ") {
            hint = Some(rest);
        } else {
            level = if line.starts_with("TRUNCATED") { "WARN" } else { level };
            message.push(line);
        }
    }
    let timestamp = now.to_rfc3339_opts(SecondsFormat::Micros, true);
    let record = SaidRecord { timestamp, level, message: message.join("\n"), hint, target: "outhaul::cli" };
    // Text alone, which JSON can hold.
    serde_json::to_string(&record).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_read_off_any_command_line() {
        let of = |text: &str, variables: &[(&str, &str)]| {
            let arguments: Vec<OsString> = text.split(' ').map(OsString::from).collect();
            let looks = Looks::wished(&arguments, &Environment::of(variables.iter().copied(), []));
            (looks.color, looks.json)
        };
        assert_eq!(of("outhaul exprot --color never", &[]), (ColorKind::Never, false));
        assert_eq!(of("outhaul export --color=always --log-format json", &[]), (ColorKind::Always, true));
        assert_eq!(of("outhaul export --log-format=text", &[("OUTHAUL_LOG_FORMAT", "json")]), (ColorKind::Auto, false));
        assert_eq!(of("outhaul export --color", &[("OUTHAUL_COLOR", "never")]), (ColorKind::Never, false));
    }

    #[test]
    fn a_failure_is_red_and_its_hint_dim() {
        assert_eq!(
            painted("error: a\nhint: b\n(run c)\nTRUNCATED: d"),
            "\u{1b}[1;31merror:\u{1b}[0m a\n\u{1b}[2mhint: b\u{1b}[0m\n(run c)\n\u{1b}[1;33mTRUNCATED\u{1b}[0m: d"
        );
        assert!(Looks { color: ColorKind::Always, json: false }.paints_stderr());
        assert!(!Looks { color: ColorKind::Always, json: true }.paints_stderr(), "JSON has no colours");
        assert!(!Looks::PLAIN.paints_stdout());
    }

    #[test]
    fn a_failure_is_one_record() {
        let now = DateTime::from_timestamp(1_767_225_600, 0).unwrap();
        assert_eq!(
            record("error: a\nhint: b\n(run c; nothing was published)", now),
            r#"{"timestamp":"2026-01-01T00:00:00.000000Z","level":"ERROR","message":"a\n(run c; nothing was published)","hint":"b","target":"outhaul::cli"}"#
        );
        assert!(record("exporting", now).contains(r#""level":"INFO","message":"exporting""#));
    }
}
