//! What a run with external workers and whoever starts them say to each other, one JSON object a line: `ready` on standard
//! output, receipts and failures on standard input.

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::exit;
use super::screen::stdout_line;
use super::stdin::{follow, is_watched};
use crate::export::ExportError;
use crate::export::outside::{EngineWord, Outside, WorkerWord};
use crate::model::{ExportErrorKind, PartitionDone, ReadyLine, StdinRule};

/// Lines that may wait: each is heeded at once.
const LINES_WAITING: usize = 64;

/// A line on standard output.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Said<'a> {
    Ready(&'a ReadyLine),
    Receipt(&'a PartitionDone),
    Failed {
        #[serde(skip_serializing_if = "Option::is_none")]
        export: Option<u32>,
        code: u8,
        message: String,
        hint: Option<&'a str>,
        retryable: bool,
    },
}

/// A line on standard input; members that are not known are passed over.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Heard {
    Receipt {
        #[serde(default)]
        export: Option<u32>,
    },
    Failed {
        #[serde(default)]
        export: Option<u32>,
        code: u8,
        #[serde(default)]
        message: String,
    },
    #[serde(other)]
    Other,
}

fn say(line: &Said<'_>) {
    // No map with keys other than text: it is always JSON.
    if let Ok(line) = serde_json::to_string(line) {
        stdout_line(&line);
    }
}

/// The line of a run: `ready` is printed once it comes, and standard input is heeded.
pub(super) fn line(rule: Option<StdinRule>) -> Outside {
    let (told, mut ready) = mpsc::channel::<ReadyLine>(1);
    let (words, heard) = mpsc::channel(LINES_WAITING);
    tokio::spawn(async move {
        while let Some(ready) = ready.recv().await {
            say(&Said::Ready(&ready));
        }
    });
    if is_watched(rule) {
        let ends = words.clone();
        let heed = move |line: &str| word(line).is_none_or(|word| words.blocking_send(word).is_ok());
        follow(heed, move || drop(ends.blocking_send(EngineWord::Gone)));
    }
    Outside::with_line(told, heard)
}

/// What a line means to the run; nothing where another worker may do better.
fn word(line: &str) -> Option<EngineWord> {
    match serde_json::from_str(line) {
        Ok(Heard::Receipt { export }) => Some(EngineWord::Receipt { export }),
        Ok(Heard::Failed { export, code, message }) => {
            if let Some(kind) = ending(code) {
                return Some(EngineWord::Failed { export, kind, message });
            }
            tracing::warn!(code, export, error = message, "a worker failed, and another one may not");
            None
        }
        Ok(Heard::Other) => None,
        Err(_) => {
            if !line.is_empty() {
                tracing::warn!("a line of standard input is passed over: it is no JSON object with a type");
            }
            None
        }
    }
}

/// The class of a worker's exit code, where it ends the run.
fn ending(code: u8) -> Option<ExportErrorKind> {
    use ExportErrorKind::{
        Data, DestinationAuthentication, DestinationFull, GaveWay, Internal, SchemaChanged, SnapshotLost,
        SourceAuthentication, StatementRejected, Usage,
    };
    let kinds = [
        Internal,
        Usage,
        SourceAuthentication,
        SnapshotLost,
        SchemaChanged,
        Data,
        StatementRejected,
        GaveWay,
        DestinationAuthentication,
        DestinationFull,
    ];
    kinds.into_iter().find(|kind| exit::failed(*kind) == code)
}

/// A worker's lines: its receipts, and the exports of a job that it cannot read, as they come, until the channel ends.
pub(super) async fn tell_words(mut words: mpsc::Receiver<WorkerWord>) {
    while let Some(word) = words.recv().await {
        match word {
            WorkerWord::Done(done) => say(&Said::Receipt(&done)),
            WorkerWord::Failed { export, error } => tell_failure(Some(export), &error),
        }
    }
}

/// The line of a worker that fails, or of an export that it cannot read.
pub(super) fn tell_failure(export: Option<u32>, error: &ExportError) {
    let (code, message) = (exit::failed(error.kind), error.sentence());
    let retryable = !code_ends(code);
    say(&Said::Failed { export, code, message, hint: error.hint.as_deref(), retryable });
}

fn code_ends(code: u8) -> bool {
    ending(code).is_some()
}

/// Cancels `stop` at the end of standard input, where that is watched. What comes on it is passed over.
pub(super) fn stop_at_the_end(rule: Option<StdinRule>, stop: CancellationToken) {
    if is_watched(rule) {
        follow(|_| true, move || stop.cancel());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_hint_a_failure_or_nothing() {
        let receipt = |export| Some(EngineWord::Receipt { export });
        assert_eq!(word(r#"{"type":"receipt","partition":7,"more":[1]}"#), receipt(None));
        assert_eq!(word(r#"{"type":"receipt","export":2,"partition":7}"#), receipt(Some(2)));
        let of = |export, kind, message: &str| Some(EngineWord::Failed { export, kind, message: message.to_owned() });
        let failed = |kind, message: &str| of(None, kind, message);
        let one = r#"{"type":"failed","export":0,"code":13,"message":"gone"}"#;
        assert_eq!(word(one), of(Some(0), ExportErrorKind::SchemaChanged, "gone"));
        assert_eq!(word(r#"{"type":"failed","code":14,"message":"NaN"}"#), failed(ExportErrorKind::Data, "NaN"));
        assert_eq!(word(r#"{"type":"failed","code":16}"#), failed(ExportErrorKind::GaveWay, ""));
        for nothing in [
            r#"{"type":"failed","code":11}"#,
            r#"{"type":"failed","code":21}"#,
            r#"{"type":"failed","code":22}"#,
            r#"{"type":"failed","code":143}"#,
            r#"{"type":"progress"}"#,
            r#"{"type":"failed","code":700}"#,
            "{}",
            "",
            "ready",
        ] {
            assert_eq!(word(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn what_a_worker_is_not_tried_again_for_ends_the_run() {
        let codes: Vec<u8> = (0..=255).filter(|code| code_ends(*code)).collect();
        assert_eq!(codes, [1, 2, 10, 12, 13, 14, 15, 16, 20, 23]);
    }
}
