//! Some partitions of a run that another process holds together: one session at a time, under the snapshot that the other
//! one's keepers hold.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::kept::{self, PgRecord};
use super::let_go::LetGo;
use super::prepare::application;
use super::reader::{Moment, PostgresReading};
use super::relation_read::{RelationRead, permits};
use super::slots::ReaderSlots;
use super::watch::Watch;
use crate::base::postgres::settings::ConnectSettings;
use crate::model::{ReadMode, ReadRequest, SourceLimits};
use crate::source::pace;
use crate::source::{Begun, SourceError, SourceFault};

/// The session that reads, and one to ask the server with why it sends nothing.
const SESSIONS: usize = 2;

/// Connects, and waits until the process may read.
///
/// # Errors
/// [`SourceFault::SnapshotLost`] where nobody holds the snapshot any more, or this is another server.
///
/// # Cancel safety
/// Dropping the future closes the sessions.
pub(super) async fn join(
    connect: &ConnectSettings,
    request: &ReadRequest,
    begun: &Begun,
    most: NonZeroUsize,
) -> Result<PostgresReading, SourceError> {
    let PgRecord { server: record, plan } = PgRecord::read(&begun.record)?;
    let work = &request.work;
    if !matches!(work.read_mode, ReadMode::Copy) {
        let message = "a run in keyset mode has no snapshot that other processes could read under";
        return Err(SourceError::new(SourceFault::Usage, message));
    }
    // The lock table's share was reckoned for so many readers.
    let share = record.locks.readers.and_then(|most| NonZeroUsize::new(usize::try_from(most).unwrap_or(usize::MAX)));
    let most = share.map_or(most, |share| share.min(most));
    let (since, application) = (Instant::now(), application(&request.run_id));
    let sessions = kept::sessions(connect, &record, &application, SESSIONS)?;
    let sql_ascii = record.server.types.sql_ascii;
    let custody = kept::custody(&record, &begun.held, &application);
    let slots = ReaderSlots::new(&request.run_id, most);
    let first = slots.session(&custody, &sessions).await?;
    record.meaning.check_eyes(&first).await?;
    // It waits in the pool for the first partition.
    drop(first);
    let limits = SourceLimits {
        max_bytes_per_second: pace::share(work.source_limits.max_bytes_per_second, most),
        ..work.source_limits
    };
    let watch = Watch::new(&sessions, limits, &application, record.server.standby, since, (None, None));
    Ok(PostgresReading {
        sessions,
        watch: Arc::new(watch),
        moment: Moment::Kept(Box::new(custody)),
        permits: permits(&record, 1),
        relations: [(0, RelationRead::new(record, plan, request)?)].into(),
        let_go: LetGo::new(),
        refused: Mutex::default(),
        snapshots: begun.consistency.snapshots.clone(),
        read_mode: work.read_mode,
        mixed: false,
        sql_ascii,
        served: None,
        slots: Some(slots),
    })
}
