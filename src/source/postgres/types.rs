//! What types are made of: domains down to their base, arrays to their elements, composites to their attributes.

use std::collections::HashMap;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::catalog::{query, value};
use super::closed::closed;
use super::connect::Session;
use super::order;
use crate::source::SourceError;
use crate::source::postgres::plan::oid;
use crate::source::postgres::plan::{Attribute, ExtensionType, PgType, TypeKind};

/// All types that the given ones are made of, themselves included. An array is one whose element names it as its own
/// (`int2vector` is none), and the type of an extension is known by the extension that owns it, so that nobody's type of
/// the same name is taken for it. `to_json` asks a cast to json that is a function (`json_categorize_type`, `json.c`).
const CLOSURE: &str = "WITH RECURSIVE needed(oid) AS ( \
        SELECT u.oid FROM pg_catalog.unnest($1::oid[]) AS u(oid) \
        UNION SELECT r.oid FROM needed n JOIN pg_catalog.pg_type t ON t.oid = n.oid CROSS JOIN LATERAL ( \
            SELECT t.typbasetype WHERE t.typtype = 'd' \
            UNION ALL SELECT e.oid FROM pg_catalog.pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid \
            UNION ALL SELECT g.rngsubtype FROM pg_catalog.pg_range g WHERE t.oid = g.rngtypid OR t.oid = g.rngmultitypid \
            UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a \
                WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) AS r(oid)) \
    SELECT t.oid, t.typtype::text, t.typbasetype, t.typtypmod, \
        (SELECT e.oid FROM pg_catalog.pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid), \
        (SELECT g.rngsubtype FROM pg_catalog.pg_range g WHERE t.oid = g.rngtypid OR t.oid = g.rngmultitypid), \
        ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid \
            AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum), \
        ARRAY(SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid \
            AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum), \
        ARRAY(SELECT a.atttypmod FROM pg_catalog.pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid \
            AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum), \
        (SELECT x.extname::text || '.' || t.typname::text FROM pg_catalog.pg_depend d \
            JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid \
            WHERE d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e' \
                AND d.refclassid = 'pg_catalog.pg_extension'::regclass), \
        pg_catalog.format_type(t.oid, NULL), \
        EXISTS (SELECT FROM pg_catalog.pg_cast c WHERE c.castsource = t.oid \
            AND c.casttarget = 'pg_catalog.json'::regtype AND c.castmethod = 'f'), \
        k.opcintype \
    FROM needed n JOIN pg_catalog.pg_type t ON t.oid = n.oid JOIN pg_catalog.pg_type b ON b.oid = t.oid ORDERED";

/// No type is made of others this deep: PostgreSQL refuses one that would be made of itself.
const DEPTH_MAX: usize = 64;

/// The types behind some columns.
#[derive(Debug)]
pub(crate) struct TypeCatalog(HashMap<u32, TypeEntry>);

#[derive(Debug)]
struct TypeEntry {
    kind: String,
    base: u32,
    base_typmod: i32,
    element: Option<u32>,
    subtype: Option<u32>,
    attributes: Vec<(String, u32, i32)>,
    extension: Option<ExtensionType>,
    name: String,
    /// Whether the type says itself what it is in JSON.
    own_json: bool,
    /// The type whose operators sort its values.
    sorted_as: Option<u32>,
}

/// `anyarray`: all arrays are sorted by their elements.
const ANYARRAY: u32 = 2277;

impl TypeCatalog {
    /// Reads what the types `oids` are made of.
    pub(crate) async fn load(session: &Session, oids: &[u32]) -> Result<Self, SourceError> {
        let sql = closed(&CLOSURE.replace("ORDERED", order::ORDER));
        let rows = query(session, "looking up types", &sql, &[(&oids, Type::OID_ARRAY)]).await?;
        let entries = rows.iter().map(|row| Ok((value(row, 0)?, entry(row)?)));
        Ok(Self(entries.collect::<Result<_, SourceError>>()?))
    }

    /// What the type `oid` is made of; `typmod` is the column's, and is its elements' where it is an array.
    pub(crate) fn kind(&self, oid: u32, typmod: Option<i32>) -> TypeKind {
        self.resolve(oid, typmod, 0).kind
    }

