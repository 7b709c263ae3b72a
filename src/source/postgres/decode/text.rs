//! A value's text out of its binary form: what the type's output function writes under `DateStyle` ISO, `IntervalStyle`
//! postgres, `TimeZone` UTC, `extra_float_digits` above 0 and `bytea_output` hex.

mod geometry;
mod interval;
mod network;
#[cfg(test)]
pub(super) mod tests;

use super::error::Problem;
use super::{numeric, scalar};
use crate::base::text::datetime::{self, PG_EPOCH_DAYS};
use crate::base::text::{float, number};
use crate::source::postgres::plan::oid;

/// Appends the text of one value that is not NULL. After an error, what it appended means nothing.
pub(super) type TextWriter = fn(&[u8], &mut Vec<u8>) -> Result<(), Problem>;

/// 4714-11-24 BC, the first date and midnight that PostgreSQL has, and the ends behind 5874897-12-31 and 294276-12-31
/// (`datatype/timestamp.h`): days and microseconds since 2000-01-01.
const DATE_MIN: i32 = -2_451_545;
const DATE_END: i32 = 2_145_031_949;
const TIMESTAMP_MIN: i64 = -211_813_488_000_000_000;
const TIMESTAMP_END: i64 = 9_223_371_331_200_000_000;

/// Seconds that a zone of `timetz` stays below, to either side (`TZDISP_LIMIT`).
const ZONE_LIMIT: u32 = 16 * 3600;

/// The writer for a type that is known by its OID; `None` where the binary form does not tell the text (`money`, whose
/// spelling is the database's) or is not known here. Text comes as it was sent: whether it is UTF-8 is not looked at.
pub(super) fn text_writer(base_oid: u32) -> Option<TextWriter> {
    Some(match base_oid {
        oid::BOOL => boolean,
        oid::INT2 => |bytes, out| fixed(bytes, |bytes| number::integer(out, i16::from_be_bytes(bytes))),
        oid::INT4 => |bytes, out| fixed(bytes, |bytes| number::integer(out, i32::from_be_bytes(bytes))),
        oid::INT8 => |bytes, out| fixed(bytes, |bytes| number::integer(out, i64::from_be_bytes(bytes))),
        oid::OID | oid::XID | oid::CID => {
            |bytes, out| fixed(bytes, |bytes| number::integer(out, u32::from_be_bytes(bytes)))
        }
        oid::XID8 => |bytes, out| fixed(bytes, |bytes| number::integer(out, u64::from_be_bytes(bytes))),
        oid::FLOAT4 => |bytes, out| fixed(bytes, |bytes| float::float4(out, f32::from_be_bytes(bytes))),
        oid::FLOAT8 => |bytes, out| fixed(bytes, |bytes| float::float8(out, f64::from_be_bytes(bytes))),
        oid::NUMERIC => numeric::append_text,
        oid::CHAR => single_byte,
        oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::UNKNOWN | oid::JSON | oid::XML => copied,
        oid::JSONB | oid::JSONPATH => versioned,
        oid::BYTEA => bytea,
        oid::UUID => |bytes, out| fixed::<16>(bytes, |bytes| number::uuid(out, &bytes)),
        oid::DATE => date,
        oid::TIME => time,
        oid::TIMETZ => timetz,
        oid::TIMESTAMP => |bytes, out| timestamp(bytes, out, false),
        oid::TIMESTAMPTZ => |bytes, out| timestamp(bytes, out, true),
        oid::INTERVAL => interval::interval,
        oid::TID => tid,
        oid::PG_LSN => pg_lsn,
        oid::BIT | oid::VARBIT => bits,
        oid::INET => network::inet,
        oid::CIDR => network::cidr,
        oid::MACADDR => network::mac::<6>,
        oid::MACADDR8 => network::mac::<8>,
        oid::POINT => geometry::point,
        oid::LSEG => geometry::lseg,
        oid::PATH => geometry::path,
        oid::BOX => geometry::corners,
        oid::POLYGON => geometry::polygon,
        oid::LINE => geometry::line,
        oid::CIRCLE => geometry::circle,
        _ => return None,
    })
}

/// A value of `N` bytes.
fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Problem> {
    bytes.try_into().map_err(|_| Problem::Length { expected: N, found: bytes.len() })
}

/// As [`exactly`], for values that are all good.
fn fixed<const N: usize>(bytes: &[u8], put: impl FnOnce([u8; N])) -> Result<(), Problem> {
    exactly(bytes).map(put)
}

