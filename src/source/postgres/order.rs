//! By which operators the values of a type are sorted.

use tokio_postgres::Row;

use super::catalog::value;
use super::session::identifier;
use crate::source::SourceError;
use crate::source::postgres::plan::{Comparison, Operators};

/// The schema of what is built in.
pub(super) const PG_CATALOG: &str = "pg_catalog";

/// The type whose operators sort `regproc`, `regclass` and their kin, all of which are OIDs that print as names.
pub(super) const OID: &str = "pg_catalog.\"oid\"";

/// How values of the type `b` (a row of `pg_type`, no domain) are sorted: by the operator class that the server itself
/// takes for it (`GetDefaultOpClass`), which may be that of another type whose bytes mean the same, or of all enums,
/// arrays, ranges or composite types.
pub(super) const ORDER: &str = "LEFT JOIN LATERAL (SELECT k.opcfamily, k.opcintype, i.typname, i.typnamespace \
        FROM pg_catalog.pg_opclass k JOIN pg_catalog.pg_am m ON m.oid = k.opcmethod AND m.amname = 'btree' \
        JOIN pg_catalog.pg_type i ON i.oid = k.opcintype \
        WHERE k.opcdefault AND k.opcintype = ANY (ARRAY(SELECT b.oid UNION ALL SELECT CASE \
                WHEN b.typtype = 'e' THEN 'pg_catalog.anyenum'::regtype \
                WHEN b.typtype = 'c' THEN 'pg_catalog.record'::regtype \
                WHEN b.typtype = 'r' THEN 'pg_catalog.anyrange'::regtype \
                WHEN b.typtype = 'm' THEN 'pg_catalog.anymultirange'::regtype \
                WHEN b.typelem <> 0 AND b.typsubscript = 'pg_catalog.array_subscript_handler'::regproc \
                    THEN 'pg_catalog.anyarray'::regtype END \
            UNION ALL SELECT x.casttarget FROM pg_catalog.pg_cast x \
                WHERE x.castsource = b.oid AND x.castmethod = 'b' AND x.castcontext = 'i')) \
        ORDER BY k.opcintype = b.oid DESC, i.typispreferred DESC, k.oid LIMIT 1) AS k ON true";

/// What is to be asked of [`ORDER`] for [`comparison`]: schema and name of the type itself and of the one that the
/// operators are declared for, whether the latter is the type that a column is `declared` of, and schemas and names of
/// the operators, one for each strategy of a B-tree.
pub(super) fn comparison_of(declared: &str) -> String {
    let schema = |oid: &str| format!("(SELECT n.nspname::text FROM pg_catalog.pg_namespace n WHERE n.oid = {oid})");
    let each = |what: &str| {
        format!(
            "ARRAY(SELECT {what} FROM pg_catalog.pg_amop p JOIN pg_catalog.pg_operator o ON o.oid = p.amopopr \
            WHERE p.amopfamily = k.opcfamily AND p.amoplefttype = k.opcintype AND p.amoprighttype = k.opcintype \
            ORDER BY p.amopstrategy)"
        )
    };
    [
        schema("b.typnamespace"),
        "b.typname::text".to_owned(),
        schema("k.typnamespace"),
        "k.typname::text".to_owned(),
        format!("COALESCE(k.opcintype = {declared}, false)"),
        each(&schema("o.oprnamespace")),
        each("o.oprname::text"),
    ]
    .join(", ")
}

/// Reads what [`comparison_of`] asks for, from column number `first` on; none where the type has no order.
pub(super) fn comparison(row: &Row, first: usize) -> Result<Option<Comparison>, SourceError> {
    let (schemas, names): (Vec<String>, Vec<String>) = (value(row, first + 5)?, value(row, first + 6)?);
    let schema = |schema: &str| if schema == PG_CATALOG { schema.to_owned() } else { identifier(schema) };
    let type_name = |of: &str, name: &str| format!("{}.{}", schema(of), identifier(name));
    let operators: Vec<String> =
        schemas.iter().zip(&names).map(|(of, name)| format!("{}.{name}", schema(of))).collect();
    let Ok([less, less_or_equal, equal, greater_or_equal, greater]) = <[String; 5]>::try_from(operators) else {
        return Ok(None);
    };
    // Nobody can add an operator that fits better to those that are built in.
    let certain = schemas.iter().all(|schema| schema == PG_CATALOG) || value::<bool>(row, first + 4)?;
    let read_as = type_name(value(row, first + 2)?, value(row, first + 3)?);
    let operators = Operators { less, less_or_equal, equal, greater_or_equal, greater };
    let value_type = type_name(value(row, first)?, value(row, first + 1)?);
    // Functions share their names, and what a name means may change: the number is the value.
    if read_as == OID && value_type != OID {
        return Ok(Some(Comparison { value_type: OID.to_owned(), read_as: Some(read_as), operators }));
    }
    Ok(Some(Comparison { value_type, read_as: (!certain).then_some(read_as), operators }))
}
