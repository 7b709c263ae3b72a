//! How the values of one column get from ClickHouse into a batch: from type x format x preset x policies to a carrier, and
//! the expression that makes the server send what the carrier holds. Pure.

use std::sync::Arc;

use super::names::quoted;
use super::types::ChType;
use crate::model::{
    Carrier, Format, InvalidUtf8, Member, Nested, OnUnrepresentable, Policies, Precision, Preset, TimestampPrecision,
};

/// The most digits of a decimal that every reader of Parquet knows.
const DECIMAL_DIGITS_MAX: u8 = 38;

/// The finest decimals of a second that a timestamp of a file holds.
const MICROS_SCALE: u8 = 6;

/// All that decides on the mapping of a type besides the type itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChTerms {
    pub(crate) format: Format,
    pub(crate) preset: Preset,
    pub(crate) policies: Policies,
}

/// How the values of a column are sent and held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChMapping {
    pub(crate) carrier: Carrier,
    /// What a person should know of it.
    pub(crate) note: Option<String>,
    /// The word of the policy that writes every value otherwise than it would be without it.
    pub(crate) rewritten: Option<&'static str>,
}

impl ChMapping {
    fn plain(carrier: Carrier) -> Self {
        Self { carrier, note: None, rewritten: None }
    }

    fn noting(carrier: Carrier, note: &str) -> Self {
        Self { note: Some(note.to_owned()), ..Self::plain(carrier) }
    }
}

/// How values of a type get into a batch under these terms; `None` for the state of an aggregate function, which is of no
/// use to anybody but ClickHouse.
pub(crate) fn map_type(ch_type: &ChType, terms: &ChTerms) -> Option<ChMapping> {
    if ch_type.holds(&|part| *part == ChType::State) {
        return None;
    }
    if terms.format == Format::Parquet && terms.policies.as_text {
        let note = "written as text, as --column-policy asks";
        return Some(ChMapping { rewritten: Some("text"), ..ChMapping::noting(text_of(ch_type), note) });
    }
    if ch_type.is_nested() {
        return Some(nested(ch_type, terms));
    }
    let carrier = scalar(ch_type.inner(), terms);
    let note = note(ch_type.inner(), &carrier, terms);
    let bytes = carrier == Carrier::Bytes;
    Some(ChMapping { carrier, note: note.map(str::to_owned), rewritten: bytes.then_some("bytes") })
}

fn nested(ch_type: &ChType, terms: &ChTerms) -> ChMapping {
    if terms.format != Format::Parquet {
        return ChMapping::noting(Carrier::Json, "sent as the JSON that toJSONString makes of it");
    }
    if terms.policies.nested == Nested::Json {
        let note = "written as JSON, as --column-policy asks";
        return ChMapping { rewritten: Some("json"), ..ChMapping::noting(Carrier::Json, note) };
    }
    match structured(ch_type, terms) {
        Some(carrier) if terms.preset != Preset::Postgres && lists_within_lists(&carrier) => {
            ChMapping::noting(Carrier::Json, "written as JSON: a list within a list cannot be read there")
        }
        Some(carrier) => ChMapping::plain(carrier),
        None => ChMapping::noting(Carrier::Json, "written as the JSON that toJSONString makes of it"),
    }
}

/// Lists and structs of Parquet; `None` where a value has no such form.
fn structured(ch_type: &ChType, terms: &ChTerms) -> Option<Carrier> {
    match ch_type {
        ChType::Array(inner) => Some(Carrier::List(Arc::new(structured(inner, terms)?))),
        ChType::Tuple(members) if members.is_empty() => None,
        ChType::Tuple(members) => {
            let member = |(place, (name, inner)): (usize, &(Option<String>, ChType))| {
                let name = name.clone().unwrap_or_else(|| (place + 1).to_string());
                let nullable = inner.is_nullable() || may_become_null(inner, terms);
                Some(Member { name, carrier: structured(inner, terms)?, nullable })
            };
            let members: Arc<[Member]> = members.iter().enumerate().map(member).collect::<Option<_>>()?;
            let fold = |member: &Member| match terms.preset {
                Preset::Postgres => member.name.clone(),
                Preset::Athena | Preset::Spectrum => member.name.to_lowercase(),
            };
            let names: std::collections::HashSet<String> = members.iter().map(fold).collect();
            (names.len() == members.len()).then_some(Carrier::Struct(members))
        }
        // What is NULL as a whole, a map whose keys may come twice, and values of one type or another.
        other if other.is_nested() || matches!(other.inner(), ChType::Nothing | ChType::Either | ChType::Map(..)) => {
            None
        }
        other => Some(scalar(other.inner(), terms)),
    }
}

