//! Floating-point numbers as PostgreSQL 12 and later print them: the shortest digits that read back as the same
//! number, fixed notation for exponents from -4 to 14 (`float8`) or 5 (`float4`), else `1e+15`, `1e-05`.
//!
//! PostgreSQL differs from other shortest printers in two ways, both settled here with exact integers. It never prints
//! a decimal halfway between two floats, even where that reads back right (`1e23` is `9.999999999999999e+22`), and it
//! rounds a tie between two shortest decimals to the even digit.

use std::io::Write;

use super::number::{integer, zeros};

/// Integers below this are printed as they are: fixed notation holds them.
const FIXED_DIGITS_64: i32 = 15;
const FIXED_DIGITS_32: i32 = 6;

/// `digits` x 10^`exponent`, without trailing zeros in `digits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal {
    pub(super) digits: u64,
    pub(super) exponent: i32,
}

/// A positive float, taken apart: `mantissa` x 2^`exponent`.
#[derive(Debug, Clone, Copy)]
struct Binary {
    mantissa: u64,
    exponent: i32,
    /// Whether the next lower float is only half a step away: at powers of two.
    lower_is_closer: bool,
    single: bool,
}

/// Appends a `float8`.
pub(crate) fn float8(out: &mut Vec<u8>, value: f64) {
    if special(out, value) {
        return;
    }
    let magnitude = value.abs();
    if let Some(decimal) = integral(magnitude, 1e15).or_else(|| six_places(magnitude)) {
        put(out, decimal, FIXED_DIGITS_64);
        return;
    }
    let bits = magnitude.to_bits();
    let binary = Binary::new(bits & ((1 << 52) - 1), bits >> 52, 52, 1_075);
    put(out, settle(written(format_args!("{magnitude:e}")), binary), FIXED_DIGITS_64);
}

/// Appends a `float4`.
pub(crate) fn float4(out: &mut Vec<u8>, value: f32) {
    if special(out, f64::from(value)) {
        return;
    }
    let magnitude = value.abs();
    if let Some(decimal) = integral(f64::from(magnitude), 1e6) {
        put(out, decimal, FIXED_DIGITS_32);
        return;
    }
    let bits = u64::from(magnitude.to_bits());
    let binary = Binary::new(bits & ((1 << 23) - 1), bits >> 23, 23, 150);
    put(out, settle(written(format_args!("{magnitude:e}")), binary), FIXED_DIGITS_32);
}

/// Appends what is no positive number's business: words, zero and the sign. True where that was all.
fn special(out: &mut Vec<u8>, value: f64) -> bool {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
        return true;
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    if value.is_infinite() {
        out.extend_from_slice(b"Infinity");
    } else if value == 0.0 {
        out.push(b'0');
    }
    value.is_infinite() || value == 0.0
}

/// An integer below `limit`: so far below 2^53 (2^24), no shorter decimal reads back as the same float.
fn integral(value: f64, limit: f64) -> Option<Decimal> {
    if value >= limit || value.fract() != 0.0 {
        return None;
    }
    Some(Decimal { digits: whole(value), exponent: 0 })
}

/// A number of at most 15 digits, six of them after the point. The quotient of two exact floats is the float nearest
/// to that decimal, and two decimals of up to 15 digits never share their nearest float, so none is shorter.
fn six_places(value: f64) -> Option<Decimal> {
    if !(1e-4..1e9).contains(&value) {
        return None;
    }
    let scaled = (value * 1e6).round();
    #[expect(clippy::float_cmp, reason = "only the very same float proves the digits")]
    if scaled / 1e6 != value || scaled >= 1e15 {
        return None;
    }
    Some(Decimal { digits: whole(scaled), exponent: -6 }.stripped())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "callers pass integers from 0 to 10^15")]
fn whole(value: f64) -> u64 {
    value as u64
}

/// The shortest decimal that reads back as a finite float's magnitude, as most languages print it; PostgreSQL's own
/// choice may differ. Zero digits for zero and for what is not finite.
pub(super) fn shortest(value: f64) -> Decimal {
    let magnitude = value.abs();
    written(format_args!("{magnitude:e}"))
}

