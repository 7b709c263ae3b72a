//! The questions that planning asks the server. None of them scans the relation, but for a cap, which walks the key
//! as far as the cap and no further.

use std::error::Error;
use std::num::NonZeroU64;
use std::ops::Range;

use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type, accepts};

use super::catalog::{TypedParameter, query, value};
use super::closed::closed;
use super::leaves::{groups, lock_and_compare, release};
use super::order::OID;
use super::plan::{PgKeyColumn, PgPlan, TypeKind, oid};
use super::prepare::Planning;
use super::session::{send_text_as_stored, send_text_as_utf8};
use super::sql;
use super::statement::{self, OutputColumn};
use super::untranslatable::is_untranslatable;
use crate::base::text::key;
use crate::model::{Direction, KeyValue, TupleId};
use crate::source::{SourceError, SourceFault};

/// Views upon views are looked through this deep for the stored column behind a key; deeper ones get no bounds.
const VIEW_DEPTH_MAX: usize = 8;

/// What the server found where a cap may end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapByKey {
    /// The keys of the rows asked for, in order; fewer where the relation ends before them.
    pub splits: Vec<KeyValue>,
    /// The key of row N, where row N exists.
    pub boundary: Option<KeyValue>,
    /// Whether row N+1 exists.
    pub more: bool,
}

/// A stored column, whose statistics bound the partitions of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyOrigin {
    /// The table's OID.
    pub relation: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// The column in it.
    pub column: String,
    /// Whether its statistics are those of a whole inheritance tree.
    pub inherited: bool,
    /// Bytes of its heap, where it has one.
    pub bytes: Option<u64>,
}

/// The same for rows by their place in one leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapByPlace {
    /// The places of the rows asked for, in order.
    pub splits: Vec<TupleId>,
    /// The place of row N, where row N exists.
    pub boundary: Option<TupleId>,
}

/// What to do where a key that splits the rows has no form in UTF-8.
const OTHER_KEY: &str = "name another column with --key, or none; --read-mode keyset needs this one, --read-mode copy does \
    not";

/// The same where it orders the rows under a cap, which takes the unique key in any case.
const WITHOUT_KEY: &str = "cap a --query that selects from the table: it has no key but the one that --key names";

/// The text of a key, whatever bytes it has.
#[derive(Debug)]
struct KeyText(String);

impl<'a> FromSql<'a> for KeyText {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(key::kept(raw)))
    }

    accepts!(TEXT);
}

const LOOKING_BEHIND: &str = "looking behind the view";

/// Where an output column comes from.
#[derive(Debug, Clone, Copy)]
enum DerivedFrom<'a> {
    /// The query of the request.
    Query(&'a str),
    /// A view, by its OID.
    View(u32),
}

