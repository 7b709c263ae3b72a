//! How a stream ended, by what the service says of it: its receipt, else the end record or the trailers. Bytes that came
//! are held against it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::ask::segment;
use super::key::ApiKey;
use super::refusal::{self, small_body};
use super::rows::{EndLine, Received};
use crate::base::http::HttpServer;
use crate::base::{failpoint, voice};
use crate::export::ExportError;
use crate::model::{ExportErrorKind, RunStatus};

/// How long a receipt may say that the stream still runs: it is written before the last bytes are sent.
const RECEIPT_PATIENCE: Duration = Duration::from_secs(20);

const RECEIPT_INTERVAL: Duration = Duration::from_millis(250);

/// The stream receipt, as far as it decides something.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ReceiptJson {
    status: String,
    #[serde(default)]
    rows: Option<u64>,
    #[serde(default)]
    max_rows: Option<u64>,
    #[serde(default)]
    crc64nvme: Option<String>,
    #[serde(default)]
    error: Option<ReceiptError>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct ReceiptError {
    code: String,
    message: String,
}

/// What is true of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) status: RunStatus,
    pub(crate) max_rows: Option<u64>,
    /// What said it: `receipt`, `end record` or `trailers`.
    pub(crate) proof: &'static str,
}

/// Why there is no receipt.
enum NoReceipt {
    /// The service gives none, which asking again does not change.
    Refused(String),
    Lost(String),
}

/// Fetches the receipt, and waits while it says that the stream still runs.
///
/// # Errors
/// It cannot be had; the text says why.
pub(crate) async fn receipt(server: &HttpServer, id: &str, key: &ApiKey) -> Result<ReceiptJson, String> {
    let patience = failpoint::limit("receipt", RECEIPT_PATIENCE);
    let deadline = Instant::now() + patience;
    loop {
        let silent = |_| NoReceipt::Lost(format!("the receipt did not come within {} s", patience.as_secs()));
        let found = timeout_at(deadline, ask(server, id, key)).await.map_err(silent).and_then(|found| found);
        let late = Instant::now() >= deadline;
        match found {
            Ok(receipt) if receipt.status != "streaming" || late => return Ok(receipt),
            Err(NoReceipt::Refused(why)) => return Err(why),
            Err(NoReceipt::Lost(why)) if late => return Err(why),
            Ok(_) | Err(NoReceipt::Lost(_)) => tokio::time::sleep(RECEIPT_INTERVAL).await,
        }
    }
}

async fn ask(server: &HttpServer, id: &str, key: &ApiKey) -> Result<ReceiptJson, NoReceipt> {
    let lost = |why: &str| NoReceipt::Lost(why.to_owned());
    let request = Request::get(server.path(&format!("/v1/exports/{}", segment(id))))
        .header(http::header::HOST, server.authority())
        .header(http::header::AUTHORIZATION, key.authorization())
        .body(Full::<Bytes>::default());
    let request = request.map_err(|_| lost("the service's export id makes no address"))?;
    let answer = server
        .send(request)
        .await
        .map_err(|error| lost(&voice::sentence(&error.to_string(), std::error::Error::source(&error), false)))?;
    let (head, body) = answer.into_parts();
    let body = small_body(body).await;
    if head.status != StatusCode::OK {
        let why = refusal::error(head.status, &head.headers, body.as_deref()).sentence();
        let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::NOT_FOUND].contains(&head.status);
        return Err(if refused { NoReceipt::Refused(why) } else { NoReceipt::Lost(why) });
    }
    let receipt = body.and_then(|body| serde_json::from_slice(&body).ok());
    receipt.ok_or_else(|| lost("the receipt cannot be read"))
}

/// What the trailers say.
pub(crate) fn of_trailers(trailers: &HeaderMap) -> Option<EndLine> {
    let text = |name: &str| trailers.get(name)?.to_str().ok();
    let status = match text("x-outhaul-export-truncated")? {
        "true" => "truncated",
        "false" => "complete",
        _ => return None,
    };
    Some(EndLine {
        status: status.to_owned(),
        rows: text("x-outhaul-export-rows")?.parse().ok()?,
        max_rows: text("x-outhaul-export-max-rows").and_then(|rows| rows.parse().ok()),
        crc64nvme: Some(text("x-outhaul-export-crc64nvme")?.to_owned()),
    })
}

