//! What a manifest says, in the program's own terms; [`wire`](super::wire) gives it its JSON form.

use std::num::NonZeroU64;

use chrono::{DateTime, Utc};

use crate::model::{
    ColumnSummary, Compression, Consistency, CsvOptions, Direction, FolderValue, Format, FormatOptions, KeyValue,
    PartRange, RowOrder, RowsAvailable, RunStatus, SourceIdentity, SourceKind, Watermark,
};

/// One committed export: what it read, under which snapshot, and every part it left.
///
/// # Examples
/// ```
/// use outhaul::commit::Manifest;
///
/// # let bytes = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/manifest_v1/manifest.json"));
/// let manifest = Manifest::from_json(bytes)?;
/// assert_eq!(manifest.parts.iter().map(|part| part.rows).sum::<Option<u64>>(), manifest.totals.rows);
/// # Ok::<(), outhaul::commit::wire::WireError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The run's id; all manifests of a run share it.
    pub run_id: String,
    /// Random, made for this one commit: reading it back proves whose manifest stands.
    pub nonce: String,
    /// The version of the program that wrote it.
    pub outhaul_version: String,
    /// When the run began.
    pub created_at: DateTime<Utc>,
    /// When the last receipt was in and the commit began.
    pub finished_at: DateTime<Utc>,
    /// Complete, or cut short by the cap.
    pub status: RunStatus,
    /// Where the rows came from.
    pub source: ManifestSource,
    /// What the reads have in common.
    pub consistency: Consistency,
    /// The cap, and what it did; present without a cap too.
    pub row_cap: RowCapRecord,
    /// The columns of the files, in output order.
    pub schema: Vec<SchemaColumn>,
    /// The columns by whose values parts are in folders, from the outside in; empty where they are in none. The files have
    /// them too where `schema` does.
    pub partition_by: Vec<SchemaColumn>,
    /// The columns that `--protect COLUMN=drop` kept out of the files, by their names in the output; empty in manifests of
    /// builds that did not say.
    pub dropped: Vec<String>,
    /// The id of the key under which values are hashed; `None` where none are.
    pub protection_key: Option<String>,
    /// How the parts are written.
    pub format: FormatRecord,
    /// Sums over `parts`.
    pub totals: Totals,
    /// The parts in output order.
    pub parts: Vec<PartEntry>,
    /// What an incremental export leaves for the next one.
    pub watermark: Option<Watermark>,
}

/// Where the rows came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestSource {
    /// The system.
    pub kind: SourceKind,
    /// Its version as it says itself, for example `18.1`.
    pub server_version: String,
    /// What was read.
    pub name: SourceName,
    /// The predicate, without parentheses around it.
    pub predicate: Option<String>,
    /// The key that ordered or split the rows; empty where none did.
    pub key: Vec<SourceKey>,
    /// Whether the server was a standby.
    pub standby: bool,
    /// Whether row security may have hidden rows from the role (`--allow-rls`): then this is what the role may see.
    pub row_security: bool,
    /// Which database that was; `None` in manifests of earlier versions.
    pub identity: Option<SourceIdentity>,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceName {
    /// `schema.relation`; a name with a dot or a quote in it is quoted, but in manifests of earlier versions.
    Relation(String),
    /// The text of a query.
    Query(String),
}

/// One column of the key.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SourceKey {
    /// Its name at the source.
    pub name: String,
    /// Its direction.
    pub direction: Direction,
}

/// The cap, and what it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowCapRecord {
    /// The tier that named it, where one did.
    pub tier: Option<String>,
    /// The cap in rows; `None` is uncapped.
    pub max_rows: Option<NonZeroU64>,
    /// Whether rows were left out.
    pub truncated: bool,
    /// How many rows the request has, as far as the run knows.
    pub available: RowsAvailable,
    /// The order by which "the first N rows" is meant.
    pub order: RowOrder,
    /// The key of the last row within the cap; absent where nothing was cut, where no key orders the rows, and where
    /// `--manifest-stats` withholds it.
    pub boundary: Option<KeyValue>,
}

