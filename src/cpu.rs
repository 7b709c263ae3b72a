//! CPU-heavy work: on rayon's threads, never on the async ones.

use tokio::sync::oneshot;

/// A task on rayon panicked; the panic's message has been printed by the panic hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a computation panicked")]
pub struct CpuPanic;

/// Runs `task` on rayon and waits for its result without blocking the async thread.
///
/// # Errors
/// [`CpuPanic`] where `task` panicked; the panic does not spread.
///
/// # Cancel safety
/// Dropping the future abandons the result; the task itself runs to its end, since tasks are short and never wait.
pub(crate) async fn on_rayon<T, F>(task: F) -> Result<T, CpuPanic>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    rayon::spawn(move || {
        // The receiver is told of a panic by the sender's drop; catching it here keeps rayon from aborting the process.
        if let Ok(result) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(task)) {
            // A dropped receiver means that nobody waits any more.
            drop(sender.send(result));
        }
    });
    receiver.await.map_err(|_| CpuPanic)
}
