//! `outhaul clean`.

use clap::ArgMatches;

use super::printable;
use super::screen::stdout_line;
use super::{CommandContext, exit, human};
use crate::export::clean::{self, CleanReport, CleanRequest, CleanedRun};
use crate::export::job_record::{CleanedJob, clean_job};
use crate::store::shown;

/// What a signal ends.
const STOPPED: &str = "stopped while cleaning; the same command goes on";

pub(super) async fn clean(matches: &ArgMatches, context: &CommandContext) -> u8 {
    let request = CleanRequest {
        destination: matches.get_one::<String>("dest").cloned().unwrap_or_default(),
        single_file: matches.get_flag("single_file"),
        dry_run: matches.get_flag("dry_run"),
        aws_credential_command: None,
    };
    match context.unless_stopped(STOPPED, clean_job(&request)).await {
        Ok(Some(job)) => return of_job(&request, &job, context),
        Ok(None) => {}
        Err(error) => return context.fail(&error),
    }
    match context.unless_stopped(STOPPED, clean::clean(&request)).await {
        Ok(report) => {
            if !context.reporter.is_json() && context.verbosity >= 0 {
                stdout_line(&printable::lines(&text(&report)));
            }
            let body = serde_json::json!({
                "schema_version": 1, "exit_code": exit::COMPLETE, "report": report, "retryable": false,
            });
            context.reporter.give(&context.screen, &body, &[]);
            exit::COMPLETE
        }
        Err(error) => context.fail(&error),
    }
}

/// Tells of the destinations of a job.
fn of_job(request: &CleanRequest, job: &CleanedJob, context: &CommandContext) -> u8 {
    if !context.reporter.is_json() && context.verbosity >= 0 {
        let touched = job.exports.iter().filter(|report| !report.runs.is_empty() || report.alive.is_some());
        let lines: Vec<String> = touched.map(text).collect();
        let places = u64::try_from(job.exports.len()).unwrap_or(u64::MAX);
        let nothing = || format!("nothing to clean at the job's {}", human::plural(places, "destination"));
        stdout_line(&printable::lines(&if lines.is_empty() { nothing() } else { lines.join("\n") }));
    }
    let report = CleanReport {
        destination: shown(&request.destination),
        dry_run: request.dry_run,
        runs: job.exports.iter().flat_map(|report| report.runs.clone()).collect(),
        alive: job.exports.iter().find_map(|report| report.alive.clone()),
    };
    let body = serde_json::json!({
        "schema_version": 1, "exit_code": exit::COMPLETE, "report": report, "exports": job.exports, "retryable": false,
    });
    context.reporter.give(&context.screen, &body, &[]);
    exit::COMPLETE
}

fn text(report: &CleanReport) -> String {
    let mut lines = Vec::new();
    match report.runs.len() {
        0 => lines.push(format!("nothing to clean at {}", report.destination)),
        _ if report.dry_run => lines.push(format!("would clean {}:", report.destination)),
        _ => lines.push(format!("cleaned {}:", report.destination)),
    }
    for run in &report.runs {
        lines.push(format!("  run {}: {}", run.run_id, outcome(run, report.dry_run)));
        lines.extend(run.traces.iter().map(|trace| format!("    {trace}")));
    }
    if let Some(alive) = &report.alive {
        lines.push(format!("  run {alive} is at work there and was left alone"));
    }
    lines.join("\n")
}

fn outcome(run: &CleanedRun, dry_run: bool) -> String {
    if dry_run {
        return "dead; would be removed".to_owned();
    }
    let counts = [(run.removed, "part"), (run.aborted, "upload"), (run.staged, "staged file")];
    let counts: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| human::plural(*count, what)).collect();
    let removed =
        if counts.is_empty() { "only records removed".to_owned() } else { format!("{} removed", counts.join(", ")) };
    if run.committed { format!("had committed, and is finished now; {removed}") } else { format!("dead; {removed}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_counted() {
        let run = CleanedRun { removed: 2, staged: 1, ..CleanedRun::default() };
        assert_eq!(outcome(&run, false), "dead; 2 parts, 1 staged file removed");
        let run = CleanedRun { committed: true, aborted: 3, ..CleanedRun::default() };
        assert_eq!(outcome(&run, false), "had committed, and is finished now; 3 uploads removed");
        assert_eq!(outcome(&CleanedRun::default(), false), "dead; only records removed");
        assert_eq!(outcome(&run, true), "dead; would be removed");
    }
}
