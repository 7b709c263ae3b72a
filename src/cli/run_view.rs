//! What people and scripts see of a job: totals while it runs, a table and a report at its end.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use tokio::sync::mpsc::{Receiver, Sender};

use super::exit::{self, Truncation};
use super::human;
use super::report::ErrorRecord;
use super::screen::Screen;
use super::summary::{self, Failure};
use super::table::Table;
use crate::base::words::counted;
use crate::export::ExportError;
use crate::export::job::{ExportEvent, JobOutcome, JobReport, JobRequest};
use crate::export::job_resume::ResumableJob;
use crate::model::{Event, ExportReport, ResumedProgress, RunStatus, SnapshotScope};

/// Exit codes from the gravest on: the first that an export has is the job's.
const GRAVITY: [u8; 18] = [
    1,
    2,
    exit::VERIFICATION,
    10,
    20,
    13,
    14,
    15,
    22,
    23,
    12,
    11,
    21,
    16,
    143,
    130,
    exit::READER_GONE,
    exit::TRUNCATED,
];

/// The gravest of some exit codes.
pub(super) fn gravest(codes: impl IntoIterator<Item = u8>) -> u8 {
    let rank = |code: u8| GRAVITY.iter().position(|known| *known == code).unwrap_or(GRAVITY.len());
    codes.into_iter().min_by_key(|code| rank(*code)).unwrap_or(exit::COMPLETE)
}

/// What is known of one export while the job runs.
#[derive(Debug, Clone, Default)]
struct Sum {
    planned: bool,
    ended: bool,
    estimated_rows: Option<u64>,
    estimated_bytes: Option<u64>,
    partitions: usize,
    done: usize,
    rows: u64,
    bytes: u64,
    snapshot: Option<String>,
}

/// The events of all exports as those of one.
#[derive(Debug)]
pub(super) struct JobTotals {
    names: Vec<String>,
    /// The names of those that are asked for their first rows alone.
    limited: BTreeSet<String>,
    run_id: String,
    root: String,
    readers: usize,
    sums: Vec<Sum>,
    /// Whether each export is planned only when it is its turn.
    in_turns: bool,
    told_plan: bool,
}

impl JobTotals {
    pub(super) fn new(job: &JobRequest) -> Self {
        let names: Vec<String> = job.exports.iter().map(|export| export.name.clone()).collect();
        let limited = job.exports.iter().filter(|export| export.limited).map(|export| export.name.clone());
        Self {
            limited: limited.collect(),
            run_id: job.run_id.clone(),
            root: crate::store::shown(&job.root),
            readers: job.exports.iter().map(|export| export.request.work.readers.get()).max().unwrap_or(1),
            sums: vec![Sum::default(); names.len()],
            in_turns: job.snapshot == SnapshotScope::Export,
            told_plan: false,
            names,
        }
    }

    /// Those of a run that is resumed.
    pub(super) fn of_resumed(job: &ResumableJob) -> Self {
        let names = job.names();
        Self {
            // Their record has only that a truncation is allowed.
            limited: BTreeSet::new(),
            run_id: job.run_id().to_owned(),
            root: job.root().to_owned(),
            readers: job.readers(),
            sums: vec![Sum::default(); names.len()],
            in_turns: job.snapshot() == SnapshotScope::Export,
            told_plan: false,
            names,
        }
    }

    pub(super) fn run_id(&self) -> &str {
        &self.run_id
    }

    pub(super) fn limited(&self) -> &BTreeSet<String> {
        &self.limited
    }

    /// Tells what happens for as long as events come; each export that has committed has a line of its own.
    pub(super) async fn tell(
        mut self,
        mut heard: Receiver<ExportEvent>,
        events: Sender<Event>,
        screen: Option<Screen>,
    ) {
        let started = Event::RunStarted {
            run_id: self.run_id.clone(),
            relation: counted(self.names.len(), "export"),
            destination: self.root.clone(),
            format: "mixed".to_owned(),
            compression: "mixed".to_owned(),
            single_file: false,
            readers: self.readers,
        };
        let _ = events.send(started).await;
        while let Some(ExportEvent { export, event }) = heard.recv().await {
            let line = self.take_in(export, event);
            if let (Some(line), Some(screen)) = (line, &screen) {
                screen.line(&line);
            }
            let all_planned = self.sums.iter().all(|sum| sum.planned || sum.ended);
            if all_planned && !std::mem::replace(&mut self.told_plan, true) {
                let _ = events.send(self.plan()).await;
            }
            if self.told_plan || self.in_turns {
                // A full queue drops this one: the next says it better.
                let _ = events.try_send(self.progress());
            }
        }
    }