impl Planning {
    /// The stored column behind a key column: itself, or what a view or a query takes it from unchanged.
    ///
    /// Bounds may come from anywhere, since coverage rests on their order alone; these fit the rows.
    ///
    /// # Errors
    /// The server refused or was lost.
    pub async fn key_origin(&self, key: &PgKeyColumn) -> Result<Option<KeyOrigin>, SourceError> {
        let (mut relation, mut name) = match &self.found {
            Some(found) => (found.oid, key.name.clone()),
            None => match self.origin_in(DerivedFrom::Query(&self.relation.sql_name), &key.name).await? {
                Some(origin) => origin,
                None => return Ok(None),
            },
        };
        for _ in 0..VIEW_DEPTH_MAX {
            let sql = closed(
                "SELECT c.relkind = 'v', n.nspname::text, c.relname::text, \
                EXISTS (SELECT FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class k ON k.oid = i.inhrelid \
                    WHERE i.inhparent = c.oid AND k.relpersistence <> 't'), \
                CASE WHEN c.relkind = ANY ('{r,m,p}') THEN (WITH RECURSIVE tree AS (SELECT c.oid \
                        UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree ON i.inhparent = tree.oid \
                            JOIN pg_catalog.pg_class k ON k.oid = i.inhrelid WHERE k.relpersistence <> 't') \
                    SELECT pg_catalog.sum(pg_catalog.pg_relation_size(tree.oid, 'main'))::int8 FROM tree) END \
                FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
            );
            let action = format!("looking for the column behind {}", key.name);
            let rows = query(&self.anchor, &action, &sql, &[(&relation, Type::OID)]).await?;
            let Some(row) = rows.first() else { return Ok(None) };
            if !value::<bool>(row, 0)? {
                return Ok(Some(KeyOrigin {
                    relation,
                    schema: value(row, 1)?,
                    table: value(row, 2)?,
                    column: name,
                    inherited: value(row, 3)?,
                    bytes: value::<Option<i64>>(row, 4)?.and_then(|bytes| u64::try_from(bytes).ok()),
                }));
            }
            match self.origin_in(DerivedFrom::View(relation), &name).await? {
                Some(origin) => (relation, name) = origin,
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The table and column that an output column is, where it is one unchanged.
    async fn origin_in(&self, behind: DerivedFrom<'_>, column: &str) -> Result<Option<(u32, String)>, SourceError> {
        // To print a view the server runs statements of its own, whose operators it looks up on the search path
        // (`pg_get_viewdef`, `ruleutils.c`), and it leaves out the schemas of what it finds there.
        let path = match behind {
            DerivedFrom::View(_) => "; SET LOCAL search_path = pg_catalog",
            DerivedFrom::Query(_) => "",
        };
        self.anchor.batch(LOOKING_BEHIND, &format!("SAVEPOINT outhaul_origin{path}")).await?;
        let described = self.columns_of(behind).await;
        let end = "ROLLBACK TO SAVEPOINT outhaul_origin; RELEASE SAVEPOINT outhaul_origin";
        self.anchor.batch(LOOKING_BEHIND, end).await?;
        // The role may read a view but not name what is behind it: no bounds then.
        let Ok(columns) = described else { return Ok(None) };
        let found = columns.into_iter().find(|candidate| candidate.name == column);
        let Some((relation, number)) = found.and_then(|column| column.stored) else { return Ok(None) };
        let sql = closed("SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attnum = $2");
        let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&relation, Type::OID), (&number, Type::INT2)];
        let rows = query(&self.anchor, LOOKING_BEHIND, &sql, &parameters).await?;
        rows.first().map(|row| Ok((relation, value(row, 0)?))).transpose()
    }

    async fn columns_of(&self, behind: DerivedFrom<'_>) -> Result<Vec<OutputColumn>, SourceError> {
        let view = match behind {
            DerivedFrom::Query(text) => return statement::describe(&self.anchor, LOOKING_BEHIND, text).await,
            DerivedFrom::View(view) => view,
        };
        let sql = "SELECT pg_catalog.pg_get_viewdef($1)";
        let rows = query(&self.anchor, LOOKING_BEHIND, sql, &[(&view, Type::OID)]).await?;
        let definition: Option<Option<&str>> = rows.first().map(|row| value(row, 0)).transpose()?;
        let definition = definition.flatten().unwrap_or_default().trim_end().trim_end_matches(';');
        statement::describe(&self.anchor, LOOKING_BEHIND, definition).await
    }

    /// Histogram bounds of a column, distinct and in the key's order; empty where there are none.
    ///
    /// # Errors
    /// The server refused or was lost.
    pub async fn histogram(&self, key: &PgKeyColumn, origin: &KeyOrigin) -> Result<Vec<KeyValue>, SourceError> {
        let direction = match key.direction {
            Direction::Asc => "",
            Direction::Desc => " DESC",
        };
        // The server sorts by its own order and collation, whatever order the statistics were made in; coverage rests
        // on that order. `bounds.b`, since a bare `b` would be the output column: its text.
        let value_type = &key.comparison.value_type;
        // The bounds of arrays are arrays in an array, which has no text form to be read back from.
        // Those of `regproc` and its kin are names there, from which the numbers cannot be read.
        let names = *value_type == OID && key.pg_type.base_oid != oid::OID;
        if names || matches!(key.pg_type.kind, TypeKind::Array(_)) {
            return Ok(Vec::new());
        }
        let collation = self.collation(origin.relation, &origin.column).await?;
        // In FROM, `unnest` would take composite values apart.
        let sql = closed(&format!(
            "SELECT {} FROM (SELECT DISTINCT pg_catalog.unnest(s.histogram_bounds::text::{value_type}[]) AS b \
            FROM pg_catalog.pg_stats s WHERE s.schemaname = $1::text::name AND s.tablename = $2::text::name AND s.attname = $3::text::name \
                AND s.inherited = $4) AS bounds \
            ORDER BY bounds.b{collation}{direction}",
            sql::text_of(key, "b")
        ));
        let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 4] = [
            (&origin.schema, Type::TEXT),
            (&origin.table, Type::TEXT),
            (&origin.column, Type::TEXT),
            (&origin.inherited, Type::BOOL),
        ];
        let rows = self.keys(&format!("reading the histogram of {}", key.name), OTHER_KEY, &sql, &parameters).await?;
        rows.iter().map(|row| Ok(vec![Some(value::<KeyText>(row, 0)?.0)])).collect()
    }

