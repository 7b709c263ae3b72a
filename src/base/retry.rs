//! How often and for how long a partition is tried.

use std::time::Duration;

use super::memory::READERS_MAX;

/// Attempts at a partition that somebody else's lock keeps from being read, or for which the server has no memory.
pub(crate) const LOCKED_ATTEMPTS_MAX: u32 = 3;

/// No partition is tried again once its first failure is so long ago.
pub(crate) const RETRY_BUDGET: Duration = Duration::from_mins(10);

/// The longest wait before the second attempt; doubled for each further one. The wait itself is random, from none to
/// this, so that readers that failed together do not return together.
pub(crate) const RETRY_DELAY_MIN: Duration = Duration::from_millis(500);

/// The longest wait before any attempt.
pub(crate) const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);

/// Attempts at one partition by one process, the first included.
pub(crate) const ATTEMPTS_MAX: u32 = 5;

/// Numbers of a partition's attempts by one process, each with names of its own: those that fail, those that are given up
/// for want of a connection (one a reader), and the one that stands for an empty relation.
pub(crate) const ATTEMPT_NUMBERS: u32 = ATTEMPTS_MAX + READERS_MAX + 1;
