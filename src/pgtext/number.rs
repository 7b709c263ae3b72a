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
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, &byte) in bytes.iter().take(16).enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at..at + 2].copy_from_slice(&HEX[usize::from(byte)]);
        at += 2;
    }
    out.extend_from_slice(&text);
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

    #[test]
    fn bytes_and_uuids_are_lower_case_hex() {
        assert_eq!(text(|out| hex_bytes(out, &[0, 0xab, 0xff])), "x00abff");
        assert_eq!(text(|out| hex_bytes(out, &[])), "x");
        let bytes: Vec<u8> = (0x10..0x20).collect();
        assert_eq!(text(|out| uuid(out, &bytes)), "10111213-1415-1617-1819-1a1b1c1d1e1f");
    }
}