    /// Asks for texts of keys. `hint` is what to do where one of them cannot be sent.
    async fn keys(
        &self,
        action: &str,
        hint: &str,
        sql: &str,
        parameters: &[TypedParameter<'_>],
    ) -> Result<Vec<Row>, SourceError> {
        let as_stored = self.server.types.sql_ascii;
        if as_stored {
            send_text_as_stored(&self.anchor).await?;
        }
        let rows = query(&self.anchor, action, sql, parameters).await.map_err(|error| {
            if !is_untranslatable(&error) {
                return error;
            }
            let message =
                format!("{action}: a value of the key has no form in UTF-8, and so cannot bound what is read");
            SourceError { fault: SourceFault::Usage, message, ..error }.with_hint(hint)
        })?;
        if as_stored {
            send_text_as_utf8(&self.anchor).await?;
        }
        Ok(rows)
    }

    /// ` COLLATE …` of a column whose type has one, else nothing.
    async fn collation(&self, relation: u32, column: &str) -> Result<String, SourceError> {
        let sql = closed(
            "SELECT n.nspname::text, c.collname::text FROM pg_catalog.pg_attribute a \
            JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation \
            JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace \
            WHERE a.attrelid = $1 AND a.attname = $2::text::name",
        );
        let action = format!("asking the collation of {column}");
        let rows = query(&self.anchor, &action, &sql, &[(&relation, Type::OID), (&column, Type::TEXT)]).await?;
        let Some(row) = rows.first() else { return Ok(String::new()) };
        let quoted = |index| Ok::<_, SourceError>(super::session::identifier(value(row, index)?));
        Ok(format!(" COLLATE {}.{}", quoted(0)?, quoted(1)?))
    }

    /// The least and the greatest value of an integer column, where an index leads with it.
    ///
    /// # Errors
    /// The server refused or was lost.
    pub async fn integer_extremes(&self, key: &PgKeyColumn) -> Result<Option<(i64, i64)>, SourceError> {
        let Some(found) = &self.found else { return Ok(None) };
        let indexed = closed(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a \
                ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
            JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_am m ON m.oid = c.relam \
            WHERE i.indrelid = $1 AND a.attname = $2::text::name AND i.indisvalid AND i.indpred IS NULL \
                AND m.amname = 'btree')",
        );
        let action = format!("looking for an index on {}", key.name);
        let rows = query(&self.anchor, &action, &indexed, &[(&found.oid, Type::OID), (&key.name, Type::TEXT)]).await?;
        if !rows.first().map_or(Ok(false), |row| value(row, 0))? {
            return Ok(None);
        }
        let column = super::session::identifier(&key.name);
        let sql = format!(
            "SELECT pg_catalog.min({column})::pg_catalog.int8, pg_catalog.max({column})::pg_catalog.int8 FROM {}",
            sql::relation(&self.relation)
        );
        let rows = query(&self.anchor, &format!("reading the extremes of {}", key.name), &sql, &[]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(value::<Option<i64>>(row, 0)?.zip(value(row, 1)?))
    }

    /// Walks the key of `plan` up to row `max_rows` + 1.
    ///
    /// # Errors
    /// The server refused or was lost.
    pub async fn cap_by_key(&self, plan: &PgPlan, max_rows: u64, splits: &[u64]) -> Result<CapByKey, SourceError> {
        let beyond = past(max_rows)?;
        let points: Vec<u64> = splits.iter().copied().chain([max_rows, beyond]).collect();
        let sql = sql::rows_by_key(plan, beyond, &points);
        let rows = self.keys("finding where the cap ends", WITHOUT_KEY, &sql, &[]).await?;
        let mut found = CapByKey { splits: Vec::new(), boundary: None, more: false };
        for row in &rows {
            let place = u64::try_from(value::<i64>(row, 0)?).unwrap_or(0);
            let text = |index| Ok(value::<Option<KeyText>>(row, index)?.map(|text| text.0));
            let key: KeyValue = (1..=plan.key.len()).map(text).collect::<Result<_, SourceError>>()?;
            if place == beyond {
                found.more = true;
            } else if place == max_rows {
                found.boundary = Some(key);
            } else {
                found.splits.push(key);
            }
        }
        Ok(found)
    }

    /// Counts the relation as a whole, no further than `limit` rows.
    ///
    /// # Errors
    /// The server refused or was lost.
    pub async fn count_up_to(&self, plan: &PgPlan, limit: u64) -> Result<u64, SourceError> {
        let limit = NonZeroU64::new(limit).unwrap_or(NonZeroU64::MIN);
        let statement = sql::count_up_to(plan, &sql::relation(&self.relation), limit);
        let rows = query(&self.anchor, "counting rows up to the cap", &statement, &[]).await?;
        let count = rows.first().map_or(Ok(0), |row| value::<i64>(row, 0))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Counts rows leaf by leaf, no further than `limit` in all: the leaves that have any, by their indexes, in order.
    ///
    /// # Errors
    /// The server refused or was lost.
    pub async fn count_leaves(
        &self,
        plan: &PgPlan,
        leaves: Range<usize>,
        limit: u64,
    ) -> Result<Vec<(usize, u64)>, SourceError> {
        let limit = NonZeroU64::new(limit).unwrap_or(NonZeroU64::MIN);
        let statement = sql::count_leaves(plan, leaves.clone(), limit);
        self.guard(leaves).await?;
        let rows = query(&self.anchor, "counting rows up to the cap", &statement, &[]).await?;
        self.unguard().await?;
        let odd = || SourceError::new(SourceFault::Protocol, "a table has an impossible number of rows");
        let counted = |row: &tokio_postgres::Row| {
            let leaf = usize::try_from(value::<i64>(row, 0)?).map_err(|_| odd())?;
            Ok((leaf, u64::try_from(value::<i64>(row, 1)?).map_err(|_| odd())?))
        };
        rows.iter().map(counted).collect()
    }

    /// The leaves of a plan in groups, each for one statement.
    pub fn leaf_groups(&self, plan: &PgPlan) -> Vec<Range<usize>> {
        let most = self.locks.checked.as_ref().map(|checked| checked.relations);
        groups(&plan.relation.leaves, 0..plan.relation.leaves.len(), 1, most)
    }

    /// Leaves that are locked as they are read are locked for planning too.
    async fn guard(&self, leaves: Range<usize>) -> Result<(), SourceError> {
        match self.relation.leaves.get(leaves) {
            Some(leaves) if self.checks_leaves() => lock_and_compare(&self.anchor, leaves).await,
            _ => Ok(()),
        }
    }

    async fn unguard(&self) -> Result<(), SourceError> {
        if self.checks_leaves() { release(&self.anchor).await } else { Ok(()) }
    }

    /// Finds the places of rows of one leaf in physical order.
    ///
    /// # Errors
    /// The server refused or was lost.
    pub async fn cap_by_place(
        &self,
        plan: &PgPlan,
        leaf: usize,
        max_rows: u64,
        splits: &[u64],
    ) -> Result<CapByPlace, SourceError> {
        let points: Vec<u64> = splits.iter().copied().chain([max_rows]).collect();
        self.guard(leaf..leaf.saturating_add(1)).await?;
        // A predicate could make the planner take an index, and its order.
        self.anchor.batch("asking for physical order", sql::PHYSICAL_ORDER).await?;
        let source = self.relation.leaves.get(leaf).map(|leaf| sql::heap(&self.relation, &leaf.sql_name));
        let source = source.ok_or_else(|| SourceError::new(SourceFault::Protocol, "the cap ends in no table"))?;
        let statement = sql::rows_by_place(plan, &source, max_rows, &points);
        let rows = query(&self.anchor, "finding where the cap ends", &statement, &[]).await?;
        self.unguard().await?;
        let mut found = CapByPlace { splits: Vec::new(), boundary: None };
        for row in &rows {
            let odd = || SourceError::new(SourceFault::Protocol, "a row has an impossible place");
            let place = TupleId {
                block: u32::try_from(value::<i64>(row, 1)?).map_err(|_| odd())?,
                offset: u16::try_from(value::<i32>(row, 2)?).map_err(|_| odd())?,
            };
            if u64::try_from(value::<i64>(row, 0)?).is_ok_and(|number| number == max_rows) {
                found.boundary = Some(place);
            } else {
                found.splits.push(place);
            }
        }
        Ok(found)
    }
}

fn past(max_rows: u64) -> Result<u64, SourceError> {
    max_rows
        .checked_add(1)
        .filter(|beyond| i64::try_from(*beyond).is_ok())
        .ok_or_else(|| SourceError::new(SourceFault::Usage, format!("a cap of {max_rows} rows is too large")))
}