    /// Adds an event; what is to be said of it.
    fn take_in(&mut self, export: usize, event: Event) -> Option<String> {
        let sum = self.sums.get_mut(export)?;
        match event {
            Event::Planned { partitions, estimated_rows, estimated_bytes, snapshot, .. } => {
                *sum = Sum { planned: true, estimated_rows, estimated_bytes, partitions, snapshot, ..sum.clone() };
            }
            Event::Progress { rows, bytes, partitions_done, partitions, .. } => {
                *sum = Sum { rows, bytes, done: partitions_done, partitions, ..sum.clone() };
            }
            Event::RunFinished { report } => {
                sum.ended = true;
                sum.done = sum.partitions;
                sum.rows = report.rows_read_now;
                sum.bytes = report.bytes_written_now;
                let name = self.names.get(export)?;
                let what = human::rows_in_parts(report.rows, report.parts);
                let done = if report.already_committed { ", committed before" } else { "" };
                return Some(format!("{name}: {what}, {}{done}", human::bytes(report.bytes)));
            }
            _ => {}
        }
        None
    }

    fn plan(&self) -> Event {
        let all = |of: fn(&Sum) -> Option<u64>| {
            let known = self.sums.iter().filter(|sum| sum.planned).map(of);
            known.collect::<Option<Vec<u64>>>().map(|all| all.into_iter().fold(0, u64::saturating_add))
        };
        Event::Planned {
            run_id: self.run_id.clone(),
            partitions: self.sums.iter().map(|sum| sum.partitions).sum(),
            estimated_rows: all(|sum| sum.estimated_rows),
            estimated_bytes: all(|sum| sum.estimated_bytes),
            snapshot: self.sums.iter().find_map(|sum| sum.snapshot.clone()),
            truncated: false,
            resumed: ResumedProgress::default(),
        }
    }

    fn progress(&self) -> Event {
        Event::Progress {
            rows: self.sums.iter().fold(0, |all, sum| all.saturating_add(sum.rows)),
            bytes: self.sums.iter().fold(0, |all, sum| all.saturating_add(sum.bytes)),
            partitions_done: self.sums.iter().map(|sum| sum.done).sum(),
            partitions: self.sums.iter().map(|sum| sum.partitions).sum(),
            readers: Vec::new(),
        }
    }
}

/// The end of a job.
#[derive(Debug)]
pub(super) struct JobSummary<'a> {
    report: &'a JobReport,
    /// The names of the exports that are asked for their first rows alone.
    limited: &'a BTreeSet<String>,
    exit_code: u8,
}

/// What a job is as a whole: as the worst of its exports, whatever the exit code allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum JobVerdict {
    Complete,
    /// All exports stand, and some without all of their rows.
    Truncated,
    /// An export failed, or the record of the run.
    Incomplete,
}

/// The JSON form.
#[derive(Debug, Serialize)]
pub(super) struct JobJson<'a> {
    schema_version: u32,
    exit_code: u8,
    status: JobVerdict,
    run_id: &'a str,
    root: &'a str,
    record: Option<&'a str>,
    one_instant: bool,
    retryable: bool,
    /// Whether `outhaul resume` goes on with an export that did not commit.
    resumable: bool,
    exports: Vec<ExportJson<'a>>,
}

#[derive(Debug, Serialize)]
struct ExportJson<'a> {
    name: &'a str,
    exit_code: u8,
    /// As a report of `outhaul export` has it.
    #[serde(flatten)]
    body: serde_json::Value,
}

impl<'a> JobSummary<'a> {
    pub(super) fn new(report: &'a JobReport, limited: &'a BTreeSet<String>) -> Self {
        let of_record = report.record.as_ref().err().map(|error| exit::failed(error.kind));
        let exit_code = gravest(report.exports.iter().map(code).chain(of_record));
        Self { report, limited, exit_code }
    }

    pub(super) fn exit_code(&self) -> u8 {
        self.exit_code
    }

    pub(super) fn status(&self) -> JobVerdict {
        if self.failed().next().is_some() {
            JobVerdict::Incomplete
        } else if self.truncated(true).chain(self.truncated(false)).next().is_some() {
            JobVerdict::Truncated
        } else {
            JobVerdict::Complete
        }
    }

    /// The exports that stand without all of their rows: those that are asked for no more, or those that a cap cut short.
    fn truncated(&self, as_asked: bool) -> impl Iterator<Item = (&'a JobOutcome, &'a ExportReport)> {
        let limited = self.limited;
        let stands = self.report.exports.iter().filter_map(|export| Some((export, export.result.as_ref().ok()?)));
        stands.filter(move |(export, report)| {
            report.status == RunStatus::Truncated && limited.contains(&export.name) == as_asked
        })
    }

