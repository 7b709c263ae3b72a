//! Dates, times and timestamps in PostgreSQL's ISO style, from its own integers: years 1 to 294276 and beyond, BC,
//! the infinities.

use super::number::{self, ASCII_ZEROS, eight_digits, eight_of_pairs};

/// 2000-01-01, PostgreSQL's epoch, in days since 1970-01-01.
pub(crate) const PG_EPOCH_DAYS: i64 = 10_957;

const MICROS_PER_DAY: i64 = 86_400_000_000;
const DAYS_PER_ERA: i64 = 146_097;

/// How a timestamp is put together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimestampStyle {
    /// Between date and time.
    pub(crate) separator: u8,
    /// After the time of a `timestamptz`.
    utc: &'static [u8],
}

/// Up to eight bytes behind a time, and how many.
pub(crate) type Zone = ([u8; 8], usize);

impl TimestampStyle {
    /// What [`write_plain_timestamp`] is to write behind the time.
    pub(crate) fn zone(self, utc: bool) -> Zone {
        let mut zone = [0; 8];
        let text = if utc { self.utc } else { b"" };
        zone[..text.len()].copy_from_slice(text);
        (zone, text.len())
    }
}

/// As the output functions print: `2020-01-01 00:00:00+00`.
pub(crate) const OUTPUT: TimestampStyle = TimestampStyle { separator: b' ', utc: b"+00" };

/// As `to_json` prints: `2020-01-01T00:00:00+00:00`.
pub(crate) const JSON: TimestampStyle = TimestampStyle { separator: b'T', utc: b"+00:00" };

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
    let days = days + FROM_MARCH_OF_YEAR_0;
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

/// Days from 0000-03-01 to 1970-01-01.
const FROM_MARCH_OF_YEAR_0: i64 = 719_468;

/// 0001-01-01 and the day after 9999-12-31, in days since 1970-01-01.
const PLAIN_DAYS: std::ops::Range<i64> = -719_162..2_932_897;

/// Whether the day, counted from 1970-01-01, is one of the years 1 to 9999.
#[inline]
pub(crate) fn is_plain_day(days: i64) -> bool {
    PLAIN_DAYS.contains(&days)
}

/// Whether the microsecond since midnight of `epoch` is one of the years 1 to 9999.
#[inline]
pub(crate) fn is_plain_timestamp(micros: i64, epoch: i64) -> bool {
    let (first, end) = (PLAIN_DAYS.start - epoch, PLAIN_DAYS.end - epoch);
    (first * MICROS_PER_DAY..end * MICROS_PER_DAY).contains(&micros)
}

/// `yyyy-mm-dd` of a day for which [`is_plain_day`] holds.
///
/// As [`civil`], by multiplications instead of most divisions (Neri and Schneider, "Euclidean affine functions and
/// their application to calendar algorithms", 2022).
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a plain day is below 2^22 when counted from March of year 0"
)]
pub(crate) fn plain_date(days: i64) -> [u8; 10] {
    let days = (days + FROM_MARCH_OF_YEAR_0) as u32;
    let in_centuries = 4 * days + 3;
    let century = in_centuries / 146_097;
    let in_years = u64::from((in_centuries % 146_097) | 3) * 2_939_745;
    let year_of_century = (in_years >> 32) as u32;
    let day_of_year = in_years as u32 / 2_939_745 / 4;
    let in_months = 2_141 * day_of_year + 197_913;
    // Months 13 and 14 are January and February of the next year.
    let (month, day) = (in_months >> 16, (in_months & 0xffff) / 2_141);
    let next = u32::from(month > 12);
    let (carry, year_of_century) = if year_of_century + next == 100 { (1, 0) } else { (0, year_of_century + next) };
    let digits = four_pairs(century + carry, year_of_century, month - 12 * next, day + 1);
    let mut text = *b"0000-00-00";
    text[..4].copy_from_slice(&digits[..4]);
    text[5..7].copy_from_slice(&digits[4..6]);
    text[8..].copy_from_slice(&digits[6..]);
    text
}

/// Four numbers below 100 as eight ASCII digits.
#[inline]
fn four_pairs(first: u32, second: u32, third: u32, fourth: u32) -> [u8; 8] {
    let pairs = u64::from(first) | u64::from(second) << 16 | u64::from(third) << 32 | u64::from(fourth) << 48;
    (eight_of_pairs(pairs) | ASCII_ZEROS).to_le_bytes()
}

