//! Integers, decimals, hex and UUIDs.

/// Every byte as two hex digits.
const HEX: [[u8; 2]; 256] = {
    let digits = *b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    table
};

/// A byte as two hex digits.
pub(crate) fn hex(byte: u8) -> [u8; 2] {
    HEX[usize::from(byte)]
}

/// Appends an integer.
pub(crate) fn integer<I: itoa::Integer>(out: &mut Vec<u8>, value: I) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Room that [`write_integer`] needs.
pub(crate) const INTEGER_BYTES: usize = 32;

/// The decimal digits of two numbers below 10,000, one a byte, the first in the lowest.
///
/// Both are split into halves at once, then all four halves; dividing by 100 and by 10 is a multiplication and a shift,
/// exact for numbers this small.
#[inline]
pub(crate) fn eight_digits(high: u32, low: u32) -> u64 {
    let groups = u64::from(high) | u64::from(low) << 32;
    let hundreds = ((groups * 10_486) >> 20) & 0x7f_0000_007f;
    eight_of_pairs(hundreds | (groups - hundreds * 100) << 16)
}

/// The decimal digits of four numbers below 100, one in each 16 bits, as [`eight_digits`] gives them.
#[inline]
pub(crate) fn eight_of_pairs(pairs: u64) -> u64 {
    let tens = ((pairs * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | (pairs - tens * 10) << 8
}

/// Digits as ASCII.
pub(crate) const ASCII_ZEROS: u64 = 0x3030_3030_3030_3030;

/// Eight digits without leading zeros but for the last: as ASCII, the first in the lowest byte, and how many.
#[inline]
pub(crate) fn short(digits: u64) -> (u64, usize) {
    let zeros = (digits | 1 << 56).trailing_zeros() / 8;
    ((digits | ASCII_ZEROS) >> (8 * zeros), 8 - zeros as usize)
}

/// The digits of a number below 10^8.
#[inline]
fn below_10_8(number: u64) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "the number is below 10^8")]
    let number = number as u32;
    eight_digits(number / 10_000, number % 10_000)
}

/// Writes an integer at `at`, from where on `out` has [`INTEGER_BYTES`]; returns where it ends. What stands behind that
/// changes too.
#[inline]
pub(crate) fn write_integer(out: &mut [u8], at: usize, value: i64) -> usize {
    const SPLIT: u64 = 100_000_000;
    out[at] = b'-';
    let mut at = at + usize::from(value < 0);
    let mut put = |digits: u64, length: usize| {
        out[at..at + 8].copy_from_slice(&digits.to_le_bytes());
        at += length;
    };
    let magnitude = value.unsigned_abs();
    if magnitude < SPLIT {
        let (digits, length) = short(below_10_8(magnitude));
        put(digits, length);
        return at;
    }
    let (high, low) = (magnitude / SPLIT, magnitude % SPLIT);
    if high < SPLIT {
        let (digits, length) = short(below_10_8(high));
        put(digits, length);
    } else {
        let (digits, length) = short(below_10_8(high / SPLIT));
        put(digits, length);
        put(below_10_8(high % SPLIT) | ASCII_ZEROS, 8);
    }
    put(below_10_8(low) | ASCII_ZEROS, 8);
    at
}

/// Appends `unscaled` / 10^`scale` with all `scale` digits after the point, as `numeric` prints.
pub(crate) fn decimal(out: &mut Vec<u8>, unscaled: i128, scale: usize) {
    if unscaled < 0 {
        out.push(b'-');
    }
    let magnitude = unscaled.unsigned_abs();
    let mut buffer = itoa::Buffer::new();
    // 64-bit division is several times cheaper, and nearly every decimal fits.
    let digits = match u64::try_from(magnitude) {
        Ok(small) => buffer.format(small),
        Err(_) => buffer.format(magnitude),
    }
    .as_bytes();
    if scale == 0 {
        out.extend_from_slice(digits);
        return;
    }
    match digits.len().checked_sub(scale) {
        None | Some(0) => {
            out.extend_from_slice(b"0.");
            zeros(out, scale - digits.len());
            out.extend_from_slice(digits);
        }
        Some(point) => {
            out.extend_from_slice(&digits[..point]);
            out.push(b'.');
            out.extend_from_slice(&digits[point..]);
        }
    }
}

