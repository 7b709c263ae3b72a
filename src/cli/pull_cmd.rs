//! `outhaul pull`: a stream of `outhaul serve` into a file that is whole or has another name.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use clap::ArgMatches;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};

use super::exit::{self, Truncation};
use super::pull::ask::{self, PullFormat, PullRequest};
use super::pull::file::{self, PullOutput};
use super::pull::key::{self, ApiKey};
use super::pull::refusal;
use super::pull::rows::{EndLine, Received, RowReader};
use super::pull::truth::{self, Verdict};
use super::screen::stdout_line;
use super::{CommandContext, human};
use crate::base::http::{HttpError, HttpServer};
use crate::base::{failpoint, voice};
use crate::export::ExportError;
use crate::model::{ErrorCode, ExportErrorKind, RunStatus};

/// A service that sends nothing for so long is taken for dead: it reads a page within its own limits, which are shorter.
const SILENCE_MAX: Duration = Duration::from_mins(5);

/// How often a log hears of progress, and how often a terminal does.
const PROGRESS_INTERVALS: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(1)];

const STOPPED: &str = "stopped while pulling";

/// What a pull needs all the way.
struct Pull<'a> {
    context: &'a CommandContext,
    server: HttpServer,
    key: ApiKey,
    asked: PullRequest,
    /// The file, or `-`.
    output: &'a str,
    replace: bool,
}

/// A stream that has begun.
struct PullStream {
    id: Option<String>,
    /// Whether the service promised an end record.
    promised: bool,
    body: Incoming,
}

/// A stream that is whole.
struct Pulled {
    id: Option<String>,
    received: Received,
    verdict: Verdict,
}

pub(super) async fn pull(matches: &ArgMatches, context: &CommandContext) -> u8 {
    context.start_logs(context.screen.looks());
    let pulled = match prepared(matches, context).await {
        Ok(pull) => pull.run().await.map(|pulled| (pulled, pull.output)),
        Err(error) => Err(error),
    };
    match pulled {
        Ok((pulled, output)) => tell(&pulled, output, matches.get_flag("allow_truncated"), context),
        Err(error) => context.fail(&error),
    }
}

async fn prepared<'a>(matches: &'a ArgMatches, context: &'a CommandContext) -> Result<Pull<'a>, ExportError> {
    let usage = |what: String| ExportError::new(ExportErrorKind::Usage, what);
    let url = matches.get_one::<String>("url").map_or("", String::as_str);
    let server = HttpServer::parse(url).map_err(|error| usage(error.to_string()))?;
    let asked = ask::request(matches).map_err(usage)?;
    let output = matches.get_one::<String>("output").map_or("-", String::as_str);
    let replace = matches.get_one::<String>("on_existing").is_some_and(|wish| wish == "replace");
    if output != "-" {
        file::place(Path::new(output), replace)?;
    }
    let key = context.unless_stopped(STOPPED, key::find(matches, context)).await?;
    if server.is_open() {
        let host = server.authority();
        context
            .screen
            .line(&format!("warning: without TLS others can read the key on the way to {host}: use https://"));
    }
    Ok(Pull { context, server, key, asked, output, replace })
}

