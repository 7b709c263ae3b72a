//! How the values of one column get from the server into a batch: from type x format x preset x policies.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::members;
use super::oid;
use crate::model::{
    Carrier, CharPadding, Format, InvalidUtf8, Member, Nested, OnUnrepresentable, Policies, Precision, Preset,
    TimestampPrecision, UnconstrainedNumeric,
};
use crate::source::postgres::plan::{Attribute, ExtensionType, PgType, TypeKind, Wire};

/// The most digits that an Arrow `Decimal128` holds, and the most that Athena, Redshift and DuckDB have.
const DECIMAL128_DIGITS: i32 = 38;

/// What types depend on besides themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerTypes {
    /// Whether the database's encoding is `SQL_ASCII`, which checks nothing.
    pub sql_ascii: bool,
    /// Digits of `money` after the point, by the database's `lc_monetary`.
    pub money_scale: u8,
    /// Whether intervals can be infinite (PostgreSQL 17 and later): before, the same bytes are a finite one.
    pub infinite_intervals: bool,
}

/// All that decides on the mapping of a type besides the type itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) format: Format,
    pub(super) preset: Preset,
    pub(super) policies: Policies,
    pub(super) server: ServerTypes,
}

/// How values get from the server into a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TypeMapping {
    pub(super) wire: Wire,
    pub(super) carrier: Carrier,
    pub(super) note: Option<String>,
    /// The word of the policy that writes every value otherwise than it would be without it.
    pub(super) rewritten: Option<&'static str>,
}

impl TypeMapping {
    fn binary(carrier: Carrier) -> Self {
        Self { wire: Wire::Binary, carrier, note: None, rewritten: None }
    }

    fn output_text() -> Self {
        Self { wire: Wire::OutputText, ..Self::binary(Carrier::Text) }
    }

    fn json_text() -> Self {
        Self { wire: Wire::JsonText, ..Self::binary(Carrier::Json) }
    }

    fn noting(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }

    fn rewritten(self, word: &'static str) -> Self {
        Self { rewritten: Some(word), ..self }
    }
}

/// How values of a type get from the server into a batch, under these terms.
pub(super) fn map_type(pg_type: &PgType, terms: &Terms) -> TypeMapping {
    let mapping = match terms.format {
        Format::Parquet => parquet(pg_type, terms),
        Format::Csv | Format::Ndjson | Format::Source => text(pg_type, terms),
    };
    members::noted(mapping, pg_type, terms)
}

/// CSV and NDJSON: PostgreSQL's own integers and texts where they are printed here as the server would print them.
fn text(pg_type: &PgType, terms: &Terms) -> TypeMapping {
    let ndjson = terms.format == Format::Ndjson;
    if is_nested(pg_type) {
        let json = TypeMapping::json_text().noting("sent as the JSON that to_json makes of it");
        return match terms.policies.nested {
            _ if ndjson => json,
            Nested::Json => json.rewritten("json"),
            Nested::Native => TypeMapping::output_text().noting("sent as its output text"),
        };
    }
    let carrier = match pg_type.base_oid {
        // row_to_json quotes these, unlike the integers.
        oid::OID | oid::XID | oid::CID | oid::XID8 if ndjson => Some(Carrier::Text),
        oid::XID8 | oid::NUMERIC => Some(Carrier::NumberText),
        oid::UUID => Some(Carrier::Uuid),
        oid::DATE => Some(Carrier::PgDate),
        oid::TIME => Some(Carrier::PgTime),
        oid::TIMESTAMP => Some(Carrier::PgTimestamp),
        oid::TIMESTAMPTZ => Some(Carrier::PgTimestampTz),
        // How it is spelled is a matter of the database's lc_monetary.
        oid::MONEY => None,
        _ if pg_type.kind == TypeKind::Extension(ExtensionType::Geometry) => None,
        _ => typed(pg_type, terms),
    };
    match carrier {
        Some(carrier) => annotated(carrier, pg_type, terms),
        None if ndjson => TypeMapping::json_text().noting("sent as the JSON that row_to_json makes of it"),
        None => TypeMapping::output_text().noting("sent as its output text"),
    }
}

fn parquet(pg_type: &PgType, terms: &Terms) -> TypeMapping {
    let policies = &terms.policies;
    if policies.as_text {
        return as_text(pg_type).noting("written as text, as --column-policy asks").rewritten("text");
    }
    if is_nested(pg_type) && policies.nested == Nested::Json {
        return TypeMapping::json_text().noting("written as JSON, as --column-policy asks").rewritten("json");
    }
    let Some(carrier) = typed(pg_type, terms) else {
        return TypeMapping::output_text().noting("sent as its output text");
    };
    if policies.on_unrepresentable == OnUnrepresentable::Text && can_fail(&carrier) {
        return as_text(pg_type).noting("written as text, as --on-unrepresentable asks").rewritten("text");
    }
    if terms.preset != Preset::Postgres && lists_within_lists(&carrier) {
        return TypeMapping::json_text().noting("written as JSON: a list within a list cannot be read there");
    }
    annotated(carrier, pg_type, terms)
}