/// Judges a stream that ended as HTTP has it. All that was said of it must agree with what came.
///
/// # Errors
/// It is not whole, or it cannot be known to be.
pub(crate) fn judge(
    received: &Received,
    promised: bool,
    trailers: Option<&EndLine>,
    receipt: Result<&ReceiptJson, &str>,
) -> Result<Verdict, ExportError> {
    if let Ok(receipt) = receipt
        && let Some(error) = failed(receipt)
    {
        return Err(error);
    }
    let broken =
        |what: &str| ExportError::new(ExportErrorKind::SourceUnavailable, format!("the stream is cut: {what}"));
    if promised && received.end_record.is_none() {
        return Err(broken("the end record that was promised is missing"));
    }
    if !received.ends_whole {
        return Err(broken("the last row is not whole"));
    }
    let of_receipt = receipt.ok().and_then(as_end);
    let said = [("receipt", of_receipt.as_ref()), ("end record", received.end_record.as_ref()), ("trailers", trailers)];
    let mut verdict = None;
    for (proof, end) in said {
        let Some(end) = end else { continue };
        let found = held_against(received, end, proof)?;
        verdict = verdict.or(Some(found));
    }
    verdict.ok_or_else(|| {
        let why = match receipt {
            Err(why) => why.to_owned(),
            Ok(receipt) => format!("the receipt still says {:?}", voice::one_line(&receipt.status)),
        };
        let what = format!("nothing proves that the rows are all: {why}");
        ExportError::new(ExportErrorKind::SourceUnavailable, what)
    })
}

/// The error that a receipt tells.
pub(crate) fn failed(receipt: &ReceiptJson) -> Option<ExportError> {
    if !["failed", "cancelled"].contains(&receipt.status.as_str()) {
        return None;
    }
    let Some(error) = &receipt.error else {
        let what = format!("the stream was {} by the service", receipt.status);
        return Some(ExportError::new(ExportErrorKind::SourceUnavailable, what));
    };
    let kind = match error.code.as_str() {
        // What another attempt meets again.
        "key_not_selective" | "row_too_large" | "source_value" => ExportErrorKind::Data,
        "source_rejected" => ExportErrorKind::StatementRejected,
        "source_schema" => ExportErrorKind::SchemaChanged,
        "source_busy" | "source_timeout" => ExportErrorKind::GaveWay,
        _ => ExportErrorKind::SourceUnavailable,
    };
    let said = voice::one_line(&format!("the stream failed: {} ({})", error.message, error.code));
    Some(ExportError::new(kind, said))
}

/// A receipt that says what came, as an end.
fn as_end(receipt: &ReceiptJson) -> Option<EndLine> {
    let ReceiptJson { status, rows, max_rows, crc64nvme, .. } = receipt.clone();
    Some(EndLine { status: (status != "streaming").then_some(status)?, rows: rows?, max_rows, crc64nvme })
}

fn held_against(received: &Received, end: &EndLine, proof: &'static str) -> Result<Verdict, ExportError> {
    let differs = |what: String| ExportError::new(ExportErrorKind::Verification, format!("the {proof} {what}"));
    let status = match end.status.as_str() {
        "complete" => RunStatus::Complete,
        "truncated" => RunStatus::Truncated,
        other => return Err(differs(format!("says {:?}, which is no end", voice::one_line(other)))),
    };
    if end.rows != received.rows {
        return Err(differs(format!("counts {}, and {} came", counted(end.rows), received.rows)));
    }
    if end.crc64nvme.as_ref().is_some_and(|crc| *crc != received.crc64nvme) {
        return Err(differs("has another checksum than what came".to_owned()));
    }
    Ok(Verdict { status, max_rows: end.max_rows, proof })
}