/// Appends `value` in base 16 without leading zeros.
fn hex(out: &mut Vec<u8>, value: u32, digits: &[u8; 16]) {
    let last = value.max(1).ilog2() / 4;
    out.extend((0..=last).rev().map(|place| digits[(value >> (4 * place) & 15) as usize]));
}

fn boolean(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    out.push(if scalar::boolean(exactly(bytes)?)? { b't' } else { b'f' });
    Ok(())
}

/// `"char"`: one byte, which is nothing where it is zero and an octal escape where it is not ASCII (`charout`).
fn single_byte(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    match exactly(bytes)? {
        [0] => {}
        [byte @ 1..=0x7F] => out.push(byte),
        [byte] => out.extend([b'\\', b'0' + (byte >> 6), b'0' + (byte >> 3 & 7), b'0' + (byte & 7)]),
    }
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "one signature for all writers")]
fn copied(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    out.extend_from_slice(bytes);
    Ok(())
}

/// Text behind a version.
fn versioned(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    match bytes.split_first() {
        Some((1, text)) => copied(text, out),
        _ => Err(Problem::Malformed("jsonb or jsonpath of an unknown version")),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "one signature for all writers")]
fn bytea(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    out.push(b'\\');
    number::hex_bytes(out, bytes);
    Ok(())
}

fn date(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    match i32::from_be_bytes(exactly(bytes)?) {
        days @ (i32::MIN | i32::MAX | DATE_MIN..DATE_END) => datetime::date(out, days, PG_EPOCH_DAYS),
        _ => return Err(Problem::Malformed("date out of range")),
    }
    Ok(())
}

fn time(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    datetime::time(out, scalar::time(exactly(bytes)?)?);
    Ok(())
}

/// The zone follows in seconds west of Greenwich and is printed as hours east, with minutes and seconds where it has
/// some.
fn timetz(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    let [t0, t1, t2, t3, t4, t5, t6, t7, zone @ ..]: [u8; 12] = exactly(bytes)?;
    let micros = scalar::time([t0, t1, t2, t3, t4, t5, t6, t7])?;
    let west = i32::from_be_bytes(zone);
    let seconds = west.unsigned_abs();
    if seconds >= ZONE_LIMIT {
        return Err(Problem::Malformed("timetz with an impossible zone"));
    }
    datetime::time(out, micros);
    let start = out.len();
    datetime::time(out, i64::from(seconds) * 1_000_000);
    let shown = if !seconds.is_multiple_of(60) {
        8
    } else if !seconds.is_multiple_of(3600) {
        5
    } else {
        2
    };
    out.truncate(start + shown);
    out.insert(start, if west <= 0 { b'+' } else { b'-' });
    Ok(())
}

fn timestamp(bytes: &[u8], out: &mut Vec<u8>, utc: bool) -> Result<(), Problem> {
    match i64::from_be_bytes(exactly(bytes)?) {
        micros @ (i64::MIN | i64::MAX | TIMESTAMP_MIN..TIMESTAMP_END) => {
            datetime::timestamp(out, micros, PG_EPOCH_DAYS, utc, datetime::OUTPUT);
        }
        _ => return Err(Problem::Malformed("timestamp out of range")),
    }
    Ok(())
}

/// Block and offset.
fn tid(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    let [b0, b1, b2, b3, o0, o1] = exactly(bytes)?;
    out.push(b'(');
    number::integer(out, u32::from_be_bytes([b0, b1, b2, b3]));
    out.push(b',');
    number::integer(out, u16::from_be_bytes([o0, o1]));
    out.push(b')');
    Ok(())
}

fn pg_lsn(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    let [h0, h1, h2, h3, low @ ..]: [u8; 8] = exactly(bytes)?;
    let digits = b"0123456789ABCDEF";
    hex(out, u32::from_be_bytes([h0, h1, h2, h3]), digits);
    out.push(b'/');
    hex(out, u32::from_be_bytes(low), digits);
    Ok(())
}

/// How many bits there are, then the bits from the first byte's highest on, and zeros up to a whole byte.
fn bits(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    let (&count, bytes) = bytes.split_first_chunk().ok_or(Problem::Malformed("bits without their count"))?;
    let count = usize::try_from(i32::from_be_bytes(count)).map_err(|_| Problem::Malformed("bits of negative count"))?;
    if bytes.len() != count.div_ceil(8) {
        return Err(Problem::Malformed("bits of another length than they say"));
    }
    let end = out.len() + count;
    out.extend(bytes.iter().flat_map(|&byte| (0..8).map(move |bit| b'0' + (byte << bit >> 7))));
    out.truncate(end);
    Ok(())
}
