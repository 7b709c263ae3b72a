//! Keyset reads: pages in key order, a short transaction each, for poolers that forbid long ones.
//!
//! There is no one moment: a row that changes its key while the export runs may be missed or come twice, which the
//! manifest says (`consistency.mode = keyset`).

use std::num::NonZeroU64;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::record_batch::RecordBatch;
use futures_util::{StreamExt, stream};
use tokio_postgres::types::Type;

use super::catalog::{Found, query};
use super::connect::Session;
use super::copy::Copy;
use super::error::{SourceError, SourceFault};
use super::session::{Begin, begin, identifier};
use super::sql;
use crate::plan::{Carrier, ColumnOrigin, ColumnPlan, KeyValue, Partition, Plan, Wire};
use crate::source::BatchStream;

/// What every page of a run has in common.
#[derive(Debug, Clone)]
pub(crate) struct Pages {
    size: NonZeroU64,
    relation: Option<u32>,
    fingerprint: String,
}

impl Pages {
    pub(crate) async fn new(session: &Session, found: Option<&Found>, size: NonZeroU64) -> Result<Self, SourceError> {
        let relation = found.map(|found| found.oid);
        let fingerprint = fingerprint(session, relation).await?;
        Ok(Self { size, relation, fingerprint })
    }

    /// Reads the partition page by page.
    pub(crate) fn open(&self, session: Session, plan: Arc<Plan>, partition: Partition, what: String) -> BatchStream {
        let reader = PageReader::new(self.clone(), session, plan, partition, what);
        stream::try_unfold(reader, |mut reader| async move { Ok(reader.next().await?.map(|batch| (batch, reader))) })
            .boxed()
    }
}

/// Types and order of the columns: a page read after a change of them would be decoded as something else.
async fn fingerprint(session: &Session, relation: Option<u32>) -> Result<String, SourceError> {
    let Some(relation) = relation else { return Ok(String::new()) };
    let sql = "SELECT COALESCE(pg_catalog.string_agg(attname || ' ' || atttypid || ' ' || atttypmod, ',' ORDER BY attnum), '') \
        FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped";
    let rows = query(session, "checking the columns", sql, &[(&relation, Type::OID)]).await?;
    Ok(rows.first().map_or(String::new(), |row| row.get(0)))
}

#[derive(Debug)]
struct PageReader {
    pages: Pages,
    plan: Arc<Plan>,
    partition: Partition,
    what: String,
    /// The planned columns, then the key as text.
    columns: Arc<[ColumnPlan]>,
    session: Option<Session>,
    copy: Option<Copy>,
    last: Option<KeyValue>,
    page_rows: u64,
    rows: u64,
}

impl PageReader {
    fn new(pages: Pages, session: Session, plan: Arc<Plan>, partition: Partition, what: String) -> Self {
        let key = plan.key.iter().map(|column| ColumnPlan {
            name: column.name.clone(),
            origin: ColumnOrigin::Column(column.name.clone()),
            pg_type: column.pg_type.clone(),
            wire: Wire::OutputText,
            carrier: Carrier::Text,
            nullable: true,
            policy: "lossless",
            note: None,
            statistics: crate::plan::ColumnStatistics::default(),
        });
        let columns = plan.columns.iter().cloned().chain(key).collect();
        let session = Some(session);
        Self { pages, plan, partition, what, columns, session, copy: None, last: None, page_rows: 0, rows: 0 }
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>, SourceError> {
        loop {
            if self.copy.is_none() {
                let limit = self.limit();
                if limit == 0 {
                    return Ok(None);
                }
                self.turn(limit).await?;
            }
            let Some(copy) = &mut self.copy else { return Ok(None) };
            if let Some(batch) = copy.next().await? {
                return self.take(&batch).map(Some);
            }
            let session = self.copy.take().and_then(Copy::into_session);
            let full = self.page_rows >= self.pages.size.get();
            if let Some(session) = session {
                session.batch("ending a page", "COMMIT").await?;
                if !full {
                    return Ok(None);
                }
                self.session = Some(session);
            }
        }
    }

    fn limit(&self) -> u64 {
        let left = self.partition.row_limit.map_or(u64::MAX, |limit| limit.get().saturating_sub(self.rows));
        self.pages.size.get().min(left)
    }

    async fn turn(&mut self, limit: u64) -> Result<(), SourceError> {
        let gone = || SourceError::new(SourceFault::Unavailable, format!("reading {}: the session is gone", self.what));
        let session = self.session.take().ok_or_else(gone)?;
        begin(&session, Begin::Latest, "outhaul/page").await?;
        if fingerprint(&session, self.pages.relation).await? != self.pages.fingerprint {
            let message = format!("reading {}: the columns changed between two pages", self.what);
            return Err(SourceError::new(SourceFault::SchemaChanged, message));
        }
        let key: Vec<String> =
            self.plan.key.iter().map(|column| format!("{}::text", identifier(&column.name))).collect();
        let page = Partition { ordered: true, row_limit: NonZeroU64::new(limit), ..self.partition.clone() };
        let statement = sql::copy(&sql::select(&self.plan, &page, &key, self.last.as_ref()));
        self.page_rows = 0;
        self.copy = Some(Copy::start(session, &statement, &self.columns, self.what.clone()).await?);
        Ok(())
    }

    /// Remembers the last key and cuts the key columns off.
    fn take(&mut self, batch: &RecordBatch) -> Result<RecordBatch, SourceError> {
        let rows = batch.num_rows();
        let width = self.plan.columns.len();
        if let Some(last) = rows.checked_sub(1) {
            let value = |column: &arrow::array::ArrayRef| {
                (!column.is_null(last)).then(|| column.as_string::<i32>().value(last).to_owned())
            };
            self.last = Some(batch.columns()[width..].iter().map(value).collect());
        }
        let rows = rows as u64;
        self.page_rows += rows;
        self.rows += rows;
        let wanted: Vec<usize> = (0..width).collect();
        batch.project(&wanted).map_err(|error| {
            SourceError::new(SourceFault::Protocol, format!("reading {}", self.what)).with_source(error)
        })
    }
}
