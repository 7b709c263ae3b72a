//! `numeric` from its wire form: groups of four decimal digits, most significant first.

use arrow::array::ArrowNativeTypeOp;
use arrow::datatypes::{ArrowNativeType, i256};

use super::error::Problem;
use crate::base::text::exact::kept_by_double;
use crate::base::text::number::{ASCII_ZEROS, eight_digits, short};

/// PostgreSQL's own bound of digits after the point (`NUMERIC_DSCALE_MAX`).
const DSCALE_MAX: u16 = 0x3FFF;

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

/// `10^0 ..= 10^38`, the powers that `i128` holds.
const POWERS: [i128; 39] = {
    let mut powers = [1; 39];
    let mut i = 1;
    while i < powers.len() {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// `10^0 ..= 10^19`, the powers that `u64` holds.
const SMALL_POWERS: [u64; 20] = {
    let mut powers = [1; 20];
    let mut i = 1;
    while i < powers.len() {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// A numeric as it was sent.
enum Numeric<'a> {
    Finite(Finite<'a>),
    /// By its name in PostgreSQL.
    Special(&'static str),
}

/// The number `groups[0].groups[1]… x 10000^weight`.
struct Finite<'a> {
    negative: bool,
    weight: i16,
    /// Digits shown after the point.
    dscale: u16,
    groups: &'a [[u8; 2]],
}

impl Finite<'_> {
    /// By how many powers of ten the last group's unit is above that of a decimal of this scale.
    #[inline]
    fn shift(&self, scale: i8) -> i32 {
        i32::from(scale) + 4 * (i32::from(self.weight) + 1 - i32::try_from(self.groups.len()).unwrap_or(0))
    }
}

#[inline]
fn parse(bytes: &[u8]) -> Result<Numeric<'_>, Problem> {
    let Some((&[c0, c1, w0, w1, s0, s1, d0, d1], rest)) = bytes.split_first_chunk::<8>() else {
        return Err(Problem::Malformed("numeric below 8 bytes"));
    };
    let negative = match u16::from_be_bytes([s0, s1]) {
        0 => false,
        NEGATIVE => true,
        // The other fields mean nothing for these.
        NAN => return Ok(Numeric::Special("NaN")),
        INFINITY => return Ok(Numeric::Special("Infinity")),
        NEGATIVE_INFINITY => return Ok(Numeric::Special("-Infinity")),
        _ => return Err(Problem::Malformed("numeric of an unknown sign")),
    };
    let dscale = u16::from_be_bytes([d0, d1]);
    let (groups, odd) = rest.as_chunks::<2>();
    if groups.len() != usize::from(u16::from_be_bytes([c0, c1])) || !odd.is_empty() {
        return Err(Problem::Malformed("numeric of another length than it says"));
    }
    if dscale > DSCALE_MAX {
        return Err(Problem::Malformed("numeric with an impossible scale"));
    }
    if groups.iter().any(|&group| u16::from_be_bytes(group) > 9999) {
        return Err(Problem::Malformed("numeric with an impossible digit"));
    }
    Ok(Numeric::Finite(Finite { negative, weight: i16::from_be_bytes([w0, w1]), dscale, groups }))
}

/// Decodes the values of a `decimal(precision, scale)`. Most of them have the header of one before: what it settles is
/// worked out once, and an amount then costs a few multiplications.
#[derive(Debug)]
pub(super) struct Decimals {
    precision: u8,
    scale: i8,
    /// Results below it have no more digits than the precision.
    bound: u64,
    /// By the last bits of their count of groups.
    known: [NumericHeader; 4],
}

/// What the header of a number of up to four groups settles, for one scale.
#[derive(Debug, Clone, Copy)]
struct NumericHeader {
    /// As it was sent. The headers that are known to nobody are of 65,535 groups.
    bytes: [u8; 8],
    /// Bytes of the whole value.
    length: usize,
    /// Bits that follow the last group in the eight bytes behind the header.
    behind: u32,
    power: u64,
    /// Whether the product is ten thousand times the result.
    divided: bool,
    negative: bool,
}

impl Decimals {
    pub(super) fn new(precision: u8, scale: i8) -> Self {
        let bound = u64::try_from(POWERS[usize::from(precision.min(38))]).unwrap_or(u64::MAX);
        // No value has its length: in a broken message whatever stands behind an empty one may have its bytes.
        let length = usize::MAX;
        let unknown =
            NumericHeader { bytes: [u8::MAX; 8], length, behind: 0, power: 0, divided: false, negative: false };
        Self { precision, scale, bound, known: [unknown; 4] }
    }

    /// As [`decimal`], for a value of `length` bytes at the beginning of `rest`.
    #[inline]
    pub(super) fn wide_at(&mut self, rest: &[u8], length: usize) -> Result<i128, Problem> {
        match self.known_at(rest, length) {
            Some(scaled) => Ok(scaled.into()),
            None => self.unknown(&rest[..length]),
        }
    }

    /// As [`Self::wide_at`], for a precision of 18 at most.
    #[inline]
    pub(super) fn long_at(&mut self, rest: &[u8], length: usize) -> Result<i64, Problem> {
        match self.known_at(rest, length) {
            Some(scaled) => Ok(scaled),
            None => i64::try_from(self.unknown(&rest[..length])?).map_err(|_| unrepresentable(TOO_MANY_DIGITS)),
        }
    }

    /// A value whose header was that of one before.
    #[inline]
    fn known_at(&self, rest: &[u8], length: usize) -> Option<i64> {
        let ([bytes @ [_, count, ..], groups], _) = rest.as_chunks::<8>().0.split_first_chunk::<2>()?;
        let header = &self.known[usize::from(*count & 3)];
        if header.bytes != *bytes || header.length != length {
            return None;
        }
        let scaled = header.scaled(u64::from_be_bytes(*groups)).filter(|&scaled| scaled < self.bound)?;
        let scaled = i64::try_from(scaled).ok()?;
        Some(if header.negative { -scaled } else { scaled })
    }

    /// A value whose header was not that of the last one, or which is no common number.
    #[cold]
    fn unknown(&mut self, value: &[u8]) -> Result<i128, Problem> {
        if let Some(header) = NumericHeader::of(value, self.scale) {
            self.known[usize::from(header.bytes[1] & 3)] = header;
        }
        decimal(value, self.precision, self.scale)
    }
}

impl NumericHeader {
    /// `None` for numbers, right or wrong, that are not made of up to four groups and moved by a few digits.
    fn of(value: &[u8], scale: i8) -> Option<Self> {
        let &bytes = value.first_chunk::<8>()?;
        let [c0, c1, w0, w1, s0, s1, d0, d1] = bytes;
        let count = usize::from(u16::from_be_bytes([c0, c1]));
        let (sign, dscale) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
        if count > 4 || value.len() != 8 + 2 * count || sign & !NEGATIVE != 0 || dscale > DSCALE_MAX {
            return None;
        }
        let weight = i32::from(i16::from_be_bytes([w0, w1]));
        let shift = i32::from(scale) + 4 * (weight + 1 - i32::try_from(count).ok()?);
        let divided = shift < 0;
        // Sixteen digits and three are below 2^64.
        let power =
            usize::try_from(if divided { shift + 4 } else { shift }).ok().filter(|&power| !divided || power > 0)?;
        let behind = u32::try_from(64 - 16 * count).ok()?;
        let power = *SMALL_POWERS.get(power)?;
        Some(Self { bytes, length: value.len(), behind, power, divided, negative: sign == NEGATIVE })
    }

    /// The unscaled integer without its sign. `None` where a group is no group, digits would be lost, or 64 bits do not
    /// hold it.
    #[inline]
    fn scaled(&self, groups: u64) -> Option<u64> {
        let groups = groups.checked_shr(self.behind).unwrap_or(0);
        // Bit 15 of a group is set by 9999 - 0x7fff, or was.
        if (groups | groups.wrapping_add(0x58f0_58f0_58f0_58f0)) & 0x8000_8000_8000_8000 != 0 {
            return None;
        }
        let group = |place: u32| groups >> (16 * place) & 0xffff;
        let digits = (group(3) * 10_000 + group(2)) * 100_000_000 + group(1) * 10_000 + group(0);
        let product = digits.checked_mul(self.power)?;
        if !self.divided {
            return Some(product);
        }
        let quotient = product / 10_000;
        (quotient * 10_000 == product).then_some(quotient)
    }
}

/// The unscaled integer of `decimal(precision, scale)` with a precision up to 38, exactly.
#[inline]
pub(super) fn decimal(bytes: &[u8], precision: u8, scale: i8) -> Result<i128, Problem> {
    let number = finite(bytes)?;
    let shift = number.shift(scale);
    let scaled = match small(number.groups, shift) {
        Some(scaled) => scaled,
        None => large::<i128>(number.groups, shift).map_err(unrepresentable)?,
    };
    if POWERS.get(usize::from(precision)).is_none_or(|&bound| scaled >= bound) {
        return Err(unrepresentable(TOO_MANY_DIGITS));
    }
    Ok(if number.negative { -scaled } else { scaled })
}

/// The unscaled integer of `decimal(precision, scale)` with a precision up to 76, exactly.
pub(super) fn decimal256(bytes: &[u8], precision: u8, scale: i8) -> Result<i256, Problem> {
    let number = finite(bytes)?;
    let scaled = large::<i256>(number.groups, number.shift(scale)).map_err(unrepresentable)?;
    let bound = i256::from_i128(10).checked_pow(u32::from(precision));
    if bound.is_none_or(|bound| scaled >= bound) {
        return Err(unrepresentable(TOO_MANY_DIGITS));
    }
    Ok(if number.negative { scaled.wrapping_neg() } else { scaled })
}

/// The nearest double, and whether its shortest decimal is the number.
///
/// # Errors
/// A finite number beyond all doubles: an infinity would not be near it.
pub(super) fn double(bytes: &[u8], text: &mut Vec<u8>) -> Result<(f64, bool), Problem> {
    match parse(bytes)? {
        Numeric::Special("NaN") => return Ok((f64::NAN, true)),
        Numeric::Special("Infinity") => return Ok((f64::INFINITY, true)),
        Numeric::Special(_) => return Ok((f64::NEG_INFINITY, true)),
        Numeric::Finite(_) => {}
    }
    text.clear();
    append_text(bytes, text)?;
    let value = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok());
    let value = value.ok_or(Problem::Malformed("numeric that is no number"))?;
    if value.is_infinite() {
        return Err(unrepresentable("a number beyond all doubles"));
    }
    Ok((value, kept_by_double(text)))
}

#[inline]
fn finite(bytes: &[u8]) -> Result<Finite<'_>, Problem> {
    match parse(bytes)? {
        Numeric::Finite(number) => Ok(number),
        Numeric::Special(name) => Err(unrepresentable(name)),
    }
}

