//! What is asked of an export, once every flag, variable and file has been read, checked and given its default.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Direction, FolderOptions, Format, ObjectOptions, OutputRules, PolicyOptions, ProtectOptions, ScopedPredicate,
    ServedReads, WatermarkRequest,
};

/// What is to be exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelationRequest {
    /// `--table`: a name as a person writes it, quoted where it must be, with or without its schema.
    Table(String),
    /// `--query`: one SELECT, VALUES or WITH statement.
    Query(String),
}

/// The shape of the data.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShapeOptions {
    /// `--table` or `--query`.
    pub relation: RelationRequest,
    /// `--columns`, in output order; `None` is all, in catalog order.
    pub columns: Option<Vec<String>>,
    /// `--column name=expression`, appended after the columns in the order given.
    pub expressions: Vec<(String, String)>,
    /// `--rename old=new`.
    pub renames: Vec<(String, String)>,
    /// `--where`.
    pub predicate: Option<String>,
    /// `--key`.
    pub key: Option<Vec<(String, Direction)>>,
    /// `--allow-rls`: rows that row security hides from the role may be missing.
    pub allow_rls: bool,
    /// What the predicate was made of, where a service made it. No record has it: jobs of a service are not resumed.
    #[serde(skip)]
    pub scoped: Option<Box<ScopedPredicate>>,
}

impl ShapeOptions {
    /// The columns of the relation among `--columns`: what has the name of an expression is that one.
    pub fn relation_columns(&self) -> Option<Vec<String>> {
        // One that is renamed is the relation's: expressions are named where they are given.
        let renamed = |name: &String| self.renames.iter().any(|(old, _)| old == name);
        let made = |name: &String| self.expressions.iter().any(|(expression, _)| expression == name);
        let of_relation = |name: &&String| renamed(name) || !made(name);
        self.columns.as_ref().map(|names| names.iter().filter(of_relation).cloned().collect())
    }
}

/// How partitions are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadMode {
    /// COPY of a whole partition, all under one snapshot.
    Copy,
    /// Pages of at most so many rows, a short transaction each.
    Keyset {
        /// Rows a page.
        page_size: NonZeroU64,
    },
}

/// What the reads of one relation are to have in common, where the source can do it in several ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsistencyChoice {
    /// Slices of named parts, all of one moment.
    PartSet,
    /// A statement for each partition of the table, each of a moment of its own.
    PerPartition,
    /// One statement.
    SingleStatement,
}

/// A row cap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCap {
    /// The tier that names it, where one does.
    pub tier: Option<String>,
    /// The cap; `None` is an unlimited tier.
    pub max_rows: Option<NonZeroU64>,
}

/// How hard the source may be worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceProfile {
    /// Each table in one pass, which keeps to `PostgreSQL`'s ring of buffers, and fewer readers.
    Gentle,
    /// Block ranges, which may evict what others have in the server's cache.
    #[default]
    Balanced,
    /// More readers and more, shorter partitions for each.
    Fast,
}

/// What a run may cost its source; beyond it the run gives way (exit 16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SourceLimits {
    /// `--yield-to-ddl`: so long somebody may wait for a lock that the run holds; `None` is for ever.
    pub yield_to_ddl: Option<Duration>,
    /// `--max-snapshot-age`: so long the run may hold the server's horizon back.
    pub max_snapshot_age: Option<Duration>,
    /// `--max-duration`: so long planning and reading may take together; a commit that has begun is carried through.
    pub max_duration: Option<Duration>,
    /// `--max-replay-lag`: so far a standby may be behind.
    pub max_replay_lag: Option<Duration>,
    /// `--max-bytes-per-second`: of all readers together.
    pub max_bytes_per_second: Option<NonZeroU64>,
}

/// How the work is split.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkOptions {
    /// Connections that read at the same time.
    pub readers: NonZeroUsize,
    /// `--partitions`; `None` lets planning choose.
    pub partitions: Option<NonZeroU32>,
    /// A part rolls once it has so many bytes.
    pub part_size: NonZeroU64,
    /// Bytes of one upload request; grown where an object could meet S3's limit of 10,000.
    pub upload_chunk_size: NonZeroUsize,
    /// Chunks in flight for one part.
    pub upload_concurrency: NonZeroUsize,
    /// How partitions are read.
    pub read_mode: ReadMode,
    /// `--consistency`; `None` lets the source choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<ConsistencyChoice>,
    /// `--max-rows` or `--tier`.
    pub cap: Option<RowCap>,
    /// Whether a truncated export exits 0.
    pub allow_truncated: bool,
    /// `--min-rows`: fewer is an error, before anything is published.
    pub min_rows: Option<NonZeroU64>,
    /// `--keep-partial`: where the bytes of a source's own format stay that came before a failure. No record has it.
    #[serde(skip)]
    pub keep_partial: Option<std::path::PathBuf>,
    /// `--source-profile`.
    pub source_profile: SourceProfile,
    /// What it may cost the source.
    pub source_limits: SourceLimits,
    /// Pages for somebody who may read them slowly; only with [`ReadMode::Keyset`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<ServedReads>,
}

