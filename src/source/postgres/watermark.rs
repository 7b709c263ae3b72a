//! What an incremental export has to know of the server: which transactions run, and whose history they are part of.

use chrono::DateTime;
use tokio_postgres::types::Type;

use super::catalog::{query, value};
use super::closed::closed;
use super::connect::Session;
use super::estimate::{self, BOUNDS};
use super::plan::delta::{Delta, Running, SourceMoment, TransactionWindow};
use super::plan::{PgPlan, Slice};
use super::prepare::Planning;
use super::sql;
use crate::model::{SinceExport, WatermarkHistory};
use crate::source::{SourceError, SourceFault};

fn silent(what: &str) -> SourceError {
    SourceError::new(SourceFault::Protocol, format!("the server does not say {what}"))
}

/// Whether session `a` is in a transaction of which it does not say when it began: `track_activities` was off then. A sender
/// of WAL keeps back an `xmin` for others, and is in none.
const UNTOLD: &str = "a.xact_start IS NULL AND (a.backend_xid IS NOT NULL \
    OR pg_catalog.starts_with(a.state, 'idle in transaction') \
    OR a.backend_xmin IS NOT NULL AND a.backend_type = 'client backend')";

/// Asks which transactions run. It has to be asked before the snapshot is taken: what begins later begins after this
/// question, and what has ended by then is in the snapshot.
///
/// # Errors
/// The server refused or was lost.
pub(super) async fn running(session: &Session) -> Result<Running, SourceError> {
    const ACTION: &str = "asking which transactions run";
    // What the session has seen of others before would stand still.
    session.batch(ACTION, "SELECT pg_catalog.pg_stat_clear_snapshot()").await?;
    let sql = closed(
        &"SELECT (extract(epoch FROM LEAST(pg_catalog.min(a.xact_start), pg_catalog.statement_timestamp())) * 1000000)::int8, \
        pg_catalog.pg_has_role('pg_read_all_stats'::name, 'USAGE') AND NOT pg_catalog.pg_is_in_recovery() \
            AND NOT COALESCE(pg_catalog.bool_or(a.state = 'disabled' OR UNTOLD), false), \
        EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts p WHERE p.database = pg_catalog.current_database()) \
        FROM pg_catalog.pg_stat_activity a \
        WHERE a.pid <> pg_catalog.pg_backend_pid() \
            AND (a.datname = pg_catalog.current_database() OR a.datname IS NULL)"
            .replace("UNTOLD", UNTOLD),
    );
    let rows = query(session, ACTION, &sql, &[]).await?;
    let row = rows.first().ok_or_else(|| silent("which transactions run"))?;
    let oldest: Option<i64> = value(row, 0)?;
    let all_told: bool = value(row, 1)?;
    let oldest_start = oldest.filter(|_| all_told).and_then(DateTime::from_timestamp_micros);
    Ok(Running { oldest_start, prepared: value(row, 2)? })
}

/// Describes the snapshot that the session is under, whose history it is a moment of, and what has become of the relation's
/// tables since the export before.
///
/// # Errors
/// The server refused or was lost.
pub(super) async fn moment(
    session: &Session,
    running: Running,
    (relation, since): (Option<u32>, Option<&SinceExport>),
) -> Result<SourceMoment, SourceError> {
    const ACTION: &str = "describing the snapshot's transactions";
    let sql = closed(
        "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text, \
        pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text, \
        (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
            ELSE pg_catalog.pg_current_wal_lsn() END)::text, \
        (extract(epoch FROM pg_catalog.now()) * 1000000)::int8, \
        (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()), \
        pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE') \
            AND pg_catalog.has_function_privilege('pg_catalog.pg_control_checkpoint()', 'EXECUTE') \
            AND pg_catalog.has_function_privilege('pg_catalog.pg_control_recovery()', 'EXECUTE')",
    );
    let rows = query(session, ACTION, &sql, &[]).await?;
    let row = rows.first().ok_or_else(|| silent("what its snapshot is"))?;
    let id = |index| {
        let text: &str = value(row, index)?;
        text.parse::<u64>().map_err(|_| silent("which transactions its snapshot sees"))
    };
    let taken_at = DateTime::from_timestamp_micros(value(row, 3)?).ok_or_else(|| silent("what time it is"))?;
    let (xmin, xmax) = (id(0)?, id(1)?);
    let branch = if value(row, 5)? { cluster(session).await? } else { WalBranch::default() };
    let (database, lsn) = (value(row, 4)?, value(row, 2)?);
    let (heap, tables) = match relation {
        Some(relation) => tables(session, relation).await?,
        None => (false, Vec::new()),
    };
    let attached = match (relation, since) {
        (Some(relation), Some(since)) => {
            attached(session, relation, TransactionWindow { from: since.watermark.horizon, to: xmax }).await?
        }
        _ => Vec::new(),
    };
    let WalBranch { system_identifier, timeline, timeline_until } = branch;
    let history = WatermarkHistory { system_identifier, timeline, database, relation, lsn, tables };
    Ok(SourceMoment { xmin, xmax, taken_at, running, history, timeline_until, heap, attached })
}

/// Whose history the server's transactions are of.
#[derive(Default)]
struct WalBranch {
    system_identifier: Option<String>,
    timeline: Option<u32>,
    timeline_until: Option<String>,
}

