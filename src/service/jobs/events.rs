//! How a job goes on, for whoever follows it: server-sent events, numbered by the version of the job's record.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use futures_util::stream::unfold;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::ServiceState;
use super::super::limits::StreamPermit;
use super::super::problem::{ProblemBody, Refusal};
use super::super::state::{JobRecord, JobStatus};
use super::routes::found;
use crate::base::failpoint;

/// Between two looks at a job that somebody follows.
const BETWEEN_EVENTS: Duration = Duration::from_secs(1);

/// What `data` of an event is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobEvent {
    #[schema(value_type = String)]
    status: JobStatus,
    /// Whose numbers these are: another attempt begins anew.
    attempt: u32,
    processed_rows: u64,
    bytes: u64,
    parts: u64,
    /// Of the rows that are expected; none where nobody knows how many those are.
    percent: Option<u64>,
    eta_seconds: Option<u64>,
}

impl JobEvent {
    fn of(job: &JobRecord, now: DateTime<Utc>) -> Self {
        let done = job.progress.rows;
        let expected = job.estimated_rows.filter(|rows| *rows > 0);
        let percent = expected.map(|rows| percent(done, rows));
        let percent = if job.status.is_ready() { Some(100) } else { percent };
        let live = job.status == JobStatus::Running && done > 0;
        let spent = job.claimed_at.filter(|_| live).map(|at| (now - at).num_milliseconds().max(0).unsigned_abs());
        // An estimate that is passed says nothing more.
        let left = expected.and_then(|rows| rows.checked_sub(done));
        let eta = left.zip(spent).map(|(left, spent)| u128::from(spent) * u128::from(left) / u128::from(done) / 1_000);
        let eta_seconds = eta.and_then(|seconds| u64::try_from(seconds).ok());
        let super::super::state::JobProgress { rows, bytes, parts, .. } = job.progress;
        Self { status: job.status, attempt: job.attempt, processed_rows: rows, bytes, parts, percent, eta_seconds }
    }
}

/// Never all before the end.
fn percent(done: u64, expected: u64) -> u64 {
    let percent = u128::from(done) * 100 / u128::from(expected.max(1));
    u64::try_from(percent).map_or(99, |percent| percent.min(99))
}

/// How an export goes on, as server-sent events; the last has a final status.
#[utoipa::path(
    get,
    path = "/v1/exports/{id}/events",
    operation_id = "followExport",
    params(
        ("id" = String, Path, description = "The export"),
        ("Last-Event-ID" = Option<u64>, Header, description = "What is known already"),
    ),
    responses(
        (status = 200, description = "Events, whose data is JSON", body = JobEvent, content_type = "text/event-stream"),
        (status = 204, description = "The end is known already"),
        (status = "4XX", description = "A refusal", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "A failure", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn events(
    State(service): State<Arc<ServiceState>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let caller = service.caller(&headers)?;
    let job = found(&service, &caller, &id).await?;
    let known = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    // A number that no event has had yet is nobody's.
    let known = known.filter(|known| *known <= job.version);
    if job.status.is_final() && known == Some(job.version) {
        // By which a client of server-sent events asks no more.
        return Ok((StatusCode::NO_CONTENT, [(CACHE_CONTROL, "no-store")]).into_response());
    }
    let permit = service.limits.follower(&caller.owner())?;
    let follow = Follower { service, job: Some(job), known, owner: caller.owner(), id, _permit: permit };
    let events = unfold(follow, |mut follow| async move { Some((Ok::<_, Infallible>(follow.next().await?), follow)) });
    let headers = [(CACHE_CONTROL, "no-store"), (HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((headers, Sse::new(events).keep_alive(KeepAlive::default())).into_response())
}

/// Somebody who follows a job.
struct Follower {
    service: Arc<ServiceState>,
    /// What was found at the start; none once that is told, or once the end is.
    job: Option<JobRecord>,
    /// The version that he has.
    known: Option<u64>,
    owner: String,
    id: String,
    _permit: StreamPermit,
}

impl Follower {
    async fn next(&mut self) -> Option<Event> {
        loop {
            let job = match self.job.take() {
                Some(job) => job,
                None => self.look().await?,
            };
            let fresh = self.known.is_none_or(|known| job.version > known);
            if !fresh && job.status.is_final() {
                return None;
            }
            if fresh {
                self.known = Some(job.version);
                return Event::default().id(job.version.to_string()).json_data(JobEvent::of(&job, Utc::now())).ok();
            }
        }
    }

    /// Looks again, a little later; none once the service stops.
    async fn look(&self) -> Option<JobRecord> {
        tokio::select! {
            () = self.service.stopping.cancelled() => return None,
            () = tokio::time::sleep(failpoint::limit("job_events", BETWEEN_EVENTS)) => {}
        }
        self.service.store.job(self.id.clone(), self.owner.clone()).await.ok()?
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::links::tests::ready;
    use super::*;
    use crate::service::state::JobProgress;

    proptest! {
        #![proptest_config(crate::regressions::kept())]

        /// Row H9 of the fault matrix.
        #[test]
        fn h9_percent_only_grows_within_an_attempt_and_is_100_at_the_end_alone(
            expected in any::<Option<u64>>(),
            mut rows in proptest::collection::vec(any::<u64>(), 1..8),
            milliseconds in 0_i64..1_000_000_000_000,
        ) {
            rows.sort_unstable();
            let mut before = 0;
            for rows in rows {
                let mut job = ready();
                (job.status, job.estimated_rows) = (JobStatus::Running, expected);
                (job.progress, job.claimed_at) = (JobProgress { rows, ..JobProgress::default() }, Some(DateTime::UNIX_EPOCH));
                let now = DateTime::from_timestamp_millis(milliseconds).unwrap();
                let event = JobEvent::of(&job, now);
                prop_assert_eq!(event.percent.is_some(), expected.is_some_and(|rows| rows > 0));
                let percent = event.percent.unwrap_or(before);
                prop_assert!(percent >= before && percent < 100, "{percent} after {before}");
                before = percent;
                job.status = JobStatus::Truncated;
                prop_assert_eq!((JobEvent::of(&job, now).percent, JobEvent::of(&job, now).eta_seconds), (Some(100), None));
            }
        }
    }

    #[test]
    fn what_is_left_takes_as_long_as_what_was_done() {
        let mut job = ready();
        (job.status, job.estimated_rows, job.claimed_at) = (JobStatus::Running, Some(300), Some(DateTime::UNIX_EPOCH));
        let eta = |job: &JobRecord| JobEvent::of(job, DateTime::from_timestamp(10, 0).unwrap()).eta_seconds;
        for (rows, expected) in [(0, None), (100, Some(20)), (300, Some(0)), (301, None)] {
            job.progress.rows = rows;
            assert_eq!(eta(&job), expected, "{rows}");
        }
        job.estimated_rows = None;
        assert_eq!(eta(&job), None);
    }
}
