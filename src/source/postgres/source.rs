//! PostgreSQL as a [`Source`]: how to connect, and the ways in.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::connect::Sessions;
use super::decide;
use super::joined;
use super::kept::{self, SnapshotKeeper};
use super::listing::list;
use super::plan::locks::CONTROL_SESSIONS;
use super::plan::{PgPlan, check_expression, check_predicate, check_query};
use super::prepare::{Planning, application};
use super::reader::PostgresReading;
use super::recount::recount;
use super::resumed::{resume, resume_together};
use super::scope;
use super::served;
use super::several;
use super::shared::RunTerms;
use crate::base::postgres::settings::ConnectSettings;
use crate::model::{
    AggregateRequest, Aggregated, CountedRows, DescribedRelation, ListedRelation, Plan, ReadRequest, RelationRequest,
    RowScope, ServedReads, ServedRequest, ShapeOptions, SourceKind, TenantScope,
};
use crate::source::{Begun, Keeper, Reading, RecountRequest, Recounted, Source, SourceError, SourceFault};

/// Connections that all served runs share, unless said otherwise.
const SERVED_CONNECTIONS: NonZeroUsize = match NonZeroUsize::new(8) {
    Some(connections) => connections,
    None => NonZeroUsize::MIN,
};

/// How the sessions of served runs are called until a run has one of them.
const SERVING: &str = "outhaul/serve";

/// A PostgreSQL server that can be connected to.
#[derive(Debug, Clone)]
pub struct Postgres {
    pub(crate) connect: ConnectSettings,
    served_connections: NonZeroUsize,
    /// The sessions of served runs, once there was one.
    shared: Arc<Mutex<Option<Sessions>>>,
}

impl Postgres {
    /// The server at the end of these settings. Nothing is connected yet.
    pub fn new(connect: ConnectSettings) -> Self {
        Self { connect, served_connections: SERVED_CONNECTIONS, shared: Arc::default() }
    }

    /// The same with so many connections, at most, for all served runs together.
    #[must_use]
    pub fn with_served_connections(self, connections: NonZeroUsize) -> Self {
        Self { served_connections: connections, ..self }
    }

    /// The sessions of a run: those of all served runs, or its own.
    fn sessions(&self, request: &ReadRequest) -> Result<Arc<Sessions>, SourceError> {
        match &request.work.served {
            Some(served) => self.shared_sessions(served, request.shape.allow_rls),
            None => own_sessions(&self.connect, request),
        }
    }

