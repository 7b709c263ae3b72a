//! Values as parts and manifests show them, read so that their order can be compared.
//!
//! Nothing here is shared with the code that wrote them: a mistake made twice the same way would look like the truth.

use std::cmp::Ordering;

use crate::model::Carrier;

/// A value, as far as its order needs it.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Integers, truth values, unscaled decimals; days and microseconds since 1970-01-01, and since midnight.
    Int(i128),
    /// Floats, NaN above all others.
    Float(f64),
    /// Text, bytes and UUIDs, byte by byte.
    Bytes(Vec<u8>),
}

impl Value {
    /// The order of two values of one column.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => {
                a.is_nan().cmp(&b.is_nan()).then(a.partial_cmp(b).unwrap_or(Ordering::Equal))
            }
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            // Values of one column are of one kind.
            _ => Ordering::Equal,
        }
    }
}

/// How the values of a column are read from text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextKind {
    /// `t` or `f`; in JSON `true` or `false`.
    Bool,
    /// An integer; or a date, time or timestamp, which text formats hold as one.
    Whole,
    Float32,
    Float64,
    /// A decimal with so many digits after the point.
    Decimal(u32),
    Text,
    /// `\x` and hexadecimal digits.
    Bytes,
    Uuid,
    /// Nested, or beyond 128 bits: only its NULLs are counted.
    Opaque,
}

impl TextKind {
    /// By the type that the manifest names.
    pub(super) fn of(carrier: &Carrier) -> Self {
        match carrier {
            Carrier::Bool => Self::Bool,
            Carrier::Float32 => Self::Float32,
            Carrier::Float64 => Self::Float64,
            Carrier::Decimal128 { scale, .. } => Self::Decimal(u32::try_from(*scale).unwrap_or(0)),
            Carrier::NumberText | Carrier::Text | Carrier::Json => Self::Text,
            Carrier::Bytes => Self::Bytes,
            Carrier::Uuid => Self::Uuid,
            Carrier::Decimal256 { .. } | Carrier::List(_) | Carrier::Struct(_) | Carrier::Map => Self::Opaque,
            _ => Self::Whole,
        }
    }

    /// The value that `text` is; `None` where it is none of this kind. [`TextKind::Opaque`] has none.
    pub(super) fn parse(self, text: &[u8]) -> Option<Value> {
        if self == Self::Text {
            return Some(Value::Bytes(text.to_vec()));
        }
        let text = std::str::from_utf8(text).ok()?;
        match self {
            Self::Bool => match text {
                "t" | "true" => Some(Value::Int(1)),
                "f" | "false" => Some(Value::Int(0)),
                _ => None,
            },
            Self::Whole => whole(text).map(Value::Int),
            // Read at its own width: the shortest text of a 32-bit float is not the same 64-bit one.
            Self::Float32 => {
                float(text).and_then(|text| text.parse::<f32>().ok()).map(|value| Value::Float(value.into()))
            }
            Self::Float64 => float(text).and_then(|text| text.parse().ok()).map(Value::Float),
            Self::Decimal(scale) => decimal(text, scale).map(Value::Int),
            Self::Bytes => bytes(text.strip_prefix("\\x")?).map(Value::Bytes),
            Self::Uuid => uuid(text).map(Value::Bytes),
            Self::Text | Self::Opaque => None,
        }
    }
}

/// PostgreSQL's words for what is no number, and digits; Rust's parser would take more.
fn float(text: &str) -> Option<&str> {
    let number = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E'));
    (number || matches!(text, "NaN" | "Infinity" | "-Infinity")).then_some(text)
}

