//! When `--max-duration` is over.

use std::future::{Future, pending};
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::model::ReadRequest;
use crate::source::{SourceError, SourceFault};

/// When the time of a run that begins now is over; `None` is never.
pub(super) fn of(request: &ReadRequest) -> Option<Instant> {
    request.work.source_limits.max_duration.and_then(|limit| Instant::now().checked_add(limit))
}

/// Gives up what is not done by then.
pub(super) async fn within<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, SourceError>>,
) -> Result<T, SourceError> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), work).await.unwrap_or_else(|_| Err(out_of_time())),
        None => work.await,
    }
}

/// Ends a run at its time.
pub(super) fn guard(deadline: Option<Instant>) -> BoxFuture<'static, SourceError> {
    let Some(deadline) = deadline else { return pending().boxed() };
    async move {
        tokio::time::sleep_until(deadline.into()).await;
        out_of_time()
    }
    .boxed()
}

fn out_of_time() -> SourceError {
    SourceError::new(SourceFault::GaveWay, "the run has taken as long as --max-duration allows")
}
