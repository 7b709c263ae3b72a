//! CPU-heavy work: on rayon's threads, never on the async ones; and how a task ends that gives no result.

use tokio::sync::oneshot;
use tokio::task::JoinError;

/// An async task gave no result. A panic's own message, which may hold the values of rows and secrets, is not told: the
/// panic hook says where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TaskLost {
    /// It panicked.
    #[error("a task panicked")]
    Panicked,
    /// It was dropped before its end.
    #[error("a task was dropped")]
    Dropped,
}

impl From<JoinError> for TaskLost {
    fn from(error: JoinError) -> Self {
        if error.is_panic() { Self::Panicked } else { Self::Dropped }
    }
}

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
    #[cfg(test)]
    if in_place::is_wanted() {
        return std::panic::catch_unwind(std::panic::AssertUnwindSafe(task)).map_err(|_| CpuPanic);
    }
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

/// For tests whose clock stands still: it would run on while they wait for another thread.
#[cfg(test)]
pub(crate) mod in_place {
    use std::cell::Cell;

    thread_local! {
        static WANTED: Cell<bool> = const { Cell::new(false) };
    }

    /// From now on this thread's tasks run where they are started.
    pub(crate) fn want() {
        WANTED.set(true);
    }

    pub(super) fn is_wanted() -> bool {
        WANTED.get()
    }
}
