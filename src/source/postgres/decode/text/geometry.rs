//! The geometric types: coordinates as `float8` prints them, in the brackets of each type (`path_encode` in
//! `geo_ops.c`).

use super::exactly;
use crate::base::text::float;
use crate::source::postgres::decode::Problem;

/// `(x,y)`.
pub(super) fn point(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    put_point(&exactly(bytes)?, out);
    Ok(())
}

/// `[(x,y),(x,y)]`.
pub(super) fn lseg(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    let points: [u8; 32] = exactly(bytes)?;
    enclosed(*b"[]", points.as_chunks().0, out);
    Ok(())
}

/// `box`, upper right corner first: `(x,y),(x,y)`.
pub(super) fn corners(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    let points: [u8; 32] = exactly(bytes)?;
    put_points(points.as_chunks().0, out);
    Ok(())
}

/// Whether it is closed, how many points, the points: `((x,y),…)` where closed, else `[(x,y),…]`.
pub(super) fn path(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    let brackets = match bytes.first() {
        Some(0) => *b"[]",
        Some(1) => *b"()",
        _ => return Err(Problem::Malformed("path that is neither open nor closed")),
    };
    enclosed(brackets, counted(&bytes[1..])?, out);
    Ok(())
}

/// How many points, the points: `((x,y),…)`.
pub(super) fn polygon(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    enclosed(*b"()", counted(bytes)?, out);
    Ok(())
}

/// The three numbers of `Ax + By + C = 0`: `{A,B,C}`.
pub(super) fn line(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    let numbers: [u8; 24] = exactly(bytes)?;
    out.push(b'{');
    for (index, &number) in numbers.as_chunks().0.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        float::float8(out, f64::from_be_bytes(number));
    }
    out.push(b'}');
    Ok(())
}

/// Centre and radius: `<(x,y),r>`.
pub(super) fn circle(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    let numbers: [u8; 24] = exactly(bytes)?;
    if let Some((centre, &radius)) = numbers.split_last_chunk() {
        out.push(b'<');
        centre.as_chunks().0.iter().for_each(|centre| put_point(centre, out));
        out.push(b',');
        float::float8(out, f64::from_be_bytes(radius));
        out.push(b'>');
    }
    Ok(())
}

/// Points behind their count.
fn counted(bytes: &[u8]) -> Result<&[[u8; 16]], Problem> {
    let malformed = Problem::Malformed("points of another number than they say");
    match bytes.split_first_chunk() {
        Some((&count, points)) => match points.as_chunks() {
            (points, []) if u32::try_from(points.len()) == Ok(u32::from_be_bytes(count)) => Ok(points),
            _ => Err(malformed),
        },
        None => Err(malformed),
    }
}

fn enclosed([open, close]: [u8; 2], points: &[[u8; 16]], out: &mut Vec<u8>) {
    out.push(open);
    put_points(points, out);
    out.push(close);
}

fn put_points(points: &[[u8; 16]], out: &mut Vec<u8>) {
    for (index, point) in points.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        put_point(point, out);
    }
}

fn put_point(&[x0, x1, x2, x3, x4, x5, x6, x7, y @ ..]: &[u8; 16], out: &mut Vec<u8>) {
    out.push(b'(');
    float::float8(out, f64::from_be_bytes([x0, x1, x2, x3, x4, x5, x6, x7]));
    out.push(b',');
    float::float8(out, f64::from_be_bytes(y));
    out.push(b')');
}
