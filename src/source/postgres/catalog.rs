//! What the catalog knows of a relation: kind, columns, leaves, keys, statistics.

use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql, Type};

use super::closed::closed;
use super::connect::Session;
use super::near_table;
use super::order;
use super::session::identifier;
use super::statement;
use super::types::{TypeCatalog, shown};
use crate::model::{ColumnStatistics, ErrorCode, RelationKind};
use crate::source::postgres::plan::{ColumnFacts, LeafFacts, PgType};
use crate::source::{SourceError, SourceFault};

/// A relation found by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CatalogRelation {
    pub(crate) oid: u32,
    pub(crate) kind: RelationKind,
    pub(crate) schema: String,
    pub(crate) name: String,
    /// Whether the role may `SELECT` the whole table, and so may `LOCK TABLE` it.
    pub(crate) may_select: bool,
    /// It and all that inherits from it under the run's snapshot, as far as that is known.
    pub(crate) tables: usize,
    /// Whether anything inherited from it when it was looked up.
    #[serde(default)]
    pub(crate) branches: bool,
}

impl CatalogRelation {
    /// `schema.name`, quoted.
    pub(crate) fn sql_name(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.name))
    }

    /// Whether anything inherits from it.
    pub(crate) fn has_children(&self) -> bool {
        self.tables > 1
    }
}

