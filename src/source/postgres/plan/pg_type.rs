//! Types as the catalog names them.

use serde::{Deserialize, Serialize};

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
