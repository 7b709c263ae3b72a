//! `outhaul clean`.

use clap::ArgMatches;

use super::printable;
use super::screen::stdout_line;
use super::{CommandContext, exit, human};
use crate::export::clean::{self, CleanReport, CleanRequest, CleanedRun};

pub(super) async fn clean(matches: &ArgMatches, context: &CommandContext) -> u8 {
    let request = CleanRequest {
        destination: matches.get_one::<String>("dest").cloned().unwrap_or_default(),
        single_file: matches.get_flag("single_file"),
        dry_run: matches.get_flag("dry_run"),
        aws_credential_command: None,
    };
    let cleaned =
        context.unless_stopped("stopped while cleaning; the same command goes on", clean::clean(&request)).await;
    match cleaned {
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