pub(super) type TypedParameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// Runs a query through the unnamed statement, so that a transaction pooler in between does not mind; it may take as long
/// as the server works on it.
pub(crate) async fn query(
    session: &Session,
    action: &str,
    sql: &str,
    parameters: &[TypedParameter<'_>],
) -> Result<Vec<Row>, SourceError> {
    session.patiently(action, session.client().query_typed(sql, parameters)).await
}

/// A value of a row. What the type cannot hold, a NULL among it, is an error and never a panic: catalog views have NULLs
/// in more columns than their manuals say.
///
/// # Errors
/// [`SourceFault::Protocol`].
pub(crate) fn value<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, SourceError> {
    row.try_get(index).map_err(|error| {
        let what = row.columns().get(index).map_or("a column", tokio_postgres::Column::name);
        SourceError::new(SourceFault::Protocol, format!("the server's answer: {what} is not what was asked for"))
            .with_source(error)
    })
}

/// Finds a relation by the name a person wrote, under the session's search path.
///
/// # Errors
/// [`SourceFault::Missing`] where there is none, [`SourceFault::Usage`] where it is not a relation with rows, or
/// a temporary table of another session.
pub(crate) async fn find(session: &Session, name: &str) -> Result<CatalogRelation, SourceError> {
    let sql = closed(
        "SELECT c.oid, c.relkind::text, n.nspname::text, c.relname::text, c.relpersistence::text, \
            COALESCE(pg_catalog.has_table_privilege(c.oid, 'SELECT'), false), \
            EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid) \
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.oid = pg_catalog.to_regclass($1)",
    );
    let rows = query(session, &format!("looking up table {name}"), &sql, &[(&name, Type::TEXT)]).await?;
    let Some(row) = rows.first() else { return Err(not_there(session, name).await?) };
    let relkind: &str = value(row, 1)?;
    let usage = |what: &str| Err(SourceError::new(SourceFault::Usage, format!("{name} is {what}")));
    let kind = match relkind {
        "r" => RelationKind::Table,
        "p" => RelationKind::PartitionedTable,
        "v" => RelationKind::View,
        "m" => RelationKind::MaterializedView,
        "f" => RelationKind::ForeignTable,
        "S" => return usage("a sequence, which has no rows to export"),
        "i" | "I" => return usage("an index, which has no rows to export"),
        "c" => return usage("a composite type, which has no rows to export"),
        _ => return usage("not a relation with rows to export"),
    };
    if value::<&str>(row, 4)? == "t" {
        return usage("a temporary table, which only its own session can read");
    }
    Ok(CatalogRelation {
        oid: value(row, 0)?,
        kind,
        schema: value(row, 2)?,
        name: value(row, 3)?,
        may_select: value(row, 5)?,
        tables: 1,
        branches: value(row, 6)?,
    })
}

/// Why there is no table of this name: it may be a temporary one of another session.
async fn not_there(session: &Session, name: &str) -> Result<SourceError, SourceError> {
    let sql = closed(
        "SELECT FROM pg_catalog.pg_class c, pg_catalog.parse_ident($1) AS p(parts) \
        WHERE c.relpersistence = 't' AND c.relkind = ANY ('{r,p,v}') \
            AND c.relname::text = p.parts[pg_catalog.cardinality(p.parts)] \
            AND (pg_catalog.cardinality(p.parts) = 1 OR p.parts[1] = 'pg_temp')",
    );
    let temporary = match query(session, &format!("looking up table {name}"), &sql, &[(&name, Type::TEXT)]).await {
        // `to_regclass` is more lenient than this.
        Err(error) if error.code.as_deref() == Some("22023") => {
            let message = format!("--table: {name} is no name as SQL has it, and there is no such table");
            return Ok(SourceError::new(SourceFault::Usage, message).with_hint(
                "one table is named; what is neither a letter nor a digit nor _ needs double quotes around its part of the \
                 name: --table 'public.\"Order Items\"'",
            ));
        }
        temporary => temporary?,
    };
    Ok(if temporary.is_empty() {
        let near = near_table::of_flag(session, name).await?;
        SourceError::new(SourceFault::Missing, format!("table {name} does not exist"))
            .with_reason(ErrorCode::RelationMissing)
            .with_hint(near.as_deref().unwrap_or(
                "check the name; names with capitals or dots need double quotes inside: --table 'public.\"Orders\"'",
            ))
    } else {
        let message = format!("{name} is a temporary table, which only its own session can read");
        SourceError::new(SourceFault::Usage, message).with_hint("copy it into a table that stays, and export that")
    })
}

/// Whether text under the collation `COLLATION` is sorted byte by byte in the UTF-8 in which it comes: by the collations
/// that compare bytes or, which is the same in UTF-8, code points. `to_jsonb` bears that a column of the catalog came with a
/// later version.
const BYTE_ORDERED: &str = "EXISTS (SELECT FROM pg_catalog.pg_collation l CROSS JOIN pg_catalog.pg_database d \
    CROSS JOIN LATERAL (SELECT \
        CASE WHEN l.collprovider <> 'd' THEN l.collprovider::text \
            ELSE COALESCE(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c') END, \
        CASE WHEN l.collprovider <> 'd' THEN l.collcollate::text \
            ELSE d.datcollate::text END) AS v(provider, locale) \
    WHERE l.oid = COLLATION \
        AND d.datname = pg_catalog.current_database() \
        AND pg_catalog.current_setting('server_encoding') = ANY (ARRAY['UTF8', 'SQL_ASCII']) \
        AND (v.provider = 'b' OR v.provider = 'c' \
            AND v.locale = ANY (ARRAY['C', 'POSIX', 'C.UTF-8', 'C.UTF8', 'C.utf8'])))";

/// The columns of a relation, dropped ones left out, with statistics where the role may read them.
pub(crate) async fn columns(
    session: &Session,
    found: &CatalogRelation,
    tree: &[TreeNode],
) -> Result<Vec<ColumnFacts>, SourceError> {
    let sql = "WITH RECURSIVE chain AS ( \
            SELECT a.attnum, a.attname::text AS name, a.atttypid AS declared, a.atttypid AS oid, a.atttypmod AS typmod, \
                a.attcollation AS sorted_by, \
                a.attnotnull AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conrelid = a.attrelid \
                    AND k.contype::text = 'n' AND NOT k.convalidated AND k.conkey[1] = a.attnum) AS not_null \
            FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped \
            UNION ALL \
            SELECT c.attnum, c.name, c.declared, t.typbasetype, \
                CASE WHEN c.typmod >= 0 THEN c.typmod ELSE t.typtypmod END, c.sorted_by, c.not_null \
            FROM chain c JOIN pg_catalog.pg_type t ON t.oid = c.oid WHERE t.typtype = 'd') \
        SELECT c.name, c.declared, c.oid, c.typmod, c.not_null, \
            pg_catalog.format_type(c.declared, CASE WHEN c.declared = c.oid THEN c.typmod ELSE -1 END), \
            s.n_distinct, s.correlation, s.avg_width, COMPARISON, BYTES, \
            COALESCE((SELECT l.collisdeterministic FROM pg_catalog.pg_collation l WHERE l.oid = c.sorted_by), true) \
        FROM chain c JOIN pg_catalog.pg_type b ON b.oid = c.oid AND b.typtype <> 'd' ORDERED \
        LEFT JOIN pg_catalog.pg_stats s ON s.schemaname = $2::text::name AND s.tablename = $3::text::name \
            AND s.attname = c.name::name AND s.inherited = $4 \
        ORDER BY c.attnum"
        .replace("ORDERED", order::ORDER)
        .replace("COMPARISON", &order::comparison_of("c.declared"))
        .replace("BYTES", &BYTE_ORDERED.replace("COLLATION", "c.sorted_by"));
    let inherited = found.has_children();
    let parameters: [TypedParameter<'_>; 4] =
        [(&found.oid, Type::OID), (&found.schema, Type::TEXT), (&found.name, Type::TEXT), (&inherited, Type::BOOL)];
    let rows = query(session, &format!("describing {}", found.sql_name()), &closed(&sql), &parameters).await?;
    let promises = keeps_not_null(found, tree);
    let oids: Vec<u32> = rows.iter().map(|row| value(row, 2)).collect::<Result<_, _>>()?;
    let types = TypeCatalog::load(session, &oids).await?;
    rows.iter().map(|row| column(row, promises, &types)).collect()
}

/// Whether a NOT NULL of the relation holds for all that is read through it: PostgreSQL does not check a foreign table's,
/// and a child table need not have its parent's.
fn keeps_not_null(found: &CatalogRelation, tree: &[TreeNode]) -> bool {
    let inherited = found.kind == RelationKind::Table && found.has_children();
    !inherited && !tree.iter().any(|node| node.relkind == "f")
}

fn column(row: &Row, promises: bool, types: &TypeCatalog) -> Result<ColumnFacts, SourceError> {
    let (base_oid, typmod) = (value(row, 2)?, typmod(value(row, 3)?));
    Ok(ColumnFacts {
        name: value(row, 0)?,
        pg_type: PgType {
            oid: value(row, 1)?,
            base_oid,
            typmod,
            name: shown(value(row, 5)?),
            kind: types.kind(base_oid, typmod),
        },
        not_null: promises && value::<bool>(row, 4)?,
        comparison: order::comparison(row, 9)?.filter(|_| types.is_ordered(base_oid)),
        byte_ordered: value(row, 16)?,
        bytes_equal: value(row, 17)?,
        statistics: ColumnStatistics {
            n_distinct: value(row, 6)?,
            correlation: value(row, 7)?,
            avg_width: value(row, 8)?,
        },
    })
}

fn typmod(raw: i32) -> Option<i32> {
    (raw >= 0).then_some(raw)
}

/// The columns that a statement returns, as the server describes them without running it.
pub(crate) async fn describe_statement(
    session: &Session,
    action: &str,
    statement: &str,
) -> Result<Vec<ColumnFacts>, SourceError> {
    let columns = statement::describe(session, action, statement).await?;
    let oids: Vec<u32> = columns.iter().map(|column| column.type_oid).collect();
    let typmods: Vec<i32> = columns.iter().map(|column| column.typmod).collect();
    // A row description names base types already, except inside containers, which are sent as text.
    let types = TypeCatalog::load(session, &oids).await?;
    let sql = "SELECT pg_catalog.format_type(b.oid, u.typmod), COMPARISON \
        FROM ROWS FROM (pg_catalog.unnest($1::oid[]), pg_catalog.unnest($2::int4[])) \
            WITH ORDINALITY AS u(oid, typmod, place) \
        JOIN pg_catalog.pg_type b ON b.oid = u.oid ORDERED ORDER BY u.place"
        .replace("ORDERED", order::ORDER)
        .replace("COMPARISON", &order::comparison_of("b.oid"));
    let rows = query(session, action, &closed(&sql), &[(&oids, Type::OID_ARRAY), (&typmods, Type::INT4_ARRAY)]).await?;
    if rows.len() != oids.len() {
        return Err(SourceError::new(SourceFault::SchemaChanged, format!("{action}: a type is gone from the catalog")));
    }
    columns
        .into_iter()
        .zip(&rows)
        .map(|(column, row)| {
            Ok(ColumnFacts {
                name: column.name,
                pg_type: PgType {
                    oid: column.type_oid,
                    base_oid: column.type_oid,
                    typmod: typmod(column.typmod),
                    name: shown(value(row, 0)?),
                    kind: types.kind(column.type_oid, typmod(column.typmod)),
                },
                not_null: false,
                comparison: order::comparison(row, 1)?.filter(|_| types.is_ordered(column.type_oid)),
                // A row description does not tell the collation.
                byte_ordered: false,
                bytes_equal: false,
                statistics: ColumnStatistics::default(),
            })
        })
        .collect()
}

/// Where a table stands in the inheritance tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TreePlace {
    /// Nothing inherits from it.
    Leaf,
    /// Others inherit from it, or can.
    Branch,
}

/// A table of the inheritance tree, as seen under the session's snapshot.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct TreeNode {
    pub(crate) oid: u32,
    pub(crate) relkind: String,
    /// Whether the role may `SELECT` all of it by its own name, which takes the use of its schema.
    pub(crate) may_select: bool,
    /// Whether row security would apply to the role.
    pub(crate) row_security: bool,
    /// Whether it has columns whose values are computed when read, each table in its own way.
    pub(crate) virtual_columns: bool,
    /// Whether `ONLY` may hide rows of it: `TimescaleDB` moves those of a chunk elsewhere when it compresses them, and gives
    /// them to who reads the chunk or its hypertable by its name alone.
    pub(crate) only_hides: bool,
    pub(crate) place: TreePlace,
    pub(crate) facts: LeafFacts,
    pub(crate) reltuples: f32,
}

