//! The ground: what the rooms hand one another. Passive types only; they import no room, and act on nothing.

pub mod column;
pub mod event;
pub mod fault;
pub mod format;
pub mod partition;
pub mod plan;
pub mod policy;
pub mod receipt;
pub mod relation;
pub mod report;
pub mod request;

pub use column::{
    Attribute, Carrier, ColumnOrigin, ColumnPlan, ColumnStatistics, ExtensionType, Member, PgType, Precision, TypeKind,
    Wire,
};
pub use event::{Event, ReaderProgress};
pub use fault::ExportErrorKind;
pub use format::{Compression, CsvOptions, Format, FormatOptions, Newline, ParquetOptions};
pub use partition::{Comparison, Direction, KeyColumn, KeyRange, KeyValue, Operators, Partition, Slice, TupleId};
pub use plan::{CapPlan, FixedNow, LockUse, LockWay, Plan, RowKeyColumn, RowOrder, RowsAvailable};
pub use policy::{
    CharPadding, ColumnChoice, DuplicateColumns, InvalidUtf8, JsonLargeNumbers, JsonNan, Nested, OnUnrepresentable,
    Policies, PolicyOptions, Preset, TimestampPrecision, UnconstrainedNumeric,
};
pub use receipt::{ColumnSummary, PartReceipt, PartitionReceipt, StagedObject, Staging};
pub use relation::{ColumnFacts, LeafFacts, ReadingFacts, RelationFacts, RelationKind};
pub use report::{ExportReport, RunStatus, SourceCost};
pub use request::{
    CommitOptions, Layout, ManifestStats, OnExisting, ReadMode, RelationRequest, RowCap, ShapeOptions, SourceLimits,
    SourceProfile, Target, Visibility, WorkOptions,
};
