//! A statement's answer as the server writes it: one statement, one object, and no byte changed.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arrow::array::{ArrayRef, BinaryArray};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Map, Value, json};

use super::super::{Batch, BatchStream, Opened, Reading, Retry, SourceError, SourceFault};
use super::body::ClickHouseBody;
use super::ending::LastBytes;
use super::formats;
use super::frame::before_an_opening;
use super::http::ClickHouseHttp;
use super::identity::source;
use super::kept_prefix::KeptPrefix;
use super::kill::QueryName;
use super::lexer;
use super::prepare::{ChPlanning, prefix, query_id};
use super::proof::{AnswerProof, EndedAnswer, expected};
use super::settings::ClickHouseSession;
use super::{deadline, names, pace, shards};
use crate::base::failpoint;
use crate::base::postgres::settings::ConnectSettings;
use crate::model::{
    CapPlan, Consistency, ConsistencyChoice, ConsistencyMode, Format, ObjectKind, PartRange, Partition, Plan,
    PlannedContent, ReadMode, ReadPlan, ReadRequest, Relation, RelationKind, RelationRequest, SourceCost, SourceFacts,
    SourceKind,
};

/// The format of a statement that names none.
pub(crate) const DEFAULT_FORMAT: &str = "TabSeparatedWithNames";

/// What the reads have in common: there is one.
const MODE: &str = "single_statement";

/// Times that a statement is asked in all: its first answer may be lost, and so may the second.
const ASKED_MAX: u32 = 3;

/// Bytes that are handed on together.
const HANDED: usize = 512 * 1024;

/// Whether a request is for the server's own bytes.
pub(crate) fn is_wanted(request: &ReadRequest) -> bool {
    request.format == Format::Source
}

/// One statement, to be answered in a format of the server's.
#[derive(Debug)]
pub(crate) struct VerbatimReading {
    session: Arc<ClickHouseSession>,
    sql: String,
    /// As far as the statement says it.
    format: String,
    /// How its queries are called, but for their last number.
    id: String,
    plan: Arc<Plan>,
    asked: AtomicU32,
    keep: Option<PathBuf>,
    proof: Arc<Mutex<Option<AnswerProof>>>,
    /// When `--max-duration` is over.
    deadline: Option<Instant>,
}

impl VerbatimReading {
    /// Asks the server what it is; the statement itself is asked later.
    ///
    /// # Errors
    /// The request asks for what nobody does to bytes that are written as they come, its text is not one statement, or the
    /// server cannot be asked.
    pub(crate) async fn begin(settings: &ConnectSettings, request: &ReadRequest) -> Result<Self, SourceError> {
        refuse(request)?;
        let deadline = deadline::of(request);
        if let Some(file) = &request.work.keep_partial {
            KeptPrefix::check(file)?;
        }
        let (mut sql, format) = statement(request)?;
        if formats::by_name(&format) == Some(formats::KnownFormat::NoFile) {
            let message = format!("FORMAT {format} makes no file");
            return Err(SourceError::new(SourceFault::Usage, message).with_hint("name a format that does, such as CSV"));
        }
        let id = prefix(&request.run_id);
        let rate = request.work.source_limits.max_bytes_per_second;
        let http = Arc::new(ClickHouseHttp::new(settings, settings.compression, &request.run_id)?.paced(rate));
        let opening = async {
            let session = Arc::new(ClickHouseSession::open(http, &[]).await?);
            if let RelationRequest::Query(query) = &request.shape.relation {
                shards::check(&session, query).await?;
            }
            let planning = ChPlanning { session: &session, request, database: &settings.database };
            let uuid = planning.server_uuid().await?;
            Ok((session, uuid))
        };
        let (session, uuid) = deadline::within(deadline, opening).await?;
        if matches!(request.shape.relation, RelationRequest::Table(_)) {
            sql.push_str(shards::all_shards(session.release()));
        }
        let mut plan = plan(request, &format, &session);
        plan.relation.identity = Some(source(request, settings, (&settings.database, None), uuid.as_deref()));
        let plan = Arc::new(plan);
        let (asked, proof, keep) = (AtomicU32::new(0), Arc::default(), request.work.keep_partial.clone());
        Ok(Self { session, sql, format, id, plan, asked, keep, proof, deadline })
    }

