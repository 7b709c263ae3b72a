//! Who is in the way of a lock.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::catalog::{query, value};
use super::closed::closed;
use super::connect::Session;
use super::session::literal;
use crate::source::SourceError;

/// Who has, or waits for, the one lock that conflicts with ours: on the relation named, on what inherits from it, on what
/// a view is made of, or on what a session of ours has locked; for a query, on any table of the database, which `sure`
/// tells apart. Beside it, the prepared transaction that has it, or that keeps whoever waits for it waiting: `pg_locks` has
/// no process for one, and its virtual transaction is found among the locks on transaction ids.
pub(super) const IN_THE_WAY: &str = "WITH RECURSIVE ours AS MATERIALIZED (SELECT pid FROM pg_catalog.pg_stat_activity \
        WHERE datname = pg_catalog.current_database() AND pg_catalog.starts_with(application_name, $2)), \
    tree(oid) AS (SELECT pg_catalog.to_regclass($1)::oid \
        UNION SELECT b.oid FROM tree, LATERAL ( \
            SELECT i.inhrelid AS oid FROM pg_catalog.pg_inherits i WHERE i.inhparent = tree.oid \
            UNION ALL SELECT d.refobjid FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_depend d ON d.objid = r.oid \
                AND d.classid = 'pg_catalog.pg_rewrite'::regclass \
                AND d.refclassid = 'pg_catalog.pg_class'::regclass WHERE r.ev_class = tree.oid) b), \
    here AS MATERIALIZED (SELECT l.* FROM pg_catalog.pg_locks l WHERE l.locktype = 'relation' \
        AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())) \
    SELECT pid, granted, relation, sure, gid, owner FROM ( \
    SELECT l.pid, l.granted, l.relation::regclass::text AS relation, \
        (SELECT c.relkind FROM pg_catalog.pg_class c WHERE c.oid = l.relation) AS kind, \
        COALESCE(l.relation = ANY (SELECT oid FROM tree) OR l.relation = ANY (SELECT h.relation FROM here h \
            WHERE h.pid = ANY (SELECT pid FROM ours) AND h.granted AND h.mode = 'AccessShareLock'), false) AS sure, \
        p.gid, p.owner::text AS owner \
    FROM here l LEFT JOIN LATERAL (SELECT x.gid, x.owner FROM here h \
        JOIN pg_catalog.pg_locks t ON t.virtualtransaction = h.virtualtransaction AND t.pid IS NULL \
            AND t.locktype = 'transactionid' AND t.granted \
        JOIN pg_catalog.pg_prepared_xacts x ON x.transaction = t.transactionid \
        WHERE h.pid IS NULL AND h.granted AND h.relation = l.relation \
            AND (l.pid IS NOT NULL AND NOT l.granted OR h.virtualtransaction = l.virtualtransaction) LIMIT 1) p ON true \
    WHERE l.mode = 'AccessExclusiveLock' AND (l.pid IS NULL OR NOT l.pid = ANY (SELECT pid FROM ours))) AS found \
    WHERE sure OR $1 IS NULL AND kind = ANY ('{r,p,v,m,f}') ORDER BY sure DESC, granted DESC, pid LIMIT 1";

/// Adds to the error of a lock session who was in its way, where that can be found out; its transaction ends.
pub(super) async fn explain_refusal(
    session: &Session,
    error: SourceError,
    relation: Option<&str>,
    application: &str,
) -> SourceError {
    if !error.is_lock_conflict() || session.batch("leaving a failed transaction", "ROLLBACK").await.is_err() {
        return error;
    }
    let ours = format!("{application}/");
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&relation, Type::TEXT), (&ours, Type::TEXT)];
    let found = query(session, "looking who holds the lock", &closed(IN_THE_WAY), &parameters).await;
    with_culprit(error, found.unwrap_or_default().first())
}

pub(super) fn with_culprit(error: SourceError, row: Option<&Row>) -> SourceError {
    match row.map(Culprit::of) {
        Some(Ok(culprit)) => culprit.added_to(error),
        // What is not known is not told.
        Some(Err(_)) | None => error,
    }
}

/// Who is in the way of a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Culprit {
    /// Its process; a prepared transaction has none.
    pid: Option<i32>,
    granted: bool,
    relation: String,
    /// Whether the relation is one of those that the run has to lock.
    sure: bool,
    /// The prepared transaction that has the lock, or for which the process waits, and its owner.
    prepared: Option<(String, Option<String>)>,
}

impl Culprit {
    fn of(row: &Row) -> Result<Self, SourceError> {
        let gid: Option<String> = value(row, 4)?;
        let owner: Option<String> = value(row, 5)?;
        Ok(Self {
            pid: value(row, 0)?,
            granted: value(row, 1)?,
            relation: value(row, 2)?,
            sure: value(row, 3)?,
            prepared: gid.map(|gid| (gid, owner)),
        })
    }

    fn added_to(&self, mut error: SourceError) -> SourceError {
        let Self { relation, .. } = self;
        let has = if self.granted { "holds" } else { "waits for" };
        let who = match (self.pid, &self.prepared) {
            (Some(pid), _) => format!("process {pid}"),
            (None, Some(prepared)) => format!("the {}", named(prepared)),
            (None, None) => "a prepared transaction".to_owned(),
        };
        let place = if self.sure { "" } else { "in this database " };
        let behind = match (self.pid, &self.prepared) {
            (Some(_), Some(prepared)) => format!(", behind the {}", named(prepared)),
            _ => String::new(),
        };
        error.message = format!("{}: {place}{who} {has} ACCESS EXCLUSIVE on {relation}{behind}", error.message);
        if self.pid.is_none() || self.prepared.is_some() {
            let gid = self.prepared.as_ref().map_or_else(|| "'…'".to_owned(), |(gid, _)| literal(gid));
            error.hint = Some(format!(
                "no process runs a prepared transaction, and waiting does not end it: COMMIT PREPARED {gid} or ROLLBACK \
                 PREPARED {gid} does, in its own database, by its owner or a superuser (pg_prepared_xacts lists them)"
            ));
        }
        error
    }
}

/// A prepared transaction for people.
fn named((gid, owner): &(String, Option<String>)) -> String {
    let owner = owner.as_ref().map_or(String::new(), |owner| format!(" of {owner}"));
    format!("prepared transaction {}{owner}", literal(gid))
}
