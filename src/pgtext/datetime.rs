//! Dates, times and timestamps in PostgreSQL's ISO style, from its own integers: years 1 to 294276 and beyond, BC,
//! the infinities.

/// 2000-01-01, PostgreSQL's epoch, in days since 1970-01-01.
pub(crate) const PG_EPOCH_DAYS: i64 = 10_957;

const MICROS_PER_DAY: i64 = 86_400_000_000;
const DAYS_PER_ERA: i64 = 146_097;

/// Two ASCII digits for 0 to 99.
const PAIRS: [[u8; 2]; 100] = {
    let mut table = [[b'0'; 2]; 100];
    let (mut tens, mut at) = (b'0', 0);
    while at < 100 {
        let mut ones = b'0';
        while ones <= b'9' {
            table[at] = [tens, ones];
            ones += 1;
            at += 1;
        }
        tens += 1;
    }
    table
};

/// How a timestamp is put together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    /// Between date and time.
    separator: u8,
    /// After the time of a `timestamptz`.
    utc: &'static [u8],
}

/// As the output functions print: `2020-01-01 00:00:00+00`.
pub(crate) const OUTPUT: Style = Style { separator: b' ', utc: b"+00" };

/// As `to_json` prints: `2020-01-01T00:00:00+00:00`.
pub(crate) const JSON: Style = Style { separator: b'T', utc: b"+00:00" };

/// A date of the proleptic Gregorian calendar; year 0 is 1 BC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Civil {
    year: i64,
    month: u8,
    day: u8,
}

/// The date `days` after 1970-01-01.
///
/// Counts in years that begin on 1 March, so that the leap day is a year's last, and in eras of 400 years.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "month is 1 to 12 and day 1 to 31 by the divisions above them"
)]
fn civil(days: i64) -> Civil {
    let days = days + 719_468;
    let era = days.div_euclid(DAYS_PER_ERA);
    let day_of_era = days.rem_euclid(DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Civil { year, month: month as u8, day: day as u8 }
}

/// Appends `yyyy-mm-dd` and tells whether ` BC` belongs to it.
fn put_date(out: &mut Vec<u8>, days: i64) -> bool {
    let Civil { year, month, day } = civil(days);
    let before_christ = year <= 0;
    let shown = if before_christ { 1 - year } else { year };
    let mut text = *b"0000-00-00";
    text[5..7].copy_from_slice(&PAIRS[usize::from(month)]);
    text[8..10].copy_from_slice(&PAIRS[usize::from(day)]);
    if let Ok(year @ 0..=9_999) = usize::try_from(shown) {
        text[..2].copy_from_slice(&PAIRS[year / 100]);
        text[2..4].copy_from_slice(&PAIRS[year % 100]);
        out.extend_from_slice(&text);
    } else {
        super::number::integer(out, shown);
        out.extend_from_slice(&text[4..]);
    }
    before_christ
}

/// Appends `days` since `epoch` (itself in days since 1970-01-01).
pub(crate) fn date(out: &mut Vec<u8>, days: i32, epoch: i64) {
    if let Some(word) = infinity(days == i32::MIN, days == i32::MAX) {
        out.extend_from_slice(word);
    } else if put_date(out, i64::from(days) + epoch) {
        out.extend_from_slice(b" BC");
    }
}

/// Appends microseconds since midnight of `epoch` (in days since 1970-01-01).
pub(crate) fn timestamp(out: &mut Vec<u8>, micros: i64, epoch: i64, utc: bool, style: Style) {
    if let Some(word) = infinity(micros == i64::MIN, micros == i64::MAX) {
        out.extend_from_slice(word);
        return;
    }
    let before_christ = put_date(out, micros.div_euclid(MICROS_PER_DAY) + epoch);
    out.push(style.separator);
    time(out, micros.rem_euclid(MICROS_PER_DAY));
    if utc {
        out.extend_from_slice(style.utc);
    }
    if before_christ {
        out.extend_from_slice(b" BC");
    }
}

/// Whether a date or timestamp of this integer is one of the infinities.
fn infinity(least: bool, greatest: bool) -> Option<&'static [u8]> {
    match (least, greatest) {
        (true, _) => Some(b"-infinity"),
        (_, true) => Some(b"infinity"),
        _ => None,
    }
}