fn unrepresentable(value: &'static str) -> Problem {
    Problem::Unrepresentable { value }
}

const TOO_MANY_DIGITS: &str = "a number with more digits before the point";
const TOO_FINE: &str = "a number with more digits after the point";

/// Up to 16 digits and a modest shift, which is what money and quantities are; otherwise, or where digits would be
/// lost, `None`.
#[inline]
fn small(groups: &[[u8; 2]], shift: i32) -> Option<i128> {
    if groups.len() > 4 {
        return None;
    }
    let digits = groups.iter().fold(0_u64, |sum, &group| sum * 10_000 + u64::from(u16::from_be_bytes(group)));
    // Divisors that the compiler knows become multiplications.
    let (quotient, remainder) = match shift {
        0..=22 => return Some(i128::from(digits) * POWERS[usize::try_from(shift).ok()?]),
        -1 => (digits / 10, digits % 10),
        -2 => (digits / 100, digits % 100),
        -3 => (digits / 1000, digits % 1000),
        _ => return None,
    };
    (remainder == 0).then_some(i128::from(quotient))
}

/// Any length and shift.
fn large<T: ArrowNativeTypeOp + ArrowNativeType>(groups: &[[u8; 2]], shift: i32) -> Result<T, &'static str> {
    let last = groups.len();
    let mut sum = T::ZERO;
    for (index, &group) in groups.iter().enumerate() {
        let group = u16::from_be_bytes(group);
        // How far this group's own unit is above the carrier's.
        let below = i32::try_from(last - 1 - index).unwrap_or(i32::MAX);
        let unit = shift.saturating_add(below.saturating_mul(4));
        let kept = u32::try_from(unit.saturating_add(4).clamp(0, 4)).unwrap_or(0);
        let cut = 10_u16.pow(4 - kept);
        if !group.is_multiple_of(cut) {
            return Err(TOO_FINE);
        }
        let (shifted, group) = (T::usize_as(10_usize.pow(kept)), T::usize_as(usize::from(group / cut)));
        sum = sum.mul_checked(shifted).and_then(|sum| sum.add_checked(group)).map_err(|_| TOO_MANY_DIGITS)?;
    }
    if sum.is_zero() {
        return Ok(sum);
    }
    T::usize_as(10)
        .pow_checked(u32::try_from(shift.max(0)).unwrap_or(0))
        .and_then(|power| sum.mul_checked(power))
        .map_err(|_| TOO_MANY_DIGITS)
}