fn scalar(ch_type: &ChType, terms: &ChTerms) -> Carrier {
    let parquet = terms.format == Format::Parquet;
    match ch_type {
        ChType::Bool => Carrier::Bool,
        ChType::Integer { bits, signed } => match (bits, signed) {
            (8, _) | (16, true) => Carrier::Int16,
            (16, false) | (32, true) => Carrier::Int32,
            (32, false) | (64, true) => Carrier::Int64,
            (64, false) if parquet => Carrier::Decimal128 { precision: 20, scale: 0 },
            _ => Carrier::NumberText,
        },
        ChType::Float32 | ChType::BFloat16 => Carrier::Float32,
        ChType::Float64 => Carrier::Float64,
        ChType::Decimal { precision, scale } => match i8::try_from(*scale) {
            Ok(scale) if *precision <= DECIMAL_DIGITS_MAX => Carrier::Decimal128 { precision: *precision, scale },
            _ => Carrier::NumberText,
        },
        ChType::Date => Carrier::Date32,
        ChType::DateTime => timestamp(terms),
        ChType::DateTime64 { scale } if *scale <= MICROS_SCALE => timestamp(terms),
        ChType::Uuid if terms.preset == Preset::Postgres => Carrier::Uuid,
        ChType::Interval => Carrier::Int64,
        ChType::Json => Carrier::Json,
        ChType::Text | ChType::Fixed if terms.policies.invalid_utf8 == InvalidUtf8::Bytes => Carrier::Bytes,
        _ => Carrier::Text,
    }
}

fn timestamp(terms: &ChTerms) -> Carrier {
    let millis = terms.format == Format::Parquet && terms.policies.timestamp_precision != TimestampPrecision::Micros;
    Carrier::Timestamp { unit: if millis { Precision::Millis } else { Precision::Micros }, utc: true }
}

fn text_of(ch_type: &ChType) -> Carrier {
    match ch_type.inner() {
        ChType::Integer { .. } | ChType::Decimal { .. } => Carrier::NumberText,
        _ => Carrier::Text,
    }
}

fn note(ch_type: &ChType, carrier: &Carrier, terms: &ChTerms) -> Option<&'static str> {
    let parquet = terms.format == Format::Parquet;
    Some(match (ch_type, carrier) {
        (_, Carrier::Bytes) => "text written as its bytes, as --invalid-utf8 asks",
        (ChType::Integer { .. } | ChType::Decimal { .. }, Carrier::NumberText) if parquet => {
            "written as text: it has more than 38 digits"
        }
        (ChType::DateTime64 { .. }, Carrier::Text) => "written as text in UTC: it is finer than microseconds",
        (ChType::DateTime | ChType::DateTime64 { .. }, _) => "in UTC, whatever the column's time zone",
        (ChType::Uuid, Carrier::Text) => "written as text: the type cannot be read there",
        (ChType::Either, _) => "values of several types, written as text",
        (ChType::Interval, _) => "the number of its units",
        (ChType::TimeOfDay, _) if parquet => "written as text: it may be negative or beyond a day",
        (ChType::BFloat16, _) => "widened to 32 bits, which changes no value",
        _ => return None,
    })
}

fn lists_within_lists(carrier: &Carrier) -> bool {
    fn has_list(carrier: &Carrier) -> bool {
        match carrier {
            Carrier::List(_) => true,
            Carrier::Struct(members) => members.iter().any(|member| has_list(&member.carrier)),
            _ => false,
        }
    }
    match carrier {
        Carrier::List(element) => has_list(element),
        Carrier::Struct(members) => members.iter().any(|member| lists_within_lists(&member.carrier)),
        _ => false,
    }
}

