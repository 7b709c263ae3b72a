//! Which rows are new since another export: decided from what that export left and what the server says of itself now.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::error::PlanError;
use super::{ColumnFacts, PgKeyColumn, PgPlan, RelationFacts, TypeKind, oid};
use crate::base::failpoint;
use crate::base::text::ordinal::ordinal;
use crate::model::{
    Carrier, Direction, PlannedWatermark, RelationKind, SinceExport, Watermark, WatermarkHistory, WatermarkRequest,
    WatermarkScale,
};
use crate::source::{SourceError, SourceFault};

/// A session tells others of its transaction a moment after the transaction has begun.
const TOLD_LATE: TimeDelta = TimeDelta::seconds(10);

/// Zones are so far west of UTC at most (`MAX_TZDISP_HOUR`, timestamp.h): a time without a zone may be so much behind.
const WEST_OF_UTC: TimeDelta = TimeDelta::hours(16);

/// The rows of a relation that are new since another export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The watermark's column.
    pub column: PgKeyColumn,
    /// Rows with this value or a greater one, or with none; all rows where it is missing.
    pub least: Option<String>,
    /// Of these, rows with a greater value,
    pub beyond: Option<String>,
    /// and rows of these transactions.
    pub window: Option<TransactionWindow>,
    /// OIDs of tables that were no part of the relation then: all of their rows are new to it.
    #[serde(default)]
    pub new_tables: Vec<u32>,
}

/// Transactions from one on and before another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionWindow {
    /// The first.
    pub from: u64,
    /// The first beyond.
    pub to: u64,
}

/// What a server says of itself under a run's snapshot.
#[derive(Debug, Clone)]
pub(crate) struct SourceMoment {
    /// The least transaction that was running.
    pub(crate) xmin: u64,
    /// The first transaction that had not begun.
    pub(crate) xmax: u64,
    /// When it was taken.
    pub(crate) taken_at: DateTime<Utc>,
    /// What it told of running transactions just before.
    pub(crate) running: Running,
    /// Where the rows are.
    pub(crate) history: WatermarkHistory,
    /// Up to where in the WAL their timeline is known; none where it is known everywhere, or nowhere.
    pub(crate) timeline_until: Option<String>,
    /// Whether all tables behind the relation keep with each row which transaction wrote it.
    pub(crate) heap: bool,
    /// Tables that came to stand behind the relation by a transaction that the export before did not see.
    pub(crate) attached: Vec<u32>,
}

/// What is known of running transactions.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Running {
    /// None of them had begun before; `None` where nobody tells.
    pub(crate) oldest_start: Option<DateTime<Utc>>,
    /// Whether one of them was prepared.
    pub(crate) prepared: bool,
}

/// What an incremental export goes by, and which rows it reads; all of them where there is no delta.
///
/// # Errors
/// The column is none of the relation or no watermark; the server is behind the export before.
pub(crate) fn decide(
    plan: &PgPlan,
    request: &WatermarkRequest,
    now: &SourceMoment,
) -> Result<(PlannedWatermark, Option<Delta>), SourceError> {
    let facts = &plan.relation;
    let column = facts.column("--watermark", &request.column)?;
    let scale = scale(column)?;
    if scale != WatermarkScale::Transaction {
        rows_have_transactions(facts, now.heap)?;
    } else if !facts.reading.foreign.is_empty() {
        // The numbers of another server's transactions are compared with this one's.
        return Err(no_transactions(facts).into());
    }
    let running = told_of(facts, now.running);
    if request.look_back.is_some() && !matches!(scale, WatermarkScale::Instant | WatermarkScale::LocalTime) {
        let message = format!("--look-back is a time, and column {:?} of --watermark has none", column.name);
        return Err(
            SourceError::new(SourceFault::Usage, message).with_hint("leave it out: no row is missed without it")
        );
    }
    let since = request.since.as_ref().filter(|since| since.watermark.column == request.column);
    let broken = since.map(|since| breaks(&since.watermark, now)).transpose()?.flatten();
    let since = since.filter(|_| broken.is_none());
    let planned = PlannedWatermark {
        column: request.column.clone(),
        scale,
        horizon: now.xmin,
        oldest_xact_start: running.oldest_start,
        prepared: running.prepared,
        taken_at: now.taken_at,
        look_back: request.look_back,
        floor: floor(scale, request.look_back, running),
        history: now.history.clone(),
        key: key(plan),
        since: since.cloned(),
        why_full: broken,
    };
    let delta = since.map(|since| delta(column, scale, request.look_back, since, now)).transpose()?;
    Ok((planned, delta))
}

