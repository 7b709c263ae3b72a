//! CPU-heavy work: on rayon's threads, never on the async ones.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use tokio::sync::oneshot;

/// Partitions under way in this process, each of which keeps a thread busy.
static BUSY: AtomicUsize = AtomicUsize::new(0);

/// A partition under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Busy(());

impl Busy {
    pub(crate) fn begin() -> Self {
        BUSY.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Does `work` with each of `items`; on several threads where there are more of them than partitions under way, since
/// sharing between busy ones only costs. To be called on a thread of rayon's.
///
/// # Errors
/// The first error of `work` that is met; the others may then be left undone.
pub(crate) fn for_each<T: Send, E: Send>(
    items: &mut [T],
    work: impl Fn(&mut T) -> Result<(), E> + Sync + Send,
) -> Result<(), E> {
    if BUSY.load(Ordering::Relaxed) < rayon::current_num_threads() {
        items.par_iter_mut().try_for_each(work)
    } else {
        items.iter_mut().try_for_each(work)
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