/// The expression that sends `value`, which is of a type, as its carrier wants it: what Arrow has of the type loses
/// something otherwise, or differs from server to server.
pub(crate) fn sent(ch_type: &ChType, carrier: &Carrier, value: &str) -> String {
    expression(ch_type, carrier, value, 0)
}

fn expression(ch_type: &ChType, carrier: &Carrier, value: &str, depth: usize) -> String {
    let inner = ch_type.inner();
    match (inner, carrier) {
        (ChType::Nothing, _) => "CAST(NULL AS Nullable(String))".to_owned(),
        (ChType::Either, _) => format!("CAST({value} AS Nullable(String))"),
        (ChType::Array(element), Carrier::List(of)) => {
            let item = format!("outhaul_{depth}");
            let each = expression(element, of, &item, depth + 1);
            if each == item { value.to_owned() } else { format!("arrayMap({item} -> {each}, {value})") }
        }
        (ChType::Tuple(members), Carrier::Struct(of)) => tuple(members, of, value, depth),
        (_, Carrier::Json | Carrier::Text) if ch_type.is_nested() || *inner == ChType::Json => {
            // It is not NULL of a NULL by itself.
            if *ch_type == *inner {
                format!("toJSONString({value})")
            } else {
                format!("if(isNull({value}), NULL, toJSONString({value}))")
            }
        }
        (ChType::Date, Carrier::Date32) => format!("toDate32({value})"),
        (ChType::DateTime, Carrier::Timestamp { .. }) => format!("toUnixTimestamp64Micro(toDateTime64({value}, 6))"),
        (ChType::DateTime64 { .. }, Carrier::Timestamp { .. }) => format!("toUnixTimestamp64Micro({value})"),
        (ChType::DateTime | ChType::DateTime64 { .. }, _) => {
            format!("concat(toString(toTimeZone({value}, 'UTC')), '+00')")
        }
        (ChType::Uuid, Carrier::Uuid) => format!("UUIDStringToNum(toString({value}))"),
        (ChType::Interval, Carrier::Int64) => format!("toInt64({value})"),
        (ChType::BFloat16, Carrier::Float32) => format!("toFloat32({value})"),
        (_, Carrier::Text | Carrier::NumberText) if !is_sent_as_it_is(inner) => format!("toString({value})"),
        _ => value.to_owned(),
    }
}

/// Whether Arrow has the value as it is written: texts, and numbers with all their digits, which the widest integers lack.
fn is_sent_as_it_is(ch_type: &ChType) -> bool {
    matches!(ch_type, ChType::Text | ChType::Fixed | ChType::Decimal { .. } | ChType::Integer { bits: 8..=64, .. })
}

fn tuple(members: &[(Option<String>, ChType)], of: &[Member], value: &str, depth: usize) -> String {
    let place = |place: usize| format!("tupleElement({value}, {})", place + 1);
    let each: Vec<(String, String)> = members
        .iter()
        .zip(of)
        .enumerate()
        .map(|(nth, ((_, inner), member))| {
            let raw = place(nth);
            (expression(inner, &member.carrier, &raw, depth), raw)
        })
        .collect();
    if each.iter().all(|(sent, raw)| sent == raw) {
        return value.to_owned();
    }
    let parts: Vec<String> = each.into_iter().map(|(sent, _)| sent).collect();
    format!("tuple({})", parts.join(", "))
}

/// How the server sends a column, in a word of its own.
pub(crate) fn sent_as(ch_type: &ChType, carrier: &Carrier) -> &'static str {
    let value = quoted("x");
    let sent = sent(ch_type, carrier, &value);
    if sent == value {
        "arrow"
    } else if sent.contains("toJSONString") {
        "json"
    } else if matches!(carrier, Carrier::Text | Carrier::NumberText) {
        "text"
    } else {
        "cast"
    }
}