/// As [`append_text`], for numbers that JSON has.
pub(super) fn append_finite_text(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    match parse(bytes)? {
        Numeric::Special(value) => Err(Problem::NoJsonNumber { value }),
        Numeric::Finite(_) => append_text(bytes, out),
    }
}

/// Appends the number as `numeric_out` writes it.
#[inline]
pub(super) fn append_text(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    let start = out.len();
    // A short value costs one store a part then, and none of them has a length that the compiler does not know.
    out.extend_from_slice(&[b'-'; SHORT_TEXT]);
    let length = out[start..].first_chunk_mut().and_then(|text| short_text(bytes, text));
    out.truncate(start + length.unwrap_or(0));
    if length.is_some() {
        return Ok(());
    }
    append_long_text(bytes, out)
}

/// Room for a sign, eight digits, a point and eight more.
const SHORT_TEXT: usize = 24;

/// The text of a number below 10^8 with up to 6 digits after the point and up to 4 groups; returns its length, or `None`
/// for others and for what is malformed. That is nearly every amount, quantity and rate, made without a loop. `out`
/// begins with a `-`.
#[inline]
fn short_text(bytes: &[u8], out: &mut [u8; SHORT_TEXT]) -> Option<usize> {
    /// One in each group.
    const ONES: u64 = 0x0001_0001_0001_0001;
    let &[c0, c1, w0, w1, s0, s1, d0, d1] = bytes.first_chunk::<8>()?;
    let count = u16::from_be_bytes([c0, c1]);
    let weight = i16::from_be_bytes([w0, w1]);
    let sign = u16::from_be_bytes([s0, s1]);
    let dscale = u16::from_be_bytes([d0, d1]);
    if count > 4
        || bytes.len() != 8 + 2 * usize::from(count)
        || !(-1..=1).contains(&weight)
        || sign & !NEGATIVE != 0
        || dscale > 6
    {
        return None;
    }
    // The last eight bytes with what stands before the groups pushed out: the first group is the highest.
    let groups = u64::from_be_bytes(*bytes.last_chunk()?).checked_shl(16 * (4 - u32::from(count))).unwrap_or(0);
    // A group above 9999 has the highest of its bits set, or gets it. A carry comes only from one that has it.
    if (groups | groups.wrapping_add(ONES * (0x7FFF - 9999))) & (ONES << 15) != 0 {
        return None;
    }
    // Two groups before the point, two behind it.
    let groups = groups >> (16 * (1 - weight));
    let group = |index: u32| (groups >> (48 - 16 * index) & 0xFFFF) as u32;
    let (whole, whole_digits) = short(eight_digits(group(0), group(1)));
    let fraction = eight_digits(group(2), group(3)) | ASCII_ZEROS;
    let at = usize::from(sign != 0);
    out[at..at + 8].copy_from_slice(&whole.to_le_bytes());
    let at = at + whole_digits;
    out[at] = b'.';
    out[at + 1..at + 9].copy_from_slice(&fraction.to_le_bytes());
    let dscale = usize::from(dscale);
    Some(at + dscale + usize::from(dscale > 0))
}

