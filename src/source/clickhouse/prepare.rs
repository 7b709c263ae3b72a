//! What is asked for becomes a plan: the server is asked what it has, and the rows of a `MergeTree` table are counted by part.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use chrono::Utc;

use super::columns::{ChColumn, ChColumnFacts, usage};
use super::deadline;
use super::describe::ChDescribed;
use super::http::ClickHouseHttp;
use super::key_ranges;
use super::lexer;
use super::names::literal;
use super::pace;
use super::parts::{Grain, PartPiece, slices};
use super::plan::{ChMode, ChPartition, ChPlan, ChRelation, ChSlice, cap};
use super::profile::ChProfile;
use super::served_rows;
use super::settings::{ClickHouseSession, WantedSetting};
use super::shards::ALL_SHARDS;
use super::steady::RowTexts;
use super::typed_settings::wanted;
use crate::base::memory::PARTITIONS_MAX;
use crate::base::postgres::settings::ConnectSettings;
use crate::base::{failpoint, http::CodingChoice};
use crate::model::{ConsistencyChoice, Direction, KeyColumn, ReadMode, ReadRequest, RelationRequest};
use crate::source::{SourceError, SourceFault};

/// The first release whose `ArrowStream` has all that is read here.
pub(super) const OLDEST: (u32, u32) = (23, 8);

/// Connections that are asked for their host, beside the first.
const HOSTS_ASKED: usize = 4;

/// A session with a server, and what planning knows of it.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) session: Arc<ClickHouseSession>,
    pub(crate) plan: ChPlan,
    /// When `--max-duration` is over.
    pub(crate) deadline: Option<Instant>,
}

/// What tells the queries of this process from those of another one with the same run.
static PROCESS: LazyLock<u32> = LazyLock::new(rand::random);

/// Numbers the queries of this process, whose runs may have one id.
static QUERIES: AtomicU64 = AtomicU64::new(0);

/// The id of a query of a run.
pub(crate) fn query_id(prefix: &str, what: impl Display) -> String {
    format!("{prefix}-{what}-{}", QUERIES.fetch_add(1, Ordering::Relaxed))
}

/// How the queries of a run are called, by the end of its id, which is its random part. No other process has the same: it
/// would kill our queries with its own.
pub(crate) fn prefix(run_id: &str) -> String {
    let letters: Vec<char> = run_id.chars().filter(char::is_ascii_alphanumeric).collect();
    let short: String = letters.iter().skip(letters.len().saturating_sub(8)).collect();
    format!("outhaul-{short}-{:08x}", *PROCESS)
}

/// A session for typed reads.
///
/// # Errors
/// The server cannot be reached or refuses, or is too old.
pub(crate) async fn session(
    settings: &ConnectSettings,
    run_id: &str,
    rate: Option<NonZeroU64>,
) -> Result<Arc<ClickHouseSession>, SourceError> {
    let http = Arc::new(ClickHouseHttp::new(settings, CodingChoice::Plain, run_id)?.paced(rate));
    typed(http, &wanted(settings)).await
}

/// The same over a connection of the caller's, with settings of its own.
///
/// # Errors
/// As [`session`].
pub(super) async fn typed(
    http: Arc<ClickHouseHttp>,
    settings: &[WantedSetting],
) -> Result<Arc<ClickHouseSession>, SourceError> {
    let session = ClickHouseSession::open(http, settings).await?;
    if session.release() < OLDEST {
        let message = format!("this is ClickHouse {}, and typed exports need 23.8 or later", session.version);
        return Err(usage(message, "--format source writes the bytes of any version, in a format of the server's"));
    }
    Ok(Arc::new(session))
}

/// Plans one request.
///
/// # Errors
/// It does not fit the relation or this source, or the server fails.
pub(crate) async fn prepare(settings: &ConnectSettings, request: &ReadRequest) -> Result<Prepared, SourceError> {
    refuse(request)?;
    if let RelationRequest::Query(query) = &request.shape.relation {
        lexer::check("--query", query)?;
    }
    let deadline = deadline::of(request);
    deadline::within(deadline, async {
        let session = session(settings, &request.run_id, request.work.source_limits.max_bytes_per_second).await?;
        let planning = ChPlanning { session: &session, request, database: &settings.database };
        let mut plan = planning.plan().await?;
        plan.source = Some(plan.relation.source(request, settings, plan.server_uuid.as_deref()));
        Ok(Prepared { session, plan, deadline })
    })
    .await
}