/// Whether a value's text depends on the format or on a policy: `42` is `42.00` as a decimal of two places.
pub(super) fn text_varies(pg_type: &PgType, mapping: &TypeMapping) -> bool {
    let cut_digits = pg_type.base_oid == oid::NUMERIC
        && match mapping.carrier {
            Carrier::Float64 => true,
            Carrier::Decimal128 { .. } | Carrier::Decimal256 { .. } => {
                numeric_digits(pg_type.typmod).is_none_or(|(precision, _)| precision > DECIMAL128_DIGITS)
            }
            _ => false,
        };
    let of_one_format = mapping.wire == Wire::JsonText
        || pg_type.base_oid == oid::MONEY
        || pg_type.kind == TypeKind::Extension(ExtensionType::Geometry);
    cut_digits || of_one_format || mapping.rewritten.is_some_and(|word| word != "text")
}

/// What a person should know of the column, and whether all of it is written otherwise.
pub(super) fn annotated(carrier: Carrier, pg_type: &PgType, terms: &Terms) -> TypeMapping {
    let mapping = TypeMapping::binary(carrier);
    let text_of_bytes = mapping.carrier == Carrier::Bytes && is_text(pg_type);
    let parquet = terms.format == Format::Parquet;
    match (&pg_type.kind, pg_type.base_oid) {
        _ if text_of_bytes => mapping.noting("text written as its bytes, as --invalid-utf8 asks").rewritten("bytes"),
        (_, oid::BPCHAR) if terms.policies.char_padding == CharPadding::Keep => {
            mapping.noting("padded with blanks to its length, as stored")
        }
        (_, oid::NUMERIC) if parquet && mapping.carrier == Carrier::NumberText => {
            mapping.noting(match numeric_digits(pg_type.typmod) {
                None => "numeric without precision and scale is written as text",
                Some(_) => "numeric of more than 38 digits is written as text",
            })
        }
        (_, oid::INTERVAL) if parquet => {
            mapping.noting("written as text: Parquet's own interval has milliseconds only")
        }
        (_, oid::TIMETZ) if parquet => mapping.noting("written as text: Parquet has no time with a time zone"),
        (_, oid::UUID | oid::TIME) if mapping.carrier == Carrier::Text => {
            mapping.noting("written as text: the type cannot be read there")
        }
        (TypeKind::Extension(ExtensionType::Geometry), _) if parquet => match srid(pg_type.typmod) {
            Some(srid) => mapping.noting(format!("WKB; SRID {srid}")),
            None => mapping.noting("extended WKB, as PostGIS sends it: each value with its SRID"),
        },
        _ => mapping,
    }
}

/// PostgreSQL's own text of any type.
fn as_text(pg_type: &PgType) -> TypeMapping {
    match pg_type.base_oid {
        oid::NUMERIC => TypeMapping::binary(Carrier::NumberText),
        oid::DATE | oid::TIME | oid::TIMESTAMP | oid::TIMESTAMPTZ | oid::UUID => TypeMapping::binary(Carrier::Text),
        _ => TypeMapping::output_text(),
    }
}

/// The carrier into which a type's binary form is decoded; `None` where that form is not known here.
///
/// A member or an element is decoded like a column, so one type that is not known makes the whole value text.
pub(super) fn typed(pg_type: &PgType, terms: &Terms) -> Option<Carrier> {
    match &pg_type.kind {
        TypeKind::Base => scalar(pg_type, terms),
        TypeKind::Enum | TypeKind::Extension(ExtensionType::Citext) => Some(text_carrier(terms)),
        TypeKind::Array(element) => Some(Carrier::List(Arc::new(typed(element, terms)?))),
        TypeKind::Composite(attributes) if attributes.is_empty() => None,
        TypeKind::Composite(attributes) => {
            let member = |attribute: &Attribute| {
                let carrier = typed(&attribute.pg_type, terms)?;
                Some(Member { name: attribute.name.clone(), carrier, nullable: true })
            };
            Some(Carrier::Struct(attributes.iter().map(member).collect::<Option<_>>()?))
        }
        TypeKind::Range(subtype) => range(subtype, terms),
        TypeKind::Multirange(subtype) => Some(Carrier::List(Arc::new(range(subtype, terms)?))),
        TypeKind::Extension(ExtensionType::Hstore) => Some(Carrier::Map),
        TypeKind::Extension(ExtensionType::Geometry) => Some(Carrier::Bytes),
        TypeKind::Extension(ExtensionType::Vector | ExtensionType::Halfvec) => {
            Some(Carrier::List(Arc::new(Carrier::Float32)))
        }
    }
}