fn append_long_text(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    let number = match parse(bytes)? {
        Numeric::Finite(number) => number,
        Numeric::Special(name) => {
            out.extend_from_slice(name.as_bytes());
            return Ok(());
        }
    };
    let group = |index: i32| {
        usize::try_from(index)
            .ok()
            .and_then(|index| number.groups.get(index))
            .map_or(0, |&group| u16::from_be_bytes(group))
    };
    if number.negative {
        out.push(b'-');
    }
    let weight = i32::from(number.weight);
    if weight < 0 {
        out.push(b'0');
    } else {
        append_leading(group(0), out);
        for index in 1..=weight {
            out.extend_from_slice(&four_digits(group(index)));
        }
    }
    if number.dscale > 0 {
        out.push(b'.');
        let end = out.len() + usize::from(number.dscale);
        let mut index = weight + 1;
        while out.len() < end {
            out.extend_from_slice(&four_digits(group(index)));
            index += 1;
        }
        out.truncate(end);
    }
    Ok(())
}

/// A group without its leading zeros, but one digit at least.
#[inline]
fn append_leading(group: u16, out: &mut Vec<u8>) {
    let zeros = usize::from(group < 10) + usize::from(group < 100) + usize::from(group < 1000);
    // Four bytes and a shorter length are cheaper than a copy of a length the compiler does not know.
    let digits = u32::from_be_bytes(four_digits(group)) << (8 * zeros);
    out.extend_from_slice(&digits.to_be_bytes());
    out.truncate(out.len() - zeros);
}

#[inline]
fn four_digits(group: u16) -> [u8; 4] {
    let digit = |power: u16| b'0' + (group / power % 10) as u8;
    [digit(1000), digit(100), digit(10), digit(1)]
}
