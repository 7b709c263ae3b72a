//! READ: what is asked for becomes plans, and a partition of a plan becomes bounded Arrow batches.
//!
//! A [`Source`] says where rows are. [`Source::begin`] plans them and makes them stand still, as far as the source can; the
//! [`Reading`] that it gives is one run: its plans, its partitions, and what all reads rest on.

pub mod clickhouse;
pub mod error;
mod pace;
pub mod postgres;
mod setting_digests;
mod which;

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::record_batch::RecordBatch;
use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde_json::Value;

use crate::base::postgres::settings::Secret;
use crate::model::{
    AggregateRequest, Aggregated, Consistency, CountedRows, DescribedRelation, Direction, KeepEnd, ListedRelation,
    ObjectKind, PartRange, Partition, Plan, ReadRequest, RelationRequest, RowScope, ServedRequest, ShapeOptions,
    SnapshotRecord, SourceCost, SourceFacts, SourceKind, TenantScope,
};

pub(crate) use error::without_words_of;
pub use error::{Retry, SourceError, SourceFault};

/// Rows of one partition.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The rows.
    pub rows: RecordBatch,
    /// For each column how many of its values a policy changed on their way; empty where none did.
    pub changed: Box<[u64]>,
    /// Whether a row beyond the cap came behind them, where the plan reads one to see whether there is one. It is in no
    /// batch.
    pub beyond_cap: bool,
    /// Whether the next batch is at hand: whoever takes both at once waits for nothing.
    pub is_followed: bool,
}

/// A partition whose reading has begun.
pub enum Opened {
    /// Rows: the columns of each batch are the plan's columns in the plan's order, each with its carrier's Arrow type. The
    /// stream ends with `None` only after the server confirmed the number of rows sent, and that equals the rows in the
    /// batches and the one beyond the cap.
    Rows(BatchStream),
    /// Bytes of a format of the source's own, to be written as they come into one object, which is named only now. Each
    /// batch is one column of bytes without NULLs, and its values follow one another. The stream ends with `None` only
    /// after the source has proved that nothing is missing.
    Bytes {
        /// How the object is named and served.
        kind: ObjectKind,
        /// The bytes.
        batches: BatchStream,
    },
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rows(_) => formatter.debug_tuple("Rows").finish_non_exhaustive(),
            Self::Bytes { kind, .. } => formatter.debug_struct("Bytes").field("kind", kind).finish_non_exhaustive(),
        }
    }
}

/// The batches of one partition, in order. Dropping it ends the read: the session behind it is closed, never reused
/// half-read.
pub type BatchStream = BoxStream<'static, Result<Batch, SourceError>>;

/// What is known of a run that another process began.
#[derive(Debug, Clone)]
pub struct Begun {
    /// What its [`Reading::record`] was.
    pub record: Value,
    /// Under which its rows were read so far.
    pub consistency: Consistency,
    /// Ids under which its snapshot could be imported; some may be gone.
    pub held: Vec<String>,
    /// Whether the rest may be read under another snapshot where its own is gone.
    pub allow_mixed: bool,
}

/// What changes of a plan while it is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replan {
    /// Partitions that are no more: what was read of them is dropped.
    pub discard: Vec<u32>,
    /// Partitions that take their place, with numbers that no other partition had.
    pub add: Vec<Partition>,
}

/// Rows to be counted again, as the manifest describes them.
#[derive(Debug, Clone)]
pub struct RecountRequest {
    /// The run that read them.
    pub run_id: String,
    /// What was read, as the person wrote it.
    pub relation: RelationRequest,
    /// The predicate, as the person wrote it.
    pub predicate: Option<String>,
    /// The moment that stood for the clocks in both.
    pub now: Option<DateTime<Utc>>,
    /// The key that ordered or split the rows.
    pub key: Vec<(String, Direction)>,
    /// Columns of the source that were exported: all must still be there.
    pub columns: Vec<String>,
    /// Whether rows that the role does not see may be left out.
    pub allow_rls: bool,
    /// Snapshots under one of which to count, where it can still be imported.
    pub snapshots: Vec<SnapshotRecord>,
    /// Count no further than this.
    pub up_to: Option<u64>,
    /// Partitions to be counted, each for itself.
    pub ranges: Vec<PartRange>,
}