fn decimal(text: &str, scale: u32) -> Option<i128> {
    let (digits, negative) = match text.strip_prefix('-') {
        Some(digits) => (digits, true),
        None => (text, false),
    };
    let (units, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let missing = usize::try_from(scale).ok()?.checked_sub(fraction.len())?;
    let all = || units.bytes().chain(fraction.bytes());
    if units.is_empty() || !all().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let zeros = std::iter::repeat_n(b'0', missing);
    let value = all()
        .chain(zeros)
        .try_fold(0_i128, |value, digit| value.checked_mul(10)?.checked_add(i128::from(digit - b'0')))?;
    Some(if negative { -value } else { value })
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(nibble(*high)? << 4 | nibble(*low)?)).collect()
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn uuid(text: &str) -> Option<Vec<u8>> {
    let dashes = [8, 13, 18, 23];
    let placed = text.bytes().enumerate().all(|(at, byte)| (byte == b'-') == dashes.contains(&at));
    let value = bytes(&text.replace('-', ""))?;
    (placed && value.len() == 16).then_some(value)
}

/// An integer, or a moment as one. A column's values are all of one of them.
fn whole(text: &str) -> Option<i128> {
    match text {
        "infinity" => return Some(i128::MAX),
        "-infinity" => return Some(i128::MIN),
        _ => {}
    }
    if let Some(value) = integer(text) {
        return Some(value.into());
    }
    let (text, bc) = match text.strip_suffix(" BC") {
        Some(text) => (text, true),
        None => (text, false),
    };
    match text.split_once([' ', 'T']) {
        Some((date, time)) => {
            let days = days(date, bc)?;
            days.checked_mul(MICROS_PER_DAY)?.checked_add(micros(in_utc(time))?)
        }
        None if text.contains(':') && !bc => micros(text),
        None => days(text, bc),
    }
}

const MICROS_PER_DAY: i128 = 86_400_000_000;

fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar (H. Hinnant, `days_from_civil`).
fn days(date: &str, bc: bool) -> Option<i128> {
    let (year, rest) = date.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let (year, month, day) = (i128::from(number(year)?), i128::from(number(month)?), i128::from(number(day)?));
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if bc { 1 - year } else { year };
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

/// The time without its zone, which is UTC always.
fn in_utc(time: &str) -> &str {
    time.strip_suffix("+00:00").or_else(|| time.strip_suffix("+00")).unwrap_or(time)
}

fn micros(time: &str) -> Option<i128> {
    let (whole, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut fields = whole.split(':').map(number);
    let (Some(Some(hours)), Some(Some(minutes)), Some(Some(seconds)), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return None;
    };
    let digits = u32::try_from(fraction.len()).ok().filter(|digits| *digits <= 6)?;
    let fraction = u64::from(number(fraction)?) * 10_u64.pow(6 - digits);
    let seconds = (u64::from(hours) * 60 + u64::from(minutes)) * 60 + u64::from(seconds);
    Some(i128::from(seconds) * 1_000_000 + i128::from(fraction))
}

/// Digits alone.
fn number(digits: &str) -> Option<u32> {
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(kind: TextKind, text: &str) -> Option<i128> {
        match kind.parse(text.as_bytes()) {
            Some(Value::Int(value)) => Some(value),
            _ => None,
        }
    }

    #[test]
    fn moments_are_ordered_as_time_goes() {
        let day = 86_400_000_000;
        for (text, value) in [
            ("17", 17),
            ("-9223372036854775808", i128::from(i64::MIN)),
            ("1970-01-01", 0),
            ("2000-02-29", 11_016),
            ("1969-12-31", -1),
            ("0001-01-01 BC", -719_528),
            ("4714-11-24 BC", -2_440_588),
            ("5874897-12-31", 2_145_042_905),
            ("00:00:01.5", 1_500_000),
            ("24:00:00", day),
            ("1970-01-02 00:00:00.000001", day + 1),
            ("1970-01-02T00:00:00.000001", day + 1),
            ("1970-01-02 00:00:00.1+00", day + 100_000),
            ("1970-01-02T00:00:00+00:00", day),
            ("0001-01-01 00:00:00+00 BC", -719_528 * day),
            ("infinity", i128::MAX),
            ("-infinity", i128::MIN),
        ] {
            assert_eq!(int(TextKind::Whole, text), Some(value), "{text}");
        }
        for wrong in
            ["", "-", "1.5", "x", "1970-13-01", "1970-01-32", "1970-01", "12:00", "00:00:00.1234567", "12:00:00 BC"]
        {
            assert_eq!(int(TextKind::Whole, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn decimals_keep_every_digit() {
        for (text, scale, value) in [
            ("12.30", 2, Some(1230)),
            ("-0.05", 2, Some(-5)),
            ("7", 2, Some(700)),
            ("7", 0, Some(7)),
            ("99999999999999999999999999999999999999", 0, Some(10_i128.pow(38) - 1)),
            ("1.234", 2, None),
            (".5", 2, None),
            ("NaN", 2, None),
            ("1e3", 2, None),
        ] {
            assert_eq!(int(TextKind::Decimal(scale), text), value, "{text}");
        }
    }

    #[test]
    fn floats_have_nan_above_all() {
        let parsed = ["-Infinity", "-1.5e+300", "-0", "1", "1e-7", "Infinity", "NaN"]
            .map(|text| TextKind::Float64.parse(text.as_bytes()));
        for pair in [(0, 1), (1, 2), (4, 3), (3, 5), (5, 6)] {
            let (Some(less), Some(greater)) = (&parsed[pair.0], &parsed[pair.1]) else { panic!("{pair:?}") };
            assert_eq!(less.order(greater), Ordering::Less, "{pair:?}");
            assert_eq!(greater.order(less), Ordering::Greater, "{pair:?}");
        }
        let narrow = TextKind::Float32.parse(b"0.1").unwrap();
        assert_eq!(narrow.order(&Value::Float(f64::from(0.1_f32))), Ordering::Equal);
        for wrong in ["inf", "nan", "infinity", "1_0", ""] {
            assert!(TextKind::Float64.parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }

    #[test]
    fn bytes_and_uuids_are_their_bytes() {
        let is = |kind: TextKind, text: &str, bytes: &[u8]| matches!(kind.parse(text.as_bytes()), Some(Value::Bytes(found)) if found == bytes);
        assert!(is(TextKind::Bytes, "\\x00ff", &[0, 255]));
        assert!(is(TextKind::Bytes, "\\x", &[]));
        assert!(is(
            TextKind::Uuid,
            "00000000-0000-0000-0000-0000000000ff",
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255]
        ));
        for (kind, wrong) in [
            (TextKind::Bytes, "00"),
            (TextKind::Bytes, "\\x0"),
            (TextKind::Bytes, "\\xgg"),
            (TextKind::Uuid, "000000000-000-0000-0000-0000000000ff"),
            (TextKind::Uuid, "00000000-0000-0000-0000-0000000000"),
            (TextKind::Bool, "yes"),
        ] {
            assert!(kind.parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }
}
