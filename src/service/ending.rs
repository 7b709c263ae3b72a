//! How a stream ended, in every place where it is told: record, end record, trailers, log. All of them say the same.

use std::num::NonZeroU64;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use bytes::Bytes;
use serde::Serialize;

use super::problem::{Refusal, told, without_values};
use super::state::{ExportEnd, ExportStatus, INTERRUPTED, RecordedError};
use crate::base::words::counted;
use crate::commit::crc64nvme_text;
use crate::commit::model::SchemaColumn;
use crate::export::{ExportError, Streamed};
use crate::model::{ExportErrorKind, RunStatus};

/// The names of the trailers, as `Trailer` announces them.
pub(crate) const TRAILERS: &str =
    "x-outhaul-export-rows, x-outhaul-export-truncated, x-outhaul-export-max-rows, x-outhaul-export-crc64nvme";

/// Characters of what the database says that a caller is told.
const WORDS_CHARS_MAX: usize = 2_000;

/// How a stream ended.
#[derive(Debug)]
pub(crate) enum StreamOutcome {
    /// All of it was read.
    Done(Box<Streamed>),
    /// It broke off.
    Failed(ExportError),
    /// The client went away.
    Cancelled,
    /// The first rows did not come in time.
    TooSlow,
}

/// The last line of NDJSON.
#[derive(Serialize)]
struct EndRecord<'a> {
    #[serde(rename = "$end")]
    end: EndFacts<'a>,
}

#[derive(Serialize)]
struct EndFacts<'a> {
    status: RunStatus,
    rows: u64,
    max_rows: Option<u64>,
    crc64nvme: &'a str,
}

impl StreamOutcome {
    pub(crate) fn is_truncated(&self) -> bool {
        matches!(self, Self::Done(streamed) if streamed.report.status == RunStatus::Truncated)
    }

    /// What the formula guard of CSV did to the rows, where it did something.
    pub(crate) fn guarded(&self) -> Option<String> {
        let Self::Done(streamed) = self else { return None };
        let changed = |column: &&SchemaColumn| {
            column.policy_count.is_some_and(|count| count > 0) && column.policy.split(", ").any(|word| word == "guard")
        };
        let columns: Vec<&SchemaColumn> = streamed.manifest.schema.iter().filter(changed).collect();
        let count: u64 = columns.iter().filter_map(|column| column.policy_count).sum();
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let what = format!("{} of {} got a ' in front", counted(count, "value"), names.join(", "));
        (count > 0).then(|| format!("{what}, because a spreadsheet would run what stands there as a formula"))
    }

    /// What a caller is told who has not had a byte.
    ///
    /// `own_words`: the statement is the caller's own, and so is what the database says of it.
    pub(crate) fn problem(&self, own_words: bool) -> Refusal {
        match self {
            Self::Failed(error) if own_words => {
                let mut refusal = Refusal::of_export(error);
                if error.kind == ExportErrorKind::Usage {
                    "the statement is not taken".clone_into(&mut refusal.message);
                }
                match words(error) {
                    Some(words) => refusal.with_detail(words),
                    None => refusal,
                }
            }
            Self::Failed(error) => Refusal::of_export(error),
            Self::TooSlow => {
                let message = "the first rows did not come in time";
                Refusal::new(StatusCode::GATEWAY_TIMEOUT, "source_timeout", message).after(30)
            }
            Self::Done(_) | Self::Cancelled => Refusal::of_export(&ExportError::cancelled()),
        }
    }

    /// The same without the words of the database, which may quote a caller's own statement.
    pub(crate) fn log_code(&self, id: &str) {
        match self {
            Self::Failed(error) if !is_gone(error) => {
                tracing::warn!(export = id, code = told(error).1, "a statement failed");
            }
            Self::TooSlow => tracing::warn!(export = id, "the first bytes of an answer did not come in time"),
            Self::Done(_) | Self::Failed(_) | Self::Cancelled => tracing::info!(export = id, "an answer ended"),
        }
    }

    /// Tells the operator what went wrong, which no caller is told.
    pub(crate) fn log(&self, id: &str) {
        match self {
            Self::Failed(error) if !is_gone(error) => {
                tracing::warn!(export = id, error = without_values(error), "a stream failed");
            }
            Self::TooSlow => tracing::warn!(export = id, "the first rows of a stream did not come in time"),
            Self::Done(_) | Self::Failed(_) | Self::Cancelled => tracing::info!(export = id, "a stream ended"),
        }
    }
}

/// What the database says of a caller's own statement, as far as it is told.
fn words(error: &ExportError) -> Option<String> {
    use ExportErrorKind as Kind;
    // Where the service could not reach it, the words are of its own network.
    let told = matches!(
        error.kind,
        Kind::StatementRejected
            | Kind::SourceMissing
            | Kind::SchemaChanged
            | Kind::SourceAuthentication
            | Kind::Data
            | Kind::Usage
            | Kind::GaveWay
    );
    told.then(|| {
        // Who is at a console has no command line.
        let sentence = error.sentence().replace("--query: ", "");
        let end = sentence.char_indices().nth(WORDS_CHARS_MAX);
        end.map_or_else(|| sentence.clone(), |(end, _)| format!("{}…", sentence.get(..end).unwrap_or_default()))
    })
}

/// Adds to a record what the database says of a caller's own statement.
pub(crate) fn add_words(end: &mut ExportEnd, outcome: &StreamOutcome) {
    if let (Some(recorded), StreamOutcome::Failed(error)) = (&mut end.error, outcome)
        && let Some(words) = words(error)
    {
        recorded.message = words;
    }
}

