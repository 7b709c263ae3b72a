//! What a service asks beside an export: what a relation looks like, how many rows there are, and what they come to by
//! groups. Each question is one short transaction on a session that all served runs share.

use std::num::NonZeroU64;
use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::catalog::{query, value};
use super::closed::closed;
use super::describe::scope_column;
use super::estimate::rows_of;
use super::plan::{ColumnFacts, KeyChoice, PgKeyColumn, choose_repeating_key, oid};
use super::prepare::Planning;
use super::scope::aggregate;
use super::session::{Begin, begin};
use super::source::Postgres;
use super::sql;
use crate::model::{
    AggregateBucket, AggregateRequest, Aggregated, BucketValue, CountedRows, DescribedColumn, DescribedRelation,
    ReadMode, ServedRequest,
};
use crate::source::{Source, SourceError};

/// The server's word for a statement that took too long.
const CANCELLED: &str = "57014";

/// How the sessions of such a question are called.
const ASKING: &str = "question";

/// Plans the relation as pages of it would be, without reading any.
async fn planning(source: &Postgres, request: &ServedRequest) -> Result<Planning, SourceError> {
    let ServedRequest { mut shape, served } = request.clone();
    source.check(&mut shape)?;
    let sessions = source.shared_sessions(&served, shape.allow_rls)?;
    let request = ServedRequest { shape, served }.read_request(ASKING);
    let begun = Planning::begin(sessions, &request).await;
    begun.inspect_err(|error| source.heed(error))
}

/// See [`Source::describe`].
pub(super) async fn describe(source: &Postgres, request: ServedRequest) -> Result<DescribedRelation, SourceError> {
    let planning = planning(source, &request).await?;
    let facts = &planning.relation;
    let keyset = ReadMode::Keyset { page_size: NonZeroU64::MIN };
    let (key, why_not) = match choose_repeating_key(facts, planning.shape.key.as_deref(), keyset) {
        Ok(key) => (key, None),
        Err(error) => (KeyChoice { columns: Vec::new(), unique: false, ordered: false }, Some(error.to_string())),
    };
    let mut columns = Vec::with_capacity(facts.columns.len());
    for column in &facts.columns {
        let leads_index = leads_index(&planning, column).await?;
        columns.push(described(column, None, leads_index));
    }
    let expressions = planning.shape.expressions.iter().zip(&planning.expressions).map(|((name, sql), facts)| {
        let facts = ColumnFacts { name: name.clone(), ..facts.clone() };
        described(&facts, Some(sql.clone()), false)
    });
    let described = DescribedRelation {
        columns,
        expressions: expressions.collect(),
        key: key.columns.iter().map(|column| column.name.clone()).collect(),
        key_unique: key.unique,
        refused: why_not.or_else(|| planning.split_safety.one_statement.clone()),
        row_security: facts.row_security,
        estimated_rows: facts.estimated_rows,
        one_statement: false,
    };
    planning.anchor.batch("ending planning", "COMMIT").await?;
    Ok(described)
}

fn described(facts: &ColumnFacts, sql: Option<String>, leads_index: bool) -> DescribedColumn {
    DescribedColumn {
        scope: scope_column(facts, sql),
        type_name: facts.pg_type.name.clone(),
        nullable: !facts.not_null,
        comparable: facts.comparison.is_some(),
        dates: matches!(facts.pg_type.base_oid, oid::DATE | oid::TIMESTAMP | oid::TIMESTAMPTZ),
        leads_index,
    }
}

/// Whether a whole B-tree begins with the stored column behind this one.
async fn leads_index(planning: &Planning, column: &ColumnFacts) -> Result<bool, SourceError> {
    let Some(comparison) = column.comparison.clone() else { return Ok(false) };
    let key = PgKeyColumn {
        name: column.name.clone(),
        pg_type: column.pg_type.clone(),
        direction: crate::model::Direction::Asc,
        nullable: !column.not_null,
        comparison,
    };
    let Some(origin) = planning.key_origin(&key).await? else { return Ok(false) };
    let indexed = closed(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a \
            ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
        JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_am m ON m.oid = c.relam \
        JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[0] \
        WHERE i.indrelid = $1 AND a.attname = $2::text::name AND i.indisvalid AND i.indpred IS NULL \
            AND m.amname = 'btree' AND o.opcdefault AND i.indcollation[0] = a.attcollation)",
    );
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&origin.relation, Type::OID), (&origin.column, Type::TEXT)];
    let action = format!("looking for an index on {}", column.name);
    let rows = query(&planning.anchor, &action, &indexed, &parameters).await?;
    rows.first().map_or(Ok(false), |row| value(row, 0))
}

