//! One run with everything in it that a manifest can say, for the tests of this stage.

use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::Bound;

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};

use super::build::{RunFacts, build};
use super::model::Manifest;
use crate::model::{
    AmountRead, AskedColumns, CapPlan, Carrier, ColumnOrigin, ColumnPlan, ColumnStatistics, ColumnSummary, Compression,
    Consistency, ConsistencyMode, CsvOptions, Direction, Format, FormatOptions, KeyColumn, KeyRange, Layout,
    ManifestStats, Newline, OutputRules, ParquetOptions, PartRange, PartReceipt, Partition, PartitionReceipt, Plan,
    PlannedContent, Policies, Precision, ReadPlan, Relation, RelationKind, RowOrder, RowsAvailable, SnapshotRecord,
    SourceFacts, SourceKind, SourceProfile, StagedObject, Staging, TupleId,
};
use crate::store::{Destination, PartName, StoreOptions};

pub(crate) const ATTEMPT: u32 = 0x9f3a_2b1c;

pub(crate) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 123_456_789).unwrap() + TimeDelta::seconds(seconds)
}

pub(crate) fn column(name: &str, type_name: &str, carrier: Carrier, nullable: bool) -> ColumnPlan {
    let texts = ["text", "inet"];
    ColumnPlan {
        name: name.into(),
        origin: ColumnOrigin::Column(name.into()),
        type_name: type_name.into(),
        sent_as: "binary".into(),
        carrier,
        nullable,
        policies: Policies::default(),
        policy: "error".to_owned(),
        ordered: true,
        may_show: !texts.contains(&type_name),
        free_text: texts.contains(&type_name),
        rewritten: false,
        text_varies: false,
        shared_name: None,
        note: None,
        statistics: ColumnStatistics::default(),
    }
}

/// The table of [`plan`].
fn relation() -> Relation {
    Relation {
        kind: RelationKind::Table,
        name: Some("public.orders".into()),
        query: None,
        predicate: Some("price > 0".into()),
        estimated_rows: Some(20),
        estimated_bytes: Some(8_192_000),
        tables: 1,
        row_security: false,
        identity: None,
    }
}

fn read() -> ReadPlan {
    ReadPlan {
        mode: "copy".into(),
        consistency: ConsistencyMode::SingleSnapshot,
        page_size: None,
        readers: 1,
        peak_connections: 2,
        source_profile: SourceProfile::Balanced,
        note: None,
        details: serde_json::Map::new(),
        lines: Vec::new(),
    }
}

fn partitions(ranges: impl IntoIterator<Item = PartRange>, ordered: bool) -> Vec<Partition> {
    let partition = |(number, range)| Partition { number, range, ordered, row_limit: None, counted_rows: None };
    (0..).zip(ranges).map(partition).collect()
}

/// Orders by `created_at desc, id`, cut at 12 rows of which the last two have no `created_at`.
pub(crate) fn plan() -> Plan {
    let mut columns = vec![
        column("id", "bigint", Carrier::Int64, false),
        column(
            "created_at",
            "timestamp with time zone",
            Carrier::Timestamp { unit: Precision::Micros, utc: true },
            true,
        ),
        column("price", "numeric(12,2)", Carrier::Decimal128 { precision: 12, scale: 2 }, true),
        column("comment", "text", Carrier::Text, true),
        column("address", "inet", Carrier::Text, true),
    ];
    columns[4].sent_as = "output_text".into();
    columns[4].note = Some("sent as its output text".into());
    let middle = vec![Some("2026-01-01 00:00:00+00".to_owned())];
    let ranges = [
        PartRange::Keys(KeyRange { lower: Bound::Unbounded, upper: Bound::Included(middle.clone()) }),
        PartRange::Keys(KeyRange { lower: Bound::Excluded(middle), upper: Bound::Unbounded }),
        PartRange::NullKeys,
    ];
    let key = |name: &str, direction, nullable| KeyColumn { name: name.into(), direction, nullable, may_show: true };
    Plan {
        content: PlannedContent::Rows,
        relation: relation(),
        now: None,
        read: read(),
        at_own_moments: Vec::new(),
        watermark: None,
        columns,
        key: vec![key("created_at", Direction::Desc, true), key("id", Direction::Asc, false)],
        cap: CapPlan {
            tier: Some("tiny".into()),
            max_rows: NonZeroU64::new(12),
            truncated: true,
            order: RowOrder::Key,
            boundary: Some(vec![None, Some("77".into())]),
            available: RowsAvailable::AtLeast(13),
            by_reading: false,
        },
        partitions: partitions(ranges, true),
    }
}