/// Asks for the identifier of the cluster and its timeline. A standby writes down late to which timeline it has come: what
/// it receives tells it at once, where the role may see that.
async fn cluster(session: &Session) -> Result<WalBranch, SourceError> {
    let sql = closed(
        "SELECT (SELECT s.system_identifier::text FROM pg_catalog.pg_control_system() s), \
        GREATEST(r.min_recovery_end_timeline, c.timeline_id)::int8, \
        CASE WHEN NOT pg_catalog.pg_is_in_recovery() \
            THEN pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) END, \
        (SELECT pg_catalog.max(w.received_tli) FROM pg_catalog.pg_stat_wal_receiver w)::int8, \
        r.min_recovery_end_lsn::text \
        FROM pg_catalog.pg_control_recovery() r CROSS JOIN pg_catalog.pg_control_checkpoint() c",
    );
    let rows = query(session, "asking whose history the transactions are of", &sql, &[]).await?;
    let row = rows.first().ok_or_else(|| silent("which cluster it is"))?;
    let (noted, received): (Option<i64>, Option<i64>) = (value(row, 1)?, value(row, 3)?);
    let file: Option<&str> = value(row, 2)?;
    let written = file.and_then(|file| u32::from_str_radix(file.get(..8)?, 16).ok());
    let followed = noted.max(received).and_then(|timeline| u32::try_from(timeline).ok());
    Ok(WalBranch {
        system_identifier: value(row, 0)?,
        timeline: written.or(followed),
        timeline_until: if file.is_none() && received.is_none() { value(row, 4)? } else { None },
    })
}

/// The tables that transactions of a window put behind a relation, with all that is below them. A row of `pg_inherits` that
/// is frozen keeps its transaction's number.
async fn attached(session: &Session, relation: u32, window: TransactionWindow) -> Result<Vec<u32>, SourceError> {
    let sql = closed(&format!(
        "WITH RECURSIVE {}, late AS ( \
            SELECT i.inhrelid AS oid FROM tree t, pg_catalog.pg_inherits i WHERE i.inhparent = t.oid AND WINDOW \
            UNION SELECT i.inhrelid FROM late l JOIN pg_catalog.pg_inherits i ON i.inhparent = l.oid) \
        SELECT l.oid FROM late l",
        super::catalog::TREE
    ))
    .replace("WINDOW", &sql::row_of(window));
    let rows = query(session, "asking which tables were attached", &sql, &[(&relation, Type::OID)]).await?;
    rows.iter().map(|row| value(row, 0)).collect()
}

/// Whether every table behind a relation keeps with each row which transaction wrote it: its access method is the heap. And
/// the tables that store rows.
async fn tables(session: &Session, relation: u32) -> Result<(bool, Vec<u32>), SourceError> {
    let sql = closed(&format!(
        "WITH RECURSIVE {} SELECT \
            COALESCE(pg_catalog.bool_and(c.relkind <> 'f' AND COALESCE(a.amname = 'heap'::name, true)), false), \
            COALESCE(pg_catalog.array_agg(c.oid ORDER BY c.oid) FILTER (WHERE c.relkind = ANY ('{{r,m}}')), '{{}}'::oid[]) \
        FROM tree t JOIN pg_catalog.pg_class c ON c.oid = t.oid LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam",
        super::catalog::TREE
    ));
    let rows = query(session, "asking how the rows are stored", &sql, &[(&relation, Type::OID)]).await?;
    let row = rows.first().ok_or_else(|| silent("how the rows are stored"))?;
    let mut tables: Vec<u32> = value(row, 1)?;
    if tables.is_empty() {
        // Nothing would mean that nobody noted them. No row is the relation's own.
        tables.push(relation);
    }
    Ok((value(row, 0)?, tables))
}

/// How many rows the server expects of a delta, and whether it would find all of them by indexes; `None` where nobody can
/// say.
///
/// # Errors
/// The session is lost.
///
/// # Cancel safety
/// Dropped, it leaves the session in a subtransaction.
pub(super) async fn expected(planning: &Planning, plan: &PgPlan) -> Result<Option<(u64, bool)>, SourceError> {
    const ACTION: &str = "estimating the new rows";
    let Some(delta) = plan.delta.clone() else { return Ok(None) };
    if planning.checks_leaves() || !plan.relation.reading.foreign.is_empty() {
        return Ok(None);
    }
    // New tables are read whole in any case.
    let of_known = PgPlan { delta: Some(Delta { new_tables: Vec::new(), ..delta }), ..plan.clone() };
    let statement = format!("EXPLAIN {}", sql::rows_of(&of_known, &Slice::Whole));
    let anchor = &planning.anchor;
    anchor.batch(ACTION, &format!("SAVEPOINT estimate; {BOUNDS}")).await?;
    let explained = query(anchor, ACTION, &statement, &[]).await;
    // Back in any case, which also gives up the locks of the indexes.
    anchor.batch(ACTION, "ROLLBACK TO SAVEPOINT estimate; RELEASE SAVEPOINT estimate").await?;
    let Ok(rows) = explained else { return Ok(None) };
    let lines = rows.iter().map(|row| value::<&str>(row, 0)).collect::<Result<Vec<_>, _>>()?;
    let expected = lines.first().and_then(|line| estimate::rows_of(line));
    Ok(expected.map(|rows| (rows, !lines.iter().any(|line| line.contains("Seq Scan")))))
}