/// Refuses what this source does not have.
fn refuse(request: &ReadRequest) -> Result<(), SourceError> {
    let limits = &request.work.source_limits;
    let what = if request.keep {
        "--keep-snapshot: ClickHouse has no snapshot that could be kept"
    } else if request.work.read_mode != ReadMode::Copy && request.work.served.is_none() {
        "--read-mode keyset has no meaning for ClickHouse"
    } else if limits.max_snapshot_age.is_some() || limits.max_replay_lag.is_some() {
        "--max-snapshot-age and --max-replay-lag have no meaning for ClickHouse"
    } else if request.shape.allow_rls {
        "--allow-rls has no meaning for ClickHouse: a user reads the rows that its policies let it see"
    } else {
        return pace::check(limits.max_bytes_per_second);
    };
    Err(usage(what, "leave it out"))
}

pub(super) struct ChPlanning<'a> {
    pub(super) session: &'a Arc<ClickHouseSession>,
    pub(super) request: &'a ReadRequest,
    /// Where a table is whose name says no database.
    pub(super) database: &'a str,
}

impl ChPlanning<'_> {
    pub(super) async fn ask(&self, doing: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>, SourceError> {
        self.session.ask(doing, sql, &[]).await
    }

    async fn plan(&self) -> Result<ChPlan, SourceError> {
        let (described, columns) = self.relation_and_columns().await?;
        let key = self.key(&described.columns, &columns)?;
        let texts = RowTexts::of(&self.request.shape, &described.columns, &columns);
        let ChDescribed { relation, columns: facts, sorting_key, text } = described;
        let ChProfile { threads, fixed, is_final, mutates } = self.profile().await?;
        // Whoever may not ask for fewer threads takes all of them with one statement.
        let most = if fixed { 1 } else { usize::try_from(threads).unwrap_or(usize::MAX) };
        let (work, served) = (&self.request.work, self.request.work.served.is_some());
        let most = pace::readers(work.source_limits.max_bytes_per_second, most);
        let readers = work.readers.get().min(most).max(1);
        let mut plan = ChPlan {
            cap: cap(None, None, false),
            order: Vec::new(),
            mode: ChMode::SingleStatement,
            why: None,
            partitions: vec![ChPartition { number: 0, slice: ChSlice::Whole }],
            host: self.session.host.clone(),
            server_uuid: self.server_uuid().await?,
            eyes: self.eyes().await?,
            source: None,
            seats: format!("{:08x}", rand::random::<u32>()),
            threads,
            fixed_threads: fixed,
            readers: 1,
            taken_at: Utc::now(),
            patches: String::new(),
            replanned: Vec::new(),
            relation,
            columns,
            key,
        };
        let capped = work.cap.as_ref();
        if capped.is_some_and(|cap| cap.max_rows.is_some()) || self.request.single || served {
            self.as_one(&mut plan, &facts, &sorting_key)?;
            plan.threads = if served { threads.min(served_rows::THREADS) } else { threads };
            return Ok(plan);
        }
        plan.cap.tier = capped.and_then(|cap| cap.tier.clone());
        let by_partition = work.consistency == Some(ConsistencyChoice::PerPartition);
        let why = if work.consistency == Some(ConsistencyChoice::SingleStatement) {
            Some("--consistency single_statement".to_owned())
        } else if mutates {
            Some("the profile of this user applies mutations as it reads".to_owned())
        } else if is_final && !(by_partition && self.final_keeps_to_partitions(&plan, &sorting_key).await?) {
            let more =
                if by_partition { ", and the partition key is not made of columns of the sorting key" } else { "" };
            Some(format!("the profile of this user reads with FINAL{more}"))
        } else if by_partition {
            self.by_partition(&mut plan, &texts).await?
        } else if plan.key.is_empty() {
            self.by_parts(&mut plan, &texts).await?
        } else {
            self.by_key(&mut plan, &facts, (&texts, text.as_deref())).await?
        };
        match why {
            None => {
                plan.readers = readers.min(plan.partitions.len()).max(1);
                let sharers = if failpoint::off("reader_threads") { 1 } else { readers };
                plan.threads = (threads / u64::try_from(sharers).unwrap_or(u64::MAX)).max(1);
            }
            Some(why) => {
                plan.mode = ChMode::SingleStatement;
                plan.why = Some(why);
                // Where somebody named a key, it orders what it does not split.
                if !plan.key.is_empty() {
                    self.as_one(&mut plan, &facts, &sorting_key)?;
                }
            }
        }
        Ok(plan)
    }

    /// The columns of `--key`.
    fn key(&self, described: &[ChColumnFacts], columns: &[ChColumn]) -> Result<Vec<KeyColumn>, SourceError> {
        let one = |(name, direction): &(String, Direction)| {
            let Some(column) = described.iter().find(|column| column.name == *name) else {
                return Err(usage(format!("--key: there is no column {name:?}"), "name a column of the relation"));
            };
            key_ranges::check(name, &column.type_name)?;
            let output =
                columns.iter().find(|output| output.output.origin == crate::model::ColumnOrigin::Column(name.clone()));
            Ok(KeyColumn {
                name: name.clone(),
                direction: *direction,
                nullable: column.type_name.contains("Nullable("),
                may_show: output.is_some_and(|output| output.output.may_show),
            })
        };
        self.request.shape.key.iter().flatten().map(one).collect()
    }

    /// Slices of named parts; or why it is one statement.
    async fn by_parts(&self, plan: &mut ChPlan, texts: &RowTexts) -> Result<Option<String>, SourceError> {
        if let Some(why) = self.not_by_parts(plan, texts).await? {
            return Ok(Some(why));
        }
        let rows = plan.relation.estimated_rows.unwrap_or(0);
        let grain = Grain::of(rows, self.wanted(plan), self.request.work.partitions.is_some());
        plan.patches = patches(self.session, &plan.relation).await?;
        let pieces = count_parts(self.session, &plan.relation, &plan.host, grain, None).await?;
        plan.taken_at = Utc::now();
        plan.mode = ChMode::PartSet;
        plan.partitions = numbered(slices(pieces, grain), 0)?;
        if plan.partitions.is_empty() {
            plan.partitions = vec![ChPartition { number: 0, slice: ChSlice::Nothing }];
        }
        Ok(None)
    }

    /// How many slices a table is to be cut into.
    pub(super) fn wanted(&self, plan: &ChPlan) -> u64 {
        let work = &self.request.work;
        let by_size = plan.relation.estimated_bytes.unwrap_or(0) / work.part_size.get();
        let wanted = by_size.max(u64::try_from(work.readers.get()).unwrap_or(1).saturating_mul(4));
        work.partitions.map_or(wanted, |partitions| u64::from(partitions.get())).clamp(1, u64::from(PARTITIONS_MAX))
    }

    pub(super) async fn not_by_parts(&self, plan: &ChPlan, texts: &RowTexts) -> Result<Option<String>, SourceError> {
        if plan.relation.table.is_none() {
            return Ok(Some("a query is split only with --key".to_owned()));
        }
        if !plan.relation.engine.ends_with("MergeTree") {
            let engine = &plan.relation.engine;
            return Ok(Some(format!("a table of the engine {engine} has no parts; --key splits it")));
        }
        if self.request.work.partitions.is_some_and(|partitions| partitions.get() == 1) {
            return Ok(Some("--partitions 1".to_owned()));
        }
        if plan.fixed_threads && self.has_projections(plan).await? {
            let why = "the table has projections, and the profile of this user lets nobody leave them aside";
            return Ok(Some(why.to_owned()));
        }
        if let Some(why) = self.undetermined(&texts.all()).await? {
            return Ok(Some(why));
        }
        if let Some(why) = self.of_other_rows(texts).await? {
            return Ok(Some(why));
        }
        self.several_hosts().await
    }

    /// Why the parts of one server cannot be named to all connections.
    async fn several_hosts(&self) -> Result<Option<String>, SourceError> {
        let asked = (0..HOSTS_ASKED).map(|_| self.ask("asking which server answers", "SELECT hostName()"));
        for rows in futures_util::future::try_join_all(asked).await? {
            let host = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
            if host.as_ref() != Some(&self.session.host) {
                let other = host.unwrap_or_default();
                return Ok(Some(format!(
                    "connections reach several servers ({} and {other}), whose parts differ: name one of them in --from",
                    self.session.host
                )));
            }
        }
        Ok(None)
    }

    /// Ranges of the key; or why it is one statement.
    async fn by_key(
        &self,
        plan: &mut ChPlan,
        described: &[ChColumnFacts],
        (texts, text): (&RowTexts, Option<&str>),
    ) -> Result<Option<String>, SourceError> {
        let work = &self.request.work;
        if work.partitions.is_some_and(|partitions| partitions.get() == 1) {
            return Ok(Some("--partitions 1".to_owned()));
        }
        let steps = self.ask("asking how the relation is read", &explain(plan)).await?;
        let steps: Vec<String> = steps.into_iter().flatten().flatten().collect();
        let limited = |step: &String| key_ranges::LIMITS.iter().any(|limit| step.contains(limit));
        if let Some(step) = steps.iter().find(|step| limited(step)) {
            let step = step.trim_start_matches(['│', '└', '├', '─', ' ']).to_owned();
            return Ok(Some(format!("which rows it has depends on all of them ({step})")));
        }
        if let Some(why) = self.of_other_rows(texts).await? {
            return Ok(Some(why));
        }
        let all: Vec<&str> = text.into_iter().chain(texts.all()).chain(steps.iter().map(String::as_str)).collect();
        let unsure = self.undetermined_of_query(&all).await?;
        if unsure.is_some() {
            return Ok(unsure);
        }
        let wanted = work.partitions.map_or_else(
            || u64::try_from(work.readers.get()).unwrap_or(1).saturating_mul(4),
            |partitions| u64::from(partitions.get()),
        );
        let Some(key) = plan.key.first().cloned() else { return Ok(Some("there is no key".to_owned())) };
        let of_key = described.iter().find(|column| column.name == key.name);
        let type_name = of_key.map_or("", |column| column.type_name.as_str());
        let conditions = key_ranges::conditions(self.session, &plan.relation, (&key, type_name), wanted).await?;
        let Some(conditions) = conditions else {
            return Ok(Some(format!("values of {} cannot be told apart by their text", key.name)));
        };
        plan.mode = ChMode::KeyRanges;
        plan.taken_at = Utc::now();
        plan.partitions = (0_u32..).zip(conditions).map(|(number, slice)| ChPartition { number, slice }).collect();
        Ok(None)
    }
}