impl Pull<'_> {
    async fn run(&self) -> Result<Pulled, ExportError> {
        let opened = self.context.unless_stopped(STOPPED, self.open()).await?;
        let mut output = PullOutput::open(self.output, self.replace, &self.context.screen)?;
        let PullStream { id, promised, body } = opened;
        let read = self.context.unless_stopped(STOPPED, self.read(body, promised, &mut output)).await;
        let judged = match read {
            Ok((received, trailers)) => {
                let judging = async { Ok(self.judged(id.as_deref(), &received, promised, trailers.as_ref()).await) };
                let verdict = self.context.unless_stopped(STOPPED, judging).await.and_then(|judged| judged);
                verdict.map(|verdict| (received, verdict))
            }
            Err(error) => Err(self.explained(error, id.as_deref()).await),
        };
        match judged {
            Ok((received, verdict)) => {
                output.publish()?;
                Ok(Pulled { id, received, verdict })
            }
            Err(mut error) => {
                if let Some(partial) = output.keep() {
                    let kept = format!("what came is in {partial}, which is not whole");
                    error.hint = Some(error.hint.map_or_else(|| kept.clone(), |hint| format!("{hint}; {kept}")));
                }
                Err(error)
            }
        }
    }

    /// Asks for the rows.
    async fn open(&self) -> Result<PullStream, ExportError> {
        let request = Request::post(self.server.path(&self.asked.path))
            .header(HOST, self.server.authority())
            .header(AUTHORIZATION, self.key.authorization())
            .header(CONTENT_TYPE, "application/json")
            // What the checksum is of.
            .header(ACCEPT_ENCODING, "identity")
            .header(TE, "trailers")
            .header(CONNECTION, "TE")
            .header(USER_AGENT, concat!("outhaul/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(self.asked.body.to_string())));
        let request = request.map_err(|error| ExportError::internal("making the request").with_source(error))?;
        let (head, body) = self.server.send(request).await.map_err(unreachable)?.into_parts();
        if head.status != StatusCode::OK {
            let body = refusal::small_body(body).await;
            return Err(refusal::error(head.status, &head.headers, body.as_deref()));
        }
        self.check_headers(&head.headers)?;
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        if text("x-outhaul-export-truncated-hint").as_deref() == Some("true") {
            self.context.screen.line("the cap of this key will cut rows off");
        }
        let promised = text("x-outhaul-export-end-record").as_deref() == Some("true");
        let promised = promised && self.asked.format == PullFormat::Ndjson;
        Ok(PullStream { id: text("x-outhaul-export-id"), promised, body })
    }

    /// A page of a proxy is no stream of rows, and one that a proxy coded has another checksum.
    fn check_headers(&self, headers: &HeaderMap) -> Result<(), ExportError> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default().to_ascii_lowercase());
        let other = |what: String| Err(ExportError::new(ExportErrorKind::SourceUnavailable, what));
        if let Some(coding) = text(CONTENT_ENCODING).filter(|coding| coding != "identity") {
            return other(format!("something before the service coded the rows as {}", voice::one_line(&coding)));
        }
        let (found, wanted) = (text(CONTENT_TYPE).unwrap_or_default(), self.asked.format.content_type());
        if !found.starts_with(wanted) {
            return other(format!("the answer is {:?} and not {wanted}", voice::one_line(&found)));
        }
        Ok(())
    }

    /// Reads the stream to its end, as HTTP has it.
    async fn read(
        &self,
        mut body: Incoming,
        promised: bool,
        output: &mut PullOutput,
    ) -> Result<(Received, Option<EndLine>), ExportError> {
        let silence = failpoint::limit("pull_silence", SILENCE_MAX);
        let mut reader = RowReader::new(self.asked.format, promised);
        let mut progress = PullProgress::new(self.context);
        let (mut data, mut trailers) = (Vec::new(), None);
        loop {
            let frame = timeout(silence, body.frame()).await.map_err(|_| {
                let what = format!("the service sent nothing for {} s", silence.as_secs());
                ExportError::new(ExportErrorKind::SourceUnavailable, what)
            })?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| {
                ExportError::new(ExportErrorKind::SourceUnavailable, "the stream broke off").with_source(error)
            })?;
            match frame.into_data() {
                Ok(piece) => {
                    reader.take(&piece, &mut data);
                    output.write(std::mem::take(&mut data)).await?;
                    progress.show(&reader);
                }
                Err(frame) => trailers = frame.trailers_ref().and_then(truth::of_trailers).or(trailers),
            }
        }
        let received = reader.finish(&mut data);
        output.write(data).await?;
        Ok((received, trailers))
    }

    async fn judged(
        &self,
        id: Option<&str>,
        received: &Received,
        promised: bool,
        trailers: Option<&EndLine>,
    ) -> Result<Verdict, ExportError> {
        let receipt = match id {
            Some(id) => truth::receipt(&self.server, id, &self.key).await,
            None => Err("the answer names no export".to_owned()),
        };
        let verdict = truth::judge(received, promised, trailers, receipt.as_ref().map_err(String::as_str))?;
        if let Err(why) = receipt {
            let proof = verdict.proof;
            self.context
                .screen
                .line(&format!("warning: the rows are judged by the {proof}, for there is no receipt: {why}"));
        }
        Ok(verdict)
    }

    /// Adds what the service says of a stream that broke.
    async fn explained(&self, error: ExportError, id: Option<&str>) -> ExportError {
        let Some(id) = id.filter(|_| error.kind == ExportErrorKind::SourceUnavailable) else { return error };
        let asked = async { Ok(truth::receipt(&self.server, id, &self.key).await) };
        let receipt = self.context.unless_stopped(STOPPED, asked).await;
        // A stream that was cut on the way may be told to be complete: then the error stays as it is.
        receipt.ok().and_then(Result::ok).as_ref().and_then(truth::failed).unwrap_or(error)
    }
}

