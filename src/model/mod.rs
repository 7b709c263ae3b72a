//! The ground: what the rooms hand one another. Passive types only; they import no room, and act on nothing.

pub mod column;
pub mod consistency;
pub mod event;
pub mod fault;
pub mod folders;
pub mod format;
pub mod keep;
pub mod listing;
pub(crate) mod micros;
pub mod objects;
pub mod output;
pub mod outside;
pub mod partition;
pub mod plan;
pub mod policy;
pub mod protect;
pub mod receipt;
pub mod report;
pub mod request;
pub mod scope;
pub mod served;
pub mod watermark;

pub use column::{Carrier, ColumnOrigin, ColumnPlan, ColumnStatistics, Member, Precision};
pub use consistency::{Consistency, ConsistencyMode, SnapshotRecord, SourceFacts, SourceIdentity, SourceKind};
pub use event::{Event, ReaderProgress, ResumedProgress};
pub use fault::{ErrorCode, ExportErrorKind};
pub use folders::{FolderMisfit, FolderOptions, FolderValue};
pub use format::{Compression, CsvOptions, Format, FormatOptions, Newline, ObjectKind, ParquetOptions, StreamKind};
pub use keep::{KeepEnd, KeptSnapshot, SnapshotId};
pub use listing::{ListedRelation, ReadableRows, SplitWay};
pub use objects::{ObjectOptions, ServerSideEncryption};
pub use output::OutputRules;
pub use outside::{
    ExportShare, Invitation, InvitedExport, JobInvitation, JobPartition, PartitionDone, ReadyLine, RunFence, StdinRule,
    WeighedPartition, WorkerShare, Workers, WorkersWanted,
};
pub use partition::{Direction, KeyRange, KeyValue, PartRange, Partition, TupleId};
pub use plan::{CapPlan, KeyColumn, Plan, PlannedContent, ReadPlan, Relation, RelationKind, RowOrder, RowsAvailable};
pub use policy::{
    CharPadding, ColumnChoice, DuplicateColumns, InvalidUtf8, JsonLargeNumbers, JsonNan, Nested, OnUnrepresentable,
    Policies, PolicyOptions, Preset, TimestampPrecision, UnconstrainedNumeric,
};
pub use protect::{AbsentColumn, ProtectKeyPlace, ProtectMisfit, ProtectOptions, ProtectRule, Protection};
pub use receipt::{AmountRead, ColumnSummary, PartReceipt, PartitionReceipt, StagedObject, Staging};
pub use report::{ExportReport, RunStatus, SourceCost, WatermarkReport};
pub use request::{
    CommitOptions, ConsistencyChoice, CredentialCommand, Layout, ManifestStats, OnError, OnExisting, OnSignal,
    ReadMode, ReadRequest, RelationRequest, RowCap, ShapeOptions, SnapshotScope, SourceLimits, SourceProfile, Target,
    Visibility, WorkOptions,
};
pub use scope::{BucketUnit, RowScope, ScopeColumn, ScopeCondition, ScopeTest, ScopedPredicate, TenantScope};
pub use served::{
    AggregateBucket, AggregateRequest, Aggregated, BucketValue, CountedRows, DescribedColumn, DescribedRelation,
    Dimension, Measure, ServedReads, ServedRequest,
};
pub(crate) use served::{BUCKET_JSON_CHARS, BUCKET_TEXT_CHARS};
pub use watermark::{
    AskedColumns, ColumnChange, IncrementalOptions, OnSchemaChange, PlannedWatermark, SchemaChange, Since, SinceExport,
    StatePlace, Watermark, WatermarkHistory, WatermarkRequest, WatermarkScale,
};
