//! The run-length and bit-packing hybrid of Parquet's format, version 1 (`Encodings.md`, RLE = 3).

/// Runs at least this long are written as runs; shorter ones are packed.
const RUN_MIN: usize = 16;

/// Values are packed by eights.
const GROUP: usize = 8;

/// Bits that the largest of `values` indices takes, at least one: some readers do not know a width of none.
pub(super) fn width(values: usize) -> u8 {
    let bits = usize::BITS - values.saturating_sub(1).leading_zeros();
    u8::try_from(bits.max(1)).unwrap_or(u8::MAX)
}

/// Appends `indices`, each below `2^width`, with a width of 16 at most.
pub(super) fn append(indices: &[u16], width: u8, out: &mut Vec<u8>) {
    let (mut packed, mut at) = (0, 0);
    // Only eights of one value can be in a run that is long enough without what completes the packed eight before it.
    while let Some(group) = indices[at..].first_chunk::<GROUP>() {
        if *group != [group[0]; GROUP] {
            at += GROUP;
            continue;
        }
        let run = indices[at..].iter().take_while(|&&index| index == group[0]).count();
        if run < RUN_MIN {
            at += GROUP;
            continue;
        }
        pack(&indices[packed..at], width, out);
        repeat(group[0], run, width, out);
        at += run;
        packed = at;
    }
    pack(&indices[packed..], width, out);
}

/// Appends definition levels 0 and 1 from a bitmap whose first bit is its byte's least: `bits` has `count` of them.
pub(super) fn append_levels(bits: &[u8], count: usize, nulls: usize, out: &mut Vec<u8>) {
    if nulls == 0 || nulls == count {
        repeat(u16::from(nulls == 0), count, 1, out);
        return;
    }
    let groups = count.div_ceil(GROUP);
    varint((groups << 1 | 1) as u64, out);
    out.extend_from_slice(&bits[..groups]);
}

fn repeat(index: u16, count: usize, width: u8, out: &mut Vec<u8>) {
    varint((count << 1) as u64, out);
    out.extend_from_slice(&index.to_le_bytes()[..usize::from(width).div_ceil(8)]);
}

/// The last eight are filled up with zeros, which readers do not look at.
fn pack(indices: &[u16], width: u8, out: &mut Vec<u8>) {
    if indices.is_empty() {
        return;
    }
    varint((indices.len().div_ceil(GROUP) << 1 | 1) as u64, out);
    let (groups, rest) = indices.as_chunks::<GROUP>();
    let mut last = [0; GROUP];
    last[..rest.len()].copy_from_slice(rest);
    for group in groups.iter().chain((!rest.is_empty()).then_some(&last)) {
        let mut bits = 0_u128;
        for (place, &index) in group.iter().enumerate() {
            bits |= u128::from(index) << (place * usize::from(width));
        }
        let end = out.len() + usize::from(width);
        // Sixteen bytes and a shorter length are cheaper than a copy of a length the compiler does not know.
        out.extend_from_slice(&bits.to_le_bytes());
        out.truncate(end);
    }
}

/// Seven bits a byte, the lowest first.
pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads as the specification says.
    fn decoded(mut bytes: &[u8], width: u8, count: usize) -> Vec<u16> {
        let mut values = Vec::new();
        while values.len() < count {
            let (mut head, mut shift) = (0_usize, 0);
            loop {
                let (&byte, rest) = bytes.split_first().unwrap();
                bytes = rest;
                head |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    break;
                }
            }
            if head & 1 == 0 {
                let (value, rest) = bytes.split_at(usize::from(width).div_ceil(8));
                bytes = rest;
                let value = value.iter().rev().fold(0, |sum, &byte| sum << 8 | u16::from(byte));
                values.extend(std::iter::repeat_n(value, head >> 1));
            } else {
                let length = (head >> 1) * usize::from(width);
                let (packed, rest) = bytes.split_at(length);
                bytes = rest;
                for place in 0..(head >> 1) * 8 {
                    let bit = |at: usize| u16::from(packed[at / 8] >> (at % 8) & 1);
                    let first = place * usize::from(width);
                    values.push((0..usize::from(width)).fold(0, |sum, at| sum | bit(first + at) << at));
                }
            }
        }
        assert!(bytes.is_empty(), "{} bytes are left", bytes.len());
        values.truncate(count);
        values
    }

    fn runs(width: u8) -> impl Strategy<Value = Vec<u16>> {
        let run = (0..1_u32 << width, prop_oneof![1..4_usize, 1..40_usize, 250..300_usize]);
        prop::collection::vec(run, 0..30).prop_map(|runs| {
            let of = |(value, count)| std::iter::repeat_n(u16::try_from(value).unwrap(), count);
            runs.into_iter().flat_map(of).collect()
        })
    }

    proptest! {
        #![proptest_config(crate::regressions::kept())]

        #[test]
        fn what_is_written_is_read((width, values) in (1..=16_u8).prop_flat_map(|width| (Just(width), runs(width)))) {
            let mut out = Vec::new();
            append(&values, width, &mut out);
            prop_assert_eq!(decoded(&out, width, values.len()), values);
        }

        #[test]
        fn levels_are_read(levels in prop::collection::vec(any::<bool>(), 1..100), same in any::<Option<bool>>()) {
            let levels: Vec<bool> = levels.iter().map(|&level| same.unwrap_or(level)).collect();
            let mut bits = vec![0; levels.len().div_ceil(8)];
            levels.iter().enumerate().for_each(|(at, &level)| bits[at / 8] |= u8::from(level) << (at % 8));
            let nulls = levels.iter().filter(|&&level| !level).count();
            let mut out = Vec::new();
            append_levels(&bits, levels.len(), nulls, &mut out);
            let expected: Vec<u16> = levels.iter().map(|&level| u16::from(level)).collect();
            prop_assert_eq!(decoded(&out, 1, levels.len()), expected);
        }
    }

    #[test]
    fn widths() {
        let cases = [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (256, 8), (257, 9), (65_536, 16)];
        for (values, expected) in cases {
            assert_eq!(width(values), expected, "{values}");
        }
    }
}
