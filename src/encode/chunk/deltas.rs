//! `DELTA_BINARY_PACKED` (`Encodings.md`, DELTA = 5): the first value, then differences in blocks, each above the least of its
//! block.

use super::hybrid::varint;

/// Differences that share a least one, and those that share a width.
const BLOCK: usize = 128;
const MINIBLOCK: usize = 32;
const MINIBLOCKS: usize = BLOCK / MINIBLOCK;

/// Appends `values`; `narrow` ones are of the format's INT32, whose differences wrap around at 32 bits.
pub(super) fn append(values: &[i64], narrow: bool, out: &mut Vec<u8>) {
    varint(BLOCK as u64, out);
    varint(MINIBLOCKS as u64, out);
    varint(values.len() as u64, out);
    let Some((&first, rest)) = values.split_first() else {
        zigzag(0, out);
        return;
    };
    zigzag(first, out);
    for (block, before) in rest.chunks(BLOCK).zip(values.chunks(BLOCK)) {
        append_block(block, before, narrow, out);
    }
}

/// Appends the differences of `block` from the values `before`, with half the work where all are of 32 bits.
fn append_block(block: &[i64], before: &[i64], narrow: bool, out: &mut Vec<u8>) {
    let (mut short, mut beyond) = ([0_i32; BLOCK], 0);
    for (short, (value, before)) in short.iter_mut().zip(block.iter().zip(before)) {
        let difference = value.wrapping_sub(*before);
        #[expect(clippy::cast_possible_truncation, reason = "what is cut off wraps around, or is looked at below")]
        let low = difference as i32;
        *short = low;
        beyond |= difference ^ i64::from(low);
    }
    if narrow || beyond == 0 {
        let short = &short[..block.len()];
        let least = short.iter().copied().fold(i32::MAX, i32::min);
        let above = |difference: &i32| difference.wrapping_sub(least).cast_unsigned();
        append_above(i64::from(least), short, above, out);
    } else {
        let differences = block.iter().zip(before).map(|(value, before)| value.wrapping_sub(*before));
        let mut long = [0; BLOCK];
        long.iter_mut().zip(differences).for_each(|(slot, difference)| *slot = difference);
        let long = &long[..block.len()];
        let least = long.iter().copied().fold(i64::MAX, i64::min);
        append_above(least, long, |difference| difference.wrapping_sub(least).cast_unsigned(), out);
    }
}

/// Appends the least difference, then how far `above` it each is.
#[inline]
fn append_above<T, U: Bits>(least: i64, differences: &[T], above: impl Fn(&T) -> U, out: &mut Vec<u8>) {
    zigzag(least, out);
    let widths = out.len();
    out.extend_from_slice(&[0; MINIBLOCKS]);
    // Miniblocks without a value have a width, which is 0, and nothing else.
    for (place, differences) in differences.chunks(MINIBLOCK).enumerate() {
        let mut values = [U::default(); MINIBLOCK];
        values.iter_mut().zip(differences).for_each(|(value, difference)| *value = above(difference));
        let all: u64 = values.iter().fold(U::default(), |all, &value| all | value).into();
        let width = u64::BITS - all.leading_zeros();
        out[widths + place] = width.to_le_bytes()[0];
        pack(&values, width, out);
    }
}

trait Bits: Copy + Default + Into<u64> + std::ops::BitOr<Output = Self> {}
impl Bits for u32 {}
impl Bits for u64 {}

/// Appends the lowest `width` bits of each, the first value's first.
#[inline]
fn pack<U: Bits>(values: &[U; MINIBLOCK], width: u32, out: &mut Vec<u8>) {
    // Values that fit into a word together are put together first: only what comes after waits for what came before.
    match width {
        0 => {}
        1..=16 => pack_words(values.as_chunks::<4>().0.iter().map(|four| joined(four, width)), 4 * width, out),
        17..=32 => pack_words(values.as_chunks::<2>().0.iter().map(|two| joined(two, width)), 2 * width, out),
        _ => pack_words(values.iter().map(|&value| value.into()), width, out),
    }
}

