//! Pages for somebody who may read slowly: each is wholly in memory, and its session is back in the pool, before its first
//! row is handed out. So a slow reader holds no transaction, no horizon and no connection.
//!
//! A page ends at rows or at bytes. Where rows may share a key it takes in all that share its last one, since the next page
//! begins behind that key: whether two keys are the same is for the server to say and not for their texts. Rows whose
//! leading key is NULL come behind all others, as pages of their own, so that an index serves both.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures_util::{StreamExt, stream};

use super::catalog::{query, value};
use super::closed::closed;
use super::connect::{Session, Sessions};
use super::copy::Copy;
use super::decode::RowKey;
use super::keyset::{Pages, last_key, page_columns, without_key};
use super::sql::{self, LeadingKey, ServedPage};
use super::watch::Watch;
use crate::base::failpoint;
use crate::model::{ErrorCode, KeyValue, RowOrder, ServedReads};
use crate::source::postgres::plan::{PgKeyColumn, PgPartition, PgPlan};
use crate::source::{Batch, BatchStream, SourceError, SourceFault};

/// Rows of the first page, of which nobody knows how large they are, and for which somebody waits.
const FIRST_PAGE_ROWS: u64 = 1_000;

/// A page is planned for so much of what it may take, in percent: rows are not all as large as those before them.
const FILL_PERCENT: u64 = 75;

/// A page whose ties take too much is asked for again with so much fewer rows.
const FEWER: u64 = 4;

/// What all pages of a served run have in common.
#[derive(Debug, Clone)]
pub(super) struct Serving {
    pub(super) pages: Pages,
    pub(super) served: ServedReads,
    pub(super) sessions: Arc<Sessions>,
    pub(super) watch: Arc<Watch>,
    pub(super) plan: Arc<PgPlan>,
    pub(super) what: String,
}

/// Which rows are being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PagePhase {
    /// Those whose leading key has a value.
    Values,
    /// Those whose leading key is NULL.
    Nulls,
    /// None any more.
    Ended,
}

/// How one page came to its end.
#[derive(Debug)]
struct PageEnd {
    rows: u64,
    bytes: u64,
    /// Whether it has more bytes than a page may have, and was left before its end.
    cut: bool,
    last: Option<KeyValue>,
}

#[derive(Debug)]
struct ServedReader {
    serving: Serving,
    cap: Option<NonZeroU64>,
    phase: PagePhase,
    /// The key of the last row that was taken, within the phase.
    last: Option<KeyValue>,
    /// Rows taken.
    rows: u64,
    /// Rows that the next page asks for.
    page_rows: u64,
    ready: VecDeque<Batch>,
    schema: Option<SchemaRef>,
}

impl Serving {
    /// Reads the partition, which is the relation, page by page.
    pub(super) fn open(self, partition: &PgPartition) -> BatchStream {
        let page_rows = FIRST_PAGE_ROWS.min(self.pages.size.get());
        let reader = ServedReader {
            serving: self,
            cap: partition.row_limit,
            phase: PagePhase::Values,
            last: None,
            rows: 0,
            page_rows,
            ready: VecDeque::new(),
            schema: None,
        };
        stream::try_unfold(reader, |mut reader| async move { Ok(reader.next().await?.map(|batch| (batch, reader))) })
            .boxed()
    }

    /// The key that orders the rows of a phase.
    fn key(&self, phase: PagePhase) -> &[PgKeyColumn] {
        let key = self.plan.key.as_slice();
        if phase == PagePhase::Nulls { key.get(1..).unwrap_or_default() } else { key }
    }

    /// Whether no two rows share the key.
    fn unique(&self) -> bool {
        self.plan.cap.order == RowOrder::Key
    }

    async fn session(&self) -> Result<Session, SourceError> {
        match self.sessions.get().await {
            Ok(session) => Ok(session),
            Err(error) => Err(self.explained(error).await),
        }
    }

