//! One export in front of a person or a script: progress while it runs, signals, and the report at its end.

use std::time::Instant;

use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::exit::{self, Truncation};
use super::looks::painted;
use super::printable;
use super::progress::{Progress, View};
use super::report::{ErrorRecord, ReportForm, ReportPlace, Reporter};
use super::screen::{Screen, stdout_line};
use super::signals::Signals;
use super::summary::{self, Failure, Left};
use crate::base::telemetry::{self, Outcome};
use crate::export::ExportError;
use crate::model::{Event, ExportErrorKind, ExportReport, RunStatus};

/// What people and scripts see of a command.
#[derive(Debug, Clone)]
pub(crate) struct Front {
    /// Standard error.
    pub(crate) screen: Screen,
    /// SIGINT and SIGTERM.
    pub(crate) signals: Signals,
    /// How progress is shown.
    pub(crate) view: View,
    pub(crate) reporter: Reporter,
    /// `-v`: the whole chain of an error.
    pub(crate) verbose: bool,
    /// `-q`: no summary of what went well.
    pub(crate) quiet: bool,
}

impl Front {
    /// Writes the report for people where it belongs.
    pub(crate) fn tell(&self, text: &str) {
        match self.reporter.place {
            ReportPlace::Stdout if self.screen.looks().paints_stdout() => {
                stdout_line(&painted(&printable::lines(text)));
            }
            ReportPlace::Stdout => stdout_line(&printable::lines(text)),
            ReportPlace::Stderr => self.screen.line(text),
        }
    }

    /// Tells of a run that did not commit; returns the exit code.
    pub(crate) fn fail(&self, failure: &Failure<'_>) -> u8 {
        // The events have said it, and a script that reads them expects nothing else.
        let said = self.view == View::Json && failure.run_id.is_some();
        // Whoever closes a pipe, as `head` does, has all that he wanted.
        if !said && failure.error.kind != ExportErrorKind::ReaderGone {
            self.screen.line(&summary::error_text(failure, self.verbose));
        }
        self.reporter.give(&self.screen, &summary::failed(failure), &[ErrorRecord::of(failure.error)]);
        exit::failed(failure.error.kind)
    }

    fn succeed(&self, report: &ExportReport, truncation: Truncation) {
        let exit_code = exit::committed(report.status, truncation);
        match self.reporter.form {
            ReportForm::Json => {}
            // A cap that cut rows off is told even to who wants to hear nothing.
            ReportForm::Text
                if self.quiet && report.status == RunStatus::Truncated && truncation != Truncation::Asked =>
            {
                self.screen.line(&summary::truncation(&report.relation, report, exit_code));
            }
            ReportForm::Text if self.quiet => {}
            ReportForm::Text => self.tell(&summary::text(report, truncation)),
        }
        self.reporter.give(&self.screen, &summary::committed(report, exit_code), &[]);
    }
}

/// What the front end knows of an export before it starts.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// The run's id; that of a run which is resumed is told by its first event.
    pub(crate) run_id: Option<String>,
    /// `--allow-truncated` and `--limit`.
    pub(crate) truncation: Truncation,
    pub(crate) left: Left,
}

/// Runs an export to its end and tells of it; returns the exit code. `start` is [`crate::export::run`] with its request.
///
/// # Cancel safety
/// Not to be dropped; the first signal stops the run, as [`crate::export::run`] says.
pub(crate) async fn export<F>(
    front: &Front,
    facts: &Facts,
    start: impl FnOnce(Sender<Event>, CancellationToken) -> F,
) -> u8
where
    F: Future<Output = Result<ExportReport, ExportError>>,
{
    let started = Instant::now();
    if let Some(run_id) = &facts.run_id {
        telemetry::run_named(run_id);
    }
    let (progress, events) = match Progress::start(front.view, &front.screen) {
        Ok(progress) => progress,
        Err(error) => {
            let error = ExportError::internal("starting the progress display").with_source(error);
            return front.fail(&Failure::early(&error));
        }
    };
    let result = start(events, front.signals.token().clone()).await.map_err(|error| by_signal(error, front));
    let truncation = match (facts.truncation, &result) {
        // What a resumed run was begun with stands in its record.
        (Truncation::Signalled, Ok(report)) if report.truncation_allowed => Truncation::Allowed,
        (given, _) => given,
    };
    let drained = progress.drain().await;
    let run_id = facts.run_id.clone().or_else(|| drained.run_id.clone());
    let (outcome, last, exit_code) = judged(&result, truncation, run_id.as_deref().unwrap_or_default());
    if let (None, Some(run_id)) = (&facts.run_id, &run_id) {
        telemetry::run_named(run_id);
    }
    telemetry::export_ended(outcome, started.elapsed());
    let destination = drained.destination.clone();
    let left = match (drained.commit_begun, facts.left) {
        (true, Left::Stream) => Left::WholeStream,
        (true, _) => Left::Commit,
        (false, left) => left,
    };
    let begun = drained.planned;
    drained.finish(&last).await;
    match &result {
        Ok(report) => front.succeed(report, truncation),
        Err(error) => {
            let (run_id, destination) = (run_id.as_deref(), destination.as_deref());
            front.fail(&Failure { error, run_id, destination, left, begun });
        }
    }
    exit_code
}

/// A run that was told to stop does not know by which signal.
pub(crate) fn by_signal(mut error: ExportError, front: &Front) -> ExportError {
    if error.kind == ExportErrorKind::Interrupted
        && let Some(stop) = front.signals.reason()
    {
        error.kind = stop.kind();
        error.message = format!("{} ({})", error.message, stop.name());
    }
    error
}