/// Appends `count` zeros.
pub(crate) fn zeros(out: &mut Vec<u8>, count: usize) {
    out.resize(out.len() + count, b'0');
}

/// Bytes as two lower-case digits each.
pub(crate) fn hex_text(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| hex(*byte)).map(char::from).collect()
}

/// Appends bytes as `bytea` prints them, but for the leading `\`: `x` and two digits a byte.
pub(crate) fn hex_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len() + 1;
    out.push(b'x');
    out.resize(start + 2 * bytes.len(), b'0');
    for (digits, &byte) in out[start..].as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *digits = HEX[usize::from(byte)];
    }
}

/// Appends 16 bytes in the canonical form; other lengths do not reach this point.
pub(crate) fn uuid(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&uuid_text(bytes));
}

/// As [`uuid`].
#[inline]
pub(crate) fn uuid_text(bytes: &[u8]) -> [u8; 36] {
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, &byte) in bytes.iter().take(16).enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at..at + 2].copy_from_slice(&HEX[usize::from(byte)]);
        at += 2;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn decimals_keep_their_scale() {
        for (unscaled, scale, expected) in [
            (0, 0, "0"),
            (0, 2, "0.00"),
            (5, 2, "0.05"),
            (-5, 2, "-0.05"),
            (50, 2, "0.50"),
            (123, 2, "1.23"),
            (-12345, 0, "-12345"),
            (1, 38, "0.00000000000000000000000000000000000001"),
            (99_999_999_999_999_999_999_999_999_999_999_999_999, 0, "99999999999999999999999999999999999999"),
            (-99_999_999_999_999_999_999_999_999_999_999_999_999, 38, "-0.99999999999999999999999999999999999999"),
            (-99_999_999_999_999_999_999_999_999_999_999_999_999, 1, "-9999999999999999999999999999999999999.9"),
        ] {
            assert_eq!(text(|out| decimal(out, unscaled, scale)), expected);
        }
    }

    fn written(value: i64) -> String {
        let mut out = [b'!'; INTEGER_BYTES + 3];
        let end = write_integer(&mut out, 3, value);
        assert_eq!(out[..3], *b"!!!");
        String::from_utf8(out[3..end].to_vec()).unwrap()
    }

    #[test]
    fn integers_at_every_length() {
        let powers = (0..19).map(|exponent| 10_i64.pow(exponent));
        let around = powers.flat_map(|power| [power - 1, power, power + 1, power / 3, power.saturating_mul(9)]);
        for value in around.chain([i64::MAX, i64::MIN + 1]) {
            assert_eq!(written(value), value.to_string());
            assert_eq!(written(-value), (-value).to_string());
        }
        assert_eq!(written(i64::MIN), i64::MIN.to_string());
    }

    #[test]
    fn digits_of_every_group() {
        for group in 0..10_000 {
            let ascii = |digits: u64| (digits | ASCII_ZEROS).to_le_bytes();
            assert_eq!(
                ascii(eight_digits(group, 9_999 - group)),
                *format!("{group:04}{:04}", 9_999 - group).as_bytes()
            );
        }
    }

    proptest::proptest! {
        #![proptest_config(crate::regressions::kept())]

        #[test]
        fn integers_are_those_of_the_standard_library(value: i64, shift in 0..64_u32) {
            proptest::prop_assert_eq!(written(value >> shift), (value >> shift).to_string());
        }
    }

    #[test]
    fn bytes_and_uuids_are_lower_case_hex() {
        assert_eq!(text(|out| hex_bytes(out, &[0, 0xab, 0xff])), "x00abff");
        assert_eq!(text(|out| hex_bytes(out, &[])), "x");
        let bytes: Vec<u8> = (0x10..0x20).collect();
        assert_eq!(text(|out| uuid(out, &bytes)), "10111213-1415-1617-1819-1a1b1c1d1e1f");
    }
}
