//! `--max-bytes-per-second`: a server cuts an answer that is read too slowly, so a rate has room for few readers, and a very low
//! one for none.

use std::num::NonZeroU64;

use super::columns::usage;
use crate::source::SourceError;

/// What one reader needs: a server waits until a good part of its socket's buffer is free, and 30 s at most.
const READER_BYTES_PER_SECOND: u64 = 128 * 1024;

/// # Errors
/// The rate has no room for one reader.
pub(super) fn check(rate: Option<NonZeroU64>) -> Result<(), SourceError> {
    if rate.is_none_or(|rate| rate.get() >= READER_BYTES_PER_SECOND) {
        return Ok(());
    }
    let message = "--max-bytes-per-second: ClickHouse cuts an answer that is read so slowly";
    Err(usage(message, "128KiB is the least"))
}

/// As many readers of `most` as the rate has room for.
pub(super) fn readers(rate: Option<NonZeroU64>, most: usize) -> usize {
    let room = rate.map_or(u64::MAX, |rate| rate.get() / READER_BYTES_PER_SECOND);
    most.min(usize::try_from(room).unwrap_or(usize::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_room_for_some_readers() {
        let rate = |kib: u64| NonZeroU64::new(kib * 1024);
        assert!(check(None).is_ok() && check(rate(128)).is_ok() && check(rate(127)).is_err());
        assert_eq!([None, rate(128), rate(300), rate(1 << 20)].map(|rate| readers(rate, 8)), [8, 1, 2, 8]);
    }
}