/// See [`Source::estimate`].
pub(super) async fn estimate(
    source: &Postgres,
    request: ServedRequest,
    up_to: NonZeroU64,
) -> Result<CountedRows, SourceError> {
    const ACTION: &str = "counting the rows";
    let planning = planning(source, &request).await?;
    let (anchor, relation) = (&planning.anchor, sql::relation(&planning.relation));
    let filter = planning.shape.predicate.as_ref().map_or(String::new(), |text| format!("\nWHERE (\n{text}\n)"));
    let limit = up_to.get().saturating_add(1);
    let count = format!("SELECT pg_catalog.count(*) FROM (SELECT FROM {relation}{filter}\nLIMIT {limit}) AS counted");
    match query(anchor, ACTION, &count, &[]).await {
        Ok(rows) => {
            let rows = rows.first().map_or(Ok(0), |row| value::<i64>(row, 0))?;
            let rows = u64::try_from(rows).unwrap_or(0);
            anchor.batch(ACTION, "COMMIT").await?;
            Ok(if rows > up_to.get() { CountedRows::AtLeast(rows) } else { CountedRows::Exact(rows) })
        }
        Err(error) if error.code.as_deref() == Some(CANCELLED) => {
            anchor.batch(ACTION, "ROLLBACK").await?;
            begin(anchor, Begin::Latest, &format!("{}/plan", planning.application)).await?;
            let rows = query(anchor, ACTION, &format!("EXPLAIN SELECT FROM {relation}{filter}"), &[]).await?;
            let expected = rows.first().map(|row| value::<&str>(row, 0)).transpose()?.and_then(rows_of);
            anchor.batch(ACTION, "COMMIT").await?;
            expected.map(CountedRows::Estimate).ok_or(error)
        }
        Err(error) => Err(error),
    }
}

/// See [`Source::aggregate`].
pub(super) async fn aggregate(source: &Postgres, request: AggregateRequest) -> Result<Aggregated, SourceError> {
    const ACTION: &str = "measuring the rows";
    let planning = planning(source, &request.of).await?;
    let relation = sql::relation(&planning.relation);
    let statement = aggregate::aggregate(&request, &relation, planning.shape.predicate.as_deref())?;
    let reading = async {
        let none: [(&(dyn ToSql + Sync), Type); 0] = [];
        let mut rows = pin!(planning.anchor.client().query_typed_raw(&statement, none).await?);
        let (mut found, mut bytes) = (Aggregated::default(), 0);
        while let Some(row) = rows.try_next().await? {
            let bucket = match bucket(&row, &request) {
                Ok(bucket) => bucket,
                Err(error) => return Ok(Err(error)),
            };
            // What comes behind the last one that is taken is read by nobody.
            if !found.takes(bucket, &mut bytes, &request) {
                break;
            }
        }
        Ok(Ok(found))
    };
    let found = planning.anchor.patiently(ACTION, reading).await??;
    planning.anchor.batch(ACTION, "COMMIT").await?;
    Ok(found)
}

fn bucket(row: &Row, request: &AggregateRequest) -> Result<AggregateBucket, SourceError> {
    let dimensions = request.dimensions.len();
    let dimension = |nth: usize| Ok(BucketValue { text: value(row, 2 * nth)?, json: value(row, 2 * nth + 1)? });
    Ok(AggregateBucket {
        dimensions: (0..dimensions).map(dimension).collect::<Result<_, SourceError>>()?,
        measures: (0..request.measures.len())
            .map(|nth| value(row, 2 * dimensions + nth))
            .collect::<Result<_, SourceError>>()?,
    })
}