/// The same relation uncapped, as one block range and the open rest.
pub(crate) fn heap_plan() -> Plan {
    let middle = TupleId { block: 500, offset: 0 };
    let range = |from, to| PartRange::Heap { leaf: "public.orders".into(), from, to };
    let ranges = [range(None, Some(middle)), range(Some(middle), None)];
    Plan {
        relation: Relation { predicate: None, ..relation() },
        key: Vec::new(),
        cap: CapPlan { order: RowOrder::Physical, ..CapPlan::none() },
        partitions: partitions(ranges, false),
        ..plan()
    }
}

pub(crate) fn format(format: Format, compression: Compression) -> FormatOptions {
    FormatOptions {
        format,
        compression,
        csv: CsvOptions {
            header: true,
            delimiter: b',',
            null: String::new(),
            newline: Newline::Lf,
            bom: false,
            formula_guard: false,
        },
        parquet: ParquetOptions {
            sorted: Vec::new(),
            delta: true,
            row_group_rows: NonZeroU64::new(122_880).unwrap(),
            row_group_bytes: NonZeroU64::new(16 * 1024 * 1024).unwrap(),
            metadata: Vec::new(),
        },
    }
}

fn part(partition: u32, roll: u32, rows: u64) -> PartReceipt {
    let summary = |name: &str, nulls, min: Option<&str>, max: Option<&str>| ColumnSummary {
        changed: 0,
        name: name.into(),
        nulls,
        min: min.map(str::to_owned),
        max: max.map(str::to_owned),
        exact: true,
    };
    PartReceipt {
        object: StagedObject {
            path: PartName { partition, roll, attempt: ATTEMPT }.path(Layout::Nested, "parquet"),
            bytes: 1_000 + u64::from(partition),
            crc64nvme: 0x0123_4567_89ab_cdef + u64::from(partition),
            sha256: None,
            staging: Staging::Published,
        },
        roll,
        folders: Vec::new(),
        rows: Some(rows),
        header_rows: 0,
        header_bytes: 0,
        columns: vec![
            summary("id", 0, Some("1"), Some("77")),
            summary("created_at", 0, None, None),
            summary("price", 1, Some("0.01"), Some("99.90")),
            summary("comment", rows.min(2), Some("a secret"), Some("z secret")),
            summary("address", 0, Some("10.0.0.1"), Some("10.0.0.9")),
        ],
        started_at: at(i64::from(partition)),
        finished_at: at(i64::from(partition) + 2),
    }
}

/// Receipts as they come in: the last partition first, the middle one rolled.
pub(crate) fn receipts() -> Vec<PartitionReceipt> {
    let receipt = |partition, rows: &[u64]| PartitionReceipt {
        partition,
        attempt: ATTEMPT,
        read: AmountRead::Rows(rows.iter().sum()),
        beyond_cap: false,
        parts: (0..).zip(rows).map(|(roll, rows)| part(partition, roll, *rows)).collect(),
    };
    vec![receipt(2, &[2]), receipt(0, &[6]), receipt(1, &[3, 1])]
}

pub(crate) fn source() -> SourceFacts {
    SourceFacts { kind: SourceKind::Postgresql, server_version: "18.1".into(), standby: false }
}

pub(crate) fn facts<'a>(plan: &'a Plan, format: &'a FormatOptions, stats: ManifestStats) -> RunFacts<'a> {
    RunFacts {
        run_id: "20260101T000000Z-4f1d2c3b".into(),
        nonce: "5d1f0a9be3c24d6f8a7b6c5d4e3f2a1b".into(),
        outhaul_version: "0.1.0".into(),
        created_at: at(-1),
        finished_at: at(10),
        source: source(),
        consistency: Consistency {
            mode: ConsistencyMode::SingleSnapshot,
            snapshots: vec![SnapshotRecord {
                id: Some("00000003-0000001B-1".into()),
                lsn: Some("0/1A2B3C8".into()),
                xmin: Some("748".into()),
                taken_at: at(0).trunc_subsecs(6),
            }],
            now: None,
            note: None,
            proof: None,
        },
        plan,
        format,
        stats,
        selection: AskedColumns::default(),
        changes: Vec::new(),
        rules: OutputRules::default(),
        protection_key: None,
    }
}

pub(crate) fn object_url(path: &str) -> String {
    format!("s3://bucket/orders/{path}")
}

pub(crate) fn manifest() -> Manifest {
    let (plan, format) = (plan(), format(Format::Parquet, Compression::Zstd(1)));
    build(facts(&plan, &format, ManifestStats::Safe), &receipts(), object_url).unwrap()
}

/// A destination in memory; each test needs a name of its own.
pub(crate) fn memory(name: &str) -> Destination {
    Destination::in_memory(&format!("manifest-{name}"), &options())
}

pub(crate) fn open(url: &str) -> Destination {
    Destination::open(url, &options()).unwrap()
}

fn options() -> StoreOptions {
    StoreOptions {
        chunk_bytes: NonZeroUsize::new(5 * 1024 * 1024).unwrap(),
        concurrency: NonZeroUsize::new(2).unwrap(),
        sha256: false,
    }
}
