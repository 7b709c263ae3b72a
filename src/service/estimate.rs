//! `POST /v1/query/{dataset}/estimate`: how many rows a query would give, without any of them.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Request, State};
use futures_util::FutureExt;
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::ServiceState;
use super::access::Caller;
use super::analyze::{told, too_slow};
use super::problem::{ProblemBody, Refusal};
use super::query::body_of;
use super::question::Question;
use super::scoped::{about, count};
use crate::base::memory::{ANSWER_BYTES, REQUEST_BODY_BYTES_MAX};
use crate::config::service::Dataset;
use crate::export::ExportError;
use crate::model::{CountedRows, DescribedRelation, ScopeCondition};

/// Rows that are counted at most: beyond it nobody waits for the exact number.
const COUNTED_ROWS_MAX: u64 = 1_000_000;

/// Rows that a stream sends in a minute, roughly, over a usual network.
const ROWS_A_MINUTE: u64 = 2_000_000;

/// What of the time for an answer is left for the database's statistics.
const ASKING_STATISTICS: Duration = Duration::from_secs(3);

/// However short that time is, so long rows are counted.
const COUNTING_TIME_MIN: Duration = Duration::from_secs(1);

/// The answer.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct EstimateView {
    rows: u64,
    /// `exact`, `at_least` or `estimate`.
    #[schema(value_type = String)]
    kind: &'static str,
    max_rows: Option<u64>,
    /// None where it is not known.
    will_truncate: Option<bool>,
    estimated_minutes: u64,
}

/// Answers with a number.
#[utoipa::path(
    post,
    path = "/v1/query/{dataset}/estimate",
    operation_id = "estimateRows",
    params(("dataset" = String, Path, description = "The name of the dataset")),
    request_body = Question,
    responses(
        (status = 200, description = "How many rows the query would give", body = EstimateView),
        (status = "4XX", description = "A refusal", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", description = "A failure", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn estimate(
    State(service): State<Arc<ServiceState>>,
    Path(dataset): Path<String>,
    request: Request,
) -> Result<Json<EstimateView>, Refusal> {
    let (parts, body) = request.into_parts();
    let (caller, dataset) = service.admit_query(service.caller(&parts.headers)?, &dataset)?;
    let question = Question::parse(&body_of(body, REQUEST_BODY_BYTES_MAX).await?)?;
    question.columns(dataset)?;
    question.order(dataset)?;
    let _permit = service.limits.stream(&caller.owner(), ANSWER_BYTES).await?;
    let max_rows = caller.max_rows.map(NonZeroU64::get);
    // One more than the cap tells whether it cuts.
    let up_to = max_rows.map_or(COUNTED_ROWS_MAX, |rows| rows.saturating_add(1).min(COUNTED_ROWS_MAX));
    let counted = counted(&service, &caller, dataset, (&question, &[]), up_to).await?;
    Ok(Json(EstimateView::of(counted, max_rows)))
}

/// Counts the rows of a question, in a bucket where one is told.
///
/// # Errors
/// The question makes no sense, or the source does not answer it in time.
pub(crate) async fn counted(
    service: &ServiceState,
    caller: &Caller,
    dataset: &Dataset,
    (question, bucket): (&Question, &[ScopeCondition]),
    up_to: u64,
) -> Result<CountedRows, Refusal> {
    let up_to = NonZeroU64::new(up_to).unwrap_or(NonZeroU64::MIN);
    let counting = |described: Arc<DescribedRelation>| {
        async move {
            let scope = question.scope(dataset, &described, caller, bucket)?;
            let mut request = about(dataset, caller, &scope)?;
            let first_page = service.config.limits.first_page;
            request.served.statement_timeout = counting_time(request.served.statement_timeout, first_page);
            let nobody = || Refusal::of_export(&ExportError::internal("the source counts nothing"));
            let counting = count(dataset, request, up_to).ok_or_else(nobody)?;
            let counted = timeout(first_page, counting).await.map_err(|_| too_slow())?;
            counted.map_err(|error| told(&error.into(), &dataset.name))
        }
        .boxed()
    };
    service.by_description(dataset, counting).await.map_err(|refusal| question.blamed(refusal))
}

/// How long rows are counted: statistics are asked for behind that, before nobody waits for the answer any more.
fn counting_time(statement: Duration, first_page: Duration) -> Duration {
    statement.min(first_page.saturating_sub(ASKING_STATISTICS)).max(COUNTING_TIME_MIN)
}

/// How long so many rows take.
pub(crate) const fn minutes(rows: u64) -> u64 {
    rows.div_ceil(ROWS_A_MINUTE)
}

impl EstimateView {
    fn of(counted: CountedRows, max_rows: Option<u64>) -> Self {
        let beyond = |rows: u64| max_rows.is_some_and(|max_rows| rows > max_rows);
        let (rows, kind, will_truncate) = match counted {
            CountedRows::Exact(rows) => (rows, "exact", Some(beyond(rows))),
            CountedRows::AtLeast(rows) => {
                (rows, "at_least", if max_rows.is_none() || beyond(rows) { Some(beyond(rows)) } else { None })
            }
            CountedRows::Estimate(rows) => (rows, "estimate", max_rows.is_none().then_some(false)),
        };
        let sent = max_rows.map_or(rows, |max_rows| rows.min(max_rows));
        Self { rows, kind, max_rows, will_truncate, estimated_minutes: minutes(sent) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truncation_is_foretold_only_where_it_is_known() {
        for (counted, max_rows, kind, will_truncate) in [
            (CountedRows::Exact(10), Some(10), "exact", Some(false)),
            (CountedRows::Exact(11), Some(10), "exact", Some(true)),
            (CountedRows::AtLeast(11), Some(10), "at_least", Some(true)),
            (CountedRows::AtLeast(1_000_000), Some(5_000_000), "at_least", None),
            (CountedRows::AtLeast(1_000_000), None, "at_least", Some(false)),
            (CountedRows::Estimate(50), Some(10), "estimate", None),
            (CountedRows::Estimate(50), None, "estimate", Some(false)),
        ] {
            let view = EstimateView::of(counted, max_rows);
            assert_eq!((view.kind, view.will_truncate), (kind, will_truncate), "{counted:?} {max_rows:?}");
        }
        assert_eq!(EstimateView::of(CountedRows::Exact(2_000_001), None).estimated_minutes, 2);
    }

    #[test]
    fn statistics_are_asked_for_before_nobody_waits_any_more() {
        let time = |first_page| counting_time(Duration::from_secs(30), Duration::from_secs(first_page)).as_secs();
        assert_eq!([20, 60, 4, 3, 1].map(time), [17, 30, 1, 1, 1]);
    }
}