/// Relations that are locked to read table `c`: itself, its indexes, its TOAST table and that one's index. It goes into a
/// statement before that is [`closed`].
pub(super) const RELATIONS: &str = "((SELECT pg_catalog.count(*) FROM pg_catalog.pg_index x WHERE x.indrelid = c.oid) \
    + CASE WHEN c.reltoastrelid = 0::oid THEN 1 ELSE 3 END)";

/// The oids, in SQL, of a relation and of all that inherits from it, as `tree`. What is being detached is left out, and so is
/// a temporary child.
pub(super) const TREE: &str = "tree AS ( \
    SELECT $1::oid AS oid UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree t ON i.inhparent = t.oid \
        JOIN pg_catalog.pg_class k ON k.oid = i.inhrelid WHERE NOT i.inhdetachpending AND k.relpersistence <> 't')";

/// What is asked of a table `c`, joined by [`NODE_JOINS`], for [`node`]; `RELATIONS` and `BYTES` are to be replaced.
pub(super) const NODE: &str = "c.oid, c.relkind::text, \
    COALESCE(pg_catalog.has_table_privilege(c.oid, 'SELECT') \
        AND pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE'), false), pg_catalog.row_security_active(c.oid), \
    n.nspname::text, c.relname::text, c.reltuples, CASE WHEN c.relkind = ANY ('{r,m,t}') THEN BYTES ELSE 0 END, \
    pg_catalog.current_setting('block_size')::int4, COALESCE(am.amname = 'heap', false), \
    EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = 'v'), \
    RELATIONS, c.relkind = 'p' OR b.oid IS NOT NULL, \
    c.relkind = 'r' AND NOT c.relispartition \
        AND (b.oid IS NOT NULL OR EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid)) \
        AND EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE e.extname = 'timescaledb')";

