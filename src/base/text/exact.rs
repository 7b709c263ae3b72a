//! Which numbers a reader with 64-bit floats keeps: JavaScript, `jq`, most readers of JSON.

use std::io::Write;

use super::float::{Decimal, shortest};

/// Numbers of this many significant digits have a float of their own (`DBL_DIG`).
const ALWAYS_KEPT: u32 = 15;

/// No float needs more digits than this to be told from its neighbours.
const NEVER_MORE: u32 = 17;

/// Exponents of the first digit at which every float has its full precision.
const NORMAL: std::ops::RangeInclusive<i64> = -307..=307;

/// Exponents of the first digit beyond which every number becomes zero or infinite.
const FINITE: std::ops::RangeInclusive<i64> = -324..=308;

/// Whether the nearest 64-bit float, printed as the shortest decimal that reads back as that float, is the same number:
/// so 0.1, 0.30 and 2^53 are kept, 2^53 + 1 and 1e400 are not.
///
/// `number` is a JSON number, or one as `numeric` prints it. NaN and the infinities are floats themselves.
pub(crate) fn kept_by_double(number: &[u8]) -> bool {
    let exponent_at = number.iter().position(|byte| matches!(byte, b'e' | b'E'));
    match exponent_at {
        // Too few digits for anything to happen to them.
        None => number.len() <= 15 || long_kept(number, 0),
        Some(at) => long_kept(&number[..at], exponent(&number[at + 1..])),
    }
}

fn long_kept(significand: &[u8], exponent: i64) -> bool {
    // digits x 10^exponent, without zeros at either end of the digits.
    let (mut digits, mut count, mut exponent) = (0_u64, 0_u32, exponent);
    let mut zeros = 0_u32;
    let mut after_point = false;
    for &byte in significand {
        match byte {
            b'.' => after_point = true,
            b'0'..=b'9' => {
                exponent -= i64::from(after_point);
                if byte == b'0' {
                    zeros = zeros.saturating_add(u32::from(digits > 0));
                    continue;
                }
                count = count.saturating_add(zeros).saturating_add(1);
                if count > NEVER_MORE {
                    return false;
                }
                digits = digits * 10_u64.pow(zeros + 1) + u64::from(byte - b'0');
                zeros = 0;
            }
            _ => {}
        }
    }
    if digits == 0 {
        return true;
    }
    exponent += i64::from(zeros);
    let leading = exponent + i64::from(count) - 1;
    if count <= ALWAYS_KEPT && NORMAL.contains(&leading) {
        return true;
    }
    FINITE.contains(&leading) && i32::try_from(exponent).is_ok_and(|exponent| reads_back(digits, exponent))
}

/// Whether `digits` x 10^`exponent` is what its nearest float prints as.
fn reads_back(digits: u64, exponent: i32) -> bool {
    let mut buffer = [0_u8; 32];
    let mut rest = &mut buffer[..];
    let complete = write!(rest, "{digits}e{exponent}").is_ok();
    debug_assert!(complete, "17 digits and an exponent of 3 fit");
    let length = 32 - rest.len();
    let float = std::str::from_utf8(&buffer[..length]).ok().and_then(|text| text.parse().ok());
    float.is_some_and(|float| shortest(float) == Decimal { digits, exponent })
}

