//! Some partitions of a run that another process has planned: each is asked for as that process would, on the same server.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;

use super::columns::ChColumn;
use super::http::ClickHouseHttp;
use super::pace;
use super::plan::{ChPlan, ChRelation};
use super::prepare::{ChPlanning, typed};
use super::reading::{ChRecord, ClickHouseReading};
use super::seats::{self, WorkerSeats};
use super::typed_settings::wanted;
use crate::base::http::CodingChoice;
use crate::base::postgres::settings::ConnectSettings;
use crate::model::ReadRequest;
use crate::source::pace::share;
use crate::source::{Begun, SourceError, SourceFault};

/// Of a server that has no id.
const NO_UUID: &str = "00000000-0000-0000-0000-000000000000";

/// Connects, and makes sure that the relation is what it was when the run was planned.
///
/// # Errors
/// [`SourceFault::SnapshotLost`] where this is another server, [`SourceFault::SchemaChanged`] where the relation has other
/// columns, [`SourceFault::Usage`] where the session may see other rows.
pub(super) async fn join(
    settings: &ConnectSettings,
    request: ReadRequest,
    begun: &Begun,
    most: NonZeroUsize,
) -> Result<ClickHouseReading, SourceError> {
    let record = ChRecord::read(&begun.record)?;
    let settings = &record.plan.at_its_database(settings);
    let most = together(&record.plan, request.work.source_limits.max_bytes_per_second, most);
    // Each reads at its share of the run's rate.
    let rate = share(request.work.source_limits.max_bytes_per_second, most);
    let http = Arc::new(ClickHouseHttp::new(settings, CodingChoice::Plain, &request.run_id)?.paced(rate));
    let mut needed = wanted(settings);
    needed.push(seats::WANTED);
    let session = typed(http, &needed).await?;
    let planning = ChPlanning { session: &session, request: &request, database: &settings.database };
    record.plan.same_server(&session.host, planning.server_uuid().await?.as_deref())?;
    record.plan.same_eyes(planning.eyes().await?.as_ref())?;
    let (described, columns) = planning.relation_and_columns().await?;
    record.plan.same_relation(&described.relation, &columns)?;
    let seats = WorkerSeats::new(&record.plan.seats, most);
    Ok(ClickHouseReading::joined(session, request, record, seats))
}

/// How many processes may read at the same time: no more than the plan's threads of the server are for, or the rate has room
/// for.
fn together(plan: &ChPlan, rate: Option<NonZeroU64>, most: NonZeroUsize) -> NonZeroUsize {
    let most = pace::readers(rate, most.get().min(plan.readers));
    NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN)
}

impl ChPlanning<'_> {
    /// The server's own id; `None` where it has none.
    pub(super) async fn server_uuid(&self) -> Result<Option<String>, SourceError> {
        if self.request.work.served.is_some() {
            return Ok(None);
        }
        match self.ask("asking the server who it is", "SELECT toString(serverUUID())").await {
            Ok(rows) => Ok(rows.into_iter().flatten().flatten().next().filter(|uuid| uuid != NO_UUID)),
            // A server that is only like ClickHouse.
            Err(error) if error.code.as_deref() == Some("46") => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl ChPlan {
    /// # Errors
    /// Another server answers than the one that the plan is of: its parts are others.
    pub(super) fn same_server(&self, host: &str, uuid: Option<&str>) -> Result<(), SourceError> {
        // Two servers may have one name, and a server may have no id.
        let same_uuid = self.server_uuid.is_none() || self.server_uuid.as_deref() == uuid;
        if self.host == host && same_uuid {
            return Ok(());
        }
        let other = if self.host == host { format!("another server called {host}") } else { host.to_owned() };
        let message = format!("the run read from {}, and now {other} answers, which has other parts", self.host);
        Err(SourceError::new(SourceFault::SnapshotLost, message)
            .with_hint("name the host of the run in --from, or export again"))
    }

    /// # Errors
    /// The relation has other columns than the plan has, or it is another table of the name.
    pub(super) fn same_relation(&self, relation: &ChRelation, columns: &[ChColumn]) -> Result<(), SourceError> {
        self.relation.is_same_as(relation, self.mode)?;
        let same = |(now, then): (&ChColumn, &ChColumn)| {
            (&now.output.name, &now.output.type_name) == (&then.output.name, &then.output.type_name)
        };
        if relation.engine == self.relation.engine
            && columns.len() == self.columns.len()
            && columns.iter().zip(&self.columns).all(same)
        {
            return Ok(());
        }
        let message = "the relation has other columns than when the run began";
        Err(SourceError::new(SourceFault::SchemaChanged, message)
            .with_hint("`outhaul clean` removes what the run left; then export it again"))
    }
}
