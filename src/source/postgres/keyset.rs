//! Keyset reads: pages in key order, a short transaction each, for poolers that forbid long ones.
//!
//! There is no one moment: a row that changes its key while the export runs may be missed or come twice, which the
//! manifest says (`consistency.mode = keyset`).

use std::num::NonZeroU64;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use futures_util::{StreamExt, stream};
use tokio_postgres::types::Type;

use super::catalog::{CatalogRelation, query, value};
use super::closed::closed;
use super::connect::Session;
use super::copy::Copy;
use super::decode::RowKey;
use super::session::{Begin, begin, send_text_as_stored};
use super::sql;
use super::untranslatable::{self, FailedRead};
use super::watch::Watch;
use crate::base::text::key;
use crate::model::{Carrier, KeyValue};
use crate::source::postgres::plan::{PgColumn, PgKeyColumn, PgPartition, PgPlan, PgType, TypeKind, Wire, oid};
use crate::source::{Batch, BatchStream, SourceError, SourceFault};

/// What every page of a run has in common.
#[derive(Debug, Clone)]
pub(crate) struct Pages {
    size: NonZeroU64,
    /// The relation's name; a query has none, and is not read by pages.
    name: Option<String>,
    fingerprint: String,
    application: String,
    /// Whether the database's encoding is `SQL_ASCII`.
    sql_ascii: bool,
}

impl Pages {
    pub(crate) async fn new(
        session: &Session,
        found: Option<&CatalogRelation>,
        size: NonZeroU64,
        application: &str,
        sql_ascii: bool,
    ) -> Result<Self, SourceError> {
        let name = found.map(CatalogRelation::sql_name);
        let fingerprint = fingerprint(session, name.as_deref()).await?;
        Ok(Self { size, name, fingerprint, application: format!("{application}/reader"), sql_ascii })
    }

    /// Reads the partition page by page.
    pub(crate) fn open(
        &self,
        session: Session,
        watch: Arc<Watch>,
        plan: Arc<PgPlan>,
        partition: PgPartition,
        what: String,
    ) -> BatchStream {
        let reader = PageReader::new(self.clone(), session, watch, plan, partition, what);
        stream::try_unfold(reader, |mut reader| async move { Ok(reader.next().await?.map(|batch| (batch, reader))) })
            .boxed()
    }
}

/// What the name means, and the types and order of its columns: a page read after a change of them would be decoded as
/// something else.
async fn fingerprint(session: &Session, name: Option<&str>) -> Result<String, SourceError> {
    let Some(name) = name else { return Ok(String::new()) };
    let sql = closed(
        "SELECT COALESCE(pg_catalog.string_agg(attrelid || ' ' || attname || ' ' || atttypid || ' ' || atttypmod, ',' \
            ORDER BY attnum), '') \
        FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass($1) AND attnum > 0 AND NOT attisdropped",
    );
    let rows = query(session, "checking the columns", &sql, &[(&name, Type::TEXT)]).await?;
    rows.first().map_or(Ok(String::new()), |row| value(row, 0))
}

#[derive(Debug)]
struct PageReader {
    pages: Pages,
    watch: Arc<Watch>,
    plan: Arc<PgPlan>,
    partition: PgPartition,
    what: String,
    /// The planned columns, then the key as text.
    columns: Arc<[PgColumn]>,
    session: Option<Session>,
    copy: Option<Copy>,
    last: Option<KeyValue>,
    page_rows: u64,
    rows: u64,
}

impl PageReader {
    fn new(
        pages: Pages,
        session: Session,
        watch: Arc<Watch>,
        plan: Arc<PgPlan>,
        partition: PgPartition,
        what: String,
    ) -> Self {
        let bytes = |column: &PgKeyColumn| {
            // Its bytes, which in a `SQL_ASCII` database need not be UTF-8.
            let (oid, name) = (oid::TEXT, "text".to_owned());
            let text = PgType { oid, base_oid: oid, typmod: None, name, kind: TypeKind::Base };
            PgColumn::plain(&column.name, text, Wire::Binary, Carrier::Bytes)
        };
        let key = plan.key.iter().map(bytes);
        let columns = plan.columns.iter().cloned().chain(key).collect();
        let session = Some(session);
        Self { pages, watch, plan, partition, what, columns, session, copy: None, last: None, page_rows: 0, rows: 0 }
    }

