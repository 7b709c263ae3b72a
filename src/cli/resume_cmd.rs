//! `outhaul resume`.

use clap::ArgMatches;

use super::exit::Truncation;
use super::looks::Looks;
use super::progress::View;
use super::run_view::JobTotals;
use super::session::{self, Facts};
use super::summary::{Failure, Left};
use super::{CommandContext, args, engine, export_cmd, run_cmd};
use crate::config::{self, Resumption};
use crate::export::job_resume::{find_job, resume_job};
use crate::export::resume::{self, ResumeRequest};
use crate::store::shown;

pub(super) async fn resume(matches: &ArgMatches, context: &CommandContext) -> u8 {
    let (source, Resumption { readers, aws_credential_command, external, protect_key }, mut options) =
        match config::load_resume(args::flags(matches), &context.environment) {
            Ok(loaded) => loaded,
            Err(errors) => return context.refuse(&errors),
        };
    // Which relation it is stands in the run's record, which is not read yet.
    options.labels = vec![("to", shown(matches.get_one::<String>("dest").map_or("", String::as_str)))];
    context.start_logs(Looks::of(options.color, options.log_format));
    let front = export_cmd::front(&options, context);
    let request = ResumeRequest {
        source,
        destination: matches.get_one::<String>("dest").cloned().unwrap_or_default(),
        single_file: matches.get_flag("single_file"),
        readers,
        allow_mixed_snapshot: matches.get_flag("allow_mixed_snapshot"),
        unfinished: matches.get_flag("unfinished"),
        take_over: matches.get_flag("take_over"),
        aws_credential_command,
        external: external.map(|_| engine::line(options.stdin)),
        protect_key,
    };
    match context.unless_stopped("stopped while looking for the run", find_job(&request)).await {
        Ok(None) => {}
        Ok(Some(job)) => {
            if front.view == View::Json {
                return front.fail(&Failure::early(&run_cmd::no_json_events()));
            }
            let totals = JobTotals::of_resumed(&job);
            return export_cmd::with_metrics(&front, &options, async {
                run_cmd::carry_out(totals, &front, |events, cancel| resume_job(job, events, cancel)).await
            })
            .await;
        }
        Err(error) => return front.fail(&Failure::early(&error)),
    }
    // The run's own id is told by its first event.
    let facts = Facts { run_id: None, truncation: Truncation::Signalled, left: Left::Nothing };
    export_cmd::with_metrics(&front, &options, async {
        session::export(&front, &facts, |events, cancel| resume::resume(request, events, cancel)).await
    })
    .await
}
