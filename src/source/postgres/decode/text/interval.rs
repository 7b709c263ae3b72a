//! `interval` in the style `postgres`, as `EncodeInterval` (`datetime.c`) writes it.

use super::exactly;
use crate::base::text::{datetime, number};
use crate::source::postgres::decode::Problem;

const HOUR_MICROSECONDS: i64 = 3_600_000_000;

/// Microseconds, days and months. All at their ends are the infinities that PostgreSQL has since 17; before, the same
/// bytes are an interval of 178,956,970 years, 2,147,483,647 days and 2,562,047,788 hours.
pub(super) fn interval(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    let [t0, t1, t2, t3, t4, t5, t6, t7, d0, d1, d2, d3, months @ ..]: [u8; 16] = exactly(bytes)?;
    let micros = i64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]);
    let days = i32::from_be_bytes([d0, d1, d2, d3]);
    let months = i32::from_be_bytes(months);
    match (micros, days, months) {
        (i64::MAX, i32::MAX, i32::MAX) => out.extend_from_slice(b"infinity"),
        (i64::MIN, i32::MIN, i32::MIN) => out.extend_from_slice(b"-infinity"),
        _ => finite(micros, days, months, out),
    }
    Ok(())
}

fn finite(micros: i64, days: i32, months: i32, out: &mut Vec<u8>) {
    let start = out.len();
    // A field behind a negative one shows its sign in any case, and "month" is not spelled out.
    let mut after_negative = false;
    for (value, unit) in [(months / 12, " year"), (months % 12, " mon"), (days, " day")] {
        if value == 0 {
            continue;
        }
        if out.len() > start {
            out.push(b' ');
        }
        if after_negative && value > 0 {
            out.push(b'+');
        }
        number::integer(out, value);
        out.extend_from_slice(unit.as_bytes());
        if value != 1 {
            out.push(b's');
        }
        after_negative = value < 0;
    }
    if micros == 0 && out.len() > start {
        return;
    }
    if out.len() > start {
        out.push(b' ');
    }
    if micros < 0 {
        out.push(b'-');
    } else if after_negative {
        out.push(b'+');
    }
    let hours = (micros / HOUR_MICROSECONDS).unsigned_abs();
    if hours < 100 {
        datetime::time(out, micros);
        return;
    }
    let before = out.len();
    datetime::time(out, micros % HOUR_MICROSECONDS);
    let mut buffer = itoa::Buffer::new();
    // In the place of the "00" that the rest of an hour begins with.
    out.splice(before..before + 2, buffer.format(hours).bytes());
}