/// The decimal that `{:e}` wrote: `d.ddde-dd`.
fn written(text: std::fmt::Arguments<'_>) -> Decimal {
    let mut buffer = [0_u8; 32];
    let mut rest = &mut buffer[..];
    let complete = rest.write_fmt(text).is_ok();
    debug_assert!(complete, "17 digits and an exponent of 3 fit");
    let length = 32 - rest.len();
    let mut decimal = Decimal { digits: 0, exponent: 0 };
    let mut places = 0;
    let mut bytes = buffer[..length].iter();
    let mut after_point = false;
    for &byte in bytes.by_ref() {
        match byte {
            b'0'..=b'9' => {
                decimal.digits = decimal.digits * 10 + u64::from(byte - b'0');
                places += i32::from(after_point);
            }
            b'.' => after_point = true,
            _ => break,
        }
    }
    let mut negative = false;
    for &byte in bytes {
        match byte {
            b'0'..=b'9' => decimal.exponent = decimal.exponent * 10 + i32::from(byte - b'0'),
            _ => negative = true,
        }
    }
    if negative {
        decimal.exponent = -decimal.exponent;
    }
    decimal.exponent -= places;
    decimal.stripped()
}

/// From the shortest decimal that reads back, to the one that PostgreSQL prints.
fn settle(shortest: Decimal, value: Binary) -> Decimal {
    if value.is_boundary(shortest) {
        return strictly_inside(shortest, value);
    }
    // Even already, or no tie: as it is.
    if shortest.digits % 2 == 1 {
        let twice = u128::from(shortest.digits) * 2;
        for (tie, even) in [(twice - 1, shortest.digits - 1), (twice + 1, shortest.digits + 1)] {
            let even = Decimal { digits: even, ..shortest };
            // Below a power of two, the even one may already belong to the next float.
            if same(tie, shortest.exponent, u128::from(value.mantissa), value.exponent + 1) && value.owns(even) {
                return even.stripped();
            }
        }
    }
    shortest
}

/// The shortest decimal that lies between the float's boundaries, not on them.
fn strictly_inside(boundary: Decimal, value: Binary) -> Decimal {
    let length = count_digits(boundary.digits);
    for places in length - 1..17 {
        let nearest = value.rounded(places);
        for digits in [nearest.digits, nearest.digits + 1, nearest.digits - 1] {
            let candidate = Decimal { digits, ..nearest };
            if value.owns(candidate) {
                return candidate.stripped();
            }
        }
    }
    boundary
}

impl Decimal {
    fn stripped(mut self) -> Self {
        while self.digits.is_multiple_of(10) && self.digits != 0 {
            self.digits /= 10;
            self.exponent += 1;
        }
        self
    }
}

impl Binary {
    fn new(fraction: u64, biased: u64, fraction_bits: u32, bias: i32) -> Self {
        let subnormal = biased == 0;
        let hidden = if subnormal { 0 } else { 1 << fraction_bits };
        Self {
            mantissa: fraction | hidden,
            // 11 bits at most.
            exponent: i32::try_from(biased.max(1)).unwrap_or(i32::MAX) - bias,
            lower_is_closer: fraction == 0 && biased > 1,
            single: fraction_bits == 23,
        }
    }

    /// Whether `decimal` is exactly halfway to the next float up or down.
    fn is_boundary(self, decimal: Decimal) -> bool {
        let digits = u128::from(decimal.digits);
        let mantissa = u128::from(self.mantissa);
        let lower = if self.lower_is_closer {
            (4 * mantissa - 1, self.exponent - 2)
        } else {
            (2 * mantissa - 1, self.exponent - 1)
        };
        same(digits, decimal.exponent, 2 * mantissa + 1, self.exponent - 1)
            || same(digits, decimal.exponent, lower.0, lower.1)
    }

    /// Whether `decimal` lies strictly between the float's boundaries.
    fn owns(self, decimal: Decimal) -> bool {
        self.reads_back(decimal) && !self.is_boundary(decimal)
    }

