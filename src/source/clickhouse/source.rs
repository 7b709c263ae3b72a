//! ClickHouse as a [`Source`].

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::columns::usage;
use super::joined::join;
use super::lexer;
use super::listing::list;
use super::prepare::{Prepared, prepare};
use super::reading::{ChRecord, ClickHouseReading};
use super::recount::recount;
use super::scope;
use super::served;
use super::verbatim::{self, VerbatimReading};
use crate::base::postgres::settings::{ConnectSettings, Password, Secret};
use crate::model::{
    AggregateRequest, Aggregated, CountedRows, DescribedRelation, ListedRelation, Plan, ReadRequest, RelationRequest,
    RowScope, ServedRequest, ShapeOptions, SourceKind, TenantScope,
};
use crate::source::{Begun, Reading, RecountRequest, Recounted, Source, SourceError, SourceFault};

/// A ClickHouse server that can be asked over HTTP.
#[derive(Debug, Clone)]
pub struct ClickHouse {
    connect: ConnectSettings,
}

impl ClickHouse {
    /// The server at the end of these settings, whose first address counts. Nothing is connected yet.
    pub fn new(connect: ConnectSettings) -> Self {
        Self { connect }
    }

    /// The reading of a request for the server's own bytes; `None` where rows are asked for.
    async fn verbatim(&self, requests: &[ReadRequest]) -> Result<Option<VerbatimReading>, SourceError> {
        match requests {
            [request] if verbatim::is_wanted(request) => {
                Box::pin(VerbatimReading::begin(&self.connect, request)).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    async fn resumed(&self, requests: Vec<ReadRequest>, begun: Begun) -> Result<Arc<dyn Reading>, SourceError> {
        if let Some(verbatim) = self.verbatim(&requests).await? {
            return Ok(Arc::new(verbatim));
        }
        let record = ChRecord::read(&begun.record)?;
        let (prepared, request) = prepared(&record.plan.at_its_database(&self.connect), requests).await?;
        // A table of another server is another one, and nothing is wrong with the run.
        record.plan.same_server(&prepared.plan.host, prepared.plan.server_uuid.as_deref())?;
        record.plan.same_eyes(prepared.plan.eyes.as_ref())?;
        record.plan.same_relation(&prepared.plan.relation, &prepared.plan.columns)?;
        Ok(Arc::new(ClickHouseReading::new(prepared, request, Some(record))))
    }
}

async fn prepared(
    connect: &ConnectSettings,
    requests: Vec<ReadRequest>,
) -> Result<(Prepared, ReadRequest), SourceError> {
    let request = only(requests)?;
    let prepared = Box::pin(prepare(connect, &request)).await?;
    Ok((prepared, request))
}

/// The one request of a run.
fn only(requests: Vec<ReadRequest>) -> Result<ReadRequest, SourceError> {
    match <[ReadRequest; 1]>::try_from(requests) {
        Ok([request]) => Ok(request),
        Err(_) => Err(usage(
            "the tables of a ClickHouse server have no moment in common, so one cannot be read together with another",
            "write snapshot = \"export\" at the top of the job file: then each export is read by itself",
        )),
    }
}

impl Source for ClickHouse {
    fn kind(&self) -> SourceKind {
        SourceKind::Clickhouse
    }

    fn check(&self, shape: &mut ShapeOptions) -> Result<(), SourceError> {
        if let RelationRequest::Query(query) = &mut shape.relation {
            let says = lexer::statement(query)
                .map_err(|why| SourceError::new(SourceFault::Usage, format!("--query: {why}")))?;
            // With a FORMAT it is sent as it is, or refused once it is known what is asked for.
            if says.format.is_none() {
                *query = lexer::check("--query", query)?.to_owned();
            }
        }
        if let Some(predicate) = &shape.predicate {
            lexer::check("--where", predicate)?;
        }
        for (name, text) in &shape.expressions {
            lexer::check(&format!("--column {name}"), text)?;
        }
        Ok(())
    }

    fn plan(&self, requests: Vec<ReadRequest>) -> BoxFuture<'_, Result<Vec<Plan>, SourceError>> {
        async move {
            if let Some(verbatim) = self.verbatim(&requests).await? {
                return Ok(vec![verbatim.planned()]);
            }
            let (prepared, request) = prepared(&self.connect, requests).await?;
            Ok(vec![prepared.plan.told(&request, prepared.session.sent())])
        }
        .boxed()
    }

    fn begin(&self, requests: Vec<ReadRequest>) -> BoxFuture<'_, Result<Arc<dyn Reading>, SourceError>> {
        async move {
            if let Some(verbatim) = self.verbatim(&requests).await? {
                return Ok(Arc::new(verbatim) as Arc<dyn Reading>);
            }
            let (prepared, request) = prepared(&self.connect, requests).await?;
            Ok(Arc::new(ClickHouseReading::new(prepared, request, None)) as Arc<dyn Reading>)
        }
        .boxed()
    }

    fn resume(&self, requests: Vec<ReadRequest>, begun: Begun) -> BoxFuture<'_, Result<Arc<dyn Reading>, SourceError>> {
        self.resumed(requests, begun).boxed()
    }

    fn takes_workers(&self) -> bool {
        true
    }

    fn join(
        &self,
        request: ReadRequest,
        begun: Begun,
        most: NonZeroUsize,
    ) -> BoxFuture<'_, Result<Arc<dyn Reading>, SourceError>> {
        async move { Ok(Arc::new(Box::pin(join(&self.connect, request, &begun, most)).await?) as Arc<dyn Reading>) }
            .boxed()
    }

    fn recount(&self, request: RecountRequest) -> Option<BoxFuture<'_, Result<Recounted, SourceError>>> {
        Some(async move { recount(&self.connect, &request).await }.boxed())
    }

    fn writes_itself(&self) -> bool {
        true
    }

    fn as_user(&self, user: String, password: Secret) -> Option<Arc<dyn Source>> {
        let connect = ConnectSettings { user, password: Some(Password::Known(password)), ..self.connect.clone() };
        Some(Arc::new(Self { connect }))
    }

    fn predicate(&self, scope: &RowScope) -> Result<Option<String>, SourceError> {
        Ok(scope::predicate(scope)?)
    }

    fn without_rows(&self, tenant: Option<&TenantScope>) -> Result<String, SourceError> {
        Ok(scope::without_rows(tenant)?)
    }

    fn describe(&self, request: ServedRequest) -> Option<BoxFuture<'_, Result<DescribedRelation, SourceError>>> {
        Some(served::describe(&self.connect, request).boxed())
    }

    fn estimate(
        &self,
        request: ServedRequest,
        up_to: NonZeroU64,
    ) -> Option<BoxFuture<'_, Result<CountedRows, SourceError>>> {
        Some(served::estimate(&self.connect, request, up_to).boxed())
    }

    fn aggregate(&self, request: AggregateRequest) -> Option<BoxFuture<'_, Result<Aggregated, SourceError>>> {
        Some(served::aggregate(&self.connect, request).boxed())
    }

    fn list(&self) -> Option<BoxFuture<'_, Result<Vec<ListedRelation>, SourceError>>> {
        Some(list(&self.connect).boxed())
    }
}
