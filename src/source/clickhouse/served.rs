//! What a service asks beside an export: what a relation looks like, how many rows there are, and what they come to by
//! groups. Each question is a statement of its own, which is killed when its time is up or nobody waits for it.

use std::future::Future;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use super::columns::ChColumnFacts;
use super::describe::ChDescribed;
use super::key_ranges;
use super::prepare::{ChPlanning, session};
use super::scope;
use super::settings::ClickHouseSession;
use super::shards::ALL_SHARDS;
use super::types::ChType;
use crate::base::postgres::settings::ConnectSettings;
use crate::base::words::counted;
use crate::model::{
    AggregateBucket, AggregateRequest, Aggregated, BucketValue, CountedRows, DescribedColumn, DescribedRelation,
    ReadRequest, ScopeColumn, ServedRequest,
};
use crate::source::{SourceError, SourceFault};

/// How the statements of such a question are called, behind what all of ours are called by.
const ASKING: &str = "question";

/// The server's code for an answer that is larger than it may be.
const TOO_MANY_BYTES: &str = "396";

/// Bytes of an answer in the server's memory, for each of its values.
const RESULT_BYTES: u64 = 4;

/// The rows of an answer, as texts.
type TextRows = Vec<Vec<Option<String>>>;

/// A question, and where it is asked.
struct ChQuestion {
    session: Arc<ClickHouseSession>,
    request: ReadRequest,
    database: String,
}

impl ChQuestion {
    async fn begin(settings: &ConnectSettings, request: ServedRequest) -> Result<Self, SourceError> {
        // Each has ids of its own: one that is given up kills its own statement.
        let id = format!("{ASKING}-{:08x}", rand::random::<u32>());
        let session = session(settings, &id, None).await?;
        Ok(Self { session, request: request.read_request(&id), database: settings.database.clone() })
    }

    fn planning(&self) -> ChPlanning<'_> {
        ChPlanning { session: &self.session, request: &self.request, database: &self.database }
    }

    async fn ask(&self, doing: &str, sql: &str) -> Result<TextRows, SourceError> {
        self.session.ask(doing, sql, &[]).await
    }

    /// The relation and its filter, as they stand behind FROM.
    async fn rows(&self) -> Result<String, SourceError> {
        let ChDescribed { relation, .. } = self.planning().described().await?;
        Ok(format!("{}{}", relation.from(), relation.filter(None)))
    }
}

/// Gives a question up that takes too long.
async fn in_time<T>(
    time: Duration,
    doing: &str,
    asked: impl Future<Output = Result<T, SourceError>>,
) -> Result<T, SourceError> {
    tokio::time::timeout(time, asked).await.unwrap_or_else(|_| {
        let seconds = counted(time.as_secs(), "second");
        Err(SourceError::new(SourceFault::GaveWay, format!("{doing} takes longer than {seconds}")))
    })
}

/// See [`Source::describe`](crate::source::Source::describe).
pub(super) async fn describe(
    settings: &ConnectSettings,
    request: ServedRequest,
) -> Result<DescribedRelation, SourceError> {
    let time = request.served.statement_timeout;
    in_time(time, "describing the relation", async {
        let question = ChQuestion::begin(settings, request).await?;
        let planning = question.planning();
        let ChDescribed { relation, columns, .. } = planning.described().await?;
        let expressions = planning.expressions(&relation).await?;
        let shape = &question.request.shape;
        if let Some(trial) = shape.predicate.as_deref().and_then(scope::trial) {
            // Of one row, or of none: what is wrong with the types of two columns is found out either way.
            let sql = format!(
                "SELECT max(outhaul_c0) FROM (SELECT {trial} AS outhaul_c0 FROM {} LIMIT 1){ALL_SHARDS}",
                relation.from()
            );
            question.ask("comparing the tenant's column", &sql).await.map_err(tenant_type)?;
        }
        let key: Vec<String> = shape.key.iter().flatten().map(|(name, _)| name.clone()).collect();
        let refused = key.iter().find_map(|name| not_a_key(&columns, name));
        let made = shape.expressions.iter().zip(&expressions);
        let made = made.map(|((name, sql), facts)| described(name, Some(sql.clone()), facts, false));
        Ok(DescribedRelation {
            expressions: made.collect(),
            columns: columns.iter().map(|facts| described(&facts.name, None, facts, is_key(facts))).collect(),
            key,
            key_unique: false,
            refused,
            row_security: false,
            estimated_rows: relation.estimated_rows,
            one_statement: true,
        })
    })
    .await
}

