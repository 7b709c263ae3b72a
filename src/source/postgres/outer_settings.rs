//! What the server, or whoever connects, has set for a session before it begins: a policy, a view or a text of a person may
//! ask for any of it.

use std::collections::BTreeMap;

use tokio_postgres::Row;

use super::catalog::{query, value};
use super::closed::closed;
use super::connect::Session;
use crate::source::SourceError;
use crate::source::setting_digests::SettingDigests;

/// Settings that no row depends on, by how their names begin, and those that each session of ours has alike.
const HARMLESS: [&str; 48] = [
    // Ours: `session`, `Meaning`.
    "datestyle",
    "intervalstyle",
    "timezone",
    "extra_float_digits",
    "array_nulls",
    "bytea_output",
    "synchronize_seqscans",
    "standard_conforming_strings",
    "row_security",
    "search_path",
    "client_encoding",
    "client_connection_check_interval",
    "client_min_messages",
    "application_name",
    "default_transaction_",
    "transaction_",
    // How a statement is planned, and with what.
    "enable_",
    "cpu_",
    "jit",
    "geqo",
    "max_",
    "min_",
    "effective_",
    "parallel_",
    "plan_cache_mode",
    "cursor_tuple_fraction",
    "constraint_exclusion",
    "recursive_worktable_factor",
    "from_collapse_limit",
    "join_collapse_limit",
    "random_page_cost",
    "seq_page_cost",
    "hash_mem_multiplier",
    "work_mem",
    "maintenance_",
    "logical_decoding_work_mem",
    "temp_",
    "stats_fetch_consistency",
    // What a server notes, and how it writes and talks.
    "log_",
    "track_",
    "debug_",
    "compute_query_id",
    "tcp_",
    "wal_",
    "vacuum_",
    "commit_",
    "synchronous_commit",
    "password_encryption",
];

/// `name=value` of what is set. Names that no module knows stand in no list of the server's, and are looked for where they are
/// set: of two the later wins.
const SET: &str = "SELECT s.name::text || '=' || COALESCE(s.setting, '')::text, false AS by_role, false AS of_role, false AS of_database \
        FROM pg_catalog.pg_show_all_settings() s \
        WHERE s.source = ANY ('{client,user,database,\"database user\"}'::text[]) \
    UNION ALL SELECT c.entry, true, d.setrole <> 0::oid, d.setdatabase <> 0::oid \
        FROM pg_catalog.pg_db_role_setting d CROSS JOIN LATERAL pg_catalog.unnest(d.setconfig) AS c(entry) \
        WHERE (d.setdatabase = 0::oid OR d.setdatabase = (SELECT b.oid FROM pg_catalog.pg_database b \
            WHERE b.datname = pg_catalog.current_database())) \
        AND (d.setrole = 0::oid OR d.setrole = (pg_catalog.quote_ident(session_user::text)::regrole)::oid) \
    ORDER BY 2, 3, 4";

/// What is set of the session's user, database and client, as far as rows may depend on it. The session sees the newest
/// catalog.
///
/// # Errors
/// The server refused or was lost.
pub(super) async fn outer_settings(session: &Session) -> Result<SettingDigests, SourceError> {
    // A session that runs share is told what it needs in each transaction.
    if session.terms().served.is_some() {
        return Ok(SettingDigests::default());
    }
    digests(session, &query(session, "asking what is set", &closed(SET), &[]).await?)
}

/// The same for a session that has the catalog of a snapshot: what was set since counts for it, and it does not see that.
///
/// # Errors
/// As [`outer_settings`].
pub(super) async fn outer_settings_now(session: &Session) -> Result<SettingDigests, SourceError> {
    digests(session, &session.ask_aside(SET, &[]).await?)
}

fn digests(session: &Session, rows: &[Row]) -> Result<SettingDigests, SourceError> {
    let mut settings = BTreeMap::new();
    for row in rows {
        let (entry, by_role): (&str, bool) = (value(row, 0)?, value(row, 1)?);
        settings.extend(assigned(entry).filter(|(name, _)| !by_role || is_custom(name)));
    }
    settings.extend(of_options(session.options().unwrap_or_default()).into_iter().filter(|(name, _)| is_custom(name)));
    Ok(settings.into_iter().filter(|(name, _)| !is_harmless(name)).collect())
}

/// Whether it is a setting of a module's, or of nobody's.
fn is_custom(name: &str) -> bool {
    name.contains('.')
}

fn is_harmless(name: &str) -> bool {
    !is_custom(name) && (name.contains("timeout") || HARMLESS.iter().any(|begin| name.starts_with(begin)))
}

fn assigned(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    Some((name.to_ascii_lowercase(), value.to_owned()))
}

/// What the options of a connection set, as the server reads them: words apart by spaces, in which a backslash stands before
/// one that is meant.
fn of_options(options: &str) -> Vec<(String, String)> {
    let (mut words, mut letters) = (vec![String::new()], options.chars());
    while let Some(letter) = letters.next() {
        match (letter, words.last_mut()) {
            (' ' | '\t' | '\n' | '\r', _) => words.push(String::new()),
            ('\\', Some(word)) => word.extend(letters.next()),
            (letter, Some(word)) => word.push(letter),
            (_, None) => {}
        }
    }
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    let mut found = Vec::new();
    while let Some(word) = words.next() {
        let text = match word.as_str() {
            "-c" => words.next(),
            _ => word.strip_prefix("--").or_else(|| word.strip_prefix("-c")).map(str::to_owned),
        };
        let set = text.as_deref().and_then(assigned);
        found.extend(set.map(|(name, value)| (name.replace('-', "_"), value)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_a_connection_are_read_as_the_server_reads_them() {
        let of = |options: &str| {
            let set = of_options(options).into_iter().map(|(name, value)| format!("{name}={value}"));
            set.collect::<Vec<_>>().join("|")
        };
        assert_eq!(of("-c App.Tenant=1  -capp.b=x\\ y --app.c-d=2"), "app.tenant=1|app.b=x y|app.c_d=2");
        assert_eq!(of(" -d 5 -c"), "");
        assert_eq!(of("-c datestyle=ISO,\\ DMY"), "datestyle=ISO, DMY");
    }

    #[test]
    fn what_carries_a_statement_is_nobody_s_reason_to_refuse() {
        for name in ["application_name", "statement_timeout", "tcp_keepalives_idle", "work_mem", "tcp_user_timeout"] {
            assert!(is_harmless(name), "{name}");
        }
        for name in ["app.tenant", "app.timeout", "xmloption", "lc_monetary", "transform_null_equals"] {
            assert!(!is_harmless(name), "{name}");
        }
    }
}
