//! PostgreSQL as a [`Source`]: how to connect, and the ways in.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::decide;
use super::kept::{PgRecord, SnapshotKeeper};
use super::listing::list;
use super::plan::{check_expression, check_predicate, check_query};
use super::reader::PostgresReading;
use super::recount::recount;
use super::resumed::resume;
use super::scope;
use super::settings::ConnectSettings;
use crate::model::{ListedRelation, Plan, ReadRequest, RelationRequest, RowScope, ShapeOptions, SourceKind};
use crate::source::{Begun, Keeper, Reading, RecountRequest, Recounted, Source, SourceError, SourceFault};

/// A PostgreSQL server that can be connected to.
#[derive(Debug, Clone)]
pub struct Postgres {
    pub(crate) connect: ConnectSettings,
}

impl Postgres {
    /// The server at the end of these settings. Nothing is connected yet.
    pub fn new(connect: ConnectSettings) -> Self {
        Self { connect }
    }
}

impl Source for Postgres {
    fn kind(&self) -> SourceKind {
        SourceKind::Postgresql
    }

    fn check(&self, shape: &mut ShapeOptions) -> Result<(), SourceError> {
        if let RelationRequest::Query(query) = &mut shape.relation {
            *query = check_query(query)?;
        }
        if let Some(predicate) = &shape.predicate {
            check_predicate(predicate)?;
        }
        for (name, text) in &shape.expressions {
            check_expression(name, text)?;
        }
        Ok(())
    }

    fn plan(&self, requests: Vec<ReadRequest>) -> BoxFuture<'_, Result<Vec<Plan>, SourceError>> {
        async move {
            let request = only(requests)?;
            let (_planning, plan) = decide::begin(&self.connect, &request).await?;
            Ok(vec![plan.told(&request)?])
        }
        .boxed()
    }

    fn begin(&self, requests: Vec<ReadRequest>) -> BoxFuture<'_, Result<Arc<dyn Reading>, SourceError>> {
        async move {
            let request = only(requests)?;
            let (planning, plan) = decide::begin(&self.connect, &request).await?;
            let reading = PostgresReading::new(planning, plan, &request).await?;
            Ok(Arc::new(reading) as Arc<dyn Reading>)
        }
        .boxed()
    }

    fn resume(&self, requests: Vec<ReadRequest>, begun: Begun) -> BoxFuture<'_, Result<Arc<dyn Reading>, SourceError>> {
        async move {
            let reading = Box::pin(resume(&self.connect, &only(requests)?, &begun)).await?;
            Ok(Arc::new(reading) as Arc<dyn Reading>)
        }
        .boxed()
    }

    fn keep(&self, run_id: String, begun: Begun) -> Option<BoxFuture<'_, Result<Box<dyn Keeper>, SourceError>>> {
        let keeper = async move {
            let record = PgRecord::read(&begun.record)?.server;
            let keeper = SnapshotKeeper::begin(&self.connect, &record, &begun.held, &run_id).await?;
            Ok(Box::new(keeper) as Box<dyn Keeper>)
        };
        Some(keeper.boxed())
    }

    fn recount(&self, request: RecountRequest) -> Option<BoxFuture<'_, Result<Recounted, SourceError>>> {
        Some(async move { recount(&self.connect, &request).await }.boxed())
    }

    fn predicate(&self, scope: &RowScope) -> Result<Option<String>, SourceError> {
        Ok(scope::predicate(scope)?)
    }

    fn list(&self) -> Option<BoxFuture<'_, Result<Vec<ListedRelation>, SourceError>>> {
        Some(list(&self.connect).boxed())
    }
}

/// The one request of a run: several relations under one snapshot are not read yet.
fn only(requests: Vec<ReadRequest>) -> Result<ReadRequest, SourceError> {
    match <[ReadRequest; 1]>::try_from(requests) {
        Ok([request]) => Ok(request),
        Err(several) => {
            let message = format!("a run reads one relation, and {} were asked for", several.len());
            Err(SourceError::new(SourceFault::Usage, message))
        }
    }
}