/// The unique key, where each value of it is written in one way only.
fn key(plan: &PgPlan) -> Vec<String> {
    let one_way = |name: &String| {
        let facts = plan.relation.columns.iter().find(|column| column.name == *name);
        let written = plan.columns.iter().find(|column| column.output.origin.column() == Some(name));
        matches!((facts, written), (Some(facts), Some(written)) if written_one_way(facts, &written.output.carrier))
    };
    plan.relation.unique_key.clone().filter(|key| key.iter().all(one_way)).unwrap_or_default()
}

/// Whether values that the server takes for equal are the same in the files. It names the types of which that is known:
/// `citext`, floating point (-0), intervals and `jsonb` are none of them.
fn written_one_way(facts: &ColumnFacts, carrier: &Carrier) -> bool {
    let pg_type = &facts.pg_type;
    match (&pg_type.kind, pg_type.base_oid) {
        (TypeKind::Enum, _) => true,
        (TypeKind::Base, oid::TEXT | oid::VARCHAR | oid::NAME) => facts.bytes_equal,
        // Without a length it keeps the blanks that it was given, and compares without them.
        (TypeKind::Base, oid::BPCHAR) => facts.bytes_equal && pg_type.typmod.is_some(),
        (TypeKind::Base, oid::NUMERIC) => {
            pg_type.typmod.is_some() || matches!(carrier, Carrier::Decimal128 { .. } | Carrier::Decimal256 { .. })
        }
        (TypeKind::Base, base) => ONE_WAY.contains(&base),
        _ => false,
    }
}

/// Types whose equal values are the same bytes.
const ONE_WAY: [u32; 19] = [
    oid::BOOL,
    oid::INT2,
    oid::INT4,
    oid::INT8,
    oid::OID,
    oid::XID8,
    oid::BYTEA,
    oid::CHAR,
    oid::UUID,
    oid::DATE,
    oid::TIME,
    oid::TIMESTAMP,
    oid::TIMESTAMPTZ,
    oid::INET,
    oid::CIDR,
    oid::MACADDR,
    oid::MACADDR8,
    oid::VARBIT,
    oid::BIT,
];

/// What the values of a column count.
fn scale(column: &ColumnFacts) -> Result<WatermarkScale, PlanError> {
    match column.pg_type.base_oid {
        oid::XID8 => Ok(WatermarkScale::Transaction),
        oid::TIMESTAMPTZ => Ok(WatermarkScale::Instant),
        oid::TIMESTAMP | oid::DATE => Ok(WatermarkScale::LocalTime),
        oid::INT2 | oid::INT4 | oid::INT8 => Ok(WatermarkScale::Number),
        _ => Err(PlanError::NoWatermark { name: column.name.clone(), pg_type: column.pg_type.name.clone() }),
    }
}

/// Refuses relations whose rows do not say which transaction wrote them.
fn rows_have_transactions(facts: &RelationFacts, heap: bool) -> Result<(), PlanError> {
    let stored =
        matches!(facts.kind, RelationKind::Table | RelationKind::PartitionedTable | RelationKind::MaterializedView);
    if stored && heap && facts.reading.foreign.is_empty() {
        return Ok(());
    }
    Err(no_transactions(facts))
}

