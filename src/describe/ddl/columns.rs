//! What the columns of an export hold, whatever the format.
//!
//! Parquet says so itself. In text formats it follows from the type in PostgreSQL: a `date` has the batches of an
//! `integer`, but is written as `2026-11-21`.

use std::collections::HashSet;

use crate::commit::model::{Manifest, SchemaColumn};
use crate::commit::types::parse_arrow_type;
use crate::model::{Carrier, Format, Member, Precision};

/// The most digits of a decimal that is read everywhere.
pub(super) const DECIMAL_DIGITS: u8 = 38;

#[derive(Debug)]
pub(super) struct DdlColumn<'a> {
    pub(super) name: &'a str,
    pub(super) kind: ValueKind,
    pub(super) nullable: bool,
    pub(super) schema: &'a SchemaColumn,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ValueKind {
    Bool,
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    Decimal {
        precision: u8,
        scale: u8,
    },
    /// A number with any number of digits; text in Parquet.
    Number,
    Text,
    /// JSON: text in Parquet and CSV, itself in NDJSON.
    Json,
    /// Bytes in Parquet, `\x…` in text formats.
    Bytes,
    Uuid,
    Date,
    Time,
    Timestamp {
        utc: bool,
        micros: bool,
    },
    List(Box<ValueKind>),
    Struct(Vec<(String, ValueKind)>),
    /// From text to text.
    Map,
    /// A domain or something like it, whose values in a text format may be numbers, dates or times.
    Unclear,
}

impl ValueKind {
    /// Whether it, or something in it, is so.
    pub(super) fn any(&self, is: &dyn Fn(&Self) -> bool) -> bool {
        is(self)
            || match self {
                Self::List(element) => element.any(is),
                Self::Struct(members) => members.iter().any(|(_, member)| member.any(is)),
                _ => false,
            }
    }

    /// A member that differs from another of its struct in letter case alone.
    pub(super) fn double_member(&self) -> Option<&str> {
        match self {
            Self::List(element) => element.double_member(),
            Self::Struct(members) => {
                let mut seen = HashSet::new();
                let twice = members.iter().find(|(name, _)| !seen.insert(name.to_lowercase()));
                let within = || members.iter().find_map(|(_, member)| member.double_member());
                twice.map(|(name, _)| name.as_str()).or_else(within)
            }
            _ => None,
        }
    }

    /// Whether its values are lists, structs or maps.
    pub(super) fn is_nested(&self) -> bool {
        matches!(self, Self::List(_) | Self::Struct(_) | Self::Map)
    }

    /// Whether its values are text of any length, as far as readers without a better type are concerned.
    pub(super) fn is_text(&self) -> bool {
        matches!(self, Self::Number | Self::Text | Self::Json | Self::Unclear)
    }
}

impl DdlColumn<'_> {
    /// Whether numbers that a double would change are strings in NDJSON (`--json-large-numbers string`).
    pub(super) fn large_as_strings(&self) -> bool {
        self.schema.policy.split(", ").any(|word| word == "string")
    }
}

/// The columns of an export.
///
/// # Errors
/// Those whose type this build does not know.
pub(super) fn of(manifest: &Manifest) -> Result<Vec<DdlColumn<'_>>, Vec<String>> {
    known(manifest.format.format(), manifest.schema.iter())
}

/// The columns that the folders of its parts stand for, where the files do not have them.
///
/// # Errors
/// As [`of`].
pub(super) fn of_folders(manifest: &Manifest) -> Result<Vec<DdlColumn<'_>>, Vec<String>> {
    let left_out = |column: &&SchemaColumn| !manifest.schema.iter().any(|other| other.name == column.name);
    known(manifest.format.format(), manifest.partition_by.iter().filter(left_out))
}

fn known<'a>(
    format: Format,
    schema: impl Iterator<Item = &'a SchemaColumn>,
) -> Result<Vec<DdlColumn<'a>>, Vec<String>> {
    let (mut columns, mut unknown) = (Vec::new(), Vec::new());
    for schema in schema {
        let carrier = parse_arrow_type(&schema.arrow_type);
        match carrier.and_then(|carrier| kind(&carrier, &schema.pg_type, format)) {
            Some(kind) => {
                // JSON's own null is written as an absent value is.
                let null = format == Format::Ndjson && kind.is_text() && !schema.is_plain_text();
                columns.push(DdlColumn { name: &schema.name, kind, nullable: schema.nullable || null, schema });
            }
            None => {
                unknown.push(format!(
                    "column {:?} is {}, which this version does not know",
                    schema.name, schema.arrow_type
                ));
            }
        }
    }
    if unknown.is_empty() { Ok(columns) } else { Err(unknown) }
}