/// What counting again found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recounted {
    /// The snapshot of the run, where it could still be imported; else the rows are those of now.
    pub snapshot: Option<String>,
    /// All rows.
    pub rows: u64,
    /// Those of each range; `None` where a range can no longer be told from the others.
    pub ranges: Vec<Option<u64>>,
    /// Why the rows may be others each time, though as many of them were found, or not.
    pub note: Option<String>,
}

/// Somewhere rows are.
pub trait Source: std::any::Any + Send + Sync + std::fmt::Debug {
    /// The system.
    fn kind(&self) -> SourceKind;

    /// Checks a person's texts before anything is sent to anybody, and trims them.
    ///
    /// # Errors
    /// [`SourceFault::Usage`] where one of them cannot safely stand in a statement of ours.
    fn check(&self, shape: &mut ShapeOptions) -> Result<(), SourceError>;

    /// The plans of what is asked for, one for each request: found as [`Source::begin`] finds them, and let go.
    ///
    /// # Errors
    /// As [`Source::begin`].
    fn plan(&self, requests: Vec<ReadRequest>) -> BoxFuture<'_, Result<Vec<Plan>, SourceError>>;

    /// Makes what is asked for stand still, as far as the source can, and plans it: one plan for each request. All of them
    /// share one moment. Where there are several, a relation that cannot be read leaves the others alone:
    /// [`Reading::refused`] says why.
    ///
    /// # Errors
    /// A request does not fit its relation, or the source fails. Nothing stays behind at the source.
    ///
    /// # Cancel safety
    /// Dropping the future closes the sessions.
    fn begin(&self, requests: Vec<ReadRequest>) -> BoxFuture<'_, Result<Arc<dyn Reading>, SourceError>>;

    /// Goes on with a run that another process began, by its record. `requests` are those of its beginning, but for the
    /// readers.
    ///
    /// # Errors
    /// [`SourceFault::SnapshotLost`] where nothing holds what the run rests on any more; [`SourceFault::SchemaChanged`]
    /// where the relation is not what it was.
    ///
    /// # Cancel safety
    /// Dropping the future closes the sessions.
    fn resume(&self, requests: Vec<ReadRequest>, begun: Begun) -> BoxFuture<'_, Result<Arc<dyn Reading>, SourceError>>;