fn no_transactions(facts: &RelationFacts) -> PlanError {
    PlanError::NoTransactions { relation: facts.display_name.clone().unwrap_or_else(|| "the query".to_owned()) }
}

/// What is known of the transactions that a relation's rows are of. Those of a materialized view are seen when it is
/// refreshed, however long before they were written.
fn told_of(facts: &RelationFacts, running: Running) -> Running {
    match facts.kind {
        RelationKind::MaterializedView => Running { oldest_start: None, ..running },
        _ => running,
    }
}

/// Why the transactions of now do not go on from those of an export.
///
/// # Errors
/// The server has not come as far as it was then.
fn breaks(before: &Watermark, now: &SourceMoment) -> Result<Option<String>, SourceError> {
    let (then, here) = (&before.history, &now.history);
    let differs = |one: &Option<u32>, other: &Option<u32>| one.is_some() && other.is_some() && one != other;
    let identifiers = (&then.system_identifier, &here.system_identifier);
    let why = if matches!(identifiers, (Some(one), Some(other)) if one != other) {
        "the rows are on another server than those of the export before"
    } else if differs(&then.database, &here.database) {
        "the rows are in another database than those of the export before"
    } else if differs(&then.timeline, &here.timeline) {
        "the server was promoted or restored since the export before"
    } else if differs(&then.relation, &here.relation) {
        "the relation was made anew since the export before"
    } else if before.horizon > now.xmax {
        "the server's transactions do not go on from those of the export before"
    } else if is_behind(then.lsn.as_deref(), here.lsn.as_deref()) {
        let message = format!(
            "the server is at {} of its WAL, and the export before had read it at {}",
            here.lsn.as_deref().unwrap_or_default(),
            then.lsn.as_deref().unwrap_or_default()
        );
        return Err(SourceError::new(SourceFault::SnapshotLost, message).with_hint(
            "a standby that lags comes there by itself: try again later; after a restore give --since none",
        ));
    } else if then.timeline.is_some() && is_behind(then.lsn.as_deref(), now.timeline_until.as_deref()) {
        // Its transactions may be those of a server that was promoted before the export before had read so far.
        "the standby does not say yet whose WAL it has replayed since the export before: it receives none, or the role lacks \
         pg_read_all_stats to see from which timeline"
    } else {
        return Ok(None);
    };
    Ok(Some(why.to_owned()))
}

/// Whether a place in the WAL lies before another.
fn is_behind(then: Option<&str>, now: Option<&str>) -> bool {
    let place = |lsn: &str| {
        let (high, low) = lsn.split_once('/')?;
        Some((u64::from_str_radix(high, 16).ok()?, u64::from_str_radix(low, 16).ok()?))
    };
    matches!((then.and_then(place), now.and_then(place)), (Some(then), Some(now)) if now < then)
}

/// The rows that are new since an export. What a table held when it was attached is new too, however old it is: also what
/// had been there, was detached and filled, and is attached again.
fn delta(
    column: &ColumnFacts,
    scale: WatermarkScale,
    look_back: Option<Duration>,
    SinceExport { watermark, .. }: &SinceExport,
    now: &SourceMoment,
) -> Result<Delta, PlanError> {
    let (name, pg_type) = (column.name.clone(), column.pg_type.name.clone());
    let comparison = column.comparison.clone().ok_or(PlanError::NoWatermark { name, pg_type })?;
    let key = PgKeyColumn {
        name: column.name.clone(),
        pg_type: column.pg_type.clone(),
        direction: Direction::Asc,
        nullable: !column.not_null,
        comparison,
    };
    let known = &watermark.history.tables;
    let is_new = |table: &u32| now.attached.contains(table) || !known.is_empty() && !known.contains(table);
    let new = now.history.tables.iter().filter(|table| is_new(table));
    let new_tables = if failpoint::off("new-tables") { Vec::new() } else { new.copied().collect() };
    if scale == WatermarkScale::Transaction {
        let least = Some(watermark.horizon.to_string());
        return Ok(Delta { column: key, least, beyond: None, window: None, new_tables });
    }
    let least = if failpoint::off("look-back") { watermark.value.clone() } else { least(scale, look_back, watermark) };
    let is_date = column.pg_type.base_oid == oid::DATE;
    let least = least.map(|text| if is_date { text.chars().take_while(|c| *c != ' ').collect() } else { text });
    let window = TransactionWindow { from: watermark.horizon, to: now.xmax };
    let window = (!failpoint::off("horizon")).then_some(window);
    Ok(Delta { column: key, least, beyond: watermark.value.clone(), window, new_tables })
}

