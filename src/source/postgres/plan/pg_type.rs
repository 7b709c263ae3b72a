//! Types as the catalog names them.

use serde::{Deserialize, Serialize};

use super::oid;

/// A PostgreSQL type as the catalog names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PgType {
    /// The type's own OID (a domain's or an enum's included).
    pub oid: u32,
    /// The OID after every domain is resolved to its base type.
    pub base_oid: u32,
    /// `atttypmod` of the column, or of the domain that fixes it; `-1` in the catalog is `None` here.
    pub typmod: Option<i32>,
    /// What `format_type` prints, for example `numeric(12,2)`; safe to stand after `::` in SQL.
    pub name: String,
    /// What the base type is made of.
    pub kind: TypeKind,
}

impl PgType {
    /// Whether values of it are made of others among which are dates or times.
    pub(crate) fn holds_times(&self) -> bool {
        let is_time = |inner: &Self| {
            let times = [oid::DATE, oid::TIME, oid::TIMETZ, oid::TIMESTAMP, oid::TIMESTAMPTZ];
            times.contains(&inner.base_oid) || inner.holds_times()
        };
        match &self.kind {
            TypeKind::Array(inner) | TypeKind::Range(inner) | TypeKind::Multirange(inner) => is_time(inner),
            TypeKind::Composite(attributes) => attributes.iter().any(|attribute| is_time(&attribute.pg_type)),
            TypeKind::Base | TypeKind::Enum | TypeKind::Extension(_) => false,
        }
    }
}

/// What a type is made of, as far as its binary form depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TypeKind {
    /// Known by its OID, or not known at all.
    Base,
    /// An enum: its binary form is its label.
    Enum,
    /// An array of the element type; how many dimensions a value has is not part of the type.
    Array(Box<PgType>),
    /// A composite type: its attributes in order, dropped ones left out. The anonymous `record` is none.
    Composite(Vec<Attribute>),
    /// A range over the subtype.
    Range(Box<PgType>),
    /// A multirange over the subtype of its ranges.
    Multirange(Box<PgType>),
    /// A type of an extension whose binary form is known; extensions have no fixed OIDs.
    Extension(ExtensionType),
}

/// One attribute of a composite type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its type.
    pub pg_type: PgType,
}

/// Types of extensions whose binary form is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExtensionType {
    /// `citext`: text.
    Citext,
    /// `hstore`: keys and values of text.
    Hstore,
    /// `PostGIS` `geometry` and `geography`: extended WKB.
    Geometry,
    /// pgvector `vector`: 32-bit floats.
    Vector,
    /// pgvector `halfvec`: 16-bit floats.
    Halfvec,
}
