//! Single values whose wire form is not simply their carrier's.

use arrow::array::types::{ArrowPrimitiveType, Float16Type};

use super::error::Problem;

/// 2000-01-01 in days since 1970-01-01.
const EPOCH_DAYS: i32 = 10_957;
/// 2000-01-01 in microseconds since 1970-01-01.
const EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;
/// 24:00:00, which PostgreSQL allows and Arrow does not.
const DAY_MICROSECONDS: i64 = 86_400_000_000;

#[inline]
pub(super) fn boolean([byte]: [u8; 1]) -> Result<bool, Problem> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Problem::Malformed("bool that is neither 0 nor 1")),
    }
}

#[inline]
pub(super) fn time(bytes: [u8; 8]) -> Result<i64, Problem> {
    let microseconds = i64::from_be_bytes(bytes);
    if (0..=DAY_MICROSECONDS).contains(&microseconds) {
        Ok(microseconds)
    } else {
        Err(Problem::Malformed("time outside of a day"))
    }
}

#[inline]
pub(super) fn time64(bytes: [u8; 8]) -> Result<i64, Problem> {
    let microseconds = time(bytes)?;
    if microseconds == DAY_MICROSECONDS {
        return Err(Problem::Unrepresentable { value: "24:00:00" });
    }
    Ok(microseconds)
}

#[inline]
pub(super) fn date32(bytes: [u8; 4]) -> Result<i32, Problem> {
    let value = match i32::from_be_bytes(bytes) {
        i32::MIN => "-infinity",
        i32::MAX => "infinity",
        days => match days.checked_add(EPOCH_DAYS) {
            Some(days) => return Ok(days),
            None => "a date that far in the future",
        },
    };
    Err(Problem::Unrepresentable { value })
}

#[inline]
pub(super) fn timestamp(bytes: [u8; 8]) -> Result<i64, Problem> {
    let value = match i64::from_be_bytes(bytes) {
        i64::MIN => "-infinity",
        i64::MAX => "infinity",
        microseconds => match microseconds.checked_add(EPOCH_MICROSECONDS) {
            Some(microseconds) => return Ok(microseconds),
            None => "a timestamp that far in the future",
        },
    };
    Err(Problem::Unrepresentable { value })
}

/// As [`timestamp`] in milliseconds; a finer value is rounded as `timestamp(3)` rounds it, half away from 2000-01-01
/// (`AdjustTimestampForTypmod`), or refused. Returns whether it was rounded, too.
#[inline]
pub(super) fn timestamp_millis(bytes: [u8; 8], round: bool) -> Result<(i64, bool), Problem> {
    let value = match i64::from_be_bytes(bytes) {
        i64::MIN => "-infinity",
        i64::MAX => "infinity",
        microseconds => {
            let (whole, rest) = (microseconds / 1000, microseconds % 1000);
            if rest != 0 && !round {
                return Err(Problem::TooFine);
            }
            // A thousandth of any i64 leaves room for the epoch.
            return Ok((whole + rest / 500 + EPOCH_MICROSECONDS / 1000, rest != 0));
        }
    };
    Err(Problem::Unrepresentable { value })
}

/// A float that JSON has a number for.
#[inline]
pub(super) fn finite<F: Copy + Into<f64>>(value: F) -> Result<F, Problem> {
    let double: f64 = value.into();
    if double.is_finite() {
        return Ok(value);
    }
    let value = if double.is_nan() {
        "NaN"
    } else if double > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    Err(Problem::NoJsonNumber { value })
}

/// One of the flags of a range.
#[inline]
pub(super) fn flag([flags]: [u8; 1], mask: u8) -> bool {
    flags & mask != 0
}

/// A 16-bit float, widened.
#[inline]
pub(super) fn half(bytes: [u8; 2]) -> f32 {
    <Float16Type as ArrowPrimitiveType>::Native::from_be_bytes(bytes).to_f32()
}