/// Appends microseconds since midnight, or so many of less than 100 hours, without their sign and without trailing zeros
/// after the point.
pub(crate) fn time(out: &mut Vec<u8>, micros: i64) {
    let micros = micros.unsigned_abs();
    let seconds = micros / 1_000_000;
    let mut text = *b"00:00:00.000000";
    text[..2].copy_from_slice(&pair(seconds / 3_600));
    text[3..5].copy_from_slice(&pair(seconds / 60 % 60));
    text[6..8].copy_from_slice(&pair(seconds % 60));
    let fraction = micros % 1_000_000;
    if fraction == 0 {
        out.extend_from_slice(&text[..8]);
        return;
    }
    text[9..11].copy_from_slice(&pair(fraction / 10_000));
    text[11..13].copy_from_slice(&pair(fraction / 100));
    text[13..].copy_from_slice(&pair(fraction));
    let kept = text.iter().rposition(|&digit| digit != b'0').map_or(0, |last| last + 1);
    out.extend_from_slice(&text[..kept]);
}

/// The last two digits of `value`.
fn pair(value: u64) -> [u8; 2] {
    PAIRS[(value % 100) as usize]
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Datelike, Timelike};
    use proptest::prelude::*;

    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn stamp(micros: i64, utc: bool, style: Style) -> String {
        text(|out| timestamp(out, micros, PG_EPOCH_DAYS, utc, style))
    }

    #[test]
    fn dates_are_postgres_own() {
        for (days, expected) in [
            (0, "2000-01-01"),
            (59, "2000-02-29"),
            (-730_119, "0001-01-01"),
            (-730_120, "0001-12-31 BC"),
            (-2_451_545, "4714-11-24 BC"),
            (2_921_940, "10000-01-01"),
            (2_145_031_948, "5874897-12-31"),
            (i32::MAX, "infinity"),
            (i32::MIN, "-infinity"),
        ] {
            assert_eq!(text(|out| date(out, days, PG_EPOCH_DAYS)), expected);
        }
        assert_eq!(text(|out| date(out, 0, 0)), "1970-01-01");
    }

    #[test]
    fn timestamps_are_postgres_own() {
        for (micros, plain, json) in [
            (0, "2000-01-01 00:00:00+00", "2000-01-01T00:00:00+00:00"),
            (123_000, "2000-01-01 00:00:00.123+00", "2000-01-01T00:00:00.123+00:00"),
            (-1, "1999-12-31 23:59:59.999999+00", "1999-12-31T23:59:59.999999+00:00"),
            (100, "2000-01-01 00:00:00.0001+00", "2000-01-01T00:00:00.0001+00:00"),
            (9_223_371_331_199_999_999, "294276-12-31 23:59:59.999999+00", "294276-12-31T23:59:59.999999+00:00"),
            (-211_813_488_000_000_000, "4714-11-24 00:00:00+00 BC", "4714-11-24T00:00:00+00:00 BC"),
            (i64::MAX, "infinity", "infinity"),
            (i64::MIN, "-infinity", "-infinity"),
        ] {
            assert_eq!(stamp(micros, true, OUTPUT), plain);
            assert_eq!(stamp(micros, true, JSON), json);
            assert_eq!(stamp(micros, false, OUTPUT), plain.replace("+00", ""));
        }
    }

    #[test]
    fn times_reach_24_hours() {
        for (micros, expected) in [
            (0, "00:00:00"),
            (1, "00:00:00.000001"),
            (86_399_999_999, "23:59:59.999999"),
            (86_400_000_000, "24:00:00"),
            (45_296_500_000, "12:34:56.5"),
        ] {
            assert_eq!(text(|out| time(out, micros)), expected);
        }
    }

    proptest! {
        #[test]
        fn dates_equal_chrono(days in -90_000_000_i64..90_000_000) {
            let Some(expected) = chrono::NaiveDate::from_epoch_days(i32::try_from(days).unwrap()) else {
                return Ok(());
            };
            let found = civil(days);
            prop_assert_eq!(
                (found.year, u32::from(found.month), u32::from(found.day)),
                (i64::from(expected.year()), expected.month(), expected.day())
            );
        }

        #[test]
        fn timestamps_equal_chrono(micros in -8_000_000_000_000_000_000_i64..8_000_000_000_000_000_000) {
            let Some(expected) = DateTime::from_timestamp_micros(micros) else { return Ok(()) };
            let (before_christ, year) = expected.year_ce();
            let mut fraction = format!(".{:06}", expected.nanosecond() / 1_000);
            fraction.truncate(fraction.trim_end_matches('0').trim_end_matches('.').len());
            let era = if before_christ { "" } else { " BC" };
            let expected = format!("{year:04}-{}{fraction}+00{era}", expected.format("%m-%d %H:%M:%S"));
            prop_assert_eq!(text(|out| timestamp(out, micros, 0, true, OUTPUT)), expected);
        }
    }
}