    pub(crate) fn planned(&self) -> Plan {
        Plan::clone(&self.plan)
    }

    async fn opened(&self) -> Result<Opened, SourceError> {
        let nth = self.asked.fetch_add(1, Ordering::Relaxed);
        let last = nth.saturating_add(1) >= ASKED_MAX;
        let id = query_id(&self.id, 0);
        self.answer(id, last).await.map_err(|error| given_up(error, last))
    }

    async fn answer(&self, id: String, last: bool) -> Result<Opened, SourceError> {
        let (parameters, asked) = ([("default_format", DEFAULT_FORMAT)], Instant::now());
        let name = QueryName::unique(id.as_str());
        let body = self.session.stream("reading the answer", &self.sql, &name, &parameters).await?;
        // A server of 2018 does not say it.
        let format = body.header("X-ClickHouse-Format").unwrap_or(&self.format).to_owned();
        let named = formats::written(&format, body.header("Content-Type"));
        let kind = named.and_then(|(extension, content_type)| ObjectKind::of_source(extension, content_type));
        let kind = kind.ok_or_else(|| {
            SourceError::new(SourceFault::Usage, format!("the answer is in the format {format}, which makes no file"))
        })?;
        let answer = VerbatimAnswer {
            body,
            session: Arc::clone(&self.session),
            id,
            format,
            last: LastBytes::default(),
            held: None,
            asked,
            proof: Arc::clone(&self.proof),
            over: false,
            failed: None,
        };
        let kept = match &self.keep {
            Some(file) => Some(KeptPrefix::begin(file).await?),
            None => None,
        };
        let batches: BatchStream = stream::unfold(Some((answer, kept)), move |reading| async move {
            let (mut answer, mut kept) = reading?;
            match answer.handed(&mut kept).await {
                Ok(Some(batch)) => Some((Ok(batch), Some((answer, kept)))),
                Ok(None) => None,
                Err(error) => Some((Err(given_up(error, last)), None)),
            }
        })
        .boxed();
        Ok(Opened::Bytes { kind, batches })
    }
}

/// An error of the last time that the statement is asked.
fn given_up(mut error: SourceError, last: bool) -> SourceError {
    if last && !failpoint::off("asked_thrice") {
        error.retry = Retry::Never;
    }
    error
}

/// An answer on its way.
struct VerbatimAnswer {
    body: ClickHouseBody,
    session: Arc<ClickHouseSession>,
    id: String,
    /// As the server says it.
    format: String,
    last: LastBytes,
    /// What came last.
    held: Option<Bytes>,
    /// When the statement was sent.
    asked: Instant,
    proof: Arc<Mutex<Option<AnswerProof>>>,
    over: bool,
    /// What comes behind the last bytes.
    failed: Option<SourceError>,
}

