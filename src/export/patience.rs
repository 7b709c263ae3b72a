//! How a run that is told to stop comes to its end, whoever runs it: its clean abort has a time, and a commit that has
//! begun is waited for.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::error::ExportError;
use super::mark::Mark;
use crate::model::ExportErrorKind;
use crate::store::ABORT_GRACE;

/// After [`ABORT_GRACE`], for what the run does once its workers have stopped.
const ABORT_MARGIN: Duration = Duration::from_secs(2);

/// How long a clean abort may take: the workers' own grace, and what the run does after it.
pub(crate) const ABORT_PATIENCE: Duration = ABORT_GRACE.saturating_add(ABORT_MARGIN);

/// Waits for `run`, in a task of its own; once `cancel` is cancelled no longer than `patience`, unless the commit has begun.
///
/// # Errors
/// Those of the run; [`ExportErrorKind::Interrupted`] where its clean abort took too long;
/// [`ExportErrorKind::Internal`] where it panicked.
///
/// # Cancel safety
/// Dropped, it drops the run.
pub(crate) async fn to_its_end<T: Send + 'static>(
    run: BoxFuture<'static, Result<T, ExportError>>,
    commit_begun: &Mark,
    cancel: &CancellationToken,
    patience: Duration,
) -> Result<T, ExportError> {
    let mut running = JoinSet::new();
    running.spawn(run);
    let out_of_patience = async {
        cancel.cancelled().await;
        tokio::time::sleep(patience).await;
        if commit_begun.is_set() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        ended = running.join_next() => match ended {
            Some(Ok(result)) => result,
            Some(Err(error)) => Err(panicked(&error)),
            None => Err(ExportError::internal("the run was never begun")),
        },
        () = out_of_patience => {
            Err(ExportError::new(ExportErrorKind::Interrupted, "the clean abort took too long and was left")
                .with_hint("`outhaul clean` removes what is left at the destination"))
        }
    }
}

/// The panic's own message may hold row values; the panic hook has told where it was.
fn panicked(error: &JoinError) -> ExportError {
    ExportError::internal(if error.is_panic() { "the run panicked" } else { "the run was dropped" })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    async fn ended(
        begun: &Mark,
        cancel: &CancellationToken,
        run: impl Future<Output = Result<u8, ExportError>> + Send + 'static,
    ) -> Result<u8, ExportError> {
        to_its_end(Box::pin(run), begun, cancel, PATIENCE).await
    }

    fn cancelled() -> CancellationToken {
        let cancel = CancellationToken::new();
        cancel.cancel();
        cancel
    }

    /// Sets the mark once it is dropped.
    struct Dropped(Mark);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.set();
        }
    }

    #[tokio::test]
    async fn an_abort_that_hangs_is_left_and_the_run_is_dropped() {
        let (begun, gone) = (Mark::default(), Dropped(Mark::default()));
        let mark = gone.0.clone();
        let hanging = async move {
            let _gone = gone;
            std::future::pending().await
        };
        let error = ended(&begun, &cancelled(), hanging).await.unwrap_err();
        assert_eq!(error.kind, ExportErrorKind::Interrupted);
        assert!(error.hint.unwrap().contains("`outhaul clean`"));
        tokio::time::sleep(PATIENCE).await;
        assert!(mark.is_set(), "the run goes on with nobody waiting for it");
    }

    #[tokio::test]
    async fn a_commit_that_has_begun_is_waited_for() {
        let begun = Mark::default();
        let mark = begun.clone();
        let run = async move {
            mark.set();
            tokio::time::sleep(PATIENCE * 10).await;
            Ok(7)
        };
        assert_eq!(ended(&begun, &cancelled(), run).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn nobody_hurries_a_run_that_is_not_told_to_stop() {
        let run = async {
            tokio::time::sleep(PATIENCE * 3).await;
            Ok(7)
        };
        assert_eq!(ended(&Mark::default(), &CancellationToken::new(), run).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error_without_its_message() {
        let run = async { panic!("row value 4711") };
        let error = ended(&Mark::default(), &CancellationToken::new(), run).await.unwrap_err();
        assert_eq!((error.kind, error.to_string().as_str()), (ExportErrorKind::Internal, "the run panicked"));
        assert!(!format!("{error:?}").contains("4711"));
    }
}
