//! `--progress json`: one event a line. Scripts read it, so each line carries the version of its form.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::exit;
use crate::model::Event;

/// Raised when a field changes its meaning or goes away; new fields and events do not raise it.
pub(crate) const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize)]
struct Line<'a> {
    schema_version: u32,
    time: String,
    #[serde(flatten)]
    event: &'a Event,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
}

/// One event as one line of JSON, without the line end. `time` is UTC to the millisecond.
///
/// # Errors
/// None in practice: no event holds a map with keys other than text, and non-finite numbers become `null`.
pub(crate) fn line(event: &Event, time: DateTime<Utc>) -> Result<String, serde_json::Error> {
    let time = time.to_rfc3339_opts(SecondsFormat::Millis, true);
    let exit_code = match event {
        Event::RunFailed { kind, .. } => Some(exit::failed(*kind)),
        _ => None,
    };
    serde_json::to_string(&Line { schema_version: SCHEMA_VERSION, time, event, exit_code })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{golden, samples};

    #[test]
    fn every_event_has_its_golden_line() {
        let time = DateTime::from_timestamp(1_767_225_600, 250_000_000).unwrap();
        for event in samples::events() {
            let line = line(&event, time).unwrap();
            assert!(!line.contains('\n'));
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            let name = value["event"].as_str().unwrap();
            assert_eq!(value["schema_version"], 1);
            golden::check(&format!("events_v1/{name}.json"), &format!("{line}\n"));
        }
    }
}