/// Whether a value may be refused or become NULL for one of the policies that say so.
pub(crate) fn may_become_null(ch_type: &ChType, terms: &ChTerms) -> bool {
    let float = matches!(ch_type.inner(), ChType::Float32 | ChType::Float64 | ChType::BFloat16);
    let by_nan = terms.format == Format::Ndjson && float && terms.policies.json_nan == crate::model::JsonNan::Null;
    let exact = terms.policies.timestamp_precision == TimestampPrecision::MillisExact;
    let by_time = terms.policies.on_unrepresentable == OnUnrepresentable::Null && exact;
    by_nan || by_time && ch_type.holds(&|part| matches!(part, ChType::DateTime64 { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(text: &str, format: Format) -> (ChType, ChMapping) {
        let ch_type = ChType::parse(text).unwrap();
        let terms = ChTerms { format, preset: Preset::Postgres, policies: Policies::default() };
        let mapping = map_type(&ch_type, &terms).unwrap();
        (ch_type, mapping)
    }

    fn shown(text: &str, format: Format) -> (Carrier, String) {
        let (ch_type, mapping) = mapped(text, format);
        let sent = sent(&ch_type, &mapping.carrier, "c");
        (mapping.carrier, sent)
    }

    #[test]
    fn each_type_has_a_carrier_and_an_expression() {
        let micros = Carrier::Timestamp { unit: Precision::Micros, utc: true };
        let cases = [
            ("UInt8", Carrier::Int16, "c"),
            ("UInt64", Carrier::Decimal128 { precision: 20, scale: 0 }, "c"),
            ("Int128", Carrier::NumberText, "toString(c)"),
            ("Decimal(20, 4)", Carrier::Decimal128 { precision: 20, scale: 4 }, "c"),
            ("Decimal(60, 4)", Carrier::NumberText, "c"),
            ("Date", Carrier::Date32, "toDate32(c)"),
            ("DateTime('Asia/Tokyo')", micros.clone(), "toUnixTimestamp64Micro(toDateTime64(c, 6))"),
            ("Nullable(DateTime64(3))", micros, "toUnixTimestamp64Micro(c)"),
            ("DateTime64(9)", Carrier::Text, "concat(toString(toTimeZone(c, 'UTC')), '+00')"),
            ("Enum8('a' = 1)", Carrier::Text, "toString(c)"),
            ("UUID", Carrier::Uuid, "UUIDStringToNum(toString(c))"),
            ("IPv6", Carrier::Text, "toString(c)"),
            ("Map(String, UInt8)", Carrier::Json, "toJSONString(c)"),
            ("Nullable(JSON)", Carrier::Json, "if(isNull(c), NULL, toJSONString(c))"),
            ("Array(Array(UInt8))", Carrier::List(Arc::new(Carrier::List(Arc::new(Carrier::Int16)))), "c"),
            (
                "Array(UUID)",
                Carrier::List(Arc::new(Carrier::Uuid)),
                "arrayMap(outhaul_0 -> UUIDStringToNum(toString(outhaul_0)), c)",
            ),
            ("Variant(String, UInt8)", Carrier::Text, "CAST(c AS Nullable(String))"),
            ("Point", Carrier::Json, "toJSONString(c)"),
        ];
        for (text, carrier, sent) in cases {
            assert_eq!(shown(text, Format::Parquet), (carrier, sent.to_owned()), "{text}");
        }
        assert_eq!(shown("UInt64", Format::Csv), (Carrier::NumberText, "c".to_owned()));
        assert_eq!(shown("Array(UUID)", Format::Ndjson), (Carrier::Json, "toJSONString(c)".to_owned()));
    }

    #[test]
    fn members_are_sent_each_by_its_own_type() {
        let (_, sent) = shown("Tuple(a UInt8, b Date)", Format::Parquet);
        assert_eq!(sent, "tuple(tupleElement(c, 1), toDate32(tupleElement(c, 2)))");
        let (carrier, _) = shown("Tuple(a UInt8, a Date)", Format::Parquet);
        assert_eq!(carrier, Carrier::Json, "two members of one name");
    }

    #[test]
    fn what_only_clickhouse_can_use_is_not_sent() {
        let terms = ChTerms { format: Format::Csv, preset: Preset::Postgres, policies: Policies::default() };
        let state = ChType::parse("Array(AggregateFunction(sum, UInt8))").unwrap();
        assert_eq!(map_type(&state, &terms), None);
    }
}
