//! Days and moments as literals, and what the server knows of them.

use chrono::{DateTime, Days, Months, NaiveDate, NaiveDateTime, TimeDelta, Utc};

use crate::model::BucketUnit;

/// The first day that `Date32` and `DateTime64` hold.
pub(super) const FIRST_DAY: NaiveDate = day(1900, 1, 1);

/// The last one.
pub(super) const LAST_DAY: NaiveDate = day(2299, 12, 31);

/// Those of `Date`.
const FIRST_SHORT: NaiveDate = day(1970, 1, 1);
const LAST_SHORT: NaiveDate = day(2149, 6, 6);

const fn day(year: i32, month: u32, of_month: u32) -> NaiveDate {
    match NaiveDate::from_ymd_opt(year, month, of_month) {
        Some(day) => day,
        None => NaiveDate::MIN,
    }
}

/// A day as a literal; `None` where the server has no such day. `long` is of a `Date32`.
pub(super) fn day_literal(day: NaiveDate, long: bool) -> Option<String> {
    if !long && is_short(day) {
        return Some(format!("toDate('{day}')"));
    }
    (FIRST_DAY..=LAST_DAY).contains(&day).then(|| format!("toDate32('{day}')"))
}

/// Whether `Date` holds a day.
pub(super) fn is_short(day: NaiveDate) -> bool {
    (FIRST_SHORT..=LAST_SHORT).contains(&day)
}

/// Whether a column of moments can hold this one: `DateTime`, where no `scale` is said, has whole seconds up to the year 2106.
pub(super) fn holds(moment: NaiveDateTime, scale: Option<u8>) -> bool {
    let moment = moment.and_utc();
    let step = 10_u32.checked_pow(9 - u32::from(scale.unwrap_or(0)).min(9)).unwrap_or(1);
    let fits = scale.is_some() || u32::try_from(moment.timestamp()).is_ok();
    fits && moment.timestamp_subsec_nanos().is_multiple_of(step)
}

/// A moment as a literal, as coarse as it can be, since that is what an index takes best; `None` where the server has no
/// such moment.
pub(super) fn moment_literal(moment: NaiveDateTime) -> Option<String> {
    if !(FIRST_DAY..=LAST_DAY).contains(&moment.date()) {
        return None;
    }
    let moment: DateTime<Utc> = moment.and_utc();
    let nanos = moment.timestamp_subsec_nanos();
    if nanos == 0
        && let Ok(seconds) = u32::try_from(moment.timestamp())
    {
        return Some(format!("toDateTime({seconds}, 'UTC')"));
    }
    if nanos.is_multiple_of(1_000) {
        return Some(format!("fromUnixTimestamp64Micro(toInt64('{}'), 'UTC')", moment.timestamp_micros()));
    }
    moment.timestamp_nanos_opt().map(|nanos| format!("fromUnixTimestamp64Nano(toInt64('{nanos}'), 'UTC')"))
}

/// The first moment behind a bucket; `None` where there is none that could be told.
pub(super) fn end_of_bucket(start: NaiveDateTime, unit: BucketUnit) -> Option<NaiveDateTime> {
    match unit {
        BucketUnit::Hour => start.checked_add_signed(TimeDelta::hours(1)),
        BucketUnit::Day => start.checked_add_days(Days::new(1)),
        BucketUnit::Week => start.checked_add_days(Days::new(7)),
        BucketUnit::Month => start.checked_add_months(Months::new(1)),
        BucketUnit::Quarter => start.checked_add_months(Months::new(3)),
        BucketUnit::Year => start.checked_add_months(Months::new(12)),
    }
}