/// Appends `yyyy-mm-dd` and tells whether ` BC` belongs to it.
fn put_date(out: &mut Vec<u8>, days: i64) -> bool {
    if is_plain_day(days) {
        out.extend_from_slice(&plain_date(days));
        return false;
    }
    let Civil { year, month, day } = civil(days);
    let before_christ = year <= 0;
    let shown = if before_christ { 1 - year } else { year };
    if shown < 1_000 {
        number::zeros(out, 3 - shown.max(1).ilog10() as usize);
    }
    number::integer(out, shown);
    let digits = four_pairs(u32::from(month), u32::from(day), 0, 0);
    for part in [&digits[..2], &digits[2..4]] {
        out.push(b'-');
        out.extend_from_slice(part);
    }
    before_christ
}

/// Room that [`write_plain_timestamp`] needs.
pub(crate) const TIMESTAMP_BYTES: usize = 36;

/// Writes a timestamp for which [`is_plain_timestamp`] holds at `at`, from where on `out` has [`TIMESTAMP_BYTES`];
/// returns where it ends. What stands behind that changes too. `zone` is [`TimestampStyle::zone`].
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "parts of a day are below 2^32")]
pub(crate) fn write_plain_timestamp(
    out: &mut [u8],
    at: usize,
    micros: i64,
    epoch: i64,
    separator: u8,
    zone: Zone,
) -> usize {
    let (day, micros) = (micros.div_euclid(MICROS_PER_DAY), micros.rem_euclid(MICROS_PER_DAY).unsigned_abs());
    let (seconds, fraction) = ((micros / 1_000_000) as u32, (micros % 1_000_000) as u32);
    let place = &mut out[at..at + TIMESTAMP_BYTES];
    place[..10].copy_from_slice(&plain_date(day + epoch));
    place[10] = separator;
    place[11..19].copy_from_slice(&clock(seconds));
    place[19] = b'.';
    let (digits, kept) = fraction_digits(fraction);
    place[20..28].copy_from_slice(&digits);
    let end = 19 + kept + usize::from(kept > 0);
    place[end..end + 8].copy_from_slice(&zone.0);
    at + end + zone.1
}

/// `hh:mm:ss` of less than 100 hours.
#[inline]
fn clock(seconds: u32) -> [u8; 8] {
    let digits = four_pairs(seconds / 3_600, seconds / 60 % 60, seconds % 60, 0);
    let mut text = *b"00:00:00";
    text[..2].copy_from_slice(&digits[..2]);
    text[3..5].copy_from_slice(&digits[2..4]);
    text[6..].copy_from_slice(&digits[4..6]);
    text
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
pub(crate) fn timestamp(out: &mut Vec<u8>, micros: i64, epoch: i64, utc: bool, style: TimestampStyle) {
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
    // The remainder is below 10^6.
    let fraction = u32::try_from(micros % 1_000_000).unwrap_or(0);
    let (digits, kept) = fraction_digits(fraction);
    out.extend_from_slice(&clock(u32::try_from(micros / 1_000_000).unwrap_or(u32::MAX)));
    if kept > 0 {
        out.push(b'.');
        out.extend_from_slice(&digits[..kept]);
    }
}

/// The digits of so many microseconds below a second, and how many are not zeros at the end.
#[inline]
fn fraction_digits(micros: u32) -> ([u8; 8], usize) {
    // With two zeros more, so that the zeros at the end are the highest bytes.
    let digits = eight_digits(micros / 100, micros % 100 * 100);
    ((digits | ASCII_ZEROS).to_le_bytes(), 8 - digits.leading_zeros() as usize / 8)
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

    fn stamp(micros: i64, utc: bool, style: TimestampStyle) -> String {
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
    fn plain_dates_are_all_days_of_the_years_1_to_9999() {
        for days in PLAIN_DAYS {
            let Civil { year, month, day } = civil(days);
            assert!((1..=9_999).contains(&year));
            assert_eq!(std::str::from_utf8(&plain_date(days)).unwrap(), format!("{year:04}-{month:02}-{day:02}"));
        }
        assert_eq!(civil(PLAIN_DAYS.start - 1).year, 0);
        assert_eq!(civil(PLAIN_DAYS.end).year, 10_000);
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
        #![proptest_config(crate::regressions::kept())]

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
        fn written_timestamps_are_the_appended_ones(
            day in PLAIN_DAYS.start - PG_EPOCH_DAYS..PLAIN_DAYS.end - PG_EPOCH_DAYS,
            micros in prop_oneof![0..MICROS_PER_DAY, (0..86_400_i64).prop_map(|second| second * 1_000_000 + 500)],
            utc: bool,
        ) {
            let micros = day * MICROS_PER_DAY + micros;
            prop_assert!(is_plain_timestamp(micros, PG_EPOCH_DAYS));
            for style in [OUTPUT, JSON] {
                let mut out = [b'!'; TIMESTAMP_BYTES + 1];
                let end = write_plain_timestamp(&mut out, 1, micros, PG_EPOCH_DAYS, style.separator, style.zone(utc));
                prop_assert_eq!(std::str::from_utf8(&out[1..end]).unwrap(), stamp(micros, utc, style));
            }
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
