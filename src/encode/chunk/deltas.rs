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
    let mut before = first;
    for block in rest.chunks(BLOCK) {
        let mut differences = [0_i64; BLOCK];
        for (difference, &value) in differences.iter_mut().zip(block) {
            let wide = value.wrapping_sub(before);
            *difference = if narrow { wide << 32 >> 32 } else { wide };
            before = value;
        }
        append_block(&differences[..block.len()], narrow, out);
    }
}

fn append_block(differences: &[i64], narrow: bool, out: &mut Vec<u8>) {
    let least = differences.iter().copied().fold(i64::MAX, i64::min);
    zigzag(least, out);
    let mask = if narrow { u64::from(u32::MAX) } else { u64::MAX };
    let mut above = [0_u64; BLOCK];
    for (above, difference) in above.iter_mut().zip(differences) {
        *above = difference.wrapping_sub(least).cast_unsigned() & mask;
    }
    let widths = out.len();
    out.extend_from_slice(&[0; MINIBLOCKS]);
    // Miniblocks without a value have a width, which is 0, and nothing else.
    for (place, miniblock) in
        above.as_chunks::<MINIBLOCK>().0.iter().take(differences.len().div_ceil(MINIBLOCK)).enumerate()
    {
        let width = u64::BITS - miniblock.iter().fold(0, |all, above| all | above).leading_zeros();
        out[widths + place] = width.to_le_bytes()[0];
        pack(miniblock, width, out);
    }
}

/// Appends the lowest `width` bits of each, the first value's first.
#[inline]
fn pack(values: &[u64; MINIBLOCK], width: u32, out: &mut Vec<u8>) {
    // Words of a miniblock of the greatest width; 32 values of any width end at a half of one.
    let mut words = [0_u64; MINIBLOCK + 1];
    let (mut word, mut filled, mut at) = (0_u64, 0, 0);
    for value in values {
        word |= value << filled;
        let end = filled + width;
        if end < u64::BITS {
            filled = end;
            continue;
        }
        words[at] = word;
        at += 1;
        word = value.checked_shr(u64::BITS - filled).unwrap_or(0);
        filled = end - u64::BITS;
    }
    words[at] = word;
    let start = out.len();
    words[..=at].iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    out.truncate(start + MINIBLOCK / 8 * width as usize);
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