fn explain(plan: &ChPlan) -> String {
    // A literal in it may be no text.
    format!("SELECT toValidUTF8(explain) FROM (EXPLAIN PLAN actions = 1 {})", plan.select(&ChSlice::Whole))
}

/// Counts the rows of each part in pieces, all in one statement: it sees one set of parts. `ids` are the table's partitions
/// that are meant; `None` is all.
pub(crate) async fn count_parts(
    session: &ClickHouseSession,
    relation: &ChRelation,
    host: &str,
    grain: Grain,
    ids: Option<&BTreeSet<String>>,
) -> Result<Vec<PartPiece>, SourceError> {
    let mut ours = format!("hostName() = {}", literal(host));
    if let Some(ids) = ids {
        let ids: Vec<String> = ids.iter().map(|id| literal(id)).collect();
        ours = format!("{ours} AND _partition_id IN ({})", ids.join(", "));
    }
    let places = grain.places;
    let sql = format!(
        "SELECT _partition_id, _part, intDiv(_part_offset, {places}) AS outhaul_piece, count() FROM {}{} \
         GROUP BY _partition_id, _part, outhaul_piece ORDER BY _partition_id, _part, outhaul_piece{ALL_SHARDS}",
        relation.from(),
        relation.filter(Some(&ours)),
    );
    let rows = session.ask("counting the rows of each part", &sql, &[]).await?;
    let piece = |row: Vec<Option<String>>| {
        let mut values = row.into_iter().flatten();
        let (partition_id, part) = (values.next()?, values.next()?);
        let (nth, rows): (u64, u64) = (values.next()?.parse().ok()?, values.next()?.parse().ok()?);
        let from = nth.checked_mul(places)?;
        Some(PartPiece { partition_id, part, from, to: from.checked_add(places)?, rows })
    };
    let pieces: Option<Vec<PartPiece>> = rows.into_iter().map(piece).collect();
    pieces.ok_or_else(|| SourceError::new(SourceFault::Protocol, "the server's counts of parts cannot be read"))
}