/// The least value that a row can have which the export before did not see; `None` where nobody can say.
fn least(scale: WatermarkScale, look_back: Option<Duration>, watermark: &Watermark) -> Option<String> {
    let Watermark { value, prepared, oldest_xact_start, .. } = watermark;
    let running = Running { oldest_start: *oldest_xact_start, prepared: *prepared };
    let floor = floor(scale, look_back, running)?.timestamp_micros();
    let back = i128::try_from(look_back.unwrap_or_default().as_micros()).ok()?;
    let value = value.as_deref().and_then(ordinal).map(|value| value.saturating_sub(back));
    let micros = value.map_or(i128::from(floor), |value| value.min(floor.into()));
    let moment = DateTime::from_timestamp_micros(i64::try_from(micros).ok()?)?;
    let plain = (1..=9_999).contains(&chrono::Datelike::year(&moment));
    let zone = if scale == WatermarkScale::Instant { "+00" } else { "" };
    plain.then(|| format!("{}{zone}", moment.format("%Y-%m-%d %H:%M:%S%.6f")))
}

/// No row that an export did not see has a value before this moment, as far as the database's clock sets the column, or a
/// clock that is not farther behind than `look_back`; `None` where nobody can say.
///
/// Such a row is of a transaction that was running when the snapshot was taken, or of a later one.
fn floor(
    scale: WatermarkScale,
    look_back: Option<Duration>,
    Running { oldest_start, prepared }: Running,
) -> Option<DateTime<Utc>> {
    let margin = match scale {
        WatermarkScale::Instant => TOLD_LATE,
        WatermarkScale::LocalTime => TOLD_LATE + WEST_OF_UTC,
        WatermarkScale::Transaction | WatermarkScale::Number => return None,
    };
    // Nobody tells when a prepared transaction began.
    let begun = oldest_start.filter(|_| !prepared)?;
    let back = TimeDelta::from_std(look_back.unwrap_or_default()).ok()?;
    begun.checked_sub_signed(margin)?.checked_sub_signed(back)
}

#[cfg(test)]
mod tests {
    use super::super::testing::column;
    use super::super::{ExtensionType, PgType};
    use super::*;
    use crate::model::AskedColumns;

    fn at(timeline: u32, lsn: &str) -> WatermarkHistory {
        WatermarkHistory { timeline: Some(timeline), lsn: Some(lsn.to_owned()), ..WatermarkHistory::default() }
    }

    fn moment(history: WatermarkHistory, timeline_until: Option<&str>) -> SourceMoment {
        SourceMoment {
            xmin: 772,
            xmax: 772,
            taken_at: DateTime::UNIX_EPOCH,
            running: Running::default(),
            history,
            timeline_until: timeline_until.map(str::to_owned),
            heap: true,
            attached: Vec::new(),
        }
    }

    fn before(history: WatermarkHistory) -> Watermark {
        Watermark {
            column: "txid".to_owned(),
            value: Some("755".to_owned()),
            horizon: 755,
            oldest_xact_start: None,
            look_back: None,
            taken_at: DateTime::UNIX_EPOCH,
            prepared: false,
            since: None,
            why_full: None,
            key: Vec::new(),
            selection: AskedColumns::default(),
            history,
            changes: Vec::new(),
        }
    }