/// Notes that concern every dialect.
pub(super) fn notes(columns: &[DdlColumn<'_>]) -> Vec<String> {
    let unclear = columns.iter().filter(|column| column.kind == ValueKind::Unclear);
    unclear
        .map(|column| {
            let (name, pg_type) = (column.name, &column.schema.pg_type);
            format!("column {name:?} is read as text: the manifest does not say what {pg_type} is made of")
        })
        .collect()
}

fn kind(carrier: &Carrier, pg_type: &str, format: Format) -> Option<ValueKind> {
    if format == Format::Parquet {
        return Some(match (held(carrier)?, without_modifier(pg_type).as_str()) {
            (ValueKind::Text, "json" | "jsonb") => ValueKind::Json,
            (kind, _) => kind,
        });
    }
    let base = without_modifier(pg_type);
    Some(match carrier {
        Carrier::Int32 => match base.as_str() {
            "integer" => ValueKind::Int32,
            "date" => ValueKind::Date,
            _ => ValueKind::Unclear,
        },
        Carrier::Int64 => match base.as_str() {
            "bigint" | "oid" | "xid" | "cid" => ValueKind::Int64,
            "time without time zone" => ValueKind::Time,
            "timestamp without time zone" => ValueKind::Timestamp { utc: false, micros: true },
            "timestamp with time zone" => ValueKind::Timestamp { utc: true, micros: true },
            _ => ValueKind::Unclear,
        },
        Carrier::Text => match base.as_str() {
            "numeric" => numeric(pg_type),
            "json" | "jsonb" => ValueKind::Json,
            array if format == Format::Ndjson && array.ends_with("[]") => ValueKind::Json,
            _ => ValueKind::Text,
        },
        other => held(other)?,
    })
}

/// What Parquet holds.
fn held(carrier: &Carrier) -> Option<ValueKind> {
    let member = |member: &Member| Some((member.name.clone(), held(&member.carrier)?));
    Some(match carrier {
        Carrier::Bool => ValueKind::Bool,
        Carrier::Int16 => ValueKind::Int16,
        Carrier::Int32 | Carrier::PgDate => ValueKind::Int32,
        Carrier::Int64 | Carrier::PgTime | Carrier::PgTimestamp | Carrier::PgTimestampTz => ValueKind::Int64,
        Carrier::Float32 => ValueKind::Float32,
        Carrier::Float64 => ValueKind::Float64,
        Carrier::Decimal128 { precision, scale } | Carrier::Decimal256 { precision, scale } => {
            ValueKind::Decimal { precision: *precision, scale: u8::try_from(*scale).ok()? }
        }
        Carrier::NumberText | Carrier::Text | Carrier::Json => ValueKind::Text,
        Carrier::Bytes => ValueKind::Bytes,
        Carrier::Uuid => ValueKind::Uuid,
        Carrier::Date32 => ValueKind::Date,
        Carrier::Time64 => ValueKind::Time,
        Carrier::Timestamp { unit, utc } => ValueKind::Timestamp { utc: *utc, micros: *unit == Precision::Micros },
        Carrier::List(element) => ValueKind::List(Box::new(held(element)?)),
        Carrier::Struct(members) => ValueKind::Struct(members.iter().map(member).collect::<Option<_>>()?),
        Carrier::Map => ValueKind::Map,
    })
}

/// A type's name without what stands in parentheses: `timestamp(3) without time zone` is a timestamp.
fn without_modifier(pg_type: &str) -> String {
    match pg_type.split_once('(').and_then(|(before, rest)| Some((before, rest.split_once(')')?.1))) {
        Some((before, after)) => format!("{before}{after}"),
        None => pg_type.to_owned(),
    }
}

/// What `numeric(p,s)` holds: a scale below 0 means zeros before the point, one above the precision zeros after it.
fn numeric(pg_type: &str) -> ValueKind {
    let digits = || {
        let (precision, scale) = pg_type.strip_prefix("numeric(")?.strip_suffix(')')?.split_once(',')?;
        let (precision, scale) = (precision.parse::<i32>().ok()?, scale.parse::<i32>().ok()?);
        let (precision, scale) = (precision.max(precision - scale).max(scale), scale.max(0));
        Some((u8::try_from(precision).ok()?, u8::try_from(scale).ok()?))
    };
    match digits() {
        Some((precision, scale)) if precision <= DECIMAL_DIGITS => ValueKind::Decimal { precision, scale },
        _ => ValueKind::Number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_formats_go_by_the_type_in_postgresql() {
        let csv = |arrow: &str, pg_type: &str| kind(&parse_arrow_type(arrow).unwrap(), pg_type, Format::Csv).unwrap();
        for (arrow, pg_type, expected) in [
            ("Int32", "integer", ValueKind::Int32),
            ("Int32", "date", ValueKind::Date),
            ("Int32", "birthday", ValueKind::Unclear),
            ("Int64", "oid", ValueKind::Int64),
            ("Int64", "time(3) without time zone", ValueKind::Time),
            ("Int64", "timestamp(3) with time zone", ValueKind::Timestamp { utc: true, micros: true }),
            ("Int64", "epoch", ValueKind::Unclear),
            ("Utf8", "numeric(12,2)", ValueKind::Decimal { precision: 12, scale: 2 }),
            ("Utf8", "numeric(3,-2)", ValueKind::Decimal { precision: 5, scale: 0 }),
            ("Utf8", "numeric(3,5)", ValueKind::Decimal { precision: 5, scale: 5 }),
            ("Utf8", "numeric(39,2)", ValueKind::Number),
            ("Utf8", "numeric", ValueKind::Number),
            ("Utf8", "character varying(20)", ValueKind::Text),
            ("Utf8", "integer[]", ValueKind::Text),
            ("Utf8", "jsonb", ValueKind::Json),
            ("FixedSizeBinary(16)", "uuid", ValueKind::Uuid),
        ] {
            assert_eq!(csv(arrow, pg_type), expected, "{pg_type}");
        }
    }

    #[test]
    fn parquet_goes_by_what_it_holds() {
        let parquet = |arrow: &str| kind(&parse_arrow_type(arrow).unwrap(), "any_domain", Format::Parquet).unwrap();
        assert_eq!(parquet("Int32"), ValueKind::Int32);
        assert_eq!(parquet("Timestamp(MILLIS, UTC)"), ValueKind::Timestamp { utc: true, micros: false });
        let member = ("a".to_owned(), ValueKind::List(Box::new(ValueKind::Date)));
        assert_eq!(parquet("Struct(\"a\": List(Date32))"), ValueKind::Struct(vec![member]));
    }
}