/// What to do where a manifest already stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnExisting {
    /// Refuse (exit 22).
    Fail,
    /// Leave it as it is and report it.
    Skip,
    /// Replace it, atomically, and then delete what only it named.
    Replace,
}

/// When parts become visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Visibility {
    /// All at commit.
    AtCommit,
    /// Each as it is finished.
    AsWritten,
}

/// Which column statistics and key values the manifest shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManifestStats {
    /// No extremes of text, bytea and json, no text key values.
    Safe,
    /// Everything.
    All,
    /// Nothing.
    None,
}

/// Where the bytes go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// `--to DEST`, placeholders expanded.
    Destination(String),
    /// One stream, on standard output (`--to -`) or to a caller of the library, with a manifest only where a file is named
    /// for it. It has no journal, and nobody resumes it.
    Stream {
        /// `--manifest FILE`.
        manifest: Option<std::path::PathBuf>,
    },
}

/// Where parts stand below the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Under `data/`.
    Nested,
    /// Directly under the destination.
    Flat,
}

/// Where it goes and how it is committed.
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommitOptions {
    /// Where.
    pub target: Target,
    /// The run's id: given by `--run-id`, or made at start.
    pub run_id: String,
    /// Whether `run_id` was given, and with it the promise that a retry is the same run.
    pub run_id_given: bool,
    /// What to do where a manifest already stands.
    pub on_existing: OnExisting,
    /// When parts become visible.
    pub visibility: Visibility,
    /// Below `data/` or not.
    pub layout: Layout,
    /// `--partition-by`; `None` where rows go into no folders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folders: Option<FolderOptions>,
    /// `--protect` and `--protect-file`; `None` where no column is protected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protect: Option<ProtectOptions>,
    /// One ordered object at exactly the given key.
    pub single_file: bool,
    /// What the manifest shows of values.
    pub manifest_stats: ManifestStats,
    /// Whether parts get a SHA-256 too.
    pub sha256: bool,
    /// Whether the destination is taken from whoever has it: where somebody else sees to it that of two runs of this id the
    /// later one is right. No record has it.
    #[serde(skip)]
    pub take_over: bool,
    /// `--keep-snapshot`: so long the snapshot is held beyond this process, for `resume`.
    pub keep_snapshot: Option<Duration>,
    /// `--on-signal`: what becomes of what is uploaded where a signal stops the run.
    #[serde(default)]
    pub on_signal: OnSignal,
    /// `--aws-credential-command`; no record has it.
    #[serde(skip)]
    pub aws_credential_command: Option<CredentialCommand>,
    /// How the store keeps the objects.
    #[serde(default)]
    pub objects: ObjectOptions,
}

impl CommitOptions {
    /// What becomes of a plan's columns on their way into the files.
    pub fn output_rules(&self) -> OutputRules<'_> {
        OutputRules { folders: self.folders.as_ref(), protect: self.protect.as_ref() }
    }
}

/// A shell command that prints credentials, and may have a secret among its words.
#[derive(Clone, PartialEq, Eq)]
pub struct CredentialCommand(String);

impl CredentialCommand {
    /// Wraps a command.
    pub fn new(command: String) -> Self {
        Self(command)
    }

    /// The command itself, for the one place that runs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for CredentialCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// What a source is asked to read of one relation: as much of an export's request as reading depends on.
#[derive(Debug, Clone)]
pub struct ReadRequest {
    /// The run's id, which the source's sessions are named by.
    pub run_id: String,
    /// Which rows and columns.
    pub shape: ShapeOptions,
    /// The file format, on which the columns' types depend.
    pub format: Format,
    /// What happens to values that cannot be written.
    pub policies: PolicyOptions,
    /// How the work is split.
    pub work: WorkOptions,
    /// Whether all rows go into one object in one order.
    pub single: bool,
    /// Which values may be shown.
    pub stats: ManifestStats,
    /// Whether the snapshot is to be held beyond this process.
    pub keep: bool,
    /// Where only what is new since another export is to be read.
    pub watermark: Option<WatermarkRequest>,
    /// Output columns by which the rows of a partition are better sorted, where no other order is asked for: each change
    /// of their values begins another part. A source that does not sort costs smaller parts.
    pub together: Vec<String>,
    /// Columns whose values may be shown to nobody, in errors either.
    pub protect: Option<ProtectOptions>,
}

/// What a signal leaves of a run whose snapshot outlives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnSignal {
    /// Nothing.
    #[default]
    Abort,
    /// Receipts and uploads, for `resume`.
    Keep,
}

/// What the failure of one export of a job does to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// Nothing: each commits when its last partition is in.
    #[default]
    Continue,
    /// They stop: none commits before all are read.
    Stop,
}

/// What of a job is read under one snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SnapshotScope {
    /// All of it.
    #[default]
    Run,
    /// Each export by itself, for sources that have no moment in common and for servers that cannot hold one all night.
    Export,
}