    async fn explained(&self, error: SourceError) -> SourceError {
        self.watch.explain(error, self.pages.name.as_deref()).await
    }

    fn statement(&self, phase: PagePhase, after: Option<&KeyValue>, limit: Option<u64>, ties: bool) -> String {
        let nullable = self.plan.key.first().filter(|column| column.nullable);
        let leading = nullable.map(|column| match phase {
            PagePhase::Nulls => LeadingKey::Nulls(column),
            _ => LeadingKey::Values(column),
        });
        // With the NULLs left out the leading column has none.
        let key: Vec<PgKeyColumn> = match self.key(phase) {
            [first, rest @ ..] if phase == PagePhase::Values => {
                std::iter::once(PgKeyColumn { nullable: false, ..first.clone() }).chain(rest.iter().cloned()).collect()
            }
            key => key.to_vec(),
        };
        sql::served_page(&self.plan, &ServedPage { key: &key, leading, after, limit, ties })
    }
}

impl ServedReader {
    async fn next(&mut self) -> Result<Option<Batch>, SourceError> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            if self.phase == PagePhase::Ended {
                return Ok(None);
            }
            match self.left() {
                Some(0) => self.probe().await?,
                left => self.page(left).await?,
            }
        }
    }

    /// Rows that the cap leaves.
    fn left(&self) -> Option<u64> {
        self.cap.map(|cap| cap.get().saturating_sub(self.rows))
    }

    /// Reads one page into memory.
    async fn page(&mut self, left: Option<u64>) -> Result<(), SourceError> {
        // With nothing to go on by, all rows are one page.
        let keyless = self.serving.key(self.phase).is_empty();
        let mut asked = self.page_rows;
        loop {
            // The last page asks for one row more than there may be, and nothing follows on it.
            let probing = left.filter(|left| asked >= *left || keyless).map(|left| left.saturating_add(1));
            let limit = if keyless { probing } else { Some(probing.unwrap_or(asked)) };
            let ties = !self.serving.unique() && probing.is_none() && !failpoint::off("ties");
            let mut batches = Vec::new();
            let end = self.read(limit, ties, left, &mut batches).await?;
            if end.cut && !self.serving.unique() {
                // Where among the rows that came the key changes, only the server can tell.
                if asked == 1 || keyless {
                    return Err(self.not_selective());
                }
                asked = (end.rows.min(asked) / FEWER).max(1);
                continue;
            }
            let beyond = batches.iter().any(|batch| batch.beyond_cap);
            let full = end.cut || limit.is_some_and(|limit| end.rows >= limit);
            self.rows = self.rows.saturating_add(end.rows);
            self.take(batches)?;
            self.page_rows = self.rows_for(&end);
            if beyond {
                self.phase = PagePhase::Ended;
            } else if full {
                self.last = end.last;
            } else {
                self.end_phase();
            }
            return Ok(());
        }
    }

    /// Goes on to the rows without a leading key, where there can be any.
    fn end_phase(&mut self) {
        let nullable = self.serving.plan.key.first().is_some_and(|column| column.nullable);
        self.phase = if self.phase == PagePhase::Values && nullable { PagePhase::Nulls } else { PagePhase::Ended };
        self.last = None;
    }

    /// Rows for the next page, by how large those of this one were.
    fn rows_for(&self, end: &PageEnd) -> u64 {
        let Some(each) = end.bytes.checked_div(end.rows) else { return self.page_rows };
        let budget = self.serving.served.page_bytes.get() / 100 * FILL_PERCENT;
        (budget / each.max(1)).clamp(1, self.serving.pages.size.get())
    }

    /// Reads a page up to its end, or until it has too many bytes.
    async fn read(
        &self,
        limit: Option<u64>,
        ties: bool,
        left: Option<u64>,
        batches: &mut Vec<Batch>,
    ) -> Result<PageEnd, SourceError> {
        let Serving { plan, watch, served, what, pages, .. } = &self.serving;
        let session = self.serving.session().await?;
        if let Err(error) = pages.begin(&session, what).await {
            session.discard();
            return Err(self.serving.explained(error).await);
        }
        let key = self.serving.key(self.phase);
        let columns = page_columns(plan, key);
        let row_key = RowKey::of_pages(&plan.columns, &plan.row_key, key);
        let select = self.serving.statement(self.phase, self.last.as_ref(), limit, ties);
        let cap = left.and_then(NonZeroU64::new);
        let (statement, watching) = (sql::copy(&select), Arc::clone(watch));
        let copy = Copy::start(session, watching, &statement, &columns, row_key, cap, what.clone()).await?;
        let mut copy = copy.with_rows_of_at_most(served.max_row_bytes);
        let mut end = PageEnd { rows: 0, bytes: 0, cut: false, last: None };
        loop {
            let batch = match copy.next().await {
                Ok(batch) => batch,
                Err(error) => {
                    drop(copy);
                    return Err(self.serving.explained(error).await);
                }
            };
            let Some(batch) = batch else { break };
            end.rows = end.rows.saturating_add(batch.rows.num_rows() as u64);
            end.bytes = copy.bytes();
            end.last = last_key(&batch, plan.columns.len()).or(end.last);
            batches.push(batch);
            // What came last may be all there was, and one row is a page, however large.
            let more = end.rows > 1 && !copy.has_ended();
            if more && end.bytes > served.page_bytes.get() && !failpoint::off("page_bytes") {
                end.cut = true;
                // Dropped, it stops the statement; its session is of no more use.
                return Ok(end);
            }
        }
        if let Some(session) = copy.into_session() {
            session.batch("ending a page", "COMMIT").await?;
        }
        Ok(end)
    }

    /// Hands the rows of a page out, without their key.
    fn take(&mut self, batches: Vec<Batch>) -> Result<(), SourceError> {
        let width = self.serving.plan.columns.len();
        for batch in batches {
            let batch = without_key(&batch, width, &self.serving.what)?;
            self.schema = Some(batch.rows.schema());
            self.ready.push_back(batch);
        }
        Ok(())
    }

    /// Looks whether there is a row beyond the cap, where the rows so far came to it exactly.
    async fn probe(&mut self) -> Result<(), SourceError> {
        let session = self.serving.session().await?;
        self.serving.pages.begin(&session, &self.serving.what).await?;
        let one = self.serving.statement(self.phase, self.last.as_ref(), Some(1), false);
        let sql = closed("SELECT EXISTS (SELECT FROM (") + &format!("\n{one}\n") + ") AS beyond)";
        let rows = query(&session, "looking for a row beyond the cap", &sql, &[]).await?;
        let beyond = rows.first().map_or(Ok(false), |row| value(row, 0))?;
        session.batch("ending a page", "COMMIT").await?;
        drop(session);
        match (beyond, self.schema.clone()) {
            (true, Some(schema)) => {
                let rows = RecordBatch::new_empty(schema);
                self.ready.push_back(Batch { rows, changed: Box::default(), beyond_cap: true, is_followed: false });
                self.phase = PagePhase::Ended;
            }
            (true, None) => return Err(SourceError::new(SourceFault::Protocol, "a cap of no rows")),
            (false, _) => self.end_phase(),
        }
        Ok(())
    }

    fn not_selective(&self) -> SourceError {
        let names: Vec<&str> = self.serving.key(self.phase).iter().map(|column| column.name.as_str()).collect();
        let key = if names.is_empty() { "a NULL key".to_owned() } else { format!("one value of {}", names.join(", ")) };
        let bytes = self.serving.served.page_bytes;
        let message = format!("the rows that share {key} do not fit into a page of {bytes}B");
        SourceError::new(SourceFault::Data, message)
            .with_reason(ErrorCode::KeyNotSelective)
            .with_hint("give the dataset a key that fewer rows share")
    }
}