fn is_gone(error: &ExportError) -> bool {
    matches!(error.kind, ExportErrorKind::ReaderGone | ExportErrorKind::DestinationUnavailable)
}

/// No rows, which is an answer only to who says so.
pub(crate) fn no_data() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "no_data", "No data matches your filters")
}

/// What the store keeps of the end.
pub(crate) fn record(outcome: &StreamOutcome, bytes: Option<u64>, max_rows: Option<NonZeroU64>) -> ExportEnd {
    let none = ExportEnd {
        status: ExportStatus::Cancelled,
        rows: None,
        max_rows: max_rows.map(NonZeroU64::get),
        truncated: false,
        crc64nvme: None,
        bytes,
        error: None,
        notes: Vec::new(),
    };
    let failed = |code: &str, message: &str| {
        let error = Some(RecordedError { code: code.to_owned(), message: message.to_owned() });
        ExportEnd { status: ExportStatus::Failed, error, ..none.clone() }
    };
    match outcome {
        StreamOutcome::Done(streamed) => ExportEnd {
            status: match streamed.report.status {
                RunStatus::Complete => ExportStatus::Complete,
                RunStatus::Truncated => ExportStatus::Truncated,
            },
            rows: streamed.report.rows,
            truncated: outcome.is_truncated(),
            crc64nvme: Some(crc64nvme(streamed)),
            ..none
        },
        StreamOutcome::Failed(error) if is_gone(error) => none,
        StreamOutcome::Failed(error) => {
            let (_, code, message) = told(error);
            failed(code, message)
        }
        StreamOutcome::Cancelled => none,
        StreamOutcome::TooSlow => failed("source_timeout", "the first rows did not come in time"),
    }
}

/// What became of a stream whose end the store did not take: one that would have ended well was broken off.
pub(crate) fn unrecorded(end: ExportEnd) -> ExportEnd {
    if !matches!(end.status, ExportStatus::Complete | ExportStatus::Truncated) {
        return end;
    }
    let message = "the stream was broken off, because the service could not record its end";
    ExportEnd {
        status: ExportStatus::Failed,
        rows: None,
        truncated: false,
        crc64nvme: None,
        error: Some(RecordedError { code: INTERRUPTED.to_owned(), message: message.to_owned() }),
        ..end
    }
}

/// The line that a client was promised.
pub(crate) fn end_record(streamed: &Streamed, max_rows: Option<NonZeroU64>) -> Bytes {
    let end = EndFacts {
        status: streamed.report.status,
        rows: streamed.report.rows.unwrap_or_default(),
        max_rows: max_rows.map(NonZeroU64::get),
        crc64nvme: &crc64nvme(streamed),
    };
    let mut line = serde_json::to_vec(&EndRecord { end }).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

/// The trailers, for clients that read them.
pub(crate) fn trailers(streamed: &Streamed, max_rows: Option<NonZeroU64>) -> HeaderMap {
    let truncated = streamed.report.status == RunStatus::Truncated;
    let pairs = [
        ("x-outhaul-export-rows", Some(streamed.report.rows.unwrap_or_default().to_string())),
        ("x-outhaul-export-truncated", Some(truncated.to_string())),
        ("x-outhaul-export-max-rows", max_rows.map(|rows| rows.to_string())),
        ("x-outhaul-export-crc64nvme", Some(crc64nvme(streamed))),
    ];
    let valid = pairs
        .into_iter()
        .filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::from_str(&value?).ok()?)));
    valid.collect()
}

/// Of the bytes before any coding.
fn crc64nvme(streamed: &Streamed) -> String {
    let crc = streamed.manifest.parts.first().map_or(0, |part| part.crc64nvme);
    crc64nvme_text(crc)
}

/// Whether CSV goes on behind its header line, whose names may have line breaks between quotes.
pub(crate) fn has_more_than_a_header(piece: &[u8]) -> bool {
    let mut quoted = false;
    let end = piece.iter().position(|byte| {
        quoted ^= *byte == b'"';
        *byte == b'\n' && !quoted
    });
    end.is_some_and(|end| end + 1 < piece.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_whose_end_was_not_recorded_has_failed_unless_it_had_ended_otherwise() {
        let end = |status| ExportEnd {
            status,
            rows: Some(3),
            max_rows: Some(5),
            truncated: status == ExportStatus::Truncated,
            crc64nvme: Some("x".to_owned()),
            bytes: Some(7),
            error: None,
            notes: vec!["note".to_owned()],
        };
        for status in [ExportStatus::Complete, ExportStatus::Truncated] {
            let late = unrecorded(end(status));
            assert_eq!((late.status, late.rows, late.truncated), (ExportStatus::Failed, None, false));
            assert_eq!((late.bytes, late.max_rows, late.notes.len()), (Some(7), Some(5), 1));
            assert_eq!(late.error.unwrap().code, INTERRUPTED);
        }
        for status in [ExportStatus::Failed, ExportStatus::Cancelled] {
            assert_eq!(unrecorded(end(status)), end(status));
        }
    }

    #[test]
    fn a_header_alone_has_no_rows() {
        assert!(!has_more_than_a_header(b"id,name\r\n"));
        assert!(!has_more_than_a_header(b"id,\"two\r\nlines \"\"quoted\"\"\"\r\n"));
        assert!(has_more_than_a_header(b"id,name\r\n1,x\r\n"));
        assert!(has_more_than_a_header(b"\"a\nb\"\n1\n"));
        assert!(!has_more_than_a_header(b""));
    }
}
