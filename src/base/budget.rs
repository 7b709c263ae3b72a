//! The memory of a process that carries out several runs at the same time (I6): each reserves what it may hold before it
//! begins, so that no more begin than there is room for.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is reserved is a multiple of so many bytes: one number of permits has room for every budget then.
const UNIT_BYTES: u64 = 64 * 1024;

/// The budget, with what is reserved of it.
#[derive(Debug, Clone)]
pub(crate) struct MemoryBudget {
    free: Arc<Semaphore>,
    units: u32,
}

/// Bytes that are reserved, until it is dropped.
#[derive(Debug)]
pub(crate) struct MemoryPermit {
    _held: OwnedSemaphorePermit,
}

/// Bytes of memory that the process can have: those of its container or of its machine, whichever are fewer; `None` where
/// the system does not say.
pub(crate) fn memory_of_machine() -> Option<u64> {
    let read = |file: &str| std::fs::read_to_string(Path::new(file)).ok();
    // "max" is no number, and so no limit.
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let container = limits.iter().filter_map(|file| read(file)?.trim().parse().ok()).min();
    let machine = read("/proc/meminfo").and_then(|text| total(&text));
    container.into_iter().chain(machine).min()
}

/// `MemTotal:  16384 kB`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1_024)
}

/// More is asked for than there is, whatever others give back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{asked}B of memory are wanted, of a budget of {budget}B")]
pub(crate) struct OverBudget {
    pub(crate) asked: u64,
    pub(crate) budget: u64,
}

impl MemoryBudget {
    pub(crate) fn new(bytes: u64) -> Self {
        let most = u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX);
        let units = u32::try_from(bytes / UNIT_BYTES).unwrap_or(most).min(most);
        let permits = usize::try_from(units).unwrap_or(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(permits)), units }
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.units).saturating_mul(UNIT_BYTES)
    }

    /// What is reserved now.
    pub(crate) fn reserved(&self) -> u64 {
        let free = u64::try_from(self.free.available_permits()).unwrap_or(u64::MAX);
        self.bytes().saturating_sub(free.saturating_mul(UNIT_BYTES))
    }

    /// Waits until so many bytes are free, and reserves them. Whoever asks later waits behind it, even for less: this is for
    /// those whose wait is short.
    ///
    /// # Errors
    /// There will never be as many.
    ///
    /// # Cancel safety
    /// Dropping the future reserves nothing.
    pub(crate) async fn reserve(&self, bytes: u64) -> Result<MemoryPermit, OverBudget> {
        let over = self.over(bytes);
        let units = self.units(bytes).ok_or(over)?;
        let held = Arc::clone(&self.free).acquire_many_owned(units).await;
        held.map(|held| MemoryPermit { _held: held }).map_err(|_| over)
    }

    /// Reserves so many bytes, or `None` where they are not free now. Nobody waits behind it: this is for those who come
    /// back later by themselves, such as a queue of jobs.
    ///
    /// # Errors
    /// There will never be as many.
    pub(crate) fn try_reserve(&self, bytes: u64) -> Result<Option<MemoryPermit>, OverBudget> {
        let units = self.units(bytes).ok_or(self.over(bytes))?;
        let held = Arc::clone(&self.free).try_acquire_many_owned(units);
        Ok(held.ok().map(|held| MemoryPermit { _held: held }))
    }

    fn units(&self, bytes: u64) -> Option<u32> {
        u32::try_from(bytes.div_ceil(UNIT_BYTES)).ok().filter(|units| *units <= self.units)
    }

    fn over(&self, asked: u64) -> OverBudget {
        OverBudget { asked, budget: self.bytes() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn no_more_is_reserved_than_there_is() {
        let budget = MemoryBudget::new(10 * MIB);
        assert_eq!((budget.bytes(), budget.reserved()), (10 * MIB, 0));
        let first = budget.reserve(6 * MIB).await.unwrap();
        assert_eq!(budget.reserved(), 6 * MIB);
        assert!(budget.try_reserve(5 * MIB).unwrap().is_none());
        assert!(timeout(Duration::from_secs(1), budget.reserve(5 * MIB)).await.is_err());
        assert_eq!(budget.reserved(), 6 * MIB, "who has gone has reserved nothing");
        let second = budget.try_reserve(4 * MIB).unwrap();
        assert_eq!((second.is_some(), budget.reserved()), (true, 10 * MIB));
        drop(first);
        let third = timeout(Duration::from_secs(1), budget.reserve(5 * MIB)).await.unwrap();
        assert_eq!((third.is_ok(), budget.reserved()), (true, 9 * MIB));
        let over = OverBudget { asked: 11 * MIB, budget: 10 * MIB };
        assert_eq!(budget.reserve(11 * MIB).await.unwrap_err(), over);
        assert_eq!(budget.try_reserve(11 * MIB).unwrap_err(), over);
    }

    #[test]
    fn the_memory_of_the_machine_is_read() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       16384 kB\n"), Some(16 * MIB));
        assert_eq!(total("MemTotal: many\n"), None);
        assert!(memory_of_machine().is_some_and(|bytes| bytes > 64 * MIB));
    }

    #[tokio::test]
    async fn a_part_of_a_unit_is_one_and_a_large_budget_is_bounded() {
        let budget = MemoryBudget::new(UNIT_BYTES);
        let one = budget.reserve(1).await.unwrap();
        assert_eq!(budget.reserved(), UNIT_BYTES);
        drop(one);
        assert_eq!(budget.reserved(), 0);
        assert!(MemoryBudget::new(u64::MAX).reserve(1 << 45).await.is_ok());
    }
}
