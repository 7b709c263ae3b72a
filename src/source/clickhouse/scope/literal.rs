//! A value as SQL, of exactly the type that it is compared with.

use std::net::{IpAddr, Ipv4Addr};

use super::super::key_ranges::is_ordered;
use super::super::names;
use super::super::types::ChType;
use super::error::ChScopeError;
use super::moment::{day_literal, moment_literal};
use crate::base::text::moment::{written_day, written_moment};

/// The type that a value is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ScopeType {
    /// Without its `Nullable`.
    pub(super) ch_type: ChType,
    /// As the server prints it.
    pub(super) name: String,
}

impl ScopeType {
    /// Reads a name; an empty one is text. `None` where it is none that is known.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let name = if name.trim().is_empty() { "String" } else { name };
        let ch_type = ChType::parse(name).ok()?.inner().clone();
        Some(Self { ch_type, name: name.to_owned() })
    }

    /// Whether values of it can be written as one text and compared.
    pub(super) fn is_scalar(&self) -> bool {
        is_ordered(&self.ch_type) || matches!(self.ch_type, ChType::Enum | ChType::Address)
    }

    /// Whether they are days or moments.
    pub(super) fn has_days(&self) -> bool {
        self.ch_type == ChType::Date || self.has_moments()
    }

    /// Whether they are moments.
    pub(super) fn has_moments(&self) -> bool {
        matches!(self.ch_type, ChType::DateTime | ChType::DateTime64 { .. })
    }

    /// Whether they are `Date32`, which has more days than `Date`.
    pub(super) fn is_long(&self) -> bool {
        self.name.contains("Date32")
    }

    pub(super) fn is_float(&self) -> bool {
        matches!(self.ch_type, ChType::Float32 | ChType::Float64)
    }

    /// Some value of it.
    pub(super) fn sample(&self) -> &'static str {
        match self.ch_type {
            ChType::Bool => "false",
            ChType::Date | ChType::DateTime | ChType::DateTime64 { .. } => "1970-01-01",
            ChType::Uuid => "00000000-0000-0000-0000-000000000000",
            ChType::Address => "0.0.0.0",
            ChType::Text | ChType::Fixed | ChType::Enum => "-",
            _ => "0",
        }
    }
}

/// The literal of a value. `column` is what an error names.
///
/// # Errors
/// It is no value of the type.
pub(super) fn literal(text: &str, of: &ScopeType, column: &str) -> Result<String, ChScopeError> {
    if text.contains('\0') {
        return Err(ChScopeError::Nul);
    }
    match &of.ch_type {
        ChType::Text | ChType::Fixed | ChType::Enum => Ok(names::literal(text)),
        ChType::Bool => match text {
            "true" | "1" => Ok("true".to_owned()),
            "false" | "0" => Ok("false".to_owned()),
            _ => Err(ChScopeError::Value("true or false")),
        },
        ChType::Integer { bits, signed } => integer(text, *bits, *signed),
        ChType::Float64 => {
            let value: f64 = number(text).ok_or(ChScopeError::Value("number"))?;
            Ok(format!("reinterpretAsFloat64(toUInt64({}))", value.to_bits()))
        }
        ChType::Float32 => {
            let value: f32 = number(text).ok_or(ChScopeError::Value("number"))?;
            Ok(format!("reinterpretAsFloat32(toUInt32({}))", value.to_bits()))
        }
        ChType::Decimal { precision, scale } => decimal(text, *precision, *scale),
        ChType::Date => {
            let day = written_day(text).ok_or(ChScopeError::Moment)?;
            day_literal(day, of.is_long()).ok_or(ChScopeError::Moment)
        }
        ChType::DateTime | ChType::DateTime64 { .. } => {
            written_moment(text).and_then(moment_literal).ok_or(ChScopeError::Moment)
        }
        ChType::Uuid => uuid(text),
        ChType::Address => address(text, of.name.contains("IPv6")),
        _ => Err(ChScopeError::NotChosen { column: column.to_owned(), type_name: of.name.clone() }),
    }
}

/// Digits, compared with the type's bounds as they are written: the server itself would let them wrap around.
fn integer(text: &str, bits: u16, signed: bool) -> Result<String, ChScopeError> {
    let wrong = ChScopeError::Value("whole number of its column's size");
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong);
    }
    let digits = digits.trim_start_matches('0');
    let digits = if digits.is_empty() { "0" } else { digits };
    let most = bound(bits, signed, negative).ok_or_else(|| wrong.clone())?;
    if (digits.len(), digits) > (most.len(), most.as_str()) {
        return Err(wrong);
    }
    let sign = if negative && digits != "0" { "-" } else { "" };
    let letter = if signed { "" } else { "U" };
    Ok(format!("CAST('{sign}{digits}' AS {letter}Int{bits})"))
}

/// The largest number of a type, or the smallest without its sign.
fn bound(bits: u16, signed: bool, negative: bool) -> Option<String> {
    if negative && !signed {
        return Some("0".to_owned());
    }
    let power = if signed { bits.checked_sub(1)? } else { bits };
    let text = match power {
        256 => "115792089237316195423570985008687907853269984665640564039457584007913129639935".to_owned(),
        255 if negative => "57896044618658097711785492504343953926634992332820282019728792003956564819968".to_owned(),
        255 => "57896044618658097711785492504343953926634992332820282019728792003956564819967".to_owned(),
        128 => u128::MAX.to_string(),
        power => {
            let of_two = 1_u128.checked_shl(u32::from(power))?;
            if negative { of_two.to_string() } else { of_two.checked_sub(1)?.to_string() }
        }
    };
    Some(text)
}

/// A number as people and programs write it.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E'));
    let named = matches!(text.to_ascii_lowercase().trim_start_matches('-'), "nan" | "inf" | "infinity");
    if plain || named { text.parse().ok() } else { None }
}

/// As the column has it: the server would cut digits off that its scale has no place for.
fn decimal(text: &str, precision: u8, scale: u8) -> Result<String, ChScopeError> {
    let places = precision.saturating_sub(scale);
    let wrong = || ChScopeError::Digits { whole: places, fraction: scale };
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all(whole) || !all(fraction) || digits.ends_with('.') {
        return Err(wrong());
    }
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    if whole.len() > usize::from(places) || fraction.len() > usize::from(scale) {
        return Err(wrong());
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if fraction.is_empty() { "" } else { "." };
    Ok(format!("CAST('{sign}{whole}{point}{fraction}' AS Decimal({precision}, {scale}))"))
}

fn uuid(text: &str) -> Result<String, ChScopeError> {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if groups == [8, 4, 4, 4, 12] && digits {
        Ok(format!("toUUID('{}')", text.to_ascii_lowercase()))
    } else {
        Err(ChScopeError::Value("UUID"))
    }
}

fn address(text: &str, six: bool) -> Result<String, ChScopeError> {
    let wrong = |_| ChScopeError::Value("address");
    if !six {
        let address: Ipv4Addr = text.parse().map_err(wrong)?;
        return Ok(format!("toIPv4('{address}')"));
    }
    let address = match text.parse().map_err(wrong)? {
        IpAddr::V4(four) => four.to_ipv6_mapped(),
        IpAddr::V6(six) => six,
    };
    Ok(format!("toIPv6('{address}')"))
}