fn judged(result: &Result<ExportReport, ExportError>, truncation: Truncation, run_id: &str) -> (Outcome, Event, u8) {
    match result {
        Ok(report) => {
            let outcome = match report.status {
                RunStatus::Complete => Outcome::Complete,
                RunStatus::Truncated => Outcome::Truncated,
            };
            let last = Event::RunFinished { report: Box::new(report.clone()) };
            (outcome, last, exit::committed(report.status, truncation))
        }
        Err(error) => {
            let cancelled = error.kind.is_cancel();
            let exit_code = exit::failed(error.kind);
            let last = Event::RunFailed {
                run_id: run_id.to_owned(),
                kind: error.kind,
                error: error.sentence(),
                hint: error.hint.clone(),
                retryable: error.kind.retryable(),
            };
            (if cancelled { Outcome::Cancelled } else { Outcome::Failed }, last, exit_code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::report::tests as report;
    use crate::cli::samples::{self, RUN};
    use crate::cli::screen::tests::Kept;
    use crate::cli::signals::StopSignal;

    fn front(kept: &Kept, report: ReportForm, view: View) -> Front {
        // Under `--to -` everything is on one screen, which the tests can read.
        let reporter = report::reporter(report);
        Front { screen: kept.screen(), signals: Signals::default(), view, reporter, verbose: false, quiet: false }
    }

    fn facts() -> Facts {
        Facts { run_id: Some(RUN.into()), truncation: Truncation::Signalled, left: Left::Nothing }
    }

    async fn lasting(
        sender: Sender<Event>,
        events: Vec<Event>,
        result: Result<ExportReport, ExportError>,
    ) -> Result<ExportReport, ExportError> {
        for event in events {
            sender.send(event).await.unwrap();
        }
        result
    }

    #[tokio::test]
    async fn a_truncated_run_exits_three_and_says_so() {
        let kept = Kept::default();
        let front = front(&kept, ReportForm::Text, View::None);
        let code = export(&front, &facts(), |_, _| async { Ok(samples::truncated()) }).await;
        assert_eq!(code, 3);
        assert!(kept.text().starts_with("TRUNCATED: "), "{}", kept.text());
    }

    #[tokio::test]
    async fn quiet_is_silent_but_for_truncation() {
        let kept = Kept::default();
        let front = Front { quiet: true, ..front(&kept, ReportForm::Text, View::None) };
        assert_eq!(export(&front, &facts(), |_, _| async { Ok(samples::report()) }).await, 0);
        assert_eq!(kept.text(), "");
        export(&front, &facts(), |_, _| async { Ok(samples::truncated()) }).await;
        assert_eq!(
            kept.text(),
            "TRUNCATED: public.lineitem: first 10,000 rows of at least 10,001 by key (id), tier free; exit 3\n"
        );
    }

    #[tokio::test]
    async fn a_limit_is_no_truncation_to_whoever_asked_for_it() {
        let kept = Kept::default();
        let front = front(&kept, ReportForm::Text, View::None);
        let facts = Facts { truncation: Truncation::Asked, ..facts() };
        assert_eq!(export(&front, &facts, |_, _| async { Ok(samples::truncated()) }).await, 0);
        let first = "the first 10,000 rows, as asked; there are more: public.lineitem";
        assert!(kept.text().starts_with(first) && !kept.text().contains("TRUNCATED"), "{}", kept.text());
    }

    #[tokio::test]
    async fn the_json_report_is_the_last_line_of_a_failure_too() {
        let kept = Kept::default();
        let front = front(&kept, ReportForm::Json, View::Plain);
        let error = ExportError::new(ExportErrorKind::DestinationFull, "writing data/part-00001-000-00000000.csv");
        let mut started = samples::events();
        started.truncate(2);
        let code = export(&front, &facts(), |sender, _| lasting(sender, started, Err(error))).await;
        assert_eq!(code, 23);
        let text = kept.text();
        let report: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(report["exit_code"], 23);
        assert_eq!(report["retryable"], false);
        assert_eq!(report["status"], "failed");
        assert_eq!(report["destination"], "s3://lake/lineitem/");
        assert!(text.contains("error: writing data/part-00001-000-00000000.csv\n"), "{text}");
        assert!(text.contains("; nothing was published)"), "{text}");
    }

    #[tokio::test]
    async fn json_events_stand_alone() {
        let kept = Kept::default();
        let front = front(&kept, ReportForm::Text, View::Json);
        let error = ExportError::new(ExportErrorKind::GaveWay, "locked");
        assert_eq!(export(&front, &facts(), |_, _| async { Err(error) }).await, 16);
        for line in kept.text().lines() {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(event["exit_code"], 16);
        }
    }

    #[tokio::test]
    async fn a_failure_after_the_commit_began_does_not_claim_that_nothing_is_there() {
        let kept = Kept::default();
        let front = front(&kept, ReportForm::Text, View::None);
        let error = ExportError::new(ExportErrorKind::DestinationUnavailable, "publishing");
        let event = vec![Event::Committing { parts: 1 }];
        assert_eq!(export(&front, &facts(), |sender, _| lasting(sender, event, Err(error))).await, 21);
        assert!(kept.text().contains("the commit had begun"), "{}", kept.text());
    }

    #[tokio::test]
    async fn a_signal_gives_the_run_its_exit_code() {
        for (stop, expected) in [(StopSignal::Interrupted, 130), (StopSignal::Terminated, 143)] {
            let kept = Kept::default();
            let front = front(&kept, ReportForm::Text, View::None);
            front.signals.first(stop);
            let run = |_, cancel: CancellationToken| async move {
                cancel.cancelled().await;
                Err(ExportError::cancelled())
            };
            assert_eq!(export(&front, &facts(), run).await, expected);
        }
    }
}
