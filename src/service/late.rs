//! Ends of streams that the store did not take when they came: they are told to it again for some minutes, so that a
//! receipt does not say `streaming` until the next start.

use std::sync::Arc;
use std::time::Duration;

use super::state::{ExportEnd, StateError, StateStore};

/// Before the first try; each later one waits twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// After so many, which take over four minutes, it is the next start that ends the record.
const TRIES: u32 = 8;

/// Records an end, some time.
pub(crate) async fn record(store: Arc<dyn StateStore>, id: String, end: ExportEnd) {
    match persist(|| store.finish_export(id.clone(), end.clone())).await {
        Ok(_) => tracing::warn!(export = id, "the end of a stream was recorded late"),
        Err(error) => tracing::error!(export = id, %error, "the end of a stream was not recorded"),
    }
}

/// Tries until it succeeds once, or has failed too often.
async fn persist<F>(write: impl Fn() -> F) -> Result<bool, StateError>
where
    F: Future<Output = Result<bool, StateError>>,
{
    let (mut pause, mut tries) = (FIRST_PAUSE, 0);
    loop {
        tokio::time::sleep(pause).await;
        tries += 1;
        match write().await {
            Err(_) if tries < TRIES => pause = pause.saturating_mul(2),
            ended => return ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::Instant;

    use super::*;

    /// How many tries there were, how long they took, and what came of them, where the store answers from the nth on.
    async fn tried(answers_from: u32) -> (u32, u64, bool) {
        let (began, tries) = (Instant::now(), Cell::new(0));
        let written = persist(|| {
            tries.set(tries.get() + 1);
            std::future::ready(if tries.get() < answers_from { Err(StateError::Stopped) } else { Ok(true) })
        });
        let written = written.await.is_ok();
        (tries.get(), began.elapsed().as_secs(), written)
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_is_told_again_in_growing_pauses_and_not_for_ever() {
        assert_eq!(tried(1).await, (1, 1, true));
        assert_eq!(tried(4).await, (4, 15, true));
        assert_eq!(tried(8).await, (8, 255, true));
        assert_eq!(tried(9).await, (8, 255, false));
    }
}