#[inline]
fn joined<U: Bits, const N: usize>(values: &[U; N], width: u32) -> u64 {
    values.iter().rev().fold(0, |word, &value| word << width | value.into())
}

/// Appends the lowest `width` bits of each word, of which there are none above; together they end at a half of a word.
#[inline]
fn pack_words(words: impl Iterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    let (mut open, mut filled) = (0_u64, 0);
    for word in words {
        open |= word << filled;
        filled += width;
        if filled >= u64::BITS {
            out.extend_from_slice(&open.to_le_bytes());
            filled -= u64::BITS;
            open = word.checked_shr(width - filled).unwrap_or(0);
        }
    }
    if filled > 0 {
        out.extend_from_slice(&open.to_le_bytes()[..4]);
    }
}

fn zigzag(value: i64, out: &mut Vec<u8>) {
    varint((value << 1 ^ value >> 63).cast_unsigned(), out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (&byte, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }

    fn signed(bytes: &mut &[u8]) -> i64 {
        let value = number(bytes);
        (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
    }

    /// Reads as the specification says.
    fn decoded(mut bytes: &[u8], narrow: bool) -> Vec<i64> {
        let bytes = &mut bytes;
        assert_eq!((number(bytes), number(bytes)), (128, 4));
        let count = usize::try_from(number(bytes)).unwrap();
        let mut values = vec![signed(bytes)];
        while values.len() < count {
            let least = signed(bytes);
            let (widths, rest) = bytes.split_at(4);
            *bytes = rest;
            for &width in widths {
                if values.len() >= count {
                    assert_eq!(width, 0, "a width of nothing");
                    continue;
                }
                assert!(!narrow || width <= 32);
                let (packed, rest) = bytes.split_at(4 * usize::from(width));
                *bytes = rest;
                for place in 0..32.min(count - values.len()) {
                    let bit = |at: usize| u64::from(packed[at / 8] >> (at % 8) & 1);
                    let first = place * usize::from(width);
                    let above = (0..usize::from(width)).fold(0, |sum, at| sum | bit(first + at) << at);
                    let value = values[values.len() - 1].wrapping_add(least).wrapping_add(above.cast_signed());
                    values.push(if narrow { value << 32 >> 32 } else { value });
                }
            }
        }
        assert!(bytes.is_empty(), "{} bytes are left", bytes.len());
        values.truncate(count);
        values
    }

    fn values(narrow: bool) -> impl Strategy<Value = Vec<i64>> {
        let (least, greatest) = if narrow { (i64::from(i32::MIN), i64::from(i32::MAX)) } else { (i64::MIN, i64::MAX) };
        let value = prop_oneof![Just(least), Just(greatest), least..=greatest, -9..9_i64, Just(7)];
        prop_oneof![
            prop::collection::vec(value, 0..600),
            (0..=63_u32, prop::collection::vec(any::<u64>(), 0..400)).prop_map(move |(shift, noise)| {
                noise.iter().map(|noise| (noise >> shift).cast_signed().clamp(least, greatest)).collect()
            }),
        ]
    }

    proptest! {
        #![proptest_config(crate::regressions::kept())]

        #[test]
        fn what_is_written_is_read(
            (narrow, values) in any::<bool>().prop_flat_map(|narrow| (Just(narrow), values(narrow))),
        ) {
            let mut out = Vec::new();
            append(&values, narrow, &mut out);
            prop_assert_eq!(decoded(&out, narrow), values);
        }
    }

    #[test]
    fn every_width_is_read() {
        for width in 0..=64_u32 {
            let greatest = u64::MAX.checked_shr(64 - width).unwrap_or(0).cast_signed();
            let values: Vec<i64> = (0..300).map(|row| if row % 3 == 0 { greatest } else { row & greatest }).collect();
            let mut out = Vec::new();
            append(&values, false, &mut out);
            assert_eq!(decoded(&out, false), values, "{width}");
        }
    }
}