/// A range: its bounds, NULL where there is none, whether each belongs to it, and whether it is empty.
fn range(subtype: &PgType, terms: &Terms) -> Option<Carrier> {
    let bound = typed(subtype, terms)?;
    let member = |name: &str, carrier: Carrier, nullable| Member { name: name.to_owned(), carrier, nullable };
    Some(Carrier::Struct(Arc::new([
        member("lower", bound.clone(), true),
        member("upper", bound, true),
        member("lower_inc", Carrier::Bool, false),
        member("upper_inc", Carrier::Bool, false),
        member("empty", Carrier::Bool, false),
    ])))
}

fn scalar(pg_type: &PgType, terms: &Terms) -> Option<Carrier> {
    let plain = terms.preset != Preset::Postgres;
    Some(match pg_type.base_oid {
        oid::INTERVAL if !terms.server.infinite_intervals => return None,
        oid::BOOL => Carrier::Bool,
        oid::INT2 => Carrier::Int16,
        oid::INT4 => Carrier::Int32,
        oid::INT8 | oid::OID | oid::XID | oid::CID => Carrier::Int64,
        oid::XID8 => Carrier::Decimal128 { precision: 20, scale: 0 },
        oid::FLOAT4 => Carrier::Float32,
        oid::FLOAT8 => Carrier::Float64,
        oid::NUMERIC => numeric(pg_type.typmod, terms),
        oid::MONEY => Carrier::Decimal128 { precision: 19, scale: i8::try_from(terms.server.money_scale).ok()? },
        oid::TEXT | oid::VARCHAR | oid::NAME | oid::BPCHAR | oid::UNKNOWN => text_carrier(terms),
        oid::JSON | oid::JSONB => Carrier::Json,
        oid::BYTEA => Carrier::Bytes,
        oid::UUID | oid::TIME if plain => Carrier::Text,
        oid::UUID => Carrier::Uuid,
        oid::DATE => Carrier::Date32,
        oid::TIME => Carrier::Time64,
        oid::TIMESTAMP => Carrier::Timestamp { unit: unit(terms), utc: false },
        oid::TIMESTAMPTZ => Carrier::Timestamp { unit: unit(terms), utc: true },
        oid::CHAR
        | oid::TID
        | oid::XML
        | oid::POINT
        | oid::LSEG
        | oid::PATH
        | oid::BOX
        | oid::POLYGON
        | oid::LINE
        | oid::CIRCLE
        | oid::CIDR
        | oid::INET
        | oid::MACADDR
        | oid::MACADDR8
        | oid::INTERVAL
        | oid::TIMETZ
        | oid::BIT
        | oid::VARBIT
        | oid::PG_LSN
        | oid::JSONPATH => Carrier::Text,
        _ => return None,
    })
}

fn unit(terms: &Terms) -> Precision {
    match terms.policies.timestamp_precision {
        TimestampPrecision::Micros => Precision::Micros,
        TimestampPrecision::Millis | TimestampPrecision::MillisExact => Precision::Millis,
    }
}

fn text_carrier(terms: &Terms) -> Carrier {
    if terms.server.sql_ascii && terms.policies.invalid_utf8 == InvalidUtf8::Bytes {
        Carrier::Bytes
    } else {
        Carrier::Text
    }
}

/// A `numeric` in Parquet: a decimal where one can hold the declared digits.
pub(super) fn numeric(typmod: Option<i32>, terms: &Terms) -> Carrier {
    let Some((precision, scale)) = numeric_digits(typmod) else {
        return match terms.policies.unconstrained_numeric {
            UnconstrainedNumeric::Text => Carrier::NumberText,
            UnconstrainedNumeric::Decimal { precision, scale } => decimal(i32::from(precision), i32::from(scale)),
            UnconstrainedNumeric::Double => Carrier::Float64,
        };
    };
    match terms.policies.unconstrained_numeric {
        // What --column-policy asks of a declared numeric that has more digits than everybody reads.
        UnconstrainedNumeric::Decimal { precision: p, scale: s } if precision > DECIMAL128_DIGITS => {
            decimal(i32::from(p), i32::from(s))
        }
        UnconstrainedNumeric::Double if precision > DECIMAL128_DIGITS => Carrier::Float64,
        // A scale below 0 means zeros before the point, one above the precision zeros after it: Parquet has neither.
        _ if scale < 0 && precision - scale <= DECIMAL128_DIGITS => decimal(precision - scale, 0),
        _ if scale > precision && scale <= DECIMAL128_DIGITS => decimal(scale, scale),
        _ if (0..=precision).contains(&scale) && precision <= DECIMAL128_DIGITS => decimal(precision, scale),
        _ => Carrier::NumberText,
    }
}