/// The exponent behind `e`; one that is out of all bounds stays so.
fn exponent(text: &[u8]) -> i64 {
    const BEYOND: i64 = 1 << 40;
    let magnitude = text
        .iter()
        .filter(|byte| byte.is_ascii_digit())
        .fold(0, |value: i64, byte| (value * 10 + i64::from(byte - b'0')).min(BEYOND));
    if text.first() == Some(&b'-') { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(number: &str) -> bool {
        kept_by_double(number.as_bytes())
    }

    #[test]
    fn numbers_that_a_double_keeps() {
        let zeros = format!("1{}", "0".repeat(22));
        let fraction = format!("0.{}1", "0".repeat(300));
        let padded = format!("7.5{}", "0".repeat(5_000));
        for number in [
            "0",
            "-0",
            "0.0",
            "0e999999999999999999999",
            "1",
            "-1",
            "0.1",
            "0.30",
            "1.5",
            "9007199254740991",
            "9007199254740992",
            "-9007199254740992",
            "9007199254740994",
            "0.30000000000000004",
            "999999999999999",
            "1000000000000000000",
            "4611686018427388000",
            "1e23",
            "1E+22",
            "-1.5e-7",
            "1.7976931348623157e308",
            "1.79769313486231570e+308",
            "2.2250738585072014e-308",
            "5e-324",
            "0.5e-323",
            "50e-325",
            "NaN",
            "Infinity",
            "-Infinity",
            &zeros,
            &fraction,
            &padded,
            "123456789012345.6",
            "0.000001234567890123450000",
        ] {
            assert!(kept(number), "{number}");
        }
    }

    #[test]
    fn numbers_that_a_double_changes() {
        let long = format!("1{}", "0".repeat(400));
        let small = format!("0.{}1", "0".repeat(400));
        let last = format!("1{}1", "0".repeat(5_000));
        for number in [
            "9007199254740993",
            "-9007199254740993",
            "9223372036854775807",
            "-9223372036854775808",
            // 2^60 is a float, but 1152921504606847000 is what its readers print.
            "1152921504606846976",
            "0.1000000000000000055511151231257827",
            "0.10000000000000001",
            "1e400",
            "-1e400",
            "1e-400",
            "1.7976931348623159e308",
            "4.9e-324",
            "2e-324",
            "3e-324",
            "123456789012345678",
            "1.00000000000000001",
            "1e99999999999999999999",
            "1e-99999999999999999999",
            &long,
            &small,
            &last,
        ] {
            assert!(!kept(number), "{number}");
        }
    }

    /// Digits without zeros at either end, and the exponent of the last of them; by means of text alone.
    fn normal(number: &str) -> (String, i64) {
        let (significand, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let (whole, fraction) = significand.trim_start_matches('-').split_once('.').unwrap_or((significand, ""));
        let digits = format!("{}{fraction}", whole.trim_start_matches('-'));
        let places = i64::try_from(fraction.len()).unwrap();
        let kept = digits.trim_end_matches('0');
        let cut = i64::try_from(digits.len() - kept.len()).unwrap();
        let kept = kept.trim_start_matches('0');
        if kept.is_empty() {
            return (String::new(), 0);
        }
        (kept.to_owned(), exponent.parse::<i64>().unwrap() - places + cut)
    }

    proptest! {
        #![proptest_config(crate::regressions::kept())]

        #[test]
        fn the_rule_is_reading_and_printing(number in "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][-+]?[0-9]{1,3})?") {
            let float: f64 = number.parse().unwrap();
            let same = float.is_finite() && normal(&format!("{float:e}")) == normal(&number);
            prop_assert_eq!(kept(&number), same, "{}", number);
        }

        #[test]
        fn near_the_limit_of_digits_too(digits in 1_000_000_000_000_000_u64..200_000_000_000_000_000, exponent in -345_i32..330) {
            let number = format!("{digits}e{exponent}");
            let float: f64 = number.parse().unwrap();
            let same = float.is_finite() && normal(&format!("{float:e}")) == normal(&number);
            prop_assert_eq!(kept(&number), same, "{}", number);
        }

        #[test]
        fn what_a_float_prints_is_kept(bits: u64) {
            let float = f64::from_bits(bits);
            prop_assume!(float.is_finite());
            for number in [format!("{float}"), format!("{float:e}"), format!("{float:?}")] {
                prop_assert!(kept(&number), "{}", number);
            }
        }

        #[test]
        fn integers_up_to_2_to_the_53_are_kept(number in -(1_i64 << 53)..=1 << 53) {
            prop_assert!(kept(&number.to_string()));
        }

        #[test]
        fn any_bytes_are_borne(bytes: Vec<u8>) {
            kept_by_double(&bytes);
        }
    }
}