impl VerbatimAnswer {
    /// The next bytes as a batch. What is kept of them for a failure is kept first. Before an error come the last bytes that
    /// are certainly rows.
    async fn handed(&mut self, kept: &mut Option<KeptPrefix>) -> Result<Option<Batch>, SourceError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut bytes: Vec<u8> = Vec::with_capacity(HANDED);
        let came = self.fill(&mut bytes).await;
        if came.is_err() {
            self.body.rest().iter().for_each(|rest| bytes.extend_from_slice(rest));
        }
        if let Some(prefix) = kept {
            prefix.add(&bytes).await?;
        }
        match (came, kept.take()) {
            (Ok(()), Some(prefix)) if self.over => prefix.remove().await?,
            (Ok(()), prefix) => *kept = prefix,
            (Err(error), prefix) => {
                self.failed = Some(match prefix {
                    Some(prefix) => prefix.told(error),
                    None => error,
                });
            }
        }
        match self.failed.take_if(|_| bytes.is_empty()) {
            Some(error) => Err(error),
            None if bytes.is_empty() => Ok(None),
            None => batch(bytes).map(Some),
        }
    }

    /// Appends the next bytes, and at the end looks whether there are all. The last that came wait for what comes behind them:
    /// where that is the end of an answer that was cut, they may end with the beginning of an error.
    async fn fill(&mut self, bytes: &mut Vec<u8>) -> Result<(), SourceError> {
        while bytes.len() < HANDED && !self.over {
            match self.body.next().await {
                Ok(Some(chunk)) => {
                    self.last.add(&chunk);
                    bytes.extend_from_slice(&self.held.replace(chunk).unwrap_or_default());
                }
                Ok(None) => {
                    let held = self.held.take().unwrap_or_default();
                    let proven = self.prove().await;
                    let sure = if proven.is_ok() { held.len() } else { before_an_opening(&held) };
                    bytes.extend_from_slice(held.get(..sure).unwrap_or_default());
                    proven?;
                    self.over = true;
                }
                Err(error) => {
                    bytes.extend_from_slice(&self.held.take().unwrap_or_default());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Says what shows that nothing is missing.
    async fn prove(&mut self) -> Result<(), SourceError> {
        let ended = EndedAnswer {
            session: &self.session,
            body: &self.body,
            query_id: &self.id,
            format: &self.format,
            last: self.last.bytes(),
            asked: self.asked,
        };
        let proof = ended.proof().await?;
        *self.proof.lock().unwrap_or_else(PoisonError::into_inner) = Some(proof);
        Ok(())
    }
}

fn batch(bytes: Vec<u8>) -> Result<Batch, SourceError> {
    let failed = |error| SourceError::new(SourceFault::Protocol, "handing bytes on").with_source(error);
    let offsets = OffsetBuffer::from_lengths([bytes.len()]);
    let column = BinaryArray::try_new(offsets, Buffer::from_vec(bytes), None).map_err(failed)?;
    let rows = RecordBatch::try_from_iter([("bytes", Arc::new(column) as ArrayRef)]).map_err(failed)?;
    Ok(Batch { rows, changed: Box::default(), beyond_cap: false, is_followed: false })
}

/// Refuses what would need the rows.
fn refuse(request: &ReadRequest) -> Result<(), SourceError> {
    let ReadRequest { shape, work, .. } = request;
    let limits = &work.source_limits;
    let asked = [
        (shape.columns.is_some(), "--columns"),
        (!shape.expressions.is_empty(), "--column"),
        (!shape.renames.is_empty(), "--rename"),
        (shape.predicate.is_some(), "--where"),
        (shape.key.is_some(), "--key"),
        (shape.allow_rls, "--allow-rls"),
        (work.cap.as_ref().is_some_and(|cap| cap.tier.is_some()), "--tier"),
        (work.cap.is_some(), "--max-rows"),
        (work.min_rows.is_some(), "--min-rows"),
        (work.partitions.is_some_and(|partitions| partitions.get() > 1), "--partitions"),
        (work.read_mode != ReadMode::Copy, "--read-mode"),
        (matches!(work.consistency, Some(choice) if choice != ConsistencyChoice::SingleStatement), "--consistency"),
        (request.keep, "--keep-snapshot"),
        (limits.max_snapshot_age.is_some(), "--max-snapshot-age"),
        (limits.max_replay_lag.is_some(), "--max-replay-lag"),
    ];
    match asked.into_iter().find(|(asked, _)| *asked) {
        None => pace::check(limits.max_bytes_per_second),
        Some((_, flag)) => {
            let message = format!("{flag} has no meaning where the server's answer is written as it comes");
            Err(SourceError::new(SourceFault::Usage, message)
                .with_hint("say it in the statement, or choose --format parquet, csv or ndjson"))
        }
    }
}

/// The statement, and the format that it will be answered in.
fn statement(request: &ReadRequest) -> Result<(String, String), SourceError> {
    let usage = |why: String| SourceError::new(SourceFault::Usage, why);
    match &request.shape.relation {
        RelationRequest::Table(name) => {
            let (database, table) = names::table(name).map_err(|why| usage(format!("--table {name}: {why}")))?;
            let database = database.map_or_else(String::new, |database| format!("{}.", names::quoted(&database)));
            Ok((format!("SELECT * FROM {database}{}", names::quoted(&table)), DEFAULT_FORMAT.to_owned()))
        }
        RelationRequest::Query(query) => {
            let says = lexer::statement(query).map_err(|why| usage(format!("--query: {why}")))?;
            if says.is_empty() {
                return Err(usage("--query: it is empty".to_owned()));
            }
            Ok((query.clone(), says.format.unwrap_or_else(|| DEFAULT_FORMAT.to_owned())))
        }
    }
}

fn plan(request: &ReadRequest, format: &str, session: &ClickHouseSession) -> Plan {
    let (kind, name, query) = match &request.shape.relation {
        RelationRequest::Table(name) => (RelationKind::Table, Some(name.clone()), None),
        RelationRequest::Query(query) => (RelationKind::Query, None, Some(query.clone())),
    };
    let mut details = Map::new();
    let sent: Map<String, Value> = session.sent().iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    details.insert("format".to_owned(), json!(format));
    details.insert("settings".to_owned(), sent.into());
    let proof = expected(session, format);
    details.insert("proof".to_owned(), json!(proof.word()));
    let mut whole = format!("nothing is missing by {}", proof.told());
    if let Some(between) = session.between() {
        let _ = write!(whole, " (something stands between: {between})");
    }
    Plan {
        relation: Relation {
            kind,
            name,
            query,
            predicate: None,
            estimated_rows: None,
            estimated_bytes: None,
            tables: usize::from(kind == RelationKind::Table),
            row_security: false,
            identity: None,
        },
        now: None,
        content: PlannedContent::Bytes,
        columns: Vec::new(),
        key: Vec::new(),
        cap: CapPlan::none(),
        partitions: vec![Partition {
            number: 0,
            range: PartRange::Whole,
            ordered: false,
            row_limit: None,
            counted_rows: None,
        }],
        read: ReadPlan {
            mode: "verbatim".to_owned(),
            consistency: ConsistencyMode::Other(MODE.to_owned()),
            page_size: None,
            readers: 1,
            peak_connections: 2,
            source_profile: request.work.source_profile,
            note: None,
            details,
            lines: vec![
                ("read".to_owned(), format!("one statement, whose answer is written as it comes: {format}")),
                ("whole".to_owned(), whole),
            ],
        },
        at_own_moments: Vec::new(),
        watermark: None,
    }
}

impl Reading for VerbatimReading {
    fn plan(&self, relation: usize) -> Option<Arc<Plan>> {
        (relation == 0).then(|| Arc::clone(&self.plan))
    }

    fn facts(&self) -> SourceFacts {
        SourceFacts { kind: SourceKind::Clickhouse, server_version: self.session.version.clone(), standby: false }
    }

    fn consistency(&self, _: usize) -> Consistency {
        let proof = *self.proof.lock().unwrap_or_else(PoisonError::into_inner);
        Consistency {
            mode: ConsistencyMode::Other(MODE.to_owned()),
            snapshots: Vec::new(),
            now: None,
            note: proof.and_then(AnswerProof::note).map(str::to_owned),
            proof: proof.map(|proof| proof.word().to_owned()),
        }
    }

    fn record(&self, _: usize) -> Result<Value, SourceError> {
        Ok(json!({"version": 1, "verbatim": {"format": self.format}}))
    }

    fn open(&self, _: usize, _: u32) -> BoxFuture<'_, Result<Opened, SourceError>> {
        self.opened().boxed()
    }

    fn cost(&self, _: usize) -> SourceCost {
        self.session.cost()
    }

    fn guard(&self) -> BoxFuture<'_, SourceError> {
        // Nothing is held at the server. Only time runs out.
        deadline::guard(self.deadline)
    }
}