    async fn next(&mut self) -> Result<Option<Batch>, SourceError> {
        loop {
            if self.copy.is_none() {
                let limit = self.limit();
                if limit == 0 {
                    return Ok(None);
                }
                self.turn(limit).await?;
            }
            let Some(copy) = &mut self.copy else { return Ok(None) };
            match copy.next().await {
                Ok(Some(batch)) => return self.take(&batch).map(Some),
                Ok(None) => {}
                Err(error) => {
                    let rows = copy.refused_after();
                    self.copy = None;
                    return Err(self.explained(error, rows).await);
                }
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

    /// An error of a page, with who is in the way, or with the column and the row.
    async fn explained(&self, error: SourceError, rows: Option<u64>) -> SourceError {
        let error = self.watch.explain(error, self.pages.name.as_deref()).await;
        let Some(rows) = rows else { return error };
        let page = PgPartition { ordered: true, ..self.partition.clone() };
        let reading = FailedRead {
            plan: &self.plan,
            partition: &page,
            page: true,
            after: self.last.as_ref(),
            rows,
            what: &self.what,
        };
        untranslatable::explain(error, &self.watch, reading).await
    }

    fn limit(&self) -> u64 {
        let left = self.partition.row_limit.map_or(u64::MAX, |limit| limit.get().saturating_sub(self.rows));
        self.pages.size.get().min(left)
    }

    async fn turn(&mut self, limit: u64) -> Result<(), SourceError> {
        let gone = || SourceError::new(SourceFault::Unavailable, format!("reading {}: the session is gone", self.what));
        let session = self.session.take().ok_or_else(gone)?;
        if let Err(error) = self.begin(&session).await {
            // It is in the middle of a transaction, which the pool would not know.
            session.discard();
            return Err(error);
        }
        let texts = sql::key_texts(&self.plan.key);
        let page = PgPartition { ordered: true, row_limit: NonZeroU64::new(limit), ..self.partition.clone() };
        let statement = sql::copy(&sql::select(&self.plan, &page, &texts, self.last.as_ref()));
        self.page_rows = 0;
        let key = RowKey::of_pages(&self.plan.columns, &self.plan.row_key, &self.plan.key);
        self.copy = Some(
            Copy::start(session, Arc::clone(&self.watch), &statement, &self.columns, key, None, self.what.clone())
                .await?,
        );
        Ok(())
    }

    async fn begin(&self, session: &Session) -> Result<(), SourceError> {
        begin(session, Begin::Latest, &self.pages.application).await?;
        if fingerprint(session, self.pages.name.as_deref()).await? == self.pages.fingerprint {
            return if self.pages.sql_ascii { send_text_as_stored(session).await } else { Ok(()) };
        }
        let message = format!("reading {}: the table or its columns changed between two pages", self.what);
        Err(SourceError::new(SourceFault::SchemaChanged, message))
    }

    /// Remembers the last key and cuts the key columns off.
    fn take(&mut self, batch: &Batch) -> Result<Batch, SourceError> {
        let rows = batch.rows.num_rows();
        let width = self.plan.columns.len();
        if let Some(last) = rows.checked_sub(1) {
            let value = |column: &arrow::array::ArrayRef| {
                (!column.is_null(last)).then(|| key::kept(column.as_binary::<i32>().value(last)))
            };
            self.last = Some(batch.rows.columns()[width..].iter().map(value).collect());
        }
        let rows = rows as u64;
        self.page_rows += rows;
        self.rows += rows;
        let wanted: Vec<usize> = (0..width).collect();
        let rows = batch.rows.project(&wanted).map_err(|error| {
            SourceError::new(SourceFault::Protocol, format!("reading {}", self.what)).with_source(error)
        })?;
        // The key's own columns have no policy; where no column has one, nothing was counted.
        let changed = batch.changed.get(..width).unwrap_or_default().into();
        Ok(Batch { rows, changed, beyond_cap: batch.beyond_cap })
    }
}