    pub(super) fn shared_sessions(&self, served: &ServedReads, allow_rls: bool) -> Result<Arc<Sessions>, SourceError> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let sessions = match &mut *shared {
            Some(sessions) => sessions,
            none => {
                let settings = self.connect.clone();
                none.insert(Sessions::new(settings, false, SERVING, self.served_connections.get())?)
            }
        };
        let terms = RunTerms { allow_rls, served: Some(served.clone()), ..RunTerms::default() };
        Ok(Arc::new(sessions.for_run(terms)))
    }

    /// Lets go of the shared sessions where the server was lost: another of its addresses may answer the next run.
    pub(super) fn heed(&self, error: &SourceError) {
        if error.fault == SourceFault::Unavailable {
            *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    async fn planned(&self, requests: Vec<ReadRequest>) -> Result<(Planning, PgPlan, ReadRequest), SourceError> {
        let request = only(requests)?;
        let (planning, plan) = decide::begin(self.sessions(&request)?, &request).await?;
        Ok((planning, plan, request))
    }
}

/// Sessions that a run has for itself.
pub(super) fn own_sessions(connect: &ConnectSettings, request: &ReadRequest) -> Result<Arc<Sessions>, SourceError> {
    sized_sessions(connect, request, request.work.readers.get() + CONTROL_SESSIONS)
}

/// The same, so many at most.
pub(super) fn sized_sessions(
    connect: &ConnectSettings,
    request: &ReadRequest,
    size: usize,
) -> Result<Arc<Sessions>, SourceError> {
    Ok(Arc::new(Sessions::new(connect.clone(), request.shape.allow_rls, &application(&request.run_id), size)?))
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
            let (planning, plan, request) = Box::pin(self.planned(requests)).await?;
            let mut told = plan.told(&request)?;
            told.relation.identity = planning.server.identity(&request.run_id);
            Ok(vec![told])
        }
        .boxed()
    }

    fn begin(&self, requests: Vec<ReadRequest>) -> BoxFuture<'_, Result<Arc<dyn Reading>, SourceError>> {
        async move {
            if requests.len() > 1 {
                let reading = Box::pin(several::begin(&self.connect, &requests)).await?;
                return Ok(Arc::new(reading) as Arc<dyn Reading>);
            }
            let planned = Box::pin(self.planned(requests)).await;
            let (planning, plan, request) = planned.inspect_err(|error| self.heed(error))?;
            let reading = Box::pin(PostgresReading::new(planning, plan, &request)).await?;
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

    fn resume_together(
        &self,
        requests: Vec<ReadRequest>,
        begun: Vec<Begun>,
    ) -> BoxFuture<'_, Result<Arc<dyn Reading>, SourceError>> {
        async move {
            let reading = Box::pin(resume_together(&self.connect, &requests, &begun)).await?;
            Ok(Arc::new(reading) as Arc<dyn Reading>)
        }
        .boxed()
    }

    fn takes_workers(&self) -> bool {
        true
    }

    fn takes_workers_for_several(&self) -> bool {
        true
    }

    fn join(
        &self,
        request: ReadRequest,
        begun: Begun,
        most: NonZeroUsize,
    ) -> BoxFuture<'_, Result<Arc<dyn Reading>, SourceError>> {
        async move {
            let reading = Box::pin(joined::join(&self.connect, &request, &begun, most)).await?;
            Ok(Arc::new(reading) as Arc<dyn Reading>)
        }
        .boxed()
    }

    fn keep(&self, run_id: String, begun: Vec<Begun>) -> Option<BoxFuture<'_, Result<Box<dyn Keeper>, SourceError>>> {
        let keeper = async move {
            let (record, held) = kept::of_all(&begun)?;
            let keeper = SnapshotKeeper::begin(&self.connect, &record, &held, &run_id).await?;
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

    fn without_rows(&self, tenant: Option<&TenantScope>) -> Result<String, SourceError> {
        Ok(scope::without_rows(tenant)?)
    }

    fn describe(&self, request: ServedRequest) -> Option<BoxFuture<'_, Result<DescribedRelation, SourceError>>> {
        Some(served::describe(self, request).boxed())
    }

    fn estimate(
        &self,
        request: ServedRequest,
        up_to: NonZeroU64,
    ) -> Option<BoxFuture<'_, Result<CountedRows, SourceError>>> {
        Some(served::estimate(self, request, up_to).boxed())
    }

    fn aggregate(&self, request: AggregateRequest) -> Option<BoxFuture<'_, Result<Aggregated, SourceError>>> {
        Some(served::aggregate(self, request).boxed())
    }

    fn holds_snapshots(&self) -> bool {
        true
    }

    fn knows_watermarks(&self) -> bool {
        true
    }

    fn list(&self) -> Option<BoxFuture<'_, Result<Vec<ListedRelation>, SourceError>>> {
        Some(list(&self.connect).boxed())
    }
}

/// The one request, where several are not taken together.
fn only(requests: Vec<ReadRequest>) -> Result<ReadRequest, SourceError> {
    match <[ReadRequest; 1]>::try_from(requests) {
        Ok([request]) => Ok(request),
        Err(several) => {
            let message = format!("one relation is planned or resumed at a time, and {} were asked for", several.len());
            Err(SourceError::new(SourceFault::Usage, message))
        }
    }
}