/// `decimal(precision, scale)`, `0 <= scale <= precision <= 76`.
fn decimal(precision: i32, scale: i32) -> Carrier {
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(digits), Ok(scale)) if precision <= DECIMAL128_DIGITS => Carrier::Decimal128 { precision: digits, scale },
        (Ok(precision), Ok(scale)) => Carrier::Decimal256 { precision, scale },
        _ => Carrier::NumberText,
    }
}

/// Precision and scale of a `numeric`'s type modifier; the scale is an 11-bit two's complement since PostgreSQL 15 and
/// reads the same in 14.
pub(super) fn numeric_digits(typmod: Option<i32>) -> Option<(i32, i32)> {
    /// Every varlena type's modifier is this much larger than what it means.
    const VARLENA_HEADER: i32 = 4;
    let packed = typmod?.checked_sub(VARLENA_HEADER).filter(|packed| *packed >= 0)?;
    Some(((packed >> 16) & 0xffff, ((packed & 0x7ff) ^ 1024) - 1024))
}

/// The SRID that `PostGIS` keeps in a type modifier (`gserialized_typmod.c`, `TYPMOD_GET_SRID`), where it fixes one.
pub(crate) fn srid(typmod: Option<i32>) -> Option<i32> {
    let typmod = typmod?;
    let srid = ((typmod & 0x1FFF_FF00) - (typmod & 0x1000_0000)) >> 8;
    (srid != 0).then_some(srid)
}

/// Whether a type is an array, a composite, a range or a map.
pub(super) fn is_nested(pg_type: &PgType) -> bool {
    matches!(
        pg_type.kind,
        TypeKind::Array(_)
            | TypeKind::Composite(_)
            | TypeKind::Range(_)
            | TypeKind::Multirange(_)
            | TypeKind::Extension(ExtensionType::Hstore | ExtensionType::Vector | ExtensionType::Halfvec)
    )
}

/// Whether a type is text that the server does not vouch for in a `SQL_ASCII` database.
pub(crate) fn is_text(pg_type: &PgType) -> bool {
    matches!(pg_type.kind, TypeKind::Enum | TypeKind::Extension(ExtensionType::Citext))
        || matches!(pg_type.base_oid, oid::TEXT | oid::VARCHAR | oid::NAME | oid::BPCHAR | oid::UNKNOWN)
}

/// Whether a column's values are text that people choose, which CSV's formula guard looks at. The texts of intervals and
/// of money begin with a sign too, but hold nothing to run.
pub(super) fn is_free_text(pg_type: &PgType, carrier: &Carrier) -> bool {
    *carrier == Carrier::Text && !matches!(pg_type.base_oid, oid::INTERVAL | oid::MONEY)
}

/// Whether values of this type say nothing of people: numbers, truth values, times and UUIDs. It names what may be
/// shown, so that a type nobody thought of stays hidden: an array of text, hstore, an enum's labels.
pub(crate) fn values_are_safe(pg_type: &PgType) -> bool {
    const SHOWN: [u32; 15] = [
        oid::BOOL,
        oid::INT8,
        oid::INT2,
        oid::INT4,
        oid::OID,
        oid::FLOAT4,
        oid::FLOAT8,
        oid::DATE,
        oid::TIME,
        oid::TIMESTAMP,
        oid::TIMESTAMPTZ,
        oid::INTERVAL,
        oid::TIMETZ,
        oid::NUMERIC,
        oid::UUID,
    ];
    SHOWN.contains(&pg_type.base_oid)
}

/// Whether there are values of its types that a carrier cannot hold.
pub(super) fn can_fail(carrier: &Carrier) -> bool {
    match carrier {
        Carrier::Decimal128 { .. }
        | Carrier::Decimal256 { .. }
        | Carrier::Date32
        | Carrier::Time64
        | Carrier::Timestamp { .. }
        // Dimensions and lower bounds.
        | Carrier::List(_) => true,
        Carrier::Struct(members) => members.iter().any(|member| can_fail(&member.carrier)),
        _ => false,
    }
}

fn lists_within_lists(carrier: &Carrier) -> bool {
    fn has_list(carrier: &Carrier) -> bool {
        match carrier {
            Carrier::List(_) | Carrier::Map => true,
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

pub(super) fn has_timestamp(carrier: &Carrier) -> bool {
    match carrier {
        Carrier::Timestamp { .. } => true,
        Carrier::List(element) => has_timestamp(element),
        Carrier::Struct(members) => members.iter().any(|member| has_timestamp(&member.carrier)),
        _ => false,
    }
}