/// What the server says where a tenant is compared with a column of another type.
fn tenant_type(mut error: SourceError) -> SourceError {
    // NO_COMMON_TYPE, ILLEGAL_TYPE_OF_ARGUMENT, TYPE_MISMATCH
    if matches!(error.code.as_deref(), Some("386" | "43" | "53")) {
        error.fault = SourceFault::Usage;
        let hint = "tenant_type names the type of the column that the tenant is compared with: UInt64, UUID; String unless said";
        error.hint = Some(hint.to_owned());
    }
    error
}

fn is_key(facts: &ChColumnFacts) -> bool {
    key_ranges::check(&facts.name, &facts.type_name).is_ok()
}

/// Why rows cannot be ordered by a column.
fn not_a_key(columns: &[ChColumnFacts], name: &str) -> Option<String> {
    match columns.iter().find(|column| column.name == name) {
        None => Some(format!("key: there is no column {name:?}")),
        Some(column) if is_key(column) => None,
        Some(column) => Some(format!("key: column {name:?} is of type {}, which orders no rows", column.type_name)),
    }
}

fn described(name: &str, sql: Option<String>, facts: &ChColumnFacts, leads_index: bool) -> DescribedColumn {
    let ch_type = ChType::parse(&facts.type_name).ok();
    let inner = ch_type.as_ref().map(ChType::inner);
    DescribedColumn {
        scope: ScopeColumn { name: name.to_owned(), sql, type_name: facts.type_name.clone(), ..ScopeColumn::default() },
        type_name: facts.type_name.clone(),
        nullable: ch_type.as_ref().is_none_or(ChType::is_nullable),
        comparable: scope::is_comparable(&facts.type_name),
        dates: matches!(inner, Some(ChType::Date | ChType::DateTime | ChType::DateTime64 { .. })),
        leads_index,
    }
}

/// See [`Source::estimate`](crate::source::Source::estimate). Beyond its time it is no estimate but an error: statistics of
/// the server count the rows of other tenants too.
pub(super) async fn estimate(
    settings: &ConnectSettings,
    request: ServedRequest,
    up_to: NonZeroU64,
) -> Result<CountedRows, SourceError> {
    const ACTION: &str = "counting the rows";
    in_time(request.served.statement_timeout, ACTION, async {
        let question = ChQuestion::begin(settings, request).await?;
        let limit = up_to.get().saturating_add(1);
        let sql = format!("SELECT count() FROM (SELECT 1 FROM {} LIMIT {limit}){ALL_SHARDS}", question.rows().await?);
        let rows = question.ask(ACTION, &sql).await?;
        let count = rows.into_iter().flatten().flatten().next().and_then(|count| count.parse().ok());
        let rows: u64 = count.ok_or_else(|| unreadable(ACTION))?;
        Ok(if rows > up_to.get() { CountedRows::AtLeast(rows) } else { CountedRows::Exact(rows) })
    })
    .await
}

/// See [`Source::aggregate`](crate::source::Source::aggregate).
pub(super) async fn aggregate(
    settings: &ConnectSettings,
    request: AggregateRequest,
) -> Result<Aggregated, SourceError> {
    const ACTION: &str = "measuring the rows";
    in_time(request.of.served.statement_timeout, ACTION, async {
        let question = ChQuestion::begin(settings, request.of.clone()).await?;
        let sql = format!("{}{ALL_SHARDS}", scope::aggregate::aggregate(&request, &question.rows().await?)?);
        let most = request.max_bytes.saturating_mul(RESULT_BYTES).to_string();
        let asked = question.session.ask(ACTION, &sql, &[("max_result_bytes", &most)]).await;
        let rows = match asked {
            Err(error) if error.code.as_deref() == Some(TOO_MANY_BYTES) => {
                return Ok(Aggregated { too_large: true, ..Aggregated::default() });
            }
            rows => rows?,
        };
        let groups = rows.into_iter().map(|row| bucket(row, &request).ok_or_else(|| unreadable(ACTION)));
        Aggregated::of(groups, &request)
    })
    .await
}

fn bucket(row: Vec<Option<String>>, request: &AggregateRequest) -> Option<AggregateBucket> {
    let mut values = row.into_iter();
    let mut dimensions = Vec::with_capacity(request.dimensions.len());
    for _ in &request.dimensions {
        dimensions.push(BucketValue { text: values.next()?, json: values.next()?? });
    }
    let measures: Option<Vec<String>> = values.collect();
    measures
        .filter(|measures| measures.len() == request.measures.len())
        .map(|measures| AggregateBucket { dimensions, measures })
}

fn unreadable(doing: &str) -> SourceError {
    SourceError::new(SourceFault::Protocol, format!("{doing}: the server's answer cannot be read"))
}