    /// Goes on with several relations of one run that another process began, all of which it reads under one moment: each by
    /// its record, with one set of sessions for all.
    ///
    /// # Errors
    /// As [`Source::resume`]; [`SourceFault::Usage`] where the source resumes one relation at a time.
    ///
    /// # Cancel safety
    /// Dropping the future closes the sessions.
    fn resume_together(
        &self,
        _requests: Vec<ReadRequest>,
        _begun: Vec<Begun>,
    ) -> BoxFuture<'_, Result<Arc<dyn Reading>, SourceError>> {
        let message = "several relations of this source are not gone on with together";
        std::future::ready(Err(SourceError::new(SourceFault::Usage, message))).boxed()
    }

    /// Whether other processes may read partitions of a run that this source has begun.
    fn takes_workers(&self) -> bool {
        false
    }

    /// Whether they may where the run has several relations.
    fn takes_workers_for_several(&self) -> bool {
        false
    }

    /// Reads partitions of a run that another process holds together: the moment is its own, and so are the locks that
    /// stand from before it. One partition at a time is opened; of all processes that read so for the run, at most `most`
    /// read at the same time, and [`Reading::open`] waits for its turn. [`Reading::guard`] never resolves: whoever holds the
    /// run guards it.
    ///
    /// # Errors
    /// As [`Source::resume`]; [`SourceFault::Usage`] where [`Source::takes_workers`] is false.
    ///
    /// # Cancel safety
    /// Dropping the future closes the sessions.
    fn join(
        &self,
        _request: ReadRequest,
        _begun: Begun,
        _most: NonZeroUsize,
    ) -> BoxFuture<'_, Result<Arc<dyn Reading>, SourceError>> {
        let message = "partitions of this source are read by the process that planned them";
        std::future::ready(Err(SourceError::new(SourceFault::Usage, message))).boxed()
    }

    /// Holds what a run rests on beyond its process, for all its relations with one keeper; `None` where the source has
    /// nothing to hold.
    fn keep(&self, _run_id: String, _begun: Vec<Begun>) -> Option<BoxFuture<'_, Result<Box<dyn Keeper>, SourceError>>> {
        None
    }

    /// Counts rows again; `None` where the source cannot.
    fn recount(&self, _request: RecountRequest) -> Option<BoxFuture<'_, Result<Recounted, SourceError>>> {
        None
    }

    /// Whether it answers a statement in formats of its own too, whose bytes are exported as they come.
    fn writes_itself(&self) -> bool {
        false
    }

    /// Whether what a run reads rests on a snapshot that other processes can hold, and read under.
    fn holds_snapshots(&self) -> bool {
        false
    }

    /// Whether it can be asked for what is new since another export ([`ReadRequest::watermark`]).
    fn knows_watermarks(&self) -> bool {
        false
    }

    /// The same server, asked as another user of its own; `None` where that makes no sense.
    fn as_user(&self, _user: String, _password: Secret) -> Option<Arc<dyn Source>> {
        None
    }

    /// The relations that could be exported, in the order of their names; `None` where the source has no catalog.
    fn list(&self) -> Option<BoxFuture<'_, Result<Vec<ListedRelation>, SourceError>>> {
        None
    }

    /// The one condition that scopes rows, for [`ShapeOptions::predicate`]; `None` where nothing
    /// scopes them.
    ///
    /// # Errors
    /// [`SourceFault::Usage`] for a tenant that is empty and for a value that cannot be meant.
    fn predicate(&self, _scope: &RowScope) -> Result<Option<String>, SourceError> {
        Err(SourceError::new(SourceFault::Usage, "this source scopes no rows"))
    }

    /// A condition that no row fulfils, for [`ShapeOptions::predicate`], and that the source still has to understand: the
    /// column of the tenants among it, where there are some. Whose tenant it is does not matter.
    ///
    /// # Errors
    /// [`SourceFault::Usage`] for a condition that cannot be meant.
    fn without_rows(&self, _tenant: Option<&TenantScope>) -> Result<String, SourceError> {
        Err(SourceError::new(SourceFault::Usage, "this source scopes no rows"))
    }

    /// What a service has to know of a relation before it serves rows of it; `None` where the source serves nobody.
    fn describe(&self, _request: ServedRequest) -> Option<BoxFuture<'_, Result<DescribedRelation, SourceError>>> {
        None
    }

    /// Counts rows, no further than `up_to`, and not for longer than a statement may take; `None` where the source
    /// serves nobody.
    fn estimate(
        &self,
        _request: ServedRequest,
        _up_to: NonZeroU64,
    ) -> Option<BoxFuture<'_, Result<CountedRows, SourceError>>> {
        None
    }

    /// Rows, grouped and measured; `None` where the source serves nobody.
    fn aggregate(&self, _request: AggregateRequest) -> Option<BoxFuture<'_, Result<Aggregated, SourceError>>> {
        None
    }
}

/// One run of a source: one moment, one set of locks, the plans of one relation or several.
pub trait Reading: Send + Sync + std::fmt::Debug {
    /// The plan of the `relation`th request.
    fn plan(&self, relation: usize) -> Option<Arc<Plan>>;

    /// The server that is read from.
    fn facts(&self) -> SourceFacts;

    /// What the reads of a relation have in common.
    fn consistency(&self, relation: usize) -> Consistency;

