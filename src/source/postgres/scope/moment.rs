//! Dates and times that a caller writes. The server's own input leaves out what a type has no place for: of a moment a date
//! keeps its day, and a timestamp drops the offset. The rows would be others than those that are asked for.

use std::borrow::Cow;

use chrono::Datelike;

use super::type_name::Family;
use crate::base::text::moment::{clock_and_zone, offset, written_clock, written_day, written_moment};

/// Words that a moment may have among its digits.
const WORDS: [&str; 6] = ["t", "z", "utc", "bc", "ad", "infinity"];

/// The years that all servers write with four digits.
const PLAIN_YEARS: std::ops::RangeInclusive<i32> = 1..=9_999;

/// The text of a date or a time as the server is to read it; `None` where it has more in it than its type, or is not written
/// out. What the server itself prints is always taken.
pub(super) fn written(text: &str, family: Family) -> Option<Cow<'_, str>> {
    let as_it_is = |taken: bool| taken.then_some(Cow::Borrowed(text));
    match family {
        Family::Date => as_it_is(is_infinite(text) || is_day(without_era(text))),
        Family::Timestamp => match written_moment(text) {
            Some(moment) if PLAIN_YEARS.contains(&moment.year()) => {
                Some(Cow::Owned(moment.format("%Y-%m-%d %H:%M:%S%.f").to_string()))
            }
            _ => as_it_is(is_infinite(text) || is_plain_moment(without_era(text))),
        },
        Family::TimestampTz => as_it_is(is_written_out(text)),
        Family::Time => as_it_is(is_clock(text)),
        Family::TimeTz => {
            let (clock, zone) = clock_and_zone(text);
            as_it_is(is_clock(clock) && is_zone(zone))
        }
        Family::AsText | Family::Other => as_it_is(true),
    }
}

fn is_infinite(text: &str) -> bool {
    text.strip_prefix('-').unwrap_or(text).eq_ignore_ascii_case("infinity")
}

fn without_era(text: &str) -> &str {
    text.strip_suffix(" BC").or_else(|| text.strip_suffix(" AD")).unwrap_or(text)
}

/// A day, also of a year with more than four digits.
fn is_day(text: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let long = || {
        let (year, rest) = text.split_once('-')?;
        let (month, day) = rest.split_once('-')?;
        Some(year.len() > 3 && month.len() == 2 && day.len() == 2 && [year, month, day].into_iter().all(digits))
    };
    written_day(text).is_some() || long().unwrap_or_default()
}

/// A day, or a day and a time of it, without an offset.
fn is_plain_moment(text: &str) -> bool {
    let (day, clock) = text.split_once([' ', 'T']).map_or((text, None), |(day, clock)| (day, Some(clock)));
    is_day(day) && clock.is_none_or(is_clock)
}

/// A time of a day, and the end of the day, which the server has a time for.
fn is_clock(text: &str) -> bool {
    matches!(text, "24:00" | "24:00:00") || written_clock(text).is_some()
}

/// An offset, also one with seconds, which the server prints.
fn is_zone(text: &str) -> bool {
    let minutes = text.get(..text.len().saturating_sub(3)).filter(|_| text.len() == 9);
    offset(minutes.unwrap_or(text)).is_some() && text.bytes().all(|byte| b"+-:Zz0123456789".contains(&byte))
}

/// Whether a moment has no word that means another moment each time, or another zone on each server.
fn is_written_out(text: &str) -> bool {
    let words = text.split(|character: char| !character.is_alphabetic()).filter(|word| !word.is_empty());
    let known = |word: &str| WORDS.iter().any(|known| word.eq_ignore_ascii_case(known));
    text.chars().any(|character| character.is_ascii_alphanumeric()) && words.into_iter().all(known)
}
