//! Which decoder a column gets: from its type, how it is sent, its carrier and its policies.

use super::column::ColumnDecoder;
use super::members::{Members, Print};
use super::nested::{ListShape, Lists, StructShape, Structs};
use super::number_texts::NumberTexts;
use super::numeric::Decimals;
use super::text::text_writer;
use super::values::{Bytes, Days, Digits, Double, Float, Long, Truth, ValueBuilder, Wide};
use crate::model::{Carrier, CharPadding, JsonNan, Member, Policies, Precision, TimestampPrecision};
use crate::source::postgres::plan::{ExtensionType, PgType, TypeKind, Wire};
use crate::source::postgres::plan::{oid, srid};

/// The decoder; `None` where there is none.
pub(super) fn values(pg_type: &PgType, wire: Wire, carrier: &Carrier, policies: &Policies) -> Option<ValueBuilder> {
    let padded = pg_type.base_oid == oid::BPCHAR && policies.char_padding == CharPadding::Trim;
    let printed = |print| Members::of(pg_type, print, policies).map(|members| Bytes::Members(Box::new(members)));
    let text = ValueBuilder::variable(match wire {
        _ if padded => Bytes::Trimmed,
        Wire::Binary => Bytes::Plain,
        Wire::OutputText => printed(Print::Output).unwrap_or(Bytes::Plain),
        Wire::JsonText => printed(Print::Json).unwrap_or(Bytes::Plain),
    });
    match (wire, carrier) {
        (Wire::Binary, Carrier::Text | Carrier::Bytes) if is_text(pg_type) => Some(text),
        (Wire::Binary, _) => binary(pg_type, carrier, policies),
        (Wire::OutputText | Wire::JsonText, Carrier::Text | Carrier::Json | Carrier::NumberText) => Some(text),
        (Wire::OutputText | Wire::JsonText, _) => None,
    }
}

/// Whether the binary form is the text itself.
pub(super) fn is_text(pg_type: &PgType) -> bool {
    match pg_type.kind {
        TypeKind::Enum | TypeKind::Extension(ExtensionType::Citext) => true,
        TypeKind::Base => matches!(
            pg_type.base_oid,
            oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::UNKNOWN | oid::JSON | oid::XML
        ),
        _ => false,
    }
}

fn binary(pg_type: &PgType, carrier: &Carrier, policies: &Policies) -> Option<ValueBuilder> {
    Some(match (&pg_type.kind, carrier) {
        (TypeKind::Base, _) => return scalar(pg_type.base_oid, carrier, policies),
        (TypeKind::Array(element), Carrier::List(carrier)) => {
            let shape = ListShape::Array { element: [element.oid, element.base_oid] };
            lists(shape, vec![part(element, carrier, policies)?])
        }
        (TypeKind::Composite(attributes), Carrier::Struct(members)) if attributes.len() == members.len() => {
            let parts = attributes.iter().zip(members.iter());
            let parts: Option<_> =
                parts.map(|(attribute, member)| part(&attribute.pg_type, &member.carrier, policies)).collect();
            let types = attributes.iter().map(|attribute| attribute.pg_type.oid).collect();
            ValueBuilder::Structs(Box::new(Structs::new(StructShape::Composite { types }, parts?)))
        }
        (TypeKind::Range(subtype), Carrier::Struct(members)) => range(subtype, members, policies)?,
        (TypeKind::Multirange(subtype), Carrier::List(element)) => {
            let Carrier::Struct(members) = element.as_ref() else { return None };
            let ranges = ColumnDecoder::part(range(subtype, members, policies)?, element, policies);
            lists(ListShape::Multirange, vec![ranges])
        }
        (TypeKind::Extension(ExtensionType::Hstore), Carrier::Map) => {
            let text = || ColumnDecoder::part(ValueBuilder::variable(Bytes::Plain), &Carrier::Text, policies);
            lists(ListShape::Hstore, vec![text(), text()])
        }
        (TypeKind::Extension(ExtensionType::Geometry), Carrier::Bytes) => {
            ValueBuilder::variable(if srid(pg_type.typmod).is_some() { Bytes::IsoWkb } else { Bytes::Plain })
        }
        (TypeKind::Extension(kind @ (ExtensionType::Vector | ExtensionType::Halfvec)), Carrier::List(element))
            if **element == Carrier::Float32 =>
        {
            let (float, width) = if *kind == ExtensionType::Vector { (Float::Plain, 4) } else { (Float::Half, 2) };
            let floats = ColumnDecoder::part(ValueBuilder::Float32(Vec::new(), float), element, policies);
            lists(ListShape::Vector { width }, vec![floats])
        }
        _ => return None,
    })
}

fn lists(shape: ListShape, items: Vec<ColumnDecoder>) -> ValueBuilder {
    ValueBuilder::Lists(Box::new(Lists::new(shape, items)))
}

/// An element or a member, for which the column's choices hold.
fn part(pg_type: &PgType, carrier: &Carrier, policies: &Policies) -> Option<ColumnDecoder> {
    Some(ColumnDecoder::part(values(pg_type, Wire::Binary, carrier, policies)?, carrier, policies))
}