fn unreachable(error: HttpError) -> ExportError {
    let (kind, code) = match &error {
        HttpError::Address(_) | HttpError::NotListed { .. } => (ExportErrorKind::Usage, None),
        HttpError::Tls { .. } => (ExportErrorKind::SourceAuthentication, Some(ErrorCode::TlsRefused)),
        HttpError::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
            (ExportErrorKind::SourceUnavailable, Some(ErrorCode::ConnectionRefused))
        }
        HttpError::Connect { .. } | HttpError::Exchange { .. } | HttpError::Silent { .. } => {
            (ExportErrorKind::SourceUnavailable, None)
        }
    };
    let mut failed =
        ExportError::new(kind, voice::sentence(&error.to_string(), std::error::Error::source(&error), false));
    failed.code = code;
    failed.told = true;
    failed.with_source(error)
}

/// Tells of the rows that came now and then.
struct PullProgress<'a> {
    context: &'a CommandContext,
    interval: Duration,
    next: Instant,
}

impl<'a> PullProgress<'a> {
    fn new(context: &'a CommandContext) -> Self {
        let [log, terminal] = PROGRESS_INTERVALS;
        let interval = failpoint::limit("pull_progress", if io::stderr().is_terminal() { terminal } else { log });
        Self { context, interval, next: Instant::now() + interval }
    }

    fn show(&mut self, reader: &RowReader) {
        let now = Instant::now();
        if now < self.next || self.context.verbosity < 0 {
            return;
        }
        self.next = now + self.interval;
        let (rows, bytes) = (human::plural(reader.rows(), "row"), human::bytes(reader.bytes()));
        self.context.screen.line(&format!("scanned {rows}, {bytes}…"));
    }
}

fn tell(pulled: &Pulled, output: &str, allow_truncated: bool, context: &CommandContext) -> u8 {
    let Pulled { id, received, verdict } = pulled;
    let exit_code = exit::committed(verdict.status, Truncation::from_flag(allow_truncated));
    let truncated = verdict.status == RunStatus::Truncated;
    if !context.reporter.is_json() && (context.verbosity >= 0 || exit_code != exit::COMPLETE) {
        let (rows, bytes) = (human::plural(received.rows, "row"), human::bytes(received.bytes));
        let said = if truncated {
            let exit = if exit_code == exit::COMPLETE { String::new() } else { format!(" (exit {exit_code})") };
            format!(
                "TRUNCATED: the cap of this key ended the rows at {}; there are more{exit}",
                human::count(received.rows)
            )
        } else {
            format!("complete: {rows}, {bytes}, checked by the {}", verdict.proof)
        };
        if output == "-" || truncated {
            context.screen.line(&said);
        } else {
            stdout_line(&said);
        }
    }
    let body = serde_json::json!({
        "schema_version": 1, "exit_code": exit_code, "status": verdict.status, "rows": received.rows,
        "bytes": received.bytes, "crc64nvme": received.crc64nvme, "max_rows": verdict.max_rows, "proof": verdict.proof,
        "export_id": id, "file": (output != "-").then_some(output), "retryable": false,
    });
    context.reporter.give(&context.screen, &body, &[]);
    exit_code
}