    /// Why a relation is not read where others are: it has no plan then. Told once.
    fn refused(&self, _relation: usize) -> Option<SourceError> {
        None
    }

    /// What another process must know to go on with the export of a relation: a form of the source's own, without secrets.
    ///
    /// # Errors
    /// A bug.
    fn record(&self, relation: usize) -> Result<Value, SourceError>;

    /// Opens one partition of a plan for reading: rows or bytes, as the plan says.
    ///
    /// # Cancel safety
    /// Dropping the future or the stream closes the session; no other partition notices.
    fn open(&self, relation: usize, partition: u32) -> BoxFuture<'_, Result<Opened, SourceError>>;

    /// Plans a partition anew whose read ended with [`Retry::Replan`]: what the partition was of has moved. From then on
    /// [`Reading::plan`] and [`Reading::record`] are those of the changed plan; `None` is no change, and the error stands.
    ///
    /// How often that may happen is for the source to bound.
    ///
    /// # Errors
    /// It has moved too often, or the source fails.
    fn replan(&self, _relation: usize, _partition: u32) -> BoxFuture<'_, Result<Option<Replan>, SourceError>> {
        std::future::ready(Ok(None)).boxed()
    }

    /// Guards what all reads rest on (locks and snapshot), for as long as it is polled; resolves only when they are
    /// lost.
    fn guard(&self) -> BoxFuture<'_, SourceError>;

    /// Nobody else is to read for the run any more ([`Source::join`]): what other processes still ask the source for is
    /// ended, also where they are gone. As far as the source can, within a bounded time.
    fn dismiss(&self, _relation: usize) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }

    /// Nothing of a relation is read any more: the source may let go of it before the others are done.
    fn done(&self, _relation: usize) {}

    /// Guards what the reads of one relation rest on beside [`Reading::guard`], for as long as it is polled; resolves only
    /// where that relation is lost, and the others are not.
    fn guard_of(&self, _relation: usize) -> BoxFuture<'_, SourceError> {
        std::future::pending().boxed()
    }

    /// Says whether what was read of a relation is what the run began with. Asked when all its partitions are read, before
    /// its commit; other relations may still be read. `rows` are those of each partition, whichever process has read it;
    /// none where bytes were read.
    ///
    /// # Errors
    /// Some rows may be of another meaning than the others: none of the relation is to be published.
    fn unchanged<'a>(
        &'a self,
        _relation: usize,
        _rows: &'a BTreeMap<u32, u64>,
    ) -> BoxFuture<'a, Result<(), SourceError>> {
        std::future::ready(Ok(())).boxed()
    }

    /// The ids under which others can import its snapshot now; none where nobody can.
    fn held(&self) -> BoxFuture<'_, Vec<String>> {
        std::future::ready(Vec::new()).boxed()
    }

    /// A keeper outside of this process holds the snapshot too, under this id.
    fn also_held(&self, _id: String) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }

    /// What reading a relation has cost so far; connections and the snapshot's age are those of the whole run.
    fn cost(&self, _relation: usize) -> SourceCost {
        SourceCost::default()
    }
}

/// Something that holds what a run rests on, outside of the run's process.
pub trait Keeper: Send + Sync + std::fmt::Debug {
    /// The id under which others can import the snapshot.
    fn snapshot(&self) -> &str;

    /// Holds it until `stop` resolves, until `deadline`, or until somebody has waited for its locks for `yield_after`.
    ///
    /// # Errors
    /// The session is lost.
    fn hold<'a>(
        &'a self,
        deadline: Instant,
        yield_after: Option<Duration>,
        stop: BoxFuture<'a, KeepEnd>,
    ) -> BoxFuture<'a, Result<KeepEnd, SourceError>>;
}

/// Waits until every server has been told of the statements that were given up, within bounds: a process that ends earlier
/// leaves them running.
pub(crate) async fn cancels_sent() {
    tokio::join!(crate::base::postgres::cancels_sent(), clickhouse::kill::kills_sent());
}
