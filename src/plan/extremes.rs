//! Which columns have a least and a greatest value: those whose values, as they are held, stand in PostgreSQL's order.

use super::column::{Carrier, TypeKind};
use super::policy::{CharPadding, Policies};
use super::travel::is_text;
use super::{ColumnFacts, oid};

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
