//! Which columns have a least and a greatest value: those whose values, as they are held, stand in PostgreSQL's order.

use super::oid;
use super::type_mapping::is_text;
use crate::model::{Carrier, CharPadding, Policies};
use crate::source::postgres::plan::{ColumnFacts, TypeKind};

/// Whether values compared as they are held, texts and bytes byte by byte, stand in the order in which PostgreSQL sorts
/// the column.
///
/// For text and bytes that is said of the types for which it is known, and of them alone: an enum is sorted by the order
/// of its labels, `inet` by network, an interval by its length, and all their texts otherwise. Of a domain the manifest
/// tells a reader only the name, so that nobody could check it.
pub(super) fn ordered(facts: &ColumnFacts, carrier: &Carrier, policies: &Policies) -> bool {
    let pg_type = &facts.pg_type;
    match carrier {
        // These have no order at all.
        Carrier::Int64 => !matches!(pg_type.base_oid, oid::XID | oid::CID),
        Carrier::Json | Carrier::NumberText | Carrier::List(_) | Carrier::Struct(_) | Carrier::Map => false,
        Carrier::Text | Carrier::Bytes if pg_type.kind != TypeKind::Base || pg_type.oid != pg_type.base_oid => false,
        Carrier::Bytes if !is_text(pg_type) => pg_type.base_oid == oid::BYTEA,
        Carrier::Text | Carrier::Bytes => match pg_type.base_oid {
            oid::TEXT | oid::VARCHAR | oid::NAME => facts.byte_ordered,
            // With its blanks it stands behind what has a control character in their place.
            oid::BPCHAR => facts.byte_ordered && policies.char_padding == CharPadding::Trim,
            // Of one width, or a string of bits that is less than any longer one that it begins.
            oid::UUID | oid::TIME | oid::MACADDR | oid::MACADDR8 | oid::BIT | oid::VARBIT => true,
            _ => false,
        },
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::postgres::plan::testing::column;
    use crate::source::postgres::plan::{ExtensionType, PgType};

    fn is_ordered(oid: u32, carrier: &Carrier, policies: &Policies) -> [bool; 2] {
        [false, true].map(|byte_ordered| {
            let facts = ColumnFacts { byte_ordered, ..column("c", oid, false) };
            ordered(&facts, carrier, policies)
        })
    }

    #[test]
    fn texts_and_bytes_are_in_order_where_their_types_say_so() {
        let kept = Policies::default();
        let trimmed = Policies { char_padding: CharPadding::Trim, ..kept };
        for (oid, carrier, policies, expected) in [
            (oid::TEXT, Carrier::Text, kept, [false, true]),
            (oid::VARCHAR, Carrier::Bytes, kept, [false, true]),
            (oid::NAME, Carrier::Text, kept, [false, true]),
            (oid::BPCHAR, Carrier::Text, kept, [false; 2]),
            (oid::BPCHAR, Carrier::Text, trimmed, [false, true]),
            (oid::UUID, Carrier::Text, kept, [true; 2]),
            (oid::TIME, Carrier::Text, kept, [true; 2]),
            (oid::VARBIT, Carrier::Text, kept, [true; 2]),
            (oid::BYTEA, Carrier::Bytes, kept, [true; 2]),
            (oid::CHAR, Carrier::Text, kept, [false; 2]),
            (oid::TIMETZ, Carrier::Text, kept, [false; 2]),
            (oid::DATE, Carrier::Text, kept, [false; 2]),
            (oid::INET, Carrier::Text, kept, [false; 2]),
            (oid::MONEY, Carrier::Text, kept, [false; 2]),
            (oid::INTERVAL, Carrier::Text, kept, [false; 2]),
            (oid::PG_LSN, Carrier::Text, kept, [false; 2]),
            (oid::OID, Carrier::Text, kept, [false; 2]),
            (oid::JSONB, Carrier::Json, kept, [false; 2]),
            (oid::XID, Carrier::Int64, kept, [false; 2]),
            (oid::OID, Carrier::Int64, kept, [true; 2]),
            (oid::MONEY, Carrier::Decimal128 { precision: 19, scale: 2 }, kept, [true; 2]),
            (oid::TIMESTAMPTZ, Carrier::PgTimestampTz, kept, [true; 2]),
        ] {
            assert_eq!(is_ordered(oid, &carrier, &policies), expected, "{oid} {carrier:?}");
        }
    }

    #[test]
    fn what_is_text_by_another_type_is_not_in_its_order() {
        let text = column("c", oid::TEXT, false).pg_type;
        for pg_type in [
            PgType { kind: TypeKind::Enum, oid: 70_000, base_oid: 70_000, ..text.clone() },
            PgType { kind: TypeKind::Extension(ExtensionType::Citext), oid: 70_000, base_oid: 70_000, ..text.clone() },
            PgType {
                kind: TypeKind::Extension(ExtensionType::Geometry),
                oid: 70_000,
                base_oid: 70_000,
                ..text.clone()
            },
            // A domain.
            PgType { oid: 70_000, ..text },
        ] {
            let facts = ColumnFacts { pg_type, byte_ordered: true, ..column("c", oid::TEXT, false) };
            for carrier in [Carrier::Text, Carrier::Bytes] {
                assert!(!ordered(&facts, &carrier, &Policies::default()), "{facts:?}");
            }
        }
    }
}