fn counted(rows: u64) -> String {
    super::super::human::plural(rows, "row")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(status: &str, rows: u64, crc: &str) -> EndLine {
        EndLine { status: status.to_owned(), rows, max_rows: None, crc64nvme: Some(crc.to_owned()) }
    }

    fn received(end_record: Option<EndLine>) -> Received {
        Received { rows: 2, bytes: 9, crc64nvme: "crc".to_owned(), ends_whole: true, end_record }
    }

    fn receipt(status: &str, rows: u64, crc: &str) -> ReceiptJson {
        let (status, crc64nvme) = (status.to_owned(), Some(crc.to_owned()));
        ReceiptJson { status, rows: Some(rows), max_rows: Some(2), crc64nvme, error: None }
    }

    #[test]
    fn every_proof_must_agree_and_one_is_enough() {
        use ExportErrorKind::{SourceUnavailable, Verification};
        let good = end("complete", 2, "crc");
        let proof = |end: Option<EndLine>, trailers: Option<EndLine>, receipt: Result<ReceiptJson, &str>| {
            let verdict = judge(&received(end), false, trailers.as_ref(), receipt.as_ref().map_err(|why| *why));
            verdict.map(|verdict| (verdict.proof, verdict.status)).map_err(|error| error.kind)
        };
        let complete = RunStatus::Complete;
        let whole = || Ok(receipt("complete", 2, "crc"));
        assert_eq!(proof(None, None, whole()), Ok(("receipt", complete)));
        assert_eq!(proof(None, None, Ok(receipt("truncated", 2, "crc"))), Ok(("receipt", RunStatus::Truncated)));
        assert_eq!(proof(Some(good.clone()), None, Err("gone")), Ok(("end record", complete)));
        assert_eq!(proof(None, Some(good.clone()), Err("gone")), Ok(("trailers", complete)));
        assert_eq!(proof(None, None, Err("gone")), Err(SourceUnavailable));
        assert_eq!(proof(None, None, Ok(receipt("streaming", 2, "crc"))), Err(SourceUnavailable));
        assert_eq!(proof(Some(good.clone()), None, Ok(receipt("streaming", 2, "crc"))), Ok(("end record", complete)));
        for wrong in [end("complete", 3, "crc"), end("complete", 2, "other"), end("odd", 2, "crc")] {
            assert_eq!(proof(Some(wrong.clone()), None, whole()), Err(Verification));
            assert_eq!(proof(Some(good.clone()), Some(wrong), whole()), Err(Verification));
        }
        assert_eq!(proof(Some(good.clone()), None, Ok(receipt("complete", 1, "crc"))), Err(Verification));
        assert_eq!(proof(Some(good), None, Ok(receipt("failed", 2, "crc"))), Err(SourceUnavailable));
    }

    #[test]
    fn a_promise_that_is_not_kept_and_half_a_row_are_a_cut_stream() {
        let whole = receipt("complete", 2, "crc");
        let error = judge(&received(None), true, None, Ok(&whole)).unwrap_err();
        assert!(error.message.contains("end record that was promised"), "{error}");
        let half = Received { ends_whole: false, ..received(None) };
        assert!(judge(&half, false, None, Ok(&whole)).unwrap_err().message.contains("last row"));
    }

    #[test]
    fn what_would_fail_again_is_not_worth_another_attempt() {
        let told = |code: &str| {
            let error = Some(ReceiptError { code: code.to_owned(), message: "why\nso".to_owned() });
            failed(&ReceiptJson { error, ..receipt("failed", 1, "") }).unwrap()
        };
        assert!(told("source_unavailable").kind.retryable());
        let error = told("key_not_selective");
        assert!(!error.kind.retryable());
        assert_eq!(error.message, "the stream failed: why so (key_not_selective)");
        assert!(failed(&receipt("complete", 2, "crc")).is_none());
    }

    #[test]
    fn trailers_that_lack_something_prove_nothing() {
        let mut headers = HeaderMap::new();
        headers.insert("x-outhaul-export-rows", "2".parse().unwrap());
        headers.insert("x-outhaul-export-truncated", "true".parse().unwrap());
        assert_eq!(of_trailers(&headers), None);
        headers.insert("x-outhaul-export-crc64nvme", "crc".parse().unwrap());
        assert_eq!(of_trailers(&headers), Some(end("truncated", 2, "crc")));
    }
}