/// One column of the output.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SchemaColumn {
    /// Its name in the output.
    pub name: String,
    /// The column of the source that it is; absent for an expression, and in manifests of builds that did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_column: Option<String>,
    /// Its type as PostgreSQL prints it; of another source, the type of PostgreSQL that reads the same values.
    pub pg_type: String,
    /// Its type as the source prints it, where that is not PostgreSQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_type: Option<String>,
    /// The Arrow type its batches had.
    pub arrow_type: String,
    /// Its Parquet type; absent in text formats.
    pub parquet_type: Option<String>,
    /// Whether a NULL can occur.
    pub nullable: bool,
    /// The policy for values that the type cannot hold.
    pub policy: String,
    /// How many values the policy changed, in all parts; absent in manifests of builds that did not count.
    pub policy_count: Option<u64>,
    /// What a person should know of it.
    pub note: Option<String>,
    /// What `--protect` made of its values: `hash`, `mask`, `null`, or a later version's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<String>,
}

impl SchemaColumn {
    /// Whether the source has plain text in it, which is no JSON.
    pub(crate) fn is_plain_text(&self) -> bool {
        ["text", "character", "name", "citext"].iter().any(|name| self.pg_type.starts_with(name))
    }
}

/// How the parts are written: all that a reader must know to parse them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatRecord {
    /// The codec.
    pub compression: Compression,
    /// The format with its own options.
    pub kind: FormatKind,
}

/// A format with its own options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormatKind {
    /// Apache Parquet.
    Parquet {
        /// At most so many rows in a row group.
        row_group_rows: NonZeroU64,
        /// A row group ended once its encoded bytes reached this.
        row_group_bytes: NonZeroU64,
    },
    /// CSV.
    Csv(CsvOptions),
    /// One JSON object a line.
    Ndjson,
    /// Bytes as the source made them: no rows are described or counted.
    Source,
}

impl FormatRecord {
    /// The format without its options.
    pub fn format(&self) -> Format {
        match self.kind {
            FormatKind::Parquet { .. } => Format::Parquet,
            FormatKind::Csv(_) => Format::Csv,
            FormatKind::Ndjson => Format::Ndjson,
            FormatKind::Source => Format::Source,
        }
    }
}

impl From<&FormatOptions> for FormatRecord {
    fn from(options: &FormatOptions) -> Self {
        let kind = match options.format {
            Format::Parquet => FormatKind::Parquet {
                row_group_rows: options.parquet.row_group_rows,
                row_group_bytes: options.parquet.row_group_bytes,
            },
            Format::Csv => FormatKind::Csv(options.csv.clone()),
            Format::Ndjson => FormatKind::Ndjson,
            Format::Source => FormatKind::Source,
        };
        Self { compression: options.compression, kind }
    }
}

/// Sums over the parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Totals {
    /// How many parts.
    pub parts: u64,
    /// Their data rows; `None` for bytes of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Their sizes.
    pub bytes: u64,
}

/// One part.
#[derive(Debug, Clone, PartialEq)]
pub struct PartEntry {
    /// Relative to the destination.
    pub path: String,
    /// Absolute.
    pub url: String,
    /// Data rows; header lines are not among them. `None` for bytes of the source.
    pub rows: Option<u64>,
    /// The object's size.
    pub bytes: u64,
    /// CRC64NVME of the whole object.
    pub crc64nvme: u64,
    /// SHA-256 of the whole object in hex, where asked for.
    pub sha256: Option<String>,
    /// The partition it holds rows of.
    pub partition: u32,
    /// 0 for the partition's first part, then 1, 2, … .
    pub roll: u32,
    /// The random id of the attempt that wrote it.
    pub attempt: u32,
    /// The rows of its partition.
    pub range: PartRange,
    /// What all its rows have in the columns of [`Manifest::partition_by`], in their order; empty where there are none, and
    /// in the part of an empty export.
    pub partition_values: Vec<FolderValue>,
    /// When its first row was asked for.
    pub started_at: DateTime<Utc>,
    /// When its last byte was accepted.
    pub finished_at: DateTime<Utc>,
    /// Header lines in front of the rows.
    pub header_rows: u32,
    /// Bytes of the object that the header takes.
    pub header_bytes: u64,
    /// Count and extremes by column; empty under `--manifest-stats none`.
    pub columns: Vec<ColumnSummary>,
}
