//! A caller of the library who takes the bytes of an export himself, as a service does.

use std::time::Duration;

use bytes::Bytes;
use outhaul::config::{Environment, load};
use outhaul::export::{ExportError, Streamed, stream};
use outhaul::model::{Event, ExportErrorKind};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::job::{copy, crc64nvme, no_sessions_left, sorted};
use crate::support::pg::{Pg, pg};
use crate::support::within;

/// More rows than all buffers between the server and a caller hold.
const MANY: &str = "create table t as select id, repeat(md5(id::text), 8) as text from generate_series(1, 100000) id";

const LIMIT: Duration = Duration::from_mins(1);

struct Caller {
    bytes: Receiver<Bytes>,
    events: Receiver<Event>,
    cancel: CancellationToken,
    result: JoinHandle<Result<Streamed, ExportError>>,
}

fn start(pg: &Pg, relation: (&'static str, &str)) -> Caller {
    let words: [(&'static str, &str); 6] = [
        ("from", pg.url.as_str()),
        ("to", "-"),
        ("format", "csv"),
        ("csv_header", "off"),
        ("run_id", "streamed"),
        relation,
    ];
    let flags = words.map(|(key, value)| (key, vec![value.to_owned()])).to_vec();
    let (request, _) = load(flags, &Environment::default(), false).unwrap();
    let (sender, bytes) = channel(1);
    let (told, events) = channel(1_000);
    let cancel = CancellationToken::new();
    let result = tokio::spawn(stream(request, sender, told, cancel.clone()));
    Caller { bytes, events, cancel, result }
}

impl Caller {
    async fn end(self) -> ExportError {
        within(LIMIT, "the end of the run", self.result).await.unwrap().unwrap_err()
    }
}

#[tokio::test]
async fn a_caller_has_the_bytes_and_the_manifest() {
    let pg = pg(18).await;
    pg.batch(MANY).await;
    let mut caller = start(&pg, ("table", "t"));
    let mut bytes = Vec::new();
    while let Some(piece) = within(LIMIT, "a piece", caller.bytes.recv()).await {
        bytes.extend_from_slice(&piece);
    }
    let Streamed { report, manifest } = within(LIMIT, "the result", caller.result).await.unwrap().unwrap();
    assert!(sorted(&bytes) == sorted(&copy(&pg, "select * from t").await), "other rows");
    assert_eq!((report.rows, report.destination.as_str(), report.manifest), (Some(100_000), "-", None));
    let json: serde_json::Value = serde_json::from_slice(&manifest.to_json().unwrap()).unwrap();
    assert_eq!((&json["run_id"], &json["totals"]["rows"]), (&"streamed".into(), &100_000.into()));
    assert_eq!(json["totals"]["bytes"], bytes.len());
    assert_eq!(json["parts"][0]["crc64nvme"], crc64nvme(&bytes));
    let mut last = None;
    while let Some(event) = caller.events.recv().await {
        last = Some(event);
    }
    assert!(matches!(last, Some(Event::RunFinished { .. })), "{last:?}");
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn a_caller_who_does_not_read_holds_the_source_back() {
    let pg = pg(18).await;
    pg.batch(MANY).await;
    let mut caller = start(&pg, ("table", "t"));
    let first = within(LIMIT, "the first piece", caller.bytes.recv()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!caller.result.is_finished(), "everything went somewhere");
    let reads = "select count(*) from pg_stat_progress_copy where datname = current_database()";
    assert_eq!(pg.value(reads).await, "1", "the source has sent everything");
    let mut size = first.len();
    while let Some(piece) = within(LIMIT, "a piece", caller.bytes.recv()).await {
        size += piece.len();
    }
    let streamed = within(LIMIT, "the result", caller.result).await.unwrap().unwrap();
    assert_eq!(streamed.report.bytes, u64::try_from(size).unwrap());
}

#[tokio::test]
async fn a_caller_who_goes_away_ends_the_run() {
    let pg = pg(18).await;
    pg.batch(MANY).await;
    let gone = |error: ExportError| {
        assert_eq!(error.kind, ExportErrorKind::DestinationUnavailable, "{error:?}");
        assert_eq!(error.to_string(), "the reader of the stream went away");
    };
    // In the middle of the rows.
    let mut caller = start(&pg, ("table", "t"));
    within(LIMIT, "the first piece", caller.bytes.recv()).await.unwrap();
    caller.bytes.close();
    gone(caller.end().await);
    no_sessions_left(&pg).await;
    // While the source has nothing to say: its statement would go on for an hour.
    let mut slow = start(&pg, ("query", "select pg_catalog.pg_sleep(3600) is null as never"));
    let reading = |event: &Event| matches!(event, Event::PartitionStarted { .. });
    while !within(LIMIT, "an event", slow.events.recv()).await.is_some_and(|event| reading(&event)) {}
    slow.bytes.close();
    gone(slow.end().await);
    no_sessions_left(&pg).await;
}

#[tokio::test]
async fn a_caller_who_cancels_is_told_so() {
    let pg = pg(18).await;
    pg.batch(MANY).await;
    let mut caller = start(&pg, ("table", "t"));
    within(LIMIT, "the first piece", caller.bytes.recv()).await.unwrap();
    caller.cancel.cancel();
    caller.bytes.close();
    assert_eq!(caller.end().await.kind, ExportErrorKind::Interrupted);
    no_sessions_left(&pg).await;
}
