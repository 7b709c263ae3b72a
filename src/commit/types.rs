//! Names of types as the manifest writes them.
//!
//! The names are spelled out here rather than taken from a library's `Display`, which may change between its releases.

use std::sync::Arc;

use crate::model::{Carrier, Format, Member, Precision};

/// The type of PostgreSQL whose values are held and written like those of a carrier, for what another source gives.
pub(super) fn pg_type(carrier: &Carrier) -> String {
    match carrier {
        Carrier::Bool => "boolean".into(),
        Carrier::Int16 => "smallint".into(),
        Carrier::Int32 => "integer".into(),
        Carrier::Int64 => "bigint".into(),
        Carrier::Float32 => "real".into(),
        Carrier::Float64 => "double precision".into(),
        Carrier::NumberText => "numeric".into(),
        Carrier::Decimal128 { precision, scale } | Carrier::Decimal256 { precision, scale } => {
            format!("numeric({precision},{scale})")
        }
        Carrier::Text => "text".into(),
        Carrier::Json | Carrier::List(_) | Carrier::Struct(_) | Carrier::Map => "jsonb".into(),
        Carrier::Bytes => "bytea".into(),
        Carrier::Uuid => "uuid".into(),
        Carrier::PgDate | Carrier::Date32 => "date".into(),
        Carrier::PgTime | Carrier::Time64 => "time without time zone".into(),
        Carrier::PgTimestamp | Carrier::Timestamp { utc: false, .. } => "timestamp without time zone".into(),
        Carrier::PgTimestampTz | Carrier::Timestamp { utc: true, .. } => "timestamp with time zone".into(),
    }
}

/// The Arrow type of a column's batches. Members of a struct are named in JSON's quotes.
pub(super) fn arrow_type(carrier: &Carrier) -> String {
    match carrier {
        Carrier::Bool => "Boolean".into(),
        Carrier::Int16 => "Int16".into(),
        Carrier::Int32 | Carrier::PgDate => "Int32".into(),
        Carrier::Int64 | Carrier::PgTime | Carrier::PgTimestamp | Carrier::PgTimestampTz => "Int64".into(),
        Carrier::Float32 => "Float32".into(),
        Carrier::Float64 => "Float64".into(),
        Carrier::NumberText | Carrier::Text | Carrier::Json => "Utf8".into(),
        Carrier::Decimal128 { precision, scale } => format!("Decimal128({precision},{scale})"),
        Carrier::Decimal256 { precision, scale } => format!("Decimal256({precision},{scale})"),
        Carrier::Bytes => "Binary".into(),
        Carrier::Uuid => "FixedSizeBinary(16)".into(),
        Carrier::Date32 => "Date32".into(),
        Carrier::Time64 => "Time64(MICROS)".into(),
        Carrier::Timestamp { unit, utc: false } => format!("Timestamp({})", unit_name(*unit)),
        Carrier::Timestamp { unit, utc: true } => format!("Timestamp({}, UTC)", unit_name(*unit)),
        Carrier::List(element) => format!("List({})", arrow_type(element)),
        Carrier::Struct(members) => format!("Struct({})", listed(members, arrow_type)),
        Carrier::Map => "Map(Utf8, Utf8)".into(),
    }
}

/// The Parquet type of a column: its logical type where it has one, else its physical type. Text formats have none.
pub(crate) fn parquet_type(carrier: &Carrier, format: Format) -> Option<String> {
    (format == Format::Parquet).then(|| parquet_name(carrier))
}

fn parquet_name(carrier: &Carrier) -> String {
    match carrier {
        Carrier::Bool => "BOOLEAN".into(),
        Carrier::Int16 => "INT(16, true)".into(),
        Carrier::Int32 | Carrier::PgDate => "INT32".into(),
        Carrier::Int64 | Carrier::PgTime | Carrier::PgTimestamp | Carrier::PgTimestampTz => "INT64".into(),
        Carrier::Float32 => "FLOAT".into(),
        Carrier::Float64 => "DOUBLE".into(),
        Carrier::NumberText | Carrier::Text | Carrier::Json => "STRING".into(),
        Carrier::Decimal128 { precision, scale } | Carrier::Decimal256 { precision, scale } => {
            format!("DECIMAL({precision},{scale})")
        }
        Carrier::Bytes => "BYTE_ARRAY".into(),
        Carrier::Uuid => "UUID".into(),
        Carrier::Date32 => "DATE".into(),
        Carrier::Time64 => "TIME(MICROS)".into(),
        Carrier::Timestamp { unit, utc: false } => format!("TIMESTAMP({})", unit_name(*unit)),
        Carrier::Timestamp { unit, utc: true } => format!("TIMESTAMP({}, UTC)", unit_name(*unit)),
        Carrier::List(element) => format!("LIST({})", parquet_name(element)),
        Carrier::Struct(members) => format!("STRUCT({})", listed(members, parquet_name)),
        Carrier::Map => "MAP(STRING, STRING)".into(),
    }
}

fn unit_name(unit: Precision) -> &'static str {
    match unit {
        Precision::Millis => "MILLIS",
        Precision::Micros => "MICROS",
    }
}