    /// The export before read timeline 1 up to 0/402B4B0.
    #[test]
    fn a_standby_goes_on_only_from_where_its_timeline_is_known() {
        let then = before(at(1, "0/402B4B0"));
        let why = |timeline, until| breaks(&then, &moment(at(timeline, "0/40A0000"), until)).unwrap();
        assert_eq!(why(1, None), None, "a primary, or what it receives is seen");
        assert!(why(2, None).unwrap().contains("promoted"));
        assert_eq!(why(1, Some("0/402B4B0")), None, "it noted the timeline behind that place");
        for until in ["0/0", "0/402B4AF", "0/3000148"] {
            assert!(why(1, Some(until)).unwrap().contains("pg_read_all_stats"), "{until}");
        }
        // What lags comes there by itself.
        assert!(breaks(&then, &moment(at(1, "0/4000000"), Some("0/3000148"))).is_err());
        // Nobody knew it then: as on any server whose role may not ask.
        let unknown = before(WatermarkHistory { timeline: None, ..then.history.clone() });
        assert_eq!(breaks(&unknown, &moment(at(1, "0/40A0000"), Some("0/3000148"))).unwrap(), None);
    }

    #[test]
    fn a_table_is_new_where_it_was_not_there_or_came_back() {
        let found = |known: &[u32], attached: &[u32]| {
            let history = WatermarkHistory { tables: vec![1, 2, 3], ..WatermarkHistory::default() };
            let now = SourceMoment { attached: attached.to_vec(), ..moment(history.clone(), None) };
            let watermark = before(WatermarkHistory { tables: known.to_vec(), ..history });
            let since = SinceExport { run_id: "before".to_owned(), watermark };
            let column = column("txid", oid::XID8, false);
            delta(&column, WatermarkScale::Transaction, None, &since, &now).unwrap().new_tables
        };
        assert_eq!(found(&[1, 2, 3], &[]), [0; 0]);
        assert_eq!(found(&[1, 3], &[]), [2]);
        // 9 is in between, or another session's.
        assert_eq!(found(&[1, 2], &[2, 9]), [2, 3]);
        assert_eq!(found(&[], &[1]), [1], "a version that noted no tables");
    }

    #[test]
    fn a_value_that_is_written_in_several_ways_is_no_key() {
        let text = column("c", oid::TEXT, true);
        let of = |oid, typmod| {
            let facts = column("c", oid, true);
            ColumnFacts { pg_type: PgType { typmod, ..facts.pg_type }, ..facts }
        };
        let decimal = Carrier::Decimal128 { precision: 38, scale: 0 };
        for (facts, carrier, expected) in [
            (text.clone(), &Carrier::Text, true),
            (ColumnFacts { bytes_equal: false, ..text.clone() }, &Carrier::Text, false),
            (of(oid::BPCHAR, Some(7)), &Carrier::Text, true),
            (of(oid::BPCHAR, None), &Carrier::Text, false),
            (of(oid::NUMERIC, Some(655_366)), &Carrier::NumberText, true),
            (of(oid::NUMERIC, None), &Carrier::NumberText, false),
            (of(oid::NUMERIC, None), &decimal, true),
            (of(oid::FLOAT8, None), &Carrier::Float64, false),
            (of(oid::FLOAT4, None), &Carrier::Float32, false),
            (of(oid::INTERVAL, None), &Carrier::Text, false),
            (of(oid::JSONB, None), &Carrier::Json, false),
            (of(oid::INT8, None), &Carrier::Int64, true),
            (of(oid::UUID, None), &Carrier::Uuid, true),
            (of(oid::TIMESTAMPTZ, None), &Carrier::PgTimestampTz, true),
        ] {
            assert_eq!(written_one_way(&facts, carrier), expected, "{facts:?}");
        }
        let citext = TypeKind::Extension(ExtensionType::Citext);
        // Also a domain over it.
        let pg_type = PgType { kind: citext, base_oid: 70_000, ..text.pg_type.clone() };
        assert!(!written_one_way(&ColumnFacts { pg_type, ..text }, &Carrier::Text));
    }
}