/// See [`NODE`].
pub(super) const NODE_JOINS: &str = "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam \
    LEFT JOIN (SELECT DISTINCT inhparent AS oid FROM pg_catalog.pg_inherits) AS b ON b.oid = c.oid";

/// The size of `TABLE`, which is to be replaced. It waits for whoever has locked the table against everybody.
pub(super) const EXACT_BYTES: &str = "pg_catalog.pg_relation_size(TABLE.oid, 'main')";

/// The relation and all that inherits from it, leaves in the order of their bounds' creation. A partition that is being
/// detached (`DETACH … CONCURRENTLY`) is left out, as a query of the parent leaves it out, and so is a temporary child,
/// which is another session's.
///
/// It reads `pg_inherits` by SQL, which obeys the transaction's snapshot; `pg_partition_tree` would show the newest
/// catalog.
pub(crate) async fn tree(session: &Session, root: u32) -> Result<Vec<TreeNode>, SourceError> {
    let sql = format!(
        "WITH RECURSIVE TREE SELECT {NODE} FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid {NODE_JOINS} ORDER BY c.oid"
    );
    let sql = closed(
        &sql.replace("RELATIONS", RELATIONS).replace("TREE", TREE).replace("BYTES", &EXACT_BYTES.replace("TABLE", "c")),
    );
    let rows = query(session, "listing the tables behind the relation", &sql, &[(&root, Type::OID)]).await?;
    rows.iter().map(node).collect()
}

