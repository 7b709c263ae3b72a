//! The order of numbers, dates and timestamps by their texts, as PostgreSQL prints them.

/// Days from 0000-03-01 to 1970-01-01.
const FROM_MARCH_OF_YEAR_0: i128 = 719_468;

const MICROS_PER_SECOND: i128 = 1_000_000;
const SECONDS_PER_DAY: i128 = 86_400;

/// The place of a value among those of its type: the number itself, or for dates and timestamps the microseconds since
/// 1970-01-01. The infinities are the least and the greatest number. `None` for other texts.
pub(crate) fn ordinal(text: &str) -> Option<i128> {
    match text {
        "infinity" => Some(i128::MAX),
        "-infinity" => Some(i128::MIN),
        _ => text.parse::<i128>().ok().or_else(|| moment(text)),
    }
}

/// The greater of two values of one type; the other where one of them has no place.
pub(crate) fn greater(one: Option<String>, other: Option<String>) -> Option<String> {
    let place = |text: &Option<String>| text.as_deref().and_then(ordinal);
    match (place(&one), place(&other)) {
        (Some(first), Some(second)) if first >= second => one,
        (_, Some(_)) => other,
        (_, None) => one,
    }
}

/// `2026-11-28`, `2026-11-28 01:02:03.5`, with `+00` behind it, with ` BC` behind that.
fn moment(text: &str) -> Option<i128> {
    let (text, before_christ) = text.strip_suffix(" BC").map_or((text, false), |text| (text, true));
    let text = text.strip_suffix("+00").unwrap_or(text);
    let (date, time) = text.split_once(' ').unwrap_or((text, "00:00:00"));
    let mut date = date.splitn(3, '-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let year = if before_christ { 1 - year } else { year };
    let mut time = time.splitn(3, ':');
    let (hours, minutes, seconds) = (number(time.next()?)?, number(time.next()?)?, time.next()?);
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let micros = number(&format!("{fraction:0<6}"))?;
    let seconds = days(year, month, day) * SECONDS_PER_DAY + (hours * 60 + minutes) * 60 + number(seconds)?;
    Some(seconds * MICROS_PER_SECOND + micros)
}

/// Digits of a number that is not long.
fn number(text: &str) -> Option<i128> {
    let plain = !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar, in years that begin on 1 March.
fn days(year: i128, month: i128, day: i128) -> i128 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - FROM_MARCH_OF_YEAR_0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::datetime;
    use super::*;

    #[test]
    fn texts_have_their_places() {
        for (text, place) in [
            ("-5", Some(-5)),
            ("9223372036854775807", Some(i128::from(i64::MAX))),
            ("1970-01-01", Some(0)),
            ("1970-01-02 00:00:00+00", Some(86_400_000_000)),
            ("1969-12-31 23:59:59.5", Some(-500_000)),
            ("2000-03-01 00:00:01.000001+00", Some(951_868_801_000_001)),
            ("infinity", Some(i128::MAX)),
            ("now", None),
            ("", None),
            ("1.5", None),
            ("2026-1x-01", None),
        ] {
            assert_eq!(ordinal(text), place, "{text}");
        }
    }

    #[test]
    fn the_greater_value_wins_and_none_loses() {
        let text = |text: &str| Some(text.to_owned());
        for (one, other, won) in [
            (text("9"), text("10"), text("10")),
            (text("0044-03-15 BC"), text("0044-03-15"), text("0044-03-15")),
            (text("10000-01-01"), text("9999-12-31"), text("10000-01-01")),
            (None, text("1"), text("1")),
            (text("1"), None, text("1")),
            (None, None, None),
            (text("7"), text("odd"), text("7")),
        ] {
            assert_eq!(greater(one.clone(), other.clone()), won, "{one:?} {other:?}");
        }
    }

    proptest! {
        #![proptest_config(crate::regressions::kept())]
        #[test]
        fn what_is_printed_is_read(micros in -210_866_803_200_000_000_i64..9_223_371_331_200_000_000) {
            let mut out = Vec::new();
            datetime::timestamp(&mut out, micros, datetime::PG_EPOCH_DAYS, true, datetime::OUTPUT);
            let place = i128::from(micros) + i128::from(datetime::PG_EPOCH_DAYS) * 86_400_000_000;
            prop_assert_eq!(ordinal(std::str::from_utf8(&out).unwrap()), Some(place));
        }
    }
}
