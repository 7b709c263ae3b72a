//! Days and moments as callers write them: in digits, with nothing of it left out.

use chrono::{NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike};

/// `YYYY-MM-DD`, of whatever year; `None` where it is none. chrono itself takes signs, blanks and a year of one digit.
pub(crate) fn written_day(text: &str) -> Option<NaiveDate> {
    let written = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|_| written)
}

/// A day, or a day and a time of it with or without an offset; in UTC where none is said. `None` where it is not written out.
pub(crate) fn written_moment(text: &str) -> Option<NaiveDateTime> {
    if let Some(day) = written_day(text) {
        return Some(day.and_time(NaiveTime::MIN));
    }
    let (date, time) = (text.get(..10)?, text.get(11..)?);
    if !matches!(text.as_bytes().get(10), Some(b' ' | b'T' | b't')) {
        return None;
    }
    let day = written_day(date)?;
    let (clock, zone) = clock_and_zone(time);
    day.and_time(written_clock(clock)?).checked_sub_signed(TimeDelta::seconds(offset(zone)?))
}

/// Where the digits of a time end, and what is behind them begins.
pub(crate) fn clock_and_zone(text: &str) -> (&str, &str) {
    let end = text.find(|letter: char| !(letter.is_ascii_digit() || letter == ':' || letter == '.'));
    text.split_at(end.unwrap_or(text.len()))
}

/// `HH:MM`, `HH:MM:SS` or `HH:MM:SS.fff`, of up to nine digits of a second.
pub(crate) fn written_clock(text: &str) -> Option<NaiveTime> {
    let fraction = text.split_once('.').map_or("", |(_, digits)| digits);
    let open = text.ends_with('.') || fraction.len() > 9;
    let whole = text.split('.').next()?;
    let shaped = matches!(whole.len(), 5 | 8) && whole.split(':').all(|two| two.len() == 2);
    if open || !shaped || (whole.len() == 5 && text.len() > 5) {
        return None;
    }
    let format = if whole.len() == 5 { "%H:%M" } else { "%H:%M:%S%.f" };
    // A leap second is none here.
    NaiveTime::parse_from_str(text, format).ok().filter(|time| time.nanosecond() < 1_000_000_000)
}

/// Seconds east of Greenwich: nothing, `Z`, `+01`, `+0100`, `+01:00`.
pub(crate) fn offset(text: &str) -> Option<i64> {
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