/// A range: two bounds, then three flags (`RANGE_LB_INC`, `RANGE_UB_INC`, `RANGE_EMPTY` of `rangetypes.h`).
fn range(subtype: &PgType, members: &[Member], policies: &Policies) -> Option<ValueBuilder> {
    let [lower, upper, lower_inc, upper_inc, empty] = members else { return None };
    let flag = |member: &Member, mask| {
        (member.carrier == Carrier::Bool)
            .then(|| ColumnDecoder::part(ValueBuilder::Bool(Vec::new(), Truth::Flag(mask)), &Carrier::Bool, policies))
    };
    let parts = vec![
        part(subtype, &lower.carrier, policies)?,
        part(subtype, &upper.carrier, policies)?,
        flag(lower_inc, 0x02)?,
        flag(upper_inc, 0x04)?,
        flag(empty, 0x01)?,
    ];
    Some(ValueBuilder::Structs(Box::new(Structs::new(StructShape::Range, parts))))
}

fn scalar(base_oid: u32, carrier: &Carrier, policies: &Policies) -> Option<ValueBuilder> {
    let finite = policies.json_nan != JsonNan::String;
    Some(match (base_oid, carrier) {
        (oid::BOOL, Carrier::Bool) => ValueBuilder::Bool(Vec::new(), Truth::Bool),
        (oid::INT2, Carrier::Int16) => ValueBuilder::Int16(Vec::new()),
        (oid::INT4, Carrier::Int32) | (oid::DATE, Carrier::PgDate) => ValueBuilder::Int32(Vec::new(), Days::Plain),
        (oid::INT8, Carrier::Int64)
        | (oid::TIMESTAMP, Carrier::PgTimestamp)
        | (oid::TIMESTAMPTZ, Carrier::PgTimestampTz) => ValueBuilder::Int64(Vec::new(), Long::Plain),
        (oid::OID | oid::XID | oid::CID, Carrier::Int64) => ValueBuilder::Int64(Vec::new(), Long::Oid),
        (oid::FLOAT4, Carrier::Float32) => {
            ValueBuilder::Float32(Vec::new(), if finite { Float::Finite } else { Float::Plain })
        }
        (oid::FLOAT8, Carrier::Float64) => {
            ValueBuilder::Float64(Vec::new(), if finite { Double::Finite } else { Double::Plain })
        }
        (oid::NUMERIC, Carrier::Float64) => ValueBuilder::Float64(Vec::new(), Double::Nearest(Vec::new())),
        (oid::NUMERIC, &Carrier::Decimal128 { precision: precision @ ..=18, scale }) => {
            ValueBuilder::Int64(Vec::new(), Long::Numeric(Box::new(Decimals::new(precision, scale))))
        }
        (oid::NUMERIC, &Carrier::Decimal128 { precision, scale }) => {
            ValueBuilder::Int128(Vec::new(), Wide::Numeric(Box::new(Decimals::new(precision, scale))))
        }
        (oid::NUMERIC, &Carrier::Decimal256 { precision, scale }) => {
            ValueBuilder::Int256(Vec::new(), Digits { precision, scale })
        }
        (oid::NUMERIC, Carrier::NumberText) => {
            ValueBuilder::variable(Bytes::Numeric(Box::new(NumberTexts::new(finite))))
        }
        (oid::MONEY, Carrier::Decimal128 { precision: 19, .. }) => ValueBuilder::Int128(Vec::new(), Wide::Signed),
        (oid::XID8, Carrier::Decimal128 { precision: 20, scale: 0 }) => {
            ValueBuilder::Int128(Vec::new(), Wide::Unsigned)
        }
        (oid::JSON, Carrier::Json) | (oid::BYTEA, Carrier::Bytes) => ValueBuilder::variable(Bytes::Plain),
        (oid::JSONB, Carrier::Json | Carrier::Text) | (oid::JSONPATH, Carrier::Text) => {
            ValueBuilder::variable(Bytes::Versioned)
        }
        (oid::UUID, Carrier::Uuid) => ValueBuilder::Uuid(Vec::new()),
        (oid::TIME, Carrier::PgTime) => ValueBuilder::Int64(Vec::new(), Long::PgTime),
        (oid::DATE, Carrier::Date32) => ValueBuilder::Int32(Vec::new(), Days::Date32),
        (oid::TIME, Carrier::Time64) => ValueBuilder::Int64(Vec::new(), Long::Time64),
        (oid::TIMESTAMP, &Carrier::Timestamp { unit, utc: false })
        | (oid::TIMESTAMPTZ, &Carrier::Timestamp { unit, utc: true }) => {
            let round = policies.timestamp_precision != TimestampPrecision::MillisExact;
            let long = if unit == Precision::Millis { Long::Millis { round } } else { Long::Micros };
            ValueBuilder::Int64(Vec::new(), long)
        }
        (_, Carrier::Text) | (oid::XID8, Carrier::NumberText) => {
            ValueBuilder::variable(Bytes::Written(text_writer(base_oid)?))
        }
        _ => return None,
    })
}
