//! What a service asks of a source beside an export: how its pages are read, what a relation looks like, how many rows
//! there are, and what they come to by groups.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    BucketUnit, DuplicateColumns, Format, ManifestStats, Policies, PolicyOptions, Preset, ReadMode, ReadRequest,
    ScopeColumn, ShapeOptions, SourceLimits, SourceProfile, WorkOptions,
};

/// How rows are read for somebody who waits for them and may be slow: in pages, each wholly in memory before its
/// connection is given to others, so that nobody who reads slowly holds a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedReads {
    /// A page ends before it has more bytes than these.
    pub page_bytes: NonZeroU64,
    /// A row with more bytes ends the run.
    pub max_row_bytes: NonZeroU64,
    /// One statement may take so long.
    pub statement_timeout: Duration,
    /// Settings of each transaction, by name: row security reads the tenant from them.
    pub settings: Vec<(String, String)>,
}

/// What a service asks about: rows, and how its statements run.
#[derive(Debug, Clone)]
pub struct ServedRequest {
    /// Which rows: relation, predicate, key.
    pub shape: ShapeOptions,
    /// The settings and the time limit of each statement.
    pub served: ServedReads,
}

impl ServedRequest {
    /// The read that such a question stands for: none is made, but it is planned as one would be.
    pub(crate) fn read_request(self, run_id: &str) -> ReadRequest {
        ReadRequest {
            run_id: run_id.to_owned(),
            shape: self.shape,
            format: Format::Ndjson,
            policies: PolicyOptions {
                preset: Preset::Postgres,
                default: Policies::default(),
                columns: Vec::new(),
                duplicate_columns: DuplicateColumns::Error,
            },
            work: WorkOptions {
                readers: NonZeroUsize::MIN,
                partitions: Some(NonZeroU32::MIN),
                part_size: NonZeroU64::MAX,
                upload_chunk_size: NonZeroUsize::MIN,
                upload_concurrency: NonZeroUsize::MIN,
                read_mode: ReadMode::Keyset { page_size: NonZeroU64::MIN },
                cap: None,
                consistency: None,
                allow_truncated: true,
                keep_partial: None,
                min_rows: None,
                source_profile: SourceProfile::Gentle,
                source_limits: SourceLimits::default(),
                served: Some(self.served),
            },
            single: true,
            stats: ManifestStats::Safe,
            keep: false,
            together: Vec::new(),
            protect: None,
            watermark: None,
        }
    }
}

/// A relation, as a service has to know it before it serves rows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedRelation {
    /// Its columns, in order.
    pub columns: Vec<DescribedColumn>,
    /// The columns that expressions make, in the order given.
    pub expressions: Vec<DescribedColumn>,
    /// The key that its pages would follow; empty where there is none, and then it cannot be served.
    pub key: Vec<String>,
    /// Whether no two rows share that key.
    pub key_unique: bool,
    /// Why its pages could lose rows or repeat them, where they could.
    pub refused: Option<String>,
    /// Whether rows of it may be hidden from the role by row security.
    pub row_security: bool,
    /// Rows by statistics, where there are any.
    pub estimated_rows: Option<u64>,
    /// Whether its rows are read by one statement, which sees one moment and needs no key; else they are read by pages.
    pub one_statement: bool,
}

/// A column of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct DescribedColumn {
    /// For [`RowScope`](super::RowScope): its name, its expression where it is one, and its type.
    pub scope: ScopeColumn,
    /// Its type for people, as the catalog prints it.
    pub type_name: String,
    /// Whether it can be NULL.
    pub nullable: bool,
    /// Whether its values can be compared.
    pub comparable: bool,
    /// Whether it holds days or moments, which a date range or a bucket can be of.
    pub dates: bool,
    /// Whether rows can be read in its order without a sort of the whole relation for each page: a btree index leads with
    /// it, or there are no pages.
    pub leads_index: bool,
}

/// How many rows there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "rows", rename_all = "snake_case")]
pub enum CountedRows {
    /// So many.
    Exact(u64),
    /// At least so many: counting went no further.
    AtLeast(u64),
    /// About so many, by statistics: counting took too long.
    Estimate(u64),
}