    /// Whether values of the type `oid` can be sorted. The server takes any array and any composite for sortable, and ends
    /// a statement that compares two of them where a part of them is not (`array_cmp`, `record_cmp`).
    pub(crate) fn is_ordered(&self, oid: u32) -> bool {
        self.has_order(oid, 0)
    }

    fn has_order(&self, oid: u32, depth: usize) -> bool {
        let Some(entry) = self.0.get(&oid).filter(|_| depth < DEPTH_MAX) else { return true };
        let part = |oid| self.has_order(oid, depth + 1);
        match (entry.kind.as_str(), entry.sorted_as) {
            ("d", _) => part(entry.base),
            (_, None) => false,
            (_, Some(ANYARRAY)) => entry.element.is_none_or(part),
            (_, Some(oid::RECORD)) => entry.attributes.iter().all(|(_, oid, _)| part(*oid)),
            // Its own, those of ranges and enums, or those of a type whose bytes mean the same.
            (_, Some(_)) => true,
        }
    }

    fn resolve(&self, oid: u32, typmod: Option<i32>, depth: usize) -> PgType {
        let base = PgType { oid, base_oid: oid, typmod, name: String::new(), kind: TypeKind::Base };
        let Some(entry) = self.0.get(&oid).filter(|_| depth < DEPTH_MAX) else { return base };
        let inner = |oid, typmod| self.resolve(oid, typmod, depth + 1);
        let base = PgType { name: entry.name.clone(), ..base };
        let kind = match (entry.kind.as_str(), entry.element, entry.subtype) {
            ("d", ..) => {
                let below = inner(entry.base, typmod.or((entry.base_typmod >= 0).then_some(entry.base_typmod)));
                return PgType { base_oid: below.base_oid, typmod: below.typmod, kind: below.kind, ..base };
            }
            // One that is something else in JSON than its label is left to the server.
            ("e", ..) if !entry.own_json => TypeKind::Enum,
            ("c", ..) => {
                let attribute = |(name, oid, typmod): &(String, u32, i32)| Attribute {
                    name: name.clone(),
                    pg_type: inner(*oid, (*typmod >= 0).then_some(*typmod)),
                };
                TypeKind::Composite(entry.attributes.iter().map(attribute).collect())
            }
            ("r", _, Some(subtype)) => TypeKind::Range(Box::new(inner(subtype, None))),
            ("m", _, Some(subtype)) => TypeKind::Multirange(Box::new(inner(subtype, None))),
            ("b", Some(element), _) => TypeKind::Array(Box::new(inner(element, typmod))),
            _ => match entry.extension {
                Some(ExtensionType::Citext) if entry.own_json => TypeKind::Base,
                known => known.map_or(TypeKind::Base, TypeKind::Extension),
            },
        };
        PgType { kind, ..base }
    }
}

fn entry(row: &Row) -> Result<TypeEntry, SourceError> {
    let (names, oids, typmods): (Vec<String>, Vec<u32>, Vec<i32>) = (value(row, 6)?, value(row, 7)?, value(row, 8)?);
    Ok(TypeEntry {
        kind: value(row, 1)?,
        base: value(row, 2)?,
        base_typmod: value(row, 3)?,
        element: value(row, 4)?,
        subtype: value(row, 5)?,
        attributes: names.into_iter().zip(oids).zip(typmods).map(|((name, oid), typmod)| (name, oid, typmod)).collect(),
        extension: value::<Option<&str>>(row, 9)?.and_then(extension),
        name: shown(value(row, 10)?),
        own_json: value(row, 11)?,
        sorted_as: value(row, 12)?,
    })
}

/// The name of a type for people. `format_type` gives a built-in type its schema where another schema of the search path
/// has a type of that name.
pub(super) fn shown(name: &str) -> String {
    name.strip_prefix("pg_catalog.").unwrap_or(name).to_owned()
}

/// A type by the extension that owns it.
fn extension(name: &str) -> Option<ExtensionType> {
    Some(match name {
        "citext.citext" => ExtensionType::Citext,
        "hstore.hstore" => ExtensionType::Hstore,
        "postgis.geometry" | "postgis.geography" => ExtensionType::Geometry,
        "vector.vector" => ExtensionType::Vector,
        "vector.halfvec" => ExtensionType::Halfvec,
        _ => return None,
    })
}
