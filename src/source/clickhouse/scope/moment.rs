//! Days and moments that a caller writes, and what the server knows of them.

use chrono::{DateTime, Days, Months, NaiveDate, NaiveDateTime, TimeDelta, Timelike, Utc};

use super::error::ChScopeError;
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

/// `YYYY-MM-DD`, of whatever year.
///
/// # Errors
/// It is none.
pub(super) fn written_day(text: &str) -> Result<NaiveDate, ChScopeError> {
    let written = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|_| written).ok_or(ChScopeError::Day)
}

/// A day, or a day and a time of it with or without an offset; in UTC where none is said.
///
/// # Errors
/// It is not written out.
pub(super) fn written_moment(text: &str) -> Result<NaiveDateTime, ChScopeError> {
    if let Ok(day) = written_day(text) {
        return Ok(day.and_time(chrono::NaiveTime::MIN));
    }
    let (Some(date), Some(time)) = (text.get(..10), text.get(11..)) else { return Err(ChScopeError::Moment) };
    if !matches!(text.as_bytes().get(10), Some(b' ' | b'T' | b't')) {
        return Err(ChScopeError::Moment);
    }
    let day = written_day(date).map_err(|_| ChScopeError::Moment)?;
    let end = time.find(|letter: char| !(letter.is_ascii_digit() || letter == ':' || letter == '.'));
    let (clock, zone) = time.split_at(end.unwrap_or(time.len()));
    let clock = of_day(clock).ok_or(ChScopeError::Moment)?;
    let east = offset(zone).ok_or(ChScopeError::Moment)?;
    day.and_time(clock).checked_sub_signed(TimeDelta::seconds(east)).ok_or(ChScopeError::Moment)
}

/// `HH:MM`, `HH:MM:SS` or `HH:MM:SS.fff`, of up to nine digits of a second.
fn of_day(text: &str) -> Option<chrono::NaiveTime> {
    let fraction = text.split_once('.').map_or("", |(_, digits)| digits);
    let open = text.ends_with('.') || fraction.len() > 9;
    let whole = text.split('.').next()?;
    let shaped = matches!(whole.len(), 5 | 8) && whole.split(':').all(|two| two.len() == 2);
    if open || !shaped || (whole.len() == 5 && text.len() > 5) {
        return None;
    }
    let format = if whole.len() == 5 { "%H:%M" } else { "%H:%M:%S%.f" };
    // A leap second is none here.
    chrono::NaiveTime::parse_from_str(text, format).ok().filter(|time| time.nanosecond() < 1_000_000_000)
}

/// Seconds east of Greenwich: nothing, `Z`, `+01`, `+0100`, `+01:00`.
fn offset(text: &str) -> Option<i64> {
    if matches!(text, "" | "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let digits = match rest.len() {
        5 => rest.replacen(':', "", 1),
        _ => rest.to_owned(),
    };
    if !matches!(digits.len(), 2 | 4) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let hours: i64 = digits.get(..2)?.parse().ok()?;
    let minutes: i64 = digits.get(2..).filter(|rest| !rest.is_empty()).map_or(Some(0), |rest| rest.parse().ok())?;
    (hours <= 15 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
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