/// Rows, grouped and measured.
#[derive(Debug, Clone)]
pub struct AggregateRequest {
    /// Which rows, and how the statement runs.
    pub of: ServedRequest,
    /// By what they are grouped.
    pub dimensions: Vec<Dimension>,
    /// What is measured of each group.
    pub measures: Vec<Measure>,
    /// At most so many groups, the first by the order of their dimensions; one more shows whether there are more.
    pub max_buckets: NonZeroU64,
    /// Bytes of all their values together, beyond which there are no groups.
    pub max_bytes: u64,
}

/// Characters of a dimension's text; a longer one stands in no key.
pub(crate) const BUCKET_TEXT_CHARS: usize = 8 * 1024;

/// Those of a value as JSON.
pub(crate) const BUCKET_JSON_CHARS: usize = 64 * 1024;

/// A column by which rows are grouped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dimension {
    /// The column.
    pub column: ScopeColumn,
    /// The length of the buckets, where its dates are put into some.
    pub bucket: Option<BucketUnit>,
}

/// What is measured of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are SQL's own functions")]
pub enum Measure {
    Count,
    Sum(ScopeColumn),
    Avg(ScopeColumn),
    Min(ScopeColumn),
    Max(ScopeColumn),
}

/// What an [`AggregateRequest`] gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aggregated {
    /// The groups.
    pub buckets: Vec<AggregateBucket>,
    /// Whether there are more of them than were asked for.
    pub truncated: bool,
    /// Whether there are none because their values are too long, or too many bytes.
    pub too_large: bool,
}

impl Aggregated {
    /// Groups as they come, one more than asked for where there is one.
    ///
    /// # Errors
    /// One that cannot be read.
    pub(crate) fn of<E>(
        groups: impl Iterator<Item = Result<AggregateBucket, E>>,
        request: &AggregateRequest,
    ) -> Result<Self, E> {
        let (mut found, mut bytes) = (Self::default(), 0_u64);
        for group in groups {
            if !found.takes(group?, &mut bytes, request) {
                break;
            }
        }
        Ok(found)
    }

    /// Takes one more group; whether more of them are wanted.
    pub(crate) fn takes(&mut self, group: AggregateBucket, bytes: &mut u64, request: &AggregateRequest) -> bool {
        *bytes = bytes.saturating_add(group.bytes());
        let most = usize::try_from(request.max_buckets.get()).unwrap_or(usize::MAX);
        self.truncated = self.buckets.len() >= most;
        if group.is_cut() || *bytes > request.max_bytes {
            self.too_large = !self.truncated;
            if self.too_large {
                self.buckets = Vec::new();
            }
            return false;
        }
        if !self.truncated {
            self.buckets.push(group);
        }
        !self.truncated
    }
}

/// One group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregateBucket {
    /// One value a dimension.
    pub dimensions: Vec<BucketValue>,
    /// One value a measure, as JSON text: a large number keeps all its digits there.
    pub measures: Vec<String>,
}

impl AggregateBucket {
    fn bytes(&self) -> u64 {
        let dimensions =
            self.dimensions.iter().map(|value| value.text.as_ref().map_or(0, String::len) + value.json.len());
        let bytes: usize = dimensions.chain(self.measures.iter().map(String::len)).sum();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Whether the source has cut a value of it off.
    fn is_cut(&self) -> bool {
        let longer = |text: &str, most: usize| text.len() > most && text.chars().count() > most;
        let json = |text: &String| longer(text, BUCKET_JSON_CHARS);
        let text = |value: &BucketValue| value.text.as_ref().is_some_and(|text| longer(text, BUCKET_TEXT_CHARS));
        self.measures.iter().any(json) || self.dimensions.iter().any(|value| text(value) || json(&value.json))
    }
}

/// The value of a dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketValue {
    /// Its text, from which the same value can be read again; `None` is NULL.
    pub text: Option<String>,
    /// The same as JSON text.
    pub json: String,
}