fn listed(members: &[Member], name: fn(&Carrier) -> String) -> String {
    let member =
        |member: &Member| format!("{}: {}", serde_json::Value::from(member.name.as_str()), name(&member.carrier));
    members.iter().map(member).collect::<Vec<_>>().join(", ")
}

/// The carrier whose type [`arrow_type`] called so; a text carrier is [`Carrier::Text`], an integer one the integer, since
/// those share a type. `None` for a name that this build does not know.
pub(crate) fn parse_arrow_type(name: &str) -> Option<Carrier> {
    let (carrier, rest) = parse(name)?;
    rest.is_empty().then_some(carrier)
}

/// The carrier at the front of `text`, and what follows it.
fn parse(text: &str) -> Option<(Carrier, &str)> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let plain = match word {
        "Boolean" => Carrier::Bool,
        "Int16" => Carrier::Int16,
        "Int32" => Carrier::Int32,
        "Int64" => Carrier::Int64,
        "Float32" => Carrier::Float32,
        "Float64" => Carrier::Float64,
        "Utf8" => Carrier::Text,
        "Binary" => Carrier::Bytes,
        "Date32" => Carrier::Date32,
        "List" => {
            let (element, rest) = parse(rest.strip_prefix('(')?)?;
            return Some((Carrier::List(Arc::new(element)), rest.strip_prefix(')')?));
        }
        "Struct" => {
            let (members, rest) = parse_members(rest.strip_prefix('(')?)?;
            return Some((Carrier::Struct(members.into()), rest));
        }
        _ => {
            let (arguments, rest) = rest.strip_prefix('(')?.split_once(')')?;
            return Some((parse_with(word, arguments)?, rest));
        }
    };
    Some((plain, rest))
}

fn parse_with(word: &str, arguments: &str) -> Option<Carrier> {
    let digits = || {
        let (precision, scale) = arguments.split_once(',')?;
        Some((precision.parse().ok()?, scale.parse().ok()?))
    };
    Some(match (word, arguments) {
        ("FixedSizeBinary", "16") => Carrier::Uuid,
        ("Time64", "MICROS") => Carrier::Time64,
        ("Timestamp", "MICROS") => Carrier::Timestamp { unit: Precision::Micros, utc: false },
        ("Timestamp", "MICROS, UTC") => Carrier::Timestamp { unit: Precision::Micros, utc: true },
        ("Timestamp", "MILLIS") => Carrier::Timestamp { unit: Precision::Millis, utc: false },
        ("Timestamp", "MILLIS, UTC") => Carrier::Timestamp { unit: Precision::Millis, utc: true },
        ("Map", "Utf8, Utf8") => Carrier::Map,
        ("Decimal128", _) => digits().map(|(precision, scale)| Carrier::Decimal128 { precision, scale })?,
        ("Decimal256", _) => digits().map(|(precision, scale)| Carrier::Decimal256 { precision, scale })?,
        _ => return None,
    })
}

/// Members up to the closing bracket. Whether they can be NULL is not in the name: as if they could.
fn parse_members(mut text: &str) -> Option<(Vec<Member>, &str)> {
    let mut members = Vec::new();
    loop {
        let mut names = serde_json::Deserializer::from_str(text).into_iter::<String>();
        let name = names.next()?.ok()?;
        let (carrier, rest) = parse(text.get(names.byte_offset()..)?.strip_prefix(": ")?)?;
        members.push(Member { name, carrier, nullable: true });
        if let Some(rest) = rest.strip_prefix(')') {
            return Some((members, rest));
        }
        text = rest.strip_prefix(", ")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parquet_types_are_named_for_parquet_alone() {
        let carrier = Carrier::Decimal128 { precision: 12, scale: 2 };
        assert_eq!(parquet_type(&carrier, Format::Parquet).as_deref(), Some("DECIMAL(12,2)"));
        assert_eq!(parquet_type(&carrier, Format::Csv), None);
        assert_eq!(
            parquet_type(&Carrier::Timestamp { unit: Precision::Micros, utc: true }, Format::Parquet).unwrap(),
            "TIMESTAMP(MICROS, UTC)"
        );
    }

    #[test]
    fn names_of_arrow_types_read_back() {
        let member = |name: &str, carrier| Member { name: name.to_owned(), carrier, nullable: true };
        let inner = Carrier::Struct(Arc::new([
            member("a \"b\", )(", Carrier::Decimal256 { precision: 50, scale: 10 }),
            member("", Carrier::List(Arc::new(Carrier::Map))),
            member("é", Carrier::Struct(Arc::new([member("x", Carrier::Uuid)]))),
        ]));
        for carrier in [
            Carrier::Bool,
            Carrier::Date32,
            Carrier::Time64,
            Carrier::Decimal128 { precision: 12, scale: 2 },
            Carrier::Timestamp { unit: Precision::Millis, utc: true },
            Carrier::Timestamp { unit: Precision::Micros, utc: false },
            Carrier::List(Arc::new(inner.clone())),
            inner,
        ] {
            let name = arrow_type(&carrier);
            assert_eq!(parse_arrow_type(&name), Some(carrier), "{name}");
        }
        for wrong in ["", "Int", "Int32)", "List(Int32", "List()", "Struct()", "Struct(\"a\" Int32)", "Decimal128(1)"] {
            assert_eq!(parse_arrow_type(wrong), None, "{wrong}");
        }
    }
}
