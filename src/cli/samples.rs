//! One value of everything that is shown, for the golden tests.

use crate::model::{
    Event, ExportErrorKind, ExportReport, ReaderProgress, ResumedProgress, RowOrder, RowsAvailable, RunStatus,
    SourceCost,
};

pub(crate) const RUN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

pub(crate) fn report() -> ExportReport {
    ExportReport {
        status: RunStatus::Complete,
        run_id: RUN.into(),
        relation: "public.lineitem".into(),
        destination: "s3://lake/lineitem/".into(),
        manifest: Some("s3://lake/lineitem/_manifest.json".into()),
        rows: Some(6_001_215),
        rows_read_now: 6_001_215,
        bytes_written_now: 301_989_888,
        parts: 24,
        bytes: 301_989_888,
        max_rows: None,
        tier: None,
        order: RowOrder::Unspecified,
        key: Vec::new(),
        descending: Vec::new(),
        rows_available: RowsAvailable::Exact(6_001_215),
        snapshot: Some("00000003-0000001B-1".into()),
        readers: 4,
        seconds: 12.5,
        source_cost: Some(SourceCost {
            peak_connections: 7,
            snapshot_age_seconds: Some(12.25),
            heap_blocks_read: Some(157_234),
        }),
        watermark: None,
        already_committed: false,
        truncation_allowed: false,
    }
}

pub(crate) fn truncated() -> ExportReport {
    ExportReport {
        status: RunStatus::Truncated,
        rows: Some(10_000),
        rows_read_now: 10_000,
        bytes_written_now: 524_288,
        parts: 1,
        bytes: 524_288,
        max_rows: Some(10_000),
        tier: Some("free".into()),
        order: RowOrder::Key,
        key: vec!["id".into()],
        rows_available: RowsAvailable::AtLeast(10_001),
        seconds: 0.25,
        ..report()
    }
}

pub(crate) fn events() -> Vec<Event> {
    vec![
        Event::RunStarted {
            run_id: RUN.into(),
            relation: "public.lineitem".into(),
            destination: "s3://lake/lineitem/".into(),
            format: "parquet".into(),
            compression: "zstd".into(),
            single_file: false,
            readers: 4,
        },
        Event::Planned {
            run_id: RUN.into(),
            partitions: 24,
            estimated_rows: Some(6_000_000),
            estimated_bytes: Some(1_240_000_000),
            snapshot: Some("00000003-0000001B-1".into()),
            truncated: false,
            resumed: ResumedProgress::default(),
        },
        Event::PartitionStarted { reader: 1, partition: 7 },
        Event::Progress {
            rows: 1_200_000,
            bytes: 60_000_000,
            partitions_done: 4,
            partitions: 24,
            readers: vec![
                ReaderProgress { partition: Some(7), rows: 120_000, bytes: 6_000_000 },
                ReaderProgress::default(),
            ],
        },
        Event::PartFinished {
            path: "data/part-00007-000-9f3a2b1c.parquet".into(),
            partition: 7,
            rows: 250_000,
            bytes: 12_582_912,
        },
        Event::Committing { parts: 24 },
        Event::RunFinished { report: Box::new(report()) },
        Event::RunFailed {
            run_id: RUN.into(),
            kind: ExportErrorKind::SourceUnavailable,
            error: "reading partition 7 of public.lineitem: connection reset by peer".into(),
            hint: Some("check that the server is up, then run the same command again".into()),
            retryable: true,
        },
    ]
}