/// A row of [`NODE`].
pub(super) fn node(row: &Row) -> Result<TreeNode, SourceError> {
    let sql_name = format!("{}.{}", identifier(value(row, 4)?), identifier(value(row, 5)?));
    let odd = || SourceError::new(SourceFault::Protocol, format!("{sql_name} has an impossible size"));
    let bytes = u64::try_from(value::<Option<i64>>(row, 7)?.unwrap_or(0)).map_err(|_| odd())?;
    let block_size = u32::try_from(value::<i32>(row, 8)?).map_err(|_| odd())?;
    let blocks = bytes.checked_div(u64::from(block_size)).ok_or_else(odd)?;
    let facts = LeafFacts {
        oid: value(row, 0)?,
        blocks: u32::try_from(blocks).map_err(|_| odd())?,
        block_size,
        ctid_ranges: value(row, 9)?,
        relations: u32::try_from(value::<i64>(row, 11)?).map_err(|_| odd())?,
        sql_name: sql_name.clone(),
    };
    Ok(TreeNode {
        oid: value(row, 0)?,
        relkind: value(row, 1)?,
        may_select: value(row, 2)?,
        row_security: value(row, 3)?,
        virtual_columns: value(row, 10)?,
        only_hides: value(row, 13)?,
        place: if value(row, 12)? { TreePlace::Branch } else { TreePlace::Leaf },
        facts,
        reltuples: value(row, 6)?,
    })
}

/// Checks that `name` still means the relation that was planned, with as many tables behind it where they are counted:
/// a schema can be renamed, and a partition attached, in spite of our locks.
///
/// # Errors
/// [`SourceFault::SchemaChanged`] where it does not.
pub(crate) async fn same_relation(
    session: &Session,
    name: &str,
    oid: u32,
    tables: Option<usize>,
) -> Result<(), SourceError> {
    let sql = closed(
        "SELECT COALESCE(pg_catalog.to_regclass($1) = $2::oid, false), \
        (SELECT pg_catalog.count(*) FROM pg_catalog.pg_partition_tree($2::oid))",
    );
    let rows = query(session, &format!("checking {name}"), &sql, &[(&name, Type::TEXT), (&oid, Type::OID)]).await?;
    let same = match rows.first() {
        Some(row) => {
            let count = usize::try_from(value::<i64>(row, 1)?).ok();
            value(row, 0)? && (tables.is_none() || tables == count)
        }
        None => false,
    };
    if same {
        return Ok(());
    }
    Err(SourceError::new(
        SourceFault::SchemaChanged,
        format!("{name} was replaced, or got a partition, while it was read"),
    )
    .with_hint("another session changed the tables; run the export again when it is done"))
}

/// See [`unique_key`]; `RELATION` is to be replaced.
pub(super) const UNIQUE_KEY: &str = "SELECT ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place) \
            JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
            WHERE k.place <= i.indnkeyatts ORDER BY k.place) \
    FROM pg_catalog.pg_index i \
    WHERE i.indrelid = RELATION AND i.indisunique AND i.indisvalid AND i.indisready AND i.indimmediate \
        AND i.indpred IS NULL AND i.indexprs IS NULL \
        AND NOT EXISTS (SELECT FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place) \
            JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
            WHERE k.place <= i.indnkeyatts AND (NOT a.attnotnull OR EXISTS ( \
                SELECT FROM pg_catalog.pg_constraint c WHERE c.conrelid = a.attrelid AND c.contype::text = 'n' \
                    AND NOT c.convalidated AND c.conkey[1] = a.attnum) \
                OR NOT pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT') \
                OR i.indcollation[k.place - 1] <> a.attcollation \
                OR NOT (SELECT o.opcdefault FROM pg_catalog.pg_opclass o WHERE o.oid = i.indclass[k.place - 1]))) \
    ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid LIMIT 1";

/// The columns of the primary key, else of the narrowest unique index that covers every row, has no NULLs and may be
/// read; unique by the columns' own order, not by another collation or operator class.
pub(crate) async fn unique_key(session: &Session, found: &CatalogRelation) -> Result<Option<Vec<String>>, SourceError> {
    // A unique index on an inheritance parent says nothing of its children's rows.
    if found.kind == RelationKind::Table && found.has_children() {
        return Ok(None);
    }
    let sql = closed(&UNIQUE_KEY.replace("RELATION", "$1"));
    let rows =
        query(session, &format!("looking for a key of {}", found.sql_name()), &sql, &[(&found.oid, Type::OID)]).await?;
    rows.first().map(|row| value(row, 0)).transpose()
}
