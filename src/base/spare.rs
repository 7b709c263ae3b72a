//! Large buffers that one partition has done with, for the next.
//!
//! Freed and made anew for each partition, they end up in the arenas of whichever threads made them, in all of them in
//! the end: an export of five times the rows took half as much memory again.

use std::sync::{Mutex, PoisonError};

/// Buffers that nobody uses; never more than were in use at the same time.
#[derive(Debug)]
pub(crate) struct Spares<T>(Mutex<Vec<T>>);

impl<T> Spares<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// One of them, if there is any.
    pub(crate) fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Keeps one for the next who asks.
    pub(crate) fn keep(&self, spare: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(spare);
    }
}
