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
use super::statement;
use super::untranslatable::{self, FailedRead};
use super::watch::Watch;
use crate::base::text::key;
use crate::model::{Carrier, KeyValue};
use crate::source::postgres::plan::{PgColumn, PgKeyColumn, PgPartition, PgPlan, PgType, TypeKind, Wire, oid};
use crate::source::{Batch, BatchStream, SourceError, SourceFault};

/// What every page of a run has in common.
#[derive(Debug, Clone)]
pub(crate) struct Pages {
    pub(super) size: NonZeroU64,
    /// The relation's name; a query has none.
    pub(super) name: Option<String>,
    /// The query, where pages of one are served.
    query: Option<String>,
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
        let application = format!("{application}/reader");
        Ok(Self { size, name, query: None, fingerprint, application, sql_ascii })
    }

    /// The same of a query, whose columns are compared as the server describes them.
    pub(super) async fn of_query(self, session: &Session, query: &str) -> Result<Self, SourceError> {
        let fingerprint = fingerprint_of_query(session, query).await?;
        Ok(Self { query: Some(query.to_owned()), fingerprint, ..self })
    }

    /// Begins the transaction of a page.
    ///
    /// # Errors
    /// [`SourceFault::SchemaChanged`] where a page would be decoded as something else than the ones before it.
    pub(super) async fn begin(&self, session: &Session, what: &str) -> Result<(), SourceError> {
        begin(session, Begin::Latest, &self.application).await?;
        let found = match &self.query {
            Some(query) => fingerprint_of_query(session, query).await?,
            None => fingerprint(session, self.name.as_deref()).await?,
        };
        if found == self.fingerprint {
            return if self.sql_ascii { send_text_as_stored(session).await } else { Ok(()) };
        }
        let message = format!("reading {what}: the table or its columns changed between two pages");
        Err(SourceError::new(SourceFault::SchemaChanged, message))
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

/// What the name means, and the types, collations and order of its columns: a page read after a change of them would be
/// decoded as something else, or begin at another place.
async fn fingerprint(session: &Session, name: Option<&str>) -> Result<String, SourceError> {
    let Some(name) = name else { return Ok(String::new()) };
    let sql = closed(
        "SELECT COALESCE(pg_catalog.string_agg( \
            attrelid || ' ' || attname || ' ' || atttypid || ' ' || atttypmod || ' ' || attcollation, ',' \
            ORDER BY attnum), '') \
        FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass($1) AND attnum > 0 AND NOT attisdropped",
    );
    let rows = query(session, "checking the columns", &sql, &[(&name, Type::TEXT)]).await?;
    rows.first().map_or(Ok(String::new()), |row| value(row, 0))
}

async fn fingerprint_of_query(session: &Session, query: &str) -> Result<String, SourceError> {
    let columns = statement::describe(session, "checking the columns", query).await?;
    Ok(format!("{columns:?}"))
}

/// The planned columns of a page, then its key as text.
pub(super) fn page_columns(plan: &PgPlan, key: &[PgKeyColumn]) -> Arc<[PgColumn]> {
    let bytes = |column: &PgKeyColumn| {
        // Its bytes, which in a `SQL_ASCII` database need not be UTF-8.
        let (oid, name) = (oid::TEXT, "text".to_owned());
        let text = PgType { oid, base_oid: oid, typmod: None, name, kind: TypeKind::Base };
        PgColumn::plain(&column.name, text, Wire::Binary, Carrier::Bytes)
    };
    plan.columns.iter().cloned().chain(key.iter().map(bytes)).collect()
}

/// The key of the last row of a batch, which stands behind so many columns.
pub(super) fn last_key(batch: &Batch, width: usize) -> Option<KeyValue> {
    let last = batch.rows.num_rows().checked_sub(1)?;
    let value = |column: &arrow::array::ArrayRef| {
        (!column.is_null(last)).then(|| key::kept(column.as_binary::<i32>().value(last)))
    };
    Some(batch.rows.columns().get(width..)?.iter().map(value).collect())
}

/// A batch without the key that stands behind so many columns.
pub(super) fn without_key(batch: &Batch, width: usize, what: &str) -> Result<Batch, SourceError> {
    let wanted: Vec<usize> = (0..width).collect();
    let rows = batch
        .rows
        .project(&wanted)
        .map_err(|error| SourceError::new(SourceFault::Protocol, format!("reading {what}")).with_source(error))?;
    // The key's own columns have no policy; where no column has one, nothing was counted.
    let changed = batch.changed.get(..width).unwrap_or_default().into();
    Ok(Batch { rows, changed, beyond_cap: batch.beyond_cap, is_followed: false })
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
        let columns = page_columns(&plan, &plan.key);
        let session = Some(session);
        Self { pages, watch, plan, partition, what, columns, session, copy: None, last: None, page_rows: 0, rows: 0 }
    }

    async fn next(&mut self) -> Result<Option<Batch>, SourceError> {
        loop {
            if self.copy.is_none() {
                if self.left() == Some(0) {
                    return Ok(None);
                }
                self.turn().await?;
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

    /// Rows that the cap leaves.
    fn left(&self) -> Option<u64> {
        self.partition.row_limit.map(|cap| cap.get().saturating_sub(self.rows))
    }

    async fn turn(&mut self) -> Result<(), SourceError> {
        let gone = || SourceError::new(SourceFault::Unavailable, format!("reading {}: the session is gone", self.what));
        let session = self.session.take().ok_or_else(gone)?;
        if let Err(error) = self.pages.begin(&session, &self.what).await {
            // It is in the middle of a transaction, which the pool would not know.
            session.discard();
            return Err(error);
        }
        let (size, left) = (self.pages.size.get(), self.left());
        // The last page under a cap asks for one row more, which is not decoded and shows whether there is one.
        let limit = left.filter(|left| *left <= size).map_or(size, |left| left.saturating_add(1));
        let statement = sql::copy(&sql::page(&self.plan, &self.partition, self.last.as_ref(), limit));
        self.page_rows = 0;
        let key = RowKey::of_pages(&self.plan.columns, &self.plan.row_key, &self.plan.key);
        let cap = left.and_then(NonZeroU64::new);
        self.copy = Some(
            Copy::start(session, Arc::clone(&self.watch), &statement, &self.columns, key, cap, self.what.clone())
                .await?,
        );
        Ok(())
    }

    /// Remembers the last key and cuts the key columns off.
    fn take(&mut self, batch: &Batch) -> Result<Batch, SourceError> {
        let width = self.plan.columns.len();
        self.last = last_key(batch, width).or_else(|| self.last.take());
        let rows = batch.rows.num_rows() as u64;
        self.page_rows += rows;
        self.rows += rows;
        without_key(batch, width, &self.what)
    }
}