    /// What even `-q` shows: a line for each export that a cap cut short.
    pub(super) fn truncations(&self) -> Vec<String> {
        let line = |(export, report): (&JobOutcome, _)| summary::truncation(&export.name, report, code(export));
        self.truncated(false).map(line).collect()
    }

    fn failed(&self) -> impl Iterator<Item = &'a ExportError> {
        let exports = self.report.exports.iter().filter_map(|export| export.result.as_ref().err());
        exports.chain(self.report.record.as_ref().err())
    }

    fn heading(&self) -> String {
        let (all, exit_code) = (counted(self.report.exports.len(), "export"), self.exit_code);
        let failed = self.report.exports.iter().filter(|export| export.result.is_err()).count();
        let cut = self.truncated(false).count();
        match self.status() {
            JobVerdict::Incomplete if failed == 0 => {
                format!("incomplete: {all}, and no record of the run; exit {exit_code}")
            }
            JobVerdict::Incomplete => format!("incomplete: {failed} of {all} failed; exit {exit_code}"),
            JobVerdict::Truncated if cut == 0 => {
                format!("the first rows of {} of {all}, as asked; there are more", self.truncated(true).count())
            }
            JobVerdict::Truncated => format!("TRUNCATED: {cut} of {all} cut short by a cap; exit {exit_code}"),
            JobVerdict::Complete => format!("complete: {all}"),
        }
    }

    /// The errors, each with the name of its export.
    pub(super) fn failures(&self) -> Vec<String> {
        let failed = |export: &JobOutcome| {
            let error = export.result.as_ref().err()?;
            Some(format!("{}: {}", export.name, summary::error_text(&Failure::early(error), false)))
        };
        let record = self
            .report
            .record
            .as_ref()
            .err()
            .map(|error| format!("the run's record: {}", summary::error_text(&Failure::early(error), false)));
        self.report.exports.iter().filter_map(failed).chain(record).collect()
    }

    pub(super) fn errors(&self) -> Vec<ErrorRecord> {
        self.failed().map(ErrorRecord::of).collect()
    }

    pub(super) fn body(&self) -> JobJson<'a> {
        let exports = self.report.exports.iter().map(|export| ExportJson {
            name: &export.name,
            exit_code: code(export),
            body: body(export),
        });
        JobJson {
            schema_version: summary::SCHEMA_VERSION,
            exit_code: self.exit_code,
            status: self.status(),
            run_id: &self.report.run_id,
            root: &self.report.root,
            record: self.report.record.as_deref().ok(),
            one_instant: self.report.one_instant,
            retryable: self.failed().next().is_some() && self.failed().all(|error| error.kind.retryable()),
            resumable: self.failed().any(|error| error.resumable),
            exports: exports.collect(),
        }
    }
}

/// What is said of an export: as a report of its own has it, without what the envelope says.
fn body(export: &JobOutcome) -> serde_json::Value {
    let body = match &export.result {
        Ok(report) => serde_json::to_value(summary::committed(report, code(export))),
        Err(error) => serde_json::to_value(summary::failed(&Failure {
            destination: Some(&export.destination),
            ..Failure::early(error)
        })),
    };
    let mut body = body.unwrap_or_default();
    if let Some(members) = body.as_object_mut() {
        members.remove("schema_version");
        members.remove("exit_code");
        members.insert("relation".to_owned(), export.relation.clone().into());
    }
    body
}

fn code(export: &JobOutcome) -> u8 {
    match &export.result {
        Ok(report) => exit::committed(report.status, Truncation::from_flag(report.truncation_allowed)),
        Err(error) => exit::failed(error.kind),
    }
}