    fn reads_back(self, decimal: Decimal) -> bool {
        let text = format!("{}e{}", decimal.digits, decimal.exponent);
        if self.single {
            text.parse::<f32>().is_ok_and(|parsed| parsed.to_bits() == self.float4().to_bits())
        } else {
            text.parse::<f64>().is_ok_and(|parsed| parsed.to_bits() == self.float8().to_bits())
        }
    }

    /// The decimal nearest to the float with `places` digits after the first; trailing zeros stay.
    fn rounded(self, places: usize) -> Decimal {
        let mut decimal = if self.single {
            written(format_args!("{:.places$e}", self.float4()))
        } else {
            written(format_args!("{:.places$e}", self.float8()))
        };
        for _ in count_digits(decimal.digits)..=places {
            decimal.digits *= 10;
            decimal.exponent -= 1;
        }
        decimal
    }

    fn float8(self) -> f64 {
        let biased = u64::try_from(self.exponent + 1_075).unwrap_or(0);
        let hidden = 1_u64 << 52;
        f64::from_bits(if self.mantissa < hidden {
            self.mantissa
        } else {
            biased << 52 | (self.mantissa & (hidden - 1))
        })
    }

    fn float4(self) -> f32 {
        let biased = u32::try_from(self.exponent + 150).unwrap_or(0);
        let hidden = 1_u32 << 23;
        let mantissa = u32::try_from(self.mantissa).unwrap_or(0);
        f32::from_bits(if mantissa < hidden { mantissa } else { biased << 23 | (mantissa & (hidden - 1)) })
    }
}

/// Whether `digits` x 10^`ten` equals `mantissa` x 2^`two`, exactly. Both are positive, and `mantissa` has at most 55
/// bits.
fn same(digits: u128, ten: i32, mantissa: u128, two: i32) -> bool {
    // 5^25 has more than 55 bits: no mantissa has such a factor, and no 17 digits are divisible by it.
    let Some(five) = Some(ten.unsigned_abs()).filter(|&power| power <= 24).map(|power| 5_u128.pow(power)) else {
        return false;
    };
    let scaled = if ten >= 0 {
        digits * five
    } else if digits.is_multiple_of(five) {
        digits / five
    } else {
        return false;
    };
    let (left, right) = (scaled.trailing_zeros(), mantissa.trailing_zeros());
    scaled >> left == mantissa >> right && i64::from(ten) + i64::from(left) == i64::from(two) + i64::from(right)
}

fn count_digits(digits: u64) -> usize {
    digits.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// Appends a decimal in fixed notation where its first digit stands at 10^-4 to 10^(`fixed_digits` - 1), else in
/// scientific notation.
fn put(out: &mut Vec<u8>, decimal: Decimal, fixed_digits: i32) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(decimal.digits).as_bytes();
    let length = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    // Digits in front of the point, negative where zeros follow it.
    let point = decimal.exponent + length;
    if !(-3..=fixed_digits).contains(&point) {
        scientific(out, digits, point - 1);
    } else if let Ok(before @ 1..) = usize::try_from(point) {
        let split = before.min(digits.len());
        out.extend_from_slice(&digits[..split]);
        zeros(out, before - split);
        if split < digits.len() {
            out.push(b'.');
            out.extend_from_slice(&digits[split..]);
        }
    } else {
        out.extend_from_slice(b"0.");
        zeros(out, point.unsigned_abs() as usize);
        out.extend_from_slice(digits);
    }
}