/// Stands for the patches of a table: an update of rows (ClickHouse 25.7 and later) changes them as they are read, while their
/// parts keep their names.
pub(crate) async fn patches(session: &ClickHouseSession, relation: &ChRelation) -> Result<String, SourceError> {
    let Some((database, table)) = &relation.table else { return Ok(String::new()) };
    let sql = format!(
        "SELECT toString(cityHash64(arraySort(groupArray(name)))) FROM system.parts WHERE active AND database = {} \
         AND table = {} AND startsWith(partition_id, 'patch-')",
        literal(database),
        literal(table)
    );
    let rows = session.ask("looking for updates of rows", &sql, &[]).await?;
    Ok(rows.into_iter().flatten().flatten().next().unwrap_or_default())
}

/// Slices as partitions, numbered on from `first`.
pub(crate) fn numbered(slices: Vec<Vec<PartPiece>>, first: u32) -> Result<Vec<ChPartition>, SourceError> {
    let number = |(place, pieces): (usize, Vec<PartPiece>)| {
        let number = u32::try_from(place).ok().and_then(|place| first.checked_add(place));
        let number = number.filter(|number| *number <= PARTITIONS_MAX).ok_or_else(|| {
            usage("the plan has more partitions than a run may have", "ask for fewer with --partitions")
        })?;
        Ok(ChPartition { number, slice: ChSlice::Parts(pieces) })
    };
    slices.into_iter().enumerate().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_called_after_their_run() {
        let called = prefix("20261129T224247Z-784021fb");
        assert!(called.starts_with("outhaul-784021fb-") && called.len() == 25, "{called}");
        assert!(prefix("a'b").starts_with("outhaul-ab-"));
    }
}
