//! What the COPY payload is made of: a header, rows, a trailer.

use super::{Field, FrameError};
use crate::base::memory::MESSAGE_BYTES_MAX;

/// What the payload begins with.
pub(super) enum Unit {
    /// The header or a row, of so many bytes.
    Whole(usize),
    Trailer,
    /// Not whole below so many bytes.
    Short(usize),
}

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// Signature, flags and header extension.
pub(super) fn frame_header(bytes: &[u8]) -> Result<Unit, FrameError> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        return Err(FrameError::PayloadHeader { reason: "not the signature of COPY BINARY" });
    }
    let Some((flags, extension)) =
        bytes[known..].split_first_chunk::<4>().and_then(|(flags, rest)| Some((flags, rest.first_chunk::<4>()?)))
    else {
        return Ok(Unit::Short(SIGNATURE.len() + 8));
    };
    // Bits 0 to 15 are for the reader's information, the others change the format (bit 16: with OIDs).
    if u32::from_be_bytes(*flags) >> 16 != 0 {
        return Err(FrameError::PayloadHeader { reason: "flags of an unknown format" });
    }
    let Ok(extension) = usize::try_from(i32::from_be_bytes(*extension)) else {
        return Err(FrameError::PayloadHeader { reason: "an extension of negative length" });
    };
    let length = SIGNATURE.len() + 8 + extension;
    if length > MESSAGE_BYTES_MAX {
        return Err(FrameError::PayloadHeader { reason: "an extension of impossible length" });
    }
    Ok(if length <= bytes.len() { Unit::Whole(length) } else { Unit::Short(length) })
}

/// A whole message at `read` that is one whole row of so many `columns`; its end. `None` for whatever else is there, and
/// `row` means nothing then.
#[inline]
pub(super) fn frame_message(input: &[u8], read: usize, columns: u16, row: &mut [Field]) -> Option<usize> {
    let &[b'd', a, b, c, d, high, low] = input.get(read..)?.first_chunk::<7>()? else { return None };
    let end = read + 1 + u32::from_be_bytes([a, b, c, d]) as usize;
    if u16::from_be_bytes([high, low]) != columns || end > input.len() {
        return None;
    }
    let mut position = read + 7;
    for field in row {
        let length = u32::from_be_bytes(*input.get(position..position + 4)?.first_chunk()?);
        position += 4;
        if length == u32::MAX {
            *field = Field::ABSENT;
            continue;
        }
        #[expect(clippy::cast_possible_truncation, reason = "the four bytes before it lie in the input, below 4 GiB")]
        let start = position as u32;
        *field = Field::at(start, length);
        // A length below zero leads behind the message, and is not this function's to report.
        position += length as usize;
    }
    (position == end).then_some(end)
}

/// One row, whose first byte stands at `base` of the input, or the trailer.
#[inline]
pub(super) fn frame_row(bytes: &[u8], base: usize, row: &mut [Field], rows_before: u64) -> Result<Unit, FrameError> {
    let Some((&count, _)) = bytes.split_first_chunk::<2>() else {
        return Ok(Unit::Short(2));
    };
    let count = i16::from_be_bytes(count);
    if count == -1 {
        return Ok(Unit::Trailer);
    }
    if usize::try_from(count) != Ok(row.len()) {
        return Err(FrameError::FieldCount {
            row: rows_before + 1,
            expected: u16::try_from(row.len()).unwrap_or(u16::MAX),
            found: count,
        });
    }
    let mut position = 2;
    for (index, field) in row.iter_mut().enumerate() {
        let Some(&length) = bytes.get(position..).and_then(<[u8]>::first_chunk::<4>) else {
            return Ok(Unit::Short(position + 4));
        };
        position += 4;
        let length = i32::from_be_bytes(length);
        if let Ok(length) = u32::try_from(length) {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the four bytes before it lie in the input, which is below 4 GiB"
            )]
            let start = (base + position) as u32;
            *field = Field::at(start, length);
            position += length as usize;
        } else if length == -1 {
            *field = Field::ABSENT;
        } else {
            return Err(FrameError::FieldLength { row: rows_before + 1, field: index + 1, length });
        }
    }
    Ok(if position <= bytes.len() { Unit::Whole(position) } else { Unit::Short(position) })
}