fn scientific(out: &mut Vec<u8>, digits: &[u8], exponent: i32) {
    out.push(digits[0]);
    if digits.len() > 1 {
        out.push(b'.');
        out.extend_from_slice(&digits[1..]);
    }
    out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
    let magnitude = exponent.unsigned_abs();
    if magnitude < 10 {
        out.push(b'0');
    }
    integer(out, magnitude);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn eight(value: f64) -> String {
        let mut out = Vec::new();
        float8(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    fn four(value: f32) -> String {
        let mut out = Vec::new();
        float4(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn float8_prints_as_postgres_does() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (100.0, "100"),
            (0.1, "0.1"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1.0 / 3.0, "0.3333333333333333"),
            (999_999_999_999_999.0, "999999999999999"),
            (1e15, "1e+15"),
            (1.5e15, "1.5e+15"),
            (123_456_789_012_345.6, "123456789012345.6"),
            (0.0001, "0.0001"),
            (0.000_123_456, "0.000123456"),
            (0.000_01, "1e-05"),
            (1e100, "1e+100"),
            (1e23, "9.999999999999999e+22"),
            (9_007_199_254_740_993.0, "9.007199254740992e+15"),
            (18_014_398_509_481_988.0, "1.8014398509481988e+16"),
            (1_125_899_906_842_624.0 + 0.25, "1.1258999068426242e+15"),
            (1_125_899_906_842_624.0 + 0.75, "1.1258999068426248e+15"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (5e-324, "5e-324"),
            (5.684_341_886_080_802e-14, "5.684341886080802e-14"),
            (2_f64.powi(-24), "5.960464477539063e-08"),
        ] {
            assert_eq!(eight(value), expected, "{value:e}");
        }
    }

    #[test]
    fn float4_prints_as_postgres_does() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (f32::NAN, "NaN"),
            (f32::NEG_INFINITY, "-Infinity"),
            (0.1, "0.1"),
            (2.72, "2.72"),
            (999_999.0, "999999"),
            (1e6, "1e+06"),
            (16_777_216.0, "1.6777216e+07"),
            (0.0001, "0.0001"),
            (1e-5, "1e-05"),
            (f32::MAX, "3.4028235e+38"),
            (f32::MIN_POSITIVE, "1.1754944e-38"),
            (1e-45, "1e-45"),
        ] {
            assert_eq!(four(value), expected, "{value:e}");
        }
    }

    #[test]
    fn powers_of_two_and_their_neighbours_read_back() {
        for bits in
            (0..0x7ff_u64).flat_map(|exponent| [-2, -1, 0, 1, 2].map(|step| (exponent << 52).wrapping_add_signed(step)))
        {
            let value = f64::from_bits(bits & (u64::MAX >> 1));
            assert!(value.is_nan() || eight(value).parse::<f64>() == Ok(value), "{value:e}");
        }
        for bits in
            (0..0xff_u32).flat_map(|exponent| [-2, -1, 0, 1, 2].map(|step| (exponent << 23).wrapping_add_signed(step)))
        {
            let value = f32::from_bits(bits & (u32::MAX >> 1));
            assert!(value.is_nan() || four(value).parse::<f32>() == Ok(value), "{value:e}");
        }
    }

    proptest! {
        #![proptest_config(crate::regressions::kept())]

        #[test]
        fn float8_reads_back(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(!value.is_nan());
            prop_assert_eq!(eight(value).parse::<f64>().unwrap().to_bits(), bits);
        }

        #[test]
        fn float4_reads_back(bits: u32) {
            let value = f32::from_bits(bits);
            prop_assume!(!value.is_nan());
            prop_assert_eq!(four(value).parse::<f32>().unwrap().to_bits(), bits);
        }

        #[test]
        #[expect(clippy::cast_precision_loss, reason = "15 digits fit")]
        fn the_short_cuts_agree_with_the_long_way(unscaled in 1_u64..1_000_000_000_000_000, places in 0_i32..=6) {
            let value = unscaled as f64 / 10_f64.powi(places);
            let bits = value.to_bits();
            let binary = Binary::new(bits & ((1 << 52) - 1), bits >> 52, 52, 1_075);
            let long = settle(written(format_args!("{value:e}")), binary);
            for short in [integral(value, 1e15), six_places(value)].into_iter().flatten() {
                prop_assert_eq!(short.stripped(), long);
            }
        }

        #[test]
        fn notation_follows_the_exponent(bits: u64) {
            let value = f64::from_bits(bits).abs();
            prop_assume!(value.is_finite() && value != 0.0);
            prop_assert_eq!(eight(value).contains('e'), !(0.000_1..1e15).contains(&value));
        }
    }
}