impl fmt::Display for JobSummary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::default();
        table.right(1).right(2).right(3);
        table.row(["export", "rows", "parts", "size", ""].map(str::to_owned));
        for export in &self.report.exports {
            let cells = if let Ok(report) = &export.result {
                let note = match (report.status, report.already_committed) {
                    (RunStatus::Truncated, _) if self.limited.contains(&export.name) => "the first rows, as asked",
                    (RunStatus::Truncated, _) => "truncated",
                    (RunStatus::Complete, true) => "committed before",
                    (RunStatus::Complete, false) => "",
                };
                let rows = report.rows.map_or_else(String::new, human::count);
                [export.name.clone(), rows, human::count(report.parts), human::bytes(report.bytes), note.to_owned()]
            } else {
                let note = format!("failed, exit {}", code(export));
                [export.name.clone(), String::new(), String::new(), String::new(), note]
            };
            table.row(cells);
        }
        writeln!(f, "{}\n{table}", self.heading())?;
        if !self.report.one_instant {
            let why = match self.report.snapshot {
                SnapshotScope::Run => "some were committed by an earlier try",
                SnapshotScope::Export => "each has its own snapshot",
            };
            writeln!(f, "  the exports are not of one instant: {why}")?;
        }
        write!(f, "  run       {}", self.report.run_id)?;
        if let Ok(record) = &self.report.record {
            write!(f, "\n  record    {record}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::report::tests as reports;
    use crate::cli::{golden, samples};
    use crate::model::ExportErrorKind;

    fn report(second: Result<ExportReport, ExportError>) -> JobReport {
        let outcome = |name: &str, result| JobOutcome {
            name: name.to_owned(),
            relation: name.to_owned(),
            destination: format!("s3://lake/night/{name}"),
            single_file: false,
            result,
        };
        JobReport {
            run_id: samples::RUN.to_owned(),
            root: "s3://lake/night".to_owned(),
            record: Ok(format!("s3://lake/night/_runs/{}.json", samples::RUN)),
            one_instant: true,
            snapshot: SnapshotScope::Run,
            exports: vec![outcome("public.lineitem", Ok(samples::report())), outcome("public.orders", second)],
        }
    }

    #[test]
    fn jobs_have_their_goldens() {
        let missing = || ExportError::new(ExportErrorKind::SourceMissing, "table public.orders does not exist");
        let none = BTreeSet::new();
        let mixed = JobReport { one_instant: false, ..report(Ok(samples::truncated())) };
        for (name, job) in [
            ("job_complete", report(Ok(samples::report()))),
            ("job_incomplete", report(Err(missing()))),
            ("job_mixed", mixed),
        ] {
            let view = JobSummary::new(&job, &none);
            golden::check(&format!("summary/{name}.txt"), &format!("{view}\n"));
            reports::check_of("run", &format!("report_v1/{name}.json"), &view.body(), &view.errors());
        }
    }

    #[test]
    fn a_job_is_as_the_worst_of_its_exports() {
        let allowed = ExportReport { truncation_allowed: true, ..samples::truncated() };
        let unrecorded = ExportError::new(ExportErrorKind::DestinationUnavailable, "writing the record");
        let (whole, none) = (samples::report(), BTreeSet::new());
        let asked = BTreeSet::from(["public.orders".to_owned()]);
        let cut = "TRUNCATED: 1 of 2 exports cut short by a cap; exit";
        for (job, limited, status, heading) in [
            (report(Ok(whole.clone())), &asked, JobVerdict::Complete, "complete: 2 exports".to_owned()),
            (report(Ok(samples::truncated())), &none, JobVerdict::Truncated, format!("{cut} 3")),
            (report(Ok(allowed.clone())), &none, JobVerdict::Truncated, format!("{cut} 0")),
            (
                report(Ok(allowed)),
                &asked,
                JobVerdict::Truncated,
                "the first rows of 1 of 2 exports, as asked; there are more".to_owned(),
            ),
            (
                JobReport { record: Err(unrecorded), ..report(Ok(whole)) },
                &none,
                JobVerdict::Incomplete,
                "incomplete: 2 exports, and no record of the run; exit 21".to_owned(),
            ),
        ] {
            let view = JobSummary::new(&job, limited);
            assert_eq!((view.status(), view.heading()), (status, heading));
            assert_eq!(view.truncations().len(), usize::from(view.heading().starts_with(cut)));
        }
    }

    #[test]
    fn the_gravest_code_is_the_jobs() {
        for (codes, expected) in [
            (vec![], 0),
            (vec![0, 0], 0),
            (vec![0, 3], 3),
            (vec![3, 16, 0], 16),
            (vec![16, 13], 13),
            (vec![13, 10, 22], 10),
            (vec![130, 12], 12),
            (vec![2, 1], 1),
        ] {
            assert_eq!(gravest(codes.clone()), expected, "{codes:?}");
        }
        let order = [1, 2, 30, 10, 20, 13, 14, 15, 22, 23, 12, 11, 21, 16, 143, 130, 3, 0];
        for (place, graver) in order.into_iter().enumerate() {
            for other in order.into_iter().skip(place) {
                assert_eq!([gravest([graver, other]), gravest([other, graver])], [graver; 2], "{graver} {other}");
            }
        }
    }

    #[test]
    fn a_job_may_be_tried_again_where_every_failed_export_may() {
        let failed = |kind| Err(ExportError::new(kind, "it failed"));
        let (again, never) = (ExportErrorKind::SourceUnavailable, ExportErrorKind::Usage);
        for (kinds, retryable) in [
            (&[][..], false),
            (&[again], true),
            (&[again, ExportErrorKind::GaveWay], true),
            (&[again, never], false),
            (&[never, again], false),
        ] {
            let mut job = report(Ok(samples::report()));
            for kind in kinds {
                job.exports.extend(report(failed(*kind)).exports.pop());
            }
            assert_eq!(JobSummary::new(&job, &BTreeSet::new()).body().retryable, retryable, "{kinds:?}");
        }
    }
}
